// Which drive a block lives on, and how to reach it.
//
// Each REACTOR has its own table, kept up to date by drive_changed and members_changed messages. A block's
// home is found by rendezvous hashing over the places of the set that take part (its members). Members change
// only in steps that keep a block from being found on two drives: actors/membership.hpp.
#pragma once

#include "actors/drive_body.hpp"
#include "actors/interfaces.hpp"
#include "engine/drive_members.hpp"
#include "wire/key_id.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace memkv::actors {

/// Place of the block (or part) `id` in a set of `drives` drives (at least 1), of which `members` take part.
/// Without any member: as if all did.
[[nodiscard]] inline std::uint32_t home_drive(const wire::key_id& id, std::size_t drives,
                                              const engine::drive_members& members) noexcept {
  const auto mix = [](std::uint64_t x) {
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9U;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBU;
    return x ^ (x >> 31);
  };
  std::uint32_t best = 0;
  std::uint64_t best_score = 0;
  bool found = false;
  for (std::uint32_t index = 0; index < drives; ++index) {
    if (!engine::is_member(members, index))
      continue;
    // The second half of the id: the first one places the block among servers.
    const auto score = mix(id.tail() ^ mix(index + 0x9E3779B97F4A7C15U));
    if (!found || score > best_score) {
      found = true;
      best = index;
      best_score = score;
    }
  }
  return found ? best : home_drive(id, drives, engine::all_members(engine::drives_max));
}

[[nodiscard]] inline std::uint32_t home_drive(const wire::key_id& id, std::size_t drives) noexcept {
  return home_drive(id, drives, engine::all_members(engine::drives_max));
}

class drive_table {
public:
  struct seat {
    drive_actor drive; // null: offline
    std::shared_ptr<drive_body> body;
  };

  explicit drive_table(std::size_t drives)
      : seats_(drives), members_(engine::all_members(static_cast<std::uint32_t>(drives))) {}

  [[nodiscard]] std::size_t size() const noexcept { return seats_.size(); }
  [[nodiscard]] seat& at(std::uint32_t index) noexcept { return seats_[index]; }
  [[nodiscard]] std::uint32_t home(const wire::key_id& id) const noexcept {
    return seats_.size() == 1 ? 0 : home_drive(id, seats_.size(), members_);
  }
  void set_members(const engine::drive_members& members) noexcept { members_ = members; }
  /// Every drive of the set takes part and is there: a part that none has is gone for good. To be asked after
  /// the part was looked for. Nobody can have been told since that a drive is left out, as long as no DRIVE
  /// has ended.
  [[nodiscard]] bool complete() const noexcept {
    return members_ == engine::all_members(static_cast<std::uint32_t>(seats_.size())) &&
           std::ranges::all_of(seats_, [](const seat& each) {
             return each.drive != nullptr && each.body != nullptr && !each.body->ended.load();
           });
  }

  /// Parts of striped values that may be looked for in one turn of the REACTOR: whoever asks for many long
  /// values must not keep it from everybody else. One value of the longest has no more.
  static constexpr std::uint32_t parts_a_turn = 16'384;
  void begin_turn() noexcept { parts_left_ = parts_a_turn; }
  /// False: as many have been looked for in this turn as may be.
  [[nodiscard]] bool may_look_for_part() noexcept {
    if (parts_left_ == 0)
      return false;
    --parts_left_;
    return true;
  }

private:
  std::uint32_t parts_left_ = parts_a_turn;
  std::vector<seat> seats_;
  engine::drive_members members_;
};

} // namespace memkv::actors
