// The offline judgement of one drive: what it is, whether everything on it is what it should be, and the
// repair of what is not.
//
// Operation. check_drive looks in this order: both superblocks; every page of the tree region, one after the
// other and not by pointers, and then the tree that the superblock names; the journal, replayed in memory by
// the rules of recovery when the drive was not closed in order; who owns which unit, and the bitmap against
// that both ways; and, unless quick, the header page and every byte of every stored block. It never writes.
// At its end each byte of the device belongs to exactly one region (check_report::regions), and the sum of
// the regions is the size of the device.
//
// What is covered. A changed byte is found if it matters:
//   superblock, mirror            every byte, always
//   tree (pages in use)           every byte, always
//   journal (batches that the     every byte, if the drive was not closed in order. The last batch is the
//     tree lacks)                 exception: damage there, and to the data of its puts, cannot be told from
//                                 a write that never ended. Where it can be seen that there was one, it is
//                                 a note (journal_torn_tail, put_unfinished)
//   bitmap                        every byte, if the drive was closed in order. Else it is out of date,
//   decides
//                                 nothing, and is not judged
//   extent_header, extent_data    every byte, unless quick
//   all names that end in unused, nothing: no reader of the drive ever takes them for anything. A page of the
//     gap, free_units, outside    tree that the current tree does not use, a journal batch of an earlier lap,
//     and
//                                 what lies in free units are not judged, whatever is in them
//
// After a crash of the process or of the machine a drive that keeps what it flushed is clean: what recovery
// will replay, drop as never answered or write anew is told in notes. A superblock that a power cut tore is
// reported as damaged, since one copy is missing until the next opening.
//
// With storage.sync: never and the power lost in between (see check_options::boot_id) nothing but the
// superblocks is judged: the server starts such a drive empty.
//
// A damaged inner page of the tree costs nothing as long as the pages below it are whole: what they say of
// themselves and the checksum that its parent has of it prove what it said. A damaged leaf costs its blocks.
//
// Repair. Everything that check_drive proves is kept: the tree is made anew from the surviving entries in
// pages that the old tree does not use, the bitmap from the tree, the journal is empty, both superblocks say
// closed in order. Blocks whose bytes are not what they were, that lie where a younger block lies, or whose
// state the journal cannot prove any more are dropped and listed. Parts of striped blocks are kept, whether
// their head is found or not: it may be on another drive, and the server sorts that out. A repair that was
// killed changes nothing of what can be read, and ends in the same bytes when it is run again. A drive that
// is in order is not written to. Journal and data regions are never written to.
//
// Threading: one thread; blocks. Ownership: the device is lent, must be open for writing only for repair, and
// nobody else may use it meanwhile (the openers of devices see to that). The report belongs to the caller.
// Errors: a status other than ok means that no judgement was possible, in one sentence (see check_drive);
// damage is not an error of the call but a finding. Limits: memory is about 90 bytes for each block, one bit
// for each unit and 64 bytes for each page of the tree region, and at most 64 MiB of buffers.
// Does not: trust the bitmap, the superblock's counters or the running store's code; compare drives with each
// other; find a drive that went back to an older consistent state as a whole.
#pragma once

#include "engine/block_device.hpp"
#include "engine/superblock.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::engine {

/// Each byte of a device belongs to exactly one of these.
enum class check_region : std::uint8_t {
  superblock = 0,     // copy 0
  bitmap = 1,         // all of its pages
  journal = 2,        // batches that the tree lacks
  journal_unused = 3, // the rest of the journal region
  tree = 4,           // pages of the tree that the superblock names
  tree_unused = 5,    // the other pages of the tree region
  gap = 6,            // between tree and data, for alignment
  extent_header = 7,  // header pages of stored blocks
  extent_data = 8, // bytes of stored blocks; in a quick check with extent_unused, which it cannot tell apart
  extent_unused = 9, // of units that are taken: behind the data, and pages between header pages
  free_units = 10,   // units of nobody
  end_unused = 11,   // between the last unit and the mirror
  mirror = 12,       // copy 1 of the superblock
  outside = 13,      // behind the mirror: a rest smaller than a page, or what is behind 16 TiB
  void_space = 14,   // everything between the superblocks of a drive that the power loss emptied
};
constexpr std::size_t check_regions = 15;

/// Stable names, for people and documents: "superblock", "journal_unused", ...
[[nodiscard]] std::string_view name(check_region region) noexcept;

