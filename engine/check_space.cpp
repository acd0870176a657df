// Who owns which unit, by the entries alone; and what the bitmap says about that.
#include "engine/bitmap_page.hpp"
#include "engine/drive_checker.hpp"
#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

std::vector<run> drive_checker::runs_of(const checked_entry& entry) const {
  if ((entry.flags & entry_fragmented) != 0)
    return extras_.at(entry.id).runs;
  if (entry.units == 0)
    return {};
  return {run{entry.first_unit, entry.units}};
}

bool drive_checker::header_apart(const checked_entry& entry) const {
  const std::uint32_t holder = entry.header_page / places().pages_per_unit();
  return std::ranges::none_of(runs_of(entry), [&](const run& piece) {
    return holder >= piece.first_unit && holder - piece.first_unit < piece.units;
  });
}

bool drive_checker::contradicts(const checked_entry& entry) const {
  if ((entry.flags & entry_striped) != 0)
    return false; // how much of it lies here is in its header page only
  const layout& at = places();
  const std::uint64_t pages = align_up(entry.value_length, page_bytes) / page_bytes;
  if (entry.value_length > at.extent_bytes_max ||
      align_up(entry.value_length, at.unit_bytes) / at.unit_bytes != entry.units)
    return true;
  if (header_apart(entry))
    return std::uint64_t{entry.units} * at.pages_per_unit() > pages;
  // Behind the data, at its end.
  std::uint64_t page = pages;
  for (const run& piece : runs_of(entry)) {
    const std::uint64_t here = std::uint64_t{piece.units} * at.pages_per_unit();
    if (page < here)
      return std::uint64_t{piece.first_unit} * at.pages_per_unit() + page != entry.header_page;
    page -= here;
  }
  return true;
}

bool drive_checker::mark(const checked_entry& entry) {
  const std::vector<run> runs = runs_of(entry);
  std::size_t marked = 0;
  while (marked < runs.size() && units_->mark(runs[marked]))
    ++marked;
  if (marked == runs.size() && (!header_apart(entry) || headers_->mark(entry.header_page, false)))
    return true;
  for (std::size_t i = 0; i < marked; ++i)
    units_->free(runs[i]);
  return false;
}

void drive_checker::unmark(const checked_entry& entry) {
  for (const run& piece : runs_of(entry))
    units_->free(piece);
  bool unit_freed = false;
  if (header_apart(entry))
    headers_->free(entry.header_page, unit_freed);
}

void drive_checker::look_at_space() {
  advance(check_stage::space, 0);
  units_.emplace(places().units);
  headers_.emplace(*units_, places().unit_bytes);
  std::vector<std::pair<std::uint64_t, std::size_t>> by_age;
  by_age.reserve(entries_.size());
  for (std::size_t i = 0; i < entries_.size(); ++i)
    by_age.emplace_back(entries_[i].generation, i);
  std::ranges::sort(by_age);
  // Where two claim the same space, the younger one wrote there last.
  for (auto at = by_age.rbegin(); at != by_age.rend(); ++at) {
    checked_entry& entry = entries_[at->second];
    const std::uint64_t offset = places().data_page_offset(entry.header_page);
    if (contradicts(entry)) {
      find(finding_kind::entry_contradicts, check_region::extent_header, offset, page_bytes,
           "the entry of a block says that it lies where it cannot", &entry.id);
      drop(entry, finding_kind::entry_contradicts);
    } else if (!mark(entry)) {
      find(finding_kind::two_owners, check_region::extent_header, offset, page_bytes,
           "a younger block lies in the same space as this one", &entry.id);
      drop(entry, finding_kind::two_owners);
    } else {
      entry.units_held = true;
      report_.counts.parts += (entry.flags & entry_part) != 0 ? 1 : 0;
    }
  }
  report_.counts.units_owned = units_->used_units();
  for (const checked_entry& entry : entries_)
    if ((entry.flags & entry_part) != 0 && !entry.dropped) {
      const key_id& head = extras_.at(entry.id).head;
      const checked_entry* found = find_entry(head);
      if (found == nullptr || found->put_id != entry.put_id)
        find(finding_kind::head_missing, check_region::extent_header,
             places().data_page_offset(entry.header_page), page_bytes,
             super().set.drive_count > 1
                 ? "a part of a striped block whose head is not on this drive: the server looks for it"
                 : "a part of a striped block without its head: the server removes it when it starts",
             &entry.id);
    }
  look_at_bitmap();
}

