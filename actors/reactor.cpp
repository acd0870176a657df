#include "actors/reactor.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/connection.hpp"
#include "actors/fault_points.hpp"
#include "actors/tcp_connection.hpp"
#include "actors/tcp_request.hpp"
#include "wire/assert.hpp"

#include <caf/actor_cast.hpp>
#include <caf/behavior.hpp>
#include <caf/send.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <random>

namespace memkv::actors {

namespace {
constexpr std::uint64_t slow_check_ns = 250'000'000;
/// Connections that wait for buffers and are tried again in each turn, at least.
constexpr std::uint64_t waiters_a_turn = 64;
/// What all connections together may hold for open requests and unsent answers, and a reactor's share at
/// least.
constexpr std::uint64_t held_bytes_all = 16 << 20;
constexpr std::uint64_t held_bytes_least = 2 << 20;
/// How often a memory drive's turn is tried before DRIVE is asked instead: as long as another reactor's put
/// usually takes. Who has it may have lost its core, so there is no waiting for it.
constexpr int turn_tries_max = 64;

/// Values that are being written under tokens may hold half of the pool while they wait for their clients: a
/// chunk each.
std::uint64_t token_buffers_max(const server_options& options) noexcept {
  return std::max<std::uint64_t>(1, options.pool_bytes / options.pool_chunk_bytes / 2 / options.reactors);
}

/// Tells the processor that this is a loop that waits.
void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}
} // namespace

// --- what reactors share ---

reactor_shared::reactor_shared(const server_options& given)
    : options(given), mac(*given.key),
      previous_mac(given.previous_key == nullptr
                       ? std::nullopt
                       : std::optional<wire::mac>(std::in_place, *given.previous_key)),
      budget(given.limits.header_budget_bytes), started_ns(given.time->steady_ns()) {
  for (std::uint32_t index = 0; index < options.reactors; ++index)
    counters.push_back(std::make_unique<reactor_counters>());
}

std::shared_ptr<reactor_shared> reactor_shared::create(const server_options& options, std::string& problem) {
  auto made = std::make_shared<reactor_shared>(options);
  engine::buffer_pool_options pool;
  pool.size_bytes = options.pool_bytes;
  pool.chunk_bytes = options.pool_chunk_bytes;
  if (const auto created = engine::buffer_pool::create(pool, made->pool); !created.ok()) {
    problem = created.text;
    return nullptr;
  }
  made->cache = std::make_unique<block_cache>(*made->pool);
  return made;
}

// --- the ring of header buffers ---

struct reactor::header_buffer_ring {
  io_uring_buf_ring* entries = nullptr;
  std::byte* bytes = nullptr;

  ~header_buffer_ring() {
    if (entries != nullptr)
      ::munmap(entries, sizeof(io_uring_buf) * header_buffers);
    if (bytes != nullptr)
      ::munmap(bytes, std::size_t{header_buffers} * header_buffer_bytes);
  }
};

bool reactor::make_header_buffers() {
  auto made = std::make_unique<header_buffer_ring>();
  const auto map = [](std::size_t size) {
    return ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  };
  void* entries = map(sizeof(io_uring_buf) * header_buffers);
  void* bytes = map(std::size_t{header_buffers} * header_buffer_bytes);
  if (entries == MAP_FAILED || bytes == MAP_FAILED)
    return false;
  made->entries = static_cast<io_uring_buf_ring*>(entries);
  made->bytes = static_cast<std::byte*>(bytes);
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uint64_t>(made->entries);
  registration.ring_entries = header_buffers;
  registration.bgid = header_buffer_group;
  if (io_uring_register_buf_ring(ring(), &registration, 0) != 0)
    return false;
  io_uring_buf_ring_init(made->entries);
  header_buffers_ = std::move(made);
  for (std::uint32_t id = 0; id < header_buffers; ++id)
    give_back_header_buffer(static_cast<std::uint16_t>(id));
  return true;
}

std::span<const std::byte> reactor::header_buffer(std::uint16_t id, std::uint32_t bytes) const noexcept {
  return {header_buffers_->bytes + std::size_t{id} * header_buffer_bytes, bytes};
}

