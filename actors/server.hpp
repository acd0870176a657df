// The SERVER actor. Interface and duties: interfaces.hpp.
#pragma once

#include "actors/admission.hpp"
#include "actors/drive_body.hpp"
#include "actors/interfaces.hpp"
#include "actors/reactor.hpp"
#include "actors/server_options.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace memkv::actors {

/// What the threads outside the actor system may see of the server. Written by SERVER only.
struct server_board {
  std::mutex lock;
  std::map<std::string, caf::actor> actors;
  std::atomic<std::uint32_t> drives_online{0};
  std::promise<std::string> started; // empty: serving; else why not
  std::atomic<bool> orderly{false};
  std::shared_ptr<admission> door;
};

struct server_state {
  static inline const char* name = "server";

  enum class phase : std::uint8_t { opening, starting, serving, finishing_requests, closing_drives, ended };

  struct drive_seat {
    caf::actor actor;                     // null while offline
    std::weak_ptr<drive_body> body;       // of the last incarnation
    std::shared_ptr<drive_body> survivor; // memory: kept for the next incarnation
    std::uint32_t failures = 0;           // of the device: they count towards the flap threshold
    std::uint64_t opened_ns = 0;
    std::uint64_t reopen_at_ns = 0; // 0: not waiting
    bool alive = false;             // an incarnation has been spawned and not ended
    bool online = false;
    std::string reason;
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
  caf::actor evictor;
  /// Parts of striped blocks found by recoveries, until their heads were looked for.
  std::vector<engine::drive_store::recovered_part> recovered;
};

server_actor::behavior_type server(server_actor::stateful_pointer<server_state> self, server_options options,
                                   int listening_socket, std::shared_ptr<reactor_shared> shared,
                                   std::shared_ptr<server_board> board);

} // namespace memkv::actors
