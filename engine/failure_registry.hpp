// What is remembered about a drive's failures: a part of its superblock, with a version of its own.
//
// Format: docs/formats/superblock.md, section "Failure registry".
// Threading: values. Errors: values. Limits: a device id of at most 128 bytes; longer ones are cut.
// Does not: decide anything; who reads it does.
#pragma once

#include "engine/errc.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace memkv::engine {

constexpr std::size_t failure_registry_bytes = 256;
constexpr std::uint8_t failure_registry_version = 1;
constexpr std::size_t device_id_bytes_max = 128;

struct failure_registry {
  std::string device_id; // serial number or path: for people
  std::uint32_t failure_count = 0;
  std::uint64_t first_failed_at_ns = 0, last_failed_at_ns = 0; // since 1970-01-01 UTC; 0: never
  bool blacklisted = false;

  void note_failure(std::uint64_t at_ns) noexcept;
  friend bool operator==(const failure_registry&, const failure_registry&) = default;
};

void encode(const failure_registry& registry, std::span<std::byte, failure_registry_bytes> to) noexcept;

/// bad_format, newer_version. The caller has checked the superblock's checksum, which covers these bytes.
[[nodiscard]] errc decode(std::span<const std::byte, failure_registry_bytes> from, failure_registry& out);

} // namespace memkv::engine
