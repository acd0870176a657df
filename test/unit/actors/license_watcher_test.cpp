// LICENSE WATCHER: a clock and a file that the test holds, and CAF's test coordinator.
#define CAF_SUITE license_watcher
#include "actors/license_watcher.hpp"

#include "actors/log.hpp"
#include "test/unit/license/license_test.hpp"

#include <caf/test/dsl.hpp>

#include <algorithm>

using namespace memkv;
using namespace memkv::actors;
using namespace memkv::wire::test;

namespace {

constexpr std::uint64_t second_ns = 1'000'000'000;

struct held_clock final : engine::clock {
  std::uint64_t wall_s = noon_s, steady_s = 1000;
  [[nodiscard]] std::uint64_t wall_ns() const noexcept override { return wall_s * second_ns; }
  [[nodiscard]] std::uint64_t steady_ns() const noexcept override { return steady_s * second_ns; }
  void pass(std::uint64_t seconds) {
    wall_s += seconds;
    steady_s += seconds;
  }
};

wire::license license_of(const std::string& organization, std::uint64_t lasts_s,
                         wire::license_plan plan = wire::license_plan::enterprise) {
  auto wanted = some_license();
  wanted.organization = organization;
  wanted.plan = plan;
  wanted.issued_at_s = noon_s - day_s;
  wanted.expires_at_s = noon_s + lasts_s;
  return wanted;
}

/// A watch on a file in memory.
struct world {
  std::shared_ptr<held_clock> time = std::make_shared<held_clock>();
  std::shared_ptr<wire::license_text> file = std::make_shared<wire::license_text>();
  std::shared_ptr<license_watch> watch;
  std::vector<std::string> warnings, infos;
  std::string ended;

  explicit world(const wire::license& wanted, bool inline_license = false) {
    put(token_of(wanted));
    wire::found_license found;
    found.token = file->text;
    found.verdict = wire::verify_license(found.token, accepted_keys(), time->wall_s);
    CAF_REQUIRE_EQUAL(found.verdict.problem, "");
    found.source = "MEMKV_LICENSE";
    if (!inline_license)
      found.path = "some.license";
    const auto keys = accepted_keys();
    watch = std::make_shared<license_watch>(
        found,
        [file = file](const std::string& path) {
          CAF_CHECK_EQUAL(path, "some.license");
          return *file;
        },
        std::vector<wire::license_key>(keys.begin(), keys.end()), time);
  }
  void put(std::string text) { *file = {wire::license_text::outcome::read, std::move(text), {}}; }
  void remove() { *file = {wire::license_text::outcome::absent, {}, "No such file or directory"}; }
  void look() {
    const auto result = watch->look();
    for (const auto& remark : result.remarks)
      (remark.how == license_look::level::warning ? warnings : infos).push_back(remark.text);
    ended = result.ended;
  }
  /// Second by second, as the actor does.
  void live(std::uint64_t seconds) {
    for (; seconds > 0; --seconds) {
      time->pass(1);
      look();
    }
  }
  /// At once: the looks between are left out.
  void skip(std::uint64_t seconds) {
    time->pass(seconds);
    look();
  }
  [[nodiscard]] license_facts facts() const { return watch->state()->read(); }
  [[nodiscard]] std::size_t warned_of(std::string_view part) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        warnings, [&](const auto& each) { return each.find(part) != std::string::npos; }));
  }
};

} // namespace

CAF_TEST(what is in force can be read by others) {
  world here{license_of("Example", 100 * day_s + 5)};
  const auto facts = here.facts();
  CAF_CHECK_EQUAL(facts.plan, "Enterprise");
  CAF_CHECK_EQUAL(facts.organization, "Example");
  CAF_CHECK_EQUAL(facts.id, "0123");
  CAF_CHECK_EQUAL(facts.source, "MEMKV_LICENSE");
  CAF_CHECK_EQUAL(facts.path, "some.license");
  CAF_CHECK_EQUAL(facts.expires_at_s, noon_s + 100 * day_s + 5);
  CAF_CHECK_EQUAL(facts.days_left, 100u);
  CAF_CHECK(facts.valid && !facts.development);
  here.skip(6);
  CAF_CHECK_EQUAL(here.facts().days_left, 99u);
}

