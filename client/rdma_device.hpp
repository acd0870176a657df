// One RDMA device of a client: its sessions' queue pairs or DC targets, and the memory it knows. Internal to
// client/.
//
// A client only lends memory: but for messages (message_pair.hpp) nothing is posted here, so there are no
// reports to wait for, and the destruction of a queue pair, a target or a memory region is what ends the
// server's access. When close_session(), deregister() or close() has returned, the device does not touch any
// byte through it again. A queue pair that the device would not destroy takes the device along.
//
// A device that was closed because its port went down or it was taken away is opened again, where it may be,
// when a session is wanted: then memory that is registered is registered anew under the same handles, with
// other rkeys. What was a session before is none.
//
// Threading: any thread; the fabric, which belongs to one thread at a time, is guarded by a mutex that is
// held for the length of one call of it; a queue pair of messages has a lock of its own, taken after that.
// Ownership: all that was made on the fabric. Errors: values of
// verbs; device_failed after close(). Limits: the device's.
#pragma once

#include "client/message_pair.hpp"
#include "verbs/fabric.hpp"
#include "wire/rdma_messages.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>

namespace memkv::client {

class rdma_device {
public:
  /// Names of what was made here; 0 is none.
  using handle = std::uint64_t;
  struct session {
    handle id = 0;
    std::uint64_t opening = 0;  // of the device
    wire::rdma_address address; // for the server
  };
  struct memory {
    handle id = 0;
    std::shared_ptr<std::atomic<std::uint32_t>> key;
    /// Of the session that is open.
    [[nodiscard]] std::uint32_t rkey() const noexcept { return key == nullptr ? 0 : key->load(); }
  };
  using opener = std::function<verbs::status(std::unique_ptr<verbs::fabric>&)>;

  /// `open_again`: none, then the device stays closed.
  rdma_device(std::string name, std::unique_ptr<verbs::fabric> fabric, opener open_again);
  ~rdma_device();
  rdma_device(const rdma_device&) = delete;
  rdma_device& operator=(const rdma_device&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool dc() const noexcept { return dc_.load(); }
  [[nodiscard]] bool closed() const noexcept { return closed_.load(); }
  /// Whether the session's device is as it was when the session was opened.
  [[nodiscard]] bool holds(const session& one) const noexcept {
    return !closed_.load() && openings_.load() == one.opening;
  }
  /// How often it was opened.
  [[nodiscard]] std::uint64_t openings() const noexcept { return openings_.load(); }

  /// A queue pair, or with `dc` a target, that the server can reach once connect() was called.
  verbs::status open_session(bool dc, session& out);
  /// A session whose queue pair carries messages as well. `lost` is called, under the device's lock, when the
  /// device is closed under it; not by close_session().
  verbs::status open_messages(const message_pair::room& wanted, std::function<void()> lost, session& out,
                              std::shared_ptr<message_pair>& pair);
  verbs::status connect(handle session, const wire::rdma_address& server);
  void close_session(handle session) noexcept;
  [[nodiscard]] std::size_t sessions() const;

  verbs::status register_memory(std::span<std::byte> range, memory& out);
  verbs::status register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                 std::uint64_t address, memory& out);
  void deregister(handle memory) noexcept;

  /// Looks at what happened to port and device, and closes it when it cannot go on. True: it did just now.
  [[nodiscard]] bool watch() noexcept;
  /// Readable when watch() has something to see; -1: none.
  [[nodiscard]] int event_descriptor() const noexcept { return event_descriptor_.load(); }
  /// Destroys everything; it may be opened again.
  void close() noexcept;

private:
  struct open_session_parts {
    std::unique_ptr<verbs::completion_queue> completions; // before its queue pair
    std::unique_ptr<verbs::rc_queue_pair> rc;
    std::unique_ptr<verbs::dc_target> dc;
    std::shared_ptr<message_pair> messages; // also its driver's
    std::function<void()> lost;             // of messages
  };

  /// Memory that is registered, also while the device is closed.
  struct region {
    std::span<std::byte> range; // host memory; or
    int descriptor = -1;        // a dma-buf, held
    std::uint64_t offset = 0, length = 0, address = 0;
    std::shared_ptr<std::atomic<std::uint32_t>> key;
    std::unique_ptr<verbs::memory_region> made; // none while the device is closed
  };

  [[nodiscard]] verbs::status open_if_closed();
  [[nodiscard]] verbs::status make(region& one);
  [[nodiscard]] verbs::status add(region one, memory& out);
  [[nodiscard]] verbs::status open_anew();
  void close_fabric() noexcept;

  const std::string name_;
  const opener open_again_;
  mutable std::mutex mutex_;
  std::unique_ptr<verbs::fabric> fabric_; // mutex_; none once closed, as all below
  std::map<handle, region> regions_;
  std::map<handle, open_session_parts> sessions_;
  handle last_ = 0;
  std::uint64_t tried_ns_ = 0; // when it was opened again last, or could not be
  verbs::status problem_;      // that came of it
  std::atomic<std::uint64_t> openings_{1};
  std::atomic<bool> closed_{false};
  std::atomic<int> event_descriptor_{-1};
  std::atomic<bool> dc_{false};
};

} // namespace memkv::client
