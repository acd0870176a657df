// The CONNECTION actor. Interface and duties: interfaces.hpp.
#pragma once

#include "actors/interfaces.hpp"
#include "actors/session_tracker.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

namespace memkv::actors {

struct connection_state {
  static inline const char* name = "connection";
  session_tracker sessions;
};

connection_actor::behavior_type connection(connection_actor::stateful_pointer<connection_state> self,
                                           reactor_actor reactor);

} // namespace memkv::actors
