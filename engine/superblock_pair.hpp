// What the two places for superblocks of a device hold.
//
// Threading: one thread; blocks. Ownership: values; the device behind `io` is lent. Errors: in the states.
// Does not: choose between two valid copies: opening and checking have different reasons to.
#pragma once

#include "engine/drive_io.hpp"
#include "engine/superblock.hpp"

#include <array>
#include <cstdint>

namespace memkv::engine {

struct superblock_pair {
  std::array<superblock, 2> copies;
  std::array<errc, 2> states{errc::bad_format, errc::bad_format}; // of decode, or io_error: cannot be read
  std::array<std::uint64_t, 2> offsets{};
  std::array<bool, 2> zero{};
  std::array<bool, 2> ours{};             // begins with our magic
  std::array<std::uint8_t, 2> versions{}; // of a valid copy

  [[nodiscard]] bool valid(int copy) const { return states[copy] == errc::ok; }
  /// The device failed to read one of them.
  [[nodiscard]] bool unreadable() const { return states[0] == errc::io_error || states[1] == errc::io_error; }
};

/// `device_bytes` is at least two pages. Reads both, whatever happens to one of them.
void read_superblocks(drive_io& io, std::uint64_t device_bytes, superblock_pair& out);

/// Never written by us, or a first format that did not end: page 0 is empty or begins as ours, and the
/// mirror, which a format writes last, is empty.
[[nodiscard]] bool never_formatted(const superblock_pair& pair) noexcept;

} // namespace memkv::engine
