#define CAF_SUITE engine_index
#include <caf/test/unit_test.hpp>

#include "engine/ghost_list.hpp"
#include "engine/limits.hpp"
#include "test/unit/engine_leaves/support.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <new>
#include <thread>

// ThreadSanitizer brings its own operator new and lets nobody replace it.
#if defined(__SANITIZE_THREAD__)
#define MEMKV_ALLOCATION_IS_TAKEN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEMKV_ALLOCATION_IS_TAKEN
#endif
#endif

using namespace memkv;
using namespace memkv::engine;

namespace {

/// Allocations that may fail do so while this is true.
[[maybe_unused]] thread_local bool memory_is_short = false;

} // namespace

#ifndef MEMKV_ALLOCATION_IS_TAKEN
// The index asks for memory in the form that answers with nothing, so these two stand in its way.
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return memory_is_short ? nullptr : ::operator new[](size);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return memory_is_short ? nullptr : ::operator new(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return memory_is_short ? nullptr : ::operator new[](size, alignment);
}
#endif

namespace {

key_id least() {
  return {};
}

key_id greatest() {
  key_id id;
  id.bytes.fill(std::byte{0xFF});
  return id;
}

std::vector<key_id> visited(const block_index& index, const key_id& first, const key_id& last) {
  std::vector<key_id> ids;
  index.visit(first, last, [&](entry_handle handle) { ids.push_back(index.at(handle).id); });
  return ids;
}

} // namespace

CAF_TEST(an inserted block is found with what was said about it) {
  block_index index(100);
  block_entry fields;
  fields.id = id_of(1);
  fields.generation = 2;
  fields.put_id = 3;
  fields.value_length = 4;
  fields.first_unit = 5;
  fields.header_page = 6;
  fields.header_crc32c = 7;
  fields.flags = entry_striped;
  fields.units = 8;
  fields.previous = fields.next = 9;
  fields.state = 10;
  fields.recency = 11;
  entry_handle inserted = no_entry, replaced = 0;
  CAF_REQUIRE(index.insert(fields, inserted, replaced) == errc::ok);
  CAF_CHECK_EQUAL(replaced, no_entry);
  CAF_CHECK_EQUAL(index.find(id_of(1)), inserted);
  CAF_CHECK_EQUAL(index.size(), 1u);
  const block_entry& entry = index.at(inserted);
  CAF_CHECK(entry.id == id_of(1));
  CAF_CHECK_EQUAL(entry.generation, 2u);
  CAF_CHECK_EQUAL(entry.put_id, 3u);
  CAF_CHECK_EQUAL(entry.value_length, 4u);
  CAF_CHECK_EQUAL(entry.first_unit, 5u);
  CAF_CHECK_EQUAL(entry.header_page, 6u);
  CAF_CHECK_EQUAL(entry.header_crc32c, 7u);
  CAF_CHECK_EQUAL(static_cast<int>(entry.flags), static_cast<int>(entry_striped));
  CAF_CHECK_EQUAL(entry.units, 8u);
  // Links, pins and recency are the index's own.
  CAF_CHECK_EQUAL(entry.previous, no_entry);
  CAF_CHECK_EQUAL(entry.next, no_entry);
  CAF_CHECK_EQUAL(entry.state.load(), 0u);
  CAF_CHECK_EQUAL(static_cast<int>(entry.recency.load()), 0);
}

CAF_TEST(an empty index has nothing) {
  block_index index(100);
  std::uint32_t length = 0;
  std::uint64_t generation = 0;
  CAF_CHECK(!index.find_and_pin(id_of(1)));
  CAF_CHECK(!index.contains(id_of(1), length, generation, true));
  CAF_CHECK_EQUAL(index.find(id_of(1)), no_entry);
  CAF_CHECK(visited(index, least(), greatest()).empty());
}

CAF_TEST(a second insertion of an id hands back the first) {
  block_index index(100);
  const entry_handle first = put(index, id_of(1), 10);
  block_entry fields;
  fields.id = id_of(1);
  fields.value_length = 20;
  entry_handle inserted = no_entry, replaced = no_entry;
  CAF_REQUIRE(index.insert(fields, inserted, replaced) == errc::ok);
  CAF_CHECK_EQUAL(replaced, first);
  CAF_CHECK_NOT_EQUAL(inserted, first);
  CAF_CHECK_EQUAL(index.size(), 1u);
  CAF_CHECK_EQUAL(index.at(index.find(id_of(1))).value_length, 20u);
  CAF_CHECK(index.retire(replaced));
}

