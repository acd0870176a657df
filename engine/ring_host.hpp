// An io_uring that somebody else waits in, as a device of the engine sees it.
//
// The DRIVE actor lends its own ring, so that one wait serves its mailbox and its device; offline tools give
// a device a ring of its own (uring_device.cpp).
//
// Threading: one thread, the one that made the ring. Ownership: operations stay where they are until
// completed() was called. Errors: in `result`, as the kernel gives it.
#pragma once

#include <cstdint>

struct io_uring;
struct io_uring_sqe;

namespace memkv::engine {

/// Something the kernel works on. Must stay where it is until completed() was called.
class ring_operation {
public:
  virtual ~ring_operation() = default;
  /// `result` as in the completion queue entry: negative errno or a count. `flags`: IORING_CQE_F_*.
  virtual void completed(std::int32_t result, std::uint32_t flags) = 0;
};

class ring_host {
public:
  /// A submission entry whose completion goes to `operation`. Never null. The kernel has it after the next
  /// turn().
  [[nodiscard]] virtual io_uring_sqe* next_sqe(ring_operation* operation) = 0;
  /// Submits what was prepared and delivers completions; with `wait` sleeps until there is one.
  virtual void turn_ring(bool wait) = 0;
  /// For registering files and buffers.
  [[nodiscard]] virtual io_uring* ring() noexcept = 0;

protected:
  ~ring_host() = default;
};

} // namespace memkv::engine
