// The journal under an image editor: every batch position damaged, repeated, stale or missing.
#define CAF_SUITE store_journal

#include "engine/journal_batch.hpp"
#include "engine/superblock.hpp"
#include "test/crash/history.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;

namespace {

struct found_batch {
  std::uint64_t address = 0;
  engine::journal_batch batch;
};

engine::superblock superblock_of(const sim::image& drive) {
  std::vector<std::byte> bytes(engine::page_bytes);
  drive.read(0, bytes);
  engine::superblock block;
  CAF_REQUIRE(decode(std::span<const std::byte, engine::page_bytes>(bytes), 0, block) == engine::errc::ok);
  return block;
}

/// The batches that a recovery would replay, in order.
std::vector<found_batch> live_batches(const sim::image& drive) {
  const auto block = superblock_of(drive);
  std::vector<std::byte> region(block.places.journal_bytes);
  drive.read(block.places.journal_offset, region);
  std::vector<found_batch> found;
  for (std::uint64_t at = 0; at < region.size(); at += engine::page_bytes) {
    found_batch one;
    one.address = block.places.journal_offset + at;
    if (decode(std::span<const std::byte>(region).subspan(at), block.format_id, one.address, block.places,
               one.batch) == engine::errc::ok &&
        one.batch.header.sequence >= block.journal_tail_sequence)
      found.push_back(one);
  }
  std::ranges::sort(found, {}, [](const found_batch& one) { return one.batch.header.sequence; });
  return found;
}

/// Twelve blocks, closed in order, and then a journal of overwrites and removals, one batch each.
struct worn_drive {
  worn_drive() : run(run_options{}) {
    CAF_REQUIRE(run.open().ok());
    for (int i = 0; i < 12; ++i)
      run.put("key-" + std::to_string(i), content_of(100 + static_cast<std::uint64_t>(i), 5000));
    CAF_REQUIRE(run.close().ok());
    run.store.reset();
    CAF_REQUIRE(run.open().ok());
    for (int i = 0; i < 6; ++i) {
      const std::string key = "key-" + std::to_string(i);
      if (i % 2 == 0)
        run.erase(key);
      else
        run.put(key, content_of(200 + static_cast<std::uint64_t>(i), 100));
    }
    run.put("new", content_of(300, 100));
    run.die(false);
    batches = live_batches(run.device->now());
    CAF_REQUIRE_EQUAL(batches.size(), 7u);
  }

  store_run run;
  std::vector<found_batch> batches;
};

} // namespace

CAF_TEST(a damaged batch in the middle is a hole that costs only what it touched) {
  worn_drive worn;
  // Each 512-byte piece of each batch but the last.
  for (std::size_t i = 0; i + 1 < worn.batches.size(); ++i) {
    sim::random chance(i + 1);
    sim::image damaged = worn.run.device->now();
    damaged.change_byte(worn.batches[i].address + chance.below(200), chance);
    auto expected = worn.run.expected;
    const auto touched = worn.batches[i].batch.records.front().id;
    expected.lost([&](const std::string& key) { return id_of(key) == touched; });
    store_run again(worn.run.options, damaged, expected);
    const auto opened = again.open();
    CAF_REQUIRE(opened.ok());
    CAF_CHECK(opened.text.find("journal") != std::string::npos);
    CAF_CHECK_EQUAL(again.store->counters().journal_holes, 1u);
    again.get_all();
    expect_all_space_back(again);
    CAF_CHECK_EQUAL(problem_of(again), "");
  }
}

CAF_TEST(two damaged batches in a row cost what cannot be proven and nothing is wrong) {
  worn_drive worn;
  for (std::size_t i = 0; i + 2 < worn.batches.size(); ++i) {
    sim::random chance(i + 1);
    sim::image damaged = worn.run.device->now();
    damaged.scramble(worn.batches[i].address, 512, chance);
    damaged.scramble(worn.batches[i + 1].address, 512, chance);
    auto expected = worn.run.expected;
    expected.lost([](const std::string&) { return true; });
    store_run again(worn.run.options, damaged, expected);
    CAF_REQUIRE(again.open().ok());
    CAF_CHECK_EQUAL(again.store->counters().journal_holes, 1u);
    again.get_all();
    CAF_CHECK_EQUAL(problem_of(again), "");
    // What came after the hole is proven.
    CAF_CHECK(again.get("new").has_value());
  }
}

