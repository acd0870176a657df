// The RDMA side of a fake_server: sessions on a simulated network, single transfers on them, and queue pairs
// that carry messages.
//
// Threading: knobs and counters from any thread; the rest by the threads of the server. A queue pair of
// messages has a thread of its own, which hands them to the server. Ownership: the
// fabric and the sessions; the network outlives it. Errors: a step of the set-up that fails aborts the test.
#pragma once

#include "test/support/shared_network.hpp"
#include "wire/header.hpp"
#include "wire/rdma_messages.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace memkv::test {

class fake_rdma {
public:
  fake_rdma(shared_network& network, const verbs::simulated_node_options& options);
  ~fake_rdma();

  // Knobs.
  std::atomic<bool> present{true};                           // what a Hello says
  std::atomic<wire::status> attach_answer{wire::status::ok}; // other: refused
  std::atomic<bool> takes_dc{true};                          // else Unsupported
  std::atomic<wire::status> transfers_end{wire::status::ok}; // other: all fail like this
  std::atomic<bool> damage_reads{false};                     // one bit of what is placed
  std::atomic<bool> end_sessions{false};                     // requests find their session ended

  std::atomic<wire::status> connect_answer{wire::status::ok}; // other: no queue pair of messages
  std::atomic<std::uint32_t> messages_max{32};                // receives of the next one
  std::atomic<std::uint32_t> message_bytes_max{8192};
  std::atomic<bool> answers_held{false};      // messages are read, answers kept back
  std::atomic<bool> forgets_to_detach{false}; // says it has, and keeps the queue pair

  [[nodiscard]] std::size_t sessions() const;
  [[nodiscard]] std::uint64_t last_session() const noexcept { return last_; }
  /// Takes every queue pair of messages to the error state.
  void break_messages();
  std::atomic<std::uint64_t> connected{0};          // queue pairs of messages
  std::atomic<std::uint64_t> messages{0};           // that came, Pings left out
  std::atomic<std::uint64_t> messages_open_peak{0}; // that came and had no answer
  std::atomic<std::uint64_t> attached{0}, attached_dc{0}, detached{0};
  std::atomic<std::uint64_t> reads{0}, writes{0}; // transfers
  std::atomic<std::uint64_t> transfers_begun{0};
  std::atomic<std::uint64_t> last_address{0}; // that a transfer named
  std::atomic<std::uint32_t> last_rkey{0};

  [[nodiscard]] wire::status attach(const void* connection, const wire::attach_request& wanted,
                                    wire::attach_reply& reply);
  [[nodiscard]] wire::status detach(const void* connection, std::uint64_t session);
  void connection_ended(const void* connection);
  /// Gives the frames that answer one.
  using message_handler = std::function<std::vector<std::vector<std::byte>>(wire::bytes_view frame)>;
  /// `begin` is told what the client is answered, and makes the handler.
  [[nodiscard]] wire::status connect(const void* connection, const wire::connect_request& wanted,
                                     wire::connect_reply& reply,
                                     const std::function<message_handler(const wire::connect_reply&)>& begin);
  [[nodiscard]] bool has_session(const void* connection, std::uint64_t session) const;
  /// From the client's memory.
  [[nodiscard]] wire::status fetch(std::uint64_t session, std::uint64_t address, std::uint32_t rkey,
                                   std::span<std::byte> to);
  /// Into the client's memory.
  [[nodiscard]] wire::status place(std::uint64_t session, std::uint64_t address, std::uint32_t rkey,
                                   std::span<const std::byte> from);

private:
  struct session {
    const void* connection = nullptr;
    std::vector<std::byte> memory; // of messages: receives, then room for an answer
    std::unique_ptr<verbs::memory_region> region;
    std::unique_ptr<verbs::completion_queue> completions;
    std::unique_ptr<verbs::rc_queue_pair> rc;
    std::unique_ptr<verbs::address_handle> handle;
    std::unique_ptr<verbs::dc_initiator> dc;
    verbs::dc_address target;
    // Of messages:
    std::uint32_t message_bytes = 0;
    std::mutex reports_mutex;
    std::vector<verbs::report> unseen; // reports_mutex
    std::atomic<bool> over{false};
    std::thread thread;
  };
  void serve_messages(session& served, const message_handler& handler);
  [[nodiscard]] bool send_message(session& served, wire::bytes_view frame);
  /// The next report of that kind, if there is one.
  [[nodiscard]] static std::optional<verbs::report> take_report(session& served, verbs::operation kind);
  /// Waits for the report of what was posted last.
  [[nodiscard]] verbs::completion_status wait_for(session& served, verbs::operation kind);
  /// Ends sessions that were taken out of the map, with no lock held.
  static void end(std::vector<std::unique_ptr<session>> ended);
  [[nodiscard]] wire::status transfer(std::uint64_t session, verbs::operation kind, std::uint64_t address,
                                      std::uint32_t rkey, std::span<std::byte> bytes);

  std::unique_ptr<verbs::fabric> fabric_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::unique_ptr<session>> sessions_;
  std::atomic<std::uint64_t> last_{100};
};

} // namespace memkv::test