CAF_TEST(a hit sets the recency bit and asking sets it only on request) {
  block_index index(100);
  const entry_handle handle = put(index, id_of(1), 10);
  std::uint32_t length = 0;
  std::uint64_t generation = 0;
  CAF_CHECK(index.contains(id_of(1), length, generation, false));
  CAF_CHECK_EQUAL(length, 10u);
  CAF_CHECK_EQUAL(generation, 10u);
  CAF_CHECK_EQUAL(index.at(handle).recency.load() & recency_touched, 0);
  CAF_CHECK(index.contains(id_of(1), length, generation, true));
  CAF_CHECK_EQUAL(index.at(handle).recency.load() & recency_touched, recency_touched);
  index.at(handle).recency = recency_protected;
  { const block_pin pin = index.find_and_pin(id_of(1)); }
  CAF_CHECK_EQUAL(index.at(handle).recency.load(), recency_touched | recency_protected);
}

CAF_TEST(an unpinned block is free at once and a pinned one when its last pin goes) {
  block_index index(100);
  std::vector<entry_handle> reclaimed;
  index.set_reclaim_hook([&](entry_handle handle) { reclaimed.push_back(handle); });
  const entry_handle alone = put(index, id_of(1));
  index.unlink(alone);
  CAF_CHECK(index.retire(alone));
  index.free(alone);

  const entry_handle held = put(index, id_of(2), 77);
  block_pin one = index.find_and_pin(id_of(2));
  block_pin other = index.find_and_pin(id_of(2));
  CAF_REQUIRE(one && other);
  CAF_CHECK_EQUAL(one.handle(), held);
  index.unlink(held);
  CAF_CHECK(!index.retire(held));
  CAF_CHECK(!index.find_and_pin(id_of(2)));
  one.release();
  CAF_CHECK(reclaimed.empty());
  CAF_CHECK_EQUAL(other->value_length, 77u);
  block_pin moved = std::move(other);
  CAF_CHECK(!other);
  moved = block_pin();
  CAF_REQUIRE_EQUAL(reclaimed.size(), 1u);
  CAF_CHECK_EQUAL(reclaimed.front(), held);
  index.free(held);
}

CAF_TEST(a replaced block stays readable through its pin) {
  block_index index(100);
  put(index, id_of(1), 10);
  const block_pin pin = index.find_and_pin(id_of(1));
  put(index, id_of(1), 20);
  CAF_CHECK_EQUAL(pin->value_length, 10u);
  CAF_CHECK_EQUAL(index.find_and_pin(id_of(1))->value_length, 20u);
}

CAF_TEST(more blocks than agreed are refused and room returns when one goes) {
  block_index index(3);
  for (std::uint64_t i = 0; i < 3; ++i)
    CAF_REQUIRE(put(index, id_of(i)) != no_entry);
  CAF_CHECK_EQUAL(put(index, id_of(3)), no_entry);
  CAF_CHECK_EQUAL(index.size(), 3u);
  remove(index, index.find(id_of(1)));
  CAF_CHECK_NOT_EQUAL(put(index, id_of(3)), no_entry);
  CAF_CHECK_EQUAL(index.size(), 3u);
}

#ifndef MEMKV_ALLOCATION_IS_TAKEN
CAF_TEST(without memory insertions are refused and what is there stays) {
  block_index index(100000);
  ghost_list ghosts;
  memory_is_short = true;
  CAF_CHECK_EQUAL(put(index, id_of(0)), no_entry);
  ghosts.remember(id_of(0), 1000);
  memory_is_short = false;
  CAF_CHECK_EQUAL(index.size(), 0u);
  CAF_CHECK_EQUAL(ghosts.memory_bytes(), 0u);
  std::uint64_t present = 0;
  std::uint64_t refused = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    memory_is_short = i % 16 != 0;
    if (put(index, id_of(i)) != no_entry)
      ++present;
    else
      ++refused;
    memory_is_short = false;
    CAF_REQUIRE_EQUAL(index.size(), present);
  }
  CAF_CHECK_GREATER(refused, 0u);
  CAF_CHECK_EQUAL(visited(index, least(), greatest()).size(), present);
}
#endif

