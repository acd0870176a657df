// From a drive's description to an open store: picks the device, opens it, opens the store on it.
//
// Threading: the thread that will own the store. Ownership: both go to the caller; the device outlives the
// store. Errors: a sentence that names the drive. ok with a text: open, and a person should know what was
// found.
#pragma once

#include "engine/block_device.hpp"
#include "engine/drive_store.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace memkv::engine {

struct drive_description {
  bool memory = false;
  std::string path;             // of the file; of a memory drive: empty
  std::uint64_t size_bytes = 0; // of the file or the memory; rounded down to 4 KiB
};

/// A memory drive is not persistent whatever `options` says. On failure both outputs are empty.
status open_drive(const drive_description& description, const store_options& options, clock& time,
                  std::unique_ptr<block_device>& device, std::unique_ptr<drive_store>& store);

} // namespace memkv::engine
