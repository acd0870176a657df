// The store on one drive: blocks in extents, an index in memory, and what makes both survive.
//
// Operation. Space is handed out in units of `unit_bytes` (storage.shard_size). A block no larger than
// `extent_bytes_max` (storage.block_size) is one extent: its data in one or more runs of units, and a header
// of one 4 KiB page that names the block and carries a CRC32C for every 64 KiB of data. The header page lies
// directly behind the data where the last unit has room for it, else in a unit shared by header pages only. A
// larger value is striped: each part is an extent on the drive that part_id() is placed on, prepared first;
// committing the head (part 0) makes all of them visible at once.
//
// The index entry is made only after the journal record of the commit is as durable as the drive's policy
// asks. Checkpoints write dirty tree pages all the time, in bounded steps inside poll().
//
// Threading: one thread calls everything here, except what is marked *any thread*. No function blocks on the
// device, except open, format and close. Callbacks run inside poll() or inside the call itself.
// Ownership: the device is lent and outlives the store. Payload memory stays the caller's until the callback.
// Errors: values. After the first failed write or flush the store is offline: everything answers
// errc::offline. Limits: engine/limits.hpp. Does not: evict by itself unless an allocation is short of space;
// know other drives; know time except through clock.
#pragma once

#include "engine/block_device.hpp"
#include "engine/clock.hpp"
#include "engine/drive_members.hpp"
#include "engine/errc.hpp"
#include "engine/failure_registry.hpp"
#include "engine/index.hpp"
#include "engine/run.hpp"
#include "wire/key_id.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::engine {

using wire::key_id;

/// Bytes covered by one stored checksum.
constexpr std::uint32_t chunk_bytes = 64 << 10;

struct set_identity {
  std::array<std::byte, 16>
      set_id{};                  // the drive set; random at first format; also the server's id on the wire
  std::uint32_t drive_index = 0; // place in the set
  std::uint32_t drive_count = 1;
};

enum class sync_policy : std::uint8_t {
  never,  // an acknowledged put survives the death of the process; after a power cut the drive starts empty,
          // unless it was idle
  always, // an acknowledged put survives a power cut
};

/// Failures of a drive that are not in its registry yet, in nanoseconds since 1970-01-01 UTC.
struct drive_failures {
  std::uint32_t count = 0;
  std::uint64_t first_ns = 0, last_ns = 0;
};

struct store_options {
  set_identity identity;
  std::uint32_t unit_bytes = 64 << 10;      // power of two, 4 KiB ... extent_bytes_max
  std::uint32_t extent_bytes_max = 4 << 20; // power of two, 64 KiB ... 32 MiB
  sync_policy sync = sync_policy::never;
  bool persistent = true;    // false: no metadata is written at all (memory)
  bool format_if_new = true; // a device that was never one of ours is formatted; else it is refused
  bool start_empty = false;  // whatever it holds is stale: formatted, with its identity and registry kept
  drive_failures failures;   // noted in the registry when the drive is opened
  bool discarded = false;    // format: the device was told to forget everything, so nothing is left to trim
  std::uint32_t blocks_max = 0; // the index holds at most this many; 0: as many as the drive has units
  /// Without sync: so long after the last change an idle store makes everything durable and marks the drive
  /// as closed in order, until the next change; a power cut then costs nothing. 0: never.
  std::uint64_t settle_after_ns = 5'000'000'000;
  bool verify_on_read = true;
  bool eviction = true;
  double high_watermark = 0.95, low_watermark = 0.90;
  std::array<std::byte, 16> boot_id{}; // of the running kernel: tells a process crash from a power cut
  std::atomic<std::uint64_t>* generation = nullptr; // shared by all drives of the server; recovery raises it
  /// Since when the store waits for its device and does nothing else, as while it is opened: by the steady
  /// clock; 0: it does not. For whoever must not wait for it with it; null: nobody looks.
  std::shared_ptr<std::atomic<std::uint64_t>> waits_since_ns;
  /// Called from any thread when the last pin of a dead block went and its space waits for reclaim(); may be
  /// empty.
  std::function<void()> wake;
};

/// What is to be stored, or one part of it.
struct put_description {
  key_id id;                   // of the block, or part_id() for parts 1 and up
  std::string_view name_space; // both copied
  std::span<const std::byte> key;
  std::uint32_t length = 0;       // bytes of this extent, at most extent_bytes_max
  std::uint64_t value_length = 0; // of the whole value
  std::uint32_t part = 0, parts = 1;
  std::uint64_t put_id = 0; // joins the parts of one put; 0 when parts is 1
};

