// What BatchWrite and BatchRead have in common: a session, transfers in flight within bounds, and an answer
// when every item is decided. Read is a BatchRead of one item; Allocate a request that lives on, with the
// value as its item (rdma_tokens.hpp).
//
// The rule of both: no item is answered while a transfer of it is in flight, so that no byte of the client's
// memory is touched behind the answer. A deadline, a lost connection or a failed item starts nothing new and
// waits for the outcomes. Only the end of the session ends them all at once, since DCI POOL touches nothing
// of the client's behind it; our own memory is held by the transfers, whoever still has them.
//
// Limits: those below, for each request; what DCI POOL takes of one session and of all is in rdma_rails.hpp,
// and a request waits for its turn there; so is what all requests may have open beyond items_open_max. What
// is small is bounded by its bytes rather than its number, so that a batch of a thousand small values is one
// message to the pool. Threading and ownership: see tcp_request.hpp.
#pragma once

#include "actors/rdma_rails.hpp"
#include "actors/tcp_request.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace memkv::actors {

class rdma_batch_request : public tcp_request {
public:
  /// Items that are being worked on, in their order; and of small ones, while they are no more than
  /// small_bytes_max together.
  static constexpr std::size_t items_open_max = 64;
  static constexpr std::size_t small_items_max = 1024;
  /// When so many of them are done others are begun, together, so that the pool gets few messages.
  static constexpr std::size_t items_begun_together = 16;
  /// Transfers with DCI POOL, and their bytes (one more may be begun while there are fewer); and of small
  /// ones.
  static constexpr std::uint32_t transfers_open_max = 128;
  static constexpr std::uint32_t small_transfers_max = 1024;
  static constexpr std::uint64_t bytes_open_max = 32 << 20;
  static constexpr std::uint64_t small_bytes_max = 4 << 20;

  using tcp_request::tcp_request;
  ~rdma_batch_request() override;

  void moved(const memory_transfer_ptr& one) final;
  void session_lost(std::uint64_t session) final;
  void buffers_there() final;
  void expire() override;
  void abandon() final;

protected:
  /// One transfer has its outcome.
  virtual void transfer_over(const memory_transfer& one) = 0;
  /// No transfer will have an outcome any more.
  virtual void forget_transfers() = 0;
  /// Items that can still be ended are, for that reason: at once, or when their transfers are over.
  virtual void give_up(wire::status why) = 0;
  /// Goes on with open items, in their order, until at_limit(). One that finds no memory holds up no other:
  /// it may hold what it waits for.
  virtual void go_on() = 0;
  /// Begins items in their order, as many as may be open.
  virtual void open_more() = 0;
  /// Every item is decided.
  virtual void answer() = 0;
  /// Drives work for it.
  [[nodiscard]] virtual bool at_drives() const = 0;

  /// False: there is no such session for it, and it has been answered.
  [[nodiscard]] bool enter(std::uint64_t session);
  void expect_items(std::size_t count) noexcept { undecided_ = count; }
  /// One item more is decided: the last one ends the request.
  void item_decided();
  /// Nothing is begun any more.
  void end_early(wire::status why);
  [[nodiscard]] bool given_up() const noexcept { return given_up_; }
  [[nodiscard]] bool abandoned() const noexcept { return abandoned_; }

  [[nodiscard]] std::uint32_t in_flight() const noexcept { return in_flight_; }
  /// What is begun now is over by then, or soon after.
  [[nodiscard]] virtual std::uint64_t transfer_deadline_ns() const;
  [[nodiscard]] bool may_move();
  /// Something could have been moved, but for the limits.
  [[nodiscard]] bool at_limit() const noexcept { return at_limit_; }
  /// Another item, beside so many that are open, and their bytes.
  [[nodiscard]] bool may_open(std::size_t open, std::uint64_t bytes);
  /// Whether so many have gone that others may be begun together.
  [[nodiscard]] bool may_open_some(std::size_t open, std::uint64_t bytes) noexcept;
  /// Memory ran out: go_on() comes when there may be some, and nothing is begun until then.
  void wait_for_memory();
  [[nodiscard]] bool waits_for_memory() const noexcept { return waits_for_memory_; }
  [[nodiscard]] bool reaches(std::span<const std::byte> range) const noexcept;
  /// Memory that the pool reaches. Empty: there is none at the moment.
  [[nodiscard]] payload_slice bounce(std::size_t bytes);
  /// The longest transfer, and the most that bounce() gives; a multiple of 64 KiB, or of 4 KiB below that.
  [[nodiscard]] std::uint32_t step_bytes_max() const noexcept { return step_bytes_max_; }
  struct local_piece {
    std::byte* data = nullptr;
    std::uint32_t bytes = 0;
    std::shared_ptr<void> keep;
  };
  void move(bool fetch, std::uint32_t item, std::uint32_t piece, local_piece local,
            std::uint64_t client_address, std::uint32_t rkey);
  /// After each event: begins what may begin, and notes where the time goes.
  void settle();

private:
  void count_small(std::size_t open) noexcept;
  /// Whether so much has come back that it is worth while to look at every open item.
  [[nodiscard]] bool worth_going_on() const noexcept;

  std::uint64_t session_ = 0;
  rdma_rails::session* entered_ = nullptr; // which stays while requests are open on it
  std::uint32_t rail_ = 0;
  std::uint32_t step_bytes_max_ = 0;
  std::uint32_t in_flight_ = 0;
  std::uint64_t bytes_in_flight_ = 0;
  std::size_t undecided_ = 0;
  std::uint32_t small_items_ = 0; // open beyond items_open_max
  bool at_limit_ = false;
  bool ask_all_ = false;          // what held open items up may be over
  bool waits_for_turn_ = false;   // with DCI POOL
  bool waits_for_memory_ = false; // of the buffer pool
  bool session_gone_ = false;
  bool given_up_ = false;
  bool abandoned_ = false;
};

/// BatchWrite: values are fetched into the places of value_writers, compared with their digests and stored.
[[nodiscard]] std::unique_ptr<tcp_request>
make_batch_write_request(tcp_connection& connection, reactor& owner, const wire::frame_header& header);
/// Allocate: what its Writes fetch and its Commit stores.
[[nodiscard]] std::unique_ptr<tcp_request> make_allocate_request(tcp_connection& connection, reactor& owner,
                                                                 const wire::frame_header& header);
/// Write and Commit.
[[nodiscard]] std::unique_ptr<tcp_request> make_value_step(tcp_connection& connection, reactor& owner,
                                                           const wire::frame_header& header);
/// Read of a lease.
[[nodiscard]] std::unique_ptr<tcp_request> make_read_request(tcp_connection& connection, reactor& owner,
                                                             const wire::frame_header& header);
/// BatchRead: values are placed from where value_readers find them. Items that want the same range of the
/// same block share one reader: a drive reads it once.
[[nodiscard]] std::unique_ptr<tcp_request> make_batch_read_request(tcp_connection& connection, reactor& owner,
                                                                   const wire::frame_header& header);

} // namespace memkv::actors
