#include "actors/rdma_batch.hpp"

#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <utility>

namespace memkv::actors {

using wire::status;

rdma_batch_request::~rdma_batch_request() {
  count_small(0);
  // Only when the reactor itself ends: nobody is told.
  if (session_ != 0)
    static_cast<void>(owner_.rails().leave(session_));
}

bool rdma_batch_request::enter(std::uint64_t session) {
  const bool own = carrier() == 0 || carrier() == session;
  auto* found = own ? owner_.rails().find(session, connection_.id()) : nullptr;
  if (found == nullptr) {
    send_status(owner_.rails().any_pool() ? status::session_ended : status::unsupported);
    end();
    return false;
  }
  ++found->requests;
  entered_ = found;
  session_ = session;
  rail_ = found->rail;
  const auto most = std::min<std::uint64_t>(
      {found->transfer_bytes_max, owner_.shared().pool->chunk_bytes(), wire::limits::part_bytes_max});
  constexpr std::uint32_t unit = engine::chunk_bytes, page = 4096;
  step_bytes_max_ = static_cast<std::uint32_t>(most >= unit ? most / unit * unit
                                                            : std::max<std::uint64_t>(most / page, 1) * page);
  if (deadline_ns_ != 0)
    owner_.expire_at(serial(), deadline_ns_);
  return true;
}

void rdma_batch_request::item_decided() {
  MEMKV_ASSERT(undecided_ > 0, "an item is decided once");
  if (--undecided_ > 0)
    return;
  if (!abandoned_)
    answer();
  const auto session = std::exchange(session_, 0);
  entered_ = nullptr;
  count_small(0);
  end();
  owner_.leave_session(session);
}

bool rdma_batch_request::may_move() {
  if (in_flight_ < small_transfers_max && bytes_in_flight_ < bytes_open_max &&
      (in_flight_ < transfers_open_max || bytes_in_flight_ < small_bytes_max)) {
    if (owner_.rails().has_room(*entered_))
      return true;
    if (!std::exchange(waits_for_turn_, true))
      owner_.rails().wait_for_turn(serial(), session_);
  }
  at_limit_ = true;
  return false;
}

bool rdma_batch_request::may_open(std::size_t open, std::uint64_t bytes) {
  if (given_up_ || waits_for_memory_ || at_limit_)
    return false;
  if (open >= items_open_max &&
      (open >= small_items_max || bytes >= small_bytes_max ||
       (open >= items_open_max + small_items_ && owner_.rails().small_items_free() == 0)))
    return false;
  if (!may_move())
    return false;
  count_small(open + 1);
  return true;
}

bool rdma_batch_request::may_open_some(std::size_t open, std::uint64_t bytes) noexcept {
  count_small(open);
  return open <= items_open_max - items_begun_together ||
         (open <= small_items_max / 8 * 7 && bytes <= small_bytes_max / 8 * 7);
}

void rdma_batch_request::count_small(std::size_t open) noexcept {
  const auto now = static_cast<std::uint32_t>(open - std::min(open, items_open_max));
  owner_.rails().small_items_free() += small_items_ - now;
  small_items_ = now;
}

bool rdma_batch_request::worth_going_on() const noexcept {
  return !waits_for_turn_ && in_flight_ <= small_transfers_max / 8 * 7 &&
         bytes_in_flight_ <= bytes_open_max / 8 * 7 &&
         (in_flight_ <= transfers_open_max / 8 * 7 || bytes_in_flight_ <= small_bytes_max / 8 * 7);
}

void rdma_batch_request::wait_for_memory() {
  waits_for_memory_ = true;
  owner_.wait_for_room(serial());
}

bool rdma_batch_request::reaches(std::span<const std::byte> range) const noexcept {
  return owner_.rails().reaches(rail_, range);
}

payload_slice rdma_batch_request::bounce(std::size_t bytes) {
  const auto wanted = static_cast<std::uint32_t>(bytes);
  if (wanted <= owner_.slice_bytes_max())
    return owner_.small_slice(wanted);
  auto chunk = owner_.chunk();
  MEMKV_ASSERT(chunk.data == nullptr || chunk.bytes >= wanted, "what is bounced fits a chunk");
  return chunk;
}

void rdma_batch_request::move(bool fetch, std::uint32_t item, std::uint32_t piece, local_piece local,
                              std::uint64_t client_address, std::uint32_t rkey) {
  auto one = std::make_shared<memory_transfer>();
  one->request = serial();
  one->item = item;
  one->piece = piece;
  one->reply_to = owner_.as_actor();
  one->session = session_;
  one->owner = connection_.handle().id();
  one->fetch = fetch;
  one->data = local.data;
  one->bytes = local.bytes;
  one->client_address = client_address;
  one->rkey = rkey;
  one->deadline_ns = transfer_deadline_ns();
  one->keep = std::move(local.keep);
  ++in_flight_;
  bytes_in_flight_ += local.bytes;
  owner_.rails().move(*entered_, std::move(one));
}

void rdma_batch_request::moved(const memory_transfer_ptr& one) {
  if (over() || session_gone_)
    return;
  --in_flight_;
  bytes_in_flight_ -= one->bytes;
  transfer_over(*one);
  settle();
}

void rdma_batch_request::session_lost(std::uint64_t session) {
  if (over() || session != session_)
    return;
  session_gone_ = true;
  in_flight_ = 0;
  bytes_in_flight_ = 0;
  forget_transfers();
  given_up_ = true;
  give_up(status::session_ended);
  settle();
}

void rdma_batch_request::buffers_there() {
  if (over())
    return;
  waits_for_memory_ = false;
  waits_for_turn_ = false;
  ask_all_ = true;
  settle();
}

void rdma_batch_request::expire() {
  if (over() || given_up_)
    return;
  owner_.counters().deadlines_exceeded.add();
  end_early(status::deadline_exceeded);
}

void rdma_batch_request::end_early(status why) {
  given_up_ = true;
  give_up(why);
  settle();
}

std::uint64_t rdma_batch_request::transfer_deadline_ns() const {
  return deadline_ns_ != 0
             ? deadline_ns_
             : owner_.now_ns() + std::uint64_t{owner_.shared().options.limits.request_ms} * 1'000'000;
}

void rdma_batch_request::abandon() {
  if (over())
    return;
  abandoned_ = true;
  given_up_ = true;
  give_up(status::internal);
}

void rdma_batch_request::settle() {
  if (over())
    return;
  if (!given_up_) {
    if (std::exchange(ask_all_, false) || (at_limit_ && worth_going_on())) {
      at_limit_ = false;
      go_on();
    }
    if (!over())
      open_more();
    if (over())
      return;
  }
  now_in(in_flight_ > 0      ? request_stage::network
         : at_drives()       ? request_stage::drive
         : waits_for_memory_ ? request_stage::queue
                             : request_stage::drive);
}

} // namespace memkv::actors
