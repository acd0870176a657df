#include "engine/drive_format.hpp"

#include "engine/bitmap_page.hpp"
#include "engine/clock.hpp"
#include "engine/drive_content.hpp"
#include "engine/drive_io.hpp"
#include "engine/drive_set.hpp"
#include "engine/superblock_pair.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace memkv::engine {

namespace {

constexpr std::uint64_t discard_step_bytes = std::uint64_t{16} << 30;
constexpr std::uint64_t zeros_bytes = std::uint64_t{1} << 20;
constexpr std::uint64_t zeros_in_flight_bytes = std::uint64_t{32} << 20;

struct range {
  std::uint64_t begin = 0, end = 0;
};

status failed(const char* doing) {
  return {errc::io_error, std::string("the device failed while ") + doing + ": look at the kernel's log"};
}

status interrupted() {
  return {errc::cancelled, "it was interrupted, so not everything was discarded or overwritten: do it again"};
}

std::span<std::byte, page_bytes> as_page(aligned_bytes& page) {
  return std::span<std::byte, page_bytes>(page.data(), std::size_t{page_bytes});
}

// The second copy only after the first is durable.
bool write_superblocks(drive_io& io, superblock& super) {
  aligned_bytes page(page_bytes);
  for (const std::uint8_t copy : {0, 1}) {
    super.copy = copy;
    encode(super, as_page(page));
    if (io.write_now(copy == 0 ? 0 : super.places.mirror_offset(), page.span()) != errc::ok ||
        io.flush_now() != errc::ok)
      return false;
  }
  return true;
}

// What a format does not write itself: tree, data and what lies behind, but not the mirror.
std::vector<range> unwritten_ranges(const layout& places, std::uint64_t device_bytes) {
  std::vector<range> ranges{{places.tree_offset, places.mirror_offset()}};
  const std::uint64_t end = device_bytes / page_bytes * page_bytes;
  if (places.device_bytes < end)
    ranges.push_back({places.device_bytes, end});
  return ranges;
}

/// True when all of it was discarded; otherwise `note` may say why not.
bool discard_all(discarder* discarder, const std::vector<range>& ranges, const format_progress& progress,
                 std::string& note) {
  if (discarder == nullptr || !discarder->supported())
    return false;
  std::uint64_t total = 0;
  for (const auto& each : ranges)
    total += each.end - each.begin;
  std::uint64_t done = 0;
  for (const auto& each : ranges)
    for (std::uint64_t at = each.begin; at < each.end;) {
      const std::uint64_t length = std::min(discard_step_bytes, each.end - at);
      if (!progress("discarding", done, total))
        return false;
      if (discarder->discard(at, length) != errc::ok) {
        note = "the drive refused to discard its space, so the server will do it";
        return false;
      }
      at += length;
      done += length;
    }
  return discarder->supported(); // some only find out when they try
}

bool fill_with_zeros(drive_io& io, range where, const format_progress& progress) {
  aligned_bytes zeros(zeros_bytes);
  std::memset(zeros.data(), 0, zeros.span().size());
  const std::uint64_t total = where.end - where.begin;
  std::uint64_t asked = 0;
  std::uint64_t done = 0;
  bool good = true;
  while (good && done < total) {
    while (asked < total && asked - done < zeros_in_flight_bytes) {
      const std::uint64_t length = std::min(zeros_bytes, total - asked);
      io.write(where.begin + asked, zeros.span().first(length), [&done, &good, length](errc result) {
        done += length;
        good = good && result == errc::ok;
      });
      asked += length;
    }
    io.poll(true);
    good = progress("filling with zeros", done, total) && good;
  }
  while (!io.idle()) // the zeros are read until then
    io.poll(true);
  return good && io.flush_now() == errc::ok;
}

bool write_empty_bitmap(drive_io& io, const superblock& super) {
  const layout& places = super.places;
  const std::vector<std::byte> bits(bitmap_bits_per_page / 8);
  aligned_bytes page(page_bytes);
  for (std::uint32_t at = 0; at < places.bitmap_pages; ++at) {
    bitmap_page_header header;
    header.format_id = super.format_id;
    header.page = at;
    header.units = std::min(bitmap_bits_per_page, places.units - at * bitmap_bits_per_page);
    header.sequence = super.sequence;
    encode(header, std::span(bits).first((header.units + 7) / 8), as_page(page));
    if (io.write_now(places.bitmap_offset + std::uint64_t{at} * page_bytes, page.span()) != errc::ok)
      return false;
  }
  return true;
}

bool fill_random(std::span<std::byte> out) {
  return ::getrandom(out.data(), out.size(), 0) == static_cast<ssize_t>(out.size());
}

} // namespace

