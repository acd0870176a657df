#define CAF_SUITE engine_eviction
#include <caf/test/unit_test.hpp>

#include "engine/eviction.hpp"
#include "engine/limits.hpp"
#include "test/sim/cache_replay.hpp"
#include "test/unit/engine_leaves/support.hpp"

#include <deque>
#include <map>
#include <optional>
#include <set>

using namespace memkv;
using namespace memkv::engine;

namespace {

constexpr eviction_kind kinds[] = {eviction_kind::fifo, eviction_kind::lru, eviction_kind::sieve,
                                   eviction_kind::slru};

/// An index under an eviction order, with blocks named by numbers.
struct cache {
  block_index index{100000};
  std::unique_ptr<eviction_policy> policy;

  explicit cache(eviction_kind kind, std::uint64_t capacity_blocks = 100) {
    policy = make_eviction_policy(
        index, {.kind = kind, .capacity_bytes = capacity_blocks * 4096, .unit_bytes = 4096});
  }
  entry_handle store(std::uint64_t number, std::uint16_t units = 1, std::uint8_t flags = 0) {
    const entry_handle handle = put(index, id_of(number), static_cast<std::uint32_t>(number), units, flags);
    policy->inserted(handle);
    return handle;
  }
  void hit(std::uint64_t number) { CAF_REQUIRE(index.find_and_pin(id_of(number))); }
  [[nodiscard]] bool has(std::uint64_t number) const { return index.find(id_of(number)) != no_entry; }
  /// Evicts one; says which.
  std::optional<std::uint32_t> evict() {
    const entry_handle handle = policy->victim();
    if (handle == no_entry)
      return std::nullopt;
    const std::uint32_t number = index.at(handle).value_length;
    policy->evicted(handle);
    remove(index, handle);
    return number;
  }
  std::vector<std::uint32_t> evict_all() {
    std::vector<std::uint32_t> order;
    while (const auto number = evict())
      order.push_back(*number);
    return order;
  }
};

using numbers = std::vector<std::uint32_t>;

} // namespace

CAF_TEST(policies are found by name and name themselves) {
  for (const eviction_kind kind : kinds)
    CAF_CHECK(eviction_kind_from_name(name(kind)) == kind);
  CAF_CHECK(!eviction_kind_from_name("clock"));
  CAF_CHECK(!eviction_kind_from_name(""));
}

CAF_TEST(without hits every order evicts the oldest first) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind);
    CAF_CHECK(!blocks.evict());
    for (std::uint64_t i = 1; i <= 5; ++i)
      blocks.store(i);
    CAF_CHECK_EQUAL(blocks.evict_all(), numbers({1, 2, 3, 4, 5}));
    CAF_CHECK(!blocks.evict());
    CAF_CHECK_EQUAL(blocks.policy->statistics().entries, 0u);
    CAF_CHECK_EQUAL(blocks.policy->statistics().bytes, 0u);
  }
}

CAF_TEST(a block that was hit goes after those that were not) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind);
    for (std::uint64_t i = 1; i <= 4; ++i)
      blocks.store(i);
    blocks.hit(1);
    blocks.hit(3);
    const numbers expected = kind == eviction_kind::fifo ? numbers{1, 2, 3, 4} : numbers{2, 4, 1, 3};
    CAF_CHECK_EQUAL(blocks.evict_all(), expected);
  }
}

CAF_TEST(exact recency orders by the last hit) {
  cache blocks(eviction_kind::lru);
  for (std::uint64_t i = 1; i <= 4; ++i)
    blocks.store(i);
  blocks.policy->touched(blocks.index.find(id_of(3)));
  blocks.policy->touched(blocks.index.find(id_of(1)));
  CAF_CHECK_EQUAL(blocks.evict_all(), numbers({2, 4, 3, 1}));
}

CAF_TEST(a pinned block is passed over and goes when it is released) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind);
    for (std::uint64_t i = 1; i <= 3; ++i)
      blocks.store(i);
    block_pin first = blocks.index.find_and_pin(id_of(1));
    block_pin third = blocks.index.find_and_pin(id_of(3));
    CAF_CHECK_EQUAL(blocks.evict_all(), numbers({2}));
    CAF_CHECK(blocks.has(1) && blocks.has(3));
    CAF_CHECK_GREATER(blocks.policy->statistics().skipped, 0u);
    first.release();
    CAF_CHECK_EQUAL(blocks.evict_all(), numbers({1}));
    third.release();
    CAF_CHECK_EQUAL(blocks.evict_all(), numbers({3}));
  }
}

