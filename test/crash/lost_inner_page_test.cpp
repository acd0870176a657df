// Damaged inner pages of the tree when a drive is opened: what the pages below them prove is found, and
// nothing that was replaced or removed comes back.
#define CAF_SUITE store_lost_inner_page

#include "engine/drive_io.hpp"
#include "engine/superblock_pair.hpp"
#include "engine/tree_page.hpp"
#include "test/crash/check_run.hpp"
#include "test/sim/empty_puts.hpp"
#include "test/sim/sparse_device.hpp"

#include <caf/test/unit_test.hpp>

#include <utility>
#include <vector>

using namespace memkv;
using namespace memkv::crash;
using engine::errc;

namespace {

struct found_page {
  engine::tree_reference reference;
  std::uint8_t level = 0;
};

using page_reader = std::function<void(std::uint64_t offset, std::span<std::byte> to)>;

/// All pages of the published tree, the root first.
std::vector<found_page> pages_of(const engine::superblock& super, const page_reader& read) {
  std::vector<found_page> found;
  if (super.root.page != engine::no_tree_page)
    found.push_back({super.root, super.root_level});
  std::vector<std::byte> bytes(engine::tree_page_bytes);
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i].level == 0)
      continue;
    const found_page parent = found[i];
    read(super.places.tree_offset + std::uint64_t{parent.reference.page} * engine::tree_page_bytes, bytes);
    engine::tree_page page;
    CAF_REQUIRE(decode(bytes, super.format_id, parent.reference.page, super.places, page) == errc::ok);
    for (const auto& child : page.children)
      found.push_back({child.reference, static_cast<std::uint8_t>(parent.level - 1)});
  }
  return found;
}

engine::superblock youngest_superblock(const sim::image& drive) {
  engine::superblock best;
  bool any = false;
  for (const int copy : {0, 1}) {
    std::vector<std::byte> bytes(engine::page_bytes);
    drive.read(copy == 0 ? 0 : drive.size() - engine::page_bytes, bytes);
    engine::superblock block;
    if (decode(std::span<const std::byte, engine::page_bytes>(bytes), static_cast<std::uint8_t>(copy),
               block) == errc::ok &&
        (!any || block.sequence > best.sequence)) {
      best = block;
      any = true;
    }
  }
  CAF_REQUIRE(any);
  return best;
}

std::vector<found_page> pages_of(const sim::image& drive) {
  return pages_of(youngest_superblock(drive),
                  [&](std::uint64_t offset, std::span<std::byte> to) { drive.read(offset, to); });
}

std::uint64_t place_of(const sim::image& drive, const found_page& page) {
  return youngest_superblock(drive).places.tree_offset +
         std::uint64_t{page.reference.page} * engine::tree_page_bytes;
}

constexpr int keys = 1200;

run_options roomy(std::uint64_t seed) {
  run_options options;
  options.seed = seed;
  options.size_bytes = 20 << 20;
  options.eviction = false;
  options.delay_ticks_max = 2;
  return options;
}

std::string key_of(int number) {
  return "key-" + std::to_string(number);
}

class history {
public:
  explicit history(store_run& run) : run_(run), chance_(run.options.seed) {}

  void fill() {
    for (int i = 0; i < keys; ++i)
      put(i);
    run_.poll_all();
  }
  /// Overwrites, removes, and puts what was removed, everywhere.
  void change(int times) {
    for (int i = 0; i < times && !run_.device->is_cut(); ++i) {
      const int number = static_cast<int>(chance_.below(keys));
      if (chance_.below(3) != 0) {
        put(number);
      } else {
        run_.start_erase(key_of(number));
        gather();
      }
    }
    run_.poll_all();
  }

private:
  void put(int number) {
    run_.start_put(key_of(number), content_of(++serial_, 100));
    gather();
  }
  void gather() {
    if (run_.unanswered() >= 40)
      run_.poll_all();
  }

  store_run& run_;
  sim::random chance_;
  std::uint64_t serial_ = 0;
};

/// Damages each inner page in turn, each time in another way; every block must be there, and afterwards the
/// drive must be whole. Returns what is wrong, and counts the pages.
std::string lose_each_inner_page(const run_options& options, const sim::image& drive,
                                 const sim::model& expected, int& inner) {
  for (const found_page& page : pages_of(drive)) {
    if (page.level == 0)
      continue;
    for (int way = 0; way < 3; ++way) {
      sim::image damaged = drive;
      sim::random chance(options.seed + static_cast<std::uint64_t>(way));
      const std::uint64_t at = place_of(drive, page);
      if (way == 0)
        damaged.flip_bit(at + chance.below(1000), 3);
      else if (way == 1)
        damaged.fill(at, engine::tree_page_bytes, std::byte{0});
      else
        damaged.copy_from(drive, place_of(drive, pages_of(drive).back()), at, engine::tree_page_bytes);
      store_run again(options, damaged, expected);
      if (const auto opened = again.open(); !opened.ok())
        return "does not open: " + opened.text;
      if (const auto bad = again.store->counters().bad_tree_pages; bad != 1)
        return std::to_string(bad) + " damaged pages were counted instead of one";
      again.get_all();
      if (!again.problems.empty() || again.corrupt_reads > 0)
        return "page " + std::to_string(page.reference.page) + ", way " + std::to_string(way) + ": " +
               problem_of(again);
      if (const auto closed = again.close(); !closed.ok())
        return "does not close: " + closed.text;
      again.die(false);
      if (const auto checked = check(again.device->now()); !checked.is_clean())
        return "is not clean afterwards: " + checked.text();
    }
    ++inner;
  }
  return {};
}

} // namespace

