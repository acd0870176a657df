// A histogram of latencies with bounded memory and a relative error of at most 1/64.
//
// Values are nanoseconds from 0 to 2^40 (about 18 minutes); larger ones count as the largest. Each power of
// two is divided into 64 equal steps, so a quantile is at most 1.6 % above the true one, and never below the
// smallest value that was recorded in its step. The maximum is exact.
//
// Threading: one thread; give each thread its own and add() them afterwards. Ownership: 20 KiB of counters
// inside. Errors: none. Does not do: correct for coordinated omission; it holds what it is given.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace memkv::bench {

class histogram {
public:
  static constexpr std::uint64_t value_ns_max = std::uint64_t{1} << 40U;

  void record(std::uint64_t value_ns) noexcept {
    const std::uint64_t kept = value_ns < value_ns_max ? value_ns : value_ns_max - 1;
    ++counters_[position_of(kept)];
    ++count_;
    sum_ns_ += kept;
    if (kept > largest_ns_) {
      largest_ns_ = kept;
    }
  }

  void add(const histogram& other) noexcept {
    for (std::size_t i = 0; i < counters_.size(); ++i) {
      counters_[i] += other.counters_[i];
    }
    count_ += other.count_;
    sum_ns_ += other.sum_ns_;
    if (other.largest_ns_ > largest_ns_) {
      largest_ns_ = other.largest_ns_;
    }
  }

  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t max_ns() const noexcept { return largest_ns_; }
  [[nodiscard]] double mean_ns() const noexcept {
    return count_ == 0 ? 0.0 : static_cast<double>(sum_ns_) / static_cast<double>(count_);
  }

  /// The value that `fraction` (0 ... 1) of all records do not exceed, in nanoseconds; 0 when nothing was
  /// recorded.
  [[nodiscard]] std::uint64_t quantile_ns(double fraction) const noexcept {
    if (count_ == 0) {
      return 0;
    }
    const double exact = fraction * static_cast<double>(count_);
    std::uint64_t wanted = static_cast<std::uint64_t>(exact);
    if (static_cast<double>(wanted) < exact || wanted == 0) {
      ++wanted;
    }
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counters_.size(); ++i) {
      seen += counters_[i];
      if (seen >= wanted) {
        const std::uint64_t upper = upper_end_of(i);
        return upper < largest_ns_ ? upper : largest_ns_;
      }
    }
    return largest_ns_;
  }

private:
  static constexpr unsigned step_bits = 6;
  static constexpr std::uint64_t steps = std::uint64_t{1} << step_bits;
  static constexpr unsigned value_bits = 40;

  [[nodiscard]] static std::size_t position_of(std::uint64_t value) noexcept {
    if (value < steps) {
      return static_cast<std::size_t>(value);
    }
    const unsigned width = static_cast<unsigned>(std::bit_width(value)); // at least step_bits + 1
    const unsigned shift = width - step_bits - 1;
    return static_cast<std::size_t>((shift + 1) * steps + ((value >> shift) - steps));
  }

  [[nodiscard]] static std::uint64_t upper_end_of(std::size_t position) noexcept {
    if (position < steps) {
      return position;
    }
    const unsigned shift = static_cast<unsigned>(position / steps) - 1;
    const std::uint64_t first = (position % steps + steps) << shift;
    return first + (std::uint64_t{1} << shift) - 1;
  }

  std::array<std::uint64_t, (value_bits - step_bits + 1) * steps> counters_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ns_ = 0;
  std::uint64_t largest_ns_ = 0;
};

} // namespace memkv::bench
