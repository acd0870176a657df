// The offline check and repair of a drive: what they say of drives in order, after crashes, and of each kind
// of damage.
#define CAF_SUITE drive_check

#include "engine/bitmap_page.hpp"
#include "engine/extent_header.hpp"
#include "engine/tree_page.hpp"
#include "test/crash/check_run.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>

using namespace memkv;
using namespace memkv::crash;
using engine::check_region;
using engine::errc;
using engine::finding_kind;

namespace {

/// A drive with something on it: closed in order, or its process killed.
struct used_drive {
  explicit used_drive(bool closed, int blocks = 0) : run(run_options{}) {
    CAF_REQUIRE(run.open().ok());
    live(run);
    for (int i = 0; i < blocks; ++i)
      CAF_REQUIRE(run.put("more-" + std::to_string(i),
                          content_of(5000 + static_cast<std::uint64_t>(i), 100)) == errc::ok);
    if (closed)
      CAF_REQUIRE(run.close().ok());
    run.die(false);
    drive = run.device->now();
  }

  store_run run;
  sim::image drive;
};

/// Where the block lies, by the tree of a drive that was closed in order.
engine::entry_record record_of(const sim::image& drive, const std::string& key) {
  const auto super = superblock_of(drive);
  engine::entry_record found;
  for (std::uint32_t page = 0; page < super.places.tree_pages; ++page) {
    std::vector<std::byte> bytes(engine::tree_page_bytes);
    drive.read(super.places.tree_offset + std::uint64_t{page} * engine::tree_page_bytes, bytes);
    engine::tree_page decoded;
    if (decode(bytes, super.format_id, page, super.places, decoded) != errc::ok)
      continue;
    for (const auto& record : decoded.entries)
      if (record.id == id_of(key) && record.generation > found.generation)
        found = record;
  }
  CAF_REQUIRE(found.generation > 0);
  return found;
}

/// A device that cannot read a stretch of itself.
class unreadable_device final : public engine::block_device {
public:
  unreadable_device(engine::block_device& inner, std::uint64_t begin, std::uint64_t end)
      : inner_(inner), begin_(begin), end_(end) {}
  const engine::device_information& information() const noexcept override { return inner_.information(); }
  void submit(engine::io_operation& operation) override {
    if (operation.what == engine::io_operation::kind::read && operation.offset < end_ &&
        begin_ < operation.offset + operation.length)
      refused_.push_back(&operation);
    else
      inner_.submit(operation);
  }
  std::size_t poll(bool wait) override {
    std::size_t count = 0;
    while (!refused_.empty()) {
      engine::io_operation* operation = refused_.back();
      refused_.pop_back();
      operation->result = errc::io_error;
      operation->done(*operation);
      ++count;
    }
    return count + inner_.poll(wait && count == 0);
  }
  std::size_t in_flight() const noexcept override { return refused_.size() + inner_.in_flight(); }
  void close() noexcept override { inner_.close(); }

private:
  engine::block_device& inner_;
  std::uint64_t begin_, end_;
  std::vector<engine::io_operation*> refused_;
};

} // namespace

CAF_TEST(a drive closed in order is clean and each of its bytes belongs to one region) {
  used_drive used(true, 400);
  const auto found = check(used.drive);
  CAF_CHECK_EQUAL(found.text(), "");
  CAF_CHECK(found.is_clean());
  const auto& counts = found.report.counts;
  CAF_CHECK_EQUAL(found.report.bytes_accounted(), used.drive.size());
  CAF_CHECK_EQUAL(counts.blocks, superblock_of(used.drive).blocks);
  CAF_CHECK_EQUAL(counts.blocks_verified, counts.blocks);
  CAF_CHECK_EQUAL(counts.tree_entries, counts.blocks);
  CAF_CHECK(counts.tree_pages_used > 2);
  CAF_CHECK(counts.bitmap_compared);
  CAF_CHECK_EQUAL(found.report.of(check_region::journal).bytes, 0u);
  CAF_CHECK_EQUAL(found.report.of(check_region::extent_data).bytes, counts.bytes_verified);
  CAF_CHECK_EQUAL(found.report.of(check_region::extent_header).bytes, counts.blocks * engine::page_bytes);
  for (const auto region : {check_region::superblock, check_region::bitmap, check_region::tree,
                            check_region::extent_header, check_region::extent_data, check_region::mirror}) {
    CAF_CHECK(found.report.of(region).bytes > 0);
    CAF_CHECK_EQUAL(found.report.of(region).covered, found.report.of(region).bytes);
    CAF_CHECK_EQUAL(found.report.of(region).read, found.report.of(region).bytes);
  }
}

