// A server with RDMA devices, which are simulated: what it says of them, and what becomes of it when they
// fail.
#define CAF_SUITE rdma_server
#include "actors/connection.hpp"
#include "actors/log.hpp"
#include "test/scenario/server_fixture.hpp"
#include "test/support/shared_network.hpp"
#include "test/support/slow_fabric.hpp"

#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t mib = 1 << 20;

struct fixture : server_fixture {
  shared_network network;
  std::atomic<bool> there{true};
  std::atomic<std::uint32_t> opened{0};

  void configure(media kind, std::vector<std::string> devices, std::uint32_t threads = 1) {
    server_fixture::configure(kind, 2, 64 * mib);
    options.rdma.devices = std::move(devices);
    options.rdma.threads = threads;
    options.rdma.open = [this](const std::string& device, std::unique_ptr<verbs::fabric>& out,
                               std::vector<std::string>&) {
      if (!there)
        return verbs::status{verbs::errc::not_found, "There is no RDMA device " + device + "."};
      ++opened;
      out = network.create_node({.name = device});
      return verbs::status{};
    };
  }
  ~fixture() { server.reset(); } // before the network

  std::shared_ptr<const actors::server_report> report() {
    auto got = server->door()->report(2s);
    if (got.report == nullptr)
      CAF_FAIL("the server does not report");
    return got.report;
  }
  template <class Condition>
  bool eventually(Condition condition) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (!condition(*report()))
      if (std::chrono::steady_clock::now() >= limit)
        return false;
      else
        std::this_thread::sleep_for(20ms);
    return true;
  }
  [[nodiscard]] caf::actor actor(const std::string& name) const {
    for (const auto& [each, who] : server->actors())
      if (each == name)
        return who;
    return nullptr;
  }
  void serves() const {
    const auto client = connect();
    const auto value = pattern("key", 1, 100'000);
    CAF_CHECK_EQUAL(client->put("key", value).code, client::errc::ok);
    std::vector<std::byte> target(value.size());
    CAF_CHECK_EQUAL(client->get("key", target).code, client::errc::ok);
    CAF_CHECK(target == value);
  }
};

bool online(const actors::server_report& report, std::size_t rail) {
  return report.rails.at(rail).state == actors::rail_state::online && report.rails[rail].facts;
}

/// Of the actor of that name, if there is one.
std::optional<std::uint64_t> restarts(const actors::server_report& report, std::string_view name) {
  for (const auto& each : report.actors)
    if (each.name == name)
      return each.restarts;
  return std::nullopt;
}

/// What the CONNECTIONs of this test pass to their REACTOR.
struct session_log {
  std::mutex lock;
  std::vector<actors::session_attached> attached;
  std::vector<actors::session_ended> ended;
};

actors::reactor_actor::behavior_type listening_reactor(actors::reactor_actor::pointer,
                                                       std::shared_ptr<session_log> log) {
  using namespace actors;
  return {[](const new_connection&) {},
          [](const drive_changed&) {},
          [](const members_changed&) {},
          [](const extent_allocated&) {},
          [](const extent_stored&) {},
          [](const extents_were_read&) {},
          [](const block_erased&) {},
          [](const dci_pool_changed&) {},
          [log](const session_attached& message) {
            const std::lock_guard guard(log->lock);
            log->attached.push_back(message);
          },
          [log](const session_ended& message) {
            const std::lock_guard guard(log->lock);
            log->ended.push_back(message);
          },
          [](const bytes_moved&) {},
          [](const messages_arrived&) {},
          [](const end_connections&) {},
          [](const finish_requests&) {},
          [](const describe_yourself&) {}};
}

/// A CONNECTION beside those of the server, with a session on one of its rails.
struct guest {
  std::unique_ptr<verbs::fabric> device;
  std::unique_ptr<verbs::dc_target> target;
  std::shared_ptr<session_log> log = std::make_shared<session_log>();
  actors::reactor_actor reactor;
  actors::connection_actor connection;

