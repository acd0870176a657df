// The REACTOR actor. Interface and duties: interfaces.hpp.
//
// A reactor owns the sockets dealt to it (tcp_connection), the requests that came through them (request), and
// nothing that another reactor needs. Looking a key up costs no message: the drives' indexes are read
// directly.
#pragma once

#include "actors/admission.hpp"
#include "actors/block_cache.hpp"
#include "actors/change_filter.hpp"
#include "actors/file_table.hpp"
#include "actors/interfaces.hpp"
#include "actors/rdma_rails.hpp"
#include "actors/rdma_tokens.hpp"
#include "actors/ring_actor.hpp"
#include "actors/server_counters.hpp"
#include "actors/server_options.hpp"
#include "actors/value_writer.hpp"
#include "engine/buffer_pool.hpp"
#include "wire/auth.hpp"
#include "wire/frame_gatherer.hpp"
#include "wire/hello.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

namespace memkv::actors {

class tcp_request;
class tcp_connection;

/// What all reactors of a server share. Threading: any thread.
struct reactor_shared {
  /// Throws nothing; `problem` says why there is no pool.
  static std::shared_ptr<reactor_shared> create(const server_options& options, std::string& problem);
  explicit reactor_shared(const server_options& options);

  /// What large requests of all connections may hold together; one that would exceed it is answered Busy.
  static constexpr std::uint64_t large_held_bytes_max = 32 << 20;
  [[nodiscard]] bool hold_large(std::uint64_t bytes) noexcept {
    if (large_held_bytes_.fetch_add(bytes) + bytes <= large_held_bytes_max)
      return true;
    let_go_large(bytes);
    return false;
  }
  void let_go_large(std::uint64_t bytes) noexcept { large_held_bytes_.fetch_sub(bytes); }

  /// True once in each interval of --log-write-timing: the write that asks is the one to be logged.
  [[nodiscard]] bool write_is_logged(std::uint64_t now_ns) noexcept {
    auto due = next_write_log_ns_.load(std::memory_order_relaxed);
    return options.write_timing_interval_s != 0 && now_ns >= due &&
           next_write_log_ns_.compare_exchange_strong(due, now_ns + options.write_timing_interval_s *
                                                                        1'000'000'000);
  }

  const server_options options;
  const wire::mac mac;
  const std::optional<wire::mac> previous_mac;
  wire::header_budget budget;
  std::unique_ptr<engine::buffer_pool> pool;
  std::unique_ptr<block_cache> cache; // in the pool
  const std::uint64_t started_ns;
  std::vector<std::unique_ptr<reactor_counters>> counters; // by reactor

private:
  std::atomic<std::uint64_t> large_held_bytes_{0};
  std::atomic<std::uint64_t> next_write_log_ns_{0};
};

class reactor final : public ring_actor, public drive_client {
public:
  /// Header bytes are received into these, lent by the kernel when there is something to receive: an idle
  /// connection holds none.
  static constexpr std::uint32_t header_buffer_bytes = 8 << 10;
  static constexpr std::uint32_t header_buffers = 128;
  static constexpr std::uint16_t header_buffer_group = 1;

  reactor(caf::actor_config& configuration, std::uint32_t index, std::shared_ptr<reactor_shared> shared,
          server_actor server);
  ~reactor() override;
  const char* name() const override { return "reactor"; }

