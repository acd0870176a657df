// A raw block device (or, for the offline tools, an image in a regular file) through io_uring with O_DIRECT.
//
// Operation. Every operation is split into requests of at most `request_bytes_max`, so that a large one
// cannot come back half-done by being several bios; a short or EAGAIN completion is submitted again from
// where it stopped, a bounded number of times. At most `depth_max` requests are in the kernel; the rest waits
// here. Memory given in `registered` is pinned once and used as fixed buffers; anything else goes as it is.
// The device is a fixed file of the ring.
//
// The device is claimed exclusively: O_EXCL (which the kernel refuses for what is mounted or claimed by
// another), and an advisory lock, which also keeps two of our own programs apart on a regular file.
//
// Threading, errors: as block_device. Ownership: the host outlives the device. Does not: discard (BLKDISCARD
// blocks: make_discarder), format, or look at what is on the device.
#pragma once

#include "engine/block_device.hpp"
#include "engine/ring_host.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace memkv::engine {

struct uring_device_options {
  std::string path;
  bool read_only = false;    // writes and flushes end with invalid_argument
  bool allow_file = false;   // a regular file will do (buffered where its file system has no O_DIRECT)
  ring_host* host = nullptr; // null: a ring of its own
  /// A drive that is in use is tried again for this long: the kernel takes a killed server's claim back late.
  std::uint32_t claim_ms = 2'000;
  std::uint32_t depth_max = 64;
  std::uint32_t request_bytes_max = 1 << 20;
  std::span<std::byte> registered; // page-aligned; outlives the device
};

/// not_found, invalid_argument (no block device), in_use, io_error; each one sentence that names the drive.
/// ok with a text: open, and a person should know something (buffers could not be registered).
status open_uring_device(const uring_device_options& options, std::unique_ptr<block_device>& out);

/// A discarder with a descriptor of its own: for whoever has the device open otherwise, or not at all.
status open_discarder(const std::string& path, std::unique_ptr<discarder>& out);

} // namespace memkv::engine
