#include "client/waiter.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace memkv::client {
namespace {

constexpr std::int64_t sleep_ns_max = 3'600'000'000'000;
// Without an eventfd nobody can end a sleep early.
constexpr std::int64_t sleep_ns_without_event_fd = 1'000'000;

} // namespace

waiter::waiter() noexcept : event_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

waiter::~waiter() {
  if (event_fd_ >= 0) {
    ::close(event_fd_);
  }
}

void waiter::notify() noexcept {
  // Sleeper: sleeping_ = true, then looks at notified_. Here: notified_ = true, then looks at sleeping_. In
  // one total order at least one of the two sees the other.
  notified_.store(true);
  if (sleeping_.load() && event_fd_ >= 0) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(event_fd_, &one, sizeof one);
  }
}

bool waiter::sleep(std::span<pollfd> sockets_and_spare, std::int64_t until_ns) noexcept {
  pollfd& own = sockets_and_spare.back();
  own = {event_fd_, POLLIN, 0};
  sleeping_.store(true);
  std::int64_t left_ns = std::clamp<std::int64_t>(until_ns - steady_ns(), 0, sleep_ns_max);
  if (event_fd_ < 0) {
    left_ns = std::min(left_ns, sleep_ns_without_event_fd);
  }
  if (notified_.load()) {
    left_ns = 0;
  }
  const timespec left{static_cast<time_t>(left_ns / 1'000'000'000),
                      static_cast<long>(left_ns % 1'000'000'000)};
  if (::ppoll(sockets_and_spare.data(), sockets_and_spare.size(), &left, nullptr) <= 0) {
    for (pollfd& entry : sockets_and_spare) {
      entry.revents = 0;
    }
  }
  sleeping_.store(false);
  if ((own.revents & POLLIN) != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = ::read(event_fd_, &count, sizeof count);
  }
  return notified_.exchange(false);
}

const std::shared_ptr<waiter>& waiter::of_this_thread() {
  thread_local const std::shared_ptr<waiter> own = std::make_shared<waiter>();
  return own;
}

std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::uint64_t wall_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

} // namespace memkv::client
