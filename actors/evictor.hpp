// The EVICTOR actor. Interface and duties: interfaces.hpp.
//
// A drive evicts by itself when an allocation finds no space; EVICTOR keeps that from happening by making
// room as soon as a drive is fuller than the high watermark, down to the low one.
#pragma once

#include "actors/drive_body.hpp"
#include "actors/interfaces.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <chrono>
#include <map>
#include <memory>

namespace memkv::actors {

struct evictor_state {
  static inline const char* name = "evictor";
  struct watched {
    drive_actor drive;
    std::weak_ptr<drive_body> body;
  };
  std::map<std::uint32_t, watched> drives;
  double high = 0.95, low = 0.90;
  std::chrono::milliseconds interval{50};

  void look(evictor_actor::stateful_pointer<evictor_state> self);
};

evictor_actor::behavior_type evictor(evictor_actor::stateful_pointer<evictor_state> self,
                                     double high_watermark, double low_watermark);

} // namespace memkv::actors
