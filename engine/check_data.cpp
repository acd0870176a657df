// Header page and bytes of every stored block, read in the order of the drive.
#include "engine/drive_checker.hpp"
#include "engine/extent_check.hpp"
#include "wire/assert.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>
#include <deque>

namespace memkv::engine {

namespace {

constexpr std::size_t readings_max = 32;
constexpr std::uint64_t reading_bytes_max = std::uint64_t{32} << 20; // one block may be more

} // namespace

/// One extent on its way from the device.
struct drive_checker::extent_reading {
  checked_entry* entry = nullptr;
  std::vector<run> runs;
  std::unique_ptr<aligned_bytes> buffer;
  std::uint64_t data_bytes = 0; // read from the beginning of the extent, whole pages
  std::uint64_t header_at = 0;  // in the buffer
  std::size_t left = 0;
  errc result = errc::ok;
  [[nodiscard]] std::uint64_t bytes() const noexcept { return std::max(data_bytes, header_at + page_bytes); }
};

void drive_checker::start_reading(extent_reading& reading) {
  const layout& at = places();
  const checked_entry& entry = *reading.entry;
  reading.runs = runs_of(entry);
  const bool apart = header_apart(entry);
  const std::uint64_t all = std::uint64_t{entry.units} * at.unit_bytes;
  if ((entry.flags & entry_striped) != 0) {
    reading.data_bytes = all;
  } else {
    reading.data_bytes = align_up(entry.value_length, page_bytes) + (apart ? 0 : page_bytes);
    MEMKV_ASSERT(reading.data_bytes <= all, "what contradicts itself was dropped before");
  }
  reading.header_at = reading.data_bytes;
  if (!apart) {
    // It is among what is read anyway.
    std::uint64_t before = 0;
    for (const run& piece : reading.runs) {
      const std::uint64_t first = std::uint64_t{piece.first_unit} * at.pages_per_unit();
      const std::uint64_t pages = std::uint64_t{piece.units} * at.pages_per_unit();
      if (entry.header_page >= first && entry.header_page - first < pages) {
        reading.header_at = (before + entry.header_page - first) * page_bytes;
        break;
      }
      before += pages;
    }
  }
  const auto fits = [&](const auto& buffer) { return buffer->span().size() >= reading.bytes(); };
  if (const auto found = std::ranges::find_if(spare_, fits); found != spare_.end()) {
    reading.buffer = std::move(*found);
    spare_.erase(found);
  } else {
    spare_.clear();
    reading.buffer = std::make_unique<aligned_bytes>(reading.bytes());
  }
  const auto pieces = extent_pieces(at, reading.runs, 0, reading.data_bytes);
  reading.left = pieces.size() + (apart ? 1 : 0);
  const auto ended = [&reading](errc result) {
    if (result != errc::ok)
      reading.result = result;
    --reading.left;
  };
  std::uint64_t to = 0;
  for (const device_piece& piece : pieces) {
    io_.read(piece.offset, reading.buffer->span().subspan(to, piece.length), ended);
    to += piece.length;
  }
  if (apart)
    io_.read(at.data_page_offset(entry.header_page),
             reading.buffer->span().subspan(reading.header_at, page_bytes), ended);
}

void drive_checker::judge(extent_reading& reading) {
  checked_entry& entry = *reading.entry;
  const layout& at = places();
  const std::uint64_t header_offset = at.data_page_offset(entry.header_page);
  const std::uint64_t data_offset = entry.units == 0 ? header_offset : at.unit_offset(entry.first_unit);
  const auto spoilt = [&](finding_kind why, check_region region, std::uint64_t offset, std::uint64_t length,
                          std::string text) {
    find(why, region, offset, length, std::move(text), &entry.id);
    drop(entry, why);
    ++report_.counts.blocks_damaged;
  };
  if (reading.result != errc::ok) {
    account_extent(entry, {});
    spoilt(finding_kind::unreadable, check_region::extent_data, data_offset, reading.data_bytes,
           "the device cannot read a block");
    return;
  }
  extent_header header;
  const std::span<const std::byte, page_bytes> page(reading.buffer->data() + reading.header_at,
                                                    std::size_t{page_bytes});
  const entry_record record = record_of(entry);
  const bool striped = (entry.flags & entry_striped) != 0;
  bool good = check_extent_header(page, expectation_of(super(), record), at, header) == errc::ok &&
              header.run_count() == reading.runs.size() && (striped || header.length == entry.value_length);
  for (std::size_t i = 0; good && i < reading.runs.size(); ++i)
    good = header.run_at(i) == reading.runs[i];
  // Of a striped block's head only the page itself says where its data ends.
  good = good && (header_apart(entry) || reading.header_at == align_up(header.length, page_bytes));
  if (!good) {
    account_extent(entry, {});
    spoilt(finding_kind::header_damaged, check_region::extent_header, header_offset, page_bytes,
           "the header page of a block is not the one that its entry names");
    return;
  }
  account_extent(entry, header.length);
  for (std::uint32_t i = 0; i < chunk_count(header.length); ++i) {
    const std::uint32_t length = std::min(chunk_bytes, header.length - i * chunk_bytes);
    const auto bytes = reading.buffer->span().subspan(std::size_t{i} * chunk_bytes, length);
    if (wire::crc32c(bytes) == header.chunk_at(i))
      continue;
    const auto where = extent_pieces(at, reading.runs, std::uint64_t{i} * chunk_bytes, page_bytes);
    spoilt(finding_kind::data_damaged, check_region::extent_data, where.front().offset, length,
           "bytes " + std::to_string(std::uint64_t{i} * chunk_bytes) + " to " +
               std::to_string(std::uint64_t{i} * chunk_bytes + length - 1) +
               " of a block are not what their checksum says");
    return;
  }
  ++report_.counts.blocks_verified;
  report_.counts.bytes_verified += header.length;
}

void drive_checker::account_extent(const checked_entry& entry, std::optional<std::uint64_t> length) {
  const std::uint64_t inside = header_apart(entry) ? 0 : page_bytes;
  const std::uint64_t room = std::uint64_t{entry.units} * places().unit_bytes - inside;
  const std::uint64_t data = length.value_or(room);
  of(check_region::extent_header).bytes += page_bytes;
  of(check_region::extent_data).bytes += data;
  of(check_region::extent_unused).bytes += room - data;
}

void drive_checker::look_at_data() {
  advance(check_stage::data, 0);
  if (options_.quick) {
    for (const checked_entry& entry : entries_)
      if (entry.units_held)
        account_extent(entry, {});
    return;
  }
  std::vector<checked_entry*> order;
  order.reserve(entries_.size());
  for (checked_entry& entry : entries_)
    if (entry.units_held) {
      order.push_back(&entry);
      bytes_total_ += std::uint64_t{entry.units} * places().unit_bytes;
    }
  std::ranges::sort(order, {}, [&](const checked_entry* entry) {
    return entry->units == 0 ? std::uint64_t{entry->header_page}
                             : std::uint64_t{entry->first_unit} * places().pages_per_unit();
  });
  std::deque<std::unique_ptr<extent_reading>> running;
  std::uint64_t bytes = 0;
  for (auto next = order.begin(); next != order.end() || !running.empty();) {
    while (next != order.end() && running.size() < readings_max && bytes < reading_bytes_max) {
      running.push_back(std::make_unique<extent_reading>());
      running.back()->entry = *next++;
      start_reading(*running.back());
      bytes += running.back()->bytes();
    }
    const std::unique_ptr<extent_reading> first = std::move(running.front());
    running.pop_front();
    while (first->left > 0)
      io_.poll(true);
    judge(*first);
    bytes -= first->bytes();
    if (spare_.size() < readings_max)
      spare_.push_back(std::move(first->buffer));
    advance(check_stage::data, std::uint64_t{first->entry->units} * places().unit_bytes);
  }
  spare_.clear();
  for (const check_region stored : {check_region::extent_header, check_region::extent_data})
    of(stored).read = of(stored).covered = of(stored).bytes;
}

} // namespace memkv::engine
