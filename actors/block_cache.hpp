// What was read from raw drives and is still in the pool: a popular block is not read from its drive again.
//
// Operation. Reads go into segments, a chunk of the pool each, filled one read after the other. What was read
// stays findable by the generation of its extent, which no other extent ever has: a block that was
// overwritten or deleted is looked up in the index first and never found here again. Segments are dropped
// whole, the oldest first, but one that was hit since it was looked at last gets another round. Transfers
// come first: whoever finds the pool empty asks for a segment to be dropped, and some chunks are always kept
// free.
//
// Threading: any thread. Ownership: a segment lives as long as the cache or a transfer holds it, so dropping
// never takes memory away from a reader. Errors: none; nothing found is a read from the drive. Limits: the
// pool's. Does not: read anything, or keep what was written.
#pragma once

#include "actors/messages.hpp"
#include "engine/buffer_pool.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace memkv::actors {

struct block_cache_statistics {
  std::uint64_t hits = 0, misses = 0; // look-ups
  std::uint64_t hit_bytes = 0;
  std::uint64_t pieces = 0, segments = 0; // held now
  std::uint64_t dropped_segments = 0;
};

class block_cache {
public:
  struct place {
    std::uint64_t generation = 0;
    std::uint32_t offset = 0; // in the extent
    friend bool operator==(const place&, const place&) noexcept = default;
  };

  /// A chunk that one REACTOR fills.
  struct segment {
    engine::buffer memory;
    std::uint32_t filled = 0;           // by its REACTOR
    std::atomic<std::uint32_t> hits{0}; // since it was looked at last
    std::vector<place> pieces;          // under the cache's lock
    bool dropped = false;               // under the cache's lock: nothing is found in it any more
  };

  /// `pool` outlives the cache.
  explicit block_cache(engine::buffer_pool& pool);

  /// A chunk of the pool, at the cost of what is cached if need be; empty when transfers hold everything.
  [[nodiscard]] engine::buffer acquire();

  /// A segment to read into, or null.
  [[nodiscard]] std::shared_ptr<segment> open_segment();
  /// Nothing more is read into it: it may be dropped.
  void close_segment(std::shared_ptr<segment> full);

  /// What `read` brought, into a segment of this cache, can be found from now on.
  void insert(std::uint64_t generation, const extent_read& read);

  /// Fills view and `into` of `read` with what is here of its range. False: nothing is.
  [[nodiscard]] bool find(std::uint64_t generation, extent_read& read);

  [[nodiscard]] block_cache_statistics statistics() const;

private:
  struct place_hash {
    std::size_t operator()(const place& of) const noexcept {
      return static_cast<std::size_t>((of.generation * 0x9E3779B97F4A7C15U) ^
                                      (std::uint64_t{of.offset} << 20));
    }
  };
  struct piece {
    std::shared_ptr<segment> in;
    std::span<const std::byte> bytes;
    std::shared_ptr<const std::vector<std::byte>> sums;
    std::string name_space;
    std::vector<std::byte> key;
  };

  /// Drops one segment; false when there is none.
  [[nodiscard]] bool drop_one();

  engine::buffer_pool& pool_;
  const std::uint64_t kept_free_; // chunks
  mutable std::mutex lock_;
  std::unordered_map<place, piece, place_hash> pieces_;
  std::deque<std::shared_ptr<segment>> closed_; // oldest first
  block_cache_statistics counted_;
};

} // namespace memkv::actors
