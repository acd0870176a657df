#include "actors/connection.hpp"

#include "actors/fault_points.hpp"

namespace memkv::actors {

connection_actor::behavior_type connection(connection_actor::stateful_pointer<connection_state> self,
                                           reactor_actor reactor) {
  let_act_up(self);
  // Without its reactor there is no socket any more.
  self->set_down_handler([self](caf::down_msg& message) { self->quit(std::move(message.reason)); });
  self->monitor(reactor);
  return {
      [self, watched = reactor.address()](const connection_closed&) {
        self->state.sessions.drain([](std::uint64_t) {});
        // CAF leaves this to us: the reactor would remember each connection that ever was.
        self->demonitor(watched);
        self->quit();
      },
  };
}

} // namespace memkv::actors
