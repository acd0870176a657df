// The parts of striped blocks on one drive, oldest first.
//
// Operation. A list through the links of the index's entries, which parts do not need for the eviction order:
// they are evicted only when nothing else can be. Those of a drive are committed in the order of their
// generations, so a new one is always the youngest.
//
// Threading: the drive's thread. Ownership: the index is lent. Errors: none.
// Does not: take memory.
#pragma once

#include "engine/index.hpp"
#include "wire/assert.hpp"

namespace memkv::engine {

class part_order {
public:
  explicit part_order(block_index& index) noexcept : index_(index) {}

  [[nodiscard]] entry_handle oldest() const noexcept { return oldest_; }
  [[nodiscard]] entry_handle younger(entry_handle than) const noexcept { return index_.at(than).previous; }

  void add_youngest(entry_handle part) noexcept {
    block_entry& entry = index_.at(part);
    MEMKV_ASSERT((entry.flags & entry_part) != 0, "only parts stand in the order of parts");
    entry.previous = no_entry;
    entry.next = youngest_;
    if (youngest_ != no_entry)
      index_.at(youngest_).previous = part;
    else
      oldest_ = part;
    youngest_ = part;
    entry.recency.fetch_or(recency_ordered, std::memory_order_relaxed);
  }

  void remove(entry_handle part) noexcept {
    block_entry& entry = index_.at(part);
    MEMKV_ASSERT((entry.recency.load(std::memory_order_relaxed) & recency_ordered) != 0,
                 "a part leaves its order once");
    (entry.previous != no_entry ? index_.at(entry.previous).next : youngest_) = entry.next;
    (entry.next != no_entry ? index_.at(entry.next).previous : oldest_) = entry.previous;
    entry.previous = entry.next = no_entry;
    entry.recency.fetch_and(static_cast<std::uint8_t>(~recency_ordered), std::memory_order_relaxed);
  }

private:
  block_index& index_;
  entry_handle youngest_ = no_entry, oldest_ = no_entry;
};

} // namespace memkv::engine
