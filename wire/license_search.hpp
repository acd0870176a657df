// Where a licence is looked for, in which order, by servers and clients. Without I/O: what the environment
// and the files say comes from functions that are handed in (license_file.hpp has the real ones).
//
// A place that names a licence decides: when that one cannot be read or is not valid, the search ends with a
// sentence that names the place, and no other is looked at. Only places that name nothing are passed over.
//
// Threading: any thread, if the functions may be called there. Ownership: values. Errors: one sentence; no
// exception leaves but for want of memory.
#pragma once

#include "wire/license.hpp"
#include "wire/regular_file.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::wire {

constexpr std::size_t license_file_bytes_max = 2 * license_bytes_max;

/// What reading a file gave: at most license_file_bytes_max.
using license_text = file_text;
using license_reader = std::function<license_text(const std::string& path)>;
/// A variable's value; nullptr when it is not set.
using license_variable = std::function<const char*(const char* name)>;

/// One value that somebody gave: the token itself, or the path of a file that holds it.
struct license_place {
  std::string source; // as messages call it: "--license", "MEMKV_LICENSE", "client.yaml:3: license"
  std::string value;
};

/// A licence that was found, and where.
struct found_license {
  license_verdict verdict; // not ok: its problem names the source and says what to do
  std::string source;      // of the licence; also when it is not valid
  std::string path;        // of its file; empty when it was given itself
  std::string token;       // as it was read
};

/// Whether a value is the token itself rather than a path.
[[nodiscard]] bool is_inline_license(std::string_view value) noexcept;
/// Without blanks and ends of lines around it.
[[nodiscard]] std::string_view trimmed_license(std::string_view text) noexcept;

/// The files that are looked at last, in this order. `home` may be empty.
[[nodiscard]] std::vector<std::string> well_known_licenses(std::string_view home);

/// `first` when its value is not empty, then MEMKV_LICENSE, AISTOR_LICENSE, MINIO_LICENSE, then the
/// well-known files. A variable that is set to nothing counts as not set.
[[nodiscard]] found_license find_license(const license_place& first, const license_variable& variable,
                                         const license_reader& read, std::span<const license_key> keys,
                                         std::uint64_t now_s);

} // namespace memkv::wire
