// Frames that are written to a socket together, and how far that came. Internal to client/.
//
// Headers are encoded one behind the other into a buffer of the burst; values stay where the caller has them.
//
// Operation: begin(); for each request, its header is appended to headers(), then add(); seal(); gather() and
// advance() until it is empty.
//
// Threading: one thread. Ownership: its headers; values belong to callers and requests to their operations,
// both of which must live while their frame is here. Limits: whoever adds keeps them. Does not do: choose
// what goes together, write.
#pragma once

#include "client/operation.hpp"
#include "wire/auth.hpp"
#include "wire/bytes.hpp"

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace memkv::client {

class burst {
public:
  struct frame {
    request* owner = nullptr;
    std::uint64_t begin = 0; // in the burst, as the end
    std::uint64_t end = 0;
    bool started = false; // some of it was written
  };

  /// Forgets what was there; `now_ns` (steady clock) is when the new burst is stamped.
  void begin(std::int64_t now_ns) noexcept;
  [[nodiscard]] std::vector<std::byte>& headers() noexcept { return headers_; }
  /// A frame: what was appended to headers() since begin() or the last frame, and its values.
  void add(request& owner, std::span<const wire::bytes_view> payload);
  void seal(std::uint64_t wall_clock_ns, const wire::mac& signer) noexcept;
  void clear() noexcept;

  [[nodiscard]] bool empty() const noexcept { return frames_.empty(); }
  [[nodiscard]] const std::vector<frame>& frames() const noexcept { return frames_; }
  /// Of the values in it.
  [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return payload_bytes_; }
  /// Nothing of it was written since it was stamped, `patience_ns` ago.
  [[nodiscard]] bool is_stale(std::int64_t now_ns, std::int64_t patience_ns) const noexcept {
    return !empty() && written_ == 0 && now_ns - sealed_ns_ > patience_ns;
  }
  /// Whether this request's frame is here and no byte of it was written.
  [[nodiscard]] bool is_unstarted(const request& owner) const noexcept;
  /// Whether this request's frame is here and bytes of it are still to be written.
  [[nodiscard]] bool is_unfinished(const request& owner) const noexcept;

  struct gathered {
    std::size_t pieces = 0;
    std::uint64_t bytes = 0;
  };
  /// What is to be written next, as much as there are pieces for.
  [[nodiscard]] gathered gather(std::span<iovec> pieces) const noexcept;
  /// So much was written: counts an attempt of each request that this began. Empty after the last byte.
  void advance(std::uint64_t bytes) noexcept;

private:
  struct piece {
    const std::byte* payload = nullptr; // none: headers_ from header_offset
    std::size_t header_offset = 0;
    std::size_t length = 0;
  };

  std::vector<std::byte> headers_;
  std::vector<piece> pieces_;
  std::vector<frame> frames_;
  std::uint64_t payload_bytes_ = 0;
  std::size_t headers_taken_ = 0; // belong to frames
  std::size_t piece_ = 0;         // the first one not written completely
  std::size_t piece_offset_ = 0;
  std::uint64_t written_ = 0;
  std::int64_t sealed_ns_ = 0;
};

} // namespace memkv::client
