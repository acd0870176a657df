// The offline check and repair of a drive whose tree was edited by hand: entries that cannot be, two owners,
// and damage to inner pages.
#define CAF_SUITE drive_check_tree

#include "engine/tree_page.hpp"
#include "test/crash/check_run.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;
using engine::errc;
using engine::finding_kind;

namespace {

/// Edits the root, a leaf, of a drive that was closed in order, and makes everything above it fit.
void edit_root(sim::image& drive, const std::function<void(std::vector<engine::entry_record>&)>& edit) {
  const auto super = superblock_of(drive);
  CAF_REQUIRE_EQUAL(super.root_level, 0);
  const std::uint64_t at =
      super.places.tree_offset + std::uint64_t{super.root.page} * engine::tree_page_bytes;
  std::vector<std::byte> bytes(engine::tree_page_bytes);
  drive.read(at, bytes);
  engine::tree_page page;
  CAF_REQUIRE(decode(bytes, super.format_id, super.root.page, super.places, page) == errc::ok);
  edit(page.entries);
  engine::tree_page_writer writer(bytes);
  for (const auto& record : page.entries)
    CAF_REQUIRE(writer.add(record));
  const auto checksum = writer.finish(page.header);
  drive.write(at, bytes);
  for (const int copy : {0, 1})
    edit_superblock(drive, copy, [&](engine::superblock& block) { block.root.checksum = checksum; });
}

/// Gives a drive whose tree is one leaf of four blocks a tree of three levels: leaves at pages 40 to 43,
/// inner pages at 44 and 45, the root at 46; and older leaves of the same ranges, without their blocks, at 50
/// to 53.
void plant_high_tree(sim::image& drive) {
  const auto super = superblock_of(drive);
  std::vector<engine::entry_record> records;
  edit_root(drive, [&](std::vector<engine::entry_record>& found) { records = found; });
  CAF_REQUIRE_EQUAL(records.size(), 4u);
  engine::key_id highest;
  highest.bytes.fill(std::byte{0xFF});
  const auto before = [](engine::key_id id) {
    for (std::size_t i = id.bytes.size(); i-- > 0;) {
      const bool borrow = id.bytes[i] == std::byte{0};
      id.bytes[i] = static_cast<std::byte>(std::to_integer<unsigned>(id.bytes[i]) - 1);
      if (!borrow)
        break;
    }
    return id;
  };
  const auto begin_of = [&](std::size_t i) { return i == 0 ? engine::key_id{} : records[i].id; };
  const auto end_of = [&](std::size_t i) { return i == 4 ? highest : before(records[i].id); };
  const auto write_page = [&](std::uint8_t level, std::uint32_t page, std::uint64_t sequence,
                              std::size_t first, std::size_t end,
                              const std::function<void(engine::tree_page_writer&)>& fill) {
    std::vector<std::byte> bytes(engine::tree_page_bytes);
    engine::tree_page_writer writer(bytes);
    fill(writer);
    engine::tree_page_header header;
    header.format_id = super.format_id;
    header.level = level;
    header.page = page;
    header.sequence = sequence;
    header.journal_sequence = super.journal_tail_sequence - 1;
    header.first = begin_of(first);
    header.last = end_of(end);
    const auto checksum = writer.finish(header);
    drive.write(super.places.tree_offset + std::uint64_t{page} * engine::tree_page_bytes, bytes);
    return engine::tree_child{header.first, {page, checksum, sequence}};
  };
  const std::uint64_t sequence = super.tree_sequence + 10;
  std::vector<engine::tree_child> leaves;
  for (std::size_t i = 0; i < 4; ++i) {
    (void)write_page(0, static_cast<std::uint32_t>(50 + i), sequence - 5, i, i + 1, [](auto&) {});
    leaves.push_back(write_page(0, static_cast<std::uint32_t>(40 + i), sequence + i, i, i + 1,
                                [&](auto& writer) { CAF_REQUIRE(writer.add(records[i])); }));
  }
  std::vector<engine::tree_child> inner;
  for (std::size_t i = 0; i < 2; ++i)
    inner.push_back(write_page(1, static_cast<std::uint32_t>(44 + i), sequence + 4 + i, 2 * i, 2 * i + 2,
                               [&](auto& writer) {
                                 CAF_REQUIRE(writer.add(leaves[2 * i]));
                                 CAF_REQUIRE(writer.add(leaves[2 * i + 1]));
                               }));
  const auto root = write_page(2, 46, sequence + 6, 0, 4, [&](auto& writer) {
    for (const auto& child : inner)
      CAF_REQUIRE(writer.add(child));
  });
  for (const int copy : {0, 1})
    edit_superblock(drive, copy, [&](engine::superblock& block) {
      block.root = root.reference;
      block.root_level = 2;
      block.tree_sequence = sequence + 6;
    });
}

} // namespace

