#include "client/staging_area.hpp"

#include "client/connection.hpp"

#include <sys/mman.h>

#include <algorithm>

namespace memkv::client {

staging_area::staging_area(std::size_t bytes) noexcept {
  void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped != MAP_FAILED) {
    data_ = static_cast<std::byte*>(mapped);
    bytes_ = bytes;
  }
  taken_.assign(bytes_ / staging_slot_bytes, false);
}

staging_area::~staging_area() {
  if (data_ != nullptr) {
    ::munmap(data_, bytes_);
  }
}

bool staging_area::acquire(const request& wanted, connection& waiting, std::size_t bytes, staging_run& out) {
  const std::size_t slots = std::max<std::size_t>(1, (bytes + staging_slot_bytes - 1) / staging_slot_bytes);
  const std::lock_guard lock(mutex_);
  const auto place = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const waiting_request& one) { return one.wanted == &wanted; });
  const bool first = waiting_.empty() || place == waiting_.begin();
  std::size_t run = 0;
  for (std::size_t i = 0; first && i < taken_.size(); ++i) {
    run = taken_[i] ? 0 : run + 1;
    if (run == slots) {
      const std::size_t begin = i + 1 - slots;
      std::fill_n(taken_.begin() + static_cast<std::ptrdiff_t>(begin), slots, true);
      out = {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(slots)};
      if (place != waiting_.end()) {
        waiting_.pop_front();
        tell_first();
      }
      return true;
    }
  }
  if (place == waiting_.end()) {
    waiting_.push_back({&wanted, &waiting});
  }
  return false;
}

void staging_area::release(staging_run run) {
  const std::lock_guard lock(mutex_);
  std::fill_n(taken_.begin() + static_cast<std::ptrdiff_t>(run.first), run.slots, false);
  tell_first();
}

void staging_area::forget(const request& wanted) {
  const std::lock_guard lock(mutex_);
  const auto place = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const waiting_request& one) { return one.wanted == &wanted; });
  if (place != waiting_.end()) {
    waiting_.erase(place);
    tell_first();
  }
}

std::uint32_t staging_area::slots_free() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::uint32_t>(std::count(taken_.begin(), taken_.end(), false));
}

void staging_area::tell_first() const {
  // Its lock is never held by somebody who wants ours.
  if (!waiting_.empty()) {
    waiting_.front().at->poke();
  }
}

} // namespace memkv::client
