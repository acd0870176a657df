#include "actors/evictor.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/fault_points.hpp"

#include <caf/actor_cast.hpp>

namespace memkv::actors {

void evictor_state::look(evictor_actor::stateful_pointer<evictor_state> self) {
  for (auto& [index, watched] : drives) {
    const auto body = watched.body.lock();
    if (body == nullptr)
      continue;
    const auto now = body->store->counters();
    const auto usable = static_cast<double>(now.usable_bytes);
    if (static_cast<double>(now.used_bytes) <= usable * high)
      continue;
    const auto target = static_cast<std::uint64_t>(usable * low);
    self->send(watched.drive, evict_blocks{now.used_bytes - std::min(now.used_bytes, target)});
  }
}

evictor_actor::behavior_type evictor(evictor_actor::stateful_pointer<evictor_state> self,
                                     double high_watermark, double low_watermark) {
  let_act_up(self);
  self->state.high = high_watermark;
  self->state.low = low_watermark;
  self->delayed_send(self, self->state.interval, look_again{});
  return {
      [self](const drive_changed& change) {
        if (change.drive == nullptr)
          self->state.drives.erase(change.index);
        else
          self->state.drives[change.index] = {caf::actor_cast<drive_actor>(change.drive), change.body};
      },
      [self](const look_again&) {
        self->state.look(self);
        self->delayed_send(self, self->state.interval, look_again{});
      },
      [self](const describe_yourself& question) { answer(question, self->id(), mailbox_size(*self)); },
  };
}

} // namespace memkv::actors