  guest(shared_network& network, const caf::actor& pool) : device(network.create_node({.name = "guest"})) {
    CAF_REQUIRE(device->create_dc_target(5, target).ok());
    auto& system = pool.home_system();
    reactor = system.spawn(listening_reactor, log);
    connection = system.spawn(actors::connection, reactor);
    actors::attach_session wanted;
    wanted.request = 1;
    wanted.pool = pool;
    wanted.client.what = verbs::peer_address::kind::dc;
    wanted.client.port = device->self();
    wanted.client.number = target->number();
    wanted.client.dc_key = target->key();
    caf::anon_send(connection, wanted);
  }
  ~guest() { caf::anon_send_exit(reactor, caf::exit_reason::user_shutdown); }
  [[nodiscard]] std::size_t ended() const {
    const std::lock_guard guard(log->lock);
    return log->ended.size();
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(rdma_server_tests, fixture)

CAF_TEST(every rail is in use when the server serves) {
  configure(media::memory, {"left", "right"}, 2);
  start();
  CAF_CHECK_EQUAL(opened.load(), 4u);
  const auto seen = report();
  CAF_CHECK_EQUAL(seen->phase, "serving");
  CAF_CHECK(seen->rdma_active);
  CAF_REQUIRE_EQUAL(seen->rails.size(), 4u);
  for (std::size_t rail = 0; rail < 4; ++rail) {
    CAF_CHECK(online(*seen, rail));
    CAF_CHECK_EQUAL(seen->rails[rail].device, rail % 2 == 0 ? "left" : "right");
    CAF_CHECK_EQUAL(seen->rails[rail].facts->queue_pairs, options.rdma.initiators);
  }
  // The buffer pool, and both drives.
  CAF_CHECK(eventually([](const auto& now) {
    return now.rails[3].facts && now.rails[3].facts->reachable_bytes >= 192 * mib;
  }));
  CAF_CHECK(actors::health_of(*report()) == actors::health::healthy);
  serves();
  CAF_CHECK(stop());
}

CAF_TEST(a pool that dies takes its sessions along and comes back) {
  configure(media::file, {"left"});
  start();
  for (const auto how : {caf::exit_reason::kill, caf::exit_reason::user_shutdown}) {
    const guest visitor(network, actor("dci-pool-0"));
    CAF_CHECK(eventually([](const auto& now) { return now.sessions == 1 && now.rdma_connections == 1; }));
    const auto before = opened.load();
    caf::anon_send_exit(actor("dci-pool-0"), how);
    CAF_CHECK(eventually([&](const auto& now) { return opened > before && online(now, 0); }));
    CAF_CHECK_EQUAL(visitor.ended(), 1u);
    CAF_CHECK_EQUAL(report()->sessions, 0u);
  }
  CAF_CHECK_EQUAL(report()->rails[0].counters.attached, 2u);
  CAF_CHECK_EQUAL(restarts(*report(), "dci-pool-0"), 2u);
  serves();
  CAF_CHECK(stop());
}

CAF_TEST(sessions end with the connection that has them and with the server) {
  configure(media::memory, {"left"});
  start();
  {
    const guest visitor(network, actor("dci-pool-0"));
    CAF_CHECK(eventually([](const auto& now) { return now.sessions == 1; }));
    caf::anon_send_exit(visitor.connection, caf::exit_reason::kill);
    CAF_CHECK(eventually([](const auto& now) { return now.sessions == 0; }));
  }
  {
    const guest visitor(network, actor("dci-pool-0"));
    CAF_CHECK(eventually([](const auto& now) { return now.sessions == 1; }));
    server->stop();
    CAF_CHECK(server->wait());
    CAF_CHECK_EQUAL(visitor.ended(), 1u);
  }
}

CAF_TEST(a device that is taken away is tried again while clients use TCP) {
  configure(media::memory, {"left", "right"});
  start();
  there = false;
  CAF_REQUIRE(network.kill("left"));
  CAF_CHECK(eventually(
      [](const auto& now) { return now.rails[0].state == actors::rail_state::offline && now.rdma_active; }));
  CAF_CHECK(report()->rails[0].reason.find("left") != std::string::npos);
  CAF_CHECK(actors::health_of(*report()) == actors::health::degraded);
  CAF_REQUIRE(network.kill("right"));
  CAF_CHECK(eventually([](const auto& now) { return !now.rdma_active; }));
  serves();
  there = true;
  CAF_CHECK(eventually([](const auto& now) { return online(now, 0) && online(now, 1); }));
  CAF_CHECK(report()->rails[0].reason.empty());
  // One each, however often it was tried meanwhile.
  CAF_CHECK_EQUAL(restarts(*report(), "dci-pool-0"), 1u);
  CAF_CHECK_EQUAL(restarts(*report(), "dci-pool-1"), 1u);
  CAF_CHECK(stop());
}

CAF_TEST(a server whose device is missing serves without it) {
  there = false;
  configure(media::memory, {"nowhere"});
  start();
  const auto seen = report();
  CAF_CHECK(!seen->rdma_active);
  CAF_REQUIRE_EQUAL(seen->rails.size(), 1u);
  CAF_CHECK(seen->rails[0].state == actors::rail_state::offline);
  CAF_CHECK_EQUAL(seen->rails[0].reason, "There is no RDMA device nowhere.");
  CAF_CHECK(actors::health_of(*seen) == actors::health::degraded);
  // The device is missing, no actor is; and its trials are no restarts.
  CAF_CHECK(!restarts(*seen, "dci-pool-0"));
  CAF_CHECK(std::ranges::all_of(seen->actors, &actors::actor_report::alive));
  there = true;
  CAF_CHECK(eventually([](const auto& now) { return online(now, 0); }));
  CAF_CHECK_EQUAL(restarts(*report(), "dci-pool-0"), 0u);
  serves();
  CAF_CHECK(stop());
}

CAF_TEST(a memory drive that comes back lies where the device knows it) {
  configure(media::memory, {"left"});
  start();
  const auto all = [](const auto& now) {
    return now.rails[0].facts && now.rails[0].facts->reachable_bytes >= 192 * mib;
  };
  CAF_CHECK(eventually(all));
  const auto before = report()->rails[0].facts->reachable_bytes;
  caf::anon_send_exit(actor("drive-0"), caf::exit_reason::kill);
  CAF_CHECK(eventually([](const auto& now) {
    for (const auto& each : now.actors)
      if (each.name == "drive-0")
        return each.restarts == 1 && now.drives_online() == 2;
    return false;
  }));
  CAF_CHECK_EQUAL(report()->rails[0].facts->reachable_bytes, before);
  CAF_CHECK(stop());
}

CAF_TEST(a stop does not wait for memory that is being registered) {
  gate registers;
  configure(media::memory, {"left"});
  options.drives.push_back({});
  options.drives.back().path = (directory.path() / "file").string();
  options.drives.back().size_bytes = 64 * mib;
  options.store.identity.drive_count = 3;
  options.rdma.open = [&](const std::string& device, std::unique_ptr<verbs::fabric>& out,
                          std::vector<std::string>&) {
    out = std::make_unique<slow_to_close>(
        network.create_node({.name = device}), [] {}, nullptr, &registers);
    return verbs::status{};
  };
  start();
  CAF_CHECK(registers.holds_up(1));
  const log::capture lines;
  server->stop();
  // What the process does then is up to serve_until_told(): it ends, whatever is still under way.
  CAF_CHECK(!server->wait());
  const auto all = lines.lines();
  const auto said = [&](std::string_view what) {
    return std::ranges::any_of(all,
                               [&](const auto& each) { return each.text.find(what) != std::string::npos; });
  };
  CAF_CHECK(said("an RDMA device was not closed in time"));
  CAF_CHECK(said("drive closed drive=2"));
  registers.open();
  server.reset();
}

CAF_TEST_FIXTURE_SCOPE_END()
