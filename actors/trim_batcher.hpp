// The TRIM BATCHER actor: discards what drives have gathered, since BLKDISCARD is a call that blocks.
//
// Threading: dedicated. Ownership: none; each batch brings the discarder of its drive, and the space stays
// out of use until the answer. Errors: a batch that could not be discarded is answered as not done; its drive
// offers it again. Limits: one batch a drive is under way at a time, so its mailbox holds at most one message
// for each drive.
#pragma once

#include "actors/interfaces.hpp"

#include <caf/typed_event_based_actor.hpp>

namespace memkv::actors {

trim_batcher_actor::behavior_type trim_batcher(trim_batcher_actor::pointer self, int unused);

} // namespace memkv::actors
