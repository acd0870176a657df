#include "engine/drive_store.hpp"

#include "engine/bitmap_page.hpp"
#include "engine/drive_store_core.hpp"
#include "engine/limits.hpp"
#include "wire/assert.hpp"
#include "wire/limits.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace memkv::engine {

namespace {

/// Of what an index has above its bound after a start, so many blocks go at a time.
constexpr std::uint64_t surplus_evicted_max = 1024;

std::uint64_t mixed(std::uint64_t value) noexcept {
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

} // namespace

key_id part_id(const key_id& head, std::uint64_t put_id, std::uint32_t part) noexcept {
  // The head is uniform already; what must not happen is that two parts of one put, or of two puts, meet.
  const std::uint64_t salt = mixed(mixed(put_id) ^ part);
  key_id id;
  const std::uint64_t high = mixed(head.head() ^ salt);
  const std::uint64_t low = mixed(head.tail() ^ std::rotl(salt, 32) ^ high);
  wire::store_le(id.bytes.data(), high);
  wire::store_le(id.bytes.data() + 8, low);
  return id;
}

drive_store_core::drive_store_core(block_device& device, const store_options& options, clock& time,
                                   const superblock& super)
    : device_(device), options_(options), time_(time), super_(super), format_id_(super.format_id),
      drive_id_(super.drive_id), places_(super.places), io_(device), mapping_(device.mapping()),
      writable_(device.writable_mapping()), units_(places_.units), headers_(units_, places_.unit_bytes),
      entries_max_(entries_max(options, places_)),
      covered_(options.persistent ? header_extent::whole_page : header_extent::used_bytes),
      batch_bytes_(options.persistent ? journal_batch_bytes_max : page_bytes) {
  io_.show_waiting(time_, options_.waits_since_ns.get());
  units_.reuse_first(!writable_.empty());
  // What a drive holds is taken in whole, whatever memory allowed when it was written. And the tree's leaves
  // are not of one moment: until the journal's batches put that right there are more entries than ever lived
  // at once, by as many as the journal can name.
  const std::uint64_t taken_in =
      options.persistent ? places_.units + places_.journal_bytes / entry_record_bytes : entries_max_;
  index_ = std::make_unique<block_index>(
      static_cast<std::uint32_t>(std::min<std::uint64_t>(taken_in, limits::entries_max)));
  parts_.emplace(*index_);
  eviction_options order;
  order.capacity_bytes = std::uint64_t{places_.units} * places_.unit_bytes;
  order.unit_bytes = places_.unit_bytes;
  policy_ = make_eviction_policy(*index_, order);
  index_->set_reclaim_hook([this](entry_handle handle) {
    {
      const std::lock_guard guard(reclaim_mutex_);
      reclaimable_.push_back(handle);
      reclaim_waits_.store(true, std::memory_order_release);
    }
    if (options_.wake)
      options_.wake();
  });
  if (options_.persistent) {
    batch_bytes_max_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        journal_batch_bytes_max, places_.journal_bytes / 8 / page_bytes * page_bytes));
    bitmap_dirty_.assign(places_.bitmap_pages, true);
    tree_.emplace(places_, super_.format_id,
                  [this](const key_id& first, const key_id& last, const tree::record_visitor& visitor) {
                    index_->visit(first, last, [&](entry_handle handle) { visitor(record_of(handle)); });
                  });
  }
}

drive_store_core::~drive_store_core() {
  // Buffers and callbacks die after this: nobody may be using them any more.
  io_.drain();
}

void drive_store_core::note(std::string text) {
  if (!notes_.empty())
    notes_ += "; ";
  notes_ += text;
}

// Space

std::uint32_t drive_store_core::device_page_of(const extent_space& space, std::uint64_t page) const {
  const std::uint32_t pages_per_unit = places_.pages_per_unit();
  for (const run& piece : space.runs) {
    const std::uint64_t pages = std::uint64_t{piece.units} * pages_per_unit;
    if (page < pages)
      return static_cast<std::uint32_t>(std::uint64_t{piece.first_unit} * pages_per_unit + page);
    page -= pages;
  }
  MEMKV_ASSERT(false, "a page of an extent lies inside it");
  return 0;
}

void drive_store_core::space_changed(std::span<const run> runs) {
  counters_.used_bytes.store((units_.used_units() - trimming_units_) * places_.unit_bytes,
                             std::memory_order_relaxed);
  if (bitmap_dirty_.empty())
    return;
  for (const run& piece : runs)
    for (std::uint32_t page = piece.first_unit / bitmap_bits_per_page;
         page <= (piece.first_unit + piece.units - 1) / bitmap_bits_per_page; ++page)
      bitmap_dirty_[page] = true;
}

/// Puts that are on their way to the journal need an entry each: one that was written there and found the
/// index full would have to be taken back, and after a crash before that there would be an entry too many.
/// What was replaced or deleted keeps its entry while somebody reads it.
std::uint64_t drive_store_core::entries_taken() const noexcept {
  return index_->size() + kept_by_pins_.size() + reservations_.size() + intents_.size() + batch_.size();
}

