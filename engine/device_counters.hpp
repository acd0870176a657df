// What a device counts while it works; read as device_statistics.
//
// Threading: written by the device's thread, read by any (relaxed).
#pragma once

#include "engine/block_device.hpp"
#include "engine/latency.hpp"

#include <atomic>
#include <cstdint>

namespace memkv::engine {

class device_counters {
public:
  /// A request goes to the kernel, where there are `depth` now.
  void begun(io_operation::kind what, std::uint64_t length, std::uint32_t depth) noexcept {
    switch (what) {
    case io_operation::kind::read:
      add(reads_, 1);
      add(read_bytes_, length);
      break;
    case io_operation::kind::write:
      add(writes_, 1);
      add(written_bytes_, length);
      break;
    case io_operation::kind::flush:
    case io_operation::kind::discard:
      add(flushes_, 1);
      break;
    }
    if (depth > depth_most_.load(std::memory_order_relaxed))
      depth_most_.store(depth, std::memory_order_relaxed);
  }

  /// It came back, well or not, after `ns`.
  void ended(io_operation::kind what, std::uint64_t ns) noexcept {
    auto& times = what == io_operation::kind::read    ? read_times_
                  : what == io_operation::kind::write ? write_times_
                                                      : flush_times_;
    times.note(ns);
    if (ns > slow_request_ns)
      add(slow_, 1);
    if (ns > slowest_ns_.load(std::memory_order_relaxed))
      slowest_ns_.store(ns, std::memory_order_relaxed);
  }

  void resubmitted() noexcept { add(resubmitted_, 1); }
  void failed() noexcept { add(errors_, 1); }

  [[nodiscard]] device_statistics value() const noexcept {
    const auto read = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
    device_statistics out;
    out.reads = read(reads_);
    out.read_bytes = read(read_bytes_);
    out.writes = read(writes_);
    out.written_bytes = read(written_bytes_);
    out.flushes = read(flushes_);
    out.resubmitted = read(resubmitted_);
    out.errors = read(errors_);
    out.depth_most = read(depth_most_);
    out.slow = read(slow_);
    out.slowest_ns = read(slowest_ns_);
    out.read_times = read_times_.value();
    out.write_times = write_times_.value();
    out.flush_times = flush_times_.value();
    return out;
  }

private:
  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t by) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  std::atomic<std::uint64_t> reads_{0}, read_bytes_{0}, writes_{0}, written_bytes_{0}, flushes_{0},
      resubmitted_{0}, errors_{0}, slow_{0}, slowest_ns_{0};
  std::atomic<std::uint32_t> depth_most_{0};
  latency_histogram read_times_, write_times_, flush_times_;
};

} // namespace memkv::engine
