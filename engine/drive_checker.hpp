// The inside of check_drive: what was read from a drive, kept for the judgement and for the repair.
//
//   drive_checker.cpp  findings, reading in large pieces, superblocks, the account of regions
//   check_tree.cpp     the tree region
//   check_journal.cpp  replay in memory
//   check_space.cpp    owners of units, bitmap
//   check_data.cpp     header pages and bytes of blocks
//
// Threading: one thread; blocks. Ownership: device, options and report are lent. Errors: values.
#pragma once

#include "engine/allocator.hpp"
#include "engine/drive_check.hpp"
#include "engine/drive_io.hpp"
#include "engine/journal_scan.hpp"
#include "engine/superblock_pair.hpp"
#include "engine/tree_proof.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace memkv::engine {

/// A stored block, as small as it can be: there may be a hundred million.
struct checked_entry {
  key_id id;
  std::uint64_t generation = 0, put_id = 0;
  std::uint32_t value_length = 0, first_unit = 0, header_page = 0, header_crc32c = 0;
  std::uint16_t units = 0;
  std::uint8_t flags = 0; // entry_flag
  bool dropped = false;
  bool units_held = false; // counted as owner of its space
};

/// What few entries have.
struct checked_extra {
  std::vector<run> runs;   // entry_fragmented
  key_id head;             // entry_part
  std::uint32_t parts = 0; // entry_striped
};

/// One sentence about a structure that this program may not read.
[[nodiscard]] std::string newer_text(const char* what, unsigned ours);

class drive_checker {
public:
  drive_checker(block_device& device, const check_options& options, check_report& report);

  /// All stages.
  status look();
  /// The first one only.
  status look_at_superblocks();
  /// After that: the rest of drive_facts.
  status read_facts();

  // What was found, for the repair.
  [[nodiscard]] drive_io& io() noexcept { return io_; }
  [[nodiscard]] const superblock& super() const noexcept { return report_.facts.super; }
  [[nodiscard]] const layout& places() const noexcept { return super().places; }
  /// In ascending order of their ids.
  [[nodiscard]] const std::vector<checked_entry>& entries() const noexcept { return entries_; }
  [[nodiscard]] entry_record record_of(const checked_entry& entry) const;
  [[nodiscard]] const std::vector<dropped_block>& dropped() const noexcept { return dropped_; }
  [[nodiscard]] std::uint64_t dropped_count() const noexcept { return dropped_count_; }
  /// The published tree is whole and says exactly what entries() says.
  [[nodiscard]] bool tree_is_right() const noexcept { return tree_is_right_ && dropped_count_ == 0; }
  [[nodiscard]] bool tree_page_used(std::uint32_t page) const noexcept { return tree_claimed_[page]; }
  /// Better not written to: a repair that is run again must find the same there.
  [[nodiscard]] bool tree_page_is_evidence(std::uint32_t page) const noexcept { return tree_evidence_[page]; }
  /// The copy of the superblock that does not count is not what the other one is.
  [[nodiscard]] bool copies_differ() const noexcept { return copies_differ_; }
  [[nodiscard]] bool metadata_unreadable() const noexcept { return metadata_unreadable_; }
  [[nodiscard]] std::uint64_t next_batch() const noexcept { return next_batch_; }
  [[nodiscard]] std::uint64_t highest_generation() const noexcept { return highest_generation_; }
  /// Makes page `page` of the bitmap as it must be for the entries that were not dropped. `right`: so it is
  /// on the drive. The sequence on it is kept where it can be, at most `sequence_most`: else a page that a
  /// cut tore could be right in another way when the repair is run again.
  void make_bitmap_page(std::uint32_t page, std::uint64_t sequence_most, std::span<std::byte, page_bytes> to,
                        bool& right);
  /// Gives the space of what the data stage dropped back, before the bitmap is made.
  void release_dropped();

private:
  struct page_summary : tree_page_facts {
    errc state = errc::bad_format; // of decode, or io_error
  };
  struct leaf {
    key_id first, last;
    std::uint64_t journal_sequence = 0;
    std::uint32_t page = no_tree_page; // none: lost
  };
  struct extent_reading;

