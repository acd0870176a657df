// Whether the time of refusing a MAC depends on how many of its first bytes are right: Welch's t-test of each
// prefix length against none. Takes minutes and a quiet machine, so it runs by command: memkv_mac_timing
// [samples each]. Ends with 0 when every |t| is below 4.5.
#include "wire/auth.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

using namespace memkv::wire;

namespace {

struct moments {
  double count = 0;
  double mean = 0;
  double squares = 0;

  void add(double value) {
    ++count;
    const double before = value - mean;
    mean += before / count;
    squares += before * (value - mean);
  }
  [[nodiscard]] double variance() const { return squares / (count - 1); }
};

double welch(const moments& a, const moments& b) {
  return (a.mean - b.mean) / std::sqrt(a.variance() / a.count + b.variance() / b.count);
}

} // namespace

int main(int argc, char** argv) {
  const long samples = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 1'000'000;
  if (samples < 100) {
    std::fputs("memkv_mac_timing: give at least 100 samples\n", stderr);
    return 2;
  }
  const mac verifier(shared_key::generate());
  const std::vector<std::byte> header(136, std::byte{7});
  const hash32 right = verifier.sign(header, 1);
  constexpr std::size_t lengths = 32;
  std::vector<hash32> wrong(lengths, right);
  for (std::size_t length = 0; length < lengths; ++length)
    for (std::size_t i = length; i < right.size(); ++i)
      wrong[length][i] ^= std::byte{0xFF};

  // Interruptions are not the MAC's doing: samples above a bound found first are left out, of all lengths
  // alike.
  std::mt19937_64 random(1);
  std::vector<std::size_t> order(lengths);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto timed = [&](std::size_t length) {
    const auto begin = std::chrono::steady_clock::now();
    const bool accepted = verifier.verify(header, 1, wrong[length]);
    const auto end = std::chrono::steady_clock::now();
    if (accepted)
      std::abort();
    return std::chrono::duration<double, std::nano>(end - begin).count();
  };
  std::vector<double> first;
  for (int i = 0; i < 10'000; ++i)
    first.push_back(timed(static_cast<std::size_t>(i) % lengths));
  std::nth_element(first.begin(), first.begin() + 9'000, first.end());
  const double bound_ns = first[9'000];

  std::vector<moments> found(lengths);
  for (long round = 0; round < samples; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t length : order)
      if (const double ns = timed(length); ns <= bound_ns)
        found[length].add(ns);
  }
  double worst = 0;
  for (std::size_t length = 1; length < lengths; ++length)
    worst = std::max(worst, std::abs(welch(found[length], found[0])));
  std::printf("%ld samples of each prefix length, mean %.1f ns, largest |t| %.2f (limit 4.5)\n", samples,
              found[0].mean, worst);
  return worst < 4.5 ? 0 : 1;
}
