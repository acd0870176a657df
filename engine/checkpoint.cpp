// Journal batches and checkpoints of a drive's store.
#include "engine/bitmap_page.hpp"
#include "engine/drive_store_core.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace memkv::engine {

namespace {

/// Tree pages made in one go: what a poll may cost.
constexpr int steps_per_poll = 4;

} // namespace

std::uint64_t drive_store_core::journal_used() const noexcept {
  if (live_batches_.empty())
    return 0;
  const std::uint64_t tail = live_batches_.front().offset;
  return journal_head_ > tail ? journal_head_ - tail : places_.journal_bytes - tail + journal_head_;
}

std::optional<std::uint64_t> drive_store_core::journal_room(std::uint32_t length) const {
  const std::uint64_t size = places_.journal_bytes;
  if (live_batches_.empty())
    return journal_head_ + length <= size ? journal_head_ : 0;
  const std::uint64_t tail = live_batches_.front().offset;
  if (journal_head_ > tail) {
    if (journal_head_ + length <= size)
      return journal_head_;
    if (length <= tail)
      return 0;
    return {};
  }
  if (journal_head_ + length <= tail)
    return journal_head_;
  return {};
}

bool drive_store_core::pump_journal() {
  if (batch_running_ || ready_intents_ == 0)
    return false;
  if (marked_clean()) {
    if (phase_ != checkpoint_phase::none)
      return false;
    begin_unmarking();
    return true;
  }
  const auto room = journal_room(batch_bytes_max_);
  if (!room) {
    // Commits wait for the checkpoint that runs or starts now; it needs no room in the journal.
    checkpoint_wanted_ = true;
    return false;
  }
  batch_writer_.start(batch_bytes_max_, echo_);
  bool replaces = false;
  std::vector<intent_ptr> late;
  const std::uint64_t now = time_.steady_ns();
  // What is not in the device yet holds up later changes of its own key, not of others: a removal does not
  // wait for the payload of a large put.
  std::vector<key_id> held;
  for (auto at = intents_.begin(); at != intents_.end() && held.size() < limits::passed_intents_max;) {
    intent& next = **at;
    if (!next.ready || std::ranges::find(held, next.record.id) != held.end()) {
      held.push_back(next.record.id);
      ++at;
      continue;
    }
    const bool too_late = next.deadline_ns != 0 && now > next.deadline_ns;
    if (!too_late) {
      if (!batch_writer_.add(next.record))
        break;
      replaces = replaces || (!next.is_erase() && (pending_.at(next.record.id).intents > 1 ||
                                                   index_->find(next.record.id) != no_entry));
    }
    (too_late ? late : batch_).push_back(std::move(*at));
    at = intents_.erase(at);
    --ready_intents_;
  }
  if (batch_.empty() && late.empty())
    return false;
  if (!batch_.empty()) {
    batch_running_ = true;
    const std::uint64_t sequence = next_batch_++;
    batch_length_ = batch_writer_.length();
    journal_batch_header header;
    header.format_id = super_.format_id;
    header.sequence = sequence;
    header.address = places_.journal_offset + *room;
    header.settled_sequence = sequence - 1;
    header.data_settled = replaces || !flushes();
    batch_writer_.finish(header, batch_bytes_.span().first(batch_length_));
    live_batches_.push_back({sequence, *room, batch_length_});
    journal_head_ = *room + batch_length_;
    counters_.journal_used_bytes.store(journal_used(), std::memory_order_relaxed);
    echo_.clear();
    for (const intent_ptr& change : batch_)
      echo_.push_back(change->record.id.head());
    if (replaces && flushes()) {
      io_.flush([this, offset = *room](errc result) {
        if (result == errc::ok)
          write_batch(offset);
        else
          batch_written(result);
      });
    } else {
      write_batch(*room);
    }
  }
  for (const intent_ptr& change : late) {
    unpend(*change);
    give_space(change->space);
    answer(*change, errc::deadline_exceeded);
  }
  return true;
}

