#include "wire/license_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace memkv::wire {

namespace {

license_text failed(int error) {
  license_text out;
  out.result = license_text::outcome::failed;
  if (error == ENOENT || error == ENOTDIR)
    out.result = license_text::outcome::absent;
  else if (error == EACCES || error == EPERM)
    out.result = license_text::outcome::forbidden;
  out.problem = std::strerror(error);
  return out;
}

license_text refused(const char* why) {
  return {license_text::outcome::failed, {}, why};
}

license_text read_open(int file) {
  struct stat facts {};
  if (::fstat(file, &facts) != 0)
    return failed(errno);
  if (!S_ISREG(facts.st_mode))
    return refused("it is no regular file");
  std::string text(license_file_bytes_max + 1, '\0');
  std::size_t length = 0;
  while (length < text.size()) {
    const auto count = ::read(file, text.data() + length, text.size() - length);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return failed(errno);
    if (count == 0)
      break;
    length += static_cast<std::size_t>(count);
  }
  if (length > license_file_bytes_max)
    return refused("it is too long for a license");
  text.resize(length);
  return {license_text::outcome::read, std::move(text), {}};
}

} // namespace

license_text read_license_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0)
    return failed(errno);
  auto out = read_open(file);
  ::close(file);
  return out;
}

found_license find_license_here(const license_place& first, std::uint64_t now_s) {
  return find_license(
      first, [](const char* name) { return std::getenv(name); }, read_license_file, built_in_license_keys(),
      now_s);
}

} // namespace memkv::wire
