#include "wire/crc32c_mixed.hpp"

#include "wire/assert.hpp"
#include "wire/crc32c_polynomial.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace memkv::wire {

#if defined(__x86_64__)

namespace {

using polynomial::power_of_x;

// In one round the accumulators take 512 bytes and the streams 256: as much as each unit does in that time.
constexpr std::size_t accumulators = 8;
constexpr std::size_t streams = 4;
constexpr std::size_t words = 8; // of 8 bytes, of each stream
constexpr std::size_t folded_bytes = accumulators * 64;
constexpr std::size_t stream_bytes = words * 8;
constexpr std::size_t round_bytes = folded_bytes + streams * stream_bytes;

// A large block is nearly 64 KiB, a small one what is worth beginning for.
constexpr std::size_t large_rounds = (std::size_t{64} << 10) / round_bytes;
constexpr std::size_t small_rounds = crc32c_mixed_bytes_min / round_bytes;
static_assert(small_rounds * round_bytes == crc32c_mixed_bytes_min);

/// Carries a lane of 128 bits over `bits`: its first half by x^(bits + 32), its second by x^(bits - 32), both
/// one to the left, since a product of reversed polynomials comes out one bit to the right.
struct distance {
  std::uint64_t first, second;
};
constexpr distance over(std::uint64_t bits) noexcept {
  return {std::uint64_t{power_of_x(bits + 32)} << 1, std::uint64_t{power_of_x(bits - 32)} << 1};
}

#define MEMKV_MIXED __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))

MEMKV_MIXED inline __m512i in_each_lane(distance by) noexcept {
  const auto first = static_cast<long long>(by.first), second = static_cast<long long>(by.second);
  return _mm512_set_epi64(second, first, second, first, second, first, second, first);
}

MEMKV_MIXED inline __m512i fold(__m512i lanes, __m512i by, __m512i next) noexcept {
  constexpr int exclusive_or_of_three = 0x96;
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(lanes, by, 0x00),
                                   _mm512_clmulepi64_epi128(lanes, by, 0x11), next, exclusive_or_of_three);
}

/// The state as if `Bytes` zero bytes had followed.
template <std::size_t Bytes>
MEMKV_MIXED inline std::uint32_t behind_zeros(std::uint32_t state) noexcept {
  // The instruction that reduces the product multiplies by x^32, and the product is one bit to the right.
  constexpr auto factor = static_cast<int>(power_of_x(8 * Bytes - 33));
  const __m128i product =
      _mm_clmulepi64_si128(_mm_cvtsi32_si128(static_cast<int>(state)), _mm_cvtsi32_si128(factor), 0);
  return static_cast<std::uint32_t>(_mm_crc32_u64(0, static_cast<std::uint64_t>(_mm_cvtsi128_si64(product))));
}

/// One block: its front is folded while the streams behind it are summed up one word after the other.
template <std::size_t Rounds>
MEMKV_MIXED std::uint32_t block(const std::byte* folded, std::uint32_t state) noexcept {
  constexpr std::size_t length = Rounds * stream_bytes; // of a stream
  const std::byte* streamed = folded + Rounds * folded_bytes;
  const __m512i ahead = in_each_lane(over(8 * folded_bytes));
  __m512i lanes[accumulators]; // std::array would lose the alignment
  for (std::size_t i = 0; i < accumulators; ++i)
    lanes[i] = _mm512_loadu_si512(folded + 64 * i);
  lanes[0] = _mm512_xor_si512(lanes[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(state))));
  std::array<std::uint64_t, streams> sums{};
  for (std::size_t round = 1;; ++round) {
#pragma GCC unroll 8
    for (std::size_t word = 0; word < words; ++word)
#pragma GCC unroll 4
      for (std::size_t i = 0; i < streams; ++i) {
        std::uint64_t next = 0;
        std::memcpy(&next, streamed + i * length + word * 8, sizeof next);
        sums[i] = _mm_crc32_u64(sums[i], next);
      }
    streamed += stream_bytes;
    folded += folded_bytes;
    if (round == Rounds)
      break;
#pragma GCC unroll 8
    for (std::size_t i = 0; i < accumulators; ++i)
      lanes[i] = fold(lanes[i], ahead, _mm512_loadu_si512(folded + 64 * i));
  }
  const __m512i to_next = in_each_lane(over(512));
  __m512i last = lanes[0];
  for (std::size_t i = 1; i < accumulators; ++i)
    last = fold(last, to_next, lanes[i]);
  alignas(64) std::array<std::uint64_t, 8> rest;
  _mm512_store_si512(rest.data(), last);
  std::uint64_t sum = 0;
  for (const std::uint64_t word : rest)
    sum = _mm_crc32_u64(sum, word);
  auto result = static_cast<std::uint32_t>(sum);
  for (const std::uint64_t stream : sums)
    result = behind_zeros<length>(result) ^ static_cast<std::uint32_t>(stream);
  return result;
}

} // namespace

bool crc32c_mixed_available() noexcept {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("vpclmulqdq") != 0 &&
         __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("sse4.2") != 0;
}

std::uint32_t crc32c_mixed(bytes_view& bytes, std::uint32_t state) noexcept {
  constexpr std::size_t large = large_rounds * round_bytes, small = small_rounds * round_bytes;
  for (; bytes.size() >= large; bytes = bytes.subspan(large))
    state = block<large_rounds>(bytes.data(), state);
  for (; bytes.size() >= small; bytes = bytes.subspan(small))
    state = block<small_rounds>(bytes.data(), state);
  return state;
}

#else

bool crc32c_mixed_available() noexcept {
  return false;
}

std::uint32_t crc32c_mixed(bytes_view&, std::uint32_t state) noexcept {
  MEMKV_ASSERT(false, "this processor computes checksums another way");
  return state;
}

#endif

} // namespace memkv::wire