CAF_TEST(a quick check reads no block and accounts for all bytes still) {
  used_drive used(true);
  const auto record = record_of(used.drive, used.run.expected.keys().front());
  used.drive.flip_bit(superblock_of(used.drive).places.data_page_offset(record.header_page) + 50, 3);
  engine::check_options quick;
  quick.quick = true;
  const auto found = check(used.drive, quick);
  CAF_CHECK(found.is_clean());
  CAF_CHECK_EQUAL(found.report.counts.blocks_verified, 0u);
  CAF_CHECK_EQUAL(found.report.of(check_region::extent_data).read, 0u);
  CAF_CHECK_EQUAL(found.report.bytes_accounted(), used.drive.size());
  CAF_CHECK(!check(used.drive).is_clean());
}

CAF_TEST(a killed process leaves a drive that is clean and says what waits in the journal) {
  used_drive used(false);
  const auto found = check(used.drive);
  CAF_CHECK_EQUAL(found.text(), "");
  CAF_CHECK(found.is_clean());
  CAF_CHECK(found.report.counts.journal_batches > 0);
  CAF_CHECK(found.report.of(check_region::journal).bytes > 0);
  CAF_CHECK(!found.report.counts.bitmap_compared);
}

CAF_TEST(repairing a drive in order writes nothing) {
  used_drive used(true);
  const auto mended = repair(used.drive);
  CAF_CHECK(mended.result.ok());
  CAF_CHECK(!mended.done.changed);
  CAF_CHECK_EQUAL(mended.writes, 0u);
}

CAF_TEST(repairing a drive after a crash keeps everything and closes it in order) {
  used_drive used(false);
  const auto mended = repair(used.drive);
  CAF_REQUIRE(mended.result.ok());
  CAF_CHECK(mended.done.marked_clean && mended.done.journal_reset);
  CAF_CHECK_EQUAL(mended.done.blocks_dropped, 0u);
  CAF_CHECK(superblock_of(mended.after).clean && superblock_of(mended.after, 1).clean);
  CAF_CHECK_EQUAL(check(mended.after).text(), "");
  CAF_CHECK_EQUAL(repair(mended.after).writes, 0u);
  CAF_CHECK_EQUAL(serve(used.run.options, mended.after, used.run.expected), "");
  std::uint64_t states = 0;
  CAF_CHECK_EQUAL(repair_cut_everywhere(used.drive, mended.after, 3, states), "");
  CAF_CHECK(states > 10);
}

CAF_TEST(either superblock damaged is found and made good from the other) {
  used_drive used(true);
  for (const int copy : {0, 1}) {
    sim::image damaged = used.drive;
    damaged.flip_bit((copy == 0 ? 0 : damaged.size() - 4096) + 3000, 2);
    const auto found = check(damaged);
    CAF_CHECK_EQUAL(found.kinds(), "superblock_damaged");
    CAF_CHECK(found.report.findings.front().region ==
              (copy == 0 ? check_region::superblock : check_region::mirror));
    const auto mended = repair(damaged);
    CAF_CHECK_EQUAL(mended.writes, 1u);
    CAF_CHECK(mended.after == used.drive);
  }
}

CAF_TEST(both superblocks damaged end the check with a sentence and nothing is written) {
  used_drive used(true);
  used.drive.flip_bit(100, 0);
  used.drive.flip_bit(used.drive.size() - 1000, 0);
  const auto found = check(used.drive);
  CAF_CHECK(found.result.code == errc::corrupt);
  CAF_CHECK_EQUAL(found.count(finding_kind::superblock_damaged), 2u);
  CAF_CHECK(!found.report.clean());
  CAF_CHECK_EQUAL(repair(used.drive).writes, 0u);
}

