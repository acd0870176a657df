// engine and wire stand without actors: this program links both and no CAF.
#include "engine/layout.hpp"
#include "wire/crc32c.hpp"

#include <cstdio>
#include <span>
#include <string_view>

int main() {
  memkv::engine::layout made;
  const auto status = memkv::engine::compute_layout(64 << 20, 64 << 10, 4 << 20, made);
  if (!status.ok() || made.units == 0) {
    std::fprintf(stderr, "a drive of 64 MiB has no layout: %s\n", status.text.c_str());
    return 1;
  }
  constexpr std::string_view digits = "123456789";
  if (memkv::wire::crc32c(std::as_bytes(std::span(digits))) != 0xE3069283) {
    std::fprintf(stderr, "the checksum of \"123456789\" is wrong\n");
    return 1;
  }
  return 0;
}
