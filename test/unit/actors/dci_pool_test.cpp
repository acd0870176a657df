// The DCI POOL actor on a simulated network: whose session it is, what becomes of transfers and sessions when
// somebody dies, and that no byte moves afterwards.
#define CAF_SUITE dci_pool
#include "actors/admin_gateway.hpp"
#include "actors/connection.hpp"
#include "actors/dci_pool.hpp"
#include "actors/log.hpp"
#include "actors/self_description.hpp"
#include "test/support/shared_network.hpp"
#include "test/support/slow_fabric.hpp"
#include "verbs/rc_scheduler.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>
#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <functional>
#include <future>
#include <set>
#include <utility>

using namespace memkv;
using namespace memkv::actors;
using test::gate;
using test::slow_to_close;

namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t millisecond = 1'000'000;

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

/// What a REACTOR was told, by several actors.
class heard {
public:
  template <class Message>
  void add(std::vector<Message> heard::*list, const Message& message) {
    {
      const std::lock_guard guard(lock_);
      (this->*list).push_back(message);
    }
    changed_.notify_all();
  }
  /// Waits, generously.
  template <class Condition>
  bool eventually(Condition condition) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, 20s, [&] { return condition(*this); });
  }
  template <class Function>
  auto look(Function function) {
    const std::lock_guard guard(lock_);
    return function(*this);
  }

  std::vector<session_attached> attached;
  std::vector<session_ended> ended;
  std::vector<memory_transfer_ptr> moved;
  std::vector<std::size_t> rounds;           // how many came together
  std::vector<std::size_t> moved_before_end; // how many had come when a session ended

private:
  std::mutex lock_;
  std::condition_variable changed_;
};

reactor_actor::behavior_type listening_reactor(reactor_actor::pointer, heard* what) {
  return {[](const new_connection&) {},
          [](const drive_changed&) {},
          [](const members_changed&) {},
          [](const extent_allocated&) {},
          [](const extent_stored&) {},
          [](const extents_were_read&) {},
          [](const block_erased&) {},
          [](const dci_pool_changed&) {},
          [what](const session_attached& message) { what->add(&heard::attached, message); },
          [what](const session_ended& message) {
            what->add(&heard::moved_before_end,
                      what->look([](const heard& all) { return all.moved.size(); }));
            what->add(&heard::ended, message);
          },
          [what](const bytes_moved& message) {
            what->add(&heard::rounds, message.transfers.size());
            for (const auto& each : message.transfers)
              what->add(&heard::moved, each);
          },
          [](const messages_arrived&) {},
          [](const end_connections&) {},
          [](const finish_requests&) {},
          [](const describe_yourself&) {}};
}

/// The far side: a target, and memory that it lends.
struct client_host {
  std::unique_ptr<verbs::fabric> device;
  std::vector<std::byte> memory;
  std::unique_ptr<verbs::memory_region> region;
  std::unique_ptr<verbs::dc_target> target;
  std::unique_ptr<verbs::completion_queue> completions;
  std::vector<std::unique_ptr<verbs::rc_queue_pair>> pairs;

  client_host(test::shared_network& network, std::size_t bytes, const std::string& name = "client")
      : device(network.create_node({.name = name})), memory(bytes) {
    CAF_REQUIRE(device->register_memory(memory, {true, true}, region).ok());
    CAF_REQUIRE(device->create_dc_target(77, target).ok());
    CAF_REQUIRE(device->create_completion_queue(4096, completions).ok());
  }
  /// Of a new queue pair.
  [[nodiscard]] verbs::peer_address rc_address() {
    verbs::queue_pair_options wanted;
    wanted.completions = completions.get();
    wanted.sends_max = 1;
    CAF_REQUIRE(device->create_rc(wanted, pairs.emplace_back()).ok());
    return verbs::to_peer_address(pairs.back()->address());
  }
  [[nodiscard]] verbs::peer_address address() const {
    verbs::peer_address out;
    out.what = verbs::peer_address::kind::dc;
    out.port = device->self();
    out.number = target->number();
    out.dc_key = target->key();
    return out;
  }
};

constexpr std::size_t memory_bytes = 1 << 20;

void fill(std::span<std::byte> bytes, unsigned value) {
  std::fill(bytes.begin(), bytes.end(), std::byte(value));
}

bool holds(std::span<const std::byte> bytes, unsigned value) {
  return std::all_of(bytes.begin(), bytes.end(), [&](std::byte one) { return one == std::byte(value); });
}

struct fixture {
  std::atomic<int> let_go_too_early{0};
  test::shared_network network;
  heard what;
  std::shared_ptr<std::vector<std::byte>> memory = std::make_shared<std::vector<std::byte>>(memory_bytes);
  std::shared_ptr<rail_past> past = std::make_shared<rail_past>();
  client_host host{network, memory_bytes};
  caf::actor_system_config configuration;
  caf::actor_system system{configuration};
  caf::scoped_actor self{system};
  reactor_actor reactor = system.spawn(listening_reactor, &what);
  std::vector<caf::actor> connections;
  caf::actor pool;
  std::uint64_t next_request = 1;
  bool rc = false; // or DC

  /// A part of a test that is done for each transport.
  void begin(bool over_rc) {
    end_pool(caf::exit_reason::user_shutdown);
    network.hold(false);
    // What the pool said last is on the way through the connections.
    for (const auto& each : connections)
      detach(each, 0);
    connections.clear();
    what.look([](heard& all) {
      all.attached.clear();
      all.ended.clear();
      all.moved.clear();
      all.rounds.clear();
      all.moved_before_end.clear();
    });
    std::fill(memory->begin(), memory->end(), std::byte{0});
    std::fill(host.memory.begin(), host.memory.end(), std::byte{0});
    past = std::make_shared<rail_past>();
    rc = over_rc;
  }
  [[nodiscard]] verbs::peer_address client_address() { return rc ? host.rc_address() : host.address(); }