errc drive_store_core::take_space(std::uint32_t length, extent_space& out) {
  if (entries_taken() >= entries_max_)
    return errc::no_space;
  const std::uint64_t data_pages = align_up(length, page_bytes) / page_bytes;
  const auto units = static_cast<std::uint32_t>(align_up(length, places_.unit_bytes) / places_.unit_bytes);
  extent_space space;
  space.units = static_cast<std::uint16_t>(units);
  if (units > 0)
    if (const errc taken = units_.allocate(units, limits::runs_max, space.runs); taken != errc::ok)
      return taken;
  space.header_apart = std::uint64_t{units} * places_.pages_per_unit() <= data_pages;
  if (!space.header_apart) {
    space.header_page = device_page_of(space, data_pages);
  } else if (headers_.allocate(space.header_page) != errc::ok) {
    for (const run& piece : space.runs)
      units_.free(piece);
    return errc::no_space;
  } else {
    const run holder{space.header_page / places_.pages_per_unit(), 1};
    if (trim_)
      trim_->taken(holder);
    space_changed({&holder, 1});
  }
  if (trim_)
    for (const run& piece : space.runs)
      trim_->taken(piece);
  space_changed(space.runs);
  out = std::move(space);
  return errc::ok;
}

void drive_store_core::give_space(const extent_space& space) {
  const std::uint64_t now = trim_ ? time_.steady_ns() : 0;
  for (const run& piece : space.runs) {
    units_.free(piece);
    if (trim_)
      trim_->freed(piece, now);
  }
  if (space.header_apart) {
    bool unit_freed = false;
    headers_.free(space.header_page, unit_freed);
    const run holder{space.header_page / places_.pages_per_unit(), 1};
    if (trim_ && unit_freed)
      trim_->freed(holder, now);
    space_changed({&holder, 1});
  }
  space_changed(space.runs);
}

std::vector<run> drive_store_core::stored_runs(entry_handle handle) const {
  const auto runs = extras_.runs(handle);
  return {runs.begin(), runs.end()};
}

extent_space drive_store_core::space_of(entry_handle handle) const {
  const block_entry& entry = index_->at(handle);
  extent_space space;
  space.units = entry.units;
  space.header_page = entry.header_page;
  if ((entry.flags & entry_fragmented) != 0)
    space.runs = stored_runs(handle);
  else if (entry.units > 0)
    space.runs.push_back({entry.first_unit, entry.units});
  const std::uint32_t holder = entry.header_page / places_.pages_per_unit();
  space.header_apart = std::ranges::none_of(space.runs, [&](const run& piece) {
    return holder >= piece.first_unit && holder - piece.first_unit < piece.units;
  });
  return space;
}

reservation drive_store_core::reserve(put_description what, std::string name_space,
                                      std::vector<std::byte> key, extent_space space) {
  reservation result;
  result.token = next_token_++;
  if (!writable_.empty())
    for (const device_piece& piece : extent_pieces(places_, space.runs, 0, what.length))
      result.place.push_back(writable_.subspan(piece.offset, piece.length));
  held_space& held = reservations_[result.token];
  held.what = what;
  held.name_space = std::move(name_space);
  held.key = std::move(key);
  held.what.name_space = {};
  held.what.key = {};
  held.space = std::move(space);
  return result;
}

namespace {

bool describable(const put_description& what) noexcept {
  return what.key.size() <= wire::limits::key_bytes_max &&
         what.name_space.size() <= wire::limits::namespace_bytes_max && what.parts > 0 &&
         what.part < what.parts && what.value_length >= what.length && what.value_length <= 0xFFFFFFFF &&
         (what.parts > 1 || what.value_length == what.length);
}

} // namespace

void drive_store_core::allocate(const put_description& what, allocated callback) {
  if (closed_ || counters_.offline.load(std::memory_order_relaxed)) {
    callback(errc::offline, {});
    return;
  }
  if (what.length > places_.extent_bytes_max) {
    callback(errc::too_large, {});
    return;
  }
  if (!describable(what)) {
    callback(errc::invalid_argument, {});
    return;
  }
  if (reservations_.size() >= limits::reservations_max ||
      waiting_.size() >= limits::waiting_allocations_max) {
    callback(errc::busy, {});
    return;
  }
  std::string name_space(what.name_space);
  std::vector<std::byte> key(what.key.begin(), what.key.end());
  if (waiting_.empty()) {
    extent_space space;
    if (take_space(what.length, space) == errc::ok) {
      callback(errc::ok, reserve(what, std::move(name_space), std::move(key), std::move(space)));
      return;
    }
  }
  waiting_.push_back({what, std::move(name_space), std::move(key), std::move(callback), time_.steady_ns()});
  waiting_.back().what.name_space = {};
  waiting_.back().what.key = {};
  pump_waiting();
}

void drive_store_core::free_units_until(std::uint64_t units, std::atomic<std::uint64_t>& reason) {
  while (units_.free_units() + freeing_units_ + trimming_units_ < units && evict_one(reason)) {
  }
}

