#include "engine/trim_backlog.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <bit>

namespace memkv::engine {

std::uint64_t trim_backlog::change(run what, bool to) {
  std::uint64_t changed = 0;
  std::uint64_t unit = what.first_unit;
  const std::uint64_t end = unit + what.units;
  while (unit < end) {
    const std::uint64_t count = std::min(end - unit, 64 - unit % 64);
    const std::uint64_t mask = (count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1)
                               << unit % 64;
    auto& word = words_[unit / 64];
    const std::uint64_t after = to ? word | mask : word & ~mask;
    changed += static_cast<std::uint64_t>(std::popcount(word ^ after));
    word = after;
    unit += count;
  }
  return changed;
}

void trim_backlog::freed(run what, std::uint64_t now_ns) {
  if (waiting_ == 0)
    since_ns_ = now_ns;
  waiting_ += change(what, true);
  ++extents_;
}

void trim_backlog::taken(run what) {
  waiting_ -= change(what, false);
}

void trim_backlog::freed_all(const unit_allocator& units, std::uint64_t now_ns) {
  waiting_ = 0;
  const std::uint64_t count = units.units();
  for (std::size_t position = 0; position < words_.size(); ++position) {
    const std::uint64_t inside = count - position * 64;
    words_[position] =
        ~units.word(position) & (inside >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << inside) - 1);
    waiting_ += static_cast<std::uint64_t>(std::popcount(words_[position]));
  }
  since_ns_ = now_ns;
}

std::uint64_t trim_backlog::next_set(std::uint64_t from) const noexcept {
  std::size_t position = from / 64;
  if (position >= words_.size())
    return words_.size() * 64;
  std::uint64_t word = words_[position] & (~std::uint64_t{0} << from % 64);
  while (word == 0)
    if (++position == words_.size())
      return words_.size() * 64;
    else
      word = words_[position];
  return position * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
}

std::vector<run> trim_backlog::take(unit_allocator& units, std::uint64_t now_ns) {
  std::vector<run> ranges;
  // While they are discarded nobody can have them: the better part of the free space stays at hand.
  std::uint64_t left = std::max<std::uint64_t>(1, units.free_units() / 8);
  const std::uint64_t end = words_.size() * 64;
  bool wrapped = cursor_ == 0;
  const std::uint64_t waiting_before = waiting_;
  if (due_units_ == 0)
    due_units_ = waiting_;
  while (waiting_ > 0 && left > 0 && ranges.size() < ranges_max) {
    const std::uint64_t first = next_set(cursor_);
    if (first == end) {
      if (wrapped)
        break;
      wrapped = true;
      cursor_ = 0;
      continue;
    }
    std::uint64_t last = first;
    while (last < end && last - first < left && bit(last))
      ++last;
    const run range{static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(last - first)};
    const bool was_free = units.mark(range);
    MEMKV_ASSERT(was_free, "only free units wait to be discarded");
    taken(range);
    ranges.push_back(range);
    left -= range.units;
    cursor_ = last;
  }
  extents_ = 0;
  since_ns_ = now_ns;
  due_units_ -= std::min(due_units_, waiting_before - waiting_);
  return ranges;
}

} // namespace memkv::engine