  ~fixture() {
    end_pool(caf::exit_reason::user_shutdown);
    connections.clear();
    caf::anon_send_exit(reactor, caf::exit_reason::user_shutdown);
    // Before the actors' system goes.
    what.look([](heard& all) {
      all.moved.clear();
      all.attached.clear();
    });
  }

  dci_pool_settings settings() {
    dci_pool_settings out;
    out.open = [this](std::unique_ptr<verbs::fabric>& made, std::vector<std::string>&) {
      made = network.create_node({.name = "server"});
      return verbs::status{};
    };
    out.memory.push_back({*memory, memory});
    out.dc.initiators = 2;
    out.rc.sends_max = 128;
    out.rc.clients_max = 64;
    out.dc.small_sends_max = out.rc.small_sends_max = 0;
    out.past = past;
    // Both ways of waiting, whatever machine this is.
    out.spin_ns_max = rc ? 20'000 : 0;
    return out;
  }
  void start() { start(settings()); }
  void start(dci_pool_settings with) {
    pool = caf::actor_cast<caf::actor>(system.spawn<dci_pool, caf::detached>(std::move(with)));
  }
  /// Ends it, if it is there, and waits until its device is closed.
  void end_pool(caf::exit_reason how) {
    if (pool == nullptr)
      return;
    self->monitor(pool);
    caf::anon_send_exit(pool, how);
    wait_for_end();
  }
  void wait_for_end() {
    bool ended = false;
    self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(20s) >> [] {});
    CAF_REQUIRE(ended);
    pool = nullptr;
  }

  caf::actor connect() {
    connections.push_back(caf::actor_cast<caf::actor>(system.spawn(connection, reactor)));
    return connections.back();
  }
  void kill(const caf::actor& owner) {
    caf::anon_send_exit(owner, caf::exit_reason::kill);
    std::erase(connections, owner);
  }
  std::uint64_t begin_attach(const caf::actor& owner, const verbs::peer_address& client,
                             std::uint8_t from_host = 0) {
    attach_session wanted;
    wanted.host[0] = from_host;
    wanted.request = next_request++;
    wanted.pool = pool;
    wanted.client = client;
    caf::anon_send(caf::actor_cast<connection_actor>(owner), wanted);
    return wanted.request;
  }
  session_attached answer_to(std::uint64_t request) {
    session_attached out;
    CAF_REQUIRE(what.eventually([&](const heard& all) {
      for (const auto& each : all.attached)
        if (each.request == request) {
          out = each;
          return true;
        }
      return false;
    }));
    return out;
  }
  session_attached attach(const caf::actor& owner, const verbs::peer_address& client) {
    return answer_to(begin_attach(owner, client));
  }
  /// Ways to `host` alone are held up.
  std::shared_ptr<gate> hold_up(const client_host& at) {
    auto made = std::make_shared<gate>();
    network.set_way_taking([made, to = at.device->self().port_gid](const verbs::endpoint& peer) {
      if (peer.port_gid == to)
        made->wait();
    });
    return made;
  }
  [[nodiscard]] std::uint64_t queue_pairs() { return network.statistics().queue_pairs; }
  std::uint64_t session_of(const caf::actor& owner) {
    const auto made = attach(owner, client_address());
    CAF_REQUIRE(made.result == wire::status::ok);
    if (rc)
      CAF_REQUIRE(host.pairs.back()->connect(verbs::to_rc_address(made.server)).ok());
    return made.session;
  }
  session_ended detach(const caf::actor& owner, std::uint64_t session) {
    const auto request = next_request++;
    caf::anon_send(caf::actor_cast<connection_actor>(owner), detach_session{request, session, nullptr});
    session_ended out;
    CAF_REQUIRE(what.eventually([&](const heard& all) {
      for (const auto& each : all.ended)
        if (each.request == request) {
          out = each;
          return true;
        }
      return false;
    }));
    return out;
  }
  memory_transfer_ptr transfer(std::uint64_t session, const caf::actor& owner, bool fetch, std::size_t offset,
                               std::uint32_t bytes, std::uint64_t deadline_ns = 0) {
    auto one = std::make_shared<memory_transfer>();
    one->reply_to = caf::actor_cast<caf::actor>(reactor);
    one->session = session;
    one->owner = owner.id();
    one->fetch = fetch;
    one->data = memory->data() + offset;
    one->bytes = bytes;
    one->client_address = host.region->address() + offset;
    one->rkey = host.region->rkey();
    one->deadline_ns = deadline_ns != 0 ? deadline_ns : now_ns() + 20'000 * millisecond;
    // Whoever lets go of memory must know that no device works on it.
    one->keep = std::shared_ptr<void>(nullptr, [this, data = one->data, bytes](void*) {
      if (network.in_use(data, bytes))
        ++let_go_too_early;
    });
    return one;
  }
  void move(const std::vector<memory_transfer_ptr>& all) {
    caf::anon_send(caf::actor_cast<dci_pool_actor>(pool), move_bytes{all});
  }
  bool answered(std::size_t count) {
    return what.eventually([&](const heard& all) { return all.moved.size() >= count; });
  }
  std::set<wire::status> results() {
    return what.look([](const heard& all) {
      std::set<wire::status> out;
      for (const auto& each : all.moved)
        out.insert(each->result);
      return out;
    });
  }
  bool all_of_them_once(std::size_t count) {
    return what.look([&](const heard& all) {
      return all.moved.size() == count &&
             std::set<memory_transfer_ptr>(all.moved.begin(), all.moved.end()).size() == count;
    });
  }
  dci_pool_facts facts() {
    caf::anon_send(caf::actor_cast<dci_pool_actor>(pool),
                   describe_yourself{1, caf::actor_cast<caf::actor>(self)});
    dci_pool_facts out;
    bool came = false;
    self->receive(
        [&](const described& answer) {
          out = *answer.what->dci_pool;
          came = true;
        },
        caf::after(20s) >> [] {});
    CAF_REQUIRE(came);
    return out;
  }
  /// Waits until it reaches so many bytes of this machine's memory.
  bool reaches(std::uint64_t bytes) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (facts().reachable_bytes != bytes)
      if (std::chrono::steady_clock::now() >= limit)
        return false;
    return true;
  }
  /// Waits until the sessions have come to this number.
  bool sessions_become(std::uint64_t count) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    for (auto now = facts(); now.sessions != count || now.attaching != 0; now = facts())
      if (std::chrono::steady_clock::now() >= limit)
        return false;
    return true;
  }
  bool in_flight(std::uint64_t count) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (facts().posted != count)
      if (std::chrono::steady_clock::now() >= limit)
        return false;
    return true;
  }
  /// After it all: nothing was done to a device that it must not see, and no buffer was let go too early.
  void check_conduct() {
    for (const auto& each : network.misuse())
      CAF_ERROR(each);
    CAF_CHECK_EQUAL(let_go_too_early.load(), 0);
  }
};

