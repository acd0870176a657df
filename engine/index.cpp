#include "engine/index.hpp"

#include "engine/limits.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

namespace memkv::engine {

namespace {

/// A lock for a few instructions. Waiters give their core away soon, because the holder may have lost its
/// own.
class spin_lock {
public:
  void lock() noexcept {
    for (unsigned tries = 0; taken_.exchange(true, std::memory_order_acquire); ++tries)
      if (tries >= 32)
        std::this_thread::yield();
  }
  void unlock() noexcept { taken_.store(false, std::memory_order_release); }

private:
  std::atomic<bool> taken_{false};
};

class spin_guard {
public:
  explicit spin_guard(spin_lock& lock) noexcept : lock_(lock) { lock_.lock(); }
  ~spin_guard() { lock_.unlock(); }
  spin_guard(const spin_guard&) = delete;
  spin_guard& operator=(const spin_guard&) = delete;

private:
  spin_lock& lock_;
};

/// The first eight bytes as a number that grows with the id.
std::uint64_t rank(const key_id& id) noexcept {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i)
    value = value << 8 | std::to_integer<std::uint64_t>(id.bytes[static_cast<std::size_t>(i)]);
  return value;
}

int compare(const key_id& a, const key_id& b) noexcept {
  return std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size());
}

std::uint8_t tag(const key_id& id) noexcept {
  return std::to_integer<std::uint8_t>(id.bytes[15]);
}

/// Entries stand in ascending order of their ids, none before its home position, and between its home and
/// itself no position is empty. Behind the `capacity` positions that are anybody's home lies a tail for those
/// that the last ones push out, so that nothing wraps around.
struct table {
  std::unique_ptr<entry_handle[]> handles;
  std::unique_ptr<std::uint8_t[]> tags; // last byte of the id, so that few look-ups touch a wrong entry
  std::uint32_t capacity = 0;
  std::uint32_t slots = 0;

  [[nodiscard]] std::uint32_t home(const key_id& id) const noexcept {
    const std::uint64_t below_shard = rank(id) << 8 >> 32;
    return static_cast<std::uint32_t>(below_shard * capacity >> 32);
  }
  [[nodiscard]] std::uint64_t bytes() const noexcept {
    return std::uint64_t{slots} * (sizeof(entry_handle) + sizeof(std::uint8_t));
  }
  [[nodiscard]] bool allocate(std::uint32_t new_capacity, std::uint32_t tail) noexcept {
    capacity = new_capacity;
    slots = new_capacity + tail;
    handles.reset(new (std::nothrow) entry_handle[slots]);
    tags.reset(new (std::nothrow) std::uint8_t[slots]);
    if (!handles || !tags)
      return false;
    std::fill_n(handles.get(), slots, no_entry);
    return true;
  }
};

constexpr std::uint32_t capacity_first = 16;

/// Positions are filled to three quarters and then become a quarter more: in steps that are larger, the
/// tables that have just grown would take more memory than the entries' limit leaves them; in smaller ones
/// each entry would be moved more than five times.
constexpr std::uint64_t capacity_for(std::uint64_t entries) noexcept {
  return (entries * 4 + 2) / 3;
}
constexpr std::uint32_t capacity_after(std::uint32_t capacity) noexcept {
  return std::max(capacity_first, capacity + capacity / 4);
}

constexpr std::uint32_t tail_first = 16;

struct alignas(64) shard {
  spin_lock lock;
  table places;
  std::uint32_t count = 0;
};

std::uint32_t shard_of(const key_id& id) noexcept {
  static_assert(limits::index_shards == 256, "a shard is chosen by the first byte");
  return std::to_integer<std::uint32_t>(id.bytes[0]);
}

/// One entry, one cache line.
struct alignas(64) slab {
  std::array<block_entry, limits::slab_entries> entries;
};

} // namespace

struct block_index::implementation {
  explicit implementation(std::uint32_t maximum)
      : entries_max(std::min(maximum, limits::entries_max)),
        slabs((std::size_t{entries_max} + limits::slab_entries - 1) / limits::slab_entries) {}

