// Formatting, opening, and recovery of a drive's store.
#include "engine/bitmap_page.hpp"
#include "engine/drive_store_core.hpp"
#include "engine/journal_scan.hpp"
#include "engine/open_drive.hpp"
#include "engine/superblock_pair.hpp"
#include "wire/assert.hpp"
#include "wire/crc32c.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

namespace memkv::engine {

namespace {

std::span<std::byte, page_bytes> as_page(std::span<std::byte> bytes) {
  return std::span<std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes});
}

std::string number(std::uint64_t value) {
  return std::to_string(value);
}

bool same_place(const set_identity& asked, const set_identity& found) {
  return (asked.set_id == identity{} || asked.set_id == found.set_id) &&
         asked.drive_index == found.drive_index && asked.drive_count == found.drive_count;
}

/// Of two of our own formats the later one, of one format the later state.
bool later(const superblock& one, const superblock& other) {
  return one.formatted_at_ns > other.formatted_at_ns ||
         (one.formatted_at_ns == other.formatted_at_ns && one.sequence > other.sequence);
}

/// Chooses the copy that counts.
status choose_superblock(const superblock_pair& pair, const store_options& options,
                         std::uint64_t device_bytes, int& chosen) {
  chosen = -1;
  if (pair.states[0] == errc::newer_version || pair.states[1] == errc::newer_version)
    return newer_structure("the superblock", superblock_version);
  bool foreign = false;
  for (const int copy : {0, 1}) {
    if (!pair.valid(copy))
      continue;
    const superblock& block = pair.copies[copy];
    if (!same_place(options.identity, block.set)) {
      foreign = true;
      continue;
    }
    if (chosen < 0 || later(block, pair.copies[chosen]))
      chosen = copy;
  }
  if (chosen < 0) {
    if (foreign)
      return {errc::foreign_drive,
              "the drive belongs to another drive set or to another place in this one: correct "
              "storage.drives, or format the drive"};
    if (pair.ours[0] || pair.ours[1])
      return {errc::corrupt, "both superblocks of the drive are damaged: format the drive"};
    return {errc::bad_format,
            "the drive holds something that is not memkv's: choose another one, or format it"};
  }
  switch (check_against(pair.copies[chosen], device_bytes)) {
  case errc::ok:
    break;
  case errc::wrong_size:
    return {errc::wrong_size, "the drive has " + number(device_bytes) + " bytes, its superblock says " +
                                  number(pair.copies[chosen].places.device_bytes) +
                                  ": give it its size back, or format it"};
  default:
    return {errc::corrupt, "the superblock's layout contradicts itself: format the drive"};
  }
  const layout& places = pair.copies[chosen].places;
  if (places.unit_bytes != options.unit_bytes || places.extent_bytes_max != options.extent_bytes_max)
    return {errc::invalid_argument, "the drive was formatted with storage.shard_size " +
                                        number(places.unit_bytes) + " and storage.block_size " +
                                        number(places.extent_bytes_max) +
                                        " (bytes): set these, or format the drive"};
  return {};
}

void raise(std::atomic<std::uint64_t>& shared, std::uint64_t least) {
  std::uint64_t seen = shared.load(std::memory_order_relaxed);
  while (seen < least && !shared.compare_exchange_weak(seen, least, std::memory_order_relaxed)) {
  }
}

key_id id_from_head(std::uint64_t head, std::byte rest) {
  key_id id;
  id.bytes.fill(rest);
  wire::store_le(id.bytes.data(), head);
  return id;
}

} // namespace

status newer_structure(const char* what, unsigned ours) {
  return {errc::newer_version, std::string(what) +
                                   " was written by a later release (this one reads versions up to " +
                                   number(ours) + "): upgrade memkv, or format the drive"};
}

status io_failed(const char* doing) {
  return {errc::io_error, std::string("the device failed while ") + doing + ": look at the kernel's log"};
}

