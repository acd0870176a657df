// The 16-byte digest of a payload, of either kind, computed as the bytes come. Normative text: wire.md,
// section 8.
//
// Threading: one thread. Ownership: a value that holds the connection's payload key, wiped when it dies.
// Does not: decide which kind is good enough.
#pragma once

#include "wire/auth.hpp"
#include "wire/crc32c.hpp"
#include "wire/header.hpp"

namespace memkv::wire {

/// The digest of kind 1 for bytes whose CRC32C is known already, for example combined from stored sums.
[[nodiscard]] inline digest16 crc32c_digest(std::uint32_t crc) noexcept {
  digest16 result{};
  store_le(result.data(), crc);
  return result;
}

class payload_digest {
public:
  explicit payload_digest(bytes_view payload_key) noexcept : keyed_(payload_key) {}

  /// Starts a payload, or an item of a batch. `item_index` is the position in the request, 0 outside batches.
  void begin(digest_kind kind, direction from, std::uint64_t request_id, std::uint32_t part_number,
             std::uint32_t item_index) noexcept {
    kind_ = kind;
    crc_ = 0;
    empty_ = true;
    if (kind == digest_kind::keyed)
      keyed_.begin(static_cast<std::uint8_t>(from), request_id, part_number, item_index);
  }

  void update(bytes_view bytes) noexcept {
    if (bytes.empty())
      return;
    empty_ = false;
    if (kind_ == digest_kind::keyed)
      keyed_.update(bytes);
    else
      crc_ = crc32c(bytes, crc_);
  }

  /// The digest; of no bytes at all: zeros.
  [[nodiscard]] digest16 finish() noexcept {
    if (empty_)
      return {};
    return kind_ == digest_kind::keyed ? keyed_.finish() : crc32c_digest(crc_);
  }

  /// finish() and a comparison in constant time.
  [[nodiscard]] bool matches(const digest16& expected) noexcept {
    return equal_in_constant_time(finish(), expected);
  }

private:
  keyed_digest keyed_;
  digest_kind kind_ = digest_kind::crc32c;
  std::uint32_t crc_ = 0;
  bool empty_ = true;
};

} // namespace memkv::wire