void drive_store_core::write_batch(std::uint64_t offset) {
  if (counters_.offline.load(std::memory_order_relaxed))
    return;
  // All that it speaks of is in the device, whose queue may be full of what does not concern it.
  io_.write_first(places_.journal_offset + offset, batch_bytes_.span().first(batch_length_),
                  [this](errc result) {
                    if (result == errc::ok && flushes())
                      io_.flush([this](errc flushed) { batch_written(flushed); });
                    else
                      batch_written(result);
                  });
}

void drive_store_core::batch_written(errc result) {
  if (result != errc::ok) {
    bump(counters_.io_errors);
    go_offline();
    return;
  }
  if (!counters_.offline.load(std::memory_order_relaxed))
    batch_done();
}

void drive_store_core::batch_done() {
  const auto changes = std::exchange(batch_, {});
  batch_running_ = false;
  applied_ = next_batch_ - 1;
  bump(counters_.journal_batches);
  bump(counters_.journal_records, changes.size());
  // First all of it becomes true, then everybody is told: a callback sees the store after the whole batch.
  std::vector<errc> results;
  results.reserve(changes.size());
  for (const intent_ptr& change : changes)
    results.push_back(apply(*change, applied_));
  for (std::size_t i = 0; i < changes.size(); ++i)
    answer(*changes[i], results[i]);
}

// Checkpoints

void drive_store_core::enter_epoch(std::uint64_t epoch, const drive_members& members, done callback) {
  if (closed_ || counters_.offline.load(std::memory_order_relaxed)) {
    callback(errc::offline);
    return;
  }
  super_.set_epoch = epoch;
  super_.members = members;
  if (!options_.persistent) {
    callback(errc::ok);
    return;
  }
  epoch_waits_.push_back(std::move(callback));
}

void drive_store_core::begin_checkpoint() {
  checkpoint_wanted_ = false;
  epoch_writing_ = std::exchange(epoch_waits_, {});
  phase_ = checkpoint_phase::pages;
  phase_waits_ = false;
  pages_complete_ = false;
  bitmap_cursor_ = 0;
  tree_->begin_checkpoint(applied_);
}

bool drive_store_core::nothing_under_way() const noexcept {
  return intents_.empty() && !batch_running_ && waiting_.empty() && reservations_.empty() &&
         kept_by_pins_.empty() && trimming_.empty();
}

void drive_store_core::settle_if_idle() {
  if (options_.sync == sync_policy::always || options_.settle_after_ns == 0 || super_.clean ||
      phase_ != checkpoint_phase::none)
    return;
  if (!nothing_under_way()) {
    changed_ns_ = 0;
    return;
  }
  const std::uint64_t now = time_.steady_ns();
  if (changed_ns_ == 0)
    changed_ns_ = now;
  if (now - changed_ns_ < options_.settle_after_ns)
    return;
  settling_ = true;
  begin_checkpoint();
}

void drive_store_core::begin_unmarking() {
  publishing_ = super_;
  publishing_.clean = false;
  unmarking_ = true;
  phase_ = checkpoint_phase::first;
  phase_waits_ = false;
}

void drive_store_core::next_phase(errc result, checkpoint_phase to) {
  phase_waits_ = false;
  if (result != errc::ok) {
    bump(counters_.io_errors);
    go_offline();
    return;
  }
  if (phase_ != checkpoint_phase::none)
    phase_ = to;
}

bool drive_store_core::write_bitmap_pages() {
  while (checkpoint_writes_ < limits::checkpoint_writes_max) {
    while (bitmap_cursor_ < bitmap_dirty_.size() && !bitmap_dirty_[bitmap_cursor_])
      ++bitmap_cursor_;
    if (bitmap_cursor_ == bitmap_dirty_.size())
      return true;
    bitmap_dirty_[bitmap_cursor_] = false;
    auto buffer = std::make_shared<aligned_bytes>(page_bytes);
    fill_bitmap_page(bitmap_cursor_, buffer->span());
    ++checkpoint_writes_;
    io_.write(places_.bitmap_offset + std::uint64_t{bitmap_cursor_} * page_bytes, buffer->span(),
              [this, buffer](errc result) {
                --checkpoint_writes_;
                if (result != errc::ok) {
                  bump(counters_.io_errors);
                  go_offline();
                }
              });
  }
  return false;
}