CAF_TEST(a damaged inner page costs no block when the pages below prove what it said) {
  for (const auto seed : seeds(1)) {
    const run_options options = roomy(seed);
    auto run = std::make_unique<store_run>(options);
    CAF_REQUIRE(run->open().ok());
    history story(*run);
    story.fill();
    int inner = 0;
    for (int round = 0; round < 2; ++round) {
      story.change(400);
      // Closed in order, and then with a tail of the journal that is not in the tree.
      CAF_REQUIRE(run->close().ok());
      CAF_REQUIRE_EQUAL(problem_of(*run), "");
      run->die(false);
      const sim::image closed = run->device->now();
      CAF_CHECK_EQUAL(lose_each_inner_page(options, closed, run->expected, inner), "");
      CAF_REQUIRE(run->open().ok());
      story.change(150);
      run->die(false);
      CAF_CHECK_EQUAL(lose_each_inner_page(options, run->device->now(), run->expected, inner), "");
      CAF_REQUIRE(run->open().ok());
    }
    CAF_CHECK(inner >= 4);
  }
}

CAF_TEST(what checkpoints left that were cut off does not stand in the way of the proof) {
  int inner = 0, unpublished = 0;
  for (const auto seed : seeds(6)) {
    const run_options options = roomy(seed);
    store_run first(options);
    CAF_REQUIRE(first.open().ok());
    history(first).fill();
    CAF_REQUIRE(first.close().ok());
    first.die(false);
    first.device->forget_log();
    // All leaves change; the power goes while they are written.
    store_run second(options, first.device->now(), first.expected);
    CAF_REQUIRE(second.open().ok());
    history story(second);
    story.change(300);
    // A checkpoint that is published: the next one writes to other places than a start does.
    bool entered = false;
    second.store->enter_epoch(7, {}, [&](errc) { entered = true; });
    CAF_REQUIRE(second.drive_until([&] { return entered; }));
    story.change(300);
    const std::uint64_t tree_before = youngest_superblock(second.device->now()).tree_sequence;
    second.device->cut_power_before(second.device->submitted() + 3 + seed);
    (void)second.close();
    second.device->cut_power();
    second.die(false);
    sim::random chance(seed);
    const sim::image cut = sim::crash_states(*second.device).draw(chance);
    const auto super = youngest_superblock(cut);
    for (std::uint32_t page = 0; page < super.places.tree_pages; ++page) {
      std::vector<std::byte> bytes(engine::tree_page_bytes);
      cut.read(super.places.tree_offset + std::uint64_t{page} * engine::tree_page_bytes, bytes);
      engine::tree_page found;
      unpublished += decode(bytes, super.format_id, page, super.places, found) == errc::ok &&
                     found.header.sequence > tree_before;
    }
    store_run third(options, cut, second.expected);
    CAF_REQUIRE(third.open().ok());
    third.die(false);
    CAF_CHECK_EQUAL(lose_each_inner_page(options, third.device->now(), third.expected, inner), "");
  }
  CAF_MESSAGE(unpublished << " pages that no superblock named");
  CAF_CHECK(unpublished > 10);
  CAF_CHECK(inner >= 5);
}

CAF_TEST(with a page below damaged too nothing old comes back) {
  for (const auto seed : seeds(2)) {
    const run_options options = roomy(seed);
    store_run run(options);
    CAF_REQUIRE(run.open().ok());
    history story(run);
    story.fill();
    story.change(600);
    CAF_REQUIRE(run.close().ok());
    run.die(false);
    const sim::image drive = run.device->now();
    const auto pages = pages_of(drive);
    int leaves = 0;
    for (const found_page& leaf : pages) {
      if (leaf.level != 0)
        continue;
      ++leaves;
      sim::image damaged = drive;
      damaged.flip_bit(place_of(drive, pages.front()) + 200, 1);
      damaged.flip_bit(place_of(drive, leaf) + 200, 1);
      store_run again(options, damaged, run.expected);
      again.expected.lost([](const std::string&) { return true; });
      CAF_REQUIRE(again.open().ok());
      again.get_all();
      CAF_CHECK_EQUAL(problem_of(again), "");
    }
    CAF_CHECK(leaves >= 4);
  }
}

