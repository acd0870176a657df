#include "actors/way_finder.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <system_error>
#include <utility>

namespace memkv::actors {

namespace {

std::uint64_t steady_now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

} // namespace

way_finder::way_finder(std::uint32_t threads_max, std::uint64_t wait_ns_max)
    : threads_max_(threads_max), wait_ns_max_(wait_ns_max),
      event_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

way_finder::~way_finder() {
  end();
  if (event_fd_ >= 0)
    ::close(event_fd_);
}

bool way_finder::find(std::uint64_t number, verbs::attachment& to) {
  if (event_fd_ < 0)
    return false;
  bool another = false;
  {
    const std::lock_guard guard(lock_);
    if (ended_)
      return false;
    another = waiting_.size() >= idle_ && threads_.size() < threads_max_;
  }
  if (another) {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads_.empty())
        return false;
    }
  }
  {
    const std::lock_guard guard(lock_);
    waiting_.push_back({number, &to, steady_now_ns()});
  }
  changed_.notify_one();
  return true;
}

void way_finder::work() {
  std::unique_lock guard(lock_);
  for (;;) {
    ++idle_;
    changed_.wait(guard, [this] { return ended_ || !waiting_.empty(); });
    --idle_;
    if (ended_)
      return;
    const auto next = waiting_.front();
    waiting_.pop_front();
    const bool tried = steady_now_ns() - next.since_ns <= wait_ns_max_;
    if (tried) {
      guard.unlock();
      next.to->reach();
      guard.lock();
    }
    done_.push_back({next.number, tried});
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(event_fd_, &one, sizeof one);
  }
}

void way_finder::take_done(std::vector<outcome>& out) {
  const std::lock_guard guard(lock_);
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
}

void way_finder::acknowledge() noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto taken = ::read(event_fd_, &count, sizeof count);
}

void way_finder::end() noexcept {
  {
    const std::lock_guard guard(lock_);
    ended_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  for (auto& each : std::exchange(threads_, {}))
    each.join();
}

} // namespace memkv::actors
