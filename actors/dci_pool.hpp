// The DCI POOL actor: one RDMA device (or one of the threads that serve it), the sessions on it, and the
// transfers of their bytes. Interface and duties: interfaces.hpp.
//
// Operation. It opens the fabric itself, registers the memory that values lie in, and gives each transfer to
// the engine of its client: RC (a queue pair for each client), or DC where the device has it. Each round it
// takes messages, lets the engines post and report, and answers. When nothing comes it polls for a bounded
// time, as every ring actor does, and then sleeps until a message comes, the completion channel or the device
// has an event, or a deadline passes.
//
// Sessions. A session belongs to the CONNECTION through which it was attached; that one's transfers alone are
// carried out, and it ends with that one. From session_ended on nothing of the client's memory is touched.
// A session that the transport broke ends by itself.
//
// Attaching. Finding the way to a client may take the kernel a second, so threads of the pool's own do that
// (way_finder.hpp), and everybody else's transfers go on. An attach counts as a session of its connection
// meanwhile; when the connection dies before it is done, it is undone. More of them than attaching_max, or
// attaching_connection_max of one connection, or one that has waited for attach_wait_ns_max, are answered
// `busy`, and first of all those of connections and hosts that look for many who are not there. A pool that
// ends drops those that wait, and ends when those under way are through.
//
// Memory. The buffer pool is registered before anything else, that of memory drives when they are there. The
// kernel pins it page by page, so that is done by a thread of the pool's own (step_thread.hpp); values of
// such a drive are copied until it is done.
//
// Messages. A session may carry messages (verbs/message_port.hpp): each that comes goes to its REACTOR, which
// answers with at most one. How many may be without an answer is bounded; a client that sends more loses its
// session, as one does to whom an answer cannot be sent. Answers for which the engine has no slot yet wait
// here, no more of them than that.
//
// Whose memory. From move_bytes on a transfer, and what its `keep` keeps, belongs to this actor until it is
// answered, which is when the device is done with it. When the actor ends, for whatever reason, the queue
// pairs are destroyed before any `keep` is let go. When the port goes down or the device is taken away, the
// device is closed at once: who removes one waits until everybody has closed it.
//
// Threading: dedicated. Limits: sessions_max, limits::sessions_connection_max of a connection, those of the
// engines, of which one host has three quarters; a transfer beyond them is answered `unavailable`. Errors:
// dci_pool_failed, when the device is closed, then it ends.
#pragma once

