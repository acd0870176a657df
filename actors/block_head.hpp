// The head of a block in the indexes, and whether all parts of a striped value are there with it.
//
// Threading: REACTOR's; the indexes are those of other threads. Ownership: the pin is the caller's.
#pragma once

#include "actors/drive_table.hpp"
#include "engine/index.hpp"
#include "wire/key_id.hpp"

#include <cstdint>

namespace memkv::actors {

/// How often a block is looked up again that is replaced all the time.
constexpr int lookups_max = 8;

struct block_head {
  engine::block_pin pin; // empty: there is no such block, or its drive is away
  /// False: a part of the value is not where it belongs, so nobody can have the block, and it is no longer
  /// replaced by another put that might have taken the part away. Where drive_table::complete() still holds
  /// afterwards, the part is gone for good, since parts are there before their head and are not made again.
  bool whole = false;
};

/// Walks over all parts of a striped value, or over as many as the drive_table lets it in this turn: those
/// behind count as there, and who reads the value finds out. Sets the recency bit of the head.
[[nodiscard]] block_head find_head(drive_table& drives, const wire::key_id& id,
                                   std::uint32_t extent_bytes_max) noexcept;

/// True when the block is there as of `generation`.
[[nodiscard]] bool has_generation(drive_table& drives, const wire::key_id& id,
                                  std::uint64_t generation) noexcept;

} // namespace memkv::actors
