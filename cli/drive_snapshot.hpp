// What a drive's metadata says of it, without its data: the content of `memkv drive health`.
//
// Threading: one thread; blocks. Ownership: values; the device is lent. Errors: the end of a sentence that
// begins with the drive. Limits: reads superblocks, bitmap and journal. Does not: write, read data, or prove
// anything; drive verify does.
#pragma once

#include "engine/block_device.hpp"
#include "engine/drive_check.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::cli {

struct drive_snapshot {
  std::string path, model, serial; // empty: unknown
  engine::drive_facts facts;

  /// By the bitmap, as old as the last checkpoint.
  [[nodiscard]] std::uint64_t used_bytes() const noexcept;
  [[nodiscard]] std::uint64_t usable_bytes() const noexcept;
};

/// Fills the facts. `boot_id`: of the running kernel; zeros: unknown.
[[nodiscard]] std::string read_snapshot(engine::block_device& device, const engine::identity& boot_id,
                                        drive_snapshot& out);

/// "ok", "not memkv's", "damaged", "of a later release", "unreadable".
[[nodiscard]] std::string_view superblock_state(engine::errc state) noexcept;

/// "clean", "unclean", or "emptied at the next start".
[[nodiscard]] std::string_view shutdown_state(const engine::drive_facts& facts) noexcept;

/// The summary for people, and docs/drive-json.md's document "health".
[[nodiscard]] std::string snapshot_text(const drive_snapshot& snapshot);
[[nodiscard]] std::string snapshot_json(const drive_snapshot& snapshot);

} // namespace memkv::cli