void reactor::give_back_header_buffer(std::uint16_t id) noexcept {
  io_uring_buf_ring_add(header_buffers_->entries,
                        header_buffers_->bytes + std::size_t{id} * header_buffer_bytes, header_buffer_bytes,
                        id, io_uring_buf_ring_mask(header_buffers), 0);
  io_uring_buf_ring_advance(header_buffers_->entries, 1);
}

// --- the actor ---

reactor::reactor(caf::actor_config& configuration, std::uint32_t index,
                 std::shared_ptr<reactor_shared> shared, server_actor server)
    : ring_actor(configuration), index_(index), shared_(std::move(shared)), server_(std::move(server)),
      drives_(shared_->options.drives.size()), tokens_(token_buffers_max(shared_->options)),
      held_bytes_max_(std::max(held_bytes_all / shared_->options.reactors, held_bytes_least)) {
  rails_.share_between(shared_->options.reactors);
}

reactor::~reactor() = default;

void reactor::on_no_ring(const std::string& problem) {
  caf::anon_send(server_, actor_started{id(), problem});
}

bool reactor::on_start() {
  self_ = caf::actor_cast<caf::actor>(this);
  if (!make_header_buffers()) {
    on_no_ring(
        "cannot register receive buffers with io_uring: a kernel of at least 6.8 is needed, and enough "
        "memory that may be locked (ulimit -l)");
    return false;
  }
  files_.open(*ring(), shared_->options.limits.connections_max);
  caf::anon_send(server_, actor_started{id(), {}});
  return true;
}

caf::behavior reactor::make_handlers() {
  const auto find = [this](std::uint64_t serial) -> tcp_request* {
    const auto found = requests_.find(serial);
    return found == requests_.end() ? nullptr : found->second;
  };
  auto on_connection = [this](const new_connection& message) { admit(message); };
  auto on_drive = [this](const drive_changed& message) { drive_changes(message); };
  auto on_members = [this](const members_changed& message) {
    drives_.set_members(message.members);
    changed_ = message.changed;
    caf::anon_send(server_, members_taken{id(), message.serial});
  };
  auto on_allocated = [find](const extent_allocated& message) {
    if (auto* which = find(message.put->request); which != nullptr)
      which->allocated(message.put);
  };
  auto on_stored = [find](const extent_stored& message) {
    if (auto* which = find(message.put->request); which != nullptr)
      which->stored(message.put);
  };
  auto on_read = [find](const extents_were_read& message) {
    for (const auto& each : message.reads)
      if (auto* which = find(each->request); which != nullptr)
        which->was_read(each);
  };
  auto on_erased = [find](const block_erased& message) {
    if (auto* which = find(message.erase->request); which != nullptr)
      which->erased(message.erase);
  };
  auto on_pool = [this](const dci_pool_changed& message) { pool_changes(message); };
  auto on_attached = [this](const session_attached& message) { session_opened(message); };
  auto on_session_end = [this, find](const session_ended& message) {
    lose_session(message.session);
    if (auto* which = find(message.request); which != nullptr)
      which->detached(message);
  };
  auto on_moved = [this, find](const bytes_moved& message) {
    for (const auto& each : message.transfers) {
      rails_.moved(*each);
      if (auto* which = find(each->request); which != nullptr)
        which->moved(each);
    }
    std::vector<std::uint64_t> turns;
    rails_.take_turns(turns);
    for (const auto serial : turns)
      if (auto* which = find(serial); which != nullptr)
        which->buffers_there();
  };
  auto on_messages = [this](const messages_arrived& message) {
    for (const auto& each : message.messages)
      if (const auto found = connections_.find(rails_.connection_of(each.session));
          found != connections_.end())
        found->second->take_message(each.session, each.bytes);
  };
  auto on_end_some = [this](const end_connections& message) { end_some(message); };
  auto on_finish = [this](const finish_requests&) { begin_to_finish(); };
  auto on_describe = [this](const describe_yourself& question) {
    answer(question, id(), mailbox_size(*this),
           {.reactor = reactor_facts{connections_.size(), requests_open(), waiting_for_room_.size(),
                                     held_bytes_, rails_.sessions(), tokens_.open(token_budget::kind::value),
                                     tokens_.open(token_budget::kind::lease), tokens_.buffers()}});
  };
  // A CONNECTION died: its socket goes with it.
  auto on_down = [this](const caf::down_msg& message) {
    const auto found = by_actor_.find(message.source.id());
    if (found == by_actor_.end())
      return;
    const auto connection = connections_.find(found->second);
    by_actor_.erase(found);
    if (connection != connections_.end())
      connection->second->close(close_reason::actor_killed);
  };
  [[maybe_unused]] reactor_actor::behavior_type conforms{
      on_connection, on_drive,       on_members, on_allocated, on_stored,   on_read,   on_erased,  on_pool,
      on_attached,   on_session_end, on_moved,   on_messages,  on_end_some, on_finish, on_describe};
  return {on_connection, on_drive,  on_members,  on_allocated,   on_stored, on_read,
          on_erased,     on_pool,   on_attached, on_session_end, on_moved,  on_messages,
          on_end_some,   on_finish, on_describe, on_down};
}