CAF_TEST(the end is warned of 30 and 7 days and 1 day before and once each) {
  world here{license_of("Example", 40 * day_s)};
  std::vector<std::uint64_t> at_hour;
  for (std::uint64_t hour = 1; hour < 40 * 24; ++hour) {
    const auto before = here.warnings.size();
    here.skip(3600);
    if (here.warnings.size() != before)
      at_hour.push_back(hour);
    CAF_CHECK_EQUAL(here.ended, "");
  }
  CAF_CHECK(at_hour == std::vector<std::uint64_t>({10 * 24, 33 * 24, 39 * 24}));
  CAF_REQUIRE_EQUAL(here.warnings.size(), 3u);
  const std::string rest = ", at 2027-02-24T08:00:00Z, and the server with it: get a new one";
  CAF_CHECK_EQUAL(here.warnings[0], "the license ends within 30 days" + rest);
  CAF_CHECK_EQUAL(here.warnings[1], "the license ends within 7 days" + rest);
  CAF_CHECK_EQUAL(here.warnings[2], "the license ends within 1 day" + rest);
}

CAF_TEST(a license that is nearly over gives one warning and not three) {
  world here{license_of("Example", 3600)};
  here.look();
  CAF_REQUIRE_EQUAL(here.warnings.size(), 1u);
  CAF_CHECK_EQUAL(here.warned_of("within 1 day"), 1u);
}

CAF_TEST(a license ends at its second and stays ended) {
  for (const bool inline_license : {false, true}) {
    world here{license_of("Example", 100), inline_license};
    here.live(99);
    CAF_CHECK_EQUAL(here.ended, "");
    CAF_CHECK(here.facts().valid);
    here.live(1);
    CAF_CHECK_EQUAL(here.ended, "the license ended at 2027-01-15T08:01:40Z: get a new one");
    CAF_CHECK(!here.facts().valid);
    CAF_CHECK_EQUAL(here.facts().days_left, 0u);
    here.live(1);
    CAF_CHECK(!here.ended.empty());
  }
}

CAF_TEST(a new license in the file takes over with its own end and its own warnings) {
  world here{license_of("Old", 20 * day_s)};
  here.look();
  CAF_CHECK_EQUAL(here.warned_of("within 30 days"), 1u);
  here.put("\n" + token_of(license_of("New", 60 * day_s, wire::license_plan::enterprise_plus)) + "\n");
  here.live(1);
  CAF_REQUIRE_EQUAL(here.infos.size(), 1u);
  CAF_CHECK_EQUAL(here.infos[0],
                  "the license was replaced: EnterprisePlus for New, until 2027-03-16T08:00:00Z");
  CAF_CHECK_EQUAL(here.facts().organization, "New");
  CAF_CHECK_EQUAL(here.facts().plan, "EnterprisePlus");
  here.skip(25 * day_s);
  CAF_CHECK_EQUAL(here.ended, "");
  here.skip(10 * day_s);
  CAF_CHECK_EQUAL(here.warned_of("within 30 days"), 2u);
  here.skip(25 * day_s);
  CAF_CHECK(!here.ended.empty());
}

CAF_TEST(a new license at the last second counts) {
  world here{license_of("Old", 100)};
  here.live(99);
  here.put(token_of(license_of("New", day_s)));
  here.live(1);
  CAF_CHECK_EQUAL(here.ended, "");
  here.live(200);
  CAF_CHECK_EQUAL(here.ended, "");
}

CAF_TEST(a file that is replaced while it is read leaves the old license in force and warns of nothing) {
  world here{license_of("Old", 100 * day_s)};
  const auto next = token_of(license_of("New", 200 * day_s));
  // Every look sees a little more, as if it was written slowly.
  for (std::size_t length = 0; length < next.size(); length += 7) {
    here.put(next.substr(0, length));
    here.live(1);
    CAF_CHECK_EQUAL(here.facts().organization, "Old");
  }
  here.put(next);
  here.live(1);
  CAF_CHECK_EQUAL(here.facts().organization, "New");
  CAF_CHECK_EQUAL(here.warnings.size(), 0u);
  CAF_CHECK_EQUAL(here.infos.size(), 1u);
}

