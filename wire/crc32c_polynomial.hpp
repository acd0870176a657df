// Arithmetic of CRC32C (Castagnoli) in compile time: what its tables and constants are made of.
//
// Polynomials over GF(2) of degree below 32, bit-reversed: bit 31 is the coefficient of x^0. Pure functions.
#pragma once

#include <cstdint>

namespace memkv::wire::polynomial {

/// The polynomial itself, without its x^32.
inline constexpr std::uint32_t castagnoli = 0x82F63B78U;

/// a · b modulo the polynomial.
[[nodiscard]] constexpr std::uint32_t multiplied(std::uint32_t a, std::uint32_t b) noexcept {
  std::uint32_t product = 0;
  for (std::uint32_t bit = 0x80000000U; bit != 0; bit >>= 1) {
    if (a & bit)
      product ^= b;
    b = (b & 1) ? (b >> 1) ^ castagnoli : b >> 1;
  }
  return product;
}

/// x^n modulo the polynomial.
[[nodiscard]] constexpr std::uint32_t power_of_x(std::uint64_t n) noexcept {
  std::uint32_t result = 0x80000000U; // x^0
  for (std::uint32_t factor = 0x40000000U; n != 0; n >>= 1) {
    if (n & 1)
      result = multiplied(result, factor);
    factor = multiplied(factor, factor);
  }
  return result;
}

} // namespace memkv::wire::polynomial
