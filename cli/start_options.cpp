#include "cli/start_options.hpp"

#include "wire/assert.hpp"

namespace memkv::cli {

actors::server_options server_options_of(const server_config& config, std::uint64_t write_timing_s) {
  const bool memory = config.storage.mode == storage_mode::memory;
  const bool raw = config.storage.mode == storage_mode::direct;
  MEMKV_ASSERT(config.storage.mode != storage_mode::unset, "the mode was checked before");
  MEMKV_ASSERT(config.network.auth_key, "validate() refuses a configuration without a key");

  actors::server_options options;
  options.host = config.network.host;
  options.port = config.network.port;
  options.key = std::make_shared<const wire::shared_key>(*config.network.auth_key);
  if (config.network.previous_key)
    options.previous_key = std::make_shared<const wire::shared_key>(*config.network.previous_key);
  options.require_keyed_digest = config.network.require_keyed_digest;
  options.limits.connections_max = config.network.max_connections;
  options.limits.connections_per_address_max = config.network.max_connections_per_address;
  options.limits.value_bytes_max = config.network.max_value_bytes;
  options.limits.idle_timeout_ms = config.network.idle_timeout_ms;
  options.socket_buffer_bytes = config.network.socket_buffer_bytes;
  options.reactors = config.network.reactors;
  options.pool_bytes = config.memory.max_bytes;
  options.pool_chunk_bytes = config.memory.block_bytes;
  const auto& rdma = config.rdma;
  options.rdma.devices = rdma.devices;
  if (!rdma.device.empty())
    options.rdma.devices = {rdma.device};
  options.rdma.threads = rdma.num_worker_threads.value_or(options.rdma.threads);
  options.rdma.initiators = rdma.num_dcis.value_or(options.rdma.initiators);
  options.rdma.path.gid_index = rdma.gid_index;
  options.rdma.path.mtu_bytes = rdma.mtu;
  // The reader keeps both to what fits.
  if (rdma.traffic_class)
    options.rdma.path.traffic_class = static_cast<std::uint8_t>(*rdma.traffic_class);
  if (rdma.service_level)
    options.rdma.path.service_level = static_cast<std::uint8_t>(*rdma.service_level);
  for (const auto& drive : config.storage.drives)
    options.drives.push_back({.memory = memory,
                              .raw = raw,
                              .path = memory ? std::string{} : drive.media,
                              .size_bytes = drive.max_size_bytes});
  options.store.unit_bytes = config.storage.shard_bytes;
  options.store.extent_bytes_max = config.storage.block_bytes;
  options.store.sync = raw || config.storage.sync == sync_mode::always ? engine::sync_policy::always
                                                                       : engine::sync_policy::never;
  options.store.persistent = !memory;
  options.store.verify_on_read = config.storage.verify_on_read;
  options.store.eviction = config.storage.eviction_enabled;
  options.store.high_watermark = config.storage.eviction_high_percent / 100.0;
  options.store.low_watermark = config.storage.eviction_low_percent / 100.0;
  options.flap_threshold = config.storage.flap_threshold;
  options.write_timing_interval_s = write_timing_s;
  return options;
}

bool may_inject_faults(bool development_license, bool forced) noexcept {
  return development_license || forced;
}

log_choice choose_log(const server_config& config, const std::optional<std::string>& level_flag,
                      const std::string& file, const std::optional<std::string>& rust_log) {
  log_choice choice;
  choice.settings.how = config.logging.format == log_format::json ? log::format::json : log::format::text;
  if (file != "none")
    choice.settings.file = file;
  std::string problem;
  if (level_flag) {
    if (!log::filter::parse(*level_flag, choice.settings.what, problem))
      choice.problem = "--log-level cannot be used because " + problem;
  } else if (config.logging.level) {
    if (!log::filter::parse(*config.logging.level, choice.settings.what, problem))
      choice.problem = "logging.level cannot be used because " + problem;
  } else if (rust_log && !rust_log->empty()) {
    if (!log::filter::parse(*rust_log, choice.settings.what, problem))
      choice.warning = "RUST_LOG is ignored because " + problem;
  }
  return choice;
}

} // namespace memkv::cli
