// One call of the client's interface and the requests it became. Internal to client/.
//
// Life of a request: planned by the calling thread; waiting in a connection's queue (guarded by that
// connection's lock); written and open (owned by the connection's driver); complete. After the last request
// of an operation completed, a blocking operation belongs to its caller again, an asynchronous one finishes
// itself.
//
// Threading: as above; `pending` is the only member that several threads touch. Ownership: an operation owns
// its requests, the caller all it points to. Errors: in the results.
#pragma once

#include "client/client.hpp"
#include "client/read_cache.hpp"
#include "client/waiter.hpp"
#include "wire/reply_reader.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace memkv::client {

enum class operation_kind : std::uint8_t { put, get, exists, remove, lookup, prefix, stat };

/// What a request looks like on the wire.
enum class request_kind : std::uint8_t {
  put,
  get,
  remove,
  exists,
  lookup,
  stat,
  ping,
  batch_put,
  batch_get,
  batch_remove,
  batch_exists,
  prefix,
};

struct operation;

struct request {
  operation* owner = nullptr; // none: the connection's own ping
  request_kind kind = request_kind::ping;
  std::vector<std::uint32_t> items; // positions in the operation's arrays; one for single requests
  std::int64_t deadline_ns = 0;     // steady clock
  std::uint32_t server_index = 0;
  std::uint8_t attempts = 0; // how often it was written completely or in part

  // Since it was written:
  wire::open_request open;
  std::uint64_t value_length = 0;      // single gets: as the first part said
  std::uint64_t generation = 0;        // single gets: as the first part said
  std::uint64_t received_bytes = 0;    // single gets
  std::vector<std::uint64_t> received; // batch gets: bytes of each item; item_done once its last slice came
  std::byte overflow{};                // stands in for an empty target

  static constexpr std::uint64_t item_done = ~std::uint64_t{0};

  [[nodiscard]] bool mutates() const noexcept {
    return kind == request_kind::put || kind == request_kind::batch_put || kind == request_kind::remove ||
           kind == request_kind::batch_remove;
  }
  /// Forgets what an earlier attempt received.
  void start_over() noexcept;
};

struct operation {
  operation_kind kind = operation_kind::get;
  std::span<const put_item> puts;
  std::span<const get_item> gets;
  std::span<const std::string_view> keys;
  std::span<item_result> results;

  prefix_result* prefix = nullptr;
  std::span<std::uint64_t> lengths;
  std::vector<item_result> own_results; // prefix and stat keep theirs here
  std::vector<server_stat>* stats = nullptr;

  std::int64_t deadline_ns = 0;
  std::vector<wire::key_id> ids;     // of the items; only where placement or the cache needs them
  std::vector<std::uint64_t> epochs; // of the items, when the cache is on
  read_cache* cache = nullptr;       // when it is on

  std::vector<request> requests; // not changed any more once the first one is queued
  std::atomic<std::uint32_t> pending{0};

  std::shared_ptr<waiter> waiting; // blocking operations
  completion done;                 // asynchronous ones
  bool asynchronous = false;
  std::atomic<std::uint64_t>* async_open = nullptr;
  std::atomic<std::uint64_t>* async_completed = nullptr;

  [[nodiscard]] std::string_view key_of(std::uint32_t item) const noexcept {
    return kind == operation_kind::put   ? puts[item].key
           : kind == operation_kind::get ? gets[item].key
                                         : keys[item];
  }

  /// Sets one item's result. Reads of a server that cannot be asked become misses with a cause.
  void set_result(std::uint32_t item, errc code) noexcept;
  /// Sets the result of all items of a request that have none yet.
  void fail(request& failed, errc code) noexcept;
  /// One request less. `here` is the waiter of the calling thread. The operation may be gone afterwards.
  void complete_one(const waiter* here) noexcept;
  /// After the last request: combines, fills the cache.
  void conclude() noexcept;
  /// The first result that is not ok.
  [[nodiscard]] errc first_error() const noexcept;
};

/// Whether a code means that the server could not be asked, so that a read's honest answer is a miss with
/// this cause.
[[nodiscard]] bool is_unreachable(errc code) noexcept;

} // namespace memkv::client
