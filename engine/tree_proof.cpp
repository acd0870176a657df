#include "engine/tree_proof.hpp"

#include "engine/id_range.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>

namespace memkv::engine {

namespace {

/// What of the page is known neither to its parent nor to its children is its journal sequence: no lower than
/// a child's, and few batches later than the last of them, since all were written in one checkpoint.
constexpr std::uint64_t batches_later_most = 1 << 14;

constexpr std::size_t children_max = tree_payload_bytes / tree_child_bytes;

} // namespace

tree_page_facts facts_of(std::span<const std::byte> page, const tree_page_header& header) noexcept {
  return {header.level,
          header.page,
          wire::load_le<std::uint32_t>(page.data() + checksum_offset),
          header.sequence,
          header.journal_sequence,
          header.first,
          header.last};
}

void order_by_range(std::vector<const tree_page_facts*>& pages) {
  std::ranges::sort(pages, [](const tree_page_facts* a, const tree_page_facts* b) {
    return std::tie(a->level, a->first, b->sequence) < std::tie(b->level, b->first, a->sequence);
  });
}

std::vector<tree_child> prove_children(const layout& places, const identity& format_id, std::uint8_t level,
                                       const tree_reference& reference, const key_id& first,
                                       const key_id& last, std::span<const tree_page_facts* const> by_range,
                                       const std::function<bool(const tree_page_facts&)>& usable) {
  if (level == 0 || reference.page >= places.tree_pages)
    return {};
  const auto level_below = static_cast<std::uint8_t>(level - 1);
  std::vector<tree_child> children;
  std::uint64_t applied = 0;
  for (key_id next = first;;) {
    // The youngest page that begins here and was written before its parent.
    const tree_page_facts* found = nullptr;
    for (auto at = std::lower_bound(by_range.begin(), by_range.end(), next,
                                    [&](const tree_page_facts*one, const key_id&id) {
                                      return std::tie(one->level, one->first) < std::tie(level_below, id);
                                    });
         at != by_range.end() && (*at)->level == level_below && (*at)->first == next; ++at) {
      // What is younger was written by nobody who could publish it, perhaps by a repair that was cut off.
      if ((*at)->sequence >= reference.sequence)
        continue;
      const bool may = !usable || usable(**at);
      if (found == nullptr && may)
        found = *at;
    }
    if (found == nullptr || last < found->last || children.size() == children_max)
      return {};
    children.push_back({next, {found->page, found->checksum, found->sequence}});
    applied = std::max(applied, found->journal_sequence);
    if (found->last == last)
      break;
    next = after(found->last);
  }
  std::vector<std::byte> bytes(tree_page_bytes);
  const auto checksum_with = [&](std::uint64_t journal_sequence) {
    tree_page_writer writer(bytes);
    for (const tree_child& child : children)
      if (!writer.add(child))
        return std::uint32_t{0};
    tree_page_header header;
    header.format_id = format_id;
    header.level = level;
    header.page = reference.page;
    header.sequence = reference.sequence;
    header.journal_sequence = journal_sequence;
    header.first = first;
    header.last = last;
    return writer.finish(header);
  };
  // A checksum is linear: what a bit of the unknown number does to it is the same whatever the others are.
  const std::uint32_t base = checksum_with(0);
  std::array<std::uint32_t, 64> effects{};
  for (std::size_t bit = 0; bit < effects.size(); ++bit)
    effects[bit] = checksum_with(std::uint64_t{1} << bit) ^ base;
  for (std::uint64_t tried = applied; tried <= applied + batches_later_most; ++tried) {
    std::uint32_t sum = base;
    for (std::uint64_t bits = tried; bits != 0; bits &= bits - 1)
      sum ^= effects[static_cast<std::size_t>(std::countr_zero(bits))];
    if (sum == reference.checksum)
      return children;
  }
  return {};
}

} // namespace memkv::engine
