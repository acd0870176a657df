// RDMA as the rest of the program sees it. Three fabrics stand behind this interface: RC queue pairs on
// libibverbs, DC on mlx5, and a simulated one for tests (simulated_fabric.hpp).
//
// Operation. A fabric is one port of one device. It makes memory regions, completion queues, queue pairs and
// address handles. Work is posted in batches, one doorbell a batch, and ends as *reports* in a completion
// queue. A server moves bytes by READ and WRITE; a client only lends memory, as the far end of an RC queue
// pair or through a DC target.
//
// Whose memory it is. The rule that everything here serves: **a device never touches memory that the program
// has taken back.** From post on, the local ranges of a request belong to the device, and so does the
// peer's memory that the request names. They come back in one of these ways, and in no other:
//   - its report: each request that was posted is reported exactly once, signalled or not, failed or not;
//   - the destruction of its queue pair, or of the fabric: what was not reported by then never is, and when
//     the destructor has returned the device does not touch any of it again, unless it would not destroy the
//     queue pair, which fabric::queue_pairs_left() counts;
//   - for the far end: the destruction of the memory region whose rkey was given away. Requests that name it
//     later end with remote_access.
// Time passing is not among them. There is no way to take back a single request, and none to be told
// "late": deadlines belong to the caller. Whoever will not wait calls fail() on the queue pair, and waits for
// the reports, which then come soon; or destroys it.
//
// The error state. A request that fails takes its queue pair to the error state, by itself, and so does
// fail(). Everything posted and not carried out is reported as flushed, and until its report it may still
// have an effect. A queue pair leaves the error state only when outstanding() is 0; before, reset() and
// recover() refuse with wrong_state. What is posted in the error state is taken, and reported as flushed.
//
// Order. Reports of one queue pair's sends come in the order of posting, and so do those of its receives;
// between queue pairs, and between sends and receives, there is none.
//
// `flushed` promises nothing: the request was carried out, or in part, or not. An unsignalled request before
// one that failed may be reported so although it was.
//
// Signalling. A request with signalled = false costs the device no completion; its report comes together
// with that of the next signalled one on its queue pair, or of one that failed. The last of a batch is always
// signalled, so nothing stays unreported for ever.
//
// Threading: a fabric and all it made belong to one thread at a time, but for two things. The middle of what
// may take long: finding the way to a peer can block for a second where nobody answers, and registering much
// memory for many, so they are in three parts, of which the one that blocks may be done by any thread
// (slow_step). And a completion queue with one queue pair, which belong to one thread together: posting,
// polling, arming and fail() may go on there while another thread uses the fabric. Making, connecting,
// resetting and destroying them is the fabric's still. The simulated fabric allows none of this by itself.
// Ownership: the caller's, through unique_ptr; what a fabric made is destroyed before it, queue pairs before
// their completion queue, address handles and memory regions after the report of the last request that names
// them. Errors: values; a function that fails has done nothing, unless it says otherwise. Limits:
// device_facts, and what is given when a thing is made; all queues are bounded. Does not: wait, start
// threads, retry, or know about time.
#pragma once

#include "verbs/completion_status.hpp"
#include "verbs/device_facts.hpp"
#include "verbs/errc.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace memkv::verbs {

/// What the far end may do with a region. Writing to it locally is always allowed.
struct remote_access {
  bool read = false;
  bool write = false;
};

/// Memory that the device knows. Destroying it withdraws both keys; the memory itself is the caller's and
/// stays mapped until then.
class memory_region {
public:
  virtual ~memory_region() = default;
  [[nodiscard]] virtual std::uint64_t address() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t length() const noexcept = 0;
  [[nodiscard]] virtual std::uint32_t lkey() const noexcept = 0; // for local ranges of requests
  [[nodiscard]] virtual std::uint32_t rkey() const noexcept = 0; // for peers; worth nothing without access
};

/// A port, as peers address it. Travels in control messages.
struct endpoint {
  gid port_gid{};
  std::uint16_t lid = 0; // InfiniBand only
};

/// The part of a call that may block for seconds, since it asks the network, or pins memory. What starts it
/// is quick, and so is what finishes it; both are for the fabric's thread, which may do everything else in
/// between, but for what the step is for. A step that is not to be finished is destroyed, by that thread as
/// well, before what it is for, and not while run() goes on.
class slow_step {
public:
  virtual ~slow_step() = default;
  /// Once, in any thread. What came of it is told by the call that finishes.
  virtual void run() noexcept = 0;
};

/// A peer's port, ready to be named in requests. DC only; an RC queue pair knows its peer.
class address_handle {
public:
  virtual ~address_handle() = default;
};

