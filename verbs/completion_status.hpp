// How a request that was posted to a queue pair ended. The names are those of the InfiniBand specification.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace memkv::verbs {

enum class completion_status : std::uint8_t {
  success = 0,
  local_length = 1,               // a message did not fit into the receive that took it
  local_queue_pair_operation = 2, // the queue pair could not carry the request out
  local_protection = 3,           // a local key does not cover the range
  flushed = 4,                    // its queue pair was in the error state: not, or not wholly, carried out
  memory_window_bind = 5,
  bad_response = 6,             // the peer answered what it must not
  local_access = 7,             // the peer's operation hit memory here that forbids it
  remote_invalid_request = 8,   // the peer cannot take such a request
  remote_access = 9,            // the peer's key does not cover the range, or was withdrawn
  remote_operation = 10,        // the peer could not carry it out
  retry_exceeded = 11,          // the peer does not acknowledge: dead, cut off, or a path MTU too large
  receiver_retry_exceeded = 12, // the peer has posted no receive
  remote_aborted = 13,          // the peer gave up
  fatal = 14,                   // the device failed
  response_timeout = 15,
  general = 16, // anything else a driver reports
};

inline constexpr std::uint8_t completion_status_last = 16;

/// Every status but success and flushed: what a request can bring upon itself.
[[nodiscard]] std::array<completion_status, 15> errors() noexcept;

/// For example "retry_exceeded".
[[nodiscard]] std::string_view name(completion_status code) noexcept;

/// One sentence for the person who reads the log.
[[nodiscard]] std::string_view explain(completion_status code) noexcept;

/// Whether the same transfer, posted again unchanged to a queue pair that was rebuilt, may succeed. False for
/// what follows from the request itself: keys, bounds, lengths, permissions.
[[nodiscard]] bool retryable(completion_status code) noexcept;

/// Whether the peer named in the request, or the way to it, is the cause; not the device here, and not what
/// else was posted on the queue pair.
[[nodiscard]] bool caused_by_peer(completion_status code) noexcept;

} // namespace memkv::verbs
