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
#include "client/rdma_core.hpp"
#include "client/read_cache.hpp"
#include "client/waiter.hpp"
#include "wire/reply_reader.hpp"

#include <algorithm>
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
  batch_write, // over RDMA, as batch_read
  batch_read,
  attach, // the connection's own, as those that follow, and ping
  detach,
  connect, // asks for a queue pair of messages
};

struct operation;

struct request {
  operation* owner = nullptr; // none: the connection's own
  request_kind kind = request_kind::ping;
  /// Positions in the operation's arrays; one for single requests. What was answered Busy keeps these items.
  std::vector<std::uint32_t> items;
  std::int64_t deadline_ns = 0; // steady clock
  std::uint32_t server_index = 0;
  std::uint8_t attempts = 0;       // how often it was written completely or in part, since the last answer
  std::uint8_t busy_answers = 0;   // how often it was asked again after an answer of Busy
  std::int64_t pause_until_ns = 0; // steady clock, after such an answer

  // Since it was written:
  wire::open_request open;
  std::uint64_t value_length = 0;      // single gets: as the first part said
  std::uint64_t generation = 0;        // single gets: as the first part said
  std::uint64_t received_bytes = 0;    // single gets
  std::vector<std::uint64_t> received; // batch gets: bytes of each item; item_done once its last slice came
  std::byte overflow{};                // stands in for an empty target

  // Over RDMA:
  bool staged = false;          // its values travel through the staging area
  staging_run run;              // while it is open
  std::uint64_t session_id = 0; // detach: the server's; attach and connect: ours
  bool by_message = false;      // it was sent on the queue pair of messages
  std::int64_t sent_ns = 0;     // as a message; steady clock
  /// What it became when its items had to travel over TCP. They live as long as this one.
  std::vector<std::unique_ptr<request>> replacements;

  static constexpr std::uint64_t item_done = ~std::uint64_t{0};

  [[nodiscard]] bool mutates() const noexcept {
    return kind == request_kind::put || kind == request_kind::batch_put || kind == request_kind::remove ||
           kind == request_kind::batch_remove || kind == request_kind::batch_write;
  }
  [[nodiscard]] bool uses_rdma() const noexcept {
    return kind == request_kind::batch_write || kind == request_kind::batch_read;
  }
  /// Forgets what an earlier attempt received.
  void start_over() noexcept;
};

struct operation {
  operation() = default;
  operation(const operation&) = delete;
  operation& operator=(const operation&) = delete;
  ~operation() { let_go_of_memory(); }

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

  // Registered memory that the items lie in. It stays registered until the operation lets go of it.
  std::vector<std::shared_ptr<registration>> used;
  std::vector<std::uint32_t>
      memory_of; // of the items, when `used` is not empty: position there, or not_registered

  /// Gets that want what another item of this operation wants: they are given a copy.
  struct follower {
    std::uint32_t item = 0;
    std::uint32_t leader = 0;
  };
  std::vector<follower> followers;

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

  static constexpr std::uint32_t not_registered = ~std::uint32_t{0};
  /// The registered memory of one item's value or target; null when it lies outside.
  [[nodiscard]] const registration* memory_at(std::uint32_t item) const noexcept {
    return memory_of.empty() || memory_of[item] == not_registered ? nullptr : used[memory_of[item]].get();
  }
  [[nodiscard]] bool in_device_memory(std::uint32_t item) const noexcept {
    const registration* const memory = memory_at(item);
    return memory != nullptr && memory->is_device_memory();
  }
  /// Length of a put's value or of a get's target.
  [[nodiscard]] std::size_t bytes_of(std::uint32_t item) const noexcept {
    return kind == operation_kind::put ? puts[item].value.size() : gets[item].target.size();
  }
  /// The same, without what of a target is certainly not needed.
  [[nodiscard]] std::uint64_t room_of(std::uint32_t item) const noexcept {
    const std::uint64_t bytes = bytes_of(item);
    return kind == operation_kind::get && gets[item].range_length != 0
               ? std::min(bytes, gets[item].range_length)
               : bytes;
  }
  [[nodiscard]] const std::byte* data_of(std::uint32_t item) const noexcept {
    return kind == operation_kind::put ? puts[item].value.data() : gets[item].target.data();
  }

  /// Sets one item's result. Reads of a server that cannot be asked become misses with a cause.
  void set_result(std::uint32_t item, errc code) noexcept;
  /// Sets the result of all items of a request that have none yet.
  void fail(request& failed, errc code) noexcept;
  /// One request less. `here` is the waiter of the calling thread. The operation may be gone afterwards.
  void complete_one(const waiter* here) noexcept;
  /// After the last request: combines, copies to followers, fills the cache, lets go of registered memory.
  void conclude() noexcept;
  /// The first result that is not ok.
  [[nodiscard]] errc first_error() const noexcept;

private:
  void give_to_followers() noexcept;
  void keep_in_cache() noexcept;
  void let_go_of_memory() noexcept;
};

/// How many bytes of a value of this length a get wants.
[[nodiscard]] inline std::uint64_t wanted_bytes(const get_item& item, std::uint64_t value_length) noexcept {
  const std::uint64_t rest = value_length - item.range_offset;
  return item.range_length == 0 ? rest : std::min(rest, item.range_length);
}

/// What a get's target can take: an empty one stands for the one byte that tells "something" from "nothing".
[[nodiscard]] inline std::uint64_t capacity_of(const get_item& item) noexcept {
  return std::max<std::uint64_t>(item.target.size(), 1);
}

/// The code of a status that a server answered.
[[nodiscard]] inline errc code_of(wire::status status) noexcept {
  return from_wire(static_cast<std::uint8_t>(status));
}

/// Whether a code means that the server could not be asked, so that a read's honest answer is a miss with
/// this cause.
[[nodiscard]] bool is_unreachable(errc code) noexcept;

} // namespace memkv::client
