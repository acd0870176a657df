// Reading blocks and comparing them with what the index and their headers say.
#include "engine/drive_store_core.hpp"
#include "engine/guarded_read.hpp"
#include "wire/assert.hpp"
#include "wire/crc32c.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace memkv::engine {

namespace {

/// The checksums of the chunks that [offset, offset + length) of an extent touches, over bytes that are
/// contiguous in `bytes`.
bool chunks_match(const known_header& header, std::uint32_t offset, std::span<const std::byte> bytes) {
  std::size_t at = 0;
  for (std::size_t chunk = offset / chunk_bytes; at < bytes.size(); ++chunk) {
    const std::size_t length = std::min<std::size_t>(chunk_bytes, bytes.size() - at);
    if (wire::crc32c(bytes.subspan(at, length)) != header.chunk_at(chunk))
      return false;
    at += length;
  }
  return true;
}

/// The same over pieces of a mapping: a chunk may lie in several.
bool chunks_match(const extent_header& header, std::uint32_t offset,
                  std::span<const std::span<const std::byte>> pieces) {
  std::size_t chunk = offset / chunk_bytes;
  std::size_t filled = 0;
  std::uint32_t sum = 0;
  for (std::span<const std::byte> piece : pieces) {
    while (!piece.empty()) {
      const std::size_t length = std::min(chunk_bytes - filled, piece.size());
      sum = wire::crc32c(piece.first(length), sum);
      piece = piece.subspan(length);
      filled += length;
      if (filled == chunk_bytes) {
        if (sum != header.chunk_at(chunk))
          return false;
        ++chunk;
        filled = 0;
        sum = 0;
      }
    }
  }
  return filled == 0 || sum == header.chunk_at(chunk);
}

bool same_name(const extent_header& header, std::string_view name_space, std::span<const std::byte> key) {
  return header.name_space == name_space && std::ranges::equal(header.key, key);
}

bool range_is_valid(std::uint32_t offset, std::uint32_t length, std::uint32_t extent_length) {
  return offset % chunk_bytes == 0 && offset <= extent_length && length <= extent_length - offset &&
         (length % chunk_bytes == 0 || offset + length == extent_length);
}

/// Whether all of it is in memory: reading it waits for no device.
bool is_resident(std::span<const std::byte> bytes) noexcept {
  constexpr std::size_t pages_max = 1024;
  std::array<unsigned char, pages_max> found;
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page_bytes * page_bytes;
  const auto end = reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size();
  for (auto at = begin; at < end; at += pages_max * page_bytes) {
    const auto length = std::min<std::size_t>(end - at, pages_max * page_bytes);
    if (::mincore(reinterpret_cast<void*>(at), length, found.data()) != 0)
      return false;
    const auto pages = (length + page_bytes - 1) / page_bytes;
    if (!std::all_of(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(pages),
                     [](unsigned char each) { return (each & 1U) != 0; }))
      return false;
  }
  return true;
}

std::vector<run> runs_of(const extent_header& header) {
  std::vector<run> runs;
  for (std::size_t i = 0; i < header.run_count(); ++i)
    runs.push_back(header.run_at(i));
  return runs;
}

} // namespace

extent_expectation drive_store_core::expectation(const block_entry& entry) const {
  extent_expectation expected;
  expected.format_id = format_id_;
  expected.drive_id = drive_id_;
  expected.id = entry.id;
  expected.generation = entry.generation;
  expected.put_id = entry.put_id;
  expected.header_page = entry.header_page;
  expected.header_crc32c = entry.header_crc32c;
  expected.first_unit = entry.first_unit;
  expected.units = entry.units;
  return expected;
}

errc drive_store_core::compare_mapped(const block_entry& entry, std::string_view name_space,
                                      std::span<const std::byte> key, std::uint32_t offset,
                                      std::uint32_t length, bool verify, extent_view& out) const {
  const std::uint64_t at = places_.data_page_offset(entry.header_page);
  const std::span<const std::byte, page_bytes> page(mapping_.data() + at, std::size_t{page_bytes});
  extent_header header;
  if (const errc checked = check_extent_header(page, expectation(entry), places_, header, covered_);
      checked != errc::ok)
    return checked;
  if (!same_name(header, name_space, key))
    return errc::not_found;
  if (length == 0xFFFFFFFF)
    length = header.length;
  if (!range_is_valid(offset, length, header.length))
    return errc::invalid_argument;
  out.pieces.clear();
  for (const device_piece& piece : extent_pieces(places_, runs_of(header), offset, length))
    out.pieces.push_back(mapping_.subspan(piece.offset, piece.length));
  out.chunk_crc32c = header.chunk_crc32c;
  if (verify && !chunks_match(header, offset, out.pieces))
    return errc::corrupt;
  return errc::ok;
}

