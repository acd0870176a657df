#include "actors/server_counters.hpp"

#include "actors/server_report.hpp"

#include <algorithm>
#include <string>

namespace memkv::actors {

void add_to(const reactor_counters& counters, server_report& report) {
  auto& sum = report.requests;
  sum.reads += counters.reads.value();
  sum.read_bytes += counters.read_bytes.value();
  sum.read_misses += counters.read_misses.value();
  sum.writes += counters.writes.value();
  sum.write_bytes += counters.write_bytes.value();
  sum.write_failures += counters.write_failures.value();
  sum.deletes += counters.deletes.value();
  sum.exists_keys += counters.exists_keys.value();
  sum.prefixes += counters.prefixes.value();
  sum.frames += counters.frames.value();
  sum.digest_mismatches += counters.digest_mismatches.value();
  sum.corrupt_blocks += counters.corrupt_blocks.value();
  sum.incomplete_blocks += counters.incomplete_blocks.value();
  sum.deadlines_exceeded += counters.deadlines_exceeded.value();
  sum.busy += counters.busy.value();
  sum.values_expired += counters.values_expired.value();
  sum.leases_expired += counters.leases_expired.value();
  sum.values_refused += counters.values_refused.value();
  sum.leases_refused += counters.leases_refused.value();
  sum.wrong_version += counters.wrong_version.value();
  sum.malformed += counters.malformed.value();
  sum.dropped_stale += counters.dropped_stale.value();
  sum.dropped_replayed += counters.dropped_replayed.value();
  report.connections_accepted += counters.connections_accepted.value();

  // One entry for each reason and series, also where nothing was counted: whoever reads them over time needs
  // the zero it begins with.
  const auto add_one = [](std::vector<std::pair<std::string, std::uint64_t>>& to, std::string_view name,
                          const counter& count) {
    auto found = std::ranges::find(to, name, &std::pair<std::string, std::uint64_t>::first);
    if (found == to.end())
      found = to.insert(found, {std::string(name), 0});
    found->second += count.value();
  };
  for (std::size_t why = 0; why < counters.closed.size(); ++why)
    add_one(sum.closed, name_of(static_cast<close_reason>(why)), counters.closed[why]);
  for (std::size_t why = 0; why < counters.queue_pairs_refused.size(); ++why)
    add_one(sum.queue_pairs_refused, name_of(static_cast<queue_pair_refusal>(why)),
            counters.queue_pairs_refused[why]);
  for (std::size_t what = 0; what < counters.latencies.size(); ++what)
    for (std::size_t stage = 0; stage < counters.latencies[what].size(); ++stage) {
      const auto operation = name_of(static_cast<request_kind>(what));
      const auto part = name_of(static_cast<request_stage>(stage));
      auto found = std::ranges::find_if(report.latencies, [&](const latency_series& each) {
        return each.operation == operation && each.stage == part;
      });
      if (found == report.latencies.end()) {
        found = report.latencies.insert(found, latency_series{});
        found->operation = operation;
        found->stage = part;
      }
      counters.latencies[what][stage].add_to(*found);
    }
}

} // namespace memkv::actors
