// Every maximum of the storage engine's building blocks, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace memkv::engine::limits {

/// Index: entries of one slab. A slab is the step in which the index's memory grows.
inline constexpr std::uint32_t slab_entries = 4096;
/// Index: independent tables, each with its own lock, chosen by the first byte of the id.
inline constexpr std::uint32_t index_shards = 256;
/// Index: no id lies further than this from where its table position points, and no insertion moves more than
/// this many positions. Uniform ids stay below a few hundred at the highest load; only ids ground to share
/// their leading bits can reach it, and then the insertion is refused instead of slowing every look-up.
inline constexpr std::uint32_t probe_max = 4096;
/// Index: entries of one drive. Two values of a handle are taken by "none" and by nothing at all.
inline constexpr std::uint32_t entries_max = 0xFFFFFFF0;

/// Bytes of one index entry.
inline constexpr std::uint32_t entry_bytes = 64;
/// Table bytes for each entry, at the lowest load that growth by a quarter leaves (0.6).
inline constexpr double table_bytes_per_entry = 5 / 0.6;
/// Ghost list bytes for each block that the cache holds.
inline constexpr std::uint32_t ghost_bytes_per_block = 16;
/// Index, ghost list and header page bookkeeping together, for each million blocks.
inline constexpr std::uint64_t memory_bytes_per_million_blocks = std::uint64_t{96} << 20;

/// Allocator: units of one drive (8 TiB of 4 KiB units; 128 TiB of 64 KiB units).
inline constexpr std::uint32_t units_max = std::uint32_t{1} << 31;
/// Allocator: pieces an extent may lie in. Its list of runs must fit in its header page.
inline constexpr std::uint32_t runs_max = 64;
/// A header page.
inline constexpr std::uint32_t header_page_bytes = 4096;

/// Eviction: entries a search for one victim may pass over because they are pinned or parts.
inline constexpr std::uint32_t eviction_scan_max = 4096;

} // namespace memkv::engine::limits

namespace memkv::engine {

/// What a piece of `size` bytes takes from the heap: its length before it, in steps of 16, at least 32.
constexpr std::size_t heap_bytes(std::size_t size) noexcept {
  return size + 8 <= 32 ? 32 : (size + 8 + 15) / 16 * 16;
}

} // namespace memkv::engine
