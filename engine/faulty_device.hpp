// A block device around another one that has the faults its drive is told to have (drive_faults.hpp).
//
// Operation. An operation that meets no fault goes to the device below as it is. One that is to be slow, to
// hang or to be corrupted goes there as a copy, whose answer is held back or spoilt; one that is to fail does
// not go there. After a write or flush that failed so, the device stays failed, as block_device.hpp says.
//
// A device below that is mapped for reading is not mapped here: what is read must pass through.
//
// Threading, ownership, errors: block_device.hpp; the clock outlives the device. close() waits for what
// hangs, as for a drive that does not answer. Does not: wrap devices that payload is placed into directly
// (memory): nothing of that could be met.
#pragma once

#include "engine/block_device.hpp"
#include "engine/clock.hpp"
#include "engine/drive_faults.hpp"

#include <memory>

namespace memkv::engine {

[[nodiscard]] std::unique_ptr<block_device> make_faulty_device(std::unique_ptr<block_device> below,
                                                               std::shared_ptr<drive_faults> faults,
                                                               const clock& time);

} // namespace memkv::engine
