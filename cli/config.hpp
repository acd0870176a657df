// The configuration of `memkv start`: YAML in, one plain struct out. Strict: whatever is not understood is
// refused.
//
// docs/configuration.md names every key; its table is made from config_keys(), the same table the reader
// works by.
//
// Threading: plain data and pure functions, except load_config, which reads a file.
// Ownership: values. The authentication key is wiped when the struct dies.
// Errors:    a config_problem with line, full key path and one sentence that says what to do. No message
// repeats a
//            value of a secret.
// Not here:  what the machine has (see machine.hpp), and what the server does with the values.
#pragma once

#include "cli/config_tree.hpp"
#include "wire/auth.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

enum class storage_mode : std::uint8_t { unset, direct, file, memory };
enum class sync_mode : std::uint8_t { unset, never, always };
enum class log_format : std::uint8_t { text, json };

struct drive_config {
  std::string media;                // path, or "memory" in memory mode
  std::uint64_t max_size_bytes = 0; // 0: not given (only direct mode may)
};

struct server_config {
  struct {
    std::string host = "0.0.0.0"; // numeric IPv4 or IPv6, without brackets
    std::uint16_t port = 9900;    // 0: any free one
    std::string tls_cert;
    std::string tls_key;
    std::optional<wire::shared_key> auth_key;     // required
    std::optional<wire::shared_key> previous_key; // accepted beside auth_key while keys are changed
    bool require_keyed_digest = false;
    bool admin_open = false;
    std::uint32_t max_connections = 16'384;
    std::uint32_t max_connections_per_address = 1'024;
    std::uint64_t max_value_bytes = std::uint64_t{1} << 30;
    std::uint32_t reactors = 0;            // 0: as many as the machine suggests
    std::uint32_t socket_buffer_bytes = 0; // 0: automatic
    std::uint32_t idle_timeout_ms = 300'000;
  } network;

  struct {
    std::uint64_t block_bytes = std::uint64_t{2} << 20; // one piece of the pool
    std::uint64_t max_bytes = std::uint64_t{1} << 30;   // the pool
  } memory;

  struct {
    std::string device;
    std::vector<std::string> devices;
    std::optional<std::uint32_t> num_worker_threads, num_dcis, gid_index, traffic_class, service_level, mtu;
  } rdma;

  struct {
    storage_mode mode = storage_mode::unset;
    std::uint32_t block_bytes = 4U << 20;  // largest extent
    std::uint32_t shard_bytes = 64U << 10; // unit of space
    std::vector<drive_config> drives;
    bool eviction_enabled = true;
    std::uint32_t eviction_high_percent = 95;
    std::uint32_t eviction_low_percent = 90;
    std::uint32_t flap_threshold = 5;
    bool verify_on_read = true;
    sync_mode sync = sync_mode::unset; // unset: never in file mode, always in direct mode
  } storage;

  struct {
    std::optional<std::string> level; // unset: RUST_LOG, else info
    log_format format = log_format::text;
  } logging;

  /// What no single key can show: missing ones, and ones that contradict each other. The problem has no line.
  [[nodiscard]] config_problem validate() const;
};

/// A key that was accepted and does nothing in this build.
struct ineffective_key {
  std::string key;
  std::size_t line = 0;
  std::string reason; // "it is not part of this build"
};

struct config_result {
  server_config config;
  config_problem problem; // when it is not ok, the rest means nothing
  std::vector<ineffective_key> not_in_effect;
  std::vector<std::string> warnings; // sentences

  [[nodiscard]] bool ok() const noexcept { return problem.ok(); }
};

/// What the environment may say, so that tests need not change theirs.
struct config_environment {
  std::optional<std::string>
      auth_key; // MEMKV_AUTH_KEY; wins over network.auth_key; an empty one counts as unset
};

/// Reads a text, applies the environment, validates.
[[nodiscard]] config_result parse_config(std::string_view text, const config_environment& environment);

/// The same for a file. Warns when it holds a key and others than its owner may read it.
[[nodiscard]] config_result load_config(const std::string& path, const config_environment& environment);

/// The problem of a file as one sentence: "/etc/memkv/config.yaml, line 7: storage.mode must be ...".
[[nodiscard]] std::string describe(std::string_view path, const config_problem& problem);

/// A key, as documentation shows it.
struct config_key {
  std::string_view path; // list items are written []
  std::string_view type;
  std::string_view default_text;
  std::string_view help;
  std::string_view ineffective; // why it does nothing in this build; empty: it is in effect
};

[[nodiscard]] std::span<const config_key> config_keys() noexcept;

/// The table of all keys, as it stands in docs/configuration.md.
[[nodiscard]] std::string config_keys_markdown();

} // namespace memkv::cli
