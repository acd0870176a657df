// DC on mlx5, for the fabric on libibverbs: initiators, targets and address handles, by way of libmlx5.
//
// **It has not run on hardware.** The tests run it on a made-up device that takes and refuses what the
// documentation and the published sources of libmlx5 and the mlx5 driver say; docs/rdma.md tells what to run
// first on a machine that has one.
//
// Operation.
//   Whether a device has DC is found out by making a target and an initiator, when the fabric is opened: no
//   bit tells it. A device of mlx5 that cannot is a warning, and RC is there as on any other.
//   An initiator goes from INIT over RTR to RTS when it is made. A request that failed, or fail(), takes it
//   to the error state; recover() walks it over RESET to RTS again, once everything that was posted has been
//   reported: RESET throws away what the device has not. An old driver that refuses RESET leaves it in the
//   error state, and whoever owns it makes another. Each batch is one doorbell, and of a batch that the
//   driver refuses nothing was posted.
//   A target has a shared receive queue, since DC asks for one, and never a receive in it: initiators READ
//   and WRITE. Its number is known only in RTR. It lets in what the memory regions let in. Traffic class, hop
//   limit and address of the port go with the address handle for packets to a target, and with the target for
//   its answers; path MTU, retries and READs in flight are the initiator's. The service level is both the
//   handle's and the initiator's, which older drivers do not take.
//
// Threading, ownership and errors: as fabric.hpp says. Does not: use the hardware streams of an initiator
// (facts().dc_streams only tells of them), nor send messages.
#pragma once

#include "verbs/ibverbs_parts.hpp"

namespace memkv::verbs::detail {

/// Sets facts().dc and dc_streams, or no_dc to the reason. To be called once, before queue pairs are made.
void find_dc(hardware& device, std::vector<std::string>& warnings);

} // namespace memkv::verbs::detail
