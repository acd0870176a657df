#include "wire/license_file.hpp"

#include <cstdlib>

namespace memkv::wire {

license_text read_license_file(const std::string& path) {
  auto out = read_regular_file(path, license_file_bytes_max);
  if (out.result == license_text::outcome::too_long)
    out.problem = "it is too long for a license";
  return out;
}

found_license find_license_here(const license_place& first, std::uint64_t now_s) {
  return find_license(
      first, [](const char* name) { return std::getenv(name); }, read_license_file, built_in_license_keys(),
      now_s);
}

} // namespace memkv::wire
