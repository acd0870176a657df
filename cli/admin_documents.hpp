// The documents of the administration endpoint as memkv admin reads them (docs/admin-api.md).
//
// The peer is not trusted: a document that is too deep, has a member of a wrong type, or lacks one that it
// must have is a problem; a member nobody knows is skipped. All texts are printable afterwards, whatever
// came.
//
// Threading: pure functions. Ownership: values. Errors: one sentence, empty when all is well.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

struct health_document {
  std::string status; // healthy, degraded, unhealthy
  std::vector<std::string> reasons;
  std::optional<bool> rdma_active;
  std::optional<std::uint64_t> drives_online;
  std::optional<std::uint64_t> drives_total;
};

struct reset_progress {
  bool secure = false;
  std::uint64_t done_bytes = 0;
  std::uint64_t total_bytes = 0;
};

struct device_entry {
  std::uint64_t device_id = 0;
  std::string media;
  std::string model;
  std::string state;
  std::string reason;
  std::optional<std::uint64_t> raw_bytes; // these four: only while the drive is open
  std::optional<std::uint64_t> usable_bytes;
  std::optional<std::uint64_t> used_bytes;
  std::optional<std::uint64_t> blocks;
  std::optional<std::uint64_t> failure_count; // none: its server does not know
  bool blacklisted = false;
  std::optional<reset_progress> reset;
  std::string reset_problem; // of the last one; empty: it ended well, or there was none
};

struct actor_entry {
  std::string name;
  bool alive = true;
  bool answered = true;
  std::uint64_t mailbox = 0;
  std::uint64_t restarts = 0;
};

struct licence_entry {
  bool valid = false;
  std::string plan;
  std::string organization;
  std::string source;
  std::optional<std::uint64_t> days_left;
  bool development = false;
};

struct memory_entry {
  std::uint64_t pool_bytes = 0;
  std::uint64_t pool_used_bytes = 0;
  std::optional<std::uint64_t> resident_bytes;
  bool huge_pages = false;
};

struct status_document {
  std::string status;
  std::vector<std::string> reasons;
  std::string version;
  std::string server_id; // 32 hexadecimal digits; empty: it has not said so
  std::string phase;
  std::optional<double> uptime_seconds;
  bool fault_injection = false;
  std::string mode;
  std::uint64_t raw_bytes_total = 0;
  std::uint64_t usable_bytes_total = 0;
  std::uint64_t used_bytes_total = 0;
  std::uint64_t blocks_total = 0;
  std::optional<std::uint64_t> drives_online;
  std::optional<std::uint64_t> drives_total;
  std::optional<licence_entry> licence;
  std::optional<memory_entry> memory;
  bool rdma_active = false;
  std::uint64_t rdma_connections = 0;
  std::optional<std::uint64_t> rdma_sessions;
  std::optional<std::uint64_t> connections;
  std::vector<device_entry> devices;
  std::vector<actor_entry> actors;
};

struct failed_drive_entry {
  std::uint64_t device_id = 0;
  std::optional<std::uint64_t> failure_count;   // of these three none: its server does not know
  std::optional<std::uint64_t> first_failed_at; // seconds since 1970; 0: never
  std::optional<std::uint64_t> last_failed_at;
  bool blacklisted = false;
  std::string state;
  std::string reason;
  std::string media;
};

[[nodiscard]] std::string read_health(std::string_view text, health_document& document);
[[nodiscard]] std::string read_status(std::string_view text, status_document& document);
[[nodiscard]] std::string read_failed_drives(std::string_view text, std::vector<failed_drive_entry>& drives);

/// What an answer of 400 or more says: its `error`, the actors that are silent, or its own words if they are
/// short. Empty when it says nothing fit for a line.
[[nodiscard]] std::string read_refusal(std::string_view text);

} // namespace memkv::cli
