// What keeps a server from starting is said in one sentence, and what io_uring does now and then harms
// nothing.

#define CAF_SUITE start_process

#include "test/process/cycles.hpp"
#include "test/process/server_process.hpp"
#include "test/process/strace.hpp"
#include "test/process/verified_load.hpp"

#include <caf/test/unit_test.hpp>

#include <csignal>
#include <iostream>
#include <sstream>

#include <sys/mount.h>
#include <unistd.h>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

constexpr auto limit = 60s;

std::vector<std::string> lines_with(const std::string& text, std::initializer_list<std::string_view> marks) {
  std::vector<std::string> out;
  std::istringstream in{text};
  for (std::string line; std::getline(in, line);)
    for (const auto mark : marks)
      if (line.find(mark) != std::string::npos) {
        out.push_back(line);
        break;
      }
  return out;
}

/// The server ends with 1, in time, without having served, and with one sentence that has these words.
void check_refusal(server_process& server, std::initializer_list<std::string_view> words) {
  const auto end = server.wait(limit);
  const auto said = server.said();
  if (!end.in_time)
    CAF_FAIL("the server has not ended; it said:\n" << said);
  CAF_CHECK_EQUAL(end.exit_code, 1);
  const auto sentences = lines_with(said, {"ERROR", "memkv: "});
  if (sentences.size() != 1)
    CAF_ERROR("one sentence is wanted, and the server said:\n" << said);
  for (const auto word : words)
    if (said.find(word) == std::string::npos)
      CAF_ERROR("\"" << word << "\" is missing in:\n" << said);
}

/// A tmpfs on a directory, for a drive that has no room.
class small_file_system {
public:
  small_file_system(std::filesystem::path where, const char* size) : where_(std::move(where)) {
    std::filesystem::create_directories(where_);
    mounted_ = ::mount("none", where_.c_str(), "tmpfs", 0, size) == 0;
  }
  ~small_file_system() {
    if (mounted_)
      ::umount2(where_.c_str(), MNT_DETACH);
  }
  small_file_system(const small_file_system&) = delete;
  small_file_system& operator=(const small_file_system&) = delete;
  [[nodiscard]] bool mounted() const noexcept { return mounted_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return where_; }

private:
  std::filesystem::path where_;
  bool mounted_ = false;
};

/// Serves a verified load while io_uring_enter fails now and then, and again after kill -9.
void check_progress(const char* what, const std::string& failure) {
  if (!can_trace(what))
    return;
  cycles budget{what};
  server_process server{MEMKV_PROGRAM};
  process_settings settings;
  settings.drives = 2;
  settings.drive_bytes = 400U << 20U;
  server.write_config(settings);
  outside_log log{200, false};
  std::uint64_t operations = 0;
  for (std::uint32_t round = 0; round < 2; ++round) {
    spawn_traced(server, {"-e", "trace=io_uring_enter", "-e", "inject=io_uring_enter:" + failure});
    const auto port = server.wait_until_serving(limit);
    if (!port)
      CAF_FAIL(budget.name() << ": the server does not start; it said:\n" << server.said());
    auto problems = verify_all(log, *port);
    load_settings wanted;
    wanted.seed = budget.below(1U << 30);
    verified_load load{log, *port, wanted};
    pause_for(600ms);
    load.expect_trouble();
    if (round == 0)
      server.kill();
    load.stop();
    operations += load.operations();
    problems.insert(problems.end(), load.problems().begin(), load.problems().end());
    if (!problems.empty())
      CAF_FAIL(budget.name() << ": " << problems.front() << "; the server said:\n" << server.said());
  }
  server.signal(SIGTERM);
  const auto end = server.wait(limit);
  if (!end.in_time || end.exit_code != 0)
    CAF_FAIL(budget.name() << ": a stop did not end with 0; the server said:\n" << server.said());
  std::cout << what << ": " << operations << " operations, stopped after " << end.seconds << " s"
            << std::endl;
  CAF_CHECK(operations > 20);
}

} // namespace

CAF_TEST(a port that is taken is refused) {
  server_process first{MEMKV_PROGRAM};
  first.write_config({});
  first.spawn();
  const auto port = first.wait_until_serving(limit);
  CAF_REQUIRE(port);
  server_process second{MEMKV_PROGRAM};
  process_settings settings;
  settings.port = *port;
  second.write_config(settings);
  second.spawn();
  check_refusal(second, {"network.address", std::to_string(*port)});
}

