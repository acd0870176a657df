// What all structures on a drive have in common: pages, identities, and a checksum inside the bytes it
// covers.
//
// Each structure starts with eight bytes of magic, its version, and at offset 12 the CRC32C of the whole
// structure with those four bytes taken as zero. These places are the same in all versions, so that a newer
// version is told from damage.
//
// Threading: pure functions; any thread. Errors: values.
#pragma once

#include "engine/errc.hpp"
#include "wire/bytes.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace memkv::engine {

/// Unit of all metadata, of addresses, and of what a device can be relied on to read and write.
constexpr std::uint32_t page_bytes = 4096;

constexpr std::size_t magic_bytes = 8;
constexpr std::size_t version_offset = 8;
constexpr std::size_t checksum_offset = 12;

/// Sixteen random bytes: the identity of a format, a drive or a set.
using identity = std::array<std::byte, 16>;

[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) noexcept {
  return (value + alignment - 1) / alignment * alignment;
}

/// CRC32C of a structure, its own checksum field taken as zero. At least 16 bytes.
[[nodiscard]] std::uint32_t structure_checksum(std::span<const std::byte> structure) noexcept;

/// Computes and stores the checksum; returns it.
std::uint32_t seal(std::span<std::byte> structure) noexcept;

void store_magic(std::span<std::byte> structure, std::string_view magic) noexcept;
[[nodiscard]] bool has_magic(std::span<const std::byte> structure, std::string_view magic) noexcept;

/// Magic, then checksum, then nothing else: bad_format or corrupt.
[[nodiscard]] errc check_structure(std::span<const std::byte> structure, std::string_view magic) noexcept;

void store_identity(std::byte* to, const identity& value) noexcept;
[[nodiscard]] identity load_identity(const std::byte* from) noexcept;
/// Zeros when the reader has failed or has too little left.
[[nodiscard]] identity read_identity(wire::byte_reader& reader) noexcept;

} // namespace memkv::engine
