// What a running server says of itself, all of it at one moment: what the administration endpoint, the
// metrics and the console are made of.
//
// Gathered by ADMIN GATEWAY from the actors and from what they count (admin_gateway.hpp). Counters only ever
// rise while the process lives, those of a drive included: they go on over its incarnations.
//
// Threading: values. Units: bytes; nanoseconds of the steady clock where a name ends in _ns; seconds since
// 1970-01-01 UTC where it ends in _at (0: never).
#pragma once

#include "actors/block_cache.hpp"
#include "actors/latency.hpp"
#include "engine/block_device.hpp"
#include "engine/buffer_pool.hpp"
#include "engine/drive_store.hpp"
#include "verbs/completion_status.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::actors {

enum class drive_state : std::uint8_t {
  opening,     // it is being opened and recovered
  online,      // its blocks are served
  joining,     // open, and on its way back among the others
  offline,     // it failed, and is tried again
  blacklisted, // it failed too often: only `memkv drive reset` brings it back
  resetting,   // it is being emptied
};

/// What DRIVE itself says. Counters of `store` and `io` include earlier incarnations; what was found at
/// recovery, and how long it took, is of the present one.
struct drive_facts {
  std::uint32_t index = 0;
  std::string device; // as the device calls itself: path or model
  std::uint64_t raw_bytes = 0;
  engine::store_counters store;
  engine::device_statistics io;
  std::size_t in_flight = 0; // requests in the kernel
  std::uint64_t oldest_request_ns = 0;
  std::uint64_t journal_bytes = 0; // its size
  std::uint64_t memory_bytes = 0;  // of the index and what belongs to it; looked at once a minute
  std::uint64_t trim_waiting_bytes = 0, trim_submitted_bytes = 0, trimmed_bytes = 0;
  std::uint64_t leased_bytes = 0;  // that leases keep from being evicted and reused
  bool discards = false;          // TRIM is supported and used
  std::uint64_t opened_in_ns = 0; // how long opening and recovery took
  /// Age of the last block that was evicted, since it was stored; 0: none was.
  std::uint64_t evicted_age_ns = 0;
};

/// A drive as SERVER sees it.
struct drive_report {
  std::uint32_t index = 0;
  std::string media; // as configured
  drive_state state = drive_state::opening;
  std::string reason; // why it is not online
  bool failures_known = true; // false: the drive has not been open, and its registry could not be read
  std::uint32_t failure_count = 0;
  std::uint64_t first_failed_at = 0, last_failed_at = 0;
  bool member = true; // keys are placed on it
  /// While it is reset: how much of the data region was overwritten.
  std::uint64_t reset_done_bytes = 0, reset_total_bytes = 0;
  bool reset_secure = false;
  std::string reset_problem;             // why the last reset did not end well; empty: it did, or none began
  std::optional<drive_facts> facts;      // while it is open
  latency_series reads, writes, flushes; // requests of the device, in the kernel
};

/// Makes `facts` part of what is said about the drive, its latencies included.
void take_facts(drive_report& drive, const drive_facts& facts);

/// What was done on one rail since the start, by all DCI POOLs that served it one after the other.
struct rail_counters {
  std::uint64_t attached = 0, broken = 0; // sessions; broken: by an error of the transport
  // Transfers, by outcome. The bytes are those of the ones that were done.
  std::uint64_t fetched = 0, fetched_bytes = 0, placed = 0, placed_bytes = 0;
  std::uint64_t retryable = 0, refused = 0, deadline_exceeded = 0, session_ended = 0, internal = 0;
  std::uint64_t doorbells = 0;
  std::uint64_t rebuilt = 0;   // queue pairs walked back or made anew
  std::uint64_t destroyed = 0; // queue pairs that would not drain or not recover
  std::array<std::uint64_t, verbs::completion_status_last + 1> reports{}; // of the device, by status

  rail_counters& operator+=(const rail_counters& other) noexcept;
  /// For example "retry_exceeded".
  [[nodiscard]] static std::string_view status_name(std::size_t index) noexcept;
};

/// What DCI POOL itself says.
struct dci_pool_facts {
  std::uint32_t rail = 0;
  std::string device; // as the driver calls it
  bool rc = false, dc = false;
  std::uint64_t sessions = 0;           // attached, those that are ending included
  std::uint64_t attaching = 0;          // clients to whom the way is being looked for
  std::uint64_t connections = 0;        // that have some
  std::uint64_t queue_pairs = 0;        // that are ready
  std::uint64_t queued = 0, posted = 0; // transfers
  std::uint64_t reachable_bytes = 0;    // of this machine's memory
  rail_counters counters;               // earlier pools included
};

