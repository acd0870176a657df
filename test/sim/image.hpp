// The bytes of a simulated drive: cheap to copy, so that thousands of crash states can be looked at.
//
// Operation. Pages of 16 KiB that copies share until one of them writes; a page nobody wrote reads as zeros.
//
// Threading: one thread for an image and all its copies. Errors: reaching outside is a broken invariant.
#pragma once

#include "test/sim/random.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace memkv::sim {

class image {
public:
  explicit image(std::uint64_t size_bytes = 0);

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  void read(std::uint64_t offset, std::span<std::byte> to) const;
  void write(std::uint64_t offset, std::span<const std::byte> from);

  void flip_bit(std::uint64_t offset, unsigned bit);
  /// Replaces a byte by another one.
  void change_byte(std::uint64_t offset, random& chance);
  /// Fills with noise.
  void scramble(std::uint64_t offset, std::uint64_t length, random& chance);
  void fill(std::uint64_t offset, std::uint64_t length, std::byte value);
  /// A valid structure where it does not belong: what a misdirected write leaves. Source and target may be
  /// the same image.
  void copy_from(const image& source, std::uint64_t source_offset, std::uint64_t offset,
                 std::uint64_t length);

  [[nodiscard]] std::vector<std::byte> bytes() const;
  /// Equal size and bytes.
  friend bool operator==(const image& a, const image& b);

private:
  static constexpr std::uint64_t page_bytes = 16 << 10;
  using page = std::vector<std::byte>;

  std::uint64_t size_ = 0;
  std::vector<std::shared_ptr<page>> pages_;
};

} // namespace memkv::sim
