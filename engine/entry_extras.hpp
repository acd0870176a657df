// What the entries of striped and fragmented blocks have no room for: the head of a part, the number of
// parts, the runs.
//
// Operation. Named by the handle of the entry, like the entry itself: 16 bytes for each of the 4,096 handles
// of a slab in which some entry needs them, and a pointer for each of a slab in which some entry is
// fragmented, its runs in a piece of the heap. Handles that were used are used again first, so slabs are
// dense. Those that nobody needs any more are freed.
//
// Threading: one thread. Ownership: owns what it is told. Errors: none but the lack of memory.
// Limits: as many as the index has entries.
#pragma once

#include "engine/entry_record.hpp"
#include "engine/index.hpp"
#include "engine/limits.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace memkv::engine {

class entry_extras {
public:
  /// Of an entry that was just made from this record.
  void add(entry_handle entry, const entry_record& record);
  /// Forgets what was added for an entry with these flags (entry_flag).
  void remove(entry_handle entry, std::uint8_t flags) noexcept;

  /// With entry_part.
  [[nodiscard]] key_id head(entry_handle entry) const noexcept;
  /// With entry_striped.
  [[nodiscard]] std::uint32_t parts(entry_handle entry) const noexcept;
  /// With entry_fragmented. Valid until remove().
  [[nodiscard]] std::span<const run> runs(entry_handle entry) const noexcept;

  /// With the heap's own bookkeeping.
  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;

private:
  template <typename Value>
  struct slab {
    std::array<Value, limits::slab_entries> values{};
    std::uint32_t used = 0;
  };
  template <typename Value>
  using slabs = std::vector<std::unique_ptr<slab<Value>>>;
  /// The first one holds in its first_unit how many follow.
  using run_list = std::unique_ptr<run[]>;

  template <typename Value>
  [[nodiscard]] static Value& take(slabs<Value>& in, entry_handle entry);
  template <typename Value>
  static void give(slabs<Value>& in, entry_handle entry) noexcept;
  template <typename Value>
  [[nodiscard]] static const Value& at(const slabs<Value>& in, entry_handle entry) noexcept;

  slabs<key_id> stripes_; // of a head: the number of its parts, in the first four bytes
  slabs<run_list> runs_;
  std::uint64_t run_bytes_ = 0;
};

} // namespace memkv::engine