void drive_store_core::pump_waiting() {
  // Callbacks may come back here.
  if (pumping_waiting_)
    return;
  pumping_waiting_ = true;
  while (!waiting_.empty()) {
    waiting_allocation& front = waiting_.front();
    extent_space space;
    if (take_space(front.what.length, space) == errc::ok) {
      waiting_allocation served = std::move(front);
      waiting_.pop_front();
      auto result =
          reserve(served.what, std::move(served.name_space), std::move(served.key), std::move(space));
      served.callback(errc::ok, std::move(result));
      continue;
    }
    const std::uint64_t needed = align_up(front.what.length, places_.unit_bytes) / places_.unit_bytes + 1;
    if (options_.eviction) {
      std::uint64_t wanted = 0;
      for (std::size_t i = 0; i < std::min<std::size_t>(waiting_.size(), 16); ++i)
        wanted += align_up(waiting_[i].what.length, places_.unit_bytes) / places_.unit_bytes + 1;
      const std::uint64_t free_before = units_.free_units();
      const std::uint64_t taken_before = entries_taken();
      free_units_until(wanted, counters_.evicted_for_space);
      // Enough is free, but in too many pieces, or the index is full: more has to go. Space that is on its
      // way to be free brings no entry, if those that leave have left.
      const bool index_is_full = taken_before >= entries_max_;
      const bool nothing_comes = index_is_full ? leaving_.empty() : freeing_units_ + trimming_units_ == 0;
      if (nothing_comes && units_.free_units() == free_before) {
        const std::uint64_t above = index_is_full ? taken_before - entries_max_ + 1 : 0;
        const std::uint64_t go = std::max(needed, std::min(above, surplus_evicted_max));
        for (std::uint64_t more = 0; more < go; ++more)
          if (!evict_one(counters_.evicted_for_room))
            break;
      }
      if (units_.free_units() != free_before || entries_taken() < taken_before)
        continue; // without a journal it is free at once
    }
    if (freeing_units_ + trimming_units_ > 0 || !intents_.empty() || !batch_.empty())
      break;
    if (options_.eviction && !reservations_.empty() &&
        time_.steady_ns() - front.since_ns < limits::allocation_wait_ns_max)
      break;
    waiting_allocation refused = std::move(front);
    waiting_.pop_front();
    refused.callback(errc::no_space, {});
  }
  pumping_waiting_ = false;
}

bool drive_store_core::evict_one(std::atomic<std::uint64_t>& reason) {
  entry_handle handle = policy_->victim();
  if (handle == no_entry) {
    // Only parts are left, whose heads are on other drives: without one of their parts those are misses.
    for (entry_handle part = parts_->oldest(); part != no_entry; part = parts_->younger(part))
      if (index_->at(part).state.load(std::memory_order_relaxed) == 0) {
        handle = part;
        break;
      }
    if (handle == no_entry)
      return false;
  }
  const block_entry& entry = index_->at(handle);
  bump(counters_.evicted_blocks);
  bump(counters_.evicted_bytes, std::uint64_t{entry.units} * places_.unit_bytes);
  bump(reason);
  const auto age = std::max<std::uint64_t>(1, ages_.age_ns(entry.generation, time_.steady_ns()));
  counters_.evicted_age_ns.store(age, std::memory_order_relaxed);
  bump(counters_.evicted_age_sum_ns, age);
  if ((entry.flags & entry_part) != 0)
    parts_->remove(handle);
  else
    policy_->evicted(handle);
  leaving_.insert(handle);
  const bool apart = space_of(handle).header_apart;
  queue_erase(entry.id, entry.generation, true, true, entry.units + (apart && entry.units == 0 ? 1U : 0U),
              {});
  // Its parts go with it and are counted now, or more would be evicted than was asked for. Without a journal
  // that has happened already.
  if (options_.persistent)
    erase_own_parts(handle);
  return true;
}

void drive_store_core::evict(std::uint64_t bytes) {
  if (closed_ || counters_.offline.load(std::memory_order_relaxed))
    return;
  // What is on its way to be free counts: whoever asks again before it is must not evict the same twice.
  free_units_until(units_.free_units() + trimming_units_ +
                       align_up(bytes, places_.unit_bytes) / places_.unit_bytes,
                   counters_.evicted_at_watermark);
}

void drive_store_core::tick() {
  ages_.note(options_.generation != nullptr ? options_.generation->load(std::memory_order_relaxed)
                                            : own_generation_,
             time_.steady_ns());
  counters_.ghost_hits.store(policy_->statistics().ghost_hits, std::memory_order_relaxed);
}

void drive_store_core::begin_trimming() {
  trim_.emplace(places_.units);
  if (!trimmed_before_)
    trim_->freed_all(units_, time_.steady_ns());
}

std::vector<device_range> drive_store_core::take_trim() {
  std::vector<device_range> ranges;
  const std::uint64_t now = time_.steady_ns();
  if (!trim_ || !trimming_.empty() || closed_ || counters_.offline.load(std::memory_order_relaxed) ||
      !trim_->due(now))
    return ranges;
  trimming_ = trim_->take(units_, now);
  for (const run& range : trimming_) {
    trimming_units_ += range.units;
    ranges.push_back(
        {places_.unit_offset(range.first_unit), std::uint64_t{range.units} * places_.unit_bytes});
  }
  return ranges;
}

void drive_store_core::trimmed(bool done) {
  const std::uint64_t now = time_.steady_ns();
  for (const run& range : std::exchange(trimming_, {})) {
    units_.free(range);
    if (!done && trim_)
      trim_->freed(range, now);
  }
  if (!done && trim_)
    trim_->put_off(now);
  trimming_units_ = 0;
  pump_waiting();
}

std::uint64_t drive_store_core::untrimmed_bytes() const noexcept {
  return trim_ ? (trim_->units_waiting() + trimming_units_) * places_.unit_bytes : 0;
}