CAF_TEST(a superblock of another drive is told from our own by what lies between) {
  used_drive used(true);
  run_options other_options;
  other_options.seed = 2;
  store_run other(other_options);
  CAF_REQUIRE(other.open().ok());
  CAF_REQUIRE(other.close().ok());
  other.die(false);
  for (const int copy : {0, 1}) {
    sim::image mixed = used.drive;
    const std::uint64_t at = copy == 0 ? 0 : mixed.size() - 4096;
    mixed.copy_from(other.device->now(), at, at, 4096);
    const auto found = check(mixed);
    CAF_CHECK_EQUAL(found.kinds(), "superblock_foreign");
    CAF_CHECK(repair(mixed).after == used.drive);
  }
}

CAF_TEST(what is not a drive of ours or has another size is refused) {
  used_drive used(true);
  CAF_CHECK(check(sim::image(8 << 20)).result.code == errc::bad_format);
  CAF_CHECK(check(sim::image(4096)).result.code == errc::wrong_size);
  sim::random chance(1);
  sim::image noise(8 << 20);
  noise.scramble(0, 8192, chance);
  CAF_CHECK(check(noise).result.code == errc::bad_format);
  sim::image shorter(used.drive.size() - 4096);
  shorter.copy_from(used.drive, 0, 0, shorter.size());
  CAF_CHECK(check(shorter).result.code == errc::wrong_size);
  CAF_CHECK_EQUAL(repair(shorter).writes, 0u);
}

CAF_TEST(a structure of a later release is refused by name and nothing is written) {
  used_drive closed(true);
  used_drive killed(false);
  const auto raise_version = [](sim::image drive, std::uint64_t at, std::size_t length) {
    std::vector<std::byte> bytes(length);
    drive.read(at, bytes);
    bytes[engine::version_offset] = std::byte{77};
    engine::seal(bytes);
    drive.write(at, bytes);
    return drive;
  };
  const auto refused = [](const sim::image& drive, const char* what) {
    const auto found = check(drive);
    CAF_CHECK(found.result.code == errc::newer_version);
    CAF_CHECK(found.result.text.find(what) != std::string::npos);
    CAF_CHECK_EQUAL(repair(drive).writes, 0u);
  };
  refused(raise_version(closed.drive, 0, 4096), "superblock");
  refused(raise_version(closed.drive, closed.drive.size() - 4096, 4096), "superblock");
  const auto super = superblock_of(killed.drive);
  refused(raise_version(killed.drive, super.places.journal_offset, 4096), "journal");
  const auto closed_super = superblock_of(closed.drive);
  const std::uint64_t root =
      closed_super.places.tree_offset + std::uint64_t{closed_super.root.page} * engine::tree_page_bytes;
  refused(raise_version(closed.drive, root, engine::tree_page_bytes), "tree");
}

CAF_TEST(a damaged block is named and dropped and everything else is kept) {
  used_drive used(true);
  const auto places = superblock_of(used.drive).places;
  std::size_t looked_at = 0;
  for (const std::string& key : used.run.expected.keys()) {
    // What may have been evicted is perhaps only in pages that nobody uses any more.
    const auto allowed = used.run.expected.allowed(key);
    if (std::ranges::any_of(allowed, [](const auto& one) { return !one.has_value(); }))
      continue;
    ++looked_at;
    const auto record = record_of(used.drive, key);
    sim::image header = used.drive;
    header.flip_bit(places.data_page_offset(record.header_page) + 4000, 1);
    sim::image data = used.drive;
    if (record.value_length > 0)
      data.flip_bit(places.unit_offset(record.first_unit) + record.value_length / 2, 7);
    for (const auto* damaged : {&header, &data}) {
      if (*damaged == used.drive)
        continue;
      const auto found = check(*damaged);
      CAF_CHECK_EQUAL(found.kinds(), damaged == &header ? "header_damaged" : "data_damaged");
      CAF_REQUIRE_EQUAL(found.report.findings.size(), 1u);
      CAF_CHECK(found.report.findings.front().id == record.id);
      const auto mended = repair(*damaged);
      CAF_REQUIRE(mended.result.ok());
      CAF_REQUIRE_EQUAL(mended.done.blocks_dropped, 1u);
      CAF_CHECK(mended.done.dropped.front().id == record.id);
      CAF_CHECK_EQUAL(check(mended.after).text(), "");
      auto expected = used.run.expected;
      expected.lost([&](const std::string& one) { return one == key; });
      CAF_CHECK_EQUAL(serve(used.run.options, mended.after, expected), "");
    }
  }
  CAF_CHECK(looked_at > 2);
}

