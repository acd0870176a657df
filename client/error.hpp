// What can go wrong in libmemkv, as values. No exception leaves the library.
//
// Threading: any thread. Ownership: sentences are constants of the program. Errors: none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::client {

/// Numbers up to 19 are the status codes of the wire protocol; from 64 on they arise in the client.
enum class errc : std::uint8_t {
  ok = 0,
  not_found = 1,
  already_exists = 2,
  no_space = 3,
  deadline_exceeded = 4,
  busy = 5,
  unavailable = 6,
  bad_request = 7,
  too_large = 8,
  unsupported = 9,
  unsupported_version = 10,
  digest_mismatch = 11,
  out_of_range = 12,
  buffer_too_small = 13,
  corrupt = 14,
  shutting_down = 15,
  keyed_digest_required = 16,
  internal = 17,
  memory_refused = 18, // over RDMA: the client's device did not let the server reach the memory of the item
  session_ended = 19,  // over RDMA: the server ended the session before it was done with the item

  invalid_argument = 64, // the caller's key, value or option is outside the limits
  bad_config = 65,       // the configuration file, the environment or the options cannot be used
  server_down = 66,      // no connection to the server of this key can be made
  connection_lost = 67,  // the connection ended before the answer; a put may or may not have taken effect
  clock_or_key = 68,     // the server takes a Hello for one of another key or time
  bad_reply = 69,        // an answer failed a check; the connection was closed
  queue_full = 70,       // a bound of the client is reached
  closed = 71,           // the client is being destroyed
  no_memory = 72,
  pending = 73,               // the operation has not finished yet
  rdma_failed = 74,           // RDMA to the server of this key could not be set up, or broke
  memory_not_registered = 75, // it has to travel over RDMA, is not in registered memory and too large to copy
  no_greeting = 76,           // the server accepts connections and did not answer a Hello in time
};

/// A short name such as `not_found`.
[[nodiscard]] std::string_view name(errc code) noexcept;

/// One sentence that says what happened and what to do. Empty for ok.
[[nodiscard]] std::string_view sentence(errc code) noexcept;

/// Whether a person who looks for the cause has to know which server it was.
[[nodiscard]] bool is_of_a_server(errc code) noexcept;

/// The meaning of a status byte of the wire; bytes without a meaning are `internal`.
[[nodiscard]] errc from_wire(std::uint8_t status) noexcept;

/// An error with one sentence that a person can act on. Success has an empty text.
struct [[nodiscard]] status {
  errc code = errc::ok;
  std::string text;
  [[nodiscard]] bool ok() const noexcept { return code == errc::ok; }
};

/// A status whose text is the code's own sentence.
[[nodiscard]] status status_of(errc code);

} // namespace memkv::client