enum class check_severity : std::uint8_t {
  note = 0,    // as it should be, or as a crash leaves it
  warning = 1, // nothing is lost; a person may want to know
  error = 2,   // damage: repair mends it, or drops what it hit
};
[[nodiscard]] std::string_view name(check_severity severity) noexcept; // "note", "warning", "error"

enum class finding_kind : std::uint8_t {
  superblock_damaged = 0,     // error: a copy is not readable
  superblock_foreign = 1,     // error: a copy is of another format or drive than the rest
  superblock_behind = 2,      // error: the copies differ in a way that no interrupted write leaves
  superblock_interrupted = 3, // note: copy 0 is one step newer; a crash between the two writes
  tree_page_damaged = 4,      // error: a page of the tree is not what its parent names
  tree_page_repeated = 5,     // error: a page has two parents
  tree_counts_differ = 6,     // error: the superblock's level or sequence is not the tree's
  journal_hole = 7,           // error: batches are missing in the middle
  journal_torn_tail = 8,      // note: the last batch is not whole; its puts were not answered
  journal_not_empty = 9,      // error: the drive was closed in order and has batches to replay
  put_unfinished = 10,        // note: journalled, its data never arrived, never answered: recovery drops it
  block_unproven = 11,        // error: what the journal lost may have removed or replaced this block
  entry_contradicts =
      12,          // error: an entry that cannot be: header page inside its data, wrong number of units
  two_owners = 13, // error: a younger block lies in the same units; this one is dropped
  bitmap_page_damaged = 14,   // error: a page of the bitmap is not readable
  units_leaked = 15,          // error: taken in the bitmap, owned by nobody
  units_missing = 16,         // error: owned by a block, free in the bitmap
  header_damaged = 17,        // error: a block's header page is not the one that its entry names
  data_damaged = 18,          // error: a block's bytes are not what their checksum says
  unreadable = 19,            // error: the device failed to read there
  head_missing = 20,          // note: a part whose head is not on this drive (it may be on another)
  emptied_by_power_loss = 21, // warning: in use without storage.sync when the power went; it starts empty
  blacklisted = 22,           // warning: the failure registry keeps the drive out of service
};
constexpr std::size_t finding_kinds = 23;

/// Stable names: "superblock_damaged", ...
[[nodiscard]] std::string_view name(finding_kind kind) noexcept;
[[nodiscard]] check_severity severity_of(finding_kind kind) noexcept;

struct check_finding {
  finding_kind kind = finding_kind::superblock_damaged;
  check_region region = check_region::superblock;
  std::uint64_t offset = 0; // bytes from the start of the device
  std::uint64_t length = 0; // bytes it speaks of; 0: none in particular
  std::optional<key_id> id; // of the block it hits, when it hits one
  std::string text;         // one sentence
  [[nodiscard]] check_severity severity() const noexcept { return severity_of(kind); }
};

enum class check_stage : std::uint8_t {
  superblocks = 0,
  tree = 1,
  journal = 2,
  space = 3, // owners and bitmap
  data = 4,
  repair = 5, // repair_drive only: bytes written
};
constexpr std::size_t check_stages = 6;
/// "superblocks", "tree", "journal", "space", "data", "repair".
[[nodiscard]] std::string_view name(check_stage stage) noexcept;

/// How far the check is. `bytes_total` is of all stages and may change until the data stage begins, since
/// only then it is known how much is stored.
struct check_progress {
  check_stage stage = check_stage::superblocks;
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;
};

struct check_options {
  bool quick = false;              // do not read stored blocks
  std::size_t findings_max = 1000; // findings kept in the report; all are counted
  /// Of the running kernel (read_boot_id). With it a drive that was in use without storage.sync under another
  /// boot is known to have lost the power. Zeros: not known, taken for the same boot.
  identity boot_id{};
  /// Called at least once a stage and about every 16 MiB; may be empty.
  std::function<void(const check_progress&)> progress;
};

/// What a drive says about itself. From the superblock that counts, and from metadata.
struct drive_facts {
  bool known = false; // a superblock could be read; the rest is empty otherwise
  std::array<errc, 2> superblocks{errc::bad_format, errc::bad_format}; // state of either copy; ok: valid
  std::array<std::uint64_t, 2> superblock_offsets{};
  int chosen = -1;                // the copy that counts
  std::uint8_t version = 0;       // of the superblock on the drive
  superblock super;               // identities, place in the set, epoch, clean, layout, failure registry, ...
  std::uint64_t device_bytes = 0; // what the device has
  bool emptied_by_power_loss = false; // see check_options::boot_id
  // Filled by read_drive_facts.
  std::uint64_t pending_batches = 0, pending_records = 0; // in the journal, not yet in the tree
  bool torn_tail = false;
  std::uint64_t units_taken = 0;          // as the bitmap says
  std::uint64_t bitmap_pages_damaged = 0; // their units are not counted
};

