// The page that names an extent and carries the checksums of its data.
//
// It lies directly behind the data where the extent's last unit has room, else in a unit shared by header
// pages only.
//
// Format: docs/formats/extent.md. Threading: values; check_extent_header from any thread. Errors: values.
#pragma once

#include "engine/drive_store.hpp"
#include "engine/entry_record.hpp"
#include "engine/page.hpp"

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace memkv::engine {

constexpr std::string_view extent_magic = "memkv-ex";
constexpr std::uint8_t extent_version = 1;
constexpr std::size_t extent_fixed_bytes = 128;

struct extent_header {
  identity format_id{};
  identity drive_id{};
  std::uint32_t page = 0;   // place of this page within the data region
  std::uint32_t length = 0; // bytes of data in this extent
  key_id id;                // under which the extent is indexed
  std::uint64_t generation = 0;
  std::uint64_t put_id = 0;
  std::uint32_t part = 0, parts = 1;
  std::uint64_t value_length = 0;          // of the whole value
  std::string_view name_space;             // at most 32 bytes
  std::span<const std::byte> key;          // 1 to 1024 bytes
  std::span<const std::byte> runs;         // encoded: 8 bytes each, at most 64
  std::span<const std::byte> chunk_crc32c; // little-endian u32 for each 64 KiB of data

  [[nodiscard]] std::size_t run_count() const noexcept { return runs.size() / 8; }
  [[nodiscard]] run run_at(std::size_t i) const noexcept;
  [[nodiscard]] std::uint32_t chunk_at(std::size_t i) const noexcept;
};

/// What of the page counts. `used_bytes` is for memory, which is never read as a format: what lies behind the
/// last checksum is left alone and not covered, since touching a whole page for a small block costs as much
/// as the rest of storing it.
enum class header_extent : std::uint8_t { whole_page, used_bytes };

/// Writes the page; views other than `runs` and `chunk_crc32c` are copied from the header. Returns the page's
/// checksum.
std::uint32_t encode(const extent_header& header, std::span<const run> runs,
                     std::span<const std::uint32_t> chunk_crc32c, std::span<std::byte, page_bytes> to,
                     header_extent covered = header_extent::whole_page) noexcept;

/// bad_format, newer_version, corrupt, or ok; the views in `out` point into `from`. Checks the page in itself
/// only.
[[nodiscard]] errc decode(std::span<const std::byte, page_bytes> from, extent_header& out,
                          header_extent covered = header_extent::whole_page) noexcept;

/// What an index entry must find in its header page.
struct extent_expectation {
  identity format_id{};
  identity drive_id{};
  key_id id;
  std::uint64_t generation = 0;
  std::uint64_t put_id = 0;
  std::uint32_t header_page = 0;
  std::uint32_t header_crc32c = 0;
  std::uint32_t first_unit = 0;
  std::uint16_t units = 0;
};

/// decode, and comparison with the entry: corrupt when the page is not the one that the index means.
[[nodiscard]] errc check_extent_header(std::span<const std::byte, page_bytes> from,
                                       const extent_expectation& expected, const layout& places,
                                       extent_header& out,
                                       header_extent covered = header_extent::whole_page) noexcept;

/// Chunks of an extent of `length` bytes.
[[nodiscard]] constexpr std::uint32_t chunk_count(std::uint64_t length) noexcept {
  return static_cast<std::uint32_t>((length + chunk_bytes - 1) / chunk_bytes);
}

} // namespace memkv::engine
