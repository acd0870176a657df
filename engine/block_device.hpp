// A place that keeps bytes: what the store sees of a file, a raw drive, memory, or a simulation.
#pragma once

#include "engine/errc.hpp"
#include "engine/latency.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace memkv::engine {

/// One operation on a block device. The caller owns it and keeps it, and its buffer, alive and unmoved until
/// `done` was called: the kernel may touch the buffer until then.
struct io_operation {
  enum class kind : std::uint8_t { read, write, flush, discard };

  kind what = kind::read;
  bool durable = false;      // write: survives power loss once done (FUA)
  std::uint64_t offset = 0;  // bytes from the start of the device, multiple of info().alignment
  std::uint64_t length = 0;  // bytes; read, write: multiple of info().alignment, at most io_bytes_max
  std::byte* data = nullptr; // read: destination; write: source (not written to)
  errc result = errc::ok;    // valid in `done`: ok means that all `length` bytes were done
  void (*done)(io_operation&) = nullptr;
  void* context = nullptr; // for the caller
};

constexpr std::uint64_t io_bytes_max = std::uint64_t{4} << 20;

struct device_information {
  std::uint64_t size_bytes = 0;
  std::uint32_t alignment = 4096;   // of offsets, lengths and, when direct, of buffers
  std::uint32_t depth_max = 1;      // operations in flight that make sense
  bool survives_process = false;    // contents outlive a kill -9 of this process
  bool survives_power_loss = false; // contents outlive a power cut once flushed
  std::string name;                 // for people
};

constexpr std::uint64_t slow_request_ns = 1'000'000'000;

/// What a device has done since it was opened. Requests are what the kernel saw: an operation may be several.
struct device_statistics {
  std::uint64_t reads = 0, read_bytes = 0, writes = 0, written_bytes = 0, flushes = 0;
  std::uint64_t resubmitted = 0;                       // requests that came back short or with EAGAIN
  std::uint64_t errors = 0;                            // requests that failed
  std::uint32_t depth_most = 0;                        // requests in the kernel at one time, at most
  std::uint64_t slow = 0;                              // requests that took longer than slow_request_ns
  std::uint64_t slowest_ns = 0;                        // the longest request
  latency_counts read_times, write_times, flush_times; // in the kernel; of requests that came back

  /// Goes on from what an earlier device in the same place has done.
  device_statistics& operator+=(const device_statistics& earlier) noexcept {
    reads += earlier.reads;
    read_bytes += earlier.read_bytes;
    writes += earlier.writes;
    written_bytes += earlier.written_bytes;
    flushes += earlier.flushes;
    resubmitted += earlier.resubmitted;
    errors += earlier.errors;
    depth_most = depth_most > earlier.depth_most ? depth_most : earlier.depth_most;
    slow += earlier.slow;
    slowest_ns = slowest_ns > earlier.slowest_ns ? slowest_ns : earlier.slowest_ns;
    read_times += earlier.read_times;
    write_times += earlier.write_times;
    flush_times += earlier.flush_times;
    return *this;
  }
};

/// Tells a device to forget whole ranges (BLKDISCARD; a hole is punched into a regular file).
/// Threading: any one thread; blocks. Errors: values.
class discarder {
public:
  virtual ~discarder() = default;
  [[nodiscard]] virtual errc discard(std::uint64_t offset, std::uint64_t length) = 0;
  /// False: the device has no discard; discard() then does nothing and says ok.
  [[nodiscard]] virtual bool supported() const noexcept = 0;
};

/// Threading: one thread, the one that opened it. The two mappings may be read (memory: written) from any
/// thread.
/// Ownership: operations and buffers stay the caller's; they may be freed after their `done`, or after
/// close() returned.
/// Errors: in io_operation::result. After a failed write or flush the device stays failed: every later
/// write and flush ends with errc::io_error until it is opened anew.
class block_device {
public:
  virtual ~block_device() = default;
  block_device() = default;
  block_device(const block_device&) = delete;
  block_device& operator=(const block_device&) = delete;

  [[nodiscard]] virtual const device_information& information() const noexcept = 0;

  /// Takes the operation. `done` is never called from inside submit, only from poll.
  virtual void submit(io_operation& operation) = 0;

  /// Calls `done` of what has completed; returns how many. With `wait` and operations in flight it blocks
  /// until at least one has.
  virtual std::size_t poll(bool wait) = 0;

  [[nodiscard]] virtual std::size_t in_flight() const noexcept = 0;
  /// True: the next poll would get on with something of which a ring that the device shares says nothing.
  [[nodiscard]] virtual bool needs_poll() const noexcept { return false; }

  /// *Any thread.* Zeros where nothing is counted.
  [[nodiscard]] virtual device_statistics statistics() const noexcept { return {}; }
  /// How long the oldest request has been in the kernel, in nanoseconds; 0 when there is none.
  [[nodiscard]] virtual std::uint64_t oldest_request_ns() const noexcept { return 0; }

  /// The whole device mapped for reading (file, memory), or empty. Reading a mapped *file* can raise SIGBUS
  /// when the file system fails: go through guarded_read.hpp.
  [[nodiscard]] virtual std::span<const std::byte> mapping() const noexcept { return {}; }

  /// The whole device as writable memory (memory only), or empty: payload may be placed directly.
  [[nodiscard]] virtual std::span<std::byte> writable_mapping() noexcept { return {}; }

  /// What discards ranges of this device on another thread, or null: there is nothing to be discarded. It
  /// keeps the claim on the device while it lives.
  [[nodiscard]] virtual std::shared_ptr<discarder> make_discarder() { return nullptr; }

  /// Waits for everything in flight and gives the device back. Idempotent.
  virtual void close() noexcept = 0;
};

} // namespace memkv::engine
