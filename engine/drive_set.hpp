// Which set the given drives belong to, found out before any of them is opened.
//
// Threading: one thread, before the drives are opened. Errors: foreign_drive when the drives name different
// sets or the wrong places in one. Does not: write, lock, or judge a drive whose superblocks are unreadable:
// opening it does.
#pragma once

#include "engine/drive_members.hpp"
#include "engine/errc.hpp"
#include "engine/open_drive.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memkv::engine {

/// What the drives of a set say of it.
struct set_facts {
  std::array<std::byte, 16> set_id{}; // the one on the drives that are ours already, else a random one
  std::uint64_t epoch = 0;            // the highest
  drive_members members{};            // of that epoch; all, if no drive is ours yet

  /// The lowest epoch with which a drive may take part with what it holds. One behind by one only missed the
  /// writing of an epoch that it belongs to: nothing had been stored in that yet.
  [[nodiscard]] std::uint64_t epoch_least(std::uint32_t index) const noexcept {
    return is_member(members, index) && epoch > 0 ? epoch - 1 : epoch;
  }
};

/// With an id other than zeros in `out`, the drives must have that one.
status find_set(const std::vector<drive_description>& drives, set_facts& out);

/// Identity of the running kernel's boot, to tell the death of a process from a power cut. False: unknown.
[[nodiscard]] bool read_boot_id(std::array<std::byte, 16>& out);

} // namespace memkv::engine