std::vector<drive_store::orphan> drive_store_core::take_orphans() {
  return std::exchange(orphans_, {});
}

void drive_store_core::write(std::uint64_t token, std::uint32_t offset, std::span<std::byte> data,
                             done callback) {
  if (closed_ || counters_.offline.load(std::memory_order_relaxed)) {
    callback(errc::offline);
    return;
  }
  const auto found = reservations_.find(token);
  if (found == reservations_.end() || found->second.abandoned || offset % page_bytes != 0 ||
      offset > found->second.what.length || data.size() > found->second.what.length - offset ||
      (data.size() % page_bytes != 0 && offset + data.size() != found->second.what.length)) {
    callback(errc::invalid_argument);
    return;
  }
  if (data.empty()) {
    callback(errc::ok);
    return;
  }
  const std::uint64_t length = align_up(data.size(), page_bytes);
  const auto pieces = extent_pieces(places_, found->second.space.runs, offset, length);
  found->second.writes += 1;
  struct progress {
    std::size_t left;
    errc result = errc::ok;
    done callback;
  };
  auto state = std::make_shared<progress>(progress{pieces.size(), errc::ok, std::move(callback)});
  // What is behind the value in its last page is not anybody's old data.
  std::memset(data.data() + data.size(), 0, length - data.size());
  std::byte* from = data.data();
  for (const device_piece& piece : pieces) {
    io_.write(piece.offset, {from, piece.length}, [this, token, state](errc result) {
      if (result != errc::ok)
        state->result = result;
      if (--state->left > 0)
        return;
      if (const auto found_now = committing_.find(token); found_now != committing_.end()) {
        // Its space belongs to the intent already.
        intent& waits = *found_now->second;
        if (waits.payload_writes == 1)
          committing_.erase(found_now);
        --waits.payload_writes;
        if (state->result != errc::ok) {
          bump(counters_.io_errors);
          go_offline();
        } else {
          one_write_done(waits);
        }
        state->callback(state->result);
        return;
      }
      held_space& held = reservations_.at(token);
      --held.writes;
      if (state->result != errc::ok) {
        held.failed = true;
        bump(counters_.io_errors);
        go_offline();
      }
      if (held.abandoned && held.writes == 0)
        release(token);
      state->callback(state->result);
    });
    from += piece.length;
  }
}

void drive_store_core::release(std::uint64_t token) {
  const auto found = reservations_.find(token);
  MEMKV_ASSERT(found != reservations_.end() && found->second.writes == 0,
               "nobody writes to space given back");
  give_space(found->second.space);
  reservations_.erase(found);
  pump_waiting();
}

void drive_store_core::abandon(std::uint64_t token) {
  const auto found = reservations_.find(token);
  if (found == reservations_.end() || found->second.abandoned)
    return;
  found->second.abandoned = true;
  if (found->second.writes == 0)
    release(token);
}

// Changes

std::uint64_t drive_store_core::next_generation() {
  if (options_.generation != nullptr)
    own_generation_ = options_.generation->fetch_add(1, std::memory_order_relaxed) + 1;
  else
    ++own_generation_;
  return own_generation_;
}

void drive_store_core::commit(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c,
                              bool if_absent, std::uint64_t deadline_ns, committed callback) {
  put(token, chunk_crc32c, if_absent, deadline_ns, std::move(callback), {});
}

void drive_store_core::prepare(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c,
                               done callback) {
  put(token, chunk_crc32c, false, 0, {}, std::move(callback));
}

