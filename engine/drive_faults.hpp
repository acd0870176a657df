// Faults that a drive is told to have: what fault injection arms, and faulty_device carries out.
//
// One object a drive; it outlives the devices that are opened for the drive one after the other, so that what
// is armed meets the next incarnation as well. Orders are met in the order in which they were armed, the
// first that fits an operation takes it.
//
// Threading: any thread; one lock, which an operation takes only while something is armed.
// Limits: orders_max at a time. Does not: touch a device.
#pragma once

#include "engine/block_device.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace memkv::engine {

/// What is to happen to the next `count` operations of a kind.
struct drive_fault {
  enum class effect : std::uint8_t {
    fail,    // nothing is done, and the answer is errc::io_error
    slow,    // done, and answered `ns` later
    hang,    // done, and not answered before `ns` have passed or the faults were cleared; 0: not before that
    corrupt, // reads only: one bit of what is read is wrong
  };
  enum class target : std::uint8_t { any, reads, writes, flushes };
  effect what = effect::fail;
  target which = target::any;
  std::uint64_t count = 1;
  std::uint64_t ns = 0;
};

/// How many operations met each effect since the object was made.
struct drive_faults_met {
  std::uint64_t failed = 0, slowed = 0, hung = 0, corrupted = 0;
};

class drive_faults {
public:
  static constexpr std::size_t orders_max = 16;

  /// False: too many are armed already, or none of the operations could meet it.
  [[nodiscard]] bool arm(const drive_fault& order);
  /// Forgets all orders, and lets go of what hangs or is slow.
  void clear();
  /// With what is left of their counts.
  [[nodiscard]] std::vector<drive_fault> armed() const;
  [[nodiscard]] drive_faults_met met() const;

  /// For faulty_device: what this operation meets, if anything.
  [[nodiscard]] std::optional<drive_fault> take(io_operation::kind what);
  /// Rises with each clear(): what was held before is let go.
  [[nodiscard]] std::uint64_t times_cleared() const noexcept { return cleared_; }

private:
  mutable std::mutex lock_;
  std::vector<drive_fault> orders_;
  drive_faults_met met_;
  std::atomic<bool> any_{false};
  std::atomic<std::uint64_t> cleared_{0};
};

} // namespace memkv::engine
