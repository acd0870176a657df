// libmemkv: the client of memkv servers.
//
// Operation. A client holds up to num_connections connections to each server and opens them when they are
// first needed. Each key belongs to one server (rendezvous hashing, docs/formats/wire.md section 15). Small
// items of one call travel together in batch frames, large ones as pipelined requests of their own; payloads
// are sent from and received into the caller's memory without a copy in between, and every payload is checked
// against its digest before its item succeeds.
//
// Who does the I/O. A thread in a blocking call drives its connection itself. Only when asynchronous calls
// are open and nobody waits, the client's one background thread does. A thread may lend itself with drive().
//
// A server that is down: gets, exists, lookups and prefixes of its keys are misses (`not_found`, with the
// reason in `cause`), puts and deletes are errors, at once or at the latest at the deadline. Reconnecting is
// tried when a request wants the server and its back-off (0.1 s doubling to 5 s, with jitter) is over;
// nothing has to be restarted. A get whose connection is lost is tried once more on a new one. A put is not:
// `connection_lost` means that it may or may not have taken effect. When a deadline passes while a request is
// on its way, its connection is closed, so that nothing of it can come later; gets that shared this
// connection are tried again, puts that shared it answer `connection_lost`. The server is asked for an answer
// a little earlier than the deadline, so that this is rare.
//
// A server that answers `Busy` has done nothing: what it refused, of a batch only the items that it refused,
// is asked for again, puts and deletes too, after a pause of 10 ms that doubles to 1 s, a quarter more or
// less by chance, up to busy_retries times and as long as the deadline leaves room for another answer. Then
// `busy` is the result. No other status is retried.
//
// The cache (cache_size_mb, off by default) holds whole values that were read, and is meant for blocks that
// never change under their key, as KV-cache blocks do not. Own puts and deletes take a key out of it; changes
// by others, and evictions by the server, are not seen: a cached value is returned as long as it is cached.
// It serves gets and sub-range gets, nothing else.
//
// Threading: all members may be called from any number of threads, the destructor from one after all others
// returned. Ownership: the caller's items, keys, values, targets and results must stay valid, and targets
// untouched, until the call is complete. Errors: as values; no exception leaves. A target of an item that did
// not succeed holds nothing of meaning. Limits: keys 1 ... 1024 bytes; values up to the server's
// value_bytes_max; requests_queued_max open requests a connection, beyond which calls answer `queue_full`.
// Does not do: replicate, encrypt, or retry puts whose outcome is not known.
//
// RDMA (transport rdma or auto). A server fetches values from the memory of puts, and places them in the
// targets of gets, by itself; a control message asks for a whole batch. Small requests, and batches of few
// bytes, are messages of a queue pair that each connection makes for itself; all others go over the socket
// (docs/client-rdma.md). Values and targets that lie wholly in registered memory (register_memory) travel
// from and to it. Others are copied through a staging area with transport rdma, and go over TCP with auto.
// Digests are checked as over TCP: of puts by the server, of gets by the client over the target when the
// answer has come. A get whose bytes do not match is an item with `digest_mismatch` with transport rdma, and
// is fetched again over TCP with auto. With auto also items that the server could not reach are asked for
// again over TCP, puts included, since the server said that it stored nothing.
//
// After a call returned, or its completion was called, no byte of the caller's memory is touched, whatever
// happened: when a request is given up (deadline, lost connection, closed client) the queue pair of its
// connection is destroyed before its items end. Until then a put's value must not be changed.
//
// With auto, the first failure of RDMA at any server turns it off for the life of the client, which logs one
// line, and rdma_in_use of count() says so: no session to be had, a device that is gone, memory that was
// refused, a session that the server ended, bytes that do not match, a queue pair of messages that breaks, or
// three requests in a row without an answer in time. With rdma, such failures are errors of the items:
// rdma_failed, memory_refused, session_ended, digest_mismatch; they are no misses. A new session is asked for
// with the next request. A device that is gone stays so: make a new client.
//
// Several gets of one call with the same key and range are fetched once and copied (any transport).
#pragma once

#include "client/error.hpp"
#include "client/options.hpp"
#include "client/registered_memory.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::client {