CAF_TEST(random insertions and removals agree with an ordered map) {
  const std::uint64_t seed = test_seed(1);
  CAF_MESSAGE("seed " << seed);
  sim::random chance(seed);
  block_index index(100000);
  std::map<key_id, std::uint32_t> expected;
  for (int step = 0; step < 60000; ++step) {
    // Half of the ids crowd in one corner of one shard, so that rows grow, shift and spill over the end.
    const std::uint64_t number = chance.below(4000);
    const key_id id = number % 2 == 0 ? id_of(number) : id_from(0xFFFFFFFFFFFFFF00 | number >> 8, number);
    if (chance.below(100) < 55) {
      const auto length = static_cast<std::uint32_t>(chance.below(1000));
      if (put(index, id, length) == no_entry)
        CAF_FAIL("an insertion was refused, seed " << seed);
      expected[id] = length;
    } else if (const entry_handle handle = index.find(id); handle != no_entry) {
      remove(index, handle);
      expected.erase(id);
    }
    if (index.size() != expected.size())
      CAF_FAIL("sizes differ at step " << step << ", seed " << seed);
    if (step % 2000 != 0)
      continue;
    key_id first = id_of(chance.next());
    key_id last = chance.below(2) == 0 ? greatest() : id_of(chance.next());
    if (chance.below(4) == 0)
      first = least();
    if (last < first)
      std::swap(first, last);
    std::vector<key_id> ids;
    for (auto at = expected.lower_bound(first); at != expected.end() && at->first <= last; ++at)
      ids.push_back(at->first);
    if (visited(index, first, last) != ids)
      CAF_FAIL("a range differs at step " << step << ", seed " << seed);
    for (const auto& [known, length] : expected) {
      const entry_handle handle = index.find(known);
      if (handle == no_entry || index.at(handle).value_length != length)
        CAF_FAIL("a block is missing or wrong at step " << step << ", seed " << seed);
    }
  }
  CAF_CHECK(visited(index, greatest(), least()).empty());
}

CAF_TEST(ids ground to share their leading bits are refused instead of slowing everybody) {
  block_index index(100000);
  // All on one position, in descending order: each insertion moves all others.
  std::uint32_t taken = 0;
  while (taken < 20000 && put(index, id_from(0x4242424242424242, 100000 - taken)) != no_entry)
    ++taken;
  CAF_CHECK_LESS_OR_EQUAL(taken, limits::probe_max + 1);
  CAF_CHECK_GREATER_OR_EQUAL(taken, limits::probe_max / 2);
  for (std::uint32_t i = 0; i < taken; ++i)
    CAF_REQUIRE(index.find(id_from(0x4242424242424242, 100000 - i)) != no_entry);
  for (std::uint64_t i = 0; i < 10000; ++i)
    CAF_REQUIRE(put(index, id_of(i)) != no_entry);
}

CAF_TEST(millions of ids in ascending order find room once the tables are made for them) {
  // As a tree is read: each shard gets so many that growing tables would have them stand in a row too long.
  constexpr std::uint64_t a_shard = 40'000;
  constexpr std::uint64_t shards_used = 2;
  block_index index(1U << 24);
  index.reserve(a_shard * limits::index_shards);
  const std::uint64_t before = index.memory_bytes();
  const std::uint64_t step = (std::uint64_t{1} << 56) / a_shard;
  for (std::uint64_t number = 0; number < shards_used * a_shard; ++number) {
    const std::uint64_t rank = (number / a_shard << 56) + number % a_shard * step;
    if (put(index, id_from(rank, number)) == no_entry)
      CAF_FAIL("block " << number << " was refused");
  }
  CAF_CHECK_EQUAL(index.size(), shards_used * a_shard);
  // No table grew: only slabs were added.
  const std::uint64_t slabs = (shards_used * a_shard + limits::slab_entries - 1) / limits::slab_entries;
  CAF_CHECK_EQUAL(index.memory_bytes() - before, slabs * limits::slab_entries * limits::entry_bytes);
  for (std::uint64_t number = 0; number < shards_used * a_shard; number += 97)
    CAF_REQUIRE(index.find(id_from((number / a_shard << 56) + number % a_shard * step, number)) != no_entry);
}

