// Which set the given drives belong to, found out before any of them is opened.
//
// Threading: one thread, before the drives are opened. Errors: foreign_drive when the drives name different
// sets or the wrong places in one. Does not: write, lock, or judge a drive whose superblocks are unreadable:
// opening it does.
#pragma once

#include "engine/errc.hpp"
#include "engine/open_drive.hpp"

#include <array>
#include <cstddef>
#include <vector>

namespace memkv::engine {

/// The set's id: the one on the drives that are ours already, else a random one.
status find_set(const std::vector<drive_description>& drives, std::array<std::byte, 16>& set_id);

/// Identity of the running kernel's boot, to tell the death of a process from a power cut. False: unknown.
[[nodiscard]] bool read_boot_id(std::array<std::byte, 16>& out);

} // namespace memkv::engine
