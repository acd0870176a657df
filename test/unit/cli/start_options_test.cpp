// What reaches the server of what the user wrote, and which log filter counts.
#define CAF_SUITE start_options
#include "cli/start_options.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::cli;

namespace {

server_config with_key() {
  server_config config;
  config.network.auth_key =
      wire::shared_key::parse("0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321");
  config.storage.mode = storage_mode::file;
  config.storage.drives = {{"/d0", 5}, {"/d1", 6}};
  return config;
}

} // namespace

CAF_TEST(one device alone has one rail and none has none) {
  auto config = with_key();
  CAF_CHECK_EQUAL(server_options_of(config, 0).rdma.rails(), 0u);
  config.rdma.device = "mlx5_3";
  const auto rdma = server_options_of(config, 0).rdma;
  CAF_CHECK(rdma.devices == std::vector<std::string>{"mlx5_3"});
  CAF_CHECK_EQUAL(rdma.rails(), 1u);
  CAF_CHECK(!rdma.path.mtu_bytes && !rdma.path.traffic_class);
}

CAF_TEST(every setting reaches the server) {
  auto config = with_key();
  config.network.host = "::1";
  config.network.port = 7001;
  config.network.require_keyed_digest = true;
  config.network.max_connections = 11;
  config.network.max_connections_per_address = 7;
  config.network.max_value_bytes = 12345;
  config.network.idle_timeout_ms = 777;
  config.network.socket_buffer_bytes = 8192;
  config.network.reactors = 3;
  config.memory.max_bytes = 1 << 25;
  config.memory.block_bytes = 1 << 16;
  config.storage.shard_bytes = 4096;
  config.storage.block_bytes = 1 << 20;
  config.storage.sync = sync_mode::always;
  config.storage.verify_on_read = false;
  config.storage.eviction_enabled = false;
  config.storage.eviction_high_percent = 80;
  config.storage.eviction_low_percent = 60;
  config.storage.flap_threshold = 9;
  config.rdma.devices = {"mlx5_0", "mlx5_1"};
  config.rdma.num_worker_threads = 3;
  config.rdma.num_dcis = 12;
  config.rdma.gid_index = 5;
  config.rdma.traffic_class = 104;
  config.rdma.service_level = 4;
  config.rdma.mtu = 2048;
  const auto options = server_options_of(config, 42);
  CAF_CHECK_EQUAL(options.host, "::1");
  CAF_CHECK_EQUAL(options.port, 7001);
  CAF_REQUIRE(options.key != nullptr);
  CAF_CHECK(options.key->hex_digits() == config.network.auth_key->hex_digits());
  CAF_CHECK(options.require_keyed_digest);
  CAF_CHECK_EQUAL(options.limits.connections_max, 11u);
  CAF_CHECK_EQUAL(options.limits.connections_per_address_max, 7u);
  CAF_CHECK_EQUAL(options.limits.value_bytes_max, 12345u);
  CAF_CHECK_EQUAL(options.limits.idle_timeout_ms, 777u);
  CAF_CHECK_EQUAL(options.socket_buffer_bytes, 8192u);
  CAF_CHECK_EQUAL(options.reactors, 3u);
  CAF_CHECK_EQUAL(options.pool_bytes, 1u << 25);
  CAF_CHECK_EQUAL(options.pool_chunk_bytes, 1u << 16);
  CAF_CHECK(options.rdma.devices == config.rdma.devices);
  CAF_CHECK_EQUAL(options.rdma.threads, 3u);
  CAF_CHECK_EQUAL(options.rdma.rails(), 6u);
  CAF_CHECK_EQUAL(options.rdma.initiators, 12u);
  CAF_CHECK_EQUAL(options.rdma.path.gid_index.value_or(0), 5u);
  CAF_CHECK_EQUAL(options.rdma.path.traffic_class.value_or(0), 104);
  CAF_CHECK_EQUAL(options.rdma.path.service_level.value_or(0), 4);
  CAF_CHECK_EQUAL(options.rdma.path.mtu_bytes.value_or(0), 2048u);
  CAF_CHECK_EQUAL(options.store.unit_bytes, 4096u);
  CAF_CHECK_EQUAL(options.store.extent_bytes_max, 1u << 20);
  CAF_CHECK(options.store.sync == engine::sync_policy::always);
  CAF_CHECK(options.store.persistent);
  CAF_CHECK(!options.store.verify_on_read);
  CAF_CHECK(!options.store.eviction);
  CAF_CHECK(options.store.high_watermark > 0.799 && options.store.high_watermark < 0.801);
  CAF_CHECK(options.store.low_watermark > 0.599 && options.store.low_watermark < 0.601);
  CAF_CHECK_EQUAL(options.flap_threshold, 9u);
  CAF_CHECK_EQUAL(options.write_timing_interval_s, 42u);
  CAF_REQUIRE_EQUAL(options.drives.size(), 2u);
  CAF_CHECK(!options.drives[1].memory);
  CAF_CHECK_EQUAL(options.drives[1].path, "/d1");
  CAF_CHECK_EQUAL(options.drives[1].size_bytes, 6u);
}

