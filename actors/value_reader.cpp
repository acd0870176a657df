#include "actors/value_reader.hpp"

#include "actors/block_head.hpp"
#include "engine/guarded_read.hpp"
#include "wire/assert.hpp"
#include "wire/bytes.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace memkv::actors {

using engine::chunk_bytes;
using engine::errc;
using wire::status;

namespace {

/// Ranges read ahead of the one that is being sent, on drives that have to be asked.
constexpr std::size_t windows_ahead = 3;
/// The same of a striped value on raw drives: several of its drives read at one time.
constexpr std::size_t windows_ahead_striped_max = 16;
constexpr std::size_t drives_at_once = 4;

status status_of(errc code) noexcept {
  switch (code) {
  case errc::ok:
    return status::ok;
  case errc::not_found:
    return status::not_found;
  case errc::corrupt:
    return status::corrupt;
  default:
    return status::unavailable;
  }
}

/// The bytes [offset, offset + length) of what `pieces` hold one after the other.
std::vector<std::span<const std::byte>> cut(const std::vector<std::span<const std::byte>>& pieces,
                                            std::uint64_t offset, std::uint64_t length) {
  std::vector<std::span<const std::byte>> out;
  for (const auto& piece : pieces) {
    if (length == 0)
      break;
    if (offset >= piece.size()) {
      offset -= piece.size();
      continue;
    }
    const auto count = std::min<std::uint64_t>(length, piece.size() - offset);
    out.push_back(piece.subspan(offset, count));
    length -= count;
    offset = 0;
  }
  MEMKV_ASSERT(length == 0, "an extent's view covers what is read of it");
  return out;
}

/// False when the memory could not be read (a mapped file that failed).
bool checksum(const std::vector<std::span<const std::byte>>& spans, std::uint32_t& sum) {
  for (const auto& span : spans)
    if (!engine::guarded_read(span, [&] { sum = wire::crc32c(span, sum); }))
      return false;
  return true;
}

} // namespace

value_reader::value_reader(drive_client& client, std::uint64_t request, std::uint32_t item)
    : client_(client), request_(request), item_(item) {}

void value_reader::fail(status code) noexcept {
  if (failed_ == status::ok)
    failed_ = code;
}

/// True when the head that was pinned is no longer the one that is found.
bool value_reader::replaced_meanwhile(const wire::key_id& id) {
  const auto& body = client_.drives().at(client_.drives().home(id)).body;
  if (body == nullptr)
    return false;
  const auto now = body->store->index().find_and_pin(id);
  return now && now->generation != generation_;
}

/// Whoever asks next must not be told that the block is there. Not while a drive is away that may come back
/// with the part.
void value_reader::drop_incomplete(const wire::key_id& id) {
  auto& drives = client_.drives();
  if (!has_generation(drives, id, generation_) || !drives.complete())
    return;
  client_.count_incomplete_block();
  auto erase = std::make_shared<block_erase>();
  erase->id = id;
  erase->generation = generation_;
  client_.send_to_drive(drives.home(id), erase_block{std::move(erase)});
}

void value_reader::note_damage() noexcept {
  if (!std::exchange(damaged_, true))
    client_.count_corrupt_block();
}

/// What only the reader can see, since the drive did not look, or need not be asked.
void value_reader::drop_damaged() {
  note_damage();
  auto erase = std::make_shared<block_erase>();
  erase->id = wire::make_key_id(name_space_, key_);
  erase->generation = generation_;
  erase->damaged = true;
  const auto home = client_.drives().home(erase->id);
  client_.send_to_drive(home, erase_block{std::move(erase)});
}

/// Memory can be looked at here and now, and the key compared.
status value_reader::look_into(extent& one, std::string_view name_space, std::span<const std::byte> key) {
  if (!one.body->memory)
    return status::ok;
  if (const auto seen = one.body->store->view(one.pin, name_space, key, one.view); seen != errc::ok)
    return seen == errc::corrupt ? status::corrupt : status::not_found;
  one.viewed = true;
  return status::ok;
}

