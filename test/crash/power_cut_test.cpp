// Power cuts and deaths of the process: what was acknowledged is there, what was not is whole or absent.
#define CAF_SUITE store_power_cut

#include "test/crash/history.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;

namespace {

/// Starts on `start`, looks at everything twice (with a death of the process in between), and says what is
/// wrong.
std::string look_at(run_options options, const sim::image& start, const sim::model& expected,
                    bool use_it = true) {
  options.boot = std::byte{2};
  store_run again(options, start, expected);
  if (const auto opened = again.open(); !opened.ok())
    return "does not open: " + opened.text;
  again.get_all();
  if (again.corrupt_reads > 0)
    return "a block was shown whose bytes never became durable [MEMKV_TEST_SEED=" +
           std::to_string(options.seed) + "]";
  again.die(false);
  store_run third(options, again.device->now(), again.expected);
  if (const auto opened = third.open(); !opened.ok())
    return "does not open a second time: " + opened.text;
  third.get_all();
  if (use_it && third.problems.empty()) {
    third.put("after", content_of(7'000'000, 5000));
    third.get_all();
    expect_all_space_back(third);
  }
  for (auto& problem : third.problems)
    again.problems.push_back(problem);
  return problem_of(again);
}

/// Runs a history until the power goes before operation `cut`; false when the history ended earlier.
bool run_until_cut(store_run& run, std::uint64_t cut, const history_options& history = {}) {
  run.device->cut_power_before(cut);
  if (run.open().ok()) {
    live(run, history);
    if (run.store != nullptr && !run.device->is_cut())
      (void)run.close();
  }
  const bool was_cut = run.device->is_cut();
  run.device->cut_power();
  run.die(false);
  return was_cut;
}

} // namespace

CAF_TEST(with sync always every legal state after a power cut at any operation holds what was acknowledged) {
  for (const auto seed : seeds(2)) {
    run_options options;
    options.seed = seed;
    std::uint64_t states = 0;
    for (std::uint64_t cut = 0;; ++cut) {
      store_run run(options);
      const bool was_cut = run_until_cut(run, cut);
      CAF_REQUIRE_EQUAL(problem_of(run), "");
      const sim::crash_states after(*run.device);
      if (after.count() <= 6) {
        for (std::uint64_t number = 0; number < after.count(); ++number, ++states)
          CAF_REQUIRE_EQUAL(look_at(options, after.list(number), run.expected, number == 0), "");
      } else {
        for (int i = 0; i < 3; ++i, ++states)
          CAF_REQUIRE_EQUAL(look_at(options, after.draw(run.world.chance), run.expected, i == 0), "");
      }
      if (!was_cut)
        break;
    }
    CAF_MESSAGE("seed " << seed << ": " << states << " states");
    CAF_CHECK(states > 100);
  }
}

CAF_TEST(with sync always all states of a very short history hold what was acknowledged) {
  run_options options;
  options.size_bytes = 5 << 20;
  const auto shape = [](store_run& run) {
    run.put("a", content_of(1, 5000));
    run.start_put("a", content_of(2, 4096));
    run.start_put("b", content_of(3, 100));
    run.poll_all();
    run.erase("b");
    run.put("a", content_of(4, 100));
  };
  std::uint64_t first_cut = 0;
  {
    store_run run(options);
    CAF_REQUIRE(run.open().ok());
    first_cut = run.device->submitted();
  }
  std::uint64_t states = 0;
  for (std::uint64_t cut = first_cut;; ++cut) {
    store_run run(options);
    run.device->cut_power_before(cut);
    CAF_REQUIRE(run.open().ok());
    shape(run);
    const bool was_cut = run.device->is_cut();
    run.device->cut_power();
    run.die(false);
    const sim::crash_states after(*run.device);
    // A 64 KiB extent may be torn in many places: of more than 500 states a sample is drawn.
    const bool all = after.count() <= 500;
    for (std::uint64_t number = 0; number < (all ? after.count() : 200); ++number, ++states)
      CAF_REQUIRE_EQUAL(
          look_at(options, all ? after.list(number) : after.draw(run.world.chance), run.expected, false), "");
    if (!was_cut)
      break;
  }
  CAF_MESSAGE(states << " states");
  CAF_CHECK(states > 50);
}

