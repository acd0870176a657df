// The payload of one frame on its way into the memory where it belongs. Internal to client/.
//
// A payload is a run of segments, each with one place to go to and one digest. An item of a batch is complete
// when its last segment is, and the segments before it came right.
//
// Operation: start() once a connection; for each frame clear(), add() its segments, begin(); then, until
// bytes_left() is 0, either receive into what gather() gives or copy_in(), and advance() by what came.
//
// Threading: one thread. Ownership: the key of the digests, wiped by stop(); targets and results are the
// caller's and must live until the payload ended or clear(). Errors: a wrong digest, after which only clear()
// and stop() make sense. Does not do: receive.
#pragma once

#include "client/client.hpp"
#include "wire/bytes.hpp"
#include "wire/header.hpp"
#include "wire/payload_digest.hpp"

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace memkv::client {

class payload_receiver {
public:
  struct segment {
    std::byte* target = nullptr;
    std::uint64_t length = 0;     // at least 1
    std::uint32_t item_index = 0; // for keyed digests: position in the request
    wire::digest16 digest{};
    item_result* completes = nullptr; // becomes ok after this segment
  };

  void start(wire::bytes_view payload_key) noexcept { digest_.emplace(payload_key); }
  void stop() noexcept;

  void clear() noexcept;
  void add(const segment& next) { segments_.push_back(next); }
  /// The segments are as long as this frame's payload, together.
  void begin(const wire::frame_header& header) noexcept;

  [[nodiscard]] std::uint64_t bytes_left() const noexcept { return left_; }
  /// Of the frame that was begun last.
  [[nodiscard]] bool is_last_frame() const noexcept { return header_.last(); }
  /// Whether the next byte goes there and is the first of its segment.
  [[nodiscard]] bool is_at_begin_of(const std::byte* target) const noexcept {
    return left_ != 0 && done_ == 0 && segments_[segment_].target == target;
  }

  struct gathered {
    std::size_t pieces = 0;
    std::uint64_t bytes = 0;
  };
  /// Where the next bytes go, as many as there are pieces for and `bytes_max`.
  [[nodiscard]] gathered gather(std::span<iovec> pieces, std::uint64_t bytes_max) const noexcept;
  /// Copies the first of these bytes into the segment that comes next, and returns how many these were.
  [[nodiscard]] std::uint64_t copy_in(wire::bytes_view bytes) const noexcept;
  /// Counts bytes, at most bytes_left(), that lie in their segments now. False: a digest is wrong.
  [[nodiscard]] bool advance(std::uint64_t bytes) noexcept;

private:
  void begin_segment() noexcept;

  std::optional<wire::payload_digest> digest_;
  wire::frame_header header_;
  std::vector<segment> segments_;
  std::size_t segment_ = 0;
  std::uint64_t done_ = 0; // of the segment
  std::uint64_t left_ = 0;
};

} // namespace memkv::client
