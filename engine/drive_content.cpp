#include "engine/drive_content.hpp"

#include "engine/drive_io.hpp"
#include "engine/superblock_pair.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <string_view>
#include <vector>

namespace memkv::engine {

namespace {

using bytes = std::span<const std::byte>;

constexpr std::uint64_t end_bytes = std::uint64_t{1} << 20;

bool has_text(bytes from, std::uint64_t offset, std::string_view text) {
  return offset + text.size() <= from.size() &&
         std::ranges::equal(from.subspan(offset, text.size()), wire::as_bytes_view(text));
}

template <class T>
bool has_number(bytes from, std::uint64_t offset, T number) {
  return offset + sizeof(T) <= from.size() && wire::load_le<T>(from.data() + offset) == number;
}

struct text_mark {
  std::uint64_t offset;
  std::string_view text;
  std::string_view what;
};

constexpr std::string_view gpt = "a GPT partition table";
constexpr std::string_view lvm = "an LVM physical volume";
constexpr std::string_view swap_area = "a swap area";

constexpr std::array text_marks{
    text_mark{512, "EFI PART", gpt},
    text_mark{4096, "EFI PART", gpt},
    text_mark{0, "XFSB", "an XFS file system"},
    text_mark{0x10040, "_BHRfS_M", "a btrfs file system"},
    text_mark{0, "LABELONE", lvm},
    text_mark{512, "LABELONE", lvm},
    text_mark{1024, "LABELONE", lvm},
    text_mark{1536, "LABELONE", lvm},
    text_mark{page_bytes - 10, "SWAPSPACE2", swap_area},
    text_mark{page_bytes - 10, "SWAP-SPACE", swap_area},
    text_mark{0, "LUKS\xBA\xBE", "a LUKS volume"},
    text_mark{0, "bluestore block device", "a Ceph BlueStore volume"},
    text_mark{3, "NTFS    ", "an NTFS file system"},
    text_mark{3, "EXFAT   ", "an exFAT file system"},
    text_mark{32769, "CD001", "an ISO 9660 file system"},
};

constexpr std::uint32_t md_magic = 0xA92B4EFC;
constexpr std::uint64_t zfs_magic = 0x00BAB10C;

// Linux software RAID keeps its superblock at one of four places, two of them counted from the end.
bool is_md(bytes first, bytes last, std::uint64_t device_bytes) {
  const std::uint64_t last_begin = device_bytes / page_bytes * page_bytes - last.size();
  const auto at = [&](std::uint64_t offset) {
    return offset >= last_begin && has_number(last, offset - last_begin, md_magic);
  };
  return has_number(first, 0, md_magic) || has_number(first, 4096, md_magic) ||
         (device_bytes >= (64 << 10) * 2 && at((device_bytes & ~std::uint64_t{0xFFFF}) - (64 << 10))) ||
         (device_bytes >= 16384 && at((device_bytes - 8192) & ~std::uint64_t{4095}));
}

bool is_zfs(bytes first) {
  for (std::uint64_t offset = 128 << 10; offset < (256 << 10); offset += 1024)
    if (has_number(first, offset, zfs_magic))
      return true;
  return false;
}

// A drive that was discarded may give either.
bool all_one_value(bytes from) {
  return wire::all_zero(from) ||
         std::ranges::all_of(from, [](std::byte each) { return each == std::byte{0xFF}; });
}

} // namespace

std::size_t newer_of(const std::array<superblock, 2>& copies) noexcept {
  const auto& a = copies[0];
  const auto& b = copies[1];
  if (a.formatted_at_ns != b.formatted_at_ns)
    return b.formatted_at_ns > a.formatted_at_ns ? 1 : 0;
  return b.sequence > a.sequence ? 1 : 0;
}

std::string why_not_ours(const drive_content& content) {
  switch (content.kind) {
  case content_kind::blank:
    return "is blank and was never memkv's: memkv admin drives reset takes it into the set of a running "
           "server in place of another drive, and memkv setup makes new sets";
  case content_kind::foreign:
    return "holds " + content.signature + " and was never memkv's: name a drive of memkv";
  case content_kind::memkv_newer:
    return "was formatted by a later release (this one reads superblocks up to version " +
           std::to_string(superblock_version) + "): upgrade memkv";
  case content_kind::memkv_damaged:
    return "has lost both superblocks, so its place in its set is unknown: start the server with it where it "
           "was, and memkv admin drives reset gives it back its place, empty; the others keep their blocks. "
           "Where no other drive of the set can be opened no server starts, and nothing is left to keep: "
           "memkv setup --force makes a new set, and a file is made anew once it is removed";
  case content_kind::memkv:
    break;
  }
  return {};
}

std::string foreign_signature(std::span<const std::byte> first, std::span<const std::byte> last,
                              std::uint64_t device_bytes) {
  for (const auto& mark : text_marks)
    if (has_text(first, mark.offset, mark.text))
      return std::string(mark.what);
  for (const std::size_t back : {512, 4096})
    if (last.size() >= back && has_text(last, last.size() - back, "EFI PART"))
      return std::string(gpt);
  if (has_number<std::uint16_t>(first, 1024 + 56, 0xEF53))
    return "an ext2, ext3 or ext4 file system";
  if (has_number<std::uint32_t>(first, 1024, 0xF2F52010))
    return "an F2FS file system";
  if (is_md(first, last, device_bytes))
    return "a member of a software RAID";
  if (is_zfs(first))
    return "a ZFS volume";
  if (has_number<std::uint16_t>(first, 510, 0xAA55))
    return "an MBR partition table or a boot sector";
  return {};
}

status look_at_content(block_device& device, drive_content& out) {
  out = {};
  const std::uint64_t size = device.information().size_bytes;
  if (size < 2 * page_bytes)
    return {errc::wrong_size, device.information().name + " has " + std::to_string(size) +
                                  " bytes, too few for a drive: choose another one"};
  drive_io io(device);
  superblock_pair pair;
  read_superblocks(io, size, pair);
  out.copies = pair.states;
  if (out.copies[0] == errc::io_error && out.copies[1] == errc::io_error)
    return {errc::io_error,
            device.information().name +
                " cannot be read, neither at its begin nor at its end: look at the kernel's log"};
  if (std::ranges::count(out.copies, errc::newer_version) > 0) {
    out.kind = content_kind::memkv_newer;
    return {};
  }
  if (pair.valid(0) || pair.valid(1)) {
    const std::size_t chosen = pair.valid(0) && pair.valid(1) ? newer_of(pair.copies) : pair.valid(0) ? 0 : 1;
    out.kind = content_kind::memkv;
    out.super = pair.copies[chosen];
    out.fits = check_against(out.super, size);
    return {};
  }
  if (pair.ours[0] || pair.ours[1]) {
    out.kind = content_kind::memkv_damaged;
    return {};
  }
  const std::uint64_t wanted = std::min(end_bytes, size / page_bytes * page_bytes);
  aligned_bytes first(wanted);
  aligned_bytes last(wanted);
  if (io.read_now(0, first.span()) != errc::ok ||
      io.read_now(size / page_bytes * page_bytes - wanted, last.span()) != errc::ok)
    return {errc::io_error,
            device.information().name + " cannot be read at one of its ends: look at the kernel's log"};
  out.signature = foreign_signature(first.span(), last.span(), size);
  if (out.signature.empty() &&
      (!all_one_value(first.span().first(page_bytes)) || !all_one_value(last.span().last(page_bytes))))
    out.signature = "data that is not memkv's";
  out.kind = out.signature.empty() ? content_kind::blank : content_kind::foreign;
  return {};
}

} // namespace memkv::engine