/// Bytes at rest on both sides: whoever writes afterwards is seen.
struct poisoned {
  fixture& all;
  explicit poisoned(fixture& which) : all(which) {
    fill(*all.memory, 0xA5);
    fill(all.host.memory, 0x5A);
  }
  [[nodiscard]] bool untouched() const {
    all.network.hold(false);
    all.network.settle();
    return holds(*all.memory, 0xA5) && holds(all.host.memory, 0x5A);
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(dci_pool_tests, fixture)

CAF_TEST(bytes move both ways and each transfer is answered once) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect();
    const auto session = session_of(owner);
    CAF_CHECK(session != 0);
    fill(std::span(host.memory).subspan(0, 65536), 0x11);
    fill(std::span(*memory).subspan(65536, 65536), 0x22);
    std::vector<memory_transfer_ptr> wanted;
    for (std::uint32_t index = 0; index < 16; ++index) {
      wanted.push_back(transfer(session, owner, true, index * 4096, 4096));
      wanted.push_back(transfer(session, owner, false, 65536 + index * 4096, 4096));
    }
    move(wanted);
    CAF_REQUIRE(answered(32));
    CAF_CHECK(all_of_them_once(32));
    CAF_CHECK(results() == std::set{wire::status::ok});
    CAF_CHECK(holds(std::span(*memory).subspan(0, 65536), 0x11));
    CAF_CHECK(holds(std::span(host.memory).subspan(65536, 65536), 0x22));
    CAF_CHECK(holds(std::span(host.memory).subspan(131072), 0));
    CAF_CHECK(what.look([](const heard& all) { return all.rounds.size() <= all.moved.size(); }));
    const auto seen = facts();
    CAF_CHECK_EQUAL(seen.counters.fetched, 16u);
    CAF_CHECK_EQUAL(seen.counters.placed_bytes, 65536u);
    CAF_CHECK_EQUAL(seen.sessions, 1u);
    CAF_CHECK_EQUAL(seen.connections, 1u);
    CAF_CHECK(detach(owner, session).result == wire::status::ok);
    CAF_CHECK_EQUAL(facts().sessions, 0u);
    CAF_CHECK_EQUAL(facts().connections, 0u);
    wanted.clear();
    check_conduct();
  }
}

CAF_TEST(a pool that sleeps wakes for each transfer) {
  start();
  const auto owner = connect();
  const auto session = session_of(owner);
  for (std::size_t index = 1; index <= 100; ++index) {
    move({transfer(session, owner, index % 2 == 0, 0, 64)});
    CAF_REQUIRE(answered(index));
  }
  CAF_CHECK(results() == std::set{wire::status::ok});
}

CAF_TEST(what is in flight while a session is detached is waited for) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect();
    const auto session = session_of(owner);
    network.hold();
    move({transfer(session, owner, true, 0, 4096), transfer(session, owner, false, 8192, 4096)});
    CAF_REQUIRE(in_flight(2));
    const auto request = next_request++;
    caf::anon_send(caf::actor_cast<connection_actor>(owner), detach_session{request, session, nullptr});
    // The pool has taken it: what comes now is too late.
    CAF_REQUIRE_EQUAL(facts().sessions, 1u);
    CAF_CHECK(what.look([](const heard& all) { return all.ended.empty() && all.moved.empty(); }));
    network.hold(false);
    CAF_REQUIRE(what.eventually([](const heard& all) { return all.ended.size() == 1; }));
    CAF_CHECK(answered(2));
    CAF_CHECK(results() == std::set{wire::status::ok});
    move({transfer(session, owner, true, 0, 4096)});
    CAF_REQUIRE(answered(3));
    CAF_CHECK(results().contains(wire::status::session_ended));
    CAF_CHECK_EQUAL(facts().sessions, 0u);
    check_conduct();
  }
}

CAF_TEST(a session is of use to its own connection only) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect(), stranger = connect();
    const auto session = session_of(owner);
    const poisoned memories(*this);
    move({transfer(session, stranger, true, 0, 64), transfer(session, stranger, false, 64, 64),
          transfer(session + 1, owner, true, 0, 64)});
    CAF_REQUIRE(answered(3));
    CAF_CHECK(results() == std::set{wire::status::session_ended});
    CAF_CHECK(memories.untouched());
    // Past the CONNECTION, which would say so itself.
    caf::anon_send(caf::actor_cast<dci_pool_actor>(pool), detach_session{9'999, session, stranger});
    CAF_REQUIRE(what.eventually([](const heard& all) { return !all.ended.empty(); }));
    CAF_CHECK(what.look([](const heard& all) { return all.ended[0].result; }) == wire::status::not_found);
    CAF_CHECK_EQUAL(facts().sessions, 1u);
  }
}