constexpr std::size_t requests_queued_max = 65'536;        // a connection, sent or not
constexpr std::uint64_t small_item_bytes_max = 32U << 10U; // items up to this size share batch frames
constexpr std::uint64_t batch_frame_bytes_max = 1U << 20U; // payload of one of our batch frames, about
constexpr std::uint32_t reconnect_ms_first = 100;
constexpr std::uint32_t reconnect_ms_max = 5'000;
constexpr std::uint32_t busy_pause_ms_first = 10;
constexpr std::uint32_t busy_pause_ms_max = 1'000;

struct put_item {
  std::string_view key; // 1 ... 1024 arbitrary bytes
  std::span<const std::byte> value;
  bool if_absent = false; // leave a block that is there as it is, and answer already_exists
};

struct get_item {
  std::string_view key;
  std::span<std::byte> target;    // as long as the bytes that are wanted; shorter: buffer_too_small
  std::uint64_t range_offset = 0; // first byte wanted
  std::uint64_t range_length = 0; // bytes wanted; 0 = to the end; cut at the end of the value
};

struct item_result {
  errc code = errc::pending;
  errc cause =
      errc::ok; // why a miss is a miss, when the block may be there (server_down, connection_lost ...)
  std::uint64_t length = 0;       // gets: bytes in the target
  std::uint64_t value_length = 0; // gets, exists, lookups: length of the whole value
  std::uint64_t generation = 0;   // puts, single gets and lookups, where the server tells it
  std::uint32_t crc32c = 0;       // lookups: of the whole value
};

struct prefix_result {
  errc code = errc::pending; // ok also when nothing matched
  errc cause = errc::ok;     // why the chain may be longer than it seems
  std::uint64_t matched = 0; // how many keys from the start are there, without a gap
  std::uint64_t total_bytes = 0;
};

struct server_stat {
  std::string server; // normalised host:port
  errc code = errc::pending;
  std::uint64_t blocks = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t usable_bytes = 0;
  std::uint64_t uptime_ms = 0;
  std::uint32_t drives_online = 0;
  std::uint32_t drives_total = 0;
};

struct call_options {
  std::uint32_t deadline_ms = 0; // 1 ... 600,000; 0 = the client's
};

/// How an asynchronous call says that it is complete: exactly once, from the thread that did the last piece
/// of I/O.
class completion {
public:
  /// Calls `function`, which must not block, throw, or make a blocking call of this client.
  [[nodiscard]] static completion call(std::function<void()> function);
  /// Adds one to an eventfd, which must stay open until then.
  [[nodiscard]] static completion signal(int event_fd) noexcept;
  void operator()() const noexcept;

private:
  std::function<void()> function_;
  int event_fd_ = -1;
};

/// What happened so far; numbers only grow.
struct counters {
  std::uint64_t connections_opened = 0;
  std::uint64_t connections_failed = 0;             // could not be opened
  std::uint64_t connections_lost = 0;               // ended by the server or the network
  std::uint64_t connections_closed_by_check = 0;    // an answer failed a check
  std::uint64_t connections_closed_by_deadline = 0; // given up on a request on its way
  std::uint64_t requests_retried = 0; // gets whose connection was lost, and what went over to TCP
  std::uint64_t busy_retried = 0;     // requests that were asked again, as a whole or in part, after Busy
  std::uint64_t bytes_sent = 0;       // headers included, as are those received
  std::uint64_t bytes_received = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_misses = 0;
  bool rdma_in_use = false; // the one that may fall: RDMA is there and was not turned off
  std::uint64_t rdma_failures = 0;
  std::uint64_t rdma_sessions_opened = 0;
  std::uint64_t rdma_queue_pairs_opened = 0; // that carry messages
  std::uint64_t rdma_messages = 0;           // requests that went as one
  std::uint64_t rdma_value_bytes = 0;        // of values, between registered memory and servers
  std::uint64_t staged_value_bytes = 0;      // of values, over RDMA through the staging area
};

class client {
public:
  /// Checks the options and the licence, and starts the background thread; connects to nothing yet. Returns
  /// no client and says why in `problem`. The licence is not looked at again later; one of the plan Free is
  /// for one server.
  [[nodiscard]] static std::unique_ptr<client> make(options wanted, status& problem);

