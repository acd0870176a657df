// Which free units still hold data that the device was not told to forget.
//
// Operation. One bit a unit: set when it is given back, cleared when it is handed out again, so that a unit
// that is wanted again before its turn has come costs no TRIM. take() removes due units from the free ones,
// as few long ranges; the caller has them discarded and gives them back. A unit is never free and being
// discarded at one time: a late TRIM cannot hit new data.
//
// Threading: one thread, the drive's. Ownership: values; the allocator is lent to each call.
// Limits: a bit a unit; a batch of at most ranges_max ranges and an eighth of what is free.
// Does not: discard anything.
#pragma once

#include "engine/allocator.hpp"
#include "engine/run.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace memkv::engine {

class trim_backlog {
public:
  /// A batch is due after this time, or when this many extents have gathered.
  static constexpr std::uint64_t interval_ns = 5'000'000'000;
  static constexpr std::uint32_t extents_max = 1024;
  static constexpr std::size_t ranges_max = 1024;

  trim_backlog() = default;
  explicit trim_backlog(std::uint32_t units) : words_((std::uint64_t{units} + 63) / 64) {}

  /// An extent's run was given back at `now_ns` (steady clock).
  void freed(run what, std::uint64_t now_ns);
  void taken(run what);
  /// Everything that is free: after a start, when nobody knows what was discarded.
  void freed_all(const unit_allocator& units, std::uint64_t now_ns);

  [[nodiscard]] bool empty() const noexcept { return waiting_ == 0; }
  [[nodiscard]] std::uint64_t units_waiting() const noexcept { return waiting_; }
  [[nodiscard]] bool due(std::uint64_t now_ns) const noexcept {
    return waiting_ > 0 && (due_units_ > 0 || extents_ >= extents_max || now_ns - since_ns_ >= interval_ns);
  }

  /// Takes ranges out of the free units: adjacent ones joined, in the order of the drive, beginning where the
  /// last batch ended. What was due and did not fit is due still.
  [[nodiscard]] std::vector<run> take(unit_allocator& units, std::uint64_t now_ns);
  /// Nothing is due before another interval has passed: the drive refused.
  void put_off(std::uint64_t now_ns) noexcept {
    extents_ = 0;
    due_units_ = 0;
    since_ns_ = now_ns;
  }

private:
  [[nodiscard]] bool bit(std::uint64_t unit) const noexcept {
    return (words_[unit / 64] >> (unit % 64) & 1) != 0;
  }
  /// The first unit from `from` on whose bit is set, or the end.
  [[nodiscard]] std::uint64_t next_set(std::uint64_t from) const noexcept;
  /// Sets or clears the bits of a run; returns how many changed.
  std::uint64_t change(run what, bool to);

  std::vector<std::uint64_t> words_;
  std::uint64_t waiting_ = 0; // bits that are set
  /// Of these, how many were due when the last batch was taken and did not fit. What was given back later
  /// keeps its time to be wanted again.
  std::uint64_t due_units_ = 0;
  std::uint32_t extents_ = 0;  // given back since the last batch
  std::uint64_t since_ns_ = 0; // of the oldest of them
  std::uint64_t cursor_ = 0;
};

} // namespace memkv::engine
