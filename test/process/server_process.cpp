#include "test/process/server_process.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace memkv::test {

using clock_type = std::chrono::steady_clock;

namespace {

double seconds_since(clock_type::time_point begin) {
  return std::chrono::duration<double>(clock_type::now() - begin).count();
}

int milliseconds_until(clock_type::time_point end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - clock_type::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (auto& text : texts)
    out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

/// Between fork and exec only what is safe after the fork of a process with threads.
[[noreturn]] void become(char** words, char** environment, int output, int errors, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent)
    ::_exit(126);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(errors, STDERR_FILENO);
  ::execvpe(words[0], words, environment);
  ::_exit(127);
}

} // namespace

void pause_for(std::chrono::microseconds time) {
  std::this_thread::sleep_for(time);
}

int run_quietly(const std::vector<std::string>& command) {
  auto texts = command;
  auto words = pointers(texts);
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0)
    become(words.data(), environ, nowhere, nowhere, parent);
  ::close(nowhere);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status))
    return -1;
  return WEXITSTATUS(status);
}

server_process::server_process(std::string program) : program_(std::move(program)) {
  if (const char* other = std::getenv("MEMKV_PROGRAM"); other != nullptr)
    program_ = other;
  std::string name = (std::filesystem::temp_directory_path() / "memkv-process-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr)
    std::abort();
  directory_ = name;
}

server_process::~server_process() {
  kill();
  std::error_code ignored;
  if (std::getenv("MEMKV_TEST_KEEP") == nullptr)
    std::filesystem::remove_all(directory_, ignored);
}

std::filesystem::path server_process::drive_path(std::uint32_t index) const {
  return directory_ / ("drive" + std::to_string(index));
}

void server_process::write_config_text(std::string_view text) const {
  std::ofstream{config_path(), std::ios::trunc} << text;
}

void server_process::write_config(const process_settings& wanted) const {
  std::ostringstream out;
  out << "network:\n  address: 127.0.0.1:" << wanted.port << "\n  reactors: 2\n"
      << "memory:\n  max_size: 64 MiB\n"
      << "storage:\n  mode: file\n  shard_size: " << wanted.shard_bytes
      << "\n  sync: " << (wanted.sync_always ? "always" : "never")
      << "\n  eviction:\n    enabled: " << (wanted.eviction ? "true" : "false") << "\n  drives:\n";
  for (std::uint32_t index = 0; index < wanted.drives; ++index)
    out << "    - { media: " << drive_path(index).string() << ", max_size: " << wanted.drive_bytes << " }\n";
  write_config_text(out.str());
}

void server_process::spawn(const std::vector<std::string>& prefix) {
  kill();
  auto texts = prefix;
  for (const auto& word : {program_, std::string{"start"}, std::string{"--config"}, config_path().string(),
                           std::string{"--log-file"}, std::string{"none"}})
    texts.push_back(word);
  texts.insert(texts.end(), flags_.begin(), flags_.end());
  std::vector<std::string> variables;
  const auto named = [](std::string_view text, const auto& pair) {
    return text.size() > pair.first.size() && text.starts_with(pair.first) && text[pair.first.size()] == '=';
  };
  auto extra = extra_;
  const bool own_key = std::any_of(extra.begin(), extra.end(),
                                   [](const auto& pair) { return pair.first == "MEMKV_AUTH_KEY"; });
  if (!own_key)
    extra.emplace_back("MEMKV_AUTH_KEY", process_key_hex);
  for (char** each = environ; *each != nullptr; ++each)
    if (std::none_of(extra.begin(), extra.end(), [&](const auto& pair) { return named(*each, pair); }))
      variables.emplace_back(*each);
  for (const auto& [name, value] : extra)
    variables.push_back(name + "=" + value);
  auto words = pointers(texts);
  auto environment = pointers(variables);

  int ends[2] = {-1, -1};
  const int errors =
      ::open((directory_ / "said").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (errors < 0 || ::pipe2(ends, O_CLOEXEC) != 0)
    std::abort();
  output_text_.clear();
  start_seconds_ = 0;
  spawned_ = clock_type::now();
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0)
    become(words.data(), environment.data(), ends[1], errors, parent);
  ::close(ends[1]);
  ::close(errors);
  output_ = ends[0];
  pid_descriptor_ = pid_ > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)) : -1;
  if (pid_descriptor_ < 0)
    std::abort();
}

std::optional<std::uint16_t> server_process::wait_until_serving(std::chrono::milliseconds limit) {
  constexpr std::string_view words = "memkv: serving on ";
  const auto end = clock_type::now() + limit;
  while (true) {
    pollfd watched{output_, POLLIN, 0};
    const int ready = ::poll(&watched, 1, milliseconds_until(end));
    if (ready < 0 && errno == EINTR)
      continue;
    if (ready <= 0)
      return std::nullopt;
    char bytes[4096];
    const auto count = ::read(output_, bytes, sizeof bytes);
    if (count <= 0)
      return std::nullopt;
    output_text_.append(bytes, static_cast<std::size_t>(count));
    const auto at = output_text_.find(words);
    const auto line_end = at == std::string::npos ? at : output_text_.find('\n', at);
    if (line_end == std::string::npos)
      continue;
    start_seconds_ = seconds_since(spawned_);
    const auto colon = output_text_.rfind(':', line_end);
    return static_cast<std::uint16_t>(std::strtoul(output_text_.c_str() + colon + 1, nullptr, 10));
  }
}

void server_process::signal(int number) const {
  if (pid_ > 0)
    ::kill(pid_, number);
}

process_end server_process::wait(std::chrono::milliseconds limit) {
  process_end out;
  if (pid_ <= 0)
    return out;
  const auto begin = clock_type::now();
  pollfd watched{pid_descriptor_, POLLIN, 0};
  int ready = 0;
  do
    ready = ::poll(&watched, 1, milliseconds_until(begin + limit));
  while (ready < 0 && errno == EINTR);
  out.seconds = seconds_since(begin);
  if (ready <= 0)
    return out;
  int status = 0;
  if (::waitpid(pid_, &status, 0) != pid_)
    return out;
  out.in_time = true;
  if (WIFEXITED(status))
    out.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status))
    out.signal = WTERMSIG(status);
  pid_ = -1;
  close_descriptors();
  return out;
}

void server_process::kill() {
  if (pid_ <= 0)
    return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
  close_descriptors();
}

void server_process::close_descriptors() {
  ::close(std::exchange(pid_descriptor_, -1));
  ::close(std::exchange(output_, -1));
}

std::string server_process::said() const {
  std::ifstream in{directory_ / "said"};
  return {std::istreambuf_iterator<char>{in}, {}};
}

} // namespace memkv::test
