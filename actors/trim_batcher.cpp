#include "actors/trim_batcher.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/fault_points.hpp"
#include "actors/log.hpp"

#include <algorithm>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::trim";
/// Discarded at one go: other requests of the drive wait behind it.
constexpr std::uint64_t discard_bytes_max = std::uint64_t{1} << 30;

bool discard_all(const discard_ranges& batch) {
  for (const auto& range : batch.ranges)
    for (std::uint64_t at = 0; at < range.length; at += discard_bytes_max)
      if (batch.by->discard(range.offset + at, std::min(discard_bytes_max, range.length - at)) !=
          engine::errc::ok)
        return false;
  return true;
}

} // namespace

trim_batcher_actor::behavior_type trim_batcher(trim_batcher_actor::pointer self, int) {
  let_act_up(self);
  return {
      [self](const discard_ranges& batch) {
        const bool done = discard_all(batch);
        if (!done)
          log::warn(target, "a drive refused to discard what it was told to",
                    {{"drive", std::to_string(batch.index)}});
        self->send(caf::actor_cast<drive_actor>(batch.reply_to), ranges_discarded{done});
      },
      [self](const describe_yourself& question) { answer(question, self->id(), mailbox_size(*self)); },
  };
}

} // namespace memkv::actors