CAF_TEST(memory that is not registered is refused and counted) {
  start();
  const auto owner = connect();
  const auto session = session_of(owner);
  std::vector<std::byte> elsewhere(4096);
  auto one = transfer(session, owner, false, 0, 64);
  one->data = elsewhere.data();
  auto two = transfer(session, owner, false, memory_bytes - 32, 64); // beyond the end
  move({one, two});
  CAF_REQUIRE(answered(2));
  CAF_CHECK(results() == std::set{wire::status::internal});
  CAF_CHECK_EQUAL(facts().counters.internal, 2u);
  // More memory may come.
  auto more = std::make_shared<std::vector<std::byte>>(4096);
  caf::anon_send(caf::actor_cast<dci_pool_actor>(pool), register_memory{*more, more});
  caf::anon_send(caf::actor_cast<dci_pool_actor>(pool), register_memory{*more, more});
  CAF_REQUIRE(reaches(memory_bytes + 4096));
  auto three = transfer(session, owner, true, 0, 64);
  three->data = more->data();
  move({three});
  CAF_REQUIRE(answered(3));
  CAF_CHECK(three->result == wire::status::ok);
  CAF_CHECK_EQUAL(facts().reachable_bytes, memory_bytes + 4096);
}

CAF_TEST(bytes move while memory is registered) {
  enum class end { none, in_order, killed };
  for (const auto how : {end::none, end::in_order, end::killed}) {
    begin(how == end::killed);
    gate closed;
    auto with = settings();
    with.open = [&](std::unique_ptr<verbs::fabric>& made, std::vector<std::string>&) {
      made = std::make_unique<slow_to_close>(
          network.create_node({.name = "server"}), [] {}, nullptr, &closed);
      return verbs::status{};
    };
    start(std::move(with));
    const auto owner = connect();
    const auto session = session_of(owner);
    auto more = std::make_shared<std::vector<std::byte>>(4096);
    for (int twice = 0; twice < 2; ++twice)
      caf::anon_send(caf::actor_cast<dci_pool_actor>(pool), register_memory{*more, more});
    CAF_REQUIRE(closed.holds_up(1));
    move({transfer(session, owner, true, 0, 4096), transfer(session, owner, false, 4096, 4096)});
    CAF_REQUIRE(answered(2));
    CAF_CHECK(results() == std::set{wire::status::ok});
    CAF_CHECK(detach(owner, session_of(owner)).result == wire::status::ok);
    CAF_CHECK_EQUAL(facts().reachable_bytes, memory_bytes);
    auto early = transfer(session, owner, true, 0, 64);
    early->data = more->data();
    move({early});
    CAF_REQUIRE(answered(3));
    CAF_CHECK(early->result == wire::status::internal);
    if (how == end::none) {
      closed.open();
      CAF_REQUIRE(reaches(memory_bytes + 4096));
      auto late = transfer(session, owner, true, 0, 64);
      late->data = more->data();
      move({late});
      CAF_REQUIRE(answered(4));
      CAF_CHECK(late->result == wire::status::ok);
    } else {
      // The device is not closed over the head of who registers, nor is the memory let go.
      self->monitor(pool);
      caf::anon_send_exit(pool,
                          how == end::killed ? caf::exit_reason::kill : caf::exit_reason::user_shutdown);
      bool ended = false;
      self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(50ms) >> [] {});
      CAF_REQUIRE(!ended);
      CAF_CHECK_GREATER(more.use_count(), 1);
      closed.open();
      wait_for_end();
      CAF_CHECK_EQUAL(more.use_count(), 1);
    }
    end_pool(caf::exit_reason::user_shutdown);
    check_conduct();
  }
}

CAF_TEST(a key that was withdrawn is refused and ends the session) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect();
    const auto session = session_of(owner);
    auto one = transfer(session, owner, false, 0, 64);
    one->rkey += 1000;
    move({one});
    CAF_REQUIRE(answered(1));
    CAF_CHECK(results() == std::set{wire::status::memory_refused});
    CAF_REQUIRE(what.eventually([](const heard& all) { return all.ended.size() == 1; }));
    CAF_CHECK(what.look([&](const heard& all) {
      return all.ended[0].request == 0 && all.ended[0].session == session && all.ended[0].owner == owner.id();
    }));
    CAF_CHECK_EQUAL(facts().sessions, 0u);
    CAF_CHECK_EQUAL(facts().counters.broken, 1u);
    CAF_CHECK(detach(owner, session).result == wire::status::not_found);
    // The next one is another session.
    CAF_CHECK(session_of(owner) != session);
  }
}

CAF_TEST(transfers are answered before the word that their session ended) {
  constexpr std::size_t rounds = 250, transfers = 4;
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect();
    for (std::size_t round = 1; round <= rounds; ++round) {
      const auto session = session_of(owner);
      std::vector<memory_transfer_ptr> wrong;
      for (std::size_t number = 0; number < transfers; ++number) {
        wrong.push_back(transfer(session, owner, false, number * 64, 64));
        wrong.back()->rkey += 1000;
      }
      move(wrong);
      CAF_REQUIRE(what.eventually([&](const heard& all) { return all.ended.size() == round; }));
      CAF_REQUIRE_EQUAL(what.look([](const heard& all) { return all.moved_before_end.back(); }),
                        round * transfers);
    }
  }
}