  client(const client&) = delete;
  client& operator=(const client&) = delete;
  /// Ends open asynchronous calls with `closed`, completions included.
  ~client();

  // Asynchronous calls. `results` is as long as the items. Not ok: refused at once, the completion will not
  // be called.

  [[nodiscard]] status submit_put(std::span<const put_item> items, std::span<item_result> results,
                                  completion done, call_options call = {});
  [[nodiscard]] status submit_get(std::span<const get_item> items, std::span<item_result> results,
                                  completion done, call_options call = {});
  [[nodiscard]] status submit_exists(std::span<const std::string_view> keys, std::span<item_result> results,
                                     completion done, call_options call = {});
  [[nodiscard]] status submit_remove(std::span<const std::string_view> keys, std::span<item_result> results,
                                     completion done, call_options call = {});
  [[nodiscard]] status submit_lookup(std::span<const std::string_view> keys, std::span<item_result> results,
                                     completion done, call_options call = {});
  /// `lengths`, if not empty, is as long as `keys` and receives the lengths of the matched values.
  [[nodiscard]] status submit_prefix(std::span<const std::string_view> keys, prefix_result& result,
                                     std::span<std::uint64_t> lengths, completion done,
                                     call_options call = {});

  // Blocking calls: the same. They return ok, or the first result in the order of the items that is not ok.

  errc put(std::span<const put_item> items, std::span<item_result> results, call_options call = {});
  errc get(std::span<const get_item> items, std::span<item_result> results, call_options call = {});
  errc exists(std::span<const std::string_view> keys, std::span<item_result> results, call_options call = {});
  errc remove(std::span<const std::string_view> keys, std::span<item_result> results, call_options call = {});
  errc lookup(std::span<const std::string_view> keys, std::span<item_result> results, call_options call = {});
  [[nodiscard]] prefix_result prefix(std::span<const std::string_view> keys,
                                     std::span<std::uint64_t> lengths = {}, call_options call = {});
  /// One entry for each server, in the order of servers().
  [[nodiscard]] std::vector<server_stat> stat(call_options call = {});

  [[nodiscard]] item_result put(std::string_view key, std::span<const std::byte> value,
                                bool if_absent = false, call_options call = {});
  [[nodiscard]] item_result get(std::string_view key, std::span<std::byte> target, call_options call = {});
  [[nodiscard]] item_result exists(std::string_view key, call_options call = {});
  [[nodiscard]] item_result remove(std::string_view key, call_options call = {});
  [[nodiscard]] item_result lookup(std::string_view key, call_options call = {});

  /// Makes memory known to the RDMA devices. `out` deregisters it: registered_memory.hpp says when. The range
  /// must not overlap another one. Errors: invalid_argument, no_memory (a limit of locked memory or of the
  /// device), rdma_failed; with auto they do not turn RDMA off.
  [[nodiscard]] status register_memory(std::span<std::byte> range, registered_memory& out);
  /// The same for memory of a GPU. `unsupported`: RDMA is not in use, or kernel or device cannot do it.
  [[nodiscard]] status register_device_memory(const device_memory& memory, registered_memory& out);

  /// Lends the calling thread to the I/O of asynchronous calls until at least one of them completed, nothing
  /// is open, or `timeout_ms` passed. Returns how many completed meanwhile.
  std::size_t drive(std::uint32_t timeout_ms);

  /// Normalised, sorted.
  [[nodiscard]] const std::vector<std::string>& servers() const noexcept;
  /// The server that a key belongs to, as a position in servers().
  [[nodiscard]] std::size_t server_of(std::string_view key) const noexcept;
  /// One sentence about a result that is not ok, for people: what happened and what to do, behind the name of
  /// the server where that is of use. A miss that may be none is explained by its cause.
  [[nodiscard]] std::string explain(std::string_view key, const item_result& result) const;
  /// Sentences about configured things that are not in effect in this build.
  [[nodiscard]] const std::vector<std::string>& notes() const noexcept;
  [[nodiscard]] counters count() const noexcept;

private:
  struct implementation;
  explicit client(std::unique_ptr<implementation> impl) noexcept;
  std::unique_ptr<implementation> impl_;
};

} // namespace memkv::client
