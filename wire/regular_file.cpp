#include "wire/regular_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace memkv::wire {

namespace {

using outcome = file_text::outcome;

file_text failed(int error) {
  file_text out;
  out.result = outcome::failed;
  if (error == ENOENT || error == ENOTDIR)
    out.result = outcome::absent;
  else if (error == EACCES || error == EPERM)
    out.result = outcome::forbidden;
  out.problem = std::strerror(error);
  return out;
}

file_text read_open(int file, std::size_t bytes_max) {
  struct stat facts {};
  if (::fstat(file, &facts) != 0)
    return failed(errno);
  if (!S_ISREG(facts.st_mode))
    return {outcome::failed, {}, "it is no regular file"};
  // One byte more than allowed is enough to know that there is too much. What a file claims to have is only
  // a first guess: those of /proc claim nothing.
  std::string text(std::min(bytes_max, static_cast<std::size_t>(facts.st_size)) + 1, '\0');
  std::size_t length = 0;
  while (length <= bytes_max) {
    if (length == text.size())
      text.resize(std::min(bytes_max + 1, 2 * text.size()));
    const auto count = ::read(file, text.data() + length, text.size() - length);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return failed(errno);
    if (count == 0)
      break;
    length += static_cast<std::size_t>(count);
  }
  if (length > bytes_max)
    return {outcome::too_long, {}, "it is too long"};
  text.resize(length);
  return {outcome::read, std::move(text), {}, facts.st_mode & 07777U};
}

} // namespace

file_text read_regular_file(const std::string& path, std::size_t bytes_max) {
  // Neither a pipe without a writer nor a terminal may keep us.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0)
    return failed(errno);
  auto out = read_open(file, bytes_max);
  ::close(file);
  return out;
}

} // namespace memkv::wire
