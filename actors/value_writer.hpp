// A value being received and stored, for one put or one item of a batch.
//
// Operation. On memory drives the value gets space first, extent by extent, one ahead of the bytes, and the
// socket fills that space directly. On others a small value (at most small_bytes_max) is gathered in a slice
// of a bounce buffer and goes to its drive in one message; a larger one is gathered in chunks of the pool
// while space is asked for, and written piece by piece. The checksums of the extents are taken as the bytes
// arrive. Nothing is visible before commit(), which the owner calls after it has compared the digest; parts 1
// and up of a striped value are prepared first, then the head is committed.
//
// What a socket brings comes in order, through room() and arrived(). What is fetched by RDMA comes in any
// order, through next_place(), filled() and take_filled(): many places of one value are out at a time, and
// its checksums are taken in order all the same. One value uses one of the two ways.
//
// Threading: REACTOR's thread. Ownership: a room or place stays valid while what keeps it is held, whatever
// happens to this object: the kernel or a network card may be writing there. Errors: as wire::status, in
// result().
#pragma once

#include "actors/value_reader.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace memkv::actors {

class value_writer {
public:
  static constexpr std::uint32_t small_bytes_max = 1 << 20;
  /// Steps in which payload is received, so that it is still in the cache when its checksum is taken.
  static constexpr std::uint32_t step_bytes_max = 256 << 10;

  value_writer(drive_client& client, std::uint64_t request, std::uint32_t item);
  ~value_writer();
  value_writer(const value_writer&) = delete;
  value_writer& operator=(const value_writer&) = delete;

  /// ok, or why this value cannot be stored; its payload is then to be skipped.
  [[nodiscard]] wire::status begin(std::string_view name_space, std::span<const std::byte> key,
                                   std::uint64_t length, bool if_absent);

  [[nodiscard]] std::uint64_t bytes_left() const noexcept { return length_ - received_; }
  /// Where the next bytes go, at most step_bytes_max; empty: nothing is left, or space is being waited for.
  [[nodiscard]] std::span<std::byte> room();
  /// Whoever lets the kernel write into room() holds this until it has stopped.
  [[nodiscard]] std::shared_ptr<void> keep() const;
  /// `bytes` have arrived in room(); returns them.
  std::span<const std::byte> arrived(std::uint32_t bytes);

  /// Where a part of the value goes.
  struct place {
    std::uint32_t number = 0; // of this value's places, from 0
    std::uint64_t offset = 0; // in the value
    std::span<std::byte> bytes;
    std::shared_ptr<void> keep; // to be held while anybody may write there
  };
  /// Where the bytes behind those that have a place go, at most `bytes_max` (at least 4096). Empty: all of it
  /// has its place, or space is being waited for, or a buffer.
  [[nodiscard]] place next_place(std::uint32_t bytes_max);
  /// The last next_place() found no buffer: it is worth trying again when there may be one.
  [[nodiscard]] bool waits_for_buffer() const noexcept { return waits_for_buffer_; }
  /// A place that is out and not filled; none is when this object has failed.
  [[nodiscard]] std::span<std::byte> place_of(std::uint32_t number) const noexcept;
  /// All bytes of that place are there.
  void filled(std::uint32_t number);
  /// The next bytes of the value, when they are there: they count as received, and go to their drive. Empty:
  /// they are not.
  [[nodiscard]] place take_filled();

  /// Some of what was taken waits here for space on its drive.
  [[nodiscard]] bool waits_for_space() const noexcept { return early_ > 0; }
  /// It fills buffers of the pool before drives; else the drives' memory.
  [[nodiscard]] bool uses_buffers() const noexcept;
  /// One of them waits to be filled further, or for the commit.
  [[nodiscard]] bool holds_buffer() const noexcept {
    return uses_buffers() && (bounce_.data != nullptr || !places_out_.empty());
  }

  /// CRC32C of everything received; only when nothing is left.
  [[nodiscard]] std::uint32_t crc32c() const noexcept;
  /// True when it stopped needing payload because something failed: result() says what.
  [[nodiscard]] bool failed() const noexcept { return result_ != wire::status::ok; }

  /// As if begin() had been told so; before commit().
  void demand_absence() noexcept;
  /// Everything has arrived and was found right: make it visible, not later than `deadline_ns`.
  void commit(std::uint64_t deadline_ns);
  /// Give everything back. finished() at once unless parts are being prepared.
  void abort(wire::status why);

  void allocated(const extent_put_ptr& put);
  void stored(const extent_put_ptr& put);
  void drive_down(std::uint32_t drive);

  /// No answer is outstanding and the outcome is known.
  [[nodiscard]] bool finished() const noexcept { return finished_; }
  [[nodiscard]] wire::status result() const noexcept { return result_; }
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }

private:
  enum class stage : std::uint8_t { none, allocating, ready, storing, stored, failed };
  struct extent {
    std::uint32_t drive = 0;
    stage now = stage::none;
    extent_put_ptr put;
    std::shared_ptr<void> memory;     // memory drives: keeps the place reserved and mapped; else null
    std::vector<payload_slice> early; // pieces that came before there was space for them
  };

  void allocate_ahead();
  void flush_piece(extent& into, bool end_of_extent);
  void begin_commit_of(extent& which);
  void look_for_incomplete(extent_put& put);
  void take_outcome(extent& which);
  void settle();
  void clean_up();
  void sum_later(extent& of, std::span<const std::byte> bytes);
  void sum_rest(extent& of);
  void take_checksums(extent& of, std::span<const std::byte> bytes);
  void end_checksums(extent& of);
  void send_piece(extent& into, payload_slice piece);
  struct place_out {
    place where;
    std::size_t extent = 0;
    std::uint32_t offset = 0; // in the extent
    bool filled = false;
  };

  drive_client& client_;
  std::uint64_t request_;
  std::uint32_t item_;
  std::uint64_t length_ = 0, received_ = 0;
  std::uint32_t extent_bytes_max_ = 0;
  bool small_ = false;
  std::vector<extent> extents_;
  std::size_t current_ = 0;                // extent that is being filled
  std::uint32_t filled_ = 0;               // bytes in it
  std::size_t span_ = 0, span_filled_ = 0; // memory: where in put->place
  payload_slice bounce_;                   // the slice or chunk that is being filled
  std::uint32_t bounce_filled_ = 0, bounce_sent_ = 0;
  std::uint32_t chunk_crc_ = 0, chunk_filled_ = 0;
  std::uint32_t value_crc_ = 0;
  std::span<const std::byte> unsummed_; // of what arrived last: what sum_later() put off
  std::span<std::byte> room_;
  std::vector<place_out> places_out_; // in the order of the value
  std::uint32_t places_taken_ = 0;    // and gone from there
  std::uint64_t placed_ = 0;          // bytes that were given a place
  bool waits_for_buffer_ = false;
  std::size_t early_ = 0; // pieces in all extents
  bool committing_ = false;
  bool head_sent_ = false;
  bool cleaned_ = false;
  bool finished_ = false;
  std::uint64_t deadline_ns_ = 0;
  wire::status result_ = wire::status::ok;
  std::uint64_t generation_ = 0;
};

} // namespace memkv::actors