void reactor::admit(const new_connection& message) {
  if (finishing_)
    return; // the slot closes the descriptor
  auto handle = home_system().spawn(connection, caf::actor_cast<reactor_actor>(self_));
  monitor(handle);
  const auto id = next_connection_++;
  by_actor_[handle.id()] = id;
  auto& added = connections_[id];
  added = std::make_unique<tcp_connection>(*this, id, message.slot, std::move(handle));
  counters().connections_accepted.add();
  added->pump_input();
}

void reactor::drive_changes(const drive_changed& change) {
  auto& seat = drives_.at(change.index);
  seat.drive = caf::actor_cast<drive_actor>(change.drive);
  seat.body = change.body;
  if (change.drive != nullptr)
    return;
  // Nothing that was asked of it will be answered any more.
  tell_requests([&change](tcp_request& which) { which.drive_down(change.index); });
}

void reactor::tell_requests(const std::function<void(tcp_request&)>& what) {
  std::vector<std::uint64_t> open;
  open.reserve(requests_.size());
  for (const auto& [serial, which] : requests_)
    open.push_back(serial);
  for (const auto serial : open)
    if (const auto found = requests_.find(serial); found != requests_.end())
      what(*found->second);
}

void reactor::pool_changes(const dci_pool_changed& change) {
  std::vector<std::uint64_t> lost;
  if (!rails_.change(change, lost))
    return;
  for (const auto id : lost) {
    // Its CONNECTION would count it for ever: nobody else tells it.
    tell_connection(rails_.connection_of(id), session_ended{0, id, 0, wire::status::ok});
    lose_session(id);
  }
  tell_requests([rail = change.rail](tcp_request& which) { which.pool_lost(rail); });
}

void reactor::session_opened(const session_attached& message) {
  const auto asked = requests_.find(message.request);
  if (message.result == wire::status::ok) {
    const auto owner = by_actor_.find(message.owner);
    if (owner == by_actor_.end())
      return; // the session ends with its CONNECTION, and the request has
    const auto rail = rails_.rail_of(message.pool);
    if (rail == rails_.size()) {
      // Another pool has taken its place meanwhile, and the request has been told so.
      tell_connection(owner->second, session_ended{0, message.session, message.owner, wire::status::ok});
      return;
    }
    if (asked == requests_.end()) {
      tell_connection(owner->second, detach_session{0, message.session, nullptr});
      return;
    }
    rails_.add(message.session, owner->second, rail, message.transfer_bytes_max);
  }
  if (asked != requests_.end())
    asked->second->attached(message);
}

void reactor::lose_session(std::uint64_t session) {
  const auto connection = connections_.find(rails_.connection_of(session));
  if (!rails_.end(session))
    return;
  tell_requests([session](tcp_request& which) { which.session_lost(session); });
  if (connection != connections_.end())
    connection->second->queue_pair_ended(session);
}

void reactor::leave_session(std::uint64_t session) {
  if (rails_.leave(session))
    tell_requests([session](tcp_request& which) { which.session_unused(session); });
}

