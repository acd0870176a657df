// A page of the B+ tree: a leaf with entry records in the order of their ids, or an inner page with its
// children.
//
// Pages are never overwritten in place: a changed page is written elsewhere, and its parent names the new
// place with its sequence and checksum. So a lost, stale or misdirected write of a page is seen from above.
//
// Format: docs/formats/tree.md. Threading: values. Errors: values.
#pragma once

#include "engine/entry_record.hpp"
#include "engine/page.hpp"
#include "engine/superblock.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace memkv::engine {

constexpr std::string_view tree_magic = "memkv-tr";
constexpr std::uint16_t tree_version = 1;
constexpr std::size_t tree_header_bytes = 128;
constexpr std::size_t tree_payload_bytes = tree_page_bytes - tree_header_bytes;
constexpr std::size_t tree_child_bytes = 32;
constexpr std::uint8_t tree_levels_max = 12;

struct tree_page_header {
  identity format_id{};
  std::uint8_t level = 0;             // 0: leaf
  std::uint32_t page = 0;             // place within the tree region
  std::uint64_t sequence = 0;         // each page written gets a higher one
  std::uint64_t journal_sequence = 0; // leaves: the records of all batches up to this one are in here
  key_id first, last;                 // the ids this page is responsible for, both included
};

struct tree_child {
  key_id first; // smallest id the child is responsible for
  tree_reference reference;
};

/// What came out of a page.
struct tree_page {
  tree_page_header header;
  std::vector<entry_record> entries; // level 0
  std::vector<tree_child> children;  // other levels
};

/// Fills a page piece by piece. The span has tree_page_bytes and belongs to the caller.
class tree_page_writer {
public:
  explicit tree_page_writer(std::span<std::byte> page) noexcept;
  /// False when there is no room for it.
  [[nodiscard]] bool add(const entry_record& record) noexcept;
  [[nodiscard]] bool add(const tree_child& child) noexcept;
  [[nodiscard]] std::size_t payload_bytes() const noexcept { return used_; }
  /// Writes the header, seals the page, returns its checksum.
  std::uint32_t finish(const tree_page_header& header) noexcept;

private:
  std::span<std::byte> page_;
  std::size_t used_ = 0;
  std::uint32_t items_ = 0;
};

/// bad_format, newer_version, foreign_drive (other format id), corrupt (checksum, another place, contents out
/// of order or range, contradiction with the layout), or ok. Compare header.sequence and the checksum with
/// the parent's reference.
[[nodiscard]] errc decode(std::span<const std::byte> from, const identity& format_id, std::uint32_t page,
                          const layout& places, tree_page& out);

/// Whether the page at `from` is the one that its parent (or the superblock) means.
[[nodiscard]] bool is_meant(std::span<const std::byte> from, const tree_page& page,
                            const tree_reference& reference) noexcept;

} // namespace memkv::engine