/// Whom one request on a DC initiator is for. The handle outlives the request's report.
struct dc_address {
  const address_handle* handle = nullptr;
  std::uint32_t target_number = 0; // 24 bits: dc_target::number of the peer
  std::uint64_t key = 0;           // dc_target::key of the peer
};

enum class operation : std::uint8_t { send, write, read, receive };

struct local_range {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  std::uint32_t lkey = 0;
};

struct work_request {
  std::uint64_t id = 0;               // comes back in the report; the fabric gives it no meaning
  operation kind = operation::write;  // send, write or read
  std::span<const local_range> local; // where from, or for read where to; the array itself is free at once
  std::uint64_t remote_address = 0;   // write and read
  std::uint32_t rkey = 0;             // write and read
  const dc_address* target = nullptr; // required on a DC initiator, null on RC; itself free at once
  bool signalled = false;
  bool inlined = false; // send and write: copied by post, so the ranges are the caller's at once; no lkey
};

struct receive_request {
  std::uint64_t id = 0;
  local_range local;
};

struct report {
  std::uint64_t id = 0;
  std::uint32_t queue_pair = 0; // its number
  operation kind = operation::write;
  completion_status status = completion_status::success;
  std::uint32_t bytes = 0;        // receive: length of the message
  std::uint32_t vendor_error = 0; // for the log
};

/// The first `posted` requests belong to the device and will be reported, whatever the outcome says; of the
/// others nothing was done.
struct [[nodiscard]] post_result {
  status outcome;
  std::size_t posted = 0;
};

/// Where reports arrive. Cannot overflow: queue pairs reserve room for all they may have outstanding.
class completion_queue {
public:
  virtual ~completion_queue() = default;
  /// Takes out up to as many as fit, and returns how many. 0: none are there at the moment.
  [[nodiscard]] virtual std::size_t poll(std::span<report> out) noexcept = 0;
  /// Makes the descriptor readable at the next report. Poll once more after arming and before waiting: what
  /// arrived before it does not count.
  virtual status arm() noexcept = 0;
  /// Readable after arm() when a report came; acknowledge() makes it unreadable again.
  [[nodiscard]] virtual int event_descriptor() const noexcept = 0;
  virtual void acknowledge() noexcept = 0;
};

enum class queue_pair_state : std::uint8_t {
  initial, // takes receives, no sends
  ready,   // to send
  error,
};

struct queue_pair_options {
  completion_queue* completions = nullptr; // outlives the queue pair
  std::uint32_t sends_max = 128;
  std::uint32_t receives_max = 0;     // RC only
  std::uint32_t segments_max = 1;     // local ranges of one work request
  std::uint32_t inline_bytes_max = 0; // may be given more, see inline_bytes
  std::uint32_t reads_max = 16;       // READs in flight; cut to what the device can
};

class queue_pair {
public:
  /// The device is done with everything that was posted here when this returns; nothing more is reported.
  virtual ~queue_pair() = default;
  [[nodiscard]] virtual std::uint32_t number() const noexcept = 0; // 24 bits
  [[nodiscard]] virtual queue_pair_state state() const noexcept = 0;
  /// Sends and receives that were posted and not yet polled.
  [[nodiscard]] virtual std::uint32_t outstanding() const noexcept = 0;
  /// How many work requests post would take now.
  [[nodiscard]] virtual std::uint32_t sends_free() const noexcept = 0;
  /// One doorbell. queue_full when not all fit: then none is posted. wrong_state when `initial`.
  virtual post_result post(std::span<const work_request> batch) noexcept = 0;
  /// To the error state, where everything is flushed. Nothing happens when it is there already.
  virtual void fail() noexcept = 0;
};

/// What two ends of an RC connection tell each other.
struct rc_address {
  endpoint port;
  std::uint32_t queue_pair_number = 0; // 24 bits
  std::uint32_t packet_number = 0;     // 24 bits: the first that it sends
  std::uint32_t mtu_bytes = 0;         // of the side that says it; both use the smaller one
  std::uint32_t reads_served_max = 0;  // READs that it answers at one time
};

