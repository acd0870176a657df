// What a drive actor works on: the device, the store on it, and what outlives the actor.
#pragma once

#include "actors/messages.hpp"
#include "engine/block_device.hpp"
#include "engine/drive_store.hpp"

#include <cstdint>
#include <map>
#include <memory>

namespace memkv::actors {

/// Ownership: shared by DRIVE and by every request that reads or fills memory of this drive, so that a
/// mapping stays where it is while anybody may touch it. A new incarnation of the same device is opened only
/// after the last holder has let go, except for memory, whose body itself is handed to the next incarnation.
/// Threading: `store` is DRIVE's, except for its functions marked *any thread*.
struct drive_body {
  std::uint32_t index = 0;
  bool memory = false; // payload is placed and read directly
  // The store refers to the device: destroyed first.
  std::unique_ptr<engine::block_device> device;
  std::unique_ptr<engine::drive_store> store;
  /// Space that was handed out, by token. DRIVE's. It outlives the actor for memory only.
  std::map<std::uint64_t, extent_put_ptr> reserved;
};

} // namespace memkv::actors
