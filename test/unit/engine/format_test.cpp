// Every structure on a drive: encoded and decoded, refused when anything about it is wrong, and as its page
// shows it.
#define CAF_SUITE drive_formats

#include "engine/bitmap_page.hpp"
#include "engine/extent_header.hpp"
#include "engine/journal_batch.hpp"
#include "engine/superblock.hpp"
#include "engine/tree_page.hpp"

#include <caf/test/unit_test.hpp>

#include <fstream>
#include <sstream>
#include <string>

using namespace memkv;
using namespace memkv::engine;

namespace {

identity id_from(std::uint8_t first) {
  identity id;
  for (std::size_t i = 0; i < id.size(); ++i)
    id[i] = std::byte(first + i);
  return id;
}

engine::key_id key_from(std::uint8_t first) {
  engine::key_id id;
  id.bytes = id_from(first);
  return id;
}

layout example_layout() {
  layout places;
  CAF_REQUIRE(compute_layout(std::uint64_t{64} << 20, 64 << 10, 4 << 20, places).ok());
  return places;
}

using page = std::array<std::byte, page_bytes>;

superblock example_superblock() {
  superblock block;
  block.copy = 0;
  block.clean = true;
  block.sync = sync_policy::always;
  block.format_id = id_from(0x10);
  block.set.set_id = id_from(0x20);
  block.drive_id = id_from(0x30);
  block.set.drive_index = 1;
  block.set.drive_count = 3;
  block.set_epoch = 5;
  for (std::uint32_t index = 0; index < 3; ++index)
    add_member(block.members, index);
  block.untrimmed = true;
  block.sequence = 9;
  block.boot_id = id_from(0x40);
  block.places = example_layout();
  block.formatted_at_ns = 1'700'000'000'000'000'000;
  block.generation = 1234;
  block.journal_tail_sequence = 77;
  block.tree_sequence = 42;
  block.root = {3, 0xCAFE1234, 42};
  block.root_level = 1;
  block.blocks = 400;
  block.failures = {"SN-0001", 2, 1'600'000'000'000'000'000, 1'650'000'000'000'000'000, false};
  return block;
}

entry_record example_record(std::uint8_t id, std::uint64_t generation) {
  entry_record record;
  record.id = key_from(id);
  record.generation = generation;
  record.value_length = 100'000;
  record.first_unit = 7;
  record.units = 2;
  record.header_page = 7 * 16 + 25;
  record.header_crc32c = 0x11223344;
  return record;
}

entry_record example_part() {
  entry_record record = example_record(0x60, 11);
  record.kind = record_kind::prepare;
  record.flags = entry_part | entry_fragmented;
  record.put_id = 99;
  record.runs = {{7, 1}, {9, 1}};
  record.head = key_from(0x50);
  return record;
}

entry_record example_erase() {
  entry_record record;
  record.kind = record_kind::erase;
  record.id = key_from(0x70);
  record.generation = 10;
  return record;
}

constexpr std::uint64_t batch_address = 8192;

std::vector<std::byte> example_batch() {
  journal_batch_writer writer;
  writer.start(8192, {key_from(0x50).head()});
  CAF_REQUIRE(writer.add(example_record(0x50, 12)));
  CAF_REQUIRE(writer.add(example_part()));
  CAF_REQUIRE(writer.add(example_erase()));
  journal_batch_header header;
  header.format_id = id_from(0x10);
  header.sequence = 78;
  header.address = batch_address;
  header.settled_sequence = 77;
  header.data_settled = true;
  std::vector<std::byte> bytes(writer.length());
  writer.finish(header, bytes);
  return bytes;
}

std::vector<std::byte> example_leaf() {
  std::vector<std::byte> bytes(tree_page_bytes);
  tree_page_writer writer(bytes);
  CAF_REQUIRE(writer.add(example_record(0x50, 12)));
  CAF_REQUIRE(writer.add(example_part()));
  tree_page_header header;
  header.format_id = id_from(0x10);
  header.page = 3;
  header.sequence = 42;
  header.journal_sequence = 78;
  header.last.bytes.fill(std::byte{0xFF});
  writer.finish(header);
  return bytes;
}

std::vector<std::byte> example_inner() {
  std::vector<std::byte> bytes(tree_page_bytes);
  tree_page_writer writer(bytes);
  CAF_REQUIRE(writer.add(tree_child{key_id{}, {3, 0xAABBCCDD, 42}}));
  CAF_REQUIRE(writer.add(tree_child{key_from(0x80), {5, 0x01020304, 43}}));
  tree_page_header header;
  header.format_id = id_from(0x10);
  header.level = 1;
  header.page = 4;
  header.sequence = 44;
  header.journal_sequence = 78;
  header.last.bytes.fill(std::byte{0xFF});
  writer.finish(header);
  return bytes;
}

const std::string example_key = "block-1";

page example_extent() {
  extent_header header;
  header.format_id = id_from(0x10);
  header.drive_id = id_from(0x30);
  header.page = 7 * 16 + 25;
  header.length = 100'000;
  header.id = key_from(0x50);
  header.generation = 12;
  header.value_length = 100'000;
  header.name_space = "tenant";
  header.key = wire::as_bytes_view(example_key);
  const std::array<run, 1> runs{run{7, 2}};
  const std::array<std::uint32_t, 2> sums{0xDEADBEEF, 0x00C0FFEE};
  page bytes{};
  encode(header, runs, sums, bytes);
  return bytes;
}

extent_expectation example_expectation(const page& bytes) {
  extent_expectation expected;
  expected.format_id = id_from(0x10);
  expected.drive_id = id_from(0x30);
  expected.id = key_from(0x50);
  expected.generation = 12;
  expected.header_page = 7 * 16 + 25;
  expected.header_crc32c = wire::load_le<std::uint32_t>(bytes.data() + checksum_offset);
  expected.first_unit = 7;
  expected.units = 2;
  return expected;
}

page example_bitmap() {
  bitmap_page_header header;
  header.format_id = id_from(0x10);
  header.page = 0;
  header.units = 20;
  header.sequence = 9;
  const std::array<std::byte, 3> bits{std::byte{0x81}, std::byte{0x01}, std::byte{0x0C}};
  page bytes{};
  encode(header, bits, bytes);
  return bytes;
}

/// The worked example of a format's page: rows "offset: bytes" of its first hex block; all else is zero.
std::vector<std::byte> worked_example(const std::string& name, std::size_t size) {
  std::ifstream file(std::string(MEMKV_SOURCE_DIR) + "/docs/formats/" + name + ".md");
  CAF_REQUIRE(file.good());
  std::vector<std::byte> bytes(size);
  std::string line;
  bool inside = false;
  std::size_t rows = 0;
  while (std::getline(file, line)) {
    if (line == "```hex") {
      inside = true;
    } else if (inside && line == "```") {
      break;
    } else if (inside) {
      std::istringstream row(line);
      std::size_t at = 0;
      char colon = 0;
      row >> std::hex >> at >> colon;
      for (unsigned value = 0; row >> std::hex >> value; ++at) {
        CAF_REQUIRE(at < size);
        bytes[at] = std::byte(value);
      }
      ++rows;
    }
  }
  CAF_REQUIRE(rows > 0);
  return bytes;
}

/// Tries each byte of `bytes` changed, without and with its checksum made right again. `decoded` says whether
/// it was accepted. A changed byte with a stale checksum must never be; with a right one the decoder must
/// only not crash.
template <class Decode>
void spoil_every_byte(std::vector<std::byte> bytes, const Decode& decoded) {
  std::size_t accepted = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const std::byte was = bytes[at];
    for (const auto change : {std::byte{0x01}, std::byte{0x80}, std::byte{0xFF}}) {
      bytes[at] = was ^ change;
      accepted += decoded(bytes) == errc::ok;
      const std::uint32_t sum = wire::load_le<std::uint32_t>(bytes.data() + checksum_offset);
      seal(bytes);
      (void)decoded(bytes);
      wire::store_le(bytes.data() + checksum_offset, sum);
      if (at >= checksum_offset && at < checksum_offset + 4)
        bytes[at] = was;
    }
    bytes[at] = was;
  }
  CAF_CHECK_EQUAL(accepted, 0u);
  CAF_CHECK(decoded(bytes) == errc::ok);
}