void fill_random(std::span<std::byte> out) {
  std::size_t at = 0;
  while (at < out.size()) {
    const auto got = ::getrandom(out.data() + at, out.size() - at, 0);
    if (got > 0)
      at += static_cast<std::size_t>(got);
  }
}

layout memory_layout(std::uint64_t device_bytes, std::uint32_t unit_bytes, std::uint32_t extent_bytes_max) {
  layout places;
  places.device_bytes = device_bytes;
  places.unit_bytes = unit_bytes;
  places.extent_bytes_max = extent_bytes_max;
  places.units =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(device_bytes / unit_bytes, limits::units_max));
  return places;
}

void drive_store_core::fill_new_superblock(superblock& super, const store_options& options,
                                           std::uint64_t now_ns) {
  fill_random(super.format_id);
  if (super.drive_id == engine::identity{})
    fill_random(super.drive_id);
  super.set = options.identity;
  if (super.set.set_id == engine::identity{})
    fill_random(super.set.set_id);
  super.sync = options.sync;
  super.boot_id = options.boot_id;
  super.clean = true;
  super.sequence = 1;
  super.formatted_at_ns = now_ns;
  super.generation = 0;
  super.journal_tail_sequence = 1;
  super.tree_sequence = 0;
  super.root = {};
  super.root_level = 0;
  super.blocks = 0;
  // A drive that was set up before stays in the epoch it was in: empty is not the same as up to date.
  if (super.members == drive_members{})
    super.members = all_members(super.set.drive_count);
  super.untrimmed = !options.discarded;
}

status drive_store_core::format_with(drive_io& io, superblock& super) {
  const layout& places = super.places;
  aligned_bytes zeros(std::size_t{256} << 10);
  std::memset(zeros.data(), 0, zeros.span().size());
  const auto written = [&](std::uint64_t offset, std::span<std::byte> bytes) {
    return io.write_now(offset, bytes) == errc::ok;
  };
  // The old superblocks go first: from here until the new one is there the drive is empty.
  bool good = written(0, zeros.span().first(page_bytes)) && io.flush_now() == errc::ok &&
              written(places.mirror_offset(), zeros.span().first(page_bytes)) && io.flush_now() == errc::ok;
  for (std::uint64_t at = 0; good && at < places.journal_bytes; at += zeros.span().size())
    good =
        written(places.journal_offset + at,
                zeros.span().first(std::min<std::uint64_t>(zeros.span().size(), places.journal_bytes - at)));
  aligned_bytes page(page_bytes);
  const std::vector<std::byte> bits(bitmap_bits_per_page / 8);
  for (std::uint32_t at = 0; good && at < places.bitmap_pages; ++at) {
    bitmap_page_header header;
    header.format_id = super.format_id;
    header.page = at;
    header.units = std::min(bitmap_bits_per_page, places.units - at * bitmap_bits_per_page);
    header.sequence = super.sequence;
    encode(header, bits, as_page(page.span()));
    good = written(places.bitmap_offset + std::uint64_t{at} * page_bytes, page.span());
  }
  good = good && io.flush_now() == errc::ok;
  for (const std::uint8_t copy : {0, 1}) {
    super.copy = copy;
    encode(super, as_page(page.span()));
    good = good && written(copy == 0 ? 0 : places.mirror_offset(), page.span()) && io.flush_now() == errc::ok;
  }
  return good ? status{} : io_failed("it was formatted");
}

