#include "actors/connection.hpp"

#include "actors/fault_points.hpp"

namespace memkv::actors {

connection_actor::behavior_type connection(connection_actor::stateful_pointer<connection_state> self,
                                           reactor_actor reactor) {
  let_act_up(self);
  // Without its reactor there is no socket any more.
  self->set_down_handler([self](caf::down_msg& message) { self->quit(std::move(message.reason)); });
  self->monitor(reactor);
  const auto to_pool = [self](const caf::actor& pool, auto message) {
    message.owner = caf::actor_cast<caf::actor>(self);
    caf::anon_send(pool, std::move(message));
  };
  return {
      [to_pool](const attach_session& message) { to_pool(message.pool, message); },
      [self, to_pool, reactor](const detach_session& message) {
        if (const auto pool = self->state.sessions.pool_of(message.session); pool != nullptr) {
          to_pool(pool, message);
          // Nobody is told of that end, so it would be counted for as long as the connection lives.
          if (message.request == 0)
            static_cast<void>(self->state.sessions.detach(message.session));
        } else {
          caf::anon_send(
              reactor, session_ended{message.request, message.session, self->id(), wire::status::not_found});
        }
      },
      [self, to_pool, reactor](const session_attached& message) {
        auto answer = message;
        answer.owner = self->id();
        if (message.result == wire::status::ok &&
            !self->state.sessions.attach(message.session, message.pool)) {
          to_pool(message.pool, detach_session{0, message.session, nullptr});
          answer.result = wire::status::busy;
        }
        caf::anon_send(reactor, std::move(answer));
      },
      [self, reactor](const session_ended& message) {
        static_cast<void>(self->state.sessions.detach(message.session));
        caf::anon_send(reactor, message);
      },
      [self, to_pool, watched = reactor.address()](const connection_closed&) {
        self->state.sessions.drain([to_pool](std::uint64_t session, const caf::actor& pool) {
          to_pool(pool, detach_session{0, session, nullptr});
        });
        // CAF leaves this to us: the reactor would remember each connection that ever was.
        self->demonitor(watched);
        self->quit();
      },
  };
}

} // namespace memkv::actors
