#include "engine/journal_batch.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::engine {

void journal_batch_writer::start(std::size_t bytes_max, const std::vector<std::uint64_t>& echo) {
  const std::size_t fixed = journal_header_bytes + echo.size() * 8;
  MEMKV_ASSERT(fixed + record_bytes_max <= bytes_max, "a batch has room for its echo and one record");
  echo_ = echo;
  body_.clear();
  body_bytes_max_ = bytes_max - fixed;
  records_ = 0;
}

bool journal_batch_writer::add(const entry_record& record) {
  const std::size_t size = record.encoded_bytes();
  if (body_.size() + size > body_bytes_max_)
    return false;
  const std::size_t at = body_.size();
  body_.resize(at + size);
  encode(record, std::span(body_).subspan(at));
  ++records_;
  return true;
}

std::uint32_t journal_batch_writer::length() const noexcept {
  return static_cast<std::uint32_t>(
      align_up(journal_header_bytes + body_.size() + echo_.size() * 8, page_bytes));
}

void journal_batch_writer::finish(journal_batch_header header, std::span<std::byte> to) const noexcept {
  MEMKV_ASSERT(to.size() == length(), "a batch fills the room made for it");
  store_magic(to, journal_magic);
  wire::byte_writer writer(to.subspan(version_offset));
  writer.write(journal_version);
  writer.write_zeros(3 + 4);
  writer.write_bytes(header.format_id);
  writer.write(header.sequence);
  writer.write(header.address);
  writer.write(length());
  writer.write(static_cast<std::uint32_t>(body_.size()));
  writer.write(records_);
  writer.write(static_cast<std::uint32_t>(echo_.size()));
  writer.write(header.settled_sequence);
  writer.write(static_cast<std::uint8_t>(header.data_settled ? 1 : 0));
  writer.write_zeros(journal_header_bytes - 73);
  writer.write_bytes(body_);
  for (const std::uint64_t head : echo_)
    writer.write(head);
  writer.write_zeros(writer.remaining());
  seal(to);
}

errc decode(std::span<const std::byte> from, const identity& format_id, std::uint64_t address,
            const layout& places, journal_batch& out) {
  if (from.size() < journal_header_bytes || !has_magic(from, journal_magic))
    return errc::bad_format;
  // The length is needed to find the bytes that the checksum covers; whatever it says, they must be there.
  const auto length = wire::load_le<std::uint32_t>(from.data() + 48);
  if (length < page_bytes || length % page_bytes != 0 || length > journal_batch_bytes_max ||
      length > from.size())
    return errc::corrupt;
  from = from.first(length);
  if (const errc checked = check_structure(from, journal_magic); checked != errc::ok)
    return checked;
  wire::byte_reader reader(from.subspan(version_offset));
  const auto version = reader.read<std::uint8_t>();
  if (version == 0)
    return errc::bad_format;
  if (version > journal_version)
    return errc::newer_version;
  reader.read_zeros(3);
  (void)reader.read<std::uint32_t>();
  journal_batch batch;
  batch.header.format_id = read_identity(reader);
  if (reader.failed())
    return errc::corrupt;
  if (batch.header.format_id != format_id)
    return errc::foreign_drive;
  batch.header.sequence = reader.read<std::uint64_t>();
  batch.header.address = reader.read<std::uint64_t>();
  batch.header.length = reader.read<std::uint32_t>();
  const auto body_bytes = reader.read<std::uint32_t>();
  const auto records = reader.read<std::uint32_t>();
  const auto echoes = reader.read<std::uint32_t>();
  batch.header.settled_sequence = reader.read<std::uint64_t>();
  const auto data_settled = reader.read<std::uint8_t>();
  batch.header.data_settled = data_settled == 1;
  reader.read_zeros(journal_header_bytes - 73);
  if (reader.failed() || data_settled > 1 || batch.header.address != address || batch.header.sequence == 0 ||
      batch.header.settled_sequence >= batch.header.sequence)
    return errc::corrupt;
  std::span<const std::byte> body = reader.read_bytes(body_bytes);
  if (reader.failed() || echoes > reader.remaining() / 8)
    return errc::corrupt;
  for (std::uint32_t i = 0; i < records; ++i) {
    entry_record record;
    std::size_t consumed = 0;
    if (const errc decoded = decode(body, places, record, consumed); decoded != errc::ok)
      return decoded;
    body = body.subspan(consumed);
    batch.records.push_back(std::move(record));
  }
  if (!body.empty())
    return errc::corrupt;
  for (std::uint32_t i = 0; i < echoes; ++i)
    batch.echo.push_back(reader.read<std::uint64_t>());
  reader.read_zeros(reader.remaining());
  if (!reader.finished())
    return errc::corrupt;
  out = std::move(batch);
  return errc::ok;
}

} // namespace memkv::engine
