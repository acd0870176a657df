#include "actors/membership.hpp"

#include "engine/drive_set.hpp"
#include "wire/assert.hpp"

namespace memkv::actors {

using kind = membership_step::kind;

void membership::add(kind what, const engine::drive_members& before, const engine::drive_members& after,
                     std::optional<std::uint32_t> joining) {
  steps_.push_back({what, before, after, epoch_, joining});
}

void membership::begin(const engine::drive_members& online) {
  MEMKV_ASSERT(!changing(), "one change at a time");
  epoch_ = engine::epoch_of_next_start(epoch_);
  // Whoever is in another epoch than the others may have missed its sweep. What lies where it belongs with
  // all that were named belongs there with any of them.
  if (online != members_ || !agreed_)
    add(kind::sweep, named_, online);
  add(kind::enter_epoch, members_, online);
  members_ = online;
}

void membership::leave(std::uint32_t index) {
  MEMKV_ASSERT(!changing() && engine::is_member(members_, index),
               "a member leaves, when nothing else changes");
  auto after = members_;
  engine::remove_member(after, index);
  ++epoch_;
  add(kind::sweep, members_, after);
  add(kind::enter_epoch, members_, after);
  add(kind::tell, members_, after);
}

void membership::join(std::uint32_t index) {
  MEMKV_ASSERT(!changing() && !engine::is_member(members_, index),
               "who is away joins, when nothing else changes");
  auto after = members_;
  engine::add_member(after, index);
  ++epoch_;
  add(kind::tell, members_, after, index);
  add(kind::sweep, members_, after, index);
  add(kind::enter_epoch, members_, after, index);
  add(kind::admit, members_, after, index);
}

void membership::rejoin(std::uint32_t index) {
  MEMKV_ASSERT(!changing() && engine::is_member(members_, index), "a member is back, when nothing changes");
  ++epoch_;
  add(kind::sweep, members_, members_, index);
  add(kind::enter_epoch, members_, members_, index);
  add(kind::admit, members_, members_, index);
}

void membership::finished() {
  MEMKV_ASSERT(changing(), "a step is finished while there is one");
  const auto& done = steps_.front();
  if (done.what == kind::tell)
    members_ = done.after;
  steps_.pop_front();
}

void membership::lost(std::uint32_t index) {
  if (!changing() || steps_.front().joining != index)
    return;
  // REACTORs may look for its keys on it already. They stay unreadable until they are told otherwise.
  const auto before = steps_.front().before;
  const bool counted_in = steps_.front().what == kind::enter_epoch || steps_.front().what == kind::admit;
  steps_.clear();
  if (counted_in) {
    ++epoch_;
    add(kind::enter_epoch, members_, before);
  }
  add(kind::tell, members_, before);
}

} // namespace memkv::actors