enum class rail_state : std::uint8_t {
  opening, // its device is being opened
  online,  // sessions can be attached
  offline, // it failed, and is tried again
};

/// One rail as SERVER sees it.
struct rail_report {
  std::uint32_t rail = 0;
  std::string device; // as configured
  rail_state state = rail_state::opening;
  std::string reason;                  // why it is not online
  std::optional<dci_pool_facts> facts; // while it is online
  rail_counters counters;
};

struct actor_report {
  std::string name; // "server", "drive-0", …
  std::uint64_t restarts = 0;
  bool alive = false;
  bool answered = false; // within the deadline of this report
  std::uint64_t answered_in_ns = 0;
  std::size_t mailbox = 0; // messages that waited behind the question
};

/// Sums over all REACTORs, those that died included.
struct request_report {
  std::uint64_t reads = 0, read_bytes = 0, read_misses = 0;
  std::uint64_t writes = 0, write_bytes = 0, write_failures = 0;
  std::uint64_t deletes = 0, exists_keys = 0, prefixes = 0, frames = 0;
  std::uint64_t digest_mismatches = 0, corrupt_blocks = 0, deadlines_exceeded = 0, busy = 0;
  std::uint64_t incomplete_blocks = 0;            // dropped: a part of a striped block was gone for good
  std::uint64_t wrong_version = 0, malformed = 0; // frames
  std::uint64_t dropped_stale = 0, dropped_replayed = 0;
  std::vector<std::pair<std::string, std::uint64_t>> closed;              // connections, by reason
  std::vector<std::pair<std::string, std::uint64_t>> queue_pairs_refused; // by reason
  std::uint64_t values_expired = 0, leases_expired = 0; // under tokens of queue pairs
  std::uint64_t values_refused = 0, leases_refused = 0; // tokens that were not given
};

struct license_report {
  std::string plan, organization, source;
  std::uint64_t expires_at = 0;
  std::int64_t days_left = 0;
  bool development = false;
  bool valid = false;
};

struct server_report {
  // SERVER
  std::string phase;   // "opening", "starting", "serving", "stopping"
  std::string address; // of the data port
  std::array<std::byte, 16> set_id{};
  std::uint64_t started_at = 0, uptime_ns = 0;
  std::uint64_t now_ns = 0; // since 1970-01-01 UTC
  bool fault_injection = false;
  std::vector<drive_report> drives;
  std::vector<actor_report> actors; // in the order of their names
  std::optional<license_report> license;

  // Configuration that an operator wants to see beside the figures.
  std::string storage_mode; // "direct", "file", "memory"
  std::uint64_t block_size = 0, shard_size = 0;
  bool eviction = false;
  double high_watermark = 0, low_watermark = 0;

  // What is shared.
  engine::buffer_pool_statistics pool;
  std::uint64_t pool_bytes = 0, pool_chunk_bytes = 0;
  std::uint64_t requests_waiting_for_room = 0;
  block_cache_statistics cache;
  std::uint64_t resident_bytes = 0; // of the process

  // Network
  std::uint32_t connections = 0, connections_unauthenticated = 0, connections_max = 0;
  std::uint64_t connections_accepted = 0, connections_refused = 0;
  std::uint64_t sessions = 0, requests_open = 0, held_bytes = 0;
  std::uint64_t values_open = 0, leases_open = 0; // under tokens of queue pairs
  bool rdma_active = false;                       // a rail is online
  std::vector<rail_report> rails;     // none: RDMA is not configured
  std::uint64_t rdma_connections = 0; // that have sessions, counted once for each rail

  request_report requests;
  /// Time of requests by operation and stage.
  std::vector<latency_series> latencies;

  // Log
  std::array<std::uint64_t, 5> log_lines{};
  std::uint64_t log_lines_lost = 0;

  // Sums over the drives that are open.
  [[nodiscard]] std::uint32_t drives_online() const noexcept;
  [[nodiscard]] std::uint64_t blocks() const noexcept;
  [[nodiscard]] std::uint64_t raw_bytes() const noexcept;
  [[nodiscard]] std::uint64_t usable_bytes() const noexcept;
  [[nodiscard]] std::uint64_t used_bytes() const noexcept;
};

/// Makes `facts` part of what is said about the rail, and of the sums over all rails.
void take_facts(server_report& report, rail_report& rail, const dci_pool_facts& facts);

/// Of a report: "healthy": everything serves; "degraded": a drive or a rail is not online, or an actor that
/// should be there is not; "unhealthy": no drive is online, or the server is not serving.
enum class health : std::uint8_t { healthy, degraded, unhealthy };
[[nodiscard]] health health_of(const server_report& report) noexcept;

} // namespace memkv::actors
