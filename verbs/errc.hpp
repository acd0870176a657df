// What can go wrong on the way to a network card, as values. What happens to a request that a card has
// taken is another matter: completion_status.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::verbs {

enum class errc : std::uint8_t {
  ok = 0,
  invalid_argument = 1, // the caller's mistake; nothing was done
  not_found = 2,        // no such device, client or address
  unsupported = 3,      // this device, driver or kernel cannot do it
  queue_full = 4,       // a bound is reached; try again when reports have come
  wrong_state = 5,      // not in this state, or not before everything posted was reported
  no_resources = 6,     // the device or the system has no more of it
  device_failed = 7,    // the device is gone, or refuses everything
};

[[nodiscard]] std::string_view name(errc code) noexcept;

/// An error with one sentence that a person can act on. Success has an empty text.
struct [[nodiscard]] status {
  errc code = errc::ok;
  std::string text;
  [[nodiscard]] bool ok() const noexcept { return code == errc::ok; }
};

} // namespace memkv::verbs