status drive_store::format(block_device& device, const store_options& options) {
  drive_io io(device);
  superblock super;
  superblock_pair old;
  const std::uint64_t size = device.information().size_bytes;
  if (status sized = compute_layout(size, options.unit_bytes, options.extent_bytes_max, super.places);
      !sized.ok())
    return sized;
  read_superblocks(io, size, old);
  if (old.unreadable())
    return io_failed("its superblock was read");
  for (const int copy : {0, 1}) {
    if (!old.valid(copy))
      continue;
    super.drive_id = old.copies[copy].drive_id;
    super.failures = old.copies[copy].failures;
    const bool same_set = old.copies[copy].set.set_id == options.identity.set_id &&
                          old.copies[copy].set.drive_count == options.identity.drive_count;
    if (same_set && super.set_epoch <= old.copies[copy].set_epoch) {
      super.set_epoch = old.copies[copy].set_epoch;
      super.members = old.copies[copy].members;
    }
  }
  drive_store_core::fill_new_superblock(super, options, system_clock().wall_ns());
  return drive_store_core::format_with(io, super);
}

status drive_store::blacklist(block_device& device, const drive_failures& failures) {
  drive_io io(device);
  superblock_pair pair;
  read_superblocks(io, device.information().size_bytes, pair);
  int chosen = -1;
  for (const int copy : {0, 1})
    if (pair.valid(copy) && (chosen < 0 || later(pair.copies[copy], pair.copies[chosen])))
      chosen = copy;
  if (chosen < 0)
    return {errc::corrupt, "neither superblock of the drive can be read"};
  superblock super = pair.copies[chosen];
  const auto write = [&](std::uint8_t copy) {
    aligned_bytes bytes(page_bytes);
    super.copy = copy;
    encode(super, as_page(bytes.span()));
    return io.write_now(copy == 0 ? 0 : super.places.mirror_offset(), bytes.span()) == errc::ok &&
           io.flush_now() == errc::ok;
  };
  // A copy that is damaged or late comes first: a cut must never leave the other one alone with it.
  const int other = 1 - chosen;
  bool written = true;
  if (!pair.valid(other) || pair.copies[other].sequence != super.sequence ||
      pair.copies[other].format_id != super.format_id)
    written = write(static_cast<std::uint8_t>(other));
  for (std::uint32_t i = 0; i < failures.count; ++i)
    super.failures.note_failure(i == 0 ? failures.first_ns : failures.last_ns);
  super.failures.blacklisted = true;
  ++super.sequence;
  written = written && write(0) && write(1);
  return written ? status{} : io_failed("its failures were written down");
}