void drive_store_core::put(std::uint64_t token, std::span<const std::uint32_t> chunk_crc32c, bool if_absent,
                           std::uint64_t deadline_ns, committed on_committed, done on_done) {
  const auto refuse = [&](errc code) {
    if (on_committed)
      on_committed(code, 0);
    else
      on_done(code);
  };
  const auto found = reservations_.find(token);
  if (closed_ || counters_.offline.load(std::memory_order_relaxed)) {
    abandon(token);
    refuse(errc::offline);
    return;
  }
  if (found == reservations_.end() || found->second.abandoned) {
    refuse(errc::invalid_argument);
    return;
  }
  const put_description& what = found->second.what;
  const bool part = what.part > 0;
  if (found->second.failed || chunk_crc32c.size() != chunk_count(what.length) ||
      part == static_cast<bool>(on_committed)) {
    abandon(token);
    refuse(errc::invalid_argument);
    return;
  }
  if (deadline_ns != 0 && time_.steady_ns() > deadline_ns) {
    abandon(token);
    refuse(errc::deadline_exceeded);
    return;
  }
  if (if_absent) {
    const auto queued = pending_.find(what.id);
    const bool there = queued != pending_.end() && queued->second.intents > 0
                           ? queued->second.last_is_put
                           : index_->find(what.id) != no_entry;
    if (there) {
      abandon(token);
      refuse(errc::already_exists);
      return;
    }
  }
  held_space held = std::move(found->second);
  reservations_.erase(found);
  auto change = std::make_unique<intent>();
  change->space = std::move(held.space);
  change->deadline_ns = deadline_ns;
  change->on_committed = std::move(on_committed);
  change->on_done = std::move(on_done);
  entry_record& record = change->record;
  record.kind = part ? record_kind::prepare : record_kind::put;
  record.id = held.what.id;
  record.generation = next_generation();
  record.put_id = held.what.put_id;
  record.value_length = static_cast<std::uint32_t>(part ? held.what.length : held.what.value_length);
  record.first_unit = change->space.runs.empty() ? 0 : change->space.runs.front().first_unit;
  record.units = change->space.units;
  record.header_page = change->space.header_page;
  if (change->space.runs.size() > 1) {
    record.flags |= entry_fragmented;
    record.runs = change->space.runs;
  }
  if (part) {
    record.flags |= entry_part;
    record.head = wire::make_key_id(held.name_space, held.key);
  } else if (held.what.parts > 1) {
    record.flags |= entry_striped;
    record.parts = held.what.parts;
  }
  extent_header header;
  header.format_id = super_.format_id;
  header.drive_id = super_.drive_id;
  header.page = record.header_page;
  header.length = held.what.length;
  header.id = record.id;
  header.generation = record.generation;
  header.put_id = record.put_id;
  header.part = held.what.part;
  header.parts = held.what.parts;
  header.value_length = held.what.value_length;
  header.name_space = held.name_space;
  header.key = held.key;
  const std::uint64_t at = places_.data_page_offset(record.header_page);
  if (!writable_.empty()) {
    record.header_crc32c =
        encode(header, change->space.runs, chunk_crc32c,
               std::span<std::byte, page_bytes>(writable_.data() + at, std::size_t{page_bytes}), covered_);
    change->ready = true;
    queue(std::move(change));
    return;
  }
  change->writes = held.writes + 1;
  change->payload_writes = held.writes;
  if (held.writes > 0)
    committing_.emplace(token, change.get());
  change->header = pages_.take();
  const auto bytes = change->header->span();
  record.header_crc32c = encode(header, change->space.runs, chunk_crc32c,
                                std::span<std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes}));
  intent* waits = change.get();
  queue(std::move(change));
  io_.write(at, bytes, [this, waits](errc result) {
    if (result != errc::ok) {
      // The intent, and all others, are answered there.
      bump(counters_.io_errors);
      go_offline();
      return;
    }
    if (counters_.offline.load(std::memory_order_relaxed))
      return;
    pages_.give(std::move(waits->header));
    one_write_done(*waits);
  });
}

/// The journal may have it when all of it is in the device.
void drive_store_core::one_write_done(intent& change) {
  if (--change.writes > 0)
    return;
  change.ready = true;
  ++ready_intents_;
}

void drive_store_core::queue_erase(const key_id& id, std::uint64_t generation, bool only_that, bool evicted,
                                   std::uint32_t freeing_units, done callback) {
  auto change = std::make_unique<intent>();
  change->record.kind = record_kind::erase;
  change->record.id = id;
  change->record.generation = generation;
  change->only_generation = only_that ? generation : 0;
  change->evicted = evicted;
  change->freeing_units = freeing_units;
  change->on_done = std::move(callback);
  change->ready = true;
  freeing_units_ += freeing_units;
  queue(std::move(change));
}

void drive_store_core::erase(const key_id& id, std::uint64_t generation, done callback) {
  if (closed_ || counters_.offline.load(std::memory_order_relaxed)) {
    callback(errc::offline);
    return;
  }
  const entry_handle handle = index_->find(id);
  const auto queued = pending_.find(id);
  std::uint64_t newest = handle == no_entry ? 0 : index_->at(handle).generation;
  if (queued != pending_.end())
    newest = std::max(newest, queued->second.generation);
  if (newest == 0 || (generation != 0 && generation > newest)) {
    callback(errc::not_found);
    return;
  }
  queue_erase(id, generation != 0 ? generation : newest, generation != 0, false, 0, std::move(callback));
}

void drive_store_core::queue(intent_ptr change) {
  if (!options_.persistent) {
    // Without a journal there is nothing to wait for.
    freeing_units_ -= change->freeing_units;
    answer(*change, change->is_erase() ? apply_erase(*change, 0) : apply_put(*change, 0));
    return;
  }
  pending_change& pending = pending_[change->record.id];
  if (!change->is_erase()) {
    pending.last_is_put = true;
    pending.generation = change->record.generation;
  } else if (change->only_generation == 0) {
    pending.last_is_put = false;
  } else {
    // It leaves alone what is of another generation.
    std::uint64_t last = pending.last_is_put ? pending.generation : 0;
    if (pending.intents == 0)
      if (const entry_handle there = index_->find(change->record.id); there != no_entry)
        last = index_->at(there).generation;
    pending.last_is_put = last != 0 && last != change->only_generation;
    if (pending.intents == 0)
      pending.generation = last;
  }
  ++pending.intents;
  ready_intents_ += change->ready ? 1 : 0;
  intents_.push_back(std::move(change));
}

void drive_store_core::unpend(const intent& change) {
  const auto found = pending_.find(change.record.id);
  MEMKV_ASSERT(found != pending_.end(), "a queued change is counted");
  if (--found->second.intents == 0)
    pending_.erase(found);
}

void drive_store_core::answer(intent& change, errc result) {
  if (change.on_committed)
    change.on_committed(result, result == errc::ok ? change.record.generation : 0);
  else if (change.on_done)
    change.on_done(result);
}