/// Bytes of the device.
struct device_range {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

/// Space that was handed out and is not yet visible.
struct reservation {
  std::uint64_t token = 0;
  /// Where the payload goes when it can be placed directly (memory): pieces in order, together `length`
  /// bytes. Empty otherwise: then use write().
  std::vector<std::span<std::byte>> place;
};

/// Bytes of a stored extent, verified or carrying their checksums. Valid while the pin is held.
struct extent_view {
  std::vector<std::span<const std::byte>> pieces; // of the whole extent, in order
  std::span<const std::byte> chunk_crc32c;        // one little-endian u32 for each 64 KiB of the extent
  /// Holds the sums when they were copied: a mapped file may fail after it was read.
  std::shared_ptr<const std::vector<std::byte>> sums;
};

struct store_counters {
  std::uint64_t blocks = 0, used_bytes = 0, usable_bytes = 0; // used and usable count units, in bytes
  std::uint64_t evicted_blocks = 0, evicted_bytes = 0, corrupt_blocks = 0, io_errors = 0;
  std::uint64_t checkpoints = 0, journal_batches = 0, journal_records = 0, journal_used_bytes = 0;
  std::uint64_t recovered_blocks = 0, replayed_records = 0, dropped_at_recovery = 0;
  // What recovery found damaged. A hole is a journal batch that is missing while a later one is there.
  std::uint64_t bad_superblocks = 0, bad_tree_pages = 0, bad_bitmap_pages = 0, journal_holes = 0,
                torn_tails = 0;
  std::uint64_t emptied_by_power_loss =
      0; // 1: sync_policy::never, and the power went: nothing could be proven
  bool offline = false;
  bool settled = false; // idle, and everything is durable
  /// Evicted blocks by why: the watermark was passed; a put was short of space; there was space, but in too
  /// many pieces, or the index was full.
  std::uint64_t evicted_at_watermark = 0, evicted_for_space = 0, evicted_for_room = 0;
  /// Since they were stored: of the last block evicted, and of all together. 0: none was.
  std::uint64_t evicted_age_ns = 0, evicted_age_sum_ns = 0;
  std::uint64_t ghost_hits = 0;    // blocks stored again soon after they were evicted
  std::uint64_t journal_bytes = 0; // size of the journal

  /// Goes on from what an earlier incarnation counted: adds what only ever rises, and leaves what describes
  /// the present or the last recovery.
  store_counters& operator+=(const store_counters& earlier) noexcept;
};

class drive_store {
public:
  using done = std::function<void(errc)>;
  using allocated = std::function<void(errc, reservation)>;
  using committed = std::function<void(errc, std::uint64_t generation)>;

  /// Writes an empty store over whatever the device held. The new format id makes all old structures foreign.
  static status format(block_device& device, const store_options& options);

  /// Notes in the registry that the drive is not to be opened any more (errc::blacklisted) until it was
  /// reset. For a drive that is not open. Blocks, perhaps for ever: the drive is a failing one.
  static status blacklist(block_device& device, const drive_failures& failures);

  /// Opens and recovers; formats first when the device has never been one of ours (all zeros where the
  /// superblocks go) or is not persistent. Blocks; bounded by the journal's size and the number of blocks. ok
  /// with a text: it is open, and a person should know what was found (damage, a power loss).
  static status open(block_device& device, const store_options& options, clock& time,
                     std::unique_ptr<drive_store>& out);

  virtual ~drive_store() = default;

  /// Reserves space. May wait for an eviction to become durable. errc: no_space, too_large, offline, busy
  /// (bound of waiting allocations).
  virtual void allocate(const put_description& what, allocated callback) = 0;

  /// Writes payload of a reservation at `offset` of the extent (multiple of 4096; pieces may come in any
  /// order and do not overlap). `data` has a length that is a multiple of 4096 or ends the extent, and room
  /// up to the next multiple of 4096.
  virtual void write(std::uint64_t token, std::uint32_t offset, std::span<std::byte> data, done callback) = 0;

  /// Makes the block visible and durable: all payload was placed or given to write(), whose callbacks may
  /// still be outstanding; `chunk_crc32c` holds one sum for every 64 KiB. For part 0 of a striped put: call
  /// after every other part was prepared. Replaces an older block of the same id atomically. errc:
  /// already_exists (if_absent), deadline_exceeded (clock::steady_ns() > deadline_ns when the record is due
  /// to be journalled; 0 = none), offline. The token is void afterwards.
  virtual void commit(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c, bool if_absent,
                      std::uint64_t deadline_ns, committed callback) = 0;

  /// The same for parts 1 and up: durable, found by part_id(), but void without its head.
  virtual void prepare(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c, done callback) = 0;

  /// Gives a reservation back. Unknown tokens are ignored.
  virtual void abandon(std::uint64_t token) = 0;

  /// Removes a block: not_found, or ok once the removal is as durable as a put. The caller removes the parts
  /// of a striped block. With `generation` other than 0: only if the entry has that generation (eviction, bad
  /// block).
  virtual void erase(const key_id& id, std::uint64_t generation, done callback) = 0;

  /// What read() does with a block that is not as it was stored: a miss from now on, and counted as corrupt.
  /// For who found that out elsewhere. Nothing, unless the entry is there and has that generation.
  virtual void drop_damaged(const key_id& id, std::uint64_t generation) = 0;

  /// Evicts in policy order until `bytes` more than now will be free, those of removals under way included,
  /// or nothing is evictable; durable before the space is used again.
  virtual void evict(std::uint64_t bytes) = 0;
  /// Heads of striped blocks that were evicted or replaced since the last call: their parts on other drives
  /// are to be erased.
  struct orphan {
    key_id id;
    std::uint64_t put_id;
    std::uint32_t parts;
  };
  virtual std::vector<orphan> take_orphans() = 0;

