// Every message that crosses an actor boundary, in one place: who may say what to whom.
//
// Change a signature here first; the compiler then names every caller. What the messages carry is in
// messages.hpp.
//
//   main -> SERVER -> {LISTENER, REACTOR, DRIVE, EVICTOR}         start, changes, stop
//   LISTENER -> REACTOR -> CONNECTION                             the life of a connection
//   REACTOR <-> DRIVE                                             blocks
//   EVICTOR -> DRIVE                                              space
//   REACTOR <-> CONNECTION <-> DCI POOL                           the life of a session
//   REACTOR <-> DCI POOL                                          bytes from and to clients' memory, messages
//   DRIVE <-> TRIM BATCHER                                        what the device may forget
//   LICENSE WATCHER -> SERVER                                     the end of the licence
//   a door -> ADMIN GATEWAY <-> everybody                         reports
//   ADMIN GATEWAY -> SERVER -> DRIVE RESETTER                     emptying a drive
//
// With fault injection every actor takes act_up besides (fault_points.hpp).
// Every actor answers exit messages; SERVER monitors all of them and starts a dead one anew.
#pragma once

#include "actors/messages.hpp"

#include <caf/replies_to.hpp>
#include <caf/typed_actor.hpp>

namespace memkv::actors {

/// The DRIVE actor: sole owner of one block device and the store on it.
///
/// Threading: dedicated; waits in its ring. Errors: in the object the answer carries, as engine::errc.
/// Answers every store, allocate, commit, read and erase exactly once, unless it dies: then its DOWN is the
/// answer. REACTORs may do allocate and commit themselves on memory drives, in the drive's turn:
/// drive_body.hpp.
using drive_actor = caf::typed_actor<
    // Space, payload and commit in one message, for small blocks. Answer: extent_stored.
    caf::reacts_to<store_extent>,
    // Space only. Answer: extent_allocated. For memory drives the payload then goes directly to put->place.
    caf::reacts_to<allocate_extent>,
    // One piece of payload; no answer, a failure shows in the commit.
    caf::reacts_to<write_extent>,
    // All pieces were sent or placed. Answer: extent_stored.
    caf::reacts_to<commit_extent>,
    // Space is not needed after all; no answer.
    caf::reacts_to<abandon_extent>,
    // Answer: extents_were_read, of small ones several together.
    caf::reacts_to<read_extent>,
    // Answer: block_erased, if reply_to is set.
    caf::reacts_to<erase_block>,
    // From EVICTOR: make room.
    caf::reacts_to<evict_blocks>,
    // From TRIM BATCHER: the batch is done.
    caf::reacts_to<ranges_discarded>,
    // From SERVER: which drives take part, and who discards. Answer to the first two: drive_did.
    caf::reacts_to<sweep_blocks>, caf::reacts_to<enter_epoch>, caf::reacts_to<trim_batcher_changed>,
    // From SERVER: stop in good order.
    caf::reacts_to<close_drive>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>>;

/// The REACTOR actor: owner of many sockets, their parse state, their requests and their queues of answers.
///
/// Threading: dedicated; waits in its ring; never blocks on a drive or a socket.
using reactor_actor = caf::typed_actor<
    // From LISTENER: takes the descriptor over.
    caf::reacts_to<new_connection>,
    // From SERVER: a drive came, went, or was replaced; other drives take part.
    caf::reacts_to<drive_changed>, caf::reacts_to<members_changed>,
    // From DRIVE.
    caf::reacts_to<extent_allocated>, caf::reacts_to<extent_stored>, caf::reacts_to<extents_were_read>,
    caf::reacts_to<block_erased>,
    // From SERVER: a DCI POOL came or went.
    caf::reacts_to<dci_pool_changed>,
    // From CONNECTION.
    caf::reacts_to<session_attached>, caf::reacts_to<session_ended>,
    // From DCI POOL.
    caf::reacts_to<bytes_moved>, caf::reacts_to<messages_arrived>,
    // From fault injection.
    caf::reacts_to<end_connections>,
    // From SERVER: finish what is open, take nothing new, end.
    caf::reacts_to<finish_requests>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>>;

/// The CONNECTION actor: one a TCP connection; owns the SessionTracker, the sessions attached through it.
///
/// Threading: scheduled. Its death closes the socket; the end of the socket reaps its sessions and ends it.
/// When it dies, DCI POOLs end its sessions by themselves.
using connection_actor = caf::typed_actor<
    // From REACTOR; passed on to DCI POOL. Answers to REACTOR: session_attached, session_ended.
    caf::reacts_to<attach_session>, caf::reacts_to<detach_session>,
    // From DCI POOL; passed on to REACTOR. From REACTOR: a session of a pool that is gone.
    caf::reacts_to<session_attached>, caf::reacts_to<session_ended>,
    // From REACTOR, after the socket is closed and the last request on it has ended.
    caf::reacts_to<connection_closed>>;

/// The DCI POOL actor: owner of one RDMA device's queue pairs, sessions and transfers (one a rail).
///
/// Threading: dedicated; polls completion queues, and waits for their events when nothing comes. Monitors the
/// CONNECTION of every session and ends the session with it. Its death ends all its sessions: when the actor
/// is gone the device touches neither our memory nor any client's, and SERVER starts a new one.
using dci_pool_actor = caf::typed_actor<
    // From CONNECTION. Answers: session_attached, session_ended.
    caf::reacts_to<attach_session>, caf::reacts_to<detach_session>,
    // From REACTOR. Answer: bytes_moved.
    caf::reacts_to<move_bytes>,
    // From REACTOR: answers to what it was passed in messages_arrived.
    caf::reacts_to<send_messages>,
    // From SERVER: more memory; stop in good order.
    caf::reacts_to<register_memory>, caf::reacts_to<finish_requests>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>>;

/// The LISTENER actor: accepts, within the limits on connections, and deals sockets out to the reactors.
///
/// Threading: dedicated; waits in its ring.
using listener_actor = caf::typed_actor<
    // From SERVER.
    caf::reacts_to<reactor_changed>, caf::reacts_to<stop_accepting>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>>;

/// The EVICTOR actor: watches the watermarks of the drives and has them make room ahead of need.
///
/// Threading: scheduled.
using evictor_actor = caf::typed_actor<
    // From SERVER.
    caf::reacts_to<drive_changed>,
    // Its own timer.
    caf::reacts_to<look_again>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>>;

/// The TRIM BATCHER actor: discards what drives have gathered, since BLKDISCARD blocks.
///
/// Threading: dedicated. Answers every batch, unless it dies: then SERVER names the next one to the drives.
using trim_batcher_actor = caf::typed_actor<
    // From DRIVE. Answer: ranges_discarded.
    caf::reacts_to<discard_ranges>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>>;

/// The DRIVE RESETTER actor: empties one drive that is offline, and ends.
///
/// Threading: dedicated. If it dies on the way the drive is empty, or as it was, or has to be reset again.
using drive_resetter_actor = caf::typed_actor<
    // From SERVER, once. Answer: drive_was_reset.
    caf::reacts_to<reset_drive>>;

/// The ADMIN GATEWAY actor: gathers reports from all actors, within a deadline, for threads that are none.
///
/// Threading: scheduled. What it is asked for while it is dead is not answered; doors wait no longer than
/// their limit.
using admin_gateway_actor = caf::typed_actor<
    // From a door.
    caf::reacts_to<gather_report>, caf::reacts_to<reset_drive>,
    // From every actor.
    caf::reacts_to<described>,
    // Its own timer.
    caf::reacts_to<look_again>>;

/// The LICENSE WATCHER actor: reads the licence's file again, warns before its end, and tells of the end.
///
/// Threading: scheduled.
using license_watcher_actor = caf::typed_actor<
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>,
    // Its own timer.
    caf::reacts_to<look_again>>;

/// The SERVER actor: root supervisor; configuration, order of start and stop, the table of drives.
///
/// Threading: scheduled. Its death ends the process with 1; a restart finds every acknowledged block.
using server_actor = caf::typed_actor<
    // From DRIVE: open and recovered (body set).
    caf::reacts_to<drive_changed>,
    // From DRIVE: the device failed; what it was asked to do is done.
    caf::reacts_to<drive_failed>, caf::reacts_to<drive_did>,
    // From REACTOR.
    caf::reacts_to<members_taken>,
    // From DRIVE, or from the REACTOR that had its turn.
    caf::reacts_to<parts_orphaned>,
    // From REACTOR and LISTENER, once.
    caf::reacts_to<actor_started>,
    // From DCI POOL: it serves; it cannot.
    caf::reacts_to<dci_pool_changed>, caf::reacts_to<dci_pool_failed>,
    // From LICENSE WATCHER: stop in good order, and say that it was for this.
    caf::reacts_to<license_ended>,
    // From main: stop in good order.
    caf::reacts_to<stop_server>,
    // From ADMIN GATEWAY.
    caf::reacts_to<describe_yourself>, caf::reacts_to<reset_drive>,
    // From DRIVE RESETTER.
    caf::reacts_to<drive_was_reset>,
    // Its own timer.
    caf::reacts_to<look_again>>;

} // namespace memkv::actors
