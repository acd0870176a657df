// Reports of a running server, and what happens to them when actors are killed or stuck; drives that are
// reset while the others serve.
#define CAF_SUITE admin_gateway
#include "server_fixture.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/reactor.hpp"
#include "actors/server.hpp"
#include "engine/drive_store.hpp"
#include "engine/file_device.hpp"

#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

actors::gathered report_of(const server_fixture& fixture) {
  return fixture.server->door()->report(2s);
}

/// The first report that is as wanted; the last one if none is within half a minute.
template <class Wanted>
actors::gathered report_when(const server_fixture& fixture, Wanted wanted) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  auto said = report_of(fixture);
  while ((said.report == nullptr || !wanted(*said.report)) && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(50ms);
    said = report_of(fixture);
  }
  CAF_REQUIRE(said.report != nullptr);
  return said;
}

const actors::actor_report* find(const actors::server_report& report, std::string_view name) {
  const auto found = std::ranges::find(report.actors, name, &actors::actor_report::name);
  return found == report.actors.end() ? nullptr : &*found;
}

void spoil(const std::filesystem::path& drive) {
  std::fstream file(drive, std::ios::in | std::ios::out | std::ios::binary);
  const std::string rubbish(4000, '\x5A');
  for (const auto where :
       {std::streamoff{64}, std::streamoff(std::filesystem::file_size(drive)) - 4096 + 64}) {
    file.seekp(where);
    file.write(rubbish.data(), static_cast<std::streamsize>(rubbish.size()));
  }
}

} // namespace

