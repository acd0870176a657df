// Memory that RDMA devices of a client know: values that lie in it travel without a copy.
//
// Whose memory it is. Registering costs hundreds of microseconds and pins the pages: register large ranges,
// once. The memory is the caller's; it stays mapped until it is not registered any more. Servers read and
// write in it only on behalf of calls that are open: when a call returned, or its completion was called, no
// byte of it is touched any more, whatever became of the call.
//
// A call uses registered memory when the whole value, or the whole target, lies in one registered range.
// Deregistering while a call uses it: release() refuses, the destructor waits for the calls, which all have
// deadlines. Calls that begin meanwhile do not use it any more; with device memory none must begin.
//
// Threading: a handle belongs to one thread at a time. Ownership: a handle may outlive its client. Without
// RDMA (transport tcp, or auto without a device or after a failure) registering host memory succeeds and has
// no effect.
#pragma once

#include "client/error.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace memkv::client {

class rdma_core;
class registration;

/// Memory of another device, a GPU for example, by its dma-buf. Its bytes cannot be touched by the processor,
/// and each value has a checksum: `copy_out` fetches bytes for it. Items in such memory cannot travel over
/// TCP: without RDMA they end with `unsupported`.
struct device_memory {
  int descriptor = -1; // of the dma-buf; may be closed after registering
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t address = 0; // of the first byte, as the items of calls name it
  /// Copies bytes of the device into host memory and returns whether it did. Called from any thread that
  /// drives the client; must not call the client.
  std::function<bool(std::uint64_t from, std::span<std::byte> to)> copy_out;
};

class registered_memory {
public:
  registered_memory() noexcept;
  registered_memory(registered_memory&& other) noexcept;
  registered_memory& operator=(registered_memory&& other) noexcept; // as the destructor, first
  ~registered_memory();

  /// Deregisters. `busy`: a call uses it; nothing was done. Ok also when nothing is registered here.
  [[nodiscard]] status release();
  /// Whether a device knows the memory.
  [[nodiscard]] bool effective() const noexcept;

private:
  friend class rdma_core;
  std::shared_ptr<registration> held_;
};

} // namespace memkv::client
