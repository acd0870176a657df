// The SERVER actor. Interface and duties: interfaces.hpp.
#pragma once

#include "actors/admission.hpp"
#include "actors/change_filter.hpp"
#include "actors/drive_body.hpp"
#include "actors/drive_past.hpp"
#include "actors/drive_resetter.hpp"
#include "actors/interfaces.hpp"
#include "actors/membership.hpp"
#include "actors/rail_past.hpp"
#include "actors/reactor.hpp"
#include "actors/server_options.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace memkv::actors {

/// What start_server says of a start that was ended by a stop.
inline constexpr const char* stopped_while_starting = "the server was stopped while it started";

/// What the threads outside the actor system may see of the server. Written by SERVER only.
struct server_board {
  std::mutex lock;
  std::map<std::string, caf::actor> actors;
  std::atomic<std::uint32_t> drives_online{0};
  std::promise<std::string> started; // empty: serving; else why not
  std::atomic<bool> orderly{false};
  std::atomic<bool> stopping{false}; // what is not online need not come any more
  std::string ended_because;         // under the lock; why it stopped without being told to
  std::shared_ptr<admission> door;
};

struct server_state {
  static inline const char* name = "server";

  enum class phase : std::uint8_t {
    opening,
    starting,
    serving,
    finishing_requests,
    closing_rails,
    closing_drives,
    ended
  };

  struct drive_seat {
    caf::actor actor;               // null while offline
    std::weak_ptr<drive_body> body; // of the last incarnation
    std::shared_ptr<drive_past> past = std::make_shared<drive_past>();
    std::shared_ptr<drive_body> survivor; // memory: kept for the next incarnation
    std::uint32_t failures = 0;           // in the drive's registry, and those that are not in it yet
    bool counted = false;                 // the registry was read when the drive was opened, or it has none
    engine::drive_failures unnoted;       // not in the registry yet: noted when the drive opens again
    std::uint32_t attempts = 0;           // to open it again, in a row
    std::uint64_t epoch = 0;              // it entered last, durably
    std::uint64_t epoch_least = 0;        // of an older one the drive starts empty
    std::uint64_t away_since_ns = 0;      // 0: online
    std::uint64_t opened_ns = 0;
    std::uint64_t reopen_at_ns = 0; // 0: not waiting
    /// Since when it waits for its device while it is opened (store_options); the root looks at it then.
    std::shared_ptr<std::atomic<std::uint64_t>> waits_since_ns =
        std::make_shared<std::atomic<std::uint64_t>>(0);
    bool silent = false;   // the start does not wait for it any more
    bool alive = false;    // an incarnation has been spawned and not ended
    bool online = false;   // open and recovered
    bool admitted = false; // and the reactors know it
    bool blacklisted = false;
    bool unclosed = false;   // this process has opened it and not closed it in order since
    std::string reason;      // of the failure that is being dealt with
    std::string last_reason; // why it is not online, for people
    std::uint64_t first_failed_ns = 0, last_failed_ns = 0; // by the wall clock
    // A reset is wanted, waits for the last incarnation's device, or is under way.
    std::shared_ptr<reset_progress> reset; // null: none
    bool reset_secure = false;
    std::string reset_problem; // of the last one; empty: it ended well, or none began
    caf::actor resetter;       // null: not begun
  };
  /// Of a reactor, or of the listener.
  struct ring_seat {
    caf::actor actor;                // null while there is none
    bool alive = false;              // spawned and not ended
    bool started = false;            // and at work
    std::uint32_t failures = 0;      // to start, in a row
    std::uint64_t respawn_at_ns = 0; // 0: not waiting
    std::string problem;             // why it did not start
  };
  struct rail_seat {
    caf::actor actor;           // of the DCI POOL; null while there is none
    bool alive = false;         // spawned and not ended
    bool online = false;        // and the reactors know it
    bool failed = false;        // it said why it ends
    bool device_away = false;   // nobody is missing: the device is
    std::uint32_t attempts = 0; // to start it again, in a row
    std::uint64_t unopened = 0; // pools that ended since their device could not be opened
    std::uint64_t opened_ns = 0;
    std::uint64_t again_ns = 0; // 0: not waiting
    std::string problem;        // why it is not online
    std::vector<std::span<std::byte>> reachable;
    std::shared_ptr<rail_past> past = std::make_shared<rail_past>();
  };

  server_options options;
  std::shared_ptr<server_board> board;
  std::shared_ptr<admission> door;
  std::shared_ptr<reactor_shared> shared;
  int listening_socket = -1;
  phase now = phase::opening;
  std::uint64_t phase_end_ns = 0;
  std::vector<drive_seat> drives;
  std::vector<ring_seat> reactors;
  ring_seat listener;
  std::vector<rail_seat> rails;
  bool accepting = false;           // reactors and listener were spawned
  std::uint64_t rails_until_ns = 0; // then the start waits no longer for rails
  caf::actor evictor;
  caf::actor trim_batcher; // null: no drive is discarded from
  caf::actor license_watcher;
  caf::actor admin_gateway;
  std::map<std::string, std::uint64_t> spawned; // how often, by name of the actor
  membership members;
  std::shared_ptr<change_filter> changed; // null while all drives take part
  std::uint64_t next_fault_warning_ns = 0;
  /// Of the step of a change of members that is being carried out.
  std::uint64_t step_serial = 0;
  bool step_sent = false;
  std::set<std::uint32_t> step_drives; // that have not finished it
  std::set<caf::actor_id> step_reactors;
  /// Parts of striped blocks found by recoveries, until their heads were looked for; and those whose heads
  /// may be on drives that are away.
  std::vector<engine::drive_store::recovered_part> recovered, undecided;
};

server_actor::behavior_type server(server_actor::stateful_pointer<server_state> self, server_options options,
                                   int listening_socket, std::shared_ptr<reactor_shared> shared,
                                   std::shared_ptr<server_board> board);

} // namespace memkv::actors
