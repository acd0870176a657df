// Which units of a drive's data region are taken, and single 4 KiB pages inside some of them.
//
// Operation. One bit a unit, with two levels of summary above it (words without a free unit; free units a
// zone). An allocation continues where the last one ended (next fit) and takes the first contiguous run that
// is long enough within a bounded stretch of free space; failing that, the fewest and largest pieces it has
// seen.
//
// Threading: one thread, the drive's. Ownership: values; the words are lent until the next call.
// Errors: no_space. Freeing what is free, or outside, is a broken invariant and stops the program.
// Limits: units_max units, runs_max pieces (engine/limits.hpp).
// Does not: write anything, know what lies in a unit, or move data.
#pragma once

#include "engine/errc.hpp"
#include "engine/limits.hpp"
#include "engine/run.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

namespace memkv::engine {

class unit_allocator {
public:
  /// All units are free. `units` is 1 ... limits::units_max.
  explicit unit_allocator(std::uint32_t units);

  /// Takes `units` (at least 1) in at most `runs_max` (1 ... limits::runs_max) pieces. `out` is replaced;
  /// runs are in the order in which the data is to be laid out. no_space, with nothing taken, when there is
  /// no room or it is in too many pieces.
  [[nodiscard]] errc allocate(std::uint32_t units, std::uint32_t runs_max, std::vector<run>& out);

  void free(run what);

  /// Takes exactly this run: recovery. False, with nothing changed, when it reaches outside or a unit of it
  /// is taken already.
  [[nodiscard]] bool mark(run what);

  [[nodiscard]] bool is_taken(std::uint32_t unit) const noexcept;
  /// True if no unit of the run is taken (and it lies inside).
  [[nodiscard]] bool is_free(run what) const noexcept;

  [[nodiscard]] std::uint32_t units() const noexcept { return units_; }
  [[nodiscard]] std::uint32_t free_units() const noexcept { return free_units_; }
  [[nodiscard]] std::uint32_t used_units() const noexcept { return units_ - free_units_; }

  /// Bit `u % 64` of word `u / 64` is 1 when unit `u` is taken. Bits behind the last unit are 0 here.
  [[nodiscard]] std::uint64_t word(std::size_t position) const noexcept;
  [[nodiscard]] std::size_t word_count() const noexcept { return words_.size(); }
  /// Overwrites words from `position` on: loading a stored bitmap. False, with nothing changed, when it
  /// reaches outside or a bit behind the last unit is 1.
  [[nodiscard]] bool load_words(std::size_t position, std::span<const std::uint64_t> words);

  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;

  /// Searches begin where space was freed last, instead of going on behind what was handed out last: for
  /// memory, where freed space is warm and untouched space costs a page fault.
  void reuse_first(bool wanted) noexcept { reuse_first_ = wanted; }

private:
  static constexpr std::uint32_t zone_words = 1024; // 65,536 units

  void take(run what) noexcept;
  void give(run what) noexcept;
  [[nodiscard]] std::uint32_t find_free(std::uint32_t from, std::uint32_t end) const noexcept;
  [[nodiscard]] std::uint32_t run_length(std::uint32_t from, std::uint32_t end,
                                         std::uint32_t enough) const noexcept;

  [[nodiscard]] std::uint32_t run_before(std::uint32_t unit, std::uint32_t enough) const noexcept;

  std::uint32_t units_ = 0;
  std::uint32_t free_units_ = 0;
  std::uint32_t cursor_ = 0;
  bool reuse_first_ = false;
  /// A request that found no room, and how many units its pieces lacked: nothing of the kind fits before as
  /// much was freed.
  std::uint32_t refused_units_ = 0;
  std::uint64_t refused_missing_ = 0;
  std::uint32_t refused_runs_ = 0;
  std::vector<std::uint64_t> words_;     // bits behind the last unit are 1 inside, so that nobody takes them
  std::vector<std::uint64_t> full_;      // a bit a word: no unit free in it
  std::vector<std::uint32_t> zone_free_; // free units of each zone
};

/// Single pages for extent headers. A unit is taken when no page is free, and given back when its last page
/// is.
class header_page_allocator {
public:
  /// `units` is lent and outlives this. `unit_bytes` is a multiple of header_page_bytes.
  header_page_allocator(unit_allocator& units, std::uint32_t unit_bytes);

  /// `page` counts 4 KiB pages from the start of the data region. no_space when a unit is needed and none is
  /// free.
  [[nodiscard]] errc allocate(std::uint32_t& page);

  /// `unit_freed` tells that the page's unit went back to the units.
  void free(std::uint32_t page, bool& unit_freed);

  /// Takes exactly this page: recovery. `unit_is_marked` tells that the unit's bit was already set from the
  /// stored bitmap; otherwise the unit is taken with its first page. False when the page, or its unit,
  /// belongs to somebody else.
  [[nodiscard]] bool mark(std::uint32_t page, bool unit_is_marked);

  [[nodiscard]] bool is_taken(std::uint32_t page) const noexcept;
  [[nodiscard]] bool owns_unit(std::uint32_t unit) const noexcept { return slot_of_unit_.contains(unit); }
  [[nodiscard]] std::uint32_t pages_per_unit() const noexcept { return pages_per_unit_; }
  [[nodiscard]] std::uint32_t units_used() const noexcept {
    return static_cast<std::uint32_t>(slot_of_unit_.size());
  }
  [[nodiscard]] std::uint64_t pages_used() const noexcept { return pages_used_; }
  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;

private:
  struct slot {
    std::uint32_t unit = 0;
    std::uint32_t used = 0;
    std::uint32_t previous = 0, next = 0; // among those with a free page, or among unused slots
  };
  static constexpr std::uint32_t nothing = 0xFFFFFFFF;

  [[nodiscard]] std::uint32_t new_slot(std::uint32_t unit);
  void link(std::uint32_t position) noexcept;
  void unlink(std::uint32_t position) noexcept;

  unit_allocator& units_;
  std::uint32_t pages_per_unit_ = 1;
  std::uint32_t words_per_slot_ = 1;
  std::uint32_t partial_ = nothing;
  std::uint32_t unused_ = nothing;
  std::uint64_t pages_used_ = 0;
  std::vector<slot> slots_;
  std::vector<std::uint64_t> bits_; // words_per_slot_ for each slot; 1 is taken
  std::unordered_map<std::uint32_t, std::uint32_t> slot_of_unit_;
};

} // namespace memkv::engine
