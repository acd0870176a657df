// What an actor answers when ADMIN GATEWAY asks it to describe itself.
//
// Threading: values, made by the actor that describes itself and not changed afterwards.
#pragma once

#include "actors/server_report.hpp"

#include <caf/actor.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace memkv::actors {

struct reactor_facts {
  std::size_t connections = 0, requests_open = 0, waiting_for_room = 0;
  std::uint64_t held_bytes = 0;
  std::size_t sessions = 0; // for RDMA, of its connections
  // Under tokens of queue pairs; of the values, those that hold a buffer.
  std::uint64_t values_open = 0, leases_open = 0, value_buffers = 0;
};

struct server_facts {
  std::string phase;
  std::vector<drive_report> drives; // without their own facts
  std::vector<rail_report> rails;   // likewise
  struct seat {
    std::string name;
    caf::actor who; // null: there is none at the moment
    std::uint64_t restarts = 0;
    bool asked = false;                   // it is in a state to answer
    std::uint64_t patience_ns = 0;        // for how long it may be busy, beyond the deadline of a report
    std::optional<std::uint32_t> drive{}; // which one it is
    std::optional<std::uint32_t> rail{};  // which one it serves
  };
  std::vector<seat> actors;
};

/// Of an actor that has nothing to say but that it is there: empty.
struct self_description {
  std::optional<drive_facts> drive{};
  std::optional<reactor_facts> reactor{};
  std::optional<dci_pool_facts> dci_pool{};
  std::optional<server_facts> server{};
};

} // namespace memkv::actors
