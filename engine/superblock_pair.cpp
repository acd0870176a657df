#include "engine/superblock_pair.hpp"

#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

void read_superblocks(drive_io& io, std::uint64_t device_bytes, superblock_pair& out) {
  out = {};
  out.offsets = {0, std::min(device_bytes / page_bytes * page_bytes, drive_bytes_max) - page_bytes};
  aligned_bytes bytes(page_bytes);
  for (const std::uint8_t copy : {0, 1}) {
    if (io.read_now(out.offsets[copy], bytes.span()) != errc::ok) {
      out.states[copy] = errc::io_error;
      continue;
    }
    out.zero[copy] = wire::all_zero(bytes.span());
    out.ours[copy] = has_magic(bytes.span(), superblock_magic);
    out.states[copy] = decode(std::span<const std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes}),
                              copy, out.copies[copy]);
    if (out.states[copy] == errc::ok)
      out.versions[copy] = std::to_integer<std::uint8_t>(bytes.span()[version_offset]);
  }
}

bool never_formatted(const superblock_pair& pair) noexcept {
  return pair.zero[1] && (pair.zero[0] || (pair.ours[0] && pair.states[0] == errc::corrupt));
}

} // namespace memkv::engine
