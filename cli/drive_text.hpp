// Sizes, times and identities of drives as people read them.
//
// Threading: pure functions. Ownership: values. Errors: none.
#pragma once

#include "wire/hex.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::cli {

/// "6.98 TiB", "512.0 MiB", "17 B": three or four digits.
[[nodiscard]] std::string about_size(std::uint64_t bytes);

/// "2026-11-21 06:38:22 UTC"; "never" for 0.
[[nodiscard]] std::string utc_text(std::uint64_t nanoseconds);

/// "1 block", "17 blocks".
[[nodiscard]] std::string counted(std::uint64_t number, std::string_view one, std::string_view many);

/// A line of a summary: name, blanks up to a column, value.
[[nodiscard]] std::string text_row(std::string_view name, const std::string& value);

/// An identity of 16 bytes is 32 digits.
using wire::hex_text;

} // namespace memkv::cli