#include "actors/interfaces.hpp"
#include "actors/rail_past.hpp"
#include "actors/ring_actor.hpp"
#include "actors/step_thread.hpp"
#include "actors/way_finder.hpp"
#include "verbs/dci_scheduler.hpp"
#include "verbs/fabric.hpp"
#include "verbs/rc_scheduler.hpp"

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace memkv::actors {

struct dci_pool_settings {
  std::uint32_t rail = 0, rails = 1;
  std::function<verbs::status(std::unique_ptr<verbs::fabric>& out, std::vector<std::string>& warnings)> open;
  /// What it cannot do without: the buffer pool. More comes by register_memory.
  std::vector<register_memory> memory;
  verbs::rc_scheduler_options rc;
  verbs::dci_scheduler_options dc;
  std::uint32_t sessions_max = 65'536; // of both kinds; RC has a bound of its own besides
  std::uint32_t attaching_max = 1024;
  std::uint32_t attaching_connection_max = 4;
  std::uint32_t attaching_threads = 32;
  std::uint64_t attach_wait_ns_max = 5'000'000'000;
  std::uint32_t transfer_bytes_max = 2U << 20U; // of each engine, and what the device can
  std::optional<std::uint64_t> spin_ns_max{};   // as in ring_actor
  server_actor server;
  std::shared_ptr<rail_past> past; // never null in a server
};

class dci_pool final : public ring_actor {
public:
  dci_pool(caf::actor_config& configuration, dci_pool_settings settings);
  ~dci_pool() override;
  const char* name() const override { return "dci-pool"; }

private:
  class watch;

  /// One way to move bytes.
  struct engine_seat {
    verbs::peer_address::kind kind = verbs::peer_address::kind::rc;
    std::unique_ptr<verbs::transfer_engine> engine;
    std::unique_ptr<watch> completions;
    std::unordered_map<verbs::client_id, std::uint64_t> sessions;
    /// Sessions and attaches under way, by where their connections come from.
    std::map<peer_address, std::uint32_t> of_hosts;
    verbs::message_port* messages = nullptr; // of the engine; null: it has none
    std::vector<verbs::outcome> held_back;   // until the device is closed
  };
  /// Of a session that carries messages.
  struct mailbox {
    caf::actor reactor;
    std::uint32_t open_max = 0; // messages without an answer
    std::uint32_t open = 0;
    std::deque<std::vector<std::byte>> waiting; // answers for which there was no slot
  };
  struct session {
    std::size_t seat = 0;
    verbs::client_id client = 0;
    caf::actor_addr owner;
    peer_address host{}; // that the connection comes from
    bool ending = false;
    bool told = false;                   // its end is nobody's business any more
    std::vector<std::uint64_t> requests; // that wait for the end
    std::optional<mailbox> messages;
  };
  /// A client that is being attached.
  struct attaching {
    std::size_t seat = 0;
    attach_session wanted; // its pool is this one, and is not kept
    std::unique_ptr<verbs::attachment> made;
    bool abandoned = false; // its connection is gone
  };
  /// A CONNECTION that is monitored.
  struct owner {
    std::unordered_set<std::uint64_t> sessions;
    std::uint32_t attaching = 0;
  };
  struct registered {
    std::span<std::byte> range;
    std::unique_ptr<verbs::memory_region> region;
    std::shared_ptr<void> keep;
  };
  struct registering {
    register_memory wanted;
    std::unique_ptr<verbs::slow_step> step;
  };
  struct answer_list {
    caf::actor to;
    std::vector<memory_transfer_ptr> transfers;
    std::vector<session_message> messages;
  };

  settings ring_settings() const override {
    return {.entries = 64, .tick_ns = 20'000'000, .spin_ns_max = settings_.spin_ns_max};
  }
  void on_no_ring(const std::string& problem) override;
  bool on_start() override;
  caf::behavior make_handlers() override;
  bool on_turn() override;
  void on_tick(std::uint64_t now_ns) override;
  bool look_beside() override;
  bool arm_beside() override;
  [[nodiscard]] std::uint64_t next_turn_ns() const override;
  void on_stop() override;
  void on_end() override;

  [[nodiscard]] verbs::status make_engines();
  void fail(const std::string& reason);
  void tell_of_failure();
  void tell_server();
  [[nodiscard]] verbs::status add_memory(const register_memory& message);
  void keep_memory(registered added);
  void warn_of_copies(const verbs::status& why) const;
  void begin_registration(const register_memory& message);
  void finish_registration(registering one);
  /// True: some were finished.
  bool finish_registrations();
  [[nodiscard]] const registered* region_of(const std::byte* data, std::uint64_t bytes) const;
  void look_at_device();

  void attach(const attach_session& message);
  [[nodiscard]] wire::status start_attach(const attach_session& message);
  [[nodiscard]] wire::status finish_attach(attaching& one, session_attached& answer);
  [[nodiscard]] wire::status refusal(const verbs::status& why) const;
  /// True: some were finished.
  bool finish_attaches();
  void answer_attach(const attach_session& wanted, session_attached answer);
  /// One more, or one less, of that host.
  [[nodiscard]] static bool host_may_have_more(const engine_seat& seat, const peer_address& host);
  static void count_out(engine_seat& seat, const peer_address& host);
  void forget_owner_if_idle(const caf::actor_addr& which);
  void detach(const detach_session& message);
  void end_session(session& which);
  void owner_ended(caf::actor_id owner);
  void session_is_over(std::uint64_t id);
  void take(const memory_transfer_ptr& transfer);
  void finish(const memory_transfer_ptr& transfer, wire::status result);
  void take_outcomes(std::size_t seat);
  void take_outcome(std::size_t seat, const verbs::outcome& one);
  [[nodiscard]] answer_list& answers_to(const caf::actor& reactor);
  [[nodiscard]] bool take_messages(std::size_t seat);
  void take_answer(const session_message& answer);
  enum class sending : std::uint8_t { done, no_slot, impossible };
  [[nodiscard]] sending send_to(const session& which, std::span<const std::byte> bytes);
  /// True: some could be sent.
  [[nodiscard]] bool send_waiting();
  /// Lets the engines work, and sends what there is to answer. True: something came.
  bool work();
  void send_answers();
  [[nodiscard]] rail_counters counted() const;
  void count_engines(rail_counters& out) const;
  [[nodiscard]] dci_pool_facts facts() const;

  dci_pool_settings settings_;
  caf::actor self_;
  // In the order in which they are made; taken down from the end.
  std::unique_ptr<verbs::fabric> fabric_;
  std::vector<registered> memory_; // by address
  std::vector<registering> registering_;
  std::optional<step_thread> registrar_;
  std::unique_ptr<watch> registered_;
  std::vector<engine_seat> seats_;
  std::uint32_t transfer_bytes_max_ = 0;
  std::unique_ptr<watch> device_events_;

  std::unordered_map<std::uint64_t, session> sessions_;
  std::unordered_map<caf::actor_id, owner> owners_;
  std::unordered_map<std::uint64_t, attaching> attaching_;
  std::uint64_t last_attach_ = 0;
  std::optional<way_finder> ways_;
  std::unique_ptr<watch> ways_found_;
  std::vector<way_finder::outcome> found_;
  /// With the engines, by cookie.
  std::vector<memory_transfer_ptr> transfers_;
  std::vector<std::uint32_t> free_transfers_;
  std::vector<verbs::outcome> outcomes_;
  std::vector<answer_list> answers_;
  std::vector<verbs::message> arrived_;
  std::vector<std::uint64_t> sessions_waiting_; // with answers for which there was no slot
  rail_counters counters_;                      // without those that the engines count
  std::uint64_t next_log_ns_ = 0;
  std::string failed_; // why it ends
  bool closing_ = false;
};

} // namespace memkv::actors