CAF_TEST(a segment full of pinned blocks does not hide evictable ones in the other) {
  cache blocks(eviction_kind::slru, 20);
  std::vector<block_pin> pins;
  for (std::uint64_t i = 1; i <= 10; ++i)
    blocks.store(i);
  for (std::uint64_t i = 1; i <= 5; ++i)
    blocks.policy->touched(blocks.index.find(id_of(i)));
  for (std::uint64_t i = 6; i <= 10; ++i)
    pins.push_back(blocks.index.find_and_pin(id_of(i)));
  std::set<std::uint32_t> gone;
  for (int i = 0; i < 5; ++i) {
    const auto one = blocks.evict();
    CAF_REQUIRE(one);
    gone.insert(*one);
  }
  CAF_CHECK(gone == std::set<std::uint32_t>({1, 2, 3, 4, 5}));
  CAF_CHECK(!blocks.evict());
}

CAF_TEST(a search among pinned blocks is bounded) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind, 40000);
    std::vector<block_pin> pins;
    for (std::uint64_t i = 1; i <= 20000; ++i) {
      blocks.store(i);
      pins.push_back(blocks.index.find_and_pin(id_of(i)));
    }
    const std::uint64_t before = blocks.policy->statistics().looked_at;
    CAF_CHECK(!blocks.evict());
    // Each may be looked at once more because its hit moves it first.
    CAF_CHECK_LESS_OR_EQUAL(blocks.policy->statistics().looked_at - before,
                            2 * limits::eviction_scan_max + 2);
  }
}

CAF_TEST(parts of striped blocks are never victims and their heads are) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind);
    blocks.store(1, 1, entry_part);
    blocks.store(2, 1, entry_striped);
    blocks.store(3, 1, entry_part);
    CAF_CHECK_EQUAL(blocks.evict_all(), numbers({2}));
    blocks.policy->removed(blocks.index.find(id_of(1)));
    CAF_CHECK(blocks.has(1) && blocks.has(3));
  }
}

CAF_TEST(a removed block leaves every order once and a second removal is harmless) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind);
    for (std::uint64_t i = 1; i <= 5; ++i)
      blocks.store(i);
    for (const std::uint64_t i : {1, 3, 5}) {
      const entry_handle handle = blocks.index.find(id_of(i));
      blocks.policy->removed(handle);
      blocks.policy->removed(handle);
      remove(blocks.index, handle);
    }
    CAF_CHECK_EQUAL(blocks.evict_all(), numbers({2, 4}));
  }
}

CAF_TEST(a replacement stands where the old block stood and counts as hit) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind);
    for (std::uint64_t i = 1; i <= 3; ++i)
      blocks.store(i);
    block_entry fields;
    fields.id = id_of(1);
    fields.value_length = 11;
    fields.units = 7;
    entry_handle newer = no_entry, older = no_entry;
    CAF_REQUIRE(blocks.index.insert(fields, newer, older) == errc::ok);
    blocks.policy->replaced(older, newer);
    CAF_REQUIRE(blocks.index.retire(older));
    blocks.index.free(older);
    CAF_CHECK_EQUAL(blocks.policy->statistics().bytes, 9u * 4096);
    const numbers expected = kind == eviction_kind::fifo ? numbers{11, 2, 3} : numbers{2, 3, 11};
    CAF_CHECK_EQUAL(blocks.evict_all(), expected);
  }
}

CAF_TEST(a block that comes back soon after its eviction is protected) {
  cache blocks(eviction_kind::slru, 10);
  for (std::uint64_t i = 1; i <= 10; ++i)
    blocks.store(i);
  CAF_CHECK(blocks.evict() == 1u);
  blocks.store(1);
  CAF_CHECK_EQUAL(blocks.policy->statistics().ghost_hits, 1u);
  CAF_CHECK_EQUAL(blocks.policy->statistics().protected_entries, 1u);
  for (std::uint64_t i = 11; i <= 30; ++i) {
    CAF_CHECK(blocks.evict() != 1u);
    blocks.store(i);
  }
  CAF_CHECK(blocks.has(1));
}

