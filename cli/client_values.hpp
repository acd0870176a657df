// Values of blocks as memkv client reads and writes them: files, standard streams, pipes and devices.
//
// Threading: one thread. Ownership: values. Errors: one sentence that names the file; empty when all is well.
// Limits: value_bytes_max for one value.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace memkv::cli {

constexpr std::uint64_t value_bytes_max = std::uint64_t{1} << 30U;

/// Of "-" or nothing: from standard input. Waits for bytes no longer than until `end`.
[[nodiscard]] std::string read_value(const std::string& path, std::chrono::steady_clock::time_point end,
                                     std::vector<std::byte>& value);

/// To a descriptor that messages call `shown`.
[[nodiscard]] std::string write_all(int target, const std::string& shown, std::span<const std::byte> value);

/// Writes beside the file and renames, so that the file is there whole or not at all. Only a file is ever
/// replaced: a link is followed, and what is neither is written to.
[[nodiscard]] std::string write_file(const std::string& given, std::span<const std::byte> value);

} // namespace memkv::cli
