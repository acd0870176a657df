// The superblock: what a drive is, whom it belongs to, where everything lies, and the newest checkpoint's
// root.
//
// Two copies, at page 0 and in the last page. Both are written for every change, the second one only after
// the first is durable; of two valid copies the one with the higher sequence counts.
//
// Format: docs/formats/superblock.md. Threading: values. Errors: values.
// Does not: do I/O.
#pragma once

#include "engine/drive_members.hpp"
#include "engine/drive_store.hpp"
#include "engine/failure_registry.hpp"
#include "engine/layout.hpp"
#include "engine/page.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace memkv::engine {

constexpr std::string_view superblock_magic = "memkv-sb";
constexpr std::uint8_t superblock_version = 2;
constexpr std::uint32_t no_tree_page = 0xFFFFFFFF;

/// Names a tree page and proves that it is the one that was meant.
struct tree_reference {
  std::uint32_t page = no_tree_page;
  std::uint32_t checksum = 0;
  std::uint64_t sequence = 0;

  friend bool operator==(const tree_reference&, const tree_reference&) noexcept = default;
};

struct superblock {
  std::uint8_t copy = 0;                 // 0: page 0, 1: the mirror
  bool clean = false;                    // closed in order, everything flushed, the journal is empty
  sync_policy sync = sync_policy::never; // in force since the last opening
  identity format_id{};                  // random at each format
  identity drive_id{};                   // random at the first format, kept by later ones of our own
  set_identity set;
  std::uint64_t set_epoch = 0; // rises whenever the set of drives that take part changes, and at each start
  drive_members members{};     // that took part when this epoch began
  bool untrimmed = false;      // free space may hold what was not discarded yet
  std::uint64_t sequence = 0;
  identity boot_id{}; // of the kernel under which the drive was last opened
  std::uint64_t formatted_at_ns = 0;
  layout places;
  std::uint64_t generation = 0; // no block on the drive was given a higher one before the checkpoint
  std::uint64_t journal_tail_sequence = 0; // first batch that the tree may lack
  std::uint64_t tree_sequence = 0;         // no page of the tree has a higher one
  tree_reference root;
  std::uint8_t root_level = 0;
  std::uint64_t blocks = 0; // at the checkpoint, for people
  failure_registry failures;

  /// A format of a drive that was ours before has begun and not ended: the drive is empty, and what it held
  /// may still lie in its free space. Nothing else leaves a first superblock that is not clean.
  [[nodiscard]] bool format_cut_short() const noexcept { return !clean && sequence == 1; }
};

void encode(const superblock& block, std::span<std::byte, page_bytes> to) noexcept;

/// bad_format (not ours), corrupt (checksum), newer_version (ours, of a later release), or ok. `copy` is
/// where it was read from: a copy in the other one's place is corrupt. Does not compare with the device: see
/// check_against.
[[nodiscard]] errc decode(std::span<const std::byte, page_bytes> from, std::uint8_t copy, superblock& out);

/// The layout in the superblock is exactly the one of a device of this size: wrong_size, corrupt, or ok.
[[nodiscard]] errc check_against(const superblock& block, std::uint64_t device_bytes);

} // namespace memkv::engine
