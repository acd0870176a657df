// Work that may hang for ever, done in processes of their own with a deadline.
//
// A read of a drive that does not answer cannot be cancelled, and a process with such a thread does not end.
// So each piece of work runs in a child that is given up on: it is killed, and not waited for.
//
// Threading: call it while the process has one thread; it forks. Ownership: values. Errors: no value for work
// that did not end in time, or died. Limits: `apart_max` at one time; an answer of at most 64 KiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace memkv::cli {

inline constexpr std::size_t apart_max = 32;

/// What each piece of work returned, in the same order. `deadline_ms` counts for each from its own begin.
[[nodiscard]] std::vector<std::optional<std::string>>
run_apart(const std::vector<std::function<std::string()>>& work, std::size_t at_once,
          std::uint32_t deadline_ms);

} // namespace memkv::cli
