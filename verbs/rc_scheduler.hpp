// Moves bytes between this machine's buffers and the memory of clients over an RC queue pair for each.
//
// Operation. A client is attached once, which makes and connects a queue pair, and has a queue of transfers.
// run() takes reports, drops what is too late, and posts what fits: one doorbell a client, however many of
// its messages and transfers are in the batch.
//   Fairness: deficit round robin by bytes between clients that have something queued. A transfer below
//   cost_bytes_min counts as one of that size, since its cost is not its bytes.
//   Bounds: on requests and bytes that are posted, of all clients and of one. Small transfers of a client go
//   beyond sends_max, up to the depth of its queue pair, while they are at most small_bytes_max together. A
//   client that has something posted gets no more than four times what is left for all, so that those who
//   are slow never have all of it: one alone takes at most four fifths, two four ninths each.
//
// Deadlines. A transfer that is still queued is dropped when its deadline has passed. One that was posted
// cannot be taken back: when its deadline has passed, and posted_ns_min since it was posted, its queue pair
// is failed, which ends everything on it. When the transfers that this flushes are not reported within
// drain_ns_max, the queue pair is destroyed, which ends them as well. So every outcome comes within
// max(deadline, posted_ns_min) + drain_ns_max and the pauses between calls of run.
//
// Errors. Whatever is reported with an error, or fails a queue pair, breaks the session: an RC queue pair
// that failed is of no use before both sides have exchanged new addresses. What the client has queued is
// answered at once, as retryable; submit refuses; and the owner, told by session_broken, is to detach it. The
// queue pair is destroyed when its transfers were reported. Nobody else notices.
//
// Messages: see message_port.hpp. Their memory, receives and slots to send from, is the engine's own and
// registered when a session is attached; a message that the peer has not taken within posted_ns_min fails
// the queue pair.
//
// Room. Queue pairs reserve room in the one completion queue. What the device has of it is shared out when
// the engine is made: messages get message_reports_max, at most a quarter, and each of clients_max as many
// requests as the rest allows, from sends_min to sends_max. Where that is too little for clients_max, attach
// answers queue_full earlier. What is left then, at most deep_reports_max, makes queue pairs deeper, up to
// small_sends_max: each client that comes gets an eighth of it at most, and gives it back when it goes.
//
// Threading: one thread, that of the fabric. Ownership: the fabric outlives the scheduler; buffers and their
// memory regions are the caller's, and stay until the outcome. Errors: values. Limits: all in the options;
// memory for transfers_max is taken at once. Does not: wait, split transfers, verify bytes, retry, or bring a
// queue pair back.
#pragma once

#include "verbs/deadline_wheel.hpp"
#include "verbs/fabric.hpp"
#include "verbs/message_port.hpp"
#include "verbs/number_list.hpp"
#include "verbs/transfer_engine.hpp"

#include <deque>
#include <memory>
#include <vector>

