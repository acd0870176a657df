// What the machine must offer before a server is started: a kernel that is new enough, and memory.
//
// Threading: pure functions, except kernel_release and read_memory_facts, which ask the system.
// Ownership: values. Errors: sentences that say what to do; an empty one is none.
// Not here:  reserving anything.
#pragma once

#include "cli/config.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::cli {

/// The oldest kernel a server runs on: before it, what we use of io_uring is unstable.
inline constexpr unsigned kernel_major_min = 6;
inline constexpr unsigned kernel_minor_min = 8;

/// The running kernel's release, "6.8.0-31-generic"; empty when the system does not say.
[[nodiscard]] std::string kernel_release();

/// Why a server cannot run on a kernel of that release.
[[nodiscard]] std::string check_kernel(std::string_view release);

struct memory_facts {
  std::uint64_t available_bytes = 0; // without hugepages; already bounded by the control group's limit
  std::uint64_t hugepages_free = 0;  // of the default size
  std::uint64_t hugepage_bytes = 0;  // 0: there are none
};

/// Reads <root>/proc/meminfo and the memory limit of the control group under <root>/sys/fs/cgroup. False when
/// meminfo cannot be read.
[[nodiscard]] bool read_memory_facts(const std::string& root, memory_facts& out);

struct memory_verdict {
  std::string refusal; // why the server must not start
  std::string warning; // what may go wrong later
  std::uint64_t pool_bytes = 0;
  std::uint64_t drive_bytes = 0; // memory mode
  std::uint64_t index_bytes = 0; // at most, when the drives are full of the smallest blocks
  std::uint64_t blocks_max = 0;  // direct mode: of one drive, where memory is short for more; 0: no bound
};

/// Bytes of a block device, or 0: it cannot be opened.
[[nodiscard]] std::uint64_t device_bytes(const std::string& path);

/// Whether what the configuration asks for fits. In direct mode the drives' max_size is what the devices
/// have.
[[nodiscard]] memory_verdict check_memory(const server_config& config, const memory_facts& facts);

} // namespace memkv::cli
