#include "engine/buffer_pool.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <new>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

namespace memkv::engine {

namespace detail {

class buffer_range {
public:
  buffer_range(std::byte* memory, std::uint64_t mapped_bytes, std::uint64_t chunk_bytes, std::uint64_t chunks,
               bool huge_pages)
      : memory_(memory), mapped_bytes_(mapped_bytes), chunk_bytes_(chunk_bytes) {
    counted_.chunks = chunks;
    counted_.huge_pages = huge_pages;
    // Room for all of them now: giving a chunk back must not need memory.
    returned_.reserve(chunks);
  }

  ~buffer_range() { ::munmap(memory_, mapped_bytes_); }

  buffer_range(const buffer_range&) = delete;
  buffer_range& operator=(const buffer_range&) = delete;

  [[nodiscard]] std::byte* acquire() noexcept {
    const std::lock_guard guard(lock_);
    std::uint64_t chunk = 0;
    if (!returned_.empty()) {
      chunk = returned_.back();
      returned_.pop_back();
    } else if (counted_.chunks_touched < counted_.chunks) {
      chunk = counted_.chunks_touched++;
    } else {
      ++counted_.refused;
      return nullptr;
    }
    ++counted_.chunks_in_use;
    counted_.chunks_in_use_most = std::max(counted_.chunks_in_use_most, counted_.chunks_in_use);
    return memory_ + chunk * chunk_bytes_;
  }

  void release(const std::byte* data) noexcept {
    const std::lock_guard guard(lock_);
    MEMKV_ASSERT(counted_.chunks_in_use > 0, "a chunk is given back once");
    --counted_.chunks_in_use;
    returned_.push_back(
        static_cast<std::uint32_t>(static_cast<std::uint64_t>(data - memory_) / chunk_bytes_));
  }

  [[nodiscard]] buffer_pool_statistics statistics() const noexcept {
    const std::lock_guard guard(lock_);
    return counted_;
  }

  [[nodiscard]] std::uint64_t chunk_bytes() const noexcept { return chunk_bytes_; }
  [[nodiscard]] std::span<std::byte> all() const noexcept {
    return {memory_, counted_.chunks * chunk_bytes_};
  }

private:
  std::byte* const memory_;
  const std::uint64_t mapped_bytes_;
  const std::uint64_t chunk_bytes_;
  mutable std::mutex lock_;
  std::vector<std::uint32_t> returned_;
  buffer_pool_statistics counted_;
};

} // namespace detail

buffer::buffer(buffer&& other) noexcept
    : range_(std::move(other.range_)), data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

buffer& buffer::operator=(buffer&& other) noexcept {
  if (this != &other) {
    release();
    range_ = std::move(other.range_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void buffer::release() noexcept {
  if (data_ != nullptr)
    range_->release(std::exchange(data_, nullptr));
  size_ = 0;
  range_.reset();
}

buffer_pool::buffer_pool(std::shared_ptr<detail::buffer_range> range) noexcept : range_(std::move(range)) {}
buffer_pool::~buffer_pool() = default;

status buffer_pool::create(const buffer_pool_options& options, std::unique_ptr<buffer_pool>& out) {
  out.reset();
  if (options.chunk_bytes == 0 || options.chunk_bytes % 4096 != 0)
    return {errc::invalid_argument, "memory.block_size is " + std::to_string(options.chunk_bytes) +
                                        " bytes; it must be a multiple of 4096 and not 0."};
  const std::uint64_t chunks = options.size_bytes / options.chunk_bytes;
  if (chunks == 0 || chunks > 0xFFFFFFFF)
    return {errc::invalid_argument, "memory.max_size of " + std::to_string(options.size_bytes) +
                                        " bytes must hold 1 to 4294967295 chunks of memory.block_size (" +
                                        std::to_string(options.chunk_bytes) + " bytes)."};

  constexpr std::uint64_t huge_page_bytes = std::uint64_t{2} << 20;
  std::uint64_t mapped = chunks * options.chunk_bytes;
  void* memory = MAP_FAILED;
  bool huge = false;
  if (options.huge_pages) {
    // Without MAP_NORESERVE the kernel sets the pages aside now, or says now that there are too few.
    const std::uint64_t rounded = (mapped + huge_page_bytes - 1) / huge_page_bytes * huge_page_bytes;
    memory = ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << MAP_HUGE_SHIFT), -1, 0);
    if (memory != MAP_FAILED) {
      mapped = rounded;
      huge = true;
    }
  }
  if (memory == MAP_FAILED) {
    memory =
        ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
      return {errc::no_space, "Cannot reserve " + std::to_string(mapped) +
                                  " bytes of addresses for memory.max_size: " + std::strerror(errno) + "."};
    // Only where a chunk fills whole huge pages: elsewhere one small chunk would cost 2 MiB.
    static_cast<void>(::madvise(
        memory, mapped, options.chunk_bytes % huge_page_bytes == 0 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE));
  }
  std::shared_ptr<detail::buffer_range> range;
  try {
    range = std::make_shared<detail::buffer_range>(static_cast<std::byte*>(memory), mapped,
                                                   options.chunk_bytes, chunks, huge);
  } catch (const std::bad_alloc&) {
    ::munmap(memory, mapped);
    return {errc::no_space, "There is no memory for the free list of " + std::to_string(chunks) + " chunks."};
  }
  out.reset(new buffer_pool(std::move(range)));
  return {};
}

buffer buffer_pool::acquire() noexcept {
  buffer result;
  result.data_ = range_->acquire();
  if (result.data_ == nullptr)
    return result;
  result.size_ = range_->chunk_bytes();
  result.range_ = range_;
  return result;
}

std::uint64_t buffer_pool::chunk_bytes() const noexcept {
  return range_->chunk_bytes();
}

buffer_pool_statistics buffer_pool::statistics() const noexcept {
  return range_->statistics();
}

std::span<std::byte> buffer_pool::range() const noexcept {
  return range_->all();
}

} // namespace memkv::engine
