// A drive in the hands of an offline command: found, not in use by anybody, and claimed.
//
// Threading: one thread. Ownership: the opened drive owns its device. Errors: one sentence that names the
// drive. Does not: look at what lies on it.
#pragma once

#include "cli/device_facts.hpp"
#include "engine/block_device.hpp"
#include "engine/uring_device.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace memkv::cli {

enum class drive_access : std::uint8_t { read, write };

struct opened_drive {
  std::string path;
  bool is_file = false; // an image, or a drive of file mode
  device_facts facts;   // of a block device
  std::unique_ptr<engine::block_device> device;
  std::unique_ptr<engine::discarder> discarder; // of a block device opened for writing

  [[nodiscard]] std::string model() const;
};

/// Opens a block device or a regular file exclusively. `root` is where sysfs and /proc are; empty: the
/// system's.
[[nodiscard]] std::string open_for_tool(const std::string& path, drive_access access, const std::string& root,
                                        opened_drive& out);

/// Prints one sentence to standard error; returns 1, the exit code of everything that went wrong.
int refuse_drive(const std::string& sentence);

/// Everything printed must have arrived; a full disk or a closed pipe is an error.
[[nodiscard]] int finish_drive_output(int code);

} // namespace memkv::cli