CAF_TEST(a torn last batch is dropped and nothing else) {
  worn_drive worn;
  sim::random chance(4);
  sim::image torn = worn.run.device->now();
  torn.scramble(worn.batches.back().address + 64, 448, chance);
  auto expected = worn.run.expected;
  expected.lost([](const std::string& key) { return key == "new"; });
  store_run again(worn.run.options, torn, expected);
  const auto opened = again.open();
  CAF_REQUIRE(opened.ok());
  CAF_CHECK_EQUAL(opened.text, "");
  CAF_CHECK_EQUAL(again.store->counters().journal_holes, 0u);
  CAF_CHECK_EQUAL(again.store->counters().torn_tails, 1u);
  again.get_all();
  CAF_CHECK(!again.get("new"));
  CAF_CHECK_EQUAL(problem_of(again), "");
}

CAF_TEST(a batch that lies at another place is not believed) {
  worn_drive worn;
  // Repeated behind the others, and over the first one.
  sim::image repeated = worn.run.device->now();
  repeated.copy_from(repeated, worn.batches[2].address, worn.batches.back().address + 4096, 4096);
  store_run again(worn.run.options, repeated, worn.run.expected);
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->counters().journal_holes, 0u);
  again.get_all();
  CAF_CHECK_EQUAL(problem_of(again), "");

  sim::image over = worn.run.device->now();
  over.copy_from(over, worn.batches[4].address, worn.batches[1].address, 4096);
  auto expected = worn.run.expected;
  const auto touched = worn.batches[1].batch.records.front().id;
  expected.lost([&](const std::string& key) { return id_of(key) == touched; });
  store_run third(worn.run.options, over, expected);
  CAF_REQUIRE(third.open().ok());
  CAF_CHECK_EQUAL(third.store->counters().journal_holes, 1u);
  third.get_all();
  CAF_CHECK_EQUAL(problem_of(third), "");
}

CAF_TEST(replaying the same journal again changes nothing) {
  worn_drive worn;
  store_run once(worn.run.options, worn.run.device->now(), worn.run.expected);
  CAF_REQUIRE(once.open().ok());
  const auto first = once.store->counters();
  CAF_CHECK_EQUAL(first.replayed_records, 7u);
  once.get_all();
  CAF_CHECK_EQUAL(problem_of(once), "");
  // The journal of before, under a tree that has it all already.
  once.die(false);
  store_run twice(worn.run.options, once.device->now(), once.expected);
  CAF_REQUIRE(twice.open().ok());
  CAF_CHECK_EQUAL(twice.store->counters().replayed_records, 0u);
  CAF_CHECK_EQUAL(twice.store->counters().blocks, first.blocks);
  twice.get_all();
  CAF_CHECK_EQUAL(problem_of(twice), "");
}

CAF_TEST(batches of earlier laps are left alone) {
  run_options options;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  // 256 KiB of journal in batches of a page: several laps.
  for (std::uint64_t i = 0; i < 300; ++i)
    run.put("key-" + std::to_string(i % 10), content_of(i + 1, 100));
  run.die(false);
  store_run again(options, run.device->now(), run.expected);
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->counters().journal_holes, 0u);
  CAF_CHECK(again.store->counters().replayed_records < 64);
  again.get_all();
  CAF_CHECK_EQUAL(problem_of(again), "");
}

CAF_TEST(a journal of a later release is refused by name) {
  worn_drive worn;
  sim::image newer = worn.run.device->now();
  std::vector<std::byte> bytes(4096);
  newer.read(worn.batches[3].address, bytes);
  bytes[engine::version_offset] = std::byte{engine::journal_version + 1};
  engine::seal(bytes);
  newer.write(worn.batches[3].address, bytes);
  store_run again(worn.run.options, newer, worn.run.expected);
  const auto opened = again.open();
  CAF_CHECK(opened.code == engine::errc::newer_version);
  CAF_CHECK(opened.text.find("journal") != std::string::npos);
}
