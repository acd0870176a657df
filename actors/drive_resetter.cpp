#include "actors/drive_resetter.hpp"

#include "actors/fault_points.hpp"
#include "actors/log.hpp"
#include "engine/drive_content.hpp"
#include "engine/drive_format.hpp"
#include "engine/uring_device.hpp"

#include <string>
#include <utility>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::drive";

/// One sentence, or nothing: done.
std::string reset(const reset_order& order, bool secure) {
  engine::uring_device_options options;
  options.path = order.drive.path;
  options.allow_file = !order.drive.raw;
  std::unique_ptr<engine::block_device> device;
  if (const auto opened = engine::open_uring_device(options, device); !opened.ok())
    return opened.text;
  std::unique_ptr<engine::discarder> discarder;
  if (order.drive.raw)
    if (const auto opened = engine::open_discarder(order.drive.path, discarder); !opened.ok())
      return opened.text;
  engine::drive_content content;
  if (const auto looked = engine::look_at_content(*device, content); !looked.ok())
    return looked.text;
  const engine::format_progress progress = [&order](std::string_view, std::uint64_t done,
                                                    std::uint64_t total) {
    order.progress->total_bytes = total;
    order.progress->done_bytes = done;
    return !order.progress->cancelled;
  };
  const auto& wanted = order.options.identity;
  if (content.kind == engine::content_kind::blank || content.kind == engine::content_kind::memkv_damaged) {
    engine::new_drive fresh;
    fresh.identity = wanted;
    fresh.unit_bytes = order.options.unit_bytes;
    fresh.extent_bytes_max = order.options.extent_bytes_max;
    // With `secure` a second format follows, which discards, and which is known for unfinished when it is
    // cut.
    if (const auto made = engine::format_new(*device, secure ? nullptr : discarder.get(), fresh, progress);
        !made.ok())
      return order.drive.path + ": " + made.text;
    if (const auto looked = engine::look_at_content(*device, content); !looked.ok())
      return looked.text;
    if (!secure)
      return {};
  }
  if (content.kind != engine::content_kind::memkv)
    return order.drive.path + " " + engine::why_not_ours(content);
  const auto& found = content.super.set;
  if (found.set_id != wanted.set_id || found.drive_index != wanted.drive_index ||
      found.drive_count != wanted.drive_count)
    return order.drive.path +
           " is a drive of another set, or of another place in this one: look where the "
           "path leads, and if it is the right one, fill it with zeros (blkdiscard -z) and reset it again";
  if (const auto made = engine::format_again(*device, discarder.get(), content.super, secure, progress);
      !made.ok())
    return order.drive.path + ": " + made.text;
  return {};
}

} // namespace

drive_resetter_actor::behavior_type drive_resetter(drive_resetter_actor::pointer self, reset_order order) {
  let_act_up(self);
  return {
      [self, order = std::move(order)](const reset_drive& what) mutable {
        auto problem = reset(order, what.secure);
        if (problem.empty())
          log::info(target, "the drive was reset",
                    {{"drive", std::to_string(what.index)}, {"media", order.drive.path}});
        else
          log::error(target, "the drive could not be reset",
                     {{"drive", std::to_string(what.index)}, {"reason", problem}});
        self->send(order.server, drive_was_reset{what.index, std::move(problem)});
        // Its thread ends when nobody refers to anybody any more.
        order = {};
        self->quit();
      },
  };
}

} // namespace memkv::actors
