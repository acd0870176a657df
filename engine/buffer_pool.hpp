// The memory through which payload passes: one reserved range, handed out in chunks of equal size.
//
// Operation. The addresses are reserved at once and filled as they are touched. A chunk that came back last
// is handed out first, and one never used only when no other is free, so the memory in use follows the load.
// With enough free huge pages the range lies in those (and is theirs at once), else in ordinary memory.
//
// Threading: any thread. Ownership: a buffer keeps the range alive, even after the pool is gone.
// Errors: acquire returns an empty buffer when all chunks are out. Limits: size / chunk, both given.
// Does not: wait, clear chunks, or join them.
#pragma once

#include "engine/errc.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace memkv::engine {

struct buffer_pool_options {
  std::uint64_t size_bytes = 0;  // memory.max_size; a rest smaller than a chunk is left out
  std::uint64_t chunk_bytes = 0; // memory.block_size; multiple of 4096
  bool huge_pages = true;        // when enough are free
};

struct buffer_pool_statistics {
  std::uint64_t chunks = 0;
  std::uint64_t chunks_in_use = 0;
  std::uint64_t chunks_in_use_most = 0; // since the start
  std::uint64_t chunks_touched = 0;     // ever handed out: what the pool costs in memory
  std::uint64_t refused = 0;            // acquire without a free chunk
  bool huge_pages = false;
};

namespace detail {
class buffer_range;
}

/// One chunk. Goes back when destroyed.
class buffer {
public:
  buffer() noexcept = default;
  buffer(buffer&& other) noexcept;
  buffer& operator=(buffer&& other) noexcept;
  buffer(const buffer&) = delete;
  buffer& operator=(const buffer&) = delete;
  ~buffer() { release(); }

  void release() noexcept;
  [[nodiscard]] explicit operator bool() const noexcept { return data_ != nullptr; }
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> span() const noexcept { return {data_, size_}; }

private:
  friend class buffer_pool;
  std::shared_ptr<detail::buffer_range> range_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

class buffer_pool {
public:
  /// invalid_argument or no_space, in one sentence.
  static status create(const buffer_pool_options& options, std::unique_ptr<buffer_pool>& out);
  ~buffer_pool();

  [[nodiscard]] buffer acquire() noexcept;
  [[nodiscard]] std::uint64_t chunk_bytes() const noexcept;
  [[nodiscard]] buffer_pool_statistics statistics() const noexcept;
  /// The whole range: what is registered with a ring or a network card.
  [[nodiscard]] std::span<std::byte> range() const noexcept;

private:
  explicit buffer_pool(std::shared_ptr<detail::buffer_range> range) noexcept;
  std::shared_ptr<detail::buffer_range> range_;
};

} // namespace memkv::engine
