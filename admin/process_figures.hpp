// What the kernel says about this process.
//
// Threading: any thread. Errors: what cannot be read is absent.
#pragma once

#include <cstdint>
#include <optional>

namespace memkv::admin {

struct process_figures {
  std::optional<std::uint64_t> resident_bytes, virtual_bytes;
  std::optional<std::uint64_t> open_descriptors, descriptors_max, threads;
  std::optional<double> cpu_seconds; // user and system
  std::optional<double> started_at;  // seconds since 1970-01-01 UTC
};

[[nodiscard]] process_figures read_process_figures();

} // namespace memkv::admin
