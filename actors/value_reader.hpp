// A stored value being read, piece by piece, for one get or one item of a batch.
//
// Operation. open() looks the key up and pins the head of the value and the extents that the range lies in,
// so that all bytes come from one put: the head names the put that its parts are found by. Memory is read
// where it lies; other drives are asked for verified ranges, a few ahead. Pieces come in order, each with its
// CRC32C, which for whole chunks is put together from the stored sums without touching the bytes. Threading:
// REACTOR's thread. Ownership: the pieces point into the drives' memory or into buffers of the pool, and each
// holds what it points into. Errors: as wire::status; corrupt means that the block was dropped and is a miss
// from now on.
#pragma once

#include "actors/drive_table.hpp"
#include "actors/lease_ledger.hpp"
#include "actors/messages.hpp"
#include "wire/status.hpp"

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::actors {

/// What a value_reader or value_writer needs of its REACTOR.
class drive_client {
public:
  virtual ~drive_client() = default;
  [[nodiscard]] virtual drive_table& drives() noexcept = 0;
  [[nodiscard]] virtual caf::actor as_actor() = 0;
  /// Space for `put`, or its commit. True: it is answered already, as is usual for memory, where this REACTOR
  /// takes the drive's turn. False: extent_allocated or extent_stored comes.
  [[nodiscard]] virtual bool allocate(std::uint32_t drive, const extent_put_ptr& put) = 0;
  [[nodiscard]] virtual bool commit(std::uint32_t drive, const extent_put_ptr& put) = 0;
  virtual void send_to_drive(std::uint32_t drive, const read_extent& message) = 0;
  virtual void send_to_drive(std::uint32_t drive, const store_extent& message) = 0;
  virtual void send_to_drive(std::uint32_t drive, const write_extent& message) = 0;
  virtual void send_to_drive(std::uint32_t drive, const abandon_extent& message) = 0;
  virtual void send_to_drive(std::uint32_t drive, const erase_block& message) = 0;
  /// Room for `bytes` of payload in a chunk that others share, or empty: the pool is exhausted, try again
  /// later.
  [[nodiscard]] virtual payload_slice small_slice(std::uint32_t bytes) = 0;
  /// The most that small_slice() gives.
  [[nodiscard]] virtual std::uint32_t slice_bytes_max() const noexcept = 0;
  /// A whole chunk of the pool, or empty.
  [[nodiscard]] virtual payload_slice chunk() = 0;
  /// Room for `bytes` of payload to be read into: a slice, or where it is too long for one, a chunk of its
  /// own. Empty: the pool is exhausted.
  [[nodiscard]] virtual payload_slice read_room(std::uint32_t bytes) = 0;
  /// The most that read_room() gives; a multiple of 64 KiB.
  [[nodiscard]] virtual std::uint32_t read_room_max() const noexcept = 0;
  /// What was read of the extent of that generation before, and is still in memory. False: nothing is.
  [[nodiscard]] virtual bool recall(std::uint64_t generation, extent_read& read) = 0;
  /// A read has come back: others may have it from memory.
  virtual void remember(std::uint64_t generation, const extent_read& read) = 0;
  /// The request is told, by buffers_there(), when it is worth trying again.
  virtual void wait_for_room(std::uint64_t request) = 0;
  [[nodiscard]] virtual std::uint32_t extent_bytes_max() const noexcept = 0;
  [[nodiscard]] virtual std::uint64_t next_put_id() noexcept = 0;
  /// The block is about to be written or deleted: a drive that is away must not bring it back.
  virtual void note_change(const wire::key_id& id) noexcept = 0;
  /// A block was met of which a part is gone for good, and is being dropped.
  virtual void count_incomplete_block() noexcept {}
  /// A reader met a block that is not as it was stored, or that cannot be read; it is being dropped.
  virtual void count_corrupt_block() noexcept {}
};

class value_reader {
public:
  struct piece {
    wire::status status = wire::status::ok;
    std::uint64_t offset = 0; // in the value
    std::uint32_t bytes = 0;
    std::uint32_t crc32c = 0;
    std::vector<std::span<const std::byte>> spans;
    std::shared_ptr<void> keep; // holds the memory that `spans` point into
    bool last = false;
  };

  value_reader(drive_client& client, std::uint64_t request, std::uint32_t item);

  /// ok, not_found, out_of_range, buffer_too_small, corrupt. `piece_bytes_max`: multiple of 64 KiB. A striped
  /// block of which a part in the range is gone for good is dropped; of others nobody finds out.
  [[nodiscard]] wire::status open(std::string_view name_space, std::span<const std::byte> key,
                                  std::uint64_t range_offset, std::uint64_t range_length,
                                  std::uint64_t capacity, std::uint32_t piece_bytes_max);

  /// What `of` has opened, whatever became of its key since: the pins are shared. ok, out_of_range (also when
  /// the range ends behind the value). `range_length`: at least 1.
  [[nodiscard]] wire::status open_as(const value_reader& of, std::uint64_t range_offset,
                                     std::uint64_t range_length, std::uint32_t piece_bytes_max);

  /// What next() gave last is not what was stored: the block is dropped, and this is the piece to send in its
  /// place. Nothing comes after it.
  [[nodiscard]] piece spoil();

  [[nodiscard]] std::uint64_t value_length() const noexcept { return value_length_; }
  [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }
  [[nodiscard]] std::uint64_t bytes_left() const noexcept { return end_ - position_; }
  /// True when next() has something to give.
  [[nodiscard]] bool ready() const noexcept;
  [[nodiscard]] bool finished() const noexcept { return finished_; }
  /// That are pinned.
  [[nodiscard]] std::size_t extents() const noexcept { return extents_->size(); }
  /// Counts what is pinned among what leases pin of each drive, for as long as it is; once. False: they may
  /// pin no more, and nothing was counted.
  [[nodiscard]] bool count_as_lease();
  /// It cannot be had any more; also when all that was asked for had been read.
  [[nodiscard]] bool lost() const noexcept { return failed_ != wire::status::ok; }
  /// Nothing was asked of a drive, for lack of room to read into.
  [[nodiscard]] bool waits_for_room() const noexcept {
    return windows_.empty() && !finished_ && failed_ == wire::status::ok && planned_ < end_;
  }
  /// The next piece; only when ready(). A piece with a status other than ok is the last.
  [[nodiscard]] piece next();

  /// The answer to a read this object asked for.
  void was_read(const extent_read_ptr& read);
  /// The drive is gone: what was not read yet fails. Memory stays readable.
  void drive_down(std::uint32_t drive);
  /// Goes on after there was no room to read into.
  void buffers_there() { look_ahead(); }

private:
  struct extent {
    std::uint32_t drive = 0;
    std::shared_ptr<drive_body> body;
    engine::block_pin pin;
    lease_ledger::hold leased; // goes before the pin
    std::uint64_t begin = 0; // in the value
    std::uint32_t length = 0;
    engine::extent_view view; // memory: of the whole extent
    bool viewed = false;
  };
  struct window { // a range of one extent that is being read, or was
    std::size_t extent = 0;
    std::uint64_t begin = 0, end = 0; // in the value: what of it is wanted
    extent_read_ptr read;             // null: memory
    bool done = false;
    wire::status status = wire::status::ok;
  };

  struct range {
    std::uint64_t offset = 0, length = 0, capacity = 0;
  };
  [[nodiscard]] wire::status pin_range(std::string_view name_space, std::span<const std::byte> key,
                                       const range& wanted);
  [[nodiscard]] wire::status look_into(extent& one, std::string_view name_space,
                                       std::span<const std::byte> key);
  [[nodiscard]] bool replaced_meanwhile(const wire::key_id& id);
  void note_damage() noexcept;
  void drop_damaged();
  void drop_incomplete(const wire::key_id& id);
  void look_ahead();
  [[nodiscard]] std::size_t windows_wanted() const noexcept;
  /// False: there was no room to read into, and nothing was asked.
  [[nodiscard]] bool ask_drive(window& range, std::uint32_t low, std::uint32_t length);
  [[nodiscard]] std::size_t extent_at(std::uint64_t offset) const noexcept;
  void fail(wire::status status) noexcept;

  drive_client& client_;
  std::uint64_t request_;
  std::uint32_t item_;
  std::string name_space_;
  std::vector<std::byte> key_;
  std::uint64_t value_length_ = 0, generation_ = 0;
  std::uint64_t position_ = 0, end_ = 0, planned_ = 0;
  std::uint32_t piece_bytes_max_ = 1 << 20;
  bool finished_ = false;
  bool empty_range_ = false;
  bool part_missing_ = false; // of the head that was pinned last
  bool damaged_ = false;      // counted
  wire::status failed_ = wire::status::ok;
  /// The head, and the parts from first_part_ on. Complete once open() returned; shared with the reads that
  /// drives work on, which may outlive this object.
  std::shared_ptr<std::vector<extent>> extents_ = std::make_shared<std::vector<extent>>();
  std::uint32_t first_part_ = 1;
  std::deque<window> windows_;
};

} // namespace memkv::actors
