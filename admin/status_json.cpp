#include "admin/status_json.hpp"

#include "actors/log.hpp"
#include "wire/hex.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace memkv::admin {

namespace {

using json = nlohmann::ordered_json;
using actors::gathered;
using actors::server_report;

constexpr std::string_view no_report =
    "the admin gateway has not answered in time: the server is stopping or overloaded";

std::string text_of(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

double seconds(std::uint64_t ns) noexcept {
  return static_cast<double>(ns) / 1e9;
}

json counts_of(const actors::latency_series& series) {
  return json(series.counts);
}

json latency_of_drive(const actors::drive_report& drive) {
  json all = json::array();
  for (const auto* series : {&drive.reads, &drive.writes, &drive.flushes}) {
    const auto* name = series == &drive.reads ? "read" : series == &drive.writes ? "write" : "flush";
    all.push_back(
        {{"operation", name}, {"counts", counts_of(*series)}, {"sum_seconds", seconds(series->sum_ns)}});
  }
  return all;
}

json known_failure(const actors::drive_report& drive, std::uint64_t figure) {
  return drive.failures_known ? json(figure) : json(nullptr);
}

json failure_of(const actors::drive_report& drive) {
  return {{"device_id", drive.index},
          {"failure_count", known_failure(drive, drive.failure_count)},
          {"first_failed_at", known_failure(drive, drive.first_failed_at)},
          {"last_failed_at", known_failure(drive, drive.last_failed_at)},
          {"blacklisted", drive.state == actors::drive_state::blacklisted},
          {"state", name_of(drive.state)},
          {"reason", drive.reason},
          {"media", drive.media}};
}

void add_facts(json& to, const actors::drive_report& drive, const actors::drive_facts& facts) {
  const auto& io = facts.io;
  const auto& store = facts.store;
  to["raw_bytes"] = facts.raw_bytes;
  to["usable_bytes"] = store.usable_bytes;
  to["used_bytes"] = store.used_bytes;
  to["blocks"] = store.blocks;
  to["io"] = {{"reads", io.reads},
              {"read_bytes", io.read_bytes},
              {"writes", io.writes},
              {"written_bytes", io.written_bytes},
              {"flushes", io.flushes},
              {"errors", io.errors},
              {"slow", io.slow},
              {"slowest_seconds", seconds(io.slowest_ns)},
              {"depth_most", io.depth_most},
              {"in_flight", facts.in_flight},
              {"oldest_seconds", seconds(facts.oldest_request_ns)}};
  to["latency"] = latency_of_drive(drive);
  to["journal"] = {{"bytes", facts.journal_bytes},
                   {"used_bytes", store.journal_used_bytes},
                   {"records", store.journal_records},
                   {"batches", store.journal_batches},
                   {"checkpoints", store.checkpoints}};
  to["trim"] = {{"supported", facts.discards},
                {"waiting_bytes", facts.trim_waiting_bytes},
                {"submitted_bytes", facts.trim_submitted_bytes},
                {"trimmed_bytes", facts.trimmed_bytes}};
  to["recovery"] = {{"seconds", seconds(facts.opened_in_ns)},
                    {"blocks", store.recovered_blocks},
                    {"replayed_records", store.replayed_records},
                    {"dropped", store.dropped_at_recovery},
                    {"damaged", store.bad_superblocks + store.bad_tree_pages + store.bad_bitmap_pages +
                                    store.journal_holes + store.torn_tails}};
  to["evicted_blocks"] = store.evicted_blocks;
  to["evicted_bytes"] = store.evicted_bytes;
  to["corrupt_blocks"] = store.corrupt_blocks;
  to["io_errors"] = store.io_errors;
  to["memory_bytes"] = facts.memory_bytes;
}

json device_of(const actors::drive_report& drive) {
  json out{{"device_id", drive.index},
           {"media", drive.media},
           {"state", name_of(drive.state)},
           {"reason", drive.reason},
           {"member", drive.member},
           {"failure_count", known_failure(drive, drive.failure_count)},
           {"first_failed_at", known_failure(drive, drive.first_failed_at)},
           {"last_failed_at", known_failure(drive, drive.last_failed_at)},
           {"blacklisted", drive.state == actors::drive_state::blacklisted}};
  if (drive.facts) {
    out["model"] = drive.facts->device;
    add_facts(out, drive, *drive.facts);
  }
  if (drive.state == actors::drive_state::resetting)
    out["reset"] = {{"secure", drive.reset_secure},
                    {"done_bytes", drive.reset_done_bytes},
                    {"total_bytes", drive.reset_total_bytes}};
  if (!drive.reset_problem.empty())
    out["reset_problem"] = drive.reset_problem;
  return out;
}

json license_of(const server_report& report) {
  if (!report.license)
    return nullptr;
  const auto& license = *report.license;
  return {{"valid", license.valid},
          {"plan", license.plan},
          {"organization", license.organization},
          {"source", license.source},
          {"expires_at", license.expires_at},
          {"days_left", license.days_left},
          {"development", license.development}};
}

json memory_of(const server_report& report) {
  return {{"pool_bytes", report.pool_bytes},
          {"pool_used_bytes", report.pool.chunks_in_use * report.pool_chunk_bytes},
          {"pool_used_bytes_most", report.pool.chunks_in_use_most * report.pool_chunk_bytes},
          {"chunk_bytes", report.pool_chunk_bytes},
          {"huge_pages", report.pool.huge_pages},
          {"refused", report.pool.refused},
          {"requests_waiting", report.requests_waiting_for_room},
          {"resident_bytes", report.resident_bytes},
          {"cache",
           {{"hits", report.cache.hits},
            {"misses", report.cache.misses},
            {"hit_bytes", report.cache.hit_bytes},
            {"bytes", report.cache.segments * report.pool_chunk_bytes},
            {"dropped_segments", report.cache.dropped_segments}}}};
}

json storage_of(const server_report& report) {
  json devices = json::array();
  for (const auto& each : report.drives)
    devices.push_back(device_of(each));
  const auto total = report.drives.size(), online = std::size_t{report.drives_online()};
  return {{"mode", report.storage_mode},
          {"block_size", report.block_size},
          {"shard_size", report.shard_size},
          {"raw_bytes_total", report.raw_bytes()},
          {"usable_bytes_total", report.usable_bytes()},
          {"used_bytes_total", report.used_bytes()},
          {"blocks_total", report.blocks()},
          {"drives_online", online},
          {"drives_offline", total - online},
          {"drives_total", total},
          {"devices", std::move(devices)}};
}

json eviction_of(const server_report& report) {
  std::uint64_t blocks = 0, bytes = 0, age_ns = 0;
  for (const auto& each : report.drives)
    if (each.facts) {
      blocks += each.facts->store.evicted_blocks;
      bytes += each.facts->store.evicted_bytes;
      age_ns = std::max(age_ns, each.facts->evicted_age_ns);
    }
  return {{"enabled", report.eviction},
          {"high_watermark", report.high_watermark},
          {"low_watermark", report.low_watermark},
          {"evicted_blocks", blocks},
          {"evicted_bytes", bytes},
          {"oldest_age_seconds", seconds(age_ns)}};
}

json network_of(const server_report& report) {
  json closed = json::object();
  for (const auto& [reason, count] : report.requests.closed)
    closed[reason] = count;
  return {
      {"connections", report.connections},         {"unauthenticated", report.connections_unauthenticated},
      {"connections_max", report.connections_max}, {"accepted", report.connections_accepted},
      {"refused", report.connections_refused},     {"requests_open", report.requests_open},
      {"held_bytes", report.held_bytes},           {"closed", std::move(closed)}};
}

json requests_of(const actors::request_report& all) {
  return {{"reads", all.reads},
          {"read_bytes", all.read_bytes},
          {"read_misses", all.read_misses},
          {"writes", all.writes},
          {"write_bytes", all.write_bytes},
          {"write_failures", all.write_failures},
          {"deletes", all.deletes},
          {"exists_keys", all.exists_keys},
          {"prefixes", all.prefixes},
          {"frames", all.frames},
          {"digest_mismatches", all.digest_mismatches},
          {"corrupt_blocks", all.corrupt_blocks},
          {"incomplete_blocks", all.incomplete_blocks},
          {"deadlines_exceeded", all.deadlines_exceeded},
          {"busy", all.busy},
          {"dropped_stale", all.dropped_stale},
          {"dropped_replayed", all.dropped_replayed}};
}

json latency_of(const server_report& report) {
  json bounds = json::array(), series = json::array();
  for (std::size_t bucket = 0; bucket + 1 < actors::latency_buckets; ++bucket)
    bounds.push_back(seconds(actors::latency_bound_ns(bucket)));
  for (const auto& each : report.latencies)
    series.push_back({{"operation", each.operation},
                      {"stage", each.stage},
                      {"counts", counts_of(each)},
                      {"sum_seconds", seconds(each.sum_ns)}});
  return {{"bounds_seconds", std::move(bounds)}, {"series", std::move(series)}};
}

std::string_view name_of(actors::rail_state state) noexcept {
  switch (state) {
  case actors::rail_state::opening:
    return "opening";
  case actors::rail_state::online:
    return "online";
  case actors::rail_state::offline:
    return "offline";
  }
  return "offline";
}

json rail_of(const actors::rail_report& rail) {
  const auto& counters = rail.counters;
  json out{{"rail", rail.rail},
           {"device", rail.device},
           {"state", name_of(rail.state)},
           {"reason", rail.reason},
           {"sessions_attached", counters.attached},
           {"sessions_broken", counters.broken},
           {"fetched", counters.fetched},
           {"fetched_bytes", counters.fetched_bytes},
           {"placed", counters.placed},
           {"placed_bytes", counters.placed_bytes},
           {"not_done",
            {{"unavailable", counters.retryable},
             {"memory_refused", counters.refused},
             {"deadline_exceeded", counters.deadline_exceeded},
             {"session_ended", counters.session_ended},
             {"internal", counters.internal}}},
           {"doorbells", counters.doorbells},
           {"queue_pairs_rebuilt", counters.rebuilt},
           {"queue_pairs_destroyed", counters.destroyed},
           {"errors", json::object()}};
  // The first one is success.
  for (std::size_t status = 1; status < counters.reports.size(); ++status)
    if (counters.reports[status] > 0)
      out["errors"][std::string{actors::rail_counters::status_name(status)}] = counters.reports[status];
  if (rail.facts) {
    const auto& facts = *rail.facts;
    json transports = json::array();
    if (facts.rc)
      transports.push_back("rc");
    if (facts.dc)
      transports.push_back("dc");
    out["transports"] = transports;
    out["sessions"] = facts.sessions;
    out["connections"] = facts.connections;
    out["queue_pairs"] = facts.queue_pairs;
    out["transfers_queued"] = facts.queued;
    out["transfers_posted"] = facts.posted;
    out["reachable_bytes"] = facts.reachable_bytes;
  }
  return out;
}

json rdma_of(const server_report& report) {
  json rails = json::array();
  for (const auto& each : report.rails)
    rails.push_back(rail_of(each));
  return {{"active", report.rdma_active},      {"connections", report.rdma_connections},
          {"sessions", report.sessions},       {"values_open", report.values_open},
          {"leases_open", report.leases_open}, {"rails", rails}};
}

json actors_of(const server_report& report) {
  json all = json::array();
  for (const auto& each : report.actors)
    all.push_back({{"name", each.name},
                   {"alive", each.alive},
                   {"answered", each.answered},
                   {"answered_in_seconds", seconds(each.answered_in_ns)},
                   {"mailbox", each.mailbox},
                   {"restarts", each.restarts}});
  return all;
}

/// What goes before the rest of an answer that is an error as well.
json problem_of(std::string_view sentence, const std::vector<std::string>& silent) {
  json out = json::object();
  if (!sentence.empty())
    out["error"] = sentence;
  if (!silent.empty())
    out["silent"] = silent;
  return out;
}

/// The gateway itself is silent when there is no report.
std::vector<std::string> silent_of(const gathered& about) {
  return about.report == nullptr && about.silent.empty() ? std::vector<std::string>{"admin-gateway"}
                                                         : about.silent;
}

std::string sentence_of_health(const gathered& about) {
  if (const auto silence = sentence_about_silence(about); !silence.empty())
    return silence;
  const auto reasons = reasons_of(about);
  return health_code(about) == 200 || reasons.empty() ? std::string{} : reasons.front();
}

} // namespace

std::string_view name_of(actors::drive_state state) noexcept {
  using enum actors::drive_state;
  switch (state) {
  case opening:
    return "opening";
  case online:
    return "online";
  case joining:
    return "joining";
  case offline:
    return "offline";
  case blacklisted:
    return "blacklisted";
  case resetting:
    return "resetting";
  }
  return "offline";
}

std::vector<std::string> reasons_of(const gathered& about) {
  std::vector<std::string> out;
  if (about.report == nullptr) {
    out.emplace_back(no_report);
    return out;
  }
  const auto& report = *about.report;
  if (report.phase != "serving")
    out.push_back(report.phase == "stopping" ? "the server is stopping"
                                             : "the server is starting and opens its drives");
  else if (report.drives_online() == 0)
    out.emplace_back("no drive is online");
  for (const auto& each : report.drives)
    if (each.state != actors::drive_state::online)
      out.push_back("drive " + std::to_string(each.index) + " (" + each.media + ") is " +
                    std::string{name_of(each.state)} + (each.reason.empty() ? "" : ": " + each.reason));
  for (const auto& each : report.rails)
    if (each.state == actors::rail_state::offline)
      out.push_back("the RDMA device " + each.device + " is not in use: " + each.reason);
  for (const auto& each : report.actors)
    if (!each.alive)
      out.push_back("the actor " + each.name + " is not running");
  for (const auto& name : about.silent)
    out.push_back("the actor " + name + " has not answered in time");
  return out;
}

std::string sentence_about_silence(const gathered& about) {
  if (about.report == nullptr)
    return std::string{no_report};
  std::string names;
  for (const auto& each : about.silent)
    names += (names.empty() ? "" : ", ") + each;
  return names.empty() ? std::string{} : "no answer in time from " + names + ": it is stuck or overloaded";
}

std::string_view status_word(const gathered& about) noexcept {
  if (about.report == nullptr || !about.silent.empty())
    return "unhealthy";
  switch (actors::health_of(*about.report)) {
  case actors::health::healthy:
    return "healthy";
  case actors::health::degraded:
    return "degraded";
  case actors::health::unhealthy:
    return "unhealthy";
  }
  return "unhealthy";
}

int health_code(const gathered& about) noexcept {
  return status_word(about) == "unhealthy" ? 503 : 200;
}

int status_code(const gathered& about) noexcept {
  return about.report == nullptr || !about.silent.empty() ? 503 : 200;
}

std::string health_document(const gathered& about) {
  auto out = problem_of(sentence_of_health(about), silent_of(about));
  out["status"] = status_word(about);
  if (const auto reasons = reasons_of(about); !reasons.empty())
    out["reasons"] = reasons;
  if (about.report != nullptr) {
    const auto total = about.report->drives.size(), online = std::size_t{about.report->drives_online()};
    out["rdma_active"] = about.report->rdma_active;
    out["drives_online"] = online;
    out["drives_offline"] = total - online;
    out["drives_total"] = total;
  }
  return text_of(out);
}

std::string status_document(const gathered& about, std::string_view version) {
  auto out = problem_of(sentence_about_silence(about), silent_of(about));
  out["status"] = status_word(about);
  out["reasons"] = reasons_of(about);
  out["version"] = version;
  if (about.report == nullptr)
    return text_of(out);
  const auto& report = *about.report;
  out["server_id"] = wire::hex_text(report.set_id);
  out["phase"] = report.phase;
  out["address"] = report.address;
  out["time"] = seconds(report.now_ns);
  out["started_at"] = report.started_at;
  out["uptime_seconds"] = seconds(report.uptime_ns);
  out["fault_injection"] = report.fault_injection;
  out["license"] = license_of(report);
  out["memory"] = memory_of(report);
  out["storage"] = storage_of(report);
  out["eviction"] = eviction_of(report);
  out["rdma"] = rdma_of(report);
  out["network"] = network_of(report);
  out["requests"] = requests_of(report.requests);
  out["latency"] = latency_of(report);
  out["actors"] = actors_of(report);
  const auto lines = [&](log::level level) { return report.log_lines[static_cast<std::size_t>(level)]; };
  out["log"] = {{"error", lines(log::level::error)},
                {"warn", lines(log::level::warn)},
                {"info", lines(log::level::info)},
                {"lost", report.log_lines_lost}};
  return text_of(out);
}

std::string failed_drives_document(const server_report& report) {
  json out = json::array();
  for (const auto& each : report.drives)
    if (each.failure_count > 0 || each.state != actors::drive_state::online)
      out.push_back(failure_of(each));
  return text_of(out);
}

std::string silence_document(const gathered& about) {
  return text_of(problem_of(sentence_about_silence(about), silent_of(about)));
}

std::string reset_document(std::uint32_t device_id, bool secure) {
  return text_of({{"device_id", device_id}, {"state", "resetting"}, {"secure", secure}});
}

std::string problem_document(std::string_view sentence) {
  return text_of(problem_of(sentence, {}));
}

} // namespace memkv::admin
