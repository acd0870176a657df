#define CAF_SUITE trim_backlog

#include "engine/trim_backlog.hpp"

#include <caf/test/dsl.hpp>

#include <random>
#include <vector>

using namespace memkv::engine;

namespace {

constexpr std::uint64_t second = 1'000'000'000;

std::vector<run> allocate(unit_allocator& units, trim_backlog& backlog, std::uint32_t count) {
  std::vector<run> runs;
  CAF_REQUIRE(units.allocate(count, 64, runs) == errc::ok);
  for (const auto& each : runs)
    backlog.taken(each);
  return runs;
}

void free_again(unit_allocator& units, trim_backlog& backlog, run what, std::uint64_t now) {
  units.free(what);
  backlog.freed(what, now);
}

} // namespace

CAF_TEST(adjacent ranges are joined and given out in the order of the drive) {
  unit_allocator units(1000);
  trim_backlog backlog(1000);
  CAF_REQUIRE(units.mark({0, 1000}));
  for (const std::uint32_t first : {300U, 100U, 110U, 310U, 120U})
    free_again(units, backlog, {first, 10}, second);
  // An eighth of what is free goes at a time.
  std::vector<run> all;
  while (!backlog.empty()) {
    for (const auto& range : backlog.take(units, second)) {
      if (!all.empty() && all.back().first_unit + all.back().units == range.first_unit)
        all.back().units += range.units;
      else
        all.push_back(range);
    }
  }
  CAF_CHECK(all == (std::vector<run>{{100, 30}, {300, 20}}));
}

CAF_TEST(a batch is due after five seconds or with 1024 extents) {
  unit_allocator units(10'000);
  trim_backlog backlog(10'000);
  CAF_REQUIRE(units.mark({0, 10'000}));
  CAF_CHECK(!backlog.due(100 * second));
  free_again(units, backlog, {5, 1}, 100 * second);
  CAF_CHECK(!backlog.due(104 * second));
  CAF_CHECK(backlog.due(105 * second));
  CAF_CHECK_EQUAL(backlog.take(units, 105 * second).size(), 1u);
  CAF_CHECK(!backlog.due(200 * second));
  for (std::uint32_t i = 0; i < 1024; ++i) {
    CAF_REQUIRE(!backlog.due(200 * second));
    free_again(units, backlog, {2 * i + 100, 1}, 200 * second);
  }
  CAF_CHECK(backlog.due(200 * second));
}

CAF_TEST(what a batch leaves behind is due at once unless the drive refused) {
  unit_allocator units(800);
  trim_backlog backlog(800);
  CAF_REQUIRE(units.mark({0, 800}));
  free_again(units, backlog, {0, 800}, 100 * second);
  CAF_REQUIRE(backlog.due(105 * second));
  const auto first = backlog.take(units, 105 * second);
  CAF_REQUIRE(!backlog.empty());
  CAF_CHECK(backlog.due(105 * second));
  for (const auto& range : first)
    free_again(units, backlog, range, 105 * second);
  backlog.put_off(105 * second);
  CAF_CHECK(!backlog.due(109 * second));
  CAF_CHECK(backlog.due(110 * second));
}

CAF_TEST(what is given back while due batches go waits for its own time) {
  unit_allocator units(800);
  trim_backlog backlog(800);
  CAF_REQUIRE(units.mark({0, 800}));
  free_again(units, backlog, {0, 400}, 100 * second);
  std::uint64_t discarded = 0;
  while (backlog.due(105 * second)) {
    for (const auto& range : backlog.take(units, 105 * second)) {
      discarded += range.units;
      units.free(range);
    }
    const auto again = allocate(units, backlog, 1);
    free_again(units, backlog, again.front(), 105 * second);
  }
  CAF_CHECK(discarded >= 400);
  CAF_CHECK(discarded < 450);
  CAF_CHECK(!backlog.empty());
  CAF_CHECK(backlog.due(110 * second));
}

CAF_TEST(what is wanted again before its turn is not discarded) {
  unit_allocator units(64);
  trim_backlog backlog(64);
  CAF_REQUIRE(units.mark({0, 64}));
  free_again(units, backlog, {10, 20}, second);
  const auto again = allocate(units, backlog, 20);
  CAF_CHECK(backlog.empty());
  CAF_CHECK(backlog.take(units, 10 * second).empty());
  free_again(units, backlog, again.front(), second);
  CAF_CHECK(!backlog.empty());
}

CAF_TEST(units that are being discarded are not handed out) {
  unit_allocator units(256);
  trim_backlog backlog(256);
  CAF_REQUIRE(units.mark({0, 256}));
  free_again(units, backlog, {0, 256}, second);
  const auto batch = backlog.take(units, 10 * second);
  CAF_REQUIRE_EQUAL(batch.size(), 1u);
  CAF_CHECK_EQUAL(batch.front().units, 32u);
  std::vector<run> runs;
  CAF_CHECK(units.allocate(225, 64, runs) == errc::no_space);
  CAF_REQUIRE(units.allocate(224, 64, runs) == errc::ok);
  for (const auto& each : runs)
    CAF_CHECK(each.first_unit >= batch.front().first_unit + batch.front().units);
}

CAF_TEST(after a start all free space waits to be discarded and nothing else) {
  unit_allocator units(1000);
  CAF_REQUIRE(units.mark({100, 50}));
  CAF_REQUIRE(units.mark({999, 1}));
  trim_backlog backlog(1000);
  backlog.freed_all(units, second);
  CAF_CHECK_EQUAL(backlog.units_waiting(), 949u);
  std::uint64_t seen = 0;
  for (int batches = 0; !backlog.empty(); ++batches) {
    CAF_REQUIRE(batches < 100);
    std::vector<run> ranges = backlog.take(units, 10 * second);
    for (const auto& range : ranges) {
      seen += range.units;
      CAF_CHECK(range.first_unit + range.units <= 100 || range.first_unit >= 150);
      units.free(range);
    }
  }
  CAF_CHECK_EQUAL(seen, 949u);
}

CAF_TEST(no unit is free and being discarded at one time whatever happens) {
  std::mt19937 chance{20'240'611};
  constexpr std::uint32_t count = 5'000;
  unit_allocator units(count);
  trim_backlog backlog(count);
  std::vector<std::vector<run>> held;
  std::vector<run> discarding;
  std::vector<char> state(count, 'f'); // free, held, discarding
  const auto mark = [&](run range, char from, char to) {
    for (std::uint32_t unit = range.first_unit; unit < range.first_unit + range.units; ++unit) {
      CAF_REQUIRE_EQUAL(state[unit], from);
      state[unit] = to;
    }
  };
  for (int step = 0; step < 20'000; ++step) {
    const auto what = chance() % 10;
    if (what < 5) {
      std::vector<run> runs;
      if (units.allocate(1 + static_cast<std::uint32_t>(chance() % 40), 64, runs) != errc::ok)
        continue;
      for (const auto& each : runs) {
        backlog.taken(each);
        mark(each, 'f', 'h');
      }
      held.push_back(runs);
    } else if (what < 9) {
      if (held.empty())
        continue;
      std::swap(held[chance() % held.size()], held.back());
      for (const auto& each : held.back()) {
        free_again(units, backlog, each, second);
        mark(each, 'h', 'f');
      }
      held.pop_back();
    } else if (discarding.empty()) {
      discarding = backlog.take(units, 10 * second);
      for (const auto& each : discarding)
        mark(each, 'f', 'd');
    } else {
      for (const auto& each : discarding) {
        units.free(each);
        mark(each, 'd', 'f');
      }
      discarding.clear();
    }
  }
}