CAF_TEST(sessions are bounded) {
  auto with = settings();
  with.sessions_max = wire::limits::sessions_connection_max + 6;
  start(std::move(with));
  const auto owner = connect(), other = connect();
  std::set<std::uint64_t> all;
  for (std::uint32_t index = 0; index < wire::limits::sessions_connection_max; ++index)
    CAF_CHECK(all.insert(session_of(owner)).second);
  CAF_CHECK_EQUAL(all.size(), wire::limits::sessions_connection_max);
  CAF_CHECK(attach(owner, host.address()).result == wire::status::busy);
  const auto from_elsewhere = [&] { return answer_to(begin_attach(other, host.address(), 2)); };
  std::uint64_t last = 0;
  for (int index = 0; index < 6; ++index) {
    last = from_elsewhere().session;
    CAF_CHECK(all.insert(last).second);
  }
  CAF_CHECK(from_elsewhere().result == wire::status::busy);
  auto wrong = host.address();
  wrong.number = 0x1000000;
  CAF_CHECK(detach(other, last).result == wire::status::ok);
  kill(owner);
  CAF_CHECK(sessions_become(5));
  CAF_CHECK(attach(other, wrong).result == wire::status::bad_request);
  auto other_kind = host.address();
  other_kind.what = static_cast<verbs::peer_address::kind>(9);
  CAF_CHECK(attach(other, other_kind).result == wire::status::unsupported);
}

CAF_TEST(sessions end with their connection at each step of their life) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    // Dead before the pool hears of it.
    auto owner = connect();
    kill(owner);
    attach_session wanted;
    wanted.request = 1;
    wanted.pool = pool;
    wanted.owner = owner;
    wanted.client = client_address();
    caf::anon_send(caf::actor_cast<dci_pool_actor>(pool), wanted);
    CAF_CHECK(sessions_become(0));
    // In the middle of an attach: its question is on the way.
    owner = connect();
    caf::anon_send(caf::actor_cast<connection_actor>(owner), wanted);
    kill(owner);
    CAF_CHECK(sessions_become(0));
    // At rest.
    owner = connect();
    session_of(owner);
    session_of(owner);
    kill(owner);
    CAF_CHECK(sessions_become(0));
    // With transfers in flight, which come to their end first.
    owner = connect();
    auto session = session_of(owner);
    network.hold();
    move({transfer(session, owner, true, 0, 4096), transfer(session, owner, false, 4096, 4096)});
    CAF_REQUIRE(in_flight(2));
    kill(owner);
    CAF_CHECK_EQUAL(facts().sessions, 1u);
    network.hold(false);
    CAF_CHECK(answered(2));
    CAF_CHECK(sessions_become(0));
    // In the middle of a detach.
    owner = connect();
    session = session_of(owner);
    network.hold();
    move({transfer(session, owner, false, 0, 4096)});
    CAF_REQUIRE(in_flight(1));
    caf::anon_send(caf::actor_cast<connection_actor>(owner), detach_session{77, session, nullptr});
    kill(owner);
    network.hold(false);
    CAF_CHECK(answered(3));
    CAF_CHECK(sessions_become(0));
    CAF_CHECK_EQUAL(facts().connections, 0u);
    const poisoned memories(*this);
    CAF_CHECK(memories.untouched());
    check_conduct();
  }
}

CAF_TEST(bytes move while the way to another client is looked for) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect(), other = connect();
    const auto session = session_of(owner);
    client_host silent{network, 4096, "silent"};
    const auto closed = hold_up(silent);
    const auto asked = begin_attach(other, over_rc ? silent.rc_address() : silent.address());
    CAF_REQUIRE(closed->holds_up(1));
    move({transfer(session, owner, true, 0, 4096), transfer(session, owner, false, 4096, 4096)});
    CAF_CHECK(answered(2));
    CAF_CHECK(results() == std::set{wire::status::ok});
    // Others are attached, on the same connection as well, and detached.
    CAF_CHECK(detach(owner, session_of(owner)).result == wire::status::ok);
    CAF_CHECK(detach(other, session_of(other)).result == wire::status::ok);
    CAF_CHECK_EQUAL(facts().attaching, 1u);
    CAF_CHECK_EQUAL(facts().connections, 2u);
    closed->open();
    const auto made = answer_to(asked);
    CAF_CHECK(made.result == wire::status::ok);
    CAF_CHECK(detach(other, made.session).result == wire::status::ok);
    CAF_CHECK(detach(owner, session).result == wire::status::ok);
    CAF_CHECK(sessions_become(0));
    CAF_CHECK_EQUAL(facts().connections, 0u);
    network.set_way_taking({});
    check_conduct();
  }
}

CAF_TEST(attaches under way are bounded) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    auto with = settings();
    with.attaching_max = 6;
    with.attaching_connection_max = 4;
    with.attaching_threads = 2;
    with.attach_wait_ns_max = 60'000 * millisecond;
    start(std::move(with));
    client_host silent{network, 4096, "silent"};
    const auto address = [&] { return over_rc ? silent.rc_address() : silent.address(); };
    const auto closed = hold_up(silent);
    const auto owner = connect(), other = connect();
    std::vector<std::uint64_t> asked;
    for (unsigned index = 0; index < 2; ++index)
      asked.push_back(begin_attach(owner, address()));
    CAF_REQUIRE(closed->holds_up(2));
    for (unsigned index = 0; index < 2; ++index)
      asked.push_back(begin_attach(owner, address()));
    CAF_CHECK(attach(owner, address()).result == wire::status::busy);
    for (unsigned index = 0; index < 2; ++index)
      asked.push_back(begin_attach(other, address()));
    // There is room for who has less under way and waiting than another, and only until they have the same.
    asked.push_back(begin_attach(other, address()));
    CAF_CHECK(attach(other, address()).result == wire::status::busy);
    CAF_CHECK_EQUAL(facts().attaching, 6u);
    closed->open();
    for (std::size_t index = 0; index < asked.size(); ++index)
      CAF_CHECK(answer_to(asked[index]).result == (index == 3 ? wire::status::busy : wire::status::ok));
    CAF_CHECK_EQUAL(facts().attaching, 0u);
    network.set_way_taking({});
    check_conduct();
  }
}