namespace memkv::verbs {

struct rc_scheduler_options {
  std::uint32_t clients_max = 4096;
  std::uint32_t sends_max = 32; // transfers posted for one client, where the device has the room
  std::uint32_t sends_min = 4;
  std::uint64_t bytes_client_max = 16ULL
                                   << 20; // the same in bytes; a single transfer is posted whatever it has
  std::uint32_t small_sends_max = 1024;   // posted for one client while they are no more than
  std::uint64_t small_bytes_max = 4ULL << 20;
  std::uint32_t deep_reports_max = 65'536;       // requests of all clients beyond sends_max of each
  std::uint32_t posted_max = 8192;               // transfers posted for all clients
  std::uint64_t bytes_posted_max = 256ULL << 20; // the same in bytes
  std::uint32_t signal_interval = 16;            // of a batch, each so many'th request is signalled,
  std::uint64_t signal_bytes = 256ULL << 10;     // and each after so many bytes
  std::uint32_t transfers_max = 65'536;          // of all clients, queued and posted
  std::uint32_t transfers_client_max = 4096;
  std::uint32_t transfer_bytes_max = 2U << 20U; // memory.block_size; cut to what the device can
  std::uint64_t quantum_bytes = 256ULL << 10;
  std::uint32_t cost_bytes_min = 1024;
  std::uint64_t posted_ns_min = 5'000'000'000;
  std::uint64_t drain_ns_max = 2'000'000'000;
  std::uint32_t message_reports_max = 32'768;     // sends and receives for messages of all clients
  std::uint64_t message_memory_max = 64ULL << 20; // bytes, of all clients
  std::uint32_t message_sends_max = 64;           // messages of one client on the way
};

struct rc_statistics {
  engine_statistics engine;
  std::uint32_t sends_client = 0; // transfers that each client may have posted, on this device
  std::uint32_t deep_free = 0;    // that are left for deeper queue pairs
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t message_memory = 0; // bytes registered now
};

/// The address that a fabric's RC queue pair has or takes, as it travels in messages; and back.
[[nodiscard]] peer_address to_peer_address(const rc_address& address) noexcept;
[[nodiscard]] rc_address to_rc_address(const peer_address& address) noexcept;

class rc_scheduler final : public transfer_engine, public message_port {
public:
  static status create(fabric& device, const rc_scheduler_options& options,
                       std::unique_ptr<rc_scheduler>& out);
  ~rc_scheduler() override;

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
  [[nodiscard]] engine_statistics engine_facts() const noexcept override { return statistics_.engine; }
  // message_port
  [[nodiscard]] status check_rooms(const message_room& theirs, const message_room& ours) const override;
  status start_attach_with_messages(const peer_address& peer, const message_room& theirs,
                                    const message_room& ours, std::unique_ptr<attachment>& out) override;
  /// All of attaching, one part after the other.
  status attach_with_messages(const peer_address& peer, const message_room& theirs, const message_room& ours,
                              client_id& out, peer_address& own);
  status send_message(client_id client, std::span<const std::byte> bytes) override;
  void take_messages(std::vector<message>& out) override;

  [[nodiscard]] rc_statistics statistics() const noexcept { return statistics_; }
  /// Of the client's queue pair; 0 when it has none any more. For logs and tests.
  [[nodiscard]] std::uint32_t queue_pair_number(client_id client) const noexcept;

private:
  static constexpr std::uint32_t none = ~0U;
  class rc_attachment;

  enum class place_of : std::uint8_t { free, queued, posted };
  struct slot {
    transfer what;
    std::uint32_t client = none;
    std::uint32_t next = none; // in its client's queue, among what that has posted, or among the free ones
    std::uint32_t previous = none;
    place_of where = place_of::free;
  };
  using list = number_list;
  /// Counters of messages run on; a message's slot is its counter modulo their number.
  struct mailbox {
    message_room theirs;
    message_room ours;
    std::uint32_t slots = 0;
    std::vector<std::byte> memory; // receives, then slots to send from
    std::unique_ptr<memory_region> region;
    std::vector<std::uint32_t> lengths;
    std::vector<std::uint64_t> posted_ns;
    std::uint64_t written = 0; // by send_message
    std::uint64_t posted = 0;
    std::uint64_t reported = 0;
    std::uint64_t received = 0;
  };
  enum class session : std::uint8_t { free, open, broken, ending };
  struct client {
    session state = session::free;
    std::uint32_t generation = 0;
    std::unique_ptr<mailbox> messages;
    std::unique_ptr<rc_queue_pair> pair; // goes before the memory of messages
    std::uint32_t depth = 0;             // transfers that the queue pair takes
    bool draining = false;
    std::uint64_t since_ns = 0; // draining
    list queue;
    list posted;
    std::uint64_t bytes = 0;    // posted
    std::uint32_t fresh = none; // the first in `posted` that is not with the device yet
    bool in_batch = false;
    std::uint64_t deficit = 0;
    bool in_turn = false; // got its quantum, and is not done with it
    bool blocked = false; // at its own bounds; goes on with a report
    bool active = false;
    std::uint32_t next_active = none;
    std::uint32_t previous_active = none;
    std::uint32_t next_draining = none;
    std::uint32_t previous_draining = none;
  };

