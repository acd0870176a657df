// Which drives of a set take part: a bit each, by place in the set.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace memkv::engine {

constexpr std::uint32_t drives_max = 256; // of one set

/// Lowest bit of the first byte: place 0. On drives in this form (docs/formats/superblock.md).
using drive_members = std::array<std::byte, drives_max / 8>;

inline void add_member(drive_members& members, std::uint32_t index) noexcept {
  members[index / 8] |= std::byte{1} << (index % 8);
}
inline void remove_member(drive_members& members, std::uint32_t index) noexcept {
  members[index / 8] &= ~(std::byte{1} << (index % 8));
}
[[nodiscard]] inline bool is_member(const drive_members& members, std::uint32_t index) noexcept {
  return index < drives_max && (members[index / 8] >> (index % 8) & std::byte{1}) != std::byte{0};
}
[[nodiscard]] inline drive_members all_members(std::uint32_t count) noexcept {
  drive_members members{};
  for (std::uint32_t index = 0; index < count && index < drives_max; ++index)
    add_member(members, index);
  return members;
}

} // namespace memkv::engine
