// The CONNECTION actor and its SessionTracker. One thread, no clock: CAF's test coordinator.
#define CAF_SUITE connection
#include "actors/connection.hpp"

#include <caf/test/dsl.hpp>

#include <set>

using namespace memkv::actors;

namespace {

/// Stands in for a REACTOR, which is a thread of its own in the server.
/// CAF 0.17.6 follows a null pointer when a function without arguments is spawned, hence the number.
reactor_actor::behavior_type silent_reactor(reactor_actor::pointer, int) {
  return {[](const new_connection&) {},   [](const drive_changed&) {},   [](const members_changed&) {},
          [](const extent_allocated&) {}, [](const extent_stored&) {},   [](const extent_was_read&) {},
          [](const block_erased&) {},     [](const end_connections&) {}, [](const finish_requests&) {},
          [](const describe_yourself&) {}};
}

struct fixture : test_coordinator_fixture<> {
  reactor_actor reactor = sys.spawn(silent_reactor, 0);
  connection_actor subject = sys.spawn(connection, reactor);
  fixture() { run(); }
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

CAF_TEST_FIXTURE_SCOPE_END()

CAF_TEST(a session is attached once and detached once) {
  session_tracker tracker;
  CAF_CHECK(tracker.attach(7));
  CAF_CHECK(!tracker.attach(7));
  CAF_CHECK(tracker.contains(7));
  CAF_CHECK(tracker.detach(7));
  CAF_CHECK(!tracker.detach(7));
  CAF_CHECK(!tracker.contains(7));
}

CAF_TEST(what is left when a connection ends is closed exactly once) {
  session_tracker tracker;
  for (std::uint64_t id = 1; id <= 5; ++id)
    CAF_CHECK(tracker.attach(id));
  CAF_CHECK(tracker.detach(3));
  std::multiset<std::uint64_t> closed;
  tracker.drain([&](std::uint64_t id) { closed.insert(id); });
  tracker.drain([&](std::uint64_t id) { closed.insert(id); });
  CAF_CHECK((closed == std::multiset<std::uint64_t>{1, 2, 4, 5}));
  CAF_CHECK_EQUAL(tracker.size(), 0u);
}

CAF_TEST(a connection has a bounded number of sessions) {
  session_tracker tracker;
  for (std::uint64_t id = 0; id < session_tracker::sessions_max; ++id)
    CAF_REQUIRE(tracker.attach(id));
  CAF_CHECK(!tracker.attach(session_tracker::sessions_max));
}