  void find(finding_kind kind, check_region region, std::uint64_t offset, std::uint64_t length,
            std::string text, const key_id* id = nullptr);
  void drop(checked_entry& entry, finding_kind why);
  void advance(check_stage stage, std::uint64_t bytes);
  [[nodiscard]] region_account& of(check_region region) noexcept {
    return report_.regions[static_cast<std::size_t>(region)];
  }
  /// Reads a stretch in order, several pieces at a time. `visit` gets whole granules, or one granule and the
  /// error with which it could not be read.
  using visitor = std::function<void(std::uint64_t offset, std::span<const std::byte> bytes, errc result)>;
  void sweep(check_stage stage, std::uint64_t offset, std::uint64_t length, std::uint32_t granule,
             const visitor& visit);

  // Superblocks.
  [[nodiscard]] int choose(const superblock_pair& pair);
  [[nodiscard]] std::uint64_t witnesses(const superblock& block);
  void compare_copies(const superblock_pair& pair, int chosen);

  // Tree.
  status look_at_tree();
  void summarise(std::uint32_t page, std::span<const std::byte> bytes, errc read);
  status walk(std::uint8_t level, const tree_reference& reference, const key_id& first, const key_id& last);
  void lose(const key_id& first, const key_id& last);
  /// The children of a damaged inner page, if the pages below prove what it said.
  [[nodiscard]] std::vector<tree_child> reconstruct(std::uint8_t level, const tree_reference& reference,
                                                    const key_id& first, const key_id& last);
  status walk_children(std::uint8_t level, const std::vector<tree_child>& children, const key_id& last);
  void load_leaves();
  void load_leaf(leaf& of, std::span<const std::byte> bytes, errc read);
  [[nodiscard]] static checked_entry entry_of(const entry_record& record);

  // Journal.
  status read_journal();
  status look_at_journal();
  void replay();
  void replay_record(const entry_record& record, std::uint64_t batch, bool must_verify);
  void forget_unproven(std::uint64_t first, std::uint64_t last, const journal_batch& next);
  void visit_range(const key_id& first, const key_id& last,
                   const std::function<void(const checked_entry&)>& visit) const;
  [[nodiscard]] const checked_entry* find_entry(const key_id& id) const;
  void set_entry(const entry_record& record);
  void remove_entry(const key_id& id);
  void lose_entry(const checked_entry& entry, finding_kind why, std::string text);
  [[nodiscard]] const leaf& leaf_of(const key_id& id) const;
  [[nodiscard]] bool data_is_there(const entry_record& record);
  void merge_changes();

  // Space.
  void look_at_space();
  [[nodiscard]] std::vector<run> runs_of(const checked_entry& entry) const;
  [[nodiscard]] bool header_apart(const checked_entry& entry) const;
  [[nodiscard]] bool mark(const checked_entry& entry);
  void unmark(const checked_entry& entry);
  [[nodiscard]] bool contradicts(const checked_entry& entry) const;
  void look_at_bitmap();
  void compare_bits(std::uint32_t page, std::span<const std::byte> bits);
  [[nodiscard]] std::uint32_t units_of_page(std::uint32_t page) const noexcept;

  // Data.
  void look_at_data();
  void start_reading(extent_reading& reading);
  void judge(extent_reading& reading);
  void account_extent(const checked_entry& entry, std::optional<std::uint64_t> length);

  void account();

  const check_options& options_;
  check_report& report_;
  drive_io io_;
  std::uint64_t bytes_done_ = 0, bytes_total_ = 0, bytes_told_ = 0;
  bool copies_differ_ = false;
  bool metadata_unreadable_ = false;
  bool tree_is_right_ = true;

  std::vector<page_summary> summaries_;
  std::unordered_map<std::uint32_t, std::vector<tree_child>> children_;
  std::vector<bool> tree_claimed_;      // by the current tree, whole or not
  std::vector<bool> tree_evidence_;     // looked at for what a damaged page said
  std::vector<const tree_page_facts*> by_range_; // whole pages, as prove_children wants them
  std::vector<leaf> leaves_;            // ascending, without gaps

  journal_scan scan_;
  std::uint64_t next_batch_ = 1;
  std::uint64_t highest_generation_ = 0;
  std::map<key_id, std::optional<checked_entry>> changes_; // by the replay; none: removed

  std::vector<checked_entry> entries_;
  std::unordered_map<key_id, checked_extra> extras_;
  std::vector<dropped_block> dropped_;
  std::uint64_t dropped_count_ = 0;
  std::optional<unit_allocator> units_;
  std::optional<header_page_allocator> headers_;
  std::vector<std::unique_ptr<aligned_bytes>> spare_; // buffers of the data stage
};

} // namespace memkv::engine
