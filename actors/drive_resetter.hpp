// The DRIVE RESETTER actor: empties one drive while the server runs on without it.
//
// Operation. What `memkv drive reset` does offline: a new, empty format for the same place of the same set,
// the failure registry cleared, everything discarded, and overwritten with zeros if that is asked for. A
// drive that is blank, since a new one was put in the place of a failed one, gets the format of its place; so
// does one of memkv's that lost both superblocks, which nothing can be read from any more. A drive that says
// it is of another set or place, or has anybody else's data, is refused: the path may lead elsewhere than it
// did.
//
// The empty drive is in the epoch of its set: it cannot say anything stale, and a server that is started with
// it alone begins an epoch that nothing on the other drives outranks.
//
// Threading: dedicated; blocks, and heeds an exit message only when it is done; reset_progress::cancelled
// ends it sooner. Ownership: claims the device, as a drive does; progress is shared. What is cut short leaves
// the drive as it was, or empty but not all of it overwritten.
#pragma once

#include "actors/interfaces.hpp"
#include "engine/drive_members.hpp"
#include "engine/open_drive.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <atomic>
#include <cstdint>
#include <memory>

namespace memkv::actors {

/// Written by DRIVE RESETTER, read by SERVER, unless it says otherwise.
struct reset_progress {
  std::atomic<std::uint64_t> done_bytes{0}, total_bytes{0};
  std::atomic<bool> cancelled{false}; // by SERVER: it stops
};

struct reset_order {
  engine::drive_description drive;
  engine::store_options options; // with the identity of this drive
  std::uint64_t set_epoch = 0;   // that is durable on all drives that take part, and who they are
  engine::drive_members members{};
  server_actor server;
  std::shared_ptr<reset_progress> progress;
};

drive_resetter_actor::behavior_type drive_resetter(drive_resetter_actor::pointer self, reset_order order);

} // namespace memkv::actors
