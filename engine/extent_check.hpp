// Reads all of an extent and compares it with its entry and its checksums.
//
// Threading: one thread; blocks. Ownership: nothing is kept. Errors: values.
#pragma once

#include "engine/drive_io.hpp"
#include "engine/entry_record.hpp"
#include "engine/extent_header.hpp"
#include "engine/superblock.hpp"

#include <vector>

namespace memkv::engine {

using device_piece = device_range;

/// The bytes [offset, offset + length) of an extent, as pieces of the device.
[[nodiscard]] std::vector<device_piece> extent_pieces(const layout& places, std::span<const run> runs,
                                                      std::uint64_t offset, std::uint64_t length);

[[nodiscard]] extent_expectation expectation_of(const superblock& super, const entry_record& record);

/// ok, corrupt (it is not what the record says), or io_error (nobody knows).
[[nodiscard]] errc verify_extent(drive_io& io, const superblock& super, const entry_record& record);

} // namespace memkv::engine