template <class Bytes>
std::span<const std::byte, page_bytes> as_page(const Bytes& bytes) {
  return std::span<const std::byte, page_bytes>(bytes.data(), std::size_t{page_bytes});
}

/// The same structure with one byte changed and its checksum right.
template <class Bytes>
Bytes resealed(Bytes bytes, std::size_t at, std::byte value) {
  bytes[at] = value;
  seal(bytes);
  return bytes;
}

} // namespace

CAF_TEST(the layout fills the drive and leaves little of it to metadata) {
  layout places;
  const std::uint64_t eight_terabytes = 8'000'000'000'000;
  CAF_REQUIRE(compute_layout(eight_terabytes, 64 << 10, 4 << 20, places).ok());
  const std::uint64_t data = std::uint64_t{places.units} * places.unit_bytes;
  CAF_CHECK((eight_terabytes - data) * 10'000 < eight_terabytes * 35);
  CAF_CHECK(places.data_offset + data <= places.mirror_offset());
  for (const std::uint64_t size :
       {std::uint64_t{4} << 20, std::uint64_t{5'000'000}, std::uint64_t{1} << 30}) {
    for (const std::uint32_t unit : {4U << 10, 64U << 10}) {
      CAF_REQUIRE(compute_layout(size, unit, 64 << 10, places).ok());
      CAF_CHECK(places.bitmap_offset >= page_bytes);
      CAF_CHECK(places.journal_offset >= places.bitmap_offset + places.bitmap_pages * page_bytes);
      CAF_CHECK(places.tree_offset >= places.journal_offset + places.journal_bytes);
      CAF_CHECK(places.data_offset >=
                places.tree_offset + std::uint64_t{places.tree_pages} * tree_page_bytes);
      const std::uint64_t end = places.unit_offset(places.units);
      CAF_CHECK(end <= places.mirror_offset());
      CAF_CHECK(places.bitmap_pages * bitmap_bits_per_page >= places.units);
    }
  }
}

CAF_TEST(settings out of range and drives too small are refused with a sentence) {
  layout places;
  CAF_CHECK(compute_layout(1 << 20, 64 << 10, 4 << 20, places).code == errc::no_space);
  // More units than an index has room for are refused, not left unused.
  const std::uint64_t sixteen_terabytes = std::uint64_t{16} << 40;
  CAF_CHECK(compute_layout(sixteen_terabytes, 4 << 10, 4 << 20, places).code == errc::invalid_argument);
  CAF_CHECK(compute_layout(sixteen_terabytes, 8 << 10, 4 << 20, places).ok());
  CAF_CHECK(compute_layout(64 << 20, 3 << 10, 4 << 20, places).code == errc::invalid_argument);
  CAF_CHECK(compute_layout(64 << 20, 2 << 10, 4 << 20, places).code == errc::invalid_argument);
  CAF_CHECK(compute_layout(64 << 20, 8 << 20, 4 << 20, places).code == errc::invalid_argument);
  CAF_CHECK(compute_layout(64 << 20, 64 << 10, 32 << 10, places).code == errc::invalid_argument);
  CAF_CHECK(compute_layout(64 << 20, 64 << 10, 64 << 20, places).code == errc::invalid_argument);
  CAF_CHECK(compute_layout(4 << 20, 64 << 10, 4 << 20, places).code == errc::no_space);
}

CAF_TEST(a superblock is what was written) {
  page bytes{};
  const superblock block = example_superblock();
  encode(block, bytes);
  superblock out;
  CAF_REQUIRE(decode(bytes, 0, out) == errc::ok);
  CAF_CHECK(out.clean);
  CAF_CHECK(out.sync == sync_policy::always);
  CAF_CHECK(out.format_id == block.format_id);
  CAF_CHECK(out.drive_id == block.drive_id);
  CAF_CHECK(out.set.set_id == block.set.set_id);
  CAF_CHECK_EQUAL(out.set.drive_index, 1u);
  CAF_CHECK_EQUAL(out.set.drive_count, 3u);
  CAF_CHECK_EQUAL(out.set_epoch, 5u);
  CAF_CHECK(out.members == block.members);
  CAF_CHECK(is_member(out.members, 2));
  CAF_CHECK(!is_member(out.members, 3));
  CAF_CHECK(out.untrimmed);
  CAF_CHECK_EQUAL(out.sequence, 9u);
  CAF_CHECK(out.boot_id == block.boot_id);
  CAF_CHECK(out.places == block.places);
  CAF_CHECK_EQUAL(out.generation, 1234u);
  CAF_CHECK_EQUAL(out.journal_tail_sequence, 77u);
  CAF_CHECK(out.root == block.root);
  CAF_CHECK_EQUAL(out.root_level, 1u);
  CAF_CHECK_EQUAL(out.blocks, 400u);
  CAF_CHECK(out.failures == block.failures);
  CAF_CHECK(check_against(out, std::uint64_t{64} << 20) == errc::ok);
  CAF_CHECK(check_against(out, std::uint64_t{65} << 20) == errc::wrong_size);
}

CAF_TEST(a superblock of version 1 is read and all drives of its set are members) {
  page bytes{};
  encode(example_superblock(), bytes);
  bytes[version_offset] = std::byte{1};
  std::fill(bytes.begin() + 512, bytes.end(), std::byte{0});
  seal(bytes);
  superblock out;
  CAF_REQUIRE(decode(bytes, 0, out) == errc::ok);
  CAF_CHECK(out.members == example_superblock().members);
  CAF_CHECK(out.untrimmed);
  bytes[600] = std::byte{1};
  seal(bytes);
  CAF_CHECK(decode(bytes, 0, out) == errc::corrupt);
}

CAF_TEST(a superblock that is not right is refused) {
  page bytes{};
  encode(example_superblock(), bytes);
  superblock out;
  CAF_CHECK(decode(bytes, 1, out) == errc::corrupt);
  CAF_CHECK(decode(page{}, 0, out) == errc::bad_format);
  CAF_CHECK(decode(resealed(bytes, version_offset, std::byte{3}), 0, out) == errc::newer_version);
  CAF_CHECK(decode(resealed(bytes, version_offset, std::byte{0}), 0, out) == errc::bad_format);
  CAF_CHECK(decode(resealed(bytes, 10, std::byte{2}), 0, out) == errc::corrupt);   // clean
  CAF_CHECK(decode(resealed(bytes, 11, std::byte{2}), 0, out) == errc::corrupt);   // sync
  CAF_CHECK(decode(resealed(bytes, 240, std::byte{1}), 0, out) == errc::corrupt);  // reserved
  CAF_CHECK(decode(resealed(bytes, 4095, std::byte{1}), 0, out) == errc::corrupt); // reserved
  CAF_CHECK(decode(resealed(bytes, 544, std::byte{2}), 0, out) == errc::corrupt);  // untrimmed
  CAF_CHECK(decode(resealed(bytes, 256, std::byte{2}), 0, out) == errc::newer_version);
  CAF_CHECK(decode(resealed(bytes, 257, std::byte{2}), 0, out) == errc::corrupt);
  CAF_CHECK(decode(resealed(bytes, 258, std::byte{129}), 0, out) == errc::corrupt);
  CAF_REQUIRE(decode(resealed(bytes, 128, std::byte{2}), 0, out) == errc::ok); // the bitmap's size
  CAF_CHECK(check_against(out, std::uint64_t{64} << 20) == errc::corrupt);
  spoil_every_byte({bytes.begin(), bytes.end()},
                   [&](const auto& spoilt) { return decode(as_page(spoilt), 0, out); });
}

CAF_TEST(the failure registry counts and keeps the first and the last time) {
  failure_registry registry;
  registry.note_failure(100);
  registry.note_failure(200);
  CAF_CHECK_EQUAL(registry.failure_count, 2u);
  CAF_CHECK_EQUAL(registry.first_failed_at_ns, 100u);
  CAF_CHECK_EQUAL(registry.last_failed_at_ns, 200u);
  registry.device_id.assign(300, 'x');
  registry.blacklisted = true;
  std::array<std::byte, failure_registry_bytes> bytes{};
  encode(registry, bytes);
  failure_registry out;
  CAF_REQUIRE(decode(bytes, out) == errc::ok);
  CAF_CHECK_EQUAL(out.device_id.size(), device_id_bytes_max);
  CAF_CHECK(out.blacklisted);
}

CAF_TEST(records are what was written and nothing else is accepted) {
  const layout places = example_layout();
  entry_record striped = example_record(0x50, 1);
  striped.flags = entry_striped;
  striped.parts = 4;
  for (const entry_record& record : {example_record(0x50, 12), example_part(), example_erase(), striped}) {
    std::vector<std::byte> bytes(record.encoded_bytes());
    CAF_REQUIRE_EQUAL(encode(record, bytes), bytes.size());
    entry_record out;
    std::size_t consumed = 0;
    CAF_REQUIRE(decode(bytes, places, out, consumed) == errc::ok);
    CAF_CHECK_EQUAL(consumed, bytes.size());
    CAF_CHECK(out.kind == record.kind);
    CAF_CHECK(out.id == record.id);
    CAF_CHECK_EQUAL(out.generation, record.generation);
    CAF_CHECK(out.runs == record.runs);
    CAF_CHECK(out.head == record.head);
    CAF_CHECK_EQUAL(out.parts, record.parts);
    CAF_CHECK_EQUAL(out.header_crc32c, record.header_crc32c);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut)
      CAF_CHECK(decode(std::span(bytes).first(cut), places, out, consumed) == errc::corrupt);
  }
  const auto refused = [&](const std::function<void(entry_record&)>& change) {
    entry_record record = example_part();
    change(record);
    std::vector<std::byte> bytes(record.encoded_bytes());
    encode(record, bytes);
    entry_record out;
    std::size_t consumed = 0;
    return decode(bytes, places, out, consumed) == errc::corrupt;
  };
  CAF_CHECK(!refused([](entry_record&) {}));
  CAF_CHECK(refused([](entry_record& record) { record.kind = record_kind::put; }));
  CAF_CHECK(refused([](entry_record& record) { record.flags |= entry_striped; }));
  CAF_CHECK(refused([](entry_record& record) { record.runs.pop_back(); }));
  CAF_CHECK(refused([](entry_record& record) { record.runs[1].units = 0; }));
  CAF_CHECK(refused([](entry_record& record) { record.runs[1].units = 2; }));
  CAF_CHECK(refused([](entry_record& record) { record.runs[1].first_unit = 1 << 30; }));
  CAF_CHECK(refused([](entry_record& record) { record.first_unit = 8; }));
  CAF_CHECK(refused(
      [&](entry_record& record) { record.header_page = static_cast<std::uint32_t>(places.data_pages()); }));
  CAF_CHECK(refused([&](entry_record& record) {
    record = example_record(1, 1);
    record.first_unit = places.units - 1;
  }));
  CAF_CHECK(refused([&](entry_record& record) {
    record = example_record(1, 1);
    record.flags = entry_striped;
    record.parts = 1;
  }));
}

