// Moves bytes between this machine's buffers and the memory of many clients over few DC initiators.
//
// Operation. A client is attached once, and has a queue of transfers. run() takes reports, drops what is
// too late, rebuilds initiators that failed, and posts what fits: one doorbell an initiator, however many
// transfers and clients are in the batch.
//   Fairness: deficit round robin by bytes between clients that have something queued. A transfer below
//   cost_bytes_min counts as one of that size, since its cost is not its bytes.
//   Choice of an initiator: the one connected to the client already, until it has taken `quota` transfers
//   in a row for it while others waited; else the next one in turn that has credit, idle ones first, because
//   work for one peer waits for work to another that was posted before it.
//   Credit: an initiator has sends_max requests posted and bytes_posted_max bytes. While a client is the only
//   one that has something queued, small transfers go beyond the first of these, up to small_sends_max and
//   small_bytes_max: so a batch of a client that is alone is one doorbell for each small_bytes_max of it.
//
// Each transfer that submit took has exactly one outcome, and **with its outcome its buffer is the caller's
// again, not before**: not when its deadline passes, not when its client is detached. Once the outcome
// session_ended of a client is there, none of its memory is touched any more.
//
// Deadlines. A transfer that is still queued is dropped when its deadline has passed. One that was posted
// cannot be taken back: when its deadline has passed, and posted_ns_min since it was posted, its
// initiator is failed, which ends everything on it. An initiator whose flushed transfers are not
// reported within drain_ns_max is destroyed, which ends them as well. So every outcome comes within
// max(deadline, posted_ns_min) + drain_ns_max and the pauses between calls of run.
//
// Errors. An error report takes the initiator out of service. When all it had was reported it is walked back,
// or made anew when that fails, with growing pauses. What was flushed with it is retryable. When the error is
// the peer's doing, its session is broken: what it has queued is answered at once, submit refuses, and
// the owner, told by session_broken, is to detach it. Otherwise a dead client would take an initiator down
// again and again, with everybody's transfers on it.
//
// Threading: one thread, that of the fabric. Ownership: the fabric outlives the scheduler; buffers and their
// memory regions are the caller's, and stay until the outcome. Errors: values. Limits: all in the options;
// memory for transfers_max is taken at once. Does not: wait, split transfers, verify bytes, or retry.
#pragma once

#include "verbs/deadline_wheel.hpp"
#include "verbs/fabric.hpp"
#include "verbs/number_list.hpp"
#include "verbs/transfer_engine.hpp"

#include <array>
#include <memory>
#include <vector>

namespace memkv::verbs {

struct dci_scheduler_options {
  std::uint32_t initiators = 8; // 1 to 4096
  std::uint32_t sends_max = 64; // posted on one initiator: its credit
  std::uint64_t bytes_posted_max = 16ULL
                                   << 20; // the same in bytes; a single transfer is posted whatever it has
  // Both credits of a client that nobody waits beside, if they are more. Cut to what the device can.
  std::uint32_t small_sends_max = 1024;
  std::uint64_t small_bytes_max = 4ULL << 20;
  std::uint32_t quota = 32;
  std::uint32_t signal_interval = 16; // of a batch, each so many'th request is signalled
  std::uint32_t clients_max = 65'536;
  std::uint32_t transfers_max = 65'536; // of all clients, queued and posted
  std::uint32_t transfers_client_max = 4096;
  std::uint32_t transfer_bytes_max = 2U << 20U; // memory.block_size
  std::uint64_t quantum_bytes = 256ULL << 10;
  std::uint32_t cost_bytes_min = 1024;
  std::uint64_t posted_ns_min = 5'000'000'000;
  std::uint64_t drain_ns_max = 2'000'000'000;
  std::uint64_t rebuild_ns_min = 10'000'000; // the pause after an attempt that failed; doubled up to a second
};

struct dci_statistics {
  std::uint64_t clients = 0; // attached, those that are ending included
  std::uint64_t queued = 0;
  std::uint64_t posted = 0;
  std::uint32_t initiators_ready = 0;
  std::uint64_t doorbells = 0;
  std::uint64_t transfers_done = 0;
  std::uint64_t bytes_done = 0;
  std::uint64_t attachments = 0; // an initiator was given another client
  std::uint64_t rebuilt = 0;     // initiators walked back or made anew
  std::uint64_t destroyed = 0;   // initiators that would not drain or not recover
  std::array<std::uint64_t, completion_status_last + 1> reports{}; // by status
};

class dci_scheduler final : public transfer_engine {
public:
  static status create(fabric& device, const dci_scheduler_options& options,
                       std::unique_ptr<dci_scheduler>& out);
  ~dci_scheduler() override;

