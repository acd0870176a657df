#include "bench/value_pattern.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace memkv::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t lanes = 8;
constexpr std::size_t words_per_page = page_bytes / sizeof(std::uint64_t);

[[nodiscard]] std::uint64_t mixed(std::uint64_t x) noexcept {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EB;
  return x ^ (x >> 31U);
}

using page = std::array<std::uint64_t, words_per_page>;

void make_page(std::uint64_t seed, std::uint64_t number, page& target) noexcept {
  std::array<std::uint64_t, lanes> state{};
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    state[lane] = mixed(seed ^ mixed(number * lanes + lane)) | 1U; // a state of zero would stay zero
  }
  for (std::size_t word = 0; word < words_per_page; word += lanes) {
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      std::uint64_t x = state[lane];
      x ^= x << 13U;
      x ^= x >> 7U;
      x ^= x << 17U;
      state[lane] = x;
      target[word + lane] = x;
    }
  }
}

/// Calls visit(bytes of the page, position in the caller's span, length) for each page that the range
/// touches.
template <class Visit>
bool visit_pages(std::uint64_t seed, std::uint64_t offset, std::size_t length, Visit visit) noexcept {
  alignas(64) page generated;
  std::size_t done = 0;
  while (done < length) {
    const std::uint64_t number = (offset + done) / page_bytes;
    const auto within = static_cast<std::size_t>((offset + done) % page_bytes);
    const std::size_t part = std::min(page_bytes - within, length - done);
    make_page(seed, number, generated);
    if (!visit(reinterpret_cast<const std::byte*>(generated.data()) + within, done, part)) {
      return false;
    }
    done += part;
  }
  return true;
}

} // namespace

std::uint64_t value_seed(std::uint64_t run_seed, std::string_view key) noexcept {
  std::uint64_t state = mixed(run_seed ^ 0x6D656D6B76U);
  for (std::size_t i = 0; i < key.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, key.data() + i, std::min<std::size_t>(8, key.size() - i));
    state = mixed(state ^ word);
  }
  return mixed(state ^ key.size());
}

void fill_value(std::uint64_t seed, std::uint64_t offset, std::span<std::byte> target) noexcept {
  visit_pages(seed, offset, target.size(), [&](const std::byte* bytes, std::size_t at, std::size_t length) {
    std::memcpy(target.data() + at, bytes, length);
    return true;
  });
}

bool matches_value(std::uint64_t seed, std::uint64_t offset, std::span<const std::byte> bytes) noexcept {
  return visit_pages(seed, offset, bytes.size(),
                     [&](const std::byte* wanted, std::size_t at, std::size_t length) {
                       return std::memcmp(bytes.data() + at, wanted, length) == 0;
                     });
}

} // namespace memkv::bench