CAF_TEST(a journal batch is what was written) {
  const auto bytes = example_batch();
  CAF_CHECK_EQUAL(bytes.size(), std::size_t{page_bytes});
  journal_batch out;
  CAF_REQUIRE(decode(bytes, id_from(0x10), batch_address, example_layout(), out) == errc::ok);
  CAF_CHECK_EQUAL(out.header.sequence, 78u);
  CAF_CHECK_EQUAL(out.header.settled_sequence, 77u);
  CAF_CHECK(out.header.data_settled);
  CAF_REQUIRE_EQUAL(out.records.size(), 3u);
  CAF_CHECK(out.records[1].kind == record_kind::prepare);
  CAF_CHECK(out.records[2].kind == record_kind::erase);
  CAF_REQUIRE_EQUAL(out.echo.size(), 1u);
  CAF_CHECK_EQUAL(out.echo[0], key_from(0x50).head());
}

CAF_TEST(a journal batch that is not right is refused) {
  const layout places = example_layout();
  const auto bytes = example_batch();
  journal_batch out;
  const auto decoded = [&](std::span<const std::byte> from) {
    return decode(from, id_from(0x10), batch_address, places, out);
  };
  CAF_CHECK(decode(bytes, id_from(0x11), batch_address, places, out) == errc::foreign_drive);
  CAF_CHECK(decode(bytes, id_from(0x10), batch_address + 4096, places, out) == errc::corrupt);
  CAF_CHECK(decoded(std::vector<std::byte>(4096)) == errc::bad_format);
  CAF_CHECK(decoded(std::span(bytes).first(100)) == errc::bad_format);
  CAF_CHECK(decoded(std::span(bytes).first(2048)) == errc::corrupt);
  CAF_CHECK(decoded(resealed(bytes, version_offset, std::byte{2})) == errc::newer_version);
  CAF_CHECK(decoded(resealed(bytes, 9, std::byte{1})) == errc::corrupt);   // reserved
  CAF_CHECK(decoded(resealed(bytes, 50, std::byte{1})) == errc::corrupt);  // length
  CAF_CHECK(decoded(resealed(bytes, 64, std::byte{78})) == errc::corrupt); // settled before it was written
  CAF_CHECK(decoded(resealed(bytes, 72, std::byte{2})) == errc::corrupt);
  CAF_CHECK(decoded(resealed(bytes, 56, std::byte{4})) == errc::corrupt); // more records than there are
  CAF_CHECK(decoded(resealed(bytes, 56, std::byte{2})) == errc::corrupt); // fewer
  CAF_CHECK(decoded(resealed(bytes, 4095, std::byte{1})) == errc::corrupt);
  spoil_every_byte(bytes, decoded);
}