CAF_TEST(a hit is noticed long before its block is the oldest) {
  cache blocks(eviction_kind::slru, 1000);
  for (std::uint64_t i = 0; i < 100; ++i)
    blocks.store(i);
  blocks.hit(99);
  for (std::uint64_t i = 100; i < 200; ++i)
    blocks.store(i);
  CAF_CHECK_EQUAL(blocks.policy->statistics().protected_entries, 1u);
  CAF_CHECK(blocks.evict() == 0u);
}

CAF_TEST(the protected half is measured in bytes) {
  cache blocks(eviction_kind::slru, 100); // 50 units protected
  for (std::uint64_t i = 1; i <= 10; ++i)
    blocks.store(i, 20);
  for (std::uint64_t i = 1; i <= 10; ++i)
    blocks.policy->touched(blocks.index.find(id_of(i)));
  CAF_CHECK_EQUAL(blocks.policy->statistics().protected_entries, 2u);
  CAF_CHECK_EQUAL(blocks.policy->statistics().protected_bytes, 40u * 4096);
  CAF_CHECK_EQUAL(blocks.policy->statistics().bytes, 200u * 4096);
}

CAF_TEST(evicting costs no more than what the hits before it earned) {
  for (const eviction_kind kind : kinds) {
    cache blocks(kind, 10000);
    const std::uint64_t seed = test_seed(5);
    sim::random chance(seed);
    std::uint64_t next = 0, hits = 0, victims = 0;
    for (; next < 10000; ++next)
      blocks.store(next);
    for (int step = 0; step < 50000; ++step) {
      const std::uint64_t number = next - 1 - chance.below(12000) % next;
      if (blocks.has(number)) {
        blocks.hit(number);
        ++hits;
      } else {
        CAF_REQUIRE(blocks.evict());
        ++victims;
        blocks.store(next++);
      }
    }
    CAF_CHECK_LESS_OR_EQUAL(blocks.policy->statistics().looked_at, victims + hits);
    CAF_CHECK_LESS_OR_EQUAL(blocks.policy->statistics().looked_ahead, 4 * next);
  }
}

CAF_TEST(random operations keep every order whole) {
  const std::uint64_t seed = test_seed(6);
  CAF_MESSAGE("seed " << seed);
  for (const eviction_kind kind : kinds) {
    sim::random chance(seed);
    cache blocks(kind, 60);
    std::map<std::uint64_t, std::uint16_t> present;
    std::vector<block_pin> pins;
    for (int step = 0; step < 20000; ++step) {
      const std::uint64_t number = chance.below(100);
      const entry_handle handle = blocks.index.find(id_of(number));
      switch (chance.below(7)) {
      case 0:
      case 1:
        if (handle == no_entry) {
          const auto units = static_cast<std::uint16_t>(1 + chance.below(3));
          blocks.store(number, units);
          present[number] = units;
        }
        break;
      case 2:
        if (handle != no_entry) {
          blocks.policy->removed(handle);
          blocks.index.unlink(handle);
          if (blocks.index.retire(handle))
            blocks.index.free(handle);
          present.erase(number);
        }
        break;
      case 3:
        if (block_pin pin = blocks.index.find_and_pin(id_of(number)); pin && chance.below(4) == 0)
          pins.push_back(std::move(pin));
        if (pins.size() > 5)
          pins.clear();
        break;
      case 4:
        if (handle != no_entry)
          blocks.policy->touched(handle);
        break;
      case 5:
        if (handle != no_entry) {
          block_entry fields;
          fields.id = id_of(number);
          fields.value_length = static_cast<std::uint32_t>(number);
          fields.units = static_cast<std::uint16_t>(1 + chance.below(3));
          entry_handle newer = no_entry, older = no_entry;
          CAF_REQUIRE(blocks.index.insert(fields, newer, older) == errc::ok);
          blocks.policy->replaced(older, newer);
          present[number] = fields.units;
          // Freed handles come back at once, so whoever still remembers the old one is found out.
          if (blocks.index.retire(older))
            blocks.index.free(older);
        }
        break;
      default:
        if (const entry_handle victim = blocks.policy->victim(); victim != no_entry) {
          CAF_REQUIRE_EQUAL(blocks.index.at(victim).state.load(), 0u);
          present.erase(*blocks.evict());
        } else if (present.size() > pins.size()) {
          CAF_FAIL("nothing to evict among " << present.size() << ", seed " << seed);
        }
      }
      std::uint64_t units = 0;
      for (const auto& [known, weight] : present)
        units += weight;
      const eviction_statistics now = blocks.policy->statistics();
      if (now.entries != present.size() || now.bytes != units * 4096)
        CAF_FAIL("sums differ at step " << step << ", seed " << seed);
    }
    pins.clear();
    CAF_CHECK_EQUAL(blocks.evict_all().size(), present.size());
  }
}

