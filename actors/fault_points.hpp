// Where faults meet the actors, when the server runs with fault injection; otherwise there is no such object,
// and no actor behaves differently.
//
// Besides the messages of interfaces.hpp every actor then takes act_up, which is in no interface: nobody but
// fault injection (fault_orders.hpp) sends it.
//
// Threading: any thread. Ownership: shared by the actors and by who injects.
#pragma once

#include "actors/messages.hpp"
#include "engine/drive_faults.hpp"

#include <caf/result.hpp>
#include <caf/scheduled_actor.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace memkv::actors {

struct fault_points {
  /// One a drive; null where payload is placed directly (memory): nothing passes that could have a fault.
  std::vector<std::shared_ptr<engine::drive_faults>> drives;

  // Until then each read from a connection, and each answer, comes so much later.
  std::atomic<std::uint64_t> delay_until_ns{0}; // steady clock
  std::atomic<std::uint64_t> delay_ns{0};
  [[nodiscard]] std::uint64_t delay_at(std::uint64_t now_ns) const noexcept {
    return now_ns < delay_until_ns.load(std::memory_order_relaxed) ? delay_ns.load(std::memory_order_relaxed)
                                                                   : 0;
  }
};

/// Does what it is told: sleeps, or throws std::runtime_error.
void carry_out(const act_up& message);

/// Makes an event-based actor take act_up.
template <class Self>
void let_act_up(Self* self) {
  self->set_default_handler(
      [](caf::scheduled_actor* who, caf::message_view& view) -> caf::result<caf::message> {
        if (!view.content().match_elements<act_up>())
          return caf::print_and_drop(who, view);
        carry_out(view.content().get_as<act_up>(0));
        return caf::message{};
      });
}

} // namespace memkv::actors
