#include "actors/door_log.hpp"

#include "actors/admission.hpp"
#include "actors/log.hpp"

#include <string>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::listener";

std::string_view sentence(door_event what) noexcept {
  switch (what) {
  case door_event::too_many:
    return "connections were refused, there are as many as may be: raise network.max_connections";
  case door_event::too_many_of_address:
    return "connections were refused, their address has as many as one may have: raise "
           "network.max_connections_per_address";
  case door_event::too_many_unauthenticated:
    return "connections were refused, too many others have not shown the key yet: look for a scan, or for "
           "clients with another auth_key";
  case door_event::no_descriptors:
    return "connections wait, there are no file descriptors left: raise the limit on open files";
  case door_event::other_key:
    return "connections were closed, what they sent first is signed with another key: compare auth_key of "
           "clients and servers";
  case door_event::other_protocol:
    return "connections were closed, what they sent first is not the protocol of memkv: this is the port of "
           "the data, administration is on the next one";
  case door_event::other_time:
    return "frames were dropped, their time is more than 60 s off this machine's: compare the clocks, or "
           "look "
           "for who replays what was recorded";
  case door_event::silent:
    return "connections were closed, they did not show the key in time: look for a scan, or for a check that "
           "should use the administration port";
  case door_event::misplaced:
    return "connections were closed, a frame came on them that does not belong there: look for damage on the "
           "network, for who replays what was recorded, or for a client that does not keep to the protocol";
  case door_event::count_:
    break;
  }
  return {};
}

} // namespace

std::optional<door_event> door_event_of(close_reason why, wire::refusal refusal,
                                        bool authenticated) noexcept {
  if (why == close_reason::handshake_timeout || (why == close_reason::header_timeout && !authenticated))
    return door_event::silent;
  if (why != close_reason::protocol)
    return std::nullopt; // of too many drops each has been noted
  switch (refusal) {
  case wire::refusal::bad_mac:
    return authenticated ? door_event::misplaced : door_event::other_key;
  case wire::refusal::bad_magic:
  case wire::refusal::bad_direction:
  case wire::refusal::bad_length:
    return authenticated ? door_event::misplaced : door_event::other_protocol;
  default:
    return door_event::misplaced;
  }
}

void door_log::note(door_event what, const peer_address& peer) {
  const std::lock_guard guard(lock_);
  auto& noted = events_[static_cast<std::size_t>(what)];
  ++noted.count;
  noted.last = peer;
}

void door_log::report(std::uint64_t now_ns) {
  for (std::size_t i = 0; i < events_.size(); ++i) {
    events due;
    {
      const std::lock_guard guard(lock_);
      auto& noted = events_[i];
      if (noted.count == 0 || now_ns < noted.next_line_ns)
        continue;
      due = noted;
      noted.count = 0;
      noted.next_line_ns = now_ns + interval_ns;
    }
    const auto text = sentence(static_cast<door_event>(i));
    if (due.last == peer_address{})
      log::warn(target, text, {{"count", due.count}});
    else
      log::warn(target, text, {{"count", due.count}, {"last_peer", to_string(due.last)}});
  }
}

} // namespace memkv::actors
