// Where a thread sleeps while it waits for sockets, for another thread, or for both.
//
// Threading: notify() from any thread; the rest belongs to the thread that sleeps here.
// Ownership: an eventfd. Errors: a system without descriptors gives a waiter that only sleeps in short steps.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

struct pollfd;

namespace memkv::client {

class waiter {
public:
  waiter() noexcept;
  ~waiter();
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  /// Makes the current or the next sleep() end at once.
  void notify() noexcept;

  /// Waits until one of `sockets` is ready, somebody calls notify(), or `until_ns` (steady clock) has come.
  /// `sockets` has one spare entry at its end, which this function fills. True: somebody called notify().
  bool sleep(std::span<pollfd> sockets_and_spare, std::int64_t until_ns) noexcept;

  /// Whether the next sleep() ends at once.
  [[nodiscard]] bool is_notified() const noexcept { return notified_.load(std::memory_order_relaxed); }

  /// The waiter of the calling thread. Shared, because others may notify it while the thread ends.
  [[nodiscard]] static const std::shared_ptr<waiter>& of_this_thread();

private:
  int event_fd_ = -1;
  std::atomic<bool> notified_{false};
  std::atomic<bool> sleeping_{false};
};

/// Nanoseconds of the steady clock.
[[nodiscard]] std::int64_t steady_ns() noexcept;
/// Nanoseconds since 1970 of the wall clock: what frames are stamped with.
[[nodiscard]] std::uint64_t wall_ns() noexcept;

} // namespace memkv::client