const connection_actor& reactor::connection_of(const tcp_connection& which) {
  return which.handle();
}

void reactor::begin_to_finish() {
  finishing_ = true;
  std::vector<tcp_connection*> all;
  for (const auto& [id, each] : connections_)
    all.push_back(each.get());
  for (auto* each : all)
    each->finish();
  clear_graves();
  if (connections_.empty())
    stop(caf::exit_reason::normal);
}

void reactor::end_some(const end_connections& message) {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, each] : connections_)
    if (!each->closing())
      ids.push_back(id);
  std::shuffle(ids.begin(), ids.end(), std::mt19937_64{std::random_device{}()});
  for (const auto id : ids) {
    auto left = message.left->load();
    while (left > 0 && !message.left->compare_exchange_weak(left, left - 1)) {
    }
    if (left == 0)
      return;
    const auto found = connections_.find(id);
    if (found == connections_.end())
      continue;
    const auto& which = found->second->handle();
    switch (message.how) {
    case end_connections::by::closing:
      found->second->close(close_reason::actor_killed);
      break;
    case end_connections::by::kill:
      caf::anon_send_exit(which, caf::exit_reason::kill);
      break;
    case end_connections::by::exception:
      caf::anon_send(caf::actor_cast<caf::actor>(which), act_up{});
      break;
    case end_connections::by::shutdown:
      caf::anon_send_exit(which, caf::exit_reason::user_shutdown);
      break;
    }
  }
}

std::uint64_t reactor::network_delay_ns() const noexcept {
  const auto& faults = shared_->options.faults;
  return faults == nullptr ? 0 : faults->delay_at(round_ns());
}

void reactor::wake_later(const tcp_connection& which, std::uint64_t at_ns) {
  delayed_.emplace(at_ns, which.id());
}

std::uint64_t reactor::enlist(tcp_request& which) {
  const auto serial = next_serial_++;
  requests_.emplace(serial, &which);
  return serial;
}

void reactor::delist(std::uint64_t serial, std::uint64_t deadline_ns) noexcept {
  requests_.erase(serial);
  if (deadline_ns != 0)
    deadlines_.erase({deadline_ns, serial});
}

void reactor::expire_at(std::uint64_t serial, std::uint64_t deadline_ns) {
  deadlines_.emplace(deadline_ns, serial);
}

std::size_t reactor::requests_open() const noexcept {
  return requests_.size() - tokens_.open(token_budget::kind::value) - tokens_.open(token_budget::kind::lease);
}

void reactor::cancel_expiry(std::uint64_t serial, std::uint64_t deadline_ns) noexcept {
  deadlines_.erase({deadline_ns, serial});
}

void reactor::wait_for_buffers(tcp_connection& which) {
  if (std::find(waiting_for_buffers_.begin(), waiting_for_buffers_.end(), which.id()) ==
      waiting_for_buffers_.end())
    waiting_for_buffers_.push_back(which.id());
}

void reactor::bury(tcp_connection& which) {
  buried_connections_.push_back(which.id());
}

void reactor::bury(std::unique_ptr<tcp_request> which) {
  buried_requests_.push_back(std::move(which));
}

wire::stat_reply reactor::stat() {
  wire::stat_reply out;
  out.drives_total = static_cast<std::uint32_t>(drives_.size());
  for (std::uint32_t index = 0; index < drives_.size(); ++index) {
    const auto& body = drives_.at(index).body;
    if (body == nullptr)
      continue;
    ++out.drives_online;
    const auto now = body->store->counters();
    out.blocks += now.blocks;
    out.used_bytes += now.used_bytes;
    out.usable_bytes += now.usable_bytes;
  }
  out.uptime_ms = (shared_->options.time->steady_ns() - shared_->started_ns) / 1'000'000;
  return out;
}

template <class Message>
void reactor::tell(std::uint32_t drive, const Message& message) {
  // A drive that went while the request was under way: SERVER's word about it fails the request.
  if (const auto& seat = drives_.at(drive); seat.drive != nullptr)
    send(seat.drive, message);
}

