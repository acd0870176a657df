#include "test/sim/cache_replay.hpp"

#include "wire/assert.hpp"

namespace memkv::sim {

using namespace memkv::engine;

namespace {

/// Spreads numbers over all ids, one to one: the id's two halves are both mixed.
std::uint64_t mixed(std::uint64_t value) noexcept {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
  value = (value ^ value >> 27) * 0x94D049BB133111EB;
  return value ^ value >> 31;
}

key_id make_id(std::uint64_t block) noexcept {
  key_id id;
  wire::store_le(id.bytes.data(), mixed(block));
  wire::store_le(id.bytes.data() + 8, mixed(~block));
  return id;
}

} // namespace

struct cache_replay::implementation {
  implementation(eviction_kind kind, std::uint64_t capacity_blocks, bool exactly)
      : capacity(capacity_blocks), exact(exactly), index(static_cast<std::uint32_t>(capacity_blocks)),
        policy(make_eviction_policy(
            index, {.kind = kind, .capacity_bytes = capacity_blocks * 4096, .unit_bytes = 4096})) {}

  [[nodiscard]] bool hit(const key_id& id) {
    if (!exact)
      return static_cast<bool>(index.find_and_pin(id));
    const entry_handle found = index.find(id);
    if (found == no_entry)
      return false;
    policy->touched(found);
    return true;
  }

  void put(const key_id& id) {
    while (index.size() >= capacity) {
      const entry_handle victim = policy->victim();
      MEMKV_ASSERT(victim != no_entry, "without pins there is always a victim");
      policy->evicted(victim);
      index.unlink(victim);
      MEMKV_ASSERT(index.retire(victim), "nobody pins a block of a replay");
      index.free(victim);
      ++result.evicted;
    }
    block_entry fields;
    fields.id = id;
    fields.units = 1;
    entry_handle inserted = no_entry;
    entry_handle replaced = no_entry;
    const errc inserting = index.insert(fields, inserted, replaced);
    MEMKV_ASSERT(inserting == errc::ok && replaced == no_entry, "an absent block finds room");
    policy->inserted(inserted);
    ++result.stored;
  }

  std::uint64_t capacity = 0;
  bool exact = false;
  block_index index;
  std::unique_ptr<eviction_policy> policy;
  replay_result result;
};

cache_replay::cache_replay(eviction_kind kind, std::uint64_t capacity_blocks, bool exact)
    : impl_(std::make_unique<implementation>(kind, capacity_blocks, exact)) {
  MEMKV_ASSERT(capacity_blocks > 0 && capacity_blocks <= std::uint64_t{1} << 31, "1 to 2^31 blocks");
}

cache_replay::~cache_replay() = default;

void cache_replay::request(std::span<const std::uint64_t> chain) {
  replay_result& result = impl_->result;
  ++result.requests;
  result.blocks += chain.size();
  std::size_t i = 0;
  while (i < chain.size() && impl_->hit(make_id(chain[i])))
    ++i;
  result.hits += i;
  for (; i < chain.size(); ++i) {
    const key_id id = make_id(chain[i]);
    if (!impl_->hit(id))
      impl_->put(id);
  }
}

const replay_result& cache_replay::result() const noexcept {
  return impl_->result;
}

} // namespace memkv::sim