errc drive_store_core::view(const block_pin& pin, std::string_view name_space, std::span<const std::byte> key,
                            extent_view& out) const {
  if (writable_.empty())
    return errc::invalid_argument;
  return compare_mapped(*pin, name_space, key, 0, 0xFFFFFFFF, false, out);
}

errc drive_store_core::read_mapped_file(const block_entry& entry, std::string_view name_space,
                                        std::span<const std::byte> key, std::uint32_t offset,
                                        std::uint32_t length, bool only_resident, extent_view& out) const {
  const std::span<const std::byte> page =
      mapping_.subspan(places_.data_page_offset(entry.header_page), page_bytes);
  if (only_resident && !is_resident(page))
    return errc::busy;
  // A read that is cut off leaves nothing behind that owns memory: the header is copied first, all else
  // after.
  std::array<std::byte, page_bytes> copy;
  if (!guarded_read(page, [&] { std::memcpy(copy.data(), page.data(), page.size()); }))
    return errc::io_error;
  extent_header header;
  if (const errc checked = check_extent_header(copy, expectation(entry), places_, header);
      checked != errc::ok)
    return checked;
  if (!same_name(header, name_space, key))
    return errc::not_found;
  if (!range_is_valid(offset, length, header.length))
    return errc::invalid_argument;
  for (const device_piece& piece : extent_pieces(places_, runs_of(header), offset, length)) {
    out.pieces.push_back(mapping_.subspan(piece.offset, piece.length));
    if (only_resident && !is_resident(out.pieces.back()))
      return errc::busy;
  }
  out.sums =
      std::make_shared<const std::vector<std::byte>>(header.chunk_crc32c.begin(), header.chunk_crc32c.end());
  out.chunk_crc32c = *out.sums;
  if (!options_.verify_on_read)
    return errc::ok;
  bool matches = true;
  std::size_t chunk = offset / chunk_bytes;
  std::size_t filled = 0;
  std::uint32_t sum = 0;
  for (const auto piece : out.pieces) {
    const bool readable = guarded_read(piece, [&] {
      std::size_t done = 0;
      while (done < piece.size()) {
        const std::size_t count = std::min(chunk_bytes - filled, piece.size() - done);
        sum = wire::crc32c(piece.subspan(done, count), sum);
        done += count;
        filled += count;
        if (filled < chunk_bytes)
          continue;
        matches = matches && sum == header.chunk_at(chunk);
        ++chunk;
        filled = 0;
        sum = 0;
      }
    });
    if (!readable)
      return errc::io_error;
    if (!matches)
      return errc::corrupt;
  }
  return filled == 0 || sum == header.chunk_at(chunk) ? errc::ok : errc::corrupt;
}

bool drive_store_core::read_resident(const block_pin& pin, std::string_view name_space,
                                     std::span<const std::byte> key, std::uint32_t offset,
                                     std::uint32_t length, extent_view& out) const {
  if (mapping_.empty() || !writable_.empty() || counters_.offline.load(std::memory_order_relaxed))
    return false;
  extent_view seen;
  if (read_mapped_file(*pin, name_space, key, offset, length, true, seen) != errc::ok)
    return false;
  out = std::move(seen);
  return true;
}

struct drive_store_core::device_read {
  const block_entry* entry = nullptr;
  entry_handle handle = no_entry;
  std::string name_space;
  std::vector<std::byte> key;
  std::uint32_t offset = 0, length = 0;
  std::span<std::byte> into;
  read_done callback;
  known_header_ptr header; // null until it is there
  std::size_t left = 0;
  errc result = errc::ok;
  bool tried_again = false;
};

