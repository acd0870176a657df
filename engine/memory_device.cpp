#include "engine/memory_device.hpp"

#include "wire/assert.hpp"

#include <cerrno>
#include <cstring>
#include <deque>
#include <sys/mman.h>
#include <utility>

namespace memkv::engine {

namespace {

class memory_device final : public block_device {
public:
  memory_device(std::byte* memory, std::uint64_t size_bytes, std::string name) : memory_(memory) {
    information_.size_bytes = size_bytes;
    information_.name = std::move(name);
  }

  ~memory_device() override { close(); }

  [[nodiscard]] const device_information& information() const noexcept override { return information_; }

  void submit(io_operation& operation) override { waiting_.push_back(&operation); }

  std::size_t poll(bool) override {
    // What `done` submits waits for the next poll, so that a caller that always has more cannot hold us here.
    const std::size_t count = waiting_.size();
    for (std::size_t i = 0; i < count; ++i) {
      io_operation& operation = *waiting_.front();
      waiting_.pop_front();
      operation.result = perform(operation);
      operation.done(operation);
    }
    return count;
  }

  [[nodiscard]] std::size_t in_flight() const noexcept override { return waiting_.size(); }

  [[nodiscard]] std::span<const std::byte> mapping() const noexcept override {
    return {memory_, memory_ == nullptr ? 0 : information_.size_bytes};
  }

  [[nodiscard]] std::span<std::byte> writable_mapping() noexcept override {
    return {memory_, memory_ == nullptr ? 0 : information_.size_bytes};
  }

  void close() noexcept override {
    while (!waiting_.empty())
      poll(true);
    if (memory_ != nullptr)
      ::munmap(std::exchange(memory_, nullptr), information_.size_bytes);
  }

private:
  [[nodiscard]] errc perform(const io_operation& operation) noexcept {
    const std::uint64_t size = information_.size_bytes;
    if (memory_ == nullptr)
      return errc::offline;
    if (operation.what == io_operation::kind::flush)
      return errc::ok;
    if (operation.offset > size || operation.length > size - operation.offset ||
        operation.offset % information_.alignment != 0 || operation.length % information_.alignment != 0)
      return errc::invalid_argument;
    if (operation.what == io_operation::kind::discard)
      return errc::ok;
    if (operation.length > io_bytes_max)
      return errc::invalid_argument;
    if (operation.what == io_operation::kind::read)
      std::memcpy(operation.data, memory_ + operation.offset, operation.length);
    else
      std::memcpy(memory_ + operation.offset, operation.data, operation.length);
    return errc::ok;
  }

  device_information information_;
  std::byte* memory_ = nullptr;
  std::deque<io_operation*> waiting_;
};

} // namespace

status open_memory_device(std::uint64_t size_bytes, std::string name, std::unique_ptr<block_device>& out) {
  out.reset();
  if (size_bytes == 0 || size_bytes % 4096 != 0)
    return {errc::invalid_argument, "The size of memory drive " + name + " is " + std::to_string(size_bytes) +
                                        " bytes; it must be a multiple of 4096 and not 0."};
  void* const memory =
      ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return {errc::io_error, "Cannot reserve " + std::to_string(size_bytes) +
                                " bytes of addresses for memory drive " + name + ": " + std::strerror(errno) +
                                "."};
  // Advice only: without huge pages it is merely slower.
  static_cast<void>(::madvise(memory, size_bytes, MADV_HUGEPAGE));
  out = std::make_unique<memory_device>(static_cast<std::byte*>(memory), size_bytes, std::move(name));
  return {};
}

} // namespace memkv::engine