void reactor::send_to_drive(std::uint32_t drive, const read_extent& message) {
  tell(drive, message);
}
void reactor::send_to_drive(std::uint32_t drive, const store_extent& message) {
  tell(drive, message);
}
void reactor::send_to_drive(std::uint32_t drive, const write_extent& message) {
  tell(drive, message);
}
void reactor::send_to_drive(std::uint32_t drive, const abandon_extent& message) {
  tell(drive, message);
}
void reactor::send_to_drive(std::uint32_t drive, const erase_block& message) {
  tell(drive, message);
}

payload_slice reactor::small_slice(std::uint32_t bytes) {
  const std::uint64_t rounded = (std::uint64_t{bytes} + 4095) & ~std::uint64_t{4095};
  if (small_chunk_ == nullptr || small_chunk_filled_ + rounded > small_chunk_->size()) {
    auto fresh = shared_->cache->acquire();
    if (!fresh)
      return {};
    small_chunk_ = std::make_shared<engine::buffer>(std::move(fresh));
    small_chunk_filled_ = 0;
  }
  payload_slice out;
  out.data = small_chunk_->data() + small_chunk_filled_;
  out.bytes = bytes;
  out.keep = small_chunk_;
  small_chunk_filled_ += rounded;
  return out;
}

payload_slice reactor::chunk() {
  auto fresh = shared_->cache->acquire();
  if (!fresh)
    return {};
  auto kept = std::make_shared<engine::buffer>(std::move(fresh));
  payload_slice out;
  out.data = kept->data();
  out.bytes = static_cast<std::uint32_t>(kept->size());
  out.keep = std::move(kept);
  return out;
}

payload_slice reactor::read_room(std::uint32_t bytes) {
  const std::uint64_t rounded = (std::uint64_t{bytes} + 4095) & ~std::uint64_t{4095};
  auto& cache = *shared_->cache;
  if (reading_into_ == nullptr || reading_into_->filled + rounded > reading_into_->memory.size()) {
    if (reading_into_ != nullptr)
      cache.close_segment(std::exchange(reading_into_, nullptr));
    reading_into_ = cache.open_segment();
    if (reading_into_ == nullptr)
      return {};
  }
  payload_slice out;
  out.data = reading_into_->memory.data() + reading_into_->filled;
  out.bytes = bytes;
  out.keep = reading_into_;
  reading_into_->filled += static_cast<std::uint32_t>(rounded);
  return out;
}

std::uint32_t reactor::read_room_max() const noexcept {
  constexpr std::uint32_t step = engine::chunk_bytes;
  const auto slice = slice_bytes_max() / step * step;
  return slice > 0 ? slice : static_cast<std::uint32_t>(shared_->pool->chunk_bytes() / step * step);
}

void reactor::wait_for_room(std::uint64_t request) {
  if (std::find(waiting_for_room_.begin(), waiting_for_room_.end(), request) == waiting_for_room_.end())
    waiting_for_room_.push_back(request);
}

reactor::turn reactor::take_turn(std::uint32_t drive, extent_put& put,
                                 const std::function<void(drive_body&)>& work) {
  const auto& seat = drives_.at(drive);
  if (seat.drive == nullptr || !seat.body->memory)
    return turn::not_taken;
  const auto body = seat.body;
  std::unique_lock held(body->turn, std::try_to_lock);
  for (int tries = 1; !held && tries < turn_tries_max; ++tries) {
    relax();
    static_cast<void>(held.try_lock());
  }
  if (!held)
    return turn::not_taken;
  auto& store = *body->store;
  store.reclaim();
  put.reply_to = nullptr;
  work(*body);
  body->send_reads();
  auto orphans = store.take_orphans();
  const bool answered = put.answered;
  if (!answered)
    put.reply_to = self_;
  held.unlock();
  if (!orphans.empty())
    caf::anon_send(server_, parts_orphaned{std::move(orphans)});
  return answered ? turn::answered : turn::unanswered;
}

template <class Message>
bool reactor::ask(std::uint32_t drive, const extent_put_ptr& put,
                  void (drive_body::*work)(const extent_put_ptr&)) {
  put->answered = false;
  const auto result = take_turn(drive, *put, [&](drive_body& body) { (body.*work)(put); });
  if (result != turn::not_taken)
    return result == turn::answered;
  put->reply_to = self_;
  tell(drive, Message{put});
  return false;
}