CAF_TEST(a start that is cut off while it mends an inner page costs nothing) {
  const run_options options = roomy(5);
  store_run run(options);
  CAF_REQUIRE(run.open().ok());
  history story(run);
  story.fill();
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  CAF_REQUIRE(run.open().ok());
  story.change(300);
  run.die(false);
  sim::image drive = run.device->now();
  const auto pages = pages_of(drive);
  CAF_REQUIRE(pages.front().level > 0);
  drive.flip_bit(place_of(drive, pages.front()) + 300, 5);
  int cuts = 0;
  for (std::uint64_t at = 0;; at += 2) {
    store_run cut(options, drive, run.expected);
    cut.device->cut_power_before(at);
    if (cut.open().ok())
      break;
    cut.device->cut_power();
    cut.die(false);
    sim::random chance(at);
    store_run again(options, sim::crash_states(*cut.device).draw(chance), cut.expected);
    CAF_REQUIRE(again.open().ok());
    again.get_all();
    CAF_REQUIRE_EQUAL(problem_of(again), "");
    CAF_REQUIRE_EQUAL(again.corrupt_reads, 0u);
    ++cuts;
  }
  CAF_CHECK(cuts > 10);
}

CAF_TEST(in a tree of three levels each inner page can be lost) {
  // It takes seconds to fill one; check_tree_test plants a small one.
  if (seeds(0).empty()) {
    CAF_MESSAGE("only with MEMKV_TEST_SEEDS");
    return;
  }
  constexpr std::uint64_t blocks = 125'000;
  engine::store_options options;
  options.unit_bytes = 4 << 10;
  options.sync = engine::sync_policy::always;
  options.eviction = false;
  std::unique_ptr<sim::sparse_device> device;
  CAF_REQUIRE(
      sim::open_sparse_device(std::uint64_t{2} << 30, options.unit_bytes, options.extent_bytes_max, device)
          .ok());
  test_clock time;
  std::unique_ptr<engine::drive_store> store;
  CAF_REQUIRE(engine::drive_store::open(*device, options, time, store).ok());
  const auto contents = [&] {
    std::vector<std::pair<engine::key_id, std::uint64_t>> generations;
    generations.reserve(blocks);
    auto& index = store->index();
    engine::key_id highest;
    highest.bytes.fill(std::byte{0xFF});
    index.visit({}, highest, [&](engine::entry_handle handle) {
      generations.emplace_back(index.at(handle).id, index.at(handle).generation);
    });
    return generations;
  };
  {
    sim::empty_puts puts(*store, options.extent_bytes_max, 1024);
    for (std::uint64_t number = 0; number < blocks; ++number)
      CAF_REQUIRE(puts.put(number, 4096));
    for (std::uint64_t number = 0; number < blocks; number += 50)
      CAF_REQUIRE(puts.put(number, 4096));
    CAF_REQUIRE(puts.finish());
    CAF_REQUIRE_EQUAL(puts.refused(), 0u);
  }
  const auto expected = contents();
  CAF_REQUIRE_EQUAL(expected.size(), blocks);
  CAF_REQUIRE(store->close().ok());
  store.reset();
  const auto inspect = [&](const std::function<void(engine::drive_io&, const engine::superblock&)>& what) {
    engine::drive_io io(*device);
    engine::superblock_pair pair;
    read_superblocks(io, device->information().size_bytes, pair);
    CAF_REQUIRE(pair.valid(0));
    what(io, pair.copies[0]);
  };
  std::size_t inner = 3;
  for (std::size_t number = 0; number <= inner; ++number) {
    std::vector<found_page> above;
    engine::aligned_bytes bytes(engine::tree_page_bytes);
    inspect([&](engine::drive_io& io, const engine::superblock& super) {
      CAF_REQUIRE_EQUAL(int{super.root_level}, 2);
      for (const auto& page : pages_of(super, [&](std::uint64_t offset, std::span<std::byte> to) {
             CAF_REQUIRE(io.read_now(offset, bytes.span()) == errc::ok);
             std::ranges::copy(bytes.span(), to.begin());
           }))
        if (page.level > 0)
          above.push_back(page);
      // One page each time, and at last all of those under the root: the root names their checksums.
      for (std::size_t i = 0; i < above.size(); ++i) {
        if (number != i && (number != above.size() || above[i].level == super.root_level))
          continue;
        const std::uint64_t at =
            super.places.tree_offset + std::uint64_t{above[i].reference.page} * engine::tree_page_bytes;
        CAF_REQUIRE(io.read_now(at, bytes.span()) == errc::ok);
        bytes.span()[500] ^= std::byte{1};
        CAF_REQUIRE(io.write_now(at, bytes.span()) == errc::ok);
      }
    });
    inner = above.size();
    const auto opened = engine::drive_store::open(*device, options, time, store);
    CAF_REQUIRE(opened.ok());
    CAF_CHECK_EQUAL(store->counters().bad_tree_pages, number == inner ? inner - 1 : 1);
    CAF_REQUIRE(contents() == expected);
    CAF_REQUIRE(store->close().ok());
    store.reset();
  }
  CAF_CHECK(inner >= 3);
}
