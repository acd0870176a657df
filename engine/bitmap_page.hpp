// A page of the allocation bitmap: one bit for each unit, set while something lies there.
//
// The truth about space is the tree and the journal; recovery makes the bitmap anew from them. It is written
// at checkpoints, so that after an orderly close it can be compared with the tree both ways.
//
// Format: docs/formats/bitmap.md. Threading: values. Errors: values.
#pragma once

#include "engine/errc.hpp"
#include "engine/page.hpp"

#include <cstdint>
#include <span>

namespace memkv::engine {

constexpr std::string_view bitmap_magic = "memkv-bm";
constexpr std::uint8_t bitmap_version = 1;
constexpr std::size_t bitmap_header_bytes = 64;
constexpr std::uint32_t bitmap_bits_per_page = (page_bytes - bitmap_header_bytes) * 8;

struct bitmap_page_header {
  identity format_id{};
  std::uint32_t page = 0;     // place within the bitmap region
  std::uint32_t units = 0;    // bits in use on this page; the rest is zero
  std::uint64_t sequence = 0; // of the checkpoint that wrote it
};

/// `bits` has (units + 7) / 8 bytes, unit n in bit n % 8 of byte n / 8.
void encode(const bitmap_page_header& header, std::span<const std::byte> bits,
            std::span<std::byte, page_bytes> to) noexcept;

/// bad_format, newer_version, corrupt (checksum, another place, bits behind the last unit), foreign_drive
/// (other format id). `bits` then points into `from`.
[[nodiscard]] errc decode(std::span<const std::byte, page_bytes> from, const identity& format_id,
                          std::uint32_t page, std::uint32_t units, bitmap_page_header& out,
                          std::span<const std::byte>& bits) noexcept;

} // namespace memkv::engine
