#include "cli/client_values.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace memkv::cli {

namespace {

constexpr std::size_t read_step_bytes = 1U << 20U;

/// Writes into what is there and is no file: a device, a pipe.
std::string write_through(const std::string& path, std::span<const std::byte> value) {
  const int target = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (target < 0) {
    return path + ": " + std::strerror(errno);
  }
  std::string problem = write_all(target, path, value);
  if (::close(target) != 0 && problem.empty()) {
    problem = path + ": " + std::strerror(errno);
  }
  return problem;
}

} // namespace

std::string read_value(const std::string& path, std::chrono::steady_clock::time_point end,
                       std::vector<std::byte>& value) {
  const bool standard_input = path.empty() || path == "-";
  const std::string shown = standard_input ? "standard input" : path;
  // A pipe is waited for below, no longer than there is time, and not by its opening.
  const int source = standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (source < 0) {
    return shown + ": " + std::strerror(errno);
  }
  struct stat facts {};
  if (::fstat(source, &facts) == 0 && S_ISREG(facts.st_mode) &&
      static_cast<std::uint64_t>(facts.st_size) <= value_bytes_max) {
    value.reserve(static_cast<std::size_t>(facts.st_size) + 1);
  }
  std::string problem;
  while (problem.empty()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd readable{source, POLLIN, 0};
    if (left <= 0 || ::poll(&readable, 1, static_cast<int>(left)) == 0) {
      problem = shown + " did not end in time: see --deadline-ms";
      break;
    }
    const std::size_t had = value.size();
    value.resize(had + read_step_bytes);
    const ssize_t got = ::read(source, value.data() + had, read_step_bytes);
    const int error = errno;
    value.resize(had + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got == 0) {
      break;
    }
    if (got < 0 && error != EINTR && error != EAGAIN) {
      problem = shown + ": " + std::strerror(error);
    } else if (value.size() > value_bytes_max) {
      problem = shown + ": a value has at most 1 GiB";
    }
  }
  if (!standard_input) {
    ::close(source);
  }
  return problem;
}

std::string write_all(int target, const std::string& shown, std::span<const std::byte> value) {
  while (!value.empty()) {
    const ssize_t written = ::write(target, value.data(), value.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return shown + ": " + std::strerror(errno);
    }
    value = value.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

std::string write_file(const std::string& given, std::span<const std::byte> value) {
  std::string path = given;
  if (char* const real = ::realpath(given.c_str(), nullptr); real != nullptr) {
    path = real;
    std::free(real);
  }
  struct stat about {};
  if (::stat(path.c_str(), &about) == 0) {
    if (!S_ISREG(about.st_mode)) {
      return write_through(path, value);
    }
  } else if (::lstat(path.c_str(), &about) == 0) {
    return given + ": a link to something that is not there";
  }
  const std::string beside = path + ".part." + std::to_string(::getpid());
  const int target = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (target < 0) {
    return path + ": " + std::strerror(errno);
  }
  std::string problem = write_all(target, path, value);
  if (::close(target) != 0 && problem.empty()) {
    problem = path + ": " + std::strerror(errno);
  }
  if (problem.empty() && ::rename(beside.c_str(), path.c_str()) != 0) {
    problem = path + ": " + std::strerror(errno);
  }
  if (!problem.empty()) {
    ::unlink(beside.c_str());
  }
  return problem;
}

} // namespace memkv::cli
