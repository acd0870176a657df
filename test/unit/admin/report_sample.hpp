// A report in which everything there is to say has a value, for tests of what is made of reports.
#pragma once

#include "actors/admin_gateway.hpp"
#include "actors/server_counters.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace memkv::test {

/// One drive that is open, one that is offline, one that is being reset; licence, requests, actors.
[[nodiscard]] inline actors::server_report full_report() {
  using actors::drive_state;
  constexpr std::uint64_t gib = std::uint64_t{1} << 30;
  constexpr std::uint64_t ms = 1'000'000;
  actors::server_report out;
  out.phase = "serving";
  out.address = "0.0.0.0:9900";
  out.set_id.fill(std::byte{0xA7});
  out.uptime_ns = 3'600'000 * ms;
  out.now_ns = 1'763'720'000'000 * ms;
  out.storage_mode = "direct";
  out.block_size = 4 << 20;
  out.shard_size = 64 << 10;
  out.eviction = true;
  out.high_watermark = 0.95;
  out.low_watermark = 0.9;

  const auto counters = std::make_unique<actors::reactor_counters>();
  counters->reads.add(1322);
  counters->read_bytes.add(1'324'961'280);
  counters->read_misses.add(78);
  counters->writes.add(15'266);
  counters->write_bytes.add(15'300'195'840);
  counters->busy.add(3);
  counters->closed[static_cast<std::size_t>(actors::close_reason::idle)].add(2);
  for (std::uint64_t i = 0; i < 1000; ++i)
    counters->latencies[0][3].note(i * 100'000);
  actors::add_to(*counters, out);

  for (std::uint32_t index = 0; index < 3; ++index) {
    auto& drive = out.drives.emplace_back();
    drive.index = index;
    drive.media = "/dev/nvme" + std::to_string(index) + "n1";
  }
  out.drives[0].state = drive_state::online;
  actors::drive_facts facts;
  facts.device = "/dev/nvme0n1";
  facts.raw_bytes = 1024 * gib;
  facts.store.blocks = 5669;
  facts.store.usable_bytes = 1'099'510'579'200;
  facts.store.used_bytes = 5'944'377'344;
  facts.store.evicted_blocks = 10;
  facts.store.evicted_bytes = 10 << 20;
  facts.store.evicted_at_watermark = 7;
  facts.store.evicted_for_space = 2;
  facts.store.evicted_for_room = 1;
  facts.store.evicted_age_sum_ns = 5'000'000 * ms;
  facts.store.journal_used_bytes = 1 << 20;
  facts.evicted_age_ns = 600'000 * ms;
  facts.journal_bytes = 64 << 20;
  facts.discards = true;
  facts.opened_in_ns = 130 * ms;
  facts.io.reads = 12;
  facts.io.depth_most = 32;
  facts.io.read_times.counts[3] = 12;
  facts.io.read_times.sum_ns = 12 * ms;
  actors::take_facts(out.drives[0], facts);
  out.drives[1].state = drive_state::offline;
  out.drives[1].reason = "a write or flush failed on /dev/nvme1n1";
  out.drives[1].failure_count = 3;
  out.drives[1].first_failed_at = 1'738'800'000;
  out.drives[1].last_failed_at = 1'738'810'000;
  out.drives[2].state = drive_state::resetting;
  out.drives[2].reset_secure = true;
  out.drives[2].reset_done_bytes = gib;
  out.drives[2].reset_total_bytes = 4 * gib;

  out.rdma_active = true;
  auto& rail = out.rails.emplace_back();
  rail.device = "mlx5_0";
  rail.state = actors::rail_state::online;
  actors::dci_pool_facts pool;
  pool.dc = true;
  pool.sessions = 2;
  pool.connections = 1;
  pool.queue_pairs = 8;
  pool.reachable_bytes = gib;
  pool.counters.fetched = 4;
  pool.counters.fetched_bytes = 16 << 20;
  pool.counters.reports[11] = 1;
  actors::take_facts(out, rail, pool);

  out.actors.push_back({"drive-0", 1, true, true, 20'000, 4});
  out.actors.push_back({"drive-1", 2, false, false, 0, 0});
  out.actors.push_back({"server", 0, true, true, 10'000, 0});

  actors::license_report license;
  license.plan = "Enterprise";
  license.organization = "Example";
  license.source = "MEMKV_LICENSE";
  license.expires_at = 1'766'312'000;
  license.days_left = 30;
  license.valid = true;
  out.license = license;

  out.pool.chunks = 512;
  out.pool.chunks_in_use = 2;
  out.pool.chunks_in_use_most = 4;
  out.pool.chunks_touched = 8;
  out.pool_bytes = gib;
  out.pool_chunk_bytes = 2 << 20;
  out.connections = 2;
  out.connections_max = 16'384;
  return out;
}

/// The same as it is gathered; nobody is silent.
[[nodiscard]] inline actors::gathered full_gathering() {
  return {std::make_shared<const actors::server_report>(full_report()), {}};
}

} // namespace memkv::test