CAF_TEST(ghosts are remembered four times as long as blocks are held and then forgotten) {
  ghost_list ghosts;
  constexpr std::uint64_t held = 10000;
  for (std::uint64_t i = 0; i < 100000; ++i)
    ghosts.remember(id_of(i), held);
  CAF_CHECK_LESS_OR_EQUAL(ghosts.memory_bytes(), held * limits::ghost_bytes_per_block);
  const auto known = [&](std::uint64_t first, std::uint64_t last) {
    std::uint64_t count = 0;
    for (std::uint64_t i = first; i < last; ++i)
      count += ghosts.take(id_of(i));
    return count;
  };
  // The rings of the buckets do not turn in step, so the end is soft.
  CAF_CHECK_GREATER(known(80000, 100000), 19800u);
  CAF_CHECK_LESS(known(0, 40000), 400u);
  // Taken is forgotten.
  CAF_CHECK_LESS(known(80000, 100000), 200u);
  ghosts.clear();
  CAF_CHECK_EQUAL(ghosts.memory_bytes(), 0u);
  CAF_CHECK(!ghosts.take(id_of(1)));
}

CAF_TEST(a ghost list that grows keeps what it knew) {
  ghost_list ghosts;
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    ghosts.remember(id_of(i), 10 + i);
    if (i >= 10)
      found += ghosts.take(id_of(i - 10));
    CAF_REQUIRE(ghosts.memory_bytes() <= 64 + (10 + i) * limits::ghost_bytes_per_block);
  }
  CAF_CHECK_GREATER(found, 4900u);

  ghost_list other;
  for (std::uint64_t i = 0; i < 1000; ++i)
    other.remember(id_of(i), 250);
  const std::uint64_t before = other.memory_bytes();
  other.remember(id_of(1000), 2000);
  CAF_CHECK_GREATER(other.memory_bytes(), 4 * before);
  found = 0;
  for (std::uint64_t i = 0; i < 1000; ++i)
    found += other.take(id_of(i));
  CAF_CHECK_GREATER(found, 850u);
}

CAF_TEST(a replay of fifo and exact lru counts what plain lists count) {
  const std::uint64_t seed = test_seed(7);
  CAF_MESSAGE("seed " << seed);
  for (const bool moves : {false, true}) {
    sim::random chance(seed);
    sim::cache_replay replay(moves ? eviction_kind::lru : eviction_kind::fifo, 300, true);
    std::deque<std::uint64_t> order; // newest in front
    std::uint64_t hits = 0;
    const auto touch = [&](std::uint64_t block) {
      const auto found = std::find(order.begin(), order.end(), block);
      if (found == order.end())
        return false;
      if (moves) {
        order.erase(found);
        order.push_front(block);
      }
      return true;
    };
    for (int i = 0; i < 2000; ++i) {
      // Chains share beginnings, as conversations do.
      std::vector<std::uint64_t> chain;
      std::uint64_t block = chance.below(20);
      for (std::uint64_t length = 1 + chance.below(12); length > 0; --length) {
        chain.push_back(block);
        block = block * 31 + 1 + chance.below(2);
      }
      replay.request(chain);
      std::size_t at = 0;
      while (at < chain.size() && touch(chain[at]))
        ++at;
      hits += at;
      for (; at < chain.size(); ++at)
        if (!touch(chain[at])) {
          if (order.size() == 300)
            order.pop_back();
          order.push_front(chain[at]);
        }
    }
    CAF_CHECK_EQUAL(replay.result().hits, hits);
    CAF_CHECK_EQUAL(replay.result().requests, 2000u);
    CAF_CHECK_EQUAL(replay.result().stored - replay.result().evicted, order.size());
  }
}