struct region_account {
  std::uint64_t bytes = 0;   // of the device that belong to it
  std::uint64_t read = 0;    // of these, bytes that were read
  std::uint64_t covered = 0; // of these, bytes compared with a checksum or with what they must be
};

struct stage_counts {
  // Tree.
  std::uint64_t tree_pages = 0;         // of the region, all read
  std::uint64_t tree_pages_used = 0;    // whole, and part of the current tree
  std::uint64_t tree_pages_damaged = 0; // that the current tree should have
  std::uint64_t tree_entries = 0;
  // Journal.
  std::uint64_t journal_batches = 0, journal_records = 0; // replayed
  std::uint64_t journal_holes = 0;
  // Space.
  std::uint64_t blocks = 0; // entries after the replay: blocks, and parts of striped ones
  std::uint64_t parts = 0;  // of these, parts 1 and up
  std::uint64_t units_owned = 0, units_leaked = 0, units_missing = 0;
  bool bitmap_compared = false; // only when the drive was closed in order
  // Data.
  std::uint64_t blocks_verified = 0, bytes_verified = 0, blocks_damaged = 0;
};

struct check_report {
  drive_facts facts;
  stage_counts counts;
  std::vector<check_finding> findings;              // the first findings_max of them
  std::array<std::uint64_t, finding_kinds> found{}; // all, by kind
  std::array<region_account, check_regions> regions{};
  bool complete = false; // all stages were done (of a quick check: all it has)
  bool quick = false;

  /// Judged, and without an error.
  [[nodiscard]] bool clean() const noexcept { return complete && total(check_severity::error) == 0; }
  [[nodiscard]] std::uint64_t total(check_severity severity) const noexcept;
  /// Findings that are counted and not in `findings`.
  [[nodiscard]] std::uint64_t left_out() const noexcept;
  [[nodiscard]] const region_account& of(check_region region) const noexcept {
    return regions[static_cast<std::size_t>(region)];
  }
  /// Equals facts.device_bytes when the check is complete.
  [[nodiscard]] std::uint64_t bytes_accounted() const noexcept;
};

/// Never writes. `report` is replaced; it holds what was found so far also when the result is not ok:
///   io_error       the device failed where nothing can be judged without (both superblocks)
///   bad_format     not a drive of memkv's, or one that was never formatted
///   corrupt        both superblocks are damaged, or the one that is left contradicts itself
///   newer_version  a structure was written by a later release; the text names it
///   wrong_size     the device is not as large as its superblock says
status check_drive(block_device& device, const check_options& options, check_report& report);

/// Why a block was dropped.
struct dropped_block {
  finding_kind why = finding_kind::data_damaged;
  key_id id;
  std::uint64_t generation = 0;
  std::uint32_t value_length = 0; // bytes, as its entry said
};

struct repair_report {
  bool changed = false; // something was written
  std::uint64_t blocks_kept = 0, blocks_dropped = 0;
  std::vector<dropped_block> dropped; // the first findings_max of them
  std::uint64_t tree_pages_written = 0, bitmap_pages_written = 0, superblocks_written = 0;
  bool tree_rebuilt = false;
  bool journal_reset = false; // it held something to replay
  bool marked_clean = false;  // it was not closed in order before
};

/// Checks (filling `before`), and mends what it found. Writes nothing when there is nothing to mend. Errors
/// as check_drive, and io_error: a write or flush failed, or part of the metadata cannot be read (then
/// nothing was written); no_space: the tree region has no room for a second tree (then only the server can
/// mend it, by opening the drive). With a result other than ok, `done` tells what was written up to then.
status repair_drive(block_device& device, const check_options& options, check_report& before,
                    repair_report& done);

/// For a look at a drive's health: superblocks, journal and bitmap only; no judgement. Errors as check_drive.
/// `facts` holds what could be read also when the result is not ok (superblocks, registry).
status read_drive_facts(block_device& device, const check_options& options, drive_facts& facts);

} // namespace memkv::engine
