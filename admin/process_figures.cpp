#include "admin/process_figures.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>

namespace memkv::admin {

namespace {

std::string content_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Seconds since 1970-01-01 UTC at which the kernel started.
std::optional<double> boot_time() {
  const auto text = content_of("/proc/stat");
  const auto line = text.find("\nbtime ");
  if (line == std::string::npos)
    return std::nullopt;
  return std::strtod(text.c_str() + line + 7, nullptr);
}

std::optional<std::uint64_t> count_descriptors() {
  std::error_code failed;
  std::uint64_t count = 0;
  for (std::filesystem::directory_iterator at("/proc/self/fd", failed), end; !failed && at != end;
       at.increment(failed))
    ++count;
  if (failed || count == 0)
    return std::nullopt;
  return count - 1; // the one it is read through
}

} // namespace

process_figures read_process_figures() {
  process_figures out;
  const auto ticks_a_second = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const auto text = content_of("/proc/self/stat");
  // The name may hold blanks and parentheses; the fields begin behind its last one.
  if (const auto name_end = text.rfind(')'); name_end != std::string::npos && ticks_a_second > 0) {
    std::istringstream fields(text.substr(name_end + 1));
    std::array<std::string, 22> field; // from the third on: see proc(5)
    std::size_t count = 0;
    while (count < field.size() && fields >> field[count])
      ++count;
    if (count == field.size()) {
      const auto number = [&](std::size_t which) {
        return std::strtoull(field[which - 3].c_str(), nullptr, 10);
      };
      out.cpu_seconds = static_cast<double>(number(14) + number(15)) / ticks_a_second;
      out.threads = number(20);
      if (const auto boot = boot_time())
        out.started_at = *boot + static_cast<double>(number(22)) / ticks_a_second;
      out.virtual_bytes = number(23);
      out.resident_bytes = number(24) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    }
  }
  out.open_descriptors = count_descriptors();
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    out.descriptors_max = limit.rlim_cur;
  return out;
}

} // namespace memkv::admin
