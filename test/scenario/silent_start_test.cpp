// Starts beside drives that are there and do not say what they know of their set.
#define CAF_SUITE silent_start
#include "actors/fault_orders.hpp"
#include "actors/fault_points.hpp"
#include "actors/log.hpp"
#include "actors/reactor.hpp"
#include "test/scenario/server_fixture.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <future>
#include <memory>
#include <thread>

using namespace memkv;
using namespace std::chrono_literals;
using effect = engine::drive_fault::effect;
using target = engine::drive_fault::target;
using test::media;
using test::pattern;

namespace {

using clock_type = std::chrono::steady_clock;

/// Drives that are read when the test says so.
struct gate {
  std::atomic<bool> open{false};
  std::atomic<std::uint32_t> waiting{0};

  /// The drive at `path` does not answer before; the others do at once.
  static auto before(const std::shared_ptr<gate>& self, const std::string& path) {
    return [self, path](const engine::drive_description& drive) {
      ++self->waiting;
      while (drive.path == path && !self->open)
        std::this_thread::sleep_for(5ms);
      return engine::peek_superblock(drive);
    };
  }
};

struct fixture : test::server_fixture {
  static constexpr std::size_t keys = 40;
  /// One whose home is the drive that leaves.
  std::vector<std::string> moved;