  using transfer_engine::attach;
  status attach(const endpoint& port, std::uint32_t target_number, std::uint64_t key, client_id& out);
  // transfer_engine
  [[nodiscard]] status check_address(const peer_address& peer) const override;
  status start_attach(const peer_address& peer, std::unique_ptr<attachment>& out) override;
  status finish_attach(std::unique_ptr<attachment> made, client_id& out, peer_address& own) override;
  status submit(client_id client, const transfer& one) override;
  status detach(client_id client, std::vector<outcome>& out) override;
  void run(std::uint64_t now_ns, std::vector<outcome>& out) override;
  void close(std::vector<outcome>& out) override;
  [[nodiscard]] std::uint64_t next_ns() const noexcept override;
  [[nodiscard]] completion_queue& completions() noexcept override { return *completions_; }
  [[nodiscard]] engine_statistics engine_facts() const noexcept override;

  [[nodiscard]] dci_statistics statistics() const noexcept;
  /// Of initiators that exist. For logs and tests.
  [[nodiscard]] std::vector<std::uint32_t> queue_pair_numbers() const;

private:
  static constexpr std::uint32_t none = ~0U;
  class dc_attachment;

  enum class place_of : std::uint8_t { free, queued, posted };
  struct slot {
    transfer what;
    std::uint32_t client = none;
    std::uint32_t initiator = none;
    std::uint32_t next = none; // in its client's queue, or on its initiator
    std::uint32_t previous = none;
    place_of where = place_of::free;
  };
  using list = number_list;
  enum class session : std::uint8_t { free, open, broken, ending };
  struct client {
    session state = session::free;
    std::uint32_t generation = 0;
    std::unique_ptr<address_handle> handle;
    dc_address address;
    list queue;
    std::uint32_t posted = 0;
    std::uint64_t deficit = 0;
    bool in_turn = false; // got its quantum, and is not done with it
    bool active = false;
    std::uint32_t next_active = none;
    std::uint32_t previous_active = none;
    std::uint32_t initiator = none;
  };
  enum class service : std::uint8_t { ready, draining, missing };
  struct initiator {
    std::unique_ptr<dc_initiator> pair;
    service state = service::missing;
    list posted;
    std::uint64_t bytes = 0;
    std::uint32_t peer = none;
    std::uint32_t quota = 0;
    std::uint64_t since_ns = 0; // draining
    std::uint64_t again_ns = 0; // missing: when to try
    std::uint64_t pause_ns = 0;
    std::vector<work_request> batch;
  };

  dci_scheduler(fabric& device, const dci_scheduler_options& options);

  [[nodiscard]] client* find(client_id id, std::uint32_t& index) noexcept;
  [[nodiscard]] client_id id_of(std::uint32_t index) const noexcept;
  void append(list& to, std::uint32_t number) noexcept;
  void unlink(list& from, std::uint32_t number) noexcept;
  void activate(std::uint32_t index) noexcept;
  void deactivate(std::uint32_t index) noexcept;

  status make_initiator(initiator& one);
  void take_reports(std::vector<outcome>& out);
  void ended(std::uint32_t number, completion_status status, std::vector<outcome>& out);
  void answer(std::uint32_t number, transfer_result result, completion_status status,
              std::vector<outcome>& out);
  void drop_queue(std::uint32_t index, transfer_result result, std::vector<outcome>& out);
  void break_session(std::uint32_t index, std::vector<outcome>& out);
  void end_session_if_done(std::uint32_t index, std::vector<outcome>& out);
  void expire(std::vector<outcome>& out);
  void start_draining(initiator& one);
  void destroy(initiator& one, std::vector<outcome>& out);
  void rebuild(std::vector<outcome>& out);
  void fill(std::vector<outcome>& out);
  [[nodiscard]] bool has_room(const initiator& one, std::uint64_t bytes) const noexcept;
  [[nodiscard]] bool alone() const noexcept { return active_.count == 1; }
  [[nodiscard]] std::uint32_t choose(std::uint32_t index, std::uint64_t bytes) noexcept;
  void assign(std::uint32_t number, std::uint32_t chosen);
  void ring(initiator& one, std::vector<outcome>& out);

  fabric& device_;
  dci_scheduler_options options_;
  std::unique_ptr<completion_queue> completions_;
  std::vector<client> clients_; // before the initiators, whose requests name their handles
  std::uint32_t attaching_ = 0;
  list free_clients_; // linked through next_active
  std::vector<slot> slots_;
  std::vector<std::uint32_t> free_slots_; // the last one is still in the processor's cache
  deadline_wheel wheel_;
  std::vector<initiator> initiators_;
  list active_; // linked through next_active and previous_active
  std::uint32_t cursor_ = 0;
  std::uint64_t now_ns_ = 0;
  std::vector<std::uint32_t> expired_;
  std::array<report, 64> reports_; // here because clearing it costs more than a transfer
  dci_statistics statistics_;
};

} // namespace memkv::verbs
