// What the connections of one client have in common. Internal to client/.
//
// Threading: constant after construction, except for the atomics and what `mutex` guards.
#pragma once

#include "client/name_lookup.hpp"
#include "client/options.hpp"
#include "client/rdma_core.hpp"
#include "client/read_cache.hpp"
#include "wire/auth.hpp"
#include "wire/frame_gatherer.hpp"
#include "wire/key_id.hpp"
#include "wire/limits.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace memkv::client {

class connection;

struct atomic_counters {
  std::atomic<std::uint64_t> connections_opened{0};
  std::atomic<std::uint64_t> connections_failed{0};
  std::atomic<std::uint64_t> connections_lost{0};
  std::atomic<std::uint64_t> connections_closed_by_check{0};
  std::atomic<std::uint64_t> connections_closed_by_deadline{0};
  std::atomic<std::uint64_t> requests_retried{0};
  std::atomic<std::uint64_t> busy_retried{0};
  std::atomic<std::uint64_t> bytes_sent{0};
  std::atomic<std::uint64_t> bytes_received{0};
};

/// What is the same for all servers.
struct shared_state {
  explicit shared_state(options wanted);

  const options chosen;
  const wire::mac frame_mac;
  const wire::ns_name ns;
  std::vector<socket_address> bind_to;
  std::atomic<std::uint32_t> next_bind{0};
  read_cache cache;
  wire::header_budget headers; // of replies whose headers are not complete
  atomic_counters counted;
  std::shared_ptr<rdma_core> rdma; // none: TCP only
  const bool messages;             // small requests go as such, where RDMA is
  const std::int64_t spin_ns_max;  // looking for a message before sleeping

  /// The local address for the next connection to an address of this family; null when `bind_to` has none.
  [[nodiscard]] const socket_address* next_local(sa_family_t family) noexcept;
  /// A number for jitter.
  [[nodiscard]] std::uint64_t random() noexcept;
  void log(const std::string& line) const noexcept;

private:
  std::mutex mutex_;
  std::uint64_t random_state_;
};

/// One server: its address, whether it is down, and what its last Hello said.
struct server {
  /// `full_name`: normalised host:port.
  explicit server(const std::string& full_name);

  const std::string name;
  name_lookup lookup;

  // Limits the server announced; those of the protocol until it did.
  std::atomic<std::uint64_t> value_bytes_max{wire::limits::value_bytes_max};
  std::atomic<std::uint32_t> batch_items_max{wire::limits::batch_items_max};
  std::atomic<std::uint32_t> batch_payload_bytes_max{wire::limits::batch_payload_bytes_max};

  std::atomic<bool> rdma_dc_refused{false}; // it wants RC queue pairs

  std::atomic<std::int64_t> down_until_ns{0}; // steady clock; no connecting before
  std::atomic<errc> down_reason{errc::ok};

  std::vector<std::unique_ptr<connection>> connections;

  /// A connection could not be made: requests fail at once until the back-off is over.
  void note_failure(shared_state& shared, errc reason, std::int64_t now_ns);
  void note_success();

private:
  std::mutex mutex_;
  std::uint32_t back_off_ms_ = 0;
};

/// The address of a local interface without a port. False: no address, or none that this host can use.
[[nodiscard]] bool parse_local_address(const std::string& text, socket_address& result);

} // namespace memkv::client
