#include "actors/value_writer.hpp"

#include "actors/block_head.hpp"
#include "wire/assert.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>

namespace memkv::actors {

using engine::chunk_bytes;
using engine::errc;
using wire::status;

namespace {

/// Bounced payload goes to its drive in pieces of this size: writing begins while the rest arrives.
constexpr std::uint32_t write_bytes = 1 << 20;

status status_of(errc code) noexcept {
  switch (code) {
  case errc::ok:
    return status::ok;
  case errc::already_exists:
    return status::already_exists;
  case errc::no_space:
    return status::no_space;
  case errc::deadline_exceeded:
    return status::deadline_exceeded;
  case errc::busy:
    return status::busy;
  case errc::offline:
  case errc::io_error:
    return status::unavailable;
  case errc::too_large:
    return status::too_large;
  default:
    return status::internal;
  }
}

} // namespace

value_writer::value_writer(drive_client& client, std::uint64_t request, std::uint32_t item)
    : client_(client), request_(request), item_(item) {}

value_writer::~value_writer() {
  if (!finished_)
    clean_up();
}

status value_writer::begin(std::string_view name_space, std::span<const std::byte> key, std::uint64_t length,
                           bool if_absent) {
  length_ = length;
  extent_bytes_max_ = client_.extent_bytes_max();
  const auto id = wire::make_key_id(name_space, key);
  const auto count = std::max<std::uint64_t>(1, (length + extent_bytes_max_ - 1) / extent_bytes_max_);
  const auto put_id = count > 1 ? client_.next_put_id() : 0;
  auto& drives = client_.drives();
  // What can never fit must not drive everything else out first. A single extent always fits.
  if (count > 1) {
    std::uint64_t usable_bytes = 0;
    for (std::uint32_t drive = 0; drive < drives.size(); ++drive)
      if (const auto& body = drives.at(drive).body; body != nullptr)
        usable_bytes += body->store->counters().usable_bytes;
    if (usable_bytes > 0 && length >= usable_bytes) {
      result_ = status::no_space;
      finished_ = true;
      return result_;
    }
  }
  client_.note_change(id);
  extents_.resize(count);
  for (std::uint32_t part = 0; part < count; ++part) {
    auto& added = extents_[part];
    auto put = std::make_shared<extent_put>();
    put->request = request_;
    put->item = item_;
    put->reply_to = client_.as_actor();
    put->id = part == 0 ? id : engine::part_id(id, put_id, part);
    put->name_space = name_space;
    put->key.assign(key.begin(), key.end());
    const std::uint64_t begin = std::uint64_t{part} * extent_bytes_max_;
    put->length = static_cast<std::uint32_t>(std::min<std::uint64_t>(extent_bytes_max_, length - begin));
    put->value_length = length;
    put->part = part;
    put->parts = static_cast<std::uint32_t>(count);
    put->put_id = put_id;
    put->if_absent = if_absent;
    put->chunk_crc32c.reserve((put->length + chunk_bytes - 1) / chunk_bytes);
    added.put = std::move(put);
    added.drive = drives.home(added.put->id);
    if (drives.at(added.drive).drive == nullptr) {
      result_ = status::unavailable;
      finished_ = true;
      return result_;
    }
    if (const auto& body = drives.at(added.drive).body; body->memory)
      added.memory =
          std::make_shared<std::pair<extent_put_ptr, std::shared_ptr<drive_body>>>(added.put, body);
  }
  // Memory is filled directly whatever the length; what is empty has nothing to be received.
  small_ = length == 0 || (length <= client_.slice_bytes_max() && length <= small_bytes_max && count == 1 &&
                           extents_[0].memory == nullptr);
  if (!small_)
    allocate_ahead();
  return result_;
}

void value_writer::allocate_ahead() {
  const auto end = std::min(extents_.size(), current_ + 2);
  for (auto part = current_; part < end; ++part) {
    auto& next = extents_[part];
    if (next.now != stage::none)
      continue;
    next.now = stage::allocating;
    if (client_.allocate(next.drive, next.put))
      allocated(next.put);
    if (failed())
      return;
  }
}

std::span<std::byte> value_writer::room() {
  room_ = {};
  if (failed() || received_ == length_)
    return room_;
  if (small_) {
    if (bounce_.data == nullptr) {
      bounce_ = client_.small_slice(static_cast<std::uint32_t>(length_));
      if (bounce_.data == nullptr)
        return room_;
    }
    return room_ = {bounce_.data + received_, std::min<std::size_t>(length_ - received_, step_bytes_max)};
  }
  auto& into = extents_[current_];
  const auto left = into.put->length - filled_;
  if (into.memory != nullptr) {
    if (into.now != stage::ready)
      return room_;
    auto span = into.put->place.place[span_].subspan(span_filled_);
    return room_ = span.first(std::min<std::size_t>({span.size(), step_bytes_max, left}));
  }
  if (bounce_.data == nullptr) {
    bounce_ = client_.chunk();
    bounce_filled_ = bounce_sent_ = 0;
    if (bounce_.data == nullptr)
      return room_;
  }
  // Up to the next point where a piece is sent, so that pieces begin on multiples of write_bytes in the
  // extent.
  const auto until =
      std::min({write_bytes - filled_ % write_bytes, left, bounce_.bytes - bounce_filled_, step_bytes_max});
  return room_ = {bounce_.data + bounce_filled_, until};
}

std::shared_ptr<void> value_writer::keep() const {
  if (small_ || extents_[current_].memory == nullptr)
    return bounce_.keep;
  return extents_[current_].memory;
}

/// Bytes of the value in order. A short piece waits for what comes behind it, so that a chunk whose front
/// came with the request's header is looked at once: one pass is faster than two over its parts.
void value_writer::sum_later(extent& of, std::span<const std::byte> bytes) {
  constexpr std::size_t short_bytes = 16 << 10;
  if (!unsummed_.empty()) {
    if (unsummed_.data() + unsummed_.size() == bytes.data())
      bytes = {unsummed_.data(), unsummed_.size() + bytes.size()};
    else
      take_checksums(of, unsummed_);
    unsummed_ = {};
  }
  if (bytes.size() < short_bytes && chunk_filled_ + bytes.size() < chunk_bytes)
    unsummed_ = bytes;
  else
    take_checksums(of, bytes);
}

void value_writer::sum_rest(extent& of) {
  take_checksums(of, unsummed_);
  unsummed_ = {};
}

void value_writer::take_checksums(extent& of, std::span<const std::byte> bytes) {
  auto& sums = of.put->chunk_crc32c;
  while (!bytes.empty()) {
    const auto step = bytes.first(std::min<std::size_t>(bytes.size(), chunk_bytes - chunk_filled_));
    chunk_crc_ = wire::crc32c(step, chunk_crc_);
    chunk_filled_ += static_cast<std::uint32_t>(step.size());
    bytes = bytes.subspan(step.size());
    if (chunk_filled_ == chunk_bytes) {
      sums.push_back(chunk_crc_);
      value_crc_ = wire::crc32c_combine_64_kib(value_crc_, chunk_crc_);
      chunk_crc_ = chunk_filled_ = 0;
    }
  }
}

/// All of the extent has been received.
void value_writer::end_checksums(extent& of) {
  sum_rest(of);
  if (chunk_filled_ == 0)
    return;
  of.put->chunk_crc32c.push_back(chunk_crc_);
  value_crc_ = wire::crc32c_combine(value_crc_, chunk_crc_, chunk_filled_);
  chunk_crc_ = chunk_filled_ = 0;
}

std::span<const std::byte> value_writer::arrived(std::uint32_t bytes) {
  MEMKV_ASSERT(bytes <= room_.size(), "no more bytes arrive than there was room for");
  const std::span<const std::byte> taken = room_.first(bytes);
  room_ = {};
  auto& into = extents_[current_];
  sum_later(into, taken);
  received_ += bytes;
  filled_ += bytes;
  const bool end_of_extent = filled_ == into.put->length;
  if (end_of_extent)
    end_checksums(into);
  if (!small_) {
    if (into.memory != nullptr) {
      span_filled_ += bytes;
      if (span_filled_ == into.put->place.place[span_].size()) {
        ++span_;
        span_filled_ = 0;
      }
    } else {
      bounce_filled_ += bytes;
      if (end_of_extent || filled_ % write_bytes == 0 || bounce_filled_ == bounce_.bytes) {
        // The drive gives the buffer back.
        sum_rest(into);
        flush_piece(into, end_of_extent);
      }
    }
    if (end_of_extent && current_ + 1 < extents_.size()) {
      ++current_;
      filled_ = 0;
      span_ = span_filled_ = 0;
      allocate_ahead();
    }
  }
  return taken;
}

void value_writer::flush_piece(extent& into, bool end_of_extent) {
  payload_slice piece;
  piece.data = bounce_.data + bounce_sent_;
  piece.bytes = bounce_filled_ - bounce_sent_;
  piece.offset = filled_ - piece.bytes;
  piece.keep = bounce_.keep;
  send_piece(into, std::move(piece));
  // The next piece begins where the device can write from.
  bounce_filled_ = bounce_sent_ = std::min((bounce_filled_ + 4095U) & ~4095U, bounce_.bytes);
  if (end_of_extent || bounce_.bytes - bounce_filled_ < write_bytes)
    bounce_ = {};
}

void value_writer::send_piece(extent& into, payload_slice piece) {
  if (into.now == stage::ready) {
    client_.send_to_drive(into.drive, write_extent{into.put, std::move(piece)});
  } else {
    into.early.push_back(std::move(piece));
    ++early_;
  }
}

bool value_writer::uses_buffers() const noexcept {
  return length_ > 0 &&
         std::ranges::any_of(extents_, [](const extent& each) { return each.memory == nullptr; });
}

void value_writer::demand_absence() noexcept {
  MEMKV_ASSERT(!committing_ && !extents_.empty(), "what is committed already cannot be told more");
  extents_.front().put->if_absent = true;
}

// --- places ---

value_writer::place value_writer::next_place(std::uint32_t bytes_max) {
  MEMKV_ASSERT(bytes_max >= 4096, "places are not cut smaller than what a drive can be written in");
  waits_for_buffer_ = false;
  if (failed() || placed_ == length_)
    return {};
  place_out next;
  auto& where = next.where;
  auto& into = extents_[current_];
  const auto left = into.put->length - filled_;
  if (small_) {
    if (bounce_.data == nullptr)
      bounce_ = client_.small_slice(static_cast<std::uint32_t>(length_));
    if (bounce_.data != nullptr)
      where.bytes = {bounce_.data + filled_, std::min(left, bytes_max)};
    where.keep = bounce_.keep;
  } else if (into.memory != nullptr) {
    if (into.now != stage::ready)
      return {};
    const auto span = into.put->place.place[span_].subspan(span_filled_);
    where.bytes = span.first(std::min<std::size_t>({span.size(), bytes_max, left}));
    where.keep = into.memory;
    span_filled_ += where.bytes.size();
    if (where.bytes.size() == span.size()) {
      ++span_;
      span_filled_ = 0;
    }
  } else {
    if (bounce_.data == nullptr) {
      bounce_ = client_.chunk();
      bounce_filled_ = 0;
    }
    if (bounce_.data != nullptr) {
      // Each place is one piece for the drive: it begins where the device can be written.
      const auto until = std::min(
          {write_bytes - filled_ % write_bytes, left, bounce_.bytes - bounce_filled_, bytes_max & ~4095U});
      where.bytes = {bounce_.data + bounce_filled_, until};
      where.keep = bounce_.keep;
      bounce_filled_ = std::min((bounce_filled_ + until + 4095U) & ~4095U, bounce_.bytes);
      if (until == left || bounce_filled_ == bounce_.bytes)
        bounce_ = {};
    }
  }
  if (where.bytes.empty()) {
    waits_for_buffer_ = true;
    return {};
  }
  where.number = places_taken_ + static_cast<std::uint32_t>(places_out_.size());
  where.offset = placed_;
  next.extent = current_;
  next.offset = filled_;
  placed_ += where.bytes.size();
  filled_ += static_cast<std::uint32_t>(where.bytes.size());
  places_out_.push_back(next);
  if (where.bytes.size() == left && current_ + 1 < extents_.size()) {
    ++current_;
    filled_ = 0;
    span_ = span_filled_ = 0;
    allocate_ahead();
    if (failed())
      return {};
  }
  return where;
}

std::span<std::byte> value_writer::place_of(std::uint32_t number) const noexcept {
  const auto at = number - places_taken_;
  return at < places_out_.size() ? places_out_[at].where.bytes : std::span<std::byte>{};
}

void value_writer::filled(std::uint32_t number) {
  if (failed())
    return;
  const auto at = number - places_taken_;
  MEMKV_ASSERT(at < places_out_.size() && !places_out_[at].filled, "a place is filled once");
  places_out_[at].filled = true;
}

value_writer::place value_writer::take_filled() {
  if (failed() || places_out_.empty() || !places_out_.front().filled)
    return {};
  const auto next = std::move(places_out_.front());
  places_out_.erase(places_out_.begin());
  ++places_taken_;
  auto& into = extents_[next.extent];
  const auto bytes = static_cast<std::uint32_t>(next.where.bytes.size());
  take_checksums(into, next.where.bytes);
  received_ += bytes;
  if (next.offset + bytes == into.put->length)
    end_checksums(into);
  if (!small_ && into.memory == nullptr)
    send_piece(into, {next.where.bytes.data(), bytes, next.offset, next.where.keep});
  return next.where;
}

std::uint32_t value_writer::crc32c() const noexcept {
  return value_crc_;
}

/// A block of which a part is gone for good is a miss, so it is absent.
void value_writer::look_for_incomplete(extent_put& put) {
  auto& drives = client_.drives();
  const auto [pin, whole] = find_head(drives, put.id, extent_bytes_max_);
  if (!pin || whole || !drives.complete())
    return;
  client_.count_incomplete_block();
  put.absent_generation = pin->generation;
}

void value_writer::begin_commit_of(extent& which) {
  which.now = stage::storing;
  which.put->deadline_ns = deadline_ns_;
  if (which.put->if_absent && which.put->part == 0)
    look_for_incomplete(*which.put);
  if (small_)
    client_.send_to_drive(which.drive, store_extent{which.put});
  else if (client_.commit(which.drive, which.put))
    take_outcome(which);
}

void value_writer::commit(std::uint64_t deadline_ns) {
  MEMKV_ASSERT(received_ == length_ && !committing_, "a value is committed once, when it is complete");
  if (failed()) {
    settle();
    return;
  }
  deadline_ns_ = deadline_ns;
  committing_ = true;
  if (small_ && length_ > 0) {
    bounce_.bytes = static_cast<std::uint32_t>(length_);
    extents_[0].put->pieces.push_back(std::move(bounce_));
    bounce_ = {};
  }
  for (std::size_t part = 1; part < extents_.size(); ++part)
    if (extents_[part].now == stage::ready)
      begin_commit_of(extents_[part]);
  settle();
}

/// Goes on when all answers that were outstanding are there.
void value_writer::settle() {
  if (finished_)
    return;
  const auto storing = [this] {
    return std::ranges::any_of(extents_, [this](const extent& each) {
      return each.now == stage::storing || (each.now == stage::allocating && !failed());
    });
  };
  if (storing())
    return;
  if (!failed() && committing_ && !head_sent_) {
    head_sent_ = true;
    begin_commit_of(extents_[0]);
    if (storing())
      return;
  }
  if (failed())
    clean_up();
  finished_ = true;
}

void value_writer::clean_up() {
  if (cleaned_)
    return;
  cleaned_ = true;
  for (auto& each : extents_) {
    if (each.put == nullptr)
      continue;
    if (each.now == stage::ready) {
      client_.send_to_drive(each.drive, abandon_extent{each.put->place.token});
    } else if (each.now == stage::stored && each.put->part > 0) {
      auto erase = std::make_shared<block_erase>();
      erase->id = each.put->id;
      client_.send_to_drive(each.drive, erase_block{std::move(erase)});
    }
    // Those still being allocated or stored are swept up by their drive once nobody holds them.
  }
  bounce_ = {};
  unsummed_ = {};
  places_out_.clear();
  for (auto& each : extents_)
    each.early.clear();
  early_ = 0;
}

void value_writer::abort(status why) {
  if (finished_)
    return;
  if (result_ == status::ok)
    result_ = why;
  settle();
}

void value_writer::allocated(const extent_put_ptr& put) {
  auto& which = extents_[put->part];
  if (which.put != put || which.now != stage::allocating)
    return;
  if (put->result != errc::ok) {
    which.now = stage::failed;
    abort(status_of(put->result));
    return;
  }
  which.now = stage::ready;
  if (finished_) {
    client_.send_to_drive(which.drive, abandon_extent{put->place.token});
    return;
  }
  early_ -= which.early.size();
  for (auto& piece : which.early)
    client_.send_to_drive(which.drive, write_extent{which.put, std::move(piece)});
  which.early.clear();
  if (!committing_)
    return;
  if (which.put->part > 0)
    begin_commit_of(which);
  settle();
}

void value_writer::stored(const extent_put_ptr& put) {
  auto& which = extents_[put->part];
  if (which.put != put || which.now != stage::storing)
    return;
  take_outcome(which);
  settle();
}

void value_writer::take_outcome(extent& which) {
  const auto& put = *which.put;
  if (put.result == errc::ok) {
    which.now = stage::stored;
    if (put.part == 0)
      generation_ = put.generation;
  } else {
    which.now = stage::failed;
    if (result_ == status::ok)
      result_ = status_of(put.result);
  }
}

void value_writer::drive_down(std::uint32_t drive) {
  if (finished_)
    return;
  bool concerned = false;
  for (auto& each : extents_) {
    if (each.drive != drive)
      continue;
    concerned = true;
    if (each.now == stage::storing && result_ == status::ok)
      // Whether the commit took effect is known only after the drive was recovered.
      result_ = status::internal;
    each.now = stage::failed;
  }
  if (concerned)
    abort(status::unavailable);
}

} // namespace memkv::actors
