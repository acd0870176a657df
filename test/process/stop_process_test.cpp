// SIGTERM and SIGINT at random moments, seen from outside.

#define CAF_SUITE stop_process

#include "test/process/cycles.hpp"
#include "test/process/server_process.hpp"
#include "test/process/verified_load.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <csignal>
#include <iostream>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

// Open requests get 15 s and the drives as much again; a loaded machine may add a little.
constexpr auto stop_limit = 40s;
constexpr auto start_limit = 60s;
// Nothing answers at the address any more: no client has a reason to wait.
constexpr auto client_limit = 3s;

void stop_under_load(const process_settings& settings, const char* what) {
  cycles budget{what};
  server_process server{MEMKV_PROGRAM};
  server.write_config(settings);
  outside_log log{200, settings.eviction};
  std::vector<double> stops;
  std::uint64_t second_signals = 0;
  const auto give_up = [&](const std::string& why) {
    CAF_FAIL(budget.name() << ", cycle " << budget.done() << ": " << why << "\nthe server said:\n"
                           << server.said());
  };
  const auto some_signal = [&] { return budget.below(2) == 0 ? SIGTERM : SIGINT; };
  while (budget.next()) {
    server.spawn();
    const auto port = server.wait_until_serving(start_limit);
    if (!port)
      give_up("the server does not start");
    if (const auto problems = verify_all(log, *port); !problems.empty())
      give_up(problems.front() + " (" + std::to_string(problems.size()) + " problems)");
    load_settings wanted;
    wanted.seed = budget.below(1U << 30);
    verified_load load{log, *port, wanted};
    pause_for(std::chrono::microseconds{budget.below(600'000)});
    load.expect_trouble();
    server.signal(some_signal());
    if (budget.below(2) == 0) {
      pause_for(std::chrono::microseconds{budget.below(50'000)});
      server.signal(some_signal());
      ++second_signals;
    }
    const auto end = server.wait(stop_limit);
    const auto gone = std::chrono::steady_clock::now();
    load.stop();
    if (!end.in_time)
      give_up("the server has not stopped");
    const auto told = std::chrono::steady_clock::now() - gone;
    if (told > client_limit)
      give_up("a client took long to see that its server is gone");
    stops.push_back(end.seconds);
    if (end.exit_code != 0)
      give_up("the server ended with code " + std::to_string(end.exit_code) + ", signal " +
              std::to_string(end.signal));
    if (!load.problems().empty())
      give_up(load.problems().front());
  }
  server.spawn();
  const auto port = server.wait_until_serving(start_limit);
  if (!port)
    give_up("the server does not start");
  if (const auto problems = verify_all(log, *port); !problems.empty())
    give_up(problems.front());
  std::sort(stops.begin(), stops.end());
  std::cout << budget.summary() << ", " << log.acknowledgements() << " acknowledged changes, "
            << second_signals << " second signals; stopped after " << stops[stops.size() / 2]
            << " s (median), " << stops.back() << " s (longest)" << std::endl;
  CAF_CHECK(log.acknowledgements() > 0);
}

} // namespace

CAF_TEST(a stop under load ends with 0 in bounded time and keeps what was acknowledged) {
  process_settings settings;
  settings.drives = 3;
  settings.drive_bytes = 300U << 20U;
  stop_under_load(settings, "stop under load");
}

CAF_TEST(a stop under load and eviction ends with 0 in bounded time) {
  process_settings settings;
  settings.drives = 2;
  settings.drive_bytes = 64U << 20U;
  settings.eviction = true;
  stop_under_load(settings, "stop under eviction");
}

CAF_TEST(a stop with idle connections does not wait for them) {
  server_process server{MEMKV_PROGRAM};
  server.write_config({});
  server.spawn();
  const auto port = server.wait_until_serving(start_limit);
  CAF_REQUIRE(port);
  const auto client = connect_to(*port);
  CAF_REQUIRE(client->stat().at(0).code == client::errc::ok);
  server.signal(SIGTERM);
  const auto end = server.wait(stop_limit);
  CAF_CHECK_EQUAL(end.exit_code, 0);
  CAF_CHECK(end.seconds < 10);
}

CAF_TEST(a stop during the start ends in bounded time and harms nothing) {
  cycles budget{"stop during start"};
  server_process server{MEMKV_PROGRAM};
  process_settings settings;
  settings.drives = 2;
  server.write_config(settings);
  double longest = 0;
  while (budget.next()) {
    server.spawn();
    pause_for(std::chrono::microseconds{budget.below(80'000)});
    server.signal(budget.below(2) == 0 ? SIGTERM : SIGINT);
    const auto end = server.wait(stop_limit);
    // Before the server takes the signals over, they end the process as they end any other.
    const bool ended_by_it = end.signal == SIGTERM || end.signal == SIGINT;
    if (!end.in_time || (end.exit_code != 0 && !ended_by_it))
      CAF_FAIL(budget.name() << ": in time " << end.in_time << ", code " << end.exit_code << ", signal "
                             << end.signal << "\nthe server said:\n"
                             << server.said());
    longest = std::max(longest, end.seconds);
  }
  server.spawn();
  CAF_CHECK(server.wait_until_serving(start_limit));
  std::cout << budget.summary() << ", longest " << longest << " s" << std::endl;
}
