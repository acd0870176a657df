// Moves bytes between this machine's buffers and the memory of attached clients, whatever carries them: DC
// initiators shared by all clients (dci_scheduler.hpp), or an RC queue pair for each (rc_scheduler.hpp).
//
// Each transfer that submit took has exactly one outcome, and **with its outcome its buffer is the caller's
// again, not before**: not when its deadline passes, not when its client is detached. Once the outcome
// session_ended of a client is there, none of its memory is touched any more.
//
// Threading: one thread, that of the fabric. Ownership: the fabric outlives the engine; buffers and their
// memory regions are the caller's, and stay until the outcome. Errors: values. Limits: in the options of each
// engine. Does not: wait, split transfers, verify bytes, or retry.
#pragma once

#include "verbs/fabric.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace memkv::verbs {

/// What two sides tell each other of a queue pair or a target; docs/formats/wire.md section 17.
struct peer_address {
  enum class kind : std::uint8_t { rc = 1, dc = 2 };
  kind what = kind::rc;
  endpoint port;
  std::uint32_t number = 0;           // of the queue pair or the target; 24 bits
  std::uint32_t packet_number = 0;    // RC
  std::uint32_t mtu_bytes = 0;        // of the path, as this side has it
  std::uint32_t reads_served_max = 0; // RC
  std::uint64_t dc_key = 0;           // DC
};

/// Names one attached client; never used again for another. 0 is none.
using client_id = std::uint64_t;

enum class direction : std::uint8_t {
  fetch, // from the client's memory: RDMA READ
  place, // into the client's memory: RDMA WRITE
};

struct transfer {
  std::uint64_t cookie = 0; // comes back with the outcome
  direction way = direction::place;
  local_range local;
  std::uint64_t remote_address = 0;
  std::uint32_t rkey = 0;
  std::uint64_t deadline_ns = 0;
};

enum class transfer_result : std::uint8_t {
  done,
  retryable, // not done, or not wholly; nothing is wrong with it
  refused,   // not done, and asking again will not help: see the status
  deadline_exceeded,
  cancelled, // its client was detached before it was posted
};

struct outcome {
  enum class what : std::uint8_t { transfer, session_broken, session_ended };
  what kind = what::transfer;
  client_id client = 0;
  std::uint64_t cookie = 0;                              // of a transfer
  transfer_result result = transfer_result::done;        // of a transfer
  completion_status status = completion_status::success; // of a transfer that was posted
};

/// What happened so far, and what there is now.
struct engine_statistics {
  std::uint64_t clients = 0; // attached, those that are ending included
  std::uint64_t clients_max = 0;
  std::uint64_t queued = 0;
  std::uint64_t posted = 0;
  std::uint64_t queue_pairs_ready = 0;
  std::uint64_t doorbells = 0;
  std::uint64_t transfers_done = 0;
  std::uint64_t bytes_done = 0;
  std::uint64_t rebuilt = 0;   // queue pairs walked back or made anew
  std::uint64_t destroyed = 0; // queue pairs that would not drain or not recover
  std::array<std::uint64_t, completion_status_last + 1> reports{}; // by status
};

/// A client that is being attached. It counts as one until it is attached, or this is destroyed, which undoes
/// what was made for it.
///
/// Threading: the fabric's, but for reach(). Ownership: goes before its engine; not destroyed while reach()
/// goes on.
class attachment {
public:
  virtual ~attachment() = default;
  /// Finds the way to the client, which may block for seconds where nobody answers. Once, in any thread: the
  /// engine goes on with everything else meanwhile.
  virtual void reach() noexcept = 0;
};

class transfer_engine {
public:
  /// Destroys the queue pairs: afterwards no buffer and no client's memory is touched, and there are no
  /// outcomes.
  virtual ~transfer_engine() = default;

  /// What start_attach() says of the address alone, however many clients there are.
  [[nodiscard]] virtual status check_address(const peer_address& peer) const = 0;
  /// The first part of attaching, which is quick. queue_full when there are as many clients as there may be;
  /// unsupported when the kind is not this engine's; invalid_argument when the address cannot be one.
  virtual status start_attach(const peer_address& peer, std::unique_ptr<attachment>& out) = 0;
  /// The last part, of an attachment of this engine that has reached its client. `own` is what the client has
  /// to know of this side: for RC its queue pair, which is ready to send; for DC the port alone.
  virtual status finish_attach(std::unique_ptr<attachment> made, client_id& out, peer_address& own) = 0;
  /// All of it, one after the other.
  status attach(const peer_address& peer, client_id& out, peer_address& own) {
    std::unique_ptr<attachment> made;
    if (status refused = start_attach(peer, made); !refused.ok())
      return refused;
    made->reach();
    return finish_attach(std::move(made), out, own);
  }
  /// not_found; wrong_state when the session is broken or ending; queue_full; invalid_argument. The first
  /// two and the last say that the transfer will never be taken.
  virtual status submit(client_id client, const transfer& one) = 0;
  /// Cancels what is queued. session_ended comes at once, or when what is posted has its outcomes. not_found
  /// when there is no such client, or it is ending already.
  virtual status detach(client_id client, std::vector<outcome>& out) = 0;
  /// Appends outcomes. To be called when the completion queue has reports, after submit, and at next_ns.
  virtual void run(std::uint64_t now_ns, std::vector<outcome>& out) = 0;
  /// Destroys the queue pairs and ends every session; transfers not done are `retryable`. Nothing else may be
  /// called afterwards; attachments may still be destroyed.
  virtual void close(std::vector<outcome>& out) = 0;

  /// When run has something to do even without reports; ~0 when never.
  [[nodiscard]] virtual std::uint64_t next_ns() const noexcept = 0;
  [[nodiscard]] virtual completion_queue& completions() noexcept = 0;
  [[nodiscard]] virtual engine_statistics engine_facts() const noexcept = 0;
};

} // namespace memkv::verbs
