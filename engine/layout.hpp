// Where everything lies on a drive: a pure function of its size and of two settings.
//
//   page 0 | bitmap | journal | tree | data (units) | unused | last page
//   superblock                                                superblock mirror
//
// Threading: pure functions; any thread. Errors: values.
// Limits: a drive has 4 MiB to 16 TiB; metadata of an 8 TB drive with 64 KiB units is below 0.35 % of it.
#pragma once

#include "engine/errc.hpp"
#include "engine/page.hpp"

#include <cstdint>

namespace memkv::engine {

constexpr std::uint32_t tree_page_bytes = 16 << 10;

struct layout {
  std::uint64_t device_bytes = 0; // whole pages of the device
  std::uint32_t unit_bytes = 0, extent_bytes_max = 0;
  std::uint64_t bitmap_offset = 0, bitmap_pages = 0;
  std::uint64_t journal_offset = 0, journal_bytes = 0;
  std::uint64_t tree_offset = 0;
  std::uint32_t tree_pages = 0;
  std::uint32_t units = 0;
  std::uint64_t data_offset = 0;

  [[nodiscard]] std::uint64_t mirror_offset() const noexcept { return device_bytes - page_bytes; }
  [[nodiscard]] std::uint64_t unit_offset(std::uint64_t unit) const noexcept {
    return data_offset + unit * unit_bytes;
  }
  [[nodiscard]] std::uint64_t data_page_offset(std::uint64_t page) const noexcept {
    return data_offset + page * page_bytes;
  }
  [[nodiscard]] std::uint32_t pages_per_unit() const noexcept { return unit_bytes / page_bytes; }
  [[nodiscard]] std::uint64_t data_pages() const noexcept { return std::uint64_t{units} * pages_per_unit(); }

  friend bool operator==(const layout&, const layout&) noexcept = default;
};

constexpr std::uint64_t drive_bytes_min = std::uint64_t{4} << 20;
constexpr std::uint64_t drive_bytes_max = std::uint64_t{16} << 40;
constexpr std::uint32_t unit_bytes_min = page_bytes;
constexpr std::uint32_t extent_bytes_least = 64 << 10;
constexpr std::uint32_t extent_bytes_most = 32 << 20;

/// The layout of a drive of `device_bytes`: its largest number of units that fits. invalid_argument with a
/// sentence when the settings are out of their ranges, no_space when the drive is too small.
status compute_layout(std::uint64_t device_bytes, std::uint32_t unit_bytes, std::uint32_t extent_bytes_max,
                      layout& out);

} // namespace memkv::engine
