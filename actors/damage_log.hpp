// When the log tells of the damaged blocks that a drive has found: at once of the first ones, then once a
// minute of those since. A drive that decays does not fill the log, and no block is left out of the sums.
//
// Threading: none. Ownership: by DRIVE. Time is passed in, so that tests need not wait. Errors: none.
// Does not do: write the line; count for the metrics, which the store does.
#pragma once

#include <cstdint>
#include <utility>

namespace memkv::actors {

class damage_log {
public:
  static constexpr std::uint64_t interval_ns = 60'000'000'000;

  /// What had been counted before nobody is told of any more.
  void begin_with(std::uint64_t counted) noexcept { told_ = counted; }

  /// How many blocks a line is to be written for at this (monotonic) time, 0: none is. `counted` only rises.
  /// `last`: what is not told now never will be.
  [[nodiscard]] std::uint64_t due(std::uint64_t counted, std::uint64_t now_ns, bool last) noexcept {
    if (counted == told_ || (!last && now_ns < next_line_ns_))
      return 0;
    next_line_ns_ = now_ns + interval_ns;
    return counted - std::exchange(told_, counted);
  }

private:
  std::uint64_t told_ = 0;
  std::uint64_t next_line_ns_ = 0;
};

} // namespace memkv::actors
