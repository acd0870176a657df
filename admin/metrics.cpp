#include "admin/metrics.hpp"

#include "actors/log.hpp"
#include "admin/exposition.hpp"
#include "admin/process_figures.hpp"
#include "wire/hex.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <tuple>

namespace memkv::admin {

namespace {

using actors::drive_report;
using actors::drive_state;
using actors::gathered;
using actors::server_report;

double seconds(std::uint64_t ns) noexcept {
  return static_cast<double>(ns) / 1e9;
}

std::uint64_t one_if(bool holds) noexcept {
  return holds ? 1 : 0;
}

constexpr std::array<std::pair<drive_state, std::string_view>, 6> drive_states{{
    {drive_state::opening, "opening"},
    {drive_state::online, "online"},
    {drive_state::joining, "joining"},
    {drive_state::offline, "offline"},
    {drive_state::blacklisted, "blacklisted"},
    {drive_state::resetting, "resetting"},
}};

// --- the server as a whole ---

/// The names that were there first: unlabelled, and read by programs that know no labels.
void add_known(exposition& out, const server_report& report) {
  const auto& requests = report.requests;
  out.gauge("memkv_blocks_total", "Blocks stored on drives that are open.", report.blocks());
  out.counter("memkv_read_total", "Blocks that were read.", requests.reads);
  out.counter("memkv_read_bytes_total", "Bytes of values sent to clients.", requests.read_bytes);
  out.counter("memkv_write_total", "Blocks that were stored, those that replaced one included.",
              requests.writes);
  out.counter("memkv_write_bytes_total", "Bytes of values that were stored.", requests.write_bytes);
  out.gauge("memkv_storage_usable_bytes", "Room for blocks on drives that are open.", report.usable_bytes());
  out.gauge("memkv_storage_used_bytes", "Room that blocks take, in units of storage.shard_size.",
            report.used_bytes());
  out.gauge("memkv_rdma_active", "1: RDMA is in effect.", one_if(report.rdma_active));
}

void add_server(exposition& out, const server_report& report) {
  const auto id = wire::hex_text(report.set_id);
  out.gauge("memkv_server_info", "1; the labels say which server this is.", std::uint64_t{1},
            {{"server_id", id}, {"address", report.address}, {"storage_mode", report.storage_mode}});
  out.gauge("memkv_serving", "1: requests are taken.", one_if(report.phase == "serving"));
  const auto health = actors::health_of(report);
  const std::string_view word = health == actors::health::healthy    ? "healthy"
                                : health == actors::health::degraded ? "degraded"
                                                                     : "unhealthy";
  for (const std::string_view each : {"healthy", "degraded", "unhealthy"})
    out.gauge("memkv_health", "1 for the state of health that holds.", one_if(each == word),
              {{"status", each}});
  out.gauge("memkv_uptime_seconds", "Time since the server started.", seconds(report.uptime_ns));
  out.gauge("memkv_fault_injection", "1: faults may be injected; never so in production.",
            one_if(report.fault_injection));
  out.gauge("memkv_storage_raw_bytes", "Size of the drives that are open.", report.raw_bytes());
  out.gauge("memkv_block_size_bytes", "storage.block_size: the most that lies in one piece.",
            report.block_size);
  out.gauge("memkv_shard_size_bytes", "storage.shard_size: space is handed out in units of it.",
            report.shard_size);
  for (const auto& [state, name] : drive_states)
    out.gauge("memkv_drives", "Drives by state.",
              static_cast<std::uint64_t>(std::ranges::count(report.drives, state, &drive_report::state)),
              {{"state", name}});
  if (report.license) {
    const auto& license = *report.license;
    out.gauge("memkv_license_valid", "1: the licence is valid.", one_if(license.valid));
    out.gauge("memkv_license_remaining_seconds", "Time until the licence ends; negative when it has.",
              static_cast<double>(license.expires_at) - seconds(report.now_ns));
    out.gauge("memkv_license_expiry_timestamp_seconds", "When the licence ends, since 1970-01-01 UTC.",
              license.expires_at);
    out.gauge("memkv_license_info", "1; the labels say which licence it is.", std::uint64_t{1},
              {{"plan", license.plan},
               {"organization", license.organization},
               {"source", license.source},
               {"development", license.development ? "true" : "false"}});
  }
}

void add_requests(exposition& out, const server_report& report) {
  const auto& requests = report.requests;
  out.counter("memkv_read_misses_total", "Blocks that were asked for and were not there.",
              requests.read_misses);
  if (const auto asked = requests.reads + requests.read_misses; asked > 0)
    out.gauge("memkv_read_hit_ratio", "Of the blocks asked for since the start, the share that was there.",
              static_cast<double>(requests.reads) / static_cast<double>(asked));
  out.counter("memkv_write_failures_total", "Blocks that could not be stored.", requests.write_failures);
  out.counter("memkv_deletes_total", "Blocks that clients deleted.", requests.deletes);
  out.counter("memkv_exists_keys_total", "Keys whose presence was asked for.", requests.exists_keys);
  out.counter("memkv_prefix_requests_total", "Requests for the longest prefix that is there.",
              requests.prefixes);
  for (const auto& series : report.latencies)
    out.histogram("memkv_request_duration_seconds",
                  "Time of requests that were answered, by operation and stage.", series,
                  {{"operation", series.operation}, {"stage", series.stage}});
  out.gauge("memkv_requests_open", "Requests that wait for a drive or for payload.", report.requests_open);
  out.gauge("memkv_requests_waiting_for_room", "Requests that wait for memory of the pool.",
            report.requests_waiting_for_room);
  out.gauge("memkv_requests_held_bytes", "Memory that open requests and unsent answers take.",
            report.held_bytes);
  out.counter("memkv_busy_answers_total", "Requests, or items of batches, that were answered Busy.",
              requests.busy);
  out.counter("memkv_deadlines_exceeded_total", "Requests whose deadline passed.",
              requests.deadlines_exceeded);
  out.counter("memkv_digest_mismatches_total", "Values that did not arrive as their client sent them.",
              requests.digest_mismatches);
  out.counter("memkv_corrupt_blocks_total",
              "Requests that met a block that is damaged or cannot be read; it is dropped.",
              requests.corrupt_blocks);
  out.counter("memkv_incomplete_blocks_total", "Striped blocks that were dropped: a part was gone for good.",
              requests.incomplete_blocks);
  out.counter("memkv_frames_received_total", "Frames whose header was accepted, or answered.",
              requests.frames);
  for (const auto& [reason, count] :
       {std::pair<std::string_view, std::uint64_t>{"stale_time", requests.dropped_stale},
        {"replayed", requests.dropped_replayed}})
    out.counter("memkv_frames_dropped_total", "Frames that were not answered.", count, {{"reason", reason}});
  for (const auto& [reason, count] :
       {std::pair<std::string_view, std::uint64_t>{"wrong_version", requests.wrong_version},
        {"malformed", requests.malformed}})
    out.counter("memkv_frames_refused_total", "Frames that were answered with a refusal.", count,
                {{"reason", reason}});
}

void add_network(exposition& out, const server_report& report) {
  out.gauge("memkv_connections", "Connections that are open.", std::uint64_t{report.connections});
  out.gauge("memkv_connections_unauthenticated", "Of these, without a proof of the key so far.",
            std::uint64_t{report.connections_unauthenticated});
  out.gauge("memkv_connections_max", "The most that are accepted.", std::uint64_t{report.connections_max});
  out.counter("memkv_connections_accepted_total", "Connections that were accepted.",
              report.connections_accepted);
  out.counter("memkv_connections_refused_total", "Connections that were refused for their number.",
              report.connections_refused);
  for (const auto& [reason, count] : report.requests.closed)
    out.counter("memkv_connections_closed_total", "Connections that have ended.", count,
                {{"reason", reason}});
  for (const auto& [reason, count] : report.requests.queue_pairs_refused)
    out.counter("memkv_queue_pairs_refused_total", "Queue pairs that were ended for what came on them.",
                count, {{"reason", reason}});
  using of_tokens = std::tuple<std::string_view, std::uint64_t, std::uint64_t, std::uint64_t>;
  const auto& requests = report.requests;
  for (const auto& [what, open, expired, refused] :
       {of_tokens{"value", report.values_open, requests.values_expired, requests.values_refused},
        of_tokens{"lease", report.leases_open, requests.leases_expired, requests.leases_refused}}) {
    const labels one{{"kind", what}};
    out.gauge("memkv_tokens_open", "Values being written, and leases, on queue pairs with messages.", open,
              one);
    out.counter("memkv_tokens_expired_total", "Of these, those whose time was over.", expired, one);
    out.counter("memkv_tokens_refused_total", "That were asked for and not given: there were too many.",
                refused, one);
  }
  out.gauge("memkv_sessions", "Sessions for RDMA that are attached.", report.sessions);
  out.gauge("memkv_rdma_connections", "Connections that have sessions, counted once a rail.",
            report.rdma_connections);
}

void add_rail(exposition& out, const actors::rail_report& rail) {
  using actors::rail_counters;
  const auto number = std::to_string(rail.rail);
  const labels one{{"rail", number}};
  const auto with = [&one](std::string_view label, std::string_view value) {
    auto more = one;
    more.emplace_back(label, value);
    return more;
  };
  const auto& counters = rail.counters;
  out.gauge("memkv_rdma_rail_up", "1: sessions can be attached.",
            one_if(rail.state == actors::rail_state::online), with("device", rail.device));
  if (rail.facts) {
    const auto& facts = *rail.facts;
    out.gauge("memkv_rdma_rail_sessions", "Sessions that are attached.", facts.sessions, one);
    out.gauge("memkv_rdma_queue_pairs", "Queue pairs that are ready.", facts.queue_pairs, one);
    for (const auto& [state, count] :
         {std::pair<std::string_view, std::uint64_t>{"queued", facts.queued}, {"posted", facts.posted}})
      out.gauge("memkv_rdma_transfers_open", "Transfers that have no outcome yet.", count,
                with("state", state));
    out.gauge("memkv_rdma_reachable_bytes", "Memory that values move from and to without a copy.",
              facts.reachable_bytes, one);
  }
  out.counter("memkv_rdma_sessions_attached_total", "Sessions that were attached.", counters.attached, one);
  out.counter("memkv_rdma_sessions_broken_total", "Sessions that an error of the transport ended.",
              counters.broken, one);
  for (const auto& [direction, count, bytes] : {std::tuple<std::string_view, std::uint64_t, std::uint64_t>{
                                                    "fetch", counters.fetched, counters.fetched_bytes},
                                                {"place", counters.placed, counters.placed_bytes}}) {
    out.counter("memkv_rdma_transfers_total", "Transfers that were done.", count,
                with("direction", direction));
    out.counter("memkv_rdma_transferred_bytes_total", "Bytes that they moved.", bytes,
                with("direction", direction));
  }
  for (const auto& [reason, count] :
       {std::pair<std::string_view, std::uint64_t>{"unavailable", counters.retryable},
        {"memory_refused", counters.refused},
        {"deadline_exceeded", counters.deadline_exceeded},
        {"session_ended", counters.session_ended},
        {"internal", counters.internal}})
    out.counter("memkv_rdma_transfers_not_done_total", "Transfers that were not done.", count,
                with("reason", reason));
  out.counter("memkv_rdma_doorbells_total", "Batches that were posted.", counters.doorbells, one);
  out.counter("memkv_rdma_queue_pairs_rebuilt_total", "Queue pairs walked back or made anew.",
              counters.rebuilt, one);
  out.counter("memkv_rdma_queue_pairs_destroyed_total", "Queue pairs that would not drain or not recover.",
              counters.destroyed, one);
  // The first status is success.
  for (std::size_t status = 1; status < counters.reports.size(); ++status)
    out.counter("memkv_rdma_errors_total", "Requests that the device reported as failed, by status.",
                counters.reports[status], with("status", rail_counters::status_name(status)));
}

void add_rdma(exposition& out, const server_report& report) {
  out.gauge("memkv_rdma_rails", "RDMA devices, times the threads for each, that are configured.",
            static_cast<std::uint64_t>(report.rails.size()));
  for (const auto& each : report.rails)
    add_rail(out, each);
}

void add_memory(exposition& out, const server_report& report) {
  const auto& pool = report.pool;
  const auto chunk = report.pool_chunk_bytes;
  out.gauge("memkv_pool_bytes", "Size of the pool that payload passes through.", report.pool_bytes);
  out.gauge("memkv_pool_used_bytes", "Of it, in use now.", pool.chunks_in_use * chunk);
  out.gauge("memkv_pool_used_most_bytes", "The most that was in use at one time.",
            pool.chunks_in_use_most * chunk);
  out.gauge("memkv_pool_touched_bytes", "What was ever in use: what the pool costs in memory.",
            pool.chunks_touched * chunk);
  out.gauge("memkv_pool_huge_pages", "1: the pool lies in huge pages.", one_if(pool.huge_pages));
  out.counter("memkv_pool_refused_total", "How often a chunk was wanted and none was free.", pool.refused);
  const auto& cache = report.cache;
  out.counter("memkv_cache_hits_total", "Pieces of raw drives that were still in memory.", cache.hits);
  out.counter("memkv_cache_misses_total", "Pieces that had to be read from their drive.", cache.misses);
  out.counter("memkv_cache_hit_bytes_total", "Bytes that no drive was asked for.", cache.hit_bytes);
  out.gauge("memkv_cache_bytes", "What the cache holds of the pool.", cache.segments * chunk);
  out.counter("memkv_cache_segments_dropped_total", "Segments given up because the pool was needed.",
              cache.dropped_segments);
}

// --- drives ---

void add_drive_facts(exposition& out, const drive_report& drive, const labels& one) {
  const auto& facts = *drive.facts;
  const auto& store = facts.store;
  const auto& io = facts.io;
  const auto with = [&one](std::string_view label, std::string_view value) {
    auto more = one;
    more.emplace_back(label, value);
    return more;
  };
  out.gauge("memkv_drive_raw_bytes", "Size of the drive.", facts.raw_bytes, one);
  out.gauge("memkv_drive_usable_bytes", "Room for blocks.", store.usable_bytes, one);
  out.gauge("memkv_drive_used_bytes", "Room that blocks take.", store.used_bytes, one);
  if (store.usable_bytes > 0)
    out.gauge("memkv_drive_fill_ratio", "Used of usable.",
              static_cast<double>(store.used_bytes) / static_cast<double>(store.usable_bytes), one);
  out.gauge("memkv_drive_leased_bytes", "Of it, what leases keep from being evicted and reused.",
            facts.leased_bytes, one);
  out.gauge("memkv_drive_blocks", "Blocks on the drive.", store.blocks, one);
  out.gauge("memkv_drive_memory_bytes", "Memory for its index and what belongs to it.", facts.memory_bytes,
            one);

  for (const auto& [operation, count] : {std::pair<std::string_view, std::uint64_t>{"read", io.reads},
                                         {"write", io.writes},
                                         {"flush", io.flushes}})
    out.counter("memkv_drive_requests_total", "Requests the kernel was given.", count,
                with("operation", operation));
  out.counter("memkv_drive_read_bytes_total", "Bytes read from the drive.", io.read_bytes, one);
  out.counter("memkv_drive_written_bytes_total", "Bytes written to the drive.", io.written_bytes, one);
  for (const auto* series : {&drive.reads, &drive.writes, &drive.flushes})
    if (!series->operation.empty())
      out.histogram("memkv_drive_request_duration_seconds", "Time of requests in the kernel.", *series,
                    with("operation", series->operation));
  out.counter("memkv_drive_errors_total", "Requests that failed.", io.errors, one);
  out.counter("memkv_drive_read_failures_total", "Blocks that could not be read.", store.io_errors, one);
  out.counter("memkv_drive_slow_requests_total", "Requests that took longer than a second.", io.slow, one);
  out.gauge("memkv_drive_slowest_request_seconds", "The longest request so far.", seconds(io.slowest_ns),
            one);
  out.counter("memkv_drive_resubmitted_requests_total", "Requests that came back short, or to be repeated.",
              io.resubmitted, one);
  out.gauge("memkv_drive_queue_depth_reached", "The most requests that were in the kernel at one time.",
            std::uint64_t{io.depth_most}, one);
  out.gauge("memkv_drive_requests_in_flight", "Requests in the kernel now.",
            static_cast<std::uint64_t>(facts.in_flight), one);
  out.gauge("memkv_drive_oldest_request_seconds", "For how long the oldest of them has been there.",
            seconds(facts.oldest_request_ns), one);
  out.counter("memkv_drive_corrupt_blocks_total", "Blocks that were dropped as damaged.",
              store.corrupt_blocks, one);

  for (const auto& [reason, count] :
       {std::pair<std::string_view, std::uint64_t>{"watermark", store.evicted_at_watermark},
        {"short_of_space", store.evicted_for_space},
        {"fragmented", store.evicted_for_room}})
    out.counter("memkv_evictions_total", "Blocks that were evicted.", count, with("reason", reason));
  out.counter("memkv_evicted_bytes_total", "Room that evicted blocks took.", store.evicted_bytes, one);
  out.summary("memkv_evicted_block_age_seconds", "Age of evicted blocks since they were stored.",
              store.evicted_blocks, seconds(store.evicted_age_sum_ns), one);
  if (facts.evicted_age_ns > 0)
    out.gauge("memkv_evicted_last_age_seconds", "Age of the block that was evicted last.",
              seconds(facts.evicted_age_ns), one);
  out.counter("memkv_eviction_ghost_hits_total", "Blocks that were stored again soon after their eviction.",
              store.ghost_hits, one);

  out.gauge("memkv_journal_bytes", "Size of the journal.", facts.journal_bytes, one);
  out.gauge("memkv_journal_used_bytes", "What of it would be replayed after a crash.",
            store.journal_used_bytes, one);
  out.counter("memkv_journal_records_total", "Records that were written.", store.journal_records, one);
  out.counter("memkv_journal_batches_total", "Batches they were written in.", store.journal_batches, one);
  out.counter("memkv_checkpoints_total", "Checkpoints that were completed.", store.checkpoints, one);

  out.gauge("memkv_trim_supported", "1: the drive is told what it may forget.", one_if(facts.discards), one);
  out.gauge("memkv_trim_waiting_bytes", "Free space that the drive was not told of yet.",
            facts.trim_waiting_bytes, one);
  out.gauge("memkv_trim_submitted_bytes", "Of free space, what is being discarded now.",
            facts.trim_submitted_bytes, one);
  out.counter("memkv_trim_trimmed_bytes_total", "Space that was discarded.", facts.trimmed_bytes, one);

  out.gauge("memkv_recovery_duration_seconds", "How long opening and recovery took.",
            seconds(facts.opened_in_ns), one);
  out.gauge("memkv_recovery_blocks", "Blocks that were found when the drive was opened.",
            store.recovered_blocks, one);
  out.gauge("memkv_recovery_replayed_records", "Records of the journal that were replayed.",
            store.replayed_records, one);
  out.gauge("memkv_recovery_dropped_blocks", "Blocks that were given up because of damage.",
            store.dropped_at_recovery, one);
  for (const auto& [what, count] :
       {std::pair<std::string_view, std::uint64_t>{"superblock", store.bad_superblocks},
        {"tree_page", store.bad_tree_pages},
        {"bitmap_page", store.bad_bitmap_pages},
        {"journal_hole", store.journal_holes},
        {"torn_tail", store.torn_tails}})
    out.gauge("memkv_recovery_damage", "What was found damaged when the drive was opened.", count,
              with("what", what));
  out.gauge("memkv_recovery_emptied_by_power_loss",
            "1: nothing could be proven after a power loss, and the drive started empty.",
            store.emptied_by_power_loss, one);
}

void add_drives(exposition& out, const server_report& report) {
  for (const auto& drive : report.drives) {
    const auto index = std::to_string(drive.index);
    const labels one{{"drive", index}};
    out.gauge("memkv_drive_info", "1; the labels say which drive it is.", std::uint64_t{1},
              {{"drive", index},
               {"media", drive.media},
               {"device", drive.facts ? std::string_view(drive.facts->device) : std::string_view()}});
    out.gauge("memkv_drive_up", "1: its blocks are served.", one_if(drive.state == drive_state::online), one);
    for (const auto& [state, name] : drive_states)
      out.gauge("memkv_drive_state", "1 for the state that the drive is in.", one_if(drive.state == state),
                {{"drive", index}, {"state", name}});
    out.gauge("memkv_drive_member", "1: keys are placed on it.", one_if(drive.member), one);
    if (drive.failures_known)
      out.gauge("memkv_drive_failures", "Failures in its registry; a reset clears it.",
                std::uint64_t{drive.failure_count}, one);
    if (drive.failures_known && drive.last_failed_at > 0)
      out.gauge("memkv_drive_last_failure_timestamp_seconds", "Its last failure, since 1970-01-01 UTC.",
                drive.last_failed_at, one);
    out.gauge("memkv_drive_blacklisted", "1: it failed too often, and is not opened any more.",
              one_if(drive.state == drive_state::blacklisted), one);
    if (drive.state == drive_state::resetting && drive.reset_total_bytes > 0)
      out.gauge("memkv_drive_reset_ratio", "How much of its data was overwritten.",
                static_cast<double>(drive.reset_done_bytes) / static_cast<double>(drive.reset_total_bytes),
                one);
    if (drive.facts)
      add_drive_facts(out, drive, one);
  }
  out.gauge("memkv_eviction_enabled", "1: storage.eviction.enabled.", one_if(report.eviction));
  out.gauge("memkv_eviction_watermark_ratio", "Fill at which eviction begins (high) and ends (low).",
            report.high_watermark, {{"watermark", "high"}});
  out.gauge("memkv_eviction_watermark_ratio", "", report.low_watermark, {{"watermark", "low"}});
}

// --- actors, log, process ---

void add_actors(exposition& out, const gathered& about) {
  std::set<std::string, std::less<>> named;
  if (about.report != nullptr)
    for (const auto& each : about.report->actors) {
      if (!named.insert(each.name).second)
        continue;
      const labels one{{"actor", each.name}};
      const bool silent = std::ranges::find(about.silent, each.name) != about.silent.end();
      out.gauge("memkv_actor_up", "1: it is there.", one_if(each.alive), one);
      out.gauge("memkv_actor_responding", "1: it answered within the deadline.",
                one_if(each.answered && !silent), one);
      out.gauge("memkv_actor_mailbox_messages", "Messages that waited behind the question.",
                static_cast<std::uint64_t>(each.mailbox), one);
      out.counter("memkv_actor_restarts_total", "How often it was started anew.", each.restarts, one);
      if (each.answered_in_ns > 0)
        out.gauge("memkv_actor_answer_seconds", "How long it took to answer.", seconds(each.answered_in_ns),
                  one);
    }
  for (const auto& name : about.silent)
    if (named.insert(name).second)
      out.gauge("memkv_actor_responding", "1: it answered within the deadline.", std::uint64_t{0},
                {{"actor", name}});
}

void add_log(exposition& out) {
  const auto lines = log::lines_written();
  for (std::size_t level = 0; level < lines.size(); ++level) {
    std::string name(log::name_of(static_cast<log::level>(level)));
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    out.counter("memkv_log_lines_total", "Lines written to the log.", lines[level], {{"level", name}});
  }
  out.counter("memkv_log_lines_lost_total", "Lines that could not be written.", log::lines_lost());
}

void add_process(exposition& out, std::string_view version) {
  if (!version.empty())
    out.gauge("memkv_build_info", "1; the label is the version.", std::uint64_t{1}, {{"version", version}});
  const auto now = read_process_figures();
  if (now.cpu_seconds)
    out.counter("process_cpu_seconds_total", "Processor time of the process, user and system.",
                *now.cpu_seconds);
  if (now.resident_bytes)
    out.gauge("process_resident_memory_bytes", "Memory of the process that is in memory.",
              *now.resident_bytes);
  if (now.virtual_bytes)
    out.gauge("process_virtual_memory_bytes", "Addresses that the process has mapped.", *now.virtual_bytes);
  if (now.open_descriptors)
    out.gauge("process_open_fds", "File descriptors that are open.", *now.open_descriptors);
  if (now.descriptors_max)
    out.gauge("process_max_fds", "The most that may be.", *now.descriptors_max);
  if (now.threads)
    out.gauge("process_threads", "Threads of the process.", *now.threads);
  if (now.started_at)
    out.gauge("process_start_time_seconds", "When the process started, since 1970-01-01 UTC.",
              *now.started_at);
}

/// A report, collected as Prometheus' own library expects it.
class report_source final : public prometheus::Collectable {
public:
  report_source(const gathered& about, std::string_view version) : about_(about), version_(version) {}

  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override {
    exposition out;
    if (const auto* report = about_.report.get(); report != nullptr) {
      add_known(out, *report);
      add_server(out, *report);
      add_requests(out, *report);
      add_network(out, *report);
      add_rdma(out, *report);
      add_memory(out, *report);
      add_drives(out, *report);
    }
    add_actors(out, about_);
    add_log(out);
    add_process(out, version_);
    return out.take();
  }

private:
  const gathered& about_;
  std::string_view version_;
};

} // namespace

std::string metrics_text(const gathered& about, std::string_view version) {
  return text_of(report_source(about, version));
}

} // namespace memkv::admin
