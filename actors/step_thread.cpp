#include "actors/step_thread.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>

namespace memkv::actors {

step_thread::step_thread() : event_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

step_thread::~step_thread() {
  end();
  if (event_fd_ >= 0)
    ::close(event_fd_);
}

bool step_thread::run(verbs::slow_step& step) {
  if (event_fd_ < 0)
    return false;
  {
    const std::lock_guard guard(lock_);
    if (ended_)
      return false;
  }
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread([this] { work(); });
    } catch (const std::system_error&) {
      return false;
    }
  }
  {
    const std::lock_guard guard(lock_);
    waiting_.push_back(&step);
  }
  changed_.notify_one();
  return true;
}

void step_thread::work() {
  std::unique_lock guard(lock_);
  for (;;) {
    changed_.wait(guard, [this] { return ended_ || !waiting_.empty(); });
    if (ended_)
      return;
    auto* const next = waiting_.front();
    waiting_.pop_front();
    guard.unlock();
    next->run();
    guard.lock();
    done_.push_back(next);
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(event_fd_, &one, sizeof one);
  }
}

void step_thread::take_done(std::vector<verbs::slow_step*>& out) {
  const std::lock_guard guard(lock_);
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
}

void step_thread::acknowledge() noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto taken = ::read(event_fd_, &count, sizeof count);
}

void step_thread::end() noexcept {
  {
    const std::lock_guard guard(lock_);
    ended_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable())
    thread_.join();
}

} // namespace memkv::actors