CAF_TEST(nobody is driven out for an attach that is refused anyway) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    auto with = settings();
    with.attaching_max = 2;
    with.attaching_threads = 1;
    with.attach_wait_ns_max = 60'000 * millisecond;
    with.sessions_max = with.rc.clients_max = 8; // six of them for one host
    start(std::move(with));
    const auto many = connect();
    for (int index = 0; index < 6; ++index)
      CAF_REQUIRE(answer_to(begin_attach(many, client_address(), 1)).result == wire::status::ok);
    // One under way and one that waits: all places are taken, by somebody who costs more than others.
    client_host silent{network, 4096, "silent"};
    const auto address = [&] { return over_rc ? silent.rc_address() : silent.address(); };
    const auto closed = hold_up(silent);
    const auto owner = connect(), other = connect();
    const auto first = begin_attach(owner, address(), 2);
    CAF_REQUIRE(closed->holds_up(1));
    const auto second = begin_attach(owner, address(), 2);
    while (facts().attaching != 2) {
    }
    auto impossible = client_address();
    impossible.number = 1U << 24U;
    CAF_CHECK(answer_to(begin_attach(other, impossible, 3)).result == wire::status::bad_request);
    attach_session carries;
    carries.host[0] = 3;
    carries.request = next_request++;
    carries.pool = pool;
    carries.client = client_address();
    carries.reactor = caf::actor_cast<caf::actor>(reactor); // and there is no room for messages on a side
    const auto request = carries.request;
    caf::anon_send(caf::actor_cast<connection_actor>(other), std::move(carries));
    CAF_CHECK(answer_to(request).result == (over_rc ? wire::status::bad_request : wire::status::unsupported));
    CAF_CHECK(answer_to(begin_attach(other, client_address(), 1)).result == wire::status::busy);
    CAF_CHECK_EQUAL(facts().attaching, 2u);
    CAF_CHECK(what.look([&](const heard& all) {
      return std::ranges::none_of(all.attached, [&](const auto& each) { return each.request == second; });
    }));
    // One that is not refused takes the place.
    const auto honest = begin_attach(other, address(), 3);
    CAF_CHECK(answer_to(second).result == wire::status::busy);
    closed->open();
    CAF_CHECK(answer_to(first).result == wire::status::ok);
    CAF_CHECK(answer_to(honest).result == wire::status::ok);
    network.set_way_taking({});
    check_conduct();
  }
}

CAF_TEST(a crowd that looks for nobody keeps nobody else out) {
  for (const bool over_rc : {false, true})
    for (const bool from_elsewhere : {false, true}) {
      begin(over_rc);
      auto with = settings();
      with.attaching_max = 48;
      with.attaching_threads = 4;
      with.attach_wait_ns_max = 60'000 * millisecond;
      with.rc.clients_max = 1024; // some of nobody's are attached here
      start(std::move(with));
      gate never;
      network.set_way_taking([&never, here = host.device->self().port_gid](const verbs::endpoint& peer) {
        if (peer.port_gid != here)
          never.wait(50ms);
      });
      // Each of them asks for as many as it may, for another address of nobody each time.
      std::uint16_t next_address = 0;
      const auto nobody = [&] {
        auto out = client_address();
        out.port.port_gid.fill(0xEE);
        out.port.port_gid[0] = static_cast<std::uint8_t>(++next_address >> 8U);
        out.port.port_gid[1] = static_cast<std::uint8_t>(next_address);
        return out;
      };
      std::vector<caf::actor> crowd;
      std::vector<std::uint64_t> asked;
      for (int index = 0; index < 24; ++index)
        crowd.push_back(connect());
      const auto ask = [&] {
        for (const auto& each : crowd)
          for (int count = 0; count < 4; ++count)
            asked.push_back(begin_attach(each, nobody()));
      };
      ask();
      // More than there are places for: some have been told so.
      CAF_REQUIRE(what.eventually([](const heard& all) { return !all.attached.empty(); }));
      for (int index = 0; index < 6; ++index) {
        ask();
        const auto honest = connect();
        const auto made = answer_to(begin_attach(honest, client_address(), from_elsewhere ? 9 : 0));
        CAF_CHECK(made.result == wire::status::ok);
        CAF_CHECK_GREATER(facts().attaching, 8u); // the crowd was in its way
        kill(honest);
      }
      // They are answered too, in one way or the other.
      for (const auto each : asked)
        static_cast<void>(answer_to(each));
      for (const auto& each : crowd)
        kill(each);
      CAF_CHECK(sessions_become(0));
      network.set_way_taking({});
      check_conduct();
    }
}

CAF_TEST(one host leaves room for the clients of others) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    auto with = settings();
    with.sessions_max = with.rc.clients_max = 16;
    start(std::move(with));
    const auto owner = connect(), another = connect(), other = connect();
    std::vector<std::uint64_t> sessions;
    for (int index = 0; index < 12; ++index) {
      const auto made = answer_to(begin_attach(index % 2 == 0 ? owner : another, client_address(), 1));
      CAF_REQUIRE(made.result == wire::status::ok);
      sessions.push_back(made.session);
    }
    CAF_CHECK(answer_to(begin_attach(owner, client_address(), 1)).result == wire::status::busy);
    for (int index = 0; index < 4; ++index)
      CAF_CHECK(answer_to(begin_attach(other, client_address(), 2)).result == wire::status::ok);
    CAF_CHECK(answer_to(begin_attach(other, client_address(), 2)).result == wire::status::busy);
    // What ends is counted no more, however it ends.
    CAF_CHECK(detach(owner, sessions[0]).result == wire::status::ok);
    CAF_CHECK(answer_to(begin_attach(owner, client_address(), 1)).result == wire::status::ok);
    kill(another);
    CAF_CHECK(sessions_become(10));
    for (int index = 0; index < 6; ++index)
      CAF_CHECK(answer_to(begin_attach(owner, client_address(), 1)).result == wire::status::ok);
    CAF_CHECK(answer_to(begin_attach(owner, client_address(), 1)).result == wire::status::busy);
    check_conduct();
  }
}