CAF_TEST(a page of the tree that is whole and stale is not taken for the one that is meant) {
  used_drive used(true);
  // The leaf as an earlier checkpoint left it somewhere, moved to where the current one lies: a lost write.
  const auto super = superblock_of(used.drive);
  CAF_REQUIRE_EQUAL(super.root_level, 0);
  sim::image stale = used.drive;
  const std::uint64_t at =
      super.places.tree_offset + std::uint64_t{super.root.page} * engine::tree_page_bytes;
  std::vector<std::byte> bytes(engine::tree_page_bytes);
  stale.read(at, bytes);
  engine::tree_page page;
  CAF_REQUIRE(decode(bytes, super.format_id, super.root.page, super.places, page) == errc::ok);
  engine::tree_page_writer writer(bytes);
  --page.header.sequence;
  (void)writer.finish(page.header);
  stale.write(at, bytes);
  const auto found = check(stale);
  CAF_CHECK_EQUAL(found.count(finding_kind::tree_page_damaged), 1u);
  CAF_CHECK(found.count(finding_kind::units_leaked) > 0);
  const auto mended = repair(stale);
  CAF_REQUIRE(mended.result.ok());
  CAF_CHECK_EQUAL(mended.done.blocks_kept, 0u);
  CAF_CHECK_EQUAL(check(mended.after).text(), "");
}

CAF_TEST(a bitmap that disagrees with the tree is found both ways and made right) {
  used_drive used(true);
  const auto super = superblock_of(used.drive);
  std::vector<std::byte> bytes(engine::page_bytes);
  const std::span<std::byte, engine::page_bytes> page(bytes.data(), std::size_t{engine::page_bytes});
  used.drive.read(super.places.bitmap_offset, bytes);
  engine::bitmap_page_header header;
  std::span<const std::byte> view;
  CAF_REQUIRE(decode(page, super.format_id, 0, super.places.units, header, view) == errc::ok);
  std::vector<std::byte> bits(view.begin(), view.end());
  std::size_t full = 0;
  while (bits[full] == std::byte{0})
    ++full;
  std::size_t empty = 0;
  while (bits[empty] != std::byte{0})
    ++empty;
  const auto with = [&](std::size_t at, std::byte value) {
    auto changed = bits;
    changed[at] = value;
    encode(header, changed, page);
    sim::image drive = used.drive;
    drive.write(super.places.bitmap_offset, bytes);
    return drive;
  };
  const auto leaked = check(with(empty, std::byte{0x18}));
  CAF_CHECK_EQUAL(leaked.kinds(), "units_leaked");
  CAF_CHECK_EQUAL(leaked.report.counts.units_leaked, 2u);
  const auto missing = check(with(full, std::byte{0}));
  CAF_CHECK_EQUAL(missing.kinds(), "units_missing");
  for (const auto& drive : {with(empty, std::byte{0x18}), with(full, std::byte{0})}) {
    const auto mended = repair(drive);
    CAF_CHECK_EQUAL(mended.done.bitmap_pages_written, 1u);
    CAF_CHECK_EQUAL(mended.writes, 1u);
    CAF_CHECK_EQUAL(check(mended.after).text(), "");
    CAF_CHECK_EQUAL(serve(used.run.options, mended.after, used.run.expected), "");
  }
}

