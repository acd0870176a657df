// CRC32C with two units of the processor at a time: carry-less multiplication folds 512 bits at once, and
// beside it the CRC32 instruction goes through other bytes of the same block. Each alone is bound by its own
// unit (16 and 8 bytes a cycle on the development machine); together they reach half as much again
// (docs/decisions/0033).
//
// Source of the folding: V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
// Instruction", Intel, 2009.
// Threading: pure functions; any thread.
#pragma once

#include "wire/bytes.hpp"

#include <cstddef>
#include <cstdint>

namespace memkv::wire {

/// Whether this processor has AVX-512 and VPCLMULQDQ.
[[nodiscard]] bool crc32c_mixed_available() noexcept;

/// What is taken at a time, at least; shorter rests are left over.
inline constexpr std::size_t crc32c_mixed_bytes_min = 7680;

/// Takes whole blocks from the front of `bytes`, which afterwards is shorter than crc32c_mixed_bytes_min. The
/// state is that of the checksum, both inversions left to the caller. Only where crc32c_mixed_available().
[[nodiscard]] std::uint32_t crc32c_mixed(bytes_view& bytes, std::uint32_t state) noexcept;

} // namespace memkv::wire
