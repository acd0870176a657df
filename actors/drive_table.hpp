// Which drive a block lives on, and how to reach it.
//
// Each REACTOR and the SERVER has its own table, kept up to date by drive_changed messages. A block's home is
// found by rendezvous hashing over the places of the set, so it does not depend on which drives happen to be
// online: a block is never on two drives.
#pragma once

#include "actors/drive_body.hpp"
#include "actors/interfaces.hpp"
#include "wire/key_id.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace memkv::actors {

/// Place of the block (or part) `id` in a set of `drives` drives (at least 1).
[[nodiscard]] inline std::uint32_t home_drive(const wire::key_id& id, std::size_t drives) noexcept {
  const auto mix = [](std::uint64_t x) {
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9U;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBU;
    return x ^ (x >> 31);
  };
  std::uint32_t best = 0;
  std::uint64_t best_score = 0;
  for (std::uint32_t index = 0; index < drives; ++index) {
    // The second half of the id: the first one places the block among servers.
    const auto score = mix(id.tail() ^ mix(index + 0x9E3779B97F4A7C15U));
    if (index == 0 || score > best_score) {
      best = index;
      best_score = score;
    }
  }
  return best;
}

class drive_table {
public:
  struct seat {
    drive_actor drive; // null: offline
    std::shared_ptr<drive_body> body;
  };

  explicit drive_table(std::size_t drives) : seats_(drives) {}

  [[nodiscard]] std::size_t size() const noexcept { return seats_.size(); }
  [[nodiscard]] seat& at(std::uint32_t index) noexcept { return seats_[index]; }
  [[nodiscard]] std::uint32_t home(const wire::key_id& id) const noexcept {
    return seats_.size() == 1 ? 0 : home_drive(id, seats_.size());
  }

private:
  std::vector<seat> seats_;
};

} // namespace memkv::actors