  static bool within(std::chrono::milliseconds limit, const std::function<bool()>& reached) {
    const auto end = clock_type::now() + limit;
    while (!reached()) {
      if (clock_type::now() > end)
        return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  void order(const actors::faults::order& what) const {
    const auto answer = server->faults()->apply(what);
    if (answer.what != actors::fault_outcome::kind::done)
      CAF_FAIL("refused: " << answer.text);
  }

  /// Two drives. The second one leaves, and its keys are put again: the first one holds the new values and an
  /// epoch of which the second one, with the old values on it, knows nothing. All is well then, and nothing
  /// runs.
  void second_drive_missed_something() {
    configure(media::file, 2, 64 << 20);
    options.fault_injection = true;
    options.flap_threshold = 1'000'000;
    options.leave_after_ms = 200;
    start();
    auto user = connect(1);
    for (std::size_t number = 0; number < keys; ++number) {
      const auto key = "key-" + std::to_string(number);
      CAF_REQUIRE(user->put(key, pattern(key, 1, 5'000)).code == client::errc::ok);
      if (actors::home_drive(wire::make_key_id("", wire::as_bytes_view(key)), 2) == 1)
        moved.push_back(key);
    }
    CAF_REQUIRE(!moved.empty() && moved.size() < keys);
    order(actors::faults::drive{1, {effect::fail, target::any, 1'000'000, 0}});
    order(actors::faults::kill{"drive-1", {}, actors::faults::how::kill});
    for (const auto& key : moved)
      CAF_REQUIRE(
          within(30s, [&] { return user->put(key, pattern(key, 2, 5'000)).code == client::errc::ok; }));
    user.reset();
    CAF_CHECK(stop());
    options.faults = nullptr; // made anew, without any
  }

  /// Of all keys that were put again none has its old value.
  void nothing_old_is_found() const {
    auto user = connect(1);
    std::size_t found_new = 0;
    for (const auto& key : moved) {
      std::vector<std::byte> found(5'000);
      const auto got = user->get(key, found);
      CAF_CHECK(got.code == client::errc::ok || got.code == client::errc::not_found);
      if (got.code != client::errc::ok)
        continue;
      CAF_CHECK(found != pattern(key, 1, 5'000));
      found_new += found == pattern(key, 2, 5'000);
    }
    CAF_MESSAGE(found_new << " of " << moved.size() << " keys have their new value");
  }

  [[nodiscard]] std::string path(std::uint32_t index) const { return options.drives[index].path; }

  /// A start that has not ended after a while, since the drive says nothing; then it does.
  void start_waits_for(std::uint32_t index) {
    const auto silent = std::make_shared<gate>();
    options.peek = gate::before(silent, path(index));
    options.peek_warning_ms = 50;
    const log::capture lines;
    auto started = std::async(std::launch::async, [this] { start(); });
    const auto warnings = [&] {
      const auto all = lines.lines();
      return std::ranges::count_if(all, [&](const log::captured_line& each) {
        return each.value == log::level::warn && each.text.find("do not answer") != std::string::npos &&
               each.text.find(path(index)) != std::string::npos &&
               each.text.find(path(1 - index)) == std::string::npos;
      });
    };
    CAF_CHECK(within(30s, [&] { return warnings() >= 3; }));
    CAF_CHECK(started.wait_for(200ms) == std::future_status::timeout);
    silent->open = true;
    started.get();
    options.peek = nullptr;
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(silent_start, fixture)

CAF_TEST(a start waits for a drive that does not answer and nothing old comes back) {
  for (const std::uint32_t silent : {0U, 1U}) {
    CAF_MESSAGE("drive " << silent << " does not answer");
    moved.clear();
    second_drive_missed_something();
    start_waits_for(silent);
    CAF_CHECK_EQUAL(server->drives_online(), 2u);
    nothing_old_is_found();
    CAF_CHECK(stop());
    for (const auto& drive : options.drives)
      std::filesystem::remove(drive.path);
  }
}

CAF_TEST(a start ends when a drive that could not be read opens and knows more than the others) {
  second_drive_missed_something();
  // It answers with an error when the set is judged, and is well when it is opened.
  options.peek = [first = path(0)](const engine::drive_description& drive) {
    return drive.path == first ? std::nullopt : engine::peek_superblock(drive);
  };
  std::string problem;
  server = actors::start_server(options, problem);
  CAF_CHECK(server == nullptr);
  CAF_CHECK(problem.starts_with(path(0)));
  CAF_CHECK(problem.find("start the server again") != std::string::npos);
  CAF_MESSAGE(problem);
  server.reset();
  options.peek = nullptr;
  start();
  CAF_CHECK_EQUAL(server->drives_online(), 2u);
  nothing_old_is_found();
  CAF_CHECK(stop());
}

CAF_TEST(a start that failed ends in time beside a drive that hangs) {
  second_drive_missed_something();
  options.peek = [first = path(0)](const engine::drive_description& drive) {
    return drive.path == first ? std::nullopt : engine::peek_superblock(drive);
  };
  options.shutdown_ms = 500;
  auto points = std::make_shared<actors::fault_points>();
  for (std::size_t index = 0; index < options.drives.size(); ++index)
    points->drives.push_back(std::make_shared<engine::drive_faults>());
  CAF_REQUIRE(points->drives[1]->arm({effect::hang, target::writes, 1, 0}));
  options.faults = points;
  const pid_t child = ::fork();
  CAF_REQUIRE(child >= 0);
  if (child == 0) {
    std::string problem;
    static_cast<void>(actors::run_server(options, {}, problem));
    ::_exit(90);
  }
  int status = 0;
  CAF_CHECK(within(60s, [&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  CAF_CHECK(WIFEXITED(status));
  CAF_CHECK_EQUAL(WEXITSTATUS(status), 1);
}

CAF_TEST(a signal ends a start that waits for a drive) {
  for (const int signal : {SIGTERM, SIGINT}) {
    configure(media::file, 2, 16 << 20);
    const auto silent = std::make_shared<gate>();
    int told[2];
    CAF_REQUIRE(::pipe(told) == 0);
    const pid_t child = ::fork();
    CAF_REQUIRE(child >= 0);
    if (child == 0) {
      options.peek = [silent, wait = gate::before(silent, path(1)), to = told[1],
                      first = path(1)](const engine::drive_description& drive) {
        if (drive.path == first && ::write(to, "w", 1) != 1)
          ::_exit(90);
        return wait(drive);
      };
      std::string problem;
      ::_exit(actors::run_server(options, {}, problem));
    }
    ::close(told[1]);
    char word = 0;
    CAF_CHECK_EQUAL(::read(told[0], &word, 1), 1);
    ::close(told[0]);
    std::this_thread::sleep_for(100ms);
    int status = 0;
    CAF_CHECK_EQUAL(::waitpid(child, &status, WNOHANG), 0);
    ::kill(child, signal);
    CAF_CHECK(within(20s, [&] { return ::waitpid(child, &status, WNOHANG) == child; }));
    CAF_CHECK(WIFEXITED(status));
    CAF_CHECK_EQUAL(WEXITSTATUS(status), 0);
    CAF_CHECK(!std::filesystem::exists(path(0)));
  }
}

CAF_TEST_FIXTURE_SCOPE_END()