status drive_store::open(block_device& device, const store_options& options, clock& time,
                         std::unique_ptr<drive_store>& out) {
  out.reset();
  const std::uint64_t size = device.information().size_bytes;
  superblock super;
  if (!options.persistent) {
    layout checked;
    if (status sized = compute_layout(size, options.unit_bytes, options.extent_bytes_max, checked);
        !sized.ok())
      return sized;
    super.places = memory_layout(size, options.unit_bytes, options.extent_bytes_max);
    drive_store_core::fill_new_superblock(super, options, time.wall_ns());
    out = std::make_unique<drive_store_core>(device, options, time, super);
    return {};
  }
  layout wanted;
  if (status sized = compute_layout(size, options.unit_bytes, options.extent_bytes_max, wanted); !sized.ok())
    return sized;
  bool bad_copy = false;
  int late_copy = -1; // damaged, or one step behind
  bool power_loss = false;
  bool cut_short = false;
  {
    drive_io io(device);
    io.show_waiting(time, options.waits_since_ns.get());
    superblock_pair pair;
    read_superblocks(io, size, pair);
    if (pair.unreadable())
      return io_failed("its superblock was read");
    bool fresh = never_formatted(pair);
    if (fresh && !options.format_if_new)
      return {errc::not_formatted,
              "the drive is blank: memkv admin drives reset takes it into the set in place of another drive, "
              "and memkv setup makes a new set"};
    if (!fresh) {
      int chosen = -1;
      if (status choice = choose_superblock(pair, options, size, chosen); !choice.ok())
        return choice;
      super = pair.copies[chosen];
      bad_copy = !pair.valid(1 - chosen) || pair.copies[1 - chosen].format_id != super.format_id;
      if (bad_copy || pair.copies[1 - chosen].sequence != super.sequence)
        late_copy = 1 - chosen;
      // Without flushes nothing on the drive can be proven once the power was lost.
      cut_short = super.format_cut_short();
      power_loss = !super.clean && super.sync == sync_policy::never && super.boot_id != options.boot_id;
      fresh = power_loss || options.start_empty;
      // Memory may differ from start to start, and it is used to four fifths. What is above the bound by less
      // goes as new blocks come.
      if (const std::uint64_t most = drive_store_core::entries_max(options, super.places);
          !fresh && super.blocks > most + most / 4)
        return {errc::too_large,
                "it holds " + number(super.blocks) + " blocks, and memory allows an index of " +
                    number(most) +
                    ": lower memory.max_size or add memory, or run memkv drive reset for it to begin empty"};
      if (super.failures.blacklisted)
        return {errc::blacklisted,
                "the drive is blacklisted: it failed " + number(super.failures.failure_count) +
                    " times; look at it and replace it, or run memkv drive reset to try it again, empty"};
    }
    if (fresh) {
      late_copy = -1;
      super.places = wanted;
      store_options own = options;
      if (power_loss || options.start_empty)
        own.identity = super.set;
      const std::uint64_t formatted_before = super.formatted_at_ns;
      drive_store_core::fill_new_superblock(super, own, std::max(time.wall_ns(), formatted_before + 1));
      if (status formatted = drive_store_core::format_with(io, super); !formatted.ok())
        return formatted;
    }
  }
  store_options own = options;
  own.identity = super.set;
  auto core = std::make_unique<drive_store_core>(device, own, time, super);
  if (bad_copy) {
    core->count_bad_superblock();
    core->note("one of the two superblocks was damaged and is written anew");
  }
  if (power_loss) {
    core->count_power_loss();
    core->note("the power was lost while the drive was in use without storage.sync: it starts empty");
  }
  if (cut_short)
    core->note("its last reset was cut short: it is empty, but what it held may still be in its free space; "
               "memkv drive reset, with the server stopped, does it again");
  // First of all: what recovery writes may lie where the tree of the late copy was, and a cut may take the
  // other copy while that is written.
  if (late_copy >= 0 && core->write_superblock_now(static_cast<std::uint8_t>(late_copy)) != errc::ok)
    return io_failed("its superblock was written");
  if (status recovered = core->recover(); !recovered.ok())
    return recovered;
  if (status begun = core->begin_use(); !begun.ok())
    return begun;
  status result;
  result.text = core->notes();
  out = std::move(core);
  return result;
}

status drive_store_core::recover() {
  recovering_ = true;
  own_generation_ = super_.generation;
  if (status loaded = load_tree(); !loaded.ok())
    return loaded;
  const bool was_clean = super_.clean;
  const std::uint64_t tail_before = next_batch_ = super_.journal_tail_sequence;
  if (status replayed = replay(); !replayed.ok())
    return replayed;
  rebuild_space();
  if (was_clean && next_batch_ == tail_before && !tree_->dirty())
    check_bitmap();
  if (!was_clean)
    own_generation_ += generation_gap;
  if (options_.generation != nullptr)
    raise(*options_.generation, own_generation_);
  counters_.recovered_blocks.store(index_->size(), std::memory_order_relaxed);
  if (next_batch_ != tail_before || tree_->dirty() || !was_clean) {
    super_.clean = false;
    if (status done = checkpoint_now(); !done.ok())
      return done;
  }
  recovering_ = false;
  return {};
}

status drive_store_core::begin_use() {
  super_.clean = false;
  for (std::uint32_t i = 0; i < options_.failures.count; ++i)
    super_.failures.note_failure(i == 0 ? options_.failures.first_ns : options_.failures.last_ns);
  if (super_.failures.device_id.empty())
    super_.failures.device_id = device_.information().name;
  trimmed_before_ = !super_.untrimmed;
  super_.untrimmed = true;
  super_.sync = options_.sync;
  super_.boot_id = options_.boot_id;
  if (write_superblocks_now() != errc::ok)
    return io_failed("its superblock was written");
  return {};
}

