// Values that follow from their key, so that every returned byte can be checked without keeping a copy.
//
// The bytes are eight interleaved generators of 64 bits (xorshift), seeded from the key's seed and the
// position of their 4 KiB page in the value. A range that starts anywhere is checked by itself; a page of
// another place, key or seed does not match.
//
// Threading: pure functions; any thread. Ownership: none. Errors: none.
// Does not do: resist anybody who wants to deceive; it is no cryptography.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace memkv::bench {

/// Mixes the run's seed and the key's text to the seed of its value.
[[nodiscard]] std::uint64_t value_seed(std::uint64_t run_seed, std::string_view key) noexcept;

/// Writes bytes `offset` ... `offset + target.size()` of the value.
void fill_value(std::uint64_t seed, std::uint64_t offset, std::span<std::byte> target) noexcept;

/// Whether `bytes` are exactly those of the value from `offset` on.
[[nodiscard]] bool matches_value(std::uint64_t seed, std::uint64_t offset,
                                 std::span<const std::byte> bytes) noexcept;

} // namespace memkv::bench
