// The index of one drive: which blocks are there, and where.
//
// Operation. Entries of 64 bytes lie in slabs and are named by a 32-bit handle. Tables of handles, sharded by
// the top bits of the id, find them; a table position grows with the id, so a range of ids can be visited in
// order (tree pages are written that way).
//
// Threading contract: exactly one thread, the drive's, inserts, replaces and removes, and owns the recency
// links. Any thread may find(), pin() and release(): a pin keeps the entry and its extent from being reused.
// Each shard has a lock that is held for a few instructions only. Recency is one bit in the entry, set by
// find_and_pin. Memory: at most entry_bytes + table_bytes_per_entry for each block, see engine/limits.hpp; it
// grows in slabs and never shrinks. Ids are uniform parts of a SHA-256. Whoever grinds keys until their ids
// share their leading bits gets his insertion refused (busy) once probe_max of them stand in a row; no
// look-up walks further than that.
#pragma once

#include "engine/errc.hpp"
#include "wire/key_id.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace memkv::engine {

using wire::key_id;
using entry_handle = std::uint32_t;
constexpr entry_handle no_entry = 0xFFFFFFFF;

/// 64 bytes; written by the drive's thread only, except `state` and the recency bit.
struct block_entry {
  key_id id;
  std::uint64_t generation = 0;        // order of commits on this server
  std::uint64_t put_id = 0;            // joins the parts of a striped value; 0 when there is one part
  std::uint32_t value_length = 0;      // of the whole value (heads), of the part (parts)
  std::uint32_t first_unit = 0;        // of the first run
  std::uint32_t header_page = 0;       // 4 KiB page of the data region that holds the extent's header
  std::uint32_t header_crc32c = 0;     // of that page: finds lost and misdirected writes
  std::atomic<std::uint32_t> state{0}; // pins, and the dead bit
  entry_handle previous = no_entry, next = no_entry; // recency list, of the drive's thread
  std::atomic<std::uint8_t> recency{0};              // recency_bit
  std::uint8_t flags = 0;                            // entry_flag
  std::uint16_t units = 0; // the extent's units, without a header page that lies elsewhere
};
static_assert(sizeof(block_entry) == 64);

enum entry_flag : std::uint8_t {
  entry_fragmented = 1, // more than one run: the list is in the header page and in the store's side table
  entry_part = 2,       // part 1 and up of a striped value
  entry_striped = 4,    // head of a striped value
};

/// Bits of block_entry::recency: the first is set by readers, the others belong to the eviction order.
enum recency_bit : std::uint8_t {
  recency_touched = 1,   // hit since the eviction order last looked
  recency_ordered = 2,   // linked into the eviction order
  recency_protected = 4, // in its protected segment
};

/// Bit of block_entry::state: unlinked and retired; the other 31 bits count pins.
constexpr std::uint32_t state_dead = 0x80000000;

class block_index;

/// Holds an entry: its fields that describe the block do not change, its extent is not reused. Movable;
/// releases when destroyed. Any thread.
class block_pin {
public:
  block_pin() = default;
  block_pin(block_pin&& other) noexcept;
  block_pin& operator=(block_pin&& other) noexcept;
  block_pin(const block_pin&) = delete;
  block_pin& operator=(const block_pin&) = delete;
  ~block_pin() { release(); }
  void release() noexcept;
  [[nodiscard]] explicit operator bool() const noexcept { return index_ != nullptr; }
  [[nodiscard]] const block_entry& operator*() const noexcept;
  [[nodiscard]] const block_entry* operator->() const noexcept { return &**this; }
  [[nodiscard]] entry_handle handle() const noexcept { return handle_; }

private:
  friend class block_index;
  block_index* index_ = nullptr;
  entry_handle handle_ = no_entry;
};

class block_index {
public:
  /// `entries_max`: insertions beyond it answer busy. Slabs are allocated as they are needed.
  explicit block_index(std::uint32_t entries_max);
  ~block_index();

  // Any thread.
  /// Finds and pins; sets the recency bit. Empty when absent.
  [[nodiscard]] block_pin find_and_pin(const key_id& id) noexcept;
  /// True and the length if present; no pin. `touch` sets the recency bit.
  [[nodiscard]] bool contains(const key_id& id, std::uint32_t& value_length, std::uint64_t& generation,
                              bool touch) noexcept;
  [[nodiscard]] std::uint64_t size() const noexcept;

  // The drive's thread only.
  /// Makes tables for so many blocks in all. To be called before many ids are inserted in ascending order: in
  /// tables that grow meanwhile they would stand in one row, far from their places. Without memory for it
  /// they grow as ever.
  void reserve(std::uint64_t blocks) noexcept;
  /// Inserts a copy of `fields` (without links, pins and recency), or replaces the entry of the same id:
  /// `replaced` is then the old handle, unlinked, to be retired by the caller; else no_entry. busy:
  /// entries_max, no memory, or too many ids in a row.
  [[nodiscard]] errc insert(const block_entry& fields, entry_handle& inserted, entry_handle& replaced);
  [[nodiscard]] entry_handle find(const key_id& id) const noexcept;
  [[nodiscard]] block_entry& at(entry_handle handle) noexcept;
  [[nodiscard]] const block_entry& at(entry_handle handle) const noexcept;
  /// Takes the entry out of the table; no new pins. The caller retires it.
  void unlink(entry_handle handle) noexcept;
  /// Marks an unlinked entry dead. True: nobody pins it, free() it now. False: the last release calls the
  /// reclaim hook.
  [[nodiscard]] bool retire(entry_handle handle) noexcept;
  void free(entry_handle handle) noexcept;
  /// Called, from any thread, with a dead entry whose last pin went: it must hand the handle to the drive's
  /// thread. To be set before the first pin.
  void set_reclaim_hook(std::function<void(entry_handle)> hook);
  /// Visits live entries with first <= id <= last in ascending order of id. The visitor must not insert or
  /// unlink.
  void visit(const key_id& first, const key_id& last, const std::function<void(entry_handle)>& visitor) const;

  /// Slabs, tables and locks, without the heap's own bookkeeping. Any thread.
  [[nodiscard]] std::uint64_t memory_bytes() const noexcept;

  block_index(const block_index&) = delete;
  block_index& operator=(const block_index&) = delete;

private:
  friend class block_pin;
  void release(entry_handle handle) noexcept;
  struct implementation;
  std::unique_ptr<implementation> impl_;
};

} // namespace memkv::engine
