// Kinds of findings that need a drive of their own: each is made, named, and gone after the repair or, where
// repair has no say, still told.
#define CAF_SUITE drive_check_kinds

#include "engine/extent_header.hpp"
#include "engine/tree_page.hpp"
#include "test/crash/check_run.hpp"
#include "test/crash/image_map.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;
using engine::check_region;

namespace {

/// Some blocks, closed in order; then, unless `closed`, some more and a process that died.
struct small_drive {
  explicit small_drive(bool closed) : run(run_options{}) {
    CAF_REQUIRE(run.open().ok());
    for (int i = 0; i < 6; ++i)
      run.put("key-" + std::to_string(i), content_of(1 + static_cast<std::uint64_t>(i), 5000));
    CAF_REQUIRE(run.close().ok());
    if (!closed) {
      run.store.reset();
      CAF_REQUIRE(run.open().ok());
      for (int i = 0; i < 3; ++i)
        run.erase("key-" + std::to_string(i));
      run.put("key-4", content_of(20, 100));
      run.put("new", content_of(21, 5000));
    }
    run.die(false);
    drive = run.device->now();
  }

  store_run run;
  sim::image drive;
};

/// Names what is found, repairs, and says what is left: "before -> after".
std::string kinds_of(const sim::image& drive) {
  const auto found = check(drive);
  CAF_REQUIRE_EQUAL(found.result.text, "");
  CAF_REQUIRE_EQUAL(found.problem, "");
  const auto mended = repair(drive);
  CAF_REQUIRE_EQUAL(mended.result.text, "");
  CAF_CHECK_EQUAL(repair(mended.after).writes, 0u);
  return found.kinds() + " -> " + check(mended.after).kinds();
}

} // namespace

CAF_TEST(superblocks that differ are told by how they differ) {
  small_drive used(true);
  const auto with = [&](int copy, const std::function<void(engine::superblock&)>& edit) {
    sim::image drive = used.drive;
    edit_superblock(drive, copy, edit);
    return drive;
  };
  const auto back = [](std::uint64_t steps) {
    return [steps](engine::superblock& block) { block.sequence -= steps; };
  };
  CAF_CHECK_EQUAL(kinds_of(with(1, back(1))), "superblock_interrupted -> ");
  CAF_CHECK(check(with(1, back(1))).is_clean());
  CAF_CHECK_EQUAL(kinds_of(with(1, back(2))), "superblock_behind -> ");
  CAF_CHECK_EQUAL(kinds_of(with(0, back(1))), "superblock_behind -> ");
  CAF_CHECK_EQUAL(kinds_of(with(1, [](engine::superblock& block) { ++block.blocks; })),
                  "superblock_behind -> ");
}

CAF_TEST(a blacklisted drive is a warning that only a reset takes away) {
  small_drive used(true);
  for (const int copy : {0, 1})
    edit_superblock(used.drive, copy, [](engine::superblock& block) {
      block.failures.note_failure(5);
      block.failures.blacklisted = true;
    });
  CAF_CHECK_EQUAL(kinds_of(used.drive), "blacklisted -> blacklisted");
  CAF_CHECK(check(used.drive).is_clean());
  CAF_CHECK_EQUAL(repair(used.drive).writes, 0u);
}

CAF_TEST(a journal that holds something after an orderly close is replayed and told) {
  small_drive used(false);
  const auto before = check(used.drive);
  for (const int copy : {0, 1})
    edit_superblock(used.drive, copy, [](engine::superblock& block) { block.clean = true; });
  const auto found = check(used.drive);
  CAF_CHECK_EQUAL(found.count(engine::finding_kind::journal_not_empty), 1u);
  CAF_CHECK_EQUAL(found.report.counts.blocks, before.report.counts.blocks);
  CAF_CHECK(kinds_of(used.drive).ends_with(" -> "));
  CAF_CHECK_EQUAL(serve(used.run.options, repair(used.drive).after, used.run.expected), "");
}

CAF_TEST(a damaged page of the bitmap matters after an orderly close only) {
  small_drive closed(true);
  small_drive killed(false);
  const auto at = superblock_of(closed.drive).places.bitmap_offset + 2000;
  closed.drive.flip_bit(at, 1);
  killed.drive.flip_bit(at, 1);
  CAF_CHECK_EQUAL(kinds_of(closed.drive), "bitmap_page_damaged -> ");
  CAF_CHECK_EQUAL(kinds_of(killed.drive), " -> ");
}

CAF_TEST(a tree younger than its superblock is told) {
  small_drive used(true);
  for (const int copy : {0, 1})
    edit_superblock(used.drive, copy,
                    [](engine::superblock& block) { block.tree_sequence = block.root.sequence - 1; });
  CAF_CHECK_EQUAL(kinds_of(used.drive), "tree_counts_differ -> ");
  CAF_CHECK_EQUAL(serve(used.run.options, repair(used.drive).after, used.run.expected), "");
}

