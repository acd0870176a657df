#include "client/message_pair.hpp"

#include <sys/mman.h>

#include <array>
#include <cstring>
#include <utility>

namespace memkv::client {

message_pair::message_pair(const room& wanted, std::byte* memory, std::size_t bytes) noexcept
    : room_(wanted), memory_(memory), memory_bytes_(bytes) {}

message_pair::~message_pair() {
  close();
  ::munmap(memory_, memory_bytes_);
}

// ---- the device ----

verbs::status message_pair::make(verbs::fabric& fabric, const room& wanted,
                                 std::shared_ptr<message_pair>& out) {
  const std::size_t bytes =
      std::size_t{wanted.receives_max + wanted.sends_max} * std::size_t{wanted.message_bytes_max};
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    return {verbs::errc::no_resources, "There is no memory for the messages of a connection."};
  }
  // A child that wrote here, or the parent after the fork, would part the pages from those the device knows.
  static_cast<void>(::madvise(mapped, bytes, MADV_DONTFORK));
  const std::shared_ptr<message_pair> made(new message_pair(wanted, static_cast<std::byte*>(mapped), bytes));
  if (verbs::status failed = made->make_parts(fabric); !failed.ok()) {
    return failed;
  }
  out = made;
  return {};
}

verbs::status message_pair::make_parts(verbs::fabric& fabric) {
  const std::lock_guard lock(mutex_);
  // No remote access: SEND and RECV need none.
  if (verbs::status failed = fabric.register_memory({memory_, memory_bytes_}, {}, region_); !failed.ok()) {
    return failed;
  }
  if (verbs::status failed =
          fabric.create_completion_queue(room_.sends_max + room_.receives_max, completions_);
      !failed.ok()) {
    return failed;
  }
  verbs::queue_pair_options options;
  options.completions = completions_.get();
  options.sends_max = room_.sends_max;
  options.receives_max = room_.receives_max;
  options.reads_max = 1; // nothing is read from here
  if (verbs::status failed = fabric.create_rc(options, pair_); !failed.ok()) {
    return failed;
  }
  ranges_.reserve(room_.sends_max);
  for (std::uint32_t receive = 0; receive < room_.receives_max; ++receive) {
    if (verbs::status failed = post_receive(receive); !failed.ok()) {
      return failed;
    }
  }
  return {};
}

verbs::rc_address message_pair::address() const {
  const std::lock_guard lock(mutex_);
  return pair_ != nullptr ? pair_->address() : verbs::rc_address{};
}

verbs::status message_pair::connect(const verbs::rc_address& peer) {
  const std::lock_guard lock(mutex_);
  if (pair_ == nullptr) {
    return {verbs::errc::wrong_state, "The queue pair is closed."};
  }
  return pair_->connect(peer);
}

void message_pair::close() noexcept {
  const std::lock_guard lock(mutex_);
  if (problem_.empty()) {
    problem_ = "the queue pair of messages is closed";
  }
  pair_.reset();
  completions_.reset();
  region_.reset();
}

// ---- sending ----

bool message_pair::add(wire::bytes_view frame) {
  const std::lock_guard lock(mutex_);
  if (!problem_.empty() || frame.size() > room_.message_bytes_max) {
    return false;
  }
  if (added_ - reported_ >= room_.sends_max) {
    wants_room_ = true;
    return false;
  }
  std::byte* const slot = send_at(added_++);
  std::memcpy(slot, frame.data(), frame.size());
  ranges_.push_back({region_->address() + static_cast<std::uint64_t>(slot - memory_),
                     static_cast<std::uint32_t>(frame.size()), region_->lkey()});
  return true;
}

void message_pair::post() {
  const std::lock_guard lock(mutex_);
  if (ranges_.empty() || !problem_.empty()) {
    ranges_.clear();
    return;
  }
  std::array<verbs::work_request, 32> some;
  for (std::size_t begin = 0; begin < ranges_.size() && problem_.empty();) {
    const std::size_t count = std::min(some.size(), ranges_.size() - begin);
    for (std::size_t i = 0; i < count; ++i) {
      some[i] = {};
      some[i].kind = verbs::operation::send;
      some[i].local = {&ranges_[begin + i], 1};
    }
    if (const verbs::post_result posted = pair_->post(std::span(some).first(count)); !posted.outcome.ok()) {
      break_off("a message cannot be sent: " + posted.outcome.text);
    }
    begin += count;
    posted_ += count;
  }
  ranges_.clear();
}

// ---- receiving ----

verbs::status message_pair::post_receive(std::uint32_t receive) {
  verbs::receive_request request;
  request.id = receive;
  request.local = {region_->address() + std::uint64_t{receive} * room_.message_bytes_max,
                   room_.message_bytes_max, region_->lkey()};
  return pair_->post_receives({&request, 1}).outcome;
}

void message_pair::take_reports() {
  std::array<verbs::report, 16> some;
  for (std::size_t count = some.size(); count == some.size() && completions_ != nullptr;) {
    count = completions_->poll(some);
    for (const verbs::report& one : std::span(some).first(count)) {
      if (one.status != verbs::completion_status::success) {
        break_off("the queue pair of messages failed (" + std::string(verbs::name(one.status)) + ")");
      } else if (one.kind == verbs::operation::send) {
        ++reported_;
      } else {
        const auto receive = static_cast<std::uint32_t>(one.id);
        arrived_.push_back({receive, {receive_at(receive), one.bytes}});
      }
    }
  }
}

bool message_pair::worth_a_look() const noexcept {
  return !arrived_.empty() || !problem_.empty() || (wants_room_ && added_ - reported_ < room_.sends_max);
}

bool message_pair::look() {
  const std::lock_guard lock(mutex_);
  take_reports();
  return worth_a_look();
}

bool message_pair::take(arrival& out) {
  const std::lock_guard lock(mutex_);
  wants_room_ = false;
  if (arrived_.empty()) {
    return false;
  }
  out = arrived_.front();
  arrived_.pop_front();
  return true;
}

void message_pair::give_back(std::uint32_t receive) {
  const std::lock_guard lock(mutex_);
  if (!problem_.empty()) {
    return;
  }
  if (const verbs::status posted = post_receive(receive); !posted.ok()) {
    break_off("a receive cannot be posted: " + posted.text);
  }
}

// ---- waiting ----

bool message_pair::arm() {
  const std::lock_guard lock(mutex_);
  if (completions_ != nullptr && problem_.empty()) {
    if (const verbs::status armed = completions_->arm(); !armed.ok()) {
      break_off(armed.text);
    }
  }
  take_reports();
  return !worth_a_look();
}

void message_pair::acknowledge() {
  const std::lock_guard lock(mutex_);
  if (completions_ != nullptr) {
    completions_->acknowledge();
  }
}

int message_pair::descriptor() const {
  const std::lock_guard lock(mutex_);
  return completions_ != nullptr ? completions_->event_descriptor() : -1;
}

void message_pair::break_off(const std::string& why) {
  if (problem_.empty()) {
    problem_ = why;
  }
}

bool message_pair::broken() const {
  const std::lock_guard lock(mutex_);
  return !problem_.empty();
}

std::string message_pair::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

} // namespace memkv::client