  std::uint32_t entries_max = 0;
  std::uint32_t fresh = 0; // handles from here on were never used
  entry_handle unused = no_entry;
  std::vector<std::unique_ptr<slab>> slabs;
  std::array<shard, limits::index_shards> shards;
  std::atomic<std::uint64_t> live{0};
  std::atomic<std::uint64_t> memory{0};
  std::function<void(entry_handle)> reclaim_hook;

  [[nodiscard]] block_entry& at(entry_handle handle) const noexcept {
    return slabs[handle / limits::slab_entries]->entries[handle % limits::slab_entries];
  }

  [[nodiscard]] entry_handle take_handle() noexcept {
    if (unused != no_entry) {
      const entry_handle handle = unused;
      unused = at(handle).next;
      return handle;
    }
    if (fresh == entries_max)
      return no_entry;
    if (fresh % limits::slab_entries == 0) {
      auto& place = slabs[fresh / limits::slab_entries];
      if (!place) {
        place.reset(new (std::nothrow) slab);
        if (!place)
          return no_entry;
        memory.fetch_add(sizeof(slab), std::memory_order_relaxed);
      }
    }
    return fresh++;
  }

  void give_handle(entry_handle handle) noexcept {
    at(handle).next = unused;
    unused = handle;
  }

  /// The position of the id, or no_entry. Readers hold the shard's lock; the drive's thread need not.
  [[nodiscard]] std::uint32_t position(const table& in, const key_id& id) const noexcept {
    if (in.capacity == 0)
      return no_entry;
    const std::uint32_t first = in.home(id);
    const std::uint32_t end = std::min(in.slots, first + limits::probe_max + 1);
    const std::uint8_t wanted = tag(id);
    for (std::uint32_t i = first; i < end && in.handles[i] != no_entry; ++i) {
      if (in.tags[i] != wanted)
        continue;
      const int order = compare(at(in.handles[i]).id, id);
      if (order == 0)
        return i;
      if (order > 0)
        return no_entry;
    }
    return no_entry;
  }

  /// Builds the table anew at a larger capacity or with a longer tail, and swaps it in.
  [[nodiscard]] bool rebuild(shard& of, std::uint32_t capacity, std::uint32_t tail) noexcept {
    table larger;
    for (;; tail *= 2) {
      if (!larger.allocate(capacity, tail))
        return false;
      std::uint32_t next = 0;
      bool fits = true;
      for (std::uint32_t i = 0; i < of.places.slots; ++i) {
        const entry_handle handle = of.places.handles[i];
        if (handle == no_entry)
          continue;
        next = std::max(next, larger.home(at(handle).id));
        if (next == larger.slots) {
          fits = false;
          break;
        }
        larger.handles[next] = handle;
        larger.tags[next] = of.places.tags[i];
        ++next;
      }
      if (fits)
        break;
    }
    memory.fetch_add(larger.bytes(), std::memory_order_relaxed);
    memory.fetch_sub(of.places.bytes(), std::memory_order_relaxed);
    const spin_guard guard(of.lock);
    std::swap(of.places, larger);
    return true;
  }
};

block_index::block_index(std::uint32_t entries_max) : impl_(std::make_unique<implementation>(entries_max)) {
  impl_->memory.store(sizeof(implementation) + impl_->slabs.size() * sizeof(std::unique_ptr<slab>),
                      std::memory_order_relaxed);
}

block_index::~block_index() = default;

block_pin block_index::find_and_pin(const key_id& id) noexcept {
  block_pin pin;
  shard& of = impl_->shards[shard_of(id)];
  const spin_guard guard(of.lock);
  const std::uint32_t found = impl_->position(of.places, id);
  if (found == no_entry)
    return pin;
  pin.index_ = this;
  pin.handle_ = of.places.handles[found];
  block_entry& entry = impl_->at(pin.handle_);
  const std::uint32_t before = entry.state.fetch_add(1, std::memory_order_relaxed);
  MEMKV_ASSERT((before & state_dead) == 0, "an entry in the table is not dead");
  MEMKV_ASSERT(before + 1 < state_dead, "pins of one block stay below 2^31");
  if ((entry.recency.load(std::memory_order_relaxed) & recency_touched) == 0)
    entry.recency.fetch_or(recency_touched, std::memory_order_relaxed);
  return pin;
}

