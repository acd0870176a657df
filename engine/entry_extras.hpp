// What the entries of striped and fragmented blocks have no room for: the head of a part, the number of
// parts, the runs.
//
// Operation. Named by the handle of the entry, like the entry itself. Ids of heads, and numbers of parts,
// take 17 bytes each where they are few among 256 handles, and 16 for each of these handles where they are
// not. Of a slab of 4,096 handles in which some entry is fragmented there is a pointer for each, its runs in
// a piece of the heap. Handles that were used are used again first, so slabs are dense. What nobody needs any
// more is freed.
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

/// An id for some of the handles.
class id_table {
public:
  /// For a handle that has none. Valid until the next take() or give().
  [[nodiscard]] key_id& take(entry_handle entry);
  void give(entry_handle entry) noexcept;
  /// Of a handle that has one.
  [[nodiscard]] const key_id& at(entry_handle entry) const noexcept;
  /// With the heap's own bookkeeping.
  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;

private:
  static constexpr std::uint32_t group_entries = 256;
  static constexpr std::uint32_t room_step = 16;
  /// With room for more there is an id for each handle: to say whose they are would cost more.
  static constexpr std::uint32_t few_most = group_entries - room_step;

  /// The handles of a group that have an id. Few: their places in it, ascending, and the ids in that order.
  /// Else a bit for each place, and an id.
  struct group {
    std::unique_ptr<std::uint8_t[]> places;
    std::unique_ptr<key_id[]> ids;
    std::uint16_t used = 0, room = 0;

    [[nodiscard]] bool few() const noexcept { return room < group_entries; }
    [[nodiscard]] std::size_t places_bytes() const noexcept { return few() ? room : group_entries / 8; }
    [[nodiscard]] std::uint64_t memory_bytes() const noexcept;
    /// Where in `ids` that of this place is, or would be.
    [[nodiscard]] std::uint32_t position(std::uint32_t place) const noexcept;
    [[nodiscard]] bool has(std::uint32_t place) const noexcept;
    void mark(std::uint32_t place) noexcept;
    void add(std::uint32_t place) noexcept;
    void remove(std::uint32_t place) noexcept;
  };

  /// False: there is no memory, and nothing has changed.
  [[nodiscard]] bool resize(group& which, std::uint32_t room) noexcept;

  std::vector<group> groups_;
  std::uint64_t bytes_ = 0;
};

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

  id_table stripes_; // of a head: the number of its parts, in the first four bytes
  slabs<run_list> runs_;
  std::uint64_t run_bytes_ = 0;
};

} // namespace memkv::engine