  // For tcp_connection and request.
  [[nodiscard]] reactor_shared& shared() noexcept { return *shared_; }
  [[nodiscard]] reactor_counters& counters() noexcept { return *shared_->counters[index_]; }
  [[nodiscard]] std::uint64_t wall_now_ns() const noexcept { return shared_->options.time->wall_ns(); }
  [[nodiscard]] std::uint64_t now_ns() const noexcept { return round_ns(); }
  [[nodiscard]] bool times_writes() const noexcept { return shared_->options.write_timing_interval_s != 0; }
  [[nodiscard]] std::uint64_t exact_now_ns() const noexcept { return steady_now_ns(); }
  [[nodiscard]] io_uring_sqe* sqe_for(ring_operation* operation) { return next_sqe(operation); }
  /// No other completion and no message waits to be looked at in this turn.
  [[nodiscard]] bool turn_is_idle() { return io_uring_cq_ready(ring()) == 0 && !has_next_message(); }
  [[nodiscard]] std::span<const std::byte> header_buffer(std::uint16_t id,
                                                         std::uint32_t bytes) const noexcept;
  void give_back_header_buffer(std::uint16_t id) noexcept;
  /// What this reactor's connections hold for open requests and unsent answers.
  void hold(std::uint64_t bytes) noexcept { held_bytes_ += bytes; }
  void let_go(std::uint64_t bytes) noexcept { held_bytes_ -= bytes; }
  [[nodiscard]] bool has_room() const noexcept { return held_bytes_ < held_bytes_max_; }
  [[nodiscard]] bool finishing() const noexcept { return finishing_; }
  [[nodiscard]] bool dying() const noexcept { return dying_; }
  /// A serial number under which drives' answers find the request.
  std::uint64_t enlist(tcp_request& which);
  /// Forgets it, and its deadline if it has one.
  void delist(std::uint64_t serial, std::uint64_t deadline_ns) noexcept;
  void expire_at(std::uint64_t serial, std::uint64_t deadline_ns);
  void cancel_expiry(std::uint64_t serial, std::uint64_t deadline_ns) noexcept;
  /// The connection could not go on for lack of buffers: it is tried again when there may be some.
  void wait_for_buffers(tcp_connection& which);
  // Fault injection: how much later connections are read from and answered at the moment, and who goes on
  // when that is over.
  [[nodiscard]] std::uint64_t network_delay_ns() const noexcept;
  void wake_later(const tcp_connection& which, std::uint64_t at_ns);
  /// The connection has come to its end; it is destroyed at the end of the turn.
  void bury(tcp_connection& which);
  void bury(std::unique_ptr<tcp_request> which);
  [[nodiscard]] wire::stat_reply stat();
  [[nodiscard]] rdma_rails& rails() noexcept { return rails_; }
  [[nodiscard]] token_budget& tokens() noexcept { return tokens_; }
  /// To the CONNECTION with that number.
  template <class Message>
  void tell_connection(std::uint64_t connection, Message message) {
    if (const auto found = connections_.find(connection); found != connections_.end())
      caf::anon_send(connection_of(*found->second), std::move(message));
  }
  /// A request on that session has ended.
  void leave_session(std::uint64_t session);

  // drive_client
  [[nodiscard]] drive_table& drives() noexcept override { return drives_; }
  [[nodiscard]] caf::actor as_actor() override { return self_; }
  [[nodiscard]] bool allocate(std::uint32_t drive, const extent_put_ptr& put) override;
  [[nodiscard]] bool commit(std::uint32_t drive, const extent_put_ptr& put) override;
  void send_to_drive(std::uint32_t drive, const read_extent& message) override;
  void send_to_drive(std::uint32_t drive, const store_extent& message) override;
  void send_to_drive(std::uint32_t drive, const write_extent& message) override;
  void send_to_drive(std::uint32_t drive, const abandon_extent& message) override;
  void send_to_drive(std::uint32_t drive, const erase_block& message) override;
  [[nodiscard]] payload_slice small_slice(std::uint32_t bytes) override;
  [[nodiscard]] std::uint32_t slice_bytes_max() const noexcept override {
    // At least two fit a chunk, so at most half of one is lost to what does not fit.
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(shared_->pool->chunk_bytes() / 2, 1 << 30));
  }
  [[nodiscard]] payload_slice chunk() override;
  [[nodiscard]] payload_slice read_room(std::uint32_t bytes) override;
  [[nodiscard]] std::uint32_t read_room_max() const noexcept override;
  [[nodiscard]] bool recall(std::uint64_t generation, extent_read& read) override {
    return shared_->cache->find(generation, read);
  }
  void remember(std::uint64_t generation, const extent_read& read) override {
    shared_->cache->insert(generation, read);
  }
  void wait_for_room(std::uint64_t request) override;
  [[nodiscard]] std::uint32_t extent_bytes_max() const noexcept override {
    return shared_->options.store.extent_bytes_max;
  }
  [[nodiscard]] std::uint64_t next_put_id() noexcept override;
  /// Sockets of its connections.
  [[nodiscard]] file_table& files() noexcept { return files_; }
  void note_change(const wire::key_id& id) noexcept override {
    if (changed_ != nullptr)
      changed_->note(id);
  }
  void count_incomplete_block() noexcept override { counters().incomplete_blocks.add(); }
  void count_corrupt_block() noexcept override { counters().corrupt_blocks.add(); }

private:
  settings ring_settings() const override { return {.entries = 1024, .tick_ns = 20'000'000}; }
  void on_no_ring(const std::string& problem) override;
  bool on_start() override;
  caf::behavior make_handlers() override;
  bool on_turn() override;
  void on_tick(std::uint64_t now_ns) override;
  void on_stop() override;
  bool stopped() override;
  void on_end() override;

