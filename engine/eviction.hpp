// In which order blocks are evicted.
//
// Operation. A policy keeps the entries of one index in lists through their own links. Readers do not talk to
// it: a hit only sets the entry's recency bit. The policy looks at the bit when the entry has reached the end
// of its list, and the segmented order also on a walk over all entries, four for each insertion, so that it
// learns of a hit after a quarter of a turn. So a hit costs no lock and no message, and a victim costs a few
// list moves.
//
// Threading: one thread, the drive's; the recency bits are set by any.
// Ownership: the index is lent and outlives the policy. Errors: none; no_entry when nothing may be evicted.
// Limits: a search passes over at most eviction_scan_max entries that may not go (engine/limits.hpp).
// Does not: unlink entries from the index, free space, or know about watermarks.
#pragma once

#include "engine/ghost_list.hpp"
#include "engine/index.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace memkv::engine {

enum class eviction_kind : std::uint8_t {
  fifo,  // order of arrival
  lru,   // exact, when told of each hit by touched(); else second chance by recency bits
  sieve, // one list, a hand, no moves
  slru,  // segmented, with a ghost list: the default
};

[[nodiscard]] std::string_view name(eviction_kind kind) noexcept;
[[nodiscard]] std::optional<eviction_kind> eviction_kind_from_name(std::string_view text) noexcept;

struct eviction_options {
  eviction_kind kind = eviction_kind::slru;
  std::uint64_t capacity_bytes = 0;    // of the drive's data region
  std::uint32_t unit_bytes = 64 << 10; // an extent weighs block_entry::units of these
  double protected_share = 0.5;        // of the capacity (slru)
  std::uint32_t ghost_factor = 4;      // ids remembered for each block held (slru)
};

struct eviction_statistics {
  std::uint64_t entries = 0, bytes = 0; // in the order now
  std::uint64_t protected_entries = 0, protected_bytes = 0;
  std::uint64_t ghost_hits = 0;   // inserted again soon after their eviction
  std::uint64_t skipped = 0;      // passed over because pinned or a part
  std::uint64_t looked_ahead = 0; // entries examined for hits besides
  std::uint64_t looked_at = 0;    // entries examined in searches for victims
};

class eviction_policy {
public:
  virtual ~eviction_policy() = default;
  eviction_policy() = default;
  eviction_policy(const eviction_policy&) = delete;
  eviction_policy& operator=(const eviction_policy&) = delete;

  /// A new entry that is in the index.
  virtual void inserted(entry_handle entry) = 0;

  /// The same for recovery, in any order of your choice: oldest first. Nobody has hit anything yet.
  virtual void recovered(entry_handle entry) { inserted(entry); }

  /// `newer` took the place of `older`, which leaves the order; a put of a present key counts as a hit.
  virtual void replaced(entry_handle older, entry_handle newer) = 0;

  /// Leaves the order without being remembered: deleted, corrupt. Call before free(). Harmless if it is not
  /// in it.
  virtual void removed(entry_handle entry) = 0;

  /// The entry to evict next. It stays in the order until evicted() or removed(). Pinned entries and parts of
  /// striped blocks are passed over. no_entry: nothing may go now.
  [[nodiscard]] virtual entry_handle victim() = 0;

  /// The victim goes: leaves the order and is remembered where the policy does that. Call before free().
  virtual void evicted(entry_handle entry) = 0;

  /// Tells of a hit at once instead of by the recency bit. The server never does; simulations of exact LRU
  /// do.
  virtual void touched(entry_handle entry) = 0;

  [[nodiscard]] virtual eviction_statistics statistics() const noexcept = 0;
  /// Besides the index's entries.
  [[nodiscard]] virtual std::uint64_t memory_bytes() const noexcept = 0;
};

[[nodiscard]] std::unique_ptr<eviction_policy> make_eviction_policy(block_index& index,
                                                                    const eviction_options& options);

} // namespace memkv::engine
