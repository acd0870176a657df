#include "wire/frame_gatherer.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::wire {

bool header_budget::take(std::uint64_t bytes) noexcept {
  std::uint64_t used = used_bytes_.load(std::memory_order_relaxed);
  do {
    if (bytes > bytes_max_ || used > bytes_max_ - bytes)
      return false;
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

void header_budget::give_back(std::uint64_t bytes) noexcept {
  used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

namespace {

frame_gatherer::state state_of(frozen_fault fault) noexcept {
  switch (fault) {
  case frozen_fault::none:
    return frame_gatherer::state::complete;
  case frozen_fault::bad_magic:
    return frame_gatherer::state::bad_magic;
  case frozen_fault::bad_direction:
    return frame_gatherer::state::bad_direction;
  case frozen_fault::bad_length:
    return frame_gatherer::state::bad_length;
  }
  return frame_gatherer::state::bad_length;
}

} // namespace

void frame_gatherer::release() noexcept {
  if (!large_.empty()) {
    budget_->give_back(large_.size());
    std::vector<std::byte>().swap(large_);
  }
  have_bytes_ = 0;
  total_bytes_ = 0;
  delivered_ = false;
}

// Makes room for `bytes_wanted` of the frame's `bytes_total`. Doubling, not the announced length: a sender
// that announces 1 MiB and sends a kilobyte costs a kilobyte or two.
bool frame_gatherer::reserve(std::size_t bytes_wanted, std::size_t bytes_total) noexcept {
  if (bytes_total <= inline_bytes || bytes_wanted <= large_.size())
    return true;
  const std::size_t size = std::min(bytes_total, std::max(2 * bytes_wanted, std::size_t{4096}));
  // The old and the new room exist together for a moment; the budget counts the one that stays.
  if (!budget_->take(size - large_.size()))
    return false;
  const bool first = large_.empty();
  large_.resize(size);
  if (first)
    std::memcpy(large_.data(), inline_.data(), have_bytes_);
  return true;
}

frame_gatherer::result frame_gatherer::consume(bytes_view in, std::uint32_t header_bytes_max) noexcept {
  if (delivered_)
    release();
  result out;
  const auto checked = [&](bytes_view first_32) {
    frozen_part frozen;
    const frozen_fault fault =
        check_frozen(first_32, expected_, header_bytes_max, payload_bytes_max_, frozen);
    if (fault == frozen_fault::none)
      total_bytes_ = std::size_t{frozen.header_length} + limits::trailer_bytes;
    return fault;
  };

  if (have_bytes_ == 0 && in.size() >= limits::frozen_bytes) {
    if (const frozen_fault fault = checked(in.first(limits::frozen_bytes)); fault != frozen_fault::none) {
      out.state = state_of(fault);
      return out;
    }
    if (in.size() >= total_bytes_) {
      // The usual case: everything lies in the caller's buffer and stays there.
      out.consumed = total_bytes_;
      out.state = state::complete;
      out.header = in.first(total_bytes_ - limits::trailer_bytes);
      out.trailer = in.subspan(out.header.size(), limits::trailer_bytes);
      delivered_ = true;
      return out;
    }
  }

  if (have_bytes_ < limits::frozen_bytes) {
    const std::size_t size = std::min(in.size(), limits::frozen_bytes - have_bytes_);
    if (size != 0)
      std::memcpy(inline_.data() + have_bytes_, in.data(), size);
    have_bytes_ += size;
    out.consumed = size;
    in = in.subspan(size);
    if (have_bytes_ < limits::frozen_bytes)
      return out;
    const frozen_fault fault = checked(bytes_view(inline_).first(limits::frozen_bytes));
    if (fault != frozen_fault::none) {
      out.state = state_of(fault);
      return out;
    }
  }

  const std::size_t size = std::min(in.size(), total_bytes_ - have_bytes_);
  if (!reserve(have_bytes_ + size, total_bytes_)) {
    out.state = state::wait_for_budget;
    return out;
  }
  std::byte* to = large_.empty() ? inline_.data() : large_.data();
  if (size != 0)
    std::memcpy(to + have_bytes_, in.data(), size);
  have_bytes_ += size;
  out.consumed += size;
  if (have_bytes_ < total_bytes_)
    return out;
  out.state = state::complete;
  out.header = bytes_view(to, total_bytes_ - limits::trailer_bytes);
  out.trailer = bytes_view(to + out.header.size(), limits::trailer_bytes);
  delivered_ = true;
  return out;
}

} // namespace memkv::wire