  rc_scheduler(fabric& device, const rc_scheduler_options& options);

  [[nodiscard]] client* find(client_id id, std::uint32_t& index) noexcept;
  [[nodiscard]] client_id id_of(std::uint32_t index) const noexcept;
  void append(list& to, std::uint32_t number) noexcept;
  void unlink(list& from, std::uint32_t number) noexcept;
  void activate(std::uint32_t index) noexcept;
  void deactivate(std::uint32_t index) noexcept;
  void append_draining(std::uint32_t index) noexcept;
  void unlink_draining(std::uint32_t index) noexcept;

  status start_client(const peer_address& peer, std::unique_ptr<mailbox> messages,
                      std::unique_ptr<attachment>& out);
  [[nodiscard]] std::uint32_t take_depth(std::uint32_t beside) noexcept;
  void give_depth_back(std::uint32_t depth) noexcept;
  void count_mailbox(const mailbox* one, bool there) noexcept;
  /// Of a session whose peer has `theirs`.
  [[nodiscard]] std::uint32_t slots_for(const message_room& theirs) const noexcept;
  status make_mailbox(const message_room& theirs, const message_room& ours, std::unique_ptr<mailbox>& out);
  static status post_receive(rc_queue_pair& pair, const mailbox& messages, std::uint32_t index,
                             std::uint32_t number);
  void take_reports(std::vector<outcome>& out);
  void take_message_report(const report& one, std::vector<outcome>& out);
  void ended(std::uint32_t number, completion_status status, std::vector<outcome>& out);
  void answer(std::uint32_t number, transfer_result result, completion_status status,
              std::vector<outcome>& out);
  void drop_queue(std::uint32_t index, transfer_result result, std::vector<outcome>& out);
  void fail(std::uint32_t index, std::vector<outcome>& out);
  void destroy_pair(std::uint32_t index);
  void destroy_with_posted(std::uint32_t index, std::vector<outcome>& out);
  void finish(std::uint32_t index, std::vector<outcome>& out);
  void finish_those_done(std::vector<outcome>& out);
  void expire(std::vector<outcome>& out);
  void fill(std::vector<outcome>& out);
  void add_to_batch(std::uint32_t index);
  [[nodiscard]] bool has_room(std::uint64_t bytes) const noexcept;
  [[nodiscard]] bool within_bounds(const client& one, std::uint64_t bytes) const noexcept;
  [[nodiscard]] bool within_share(const client& one, std::uint64_t bytes) const noexcept;
  void assign(std::uint32_t number);
  void add_messages(client& owner, std::uint32_t index);
  void messages_posted(client& owner, std::uint32_t index, std::uint32_t count);
  void ring(std::uint32_t index, std::vector<outcome>& out);

  fabric& device_;
  rc_scheduler_options options_;
  std::unique_ptr<completion_queue> completions_;
  std::uint32_t pairs_max_ = 0; // for which the completion queue has room
  std::uint32_t pairs_ = 0;     // those of clients that are being attached included
  std::uint32_t attaching_ = 0;
  std::uint32_t message_reserved_ = 0; // of message_reports_max
  std::deque<client> clients_;
  std::uint32_t free_client_ = none; // linked through next_active
  std::vector<slot> slots_;
  list free_slots_;
  deadline_wheel wheel_;         // of transfers
  deadline_wheel message_wheel_; // of clients: their oldest message on the way
  list active_;                  // of clients
  list draining_;                // of clients, the longest first
  std::uint64_t bytes_posted_ = 0;
  std::vector<std::uint32_t> in_batch_; // clients for whom something is to be posted
  std::vector<std::uint32_t> done_;     // clients whose queue pair may have nothing to report any more
  std::vector<work_request> batch_;
  std::vector<local_range> message_ranges_;
  struct arrival {
    message what;
    std::uint32_t receive = 0;
  };
  std::vector<arrival> arrivals_;
  std::vector<client_id> failing_; // could not be given receives again
  std::uint64_t now_ns_ = 0;
  std::vector<std::uint32_t> expired_;
  rc_statistics statistics_;
};

} // namespace memkv::verbs
