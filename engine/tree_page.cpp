#include "engine/tree_page.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::engine {

tree_page_writer::tree_page_writer(std::span<std::byte> page) noexcept : page_(page) {
  MEMKV_ASSERT(page.size() == tree_page_bytes, "a tree page has its fixed size");
  std::memset(page_.data(), 0, page_.size());
}

bool tree_page_writer::add(const entry_record& record) noexcept {
  const std::size_t size = record.encoded_bytes();
  if (tree_payload_bytes - used_ < size)
    return false;
  used_ += encode(record, page_.subspan(tree_header_bytes + used_, size));
  ++items_;
  return true;
}

bool tree_page_writer::add(const tree_child& child) noexcept {
  if (tree_payload_bytes - used_ < tree_child_bytes)
    return false;
  wire::byte_writer writer(page_.subspan(tree_header_bytes + used_, tree_child_bytes));
  writer.write_bytes(child.first.bytes);
  writer.write(child.reference.page);
  writer.write(child.reference.checksum);
  writer.write(child.reference.sequence);
  used_ += tree_child_bytes;
  ++items_;
  return true;
}

std::uint32_t tree_page_writer::finish(const tree_page_header& header) noexcept {
  store_magic(page_, tree_magic);
  wire::byte_writer writer(page_.subspan(version_offset, tree_header_bytes - version_offset));
  writer.write(tree_version);
  writer.write(header.level);
  writer.write_zeros(1 + 4);
  writer.write_bytes(header.format_id);
  writer.write(header.page);
  writer.write(items_);
  writer.write(header.sequence);
  writer.write(header.journal_sequence);
  writer.write(static_cast<std::uint32_t>(used_));
  writer.write_zeros(4);
  writer.write_bytes(header.first.bytes);
  writer.write_bytes(header.last.bytes);
  return seal(page_);
}

errc decode(std::span<const std::byte> from, const identity& format_id, std::uint32_t page,
            const layout& places, tree_page& out) {
  if (from.size() != tree_page_bytes)
    return errc::bad_format;
  if (const errc checked = check_structure(from, tree_magic); checked != errc::ok)
    return checked;
  wire::byte_reader reader(from.subspan(version_offset, tree_header_bytes - version_offset));
  const auto version = reader.read<std::uint16_t>();
  if (version == 0)
    return errc::bad_format;
  if (version > tree_version)
    return errc::newer_version;
  tree_page result;
  result.header.level = reader.read<std::uint8_t>();
  reader.read_zeros(1);
  (void)reader.read<std::uint32_t>();
  result.header.format_id = read_identity(reader);
  if (reader.failed())
    return errc::corrupt;
  if (result.header.format_id != format_id)
    return errc::foreign_drive;
  result.header.page = reader.read<std::uint32_t>();
  const auto items = reader.read<std::uint32_t>();
  result.header.sequence = reader.read<std::uint64_t>();
  result.header.journal_sequence = reader.read<std::uint64_t>();
  const auto used = reader.read<std::uint32_t>();
  reader.read_zeros(4);
  std::ranges::copy(reader.read_bytes(16), result.header.first.bytes.begin());
  std::ranges::copy(reader.read_bytes(16), result.header.last.bytes.begin());
  reader.read_zeros(reader.remaining());
  if (!reader.finished() || result.header.page != page || result.header.level > tree_levels_max ||
      used > tree_payload_bytes || result.header.last < result.header.first)
    return errc::corrupt;
  std::span<const std::byte> rest = from.subspan(tree_header_bytes, used);
  if (!wire::all_zero(from.subspan(tree_header_bytes + used)))
    return errc::corrupt;
  key_id previous;
  for (std::uint32_t i = 0; i < items; ++i) {
    key_id id;
    if (result.header.level == 0) {
      entry_record record;
      std::size_t consumed = 0;
      if (decode(rest, places, record, consumed) != errc::ok || record.kind == record_kind::erase)
        return errc::corrupt;
      rest = rest.subspan(consumed);
      id = record.id;
      result.entries.push_back(std::move(record));
    } else {
      wire::byte_reader item(rest.first(std::min(rest.size(), tree_child_bytes)));
      tree_child child;
      const auto first = item.read_bytes(16);
      if (first.size() != 16)
        return errc::corrupt;
      std::ranges::copy(first, child.first.bytes.begin());
      child.reference.page = item.read<std::uint32_t>();
      child.reference.checksum = item.read<std::uint32_t>();
      child.reference.sequence = item.read<std::uint64_t>();
      if (item.failed() || child.reference.page >= places.tree_pages)
        return errc::corrupt;
      rest = rest.subspan(tree_child_bytes);
      id = child.first;
      result.children.push_back(child);
    }
    if (id < result.header.first || id > result.header.last || (i != 0 && id <= previous))
      return errc::corrupt;
    previous = id;
  }
  if (!rest.empty())
    return errc::corrupt;
  if (result.header.level != 0 &&
      (result.children.empty() || result.children.front().first != result.header.first))
    return errc::corrupt;
  out = std::move(result);
  return errc::ok;
}

bool is_meant(std::span<const std::byte> from, const tree_page& page,
              const tree_reference& reference) noexcept {
  return page.header.page == reference.page && page.header.sequence == reference.sequence &&
         wire::load_le<std::uint32_t>(from.data() + checksum_offset) == reference.checksum;
}

} // namespace memkv::engine
