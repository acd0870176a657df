#include "wire/crc32c.hpp"

#include "wire/crc32c_mixed.hpp"
#include "wire/crc32c_polynomial.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>

#include <isa-l/crc.h>

namespace memkv::wire {

namespace {

using polynomial::multiplied;

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

// steps[k][b]: the state after the byte b and k zero bytes behind it. Sixteen bytes are taken at a time, as
// M. Kounavis and F. Berry describe for eight ("A Systematic Approach to Building High Performance
// Software-Based CRC Generators", 2005).
constexpr std::size_t stride = 16;

constexpr std::array<std::array<std::uint32_t, 256>, stride> steps = [] {
  std::array<std::array<std::uint32_t, 256>, stride> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit)
      state = (state & 1) ? (state >> 1) ^ polynomial::castagnoli : state >> 1;
    table[0][byte] = state;
  }
  for (std::size_t k = 1; k < stride; ++k)
    for (std::size_t byte = 0; byte < 256; ++byte)
      table[k][byte] = (table[k - 1][byte] >> 8) ^ table[0][table[k - 1][byte] & 0xFF];
  return table;
}();

/// Of eight bytes, the first of which has `behind` bytes of the stride behind it.
std::uint32_t eight(std::uint64_t word, std::size_t behind) noexcept {
  std::uint32_t state = 0;
  for (std::size_t i = 0; i < 8; ++i)
    state ^= steps[behind - i][(word >> (8 * i)) & 0xFF];
  return state;
}

std::uint32_t by_tables(bytes_view bytes, std::uint32_t state) noexcept {
  for (; bytes.size() >= stride; bytes = bytes.subspan(stride))
    state = eight(load_le<std::uint64_t>(bytes.data()) ^ state, stride - 1) ^
            eight(load_le<std::uint64_t>(bytes.data() + 8), stride - 9);
  for (const std::byte each : bytes)
    state = (state >> 8) ^ steps[0][(state ^ std::to_integer<std::uint32_t>(each)) & 0xFF];
  return state;
}

std::uint32_t by_instructions(bytes_view bytes, std::uint32_t state) noexcept {
  // ISA-L leaves both inversions to its caller, takes an int as length and a pointer to non-const that it
  // only reads.
  constexpr std::size_t call_bytes_max = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const std::size_t size = std::min(bytes.size(), call_bytes_max);
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(size), state);
    bytes = bytes.subspan(size);
  }
  return state;
}

std::uint32_t by_both(bytes_view bytes, std::uint32_t state) noexcept {
  state = crc32c_mixed(bytes, state);
  return by_instructions(bytes, state);
}

/// The shortest of a few attempts, so that an interruption does not decide.
template <class Work>
std::chrono::nanoseconds shortest(const Work& work) noexcept {
  auto best = std::chrono::nanoseconds::max();
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    best = std::min(
        best, std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin));
  }
  return best;
}

crc32c_method faster_method() noexcept {
  static constexpr std::array<std::byte, 16 << 10> bytes{};
  volatile std::uint32_t kept = 0; // so that nothing is left out
  auto best = crc32c_method::tables;
  auto best_time = std::chrono::nanoseconds::max();
  for (const auto method : {crc32c_method::mixed, crc32c_method::instructions, crc32c_method::tables}) {
    if (!crc32c_available(method))
      continue;
    const auto time = shortest([&] { kept = crc32c_by(method, bytes, kept); });
    if (time < best_time) {
      best = method;
      best_time = time;
    }
  }
  return best;
}

} // namespace

bool crc32c_available(crc32c_method method) noexcept {
  static const bool mixed = crc32c_mixed_available();
  return method != crc32c_method::mixed || mixed;
}

crc32c_method crc32c_method_in_use() noexcept {
  static const crc32c_method chosen = faster_method();
  return chosen;
}

std::uint32_t crc32c_by(crc32c_method method, bytes_view bytes, std::uint32_t previous) noexcept {
  switch (method) {
  case crc32c_method::tables:
    return ~by_tables(bytes, ~previous);
  case crc32c_method::mixed:
    return ~by_both(bytes, ~previous);
  case crc32c_method::instructions:
    break;
  }
  return ~by_instructions(bytes, ~previous);
}

std::uint32_t crc32c(bytes_view bytes, std::uint32_t previous) noexcept {
  return crc32c_by(crc32c_method_in_use(), bytes, previous);
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
