#include "cli/doctor_apart.hpp"

#include "engine/system_call.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>

namespace memkv::cli {

namespace {

constexpr std::size_t answer_bytes_max = 64 << 10;

using steady = std::chrono::steady_clock;

struct child {
  pid_t process = -1;
  int answers = -1;
  std::size_t work = 0;
  steady::time_point until;
  std::string text;
};

[[noreturn]] void be_child(const std::function<std::string()>& work, int answers) {
  std::string text;
  int code = 0;
  try {
    text = work();
  } catch (const std::exception&) {
    code = 1; // Nothing of ours throws; the standard library does when memory ends.
  }
  text.resize(std::min(text.size(), answer_bytes_max));
  for (std::size_t at = 0; at < text.size();) {
    const auto count =
        engine::repeated_if_interrupted([&] { return ::write(answers, text.data() + at, text.size() - at); });
    if (count <= 0)
      ::_exit(1);
    at += static_cast<std::size_t>(count);
  }
  // Not exit: buffers and destructors are the parent's.
  ::_exit(code);
}

bool begin(const std::function<std::string()>& work, child& out) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return false;
  std::fflush(nullptr); // or the child would hold what is not written yet
  out.process = ::fork();
  if (out.process == 0) {
    ::close(ends[0]);
    be_child(work, ends[1]);
  }
  ::close(ends[1]);
  if (out.process < 0) {
    ::close(ends[0]);
    return false;
  }
  out.answers = ends[0];
  return true;
}

// True: it is done, one way or the other.
bool receive(child& from, bool readable, std::optional<std::string>& out) {
  if (readable) {
    std::array<char, 4096> piece{};
    const auto count =
        engine::repeated_if_interrupted([&] { return ::read(from.answers, piece.data(), piece.size()); });
    if (count > 0) {
      from.text.append(piece.data(), static_cast<std::size_t>(count));
      return false;
    }
    int state = 0;
    const auto ended = engine::repeated_if_interrupted([&] { return ::waitpid(from.process, &state, 0); });
    if (ended == from.process && WIFEXITED(state) && WEXITSTATUS(state) == 0)
      out = std::move(from.text);
    ::close(from.answers);
    return true;
  }
  if (steady::now() < from.until)
    return false;
  // It may be inside the kernel and not die: whoever inherits it waits for it.
  ::kill(from.process, SIGKILL);
  ::waitpid(from.process, nullptr, WNOHANG);
  ::close(from.answers);
  return true;
}

} // namespace

std::vector<std::optional<std::string>> run_apart(const std::vector<std::function<std::string()>>& work,
                                                  std::size_t at_once, std::uint32_t deadline_ms) {
  std::vector<std::optional<std::string>> results(work.size());
  std::vector<child> children;
  std::size_t next = 0;
  while (next < work.size() || !children.empty()) {
    while (next < work.size() && children.size() < std::clamp<std::size_t>(at_once, 1, apart_max)) {
      child made;
      made.work = next++;
      made.until = steady::now() + std::chrono::milliseconds(deadline_ms);
      if (begin(work[made.work], made))
        children.push_back(std::move(made));
    }
    std::vector<pollfd> wanted;
    auto first = steady::now() + std::chrono::seconds(60);
    for (const auto& each : children) {
      wanted.push_back({each.answers, POLLIN, 0});
      first = std::min(first, each.until);
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(first - steady::now()).count() + 1;
    if (!wanted.empty())
      ::poll(wanted.data(), wanted.size(), static_cast<int>(std::max<std::int64_t>(left, 0)));
    for (std::size_t i = children.size(); i-- > 0;)
      if (receive(children[i], wanted[i].revents != 0, results[children[i].work]))
        children.erase(children.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return results;
}

} // namespace memkv::cli
