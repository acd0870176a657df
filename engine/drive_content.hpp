// What lies on a drive before anybody decides what to do with it: nothing, a store of ours, or somebody
// else's data.
//
// Threading: one thread. Ownership: the device is lent. Errors: a status when not even one superblock's place
// can be read. Limits: looks at the first and the last MiB. Does not: write, or open the store.
#pragma once

#include "engine/block_device.hpp"
#include "engine/superblock.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace memkv::engine {

enum class content_kind : std::uint8_t {
  blank,         // zeros or ones at both ends: nobody's
  memkv,         // at least one superblock of ours is whole
  memkv_damaged, // begins as ours, but neither superblock is whole
  memkv_newer,   // of a later release
  foreign,       // anything else
};

struct drive_content {
  content_kind kind = content_kind::blank;
  std::string signature; // foreign: what it looks like, with its article
  /// Of both superblocks: ok, bad_format (not ours), corrupt, newer_version, io_error (unreadable).
  std::array<errc, 2> copies{errc::bad_format, errc::bad_format};
  superblock super;     // memkv: the copy that counts
  errc fits = errc::ok; // memkv: whether its layout is this device's
};

/// Of two whole superblocks the one that counts: of two formats the later one, of one format the later state.
[[nodiscard]] std::size_t newer_of(const std::array<superblock, 2>& copies) noexcept;

/// Why this is no drive that keeps a place in a set, as the end of a sentence that begins with the drive:
/// "is blank and was never memkv's: ...". Empty for kind memkv.
[[nodiscard]] std::string why_not_ours(const drive_content& content);

status look_at_content(block_device& device, drive_content& out);

/// What the two ends of a device look like: "an XFS file system"; empty when no known mark is there. `last`
/// ends where the device does; `device_bytes` is its whole size.
[[nodiscard]] std::string foreign_signature(std::span<const std::byte> first, std::span<const std::byte> last,
                                            std::uint64_t device_bytes);

} // namespace memkv::engine
