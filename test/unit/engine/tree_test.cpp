// The tree's checkpoints when its region has room for a part of what changed: what they publish, with the
// journal from its tail on, is what there is.
#define CAF_SUITE tree_checkpoints

#include "engine/drive_io.hpp"
#include "engine/tree.hpp"
#include "test/sim/random.hpp"
#include "wire/bytes.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

using namespace memkv;
using namespace memkv::engine;

namespace {

using contents = std::map<key_id, std::uint64_t>; // generation of each id

key_id id_from(std::uint64_t value) {
  key_id id;
  sim::random more(value);
  wire::store_le(id.bytes.data(), more.next());
  wire::store_le(id.bytes.data() + 8, more.next());
  return id;
}

entry_record record_of(const key_id& id, std::uint64_t generation) {
  entry_record record;
  record.kind = record_kind::put;
  record.id = id;
  record.generation = generation;
  return record;
}

/// A tree, the blocks it stands for, its pages on the drive and its journal.
class run_of_tree {
public:
  explicit run_of_tree(std::uint32_t tree_pages)
      : pages_(tree_pages), places_(layout_of(tree_pages)),
        tree_(places_, format,
              [this](const key_id& first, const key_id& last, const tree::record_visitor& visitor) {
                for (auto at = blocks.lower_bound(first); at != blocks.end() && at->first <= last; ++at)
                  visitor(record_of(at->first, at->second));
              }) {}

  void put(const key_id& id) {
    const bool there = blocks.contains(id);
    blocks[id] = applied;
    log_.emplace_back(applied, id, true);
    tree_.note_change(id, there ? 0 : static_cast<std::int64_t>(entry_record_bytes), applied);
  }
  void erase(const key_id& id) {
    if (blocks.erase(id) == 0)
      return;
    log_.emplace_back(applied, id, false);
    tree_.note_change(id, -static_cast<std::int64_t>(entry_record_bytes), applied);
  }

  /// A checkpoint, with `between` called before each of its steps: the store goes on meanwhile.
  template <class Function>
  void checkpoint(Function&& between) {
    const std::uint64_t applied_before = applied;
    tree_.begin_checkpoint(applied);
    auto progress = tree::progress::more;
    while (progress == tree::progress::more) {
      between();
      progress = tree_.step(applied, [&](std::uint32_t page) {
        ++written;
        pages_.at(page).assign(tree_page_bytes, std::byte{0});
        return std::span<std::byte>(pages_[page]);
      });
    }
    CAF_REQUIRE(progress == tree::progress::complete);
    root_ = tree_.root();
    root_level_ = tree_.root_level();
    tail_ = tree_.tail(applied + 1);
    tree_.finish_checkpoint();
    std::erase_if(log_, [&](const change& one) { return std::get<0>(one) < tail_; });
    partial += tail_ <= applied_before ? 1 : 0;
  }

  /// What a start would find.
  [[nodiscard]] contents recovered() const {
    contents found;
    std::vector<std::pair<key_id, std::uint64_t>> leaves; // first id, journal sequence
    if (root_.page != no_tree_page)
      read(root_level_, {key_id{}, root_}, found, leaves);
    for (const auto& [batch, id, is_put] : log_) {
      const auto leaf = std::find_if(leaves.rbegin(), leaves.rend(),
                                     [&id = id](const auto& one) { return one.first <= id; });
      if (leaf != leaves.rend() && leaf->second >= batch)
        continue;
      if (is_put)
        found[id] = batch;
      else
        found.erase(id);
    }
    return found;
  }

  contents blocks;
  std::uint64_t applied = 0; // batch
  std::uint64_t written = 0;
  int partial = 0;

  [[nodiscard]] std::size_t leaf_count() const { return tree_.leaf_count(); }

private:
  using change = std::tuple<std::uint64_t, key_id, bool>;
  static constexpr identity format{std::byte{1}};

  static layout layout_of(std::uint32_t tree_pages) {
    layout places;
    CAF_REQUIRE(compute_layout(std::uint64_t{64} << 30, 64 << 10, 4 << 20, places).ok());
    places.tree_pages = tree_pages;
    return places;
  }

  void read(std::uint8_t level, const tree_child& child, contents& found,
            std::vector<std::pair<key_id, std::uint64_t>>& leaves) const {
    tree_page page;
    const auto& bytes = pages_.at(child.reference.page);
    if (decode(bytes, format, child.reference.page, places_, page) != errc::ok ||
        !is_meant(bytes, page, child.reference) || page.header.level != level ||
        page.header.first != child.first)
      CAF_FAIL("a page that is named is not the one that is meant");
    if (level == 0)
      leaves.emplace_back(child.first, page.header.journal_sequence);
    for (const entry_record& record : page.entries)
      if (!found.emplace(record.id, record.generation).second)
        CAF_FAIL("two leaves hold one id");
    for (const tree_child& below : page.children)
      read(static_cast<std::uint8_t>(level - 1), below, found, leaves);
  }

  std::vector<std::vector<std::byte>> pages_;
  layout places_;
  std::vector<change> log_;
  tree_reference root_;
  std::uint8_t root_level_ = 0;
  std::uint64_t tail_ = 1;
  tree tree_;
};

std::uint64_t seed_of_test() {
  const char* text = std::getenv("MEMKV_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
}

} // namespace

CAF_TEST(checkpoints that write a part of the dirty leaves publish what is whole with the journal) {
  const std::uint64_t seed = seed_of_test();
  CAF_MESSAGE("MEMKV_TEST_SEED=" << seed);
  sim::random chance(seed);
  // Some 100 leaves, and free pages for a part of that.
  constexpr std::uint64_t ids = 20'000;
  run_of_tree run(160);
  const auto batch = [&](int changes, double erased) {
    ++run.applied;
    for (int i = 0; i < changes; ++i) {
      const key_id id = id_from(chance.below(ids));
      if (chance.chance(erased))
        run.erase(id);
      else
        run.put(id);
    }
  };
  for (int round = 0; round < 150; ++round) {
    // Grows, then shrinks, then grows again.
    const double erased = round / 50 == 1 ? 0.8 : 0.1;
    for (int i = 0; i < 20; ++i)
      batch(15, erased);
    run.checkpoint([&] {
      if (chance.below(4) == 0)
        batch(5, erased);
    });
    if (run.recovered() != run.blocks)
      CAF_FAIL("round " << round << " publishes something else");
  }
  CAF_MESSAGE(run.blocks.size() << " blocks in " << run.leaf_count() << " leaves, " << run.partial
                                << " partial checkpoints, " << run.written << " pages");
  CAF_CHECK_GREATER(run.partial, 50);
}

CAF_TEST(a first checkpoint divides one leaf into as many as it needs) {
  run_of_tree run(1000);
  for (std::uint64_t number = 0; number < 60'000; ++number) {
    run.applied = 1 + number / 1000;
    run.put(id_from(number));
  }
  run.checkpoint([] {});
  CAF_CHECK(run.recovered() == run.blocks);
  CAF_CHECK_EQUAL(run.partial, 0);
  // Not one of them less than half full.
  CAF_CHECK_LESS_OR_EQUAL(run.leaf_count(), 60'000 * entry_record_bytes * 2 / tree_payload_bytes + 1);
}