void drive_store_core::fill_bitmap_page(std::uint32_t page, std::span<std::byte> to) const {
  const std::uint32_t first = page * bitmap_bits_per_page;
  bitmap_page_header header;
  header.format_id = super_.format_id;
  header.page = page;
  header.units = std::min(bitmap_bits_per_page, places_.units - first);
  header.sequence = super_.sequence + 1;
  static_assert(bitmap_bits_per_page % 64 == 0);
  std::array<std::byte, bitmap_bits_per_page / 8> bits{};
  for (std::size_t word = 0; word < bits.size() / 8 && first / 64 + word < units_.word_count(); ++word)
    wire::store_le(bits.data() + word * 8, units_.word(first / 64 + word));
  encode(header, bits, std::span<std::byte, page_bytes>(to.data(), std::size_t{page_bytes}));
}

void drive_store_core::publish(std::uint8_t copy, checkpoint_phase to) {
  auto buffer = std::make_shared<aligned_bytes>(page_bytes);
  publishing_.copy = copy;
  encode(publishing_, std::span<std::byte, page_bytes>(buffer->data(), std::size_t{page_bytes}));
  phase_waits_ = true;
  io_.write(copy == 0 ? 0 : places_.mirror_offset(), buffer->span(),
            [this, buffer, to](errc result) { next_phase(result, to); });
}

bool drive_store_core::pump_checkpoint() {
  if (!options_.persistent)
    return false;
  if (phase_ == checkpoint_phase::none) {
    if (!checkpoint_wanted_ && epoch_waits_.empty() && journal_used() < places_.journal_bytes / 4)
      return false;
    if (epoch_waits_.empty() && !tree_->dirty() && live_batches_.empty()) {
      checkpoint_wanted_ = false;
      return false;
    }
    if (super_.clean)
      begin_unmarking();
    else
      begin_checkpoint();
  }
  bool moved = false;
  const auto flush_or = [&](checkpoint_phase to) {
    if (!flushes_checkpoint()) {
      phase_ = to;
      return;
    }
    phase_waits_ = true;
    io_.flush([this, to](errc result) { next_phase(result, to); });
  };
  while (!phase_waits_) {
    switch (phase_) {
    case checkpoint_phase::none:
      return moved;
    case checkpoint_phase::pages:
      for (int i = 0;
           i < steps_per_poll && !pages_complete_ && checkpoint_writes_ < limits::checkpoint_writes_max;
           ++i) {
        std::vector<std::pair<std::uint32_t, std::shared_ptr<aligned_bytes>>> made;
        const auto progress = tree_->step(applied_, [&](std::uint32_t page) {
          made.emplace_back(page, std::make_shared<aligned_bytes>(tree_page_bytes));
          return made.back().second->span();
        });
        moved = true;
        for (auto& [page, buffer] : made) {
          ++checkpoint_writes_;
          io_.write(places_.tree_offset + std::uint64_t{page} * tree_page_bytes, buffer->span(),
                    [this, kept = buffer](errc result) {
                      --checkpoint_writes_;
                      if (result != errc::ok) {
                        bump(counters_.io_errors);
                        go_offline();
                      }
                    });
        }
        if (progress == tree::progress::out_of_pages) {
          // The region is made so large that this does not happen; if it does, stopping is the truth.
          note("the tree region is full");
          go_offline();
          return true;
        }
        pages_complete_ = progress == tree::progress::complete;
      }
      if (!pages_complete_ || checkpoint_writes_ > 0)
        return moved;
      publishing_ = super_;
      publishing_.clean = false;
      publishing_.root = tree_->root();
      publishing_.root_level = tree_->root_level();
      publishing_.tree_sequence = tree_->tree_sequence();
      publishing_.journal_tail_sequence = tree_->tail(applied_ + 1);
      phase_ = checkpoint_phase::bitmap;
      moved = true;
      break;
    case checkpoint_phase::bitmap:
      if (!write_bitmap_pages() || checkpoint_writes_ > 0)
        return moved;
      phase_ = checkpoint_phase::flush_pages;
      break;
    case checkpoint_phase::flush_pages:
      flush_or(checkpoint_phase::first);
      break;
    case checkpoint_phase::first:
      ++publishing_.sequence;
      // From here on nothing changes the drive before the mark was taken away again. What was done since the
      // flush before this began has left its leaf dirty.
      publishing_.clean = settling_ && nothing_under_way() && !tree_->dirty() &&
                          publishing_.journal_tail_sequence == applied_ + 1 &&
                          std::ranges::find(bitmap_dirty_, true) == bitmap_dirty_.end();
      publishing_.generation = options_.generation != nullptr
                                   ? options_.generation->load(std::memory_order_relaxed)
                                   : own_generation_;
      publishing_.blocks = index_->size();
      publish(0, checkpoint_phase::flush_first);
      break;
    case checkpoint_phase::flush_first:
      flush_or(checkpoint_phase::second);
      break;
    case checkpoint_phase::second:
      publish(1, checkpoint_phase::flush_second);
      break;
    case checkpoint_phase::flush_second:
      flush_or(checkpoint_phase::finished);
      break;
    case checkpoint_phase::finished:
      finish_checkpoint();
      return true;
    }
  }
  return moved;
}

