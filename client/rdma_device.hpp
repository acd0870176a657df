// One RDMA device of a client: its sessions' queue pairs or DC targets, and the memory it knows. Internal to
// client/.
//
// A client only lends memory: nothing is ever posted here, so there are no reports to wait for, and the
// destruction of a queue pair, a target or a memory region is what ends the server's access. When
// close_session(), deregister() or close() has returned, the device does not touch any byte through it again.
//
// Threading: any thread; the fabric, which belongs to one thread at a time, is guarded by a mutex that is
// held for the length of one call of it. Ownership: all that was made on the fabric. Errors: values of
// verbs; device_failed after close(). Limits: the device's.
#pragma once

#include "verbs/fabric.hpp"
#include "wire/rdma_messages.hpp"

#include <atomic>
#include <cstdint>
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
    wire::rdma_address address; // for the server
  };
  struct memory {
    handle id = 0;
    std::uint32_t rkey = 0;
  };

  rdma_device(std::string name, std::unique_ptr<verbs::fabric> fabric);
  ~rdma_device();
  rdma_device(const rdma_device&) = delete;
  rdma_device& operator=(const rdma_device&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool dc() const noexcept { return dc_; }
  [[nodiscard]] bool closed() const noexcept { return closed_.load(); }

  /// A queue pair, or with `dc` a target, that the server can reach once connect() was called.
  verbs::status open_session(bool dc, session& out);
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
  /// Destroys everything.
  void close() noexcept;

private:
  struct open_session_parts {
    std::unique_ptr<verbs::completion_queue> completions; // before its queue pair
    std::unique_ptr<verbs::rc_queue_pair> rc;
    std::unique_ptr<verbs::dc_target> dc;
  };

  const std::string name_;
  mutable std::mutex mutex_;
  std::unique_ptr<verbs::fabric> fabric_; // mutex_; none once closed, as all below
  std::map<handle, std::unique_ptr<verbs::memory_region>> regions_;
  std::map<handle, open_session_parts> sessions_;
  handle last_ = 0;
  std::atomic<bool> closed_{false};
  std::atomic<int> event_descriptor_{-1};
  bool dc_ = false;
};

} // namespace memkv::client
