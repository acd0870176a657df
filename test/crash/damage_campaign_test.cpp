// Thousands of drives, and one fault on each: the check finds every fault that matters and none where there
// is none; after the repair the store opens, says nothing wrong, and has lost no more than the fault cost.
//
// MEMKV_TEST_SEEDS=n: n drives with ten faults each; MEMKV_TEST_SEED: one of them.
#define CAF_SUITE drive_damage

#include "engine/page.hpp"
#include "test/crash/check_run.hpp"
#include "test/crash/image_map.hpp"

#include <caf/test/unit_test.hpp>

#include <array>
#include <map>

using namespace memkv;
using namespace memkv::crash;
using engine::check_region;

namespace {

enum class ending { closed, killed, killed_busy, power_cut };

struct made_drive {
  run_options options;
  ending how = ending::closed;
  sim::image drive;
  sim::image earlier; // the same drive some time before: what a lost write leaves
  sim::model expected;
};

void work_in_pieces(store_run& run, sim::random& chance) {
  // Small blocks everywhere, half of them removed, then large ones in the holes.
  for (int i = 0; i < 260; ++i)
    run.put("small-" + std::to_string(i), content_of(20'000 + static_cast<std::uint64_t>(i), 6000));
  for (int i = 0; i < 260; i += 2)
    run.erase("small-" + std::to_string(i));
  for (int i = 0; i < 4; ++i)
    run.put("large-" + std::to_string(i),
            content_of(30'000 + static_cast<std::uint64_t>(i),
                       50'000 + static_cast<std::uint32_t>(chance.below(15'536))));
}

/// The life of one drive, different for each seed.
made_drive make(std::uint64_t seed) {
  sim::random chance(seed * 7919 + 3);
  made_drive made;
  made.options.seed = seed;
  made.options.size_bytes = std::uint64_t{chance.below(2) == 0 ? 5U : 8U} << 20;
  made.options.unit_bytes = std::array{4U << 10, 4U << 10, 16U << 10, 64U << 10}[chance.below(4)];
  made.how = static_cast<ending>(chance.below(4));
  if (made.how != ending::power_cut && chance.below(3) == 0)
    made.options.sync = engine::sync_policy::never;
  store_run run(made.options);
  CAF_REQUIRE(run.open().ok());
  if (made.how == ending::power_cut)
    run.device->cut_power_before(run.device->submitted() + 20 + chance.below(1200));
  const auto lives = [&] { return !run.store->counters().offline; };
  // Evictions that nobody asked about yet, or that are under way, are announced like others.
  const auto announce = [&] { (void)run.get("nobody"); };
  const std::uint64_t kind = chance.below(4);
  if (kind == 0 && lives())
    work_in_pieces(run, chance);
  if (kind == 1)
    for (int i = 0; i < 350 && lives(); ++i)
      run.put("many-" + std::to_string(i), content_of(40'000 + static_cast<std::uint64_t>(i), 100));
  if (lives())
    live(run);
  if (lives() && chance.below(2) == 0) {
    (void)put_part(run, "wide", content_of(50'000, 60'000), {1, 2, 77, 65'536});
    (void)put_part(run, "wide", content_of(50'001, 5'536), {0, 2, 77, 65'536});
    (void)put_part(run, "lonely", content_of(50'002, 5'000), {1, 3, 78, 140'000});
  }
  made.earlier = run.device->now();
  if (lives() && chance.below(2) == 0) {
    // Another life on what the first one left.
    announce();
    (void)run.close();
    run.store.reset();
    if (!run.device->is_cut()) {
      const bool opened = run.open().ok();
      CAF_REQUIRE(opened || run.device->is_cut());
    }
  }
  if (run.store && lives()) {
    run.options.seed += 1'000'000;
    live(run);
    run.options.seed -= 1'000'000;
  }
  switch (made.how) {
  case ending::closed:
    CAF_REQUIRE(run.close().ok());
    break;
  case ending::killed:
    // What may be lost with the journal's end is nobody else's.
    for (int i = 0; i < 6; ++i)
      run.put("last-" + std::to_string(i), content_of(900'000 + static_cast<std::uint64_t>(i), 100));
    break;
  case ending::killed_busy:
    for (int i = 0; i < 5; ++i)
      run.start_put("busy-" + std::to_string(i), content_of(60'000 + static_cast<std::uint64_t>(i), 20'000));
    for (std::uint64_t i = chance.below(40); i > 0; --i)
      run.store->poll(false);
    break;
  case ending::power_cut:
    run.device->cut_power();
    break;
  }
  if (run.store)
    announce();
  run.die(false);
  CAF_REQUIRE_EQUAL(problem_of(run), "");
  made.drive =
      made.how == ending::power_cut ? sim::crash_states(*run.device).draw(chance) : run.device->now();
  made.expected = run.expected;
  return made;
}

/// One fault: what it is, and where.
struct damage {
  std::string what;
  sim::image drive;
  std::uint64_t offset = 0, length = 0;
};

/// The kinds of place a fault is put, all equally often.
constexpr std::array places{check_region::superblock,  check_region::mirror,    check_region::bitmap,
                            check_region::journal,     check_region::tree,      check_region::extent_header,
                            check_region::extent_data, check_region::free_units};

damage spoil(const made_drive& made, const image_map& map, sim::random& chance) {
  damage fault;
  const sim::image& drive = made.drive;
  fault.drive = drive;
  const check_region region = places[chance.below(places.size())];
  const auto candidates = map.of(region);
  std::uint64_t begin = chance.below(drive.size() / 4096) * 4096; // anywhere
  std::uint64_t bytes = 4096;
  if (!candidates.empty()) {
    begin = candidates[chance.below(candidates.size())]->offset;
    bytes = candidates[chance.below(candidates.size())]->length;
    for (const mapped_place* place : candidates)
      if (place->offset == begin)
        bytes = place->length;
  }
  const std::uint64_t at = begin + chance.below(bytes);
  const auto page = [&](std::uint64_t size) { return chance.below(drive.size() / size) * size; };
  const std::uint64_t whole = region == check_region::tree ? engine::tree_page_bytes : 4096;
  const std::uint64_t start = begin + (at - begin) / whole * whole;
  // The last two are few: they always hit the same bytes.
  const std::uint64_t how = chance.below(72);
  switch (how / 10) {
  case 0:
    fault = {"bit", drive, at, 1};
    fault.drive.flip_bit(at, static_cast<unsigned>(chance.below(8)));
    break;
  case 1:
    fault = {"byte", drive, at, 1};
    fault.drive.change_byte(at, chance);
    break;
  case 2:
    fault = {"sector of noise", drive, at / 512 * 512, 512};
    fault.drive.scramble(fault.offset, fault.length, chance);
    break;
  case 3:
    fault = {"sector of zeros", drive, at / 512 * 512, 512};
    fault.drive.fill(fault.offset, fault.length, std::byte{0});
    break;
  case 4: {
    // A whole structure of the same kind where it does not belong.
    const std::uint64_t from =
        candidates.empty() ? page(4096) : candidates[chance.below(candidates.size())]->offset;
    fault = {"copied structure", drive, start, std::min(whole, drive.size() - start)};
    fault.length = std::min(fault.length, drive.size() - from);
    fault.drive.copy_from(drive, from, start, fault.length);
    break;
  }
  case 5:
    fault = {"copied page", drive, start, 4096};
    fault.drive.copy_from(drive, page(4096), start, 4096);
    break;
  case 6:
    fault = {"lost write", drive, start, std::min(whole, drive.size() - start)};
    fault.drive.copy_from(made.earlier, start, start, fault.length);
    break;
  default:
    if (how == 70) {
      fault = {"cut end", sim::image(drive.size() - 4096 * (1 + chance.below(64))), 0, drive.size()};
      fault.drive.copy_from(drive, 0, 0, fault.drive.size());
    } else {
      fault = {"both superblocks", drive, 0, drive.size()};
      fault.drive.change_byte(chance.below(4096), chance);
      fault.drive.change_byte(drive.size() - 1 - chance.below(4096), chance);
    }
    break;
  }
  return fault;
}

struct tally {
  std::map<std::string, std::pair<std::uint64_t, std::uint64_t>> by_kind; // faults that mattered, found
  std::uint64_t clean_drives = 0;
  std::uint64_t faults = 0, unused = 0, mattered = 0, found = 0;
  std::uint64_t journal_end = 0, journal_end_told = 0;
  std::uint64_t refused = 0, repaired = 0, dropped = 0, cut_states = 0, cut_repairs = 0;
};

std::string judge(const made_drive& made, const image_map& map, const checked_image& before,
                  const damage& fault, bool cut_too, tally& sum) {
  ++sum.faults;
  // What bytes really changed, and whose.
  std::vector<const mapped_place*> hit;
  std::vector<std::byte> was, is;
  const bool same_size = fault.drive.size() == made.drive.size();
  for (const mapped_place& place : map.places) {
    if (!place.touches(fault.offset, fault.length))
      continue;
    was.resize(place.length);
    is.resize(place.length);
    made.drive.read(place.offset, was);
    if (same_size)
      fault.drive.read(place.offset, is);
    if (!same_size || was != is)
      hit.push_back(&place);
  }
  const checked_image after = check(fault.drive);
  if (!after.problem.empty())
    return after.problem;
  std::uint64_t batches = 0;
  std::uint64_t first_batch = ~std::uint64_t{0};
  for (const mapped_place* place : hit)
    if (place->region == check_region::journal) {
      ++batches;
      first_batch = std::min(first_batch, place->batch);
    }
  // The journal's end: nothing whole follows.
  const bool at_end = batches > 0 && first_batch + batches == map.last_batch + 1;
  const bool only_end = at_end && batches == hit.size();
  const auto findings = [](const checked_image& image) {
    return image.report.findings.size() + image.report.left_out();
  };
  const bool tells = after.tells() || after.report.found != before.report.found;
  // A bitmap page with the same bits, or a mirror that had been on its way when the power went, is no fault.
  const bool as_good =
      fault.what == "lost write" && hit.size() == 1 && findings(after) == 0 &&
      (hit.front()->region == check_region::bitmap || hit.front()->region == check_region::mirror);
  if (hit.empty() || as_good) {
    ++sum.unused;
    if (after.tells())
      return "a false alarm" + after.text();
  } else if (only_end) {
    ++sum.journal_end;
    sum.journal_end_told += tells ? 1 : 0;
  } else {
    ++sum.mattered;
    auto& [all, found] = sum.by_kind[same_size && fault.length < made.drive.size()
                                         ? std::string(name(hit.front()->region)) + ", " + fault.what
                                         : fault.what];
    ++all;
    if (!tells)
      return "not found, in " + std::string(name(hit.front()->region)) + "; before:" + before.text() +
             "; after:" + after.text();
    ++found;
    ++sum.found;
  }
  const repaired_image mended = repair(fault.drive);
  if (!after.result.ok()) {
    ++sum.refused;
    return mended.writes == 0 && mended.result.code == after.result.code
               ? ""
               : "what cannot be judged was repaired";
  }
  if (!mended.result.ok())
    return "the repair fails: " + mended.result.text;
  ++sum.repaired;
  sum.dropped += mended.done.blocks_dropped;
  if (const auto again = check(mended.after);
      !again.is_clean() || again.report.total(engine::check_severity::error) > 0)
    return "the repaired drive is not clean:" + again.text();
  if (repair(mended.after).writes > 0)
    return "a second repair writes";
  if (cut_too) {
    ++sum.cut_repairs;
    if (const auto wrong =
            repair_cut_everywhere(fault.drive, mended.after, made.options.seed, sum.cut_states);
        !wrong.empty())
      return wrong;
  }
  // Only who was hit may be missing; what the end of a journal said of others is unknown for ever.
  if (at_end && made.how != ending::killed)
    return {};
  sim::model expected = made.expected;
  expected.lost([&](const std::string& key) {
    const key_id id = id_of(key);
    return batches > 1 ||
           std::ranges::any_of(hit, [&](const mapped_place* place) { return place->costs_block(id); });
  });
  std::string wrong = serve(made.options, mended.after, expected);
  if (!wrong.empty())
    wrong += "; the check said:" + after.text() + "; " + std::to_string(hit.size()) + " places hit";
  return wrong;
}

void print(const tally& sum) {
  CAF_MESSAGE(sum.clean_drives << " drives in order or after a crash, none suspected");
  CAF_MESSAGE(sum.faults << " faults: " << sum.unused << " hit nothing in use, " << sum.journal_end
                         << " hit the end of the journal (" << sum.journal_end_told << " told), "
                         << sum.mattered << " mattered, " << sum.found << " of these found");
  for (const auto& [kind, count] : sum.by_kind)
    CAF_MESSAGE("  " << kind << ": " << count.second << " of " << count.first);
  CAF_MESSAGE(sum.refused << " refused, " << sum.repaired << " repaired, " << sum.dropped
                          << " blocks dropped; " << sum.cut_repairs << " repairs cut in " << sum.cut_states
                          << " places");
}

} // namespace

CAF_TEST(a changed byte at any position of any batch of the journal is found but at its end) {
  store_run run{run_options{}};
  CAF_REQUIRE(run.open().ok());
  for (int i = 0; i < 3; ++i)
    run.put("key-" + std::to_string(i), content_of(100 + static_cast<std::uint64_t>(i), 5000));
  for (int i = 0; i < 2; ++i) {
    if (i % 2 == 0)
      run.erase("key-" + std::to_string(i));
    for (int j = 0; j < 3; ++j)
      run.start_put("together-" + std::to_string(j),
                    content_of(200 + static_cast<std::uint64_t>(i * 3 + j), 100));
    run.poll_all();
  }
  run.put("last", content_of(300, 100));
  run.die(false);
  const image_map map = map_of(run.device->now());
  CAF_REQUIRE(map.of(check_region::journal).size() >= 7);
  sim::random chance(5);
  std::uint64_t told_at_end = 0;
  for (const mapped_place* batch : map.of(check_region::journal)) {
    // All of what is used (at most three records), and some of the zeros behind.
    for (std::uint64_t at = 0; at < batch->length; at += at < 400 ? 3 : 501) {
      sim::image drive = run.device->now();
      drive.change_byte(batch->offset + at, chance);
      const auto found = check(drive);
      if (batch->batch == map.last_batch)
        told_at_end += found.count(engine::finding_kind::journal_torn_tail);
      else
        CAF_CHECK_EQUAL(found.count(engine::finding_kind::journal_hole), 1u);
      CAF_CHECK_EQUAL(found.tells(), batch->batch != map.last_batch);
    }
  }
  // A single byte leaves enough marks to see that there was a batch.
  CAF_CHECK_EQUAL(told_at_end, 134u + 8u);
}

CAF_TEST(every fault that matters is found and repaired and no drive in order is suspected) {
  tally sum;
  for (const std::uint64_t seed : seeds(25)) {
    const made_drive made = make(seed);
    const std::string with_seed = " [MEMKV_TEST_SEED=" + std::to_string(seed) + "]";
    const checked_image before = check(made.drive);
    CAF_REQUIRE_EQUAL(before.problem, "");
    CAF_REQUIRE_EQUAL(before.is_clean() ? "" : "a false alarm" + before.text() + with_seed, "");
    ++sum.clean_drives;
    const image_map map = map_of(made.drive);
    sim::random chance(seed + 31);
    for (int i = 0; i < 10; ++i) {
      damage fault = spoil(made, map, chance);
      while (fault.drive == made.drive)
        fault = spoil(made, map, chance);
      const std::string wrong = judge(made, map, before, fault, i == 0, sum);
      if (!wrong.empty())
        CAF_REQUIRE_EQUAL(fault.what + " at " + std::to_string(fault.offset) + ": " + wrong + with_seed, "");
    }
  }
  print(sum);
  CAF_CHECK_EQUAL(sum.found, sum.mattered);
}

CAF_TEST(structures whose checksums are right and whose contents are not never stop the check or the repair) {
  std::uint64_t refused = 0;
  std::uint64_t suspected = 0;
  for (const std::uint64_t seed : seeds(25)) {
    const made_drive made = make(seed);
    const image_map map = map_of(made.drive);
    sim::random chance(seed + 77);
    for (int i = 0; i < 12; ++i) {
      sim::image drive = made.drive;
      const auto reseal = [&](std::uint64_t at, std::uint64_t length) {
        std::vector<std::byte> bytes(length);
        drive.read(at, bytes);
        for (std::uint64_t edits = 1 + chance.below(3); edits > 0; --edits) {
          const std::uint64_t place = 16 + chance.below(std::min<std::uint64_t>(length - 16, 600));
          bytes[place] = chance.below(2) == 0
                             ? static_cast<std::byte>(chance.next())
                             : static_cast<std::byte>(std::to_integer<unsigned>(bytes[place]) + 1);
        }
        const auto sum = engine::seal(bytes);
        drive.write(at, bytes);
        return sum;
      };
      const auto batches = map.of(check_region::journal);
      switch (chance.below(4)) {
      case 0:
        (void)reseal(0, engine::page_bytes);
        break;
      case 1:
        (void)reseal(map.super.places.bitmap_offset, engine::page_bytes);
        break;
      case 2:
        if (!batches.empty()) {
          const auto* batch = batches[chance.below(batches.size())];
          (void)reseal(batch->offset, batch->length);
          break;
        }
        [[fallthrough]];
      default:
        if (map.super.root.page != engine::no_tree_page) {
          const auto sum = reseal(map.super.places.tree_offset +
                                      std::uint64_t{map.super.root.page} * engine::tree_page_bytes,
                                  engine::tree_page_bytes);
          edit_superblock(drive, 0, [&](engine::superblock& block) {
            block = map.super;
            block.copy = 0;
            block.root.checksum = sum;
          });
          edit_superblock(drive, 1, [&](engine::superblock& block) {
            block = map.super;
            block.copy = 1;
            block.root.checksum = sum;
          });
        }
        break;
      }
      const auto found = check(drive);
      CAF_REQUIRE_EQUAL(found.problem, "");
      suspected += found.is_clean() ? 0 : 1;
      const auto mended = repair(drive);
      if (!mended.result.ok()) {
        ++refused;
        CAF_CHECK(mended.after == drive);
        continue;
      }
      CAF_CHECK(check(mended.after).is_clean());
      CAF_CHECK_EQUAL(repair(mended.after).writes, 0u);
    }
  }
  CAF_MESSAGE(suspected << " suspected, " << refused << " refused");
  CAF_CHECK(suspected > 50);
}
