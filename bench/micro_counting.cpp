// What it costs to count where the time of a request goes: everything that a reactor does for it besides
// reading its clock, which it reads once a round anyway.
#include "actors/request_clock.hpp"

#include <benchmark/benchmark.h>

#include <deque>
#include <memory>
#include <utility>

namespace {

using namespace memkv::actors;

/// A get that waits for its drive: the clock is made with the request, goes with the last frame, is noted.
void get_from_a_drive(benchmark::State& state) {
  const auto counters = std::make_unique<reactor_counters>();
  std::deque<request_clock> frames;
  std::uint64_t now_ns = 1'000'000'000;
  for (auto _ : state) {
    request_clock clock(request_kind::get, now_ns);
    benchmark::DoNotOptimize(clock);
    clock.enter(request_stage::drive, now_ns);
    clock.enter(request_stage::network, now_ns += 90'000);
    frames.push_back(clock.hand_over(now_ns));
    if (frames.front().runs())
      frames.front().note(*counters, now_ns += 30'000);
    frames.pop_front();
  }
}
BENCHMARK(get_from_a_drive);

/// A look-up in the index, which is over at once.
void exists(benchmark::State& state) {
  const auto counters = std::make_unique<reactor_counters>();
  std::deque<request_clock> frames;
  std::uint64_t now_ns = 1'000'000'000;
  for (auto _ : state) {
    request_clock clock(request_kind::exists, now_ns);
    benchmark::DoNotOptimize(clock);
    frames.push_back(clock.hand_over(now_ns));
    if (frames.front().runs())
      frames.front().note(*counters, now_ns += 30'000);
    frames.pop_front();
  }
}
BENCHMARK(exists);

} // namespace
