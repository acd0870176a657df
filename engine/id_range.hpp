// Ids as numbers of 128 bits, most significant byte first: the ends of ranges of the tree.
//
// Threading: pure functions; any thread. `before` the lowest and `after` the highest wrap around.
#pragma once

#include "wire/key_id.hpp"

#include <cstddef>

namespace memkv::engine {

[[nodiscard]] inline wire::key_id highest_id() noexcept {
  wire::key_id id;
  id.bytes.fill(std::byte{0xFF});
  return id;
}

[[nodiscard]] inline wire::key_id before(wire::key_id id) noexcept {
  for (std::size_t i = id.bytes.size(); i-- > 0;) {
    const auto value = std::to_integer<unsigned>(id.bytes[i]);
    id.bytes[i] = std::byte(value - 1);
    if (value != 0)
      break;
  }
  return id;
}

[[nodiscard]] inline wire::key_id after(wire::key_id id) noexcept {
  for (std::size_t i = id.bytes.size(); i-- > 0;) {
    const auto value = std::to_integer<unsigned>(id.bytes[i]);
    id.bytes[i] = std::byte(value + 1);
    if (value != 0xFF)
      break;
  }
  return id;
}

} // namespace memkv::engine
