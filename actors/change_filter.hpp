// Which blocks may have been written or deleted while a drive was away: what of them it still holds is stale.
//
// A set of hashed ids without removal: what was noted is always found, and a few others are too. A drive that
// comes back forgets those as well, which costs a miss and never a wrong answer.
//
// Threading: any thread. Limits: 8 MiB; after ten million changes about one block in seven that did not
// change is forgotten too.
#pragma once

#include "wire/key_id.hpp"

#include <atomic>
#include <cstdint>
#include <vector>

namespace memkv::actors {

class change_filter {
public:
  change_filter() : words_(word_count) {}

  void note(const wire::key_id& id) noexcept {
    const auto place = place_of(id);
    words_[place / 64].fetch_or(std::uint64_t{1} << place % 64, std::memory_order_relaxed);
  }
  [[nodiscard]] bool may_hold(const wire::key_id& id) const noexcept {
    const auto place = place_of(id);
    return (words_[place / 64].load(std::memory_order_relaxed) >> place % 64 & 1) != 0;
  }

private:
  static constexpr std::uint64_t word_count = std::uint64_t{1} << 20;
  /// Ids are uniform; the middle of one is used for nothing else.
  [[nodiscard]] static std::uint64_t place_of(const wire::key_id& id) noexcept {
    return (id.head() ^ id.tail() >> 17) % (word_count * 64);
  }

  std::vector<std::atomic<std::uint64_t>> words_;
};

} // namespace memkv::actors
