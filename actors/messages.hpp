// What the actors say to each other. The interfaces that use these are in interfaces.hpp.
//
// Messages carry handles, never payload. An object behind a shared pointer belongs to whoever was sent the
// last message about it: REACTOR fills an extent_put, sends it, and does not touch it until DRIVE's answer
// comes back.
#pragma once

#include "engine/block_device.hpp"
#include "engine/drive_members.hpp"
#include "engine/drive_store.hpp"
#include "engine/errc.hpp"
#include "engine/failure_registry.hpp"
#include "verbs/message_port.hpp"
#include "verbs/transfer_engine.hpp"
#include "wire/key_id.hpp"
#include "wire/status.hpp"

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace memkv::actors {

class admission_slot;
class change_filter;
class outcome_waiter; // admin_gateway.hpp
class report_waiter;
struct drive_body;
struct self_description;

/// Bytes of a bounce buffer (or of anything else that `keep` keeps alive).
struct payload_slice {
  std::byte* data = nullptr;
  std::uint32_t bytes = 0;  // of payload; there is room up to the next multiple of 4096
  std::uint32_t offset = 0; // in the extent
  std::shared_ptr<void> keep;
};

/// One extent on its way to a drive: a whole block, or one part of a striped one.
struct extent_put {
  // Set by REACTOR.
  std::uint64_t request = 0; // REACTOR's name of what this belongs to
  std::uint32_t item = 0;    // and of its place in that
  caf::actor reply_to;       // null: who asks holds the drive's turn and looks at `answered`
  wire::key_id id;
  std::string name_space;
  std::vector<std::byte> key;
  std::uint32_t length = 0;
  std::uint64_t value_length = 0;
  std::uint32_t part = 0, parts = 1;
  std::uint64_t put_id = 0;
  bool if_absent = false;
  std::uint64_t absent_generation = 0; // if_absent: a block of this generation is none, and is erased first
  std::uint64_t deadline_ns = 0; // steady clock; 0 = none
  std::vector<std::uint32_t> chunk_crc32c;
  std::vector<payload_slice> pieces; // store_extent: everything; else written one by one
  // Set by DRIVE.
  engine::reservation place;
  bool answered = false; // the last thing asked for is decided: see `result`
  engine::errc result = engine::errc::ok;
  std::uint64_t generation = 0;
};
using extent_put_ptr = std::shared_ptr<extent_put>;

/// A verified read of a part of one extent.
struct extent_read {
  std::uint64_t request = 0;
  std::uint32_t item = 0;
  caf::actor reply_to;
  const engine::block_pin* pin = nullptr;
  std::shared_ptr<void> keep; // holds the pin and the drive's body
  std::string name_space;
  std::vector<std::byte> key;
  std::uint32_t offset = 0, length = 0; // multiples of 64 KiB or to the extent's end
  payload_slice into;                   // where to, on drives that need buffers
  // Set by DRIVE.
  engine::extent_view view;
  engine::errc result = engine::errc::ok;
};
using extent_read_ptr = std::shared_ptr<extent_read>;

struct block_erase {
  std::uint64_t request = 0;
  std::uint32_t item = 0;
  caf::actor reply_to; // may be null: nobody waits
  wire::key_id id;
  std::uint64_t generation = 0; // 0: whichever is there
  bool damaged = false;         // not what was stored; needs the generation, and nobody waits
  engine::errc result = engine::errc::ok;
};
using block_erase_ptr = std::shared_ptr<block_erase>;

// To DRIVE.
struct store_extent {
  extent_put_ptr put;
}; // allocate, write all pieces, commit (or prepare)
struct allocate_extent {
  extent_put_ptr put;
};
struct write_extent {
  extent_put_ptr put;
  payload_slice piece;
};
struct commit_extent {
  extent_put_ptr put;
}; // after the last write; parts 1 and up are prepared
struct abandon_extent {
  std::uint64_t token = 0;
};
struct read_extent {
  extent_read_ptr read;
};
struct erase_block {
  block_erase_ptr erase;
};
struct evict_blocks {
  std::uint64_t bytes = 0;
};

// TRIM.
/// DRIVE to TRIM BATCHER.
struct discard_ranges {
  std::uint32_t index = 0; // of the drive
  std::shared_ptr<engine::discarder> by;
  std::vector<engine::device_range> ranges;
  caf::actor reply_to;
};
/// TRIM BATCHER to DRIVE.
struct ranges_discarded {
  bool done = false;
};
/// SERVER to DRIVE: there is one, or another one; what the one before had is not answered any more.
struct trim_batcher_changed {
  caf::actor batcher;
};

// Which drives take part: SERVER to DRIVE and REACTOR (membership.hpp). Answers carry the same serial.
/// DRIVE erases every block whose home is not this drive under either of the two, and every one that the
/// filter, if there is one, may hold. Answer: drive_did.
struct sweep_blocks {
  std::uint64_t serial = 0;
  engine::drive_members before{}, after{};
  std::shared_ptr<const change_filter> changed;
};
/// DRIVE writes it into its superblock. Answer: drive_did.
struct enter_epoch {
  std::uint64_t serial = 0;
  std::uint64_t epoch = 0;
  engine::drive_members members{};
};
struct drive_did {
  std::uint32_t index = 0;
  std::uint64_t serial = 0;
};
/// REACTOR looks for blocks among these from now on. Answer: members_taken.
struct members_changed {
  std::uint64_t serial = 0;
  engine::drive_members members{};
  std::shared_ptr<change_filter>
      changed; // null: all drives take part; else every change is noted there first
};
struct members_taken {
  caf::actor_id reactor = 0;
  std::uint64_t serial = 0;
};

// From DRIVE to REACTOR.
struct extent_allocated {
  extent_put_ptr put;
};
struct extent_stored {
  extent_put_ptr put;
};
struct extents_were_read {
  std::vector<extent_read_ptr> reads;
};
struct block_erased {
  block_erase_ptr erase;
};

// About drives: SERVER to REACTOR and EVICTOR.
struct drive_changed {
  std::uint32_t index = 0;
  caf::actor drive;                 // null: offline
  std::shared_ptr<drive_body> body; // null: offline
  /// DRIVE to SERVER after a recovery: parts of striped blocks whose heads SERVER looks for on the other
  /// drives.
  std::shared_ptr<std::vector<engine::drive_store::recovered_part>> recovered;
  engine::failure_registry registry{}; // of the drive
  std::uint64_t epoch = 0;             // that is durable on it
};
/// DRIVE to SERVER: the device failed, or could not be opened; the actor ends.
struct drive_failed {
  std::uint32_t index = 0;
  std::string reason;
  engine::errc code = engine::errc::io_error; // blacklisted: not to be opened again; later_epoch: no start
};
/// DRIVE to SERVER: heads of striped blocks that are gone; SERVER has their parts erased on the other drives.
struct parts_orphaned {
  std::vector<engine::drive_store::orphan> orphans;
};

/// REACTOR and LISTENER to SERVER: at work, or why not; then the actor ends.
struct actor_started {
  caf::actor_id which = 0;
  std::string problem; // empty: at work
};

// About the server itself (admin_gateway.hpp).
/// ADMIN GATEWAY to every actor. Answer: described.
struct describe_yourself {
  std::uint64_t serial = 0;
  caf::actor reply_to;
};
struct described {
  std::uint64_t serial = 0;
  caf::actor_id who = 0;
  std::size_t mailbox = 0; // messages that waited behind the question
  std::shared_ptr<const self_description> what;
};
/// A door to ADMIN GATEWAY; what comes of it is in the waiter.
struct gather_report {
  std::shared_ptr<report_waiter> waiter;
};
/// A door to ADMIN GATEWAY, which passes it to SERVER.
struct reset_drive {
  std::uint32_t index = 0;
  bool secure = false;
  std::shared_ptr<outcome_waiter> waiter;
};
/// DRIVE RESETTER to SERVER; then it ends.
struct drive_was_reset {
  std::uint32_t index = 0;
  std::string problem; // empty: done
};

// About connections.
struct new_connection {
  std::shared_ptr<admission_slot> slot;
};                           // LISTENER to REACTOR: owns the descriptor
struct connection_closed {}; // REACTOR to CONNECTION: all its requests have ended
struct reactor_changed {
  std::uint32_t index = 0;
  caf::actor reactor;
}; // SERVER to LISTENER; null: gone

// RDMA (dci_pool.hpp). Rails are the server's RDMA devices, or the threads that serve them, by number.
/// REACTOR to CONNECTION, which passes it to the DCI POOL of the rail with itself as `owner`.
struct attach_session {
  std::uint64_t request = 0; // REACTOR's name of the request
  caf::actor pool;           // of the rail
  caf::actor owner;          // set by CONNECTION
  std::array<std::uint8_t, 16> host{}; // of the socket; see admission.hpp
  verbs::peer_address client;
  // For a session that carries messages: what each side keeps posted, and who gets those that come.
  verbs::message_room theirs{}, ours{};
  caf::actor reactor{};
};
/// DCI POOL to CONNECTION, which writes it down and passes it to REACTOR.
struct session_attached {
  std::uint64_t request = 0;
  wire::status result = wire::status::internal;
  std::uint64_t session = 0; // never 0, never used twice in the life of the process
  caf::actor pool;           // that has it
  caf::actor_id owner = 0;   // set by CONNECTION: itself
  verbs::peer_address server;
  std::uint32_t transfer_bytes_max = 0;
};
/// REACTOR to CONNECTION to DCI POOL, or from CONNECTION alone at its end (request 0: no answer is wanted;
/// nobody_asked: the answer is, and no request waits for it).
struct detach_session {
  static constexpr std::uint64_t nobody_asked = ~std::uint64_t{0};
  std::uint64_t request = 0;
  std::uint64_t session = 0;
  caf::actor owner; // set by CONNECTION
};
/// DCI POOL to CONNECTION to REACTOR: none of the client's memory is touched any more. `request` is 0 when
/// nobody asked: the transport or the client's queue pair broke.
struct session_ended {
  std::uint64_t request = 0;
  std::uint64_t session = 0;
  caf::actor_id owner = 0; // the CONNECTION
  wire::status result = wire::status::ok; // not_found: there was none of this owner
};
/// One message of a session that carries them, either way.
struct session_message {
  std::uint64_t session = 0;
  caf::actor_id owner = 0; // the CONNECTION of the session
  std::vector<std::byte> bytes;
};
/// DCI POOL to REACTOR. For each session no more of them are on the way, or without an answer, than the side
/// with fewer receives has, and those that may be dropped: who sends more loses the session.
struct messages_arrived {
  std::vector<session_message> messages;
};
/// REACTOR to DCI POOL: one answer each. What cannot be sent ends its session; no answer.
struct send_messages {
  std::vector<session_message> messages;
};
/// One RDMA READ or WRITE.
struct memory_transfer {
  // Set by REACTOR.
  std::uint64_t request = 0;
  std::uint32_t item = 0;
  std::uint32_t piece = 0;
  caf::actor reply_to;
  std::uint64_t session = 0;
  caf::actor_id owner = 0; // the CONNECTION through which the session was attached
  bool fetch = false;      // from the client's memory to ours; else the other way
  std::byte* data = nullptr;
  std::uint32_t bytes = 0; // at most transfer_bytes_max
  std::uint64_t client_address = 0;
  std::uint32_t rkey = 0;
  std::uint64_t deadline_ns = 0; // steady clock
  std::shared_ptr<void> keep;    // what `data` lies in: DCI POOL holds it until the device is done
  std::uint32_t rail = 0;        // REACTOR's books: whom it was given to
  std::uint64_t pool_number = 0;
  // Set by DCI POOL.
  wire::status result = wire::status::internal;
};
using memory_transfer_ptr = std::shared_ptr<memory_transfer>;
/// REACTOR to DCI POOL. Answer: each of them in one bytes_moved, exactly once, unless the pool dies; one
/// message may bring many.
struct move_bytes {
  std::vector<memory_transfer_ptr> transfers;
};
struct bytes_moved {
  std::vector<memory_transfer_ptr> transfers;
};
/// SERVER to DCI POOL: transfers may lie in this range as well, for as long as the pool lives.
struct register_memory {
  std::span<std::byte> range;
  std::shared_ptr<void> keep;
};
/// DCI POOL to SERVER: it serves, or reaches more memory. SERVER to REACTOR: the pool of this rail, as it is
/// now.
struct dci_pool_changed {
  std::uint32_t rail = 0, rails = 0;
  caf::actor pool; // null: there is none; what it had been asked for will not be answered
  /// Of this machine's memory, what the pool can reach; in no order.
  std::vector<std::span<std::byte>> reachable;
};
/// DCI POOL to SERVER: the device failed, or could not be opened; the actor ends.
struct dci_pool_failed {
  std::uint32_t rail = 0;
  std::string reason; // one sentence
};

// Fault injection: see fault_points.hpp and fault_orders.hpp.
/// To REACTOR: as many connections end as `left` says; REACTORs that are asked together share it.
struct end_connections {
  enum class by : std::uint8_t { closing, kill, exception, shutdown }; // of the CONNECTION, but for the first
  by how = by::closing;
  std::shared_ptr<std::atomic<std::uint32_t>> left;
};
/// To any actor: it sleeps for so long, or throws.
struct act_up {
  std::uint64_t stall_ms = 0; // 0: throws
};

// The licence.
/// LICENSE WATCHER to SERVER: it is not in force any more; the server is to stop.
struct license_ended {
  std::string reason;
};

// Stopping.
struct stop_accepting {};  // SERVER to LISTENER
struct finish_requests {}; // SERVER to REACTOR: answer what is open, take nothing new, then end
struct close_drive {};     // SERVER to DRIVE: checkpoint, mark clean, end
struct stop_server {};     // main to SERVER

// Itself.
struct look_again {}; // a timer

} // namespace memkv::actors