bool reactor::allocate(std::uint32_t drive, const extent_put_ptr& put) {
  return ask<allocate_extent>(drive, put, &drive_body::allocate);
}

bool reactor::commit(std::uint32_t drive, const extent_put_ptr& put) {
  return ask<commit_extent>(drive, put, &drive_body::commit);
}

std::uint64_t reactor::next_put_id() noexcept {
  return shared_->options.store.generation->fetch_add(1) + 1;
}

void reactor::clear_graves() {
  buried_requests_.clear();
  for (const auto id : buried_connections_) {
    const auto found = connections_.find(id);
    if (found == connections_.end())
      continue;
    by_actor_.erase(found->second->handle().id());
    // The CONNECTION ends its sessions, and nobody hears of that.
    for (const auto session : rails_.of_connection(id))
      static_cast<void>(rails_.end(session));
    send(found->second->handle(), connection_closed{});
    connections_.erase(found);
  }
  buried_connections_.clear();
}

bool reactor::on_turn() {
  drives_.begin_turn();
  if (!waiting_for_buffers_.empty()) {
    const auto statistics = shared_->pool->statistics();
    // Some wait for the pool, others for header buffers or space on a drive: a pool without a free chunk must
    // not keep those waiting.
    const auto tried = std::max<std::uint64_t>(statistics.chunks - statistics.chunks_in_use, waiters_a_turn);
    for (auto left = std::min<std::uint64_t>(waiting_for_buffers_.size(), tried); left > 0; --left) {
      const auto id = waiting_for_buffers_.front();
      waiting_for_buffers_.pop_front();
      if (const auto found = connections_.find(id); found != connections_.end())
        found->second->pump_input();
    }
  }
  if (!waiting_for_room_.empty()) {
    const auto statistics = shared_->pool->statistics();
    // One at least: without a free chunk there may still be what was read and can be dropped.
    const auto tried = std::min<std::uint64_t>(
        waiting_for_room_.size(),
        std::max<std::uint64_t>(1, (statistics.chunks - statistics.chunks_in_use) * waiters_a_turn));
    for (std::uint64_t left = tried; left > 0; --left) {
      const auto serial = waiting_for_room_.front();
      waiting_for_room_.pop_front();
      if (const auto found = requests_.find(serial); found != requests_.end())
        found->second->buffers_there();
    }
  }
  rails_.flush();
  clear_graves();
  if (finishing_ && connections_.empty())
    stop(caf::exit_reason::normal);
  return false;
}

void reactor::on_tick(std::uint64_t now) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const auto serial = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    if (const auto found = requests_.find(serial); found != requests_.end())
      found->second->expire();
  }
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    const auto id = delayed_.begin()->second;
    delayed_.erase(delayed_.begin());
    if (const auto found = connections_.find(id); found != connections_.end()) {
      found->second->pump_output();
      found->second->pump_input();
    }
  }
  if (now >= next_slow_check_ns_) {
    next_slow_check_ns_ = now + slow_check_ns;
    for (const auto& [id, each] : connections_)
      each->check_time(now);
  }
  rails_.flush();
  clear_graves();
}

void reactor::on_stop() {
  dying_ = true;
  for (const auto& [id, each] : connections_)
    each->close(close_reason::stopping);
  clear_graves();
}

bool reactor::stopped() {
  clear_graves();
  if (!connections_.empty())
    return false;
  if (header_buffers_ != nullptr) {
    io_uring_unregister_buf_ring(ring(), header_buffer_group);
    header_buffers_.reset();
  }
  return true;
}

void reactor::on_end() {
  files_.close();
  // A handle to itself would keep this object, and the drives it knows, for ever.
  self_ = nullptr;
  server_ = nullptr;
  drives_ = drive_table{0};
  rails_.clear();
  small_chunk_.reset();
  if (reading_into_ != nullptr)
    shared_->cache->close_segment(std::exchange(reading_into_, nullptr));
}

} // namespace memkv::actors