void drive_store_core::read(const block_pin& pin, std::string_view name_space, std::span<const std::byte> key,
                            std::uint32_t offset, std::uint32_t length, std::span<std::byte> into,
                            read_done callback) {
  MEMKV_ASSERT(static_cast<bool>(pin), "a block is pinned while it is read");
  if (closed_ || counters_.offline.load(std::memory_order_relaxed)) {
    callback(errc::offline, {});
    return;
  }
  const block_entry& entry = *pin;
  if (!mapping_.empty()) {
    extent_view view;
    errc result = errc::ok;
    if (!writable_.empty()) {
      result = compare_mapped(entry, name_space, key, offset, length, options_.verify_on_read, view);
    } else {
      result = read_mapped_file(entry, name_space, key, offset, length, false, view);
    }
    if (result == errc::io_error) {
      bump(counters_.io_errors);
      callback(errc::io_error, {});
      go_offline();
      return;
    }
    if (result == errc::corrupt)
      drop_corrupt(pin.handle());
    callback(result, result == errc::ok ? std::move(view) : extent_view{});
    return;
  }
  if (into.size() < align_up(length, page_bytes)) {
    callback(errc::invalid_argument, {});
    return;
  }
  const extent_space space = space_of(pin.handle());
  if (offset % chunk_bytes != 0 || align_up(std::uint64_t{offset} + length, page_bytes) >
                                       std::uint64_t{space.units} * places_.unit_bytes) {
    callback(errc::invalid_argument, {});
    return;
  }
  auto reading = std::make_shared<device_read>();
  reading->entry = &entry;
  reading->handle = pin.handle();
  reading->name_space = name_space;
  reading->key.assign(key.begin(), key.end());
  reading->offset = offset;
  reading->length = length;
  reading->into = into;
  reading->callback = std::move(callback);
  begin_read(reading);
}

void drive_store_core::begin_read(const std::shared_ptr<device_read>& reading) {
  const extent_space space = space_of(reading->handle);
  const auto pieces =
      extent_pieces(places_, space.runs, reading->offset, align_up(reading->length, page_bytes));
  reading->result = errc::ok;
  reading->left = pieces.size() + 1;
  const auto one_done = [this, reading](errc result) {
    if (result != errc::ok)
      reading->result = errc::io_error;
    if (--reading->left == 0)
      finish_read(reading);
  };
  read_header(reading);
  const bool header_is_known = reading->header != nullptr;
  std::byte* to = reading->into.data();
  for (const device_piece& piece : pieces) {
    io_.read(piece.offset, {to, piece.length}, one_done);
    to += piece.length;
  }
  if (header_is_known && --reading->left == 0)
    finish_read(reading);
}

void drive_store_core::read_header(const std::shared_ptr<device_read>& reading) {
  const block_entry& entry = *reading->entry;
  reading->header = known_headers_.find(entry.header_page, entry.header_crc32c, entry.generation, entry.id);
  if (reading->header != nullptr)
    return;
  auto& waiting = header_reads_[entry.header_page];
  waiting.push_back(reading);
  if (waiting.size() > 1)
    return;
  auto page = std::make_shared<std::unique_ptr<aligned_bytes>>(pages_.take());
  io_.read(places_.data_page_offset(entry.header_page), (*page)->span(),
           [this, page, at = entry.header_page](errc result) {
             // All of them have the entry pinned, so the page is that of one entry.
             auto waited = std::move(header_reads_.at(at));
             header_reads_.erase(at);
             const auto bytes = (*page)->span();
             for (const auto& each : waited) {
               errc checked = result == errc::ok ? errc::ok : errc::io_error;
               extent_header header;
               if (checked == errc::ok)
                 checked = check_extent_header(
                     std::span<const std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes}),
                     expectation(*each->entry), places_, header);
               if (checked == errc::ok) {
                 each->header = remember(header, each->entry->header_crc32c);
                 known_headers_.put(each->header);
               } else if (each->result == errc::ok) {
                 each->result = checked;
               }
               if (--each->left == 0)
                 finish_read(each);
             }
             pages_.give(std::move(*page));
           });
}

void drive_store_core::finish_read(const std::shared_ptr<device_read>& reading) {
  extent_view view;
  errc result = reading->result;
  if (result == errc::io_error) {
    bump(counters_.io_errors);
    if (!std::exchange(reading->tried_again, true) && !counters_.offline.load(std::memory_order_relaxed)) {
      begin_read(reading);
      return;
    }
  }
  if (result == errc::ok) {
    const known_header& header = *reading->header;
    const std::span<const std::byte> data = reading->into.first(reading->length);
    if (header.name_space != reading->name_space || !std::ranges::equal(header.key, reading->key))
      result = errc::not_found;
    else if (!range_is_valid(reading->offset, reading->length, header.length))
      result = errc::invalid_argument;
    else if (options_.verify_on_read && !chunks_match(header, reading->offset, data))
      result = errc::corrupt;
    if (result == errc::ok) {
      if (!data.empty())
        view.pieces.push_back(data);
      view.sums = {reading->header, &header.chunk_crc32c};
      view.chunk_crc32c = *view.sums;
    }
  }
  if (result == errc::corrupt)
    drop_corrupt(reading->handle);
  else if (result == errc::io_error && drop_unreadable(reading->handle))
    result = errc::unreadable;
  reading->callback(result, std::move(view));
}

} // namespace memkv::engine
