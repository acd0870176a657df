// A `memkv start` in a process of its own, with a directory for its configuration, drives and output.
//
// Threading: one thread, which must outlive the child: the child dies with the thread that started it.
// Ownership: the destructor kills the child and removes the directory, unless MEMKV_TEST_KEEP is set.
// Errors: as values; what the child said is in said().
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace memkv::test {

inline constexpr std::string_view process_key_hex =
    "4f1c2b3a5968778695a4b3c2d1e0ff0e1d2c3b4a59687786f5e4d3c2b1a09f8e";

/// What a test wants in the configuration.
struct process_settings {
  std::uint32_t drives = 1;
  std::uint64_t drive_bytes = std::uint64_t{512} << 20;
  std::uint64_t shard_bytes = 64 << 10;
  bool eviction = false;
  bool sync_always = false;
  std::uint16_t port = 0;
};

/// How a child ended.
struct process_end {
  bool in_time = false;
  int exit_code = -1; // -1: not by exit
  int signal = 0;
  double seconds = 0; // waited
};

class server_process {
public:
  explicit server_process(std::string program);
  ~server_process();
  server_process(const server_process&) = delete;
  server_process& operator=(const server_process&) = delete;

  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  [[nodiscard]] std::filesystem::path config_path() const { return directory_ / "config.yaml"; }
  [[nodiscard]] std::filesystem::path drive_path(std::uint32_t index) const;
  void write_config(const process_settings& wanted) const;
  void write_config_text(std::string_view text) const;

  /// Variables for the child, besides those of this process. MEMKV_AUTH_KEY is set unless it stands here.
  void set_environment(std::vector<std::pair<std::string, std::string>> extra) { extra_ = std::move(extra); }
  /// Flags of `memkv start` besides those of the configuration and the log.
  void set_flags(std::vector<std::string> flags) { flags_ = std::move(flags); }
  /// Starts the server; `prefix` is a command that starts it in turn and keeps its process id.
  void spawn(const std::vector<std::string>& prefix = {});
  /// The port once the server says that it serves; none when it ended before, or in time.
  [[nodiscard]] std::optional<std::uint16_t> wait_until_serving(std::chrono::milliseconds limit);
  void signal(int number) const;
  /// Waits for the end and reaps it.
  process_end wait(std::chrono::milliseconds limit);
  /// SIGKILL, and waits.
  void kill();
  [[nodiscard]] bool running() const noexcept { return pid_ > 0; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// Seconds from spawn() to serving.
  [[nodiscard]] double start_seconds() const noexcept { return start_seconds_; }
  /// Everything that the child wrote to standard error since the last spawn(), its log included.
  [[nodiscard]] std::string said() const;

private:
  void close_descriptors();

  std::string program_;
  std::filesystem::path directory_;
  std::vector<std::pair<std::string, std::string>> extra_;
  std::vector<std::string> flags_;
  pid_t pid_ = -1;
  int pid_descriptor_ = -1;
  int output_ = -1;
  std::string output_text_;
  std::chrono::steady_clock::time_point spawned_{};
  double start_seconds_ = 0;
};

/// Waits without doing anything, to the microsecond or so.
void pause_for(std::chrono::microseconds time);

/// Runs a command, without a shell, its output thrown away. -1: it could not be run.
int run_quietly(const std::vector<std::string>& command);

} // namespace memkv::test