CAF_TEST(a damaged inner page costs nothing while the pages below prove what it said) {
  store_run run{run_options{}};
  CAF_REQUIRE(run.open().ok());
  for (int i = 0; i < 4; ++i)
    run.put("key-" + std::to_string(i), content_of(1 + static_cast<std::uint64_t>(i), 5000));
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  sim::image drive = run.device->now();
  plant_high_tree(drive);
  const auto places = superblock_of(drive).places;
  const auto at = [&](std::uint64_t page) { return places.tree_offset + page * engine::tree_page_bytes; };
  CAF_CHECK_EQUAL(check(drive).text(), "");
  CAF_CHECK_EQUAL(serve(run.options, drive, run.expected), "");
  for (const std::uint64_t page : {44U, 45U, 46U}) {
    sim::image damaged = drive;
    damaged.flip_bit(at(page) + 150, 4);
    const auto found = check(damaged);
    CAF_CHECK_EQUAL(found.kinds(), "tree_page_damaged");
    CAF_CHECK_EQUAL(found.report.counts.blocks, 4u);
    const auto mended = repair(damaged);
    CAF_REQUIRE(mended.result.ok());
    CAF_CHECK_EQUAL(mended.done.blocks_kept, 4u);
    CAF_CHECK_EQUAL(check(mended.after).text(), "");
    CAF_CHECK_EQUAL(serve(run.options, mended.after, run.expected), "");
    std::uint64_t states = 0;
    CAF_CHECK_EQUAL(repair_cut_everywhere(damaged, mended.after, page, states), "");
    // A start finds as much.
    store_run again(run.options, damaged, run.expected);
    CAF_REQUIRE(again.open().ok());
    again.get_all();
    CAF_CHECK_EQUAL(problem_of(again), "");
    CAF_CHECK_EQUAL(again.store->counters().bad_tree_pages, 1u);
  }
  // With the youngest leaf gone as well, an older one of the same range is no proof: its state must not come
  // back.
  for (const std::uint64_t page : {44U, 46U}) {
    sim::image damaged = drive;
    damaged.flip_bit(at(page) + 150, 4);
    damaged.flip_bit(at(40) + 150, 4);
    const auto found = check(damaged);
    CAF_CHECK(found.count(finding_kind::tree_page_damaged) >= 1u);
    CAF_CHECK_EQUAL(found.report.counts.blocks, page == 44U ? 2u : 3u);
    const auto mended = repair(damaged);
    CAF_REQUIRE(mended.result.ok());
    CAF_CHECK_EQUAL(check(mended.after).text(), "");
    auto expected = run.expected;
    expected.lost([](const std::string&) { return true; });
    CAF_CHECK_EQUAL(serve(run.options, mended.after, expected), "");
    store_run again(run.options, damaged, expected);
    CAF_REQUIRE(again.open().ok());
    CAF_CHECK_EQUAL(again.store->index().size(), page == 44U ? 2u : 3u);
    again.get_all();
    CAF_CHECK_EQUAL(problem_of(again), "");
  }
}

CAF_TEST(of two owners of the same space the younger one is kept) {
  store_run run{run_options{}};
  CAF_REQUIRE(run.open().ok());
  run.put("older", content_of(1, 5000));
  run.put("younger", content_of(2, 5000));
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  sim::image drive = run.device->now();
  engine::entry_record older, younger;
  edit_root(drive, [&](std::vector<engine::entry_record>& records) {
    for (auto& record : records)
      (record.id == id_of("older") ? older : younger) = record;
    for (auto& record : records)
      if (record.id == id_of("older")) {
        record.first_unit = younger.first_unit;
        record.header_page = younger.header_page;
      }
  });
  const auto found = check(drive);
  CAF_CHECK_EQUAL(found.count(finding_kind::two_owners), 1u);
  CAF_CHECK_EQUAL(found.count(finding_kind::units_leaked), 1u);
  const auto mended = repair(drive);
  CAF_REQUIRE(mended.result.ok());
  CAF_REQUIRE_EQUAL(mended.done.dropped.size(), 1u);
  CAF_CHECK(mended.done.dropped.front().id == id_of("older"));
  CAF_CHECK(mended.done.dropped.front().why == finding_kind::two_owners);
  run.expected.lost([](const std::string& key) { return key == "older"; });
  CAF_CHECK_EQUAL(serve(run.options, mended.after, run.expected), "");
  std::uint64_t states = 0;
  CAF_CHECK_EQUAL(repair_cut_everywhere(drive, mended.after, 9, states), "");
}