entry_record drive_store_core::record_of(entry_handle handle) const {
  const block_entry& entry = index_->at(handle);
  entry_record record;
  record.kind = (entry.flags & entry_part) != 0 ? record_kind::prepare : record_kind::put;
  record.flags = entry.flags & stored_entry_flags;
  record.id = entry.id;
  record.generation = entry.generation;
  record.put_id = entry.put_id;
  record.value_length = entry.value_length;
  record.first_unit = entry.first_unit;
  record.header_page = entry.header_page;
  record.header_crc32c = entry.header_crc32c;
  record.units = entry.units;
  if (record.flags != 0) {
    if ((record.flags & entry_fragmented) != 0)
      record.runs = stored_runs(handle);
    if ((record.flags & entry_part) != 0)
      record.head = extras_.head(handle);
    if ((record.flags & entry_striped) != 0)
      record.parts = extras_.parts(handle);
  }
  return record;
}

std::size_t drive_store_core::record_bytes(entry_handle handle) const {
  const block_entry& entry = index_->at(handle);
  if ((entry.flags & stored_entry_flags) == 0)
    return entry_record_bytes;
  return record_of(handle).encoded_bytes();
}

void drive_store_core::leave_order(entry_handle handle) {
  const block_entry& entry = index_->at(handle);
  if (leaving_.erase(handle) > 0)
    return;
  if ((entry.flags & entry_part) != 0)
    parts_->remove(handle);
  else
    policy_->removed(handle);
}

void drive_store_core::orphan_parts(entry_handle handle) {
  const block_entry& entry = index_->at(handle);
  if ((entry.flags & entry_striped) == 0)
    return;
  orphans_.push_back({entry.id, entry.put_id, extras_.parts(handle)});
  erase_own_parts(handle);
}

void drive_store_core::erase_own_parts(entry_handle head) {
  const block_entry& entry = index_->at(head);
  if ((entry.flags & entry_striped) == 0)
    return;
  const std::uint32_t parts = extras_.parts(head);
  for (std::uint32_t part = 1; part < parts; ++part) {
    const key_id id = part_id(entry.id, entry.put_id, part);
    const entry_handle found = index_->find(id);
    if (found == no_entry || leaving_.contains(found))
      continue;
    const block_entry& piece = index_->at(found);
    if ((piece.flags & entry_part) == 0)
      continue;
    parts_->remove(found);
    leaving_.insert(found);
    queue_erase(id, piece.generation, true, false, piece.units, {});
  }
}

void drive_store_core::free_entry(entry_handle handle) {
  give_space(space_of(handle));
  extras_.remove(handle, index_->at(handle).flags);
  index_->free(handle);
}

void drive_store_core::dispose(entry_handle handle) {
  const std::uint32_t units = std::max<std::uint32_t>(1, index_->at(handle).units);
  // Counted before the last reader can let go.
  kept_by_pins_.emplace(handle, units);
  freeing_units_ += units;
  if (index_->retire(handle)) {
    kept_by_pins_.erase(handle);
    freeing_units_ -= units;
    free_entry(handle);
  }
}

void drive_store_core::reclaim() {
  if (!reclaim_waits_.load(std::memory_order_acquire))
    return;
  std::vector<entry_handle> handles;
  {
    const std::lock_guard guard(reclaim_mutex_);
    handles.swap(reclaimable_);
    reclaim_waits_.store(false, std::memory_order_release);
  }
  for (const entry_handle handle : handles) {
    const auto kept = kept_by_pins_.find(handle);
    if (kept == kept_by_pins_.end()) {
      index_->free(handle); // closed meanwhile: its space was counted as free already
      continue;
    }
    freeing_units_ -= kept->second;
    kept_by_pins_.erase(kept);
    free_entry(handle);
  }
  pump_waiting();
}

errc drive_store_core::apply(intent& change, std::uint64_t batch) {
  unpend(change);
  freeing_units_ -= change.freeing_units;
  return change.is_erase() ? apply_erase(change, batch) : apply_put(change, batch);
}

errc drive_store_core::apply_put(intent& change, std::uint64_t batch) {
  const entry_record& record = change.record;
  block_entry fields;
  fields.id = record.id;
  fields.generation = record.generation;
  fields.put_id = record.put_id;
  fields.value_length = record.value_length;
  fields.first_unit = record.first_unit;
  fields.header_page = record.header_page;
  fields.header_crc32c = record.header_crc32c;
  fields.flags = record.flags;
  fields.units = record.units;
  // What a replaced entry needs to be let go of, before it is gone from the table.
  const entry_handle before = index_->find(record.id);
  const std::size_t bytes_before = before == no_entry ? 0 : record_bytes(before);
  entry_handle inserted = no_entry;
  entry_handle replaced = no_entry;
  if (const errc made = index_->insert(fields, inserted, replaced); made != errc::ok) {
    // No memory for it. The journal has it, and a start after a crash would find it there: it is taken back,
    // and what it replaced goes as well, since that start would not find that.
    if (options_.persistent) {
      queue_erase(record.id, record.generation, true, false, 0, {});
      if (before != no_entry)
        let_go(before, batch);
    }
    give_space(change.space);
    return made;
  }
  MEMKV_ASSERT(replaced == before, "the index replaces what it finds");
  if (record.flags != 0)
    extras_.add(inserted, record);
  const bool part = (record.flags & entry_part) != 0;
  if (part)
    parts_->add_youngest(inserted);
  if (replaced != no_entry) {
    orphan_parts(replaced);
    if (!part && !leaving_.contains(replaced) && (index_->at(replaced).flags & entry_part) == 0)
      policy_->replaced(replaced, inserted);
    else {
      leave_order(replaced);
      if (!part)
        policy_->inserted(inserted);
    }
  } else if (!part) {
    policy_->inserted(inserted);
  }
  if (tree_)
    tree_->note_change(
        record.id,
        static_cast<std::int64_t>(record.encoded_bytes()) - static_cast<std::int64_t>(bytes_before), batch);
  if (replaced != no_entry)
    dispose(replaced);
  return errc::ok;
}

