// From a drive's description to an open store: picks the device, opens it, opens the store on it.
//
// Threading: the thread that will own the store. Ownership: both go to the caller; the device outlives the
// store. Errors: a sentence that names the drive. ok with a text: open, and a person should know what was
// found.
#pragma once

#include "engine/block_device.hpp"
#include "engine/drive_faults.hpp"
#include "engine/drive_store.hpp"
#include "engine/ring_host.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace memkv::engine {

struct drive_description {
  bool memory = false;
  bool raw = false;             // a whole block device, set up beforehand (memkv setup)
  std::string path;             // of the file or the device; of a memory drive: empty
  std::uint64_t size_bytes = 0; // of the file or the memory, rounded down to 4 KiB; a raw device says its own
  bool image = false;           // raw: a regular file will do, for tests
};

/// What a device uses of its server. Host and pool outlive the device; both are for raw ones only.
struct drive_means {
  ring_host* host = nullptr;            // null: a ring of its own
  std::span<std::byte> registered;      // the pool of transfer buffers
  std::shared_ptr<drive_faults> faults; // null: none are injected; without effect on memory drives
  std::uint32_t claim_ms = 2'000;       // a raw drive that is in use is tried again for this long
};

/// A memory drive is not persistent, and a raw one always syncs, whatever `options` says. On failure both
/// outputs are empty.
status open_drive(const drive_description& description, const store_options& options, clock& time,
                  const drive_means& means, std::unique_ptr<block_device>& device,
                  std::unique_ptr<drive_store>& store);

} // namespace memkv::engine
