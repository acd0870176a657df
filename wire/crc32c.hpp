// CRC32C (Castagnoli), as wire.md section 1 and the storage formats mean it, and its composition.
//
// Threading: pure functions; any thread. Errors: none.
// Does not: protect against anybody who wants to deceive; it finds accidents.
#pragma once

#include "wire/bytes.hpp"

#include <cstdint>

namespace memkv::wire {

/// The checksum of `bytes`. With `previous`, the checksum of the bytes it belongs to followed by `bytes`;
/// 0 is the checksum of no bytes.
[[nodiscard]] std::uint32_t crc32c(bytes_view bytes, std::uint32_t previous = 0) noexcept;

/// How it is computed: by the processor's instructions (ISA-L), by two kinds of them at a time
/// (crc32c_mixed.hpp), or by tables alone. crc32c uses the one that was fastest when it was first asked:
/// instructions are by a factor of twenty, emulated ones are not (docs/performance.md).
enum class crc32c_method : std::uint8_t { instructions, mixed, tables };
/// Whether this processor can.
[[nodiscard]] bool crc32c_available(crc32c_method method) noexcept;
[[nodiscard]] crc32c_method crc32c_method_in_use() noexcept;
/// For tests and measurements: the same checksum, computed in the given way, which must be available.
[[nodiscard]] std::uint32_t crc32c_by(crc32c_method method, bytes_view bytes,
                                      std::uint32_t previous = 0) noexcept;

/// The same checksum, looking at the bytes in pieces from the last to the first: what lies in front is in the
/// processor's cache afterwards. For values that are sent next and are larger than the cache.
[[nodiscard]] std::uint32_t crc32c_from_behind(bytes_view bytes) noexcept;

/// The checksum of A followed by B, from the checksums of both and the length of B in bytes (any length).
[[nodiscard]] std::uint32_t crc32c_combine(std::uint32_t a, std::uint32_t b, std::uint64_t length_b) noexcept;

/// The same for a B of exactly 64 KiB: a few nanoseconds.
[[nodiscard]] std::uint32_t crc32c_combine_64_kib(std::uint32_t a, std::uint32_t b) noexcept;

/// The same for a B of exactly 1 MiB: a few nanoseconds.
[[nodiscard]] std::uint32_t crc32c_combine_1_mib(std::uint32_t a, std::uint32_t b) noexcept;

} // namespace memkv::wire
