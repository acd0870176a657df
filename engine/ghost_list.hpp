// Remembers which blocks were evicted lately, without keeping them.
//
// Operation. Buckets of 64 bytes: 31 fingerprints of 16 bits and a cursor that makes each bucket a small
// ring. Ids are uniform, so all rings turn at the same speed and the whole behaves as one queue, first in,
// first out. A fingerprint met by chance (1 in 2,000) only means that a block is treated as known that is
// not.
//
// Threading: one thread, the drive's. Errors: when memory for growth is missing it keeps its size and forgets
// sooner. Limits: ghost_bytes_per_block for each block of `blocks_held` (engine/limits.hpp).
#pragma once

#include "wire/key_id.hpp"

#include <array>
#include <cstdint>
#include <memory>

namespace memkv::engine {

class ghost_list {
public:
  /// Remembers `factor` ids for each block that the cache holds.
  explicit ghost_list(std::uint32_t factor = 4);

  /// `blocks_held`: how many blocks the cache holds now; sets how much is remembered.
  void remember(const wire::key_id& id, std::uint64_t blocks_held);

  /// True if the id is remembered; it is forgotten by that.
  [[nodiscard]] bool take(const wire::key_id& id) noexcept;

  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;
  void clear() noexcept;

private:
  static constexpr std::uint32_t slots = 31;
  struct alignas(64) bucket {
    std::array<std::uint16_t, slots> fingerprints{}; // 0 is empty
    std::uint16_t cursor = 0;
  };
  static_assert(sizeof(bucket) == 64);

  [[nodiscard]] std::size_t position(const wire::key_id& id) const noexcept;
  void grow() noexcept;

  std::uint32_t factor_ = 4;
  std::uint64_t count_ = 0; // of buckets: a power of two, or none yet
  std::unique_ptr<bucket[]> buckets_;
};

} // namespace memkv::engine