status value_reader::pin_range(std::string_view name_space, std::span<const std::byte> key,
                               const range& wanted) {
  const auto id = wire::make_key_id(name_space, key);
  const auto extent_max = client_.extent_bytes_max();
  extents_->clear();
  part_missing_ = false;
  auto& drives = client_.drives();
  const auto pin_one = [&](const wire::key_id& which, std::uint64_t begin) -> extent* {
    const auto home = drives.home(which);
    auto& seat = drives.at(home);
    if (seat.body == nullptr)
      return nullptr;
    auto pin = seat.body->store->index().find_and_pin(which);
    if (!pin)
      return nullptr;
    auto& added = extents_->emplace_back();
    added.drive = home;
    added.body = seat.body;
    added.pin = std::move(pin);
    added.begin = begin;
    added.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(value_length_ - begin, extent_max));
    return &added;
  };
  value_length_ = 0;
  auto* head = pin_one(id, 0);
  if (head == nullptr)
    return status::not_found;
  value_length_ = head->pin->value_length;
  generation_ = head->pin->generation;
  head->length = static_cast<std::uint32_t>(std::min<std::uint64_t>(value_length_, extent_max));
  const bool striped = (head->pin->flags & engine::entry_striped) != 0;
  const auto put_id = head->pin->put_id;
  if (const auto seen = look_into(*head, name_space, key); seen != status::ok)
    return seen;
  if (wanted.offset > value_length_)
    return status::out_of_range;
  position_ = planned_ = wanted.offset;
  end_ = wanted.length == 0 || wanted.length > value_length_ - wanted.offset ? value_length_
                                                                             : wanted.offset + wanted.length;
  if (wanted.capacity != 0 && end_ - position_ > wanted.capacity)
    return status::buffer_too_small;
  if (!striped || position_ == end_)
    return status::ok;
  first_part_ = static_cast<std::uint32_t>(std::max<std::uint64_t>(position_ / extent_max, 1));
  for (std::uint64_t part = first_part_, begin = part * extent_max; begin < end_;
       ++part, begin += extent_max) {
    auto* next = pin_one(engine::part_id(id, put_id, static_cast<std::uint32_t>(part)), begin);
    if (next == nullptr) {
      part_missing_ = true; // the block is a miss
      return status::not_found;
    }
    if (const auto seen = look_into(*next, name_space, key); seen != status::ok)
      return seen;
  }
  return status::ok;
}

status value_reader::open(std::string_view name_space, std::span<const std::byte> key,
                          std::uint64_t range_offset, std::uint64_t range_length, std::uint64_t capacity,
                          std::uint32_t piece_bytes_max) {
  name_space_ = name_space;
  key_.assign(key.begin(), key.end());
  piece_bytes_max_ = piece_bytes_max;
  const range wanted{range_offset, range_length, capacity};
  auto found = pin_range(name_space, key, wanted);
  // Between its head and its last part a striped value may have been replaced: the new one is there then.
  for (int again = 0; found == status::not_found && extents_->size() > 0 && again < lookups_max &&
                      replaced_meanwhile(wire::make_key_id(name_space, key));
       ++again)
    found = pin_range(name_space, key, wanted);
  if (part_missing_)
    drop_incomplete(wire::make_key_id(name_space, key));
  if (found == status::corrupt)
    drop_damaged();
  if (found != status::ok)
    return found;
  empty_range_ = position_ == end_;
  if (empty_range_ && !extents_->front().body->memory) {
    // The key must be compared all the same: read nothing, but ask.
    window ask;
    ask.begin = ask.end = position_;
    if (ask_drive(ask, 0, 0))
      windows_.push_back(std::move(ask));
  }
  look_ahead();
  return status::ok;
}

status value_reader::open_as(const value_reader& of, std::uint64_t range_offset, std::uint64_t range_length,
                             std::uint32_t piece_bytes_max) {
  MEMKV_ASSERT(range_length > 0 && !of.extents_->empty(), "a range of a block that is open is opened");
  name_space_ = of.name_space_;
  key_ = of.key_;
  piece_bytes_max_ = piece_bytes_max;
  value_length_ = of.value_length_;
  generation_ = of.generation_;
  extents_ = of.extents_;
  if (range_offset > value_length_ || range_length > value_length_ - range_offset)
    return status::out_of_range;
  position_ = planned_ = range_offset;
  end_ = range_offset + range_length;
  look_ahead();
  return status::ok;
}

