// A licence that ends under a running server, seen from outside.

#define CAF_SUITE license_process

#include "test/process/server_process.hpp"
#include "test/process/verified_load.hpp"
#include "wire/license_issuer.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

constexpr auto limit = 60s;
constexpr std::uint64_t short_s = 6;
constexpr std::uint64_t long_s = 86'400;

std::uint64_t wall_s() {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
}

std::string license_for(std::uint64_t lasts_s, const std::string& organization) {
  wire::license wanted;
  wanted.plan = wire::license_plan::enterprise;
  wanted.organization = organization;
  wanted.issued_at_s = wall_s();
  wanted.expires_at_s = wanted.issued_at_s + lasts_s;
  std::string token;
  CAF_REQUIRE_EQUAL(wire::issue_license(wanted, wire::development_license_key(), token), "");
  return token;
}

/// As an operator does who wants no moment without a whole file.
void replace(const std::filesystem::path& path, const std::string& token) {
  const auto beside = path.string() + ".new";
  std::ofstream{beside, std::ios::trunc} << token << '\n';
  std::filesystem::rename(beside, path);
}

bool said_in_time(const server_process& server, const std::string& words) {
  for (const auto end = std::chrono::steady_clock::now() + limit; std::chrono::steady_clock::now() < end;
       pause_for(20ms))
    if (server.said().find(words) != std::string::npos)
      return true;
  return false;
}

struct fixture {
  server_process server{MEMKV_PROGRAM};
  std::filesystem::path license = server.directory() / "memkv.license";

  fixture() {
    process_settings settings;
    settings.drives = 2;
    settings.drive_bytes = 256U << 20U;
    server.write_config(settings);
    server.set_environment({{"MEMKV_LICENSE", license.string()}});
  }

  std::uint16_t start() {
    server.spawn();
    const auto port = server.wait_until_serving(limit);
    if (!port)
      CAF_FAIL("the server does not start; it said:\n" << server.said());
    return *port;
  }

  void check_said(std::string_view words) const {
    if (server.said().find(words) == std::string::npos)
      CAF_ERROR("\"" << std::string(words) << "\" is missing in:\n" << server.said());
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(license_process_tests, fixture)

CAF_TEST(a server stops in good order with 1 when its license ends and a good one finds every block) {
  outside_log log{100, false};
  replace(license, license_for(short_s, "Short"));
  const auto ends_s = wall_s() + short_s;
  auto port = start();
  {
    verified_load load{log, port, {}};
    pause_for(2s);
    CAF_CHECK(server.running());
    load.expect_trouble();
    const auto end = server.wait(limit);
    load.stop();
    CAF_CHECK(end.in_time);
    CAF_CHECK_EQUAL(end.exit_code, 1);
    CAF_CHECK(wall_s() + 1 >= ends_s);
    if (!load.problems().empty())
      CAF_ERROR(load.problems().front());
    CAF_CHECK(load.operations() > 0);
  }
  check_said("the license ends within 1 day");
  check_said("the server stops: the license ended at ");
  check_said("stopping: writing the drives' metadata");
  check_said("drive closed");
  check_said("memkv::server: stopped");

  // The same licence is no good any more, and nothing is opened with it.
  server.spawn();
  const auto refused = server.wait(limit);
  CAF_CHECK_EQUAL(refused.exit_code, 1);
  check_said("MEMKV_LICENSE: " + license.string() + ": the license ended at ");

  replace(license, license_for(long_s, "Long"));
  port = start();
  if (const auto problems = verify_all(log, port); !problems.empty())
    CAF_ERROR(problems.front() << " (" << problems.size() << " problems)");
  CAF_CHECK(log.acknowledgements() > 0);
  // Everything was flushed: there was nothing left to recover.
  check_said("replayed_records=0");
  server.signal(SIGTERM);
  CAF_CHECK_EQUAL(server.wait(limit).exit_code, 0);
}

CAF_TEST(a license that is replaced under the server keeps it going) {
  replace(license, license_for(short_s, "Short"));
  const auto ends_s = wall_s() + short_s;
  const auto port = start();
  // Not a licence, then nothing, then one that is written in two steps, as careless tools do.
  std::ofstream{license, std::ios::trunc} << "rubbish";
  CAF_CHECK(said_in_time(server, "holds no valid license"));
  std::filesystem::remove(license);
  const auto next = license_for(long_s, "Next");
  std::ofstream half{license, std::ios::trunc};
  half << next.substr(0, next.size() / 2) << std::flush;
  pause_for(300ms);
  half << next.substr(next.size() / 2) << std::flush;
  CAF_CHECK(said_in_time(server, "the license was replaced: Enterprise for Next, until "));
  while (wall_s() < ends_s + 2)
    pause_for(100ms);
  const auto client = connect_to(port);
  CAF_REQUIRE(client);
  CAF_CHECK(client->stat().at(0).code == client::errc::ok);
  server.signal(SIGTERM);
  CAF_CHECK_EQUAL(server.wait(limit).exit_code, 0);
}

CAF_TEST(the reason is on standard error and in the log also when the log is a file) {
  const auto log = server.directory() / "memkv.log";
  replace(license, license_for(3, "Short"));
  // The first words of the server's command line are ours: a later --log-file would be refused.
  server.spawn({"sh", "-c", "exec \"$1\" start --config \"$4\" --log-file " + log.string(), "sh"});
  CAF_REQUIRE(server.wait_until_serving(limit));
  const auto end = server.wait(limit);
  CAF_CHECK_EQUAL(end.exit_code, 1);
  const auto said = server.said();
  CAF_CHECK(said.starts_with("memkv: the license ended at "));
  CAF_CHECK_EQUAL(std::count(said.begin(), said.end(), '\n'), 1);
  std::ifstream in{log};
  const std::string lines{std::istreambuf_iterator<char>{in}, {}};
  CAF_CHECK(lines.find("the server stops: the license ended at ") != std::string::npos);
}

CAF_TEST_FIXTURE_SCOPE_END()
