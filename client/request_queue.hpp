// What waits for one connection, and who drives it. Internal to client/.
//
// Operation. At any moment at most one thread is the driver. Everybody else only queues requests and, if they
// wait for one, registers to drive next. The role moves under the lock, so what belongs to the driver needs
// no lock of its own.
//
// Threading: any thread, except for what is said to be the driver's. Ownership: shares the waiters it knows;
// requests stay their operation's. Errors: none. Limits: requests_queued_max outstanding requests of
// operations; the few that a driver makes come on top.
#pragma once

#include "client/waiter.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

namespace memkv::client {

struct request;

class request_queue {
public:
  /// False: the queue is full and the request was not taken. Wakes the driver if that is somebody else than
  /// `here`.
  [[nodiscard]] bool enqueue(request& wanted, const waiter* here);
  /// True: the caller drives now (or did already). False: somebody else does, and will wake `self` when
  /// leaving. Either way leave() must follow: others make way for who waits.
  [[nodiscard]] bool try_drive(const std::shared_ptr<waiter>& self);
  /// The same for a caller that does not wait: nothing follows a false.
  [[nodiscard]] bool drive_if_free(const std::shared_ptr<waiter>& self);
  /// Gives up driving or waiting. True: requests are outstanding and nobody is left to drive.
  [[nodiscard]] bool leave(const waiter* self);
  /// Wakes the driver, if there is one.
  void poke();
  /// Requests that are queued, or were taken and are not complete.
  [[nodiscard]] std::uint32_t outstanding() const noexcept { return outstanding_.load(); }
  [[nodiscard]] bool driven() const noexcept { return driven_.load(); }
  [[nodiscard]] bool wanted_by_others() const noexcept { return waiting_count_.load() != 0; }

  // The driver.

  /// The driver's own waiter.
  [[nodiscard]] const waiter* driver() const noexcept { return self_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool empty() const noexcept { return queued_.load() == 0; }
  /// Gives all that is queued to `each`, in its order.
  template <class Each>
  void take(Each each) {
    if (empty()) {
      return;
    }
    const std::lock_guard lock(mutex_);
    for (request* const taken : queue_) {
      each(*taken);
    }
    queue_.clear();
    queued_ = 0;
  }
  /// Counts a request that the driver made itself.
  void count_made() noexcept { ++outstanding_; }
  /// A request that was taken or made is complete.
  void count_complete() noexcept { --outstanding_; }

private:
  /// With the lock held. False: somebody else drives.
  [[nodiscard]] bool take_over(const std::shared_ptr<waiter>& self);

  std::mutex mutex_;
  std::deque<request*> queue_;                   // mutex_
  std::shared_ptr<waiter> driver_;               // mutex_
  std::vector<std::shared_ptr<waiter>> waiting_; // mutex_
  std::atomic<const waiter*> self_{nullptr};     // the driver's; changed under the lock
  std::atomic<std::uint32_t> outstanding_{0};
  std::atomic<std::uint32_t> queued_{0};
  std::atomic<std::uint32_t> waiting_count_{0};
  std::atomic<bool> driven_{false};
};

} // namespace memkv::client