errc drive_store_core::apply_erase(intent& change, std::uint64_t batch) {
  if (change.unlinked != no_entry)
    dispose(change.unlinked);
  const entry_handle handle = index_->find(change.record.id);
  if (handle == no_entry)
    return errc::not_found;
  const block_entry& entry = index_->at(handle);
  if (entry.generation > change.record.generation ||
      (change.only_generation != 0 && entry.generation != change.only_generation))
    return errc::not_found;
  let_go(handle, batch);
  return errc::ok;
}

/// By what batch `batch` says.
void drive_store_core::let_go(entry_handle handle, std::uint64_t batch) {
  const key_id id = index_->at(handle).id;
  const auto bytes = static_cast<std::int64_t>(record_bytes(handle));
  orphan_parts(handle);
  leave_order(handle);
  index_->unlink(handle);
  if (tree_)
    tree_->note_change(id, -bytes, batch);
  dispose(handle);
}

/// What could not be read twice in a row is a miss once that is written down, so that a bad sector is not the
/// next failure of its drive. A drive that takes no writes either goes offline by it and keeps its blocks.
bool drive_store_core::drop_unreadable(entry_handle handle) {
  const block_entry& entry = index_->at(handle);
  if (closed_ || counters_.offline.load(std::memory_order_relaxed) || index_->find(entry.id) != handle)
    return false;
  bump(counters_.corrupt_blocks);
  queue_erase(entry.id, entry.generation, true, false, 0, {});
  return true;
}

void drive_store_core::drop_damaged(const key_id& id, std::uint64_t generation) {
  if (const entry_handle handle = index_->find(id);
      handle != no_entry && index_->at(handle).generation == generation)
    drop_corrupt(handle);
}

void drive_store_core::drop_corrupt(entry_handle handle) {
  const block_entry& entry = index_->at(handle);
  if (closed_ || counters_.offline.load(std::memory_order_relaxed) || index_->find(entry.id) != handle)
    return;
  bump(counters_.corrupt_blocks);
  // A miss from now on: whoever asks next must not find what this reader did not. Its space waits for the
  // journal.
  const key_id id = entry.id;
  const std::uint64_t generation = entry.generation;
  const auto bytes = static_cast<std::int64_t>(record_bytes(handle));
  orphan_parts(handle);
  leave_order(handle);
  index_->unlink(handle);
  if (tree_)
    tree_->note_change(id, -bytes, applied_ + 1);
  auto change = std::make_unique<intent>();
  change->record.kind = record_kind::erase;
  change->record.id = id;
  change->record.generation = generation;
  change->only_generation = generation;
  change->unlinked = handle;
  change->ready = true;
  queue(std::move(change));
}

void drive_store_core::go_offline() {
  if (counters_.offline.exchange(true, std::memory_order_relaxed))
    return;
  phase_ = checkpoint_phase::none;
  auto failed_batch = std::exchange(batch_, {});
  auto failed = std::exchange(intents_, {});
  ready_intents_ = 0; // nothing goes into a batch any more
  auto refused = std::exchange(waiting_, {});
  pending_.clear();
  // Header pages may still be in the device: their buffers stay until then.
  for (auto& change : failed_batch)
    answer(*change, errc::io_error);
  for (auto& change : failed)
    answer(*change, errc::offline);
  for (auto& allocation : refused)
    allocation.callback(errc::offline, {});
  for (auto& entered : std::exchange(epoch_writing_, {}))
    entered(errc::offline);
  for (auto& entered : std::exchange(epoch_waits_, {}))
    entered(errc::offline);
  for (auto& change : failed)
    intents_.push_back(std::move(change));
  for (auto& change : intents_) {
    change->on_committed = {};
    change->on_done = {};
  }
}

bool drive_store_core::poll(bool wait) {
  bool moved = io_.poll(wait) > 0;
  if (reclaim_waits_.load(std::memory_order_acquire)) {
    reclaim();
    moved = true;
  }
  if (counters_.offline.load(std::memory_order_relaxed)) {
    if (io_.idle() && !intents_.empty())
      intents_.clear();
    return moved;
  }
  if (closed_)
    return moved;
  moved = pump_journal() || moved;
  if (options_.persistent)
    settle_if_idle();
  moved = pump_checkpoint() || moved;
  if (!waiting_.empty())
    pump_waiting();
  return moved;
}

bool drive_store_core::idle() const noexcept {
  if (!io_.idle() || reclaim_waits_.load(std::memory_order_acquire))
    return false;
  if (closed_ || counters_.offline.load(std::memory_order_relaxed))
    return intents_.empty();
  return intents_.empty() && !batch_running_ && phase_ == checkpoint_phase::none && !checkpoint_wanted_ &&
         epoch_waits_.empty();
}