// Journal

status drive_store_core::replay() {
  aligned_bytes region(places_.journal_bytes);
  if (io_.read_now(places_.journal_offset, region.span()) != errc::ok)
    return io_failed("its journal was read");
  journal_scan scan;
  if (scan_journal(region.span(), super_, scan) == errc::newer_version)
    return newer_structure("the journal", journal_version);
  const std::uint64_t tail = super_.journal_tail_sequence;
  // Nothing was being written when the drive was closed in order.
  bool torn = scan.damaged_at.has_value() && !super_.clean;
  std::uint64_t expected = tail;
  for (const auto& [sequence, batch] : scan.batches) {
    if (sequence != expected) {
      bump(counters_.journal_holes);
      forget_unproven(expected, sequence - 1, batch);
      torn = false;
    }
    const bool must_verify = sequence > scan.settled && !batch.header.data_settled;
    for (const entry_record& record : batch.records)
      if (replay_record(record, sequence, must_verify) != errc::ok)
        return io_failed("the data of the journal's last batch was read");
    bump(counters_.replayed_records, batch.records.size());
    expected = sequence + 1;
  }
  next_batch_ = expected;
  applied_ = expected - 1;
  if (torn)
    bump(counters_.torn_tails);
  if (const auto holes = counters_.journal_holes.load(std::memory_order_relaxed); holes > 0)
    note(number(holes) + " gaps in the journal: blocks whose state could not be proven are misses now");
  return {};
}

void drive_store_core::drop_entry(entry_handle handle, std::uint64_t batch) {
  const key_id id = index_->at(handle).id;
  const auto bytes = static_cast<std::int64_t>(record_bytes(handle));
  index_->unlink(handle);
  tree_->note_change(id, -bytes, batch);
  release_recovered(handle);
  bump(counters_.dropped_at_recovery);
}

errc drive_store_core::replay_record(const entry_record& record, std::uint64_t batch, bool must_verify) {
  // A leaf written after this batch has its effect already, and perhaps that of later ones.
  if (tree_->journal_sequence(record.id) >= batch)
    return errc::ok;
  own_generation_ = std::max(own_generation_, record.generation);
  const entry_handle before = index_->find(record.id);
  const auto bytes_before =
      before == no_entry ? std::int64_t{0} : static_cast<std::int64_t>(record_bytes(before));
  if (record.kind == record_kind::erase) {
    if (before == no_entry || index_->at(before).generation > record.generation)
      return errc::ok;
    index_->unlink(before);
    tree_->note_change(record.id, -bytes_before, batch);
    release_recovered(before);
    return errc::ok;
  }
  if (before != no_entry && index_->at(before).generation >= record.generation)
    return errc::ok;
  if (const errc there = must_verify ? verify_extent(io_, super_, record) : errc::ok;
      there == errc::io_error) {
    return there;
  } else if (there != errc::ok) {
    // The batch became durable and its data did not: it was never answered, and replaced nothing.
    bump(counters_.dropped_at_recovery);
    if (before != no_entry)
      drop_entry(before, batch);
    return errc::ok;
  }
  // The old one goes first, whatever becomes of the new one: it must not come back in its place.
  if (before != no_entry) {
    index_->unlink(before);
    release_recovered(before);
  }
  const auto bytes =
      insert_recovered(record) ? static_cast<std::int64_t>(record.encoded_bytes()) : std::int64_t{0};
  if (bytes != 0 || bytes_before != 0)
    tree_->note_change(record.id, bytes - bytes_before, batch);
  return errc::ok;
}

