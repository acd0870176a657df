// Turns a byte stream into whole headers: the half of parsing that request_reader and reply_reader share.
//
// Threading: one thread; the budget may be shared by all. Ownership: views returned point into the caller's
// input or into the gatherer's buffer, and are valid until the next call of either member that is not const.
// Errors: checks 1 and 2 of section 5; nothing is allocated before both have passed.
// Limits: holds at most the frame's header and trailer, grown as bytes really arrive, from the budget.
// Does not: look at payloads, which the caller takes from the stream itself.
#pragma once

#include "wire/header.hpp"

#include <atomic>
#include <vector>

namespace memkv::wire {

/// How much memory all incomplete headers together may hold. Threading: any.
class header_budget {
public:
  explicit header_budget(std::uint64_t bytes_max = limits::header_budget_bytes_default) noexcept
      : bytes_max_(bytes_max) {}
  header_budget(const header_budget&) = delete;
  header_budget& operator=(const header_budget&) = delete;

  [[nodiscard]] bool take(std::uint64_t bytes) noexcept;
  void give_back(std::uint64_t bytes) noexcept;
  [[nodiscard]] std::uint64_t used_bytes() const noexcept {
    return used_bytes_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t bytes_max() const noexcept { return bytes_max_; }

private:
  std::uint64_t bytes_max_;
  std::atomic<std::uint64_t> used_bytes_ = 0;
};

class frame_gatherer {
public:
  enum class state : std::uint8_t {
    need_more,
    complete,
    wait_for_budget,
    bad_magic,
    bad_direction,
    bad_length
  };

  struct result {
    std::size_t consumed = 0; ///< bytes of the input that are not needed again
    enum state state = state::need_more;
    bytes_view header;  ///< when complete: fixed and variable part
    bytes_view trailer; ///< when complete: 40 bytes
  };

  frame_gatherer(direction expected, std::uint64_t payload_bytes_max, header_budget& budget) noexcept
      : expected_(expected), payload_bytes_max_(payload_bytes_max), budget_(&budget) {}
  frame_gatherer(const frame_gatherer&) = delete;
  frame_gatherer& operator=(const frame_gatherer&) = delete;
  ~frame_gatherer() { release(); }

  [[nodiscard]] result consume(bytes_view in, std::uint32_t header_bytes_max) noexcept;

  /// Frees the buffer of a header that has been dealt with; otherwise the next consume does.
  void release() noexcept;

  /// Whether a frame has begun and is not complete: what header_ms_max is measured on.
  [[nodiscard]] bool mid_header() const noexcept { return !delivered_ && have_bytes_ != 0; }

private:
  [[nodiscard]] bool reserve(std::size_t bytes_wanted, std::size_t bytes_total) noexcept;

  // Enough for any frame of a connection that is not authenticated, and most others, without the budget.
  static constexpr std::size_t inline_bytes =
      limits::header_bytes_max_unauthenticated + limits::trailer_bytes;

  direction expected_;
  std::uint64_t payload_bytes_max_;
  header_budget* budget_;
  std::array<std::byte, inline_bytes> inline_{};
  std::vector<std::byte> large_;
  std::size_t have_bytes_ = 0;
  std::size_t total_bytes_ = 0; // of header and trailer; 0 while the first 32 bytes are incomplete
  bool delivered_ = false;
};

} // namespace memkv::wire