CAF_TEST(a batch takes what fits and leaves the rest for the next) {
  journal_batch_writer writer;
  writer.start(4096, std::vector<std::uint64_t>(100, 7));
  std::uint32_t added = 0;
  while (writer.add(example_erase()))
    ++added;
  CAF_CHECK_EQUAL(added, (4096u - 128u - 800u) / 32u);
  CAF_CHECK_EQUAL(writer.length(), 4096u);
}

CAF_TEST(tree pages are what was written) {
  tree_page out;
  auto bytes = example_leaf();
  CAF_REQUIRE(decode(bytes, id_from(0x10), 3, example_layout(), out) == errc::ok);
  CAF_REQUIRE_EQUAL(out.entries.size(), 2u);
  CAF_CHECK_EQUAL(out.header.journal_sequence, 78u);
  const tree_reference reference{3, wire::load_le<std::uint32_t>(bytes.data() + checksum_offset), 42};
  CAF_CHECK(is_meant(bytes, out, reference));
  CAF_CHECK(!is_meant(bytes, out, {3, reference.checksum, 41}));
  CAF_CHECK(!is_meant(bytes, out, {3, reference.checksum + 1, 42}));
  CAF_CHECK(!is_meant(bytes, out, {4, reference.checksum, 42}));
  bytes = example_inner();
  CAF_REQUIRE(decode(bytes, id_from(0x10), 4, example_layout(), out) == errc::ok);
  CAF_REQUIRE_EQUAL(out.children.size(), 2u);
  CAF_CHECK_EQUAL(out.children[1].reference.page, 5u);
}

