// What a drive's metadata says of it, without its data: the content of `memkv drive health`.
//
// Threading: one thread; blocks. Ownership: values; the device is lent. Errors: a sentence that does not name
// the drive. Limits: reads superblocks, bitmap and, unless the drive was closed in order, the journal
// (at most 64 MiB). Does not: write, read data, or prove anything; drive verify does.
#pragma once

#include "cli/drive_content.hpp"
#include "engine/block_device.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::cli {

struct drive_snapshot {
  std::string path, model, serial; // empty: unknown
  std::uint64_t capacity_bytes = 0;
  drive_content content;                          // memkv
  std::uint64_t blocks = 0;                       // at the last checkpoint
  std::uint64_t used_bytes = 0, usable_bytes = 0; // by the bitmap, as old as the last checkpoint
  std::uint64_t bitmap_pages_unreadable = 0;
  std::uint64_t journal_bytes = 0;
  std::uint64_t journal_batches = 0, journal_records = 0; // to be replayed at the next start
  bool emptied_at_start = false; // the power was lost while it was used without sync: nothing can be proven
};

/// Fills everything but path, model and serial. `boot_id`: of the running kernel.
[[nodiscard]] std::string read_snapshot(engine::block_device& device, const engine::identity& boot_id,
                                        drive_snapshot& out);

/// "ok", "not memkv's", "damaged", "of a later release", "unreadable".
[[nodiscard]] std::string_view superblock_state(engine::errc state) noexcept;

/// "clean", "unclean", or "emptied at the next start".
[[nodiscard]] std::string_view shutdown_state(const drive_snapshot& snapshot) noexcept;

/// The summary for people, and docs/drive-json.md's document "health".
[[nodiscard]] std::string snapshot_text(const drive_snapshot& snapshot);
[[nodiscard]] std::string snapshot_json(const drive_snapshot& snapshot);

} // namespace memkv::cli
