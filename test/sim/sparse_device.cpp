#include "test/sim/sparse_device.hpp"

#include "engine/memory_device.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace memkv::sim {

using engine::io_operation;

namespace {
/// What costs nothing need not wait for its turn.
constexpr std::uint32_t depth_least = 64;
} // namespace

sparse_device::sparse_device(std::unique_ptr<engine::block_device> below, const engine::layout& places)
    : below_(std::move(below)), places_(places), information_(below_->information()) {
  information_.depth_max = std::max(information_.depth_max, depth_least);
  information_.survives_process = true;
  information_.survives_power_loss = true;
}

sparse_device::~sparse_device() {
  close();
}

void sparse_device::submit(io_operation& operation) {
  const bool moves_bytes =
      operation.what == io_operation::kind::read || operation.what == io_operation::kind::write;
  if (moves_bytes && operation.offset >= places_.data_offset && operation.offset < places_.mirror_offset()) {
    MEMKV_ASSERT(operation.offset % engine::page_bytes == 0 && operation.length % engine::page_bytes == 0 &&
                     operation.length <= places_.mirror_offset() - operation.offset,
                 "a store reads and writes whole pages of its data region");
    finished_.push_back(&operation);
  } else if (holding_ && operation.what == io_operation::kind::write &&
             operation.offset >= places_.tree_offset && operation.offset < places_.data_offset) {
    held_.push_back(&operation);
  } else {
    below_->submit(operation);
  }
}

void sparse_device::read(const io_operation& operation) const {
  std::memset(operation.data, 0, operation.length);
  for (std::uint64_t at = 0; at < operation.length; at += engine::page_bytes)
    if (const auto found = kept_.find(operation.offset + at); found != kept_.end())
      std::memcpy(operation.data + at, found->second.bytes->data(), engine::page_bytes);
}

void sparse_device::write(const io_operation& operation) {
  for (std::uint64_t at = 0; at < operation.length; at += engine::page_bytes) {
    kept_page& place = kept_[operation.offset + at];
    if (!place.bytes)
      place.bytes = std::make_unique<page>();
    std::memcpy(place.bytes->data(), operation.data + at, engine::page_bytes);
    place.written = ++written_;
    order_.emplace_back(operation.offset + at, written_);
  }
  for (; order_.size() > pages_kept; order_.pop_front()) {
    const auto oldest = kept_.find(order_.front().first);
    if (oldest != kept_.end() && oldest->second.written == order_.front().second)
      kept_.erase(oldest);
  }
}

std::size_t sparse_device::poll(bool wait) {
  std::size_t count = 0;
  for (auto finished = std::exchange(finished_, {}); !finished.empty(); finished.pop_front(), ++count) {
    io_operation& operation = *finished.front();
    if (operation.what == io_operation::kind::read)
      read(operation);
    else
      write(operation);
    operation.result = engine::errc::ok;
    operation.done(operation);
  }
  return count + below_->poll(wait && count == 0 && below_->in_flight() > 0);
}

void sparse_device::release_tree() {
  holding_ = false;
  for (auto held = std::exchange(held_, {}); !held.empty(); held.pop_front())
    below_->submit(*held.front());
}

void sparse_device::close() noexcept {
  release_tree();
  while (in_flight() > 0)
    poll(true);
  below_->close();
}

engine::status open_sparse_device(std::uint64_t size_bytes, std::uint32_t unit_bytes,
                                  std::uint32_t extent_bytes_max, std::unique_ptr<sparse_device>& out) {
  engine::layout places;
  if (auto sized = engine::compute_layout(size_bytes, unit_bytes, extent_bytes_max, places); !sized.ok())
    return sized;
  std::unique_ptr<engine::block_device> memory;
  if (auto opened = engine::open_memory_device(places.device_bytes, "sparse", memory); !opened.ok())
    return opened;
  out = std::make_unique<sparse_device>(std::move(memory), places);
  return {};
}

} // namespace memkv::sim
