#include "client/request_queue.hpp"

#include "client/client.hpp"

#include <algorithm>

namespace memkv::client {

bool request_queue::enqueue(request& wanted, const waiter* here) {
  std::shared_ptr<waiter> driver;
  {
    const std::lock_guard lock(mutex_);
    // What the driver took and cannot send yet waits as well.
    if (outstanding_.load() >= requests_queued_max) {
      return false;
    }
    queue_.push_back(&wanted);
    ++queued_;
    ++outstanding_;
    if (driver_ && driver_.get() != here) {
      driver = driver_;
    }
  }
  if (driver) {
    driver->notify();
  }
  return true;
}

bool request_queue::drive_if_free(const std::shared_ptr<waiter>& self) {
  // Nobody but this thread makes itself the driver, or ceases to be it.
  if (self_.load(std::memory_order_relaxed) == self.get()) {
    return true;
  }
  const std::lock_guard lock(mutex_);
  return take_over(self);
}

bool request_queue::try_drive(const std::shared_ptr<waiter>& self) {
  if (self_.load(std::memory_order_relaxed) == self.get()) {
    return true;
  }
  const std::lock_guard lock(mutex_);
  if (take_over(self)) {
    return true;
  }
  if (std::find(waiting_.begin(), waiting_.end(), self) == waiting_.end()) {
    waiting_.push_back(self);
    ++waiting_count_;
  }
  return false;
}

bool request_queue::take_over(const std::shared_ptr<waiter>& self) {
  if (driver_) {
    return driver_ == self;
  }
  driver_ = self;
  driven_ = true;
  self_ = self.get();
  if (const auto place = std::find(waiting_.begin(), waiting_.end(), self); place != waiting_.end()) {
    waiting_.erase(place);
    --waiting_count_;
  }
  return true;
}

bool request_queue::leave(const waiter* self) {
  std::shared_ptr<waiter> next;
  {
    const std::lock_guard lock(mutex_);
    const auto place =
        std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& one) { return one.get() == self; });
    if (place != waiting_.end()) {
      waiting_.erase(place);
      --waiting_count_;
    }
    if (driver_.get() == self) {
      self_ = nullptr;
      driver_.reset();
      driven_ = false;
    }
    if (driver_ || outstanding_.load() == 0) {
      return false;
    }
    if (waiting_.empty()) {
      return true;
    }
    next = waiting_.front();
  }
  next->notify();
  return false;
}

void request_queue::poke() {
  const std::lock_guard lock(mutex_);
  if (driver_) {
    driver_->notify();
  }
}

} // namespace memkv::client
