// What a client needs to know before it can be made, and where it comes from.
//
// Order of sources: the defaults below, then the YAML file that MEMKV_CONFIG names, then MEMKV_* in the
// environment; a later one wins. The file is strict: an unknown or repeated key, a wrong type or a value out
// of range is refused with line and key. Keys of features that this build does not have are checked and
// reported by client::notes(), not silently dropped.
//
// Threading: plain data; load_options() reads the environment, so call it before other threads change that.
// Ownership: values. Errors: status. Does not do: watch the file, or resolve names.
#pragma once

#include "client/error.hpp"
#include "wire/auth.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::verbs {
class fabric;
}

namespace memkv::client {

constexpr std::uint32_t num_connections_max = 256; // to one server
constexpr std::uint32_t connect_timeout_ms_max = 60'000;
constexpr std::uint32_t deadline_ms_max = 600'000;
constexpr std::uint32_t cache_size_mb_max = 1'048'576;
constexpr std::uint32_t socket_buffer_kb_max = 65'536;
constexpr std::uint32_t rdma_staging_mb_max = 65'536;
constexpr std::uint32_t busy_retries_max = 64;
constexpr std::size_t rdma_devices_max = 16;
constexpr std::uint32_t rdma_spin_us_max = 1'000'000;
constexpr std::size_t servers_max = 4'096;
constexpr std::size_t config_file_bytes_max = 1U << 20U;

/// How values travel. `rdma`: only over RDMA; a device that cannot be used is an error when the client is
/// made, and what fails later is an error of its items. `automatic`: over RDMA where memory is registered,
/// until the first failure of RDMA at any server; from then on over TCP, for the life of the client, with one
/// line in the log. `tcp`: no RDMA.
enum class transport_choice : std::uint8_t { automatic, rdma, tcp };
enum class digest_choice : std::uint8_t { crc32c, keyed };

struct options {
  std::vector<std::string> servers; // `host:port` or `host` (port 9900); a set, its order does not matter
  transport_choice transport = transport_choice::automatic;
  std::optional<wire::shared_key> auth_key; // required
  std::string namespace_name;               // the tenant; "" is the default namespace
  digest_choice digest = digest_choice::crc32c;

  std::uint32_t num_connections = 4;       // to each server, 1 ... 256; opened when first needed
  std::uint32_t connect_timeout_ms = 1000; // name, connecting and Hello together, 1 ... 60,000
  std::uint32_t deadline_ms = 30'000;      // of a call that names none, 1 ... 600,000
  std::vector<std::string> bind_addresses; // local addresses, used in turn by those of a family
  std::uint32_t cache_size_mb = 0;         // client-side cache of whole values; 0 = off
  std::uint32_t socket_buffer_kb = 256;    // SO_SNDBUF; 0 = leave it to the kernel (long links)

  /// How often a request is asked again that the server answered Busy, 0 ... 64. As it is, some 26 s at most.
  std::uint32_t busy_retries = 32;

  /// The licence itself, or the path of its file. Empty: MEMKV_LICENSE, AISTOR_LICENSE and MINIO_LICENSE of
  /// this process, then the well-known files (docs/license.md). Verified when a client is made.
  std::string license;
  std::string license_source; // as messages call it; may be empty

  // Only RDMA uses these.
  std::vector<std::string> rdma_devices;      // at most 16; connections use them in turn. auto: none = found
  std::optional<std::uint32_t> gid_index;     // 0 ... 255
  std::optional<std::uint32_t> traffic_class; // 0 ... 255
  std::optional<std::uint32_t> service_level; // 0 ... 15
  std::optional<std::uint32_t> mtu;           // 256, 512, 1024, 2048 or 4096
  /// Small requests go as messages of a queue pair. Not set: where more than four processors are there, since
  /// threads that have to be woken for each message make them slower than TCP.
  std::optional<bool> rdma_messages;
  /// How long a thread that waits for a message looks for it before it sleeps, at most 1,000,000. Not set: 50
  /// where more than four processors are there, else 0.
  std::optional<std::uint32_t> rdma_spin_us;
  /// Transport rdma: values outside registered memory are copied through so much of it, in steps of 2 MiB.
  std::uint32_t rdma_staging_mb = 64; // 2 ... 65,536
  /// For tests: makes the fabric of a device in place of libibverbs. A fabric is used by one thread at a
  /// time.
  std::function<status(const std::string& device, std::unique_ptr<verbs::fabric>& made)> open_fabric;

  /// Seeds the jitter of reconnecting. 0: taken from the system.
  std::uint64_t seed = 0;
  /// Receives lines that a person should see. Empty: standard error. Called from any thread.
  std::function<void(std::string_view)> log;
};

/// Looks a variable up; nullptr when it is not set. std::getenv fits.
using environment = std::function<const char*(const char*)>;

/// Adds what the text of a configuration file says to `target`. `file_name` is for messages only.
[[nodiscard]] status apply_config_text(std::string_view text, std::string_view file_name, options& target);
/// Adds what the file says.
[[nodiscard]] status apply_config_file(const std::string& path, options& target);
/// Adds what MEMKV_* says, MEMKV_CONFIG left out. A variable that is set to nothing counts as not set.
[[nodiscard]] status apply_environment(const environment& lookup, options& target);
/// The file of MEMKV_CONFIG, if any, and then the environment, on top of `target`.
[[nodiscard]] status load_options(const environment& lookup, options& target);

/// Splits a comma-separated list; blanks around entries and empty entries are dropped.
[[nodiscard]] std::vector<std::string> split_list(std::string_view text);
/// What is needed and consistent: servers, key, namespace, transport, ranges. Normalises `servers` and drops
/// repetitions.
[[nodiscard]] status validate(options& target);

} // namespace memkv::client