CAF_TEST(an attach that has waited for too long is answered busy) {
  auto with = settings();
  with.attach_wait_ns_max = 0; // which each has
  start(std::move(with));
  CAF_REQUIRE(sessions_become(0)); // it is there
  const auto before = queue_pairs();
  const auto owner = connect();
  CAF_CHECK(attach(owner, host.address()).result == wire::status::busy);
  CAF_CHECK(sessions_become(0));
  CAF_CHECK_EQUAL(facts().connections, 0u);
  CAF_CHECK_EQUAL(queue_pairs(), before);
}

CAF_TEST(an attach is undone when its connection dies before it is done) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    auto with = settings();
    with.attaching_threads = 1;
    start(std::move(with));
    const auto witness = connect();
    session_of(witness);
    client_host silent{network, 4096, "silent"};
    const auto closed = hold_up(silent);
    const auto first = over_rc ? silent.rc_address() : silent.address();
    const auto second = over_rc ? silent.rc_address() : silent.address();
    const auto before = queue_pairs();
    // One under way, one that waits.
    const auto owner = connect();
    begin_attach(owner, first);
    CAF_REQUIRE(closed->holds_up(1));
    begin_attach(owner, second);
    while (facts().attaching != 2) {
    }
    kill(owner);
    while (facts().connections != 1) {
    }
    closed->open();
    CAF_CHECK(sessions_become(1));
    CAF_CHECK_EQUAL(queue_pairs(), before);
    CAF_CHECK_EQUAL(facts().counters.attached, 1u);
    network.set_way_taking({});
    check_conduct();
  }
}

CAF_TEST(a pool that ends while clients are being attached leaves no queue pair behind) {
  enum class end { in_order, killed, device_taken };
  for (const bool over_rc : {false, true})
    for (const auto how : {end::in_order, end::killed, end::device_taken}) {
      begin(over_rc);
      client_host silent{network, 4096, "silent"};
      const auto first = over_rc ? silent.rc_address() : silent.address();
      const auto second = over_rc ? silent.rc_address() : silent.address();
      const auto before = queue_pairs();
      auto with = settings();
      with.attaching_threads = 1;
      start(std::move(with));
      const auto closed = hold_up(silent);
      const auto owner = connect();
      begin_attach(owner, first);
      CAF_REQUIRE(closed->holds_up(1));
      begin_attach(owner, second);
      while (facts().attaching != 2) {
      }
      self->monitor(pool);
      if (how == end::device_taken)
        CAF_REQUIRE(network.kill("server"));
      else
        caf::anon_send_exit(pool,
                            how == end::killed ? caf::exit_reason::kill : caf::exit_reason::user_shutdown);
      // The device is not closed over the head of whoever still uses it.
      bool early = false;
      self->receive([&](const caf::down_msg&) { early = true; }, caf::after(50ms) >> [] {});
      CAF_REQUIRE(!early);
      closed->open();
      wait_for_end();
      CAF_CHECK_EQUAL(queue_pairs(), before);
      network.set_way_taking({});
      // The next one is as good as new.
      rc = over_rc;
      start();
      CAF_CHECK(detach(owner, session_of(owner)).result == wire::status::ok);
      check_conduct();
    }
}

CAF_TEST(no byte moves after a pool that was killed with transfers in flight) {
  for (const auto& [over_rc, by_exception] :
       {std::pair{false, false}, std::pair{false, true}, std::pair{true, false}, std::pair{true, true}}) {
    begin(over_rc);
    start();
    const auto owner = connect();
    const auto session = session_of(owner);
    network.hold();
    std::vector<memory_transfer_ptr> wanted;
    for (std::uint32_t index = 0; index < 200; ++index)
      wanted.push_back(transfer(session, owner, index % 2 == 0, index * 4096, 4096));
    move(wanted);
    wanted.clear();
    CAF_REQUIRE(in_flight(128));
    if (by_exception) {
      self->monitor(pool);
      caf::anon_send(pool, act_up{});
      wait_for_end();
    } else {
      end_pool(caf::exit_reason::kill);
    }
    const poisoned memories(*this);
    CAF_CHECK(memories.untouched());
    CAF_CHECK(answered(200));
    CAF_CHECK(all_of_them_once(200));
    CAF_CHECK(results() == std::set{wire::status::unavailable});
    CAF_CHECK(what.eventually([&](const heard& all) {
      return std::any_of(all.ended.begin(), all.ended.end(),
                         [&](const auto& each) { return each.session == session; });
    }));
    CAF_CHECK_EQUAL(past->read().retryable, 200u);
    CAF_CHECK_EQUAL(past->read().attached, 1u);
  }
  check_conduct();
}

CAF_TEST(a device that is taken away ends its sessions and its pool) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    start();
    const auto owner = connect();
    const auto session = session_of(owner);
    network.hold();
    std::vector<memory_transfer_ptr> wanted;
    for (std::uint32_t index = 0; index < 20; ++index)
      wanted.push_back(transfer(session, owner, index % 2 == 0, index * 4096, 4096));
    move(wanted);
    CAF_REQUIRE(in_flight(20));
    self->monitor(pool);
    CAF_REQUIRE(network.kill("server"));
    wait_for_end();
    CAF_CHECK(answered(20));
    CAF_CHECK(all_of_them_once(20));
    CAF_CHECK(results() == std::set{wire::status::unavailable});
    CAF_CHECK(what.eventually([&](const heard& all) { return all.ended.size() == 1; }));
    const poisoned memories(*this);
    CAF_CHECK(memories.untouched());
    check_conduct();
  }
}

