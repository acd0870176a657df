// Which drives of the set take part in placing blocks, and in which steps that changes.
//
// A drive that is away for longer than a moment leaves: its keys then live on the others. When it returns
// they live on it again. At no time may a block be found whose newer version, or whose removal, went to
// another drive. So a change is a sequence of steps, each of which everybody concerned has finished before
// the next one begins:
//
//   leave:   sweep, enter_epoch, tell            (REACTORs know already that the drive is offline)
//   join:    tell, sweep, enter_epoch, admit     (until admit its keys can be neither read nor written)
//   rejoin:  sweep, enter_epoch, admit           (a member that was offline for a moment and missed an epoch)
//
// `sweep` removes what lies on a drive without belonging there before or after the change: late writes of an
// earlier change must not come up in a later one. From a drive that joins it also removes whatever may have
// changed while it was away. `enter_epoch` makes durable, on every drive that takes part, that those not
// among them are stale from here on; a start compares the epochs of all drives (judge_epochs).
//
// Threading: SERVER's. Ownership: values. Limits: one change at a time, the others wait.
// Does not: send anything. SERVER carries the steps out.
#pragma once

#include "engine/drive_members.hpp"
#include "engine/drive_set.hpp"

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace memkv::actors {

struct membership_step {
  enum class kind : std::uint8_t { tell, sweep, enter_epoch, admit };
  kind what = kind::tell;
  engine::drive_members before{}, after{};
  std::uint64_t epoch = 0;
  std::optional<std::uint32_t> joining;
};

class membership {
public:
  membership() = default;
  /// As judge_epochs() found the set.
  membership(std::uint32_t drives, const engine::set_facts& found)
      : drives_(drives), epoch_(found.epoch), members_(found.members), named_(found.named),
        agreed_(found.agreed) {}

  [[nodiscard]] const engine::drive_members& members() const noexcept { return members_; }
  [[nodiscard]] std::uint64_t epoch() const noexcept { return epoch_; }
  [[nodiscard]] bool all_take_part() const noexcept { return members_ == engine::all_members(drives_); }
  [[nodiscard]] bool changing() const noexcept { return !steps_.empty(); }

  /// The first change of a server's life: `online` take part. Before anything is served.
  void begin(const engine::drive_members& online);
  /// Only when no change is under way.
  void leave(std::uint32_t index);
  void join(std::uint32_t index);
  /// A member is back that was away for a moment and may have missed an epoch: it serves when it is in one
  /// with the others. Who starts with it and without them must know what it knows.
  void rejoin(std::uint32_t index);

  /// The step that is to be carried out now, or null.
  [[nodiscard]] const membership_step* step() const noexcept {
    return steps_.empty() ? nullptr : &steps_.front();
  }
  /// Everybody has finished it.
  void finished();
  /// A drive went while a change is under way. One that was joining does not join after all; if an epoch
  /// that counts it in may be durable somewhere, another one comes first.
  void lost(std::uint32_t index);

private:
  void add(membership_step::kind what, const engine::drive_members& before,
           const engine::drive_members& after, std::optional<std::uint32_t> joining = {});

  std::uint32_t drives_ = 0;
  std::uint64_t epoch_ = 0;
  engine::drive_members members_{};
  engine::drive_members named_{}; // at the start
  bool agreed_ = true;            // at the start
  std::deque<membership_step> steps_;
};

} // namespace memkv::actors
