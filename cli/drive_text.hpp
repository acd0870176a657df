// Sizes, times and identities of drives as people read them.
//
// Threading: pure functions. Ownership: values. Errors: none.
#pragma once

#include "engine/page.hpp"

#include <cstdint>
#include <string>

namespace memkv::cli {

/// "6.98 TiB", "512.0 MiB", "17 B": three or four digits.
[[nodiscard]] std::string about_size(std::uint64_t bytes);

/// "2026-11-21 06:38:22 UTC"; "never" for 0.
[[nodiscard]] std::string utc_text(std::uint64_t nanoseconds);

/// 32 hexadecimal digits.
[[nodiscard]] std::string hex_text(const engine::identity& value);

} // namespace memkv::cli
