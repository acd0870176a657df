// Descriptors that a ring knows by place, so that its operations need not look them up and hold them each
// time: two atomic operations on memory that several processors write, for every receive and every send.
//
// Threading: the ring's. Ownership: the ring holds a file until its place is given back; the descriptor stays
// the caller's. Errors: none; what finds no place is used by its descriptor.
#pragma once

#include <cstdint>
#include <vector>

struct io_uring;

namespace memkv::actors {

class file_table {
public:
  /// No place: the descriptor is to be used itself.
  static constexpr std::int32_t nowhere = -1;

  /// Makes places for so many files, or none where the kernel gives none (their number is bounded by
  /// RLIMIT_NOFILE). Once, before the first add(); `ring` must outlive the last remove(), or close().
  void open(io_uring& ring, std::uint32_t files);
  [[nodiscard]] std::int32_t add(int descriptor) noexcept;
  /// No operation on it may be under way. nowhere is ignored.
  void remove(std::int32_t place) noexcept;
  /// The ring ends, and with it all places.
  void close() noexcept;

private:
  io_uring* ring_ = nullptr;
  std::vector<std::int32_t> free_;
};

} // namespace memkv::actors
