// Licences as they lie on this machine: the two functions that a search needs, over the real environment and
// the real files. With regular_file.hpp the only part of wire/ that touches a file.
//
// Threading: any thread; read_license_file may wait for a file system. Errors: in license_text. Limits:
// license_file_bytes_max; a longer file is refused, and what is no regular file too.
#pragma once

#include "wire/license_search.hpp"

#include <string>

namespace memkv::wire {

/// Never longer than a file system takes: a pipe or a device is refused instead of waited for.
[[nodiscard]] license_text read_license_file(const std::string& path);

/// find_license over this process's environment and this machine's files, with the keys of this build.
[[nodiscard]] found_license find_license_here(const license_place& first, std::uint64_t now_s);

} // namespace memkv::wire