void drive_store_core::finish_checkpoint() {
  // Both copies name the new root: what only the old one needed is free.
  // An epoch that was entered meanwhile is for the next one.
  publishing_.set_epoch = super_.set_epoch;
  publishing_.members = super_.members;
  super_ = publishing_;
  phase_ = checkpoint_phase::none;
  counters_.settled.store(super_.clean, std::memory_order_relaxed);
  if (std::exchange(unmarking_, false))
    return;
  // One that could not end in the mark is begun again when there is nothing to do any more.
  settling_ = false;
  changed_ns_ = 0;
  tree_->finish_checkpoint();
  while (!live_batches_.empty() && live_batches_.front().sequence < super_.journal_tail_sequence)
    live_batches_.pop_front();
  counters_.journal_used_bytes.store(journal_used(), std::memory_order_relaxed);
  bump(counters_.checkpoints);
  for (auto& entered : std::exchange(epoch_writing_, {}))
    entered(errc::ok);
}

status drive_store_core::checkpoint_now() {
  do {
    if (phase_ == checkpoint_phase::none)
      begin_checkpoint();
    while (phase_ != checkpoint_phase::none) {
      (void)pump_checkpoint();
      if (phase_ != checkpoint_phase::none && !io_.idle())
        io_.poll(true);
      // It may end by a failure in either of them, which leaves the checkpoint where it is.
      if (counters_.offline.load(std::memory_order_relaxed))
        return {errc::io_error, "a write or flush failed while the drive's metadata was written"};
    }
  } while (tree_->dirty());
  return {};
}

errc drive_store_core::write_superblock_now(std::uint8_t copy) {
  aligned_bytes bytes(page_bytes);
  super_.copy = copy;
  encode(super_, std::span<std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes}));
  if (const errc result = io_.write_now(copy == 0 ? 0 : places_.mirror_offset(), bytes.span());
      result != errc::ok)
    return result;
  return io_.flush_now();
}

errc drive_store_core::write_superblocks_now() {
  ++super_.sequence;
  for (const std::uint8_t copy : {0, 1})
    if (const errc result = write_superblock_now(copy); result != errc::ok)
      return result;
  return errc::ok;
}

} // namespace memkv::engine