#define MEMKV_MESSAGE(name) CAF_ALLOW_UNSAFE_MESSAGE_TYPE(memkv::actors::name)
MEMKV_MESSAGE(store_extent)
MEMKV_MESSAGE(allocate_extent)
MEMKV_MESSAGE(write_extent)
MEMKV_MESSAGE(commit_extent)
MEMKV_MESSAGE(abandon_extent)
MEMKV_MESSAGE(read_extent)
MEMKV_MESSAGE(erase_block)
MEMKV_MESSAGE(evict_blocks)
MEMKV_MESSAGE(discard_ranges)
MEMKV_MESSAGE(ranges_discarded)
MEMKV_MESSAGE(trim_batcher_changed)
MEMKV_MESSAGE(sweep_blocks)
MEMKV_MESSAGE(enter_epoch)
MEMKV_MESSAGE(drive_did)
MEMKV_MESSAGE(members_changed)
MEMKV_MESSAGE(members_taken)
MEMKV_MESSAGE(extent_allocated)
MEMKV_MESSAGE(extent_stored)
MEMKV_MESSAGE(extents_were_read)
MEMKV_MESSAGE(block_erased)
MEMKV_MESSAGE(drive_changed)
MEMKV_MESSAGE(drive_failed)
MEMKV_MESSAGE(parts_orphaned)
MEMKV_MESSAGE(actor_started)
MEMKV_MESSAGE(describe_yourself)
MEMKV_MESSAGE(described)
MEMKV_MESSAGE(gather_report)
MEMKV_MESSAGE(reset_drive)
MEMKV_MESSAGE(drive_was_reset)
MEMKV_MESSAGE(new_connection)
MEMKV_MESSAGE(connection_closed)
MEMKV_MESSAGE(reactor_changed)
MEMKV_MESSAGE(attach_session)
MEMKV_MESSAGE(session_attached)
MEMKV_MESSAGE(detach_session)
MEMKV_MESSAGE(session_ended)
MEMKV_MESSAGE(messages_arrived)
MEMKV_MESSAGE(send_messages)
MEMKV_MESSAGE(move_bytes)
MEMKV_MESSAGE(bytes_moved)
MEMKV_MESSAGE(register_memory)
MEMKV_MESSAGE(dci_pool_changed)
MEMKV_MESSAGE(dci_pool_failed)
MEMKV_MESSAGE(end_connections)
MEMKV_MESSAGE(act_up)
MEMKV_MESSAGE(license_ended)
MEMKV_MESSAGE(stop_accepting)
MEMKV_MESSAGE(finish_requests)
MEMKV_MESSAGE(close_drive)
MEMKV_MESSAGE(stop_server)
MEMKV_MESSAGE(look_again)
#undef MEMKV_MESSAGE
