#include "actors/server_report.hpp"

#include <algorithm>

namespace memkv::actors {

namespace {

template <class Value>
std::uint64_t sum(const std::vector<drive_report>& drives, Value value) {
  std::uint64_t all = 0;
  for (const auto& each : drives)
    if (each.facts)
      all += value(*each.facts);
  return all;
}

} // namespace

rail_counters& rail_counters::operator+=(const rail_counters& other) noexcept {
  for (const auto field :
       {&rail_counters::attached, &rail_counters::broken, &rail_counters::fetched,
        &rail_counters::fetched_bytes, &rail_counters::placed, &rail_counters::placed_bytes,
        &rail_counters::retryable, &rail_counters::refused, &rail_counters::deadline_exceeded,
        &rail_counters::session_ended, &rail_counters::internal, &rail_counters::doorbells,
        &rail_counters::rebuilt, &rail_counters::destroyed})
    this->*field += other.*field;
  for (std::size_t index = 0; index < reports.size(); ++index)
    reports[index] += other.reports[index];
  return *this;
}

std::string_view rail_counters::status_name(std::size_t index) noexcept {
  return verbs::name(static_cast<verbs::completion_status>(index));
}

void take_facts(drive_report& drive, const drive_facts& facts) {
  drive.facts = facts;
  const auto series = [](const char* operation, const latency_counts& counts) {
    latency_series out;
    out.operation = operation;
    out.add(counts);
    return out;
  };
  drive.reads = series("read", facts.io.read_times);
  drive.writes = series("write", facts.io.write_times);
  drive.flushes = series("flush", facts.io.flush_times);
}

void take_facts(server_report& report, rail_report& rail, const dci_pool_facts& facts) {
  rail.facts = facts;
  rail.counters = facts.counters;
  report.sessions += facts.sessions;
  report.rdma_connections += facts.connections;
}

std::uint32_t server_report::drives_online() const noexcept {
  return static_cast<std::uint32_t>(
      std::ranges::count(drives, drive_state::online, [](const auto& each) { return each.state; }));
}

std::uint64_t server_report::blocks() const noexcept {
  return sum(drives, [](const drive_facts& each) { return each.store.blocks; });
}

std::uint64_t server_report::raw_bytes() const noexcept {
  return sum(drives, [](const drive_facts& each) { return each.raw_bytes; });
}

std::uint64_t server_report::usable_bytes() const noexcept {
  return sum(drives, [](const drive_facts& each) { return each.store.usable_bytes; });
}

std::uint64_t server_report::used_bytes() const noexcept {
  return sum(drives, [](const drive_facts& each) { return each.store.used_bytes; });
}

health health_of(const server_report& report) noexcept {
  const auto online = report.drives_online();
  if (report.phase != "serving" || online == 0)
    return health::unhealthy;
  const bool whole =
      online == report.drives.size() &&
      std::ranges::all_of(report.rails, [](const auto& each) { return each.state == rail_state::online; }) &&
      std::ranges::all_of(report.actors, [](const auto& each) { return each.alive; });
  return whole ? health::healthy : health::degraded;
}

} // namespace memkv::actors
