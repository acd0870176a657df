// Small files that a person names: configurations, licences. Reading one never waits for somebody who may
// never come: what is no regular file is refused. Stands in the library of licences; the protocol reads none.
//
// Threading: any thread; a call may wait for a file system. Ownership: values. Errors: in file_text, in a few
// words that fit behind "cannot be read: ". Limits: bytes_max; a longer file is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace memkv::wire {

/// What reading a file gave.
struct file_text {
  /// pending is never said here: it is for readers that do not wait, while nothing is known yet.
  enum class outcome : std::uint8_t { read, absent, forbidden, too_long, failed, pending };
  outcome result = outcome::absent;
  std::string text;       // read: at most bytes_max
  std::string problem;    // else: why
  std::uint32_t mode = 0; // permissions, once it was opened
};

[[nodiscard]] file_text read_regular_file(const std::string& path, std::size_t bytes_max);

} // namespace memkv::wire
