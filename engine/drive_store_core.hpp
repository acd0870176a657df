// The implementation of drive_store: its state, and its parts in five files.
//
//   drive_store.cpp  space, puts, removals, eviction, closing
//   block_read.cpp   reading and comparing what lies on the drive
//   checkpoint.cpp   journal batches and checkpoints
//   recovery.cpp     formatting, opening
//   tree_recovery.cpp  reading the tree
//
// Order of things. Changes (intents) queue in the order in which they were asked for; those whose data and
// header pages are written become the next journal batch, one batch at a time. Those of one key stay in
// order; those of others pass what still waits for its data. Only when the batch is as durable as the policy
// asks are its changes made in the index, its callbacks called, and the extents it freed given back.
#pragma once

#include "engine/age_samples.hpp"
#include "engine/allocator.hpp"
#include "engine/drive_io.hpp"
#include "engine/drive_store.hpp"
#include "engine/entry_extras.hpp"
#include "engine/eviction.hpp"
#include "engine/extent_check.hpp"
#include "engine/extent_header.hpp"
#include "engine/journal_batch.hpp"
#include "engine/known_headers.hpp"
#include "engine/part_order.hpp"
#include "engine/superblock.hpp"
#include "engine/tree.hpp"
#include "engine/tree_proof.hpp"
#include "engine/trim_backlog.hpp"

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace memkv::engine {

namespace limits {
/// Allocations that wait for space; beyond it they are answered busy.
inline constexpr std::size_t waiting_allocations_max = 1024;
/// Space handed out and neither committed nor abandoned; beyond it allocations are answered busy.
inline constexpr std::size_t reservations_max = 65536;
/// How long an allocation waits for others to commit or to give back what they hold, when nothing can be
/// evicted.
inline constexpr std::uint64_t allocation_wait_ns_max = 1'000'000'000;
/// Changes that wait for their data and are passed by later ones of other keys.
inline constexpr std::size_t passed_intents_max = 32;
/// Tree and bitmap pages a checkpoint has in flight.
inline constexpr std::size_t checkpoint_writes_max = 8;
} // namespace limits

/// Where an extent lies.
struct extent_space {
  std::vector<run> runs;
  std::uint16_t units = 0;
  std::uint32_t header_page = 0;
  bool header_apart = false; // in a unit of header pages
};

class drive_store_core final : public drive_store {
public:
  drive_store_core(block_device& device, const store_options& options, clock& time, const superblock& super);
  ~drive_store_core() override;

  /// Reads tree and journal, makes the index and the space from them, and writes what recovery changed.
  status recover();
  /// Writes one copy of the superblock as it is, durably.
  [[nodiscard]] errc write_superblock_now(std::uint8_t copy);
  /// Marks the superblock as in use, durably, before the first change.
  status begin_use();
  /// Blocks that may live at once.
  [[nodiscard]] static std::uint32_t entries_max(const store_options& options,
                                                 const layout& places) noexcept {
    return options.blocks_max == 0 ? places.units : std::min(options.blocks_max, places.units);
  }
  static void fill_new_superblock(superblock& super, const store_options& options, std::uint64_t now_ns);
  static status format_with(drive_io& io, superblock& super);
  void note(std::string text);
  [[nodiscard]] const std::string& notes() const noexcept { return notes_; }
  void count_bad_superblock() { bump(counters_.bad_superblocks); }
  void count_power_loss() { bump(counters_.emptied_by_power_loss); }

  void allocate(const put_description& what, allocated callback) override;
  void write(std::uint64_t token, std::uint32_t offset, std::span<std::byte> data, done callback) override;
  void commit(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c, bool if_absent,
              std::uint64_t deadline_ns, committed callback) override;
  void prepare(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c, done callback) override;
  void abandon(std::uint64_t token) override;
  void erase(const key_id& id, std::uint64_t generation, done callback) override;
  void drop_damaged(const key_id& id, std::uint64_t generation) override;
  void evict(std::uint64_t bytes) override;
  void enter_epoch(std::uint64_t epoch, const drive_members& members, done callback) override;
  std::uint64_t set_epoch() const noexcept override { return super_.set_epoch; }
  const failure_registry& failures() const noexcept override { return super_.failures; }
  void begin_trimming() override;
  std::vector<device_range> take_trim() override;
  void trimmed(bool done) override;
  std::uint64_t untrimmed_bytes() const noexcept override;
  std::vector<orphan> take_orphans() override;
  void read(const block_pin& pin, std::string_view name_space, std::span<const std::byte> key,
            std::uint32_t offset, std::uint32_t length, std::span<std::byte> into,
            read_done callback) override;
  block_index& index() noexcept override { return *index_; }
  errc view(const block_pin& pin, std::string_view name_space, std::span<const std::byte> key,
            extent_view& out) const override;
  bool read_resident(const block_pin& pin, std::string_view name_space, std::span<const std::byte> key,
                     std::uint32_t offset, std::uint32_t length, extent_view& out) const override;
  void reclaim() override;
  void tick() override;
  bool poll(bool wait) override;
  bool idle() const noexcept override;
  status close() override;
  store_counters counters() const noexcept override;
  std::uint64_t space_of(const block_entry& entry) const noexcept override {
    return std::uint64_t{entry.units} * places_.unit_bytes + page_bytes;
  }
  std::uint64_t memory_bytes() const override;
  const set_identity& identity() const noexcept override { return super_.set; }
  std::vector<recovered_part> take_recovered_parts() override;

private:
  struct atomic_counters {
    std::atomic<std::uint64_t> used_bytes{0}, evicted_blocks{0}, evicted_bytes{0}, corrupt_blocks{0},
        io_errors{0}, checkpoints{0}, journal_batches{0}, journal_records{0}, journal_used_bytes{0},
        recovered_blocks{0}, replayed_records{0}, dropped_at_recovery{0}, bad_superblocks{0},
        bad_tree_pages{0}, bad_bitmap_pages{0}, journal_holes{0}, torn_tails{0}, emptied_by_power_loss{0},
        evicted_at_watermark{0}, evicted_for_space{0}, evicted_for_room{0}, evicted_age_ns{0},
        evicted_age_sum_ns{0}, ghost_hits{0};
    std::atomic<bool> offline{false}, settled{false};
  };
  static void bump(std::atomic<std::uint64_t>& counter, std::uint64_t by = 1) {
    counter.fetch_add(by, std::memory_order_relaxed);
  }

  struct held_space {
    put_description what; // its views point into the two copies below
    std::string name_space;
    std::vector<std::byte> key;
    extent_space space;
    std::uint32_t writes = 0; // in the device
    bool abandoned = false;
    bool failed = false;
  };

  struct waiting_allocation {
    put_description what;
    std::string name_space;
    std::vector<std::byte> key;
    allocated callback;
    std::uint64_t since_ns = 0;
  };

  struct intent {
    entry_record record;
    extent_space space; // put
    std::unique_ptr<aligned_bytes> header;
    committed on_committed; // put
    done on_done;           // prepare, erase
    std::uint64_t deadline_ns = 0;
    std::uint64_t only_generation = 0; // erase
    std::uint32_t freeing_units = 0;   // counted in freeing_units_ until applied
    entry_handle unlinked = no_entry;  // out of the index already, its space not yet free
    std::uint32_t writes = 0;         // of payload and of the header page, in the device
    std::uint32_t payload_writes = 0; // of these, those of payload
    bool ready = false;       // nothing of it is
    bool evicted = false;
    [[nodiscard]] bool is_erase() const noexcept { return record.kind == record_kind::erase; }
  };
  using intent_ptr = std::unique_ptr<intent>;

  struct pending_change {
    std::uint32_t intents = 0;
    std::uint64_t generation = 0; // highest that a queued put of this id has
    bool last_is_put = false;
  };

  enum class checkpoint_phase : std::uint8_t {
    none,
    pages,  // tree pages are made and written
    bitmap, // bitmap pages are
    flush_pages,
    first, // superblock copy 0
    flush_first,
    second, // superblock copy 1
    flush_second,
    finished
  };

  /// A page that its parent names, and the last id it is responsible for.
  struct meant_page {
    tree_child child;
    key_id last;
  };
  /// An inner page that is damaged, and before which page of the level below its children stand.
  struct lost_page {
    meant_page meant;
    std::size_t place = 0;
  };

  // Space.
  [[nodiscard]] std::uint64_t entries_taken() const noexcept;
  [[nodiscard]] errc take_space(std::uint32_t length, extent_space& out);
  void give_space(const extent_space& space);
  [[nodiscard]] std::vector<run> stored_runs(entry_handle handle) const;
  [[nodiscard]] extent_space space_of(entry_handle handle) const;
  [[nodiscard]] std::uint32_t device_page_of(const extent_space& space, std::uint64_t page) const;
  void space_changed(std::span<const run> runs);
  [[nodiscard]] reservation reserve(put_description what, std::string name_space, std::vector<std::byte> key,
                                    extent_space space);
  void pump_waiting();
  /// `reason` is the counter of why.
  [[nodiscard]] bool evict_one(std::atomic<std::uint64_t>& reason);
  void free_units_until(std::uint64_t units, std::atomic<std::uint64_t>& reason);
  void release(std::uint64_t token);

  // Changes.
  [[nodiscard]] std::uint64_t next_generation();
  void put(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c, bool if_absent,
           std::uint64_t deadline_ns, committed on_committed, done on_done);
  void queue_erase(const key_id& id, std::uint64_t generation, bool only_that, bool evicted,
                   std::uint32_t freeing_units, done callback);
  void queue(intent_ptr change);
  void one_write_done(intent& change);
  void answer(intent& change, errc result);
  void unpend(const intent& change);
  [[nodiscard]] errc apply(intent& change, std::uint64_t batch);
  [[nodiscard]] errc apply_put(intent& change, std::uint64_t batch);
  [[nodiscard]] errc apply_erase(intent& change, std::uint64_t batch);
  void leave_order(entry_handle handle);
  void let_go(entry_handle handle, std::uint64_t batch);
  void dispose(entry_handle handle);
  void free_entry(entry_handle handle);
  void orphan_parts(entry_handle handle);
  /// Parts of a striped block that lie here need nobody else to be removed.
  void erase_own_parts(entry_handle head);
  [[nodiscard]] entry_record record_of(entry_handle handle) const;
  [[nodiscard]] std::size_t record_bytes(entry_handle handle) const;
  void drop_corrupt(entry_handle handle);
  /// Whether it is dropped: not on a drive that fails altogether.
  [[nodiscard]] bool drop_unreadable(entry_handle handle);
  void go_offline();

  // Journal and checkpoints.
  [[nodiscard]] bool pump_journal();
  [[nodiscard]] std::optional<std::uint64_t> journal_room(std::uint32_t length) const;
  void write_batch(std::uint64_t offset);
  void batch_written(errc result);
  void batch_done();
  [[nodiscard]] bool pump_checkpoint();
  void begin_checkpoint();
  /// Without sync: begins to make everything durable when nothing has changed for a while.
  void settle_if_idle();
  [[nodiscard]] bool nothing_under_way() const noexcept;
  /// The superblock says, or is about to say, that the drive was closed in order: no change may be written.
  [[nodiscard]] bool marked_clean() const noexcept {
    return super_.clean || (phase_ >= checkpoint_phase::first && publishing_.clean);
  }
  /// Begins to take that mark away.
  void begin_unmarking();
  /// An epoch is durable whatever the policy: of the drives that outlast a power cut the settled ones must
  /// not pass for up to date.
  [[nodiscard]] bool flushes_checkpoint() const noexcept {
    return flushes() || settling_ || unmarking_ || !epoch_writing_.empty();
  }
  void publish(std::uint8_t copy, checkpoint_phase to);
  void finish_checkpoint();
  [[nodiscard]] bool write_bitmap_pages();
  void fill_bitmap_page(std::uint32_t page, std::span<std::byte> to) const;
  void next_phase(errc result, checkpoint_phase to);
  [[nodiscard]] bool flushes() const noexcept { return options_.sync == sync_policy::always || recovering_; }
  [[nodiscard]] errc write_superblocks_now();
  [[nodiscard]] status checkpoint_now();
  [[nodiscard]] std::uint64_t journal_used() const noexcept;

  // Reading.
  [[nodiscard]] extent_expectation expectation(const block_entry& entry) const;
  [[nodiscard]] errc compare_mapped(const block_entry& entry, std::string_view name_space,
                                    std::span<const std::byte> key, std::uint32_t offset,
                                    std::uint32_t length, bool verify, extent_view& out) const;
  /// The same of a file, whose mapping may fail under the reader: io_error. `only_resident`: busy when a page
  /// would have to be fetched.
  [[nodiscard]] errc read_mapped_file(const block_entry& entry, std::string_view name_space,
                                      std::span<const std::byte> key, std::uint32_t offset,
                                      std::uint32_t length, bool only_resident, extent_view& out) const;
  struct device_read;
  void begin_read(const std::shared_ptr<device_read>& reading);
  /// Sets the header if it is known, or reads it: then it counts as one of what is left.
  void read_header(const std::shared_ptr<device_read>& reading);
  void finish_read(const std::shared_ptr<device_read>& reading);

  // Recovery.
  status load_tree();
  status load_level(std::uint8_t level, const std::vector<meant_page>& pages, std::vector<meant_page>& below);
  [[nodiscard]] bool load_page(std::uint8_t level, const meant_page& meant, std::span<const std::byte> bytes,
                               std::vector<meant_page>& below, status& refused);
  static void append_children(const std::vector<tree_child>& children, const key_id& last,
                              std::vector<meant_page>& to);
  /// Adds the children of damaged inner pages of one level that can be proven.
  void prove_lost(std::uint8_t level, const std::vector<lost_page>& lost, std::vector<meant_page>& below);
  [[nodiscard]] std::vector<tree_page_facts> sweep_tree(std::uint8_t level,
                                                        const std::vector<lost_page>& lost);
  status replay();
  [[nodiscard]] errc replay_record(const entry_record& record, std::uint64_t batch, bool must_verify);
  void release_recovered(entry_handle handle);
  void forget_unproven(std::uint64_t first, std::uint64_t last, const journal_batch& next);
  void drop_entry(entry_handle handle, std::uint64_t batch);
  [[nodiscard]] bool insert_recovered(const entry_record& record);
  void rebuild_space();
  void check_bitmap();

  block_device& device_;
  store_options options_;
  clock& time_;
  superblock super_;
  const engine::identity format_id_, drive_id_; // of super_, for any thread
  layout places_;
  drive_io io_;
  std::span<const std::byte> mapping_;
  std::span<std::byte> writable_;
  std::unique_ptr<block_index> index_;
  unit_allocator units_;
  header_page_allocator headers_;
  std::unique_ptr<eviction_policy> policy_;
  age_samples ages_;
  entry_extras extras_;
  std::optional<part_order> parts_;          // evicted only when nothing else can be
  std::unordered_set<entry_handle> leaving_; // chosen as victims, their removal is on its way
  std::uint32_t entries_max_ = 0; // see entries_max()
  /// While the tree is read: leaves with records that found no entry, and how many bytes these are.
  std::vector<std::pair<key_id, std::size_t>> surplus_;
  const header_extent covered_;

  std::unordered_map<std::uint64_t, held_space> reservations_;
  std::unordered_map<std::uint64_t, intent*> committing_; // whose payload is still being written, by token
  std::uint64_t next_token_ = 1;
  std::deque<waiting_allocation> waiting_;
  std::uint64_t freeing_units_ = 0; // of extents whose removal is queued or that are only kept by a pin
  std::unordered_map<entry_handle, std::uint32_t> kept_by_pins_;
  bool pumping_waiting_ = false;

  std::optional<trim_backlog> trim_; // while the device is told what to forget
  std::vector<run> trimming_;        // the batch that is out
  std::uint64_t trimming_units_ = 0;
  bool trimmed_before_ = false; // at opening, all free space was known to be discarded

  std::deque<intent_ptr> intents_;
  std::size_t ready_intents_ = 0; // of these
  std::unordered_map<key_id, pending_change> pending_;
  std::uint64_t own_generation_ = 0;

  struct live_batch {
    std::uint64_t sequence = 0, offset = 0;
    std::uint32_t length = 0;
  };
  std::deque<live_batch> live_batches_; // not yet covered by a published checkpoint
  std::uint64_t journal_head_ = 0;      // offset within the region
  std::uint32_t batch_bytes_max_ = 0;
  std::uint64_t next_batch_ = 1;
  std::uint64_t applied_ = 0; // last batch whose changes are in the index
  bool batch_running_ = false;
  bool recovering_ = false; // everything is flushed, whatever the policy
  std::uint32_t batch_length_ = 0;
  std::vector<intent_ptr> batch_;
  std::vector<std::uint64_t> echo_;
  journal_batch_writer batch_writer_;
  aligned_bytes batch_bytes_;

  std::optional<tree> tree_;
  checkpoint_phase phase_ = checkpoint_phase::none;
  bool phase_waits_ = false;
  bool checkpoint_wanted_ = false;
  bool settling_ = false;  // the checkpoint that runs is flushed, and ends in the clean mark if it can
  bool unmarking_ = false; // only superblocks are written, to take the mark away
  std::uint64_t changed_ns_ = 0; // when there was something to do that may change the drive; 0: long ago
  std::size_t checkpoint_writes_ = 0;
  bool pages_complete_ = false;
  superblock publishing_;
  std::vector<done> epoch_waits_;   // for the next checkpoint that begins
  std::vector<done> epoch_writing_; // for the one that runs
  std::vector<bool> bitmap_dirty_;
  std::uint32_t bitmap_cursor_ = 0;
  aligned_pool pages_{page_bytes};
  known_headers known_headers_; // only where the device is not mapped
  std::unordered_map<std::uint32_t, std::vector<std::shared_ptr<device_read>>> header_reads_; // by page

  std::vector<orphan> orphans_;
  std::vector<recovered_part> recovered_parts_;
  std::mutex reclaim_mutex_;
  std::vector<entry_handle> reclaimable_; // under reclaim_mutex_
  std::atomic<bool> reclaim_waits_{false};

  std::uint64_t proven_tree_pages_ = 0; // damaged, and found again in the pages below
  std::string notes_;
  bool closed_ = false;
  mutable atomic_counters counters_;
};

/// What opening answers about a structure of a later release, and about a device that failed.
[[nodiscard]] status newer_structure(const char* what, unsigned ours);
[[nodiscard]] status io_failed(const char* doing);

/// Fills with bytes of the kernel's generator.
void fill_random(std::span<std::byte> out);

/// The layout of a drive without metadata.
[[nodiscard]] layout memory_layout(std::uint64_t device_bytes, std::uint32_t unit_bytes,
                                   std::uint32_t extent_bytes_max);

} // namespace memkv::engine