CAF_TEST(a file that stays wrong is warned of once and the old license ends when it ends) {
  auto over = license_of("Over", 1);
  over.expires_at_s = noon_s - 1;
  wire::license_key_pair other;
  CAF_REQUIRE_EQUAL(wire::make_license_keys(other), "");
  std::string forged;
  CAF_REQUIRE_EQUAL(wire::issue_license(license_of("Forged", 900 * day_s), other.private_pem, forged), "");
  const auto long_one = std::string(wire::license_bytes_max + 1, 'e');
  for (const auto& text : {std::string{}, std::string{"rubbish"}, token_of(over), forged, long_one}) {
    world here{license_of("Example", 40 * day_s)};
    here.put(text);
    here.live(1);
    CAF_CHECK_EQUAL(here.warnings.size(), 0u);
    here.live(10);
    CAF_REQUIRE_EQUAL(here.warnings.size(), 1u);
    CAF_CHECK_EQUAL(here.warned_of("some.license holds no valid license: the license"), 1u);
    CAF_CHECK_EQUAL(here.warned_of("the license read before stays in force, Enterprise for Example"), 1u);
    CAF_CHECK_EQUAL(here.facts().organization, "Example");
    here.skip(40 * day_s);
    CAF_CHECK(!here.ended.empty());
  }
}

CAF_TEST(a file that disappears is warned of once and its return is told) {
  world here{license_of("Example", 100 * day_s)};
  for (int round = 1; round <= 3; ++round) {
    here.remove();
    here.live(5);
    CAF_CHECK_EQUAL(here.warned_of("cannot be read: No such file or directory"), unsigned(round));
    CAF_CHECK_EQUAL(here.ended, "");
    CAF_CHECK(here.facts().valid);
    here.put(token_of(license_of("Example", (100 + static_cast<unsigned>(round)) * day_s)));
    here.live(5);
    CAF_CHECK_EQUAL(here.infos.size(), 2u * static_cast<unsigned>(round));
  }
  CAF_CHECK_EQUAL(here.warnings.size(), 3u);
}

CAF_TEST(a file that is not read yet changes nothing and is not warned of) {
  world here{license_of("Example", 100 * day_s)};
  here.put("rubbish");
  here.live(1);
  here.file->result = wire::license_text::outcome::pending;
  here.live(5);
  CAF_CHECK(here.warnings.empty() && here.infos.empty());
  // What was wrong before and is wrong after is the same at two looks.
  here.put("rubbish");
  here.live(1);
  CAF_CHECK_EQUAL(here.warned_of("no valid license"), 1u);
  here.file->result = wire::license_text::outcome::pending;
  here.skip(100 * day_s);
  CAF_CHECK(!here.ended.empty());
}

CAF_TEST(a clock that jumps for a moment ends nothing) {
  for (const std::int64_t step : {std::int64_t(400 * day_s), -std::int64_t(400 * day_s)}) {
    world here{license_of("Example", 100 * day_s)};
    here.live(10);
    here.time->wall_s += static_cast<std::uint64_t>(step);
    here.live(59);
    CAF_CHECK_EQUAL(here.ended, "");
    CAF_CHECK_EQUAL(here.warnings.size(), 1u);
    CAF_CHECK_EQUAL(here.warned_of(step > 0 ? "s forwards" : "s back"), 1u);
    here.time->wall_s -= static_cast<std::uint64_t>(step);
    here.live(100);
    CAF_CHECK_EQUAL(here.ended, "");
    CAF_CHECK_EQUAL(here.warnings.size(), 1u);
    CAF_CHECK_EQUAL(here.facts().days_left, 99u);
  }
}

CAF_TEST(a clock that stays where it was set is believed after a while) {
  world here{license_of("Example", 100 * day_s)};
  here.live(10);
  here.time->wall_s += 400 * day_s;
  here.live(60);
  CAF_CHECK_EQUAL(here.ended, "");
  here.live(2);
  CAF_CHECK(!here.ended.empty());
  CAF_CHECK_EQUAL(here.warned_of("the license is judged by the clock as it was set"), 1u);
}

CAF_TEST(a clock that was set back is believed and stops no server) {
  world here{license_of("Example", 2 * day_s)};
  here.live(1);
  here.time->wall_s = 1000; // long before it was issued
  here.live(120);
  CAF_CHECK_EQUAL(here.ended, "");
  CAF_CHECK_EQUAL(here.warned_of("s back"), 1u);
  // And set right again.
  here.time->wall_s = noon_s + 3 * day_s;
  here.live(61);
  CAF_CHECK(!here.ended.empty());
}