bool value_reader::count_as_lease() {
  std::map<drive_body*, std::vector<lease_ledger::wanted>> of_drives;
  for (auto& each : *extents_)
    of_drives[each.body.get()].push_back(
        {each.pin.handle(), each.body->store->space_of(*each.pin), &each.leased});
  const auto taken = [](const auto& one) {
    return one.first->leases.take(one.second, one.first->store->counters().usable_bytes);
  };
  if (std::ranges::all_of(of_drives, taken))
    return true;
  for (auto& each : *extents_)
    each.leased.give_back();
  return false;
}

std::size_t value_reader::extent_at(std::uint64_t offset) const noexcept {
  const auto part = offset / client_.extent_bytes_max();
  return static_cast<std::size_t>(part == 0 ? 0 : part - first_part_ + 1);
}

std::size_t value_reader::windows_wanted() const noexcept {
  if (extents_->size() < 2 || !extents_->front().body->needs_buffers)
    return windows_ahead;
  const auto in_one_extent = std::max<std::size_t>(1, client_.extent_bytes_max() / piece_bytes_max_);
  return std::clamp(in_one_extent * std::min(drives_at_once, client_.drives().size()), windows_ahead,
                    windows_ahead_striped_max);
}

void value_reader::look_ahead() {
  const auto wanted = windows_wanted();
  while (planned_ < end_ && failed_ == status::ok && windows_.size() < wanted) {
    window next;
    next.extent = extent_at(planned_);
    auto& from = (*extents_)[next.extent];
    next.begin = planned_;
    // Pieces end on multiples of their size, so that all but the first and the last are whole chunks.
    const std::uint64_t piece = from.body->needs_buffers && !from.viewed
                                    ? std::min(piece_bytes_max_, client_.read_room_max())
                                    : piece_bytes_max_;
    next.end = std::min({end_, from.begin + from.length, (planned_ / piece + 1) * piece});
    if (from.viewed) {
      next.done = true;
    } else {
      const auto low = static_cast<std::uint32_t>(next.begin - from.begin) / chunk_bytes * chunk_bytes;
      const auto high = std::min<std::uint64_t>(
          (next.end - from.begin + chunk_bytes - 1) / chunk_bytes * chunk_bytes, from.length);
      if (!ask_drive(next, low, static_cast<std::uint32_t>(high - low)))
        return;
    }
    planned_ = next.end;
    const bool at_once = next.done && !from.viewed && !from.body->needs_buffers;
    windows_.push_back(std::move(next));
    // What was read here took this thread's time: no more of it than is sent next.
    if (at_once)
      return;
  }
}

bool value_reader::ask_drive(window& range, std::uint32_t low, std::uint32_t length) {
  auto& from = (*extents_)[range.extent];
  auto read = std::make_shared<extent_read>();
  read->request = request_;
  read->item = item_;
  read->reply_to = client_.as_actor();
  read->pin = &from.pin;
  read->keep = extents_;
  read->name_space = name_space_;
  read->key = key_;
  read->offset = low;
  read->length = length;
  range.read = read;
  if (from.body->needs_buffers && length > 0) {
    if (client_.recall(from.pin->generation, *read)) {
      range.done = true;
      return true;
    }
    read->into = client_.read_room(length);
    if (read->into.data == nullptr) {
      client_.wait_for_room(request_);
      return false;
    }
  }
  // What the kernel has in memory is read here: a message to the drive and back costs more.
  if (!from.body->needs_buffers && length > 0 &&
      from.body->store->read_resident(from.pin, name_space_, key_, low, length, read->view)) {
    range.done = true;
    return true;
  }
  client_.send_to_drive(from.drive, read_extent{std::move(read)});
  return true;
}