void drive_store_core::forget_unproven(std::uint64_t first, std::uint64_t last, const journal_batch& next) {
  std::vector<entry_handle> unproven;
  for (const tree::leaf_range& leaf : tree_->leaves())
    if (leaf.journal_sequence < last && std::max(first, leaf.journal_sequence + 1) < last)
      index_->visit(leaf.first, leaf.last, [&](entry_handle handle) { unproven.push_back(handle); });
  for (const entry_handle handle : unproven)
    drop_entry(handle, last);
  // The batch after the gap repeats which ids the last one in it touched: all others kept their state.
  for (const std::uint64_t head : next.echo) {
    std::vector<entry_handle> touched;
    index_->visit(id_from_head(head, std::byte{0}), id_from_head(head, std::byte{0xFF}),
                  [&](entry_handle handle) { touched.push_back(handle); });
    for (const entry_handle handle : touched)
      if (tree_->journal_sequence(index_->at(handle).id) < last)
        drop_entry(handle, last);
  }
}

// Space

void drive_store_core::rebuild_space() {
  std::vector<std::pair<std::uint64_t, entry_handle>> by_age;
  by_age.reserve(index_->size());
  key_id highest;
  highest.bytes.fill(std::byte{0xFF});
  index_->visit(key_id{}, highest,
                [&](entry_handle handle) { by_age.emplace_back(index_->at(handle).generation, handle); });
  std::ranges::sort(by_age);
  // Where two claim the same space, the younger one wrote there last.
  for (auto at = by_age.rbegin(); at != by_age.rend(); ++at) {
    const extent_space space = space_of(at->second);
    std::size_t marked = 0;
    while (marked < space.runs.size() && units_.mark(space.runs[marked]))
      ++marked;
    bool good = marked == space.runs.size();
    if (good && space.header_apart)
      good = headers_.mark(space.header_page, false);
    if (good)
      continue;
    for (std::size_t i = 0; i < marked; ++i)
      units_.free(space.runs[i]);
    drop_entry(at->second, applied_);
    at->second = no_entry;
  }
  for (const auto& [generation, handle] : by_age) {
    if (handle == no_entry)
      continue;
    const block_entry& entry = index_->at(handle);
    if ((entry.flags & entry_part) != 0) {
      parts_->add_youngest(handle);
      recovered_parts_.push_back({entry.id, extras_.head(handle), entry.put_id});
    } else {
      policy_->recovered(handle);
    }
  }
  counters_.used_bytes.store(std::uint64_t{units_.used_units()} * places_.unit_bytes,
                             std::memory_order_relaxed);
}

void drive_store_core::check_bitmap() {
  // Only for people: what the bitmap says has no say in what is free.
  aligned_bytes stored(page_bytes);
  aligned_bytes expected(page_bytes);
  for (std::uint32_t page = 0; page < places_.bitmap_pages; ++page) {
    fill_bitmap_page(page, expected.span());
    bitmap_page_header header;
    std::span<const std::byte> bits;
    bitmap_page_header wanted;
    std::span<const std::byte> wanted_bits;
    const std::uint32_t units = std::min(bitmap_bits_per_page, places_.units - page * bitmap_bits_per_page);
    const bool readable =
        io_.read_now(places_.bitmap_offset + std::uint64_t{page} * page_bytes, stored.span()) == errc::ok &&
        decode(as_page(stored.span()), super_.format_id, page, units, header, bits) == errc::ok;
    const errc made = decode(as_page(expected.span()), super_.format_id, page, units, wanted, wanted_bits);
    MEMKV_ASSERT(made == errc::ok, "a bitmap page that was just made can be read");
    bitmap_dirty_[page] = !readable || !std::ranges::equal(bits, wanted_bits);
    if (bitmap_dirty_[page])
      bump(counters_.bad_bitmap_pages);
  }
  if (const auto bad = counters_.bad_bitmap_pages.load(std::memory_order_relaxed); bad > 0)
    note(number(bad) + " damaged pages of the allocation bitmap are written anew");
}

} // namespace memkv::engine
