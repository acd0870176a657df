// A small seeded generator: the same numbers on every machine and library.
#pragma once

#include <cstdint>

namespace memkv::sim {

class random {
public:
  explicit random(std::uint64_t seed) noexcept : state_(seed) {}

  std::uint64_t next() noexcept {
    state_ += 0x9E3779B97F4A7C15;
    std::uint64_t value = state_;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
  }
  /// 0 ... below - 1; 0 for 0.
  std::uint64_t below(std::uint64_t limit) noexcept { return limit == 0 ? 0 : next() % limit; }
  /// True in `share` of the cases.
  bool chance(double share) noexcept {
    return share > 0 && static_cast<double>(next() >> 11) * 0x1.0p-53 < share;
  }

private:
  std::uint64_t state_ = 0;
};

} // namespace memkv::sim
