#include "engine/bitmap_page.hpp"

#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

void encode(const bitmap_page_header& header, std::span<const std::byte> bits,
            std::span<std::byte, page_bytes> to) noexcept {
  store_magic(to, bitmap_magic);
  wire::byte_writer writer(to.subspan(version_offset));
  writer.write(bitmap_version);
  writer.write_zeros(3 + 4);
  writer.write_bytes(header.format_id);
  writer.write(header.page);
  writer.write(header.units);
  writer.write(header.sequence);
  writer.write_zeros(bitmap_header_bytes - 48);
  writer.write_bytes(bits.first(std::min<std::size_t>(bits.size(), (header.units + 7) / 8)));
  writer.write_zeros(writer.remaining());
  seal(to);
}

errc decode(std::span<const std::byte, page_bytes> from, const identity& format_id, std::uint32_t page,
            std::uint32_t units, bitmap_page_header& out, std::span<const std::byte>& bits) noexcept {
  if (const errc checked = check_structure(from, bitmap_magic); checked != errc::ok)
    return checked;
  wire::byte_reader reader(from.subspan(version_offset));
  const auto version = reader.read<std::uint8_t>();
  if (version == 0)
    return errc::bad_format;
  if (version > bitmap_version)
    return errc::newer_version;
  reader.read_zeros(3);
  (void)reader.read<std::uint32_t>();
  bitmap_page_header header;
  header.format_id = read_identity(reader);
  if (reader.failed())
    return errc::corrupt;
  if (header.format_id != format_id)
    return errc::foreign_drive;
  header.page = reader.read<std::uint32_t>();
  header.units = reader.read<std::uint32_t>();
  header.sequence = reader.read<std::uint64_t>();
  reader.read_zeros(bitmap_header_bytes - 48);
  if (header.page != page || header.units != units || units > bitmap_bits_per_page)
    return errc::corrupt;
  const auto found = reader.read_bytes((units + 7) / 8);
  reader.read_zeros(reader.remaining());
  if (!reader.finished())
    return errc::corrupt;
  if (units % 8 != 0 && (found.back() >> (units % 8)) != std::byte{0})
    return errc::corrupt;
  out = header;
  bits = found;
  return errc::ok;
}

} // namespace memkv::engine
