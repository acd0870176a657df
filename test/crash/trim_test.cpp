// Discards that come late, in any order, or not at all, on drives that read anything where something was
// discarded.
#define CAF_SUITE store_trim

#include "test/crash/history.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <memory>
#include <vector>

using namespace memkv;
using namespace memkv::crash;
using engine::errc;

namespace {

constexpr auto kinds = {sim::discarded::old_bytes, sim::discarded::zeros, sim::discarded::ones,
                        sim::discarded::noise};

/// One batch on its way through the device, range by range, in an order of its own.
struct batch {
  std::vector<engine::device_range> ranges;
  std::vector<std::unique_ptr<engine::io_operation>> operations;
  std::size_t done = 0;

  [[nodiscard]] bool out() const { return !ranges.empty(); }
};

/// Lets five seconds pass.
void pass_time(store_run& run) {
  for (int i = 0; i < 5'001; ++i)
    static_cast<void>(run.time.steady_ns());
}

void take(store_run& run, batch& trim) {
  pass_time(run);
  trim.ranges = run.store->take_trim();
  for (std::size_t i = trim.ranges.size(); i > 1; --i)
    std::swap(trim.ranges[i - 1], trim.ranges[run.world.chance.below(i)]);
}

/// Hands one range to the device; after the last the store is told.
void discard_some(store_run& run, batch& trim) {
  if (trim.operations.size() < trim.ranges.size()) {
    const auto& range = trim.ranges[trim.operations.size()];
    auto& operation = *trim.operations.emplace_back(std::make_unique<engine::io_operation>());
    operation.what = engine::io_operation::kind::discard;
    operation.offset = range.offset;
    operation.length = range.length;
    operation.context = &trim;
    operation.done = [](engine::io_operation& of) {
      CAF_CHECK(of.result == errc::ok);
      ++static_cast<batch*>(of.context)->done;
    };
    run.device->submit(operation);
  } else if (trim.done == trim.ranges.size()) {
    run.store->trimmed(true);
    trim = {};
  }
}

/// Puts, removals and gets while batches are taken and discarded slowly.
void live_and_trim(store_run& run, batch& trim, std::uint64_t& discarded_bytes) {
  std::uint64_t serial = 1;
  auto& chance = run.world.chance;
  for (int step = 0; step < 500; ++step) {
    const auto key = "key-" + std::to_string(chance.below(12));
    switch (chance.below(6)) {
    case 0:
    case 1:
      run.put(key, content_of(serial++, static_cast<std::uint32_t>(1 + chance.below(60'000))));
      break;
    case 2:
      run.erase(key);
      break;
    case 3:
      static_cast<void>(run.get(key));
      break;
    default:
      if (trim.out()) {
        discard_some(run, trim);
      } else if (chance.below(4) == 0) {
        take(run, trim);
        for (const auto& range : trim.ranges)
          discarded_bytes += range.length;
      }
    }
  }
}

} // namespace

CAF_TEST(no block is touched by what is discarded late whatever the drive reads there) {
  for (const auto kind : kinds)
    for (const auto seed : seeds(6)) {
      run_options options;
      options.seed = seed;
      options.size_bytes = 5 << 20;
      options.after_discard = kind;
      store_run run(options);
      CAF_REQUIRE(run.open().ok());
      run.store->begin_trimming();
      batch trim;
      std::uint64_t discarded = 0;
      live_and_trim(run, trim, discarded);
      run.get_all();
      CAF_CHECK_EQUAL(problem_of(run), "");
      CAF_CHECK_EQUAL(run.corrupt_reads, 0u);
      CAF_CHECK(discarded > 0);
      // Killed in the middle: what was handed to the drive still happens.
      run.die(false);
      store_run after(options, run.device->now(), run.expected);
      CAF_REQUIRE(after.open().ok());
      after.get_all();
      CAF_CHECK_EQUAL(problem_of(after), "");
      CAF_CHECK_EQUAL(after.corrupt_reads, 0u);
    }
}

CAF_TEST(a power cut among discards loses nothing that was acknowledged) {
  for (const auto kind : kinds)
    for (const auto seed : seeds(6)) {
      run_options options;
      options.seed = 100 + seed;
      options.size_bytes = 5 << 20;
      options.after_discard = kind;
      store_run run(options);
      CAF_REQUIRE(run.open().ok());
      run.store->begin_trimming();
      batch trim;
      std::uint64_t discarded = 0;
      live_and_trim(run, trim, discarded);
      run.device->cut_power();
      run.die(true);
      const sim::crash_states states(*run.device);
      for (int i = 0; i < 4; ++i) {
        store_run after(options, states.draw(run.world.chance), run.expected);
        CAF_REQUIRE(after.open().ok());
        after.get_all();
        CAF_CHECK_EQUAL(problem_of(after), "");
      }
    }
}

CAF_TEST(after a start that was not in order all free space is due and after one that was nothing is) {
  run_options options;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  run.store->begin_trimming();
  CAF_CHECK(run.put("a", content_of(1, 50'000)) == errc::ok);
  const auto free_bytes = run.store->counters().usable_bytes - run.store->counters().used_bytes;
  CAF_CHECK_EQUAL(run.store->untrimmed_bytes(), free_bytes);
  batch trim;
  while (run.store->untrimmed_bytes() > 0) {
    take(run, trim);
    CAF_REQUIRE(trim.out());
    run.store->trimmed(true);
  }
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  store_run second(options, run.device->now(), run.expected);
  CAF_REQUIRE(second.open().ok());
  second.store->begin_trimming();
  CAF_CHECK_EQUAL(second.store->untrimmed_bytes(), 0u);
  second.die(false);
  store_run third(options, second.device->now(), second.expected);
  CAF_REQUIRE(third.open().ok());
  third.store->begin_trimming();
  CAF_CHECK(third.store->untrimmed_bytes() > 0);
  third.get_all();
  CAF_CHECK_EQUAL(problem_of(third), "");
}

CAF_TEST(a batch that was not discarded is offered again) {
  run_options options;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  run.store->begin_trimming();
  const auto waiting = run.store->untrimmed_bytes();
  batch trim;
  take(run, trim);
  CAF_REQUIRE(trim.out());
  CAF_CHECK(run.store->take_trim().empty()); // one at a time
  run.store->trimmed(false);
  CAF_CHECK_EQUAL(run.store->untrimmed_bytes(), waiting);
  take(run, trim);
  CAF_CHECK(trim.out());
}