CAF_TEST(without sync everything acknowledged survives the death of the process at any operation) {
  for (const auto seed : seeds(2)) {
    run_options options;
    options.seed = seed;
    options.sync = engine::sync_policy::never;
    for (std::uint64_t cut = 0;; ++cut) {
      store_run run(options);
      const bool was_cut = run_until_cut(run, cut);
      CAF_REQUIRE_EQUAL(problem_of(run), "");
      auto same_boot = options;
      store_run again(same_boot, run.device->now(), run.expected);
      const auto opened = again.open();
      CAF_REQUIRE_EQUAL(opened.ok() ? std::string() : opened.text, "");
      again.get_all();
      expect_all_space_back(again);
      CAF_REQUIRE_EQUAL(problem_of(again), "");
      if (!was_cut)
        break;
    }
  }
}

CAF_TEST(without sync a power cut may forget and never lies) {
  for (const auto seed : seeds(2)) {
    run_options options;
    options.seed = seed;
    options.sync = engine::sync_policy::never;
    for (std::uint64_t cut = 0;; cut += 3) {
      store_run run(options);
      const bool was_cut = run_until_cut(run, cut);
      run.expected.lost([](const std::string&) { return true; });
      const sim::crash_states after(*run.device);
      for (int i = 0; i < 3; ++i)
        CAF_REQUIRE_EQUAL(look_at(options, after.draw(run.world.chance), run.expected, i == 0), "");
      if (!was_cut)
        break;
    }
  }
}

CAF_TEST(without sync a drive that was closed in order keeps everything through a power cut) {
  run_options options;
  options.sync = engine::sync_policy::never;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  live(run);
  CAF_REQUIRE(run.close().ok());
  run.device->cut_power();
  run.die(false);
  const sim::crash_states after(*run.device);
  for (int i = 0; i < 10; ++i)
    CAF_CHECK_EQUAL(look_at(options, after.draw(run.world.chance), run.expected), "");
}

CAF_TEST(a power cut in the middle of use without sync is told to a person) {
  run_options options;
  options.sync = engine::sync_policy::never;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  run.put("a", content_of(1, 5000));
  run.device->cut_power();
  run.die(false);
  run.expected.lost([](const std::string&) { return true; });
  options.boot = std::byte{9};
  store_run again(options, run.device->now(), run.expected);
  const auto opened = again.open();
  CAF_CHECK(opened.ok());
  CAF_CHECK(opened.text.find("power") != std::string::npos);
  CAF_CHECK_EQUAL(again.store->counters().emptied_by_power_loss, 1u);
  CAF_CHECK(!again.get("a"));
}

CAF_TEST(a power cut inside recovery three times over changes nothing) {
  for (const auto seed : seeds(40)) {
    run_options options;
    options.seed = seed;
    store_run run(options);
    sim::random chance(seed);
    run_until_cut(run, 60 + chance.below(300));
    CAF_REQUIRE_EQUAL(problem_of(run), "");
    sim::image left = sim::crash_states(*run.device).draw(chance);
    for (int depth = 0; depth < 3; ++depth) {
      run_options next = options;
      next.seed = seed * 31 + static_cast<std::uint64_t>(depth);
      next.boot = std::byte(10 + depth);
      store_run recovering(next, left, run.expected);
      recovering.device->cut_power_before(1 + chance.below(24));
      if (recovering.open().ok())
        recovering.get_all();
      CAF_REQUIRE_EQUAL(recovering.device->is_cut() ? std::string() : problem_of(recovering), "");
      recovering.device->cut_power();
      recovering.die(false);
      left = sim::crash_states(*recovering.device).draw(chance);
    }
    CAF_REQUIRE_EQUAL(look_at(options, left, run.expected), "");
  }
}
