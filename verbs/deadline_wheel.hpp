// Times at which something is over, for many small numbered things: adding and removing cost a few stores,
// and each entry is looked at once in a revolution of about four seconds.
//
// An entry expires up to `tick_ns` after its time, never before. Numbers are below the size given; each is in
// the wheel once or not at all. Threading: one thread. Time is the caller's, and does not go backwards.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace memkv::verbs {

class deadline_wheel {
public:
  static constexpr std::uint64_t tick_ns = 1ULL << 23U; // 8.4 ms

  explicit deadline_wheel(std::uint32_t size);

  void add(std::uint32_t number, std::uint64_t time_ns);
  /// Nothing happens when it is not in the wheel.
  void remove(std::uint32_t number) noexcept;
  /// Takes out what is over and appends the numbers.
  void expire(std::uint64_t now_ns, std::vector<std::uint32_t>& out);
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  /// When expire is worth calling again.
  [[nodiscard]] std::uint64_t next_tick_ns() const noexcept { return (tick_ + 1) * tick_ns; }

private:
  static constexpr std::uint32_t buckets = 512;
  static constexpr std::uint32_t none = ~0U;
  struct entry {
    std::uint32_t next = none;
    std::uint32_t previous = none;
    std::uint32_t bucket = none;
    std::uint64_t tick = 0;
  };

  std::vector<entry> entries_;
  std::array<std::uint32_t, buckets> first_;
  std::uint64_t tick_ = 0; // ticks before this one are done with
  std::uint64_t count_ = 0;
};

} // namespace memkv::verbs