bool block_index::contains(const key_id& id, std::uint32_t& value_length, std::uint64_t& generation,
                           bool touch) noexcept {
  shard& of = impl_->shards[shard_of(id)];
  const spin_guard guard(of.lock);
  const std::uint32_t found = impl_->position(of.places, id);
  if (found == no_entry)
    return false;
  block_entry& entry = impl_->at(of.places.handles[found]);
  value_length = entry.value_length;
  generation = entry.generation;
  if (touch && (entry.recency.load(std::memory_order_relaxed) & recency_touched) == 0)
    entry.recency.fetch_or(recency_touched, std::memory_order_relaxed);
  return true;
}

std::uint64_t block_index::size() const noexcept {
  return impl_->live.load(std::memory_order_relaxed);
}

void block_index::reserve(std::uint64_t blocks) noexcept {
  const std::uint64_t each = std::min<std::uint64_t>(blocks, impl_->entries_max) / limits::index_shards;
  // Ids are uniform: hardly a shard gets more than four deviations above its share.
  const auto spread = static_cast<std::uint64_t>(4 * std::sqrt(static_cast<double>(each)));
  const std::uint64_t capacity = std::max<std::uint64_t>(capacity_first, capacity_for(each + spread));
  for (shard& of : impl_->shards)
    if (of.places.capacity < capacity) {
      const std::uint32_t tail = of.places.capacity == 0 ? tail_first : of.places.slots - of.places.capacity;
      if (!impl_->rebuild(of, static_cast<std::uint32_t>(capacity), tail))
        return;
    }
}

errc block_index::insert(const block_entry& fields, entry_handle& inserted, entry_handle& replaced) {
  inserted = replaced = no_entry;
  shard& of = impl_->shards[shard_of(fields.id)];
  const std::uint32_t existing = impl_->position(of.places, fields.id);
  if (existing == no_entry && (of.count + 1) * std::uint64_t{4} > of.places.capacity * std::uint64_t{3}) {
    const std::uint32_t tail = of.places.capacity == 0 ? tail_first : of.places.slots - of.places.capacity;
    if (!impl_->rebuild(of, capacity_after(of.places.capacity), tail))
      return errc::busy;
  }

  std::uint32_t place = existing;
  std::uint32_t empty = existing;
  if (existing == no_entry) {
    for (;;) {
      const table& in = of.places;
      const std::uint32_t home = in.home(fields.id);
      const std::uint32_t end = home + limits::probe_max + 1;
      place = home;
      while (place < end && place < in.slots && in.handles[place] != no_entry &&
             compare(impl_->at(in.handles[place]).id, fields.id) < 0)
        ++place;
      empty = place;
      while (empty < end && empty < in.slots && in.handles[empty] != no_entry)
        ++empty;
      if (empty >= end)
        return errc::busy;
      if (empty < in.slots)
        break;
      if (!impl_->rebuild(of, in.capacity, (in.slots - in.capacity) * 2))
        return errc::busy;
    }
  }

  const entry_handle handle = impl_->take_handle();
  if (handle == no_entry)
    return errc::busy;
  block_entry& entry = impl_->at(handle);
  entry.id = fields.id;
  entry.generation = fields.generation;
  entry.put_id = fields.put_id;
  entry.value_length = fields.value_length;
  entry.first_unit = fields.first_unit;
  entry.header_page = fields.header_page;
  entry.header_crc32c = fields.header_crc32c;
  entry.state.store(0, std::memory_order_relaxed);
  entry.previous = entry.next = no_entry;
  entry.recency.store(0, std::memory_order_relaxed);
  entry.flags = fields.flags;
  entry.units = fields.units;
  inserted = handle;

  const spin_guard guard(of.lock);
  table& in = of.places;
  if (existing != no_entry) {
    replaced = in.handles[existing];
    in.handles[existing] = handle;
    return errc::ok;
  }
  std::copy_backward(&in.handles[place], &in.handles[empty], &in.handles[empty] + 1);
  std::copy_backward(&in.tags[place], &in.tags[empty], &in.tags[empty] + 1);
  in.handles[place] = handle;
  in.tags[place] = tag(fields.id);
  ++of.count;
  impl_->live.fetch_add(1, std::memory_order_relaxed);
  return errc::ok;
}

entry_handle block_index::find(const key_id& id) const noexcept {
  const table& in = impl_->shards[shard_of(id)].places;
  const std::uint32_t found = impl_->position(in, id);
  return found == no_entry ? no_entry : in.handles[found];
}

