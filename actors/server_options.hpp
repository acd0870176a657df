// What a running server needs to know. cli/config makes it from YAML; tests make it by hand.
#pragma once

#include "actors/license_watch.hpp"
#include "engine/clock.hpp"
#include "engine/drive_set.hpp"
#include "engine/drive_store.hpp"
#include "engine/failure_registry.hpp"
#include "engine/open_drive.hpp"
#include "verbs/fabric.hpp"
#include "wire/auth.hpp"
#include "wire/limits.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace memkv::actors {

struct fault_points;

struct connection_limits {
  std::uint32_t connections_max = 16'384;
  std::uint32_t connections_per_address_max = 1'024;
  std::uint32_t unauthenticated_max = 1'024;
  std::uint64_t value_bytes_max = wire::limits::value_bytes_max;
  std::uint64_t header_budget_bytes = wire::limits::header_budget_bytes_default;
  std::uint32_t idle_timeout_ms = wire::limits::idle_timeout_ms;
  std::uint32_t handshake_ms = wire::limits::handshake_ms_max;
  std::uint32_t header_ms = wire::limits::header_ms_max;
  std::uint32_t payload_grace_ms = wire::limits::payload_grace_ms;
  std::uint32_t write_ms = wire::limits::write_ms_max;
  std::uint32_t request_ms = wire::limits::request_ms_max;
};

struct rdma_options {
  std::vector<std::string> devices;    // empty: no RDMA
  std::uint32_t threads = 1;           // DCI POOLs of each device
  std::uint32_t initiators = 8;        // of each of them, where the device has DC
  std::uint32_t sessions_max = 65'536; // of each of them
  verbs::path_wishes path;
  /// Opens a device, in the thread of the pool that wants it, each time anew. Empty: through libibverbs.
  std::function<verbs::status(const std::string& device, std::unique_ptr<verbs::fabric>& out,
                              std::vector<std::string>& warnings)>
      open;
  [[nodiscard]] std::uint32_t rails() const noexcept {
    return static_cast<std::uint32_t>(devices.size()) * threads;
  }
};

struct server_options {
  std::string host = "0.0.0.0"; // numeric IPv4 or IPv6
  std::uint16_t port = 9900;    // 0: any free one (tests)
  /// Called when the data port is bound and before any drive is opened: binds what belongs beside it. False
  /// and a sentence: it cannot; of port 0 another one is tried then.
  std::function<bool(std::uint16_t port, std::string& problem)> beside;
  std::shared_ptr<const wire::shared_key> key;
  std::shared_ptr<const wire::shared_key> previous_key; // accepted beside it while keys are changed, or null
  bool require_keyed_digest = false;
  connection_limits limits;
  std::uint32_t socket_buffer_bytes = 0; // 0 = automatic
  std::uint32_t reactors = 0;            // 0 = automatic
  std::uint64_t pool_bytes = std::uint64_t{1} << 30;
  std::uint64_t pool_chunk_bytes = 2 << 20;
  rdma_options rdma;
  std::vector<engine::drive_description> drives;
  engine::store_options store; // identity and generation are filled in by SERVER
  engine::set_facts set;       // filled in from what lies on the drives
  /// Reads the newer superblock of a drive, in a thread of its own. Empty: engine::peek_superblock.
  std::function<std::optional<engine::superblock>(const engine::drive_description&)> peek;
  std::uint64_t peek_warning_ms = 30'000; // a start that waits for drives to be read says so that often
  /// Called when the start has failed, before it waits for what was opened to be closed; empty: nobody.
  std::function<void(const std::string& problem)> start_failed;
  /// What each drive's superblock said of its failures before it was opened; none: it could not be read, or
  /// there is none. Filled in by start_server.
  std::vector<std::optional<engine::failure_registry>> registries;
  std::uint64_t io_timeout_ms = 10'000;      // a drive that answers a request no sooner has failed
  std::uint64_t leave_after_ms = 5'000;      // offline for so long, a drive's keys go to the others
  std::uint32_t flap_threshold = 5;          // failures after which a drive stays offline
  std::uint64_t shutdown_ms = 30'000;        // open requests get half of it, the drives the rest
  std::uint64_t write_timing_interval_s = 0; // 0 = off
  bool fault_injection = false;              // orders are taken: fault_orders.hpp
  std::shared_ptr<fault_points> faults;      // null: filled in by start_server when orders are taken
  /// *Any thread.* Somebody wants the server to stop before it serves: nothing is waited for any more. Null:
  /// nobody can.
  std::function<bool()> told_to_stop;
  /// Of the licence that was found valid before the start; null: none is watched (tests).
  std::shared_ptr<license_watch> license;
  std::shared_ptr<engine::clock> time = std::make_shared<engine::system_clock>();
};

} // namespace memkv::actors
