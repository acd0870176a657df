#include "engine/entry_record.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

std::size_t entry_record::encoded_bytes() const noexcept {
  if (kind == record_kind::erase)
    return erase_record_bytes;
  return entry_record_bytes + ((flags & entry_part) != 0 ? 16 : 0) + ((flags & entry_striped) != 0 ? 8 : 0) +
         runs.size() * 8;
}

std::vector<run> entry_record::all_runs() const {
  if (!runs.empty())
    return runs;
  if (units == 0)
    return {};
  return {run{first_unit, units}};
}

std::size_t encode(const entry_record& record, std::span<std::byte> to) noexcept {
  const std::size_t size = record.encoded_bytes();
  MEMKV_ASSERT(to.size() >= size, "a record is encoded into enough room");
  wire::byte_writer writer(to.first(size));
  writer.write(static_cast<std::uint8_t>(record.kind));
  if (record.kind == record_kind::erase) {
    writer.write_zeros(1);
    writer.write(static_cast<std::uint16_t>(size));
    writer.write_zeros(4);
    writer.write_bytes(record.id.bytes);
    writer.write(record.generation);
    return size;
  }
  writer.write(static_cast<std::uint8_t>(record.flags & stored_entry_flags));
  writer.write(static_cast<std::uint16_t>(size));
  writer.write(record.units);
  writer.write(static_cast<std::uint16_t>(record.runs.size()));
  writer.write_bytes(record.id.bytes);
  writer.write(record.generation);
  writer.write(record.put_id);
  writer.write(record.value_length);
  writer.write(record.first_unit);
  writer.write(record.header_page);
  writer.write(record.header_crc32c);
  if ((record.flags & entry_part) != 0)
    writer.write_bytes(record.head.bytes);
  if ((record.flags & entry_striped) != 0) {
    writer.write(record.parts);
    writer.write_zeros(4);
  }
  for (const run& piece : record.runs) {
    writer.write(piece.first_unit);
    writer.write(piece.units);
  }
  MEMKV_ASSERT(writer.finished(), "a record fills the size it announces");
  return size;
}

errc decode(std::span<const std::byte> from, const layout& places, entry_record& out, std::size_t& consumed) {
  if (from.size() < erase_record_bytes)
    return errc::corrupt;
  const auto size = wire::load_le<std::uint16_t>(from.data() + 2);
  if (size < erase_record_bytes || size > from.size())
    return errc::corrupt;
  wire::byte_reader reader(from.first(size));
  entry_record record;
  const auto kind = reader.read<std::uint8_t>();
  if (kind < static_cast<std::uint8_t>(record_kind::put) ||
      kind > static_cast<std::uint8_t>(record_kind::erase))
    return errc::corrupt;
  record.kind = static_cast<record_kind>(kind);
  record.flags = reader.read<std::uint8_t>();
  (void)reader.read<std::uint16_t>();
  if (record.kind == record_kind::erase) {
    reader.read_zeros(4);
    std::ranges::copy(reader.read_bytes(16), record.id.bytes.begin());
    record.generation = reader.read<std::uint64_t>();
    if (!reader.finished() || record.flags != 0)
      return errc::corrupt;
    out = std::move(record);
    consumed = size;
    return errc::ok;
  }
  const bool part = (record.flags & entry_part) != 0;
  const bool striped = (record.flags & entry_striped) != 0;
  const bool fragmented = (record.flags & entry_fragmented) != 0;
  if ((record.flags & ~stored_entry_flags) != 0 || (part && striped) ||
      part != (record.kind == record_kind::prepare))
    return errc::corrupt;
  record.units = reader.read<std::uint16_t>();
  const auto run_count = reader.read<std::uint16_t>();
  if (size < entry_record_bytes || run_count > extent_runs_max || fragmented != (run_count >= 2) ||
      run_count == 1)
    return errc::corrupt;
  std::ranges::copy(reader.read_bytes(16), record.id.bytes.begin());
  record.generation = reader.read<std::uint64_t>();
  record.put_id = reader.read<std::uint64_t>();
  record.value_length = reader.read<std::uint32_t>();
  record.first_unit = reader.read<std::uint32_t>();
  record.header_page = reader.read<std::uint32_t>();
  record.header_crc32c = reader.read<std::uint32_t>();
  if (part) {
    const auto head = reader.read_bytes(16);
    if (head.size() != 16)
      return errc::corrupt;
    std::ranges::copy(head, record.head.bytes.begin());
  }
  if (striped) {
    record.parts = reader.read<std::uint32_t>();
    reader.read_zeros(4);
    if (record.parts < 2)
      return errc::corrupt;
  }
  std::uint64_t sum = 0;
  for (std::uint16_t i = 0; i < run_count; ++i) {
    run piece;
    piece.first_unit = reader.read<std::uint32_t>();
    piece.units = reader.read<std::uint32_t>();
    if (piece.units == 0 || piece.first_unit >= places.units || piece.units > places.units - piece.first_unit)
      return errc::corrupt;
    sum += piece.units;
    record.runs.push_back(piece);
  }
  if (!reader.finished())
    return errc::corrupt;
  if (fragmented && (sum != record.units || record.runs.front().first_unit != record.first_unit))
    return errc::corrupt;
  if (!fragmented && record.units != 0 &&
      (record.first_unit >= places.units || record.units > places.units - record.first_unit))
    return errc::corrupt;
  if (record.header_page >= places.data_pages())
    return errc::corrupt;
  out = std::move(record);
  consumed = size;
  return errc::ok;
}

} // namespace memkv::engine