CAF_TEST(a transfer that the device never reports ends soon after its deadline) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    auto with = settings();
    with.dc.posted_ns_min = 50 * millisecond;
    with.dc.drain_ns_max = 50 * millisecond;
    with.rc.posted_ns_min = with.rc.drain_ns_max = 50 * millisecond;
    start(std::move(with));
    const auto owner = connect();
    const auto session = session_of(owner);
    network.withhold_reports("server");
    // Far enough away to be posted before on a machine that is slow.
    move({transfer(session, owner, false, 0, 4096, now_ns() + 400 * millisecond)});
    CAF_REQUIRE(answered(1));
    CAF_CHECK(results() == std::set{wire::status::deadline_exceeded});
    CAF_CHECK(facts().counters.destroyed >= 1);
    const poisoned memories(*this);
    CAF_CHECK(memories.untouched());
    CAF_CHECK(sessions_become(0));
    check_conduct();
  }
}

CAF_TEST(a client that dies breaks its session alone) {
  start();
  const auto owner = connect(), other = connect();
  client_host mortal{network, 4096, "mortal"};
  for (const bool over_rc : {false, true}) {
    rc = over_rc;
    const auto unhurt = session_of(other);
    const auto made = attach(owner, over_rc ? mortal.rc_address() : mortal.address());
    CAF_REQUIRE(made.result == wire::status::ok);
    if (over_rc)
      CAF_REQUIRE(mortal.pairs.back()->connect(verbs::to_rc_address(made.server)).ok());
    const auto session = made.session;
    auto one = transfer(session, owner, false, 0, 4096);
    one->client_address = mortal.region->address();
    one->rkey = mortal.region->rkey();
    // Its process ends: queue pair, target and memory are no more.
    if (over_rc)
      mortal.pairs.clear();
    else
      mortal.target.reset();
    move({one});
    CAF_REQUIRE(what.eventually([&](const heard& all) {
      return std::any_of(all.ended.begin(), all.ended.end(),
                         [&](const auto& each) { return each.session == session && each.request == 0; });
    }));
    CAF_CHECK(one->result == wire::status::unavailable);
    auto two = transfer(unhurt, other, false, 8192, 4096);
    const auto before = what.look([](const heard& all) { return all.moved.size(); });
    move({two});
    CAF_REQUIRE(answered(before + 1));
    CAF_CHECK(two->result == wire::status::ok);
    CAF_CHECK(detach(other, unhurt).result == wire::status::ok);
    CAF_CHECK(sessions_become(0));
  }
  check_conduct();
}

CAF_TEST(who hears that a device failed finds it closed) {
  std::promise<void> told;
  auto heard_of_it = told.get_future();
  std::atomic<bool> too_early{false};
  const auto server = system.spawn(
      [](caf::event_based_actor* self, std::promise<void>* said) -> caf::behavior {
        self->set_default_handler(caf::drop);
        return {[self, said](const dci_pool_failed&) {
          said->set_value();
          self->quit();
        }};
      },
      &told);
  auto with = settings();
  with.server = caf::actor_cast<server_actor>(server);
  with.open = [&](std::unique_ptr<verbs::fabric>& made, std::vector<std::string>&) {
    made = std::make_unique<slow_to_close>(network.create_node({.name = "server"}), [&] {
      too_early = heard_of_it.wait_for(200ms) == std::future_status::ready;
    });
    return verbs::status{};
  };
  start(std::move(with));
  const auto owner = connect();
  static_cast<void>(session_of(owner));
  self->monitor(pool);
  CAF_REQUIRE(network.kill("server"));
  wait_for_end();
  CAF_CHECK(heard_of_it.wait_for(20s) == std::future_status::ready);
  CAF_CHECK(!too_early);
  check_conduct();
}

CAF_TEST(a device that does not destroy a queue pair is closed before anybody has memory back) {
  for (const bool over_rc : {false, true}) {
    begin(over_rc);
    std::atomic<std::uint32_t> left{0};
    std::atomic<std::size_t> told_before{0};
    auto with = settings();
    with.open = [&](std::unique_ptr<verbs::fabric>& made, std::vector<std::string>&) {
      made = std::make_unique<slow_to_close>(
          network.create_node({.name = "server"}),
          [&] {
            told_before = what.look([](const heard& all) { return all.moved.size() + all.ended.size(); });
          },
          &left);
      return verbs::status{};
    };
    start(std::move(with));
    const auto owner = connect(), other = connect();
    const auto session = session_of(owner), idle = session_of(other);
    network.hold();
    std::vector<memory_transfer_ptr> wanted;
    for (std::uint32_t index = 0; index < 20; ++index)
      wanted.push_back(transfer(session, owner, index % 2 == 0, index * 4096, 4096));
    move(wanted);
    wanted.clear();
    CAF_REQUIRE(in_flight(20));
    self->monitor(pool);
    left = 1;
    // The queue pair of the one that leaves is the one that stays.
    caf::anon_send(caf::actor_cast<connection_actor>(other), detach_session{999, idle, nullptr});
    network.hold(false);
    wait_for_end();
    CAF_CHECK(answered(20));
    CAF_CHECK(all_of_them_once(20));
    CAF_CHECK(what.eventually([&](const heard& all) { return all.ended.size() == 2; }));
    CAF_CHECK_EQUAL(told_before.load(), 0u);
    const poisoned memories(*this);
    CAF_CHECK(memories.untouched());
    check_conduct();
  }
}

CAF_TEST(a device that cannot be opened ends the pool) {
  auto with = settings();
  with.open = [](std::unique_ptr<verbs::fabric>&, std::vector<std::string>&) {
    return verbs::status{verbs::errc::not_found, "There is no RDMA device."};
  };
  start(std::move(with));
  self->monitor(pool);
  wait_for_end();
}

CAF_TEST_FIXTURE_SCOPE_END()