CAF_TEST(a tree page that is not right is refused) {
  const layout places = example_layout();
  tree_page out;
  const auto leaf = example_leaf();
  const auto decoded = [&](std::span<const std::byte> from) {
    return decode(from, id_from(0x10), 3, places, out);
  };
  CAF_CHECK(decode(leaf, id_from(0x11), 3, places, out) == errc::foreign_drive);
  CAF_CHECK(decode(leaf, id_from(0x10), 4, places, out) == errc::corrupt);
  CAF_CHECK(decoded(std::span(leaf).first(4096)) == errc::bad_format);
  CAF_CHECK(decoded(resealed(leaf, version_offset, std::byte{2})) == errc::newer_version);
  CAF_CHECK(decoded(resealed(leaf, version_offset + 1, std::byte{1})) == errc::newer_version);
  CAF_CHECK(decoded(resealed(leaf, version_offset, std::byte{0})) == errc::bad_format);
  CAF_CHECK(decoded(resealed(leaf, 10, std::byte{1})) == errc::corrupt);         // entries are not children
  CAF_CHECK(decoded(resealed(leaf, 36, std::byte{3})) == errc::corrupt);         // more items
  CAF_CHECK(decoded(resealed(leaf, 36, std::byte{1})) == errc::corrupt);         // fewer items
  CAF_CHECK(decoded(resealed(leaf, 57, std::byte{0xFF})) == errc::corrupt);      // payload beyond the page
  CAF_CHECK(decoded(resealed(leaf, 64, std::byte{0x55})) == errc::corrupt);      // an item before the range
  CAF_CHECK(decoded(resealed(leaf, 80, std::byte{0x55})) == errc::corrupt);      // an item behind it
  CAF_CHECK(decoded(resealed(leaf, 128 + 8, std::byte{0x61})) == errc::corrupt); // out of order
  CAF_CHECK(decoded(resealed(leaf, tree_page_bytes - 1, std::byte{1})) == errc::corrupt);
  const auto inner = example_inner();
  const auto inner_decoded = [&](std::span<const std::byte> from) {
    return decode(from, id_from(0x10), 4, places, out);
  };
  CAF_CHECK(inner_decoded(resealed(inner, 128, std::byte{1})) ==
            errc::corrupt); // first child is not the range's first
  CAF_CHECK(inner_decoded(resealed(inner, 128 + 19, std::byte{1})) == errc::corrupt); // page outside
  CAF_CHECK(inner_decoded(resealed(inner, 10, std::byte{13})) == errc::corrupt);
  std::vector<std::byte> spoilt = leaf;
  for (std::size_t at = 0; at < 400; ++at) {
    spoilt[at] ^= std::byte{0x40};
    CAF_CHECK(decoded(spoilt) != errc::ok);
    spoilt[at] ^= std::byte{0x40};
  }
}