CAF_TEST(a server without a key is refused) {
  server_process server{MEMKV_PROGRAM};
  server.write_config({});
  server.set_environment({{"MEMKV_AUTH_KEY", ""}});
  server.spawn();
  check_refusal(server, {"MEMKV_AUTH_KEY"});
}

CAF_TEST(a configuration that is not there is refused) {
  server_process server{MEMKV_PROGRAM};
  server.spawn();
  check_refusal(server, {"config.yaml"});
}

CAF_TEST(a configuration that may not be read is refused) {
  server_process server{MEMKV_PROGRAM};
  // A directory is unreadable to root as well.
  std::filesystem::create_directory(server.config_path());
  server.spawn();
  check_refusal(server, {"config.yaml"});
}

CAF_TEST(a configuration that is not YAML is refused with its line) {
  server_process server{MEMKV_PROGRAM};
  server.write_config_text("network:\n  address: [\n");
  server.spawn();
  check_refusal(server, {"config.yaml"});
}

CAF_TEST(a drive that another server holds is refused and not harmed) {
  server_process first{MEMKV_PROGRAM};
  first.write_config({});
  first.spawn();
  const auto port = first.wait_until_serving(limit);
  CAF_REQUIRE(port);
  const auto client = connect_to(*port);
  const std::vector<std::byte> value(100'000, std::byte{7});
  CAF_REQUIRE(client->put("a", value).code == client::errc::ok);
  server_process second{MEMKV_PROGRAM};
  second.write_config_text("network:\n  address: 127.0.0.1:0\nmemory:\n  max_size: 64 MiB\n"
                           "storage:\n  mode: file\n  drives:\n    - { media: " +
                           first.drive_path(0).string() + ", max_size: " + std::to_string(512U << 20U) +
                           " }\n");
  second.spawn();
  check_refusal(second, {first.drive_path(0).string(), "in use"});
  std::vector<std::byte> found(value.size());
  CAF_REQUIRE(client->get("a", found).code == client::errc::ok);
  CAF_CHECK(found == value);
}

CAF_TEST(a drive file without room is refused) {
  server_process server{MEMKV_PROGRAM};
  const small_file_system small{server.directory() / "small", "size=8m"};
  if (!small.mounted()) {
    std::cout << "skipped: a drive file without room: a tmpfs cannot be mounted here" << std::endl;
    return;
  }
  const auto drive = small.path() / "drive";
  server.write_config_text("network:\n  address: 127.0.0.1:0\nmemory:\n  max_size: 64 MiB\n"
                           "storage:\n  mode: file\n  drives:\n    - { media: " +
                           drive.string() + ", max_size: 64 MiB }\n");
  server.spawn();
  check_refusal(server, {drive.string()});
}

CAF_TEST(a drive in a directory that is not there is refused) {
  server_process server{MEMKV_PROGRAM};
  const auto drive = server.directory() / "absent" / "drive";
  server.write_config_text("network:\n  address: 127.0.0.1:0\nmemory:\n  max_size: 64 MiB\n"
                           "storage:\n  mode: file\n  drives:\n    - { media: " +
                           drive.string() + ", max_size: 64 MiB }\n");
  server.spawn();
  check_refusal(server, {drive.string()});
}

CAF_TEST(a kernel that forbids rings is told in one sentence) {
  for (const char* failure : {"error=EPERM", "error=ENOSYS", "error=ENOMEM"}) {
    if (!can_trace("io_uring forbidden"))
      return;
    server_process server{MEMKV_PROGRAM};
    server.write_config({});
    spawn_traced(server,
                 {"-e", "trace=io_uring_setup", "-e", std::string{"inject=io_uring_setup:"} + failure});
    check_refusal(server, {"io_uring"});
  }
}

CAF_TEST(a kernel that gives rings but no ring of receive buffers is told in one sentence) {
  if (!can_trace("io_uring_register refused"))
    return;
  server_process server{MEMKV_PROGRAM};
  server.write_config({});
  spawn_traced(server, {"-e", "trace=io_uring_register", "-e", "inject=io_uring_register:error=EINVAL"});
  check_refusal(server, {"io_uring"});
}

CAF_TEST(interrupted submissions are repeated) {
  check_progress("io_uring_enter fails with EINTR", "error=EINTR:when=5+7");
}

CAF_TEST(submissions that the kernel cannot take at the moment are repeated) {
  check_progress("io_uring_enter fails with EAGAIN", "error=EAGAIN:when=3+5");
}

CAF_TEST(submissions that wait for completions to be taken are repeated) {
  check_progress("io_uring_enter fails with EBUSY", "error=EBUSY:when=4+6");
}
