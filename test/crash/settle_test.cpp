// An idle drive without sync settles: what was acknowledged before survives a power cut, what comes after it
// may be forgotten with everything else, and nothing old comes back.
#define CAF_SUITE store_settle

#include "test/crash/history.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;

namespace {

constexpr std::uint64_t millisecond = 1'000'000;

run_options without_sync(std::uint64_t seed) {
  run_options options;
  options.seed = seed;
  options.sync = engine::sync_policy::never;
  options.eviction = false;
  return options;
}

void settles_after(store_run& run, std::uint64_t milliseconds) {
  run.store_options.settle_after_ns = milliseconds * millisecond;
}

bool settled(const store_run& run) {
  return run.store->counters().settled;
}

/// Puts, overwrites and removals of a few keys, several at once.
void change(store_run& run, sim::random& chance, std::uint64_t& serial, int times) {
  for (int i = 0; i < times && !run.device->is_cut(); ++i) {
    const std::string key = "key-" + std::to_string(chance.below(12));
    if (chance.below(4) == 0)
      run.start_erase(key);
    else
      run.start_put(key, content_of(++serial, static_cast<std::uint32_t>(100 + chance.below(20'000))));
    if (chance.below(3) == 0)
      (void)run.drive_until([&] { return run.unanswered() == 0 || run.device->is_cut(); });
  }
  (void)run.drive_until([&] { return run.unanswered() == 0 || run.device->is_cut(); });
}

/// Starts on `drive` under another kernel and says what is wrong. `emptied`: whether it gave everything up.
std::string look_after_cut(run_options options, const sim::image& drive, const sim::model& expected,
                           bool& emptied) {
  options.boot = std::byte{2};
  store_run again(options, drive, expected);
  if (const auto opened = again.open(); !opened.ok())
    return "does not open: " + opened.text;
  emptied = again.store->counters().emptied_by_power_loss > 0;
  again.get_all();
  if (again.corrupt_reads > 0)
    return "a block was shown whose bytes never became durable";
  return problem_of(again);
}

} // namespace

CAF_TEST(an idle drive without sync keeps everything through a power cut) {
  for (const auto seed : seeds(10)) {
    store_run run(without_sync(seed));
    settles_after(run, 20);
    CAF_REQUIRE(run.open().ok());
    sim::random chance(seed);
    std::uint64_t serial = 0;
    for (int round = 0; round < 3; ++round) {
      change(run, chance, serial, 40);
      CAF_CHECK(!settled(run));
      CAF_REQUIRE(run.drive_until([&] { return settled(run); }));
      CAF_REQUIRE(run.store->idle());
    }
    // It does nothing more.
    const std::uint64_t submitted = run.device->submitted();
    for (int i = 0; i < 500; ++i)
      (void)run.store->poll(false);
    CAF_CHECK_EQUAL(run.device->submitted(), submitted);
    run.get_all();
    CAF_CHECK(settled(run));
    run.device->cut_power();
    run.die(false);
    CAF_REQUIRE_EQUAL(problem_of(run), "");
    const sim::crash_states after(*run.device);
    for (int i = 0; i < 5; ++i) {
      bool emptied = true;
      CAF_CHECK_EQUAL(look_after_cut(run.options, after.draw(chance), run.expected, emptied), "");
      CAF_CHECK(!emptied);
    }
  }
}

CAF_TEST(while there is something to do a drive does not settle) {
  store_run run(without_sync(3));
  settles_after(run, 200);
  CAF_REQUIRE(run.open().ok());
  sim::random chance(3);
  std::uint64_t serial = 0;
  for (int i = 0; i < 200; ++i) {
    change(run, chance, serial, 2);
    CAF_REQUIRE(!settled(run));
  }
  // Space that was handed out may still be written to.
  engine::put_description what;
  what.id = id_of("held");
  what.length = 5000;
  what.value_length = 5000;
  std::uint64_t token = 0;
  run.store->allocate(what, [&](engine::errc, const engine::reservation& space) { token = space.token; });
  CAF_REQUIRE(run.drive_until([&] { return token != 0; }));
  for (int i = 0; i < 2000; ++i)
    (void)run.store->poll(true);
  CAF_CHECK(!settled(run));
  run.store->abandon(token);
  CAF_CHECK(run.drive_until([&] { return settled(run); }));
  CAF_CHECK_EQUAL(problem_of(run), "");
}

CAF_TEST(a change after a drive settled is never mixed with what was before) {
  int kept = 0, given_up = 0, after_change = 0;
  for (const auto seed : seeds(8)) {
    for (std::uint64_t cut = 0;; ++cut) {
      store_run run(without_sync(seed));
      settles_after(run, 20);
      CAF_REQUIRE(run.open().ok());
      sim::random chance(seed);
      std::uint64_t serial = 0;
      change(run, chance, serial, 20);
      CAF_REQUIRE(run.drive_until([&] { return settled(run); }));
      CAF_REQUIRE_EQUAL(problem_of(run), "");
      run.device->cut_power_before(run.device->submitted() + cut);
      change(run, chance, serial, 6);
      const bool was_cut = run.device->is_cut();
      run.device->cut_power();
      run.die(false);
      const sim::crash_states after(*run.device);
      for (int i = 0; i < 2; ++i) {
        bool emptied = false;
        // Everything may be gone, nothing old may be there.
        auto forgetful = run.expected;
        forgetful.lost([](const std::string&) { return true; });
        const sim::image drive = after.draw(chance);
        CAF_REQUIRE_EQUAL(look_after_cut(run.options, drive, forgetful, emptied), "");
        ++(emptied ? given_up : kept);
        // What was not given up is whole.
        if (!emptied)
          CAF_REQUIRE_EQUAL(look_after_cut(run.options, drive, run.expected, emptied), "");
      }
      after_change += was_cut ? 0 : 1;
      if (!was_cut)
        break;
    }
  }
  CAF_MESSAGE(kept << " kept, " << given_up << " given up");
  CAF_CHECK(kept > 20);
  CAF_CHECK(given_up > 20);
  CAF_CHECK(after_change > 0);
}

CAF_TEST(changes and pauses of any length with cuts at any time never bring anything old back) {
  int kept = 0;
  for (const auto seed : seeds(60)) {
    sim::random chance(seed);
    store_run run(without_sync(seed));
    settles_after(run, 5 + chance.below(30));
    std::uint64_t serial = 0;
    run.device->cut_power_before(40 + chance.below(500));
    if (!run.open().ok())
      continue;
    for (int round = 0; round < 40 && !run.device->is_cut(); ++round) {
      change(run, chance, serial, static_cast<int>(chance.below(6)));
      for (std::uint64_t i = chance.below(80); i > 0 && !run.device->is_cut(); --i)
        (void)run.store->poll(true);
    }
    const bool dies = chance.below(3) == 0;
    run.device->cut_power();
    run.die(false);
    const auto expected = run.expected;
    if (dies) {
      // Only the process: what reached the kernel is there, and all that was acknowledged with it.
      store_run again(run.options, run.device->now(), expected);
      CAF_REQUIRE(again.open().ok());
      again.get_all();
      CAF_REQUIRE_EQUAL(problem_of(again), "");
      CAF_REQUIRE_EQUAL(again.corrupt_reads, 0u);
      continue;
    }
    const sim::crash_states after(*run.device);
    for (int i = 0; i < 3; ++i) {
      const sim::image drive = after.draw(chance);
      auto forgetful = expected;
      forgetful.lost([](const std::string&) { return true; });
      bool emptied = false;
      CAF_REQUIRE_EQUAL(look_after_cut(run.options, drive, forgetful, emptied), "");
      if (emptied)
        continue;
      ++kept;
      CAF_REQUIRE_EQUAL(look_after_cut(run.options, drive, expected, emptied), "");
    }
  }
  CAF_MESSAGE(kept << " states were kept");
  CAF_CHECK(kept > 10);
}

CAF_TEST(an epoch that was entered is durable without sync too) {
  for (const auto seed : seeds(10)) {
    store_run run(without_sync(seed));
    settles_after(run, 20);
    CAF_REQUIRE(run.open().ok());
    if (seed % 2 == 0)
      CAF_REQUIRE(run.drive_until([&] { return settled(run); }));
    bool entered = false;
    run.store->enter_epoch(4'000'001, {}, [&](engine::errc) { entered = true; });
    CAF_REQUIRE(run.drive_until([&] { return entered; }));
    CAF_CHECK(!settled(run));
    run.device->cut_power();
    run.die(false);
    auto options = run.options;
    options.boot = std::byte{2};
    sim::random chance(seed);
    store_run again(options, sim::crash_states(*run.device).draw(chance), run.expected);
    CAF_REQUIRE(again.open().ok());
    CAF_CHECK_EQUAL(again.store->set_epoch(), 4'000'001u);
  }
}