CAF_TEST(an extent header is what was written and what the index means) {
  const page bytes = example_extent();
  extent_header out;
  CAF_REQUIRE(decode(bytes, out) == errc::ok);
  CAF_CHECK_EQUAL(out.name_space, "tenant");
  CAF_CHECK(wire::as_text(out.key) == example_key);
  CAF_CHECK_EQUAL(out.length, 100'000u);
  CAF_CHECK_EQUAL(out.run_count(), 1u);
  CAF_CHECK(out.run_at(0) == (run{7, 2}));
  CAF_CHECK_EQUAL(out.chunk_at(0), 0xDEADBEEFu);
  CAF_CHECK_EQUAL(out.chunk_at(1), 0x00C0FFEEu);
  const layout places = example_layout();
  const auto expected = example_expectation(bytes);
  CAF_CHECK(check_extent_header(bytes, expected, places, out) == errc::ok);
  const auto refused = [&](const std::function<void(extent_expectation&)>& change) {
    auto other = expected;
    change(other);
    return check_extent_header(bytes, other, places, out) == errc::corrupt;
  };
  CAF_CHECK(refused([](extent_expectation& other) { other.format_id = id_from(1); }));
  CAF_CHECK(refused([](extent_expectation& other) { other.drive_id = id_from(1); }));
  CAF_CHECK(refused([](extent_expectation& other) { other.id = key_from(1); }));
  CAF_CHECK(refused([](extent_expectation& other) { other.generation = 11; }));
  CAF_CHECK(refused([](extent_expectation& other) { other.put_id = 1; }));
  CAF_CHECK(refused([](extent_expectation& other) { other.header_page = 1; }));
  CAF_CHECK(refused([](extent_expectation& other) { other.header_crc32c ^= 1; }));
  CAF_CHECK(refused([](extent_expectation& other) { other.first_unit = 8; }));
  CAF_CHECK(refused([](extent_expectation& other) { other.units = 3; }));
}

CAF_TEST(an extent header in memory covers what it uses and nothing behind it) {
  extent_header header;
  const page whole = example_extent();
  CAF_REQUIRE(decode(whole, header) == errc::ok);
  page bytes;
  bytes.fill(std::byte{0xEE}); // what an older block left there
  const std::array<run, 1> runs{run{7, 2}};
  const std::array<std::uint32_t, 2> sums{0xDEADBEEF, 0x00C0FFEE};
  CAF_CHECK(encode(header, runs, sums, bytes, header_extent::used_bytes) !=
            wire::load_le<std::uint32_t>(whole.data() + checksum_offset));
  const auto expected = example_expectation(bytes);
  const auto checked = [&] {
    extent_header out;
    return check_extent_header(bytes, expected, example_layout(), out, header_extent::used_bytes);
  };
  CAF_CHECK(checked() == errc::ok);
  CAF_CHECK(bytes.back() == std::byte{0xEE});
  const std::size_t used = static_cast<std::size_t>(header.chunk_crc32c.data() - whole.data()) + 8;
  for (std::size_t at = 0; at < used; ++at) {
    bytes[at] ^= std::byte{0x10};
    CAF_CHECK(checked() != errc::ok);
    bytes[at] ^= std::byte{0x10};
  }
  bytes[used] ^= std::byte{0x10};
  CAF_CHECK(checked() == errc::ok);
}

CAF_TEST(an extent header that is not right is refused) {
  const page bytes = example_extent();
  extent_header out;
  CAF_CHECK(decode(page{}, out) == errc::bad_format);
  CAF_CHECK(decode(resealed(bytes, version_offset, std::byte{2}), out) == errc::newer_version);
  CAF_CHECK(decode(resealed(bytes, 9, std::byte{1}), out) == errc::corrupt);    // reserved
  CAF_CHECK(decode(resealed(bytes, 120, std::byte{1}), out) == errc::corrupt);  // reserved
  CAF_CHECK(decode(resealed(bytes, 88, std::byte{1}), out) == errc::corrupt);   // part 1 of 1
  CAF_CHECK(decode(resealed(bytes, 105, std::byte{8}), out) == errc::corrupt);  // key of 2 KiB
  CAF_CHECK(decode(resealed(bytes, 106, std::byte{33}), out) == errc::corrupt); // namespace of 33
  CAF_CHECK(decode(resealed(bytes, 108, std::byte{65}), out) == errc::corrupt); // 65 runs
  CAF_CHECK(decode(resealed(bytes, 110, std::byte{3}), out) == errc::corrupt);  // sums for more than there is
  CAF_CHECK(decode(resealed(bytes, 4095, std::byte{1}), out) == errc::corrupt);
  spoil_every_byte({bytes.begin(), bytes.end()},
                   [&](const auto& spoilt) { return decode(as_page(spoilt), out); });
}

CAF_TEST(the largest extent header fits its page) {
  extent_header header;
  const std::vector<std::byte> key(1024, std::byte{'k'});
  header.key = key;
  const std::string name_space(32, 'n');
  header.name_space = name_space;
  header.length = extent_bytes_most;
  header.value_length = extent_bytes_most;
  const std::vector<run> runs(extent_runs_max, run{1, 1});
  const std::vector<std::uint32_t> sums(chunk_count(extent_bytes_most), 5);
  page bytes{};
  encode(header, runs, sums, bytes);
  extent_header out;
  CAF_CHECK(decode(bytes, out) == errc::ok);
  CAF_CHECK_EQUAL(out.chunk_crc32c.size(), sums.size() * 4);
}

CAF_TEST(a bitmap page is what was written and nothing else is accepted) {
  const page bytes = example_bitmap();
  bitmap_page_header out;
  std::span<const std::byte> bits;
  const auto decoded = [&](const auto& from) {
    return decode(as_page(from), id_from(0x10), 0, 20, out, bits);
  };
  CAF_REQUIRE(decoded(bytes) == errc::ok);
  CAF_REQUIRE_EQUAL(bits.size(), 3u);
  CAF_CHECK(bits[0] == std::byte{0x81});
  CAF_CHECK(decode(bytes, id_from(0x11), 0, 20, out, bits) == errc::foreign_drive);
  CAF_CHECK(decode(bytes, id_from(0x10), 1, 20, out, bits) == errc::corrupt);
  CAF_CHECK(decode(bytes, id_from(0x10), 0, 21, out, bits) == errc::corrupt);
  CAF_CHECK(decoded(page{}) == errc::bad_format);
  CAF_CHECK(decoded(resealed(bytes, version_offset, std::byte{2})) == errc::newer_version);
  CAF_CHECK(decoded(resealed(bytes, 66, std::byte{0x1C})) == errc::corrupt); // unit 20 of 20
  CAF_CHECK(decoded(resealed(bytes, 67, std::byte{1})) == errc::corrupt);
  CAF_CHECK(decoded(resealed(bytes, 50, std::byte{1})) == errc::corrupt);
  spoil_every_byte({bytes.begin(), bytes.end()}, decoded);
}

CAF_TEST(the worked examples of the format pages are what this code writes) {
  page bytes{};
  encode(example_superblock(), bytes);
  CAF_CHECK(worked_example("superblock", page_bytes) == std::vector<std::byte>(bytes.begin(), bytes.end()));
  CAF_CHECK(worked_example("journal", page_bytes) == example_batch());
  CAF_CHECK(worked_example("tree", tree_page_bytes) == example_leaf());
  bytes = example_extent();
  CAF_CHECK(worked_example("extent", page_bytes) == std::vector<std::byte>(bytes.begin(), bytes.end()));
  bytes = example_bitmap();
  CAF_CHECK(worked_example("bitmap", page_bytes) == std::vector<std::byte>(bytes.begin(), bytes.end()));
}
