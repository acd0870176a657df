// A device's operations as calls with a function to be called back, split to what the device takes at once.
//
// Threading: one thread. Ownership: the device is lent; buffers stay the caller's until the callback.
// Errors: in the callback. The first failed write or flush is remembered; what waits then fails without being
// tried. Limits: at most depth_max operations are in the device at a time; the others wait here.
#pragma once

#include "engine/block_device.hpp"
#include "engine/clock.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace memkv::engine {

/// Page-aligned memory.
class aligned_bytes {
public:
  explicit aligned_bytes(std::size_t size);
  [[nodiscard]] std::span<std::byte> span() noexcept { return {bytes_.get(), size_}; }
  [[nodiscard]] std::byte* data() noexcept { return bytes_.get(); }

private:
  struct release {
    void operator()(std::byte* bytes) const noexcept { std::free(bytes); }
  };
  std::unique_ptr<std::byte, release> bytes_;
  std::size_t size_;
};

/// Buffers of one size that are used again and again.
class aligned_pool {
public:
  explicit aligned_pool(std::size_t size) : size_(size) {}
  [[nodiscard]] std::unique_ptr<aligned_bytes> take();
  void give(std::unique_ptr<aligned_bytes> bytes);

private:
  static constexpr std::size_t kept_max = 64;
  std::size_t size_;
  std::vector<std::unique_ptr<aligned_bytes>> free_;
};

class drive_io {
public:
  using done = std::function<void(errc)>;

  explicit drive_io(block_device& device) : device_(device) {}
  drive_io(const drive_io&) = delete;
  drive_io& operator=(const drive_io&) = delete;
  ~drive_io() { drain(); }
  /// Waits for what is in the device and forgets the rest; callbacks are not called.
  void drain();

  /// Offset and length in whole pages.
  void read(std::uint64_t offset, std::span<std::byte> to, done callback);
  void write(std::uint64_t offset, std::span<std::byte> from, done callback);
  /// Before everything that the device has not been asked for yet.
  void write_first(std::uint64_t offset, std::span<std::byte> from, done callback);
  void flush(done callback);

  /// From now on it can be seen from any thread since when the device is waited for, by the steady clock; 0:
  /// it is not. `since_ns` null: nobody looks. Both outlive this.
  void show_waiting(const clock& time, std::atomic<std::uint64_t>* since_ns) noexcept {
    time_ = &time;
    since_ns_ = since_ns;
  }

  /// Returns how many operations completed.
  std::size_t poll(bool wait);
  [[nodiscard]] bool idle() const noexcept { return in_device_ == 0 && waiting_.empty(); }
  /// A write or flush failed.
  [[nodiscard]] bool failed() const noexcept { return failed_; }

  // Waiting for the result, for opening, formatting and closing. Callbacks of other operations run meanwhile.
  [[nodiscard]] errc read_now(std::uint64_t offset, std::span<std::byte> to);
  [[nodiscard]] errc write_now(std::uint64_t offset, std::span<std::byte> from);
  [[nodiscard]] errc flush_now();

private:
  struct group {
    std::size_t left = 0;
    errc result = errc::ok;
    done callback;
  };
  struct slot {
    io_operation operation;
    drive_io* owner = nullptr;
    group* of = nullptr;
  };

  void start(io_operation::kind what, std::uint64_t offset, std::span<std::byte> bytes, done callback,
             bool first = false);
  void submit_waiting();
  void complete(slot& finished);
  static void on_done(io_operation& operation);
  [[nodiscard]] errc wait_for(const std::function<void(done)>& begin);

  block_device& device_;
  std::vector<std::unique_ptr<slot>> slots_;
  std::vector<slot*> free_;
  std::deque<slot*> waiting_;
  std::size_t in_device_ = 0;
  bool failed_ = false;
  bool silent_ = false;
  const clock* time_ = nullptr;
  std::atomic<std::uint64_t>* since_ns_ = nullptr;
};

} // namespace memkv::engine
