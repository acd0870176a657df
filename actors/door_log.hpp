// What the log says of connections that are not let in, or not let go on: one line a minute for each kind of
// event, with their number since the last one and the address of the last of them. A flood does not fill the
// log, and nothing of it is left out of the sums.
//
// Threading: any thread. Ownership: by the admission whose connections it tells of. Time is passed in, so
// that tests need not wait. Errors: none. Does not do: count for the metrics, which server_counters.hpp does.
#pragma once

#include "actors/server_counters.hpp"
#include "wire/refusal.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>

namespace memkv::actors {

/// IPv4 addresses are mapped into IPv6; all zero: not known.
using peer_address = std::array<std::uint8_t, 16>;

enum class door_event : std::uint8_t {
  too_many,                 // connections in all
  too_many_of_address,      // of its address
  too_many_unauthenticated, // that have not shown the key
  no_descriptors,           // of the process, or of the machine
  other_key,                // the first frames are signed with another one
  other_protocol,           // what came first is no frame
  other_time,               // a frame's clock is off by more than drift_ns_max
  silent,                   // no proof of the key in time
  misplaced,                // a frame with another connection's tag, or damaged after the key had been shown
  count_
};

/// The event that the end of a connection is; none for ends that the log need not tell of.
[[nodiscard]] std::optional<door_event> door_event_of(close_reason why, wire::refusal refusal,
                                                      bool authenticated) noexcept;

class door_log {
public:
  static constexpr std::uint64_t interval_ns = 60'000'000'000;

  void note(door_event what, const peer_address& peer);
  /// Writes the lines that are due at this (monotonic) time. Called several times a second.
  void report(std::uint64_t now_ns);

private:
  struct events {
    std::uint64_t count = 0; // since the last line
    peer_address last{};
    std::uint64_t next_line_ns = 0;
  };
  std::mutex lock_;
  std::array<events, static_cast<std::size_t>(door_event::count_)> events_;
};

} // namespace memkv::actors
