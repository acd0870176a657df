// What the server counts. Each REACTOR has its own, so that counting costs no shared cache line; readers add
// them up.
//
// Threading: written by one thread, read by any (relaxed).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace memkv::actors {

class counter {
public:
  void add(std::uint64_t count = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

private:
  std::atomic<std::uint64_t> value_{0};
};

/// Why a frame was dropped or a connection closed by the server.
enum class close_reason : std::uint8_t {
  peer_closed,
  protocol, // magic, lengths, MAC, tag, order of Hello
  too_many_drops,
  version,
  handshake_timeout,
  header_timeout,
  slow_payload,
  slow_reader,
  idle,
  socket_error,
  actor_killed,
  stopping,
  count_
};

[[nodiscard]] constexpr std::string_view name_of(close_reason reason) noexcept {
  constexpr std::array<std::string_view, static_cast<std::size_t>(close_reason::count_)> names{
      "peer_closed",  "protocol",    "too_many_drops", "version", "handshake_timeout", "header_timeout",
      "slow_payload", "slow_reader", "idle",           "socket_error", "actor_killed", "stopping"};
  return names[static_cast<std::size_t>(reason)];
}

struct reactor_counters {
  counter reads, read_bytes, read_misses;
  counter writes, write_bytes, write_failures;
  counter deletes, exists_keys, prefixes;
  counter connections_accepted, previous_key_connections, frames;
  counter digest_mismatches, corrupt_blocks, deadlines_exceeded;
  counter dropped_stale, dropped_replayed;
  std::array<counter, static_cast<std::size_t>(close_reason::count_)> closed;
};

} // namespace memkv::actors
