// What can go wrong in the storage engine, as values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::engine {

enum class errc : std::uint8_t {
  ok = 0,
  not_found = 1,
  already_exists = 2,
  no_space = 3, // nothing free, and eviction is off or nothing can be evicted
  deadline_exceeded = 4,
  busy = 5,           // a bound of this component is reached; try again
  offline = 6,        // the drive takes no more work until it was reopened
  io_error = 7,       // the device refused or failed an operation
  corrupt = 8,        // bytes are not what their checksum says
  bad_format = 9,     // not one of our structures
  newer_version = 10, // written by a later release
  foreign_drive = 11, // belongs to another drive set or another place in it
  wrong_size = 12,    // the device is not as large as its superblock says
  in_use = 13,        // another process holds the device
  too_large = 14,
  invalid_argument = 15,
  cancelled = 16,
  not_formatted = 17, // nothing of ours is on it, and it is not to be formatted unasked
  blacklisted = 18,   // failed too often; only a reset brings it back
  unreadable = 19,    // a block could not be read, twice in a row, and is being dropped
  later_epoch = 20,   // the drive knows of later changes of its set than whoever opens it
};

[[nodiscard]] std::string_view name(errc code) noexcept;

/// An error with one sentence that a person can act on. Success has an empty text.
struct [[nodiscard]] status {
  errc code = errc::ok;
  std::string text;
  [[nodiscard]] bool ok() const noexcept { return code == errc::ok; }
};

} // namespace memkv::engine
