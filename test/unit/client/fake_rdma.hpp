// The RDMA side of a fake_server: sessions on a simulated network, and single transfers on them.
//
// Threading: knobs and counters from any thread; the rest by the threads of the server. Ownership: the
// fabric and the sessions; the network outlives it. Errors: a step of the set-up that fails aborts the test.
#pragma once

#include "test/support/shared_network.hpp"
#include "wire/rdma_messages.hpp"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
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

  [[nodiscard]] std::size_t sessions() const;
  std::atomic<std::uint64_t> attached{0}, attached_dc{0}, detached{0};
  std::atomic<std::uint64_t> reads{0}, writes{0}; // transfers
  std::atomic<std::uint64_t> transfers_begun{0};

  [[nodiscard]] wire::status attach(const void* connection, const wire::attach_request& wanted,
                                    wire::attach_reply& reply);
  [[nodiscard]] wire::status detach(const void* connection, std::uint64_t session);
  void connection_ended(const void* connection);
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
    std::unique_ptr<verbs::completion_queue> completions;
    std::unique_ptr<verbs::rc_queue_pair> rc;
    std::unique_ptr<verbs::address_handle> handle;
    std::unique_ptr<verbs::dc_initiator> dc;
    verbs::dc_address target;
  };
  [[nodiscard]] wire::status transfer(std::uint64_t session, verbs::operation kind, std::uint64_t address,
                                      std::uint32_t rkey, std::span<std::byte> bytes);

  std::unique_ptr<verbs::fabric> fabric_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, session> sessions_;
  std::uint64_t last_ = 100;
};

} // namespace memkv::test
