// A REACTOR with drives, clients on sockets, and a stand-in for DCI POOL that copies between the clients'
// memory, which is the test's, and the server's: late, in any order, or not at all, as the test wants.
//
// Threading: the test's thread makes and asks; everything about the pool is under its plan's lock.
#pragma once

#include "actors/drive.hpp"
#include "actors/reactor.hpp"
#include "engine/memory_device.hpp"
#include "test/scenario/server_fixture.hpp"
#include "wire/assert.hpp"
#include "wire/frame_writer.hpp"
#include "wire/payload_digest.hpp"
#include "wire/rdma_messages.hpp"

#include <caf/all.hpp>

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace memkv::test {

constexpr std::uint32_t kib = 1024, mib = 1024 * 1024;

/// What the stand-in does, and what it has seen. Everything under the lock.
struct pool_plan {
  struct session {
    caf::actor owner;
  };
  std::mutex lock;
  /// ok: the bytes are copied; else half of them are damaged, as an unfinished transfer may leave them.
  std::function<wire::status(const actors::memory_transfer&)> verdict;
  std::uint32_t delay_ms = 0;
  bool shuffles = false; // and answers only some in each round
  bool silent = false;   // takes transfers and attaches, and says nothing
  wire::status attach_result = wire::status::ok;
  std::uint32_t transfer_bytes_max = mib;
  std::mt19937 random{7};
  std::map<std::uint32_t, std::span<std::byte>> memory; // of clients, by rkey
  std::vector<std::span<std::byte>> reachable;          // of the server

  std::uint64_t messages = 0, transfers = 0, bytes = 0, pending = 0;
  std::uint64_t unreachable = 0; // transfers whose memory is none that the device reaches: never
  std::map<std::uint64_t, session> sessions;
  std::uint64_t next_session = 1000;
  std::map<std::uint64_t, std::vector<std::vector<std::byte>>> answers; // to messages, by session
};
using pool_plan_ptr = std::shared_ptr<pool_plan>;

struct pool_state {
  static inline const char* name = "stand-in-pool";
  std::vector<actors::memory_transfer_ptr> queue;
  bool round_due = false;
};

inline caf::behavior stand_in_pool(caf::stateful_actor<pool_state>* self, pool_plan_ptr plan) {
  using namespace actors;
  const auto within = [](std::span<std::byte> range, const std::byte* data, std::size_t bytes) {
    return data >= range.data() && bytes <= range.size() &&
           data - range.data() <= static_cast<std::ptrdiff_t>(range.size() - bytes);
  };
  const auto perform = [plan, within](memory_transfer& one) {
    ++plan->transfers;
    plan->bytes += one.bytes;
    bool reached = false;
    for (const auto& range : plan->reachable)
      reached = reached || within(range, one.data, one.bytes);
    if (!reached)
      ++plan->unreachable;
    const auto found = plan->sessions.find(one.session);
    if (found == plan->sessions.end() || found->second.owner.id() != one.owner)
      return wire::status::session_ended;
    auto* there = reinterpret_cast<std::byte*>(one.client_address);
    const auto region = plan->memory.find(one.rkey);
    if (region == plan->memory.end() || !within(region->second, there, one.bytes))
      return wire::status::memory_refused;
    const auto judged = plan->verdict ? plan->verdict(one) : wire::status::ok;
    if (judged != wire::status::ok)
      std::memset(one.fetch ? one.data : there, 0xBD, one.bytes / 2);
    else
      std::memcpy(one.fetch ? one.data : there, one.fetch ? there : one.data, one.bytes);
    return judged;
  };
  const auto answer = [plan](std::vector<memory_transfer_ptr> done) {
    std::map<caf::actor, bytes_moved> by_asker;
    for (auto& each : done)
      by_asker[each->reply_to].transfers.push_back(each);
    plan->pending -= done.size();
    for (auto& [to, message] : by_asker)
      caf::anon_send(to, std::move(message));
  };
  const auto schedule = [self, plan] {
    if (std::exchange(self->state.round_due, true))
      return;
    self->delayed_send(self, std::chrono::milliseconds{plan->delay_ms}, look_again{});
  };
  const auto end_session = [self, plan, answer](std::uint64_t request, std::uint64_t id, wire::status how) {
    const auto found = plan->sessions.find(id);
    if (found == plan->sessions.end())
      return;
    std::vector<memory_transfer_ptr> over;
    std::erase_if(self->state.queue, [&](const memory_transfer_ptr& each) {
      if (each->session != id)
        return false;
      each->result = wire::status::session_ended;
      over.push_back(each);
      return true;
    });
    const auto owner = found->second.owner;
    plan->sessions.erase(found);
    answer(std::move(over));
    caf::anon_send(owner, session_ended{request, id, owner.id(), how});
  };
  self->set_down_handler([plan, end_session](const caf::down_msg& message) {
    const std::lock_guard guard(plan->lock);
    std::vector<std::uint64_t> gone;
    for (const auto& [id, each] : plan->sessions)
      if (each.owner.id() == message.source.id())
        gone.push_back(id);
    for (const auto id : gone)
      end_session(0, id, wire::status::ok);
  });
  return {
      [self, plan](const attach_session& message) {
        const std::lock_guard guard(plan->lock);
        if (plan->silent)
          return;
        session_attached out;
        out.request = message.request;
        out.result = plan->attach_result;
        out.pool = self;
        if (out.result == wire::status::ok) {
          out.session = plan->next_session++;
          plan->sessions[out.session] = {message.owner};
          self->monitor(message.owner);
          out.server = message.client;
          out.server.number = 77;
          out.transfer_bytes_max = plan->transfer_bytes_max;
        }
        caf::anon_send(message.owner, std::move(out));
      },
      [plan, end_session](const detach_session& message) {
        const std::lock_guard guard(plan->lock);
        const auto found = plan->sessions.find(message.session);
        if (found == plan->sessions.end() || found->second.owner != message.owner)
          caf::anon_send(message.owner, session_ended{message.request, message.session, message.owner.id(),
                                                      wire::status::not_found});
        else
          end_session(message.request, message.session, wire::status::ok);
      },
      [self, plan, schedule](const move_bytes& message) {
        const std::lock_guard guard(plan->lock);
        ++plan->messages;
        plan->pending += message.transfers.size();
        auto& queue = self->state.queue;
        queue.insert(queue.end(), message.transfers.begin(), message.transfers.end());
        schedule();
      },
      [self, plan, schedule, perform, answer](const look_again&) {
        const std::lock_guard guard(plan->lock);
        auto& queue = self->state.queue;
        self->state.round_due = false;
        if (plan->silent || queue.empty())
          return;
        auto now = queue.size();
        if (plan->shuffles) {
          std::ranges::shuffle(queue, plan->random);
          now = 1 + plan->random() % queue.size();
        }
        std::vector<memory_transfer_ptr> done(queue.begin(),
                                              queue.begin() + static_cast<std::ptrdiff_t>(now));
        queue.erase(queue.begin(), queue.begin() + static_cast<std::ptrdiff_t>(now));
        for (const auto& each : done)
          each->result = perform(*each);
        answer(std::move(done));
        if (!queue.empty())
          schedule();
      },
      [plan](const send_messages& message) {
        const std::lock_guard guard(plan->lock);
        for (const auto& each : message.messages)
          plan->answers[each.session].push_back(each.bytes);
      },
      // From the test: the transport broke.
      [plan, end_session](const session_ended& message) {
        const std::lock_guard guard(plan->lock);
        end_session(0, message.session, wire::status::ok);
      },
  };
}

/// A drive that has to be asked for everything, as raw ones have, and counts what it is asked for.
class raw_like_device final : public engine::block_device {
public:
  explicit raw_like_device(std::uint64_t bytes) {
    CAF_REQUIRE(engine::open_memory_device(bytes, "raw", below_).ok());
  }
  [[nodiscard]] const engine::device_information& information() const noexcept override {
    return below_->information();
  }
  void submit(engine::io_operation& operation) override {
    if (operation.what == engine::io_operation::kind::read) {
      ++reads;
      read_bytes += operation.length;
    }
    below_->submit(operation);
  }
  std::size_t poll(bool wait) override { return below_->poll(wait); }
  [[nodiscard]] std::size_t in_flight() const noexcept override { return below_->in_flight(); }
  [[nodiscard]] bool needs_poll() const noexcept override { return in_flight() > 0; }
  void close() noexcept override { below_->close(); }
  /// What is on it.
  [[nodiscard]] std::span<std::byte> content() const noexcept { return below_->writable_mapping(); }
  std::atomic<std::uint64_t> reads{0}, read_bytes{0};

private:
  std::unique_ptr<engine::block_device> below_;
};

/// One connection, authenticated; blocking.
class wire_client {
public:
  struct answer {
    wire::frame_header header;
    std::vector<std::byte> variable, payload;
    [[nodiscard]] wire::status status() const { return header.status(); }
  };

  /// `order`: a lock of who works on this thread's memory beyond the socket, which orders nothing for those
  /// who look for races; null: nobody does.
  wire_client(int descriptor, const wire::shared_key& key, std::mutex* order = nullptr)
      : socket_(descriptor), mac_(key), order_(order) {
    const timeval patience{60, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const auto nonce = wire::random_nonce();
    std::vector<std::byte> frame;
    wire::append_hello(frame, next_id_, nonce);
    write(frame);
    const auto hello = receive();
    const auto outcome = wire::read_hello_answer(key, hello.header, hello.variable, next_id_++, nonce);
    CAF_REQUIRE(outcome.genuine && outcome.status == wire::status::ok);
    keys_ = outcome.keys;
  }
  ~wire_client() { close(); }
  wire_client(const wire_client&) = delete;
  wire_client& operator=(const wire_client&) = delete;

  void close() {
    if (socket_ >= 0)
      ::close(std::exchange(socket_, -1));
  }

  [[nodiscard]] std::uint64_t next_id() const noexcept { return next_id_; }
  [[nodiscard]] const wire::session_keys& keys() const noexcept { return keys_; }

  template <class Body>
  std::uint64_t send(wire::opcode what, const Body& body, std::uint32_t deadline_ms = 0,
                     wire::digest_kind kind = wire::digest_kind::crc32c) {
    wire::frame_header header;
    header.opcode = what;
    header.request_id = next_id_;
    header.deadline_ms = deadline_ms;
    header.tag = keys_.tag;
    header.kind = kind;
    std::vector<std::byte> frame;
    wire::append_frame(frame, header, body);
    write(frame);
    return next_id_++;
  }

  /// The next frame, whatever it answers.
  answer receive() {
    answer out;
    std::vector<std::byte> head(wire::limits::fixed_header_bytes);
    read(head);
    CAF_REQUIRE(wire::decode_header(head, out.header) == wire::header_fault::none);
    out.variable.resize(out.header.header_length - head.size());
    read(out.variable);
    std::vector<std::byte> trailer(wire::limits::trailer_bytes);
    read(trailer);
    out.payload.resize(out.header.payload_length);
    read(out.payload);
    fence();
    return out;
  }
  answer receive(std::uint64_t id) {
    auto out = receive();
    CAF_REQUIRE_EQUAL(out.header.request_id, id);
    return out;
  }
  template <class Body>
  answer ask(wire::opcode what, const Body& body, std::uint32_t deadline_ms = 0,
             wire::digest_kind kind = wire::digest_kind::crc32c) {
    return receive(send(what, body, deadline_ms, kind));
  }

private:
  void fence() {
    if (order_ != nullptr)
      const std::lock_guard guard(*order_);
  }
  void write(std::vector<std::byte>& frame) {
    fence();
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    wire::seal(frame,
               static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()),
               mac_);
    std::span<const std::byte> left{frame};
    while (!left.empty()) {
      const auto count = ::send(socket_, left.data(), left.size(), MSG_NOSIGNAL);
      // The suite's own checks are for the test's thread.
      MEMKV_ASSERT(count > 0, "the server takes what a test sends");
      left = left.subspan(static_cast<std::size_t>(count));
    }
  }
  void read(std::span<std::byte> to) {
    while (!to.empty()) {
      const auto count = ::recv(socket_, to.data(), to.size(), 0);
      CAF_REQUIRE(count > 0);
      to = to.subspan(static_cast<std::size_t>(count));
    }
  }

  int socket_;
  wire::mac mac_;
  wire::session_keys keys_;
  std::uint64_t next_id_ = 1;
  std::mutex* order_;
};

/// raw: a memory that has to be asked for everything, as raw drives have; direct: a real one.
enum class storage { memory, memory_out_of_reach, file, raw, direct };
inline constexpr storage all_storages[] = {storage::memory, storage::memory_out_of_reach, storage::file,
                                           storage::raw, storage::direct};

inline std::string text_of(storage kind) {
  switch (kind) {
  case storage::memory:
    return "memory";
  case storage::memory_out_of_reach:
    return "memory that the device does not reach";
  case storage::file:
    return "file";
  case storage::raw:
    return "raw";
  case storage::direct:
    return "raw, through io_uring";
  }
  return "?";
}

class rdma_world {
public:
  explicit rdma_world(storage kind, std::uint32_t drives = 1, std::uint64_t pool_bytes = 64 * mib,
                      bool with_pool = true, const std::function<void(actors::server_options&)>& change = {})
      : plan(std::make_shared<pool_plan>()) {
    options.key = std::make_shared<wire::shared_key>(*wire::shared_key::parse(key_hex));
    options.reactors = 1;
    options.pool_bytes = pool_bytes;
    options.store.generation = &generation_;
    options.store.identity.drive_count = drives;
    options.drives.resize(drives);
    if (change)
      change(options);
    std::string problem;
    shared = actors::reactor_shared::create(options, problem);
    CAF_REQUIRE_EQUAL(problem, "");
    plan->reachable.push_back(shared->pool->range());
    // In the place of SERVER, of which it hears what it has to know of drives.
    server_ = system_.spawn(
        [](caf::event_based_actor* self, rdma_world* of) -> caf::behavior {
          self->set_default_handler(caf::drop);
          return {[of](const actors::drive_changed& message) {
            const std::lock_guard guard(of->lock_);
            of->opened_.push_back(message);
            of->changed_.notify_all();
          }};
        },
        this);
    reactor = system_.spawn<actors::reactor, caf::detached>(0U, shared,
                                                            caf::actor_cast<actors::server_actor>(server_));
    for (std::uint32_t index = 0; index < drives; ++index)
      spawn_drive(kind, index);
    std::unique_lock guard(lock_);
    const bool there =
        changed_.wait_for(guard, std::chrono::seconds{20}, [&] { return opened_.size() == drives; });
    CAF_REQUIRE(there);
    for (const auto& each : opened_) {
      bodies.push_back(each.body);
      if (kind == storage::memory)
        plan->reachable.push_back(each.body->device->writable_mapping());
      caf::anon_send(reactor, each);
    }
    guard.unlock();
    if (with_pool)
      start_pool();
  }

  ~rdma_world() {
    caf::scoped_actor self{system_};
    caf::anon_send(reactor, actors::finish_requests{});
    self->wait_for(reactor);
    for (auto& each : drives_) {
      caf::anon_send(each, actors::close_drive{});
      self->wait_for(each);
    }
    drives_.clear();
    opened_.clear();
    if (pool != nullptr)
      caf::anon_send_exit(pool, caf::exit_reason::user_shutdown);
    caf::anon_send_exit(server_, caf::exit_reason::user_shutdown);
    pool = server_ = reactor = nullptr;
    CAF_CHECK_EQUAL(plan->unreachable, 0u);
  }

  void start_pool() {
    pool = system_.spawn(stand_in_pool, plan);
    caf::anon_send(reactor, actors::dci_pool_changed{0, 1, pool, plan->reachable});
  }
  /// It dies with all it has, and SERVER says so.
  void kill_pool() {
    {
      caf::scoped_actor self{system_};
      caf::anon_send_exit(pool, caf::exit_reason::kill);
      self->wait_for(pool);
    }
    const std::lock_guard guard(plan->lock);
    plan->sessions.clear();
    plan->pending = 0;
    pool = nullptr;
    caf::anon_send(reactor, actors::dci_pool_changed{0, 1, nullptr, {}});
  }

  [[nodiscard]] std::unique_ptr<wire_client> connect() {
    int ends[2];
    CAF_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    actors::admission::refusal why{};
    auto slot = door_->admit(ends[0], {}, why);
    CAF_REQUIRE(slot != nullptr);
    caf::anon_send(reactor, actors::new_connection{std::move(slot)});
    return std::make_unique<wire_client>(ends[1], *options.key, &plan->lock);
  }

  [[nodiscard]] actors::reactor_facts facts() {
    caf::scoped_actor self{system_};
    caf::anon_send(reactor, actors::describe_yourself{1, self});
    actors::reactor_facts out;
    self->receive([&](const actors::described& said) { out = *said.what->reactor; });
    return out;
  }
  /// Changes a byte of the first drive where `content` lies, and lets go of what is remembered of it. Who
  /// works on memory is asked before and after, so that each sees what the other did.
  void damage(std::span<const std::byte> content) {
    static_cast<void>(facts());
    {
      const std::lock_guard turn(bodies[0]->turn);
      if (images.empty()) {
        const auto all = raw != nullptr ? raw->content() : bodies[0]->device->writable_mapping();
        const auto found = std::ranges::search(all, content);
        CAF_REQUIRE(!found.empty());
        found.front() ^= std::byte{1};
      } else {
        CAF_REQUIRE(damage_raw_image(images[0], content));
      }
    }
    // Whoever wants all of the pool drops the cache.
    std::vector<engine::buffer> all;
    while (auto chunk = shared->cache->acquire())
      all.push_back(std::move(chunk));
    all.clear();
    static_cast<void>(facts());
  }
  /// Waits for what must come, for 20 s at most.
  template <class Condition>
  static bool eventually(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end)
        return false;
      std::this_thread::sleep_for(std::chrono::milliseconds{2});
    }
    return true;
  }
  [[nodiscard]] std::size_t sessions_of_pool() const {
    const std::lock_guard guard(plan->lock);
    return plan->sessions.size();
  }
  [[nodiscard]] const actors::reactor_counters& counters() const { return *shared->counters[0]; }

  actors::server_options options;
  std::shared_ptr<actors::reactor_shared> shared;
  pool_plan_ptr plan;
  std::vector<std::shared_ptr<actors::drive_body>> bodies;
  raw_like_device* raw = nullptr; // the first drive's
  std::vector<std::string> images;
  caf::actor reactor, pool;