  template <class Message>
  void tell(std::uint32_t drive, const Message& message);
  enum class turn : std::uint8_t { not_taken, answered, unanswered };
  [[nodiscard]] turn take_turn(std::uint32_t drive, extent_put& put,
                               const std::function<void(drive_body&)>& work);
  /// Does `work` in the drive's turn, or sends the message for it.
  template <class Message>
  [[nodiscard]] bool ask(std::uint32_t drive, const extent_put_ptr& put,
                         void (drive_body::*work)(const extent_put_ptr&));
  void admit(const new_connection& message);
  void drive_changes(const drive_changed& change);
  void pool_changes(const dci_pool_changed& change);
  void session_opened(const session_attached& message);
  void lose_session(std::uint64_t session);
  /// `what` may end any of them.
  void tell_requests(const std::function<void(tcp_request&)>& what);
  [[nodiscard]] static const connection_actor& connection_of(const tcp_connection& which);
  void end_some(const end_connections& message);
  void begin_to_finish();
  /// Those that are there for their tokens do not count.
  [[nodiscard]] std::size_t requests_open() const noexcept;
  void clear_graves();
  bool make_header_buffers();

  std::uint32_t index_;
  std::shared_ptr<reactor_shared> shared_;
  server_actor server_;
  caf::actor self_;
  drive_table drives_;
  std::shared_ptr<change_filter> changed_; // while drives are away: what is written or deleted meanwhile
  rdma_rails rails_;
  file_table files_;
  token_budget tokens_;
  std::unordered_map<std::uint64_t, std::unique_ptr<tcp_connection>> connections_;
  std::unordered_map<caf::actor_id, std::uint64_t> by_actor_;
  std::uint64_t next_connection_ = 1;
  std::unordered_map<std::uint64_t, tcp_request*> requests_;
  std::uint64_t next_serial_ = 1;
  std::set<std::pair<std::uint64_t, std::uint64_t>> deadlines_; // time and serial of open requests
  std::deque<std::uint64_t> waiting_for_buffers_;               // connections
  std::deque<std::uint64_t> waiting_for_room_;                  // requests
  std::set<std::pair<std::uint64_t, std::uint64_t>> delayed_;   // time and connection
  std::vector<std::unique_ptr<tcp_request>> buried_requests_;
  std::vector<std::uint64_t> buried_connections_;
  // The chunk that small payloads share at the moment.
  std::shared_ptr<engine::buffer> small_chunk_;
  std::uint64_t small_chunk_filled_ = 0;
  std::shared_ptr<block_cache::segment> reading_into_; // where the next reads of raw drives go
  struct header_buffer_ring;
  std::unique_ptr<header_buffer_ring> header_buffers_;
  std::uint64_t held_bytes_ = 0;
  const std::uint64_t held_bytes_max_;
  std::uint64_t next_slow_check_ns_ = 0;
  bool finishing_ = false;
  bool dying_ = false;
};

} // namespace memkv::actors