class rc_queue_pair : public queue_pair {
public:
  /// What the peer has to know. Changes with every reset.
  [[nodiscard]] virtual rc_address address() const noexcept = 0;
  /// From `initial` to `ready`. The peer does the same with our address; what is sent before it did is
  /// retried by the device for path_options::retry_ms. May block: the three parts one after the other.
  status connect(const rc_address& peer) noexcept {
    std::unique_ptr<slow_step> step;
    if (status refused = start_connect(peer, step); !refused.ok())
      return refused;
    step->run();
    return finish_connect(*step);
  }
  /// Between the two nothing is posted and nothing is reset.
  virtual status start_connect(const rc_address& peer, std::unique_ptr<slow_step>& out) noexcept = 0;
  virtual status finish_connect(slow_step& step) noexcept = 0;
  virtual post_result post_receives(std::span<const receive_request> batch) noexcept = 0;
  /// From any state to `initial`, with a packet number of its own: the peer must learn the new address, and
  /// connect again as well. wrong_state unless outstanding() is 0.
  virtual status reset() noexcept = 0;
};

/// Sends to any DC target, one after the other: work for one peer waits for work to another that was posted
/// before it, and changing the peer costs an exchange of packets. Made in the state `ready`.
class dc_initiator : public queue_pair {
public:
  /// From `error` to `ready` again. wrong_state unless outstanding() is 0; after device_failed it stays in
  /// `error` and may be destroyed.
  virtual status recover() noexcept = 0;
};

/// The client's side of DC: lets initiators that know number and key reach regions that allow it. Requests
/// of many initiators; nothing is reported here. Destroying it ends their access.
class dc_target {
public:
  virtual ~dc_target() = default;
  [[nodiscard]] virtual std::uint32_t number() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t key() const noexcept = 0;
};

enum class fabric_event : std::uint8_t {
  none,
  port_down,
  port_up,
  device_removed, // nothing works any more; destroy everything
  other,          // for the log
};

class fabric {
public:
  virtual ~fabric() = default;

  [[nodiscard]] virtual const device_facts& facts() const noexcept = 0;
  [[nodiscard]] virtual const path_options& path() const noexcept = 0;
  /// This port, for peers.
  [[nodiscard]] virtual endpoint self() const noexcept = 0;

  /// Host memory. Costs hundreds of microseconds and pins it: register large ranges, once.
  virtual status register_memory(std::span<std::byte> range, remote_access access,
                                 std::unique_ptr<memory_region>& out) noexcept = 0;
  /// The same in three parts. The memory belongs to the step from the start, as it does to the region.
  virtual status start_registration(std::span<std::byte> range, remote_access access,
                                    std::unique_ptr<slow_step>& out) noexcept;
  virtual status finish_registration(slow_step& step, std::unique_ptr<memory_region>& out) noexcept;
  /// Memory of another device, by its dma-buf descriptor, which may be closed afterwards. `address` is how
  /// requests will name the first byte. unsupported where kernel or device cannot.
  virtual status register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                  std::uint64_t address, remote_access access,
                                  std::unique_ptr<memory_region>& out) noexcept = 0;
  virtual status create_completion_queue(std::uint32_t reports_max,
                                         std::unique_ptr<completion_queue>& out) noexcept = 0;
  /// no_resources also when the completion queue has no room left for sends_max + receives_max more.
  virtual status create_rc(const queue_pair_options& options,
                           std::unique_ptr<rc_queue_pair>& out) noexcept = 0;
  /// unsupported without DC.
  virtual status create_dc_initiator(const queue_pair_options& options,
                                     std::unique_ptr<dc_initiator>& out) noexcept = 0;
  /// unsupported without DC.
  virtual status create_dc_target(std::uint64_t key, std::unique_ptr<dc_target>& out) noexcept = 0;
  /// May block: the three parts one after the other.
  status create_address_handle(const endpoint& peer, std::unique_ptr<address_handle>& out) noexcept {
    std::unique_ptr<slow_step> step;
    if (status refused = start_address_handle(peer, step); !refused.ok())
      return refused;
    step->run();
    return finish_address_handle(*step, out);
  }
  virtual status start_address_handle(const endpoint& peer, std::unique_ptr<slow_step>& out) noexcept = 0;
  virtual status finish_address_handle(slow_step& step, std::unique_ptr<address_handle>& out) noexcept = 0;

  /// Queue pairs and targets that the device would not destroy, and not stop either. What was posted there,
  /// or lent through them, may still be touched until the memory regions and the fabric are destroyed: above
  /// 0, destroy everything, and give no memory back before.
  [[nodiscard]] virtual std::uint32_t queue_pairs_left() const noexcept { return 0; }
  /// What happened to port or device since the last call, one by one; none when that was all.
  [[nodiscard]] virtual fabric_event next_event() noexcept = 0;
  /// Readable when there is an event. -1 on a fabric that has no such descriptor.
  [[nodiscard]] virtual int event_descriptor() const noexcept = 0;
};

} // namespace memkv::verbs