CAF_TEST(a clock that jumps without end does not make a license last) {
  world here{license_of("Example", 100)};
  for (int i = 0; i < 99; ++i) {
    here.time->pass(1);
    const auto right = here.time->wall_s;
    here.time->wall_s = i % 2 == 0 ? right - day_s : right + 70 * day_s;
    here.look();
    CAF_CHECK_EQUAL(here.ended, "");
    here.time->wall_s = right;
  }
  here.time->pass(1);
  here.time->wall_s -= day_s;
  here.look();
  CAF_CHECK(!here.ended.empty());
}

CAF_TEST(a clock that is slewed is followed) {
  world here{license_of("Example", 1000)};
  // 1 s in 10, far more than any daemon does.
  for (int i = 0; i < 990; ++i) {
    here.time->pass(1);
    here.time->wall_s += i % 10 == 0 ? 1 : 0;
    here.look();
    if (!here.ended.empty())
      break;
  }
  CAF_CHECK(!here.ended.empty());
  CAF_CHECK_EQUAL(here.time->wall_s, noon_s + 1000);
  CAF_CHECK_EQUAL(here.warned_of("clock"), 0u);
}

namespace {

/// Stands in for SERVER: remembers what it is told.
server_actor::behavior_type listening_server(server_actor::pointer,
                                             std::shared_ptr<std::vector<std::string>> heard) {
  return {[](const drive_changed&) {},
          [](const drive_failed&) {},
          [](const drive_did&) {},
          [](const members_taken&) {},
          [](const parts_orphaned&) {},
          [](const actor_started&) {},
          [](const dci_pool_changed&) {},
          [](const dci_pool_failed&) {},
          [heard](const license_ended& message) { heard->push_back(message.reason); },
          [](const stop_server&) {},
          [](const describe_yourself&) {},
          [](const reset_drive&) {},
          [](const drive_was_reset&) {},
          [](const look_again&) {}};
}

struct fixture : test_coordinator_fixture<> {
  world here{license_of("Example", 2 * day_s)};
  std::shared_ptr<std::vector<std::string>> heard = std::make_shared<std::vector<std::string>>();
  server_actor server = sys.spawn(listening_server, heard);
  license_watcher_actor subject = sys.spawn(license_watcher, here.watch, server);
  log::capture lines;

  // run() would let all timers pass, and this one never ends.
  fixture() { consume_messages(); }
  void live(std::uint64_t seconds) {
    for (; seconds > 0; --seconds) {
      here.time->pass(1);
      advance_time(license_look_interval);
      consume_messages();
    }
  }
  std::size_t warned_of(std::string_view part) {
    const auto all = lines.lines();
    return static_cast<std::size_t>(std::ranges::count_if(all, [&](const auto& each) {
      return each.value == log::level::warn && each.message.find(part) != std::string::npos;
    }));
  }
  void end(license_watcher_actor& who) {
    caf::anon_send_exit(who, caf::exit_reason::kill);
    consume_messages();
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(license_watcher_tests, fixture)

CAF_TEST(the server is told of the end again and again until it stops) {
  live(10);
  CAF_CHECK(heard->empty());
  here.time->pass(2 * day_s - 10);
  live(1);
  CAF_REQUIRE_EQUAL(heard->size(), 1u);
  CAF_CHECK_EQUAL(heard->front(), "the license ended at 2027-01-17T08:00:00Z: get a new one");
  live(3);
  CAF_CHECK_EQUAL(heard->size(), 4u);
  end(subject);
  caf::anon_send_exit(server, caf::exit_reason::user_shutdown);
  consume_messages();
}

CAF_TEST(the next watcher goes on where the last one ended) {
  here.put("rubbish");
  live(3);
  CAF_CHECK_EQUAL(warned_of("no valid license"), 1u);
  end(subject);
  subject = sys.spawn(license_watcher, here.watch, server);
  consume_messages();
  live(3);
  CAF_CHECK_EQUAL(warned_of("no valid license"), 1u);
  CAF_CHECK_EQUAL(warned_of("within 7 days"), 1u);
  here.time->pass(day_s);
  live(1);
  CAF_CHECK_EQUAL(warned_of("within 1 day"), 1u);
  end(subject);
  caf::anon_send_exit(server, caf::exit_reason::user_shutdown);
  consume_messages();
}

CAF_TEST_FIXTURE_SCOPE_END()
