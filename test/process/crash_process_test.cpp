// kill -9 at random moments, and a store that is full, seen from outside.

#define CAF_SUITE crash_process

#include "test/process/cycles.hpp"
#include "test/process/server_process.hpp"
#include "test/process/verified_load.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <iostream>
#include <sstream>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

constexpr auto start_limit = 60s;
/// How long a store of 72 MiB may take to fill.
constexpr auto fill_limit = 30s;

struct crash_run {
  const char* what = "";
  std::uint32_t keys = 240;
  std::uint32_t kills_during_start_max = 0;
  load_settings load;
  bool is_emptied = true; // at the end, to see that nothing is held for nobody
};

/// Kills, restarts and compares until the time is over.
void crash(const process_settings& settings, crash_run run) {
  cycles budget{run.what};
  server_process server{MEMKV_PROGRAM};
  server.write_config(settings);
  outside_log log{run.keys, settings.eviction};
  std::uint64_t operations = 0;
  std::uint64_t early_kills = 0;
  std::vector<double> starts;
  const auto give_up = [&](const std::string& why) {
    CAF_FAIL(budget.name() << ", cycle " << budget.done() << ": " << why << "\nthe server said:\n"
                           << server.said());
  };
  const auto compare = [&](std::uint16_t port) {
    const auto problems = verify_all(log, port);
    if (!problems.empty())
      give_up(problems.front() + " (" + std::to_string(problems.size()) + " problems)");
  };
  const auto serve = [&]() -> std::uint16_t {
    server.spawn();
    const auto port = server.wait_until_serving(start_limit);
    if (!port)
      give_up("the server does not start");
    return port.value_or(0);
  };
  while (budget.next()) {
    if (run.kills_during_start_max > 0) {
      for (auto kills = budget.below(run.kills_during_start_max + 1); kills > 0; --kills) {
        server.spawn();
        pause_for(std::chrono::microseconds{budget.below(100'000)});
        server.kill();
        ++early_kills;
      }
    }
    const auto port = serve();
    starts.push_back(server.start_seconds());
    compare(port);
    run.load.seed = budget.below(1U << 30);
    verified_load load{log, port, run.load};
    pause_for(std::chrono::microseconds{budget.below(600'000)});
    load.expect_trouble();
    server.kill();
    load.stop();
    operations += load.operations();
    if (!load.problems().empty())
      give_up(load.problems().front());
  }
  const auto port = serve();
  compare(port);
  const auto present = log.present();
  if (run.is_emptied)
    if (const auto problem = remove_all(log, port); !problem.empty())
      give_up(problem);
  std::sort(starts.begin(), starts.end());
  std::cout << budget.summary() << ", " << operations << " operations, " << log.acknowledgements()
            << " acknowledged changes, " << present << " blocks at the end, " << early_kills
            << " kills during start; ready after " << starts[starts.size() / 2] << " s (median), "
            << starts.back() << " s (longest)" << std::endl;
  CAF_CHECK(log.acknowledgements() > 0);
}

/// Reads and writes in a store that is far too small, without any harm; then kill -9 as well.
void fill_up(const process_settings& settings, crash_run run) {
  cycles budget{run.what};
  server_process server{MEMKV_PROGRAM};
  server.write_config(settings);
  outside_log log{run.keys, settings.eviction};
  std::uint64_t operations = 0;
  std::uint64_t refused = 0;
  std::uint64_t fullest = 0;
  const auto give_up = [&](const std::string& why) {
    CAF_FAIL(budget.name() << ", cycle " << budget.done() << ": " << why << "\nthe server said:\n"
                           << server.said());
  };
  while (budget.next()) {
    server.spawn();
    const auto port = server.wait_until_serving(start_limit);
    if (!port)
      give_up("the server does not start");
    if (const auto problems = verify_all(log, *port); !problems.empty())
      give_up(problems.front());
    run.load.seed = budget.below(1U << 30);
    verified_load load{log, *port, run.load};
    // A slow machine fills the store later, and the moment it is looked at may be one just after an eviction.
    const auto least = std::chrono::milliseconds{1'500 + budget.below(500)};
    const auto looker = connect_to(*port);
    const auto begin = std::chrono::steady_clock::now();
    const auto loaded = [&] { return std::chrono::steady_clock::now() - begin; };
    do {
      pause_for(50ms);
      const auto stat = looker->stat().at(0);
      CAF_REQUIRE(stat.code == client::errc::ok);
      fullest = std::max(fullest, stat.used_bytes * 100 / stat.usable_bytes);
    } while (loaded() < least || (fullest < 80 && loaded() < fill_limit));
    load.stop();
    operations += load.operations();
    refused += load.refused_for_space();
    if (!load.problems().empty())
      give_up(load.problems().front());
    if (const auto problems = verify_all(log, *port); !problems.empty())
      give_up(problems.front());
    server.kill();
  }
  std::cout << budget.summary() << ", " << operations << " operations, " << log.acknowledgements()
            << " acknowledged changes, " << refused << " puts refused for space, at most " << fullest
            << " % full" << std::endl;
  CAF_CHECK(fullest >= 80);
  if (!settings.eviction)
    CAF_CHECK(refused > 0);
}

} // namespace

CAF_TEST(what was acknowledged survives kill nine with one drive) {
  process_settings settings;
  settings.drive_bytes = 768U << 20U;
  crash_run run;
  run.what = "one drive";
  crash(settings, run);
}

CAF_TEST(what was acknowledged survives kill nine with three drives and small units) {
  process_settings settings;
  settings.drives = 3;
  settings.drive_bytes = 300U << 20U;
  settings.shard_bytes = 4'096;
  crash_run run;
  run.what = "three drives";
  crash(settings, run);
}

CAF_TEST(a start that is killed several times loses nothing either) {
  process_settings settings;
  settings.drives = 3;
  settings.drive_bytes = 300U << 20U;
  crash_run run;
  run.what = "killed starts";
  run.kills_during_start_max = 6;
  crash(settings, run);
}

CAF_TEST(what was acknowledged under sync always survives kill nine) {
  process_settings settings;
  settings.drives = 2;
  settings.drive_bytes = 384U << 20U;
  settings.sync_always = true;
  crash_run run;
  run.what = "sync always";
  run.keys = 160;
  crash(settings, run);
}

CAF_TEST(a small store with eviction may forget but never lies after kill nine) {
  process_settings settings;
  settings.drives = 3;
  settings.drive_bytes = 24U << 20U;
  settings.shard_bytes = 4'096;
  settings.eviction = true;
  crash_run run;
  run.what = "small store";
  run.kills_during_start_max = 2;
  crash(settings, run);
}

CAF_TEST(a full store with eviction takes every put and returns no wrong byte) {
  process_settings settings;
  settings.drives = 3;
  settings.drive_bytes = 24U << 20U;
  settings.eviction = true;
  crash_run run;
  run.what = "full store with eviction";
  run.load.read_percent = 50;
  fill_up(settings, run);
}

CAF_TEST(a full store without eviction refuses puts and keeps everything it has) {
  process_settings settings;
  settings.drives = 2;
  settings.drive_bytes = 24U << 20U;
  crash_run run;
  run.what = "full store without eviction";
  run.load.may_be_full = true;
  run.load.read_percent = 50;
  fill_up(settings, run);
}