  /// The view's pieces are the range that was asked for; its checksums are those of the whole extent (without
  /// a mapping: valid inside the callback only). Reads `length` bytes at `offset` of a pinned extent, both
  /// multiples of 64 KiB or up to its end, verifies them if options.verify_on_read (or always when `verify`),
  /// and compares the full key. `into` is where to (empty when the device is mapped: then the view points
  /// into the mapping). corrupt: the block was dropped, it is a miss now. unreadable: it is being
  /// dropped, and is a miss once that is durable.
  using read_done = std::function<void(errc, extent_view)>;
  virtual void read(const block_pin& pin, std::string_view name_space, std::span<const std::byte> key,
                    std::uint32_t offset, std::uint32_t length, std::span<std::byte> into,
                    read_done callback) = 0;

  /// *Any thread.* The concurrent index of this drive.
  [[nodiscard]] virtual block_index& index() noexcept = 0;

  /// *Any thread.* Space that a pinned extent takes, its header's page included.
  [[nodiscard]] virtual std::uint64_t space_of(const block_entry& entry) const noexcept = 0;

  /// *Any thread*, memory only (device with writable_mapping): the extent as it lies there, with its key
  /// compared: ok, not_found (other key), corrupt.
  [[nodiscard]] virtual errc view(const block_pin& pin, std::string_view name_space,
                                  std::span<const std::byte> key, extent_view& out) const = 0;

  /// *Any thread*, files only (device with mapping() alone): what read() does, where every page it touches is
  /// in memory already, so that it waits for nothing. False: it is not, or there is something wrong with the
  /// block, of which read() draws the consequences.
  [[nodiscard]] virtual bool read_resident(const block_pin& pin, std::string_view name_space,
                                           std::span<const std::byte> key, std::uint32_t offset,
                                           std::uint32_t length, extent_view& out) const = 0;

  /// Gives the space of dead entries back whose last pin was released elsewhere (see
  /// block_index::set_reclaim_hook).
  virtual void reclaim() = 0;

  // TRIM. Free space is handed out again whether it was discarded or not; only what is being discarded
  // waits.
  /// From now on the device is told what it may forget: begins with all free space if that is not known to be
  /// discarded.
  virtual void begin_trimming() = 0;
  /// The next batch to be discarded, empty when none is due (trim_backlog.hpp) or one is still out. Its space
  /// is not handed out before trimmed().
  [[nodiscard]] virtual std::vector<device_range> take_trim() = 0;
  /// The batch was discarded; or it was not and nobody will do it any more: then it waits again.
  virtual void trimmed(bool done) = 0;
  [[nodiscard]] virtual std::uint64_t untrimmed_bytes() const noexcept = 0;

  /// Called some times a second: looks at what is too dear to be noted with each block, such as the time.
  virtual void tick() = 0;

  /// Moves everything forward: completions, group commit, checkpoint steps. Returns true if something
  /// happened. Never blocks unless `wait`.
  virtual bool poll(bool wait) = 0;
  /// True when poll has nothing to do until a new call or a completion comes.
  [[nodiscard]] virtual bool idle() const noexcept = 0;

  /// Waits for everything in flight, writes a full checkpoint and the clean mark. errc::ok or why it could
  /// not.
  virtual status close() = 0;

  /// *Any thread.*
  [[nodiscard]] virtual store_counters counters() const noexcept = 0;

  /// What is kept in memory for the blocks there are: index, eviction order, free space, ranges of the tree,
  /// and what striped and fragmented blocks need besides. With the heap's own bookkeeping, without buffers.
  /// Takes time in proportion to fragmented blocks.
  [[nodiscard]] virtual std::uint64_t memory_bytes() const = 0;

  /// Notes which epoch of its set the drive takes part in, and with whom; called back when that is as durable
  /// as a put.
  virtual void enter_epoch(std::uint64_t epoch, const drive_members& members, done callback) = 0;
  /// As it was found at opening, or entered since.
  [[nodiscard]] virtual std::uint64_t set_epoch() const noexcept = 0;
  /// As in the registry.
  [[nodiscard]] virtual const failure_registry& failures() const noexcept = 0;

  /// *Any thread.* Whom the drive belongs to. A drive that was opened with a set id of zeros tells its own
  /// here; one that was formatted with zeros drew a random one.
  [[nodiscard]] virtual const set_identity& identity() const noexcept = 0;

  /// Parts of striped blocks (part 1 and up) recovered on this drive, for the check against their heads after
  /// all drives were opened: the caller erases those whose head is absent or of another put.
  struct recovered_part {
    key_id id;
    key_id head;
    std::uint64_t put_id;
  };
  virtual std::vector<recovered_part> take_recovered_parts() = 0;
};

/// The id under which part `part` of a striped put is indexed.
[[nodiscard]] key_id part_id(const key_id& head, std::uint64_t put_id, std::uint32_t part) noexcept;

} // namespace memkv::engine
