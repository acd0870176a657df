#include "client/read_cache.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace memkv::client {

read_cache::found read_cache::copy(const wire::key_id& id, std::string_view key, std::uint64_t range_offset,
                                   std::uint64_t range_length, std::span<std::byte> target) {
  shard& owner = shard_of(id);
  const std::lock_guard lock(owner.mutex);
  const auto place = owner.places.find(id);
  if (place == owner.places.end() || place->second->key != key) {
    ++misses_;
    return {};
  }
  ++hits_;
  owner.order.splice(owner.order.begin(), owner.order, place->second);
  const std::vector<std::byte>& value = place->second->value;
  found result{.hit = true, .value_length = value.size()};
  if (range_offset > value.size()) {
    return result;
  }
  result.in_range = true;
  std::uint64_t wanted = value.size() - range_offset;
  if (range_length != 0) {
    wanted = std::min(wanted, range_length);
  }
  if (wanted > target.size()) {
    return result;
  }
  result.fits = true;
  result.length = wanted;
  if (wanted != 0) {
    std::memcpy(target.data(), value.data() + range_offset, wanted);
  }
  return result;
}

void read_cache::keep(const wire::key_id& id, std::string_view key, std::span<const std::byte> value,
                      std::uint64_t epoch) {
  if (value.size() + key.size() + entry_overhead_bytes > shard_bytes_max_ / 8) {
    return;
  }
  try {
    entry fresh{id, std::string(key), std::vector<std::byte>(value.begin(), value.end())};
    const std::uint64_t fresh_bytes = fresh.bytes();
    shard& owner = shard_of(id);
    const std::lock_guard lock(owner.mutex);
    // forget() moves the epoch before it takes this lock, so a put that started since is seen here or erases
    // the entry.
    if (epoch_of(id).load() != epoch) {
      return;
    }
    if (const auto old = owner.places.find(id); old != owner.places.end()) {
      drop(owner, old->second);
    }
    while (!owner.order.empty() && owner.bytes + fresh_bytes > shard_bytes_max_) {
      drop(owner, std::prev(owner.order.end()));
    }
    owner.order.push_front(std::move(fresh));
    try {
      owner.places.emplace(id, owner.order.begin());
    } catch (const std::bad_alloc&) {
      owner.order.pop_front();
      return;
    }
    owner.bytes += fresh_bytes;
    bytes_ += fresh_bytes;
  } catch (const std::bad_alloc&) {
    // A cache without memory keeps less.
  }
}

void read_cache::forget(const wire::key_id& id) {
  ++epoch_of(id);
  shard& owner = shard_of(id);
  const std::lock_guard lock(owner.mutex);
  if (const auto place = owner.places.find(id); place != owner.places.end()) {
    drop(owner, place->second);
  }
}

void read_cache::drop(shard& owner, std::list<entry>::iterator place) {
  const std::uint64_t freed = place->bytes();
  owner.bytes -= freed;
  bytes_ -= freed;
  owner.places.erase(place->id);
  owner.order.erase(place);
}

} // namespace memkv::client
