#include "engine/superblock.hpp"

#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

constexpr std::size_t registry_offset = 256;
constexpr std::size_t members_offset = 512;

} // namespace

void encode(const superblock& block, std::span<std::byte, page_bytes> to) noexcept {
  store_magic(to, superblock_magic);
  wire::byte_writer writer(to.subspan(version_offset));
  writer.write(superblock_version);
  writer.write(block.copy);
  writer.write(static_cast<std::uint8_t>(block.clean ? 1 : 0));
  writer.write(static_cast<std::uint8_t>(block.sync));
  writer.write_zeros(4); // checksum
  writer.write_bytes(block.format_id);
  writer.write_bytes(block.set.set_id);
  writer.write_bytes(block.drive_id);
  writer.write(block.set.drive_index);
  writer.write(block.set.drive_count);
  writer.write(block.set_epoch);
  writer.write(block.sequence);
  writer.write_bytes(block.boot_id);
  writer.write(block.places.device_bytes);
  writer.write(block.places.unit_bytes);
  writer.write(block.places.extent_bytes_max);
  writer.write(block.places.bitmap_offset);
  writer.write(block.places.bitmap_pages);
  writer.write(block.places.journal_offset);
  writer.write(block.places.journal_bytes);
  writer.write(block.places.tree_offset);
  writer.write(block.places.tree_pages);
  writer.write(block.places.units);
  writer.write(block.places.data_offset);
  writer.write(block.formatted_at_ns);
  writer.write(block.generation);
  writer.write(block.journal_tail_sequence);
  writer.write(block.tree_sequence);
  writer.write(block.root.page);
  writer.write(block.root.checksum);
  writer.write(block.root.sequence);
  writer.write(block.root_level);
  writer.write_zeros(7);
  writer.write(block.blocks);
  writer.write_zeros(writer.remaining());
  encode(block.failures, to.subspan<registry_offset, failure_registry_bytes>());
  wire::byte_writer second(to.subspan(members_offset));
  second.write_bytes(block.members);
  second.write(static_cast<std::uint8_t>(block.untrimmed ? 1 : 0));
  seal(to);
}

errc decode(std::span<const std::byte, page_bytes> from, std::uint8_t copy, superblock& out) {
  if (const errc checked = check_structure(from, superblock_magic); checked != errc::ok)
    return checked;
  wire::byte_reader reader(from.subspan(version_offset));
  const auto version = reader.read<std::uint8_t>();
  if (version == 0)
    return errc::bad_format;
  if (version > superblock_version)
    return errc::newer_version;
  superblock block;
  block.copy = reader.read<std::uint8_t>();
  const auto clean = reader.read<std::uint8_t>();
  const auto sync = reader.read<std::uint8_t>();
  if (block.copy != copy || clean > 1 || sync > static_cast<std::uint8_t>(sync_policy::always))
    return errc::corrupt;
  block.clean = clean == 1;
  block.sync = static_cast<sync_policy>(sync);
  (void)reader.read<std::uint32_t>(); // checksum, compared above
  block.format_id = read_identity(reader);
  block.set.set_id = read_identity(reader);
  block.drive_id = read_identity(reader);
  block.set.drive_index = reader.read<std::uint32_t>();
  block.set.drive_count = reader.read<std::uint32_t>();
  block.set_epoch = reader.read<std::uint64_t>();
  block.sequence = reader.read<std::uint64_t>();
  block.boot_id = read_identity(reader);
  block.places.device_bytes = reader.read<std::uint64_t>();
  block.places.unit_bytes = reader.read<std::uint32_t>();
  block.places.extent_bytes_max = reader.read<std::uint32_t>();
  block.places.bitmap_offset = reader.read<std::uint64_t>();
  block.places.bitmap_pages = reader.read<std::uint64_t>();
  block.places.journal_offset = reader.read<std::uint64_t>();
  block.places.journal_bytes = reader.read<std::uint64_t>();
  block.places.tree_offset = reader.read<std::uint64_t>();
  block.places.tree_pages = reader.read<std::uint32_t>();
  block.places.units = reader.read<std::uint32_t>();
  block.places.data_offset = reader.read<std::uint64_t>();
  block.formatted_at_ns = reader.read<std::uint64_t>();
  block.generation = reader.read<std::uint64_t>();
  block.journal_tail_sequence = reader.read<std::uint64_t>();
  block.tree_sequence = reader.read<std::uint64_t>();
  block.root.page = reader.read<std::uint32_t>();
  block.root.checksum = reader.read<std::uint32_t>();
  block.root.sequence = reader.read<std::uint64_t>();
  block.root_level = reader.read<std::uint8_t>();
  reader.read_zeros(7);
  block.blocks = reader.read<std::uint64_t>();
  reader.read_zeros(registry_offset - 240);
  const auto registry = from.subspan<registry_offset, failure_registry_bytes>();
  if (const errc decoded = decode(registry, block.failures); decoded != errc::ok)
    return decoded == errc::newer_version ? decoded : errc::corrupt;
  (void)reader.read_bytes(failure_registry_bytes);
  if (version >= 2) {
    const auto members = reader.read_bytes(block.members.size());
    std::ranges::copy(members, block.members.begin());
    const auto untrimmed = reader.read<std::uint8_t>();
    if (untrimmed > 1)
      return errc::corrupt;
    block.untrimmed = untrimmed == 1;
  } else {
    // Version 1 knew neither: every drive was a member, and nothing was ever trimmed.
    block.members = all_members(block.set.drive_count);
    block.untrimmed = true;
  }
  reader.read_zeros(reader.remaining());
  if (!reader.finished())
    return errc::corrupt;
  out = std::move(block);
  return errc::ok;
}

errc check_against(const superblock& block, std::uint64_t device_bytes) {
  layout expected;
  if (!compute_layout(device_bytes, block.places.unit_bytes, block.places.extent_bytes_max, expected).ok())
    return errc::wrong_size;
  if (expected.device_bytes != block.places.device_bytes)
    return errc::wrong_size;
  if (expected != block.places)
    return errc::corrupt;
  if (block.root.page != no_tree_page && block.root.page >= block.places.tree_pages)
    return errc::corrupt;
  return errc::ok;
}

} // namespace memkv::engine
