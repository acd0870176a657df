// Reports made by hand, and a door that gives them out.
#pragma once

#include "actors/admin_gateway.hpp"

#include <functional>
#include <memory>

namespace memkv::test {

/// Three drives: one online, one offline, one that is reset; every figure different from every other.
inline actors::server_report full_report() {
  actors::server_report report;
  std::uint64_t next = 1000;
  const auto fill = [&](auto&... figures) {
    ((figures = static_cast<std::remove_reference_t<decltype(figures)>>(next++)), ...);
  };
  report.phase = "serving";
  report.address = "0.0.0.0:9900";
  report.set_id.fill(std::byte{0xA5});
  report.now_ns = 1'763'720'000'500'000'000;
  fill(report.started_at, report.uptime_ns);
  for (std::uint32_t index = 0; index < 3; ++index) {
    actors::drive_report drive;
    drive.index = index;
    drive.media = "/dev/nvme" + std::to_string(index) + "n1";
    fill(drive.failure_count, drive.first_failed_at, drive.last_failed_at);
    drive.reads.counts[3] = next++;
    fill(drive.reads.sum_ns, drive.writes.sum_ns, drive.flushes.sum_ns);
    report.drives.push_back(std::move(drive));
  }
  auto& online = report.drives[0];
  online.state = actors::drive_state::online;
  online.failure_count = 0;
  online.first_failed_at = online.last_failed_at = 0;
  actors::drive_facts facts;
  facts.device = "Model \"X\"";
  fill(facts.raw_bytes, facts.in_flight, facts.oldest_request_ns, facts.journal_bytes, facts.memory_bytes,
       facts.trim_waiting_bytes, facts.trim_submitted_bytes, facts.trimmed_bytes, facts.opened_in_ns,
       facts.evicted_age_ns, facts.leased_bytes);
  fill(facts.store.blocks, facts.store.used_bytes, facts.store.usable_bytes, facts.store.evicted_blocks,
       facts.store.evicted_bytes, facts.store.corrupt_blocks, facts.store.io_errors, facts.store.checkpoints,
       facts.store.journal_batches, facts.store.journal_records, facts.store.journal_used_bytes,
       facts.store.recovered_blocks, facts.store.replayed_records, facts.store.dropped_at_recovery);
  fill(facts.io.reads, facts.io.read_bytes, facts.io.writes, facts.io.written_bytes, facts.io.flushes,
       facts.io.errors, facts.io.depth_most, facts.io.slow, facts.io.slowest_ns);
  facts.discards = true;
  online.facts = facts;
  report.drives[1].state = actors::drive_state::offline;
  report.drives[1].reason = "a write or flush failed on /dev/nvme1n1";
  report.drives[1].reset_problem = "resetting it was interrupted: reset it again";
  report.drives[2].state = actors::drive_state::resetting;
  report.drives[2].reset_secure = true;
  fill(report.drives[2].reset_done_bytes, report.drives[2].reset_total_bytes);
  report.rails.resize(2);
  for (auto& rail : report.rails) {
    rail.rail = static_cast<std::uint32_t>(&rail - report.rails.data());
    rail.device = "mlx5_" + std::to_string(rail.rail);
    auto& counters = rail.counters;
    fill(counters.attached, counters.broken, counters.fetched, counters.fetched_bytes, counters.placed,
         counters.placed_bytes, counters.retryable, counters.refused, counters.deadline_exceeded,
         counters.session_ended, counters.internal, counters.doorbells, counters.rebuilt, counters.destroyed,
         counters.reports[0], counters.reports[11]);
  }
  report.rdma_active = true;
  report.rails[0].state = actors::rail_state::online;
  actors::dci_pool_facts pool;
  pool.dc = true;
  fill(pool.sessions, pool.connections, pool.queue_pairs, pool.queued, pool.posted, pool.reachable_bytes);
  report.rails[0].facts = pool;
  report.rails[1].state = actors::rail_state::offline;
  report.rails[1].reason = "mlx5_1 port 1 went down";
  for (const auto* name : {"drive-0", "listener", "server"}) {
    actors::actor_report actor;
    actor.name = name;
    actor.alive = actor.answered = true;
    fill(actor.answered_in_ns, actor.mailbox, actor.restarts);
    report.actors.push_back(actor);
  }
  actors::license_report license;
  license.plan = "Enterprise";
  license.organization = "Example";
  license.source = "MEMKV_LICENSE";
  license.valid = true;
  fill(license.expires_at, license.days_left);
  report.license = license;
  report.storage_mode = "direct";
  report.eviction = true;
  report.high_watermark = 0.95;
  report.low_watermark = 0.9;
  fill(report.block_size, report.shard_size, report.pool.chunks, report.pool.chunks_in_use,
       report.pool.chunks_in_use_most, report.pool.refused, report.pool_bytes, report.pool_chunk_bytes,
       report.requests_waiting_for_room, report.cache.hits, report.cache.misses, report.cache.hit_bytes,
       report.cache.segments, report.cache.dropped_segments, report.resident_bytes, report.connections,
       report.connections_unauthenticated, report.connections_max, report.connections_accepted,
       report.connections_refused, report.sessions, report.requests_open, report.held_bytes,
       report.rdma_connections, report.log_lines_lost, report.values_open, report.leases_open);
  auto& all = report.requests;
  fill(all.reads, all.read_bytes, all.read_misses, all.writes, all.write_bytes, all.write_failures,
       all.deletes, all.exists_keys, all.prefixes, all.frames, all.digest_mismatches, all.corrupt_blocks,
       all.incomplete_blocks, all.deadlines_exceeded, all.busy, all.dropped_stale, all.dropped_replayed,
       all.values_expired, all.leases_expired, all.values_refused, all.leases_refused);
  all.closed = {{"peer_closed", 3}, {"idle", 1}};
  actors::latency_series series;
  series.operation = "get";
  series.stage = "total";
  series.counts[1] = 3;
  series.sum_ns = 100'000'000;
  report.latencies.push_back(series);
  report.log_lines = {5, 4, 3, 2, 1};
  return report;
}

/// One drive, and everything well.
inline actors::server_report healthy_report() {
  auto report = full_report();
  report.drives.resize(1);
  report.rails.clear();
  report.rdma_active = false;
  return report;
}

inline actors::gathered gathered_of(actors::server_report report, std::vector<std::string> silent = {}) {
  return {std::make_shared<const actors::server_report>(std::move(report)), std::move(silent)};
}

class hand_made_door final : public actors::admin_door {
public:
  actors::gathered report(std::chrono::milliseconds) override { return now; }
  actors::admin_outcome reset_drive(std::uint32_t index, bool secure, std::chrono::milliseconds) override {
    resets.emplace_back(index, secure);
    return outcome;
  }

  actors::gathered now = gathered_of(healthy_report());
  actors::admin_outcome outcome{actors::admin_outcome::kind::done, {}};
  std::vector<std::pair<std::uint32_t, bool>> resets;
};

} // namespace memkv::test
