// The CONNECTION actor and its SessionTracker. One thread, no clock: CAF's test coordinator.
#define CAF_SUITE connection
#include "actors/connection.hpp"

#include <caf/test/dsl.hpp>

#include <set>
#include <vector>

using namespace memkv::actors;

namespace {

/// What REACTOR and DCI POOL were told.
struct heard {
  std::vector<session_attached> attached;
  std::vector<session_ended> ended;
  std::vector<attach_session> wanted;
  std::vector<detach_session> unwanted;
};

/// Stands in for a REACTOR, which is a thread of its own in the server.
reactor_actor::behavior_type silent_reactor(reactor_actor::pointer, heard* what) {
  return {[](const new_connection&) {},
          [](const drive_changed&) {},
          [](const members_changed&) {},
          [](const extent_allocated&) {},
          [](const extent_stored&) {},
          [](const extents_were_read&) {},
          [](const block_erased&) {},
          [](const dci_pool_changed&) {},
          [what](const session_attached& message) { what->attached.push_back(message); },
          [what](const session_ended& message) { what->ended.push_back(message); },
          [](const bytes_moved&) {},
          [](const messages_arrived&) {},
          [](const end_connections&) {},
          [](const finish_requests&) {},
          [](const describe_yourself&) {}};
}

/// Stands in for a DCI POOL.
dci_pool_actor::behavior_type listening_pool(dci_pool_actor::pointer, heard* what) {
  return {[what](const attach_session& message) { what->wanted.push_back(message); },
          [what](const detach_session& message) { what->unwanted.push_back(message); },
          [](const move_bytes&) {},
          [](const send_messages&) {},
          [](const register_memory&) {},
          [](const finish_requests&) {},
          [](const describe_yourself&) {}};
}

struct fixture : test_coordinator_fixture<> {
  heard what;
  reactor_actor reactor = sys.spawn(silent_reactor, &what);
  caf::actor pool = caf::actor_cast<caf::actor>(sys.spawn(listening_pool, &what));
  connection_actor subject = sys.spawn(connection, reactor);
  fixture() { run(); }
  /// A session that this connection wanted and got.
  void attach(std::uint64_t session) {
    attach_session wanted;
    wanted.request = session;
    wanted.pool = pool;
    caf::anon_send(subject, wanted);
    run();
    session_attached got;
    got.request = session;
    got.result = memkv::wire::status::ok;
    got.session = session;
    got.pool = pool;
    caf::anon_send(subject, got);
    run();
  }
  [[nodiscard]] bool ended() {
    bool down = false;
    self->monitor(subject);
    run();
    self->receive([&](const caf::down_msg&) { down = true; }, caf::after(std::chrono::seconds(0)) >> [] {});
    return down;
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(connection_tests, fixture)

CAF_TEST(a connection ends when its socket and its last request have) {
  CAF_CHECK(!ended());
  caf::anon_send(subject, connection_closed{});
  run();
  CAF_CHECK(ended());
}

CAF_TEST(a connection ends with its reactor) {
  caf::anon_send_exit(reactor, caf::exit_reason::kill);
  run();
  CAF_CHECK(ended());
}

CAF_TEST(who asks for a session is named to the pool and hears of it) {
  attach(5);
  CAF_REQUIRE_EQUAL(what.wanted.size(), 1u);
  CAF_CHECK_EQUAL(what.wanted.front().owner.id(), subject.id());
  CAF_REQUIRE_EQUAL(what.attached.size(), 1u);
  CAF_CHECK_EQUAL(what.attached.front().session, 5u);
}

CAF_TEST(what is left when a connection ends is detached) {
  attach(5);
  attach(6);
  attach(7);
  caf::anon_send(subject, session_ended{0, 6, subject.id()});
  run();
  CAF_CHECK_EQUAL(what.ended.size(), 1u);
  caf::anon_send(subject, connection_closed{});
  run();
  std::multiset<std::uint64_t> closed;
  for (const auto& each : what.unwanted)
    closed.insert(each.session);
  CAF_CHECK((closed == std::multiset<std::uint64_t>{5, 7}));
}

CAF_TEST(a session of another connection is not found) {
  attach(5);
  caf::anon_send(subject, detach_session{9, 77, nullptr});
  run();
  CAF_CHECK(what.unwanted.empty());
  CAF_REQUIRE_EQUAL(what.ended.size(), 1u);
  CAF_CHECK(what.ended.front().result == memkv::wire::status::not_found);
  CAF_CHECK_EQUAL(what.ended.front().request, 9u);
}

CAF_TEST(a session beyond the bound is given back at once) {
  for (std::uint64_t session = 1; session <= session_tracker::sessions_max; ++session)
    attach(session);
  CAF_CHECK(what.unwanted.empty());
  attach(1000);
  CAF_REQUIRE_EQUAL(what.unwanted.size(), 1u);
  CAF_CHECK_EQUAL(what.unwanted.front().session, 1000u);
  CAF_CHECK(what.attached.back().result == memkv::wire::status::busy);
}

CAF_TEST(sessions that nobody waited for do not count for ever) {
  // REACTOR gives back what was made after its request had given up.
  for (std::uint64_t session = 1; session <= 3 * session_tracker::sessions_max; ++session) {
    attach(session);
    CAF_CHECK(what.attached.back().result == memkv::wire::status::ok);
    caf::anon_send(subject, detach_session{0, session, nullptr});
    run();
    CAF_REQUIRE_EQUAL(what.unwanted.size(), session);
    CAF_CHECK_EQUAL(what.unwanted.back().session, session);
  }
  CAF_CHECK(what.ended.empty());
}

CAF_TEST_FIXTURE_SCOPE_END()

CAF_TEST(a session is attached once and detached once) {
  session_tracker tracker;
  CAF_CHECK(tracker.attach(7, nullptr));
  CAF_CHECK(!tracker.attach(7, nullptr));
  CAF_CHECK_EQUAL(tracker.size(), 1u);
  CAF_CHECK(tracker.detach(7));
  CAF_CHECK(!tracker.detach(7));
  CAF_CHECK_EQUAL(tracker.size(), 0u);
}