status format_new(block_device& device, discarder* discarder, const new_drive& wanted,
                  const format_progress& progress) {
  store_options options;
  options.identity = wanted.identity;
  options.unit_bytes = wanted.unit_bytes;
  options.extent_bytes_max = wanted.extent_bytes_max;
  options.sync = sync_policy::always;
  (void)read_boot_id(options.boot_id); // unknown: zeros, as no kernel has them
  const std::uint64_t size = device.information().size_bytes;
  drive_io io(device);
  {
    // A format takes the set epoch over from an earlier one. In a new set that would make the others look as
    // if they had been away.
    superblock_pair old;
    read_superblocks(io, size, old);
    aligned_bytes zeros(page_bytes);
    std::memset(zeros.data(), 0, page_bytes);
    if (io.write_now(0, zeros.span()) != errc::ok || io.flush_now() != errc::ok ||
        io.write_now(old.offsets[1], zeros.span()) != errc::ok || io.flush_now() != errc::ok)
      return failed("its old superblocks were removed");
  }
  if (status made = drive_store::format(device, options); !made.ok())
    return made;
  drive_content content;
  if (status looked = look_at_content(device, content); !looked.ok())
    return looked;
  if (content.kind != content_kind::memkv || content.fits != errc::ok ||
      content.super.set.set_id != wanted.identity.set_id)
    return {errc::corrupt, "the drive does not give back what was written to it: replace it"};
  status result;
  superblock super = content.super;
  if (wanted.set_epoch > 0) {
    // Before the discarding, which may take long.
    super.set_epoch = wanted.set_epoch;
    super.members = wanted.members;
    ++super.sequence;
    if (!write_superblocks(io, super))
      return failed("its superblocks were written");
  }
  super.untrimmed = !discard_all(discarder, unwritten_ranges(super.places, size), progress, result.text);
  super.failures = wanted.failures;
  ++super.sequence;
  if (!write_superblocks(io, super))
    return failed("its superblocks were written");
  return result;
}

status format_again(block_device& device, discarder* discarder, const superblock& found, bool secure,
                    const format_progress& progress) {
  const std::uint64_t size = device.information().size_bytes;
  superblock super;
  if (status sized =
          compute_layout(size, found.places.unit_bytes, found.places.extent_bytes_max, super.places);
      !sized.ok())
    return sized;
  if (!fill_random(super.format_id))
    return {errc::io_error, "the system gave no random bytes for the new format"};
  super.drive_id = found.drive_id;
  super.set = found.set;
  super.set_epoch = found.set_epoch;
  super.members = found.members;
  super.failures.device_id = found.failures.device_id;
  super.journal_tail_sequence = 1;
  super.sequence = 1;
  super.formatted_at_ns = std::max(system_clock().wall_ns(), found.formatted_at_ns + 1);
  super.sync = sync_policy::always; // every step below is flushed
  super.untrimmed = true;
  (void)read_boot_id(super.boot_id);

  // From the first copy on the drive is empty: nothing that lies on it is of the new format. Until then it is
  // as it was.
  drive_io io(device);
  if (!write_superblocks(io, super))
    return failed("its superblocks were written");
  const format_progress quietly = [](std::string_view, std::uint64_t, std::uint64_t) { return true; };
  const layout& places = super.places;
  if (!fill_with_zeros(io, {places.journal_offset, places.journal_offset + places.journal_bytes}, quietly))
    return failed("its journal was written");
  if (!write_empty_bitmap(io, super) || io.flush_now() != errc::ok)
    return failed("its bitmap was written");
  status result;
  bool stopped = false;
  const format_progress watched = [&](std::string_view verb, std::uint64_t done, std::uint64_t total) {
    stopped = stopped || !progress(verb, done, total);
    return !stopped;
  };
  const bool discarded = discard_all(discarder, unwritten_ranges(places, size), watched, result.text);
  if (stopped)
    return interrupted();
  const std::uint64_t end =
      secure ? places.mirror_offset() : (discarded ? places.tree_offset : places.data_offset);
  if (end > places.tree_offset && !fill_with_zeros(io, {places.tree_offset, end}, watched))
    return stopped ? interrupted() : failed("it was filled with zeros");
  super.untrimmed = !discarded || secure; // zeros are data, too
  super.clean = true;
  ++super.sequence;
  if (!write_superblocks(io, super))
    return failed("its superblocks were written");
  return result;
}

} // namespace memkv::engine
