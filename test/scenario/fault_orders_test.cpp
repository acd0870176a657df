// Faults on order in a running server: what each does, and that the server gets over it.
#define CAF_SUITE fault_orders
#include "actors/fault_orders.hpp"
#include "actors/fault_points.hpp"
#include "test/scenario/server_fixture.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

using namespace memkv;
using namespace std::chrono_literals;
using actors::fault_outcome;
using effect = engine::drive_fault::effect;
using target = engine::drive_fault::target;
using outcome = fault_outcome::kind;
using test::media;
using test::pattern;

namespace {

using clock_type = std::chrono::steady_clock;

struct fixture : test::server_fixture {
  void serve(media kind, std::uint32_t drives = 1) {
    configure(kind, drives, 256 << 20);
    options.fault_injection = true;
    options.flap_threshold = 1'000'000;
    options.io_timeout_ms = 1'000;
    start();
  }

  fault_outcome order(const actors::faults::order& what) { return server->faults()->apply(what); }
  void must_order(const actors::faults::order& what) {
    const auto answer = order(what);
    if (answer.what != outcome::done)
      CAF_FAIL("refused: " << answer.text);
  }

  static bool within(std::chrono::milliseconds limit, const std::function<bool()>& reached) {
    const auto end = clock_type::now() + limit;
    while (!reached()) {
      if (clock_type::now() > end)
        return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  [[nodiscard]] caf::actor_id id_of(const std::string& name) const {
    for (const auto& [each, who] : server->actors())
      if (each == name)
        return who.id();
    return 0;
  }

  /// Everything is there, and a put and a get succeed.
  bool healthy(client::client& user) {
    return within(20s, [&] {
      std::vector<std::byte> found(1'000);
      return server->drives_online() == options.drives.size() &&
             user.put("healthy", pattern("healthy", 0, 1'000)).code == client::errc::ok &&
             user.get("healthy", found).code == client::errc::ok && found == pattern("healthy", 0, 1'000);
    });
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(fault_orders_tests, fixture)

CAF_TEST(without fault injection nothing takes orders) {
  configure(media::file, 1, 64 << 20);
  start();
  CAF_CHECK(server->faults() == nullptr);
}

CAF_TEST(a kind is the name without the number behind it) {
  CAF_CHECK_EQUAL(actors::kind_of_actor("drive-12"), "drive");
  CAF_CHECK_EQUAL(actors::kind_of_actor("trim-batcher"), "trim-batcher");
  CAF_CHECK_EQUAL(actors::kind_of_actor("server"), "server");
  CAF_CHECK_EQUAL(actors::kind_of_actor("7"), "7");
}

CAF_TEST(every kind of actor but the root is killed in each way and is there again) {
  serve(media::file, 2);
  auto user = connect();
  CAF_REQUIRE(healthy(*user));
  for (const std::string name : {"reactor-0", "listener", "drive-1", "evictor"})
    for (const auto by :
         {actors::faults::how::kill, actors::faults::how::exception, actors::faults::how::shutdown}) {
      const auto before = id_of(name);
      CAF_REQUIRE(before != 0);
      const auto answer = order(actors::faults::kill{name, {}, by});
      CAF_CHECK(answer.what == outcome::done);
      CAF_CHECK_EQUAL(answer.text, name);
      const bool anew = within(20s, [&] {
        const auto now = id_of(name);
        return now != 0 && now != before;
      });
      if (!anew)
        CAF_FAIL(name << " was not started anew, way " << static_cast<int>(by));
      CAF_CHECK(healthy(*user));
    }
  const auto by_kind = order(actors::faults::kill{{}, "reactor", actors::faults::how::kill});
  CAF_CHECK(by_kind.what == outcome::done);
  CAF_CHECK(by_kind.text.starts_with("reactor-"));
  CAF_CHECK(healthy(*user));
  CAF_CHECK(order(actors::faults::kill{"drive-9", {}, {}}).what == outcome::unknown);
  CAF_CHECK(order(actors::faults::kill{{}, {}, {}}).what == outcome::refused);
  CAF_CHECK(stop());
}

CAF_TEST(a connection is killed in each way and clients connect again) {
  serve(media::file);
  auto user = connect(1);
  for (const auto by :
       {actors::faults::how::kill, actors::faults::how::exception, actors::faults::how::shutdown}) {
    CAF_REQUIRE(healthy(*user));
    CAF_CHECK_EQUAL(server->connections(), 1u);
    must_order(actors::faults::kill{{}, "connection", by});
    CAF_CHECK(within(5s, [&] { return server->connections() == 0; }));
  }
  CAF_CHECK(healthy(*user));
}

CAF_TEST(as many connections as ordered are dropped) {
  serve(media::file);
  std::vector<std::unique_ptr<client::client>> users;
  for (int each = 0; each < 6; ++each) {
    users.push_back(connect(1));
    CAF_REQUIRE(healthy(*users.back()));
  }
  CAF_REQUIRE_EQUAL(server->connections(), 6u);
  must_order(actors::faults::drop_connections{4});
  CAF_CHECK(within(5s, [&] { return server->connections() == 2; }));
  must_order(actors::faults::drop_connections{});
  CAF_CHECK(within(5s, [&] { return server->connections() == 0; }));
}

CAF_TEST(delayed connections answer late and afterwards at once) {
  serve(media::file);
  auto user = connect(1);
  CAF_REQUIRE(healthy(*user));
  const auto took = [&] {
    std::vector<std::byte> found(1'000);
    const auto begin = clock_type::now();
    CAF_CHECK(user->get("healthy", found).code == client::errc::ok);
    return clock_type::now() - begin;
  };
  must_order(actors::faults::delay_connections{300, 60});
  CAF_CHECK_EQUAL(server->faults()->list().connection_delay_ms, 300u);
  CAF_CHECK(took() >= 300ms);
  CAF_CHECK(user->put("late", pattern("late", 1, 200'000)).code == client::errc::ok);
  must_order(actors::faults::clear{});
  CAF_CHECK_EQUAL(server->faults()->list().connection_delay_ms, 0u);
  CAF_CHECK(healthy(*user));
  CAF_CHECK(order(actors::faults::delay_connections{0, 5}).what == outcome::refused);
  CAF_CHECK(order(actors::faults::delay_connections{5, 601}).what == outcome::refused);
}

CAF_TEST(a drive whose write fails goes offline and comes back with everything acknowledged) {
  serve(media::file);
  auto user = connect();
  for (int key = 0; key < 20; ++key)
    CAF_REQUIRE(user->put("key " + std::to_string(key), pattern("key", key, 70'000)).code ==
                client::errc::ok);
  must_order(actors::faults::drive{0, {effect::fail, target::writes, 1, 0}});
  CAF_CHECK(user->put("during", pattern("during", 0, 70'000)).code != client::errc::ok);
  CAF_CHECK_EQUAL(std::uint64_t{server->faults()->list().drives[0].met.failed}, 1u);
  CAF_CHECK(healthy(*user));
  for (int key = 0; key < 20; ++key) {
    std::vector<std::byte> found(70'000);
    CAF_CHECK(user->get("key " + std::to_string(key), found).code == client::errc::ok);
    CAF_CHECK(found == pattern("key", key, 70'000));
  }
  CAF_CHECK(order(actors::faults::drive{1, {}}).what == outcome::unknown);
  CAF_CHECK(order(actors::faults::drive{0, {effect::slow, target::any, 1, 0}}).what == outcome::refused);
  CAF_CHECK(order(actors::faults::drive{0, {effect::corrupt, target::writes, 1, 0}}).what ==
            outcome::conflict);
}

CAF_TEST(after a flush that failed once nothing is acknowledged before the drive was opened again) {
  options.store.sync = engine::sync_policy::always;
  serve(media::file);
  auto user = connect();
  CAF_REQUIRE(healthy(*user));
  std::vector<std::string> acknowledged, doubtful;
  const auto put = [&](const std::string& key) {
    const bool ok = user->put(key, pattern(key, 0, 70'000)).code == client::errc::ok;
    (ok ? acknowledged : doubtful).push_back(key);
    return ok;
  };
  for (int round = 0; round < 4; ++round) {
    const std::string name = "round " + std::to_string(round) + " ";
    CAF_REQUIRE(put(name + "before"));
    const auto incarnation = id_of("drive-0");
    CAF_REQUIRE(incarnation != 0);
    // The next one would succeed: nobody may ask for it.
    must_order(actors::faults::drive{0, {effect::fail, target::flushes, 1, 0}});
    CAF_CHECK(!put(name + "during"));
    int number = 0;
    CAF_REQUIRE(within(20s, [&] { return put(name + std::to_string(number++)); }));
    CAF_CHECK(id_of("drive-0") != 0);
    CAF_CHECK(id_of("drive-0") != incarnation);
    CAF_CHECK_EQUAL(std::uint64_t{server->faults()->list().drives[0].met.failed},
                    static_cast<std::uint64_t>(round + 1));
  }
  const auto look = [&] {
    std::vector<std::byte> found(70'000);
    for (const auto& key : acknowledged) {
      CAF_CHECK(user->get(key, found).code == client::errc::ok);
      CAF_CHECK(found == pattern(key, 0, 70'000));
    }
    for (const auto& key : doubtful)
      if (user->get(key, found).code == client::errc::ok)
        CAF_CHECK(found == pattern(key, 0, 70'000));
  };
  look();
  user.reset();
  CAF_CHECK(stop());
  start();
  user = connect();
  look();
}

CAF_TEST(a corrupted read brings no wrong byte) {
  serve(media::file);
  auto user = connect();
  for (int key = 0; key < 20; ++key)
    CAF_REQUIRE(user->put("key " + std::to_string(key), pattern("key", key, 70'000)).code ==
                client::errc::ok);
  must_order(actors::faults::drive{0, {effect::corrupt, target::reads, 8, 0}});
  for (int key = 0; key < 20; ++key) {
    std::vector<std::byte> found(70'000);
    if (user->get("key " + std::to_string(key), found).code == client::errc::ok)
      CAF_CHECK(found == pattern("key", key, 70'000));
  }
  CAF_CHECK_EQUAL(std::uint64_t{server->faults()->list().drives[0].met.corrupted}, 8u);
  CAF_CHECK(healthy(*user));
}

CAF_TEST(a drive that hangs for longer than the limit is offline until it answers) {
  serve(media::file, 2);
  auto user = connect(2, "", 3'000);
  CAF_REQUIRE(healthy(*user));
  must_order(actors::faults::drive{1, {effect::hang, target::writes, 1, 0}});
  int number = 0;
  CAF_CHECK(within(20s, [&] {
    static_cast<void>(user->put("key " + std::to_string(number++), pattern("key", 0, 5'000)));
    return server->drives_online() == 1;
  }));
  std::this_thread::sleep_for(300ms);
  CAF_CHECK_EQUAL(server->drives_online(), 1u);
  must_order(actors::faults::clear{});
  CAF_CHECK(healthy(*user));
}

CAF_TEST(a drive that is slow answers late and stays online) {
  serve(media::file);
  auto user = connect();
  CAF_REQUIRE(healthy(*user));
  must_order(actors::faults::drive{0, {effect::slow, target::writes, 1, 400'000'000}});
  const auto begin = clock_type::now();
  CAF_CHECK(user->put("slow", pattern("slow", 1, 70'000)).code == client::errc::ok);
  CAF_CHECK(clock_type::now() - begin >= 400ms);
  CAF_CHECK_EQUAL(server->drives_online(), 1u);
}

CAF_TEST(a stalled actor answers nothing for so long) {
  serve(media::file);
  auto user = connect();
  CAF_REQUIRE(healthy(*user));
  const auto answer = order(actors::faults::stall{"drive-0", 500});
  CAF_CHECK(answer.what == outcome::done);
  const auto begin = clock_type::now();
  CAF_CHECK(user->put("stalled", pattern("stalled", 1, 70'000)).code == client::errc::ok);
  CAF_CHECK(clock_type::now() - begin >= 450ms);
  CAF_CHECK(order(actors::faults::stall{"drive-0", 60'001}).what == outcome::refused);
  CAF_CHECK(order(actors::faults::stall{"nobody", 1}).what == outcome::unknown);
}

CAF_TEST(a report names the actor that is stalled and the next one has it again) {
  serve(media::file);
  auto user = connect();
  CAF_REQUIRE(healthy(*user));
  const auto door = server->door();
  CAF_CHECK(door->report(1s).silent.empty());
  CAF_CHECK(door->report(1s).report->fault_injection);
  for (const std::string name : {"reactor-1", "evictor", "server"}) {
    must_order(actors::faults::stall{name, 2'000});
    std::this_thread::sleep_for(150ms); // an earlier report is not given again
    const auto during = door->report(1s);
    CAF_CHECK_EQUAL(during.silent.size(), 1u);
    if (!during.silent.empty())
      CAF_CHECK_EQUAL(during.silent.front(), name);
    CAF_CHECK(within(10s, [&] { return door->report(1s).silent.empty(); }));
  }
}

CAF_TEST(memory drives have no faults of a device but their actor can be killed) {
  serve(media::memory);
  auto user = connect();
  CAF_REQUIRE(healthy(*user));
  CAF_CHECK(order(actors::faults::drive{0, {}}).what == outcome::conflict);
  CAF_CHECK(!server->faults()->list().drives[0].possible);
  must_order(actors::faults::kill{"drive-0", {}, actors::faults::how::exception});
  CAF_CHECK(healthy(*user));
}

CAF_TEST(a start goes on without a drive that does not answer) {
  constexpr std::size_t keys = 60;
  const auto key = [](std::size_t number) { return "kept-" + std::to_string(number); };
  serve(media::file, 3);
  auto user = connect(1);
  for (std::size_t number = 0; number < keys; ++number)
    CAF_REQUIRE(user->put(key(number), pattern(key(number), 0, 5'000)).code == client::errc::ok);
  user.reset();
  CAF_REQUIRE(stop());
  // It is read, and hangs as soon as it is to be marked as in use.
  auto points = std::make_shared<actors::fault_points>();
  for (std::size_t index = 0; index < options.drives.size(); ++index)
    points->drives.push_back(std::make_shared<engine::drive_faults>());
  CAF_REQUIRE(points->drives[1]->arm({effect::hang, target::writes, 1, 0}));
  options.faults = points;
  start();
  CAF_CHECK_EQUAL(server->drives_online(), 2u);
  user = connect(1);
  std::vector<std::byte> found(5'000);
  std::size_t came = 0;
  for (std::size_t number = 0; number < keys; ++number)
    came += user->get(key(number), found).code == client::errc::ok;
  CAF_CHECK(came > 0 && came < keys);
  for (std::size_t number = 0; number < 30; ++number)
    CAF_CHECK(user->put("other", pattern("other", number, 1'000)).code == client::errc::ok);
  must_order(actors::faults::clear{});
  CAF_REQUIRE(healthy(*user));
  for (std::size_t number = 0; number < keys; ++number)
    CAF_CHECK(user->get(key(number), found).code == client::errc::ok &&
              found == pattern(key(number), 0, 5'000));
  user.reset();
  CAF_CHECK(stop());
}

CAF_TEST(a drive that hangs does not keep another one from leaving) {
  options.leave_after_ms = 200;
  serve(media::file, 3);
  auto user = connect(1, "", 2'000);
  CAF_REQUIRE(healthy(*user));
  // The second stays away; when its keys are to go to the others the first does not write its epoch.
  must_order(actors::faults::drive{0, {effect::hang, target::writes, 1'000'000, 0}});
  must_order(actors::faults::drive{1, {effect::fail, target::any, 1'000'000, 0}});
  must_order(actors::faults::kill{"drive-1", {}, actors::faults::how::kill});
  // In the end all keys belong to the third.
  std::size_t number = 0;
  CAF_CHECK(within(30s, [&] {
    if (user->put("moved-" + std::to_string(number), pattern("moved", number, 1'000)).code ==
        client::errc::ok)
      ++number;
    return number == 30;
  }));
  must_order(actors::faults::clear{});
  CAF_CHECK(healthy(*user));
}

CAF_TEST_FIXTURE_SCOPE_END()