store_counters drive_store_core::counters() const noexcept {
  const auto read = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  store_counters result;
  result.blocks = index_->size();
  result.used_bytes = read(counters_.used_bytes);
  result.usable_bytes = std::uint64_t{places_.units} * places_.unit_bytes;
  result.evicted_blocks = read(counters_.evicted_blocks);
  result.evicted_bytes = read(counters_.evicted_bytes);
  result.corrupt_blocks = read(counters_.corrupt_blocks);
  result.io_errors = read(counters_.io_errors);
  result.checkpoints = read(counters_.checkpoints);
  result.journal_batches = read(counters_.journal_batches);
  result.journal_records = read(counters_.journal_records);
  result.journal_used_bytes = read(counters_.journal_used_bytes);
  result.recovered_blocks = read(counters_.recovered_blocks);
  result.replayed_records = read(counters_.replayed_records);
  result.dropped_at_recovery = read(counters_.dropped_at_recovery);
  result.bad_superblocks = read(counters_.bad_superblocks);
  result.bad_tree_pages = read(counters_.bad_tree_pages);
  result.bad_bitmap_pages = read(counters_.bad_bitmap_pages);
  result.journal_holes = read(counters_.journal_holes);
  result.torn_tails = read(counters_.torn_tails);
  result.emptied_by_power_loss = read(counters_.emptied_by_power_loss);
  result.offline = counters_.offline.load(std::memory_order_relaxed);
  result.settled = counters_.settled.load(std::memory_order_relaxed);
  result.evicted_at_watermark = read(counters_.evicted_at_watermark);
  result.evicted_for_space = read(counters_.evicted_for_space);
  result.evicted_for_room = read(counters_.evicted_for_room);
  result.evicted_age_ns = read(counters_.evicted_age_ns);
  result.evicted_age_sum_ns = read(counters_.evicted_age_sum_ns);
  result.ghost_hits = read(counters_.ghost_hits);
  result.journal_bytes = options_.persistent ? places_.journal_bytes : 0;
  return result;
}

store_counters& store_counters::operator+=(const store_counters& earlier) noexcept {
  evicted_blocks += earlier.evicted_blocks;
  evicted_bytes += earlier.evicted_bytes;
  corrupt_blocks += earlier.corrupt_blocks;
  io_errors += earlier.io_errors;
  checkpoints += earlier.checkpoints;
  journal_batches += earlier.journal_batches;
  journal_records += earlier.journal_records;
  evicted_at_watermark += earlier.evicted_at_watermark;
  evicted_for_space += earlier.evicted_for_space;
  evicted_for_room += earlier.evicted_for_room;
  evicted_age_sum_ns += earlier.evicted_age_sum_ns;
  if (evicted_age_ns == 0)
    evicted_age_ns = earlier.evicted_age_ns;
  ghost_hits += earlier.ghost_hits;
  return *this;
}

std::uint64_t drive_store_core::memory_bytes() const {
  return index_->memory_bytes() + policy_->memory_bytes() + units_.memory_bytes() + headers_.memory_bytes() +
         (tree_ ? tree_->memory_bytes() : 0) + extras_.memory_bytes();
}

std::vector<drive_store::recovered_part> drive_store_core::take_recovered_parts() {
  return std::exchange(recovered_parts_, {});
}

status drive_store_core::close() {
  if (closed_)
    return {};
  // Nobody gets more space from here on; what was promised is kept.
  auto refused = std::exchange(waiting_, {});
  for (auto& allocation : refused)
    allocation.callback(errc::cancelled, {});
  const auto offline = [&] { return counters_.offline.load(std::memory_order_relaxed); };
  while (!offline() &&
         (!io_.idle() || !intents_.empty() || batch_running_ || phase_ != checkpoint_phase::none))
    poll(true);
  while (!io_.idle())
    poll(true);
  intents_.clear();
  ready_intents_ = 0;
  closed_ = true;
  if (offline())
    return {errc::offline,
            "the drive went offline after a failed write or flush: it was not closed in order and "
            "recovers at its next start"};
  std::vector<std::uint64_t> tokens;
  for (const auto& [token, held] : reservations_)
    tokens.push_back(token);
  for (const std::uint64_t token : tokens)
    release(token);
  // Extents that only a reader keeps belong to nobody after the next start.
  for (const auto& [handle, units] : std::exchange(kept_by_pins_, {})) {
    give_space(space_of(handle));
    freeing_units_ -= units;
  }
  if (!options_.persistent)
    return {};
  // Nothing has changed since it was settled.
  if (super_.clean)
    return {};
  super_.untrimmed = !trim_ || !trim_->empty() || !trimming_.empty();
  // What is still being discarded is free; whoever does it keeps the device claimed until it is done.
  for (const run& range : std::exchange(trimming_, {}))
    units_.free(range);
  trimming_units_ = 0;
  if (status done = checkpoint_now(); !done.ok())
    return done;
  super_.clean = true;
  if (io_.flush_now() != errc::ok || write_superblocks_now() != errc::ok) {
    go_offline();
    return {errc::io_error,
            "the drive could not be closed in order: a write or flush failed; it recovers at its next "
            "start"};
  }
  return {};
}

} // namespace memkv::engine
