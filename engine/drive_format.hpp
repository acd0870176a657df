// Making drives empty: a new one for a set, and one that keeps its place in its set.
//
// Both give the drive a new format id, so whatever lies on it afterwards is foreign to the new format. What a
// cut leaves behind is either the old state, or a drive without anything in it.
//
// Threading: one thread; blocks. Ownership: device and discarder are lent. Errors: a status with a sentence
// that does not name the drive. ok with a text: done, and a person should know something.
// Does not: look at what is there; the caller has decided.
#pragma once

#include "engine/block_device.hpp"
#include "engine/drive_members.hpp"
#include "engine/drive_store.hpp"
#include "engine/superblock.hpp"
#include "engine/uring_device.hpp"

#include <cstdint>
#include <functional>
#include <string_view>

namespace memkv::engine {

/// Called with what is being done and how far it is. False: stop; the drive is empty then, but not all of it
/// was discarded or overwritten.
using format_progress =
    std::function<bool(std::string_view verb, std::uint64_t done_bytes, std::uint64_t total_bytes)>;

struct new_drive {
  set_identity identity;
  std::uint32_t unit_bytes = 0, extent_bytes_max = 0;
  failure_registry failures; // kept from an earlier format, so that setup unlocks no failing drive
  /// Of the set whose place the drive takes; 0: the set is new. With less, a start with this drive alone
  /// would begin an epoch that what the others still hold outranks.
  std::uint64_t set_epoch = 0;
  drive_members members{}; // of that epoch
};

/// Formats a drive as a member of a set. `discarder`: null when there is nothing to be
/// discarded (a regular file).
status format_new(block_device& device, discarder* discarder, const new_drive& wanted,
                  const format_progress& progress);

/// Empties a drive that keeps its identity: set, place, drive id, set epoch and members stay as `found` says,
/// the failure registry is cleared. An empty drive cannot say anything stale, so the epoch may stay; a lower
/// one would hide that other drives are out of date. `secure`: the tree and data regions are overwritten with
/// zeros after they were discarded.
status format_again(block_device& device, discarder* discarder, const superblock& found, bool secure,
                    const format_progress& progress);

} // namespace memkv::engine