// Bitmap

std::uint32_t drive_checker::units_of_page(std::uint32_t page) const noexcept {
  return std::min(bitmap_bits_per_page, places().units - page * bitmap_bits_per_page);
}

void drive_checker::look_at_bitmap() {
  const layout& at = places();
  // While a drive is in use its bitmap is behind, and shows space that nobody got in the end.
  report_.counts.bitmap_compared = super().clean;
  sweep(check_stage::space, at.bitmap_offset, at.bitmap_pages * page_bytes, page_bytes,
        [&](std::uint64_t offset, std::span<const std::byte> bytes, errc result) {
          for (std::size_t i = 0; i < bytes.size(); i += page_bytes) {
            const auto page = static_cast<std::uint32_t>((offset - at.bitmap_offset + i) / page_bytes);
            if (result != errc::ok) {
              find(finding_kind::unreadable, check_region::bitmap, offset + i, page_bytes,
                   "the device cannot read a page of the bitmap");
              continue;
            }
            bitmap_page_header header;
            std::span<const std::byte> bits;
            const errc decoded =
                decode(std::span<const std::byte, page_bytes>(bytes.data() + i, std::size_t{page_bytes}),
                       super().format_id, page, units_of_page(page), header, bits);
            if (!report_.counts.bitmap_compared)
              continue;
            if (decoded == errc::ok)
              compare_bits(page, bits);
            else
              find(finding_kind::bitmap_page_damaged, check_region::bitmap, offset + i, page_bytes,
                   "page " + std::to_string(page) + " of the bitmap is damaged");
          }
        });
}

void drive_checker::compare_bits(std::uint32_t page, std::span<const std::byte> bits) {
  const std::uint32_t first = page * bitmap_bits_per_page;
  const std::uint32_t count = units_of_page(page);
  const auto taken = [&](std::uint32_t unit) {
    return (bits[unit / 8] >> (unit % 8) & std::byte{1}) != std::byte{0};
  };
  for (std::uint32_t unit = 0; unit < count;) {
    const bool owned = units_->is_taken(first + unit);
    if (taken(unit) == owned) {
      ++unit;
      continue;
    }
    std::uint32_t end = unit;
    while (end < count && units_->is_taken(first + end) == owned && taken(end) != owned)
      ++end;
    (owned ? report_.counts.units_missing : report_.counts.units_leaked) += end - unit;
    find(owned ? finding_kind::units_missing : finding_kind::units_leaked,
         owned ? check_region::extent_data : check_region::free_units, places().unit_offset(first + unit),
         std::uint64_t{end - unit} * places().unit_bytes,
         std::to_string(end - unit) + (owned ? " units of blocks are free in the bitmap"
                                             : " units are taken in the bitmap and belong to no block"));
    unit = end;
  }
}

void drive_checker::make_bitmap_page(std::uint32_t page, std::uint64_t sequence_most,
                                     std::span<std::byte, page_bytes> to, bool& right) {
  aligned_bytes stored(page_bytes);
  const std::uint64_t offset = places().bitmap_offset + std::uint64_t{page} * page_bytes;
  const bool readable = io_.read_now(offset, stored.span()) == errc::ok;
  bitmap_page_header header;
  header.format_id = super().format_id;
  header.page = page;
  header.units = units_of_page(page);
  header.sequence = sequence_most;
  if (readable)
    header.sequence = std::min(sequence_most, wire::load_le<std::uint64_t>(stored.data() + 40));
  std::array<std::byte, bitmap_bits_per_page / 8> bits{};
  const std::size_t first = std::size_t{page} * bitmap_bits_per_page / 64;
  for (std::size_t word = 0; word < bits.size() / 8 && first + word < units_->word_count(); ++word)
    wire::store_le(bits.data() + word * 8, units_->word(first + word));
  encode(header, bits, to);
  right = readable && std::ranges::equal(stored.span(), to);
}

void drive_checker::release_dropped() {
  for (checked_entry& entry : entries_)
    if (entry.dropped && entry.units_held) {
      unmark(entry);
      entry.units_held = false;
    }
}

} // namespace memkv::engine
