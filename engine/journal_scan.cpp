#include "engine/journal_scan.hpp"

#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

/// How many of the three marks of a batch that is at home here the page carries.
int marks(std::span<const std::byte> page, const identity& format_id, std::uint64_t address) {
  return (has_magic(page, journal_magic) ? 1 : 0) + (load_identity(page.data() + 16) == format_id ? 1 : 0) +
         (wire::load_le<std::uint64_t>(page.data() + 40) == address ? 1 : 0);
}

} // namespace

errc scan_journal(std::span<const std::byte> region, const superblock& super, journal_scan& out) {
  out = {};
  const std::uint64_t tail = super.journal_tail_sequence;
  const std::uint64_t begin = super.places.journal_offset;
  std::uint64_t newest_end = 0; // within the region, behind the batch with the highest sequence
  std::uint64_t newest = 0;
  for (std::uint64_t at = 0; at < region.size();) {
    journal_batch batch;
    const std::span<const std::byte> bytes = region.subspan(at);
    const errc decoded = decode(bytes, super.format_id, begin + at, super.places, batch);
    if (decoded == errc::newer_version)
      return decoded;
    if (decoded != errc::ok) {
      if (decoded == errc::corrupt && load_identity(bytes.data() + 16) == super.format_id &&
          wire::load_le<std::uint64_t>(bytes.data() + 32) >= tail)
        out.damaged_at = begin + at;
      at += page_bytes;
      continue;
    }
    at += batch.header.length;
    if (batch.header.sequence < tail)
      continue;
    if (batch.header.sequence >= newest) {
      newest = batch.header.sequence;
      newest_end = at;
    }
    out.batches.insert_or_assign(batch.header.sequence, std::move(batch));
  }
  // What was damaged may be the field that would tell: the next batch would lie right behind the last one, or
  // at the region's beginning.
  for (const std::uint64_t at : {newest_end, std::uint64_t{0}}) {
    if (out.damaged_at || at + page_bytes > region.size())
      continue;
    const auto page = region.subspan(at, page_bytes);
    journal_batch unused;
    if (marks(page, super.format_id, begin + at) >= 2 &&
        decode(region.subspan(at), super.format_id, begin + at, super.places, unused) != errc::ok)
      out.damaged_at = begin + at;
  }
  out.settled = tail - 1;
  for (const auto& [sequence, batch] : out.batches)
    out.settled = std::max(out.settled, batch.header.settled_sequence);
  return errc::ok;
}

} // namespace memkv::engine