private:
  void spawn_drive(storage kind, std::uint32_t index) {
    actors::drive_settings settings;
    settings.index = index;
    settings.options = options.store;
    settings.options.identity.drive_index = index;
    settings.time = options.time;
    settings.server = caf::actor_cast<actors::server_actor>(server_);
    settings.description.size_bytes = 128 * mib;
    settings.pool = shared->pool->range();
    settings.pool_keeper = shared;
    if (kind == storage::file) {
      settings.description.path = (directory_.path() / std::to_string(index)).string();
    } else if (kind == storage::direct) {
      settings.description = make_raw_image((directory_.path() / std::to_string(index)).string(), 128 * mib,
                                            options.store, index);
      images.push_back(settings.description.path);
    } else if (kind == storage::raw) {
      auto body = std::make_shared<actors::drive_body>();
      body->index = index;
      body->needs_buffers = true;
      auto device = std::make_unique<raw_like_device>(128 * mib);
      if (index == 0)
        raw = device.get();
      body->device = std::move(device);
      CAF_REQUIRE(
          engine::drive_store::open(*body->device, settings.options, *options.time, body->store).ok());
      settings.survivor = std::move(body);
    } else {
      settings.description.memory = true;
      settings.options.persistent = false;
    }
    drives_.push_back(
        caf::actor_cast<caf::actor>(system_.spawn<actors::drive, caf::detached>(std::move(settings))));
  }

  scratch_directory directory_;
  std::atomic<std::uint64_t> generation_{0};
  std::shared_ptr<actors::admission> door_ = std::make_shared<actors::admission>(100, 100, 100);
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<actors::drive_changed> opened_;
  caf::actor_system_config configuration_;
  caf::actor_system system_{configuration_};
  caf::actor server_;
  std::vector<caf::actor> drives_;
};

} // namespace memkv::test
