// Faults of the drive while the store runs, one at a time, at every operation there is.
#define CAF_SUITE store_fault

#include "engine/layout.hpp"
#include "test/crash/history.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;
using kind = sim::fault::kind;

namespace {

void forgive(sim::model& expected) {
  expected.lost([](const std::string&) { return true; });
}

/// Starts again on what was left and looks at everything.
std::string look_again(const store_run& run, const sim::model& expected) {
  store_run again(run.options, run.device->now(), expected);
  if (const auto opened = again.open(); !opened.ok())
    return "does not open: " + opened.text;
  again.get_all();
  if (again.problems.empty())
    expect_all_space_back(again);
  return problem_of(again);
}

/// A history in which operation `at` meets `what`; the fault may hit anything from the opening to the
/// closing. False when the run had fewer operations.
bool run_with_error(std::uint64_t at, kind what, const run_options& options, std::string& problem) {
  store_run run(options);
  run.device->plan(at, {what, 0, nullptr});
  bool closed = false;
  if (run.open().ok()) {
    history_options history;
    history.steps = 40;
    live(run, history);
    closed = run.close().ok();
  }
  problem = problem_of(run);
  if (problem.empty() && run.unanswered() != 0)
    problem = "a caller was never answered";
  const bool met = run.device->met() > 0;
  if (problem.empty() && run.device->changed_buffers() != 0)
    problem = "a buffer was changed under the device";
  if (problem.empty() && !met && !closed)
    problem = "a run without a fault did not close";
  if (problem.empty() && !met && run.checkpoints == 0)
    problem = "no checkpoint ran: make the history longer";
  run.die(false);
  if (problem.empty())
    problem = look_again(run, run.expected);
  if (!problem.empty())
    problem += " (operation " + std::to_string(at) + ")";
  return met;
}

} // namespace

CAF_TEST(each single operation may fail and nothing acknowledged is lost) {
  for (const auto sync : {engine::sync_policy::always, engine::sync_policy::never}) {
    run_options options;
    options.sync = sync;
    options.size_bytes = 5 << 20;
    std::string problem;
    std::uint64_t at = 0;
    while (run_with_error(at, kind::io_error, options, problem) && problem.empty())
      ++at;
    CAF_CHECK_EQUAL(problem, "");
    CAF_MESSAGE(at << " operations failed in turn");
    CAF_CHECK(at > 100);
  }
}

CAF_TEST(each single operation may end half way and nothing acknowledged is lost) {
  run_options options;
  options.size_bytes = 5 << 20;
  std::string problem;
  std::uint64_t at = 0;
  while (run_with_error(at, kind::short_transfer, options, problem) && problem.empty())
    ++at;
  CAF_CHECK_EQUAL(problem, "");
}

CAF_TEST(each single operation of a recovery may fail and the next recovery succeeds) {
  run_options options;
  options.size_bytes = 5 << 20;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  live(run);
  run.die(false);
  for (std::uint64_t at = 0;; ++at) {
    store_run recovering(options, run.device->now(), run.expected);
    recovering.device->plan(at, {kind::io_error, 0, nullptr});
    const bool opened = recovering.open().ok();
    const bool met = recovering.device->met() > 0;
    CAF_CHECK(opened || met);
    recovering.die(false);
    CAF_REQUIRE_EQUAL(look_again(recovering, run.expected), "");
    if (!met)
      break;
  }
}

CAF_TEST(after a failed write the store acknowledges nothing more) {
  run_options options;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  run.put("a", content_of(1, 5000));
  run.device->plan(run.device->submitted(), {kind::io_error, 0, nullptr});
  CAF_CHECK(run.put("b", content_of(2, 5000)) != engine::errc::ok);
  CAF_CHECK(run.store->counters().offline);
  CAF_CHECK(run.put("c", content_of(3, 5000)) == engine::errc::offline);
  CAF_CHECK(run.erase("a") == engine::errc::offline);
  CAF_CHECK(!run.close().ok());
}

CAF_TEST(after a failed flush the store acknowledges nothing more) {
  run_options options;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  sim::fault_rates rates;
  rates.flush_error = 1;
  run.device->set_rates(rates);
  CAF_CHECK(run.put("a", content_of(1, 5000)) != engine::errc::ok);
  run.device->set_rates({});
  CAF_CHECK(run.put("b", content_of(2, 5000)) == engine::errc::offline);
}