block_entry& block_index::at(entry_handle handle) noexcept {
  return impl_->at(handle);
}

const block_entry& block_index::at(entry_handle handle) const noexcept {
  return impl_->at(handle);
}

void block_index::unlink(entry_handle handle) noexcept {
  const key_id& id = impl_->at(handle).id;
  shard& of = impl_->shards[shard_of(id)];
  table& in = of.places;
  const std::uint32_t place = impl_->position(in, id);
  MEMKV_ASSERT(place != no_entry && in.handles[place] == handle, "an entry is unlinked once");
  // Everything behind it that is not at home moves up by one. The search needs no lock: nobody else writes.
  std::uint32_t end = place + 1;
  while (end < in.slots && in.handles[end] != no_entry && in.home(impl_->at(in.handles[end]).id) < end)
    ++end;
  const spin_guard guard(of.lock);
  std::copy(&in.handles[place] + 1, &in.handles[place] + (end - place), &in.handles[place]);
  std::copy(&in.tags[place] + 1, &in.tags[place] + (end - place), &in.tags[place]);
  in.handles[end - 1] = no_entry;
  --of.count;
  impl_->live.fetch_sub(1, std::memory_order_relaxed);
}

bool block_index::retire(entry_handle handle) noexcept {
  const std::uint32_t before = impl_->at(handle).state.fetch_or(state_dead, std::memory_order_acq_rel);
  MEMKV_ASSERT((before & state_dead) == 0, "an entry is retired once");
  return before == 0;
}

void block_index::free(entry_handle handle) noexcept {
  MEMKV_ASSERT(impl_->at(handle).state.load(std::memory_order_acquire) == state_dead,
               "only a retired entry that nobody pins is freed");
  // Leaves the dead bit set: freeing twice, or pinning what was freed, is noticed.
  impl_->at(handle).state.store(state_dead | 1, std::memory_order_relaxed);
  impl_->give_handle(handle);
}

void block_index::set_reclaim_hook(std::function<void(entry_handle)> hook) {
  impl_->reclaim_hook = std::move(hook);
}

void block_index::visit(const key_id& first, const key_id& last,
                        const std::function<void(entry_handle)>& visitor) const {
  if (compare(first, last) > 0)
    return;
  const std::uint32_t shard_first = shard_of(first);
  const std::uint32_t shard_last = shard_of(last);
  for (std::uint32_t s = shard_first; s <= shard_last; ++s) {
    const table& in = impl_->shards[s].places;
    if (in.capacity == 0)
      continue;
    for (std::uint32_t i = s == shard_first ? in.home(first) : 0; i < in.slots; ++i) {
      const entry_handle handle = in.handles[i];
      if (handle == no_entry)
        continue;
      const key_id& id = impl_->at(handle).id;
      if (s == shard_last && compare(id, last) > 0)
        return;
      if (s == shard_first && compare(id, first) < 0)
        continue;
      visitor(handle);
    }
  }
}

std::uint64_t block_index::memory_bytes() const noexcept {
  return impl_->memory.load(std::memory_order_relaxed);
}

void block_index::release(entry_handle handle) noexcept {
  const std::uint32_t before = impl_->at(handle).state.fetch_sub(1, std::memory_order_acq_rel);
  MEMKV_ASSERT((before & ~state_dead) != 0, "a pin is released once");
  if (before == (state_dead | 1) && impl_->reclaim_hook)
    impl_->reclaim_hook(handle);
}

block_pin::block_pin(block_pin&& other) noexcept
    : index_(std::exchange(other.index_, nullptr)), handle_(std::exchange(other.handle_, no_entry)) {}

block_pin& block_pin::operator=(block_pin&& other) noexcept {
  if (this != &other) {
    release();
    index_ = std::exchange(other.index_, nullptr);
    handle_ = std::exchange(other.handle_, no_entry);
  }
  return *this;
}

void block_pin::release() noexcept {
  if (index_ == nullptr)
    return;
  std::exchange(index_, nullptr)->release(std::exchange(handle_, no_entry));
}

const block_entry& block_pin::operator*() const noexcept {
  return index_->at(handle_);
}

} // namespace memkv::engine