CAF_TEST(parts of striped blocks are kept whether their head is here or not) {
  run_options options;
  store_run run(options);
  run.store_options.identity.drive_count = 2;
  CAF_REQUIRE(run.open().ok());
  CAF_REQUIRE(put_part(run, "here", content_of(1, 65536), {1, 2, 11, 70000}) == errc::ok);
  CAF_REQUIRE(put_part(run, "here", content_of(2, 4464), {0, 2, 11, 70000}) == errc::ok);
  CAF_REQUIRE(put_part(run, "elsewhere", content_of(3, 4464), {1, 2, 12, 70000}) == errc::ok);
  run.die(false);
  const auto found = check(run.device->now());
  CAF_CHECK(found.is_clean());
  CAF_CHECK_EQUAL(found.kinds(), "head_missing");
  CAF_CHECK_EQUAL(found.count(finding_kind::head_missing), 1u);
  CAF_CHECK_EQUAL(found.report.counts.parts, 2u);
  CAF_CHECK_EQUAL(found.report.counts.blocks_verified, 3u);
  const auto mended = repair(run.device->now());
  CAF_CHECK_EQUAL(mended.done.blocks_kept, 3u);
  store_run again(options, mended.after, {});
  again.store_options.identity.drive_count = 2;
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->take_recovered_parts().size(), 2u);
}

CAF_TEST(without sync a drive that lost the power is told to start empty and repair empties it) {
  run_options options;
  options.sync = engine::sync_policy::never;
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  live(run);
  run.die(false);
  const sim::image drive = run.device->now();
  engine::check_options same_boot;
  same_boot.boot_id.fill(options.boot);
  CAF_CHECK(check(drive, same_boot).is_clean());
  CAF_CHECK(check(drive, same_boot).report.counts.blocks > 0);
  engine::check_options other_boot;
  other_boot.boot_id.fill(std::byte{99});
  const auto found = check(drive, other_boot);
  CAF_CHECK(found.is_clean());
  CAF_CHECK_EQUAL(found.kinds(), "emptied_by_power_loss");
  CAF_CHECK(found.report.of(check_region::void_space).bytes > 0);
  CAF_CHECK_EQUAL(found.report.bytes_accounted(), drive.size());
  const auto mended = repair(drive, other_boot);
  CAF_REQUIRE(mended.result.ok());
  CAF_CHECK_EQUAL(check(mended.after, other_boot).text(), "");
  store_run again(options, mended.after, {});
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->counters().blocks, 0u);
}

CAF_TEST(what the device cannot read is told and never overwritten on suspicion) {
  used_drive used(false);
  const auto places = superblock_of(used.drive).places;
  struct bad_place {
    std::uint64_t at;
    bool repairable;
  };
  // A superblock that cannot be read is written anew, a block that cannot be read is dropped; the journal
  // and the tree may say anything.
  const auto found = check(used.drive);
  const auto live = found.report.of(check_region::journal).bytes;
  CAF_REQUIRE(live > 0);
  std::vector<bad_place> bad{{0, true}, {used.drive.size() - 1, true}, {places.journal_offset, false}};
  used_drive closed(true);
  for (const auto& [at, repairable] : bad) {
    sim::world world(7);
    sim::sim_options options;
    options.size_bytes = used.drive.size();
    sim::sim_device inner(world, options, used.drive);
    unreadable_device device(inner, at, at + 1);
    engine::check_report report;
    const auto result = engine::check_drive(device, {}, report);
    CAF_CHECK(result.ok());
    CAF_CHECK_EQUAL(report.found[static_cast<std::size_t>(finding_kind::unreadable)], 1u);
    CAF_CHECK(!report.clean());
    engine::repair_report done;
    const auto mended = engine::repair_drive(device, {}, report, done);
    CAF_CHECK_EQUAL(mended.ok(), repairable);
    if (!repairable)
      CAF_CHECK(inner.now() == used.drive);
  }
  const auto super = superblock_of(closed.drive);
  const std::uint64_t root =
      super.places.tree_offset + std::uint64_t{super.root.page} * engine::tree_page_bytes;
  const auto record = record_of(closed.drive, closed.run.expected.keys().front());
  const std::uint64_t header = super.places.data_page_offset(record.header_page);
  for (const std::uint64_t at : {root, header}) {
    sim::world world(7);
    sim::sim_options options;
    options.size_bytes = closed.drive.size();
    sim::sim_device inner(world, options, closed.drive);
    unreadable_device device(inner, at, at + 1);
    engine::check_report report;
    engine::repair_report done;
    const auto mended = engine::repair_drive(device, {}, report, done);
    CAF_CHECK_EQUAL(report.found[static_cast<std::size_t>(finding_kind::unreadable)], 1u);
    CAF_CHECK_EQUAL(mended.ok(), at == header);
    if (at == root)
      CAF_CHECK(inner.now() == closed.drive);
    else
      CAF_CHECK(done.blocks_dropped == 1 && done.dropped.front().id == record.id);
  }
}