CAF_TEST(memory stays within its limit for each million blocks with ghosts) {
  // The worst moment: tables have just doubled.
  constexpr std::uint64_t million = 1000000;
  block_index index(4 * million);
  ghost_list ghosts;
  double worst = 0;
  for (std::uint64_t i = 0; i < 2 * million; ++i) {
    CAF_REQUIRE(put(index, id_of(i)) != no_entry);
    ghosts.remember(id_of(~i), index.size());
    if (i < 100000 || i % 1000 != 0)
      continue;
    const auto bytes = static_cast<double>(index.memory_bytes() + ghosts.memory_bytes());
    worst = std::max(worst, bytes / static_cast<double>(index.size()));
  }
  CAF_MESSAGE("at most " << worst << " bytes a block");
  CAF_CHECK_LESS_OR_EQUAL(worst * million, static_cast<double>(limits::memory_bytes_per_million_blocks));
  CAF_CHECK_GREATER(index.memory_bytes(), 2 * million * limits::entry_bytes);
}

CAF_TEST(threads that pin and release while one writes never see a block that is not theirs) {
  const std::uint64_t seed = test_seed(2);
  CAF_MESSAGE("seed " << seed);
  constexpr std::uint64_t blocks = 500;
  block_index index(4 * blocks);
  std::mutex lock;
  std::vector<entry_handle> dead;
  index.set_reclaim_hook([&](entry_handle handle) {
    const std::lock_guard guard(lock);
    dead.push_back(handle);
  });
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0}, hits{0};
  std::vector<std::thread> readers;
  for (std::uint64_t reader = 0; reader < 3; ++reader)
    readers.emplace_back([&, reader] {
      sim::random chance(seed + 100 + reader);
      std::vector<block_pin> held;
      while (!stop.load(std::memory_order_relaxed)) {
        const std::uint64_t number = chance.below(blocks);
        const key_id id = id_of(number);
        std::uint32_t length = 0;
        std::uint64_t generation = 0;
        if (index.contains(id, length, generation, chance.below(2) == 0) && generation != length)
          ++wrong;
        if (block_pin pin = index.find_and_pin(id)) {
          ++hits;
          held.push_back(std::move(pin));
          // A writer marks what it frees with a length of zero.
          for (const block_pin& one : held)
            if (one->value_length == 0 || one->value_length != one->generation)
              ++wrong;
          if (held.back()->id != id)
            ++wrong;
        }
        if (held.size() > 8)
          held.erase(held.begin() + static_cast<std::ptrdiff_t>(chance.below(held.size())));
        if (chance.below(64) == 0)
          held.clear();
      }
    });
  sim::random chance(seed);
  const auto bury = [&](entry_handle handle) {
    index.at(handle).value_length = 0;
    index.free(handle);
  };
  // Until the readers have met enough, however the threads were scheduled.
  for (std::uint64_t step = 0; step < 100000 || (hits.load() < 20000 && step < 100000000); ++step) {
    const key_id id = id_of(chance.below(blocks));
    block_entry fields;
    fields.id = id;
    fields.value_length = static_cast<std::uint32_t>(1 + chance.below(1000));
    fields.generation = fields.value_length;
    entry_handle gone = no_entry;
    if (chance.below(3) != 0) {
      entry_handle inserted = no_entry;
      // Busy is possible while readers hold on to dead blocks.
      static_cast<void>(index.insert(fields, inserted, gone));
    } else {
      gone = index.find(id);
      if (gone != no_entry)
        index.unlink(gone);
    }
    if (gone != no_entry && index.retire(gone))
      bury(gone);
    const std::lock_guard guard(lock);
    for (const entry_handle handle : dead)
      bury(handle);
    dead.clear();
  }
  stop = true;
  for (std::thread& reader : readers)
    reader.join();
  for (const entry_handle handle : dead)
    bury(handle);
  CAF_CHECK_EQUAL(wrong.load(), 0u);
  CAF_CHECK_GREATER_OR_EQUAL(hits.load(), 20000u);
}
