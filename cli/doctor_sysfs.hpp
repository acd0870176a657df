// Small files of the kernel, read whole or as numbers.
//
// Threading: functions without state. Ownership: values. Errors: empty text or nothing for what is not there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace memkv::cli {

/// The first line without blanks at its ends.
[[nodiscard]] std::string sysfs_line(const std::filesystem::path& file);

[[nodiscard]] std::optional<std::uint64_t> sysfs_number(const std::filesystem::path& file);

/// Names in a directory, sorted.
[[nodiscard]] std::vector<std::string> sysfs_names(const std::filesystem::path& directory);

/// The value of "Name:   value" in a file such as /proc/self/status; empty when it is not there.
[[nodiscard]] std::string proc_field(const std::filesystem::path& file, const std::string& field);

} // namespace memkv::cli
