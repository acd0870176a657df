#include "verbs/deadline_wheel.hpp"

#include "wire/assert.hpp"

#include <algorithm>

namespace memkv::verbs {

deadline_wheel::deadline_wheel(std::uint32_t size) : entries_(size) {
  first_.fill(none);
}

void deadline_wheel::add(std::uint32_t number, std::uint64_t time_ns) {
  entry& added = entries_[number];
  MEMKV_ASSERT(added.bucket == none, "a number is in the wheel once");
  added.tick = std::max(time_ns / tick_ns, tick_);
  added.bucket = static_cast<std::uint32_t>(added.tick % buckets);
  added.previous = none;
  added.next = first_[added.bucket];
  if (added.next != none) {
    entries_[added.next].previous = number;
  }
  first_[added.bucket] = number;
  ++count_;
}

void deadline_wheel::remove(std::uint32_t number) noexcept {
  entry& gone = entries_[number];
  if (gone.bucket == none) {
    return;
  }
  (gone.previous == none ? first_[gone.bucket] : entries_[gone.previous].next) = gone.next;
  if (gone.next != none) {
    entries_[gone.next].previous = gone.previous;
  }
  gone = {};
  --count_;
}

void deadline_wheel::expire(std::uint64_t now_ns, std::vector<std::uint32_t>& out) {
  const std::uint64_t now_tick = now_ns / tick_ns;
  if (now_tick <= tick_) {
    return;
  }
  const std::uint64_t walked = std::min<std::uint64_t>(now_tick - tick_, buckets);
  for (std::uint64_t step = 0; step < walked && count_ != 0; ++step) {
    std::uint32_t number = first_[(tick_ + step) % buckets];
    while (number != none) {
      const std::uint32_t next = entries_[number].next;
      if (entries_[number].tick < now_tick) {
        remove(number);
        out.push_back(number);
      }
      number = next;
    }
  }
  tick_ = now_tick;
}

} // namespace memkv::verbs
