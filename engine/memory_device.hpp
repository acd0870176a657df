// A block device in anonymous memory: reserved as addresses, filled as it is touched.
//
// Threading, ownership, errors: block_device.hpp. Operations complete at the next poll.
// Limits: size is a multiple of 4096. Discard succeeds and keeps the memory for its next use.
// Does not: survive anything.
#pragma once

#include "engine/block_device.hpp"

#include <memory>

namespace memkv::engine {

/// Fails with invalid_argument (size) or io_error (no addresses), and says how much was asked for.
status open_memory_device(std::uint64_t size_bytes, std::string name, std::unique_ptr<block_device>& out);

} // namespace memkv::engine
