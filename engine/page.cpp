#include "engine/page.hpp"

#include "wire/crc32c.hpp"

#include <cstring>

namespace memkv::engine {

std::uint32_t structure_checksum(std::span<const std::byte> structure) noexcept {
  constexpr std::array<std::byte, 4> nothing{};
  std::uint32_t sum = wire::crc32c(structure.first(checksum_offset));
  sum = wire::crc32c(nothing, sum);
  return wire::crc32c(structure.subspan(checksum_offset + 4), sum);
}

std::uint32_t seal(std::span<std::byte> structure) noexcept {
  const std::uint32_t sum = structure_checksum(structure);
  wire::store_le(structure.data() + checksum_offset, sum);
  return sum;
}

void store_magic(std::span<std::byte> structure, std::string_view magic) noexcept {
  std::memcpy(structure.data(), magic.data(), magic_bytes);
}

bool has_magic(std::span<const std::byte> structure, std::string_view magic) noexcept {
  return structure.size() >= checksum_offset + 4 &&
         std::memcmp(structure.data(), magic.data(), magic_bytes) == 0;
}

errc check_structure(std::span<const std::byte> structure, std::string_view magic) noexcept {
  if (!has_magic(structure, magic))
    return errc::bad_format;
  if (wire::load_le<std::uint32_t>(structure.data() + checksum_offset) != structure_checksum(structure))
    return errc::corrupt;
  return errc::ok;
}

void store_identity(std::byte* to, const identity& value) noexcept {
  std::memcpy(to, value.data(), value.size());
}

identity load_identity(const std::byte* from) noexcept {
  identity value;
  std::memcpy(value.data(), from, value.size());
  return value;
}

identity read_identity(wire::byte_reader& reader) noexcept {
  const auto bytes = reader.read_bytes(identity{}.size());
  return bytes.empty() ? identity{} : load_identity(bytes.data());
}

} // namespace memkv::engine
