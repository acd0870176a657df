// Where the time of a request is counted, and what a report makes of the counters of all reactors.
#define CAF_SUITE request_clock

#include "actors/request_clock.hpp"
#include "actors/server_report.hpp"

#include <caf/test/dsl.hpp>

#include <algorithm>
#include <memory>

using namespace memkv::actors;

namespace {

constexpr std::uint64_t ms = 1'000'000;

latency_series series_of(const reactor_counters& counters, std::string_view operation,
                         std::string_view stage) {
  server_report report;
  add_to(counters, report);
  for (const auto& each : report.latencies)
    if (each.operation == operation && each.stage == stage)
      return each;
  CAF_FAIL("the series is in the report");
}

} // namespace

CAF_TEST(each moment of a request belongs to one stage and all of them together are its time) {
  const auto counters = std::make_unique<reactor_counters>();
  request_clock clock(request_kind::get, 100 * ms);
  clock.enter(request_stage::queue, 101 * ms);
  clock.enter(request_stage::drive, 103 * ms);
  clock.enter(request_stage::network, 110 * ms);
  clock.enter(request_stage::drive, 111 * ms);
  clock.enter(request_stage::drive, 112 * ms);
  auto last = clock.hand_over(131 * ms);
  CAF_CHECK(!clock.runs());
  CAF_REQUIRE(last.runs());
  last.note(*counters, 200 * ms);
  CAF_CHECK_EQUAL(series_of(*counters, "get", "queue").sum_ns, 3 * ms);
  CAF_CHECK_EQUAL(series_of(*counters, "get", "drive").sum_ns, 27 * ms);
  CAF_CHECK_EQUAL(series_of(*counters, "get", "network").sum_ns, 70 * ms);
  CAF_CHECK_EQUAL(series_of(*counters, "get", "total").sum_ns, 100 * ms);
  for (const auto* stage : {"queue", "drive", "network", "total"})
    CAF_CHECK_EQUAL(series_of(*counters, "get", stage).count(), 1u);
  CAF_CHECK_EQUAL(series_of(*counters, "put", "total").count(), 0u);
}

CAF_TEST(a clock that was never started notes nothing) {
  request_clock clock;
  CAF_CHECK(!clock.runs());
  auto last = clock.hand_over(5);
  CAF_CHECK(!last.runs());
}

CAF_TEST(a report has every series and every reason once however many reactors there are) {
  const auto first = std::make_unique<reactor_counters>();
  const auto second = std::make_unique<reactor_counters>();
  first->reads.add(2);
  second->reads.add(3);
  second->busy.add();
  second->wrong_version.add(4);
  first->closed[static_cast<std::size_t>(close_reason::idle)].add(7);
  second->closed[static_cast<std::size_t>(close_reason::idle)].add(1);
  server_report report;
  add_to(*first, report);
  add_to(*second, report);
  CAF_CHECK_EQUAL(report.requests.reads, 5u);
  CAF_CHECK_EQUAL(report.requests.busy, 1u);
  CAF_CHECK_EQUAL(report.requests.wrong_version, 4u);
  CAF_CHECK_EQUAL(report.requests.closed.size(), static_cast<std::size_t>(close_reason::count_));
  CAF_CHECK_EQUAL(report.latencies.size(), static_cast<std::size_t>(request_kind::count_) *
                                               static_cast<std::size_t>(request_stage::count_));
  const auto idle =
      std::ranges::find(report.requests.closed, "idle", &std::pair<std::string, std::uint64_t>::first);
  CAF_REQUIRE(idle != report.requests.closed.end());
  CAF_CHECK_EQUAL(idle->second, 8u);
  for (std::size_t why = 0; why < static_cast<std::size_t>(close_reason::count_); ++why)
    CAF_CHECK_NOT_EQUAL(name_of(static_cast<close_reason>(why)), "unknown");
}