CAF_TEST(a page with two parents counts for the first) {
  small_drive used(true);
  const auto super = superblock_of(used.drive);
  std::vector<std::byte> bytes(engine::tree_page_bytes);
  used.drive.read(super.places.tree_offset + std::uint64_t{super.root.page} * engine::tree_page_bytes, bytes);
  engine::tree_page leaf;
  CAF_REQUIRE(decode(bytes, super.format_id, super.root.page, super.places, leaf) == engine::errc::ok);
  const auto write_page = [&](engine::tree_page_header header, auto&& fill) {
    engine::tree_page_writer writer(bytes);
    fill(writer);
    const auto checksum = writer.finish(header);
    used.drive.write(super.places.tree_offset + std::uint64_t{header.page} * engine::tree_page_bytes, bytes);
    return engine::tree_reference{header.page, checksum, header.sequence};
  };
  // The leaf keeps the lower half of the ids; a root names it for both halves.
  auto header = leaf.header;
  header.page = 20;
  header.sequence += 1;
  header.last.bytes[0] = std::byte{0x7F};
  engine::key_id middle;
  middle.bytes[0] = std::byte{0x80};
  const auto half = write_page(header, [&](engine::tree_page_writer& writer) {
    for (const auto& record : leaf.entries)
      if (record.id <= header.last)
        CAF_REQUIRE(writer.add(record));
  });
  auto top = leaf.header;
  top.page = 21;
  top.level = 1;
  top.sequence += 2;
  const auto root = write_page(top, [&](engine::tree_page_writer& writer) {
    CAF_REQUIRE(writer.add(engine::tree_child{engine::key_id{}, half}));
    CAF_REQUIRE(writer.add(engine::tree_child{middle, half}));
  });
  for (const int copy : {0, 1})
    edit_superblock(used.drive, copy, [&](engine::superblock& block) {
      block.root = root;
      block.root_level = 1;
      block.tree_sequence = root.sequence;
    });
  CAF_CHECK(kinds_of(used.drive).starts_with("tree_page_repeated"));
  CAF_CHECK(kinds_of(used.drive).ends_with(" -> "));
}

CAF_TEST(one lost batch is a hole that names the blocks it touched and two cost what nothing proves) {
  small_drive used(false);
  const auto batches = map_of(used.drive).of(check_region::journal).size();
  CAF_REQUIRE(batches >= 4);
  const auto map = map_of(used.drive);
  const auto places = map.of(check_region::journal);
  // The second one removed key-1, which is in the tree still.
  sim::image one = used.drive;
  one.fill(places[1]->offset, 512, std::byte{0xAA});
  CAF_CHECK_EQUAL(kinds_of(one), "journal_hole block_unproven -> ");
  CAF_CHECK_EQUAL(check(one).count(engine::finding_kind::block_unproven), 1u);
  sim::image two = one;
  two.fill(places[2]->offset, 512, std::byte{0xAA});
  CAF_CHECK_EQUAL(kinds_of(two), "journal_hole block_unproven -> ");
  // Everything that only the tree names: all but the one that the first batch removed.
  CAF_CHECK_EQUAL(check(two).count(engine::finding_kind::block_unproven), 5u);
  CAF_CHECK_EQUAL(repair(two).done.blocks_dropped, 5u);
}

CAF_TEST(a put of the last batch whose bytes are not there is left out without an error) {
  small_drive used(false);
  const auto map = map_of(used.drive);
  sim::image torn = used.drive;
  for (const auto* place : map.of(check_region::extent_data))
    if (place->costs_block(id_of("new")))
      torn.fill(place->offset, 4096, std::byte{0});
  CAF_CHECK_EQUAL(kinds_of(torn), "put_unfinished -> ");
  CAF_CHECK(check(torn).is_clean());
  CAF_CHECK_EQUAL(repair(torn).done.blocks_dropped, 0u);
}

CAF_TEST(a torn last batch is a note and its put is left out) {
  small_drive used(false);
  const auto map = map_of(used.drive);
  sim::image torn = used.drive;
  const auto* last = map.of(check_region::journal).back();
  torn.fill(last->offset + 512, last->length - 512, std::byte{0xAA});
  CAF_CHECK_EQUAL(kinds_of(torn), "journal_torn_tail -> ");
  CAF_CHECK(check(torn).is_clean());
  used.run.expected.lost([](const std::string& key) { return key == "new"; });
  CAF_CHECK_EQUAL(serve(used.run.options, repair(torn).after, used.run.expected), "");
}
