// What lies where on an image, found out by pointers and without the code of the check that it judges.
//
// Threading: pure. Errors: the image must be one that a store left behind; anything else stops the test.
#pragma once

#include "engine/drive_check.hpp"
#include "test/sim/image.hpp"

#include <set>
#include <utility>
#include <vector>

namespace memkv::crash {

using engine::key_id;

/// Bytes that matter, and whom they matter to.
struct mapped_place {
  std::uint64_t offset = 0, length = 0;
  engine::check_region region = engine::check_region::superblock;
  std::uint64_t batch = 0; // journal: sequence
  /// The blocks that may be lost with it: ranges of ids, both ends included.
  std::vector<std::pair<key_id, key_id>> costs;

  [[nodiscard]] bool touches(std::uint64_t at, std::uint64_t bytes) const {
    return at < offset + length && offset < at + bytes;
  }
  [[nodiscard]] bool costs_block(const key_id& id) const;
};

struct image_map {
  std::vector<mapped_place> places; // all bytes that matter; they do not overlap
  engine::superblock super;         // the copy that counts
  std::uint64_t last_batch = 0;     // sequence; 0: the journal is empty

  [[nodiscard]] std::vector<const mapped_place*> of(engine::check_region region) const;
};

[[nodiscard]] image_map map_of(const sim::image& drive);

} // namespace memkv::crash