CAF_TEST(an entry that says what cannot be is dropped) {
  store_run run{run_options{}};
  CAF_REQUIRE(run.open().ok());
  run.put("a", content_of(1, 5000));
  run.put("b", content_of(2, 100));
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  sim::image drive = run.device->now();
  edit_root(drive, [&](std::vector<engine::entry_record>& records) {
    for (auto& record : records)
      if (record.id == id_of("a"))
        record.value_length += 8192;
  });
  const auto found = check(drive);
  CAF_CHECK_EQUAL(found.count(finding_kind::entry_contradicts), 1u);
  const auto mended = repair(drive);
  CAF_CHECK_EQUAL(mended.done.blocks_kept, 1u);
  CAF_CHECK_EQUAL(check(mended.after).text(), "");
}

CAF_TEST(a tree region without room for a second tree is left to the server) {
  store_run run{run_options{}};
  CAF_REQUIRE(run.open().ok());
  run.put("good", content_of(1, 100));
  run.put("bad", content_of(2, 100));
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  sim::image drive = run.device->now();
  std::vector<engine::entry_record> records;
  edit_root(drive, [&](std::vector<engine::entry_record>& found) { records = found; });
  const auto super = superblock_of(drive);
  // A root at page 0 and a leaf in every other page; nearly all leaves are empty.
  const std::uint32_t leaves = super.places.tree_pages - 1;
  const auto first_of = [&](std::uint32_t leaf) {
    engine::key_id id;
    id.bytes[0] = static_cast<std::byte>(leaf * 65'536 / leaves / 256);
    id.bytes[1] = static_cast<std::byte>(leaf * 65'536 / leaves % 256);
    return id;
  };
  const auto last_of = [&](std::uint32_t leaf) {
    engine::key_id id;
    id.bytes.fill(std::byte{0xFF});
    const std::uint32_t next = leaf + 1 == leaves ? 65'536 : (leaf + 1) * 65'536 / leaves;
    id.bytes[0] = static_cast<std::byte>((next - 1) / 256);
    id.bytes[1] = static_cast<std::byte>((next - 1) % 256);
    return id;
  };
  std::vector<std::byte> bytes(engine::tree_page_bytes);
  engine::tree_page_header header;
  header.format_id = super.format_id;
  header.journal_sequence = super.journal_tail_sequence - 1;
  header.sequence = super.tree_sequence;
  std::vector<engine::tree_child> children;
  const auto write_page = [&](engine::tree_page_writer& writer) {
    ++header.sequence;
    const auto checksum = writer.finish(header);
    drive.write(super.places.tree_offset + std::uint64_t{header.page} * engine::tree_page_bytes, bytes);
    children.push_back({header.first, {header.page, checksum, header.sequence}});
  };
  for (std::uint32_t leaf = 0; leaf < leaves; ++leaf) {
    header.page = leaf + 1;
    header.first = first_of(leaf);
    header.last = last_of(leaf);
    engine::tree_page_writer writer(bytes);
    for (const auto& record : records)
      if (header.first <= record.id && record.id <= header.last)
        CAF_REQUIRE(writer.add(record));
    write_page(writer);
  }
  engine::tree_page_writer writer(bytes);
  for (const auto& child : std::vector(children))
    CAF_REQUIRE(writer.add(child));
  header.level = 1;
  header.page = 0;
  header.first = first_of(0);
  write_page(writer);
  for (const int copy : {0, 1})
    edit_superblock(drive, copy, [&](engine::superblock& block) {
      block.root = children.back().reference;
      block.root_level = 1;
      block.tree_sequence = header.sequence;
    });
  CAF_CHECK_EQUAL(check(drive).text(), "");
  const auto& bad = records[0].id == id_of("bad") ? records[0] : records[1];
  drive.flip_bit(super.places.data_page_offset(bad.header_page) + 60, 1);
  const auto mended = repair(drive);
  CAF_CHECK(mended.result.code == errc::no_space);
  CAF_CHECK(mended.after == drive);
  run.expected.lost([](const std::string& key) { return key == "bad"; });
  store_run again(run.options, drive, run.expected);
  CAF_REQUIRE(again.open().ok());
  again.get_all();
  CAF_CHECK_EQUAL(problem_of(again), "");
  CAF_CHECK_EQUAL(again.corrupt_reads, 1u);
}
