#include "cli/machine.hpp"

#include "cli/command_line.hpp" // format_size
#include "engine/limits.hpp"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace memkv::cli {

namespace {

// Sizes in sentences need no precision: "12.3 GiB".
std::string about(std::uint64_t bytes) {
  constexpr std::uint64_t mib = 1024 * 1024;
  const bool large = bytes >= 1024 * mib;
  const std::uint64_t tenths = large ? bytes / (1024 * mib / 10) : bytes / (mib / 10);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + (large ? " GiB" : " MiB");
}

std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value)
    return value;
  return std::nullopt;
}

} // namespace

std::string kernel_release() {
  utsname names{};
  return ::uname(&names) == 0 ? names.release : "";
}

std::string check_kernel(std::string_view release) {
  const std::string need = std::to_string(kernel_major_min) + "." + std::to_string(kernel_minor_min);
  std::istringstream text{std::string(release)};
  unsigned major = 0;
  unsigned minor = 0;
  char point = 0;
  const bool numbers = !release.empty() && std::isdigit(static_cast<unsigned char>(release.front())) != 0;
  if (!numbers || !(text >> major >> point >> minor) || point != '.')
    return "the kernel's release \"" + std::string(release) + "\" cannot be read: memkv start needs Linux " +
           need + " or newer";
  if (major > kernel_major_min || (major == kernel_major_min && minor >= kernel_minor_min))
    return {};
  return "this is Linux " + std::string(release) + ", and memkv start needs " + need +
         " or newer: boot a newer kernel";
}

std::uint64_t device_bytes(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0)
    return 0;
  const auto size = ::lseek(file, 0, SEEK_END);
  ::close(file);
  return size < 0 ? 0 : static_cast<std::uint64_t>(size);
}

bool read_memory_facts(const std::string& root, memory_facts& out) {
  std::ifstream file(root + "/proc/meminfo");
  bool found = false;
  out = {};
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (!(words >> name >> value))
      continue;
    if (name == "MemAvailable:") {
      out.available_bytes = value * 1024;
      found = true;
    } else if (name == "HugePages_Free:") {
      out.hugepages_free = value;
    } else if (name == "Hugepagesize:") {
      out.hugepage_bytes = value * 1024;
    }
  }
  // A container may be allowed less than the machine has. "max" is no number and means no limit.
  const auto limit = number_in(root + "/sys/fs/cgroup/memory.max");
  const auto current = number_in(root + "/sys/fs/cgroup/memory.current");
  if (limit && current)
    out.available_bytes = std::min(out.available_bytes, *limit > *current ? *limit - *current : 0);
  return found;
}

memory_verdict check_memory(const server_config& config, const memory_facts& facts) {
  memory_verdict verdict;
  verdict.pool_bytes = config.memory.max_bytes;
  std::uint64_t stored = 0;
  for (const auto& drive : config.storage.drives)
    stored += drive.max_size_bytes;
  if (config.storage.mode == storage_mode::memory)
    verdict.drive_bytes = stored;
  const std::uint64_t blocks = stored / config.storage.shard_bytes;
  verdict.index_bytes = blocks / 1'000'000 * engine::limits::memory_bytes_per_million_blocks +
                        blocks % 1'000'000 * engine::limits::memory_bytes_per_million_blocks / 1'000'000;

  const std::uint64_t allowed = facts.available_bytes / 5 * 4;
  const bool pool_in_hugepages =
      facts.hugepage_bytes > 0 && verdict.pool_bytes <= facts.hugepages_free * facts.hugepage_bytes;
  const std::uint64_t ordinary = (pool_in_hugepages ? 0 : verdict.pool_bytes) + verdict.drive_bytes;
  if (ordinary > allowed) {
    const std::uint64_t page = facts.hugepage_bytes > 0 ? facts.hugepage_bytes : std::uint64_t{2} << 20;
    verdict.refusal = "memory.max_size";
    if (verdict.drive_bytes > 0)
      verdict.refusal += " and the memory drives need ";
    else
      verdict.refusal += " needs ";
    verdict.refusal += about(ordinary) + ", but 80 % of the available memory is " + about(allowed) +
                       ": lower " + (verdict.drive_bytes > 0 ? "them" : "it");
    // Hugepages are made of the same memory: they help a pool that memory is there for, not a pool too large.
    if (!pool_in_hugepages && verdict.drive_bytes <= allowed && verdict.pool_bytes <= facts.available_bytes)
      verdict.refusal += ", or reserve hugepages for the pool with sysctl -w vm.nr_hugepages=" +
                         std::to_string((verdict.pool_bytes + page - 1) / page);
    return verdict;
  }
  if (config.storage.mode == storage_mode::direct && ordinary + verdict.index_bytes > allowed) {
    // Drives of many terabytes hold more of the smallest blocks than memory can index; nobody fills them so.
    constexpr std::uint64_t per_million = engine::limits::memory_bytes_per_million_blocks;
    const std::uint64_t room = allowed - ordinary;
    verdict.blocks_max =
        std::max<std::uint64_t>(1, room * 1'000'000 / per_million / config.storage.drives.size());
    verdict.warning = "memory allows an index of " + std::to_string(verdict.blocks_max) +
                      " blocks a drive (" + about(room) +
                      " in all); older blocks are dropped beyond that: with many blocks below " +
                      about(stored / (verdict.blocks_max * config.storage.drives.size())) +
                      " lower memory.max_size, or add memory";
    return verdict;
  }
  if (ordinary + verdict.index_bytes > facts.available_bytes) {
    verdict.refusal = "the index of drives full of blocks of storage.shard_size (" +
                      format_size(config.storage.shard_bytes) + ") may need " + about(verdict.index_bytes) +
                      ", but beside the rest only " + about(facts.available_bytes - ordinary) +
                      " are available: raise storage.shard_size, or lower max_size of the drives";
    return verdict;
  }
  if (ordinary + verdict.index_bytes > allowed)
    verdict.warning =
        "the index may grow to " + about(verdict.index_bytes) +
        ", and then more than 80 % of the available memory is in use: a larger storage.shard_size needs less";
  return verdict;
}

} // namespace memkv::cli
