// The outcome of a request, as it travels. Normative text: docs/formats/wire.md, section 11.
#pragma once

#include <cstdint>
#include <string_view>

namespace memkv::wire {

/// Embedded in frames: never change a number.
enum class status : std::uint8_t {
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
  memory_refused = 18,
  session_ended = 19,
};

inline constexpr std::uint8_t status_last = 19;

/// A received code; one that this version does not know counts as internal.
[[nodiscard]] constexpr status status_from(std::uint8_t code) noexcept {
  return code <= status_last ? static_cast<status>(code) : status::internal;
}

/// The name used in the protocol's text, for example "NotFound".
[[nodiscard]] std::string_view name(status code) noexcept;

/// One sentence for the person in front of a terminal.
[[nodiscard]] std::string_view explain(status code) noexcept;

/// Whether the same request, sent again unchanged to the same server after a pause, may succeed.
[[nodiscard]] bool retryable(status code) noexcept;

} // namespace memkv::wire
