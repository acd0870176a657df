#include "engine/layout.hpp"

#include "engine/bitmap_page.hpp"
#include "engine/entry_record.hpp"
#include "engine/journal_batch.hpp"
#include "engine/limits.hpp"
#include "engine/tree_page.hpp"

#include <algorithm>
#include <bit>
#include <string>

namespace memkv::engine {

namespace {

constexpr std::uint64_t journal_bytes_least = 256 << 10;
constexpr std::uint64_t journal_bytes_most = std::uint64_t{64} << 20;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) {
  return (value + by - 1) / by;
}

/// Pages of the tree region for `units` blocks. Leaves and inner pages are at least two fifths full when they
/// are written. On top comes what a checkpoint writes before it frees what it replaced: it can always take
/// all leaves that one journal batch touches, each with a neighbour and a split.
std::uint64_t tree_pages_for(std::uint64_t units) {
  constexpr std::uint64_t entries_least = tree_payload_bytes / entry_record_bytes * 2 / 5;
  constexpr std::uint64_t children_least = tree_payload_bytes / tree_child_bytes * 2 / 5;
  std::uint64_t pages = 0;
  constexpr std::uint64_t batch_leaves_most = journal_batch_bytes_max / erase_record_bytes;
  const std::uint64_t leaves = divide_up(units, entries_least);
  std::uint64_t level = leaves;
  for (;;) {
    pages += level;
    if (level <= 1)
      break;
    level = divide_up(level, children_least);
  }
  return pages + pages / 16 + 16 + 3 * std::min(leaves, batch_leaves_most);
}

layout layout_with(std::uint64_t device_bytes, std::uint32_t unit_bytes, std::uint32_t extent_bytes_max,
                   std::uint64_t units) {
  layout result;
  result.device_bytes = device_bytes;
  result.unit_bytes = unit_bytes;
  result.extent_bytes_max = extent_bytes_max;
  result.bitmap_offset = page_bytes;
  result.bitmap_pages = divide_up(units, bitmap_bits_per_page);
  result.journal_offset = result.bitmap_offset + result.bitmap_pages * page_bytes;
  result.journal_bytes =
      std::clamp(device_bytes / 512 / (64 << 10) * (64 << 10), journal_bytes_least, journal_bytes_most);
  result.tree_offset = result.journal_offset + result.journal_bytes;
  result.tree_pages = static_cast<std::uint32_t>(tree_pages_for(units));
  // Units start at a multiple of their size as far as that costs nothing worth mentioning.
  const std::uint64_t alignment = std::min<std::uint64_t>(unit_bytes, 64 << 10);
  result.data_offset =
      align_up(result.tree_offset + std::uint64_t{result.tree_pages} * tree_page_bytes, alignment);
  result.units = static_cast<std::uint32_t>(units);
  return result;
}

bool fits(const layout& candidate) {
  return candidate.data_offset + std::uint64_t{candidate.units} * candidate.unit_bytes <=
         candidate.mirror_offset();
}

} // namespace

status compute_layout(std::uint64_t device_bytes, std::uint32_t unit_bytes, std::uint32_t extent_bytes_max,
                      layout& out) {
  if (!std::has_single_bit(extent_bytes_max) || extent_bytes_max < extent_bytes_least ||
      extent_bytes_max > extent_bytes_most)
    return {errc::invalid_argument, "storage.block_size must be a power of two from 64 KiB to 32 MiB"};
  if (!std::has_single_bit(unit_bytes) || unit_bytes < unit_bytes_min || unit_bytes > extent_bytes_max)
    return {errc::invalid_argument,
            "storage.shard_size must be a power of two from 4 KiB to storage.block_size"};
  device_bytes = device_bytes / page_bytes * page_bytes;
  if (device_bytes < drive_bytes_min)
    return {errc::no_space, "a drive must have at least 4 MiB, this one has " + std::to_string(device_bytes) +
                                " bytes: give it more"};
  // Page numbers of the data region have 32 bits; what is behind them stays unused.
  device_bytes = std::min(device_bytes, drive_bytes_max);
  if (device_bytes / unit_bytes > limits::units_max)
    return {errc::invalid_argument, "a drive of " + std::to_string(device_bytes) +
                                        " bytes has too many units of " + std::to_string(unit_bytes) +
                                        " bytes: make storage.shard_size larger"};
  std::uint64_t low = 0;
  std::uint64_t high = device_bytes / unit_bytes;
  while (low < high) {
    const std::uint64_t middle = (low + high + 1) / 2;
    if (fits(layout_with(device_bytes, unit_bytes, extent_bytes_max, middle)))
      low = middle;
    else
      high = middle - 1;
  }
  const layout result = layout_with(device_bytes, unit_bytes, extent_bytes_max, low);
  if (std::uint64_t{result.units} * unit_bytes < extent_bytes_max + std::uint64_t{unit_bytes})
    return {errc::no_space,
            "a drive of " + std::to_string(device_bytes) +
                " bytes has no room for one extent of storage.block_size: make the drive larger "
                "or the block size smaller"};
  out = result;
  return {};
}

} // namespace memkv::engine
