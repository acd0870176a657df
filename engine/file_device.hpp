// A block device in a regular file, fully reserved, locked, mapped for reading.
//
// Operation. A new file is made under a temporary name, reserved in full and then given its name, so that a
// file with the right name has the right size. Operations are done by pwrite, pread and fdatasync inside
// poll, in the order of submission. Discard succeeds and never punches holes: what was reserved stays
// reserved.
//
// Threading, ownership: block_device.hpp. The mapping is read through guarded_read.hpp.
// Errors: opening says in one sentence what is wrong. After a failed write or flush the device stays failed.
// Limits: size is a multiple of 4096. Refuses anything but a regular file, and symbolic links.
#pragma once

#include "engine/block_device.hpp"

#include <memory>

namespace memkv::engine {

struct file_device_options {
  std::string path;
  std::uint64_t size_bytes = 0;
  bool create = true; // when there is none
};

/// errc: invalid_argument (size, kind of file), not_found, no_space, wrong_size, in_use, io_error.
status open_file_device(const file_device_options& options, std::unique_ptr<block_device>& out);

} // namespace memkv::engine