namespace {

/// One silent fault at operation `at` after the opening, then more life, then a start. The block that was hit
/// may be a miss.
bool run_with_silent_fault(std::uint64_t at, const sim::fault& what, const run_options& options, bool orderly,
                           std::string& problem) {
  store_run run(options);
  if (!run.open().ok()) {
    problem = "does not open";
    return false;
  }
  const std::uint64_t hit = run.device->submitted() + at;
  run.device->plan(hit, what);
  run.damaged = true;
  history_options history;
  history.steps = 40;
  // One fault may hit what many blocks need; what must not happen is a wrong answer.
  live(run, history);
  const bool reached = run.device->submitted() > hit;
  forgive(run.expected);
  for (const std::string& key : run.expected.keys())
    (void)run.get(key);
  problem = problem_of(run);
  // What is written last cannot be told from what was never written: see docs/formats/journal.md.
  leave_last_words(run);
  if (orderly && !run.close().ok())
    problem = "does not close";
  run.die(false);
  forgive(run.expected);
  if (problem.empty()) {
    store_run again(options, run.device->now(), run.expected);
    if (const auto opened = again.open(); opened.ok()) {
      again.get_all();
      again.put("after", content_of(5'000'000, 5000));
      again.get_all();
      problem = problem_of(again);
    } else {
      problem = "does not open: " + opened.text;
    }
  }
  if (!problem.empty())
    problem += " (operation " + std::to_string(at) + ")";
  return reached;
}

/// Short form: every second operation. Long form: all.
std::uint64_t stride() {
  return seeds(1).size() > 1 ? 1 : 2;
}

void every_operation(kind what, bool orderly) {
  run_options options;
  options.size_bytes = 5 << 20;
  std::string problem;
  std::uint64_t reached = 0;
  for (const std::uint64_t seed : {1, 2}) {
    options.seed = seed;
    for (std::uint64_t at = seed; problem.empty(); at += stride(), ++reached)
      if (!run_with_silent_fault(at, {what, 0, nullptr}, options, orderly, problem))
        break;
  }
  CAF_CHECK_EQUAL(problem, "");
  CAF_CHECK(reached > 50);
}

} // namespace

CAF_TEST(a lost write of any kind is a miss and never old bytes) {
  every_operation(kind::lost_write, false);
  every_operation(kind::lost_write, true);
}

CAF_TEST(a torn write of any kind is found) {
  every_operation(kind::torn_write, false);
  every_operation(kind::torn_write, true);
}

CAF_TEST(a flipped bit in what is written or read is found) {
  every_operation(kind::flipped_bit, false);
  every_operation(kind::flipped_sector, false);
}

CAF_TEST(a misdirected write or read damages at most what it hit) {
  run_options options;
  options.size_bytes = 5 << 20;
  for (const auto what : {kind::misdirected_write, kind::misdirected_read}) {
    std::string problem;
    std::uint64_t met = 0;
    sim::random chance(11);
    for (std::uint64_t at = 0; at < 600 && problem.empty(); at += stride()) {
      // Metadata is at the front, so half of the targets are there.
      const std::uint64_t zone = at % 2 == 0 ? options.size_bytes : options.size_bytes / 4;
      sim::fault hit{what, chance.below(zone / 4096 - 64) * 4096, nullptr};
      options.seed = 1 + at % 5;
      met += run_with_silent_fault(at % 300, hit, options, false, problem) ? 1 : 0;
    }
    CAF_CHECK_EQUAL(problem, "");
    CAF_CHECK(met > 20);
  }
}

namespace {

/// A byte of one of the regions, where there is something.
std::uint64_t somewhere(const run_options& options, sim::random& chance) {
  engine::layout places;
  const auto sized =
      engine::compute_layout(options.size_bytes, options.unit_bytes, options.extent_bytes_max, places);
  CAF_REQUIRE(sized.ok());
  switch (chance.below(5)) {
  case 0:
    return chance.below(4096);
  case 1:
    return places.mirror_offset() + chance.below(4096);
  case 2:
    return places.journal_offset + chance.below(places.journal_bytes);
  case 3:
    return places.tree_offset + chance.below(std::uint64_t{8} * engine::tree_page_bytes);
  default:
    return places.data_offset + chance.below(1 << 20);
  }
}

} // namespace

CAF_TEST(damage at rest is found wherever it is) {
  for (const bool orderly : {false, true}) {
    run_options options;
    options.size_bytes = 5 << 20;
    store_run run(options);
    CAF_REQUIRE(run.open().ok());
    live(run);
    leave_last_words(run);
    if (orderly)
      CAF_REQUIRE(run.close().ok());
    CAF_REQUIRE_EQUAL(problem_of(run), "");
    run.die(false);
    forgive(run.expected);
    sim::random chance(3);
    std::uint64_t found = 0;
    const auto rounds = seeds(300).size();
    for (std::uint64_t round = 0; round < rounds; ++round) {
      sim::image damaged = run.device->now();
      const std::uint64_t at = somewhere(options, chance);
      switch (round % 4) {
      case 0:
        damaged.flip_bit(at, static_cast<unsigned>(chance.below(8)));
        break;
      case 1:
        damaged.change_byte(at, chance);
        break;
      case 2:
        damaged.scramble(at / 512 * 512, 512, chance);
        break;
      default:
        damaged.copy_from(damaged, chance.below(options.size_bytes / 4096) * 4096, at / 4096 * 4096, 4096);
      }
      store_run again(options, damaged, run.expected);
      const auto opened = again.open();
      CAF_REQUIRE_EQUAL(opened.ok() ? std::string() : opened.text, "");
      again.get_all();
      CAF_REQUIRE_EQUAL(problem_of(again), "");
      const auto counters = again.store->counters();
      found += counters.corrupt_blocks + counters.bad_tree_pages + counters.journal_holes +
                   counters.torn_tails + counters.bad_superblocks + counters.bad_bitmap_pages >
               0;
    }
    CAF_MESSAGE(found << " of " << rounds << " faults hit something in use");
    CAF_CHECK(found > 5);
  }
}
