#define CAF_SUITE engine_extras
#include <caf/test/unit_test.hpp>

#include "engine/entry_extras.hpp"
#include "engine/part_order.hpp"
#include "test/unit/engine_leaves/support.hpp"

#include <list>
#include <map>

using namespace memkv;
using namespace memkv::engine;

namespace {

entry_record record_with(std::uint8_t flags, sim::random& chance) {
  entry_record record;
  record.flags = flags;
  for (auto& byte : record.head.bytes)
    byte = static_cast<std::byte>(chance.below(256));
  record.parts = static_cast<std::uint32_t>(2 + chance.below(1000));
  for (std::uint64_t i = 0, count = 2 + chance.below(63); i < count; ++i)
    record.runs.push_back({static_cast<std::uint32_t>(chance.below(1 << 30)),
                           static_cast<std::uint32_t>(1 + chance.below(60))});
  return record;
}

/// What is left for so many handles of which none has anything.
constexpr std::uint64_t empty_bytes(std::uint64_t handles) {
  return handles / 256 * 48 + 1024;
}

bool matches(const entry_extras& extras, entry_handle handle, const entry_record& record) {
  return ((record.flags & entry_part) == 0 || extras.head(handle) == record.head) &&
         ((record.flags & entry_striped) == 0 || extras.parts(handle) == record.parts) &&
         ((record.flags & entry_fragmented) == 0 || std::ranges::equal(extras.runs(handle), record.runs));
}

} // namespace

CAF_TEST(what was added for an entry is found until it is removed) {
  sim::random chance(1);
  entry_extras extras;
  std::map<entry_handle, entry_record> expected;
  constexpr std::uint8_t kinds[] = {entry_fragmented, entry_part, entry_striped,
                                    entry_part | entry_fragmented, entry_striped | entry_fragmented};
  for (int i = 0; i < 20'000; ++i) {
    const auto handle = static_cast<entry_handle>(chance.below(20'000));
    if (const auto found = expected.find(handle); found != expected.end()) {
      CAF_REQUIRE(matches(extras, handle, found->second));
      extras.remove(handle, found->second.flags);
      expected.erase(found);
      continue;
    }
    const auto record = record_with(kinds[chance.below(std::size(kinds))], chance);
    extras.add(handle, record);
    expected.emplace(handle, record);
  }
  CAF_REQUIRE(expected.size() > 1000);
  for (const auto& [handle, record] : expected) {
    CAF_REQUIRE(matches(extras, handle, record));
    extras.remove(handle, record.flags);
  }
  CAF_CHECK(extras.memory_bytes() < empty_bytes(20'000));
}

CAF_TEST(a part takes sixteen bytes and nothing stays of what nobody needs) {
  sim::random chance(2);
  entry_extras extras;
  const auto part = record_with(entry_part, chance);
  constexpr entry_handle many = 100'000;
  for (entry_handle handle = 0; handle < many; ++handle)
    extras.add(handle, part);
  CAF_CHECK(extras.memory_bytes() < many * std::uint64_t{17});
  for (entry_handle handle = 0; handle < many; ++handle)
    extras.remove(handle, entry_part);
  CAF_CHECK(extras.memory_bytes() < empty_bytes(many));
}

CAF_TEST(few parts among many others take little more than their ids) {
  sim::random chance(4);
  entry_extras extras;
  const auto part = record_with(entry_part, chance);
  constexpr std::uint64_t handles = 25'600;
  for (const std::uint64_t one_in : {100, 10, 4, 2}) {
    std::vector<entry_handle> used;
    for (entry_handle handle = 0; handle < handles; ++handle)
      if (chance.below(one_in) == 0)
        used.push_back(handle);
    for (const auto handle : used)
      extras.add(handle, part);
    // 17 bytes each, and for each 256 handles room for some more and the bookkeeping of it.
    CAF_CHECK_LESS(extras.memory_bytes(), used.size() * 17 + handles / 256 * (12 * 17 + 24 + 32));
    // Where all had one for a while and few are left it is the same.
    std::vector<entry_handle> others;
    for (entry_handle handle = 0; handle < handles; ++handle)
      if (!std::ranges::binary_search(used, handle))
        others.push_back(handle);
    for (const auto handle : others)
      extras.add(handle, part);
    CAF_CHECK_LESS(extras.memory_bytes(), handles * 17);
    for (const auto handle : others)
      extras.remove(handle, entry_part);
    CAF_CHECK_LESS(extras.memory_bytes(), used.size() * 17 + handles / 256 * (72 * 17 + 24 + 32));
    for (const auto handle : used)
      extras.remove(handle, entry_part);
    CAF_CHECK_LESS(extras.memory_bytes(), empty_bytes(handles));
  }
}

CAF_TEST(parts stand in the order in which they came) {
  sim::random chance(3);
  block_index index(1000);
  part_order order(index);
  std::list<entry_handle> expected;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    if (expected.size() < 100 || (expected.size() < 900 && chance.below(2) == 0)) {
      block_entry fields;
      for (auto& byte : fields.id.bytes)
        byte = static_cast<std::byte>(chance.below(256));
      fields.flags = entry_part;
      entry_handle made = no_entry, replaced = no_entry;
      CAF_REQUIRE(index.insert(fields, made, replaced) == errc::ok);
      order.add_youngest(made);
      expected.push_back(made);
    } else {
      const auto at = std::next(expected.begin(), static_cast<std::ptrdiff_t>(chance.below(expected.size())));
      order.remove(*at);
      index.unlink(*at);
      CAF_REQUIRE(index.retire(*at));
      index.free(*at);
      expected.erase(at);
    }
    if (i % 50 != 0)
      continue;
    std::list<entry_handle> found;
    for (entry_handle at = order.oldest(); at != no_entry; at = order.younger(at))
      found.push_back(at);
    CAF_REQUIRE(found == expected);
  }
}