CAF_TEST(a report counts what was stored and read and every actor answers) {
  server_fixture fixture;
  fixture.configure(media::memory, 2, 64 << 20);
  fixture.start();
  auto peer = fixture.connect();
  const auto value = pattern("one", 1, 100'000);
  CAF_REQUIRE(peer->put("one", value).code == client::errc::ok);
  std::vector<std::byte> back(value.size());
  CAF_REQUIRE(peer->get("one", back).code == client::errc::ok);
  std::this_thread::sleep_for(150ms);
  const auto said = report_of(fixture);
  CAF_REQUIRE(said.report != nullptr);
  CAF_CHECK(said.silent.empty());
  const auto& report = *said.report;
  CAF_CHECK(actors::health_of(report) == actors::health::healthy);
  CAF_CHECK_EQUAL(report.phase, "serving");
  CAF_CHECK_EQUAL(report.storage_mode, "memory");
  CAF_CHECK_EQUAL(report.drives.size(), 2u);
  CAF_CHECK_EQUAL(report.drives_online(), 2u);
  CAF_CHECK_EQUAL(report.blocks(), 1u);
  CAF_CHECK_EQUAL(report.used_bytes(), 128u << 10);
  CAF_CHECK_EQUAL(report.requests.writes, 1u);
  CAF_CHECK_EQUAL(report.requests.write_bytes, 100'000u);
  CAF_CHECK_EQUAL(report.requests.reads, 1u);
  CAF_CHECK_EQUAL(report.requests.read_bytes, 100'000u);
  CAF_CHECK(report.connections >= 1);
  CAF_CHECK(report.resident_bytes > 0);
  for (const auto* name :
       {"server", "admin-gateway", "drive-0", "drive-1", "evictor", "listener", "reactor-0", "reactor-1"}) {
    const auto* each = find(report, name);
    CAF_REQUIRE(each != nullptr);
    CAF_CHECK(each->alive && each->answered);
    CAF_CHECK_EQUAL(each->restarts, 0u);
  }
  CAF_CHECK(fixture.stop());
}

CAF_TEST(killed actors come back and the report counts their restarts) {
  server_fixture fixture;
  fixture.configure(media::memory, 2, 64 << 20);
  fixture.start();
  for (const std::string name : {"reactor-1", "evictor", "listener", "drive-1", "admin-gateway"}) {
    const auto all = fixture.server->actors();
    const auto found = std::ranges::find(all, name, [](const auto& each) { return each.first; });
    CAF_REQUIRE(found != all.end());
    caf::anon_send_exit(found->second, caf::exit_reason::kill);
    const auto said = report_when(fixture, [&](const actors::server_report& report) {
      const auto* each = find(report, name);
      return each != nullptr && each->restarts == 1 && each->alive &&
             actors::health_of(report) == actors::health::healthy;
    });
    CAF_CHECK_EQUAL(find(*said.report, name)->restarts, 1u);
  }
  CAF_CHECK(fixture.stop());
}

CAF_TEST(what a drive has counted goes on when its actor is started anew) {
  server_fixture fixture;
  fixture.configure(media::file, 1, 64 << 20);
  fixture.start();
  auto peer = fixture.connect();
  for (int key = 0; key < 10; ++key)
    CAF_REQUIRE(peer->put("key" + std::to_string(key), pattern("key", 1, 100'000)).code == client::errc::ok);
  std::this_thread::sleep_for(150ms);
  const auto before = report_of(fixture);
  CAF_REQUIRE(before.report != nullptr);
  CAF_REQUIRE(before.report->drives[0].facts);
  const auto written = before.report->drives[0].facts->io.writes;
  CAF_CHECK(written >= 10u);
  CAF_CHECK_EQUAL(before.report->drives[0].writes.count(), written);
  const auto all = fixture.server->actors();
  const auto found = std::ranges::find(all, "drive-0", [](const auto& each) { return each.first; });
  CAF_REQUIRE(found != all.end());
  caf::anon_send_exit(found->second, caf::exit_reason::kill);
  const auto after = report_when(fixture, [&](const actors::server_report& report) {
    const auto* each = find(report, "drive-0");
    return each != nullptr && each->restarts == 1 && report.drives[0].facts &&
           actors::health_of(report) == actors::health::healthy;
  });
  CAF_REQUIRE(after.report->drives[0].facts);
  CAF_CHECK(after.report->drives[0].facts->io.writes >= written);
  CAF_CHECK(after.report->drives[0].writes.count() >= written);
  CAF_CHECK(after.report->drives[0].facts->store.journal_records >=
            before.report->drives[0].facts->store.journal_records);
  CAF_CHECK_EQUAL(after.report->blocks(), 10u);
  CAF_CHECK(fixture.stop());
}

CAF_TEST(many who ask at once get a report each) {
  server_fixture fixture;
  fixture.configure(media::memory, 1, 64 << 20);
  fixture.start();
  std::vector<std::thread> askers;
  std::atomic<int> answered{0};
  for (int each = 0; each < 40; ++each)
    askers.emplace_back([&] {
      for (int round = 0; round < 20; ++round)
        answered += report_of(fixture).report != nullptr;
    });
  for (auto& each : askers)
    each.join();
  CAF_CHECK_EQUAL(answered, 40 * 20);
  CAF_CHECK(fixture.stop());
}

CAF_TEST(a door that outlives its server says that nobody answers) {
  server_fixture fixture;
  fixture.configure(media::memory, 1, 64 << 20);
  fixture.start();
  const auto door = fixture.server->door();
  CAF_CHECK(fixture.stop());
  const auto said = door->report(50ms);
  CAF_CHECK(said.report == nullptr);
  CAF_CHECK_EQUAL(said.silent, std::vector<std::string>{"admin-gateway"});
  CAF_CHECK(door->reset_drive(0, false, 50ms).what == actors::admin_outcome::kind::silent);
}

CAF_TEST(an actor that is stuck is named and the rest is reported) {
  caf::actor_system_config configuration;
  caf::actor_system system(configuration);
  server_fixture fixture;
  fixture.configure(media::memory, 1, 64 << 20);
  fixture.options.reactors = 1;
  std::string problem;
  auto shared = actors::reactor_shared::create(fixture.options, problem);
  CAF_REQUIRE(shared != nullptr);
  auto board = std::make_shared<actors::server_board>();
  // Takes a question and keeps it.
  auto mute = system.spawn(
      [](caf::event_based_actor*, int) -> caf::behavior { return {[](const actors::describe_yourself&) {}}; },
      0);
  auto talks = system.spawn(
      [](caf::event_based_actor* self, int) -> caf::behavior {
        return {
            [self](const actors::describe_yourself& question) { actors::answer(question, self->id(), 3); }};
      },
      0);
  auto server = system.spawn(
      [mute, talks](caf::event_based_actor* self, int) -> caf::behavior {
        return {[=](const actors::describe_yourself& question) {
          actors::server_facts facts;
          facts.phase = "serving";
          facts.actors.push_back({.name = "drive-0", .who = mute, .asked = true});
          facts.actors.push_back({.name = "reactor-0", .who = talks, .asked = true});
          actors::answer(question, self->id(), 0, {.server = facts});
        }};
      },
      0);
  auto gateway = system.spawn(actors::admin_gateway, board, shared, caf::actor_cast<caf::actor>(server));
  board->actors["admin-gateway"] = caf::actor_cast<caf::actor>(gateway);
  const auto door = actors::make_admin_door(board);
  for (int round = 0; round < 2; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    const auto said = door->report(5s);
    CAF_REQUIRE(said.report != nullptr);
    CAF_CHECK_EQUAL(said.silent, std::vector<std::string>{"drive-0"});
    CAF_CHECK(std::chrono::steady_clock::now() - begin < 4s);
    const auto* each = find(*said.report, "reactor-0");
    CAF_REQUIRE(each != nullptr);
    CAF_CHECK(each->answered);
    CAF_CHECK_EQUAL(each->mailbox, 3u);
    CAF_CHECK(!find(*said.report, "drive-0")->answered);
  }
  for (const auto& each : {mute, talks, server, caf::actor_cast<caf::actor>(gateway)})
    caf::anon_send_exit(each, caf::exit_reason::kill);
  board->actors.clear();
}

CAF_TEST(a stop in the middle of a reset is in good order and the drive can be reset again) {
  server_fixture fixture;
  fixture.configure(media::file, 2, 512 << 20);
  fixture.start();
  CAF_CHECK(fixture.stop());
  spoil(fixture.directory.path() / "drive1");
  using kind = actors::admin_outcome::kind;
  const auto begin_reset = [&] {
    const auto attempt_it = [&] {
      static_cast<void>(report_of(fixture)); // which is given again to whoever asks soon
      return fixture.server->door()->reset_drive(1, true, 2s);
    };
    auto outcome = attempt_it();
    // It may be in the middle of another attempt to open it.
    for (int attempt = 0; attempt < 300 && outcome.what == kind::conflict; ++attempt) {
      std::this_thread::sleep_for(20ms);
      outcome = attempt_it();
    }
    CAF_REQUIRE(outcome.what == kind::done);
    // Nobody is told any more how it was before.
    const auto after = report_of(fixture);
    CAF_CHECK(after.report->drives[1].state != actors::drive_state::offline);
  };
  fixture.start();
  begin_reset();
  const auto said = report_when(fixture, [](const actors::server_report& report) {
    return report.drives[1].reset_done_bytes > 0 || report.drives_online() == 2;
  });
  CAF_CHECK(said.report->drives[1].state == actors::drive_state::resetting);
  CAF_CHECK(fixture.stop());
  fixture.start();
  if (report_of(fixture).report->drives_online() < 2)
    begin_reset();
  report_when(fixture, [](const actors::server_report& report) { return report.drives_online() == 2; });
  CAF_CHECK_EQUAL(report_of(fixture).report->drives_online(), 2u);
  CAF_CHECK(fixture.stop());
}

CAF_TEST(a drive that is not opened at the start says what is noted of its failures) {
  server_fixture fixture;
  fixture.configure(media::file, 2, 64 << 20);
  fixture.start();
  CAF_CHECK(fixture.stop());
  {
    std::unique_ptr<engine::block_device> device;
    const auto path = (fixture.directory.path() / "drive1").string();
    CAF_REQUIRE(engine::open_file_device({path, 64 << 20, false}, device).ok());
    const engine::drive_failures failures{3, 1'738'800'000'000'000'000, 1'738'810'000'000'000'000};
    CAF_REQUIRE(engine::drive_store::blacklist(*device, failures).ok());
  }
  fixture.start();
  const auto said = report_of(fixture);
  CAF_REQUIRE(said.report != nullptr);
  const auto& drive = said.report->drives[1];
  CAF_CHECK(drive.state == actors::drive_state::blacklisted);
  CAF_CHECK(drive.failures_known);
  CAF_CHECK_EQUAL(drive.failure_count, 3u);
  CAF_CHECK_EQUAL(drive.first_failed_at, 1'738'800'000u);
  CAF_CHECK_EQUAL(drive.last_failed_at, 1'738'810'000u);
  CAF_CHECK(said.report->drives[0].failures_known);
}

CAF_TEST(a drive that lost its superblocks is reset while the other serves and joins it) {
  server_fixture fixture;
  fixture.configure(media::file, 2, 64 << 20);
  fixture.start();
  CAF_CHECK(fixture.stop());
  spoil(fixture.directory.path() / "drive1");
  fixture.start();
  auto said = report_of(fixture);
  CAF_REQUIRE(said.report != nullptr);
  CAF_CHECK(!said.report->drives[1].failures_known);
  CAF_CHECK(actors::health_of(*said.report) == actors::health::degraded);
  CAF_CHECK(said.report->drives[1].state == actors::drive_state::offline);
  CAF_CHECK(!said.report->drives[1].reason.empty());
  auto peer = fixture.connect();
  const auto put_all = [&](std::uint64_t version) {
    for (int key = 0; key < 40; ++key) {
      const auto name = "key" + std::to_string(key);
      CAF_REQUIRE(peer->put(name, pattern(name, version, 10'000)).code == client::errc::ok);
    }
  };
  put_all(1);
  const auto door = fixture.server->door();
  using kind = actors::admin_outcome::kind;
  CAF_CHECK(door->reset_drive(0, false, 2s).what == kind::conflict);
  CAF_CHECK(door->reset_drive(7, false, 2s).what == kind::unknown);
  // It may be in the middle of another attempt to open it.
  auto outcome = door->reset_drive(1, true, 2s);
  for (int attempt = 0; attempt < 300 && outcome.what == kind::conflict; ++attempt) {
    std::this_thread::sleep_for(20ms);
    outcome = door->reset_drive(1, true, 2s);
  }
  CAF_CHECK(outcome.what == kind::done);
  said = report_when(fixture, [](const auto& report) { return report.drives_online() == 2; });
  CAF_CHECK(actors::health_of(*said.report) == actors::health::healthy);
  CAF_CHECK(said.report->drives[1].failures_known);
  CAF_CHECK_EQUAL(said.report->drives[1].failure_count, 0u);
  // Every block is found or is a miss, and a new version is the one that is found.
  put_all(2);
  for (int key = 0; key < 40; ++key) {
    const auto name = "key" + std::to_string(key);
    std::vector<std::byte> back(10'000);
    CAF_REQUIRE(peer->get(name, back).code == client::errc::ok);
    CAF_CHECK(back == pattern(name, 2, 10'000));
  }
  said = report_when(fixture, [](const auto& report) {
    return report.drives[1].facts && report.drives[1].facts->store.blocks > 0;
  });
  CAF_CHECK(said.report->drives[1].facts->store.blocks > 0);
  CAF_CHECK(fixture.stop());
  fixture.start();
  CAF_CHECK_EQUAL(report_of(fixture).report->drives_online(), 2u);
  CAF_CHECK(fixture.stop());
}
