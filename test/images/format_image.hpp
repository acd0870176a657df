// A small drive as a release left it, kept in the tree: every later one must still read it.
//
// The file is the drive in runs: "memkv-image", a zero byte, the drive's size (8), then pieces: kind (1; 0
// bytes follow, 1 one byte that is repeated), length (4), byte or bytes; all little-endian.
//
// Threading: one thread. Errors: a sentence.
#pragma once

#include "test/crash/store_run.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace memkv::images {

struct stored_value {
  std::string key;
  std::uint32_t length = 0;
  std::uint8_t seed = 0;
};

/// What is on every image: made by make_image, asked for by the test.
[[nodiscard]] const std::vector<stored_value>& values();
/// Keys that were removed: in the tree's time, and in the journal's.
[[nodiscard]] const std::vector<std::string>& removed();
/// A part of a striped value whose head is on another drive.
struct stored_part {
  std::string key;
  std::uint64_t put_id = 0, value_length = 0;
  std::uint32_t part = 0, parts = 0, length = 0;
  std::uint8_t seed = 0;
};
[[nodiscard]] const stored_part& part();

[[nodiscard]] engine::store_options options();
constexpr std::uint64_t drive_bytes = 4 << 20;
/// `length` bytes, with room up to whole pages.
[[nodiscard]] std::vector<std::byte> bytes_of(std::uint32_t length, std::uint8_t seed);

[[nodiscard]] std::string save(const sim::image& drive, const std::string& path);
[[nodiscard]] std::string load(const std::string& path, sim::image& out);

} // namespace memkv::images