bool value_reader::ready() const noexcept {
  if (finished_)
    return false;
  if (windows_.empty())
    return failed_ != status::ok || (empty_range_ && extents_->front().viewed);
  return windows_.front().done || failed_ != status::ok;
}

value_reader::piece value_reader::spoil() {
  drop_damaged();
  finished_ = true;
  piece out;
  out.status = status::corrupt;
  out.last = true;
  return out;
}

value_reader::piece value_reader::next() {
  MEMKV_ASSERT(ready(), "a piece is taken only when there is one");
  piece out;
  out.offset = position_;
  const auto end_with = [&](status code) {
    out.status = code;
    out.last = true;
    out.spans.clear();
    out.bytes = 0;
    finished_ = true;
    return out;
  };
  if (windows_.empty() || failed_ != status::ok) {
    // Nothing was asked for but the presence of the block, or it cannot be had any more.
    return end_with(failed_);
  }
  const auto front = windows_.front();
  windows_.pop_front();
  if (front.status != status::ok)
    return end_with(front.status);
  if (front.begin == front.end)
    return end_with(status::ok);
  const auto& from = (*extents_)[front.extent];
  const auto& view = front.read != nullptr ? front.read->view : from.view;
  const std::uint64_t view_begin = front.read != nullptr ? front.read->offset : 0; // in the extent
  const std::uint64_t low = front.begin - from.begin, high = front.end - from.begin;
  out.spans = cut(view.pieces, low - view_begin, high - low);
  out.bytes = static_cast<std::uint32_t>(high - low);
  // The read holds its buffer, and the extents with their pins.
  out.keep = front.read != nullptr ? std::shared_ptr<void>{front.read} : std::shared_ptr<void>{extents_};
  for (auto chunk = low / chunk_bytes; chunk * chunk_bytes < high; ++chunk) {
    const std::uint64_t chunk_begin = chunk * chunk_bytes;
    const auto chunk_end = std::min<std::uint64_t>(chunk_begin + chunk_bytes, from.length);
    const auto begin = std::max(low, chunk_begin), end = std::min(high, chunk_end);
    const auto stored = wire::load_le<std::uint32_t>(view.chunk_crc32c.data() + chunk * 4);
    if (begin == chunk_begin && end == chunk_end) {
      out.crc32c = end - begin == chunk_bytes ? wire::crc32c_combine_64_kib(out.crc32c, stored)
                                              : wire::crc32c_combine(out.crc32c, stored, end - begin);
      continue;
    }
    // Part of a chunk: its stored sum says something about the whole only, so the whole is looked at.
    std::uint32_t middle = 0;
    if (!checksum(cut(view.pieces, begin - view_begin, end - begin), middle))
      return spoil();
    std::uint32_t whole = 0;
    if (!checksum(cut(view.pieces, chunk_begin - view_begin, begin - chunk_begin), whole))
      return spoil();
    whole = wire::crc32c_combine(whole, middle, end - begin);
    if (!checksum(cut(view.pieces, end - view_begin, chunk_end - end), whole) || whole != stored)
      return spoil();
    out.crc32c = wire::crc32c_combine(out.crc32c, middle, end - begin);
  }
  position_ = front.end;
  look_ahead();
  out.last = position_ == end_;
  finished_ = out.last;
  return out;
}

void value_reader::was_read(const extent_read_ptr& read) {
  for (auto& each : windows_) {
    if (each.read != read || each.done)
      continue;
    each.done = true;
    each.status = status_of(read->result);
    if (read->result == errc::corrupt || read->result == errc::unreadable)
      note_damage();
    const auto& from = (*extents_)[each.extent];
    if (each.status == status::ok && from.body->needs_buffers)
      client_.remember(from.pin->generation, *read);
    return;
  }
}

void value_reader::drive_down(std::uint32_t drive) {
  for (const auto& each : windows_)
    if (!each.done && (*extents_)[each.extent].drive == drive)
      fail(status::unavailable);
  // Even what is read already points into a mapping that has to go before the drive can be opened again.
  for (const auto& each : *extents_)
    if (each.drive == drive && !each.body->memory)
      fail(status::unavailable);
}

} // namespace memkv::actors
