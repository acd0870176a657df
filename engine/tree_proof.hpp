// Proof of what a damaged inner page of the tree said, from the whole pages around it.
//
// Operation. All that an inner page says is what its children say of themselves: range, page, sequence and
// checksum. Whoever named the page knows its checksum. So the page is made anew from the youngest pages below
// it that are older than itself; if it has the checksum then, they are the children it named. Pages that were
// replaced lie about as long as nobody overwrites them: one of those among the children gives another
// checksum (but for a chance of about one in 2^18), and nothing is proven.
//
// Threading: pure. Ownership: facts are lent. Errors: an empty answer.
// Does not: do I/O.
#pragma once

#include "engine/tree_page.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace memkv::engine {

/// What a whole page in the tree region says of itself, used or not.
struct tree_page_facts {
  std::uint8_t level = 0;
  std::uint32_t page = 0;
  std::uint32_t checksum = 0;
  std::uint64_t sequence = 0, journal_sequence = 0;
  key_id first, last;
};

/// Of a page that decode() called whole.
[[nodiscard]] tree_page_facts facts_of(std::span<const std::byte> page,
                                       const tree_page_header& header) noexcept;

/// By level and first id, the youngest of them first.
void order_by_range(std::vector<const tree_page_facts*>& pages);

/// The children of the inner page that `reference` means, with this range of ids; empty when they cannot be
/// proven. `by_range` as order_by_range made it. `usable` is asked of each page that may be one of them, the
/// youngest first; may be empty.
[[nodiscard]] std::vector<tree_child>
prove_children(const layout& places, const identity& format_id, std::uint8_t level,
               const tree_reference& reference, const key_id& first, const key_id& last,
               std::span<const tree_page_facts* const> by_range,
               const std::function<bool(const tree_page_facts&)>& usable);

} // namespace memkv::engine
