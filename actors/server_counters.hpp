// What the server counts. Each REACTOR has its own, so that counting costs no shared cache line; readers add
// them up.
//
// Threading: written by one thread, read by any (relaxed).
#pragma once

#include "actors/latency.hpp"

#include <array>
#include <atomic>
#include <cstddef>
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
      "peer_closed",  "protocol",    "too_many_drops", "version",      "handshake_timeout", "header_timeout",
      "slow_payload", "slow_reader", "idle",           "socket_error", "actor_killed",      "stopping"};
  return names[static_cast<std::size_t>(reason)];
}

/// Why the server ended a queue pair that carries messages.
enum class queue_pair_refusal : std::uint8_t {
  protocol, // as close_reason has them
  too_many_drops,
  version,
  too_many_open, // requests
  count_
};

[[nodiscard]] constexpr std::string_view name_of(queue_pair_refusal reason) noexcept {
  constexpr std::array<std::string_view, static_cast<std::size_t>(queue_pair_refusal::count_)> names{
      "protocol", "too_many_drops", "version", "too_many_open"};
  return names[static_cast<std::size_t>(reason)];
}

/// What a request asks for, as far as its time is counted apart.
enum class request_kind : std::uint8_t {
  get,
  batch_get,
  put,
  batch_put,
  remove,
  batch_remove,
  exists,
  batch_exists,
  prefix,
  lookup,
  batch_read,
  batch_write,
  attach,
  allocate,
  write,
  commit,
  read,
  count_
};
[[nodiscard]] constexpr std::string_view name_of(request_kind what) noexcept {
  constexpr std::array<std::string_view, static_cast<std::size_t>(request_kind::count_)> names{
      "get",          "batch_get", "put",    "batch_put",  "delete",      "batch_delete", "exists",
      "batch_exists", "prefix",    "lookup", "batch_read", "batch_write", "attach",
      "allocate",     "write",     "commit", "read"};
  return names[static_cast<std::size_t>(what)];
}

/// Where the time of a request goes.
enum class request_stage : std::uint8_t {
  queue,   // from its header until the first request to a drive, or until there is room for its payload
  drive,   // waiting for drives, with nothing to send
  network, // receiving payload, and sending until the last byte of the answer is in the kernel
  total,   // from its header to there
  count_
};
[[nodiscard]] constexpr std::string_view name_of(request_stage stage) noexcept {
  constexpr std::array<std::string_view, static_cast<std::size_t>(request_stage::count_)> names{
      "queue", "drive", "network", "total"};
  return names[static_cast<std::size_t>(stage)];
}

struct reactor_counters {
  counter reads, read_bytes, read_misses;
  counter writes, write_bytes, write_failures;
  counter deletes, exists_keys, prefixes;
  counter connections_accepted, previous_key_connections, frames;
  counter digest_mismatches, corrupt_blocks, deadlines_exceeded;
  counter incomplete_blocks; // striped ones that were dropped because a part was gone for good
  counter dropped_stale, dropped_replayed;
  counter busy;          // requests, or items of batches, that were answered Busy
  counter values_expired, leases_expired; // tokens whose time was over
  counter values_refused, leases_refused; // that were not given: Busy
  counter wrong_version; // frames of a protocol version that is not spoken here
  counter malformed;     // frames that were answered BadRequest
  std::array<counter, static_cast<std::size_t>(close_reason::count_)> closed;
  std::array<counter, static_cast<std::size_t>(queue_pair_refusal::count_)> queue_pairs_refused;
  /// Of requests that were answered, whatever the answer; by kind and stage.
  std::array<std::array<latency_histogram, static_cast<std::size_t>(request_stage::count_)>,
             static_cast<std::size_t>(request_kind::count_)>
      latencies;
};

struct server_report;

/// Adds what one REACTOR has counted to the report: `requests`, `latencies`, `connections_accepted`.
/// Threading: any.
void add_to(const reactor_counters& counters, server_report& report);

} // namespace memkv::actors