CAF_TEST(memory drives have no path and are not kept) {
  auto config = with_key();
  config.storage.mode = storage_mode::memory;
  config.storage.drives = {{"memory", 5}};
  const auto options = server_options_of(config, 0);
  CAF_CHECK(!options.store.persistent);
  CAF_CHECK(options.drives[0].memory);
  CAF_CHECK_EQUAL(options.drives[0].path, "");
  CAF_CHECK_EQUAL(options.write_timing_interval_s, 0u);
}

CAF_TEST(the flag wins over the configuration and that over the environment) {
  auto config = with_key();
  const auto lowest = [&config](std::optional<std::string> flag, std::optional<std::string> variable) {
    const auto choice = choose_log(config, flag, "memkv.log", variable);
    CAF_CHECK_EQUAL(choice.problem, "");
    return choice.settings.what.lowest();
  };
  CAF_CHECK(lowest(std::nullopt, std::nullopt) == log::level::info);
  CAF_CHECK(lowest(std::nullopt, "debug") == log::level::debug);
  CAF_CHECK(lowest(std::nullopt, "") == log::level::info);
  config.logging.level = "warn";
  CAF_CHECK(lowest(std::nullopt, "debug") == log::level::warn);
  CAF_CHECK(lowest("trace", "debug") == log::level::trace);
}

CAF_TEST(a filter that cannot be read is refused unless it is the shared variable) {
  const auto config = with_key();
  CAF_CHECK(choose_log(config, "loud", "none", std::nullopt)
                .problem.starts_with("--log-level cannot be used because"));
  const auto choice = choose_log(config, std::nullopt, "none", "hyper[span]=x");
  CAF_CHECK_EQUAL(choice.problem, "");
  CAF_CHECK(choice.warning.starts_with("RUST_LOG is ignored because"));
  CAF_CHECK(choice.settings.what.lowest() == log::level::info);
}

CAF_TEST(the log goes to the file or with none to standard error) {
  auto config = with_key();
  CAF_CHECK_EQUAL(choose_log(config, std::nullopt, "memkv.log", std::nullopt).settings.file, "memkv.log");
  CAF_CHECK_EQUAL(choose_log(config, std::nullopt, "none", std::nullopt).settings.file, "");
  CAF_CHECK(choose_log(config, std::nullopt, "none", std::nullopt).settings.how == log::format::text);
  config.logging.format = log_format::json;
  CAF_CHECK(choose_log(config, std::nullopt, "none", std::nullopt).settings.how == log::format::json);
}

CAF_TEST(faults are injected with a development license or by force) {
  CAF_CHECK(may_inject_faults(true, false));
  CAF_CHECK(may_inject_faults(true, true));
  CAF_CHECK(!may_inject_faults(false, false));
  CAF_CHECK(may_inject_faults(false, true));
}
