#include "engine/extent_check.hpp"

#include "wire/crc32c.hpp"

#include <algorithm>

namespace memkv::engine {

std::vector<device_piece> extent_pieces(const layout& places, std::span<const run> runs, std::uint64_t offset,
                                        std::uint64_t length) {
  std::vector<device_piece> pieces;
  std::uint64_t begin = 0;
  for (const run& piece : runs) {
    const std::uint64_t bytes = std::uint64_t{piece.units} * places.unit_bytes;
    if (length > 0 && offset < begin + bytes) {
      const std::uint64_t within = offset - begin;
      const std::uint64_t taken = std::min(length, bytes - within);
      pieces.push_back({places.unit_offset(piece.first_unit) + within, taken});
      offset += taken;
      length -= taken;
    }
    begin += bytes;
  }
  return pieces;
}

extent_expectation expectation_of(const superblock& super, const entry_record& record) {
  extent_expectation expected;
  expected.format_id = super.format_id;
  expected.drive_id = super.drive_id;
  expected.id = record.id;
  expected.generation = record.generation;
  expected.put_id = record.put_id;
  expected.header_page = record.header_page;
  expected.header_crc32c = record.header_crc32c;
  expected.first_unit = record.first_unit;
  expected.units = record.units;
  return expected;
}

errc verify_extent(drive_io& io, const superblock& super, const entry_record& record) {
  const layout& places = super.places;
  aligned_bytes page(page_bytes);
  extent_header header;
  if (io.read_now(places.data_page_offset(record.header_page), page.span()) != errc::ok)
    return errc::io_error;
  if (check_extent_header(std::span<const std::byte, page_bytes>(page.data(), std::size_t{page_bytes}),
                          expectation_of(super, record), places, header) != errc::ok)
    return errc::corrupt;
  const std::vector<run> runs = record.all_runs();
  aligned_bytes chunk(chunk_bytes);
  for (std::uint32_t i = 0; i < chunk_count(header.length); ++i) {
    const std::uint32_t length = std::min(chunk_bytes, header.length - i * chunk_bytes);
    std::byte* to = chunk.data();
    for (const device_piece& piece :
         extent_pieces(places, runs, std::uint64_t{i} * chunk_bytes, align_up(length, page_bytes))) {
      if (io.read_now(piece.offset, {to, piece.length}) != errc::ok)
        return errc::io_error;
      to += piece.length;
    }
    if (wire::crc32c(chunk.span().first(length)) != header.chunk_at(i))
      return errc::corrupt;
  }
  return errc::ok;
}

} // namespace memkv::engine
