#include "engine/extent_header.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"
#include "wire/limits.hpp"

#include <algorithm>

namespace memkv::engine {

run extent_header::run_at(std::size_t i) const noexcept {
  return {wire::load_le<std::uint32_t>(runs.data() + i * 8),
          wire::load_le<std::uint32_t>(runs.data() + i * 8 + 4)};
}

std::uint32_t extent_header::chunk_at(std::size_t i) const noexcept {
  return wire::load_le<std::uint32_t>(chunk_crc32c.data() + i * 4);
}

std::uint32_t encode(const extent_header& header, std::span<const run> runs,
                     std::span<const std::uint32_t> chunk_crc32c, std::span<std::byte, page_bytes> to,
                     header_extent covered) noexcept {
  store_magic(to, extent_magic);
  wire::byte_writer writer(to.subspan(version_offset));
  writer.write(extent_version);
  writer.write_zeros(3 + 4);
  writer.write_bytes(header.format_id);
  writer.write_bytes(header.drive_id);
  writer.write(header.page);
  writer.write(header.length);
  writer.write_bytes(header.id.bytes);
  writer.write(header.generation);
  writer.write(header.put_id);
  writer.write(header.part);
  writer.write(header.parts);
  writer.write(header.value_length);
  writer.write(static_cast<std::uint16_t>(header.key.size()));
  writer.write(static_cast<std::uint16_t>(header.name_space.size()));
  writer.write(static_cast<std::uint16_t>(runs.size()));
  writer.write(static_cast<std::uint16_t>(chunk_crc32c.size()));
  writer.write_zeros(extent_fixed_bytes - 112);
  writer.write_bytes(wire::as_bytes_view(header.name_space));
  writer.write_bytes(header.key);
  writer.write_zeros((8 - (header.name_space.size() + header.key.size()) % 8) % 8);
  for (const run& piece : runs) {
    writer.write(piece.first_unit);
    writer.write(piece.units);
  }
  for (const std::uint32_t sum : chunk_crc32c)
    writer.write(sum);
  MEMKV_ASSERT(!writer.failed(), "an extent header fits its page");
  if (covered == header_extent::used_bytes)
    return seal(to.first(version_offset + writer.written()));
  writer.write_zeros(writer.remaining());
  return seal(to);
}

errc decode(std::span<const std::byte, page_bytes> from, extent_header& out, header_extent covered) noexcept {
  const bool whole = covered == header_extent::whole_page;
  if (whole)
    if (const errc checked = check_structure(from, extent_magic); checked != errc::ok)
      return checked;
  wire::byte_reader reader(from.subspan(version_offset));
  const auto version = reader.read<std::uint8_t>();
  if (version == 0)
    return errc::bad_format;
  if (version > extent_version)
    return errc::newer_version;
  reader.read_zeros(3);
  (void)reader.read<std::uint32_t>();
  extent_header header;
  header.format_id = read_identity(reader);
  header.drive_id = read_identity(reader);
  header.page = reader.read<std::uint32_t>();
  header.length = reader.read<std::uint32_t>();
  std::ranges::copy(reader.read_bytes(16), header.id.bytes.begin());
  header.generation = reader.read<std::uint64_t>();
  header.put_id = reader.read<std::uint64_t>();
  header.part = reader.read<std::uint32_t>();
  header.parts = reader.read<std::uint32_t>();
  header.value_length = reader.read<std::uint64_t>();
  const auto key_bytes = reader.read<std::uint16_t>();
  const auto namespace_bytes = reader.read<std::uint16_t>();
  const auto run_count = reader.read<std::uint16_t>();
  const auto chunks = reader.read<std::uint16_t>();
  reader.read_zeros(extent_fixed_bytes - 112);
  if (key_bytes > wire::limits::key_bytes_max || namespace_bytes > wire::limits::namespace_bytes_max ||
      run_count > extent_runs_max || header.length > extent_bytes_most ||
      chunks != chunk_count(header.length) || header.part >= header.parts)
    return errc::corrupt;
  header.name_space = wire::as_text(reader.read_bytes(namespace_bytes));
  header.key = reader.read_bytes(key_bytes);
  reader.read_zeros(static_cast<std::size_t>((8 - (namespace_bytes + key_bytes) % 8) % 8));
  header.runs = reader.read_bytes(std::size_t{run_count} * 8);
  header.chunk_crc32c = reader.read_bytes(std::size_t{chunks} * 4);
  if (reader.failed())
    return errc::corrupt;
  if (!whole)
    // How long it is was not known before.
    if (const errc checked = check_structure(from.first(page_bytes - reader.remaining()), extent_magic);
        checked != errc::ok)
      return checked;
  if (whole && !wire::all_zero(reader.read_bytes(reader.remaining())))
    return errc::corrupt;
  out = header;
  return errc::ok;
}

errc check_extent_header(std::span<const std::byte, page_bytes> from, const extent_expectation& expected,
                         const layout& places, extent_header& out, header_extent covered) noexcept {
  extent_header header;
  if (const errc decoded = decode(from, header, covered); decoded != errc::ok)
    return errc::corrupt;
  if (wire::load_le<std::uint32_t>(from.data() + checksum_offset) != expected.header_crc32c ||
      header.format_id != expected.format_id || header.drive_id != expected.drive_id ||
      header.page != expected.header_page || header.id != expected.id ||
      header.generation != expected.generation || header.put_id != expected.put_id)
    return errc::corrupt;
  std::uint64_t units = 0;
  for (std::size_t i = 0; i < header.run_count(); ++i) {
    const run piece = header.run_at(i);
    if (piece.units == 0 || piece.first_unit >= places.units || piece.units > places.units - piece.first_unit)
      return errc::corrupt;
    units += piece.units;
  }
  if (units != expected.units || (units != 0 && header.run_at(0).first_unit != expected.first_unit) ||
      units * places.unit_bytes < header.length)
    return errc::corrupt;
  out = header;
  return errc::ok;
}

} // namespace memkv::engine