CAF_TEST(a repair whose writes fail says so and can be run again) {
  used_drive used(false);
  const auto mended = repair(used.drive);
  std::uint64_t failed = 0;
  for (std::uint64_t operation = 0;; ++operation) {
    sim::world world(7);
    sim::sim_options options;
    options.size_bytes = used.drive.size();
    sim::sim_device device(world, options, used.drive);
    device.plan(operation, {sim::fault::kind::io_error});
    engine::check_report before;
    engine::repair_report done;
    const auto result = engine::repair_drive(device, {}, before, done);
    if (device.met() == 0)
      break;
    if (before.found[static_cast<std::size_t>(finding_kind::unreadable)] > 0)
      continue;
    if (!result.ok()) {
      ++failed;
      CAF_CHECK(result.code == errc::io_error);
      CAF_CHECK(repair(device.now()).after == mended.after);
    }
  }
  CAF_CHECK(failed >= 6);
}

CAF_TEST(findings beyond the bound are counted and progress grows to its total) {
  used_drive used(true, 50);
  const auto places = superblock_of(used.drive).places;
  for (int i = 0; i < 50; ++i)
    used.drive.flip_bit(
        places.data_page_offset(record_of(used.drive, "more-" + std::to_string(i)).header_page), 0);
  engine::check_options options;
  options.findings_max = 3;
  std::vector<engine::check_progress> told;
  options.progress = [&](const engine::check_progress& now) { told.push_back(now); };
  const auto found = check(used.drive, options);
  CAF_CHECK_EQUAL(found.report.findings.size(), 3u);
  CAF_CHECK_EQUAL(found.report.left_out(), 47u);
  CAF_CHECK_EQUAL(found.count(finding_kind::header_damaged), 50u);
  CAF_REQUIRE(told.size() >= 5);
  CAF_CHECK_EQUAL(name(told.front().stage), "superblocks");
  CAF_CHECK_EQUAL(name(told.back().stage), "data");
  for (std::size_t i = 1; i < told.size(); ++i)
    CAF_CHECK(told[i].bytes_done >= told[i - 1].bytes_done && told[i].bytes_done <= told[i].bytes_total);
}

CAF_TEST(the facts of a drive are read from metadata alone) {
  used_drive used(false);
  sim::world world(1);
  sim::sim_options options;
  options.size_bytes = used.drive.size();
  sim::sim_device device(world, options, used.drive);
  engine::drive_facts facts;
  CAF_REQUIRE(engine::read_drive_facts(device, {}, facts).ok());
  CAF_CHECK(facts.known);
  CAF_CHECK_EQUAL(facts.version, engine::superblock_version);
  CAF_CHECK_EQUAL(facts.device_bytes, used.drive.size());
  CAF_CHECK(!facts.super.clean);
  CAF_CHECK_EQUAL(facts.pending_batches, check(used.drive).report.counts.journal_batches);
  CAF_CHECK(facts.pending_records >= facts.pending_batches);
  CAF_CHECK_EQUAL(facts.bitmap_pages_damaged, 0u);
  used_drive closed(true);
  sim::sim_device second(world, options, closed.drive);
  CAF_REQUIRE(engine::read_drive_facts(second, {}, facts).ok());
  CAF_CHECK(facts.super.clean);
  CAF_CHECK_EQUAL(facts.units_taken, check(closed.drive).report.counts.units_owned);
  CAF_CHECK(second.log().empty());
}
