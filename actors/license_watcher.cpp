#include "actors/license_watcher.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/fault_points.hpp"
#include "actors/log.hpp"

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::license";

} // namespace

license_watcher_actor::behavior_type license_watcher(license_watcher_actor::pointer self,
                                                     std::shared_ptr<license_watch> watch,
                                                     server_actor server) {
  let_act_up(self);
  self->send(self, look_again{});
  return {
      [self](const describe_yourself& question) { answer(question, self->id(), mailbox_size(*self)); },
      [self, watch = std::move(watch), server = std::move(server)](const look_again&) {
        const auto found = watch->look();
        for (const auto& remark : found.remarks) {
          if (remark.how == license_look::level::warning)
            log::warn(target, remark.text);
          else
            log::info(target, remark.text);
        }
        if (!found.ended.empty())
          self->send(server, license_ended{found.ended});
        self->delayed_send(self, license_look_interval, look_again{});
      },
  };
}

} // namespace memkv::actors
