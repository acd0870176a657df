#include "verbs/ibverbs_parts.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>

namespace memkv::verbs::detail {

status failed(errc code, std::string what, int number) {
  return {code, std::move(what) + ": " + std::strerror(number == 0 ? EINVAL : number) + "."};
}

completion_status status_of(ibv_wc_status code) noexcept {
  switch (code) {
  case IBV_WC_SUCCESS:
    return completion_status::success;
  case IBV_WC_LOC_LEN_ERR:
    return completion_status::local_length;
  case IBV_WC_LOC_QP_OP_ERR:
    return completion_status::local_queue_pair_operation;
  case IBV_WC_LOC_PROT_ERR:
    return completion_status::local_protection;
  case IBV_WC_WR_FLUSH_ERR:
    return completion_status::flushed;
  case IBV_WC_MW_BIND_ERR:
    return completion_status::memory_window_bind;
  case IBV_WC_BAD_RESP_ERR:
    return completion_status::bad_response;
  case IBV_WC_LOC_ACCESS_ERR:
    return completion_status::local_access;
  case IBV_WC_REM_INV_REQ_ERR:
    return completion_status::remote_invalid_request;
  case IBV_WC_REM_ACCESS_ERR:
    return completion_status::remote_access;
  case IBV_WC_REM_OP_ERR:
    return completion_status::remote_operation;
  case IBV_WC_RETRY_EXC_ERR:
    return completion_status::retry_exceeded;
  case IBV_WC_RNR_RETRY_EXC_ERR:
    return completion_status::receiver_retry_exceeded;
  case IBV_WC_REM_ABORT_ERR:
    return completion_status::remote_aborted;
  case IBV_WC_FATAL_ERR:
    return completion_status::fatal;
  case IBV_WC_RESP_TIMEOUT_ERR:
    return completion_status::response_timeout;
  default:
    return completion_status::general;
  }
}

ibv_mtu mtu_of(std::uint32_t bytes) noexcept {
  return static_cast<ibv_mtu>(std::countr_zero(std::clamp(bytes, 256U, 4096U)) - 7);
}

std::uint8_t timeout_of(std::uint32_t retry_ms) noexcept {
  std::uint8_t power = 1;
  while (power < 31 && (4096ULL << power) * (retries + 1) < std::uint64_t{retry_ms} * 1'000'000) {
    ++power;
  }
  return power;
}

bool set_nonblocking(int descriptor) noexcept {
  const int flags = ::fcntl(descriptor, F_GETFL);
  return flags >= 0 && ::fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0;
}

// Completions ------------------------------------------------------------------------------------------

hardware_completions::~hardware_completions() {
  MEMKV_ASSERT(pairs.empty(), "queue pairs are destroyed before their completion queue");
  library_.destroy_cq(queue_);
  library_.destroy_comp_channel(channel_);
}

status hardware_completions::arm() noexcept {
  const int number = ::ibv_req_notify_cq(queue_, 0);
  return number == 0 ? status{} : failed(errc::device_failed, "The completion queue cannot be armed", number);
}

void hardware_completions::acknowledge() noexcept {
  ibv_cq* from = nullptr;
  void* context = nullptr;
  while (library_.get_cq_event(channel_, &from, &context) == 0) { // the descriptor does not block
    library_.ack_cq_events(from, 1);
  }
}

void hardware_completions::take() noexcept {
  std::array<ibv_wc, 32> some;
  for (;;) {
    const int count = ::ibv_poll_cq(queue_, static_cast<int>(some.size()), some.data());
    for (int index = 0; index < count; ++index) {
      const ibv_wc& one = some[static_cast<std::size_t>(index)];
      if (const auto found = pairs.find(one.qp_num); found != pairs.end()) {
        found->second->ended(one);
      }
    }
    if (count < static_cast<int>(some.size())) {
      return;
    }
  }
}

std::size_t hardware_completions::poll(std::span<report> out) noexcept {
  if (reports.size() < out.size()) {
    take();
  }
  std::size_t count = 0;
  while (count < out.size() && !reports.empty()) {
    out[count] = reports.front();
    reports.pop_front();
    pairs.at(out[count].queue_pair)->polled(out[count]);
    ++count;
  }
  return count;
}

// Queue pairs ------------------------------------------------------------------------------------------

hardware_pair::hardware_pair(hardware& owner, const queue_pair_options& options, ibv_qp* pair)
    : owner_(owner), options_(options), pair_(pair),
      completions_(static_cast<hardware_completions&>(*options.completions)), sends_(options.sends_max),
      receives_(options.receives_max) {
  tag_ = std::uint64_t{++owner_.generation} << generation_shift;
  completions_.reserved += options.sends_max + options.receives_max;
  completions_.pairs.emplace(pair_->qp_num, this);
}

hardware_pair::~hardware_pair() {
  const std::uint32_t gone = pair_->qp_num;
  owner_.destroy(pair_);
  completions_.take(); // some drivers leave completions of queue pairs that are gone
  completions_.pairs.erase(gone);
  completions_.reserved -= options_.sends_max + options_.receives_max;
  std::erase_if(completions_.reports, [&](const report& one) { return one.queue_pair == gone; });
}

void hardware_pair::ended(const ibv_wc& completion) noexcept {
  if (completion.wr_id >> generation_shift << generation_shift != tag_) {
    return; // of another that had this number before
  }
  const completion_status status = status_of(completion.status);
  if (status != completion_status::success) {
    state_ = queue_pair_state::error;
  }
  const auto number = static_cast<std::uint32_t>(completion.wr_id);
  const bool receive = (completion.wr_id & receive_bit) != 0;
  (receive ? receives_ : sends_)
      .complete(number, status, [&](std::uint64_t id, operation kind, completion_status how) {
        const std::uint32_t bytes = receive && how == completion_status::success ? completion.byte_len : 0;
        completions_.reports.push_back({id, pair_->qp_num, kind, how, bytes, completion.vendor_err});
      });
}

status hardware_pair::check(const work_request& request) const {
  std::uint64_t length = 0;
  for (const local_range& local : request.local) {
    length += local.length;
  }
  if (request.local.size() > options_.segments_max || length > owner_.device.transfer_bytes_max) {
    return {errc::invalid_argument, "The request has more ranges or bytes than the queue pair takes."};
  }
  if (request.inlined && (request.kind == operation::read || length > options_.inline_bytes_max)) {
    return {errc::invalid_argument, "The request cannot be posted inline."};
  }
  return {};
}

void hardware_pair::sent(std::span<const work_request> taken) noexcept {
  for (const work_request& one : taken) {
    sends_.add(one.id, one.kind);
  }
  sends_out_ += static_cast<std::uint32_t>(taken.size());
}

void hardware_pair::to_error() noexcept {
  if (state_ == queue_pair_state::error) {
    return;
  }
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  // If even that is refused, the device is in trouble; the owner's patience ends, and it destroys this.
  static_cast<void>(owner_.library.modify_qp(pair_, &attributes, IBV_QP_STATE));
  state_ = queue_pair_state::error;
}

status hardware_pair::modify(ibv_qp_attr& attributes, int mask, const char* what) noexcept {
  const int number = owner_.library.modify_qp(pair_, &attributes, mask);
  return number == 0 ? status{}
                     : failed(errc::device_failed,
                              "A queue pair of " + owner_.device.name + " cannot be " + what, number);
}

} // namespace memkv::verbs::detail
