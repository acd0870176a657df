#include "wire/crc32c.hpp"

#include <algorithm>
#include <array>

#include <isa-l/crc.h>

namespace memkv::wire {

namespace {

// The polynomial, bit-reversed: bit 31 is the coefficient of x^0.
constexpr std::uint32_t polynomial = 0x82F63B78U;

// a · b modulo the polynomial, both bit-reversed.
constexpr std::uint32_t multiplied(std::uint32_t a, std::uint32_t b) noexcept {
  std::uint32_t product = 0;
  for (std::uint32_t bit = 0x80000000U; bit != 0; bit >>= 1) {
    if (a & bit)
      product ^= b;
    b = (b & 1) ? (b >> 1) ^ polynomial : b >> 1;
  }
  return product;
}

// powers[k] = x^(8 · 2^k): appending 2^k zero bytes multiplies a checksum by it.
constexpr std::array<std::uint32_t, 64> powers = [] {
  std::array<std::uint32_t, 64> table{};
  std::uint32_t power = 0x00800000U; // x^8
  for (std::uint32_t& entry : table) {
    entry = power;
    power = multiplied(power, power);
  }
  return table;
}();

// Multiplication by one constant as four look-ups, one a byte.
using shift_table = std::array<std::array<std::uint32_t, 256>, 4>;

constexpr shift_table shift_by(std::uint32_t factor) noexcept {
  shift_table table{};
  for (std::size_t byte = 0; byte < 4; ++byte) {
    for (std::size_t bit = 0; bit < 8; ++bit)
      table[byte][std::size_t{1} << bit] = multiplied(factor, 1U << (8 * byte + bit));
    // The rest follows because multiplication distributes over XOR.
    for (std::size_t value = 1; value < 256; ++value) {
      const std::size_t low = value & (~value + 1);
      table[byte][value] = table[byte][value ^ low] ^ table[byte][low];
    }
  }
  return table;
}

constexpr shift_table by_64_kib = shift_by(powers[16]);
constexpr shift_table by_1_mib = shift_by(powers[20]);

std::uint32_t shifted(const shift_table& table, std::uint32_t value) noexcept {
  return table[0][value & 0xFF] ^ table[1][(value >> 8) & 0xFF] ^ table[2][(value >> 16) & 0xFF] ^
         table[3][value >> 24];
}

} // namespace

std::uint32_t crc32c(bytes_view bytes, std::uint32_t previous) noexcept {
  // ISA-L leaves both inversions to its caller, takes an int as length and a pointer to non-const that it
  // only reads.
  constexpr std::size_t call_bytes_max = std::size_t{1} << 30;
  std::uint32_t state = ~previous;
  while (!bytes.empty()) {
    const std::size_t size = std::min(bytes.size(), call_bytes_max);
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(size), state);
    bytes = bytes.subspan(size);
  }
  return ~state;
}

std::uint32_t crc32c_combine(std::uint32_t a, std::uint32_t b, std::uint64_t length_b) noexcept {
  for (std::size_t k = 0; length_b != 0; ++k, length_b >>= 1)
    if (length_b & 1)
      a = multiplied(powers[k], a);
  return a ^ b;
}

std::uint32_t crc32c_from_behind(bytes_view bytes) noexcept {
  constexpr std::size_t piece_bytes = 256 << 10;
  std::uint32_t sum = 0;
  std::size_t done = 0; // bytes behind what is looked at next
  while (done < bytes.size()) {
    const std::size_t left = bytes.size() - done;
    // The one in front may be shorter.
    const std::size_t step = std::min(left, piece_bytes);
    sum = crc32c_combine(crc32c(bytes.subspan(left - step, step)), sum, done);
    done += step;
  }
  return sum;
}

std::uint32_t crc32c_combine_64_kib(std::uint32_t a, std::uint32_t b) noexcept {
  return shifted(by_64_kib, a) ^ b;
}

std::uint32_t crc32c_combine_1_mib(std::uint32_t a, std::uint32_t b) noexcept {
  return shifted(by_1_mib, a) ^ b;
}

} // namespace memkv::wire
