// One contiguous piece of a drive's data region, in allocation units.
#pragma once

#include <cstdint>

namespace memkv::engine {

struct run {
  std::uint32_t first_unit = 0;
  std::uint32_t units = 0;

  friend bool operator==(const run&, const run&) noexcept = default;
};

} // namespace memkv::engine
