// The client's cache of whole values: least recently used first out, bounded in bytes.
//
// Races between a get and an own put are decided for the put: a get notes the epoch of its key before it
// asks, each put or delete moves the epoch when it starts and when it ends, and a value is only kept when the
// epoch is still the noted one.
//
// Threading: any thread; a lock for each of 16 shards. Ownership: copies of keys and values. Errors: no
// memory means not kept. Limits: a value larger than an eighth of a shard's share is not kept. Does not do:
// see changes made by other clients.
#pragma once

#include "wire/key_id.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace memkv::client {

class read_cache {
public:
  explicit read_cache(std::uint64_t bytes_max) : shard_bytes_max_(bytes_max / shards) {}

  [[nodiscard]] bool enabled() const noexcept { return shard_bytes_max_ != 0; }

  struct found {
    bool hit = false;
    bool fits = false;        // the target was large enough and was filled
    bool in_range = false;    // range_offset is not behind the end
    std::uint64_t length = 0; // bytes copied
    std::uint64_t value_length = 0;
  };
  /// Copies the wanted range of a cached value; the meaning of the arguments is that of get_item.
  [[nodiscard]] found copy(const wire::key_id& id, std::string_view key, std::uint64_t range_offset,
                           std::uint64_t range_length, std::span<std::byte> target);

  [[nodiscard]] std::uint64_t epoch(const wire::key_id& id) const noexcept { return epoch_of(id).load(); }
  /// Keeps a copy, if the key's epoch is still `epoch`.
  void keep(const wire::key_id& id, std::string_view key, std::span<const std::byte> value,
            std::uint64_t epoch);
  /// Takes a key out and moves its epoch: call when a put or delete starts and again when it ended.
  void forget(const wire::key_id& id);

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_.load(); }
  [[nodiscard]] std::uint64_t hits() const noexcept { return hits_.load(); }
  [[nodiscard]] std::uint64_t misses() const noexcept { return misses_.load(); }

private:
  static constexpr std::size_t shards = 16;
  static constexpr std::size_t epochs = 1024;
  static constexpr std::uint64_t entry_overhead_bytes = 160; // nodes of list and table, about

  struct entry {
    wire::key_id id;
    std::string key;
    std::vector<std::byte> value;
    [[nodiscard]] std::uint64_t bytes() const noexcept {
      return key.size() + value.size() + entry_overhead_bytes;
    }
  };
  struct shard {
    std::mutex mutex;
    std::list<entry> order; // most recently used first
    std::unordered_map<wire::key_id, std::list<entry>::iterator> places;
    std::uint64_t bytes = 0;
  };

  [[nodiscard]] shard& shard_of(const wire::key_id& id) noexcept { return shards_[id.tail() % shards]; }
  [[nodiscard]] std::atomic<std::uint64_t>& epoch_of(const wire::key_id& id) noexcept {
    return epochs_[id.tail() / shards % epochs];
  }
  [[nodiscard]] const std::atomic<std::uint64_t>& epoch_of(const wire::key_id& id) const noexcept {
    return epochs_[id.tail() / shards % epochs];
  }
  void drop(shard& owner, std::list<entry>::iterator place);

  std::uint64_t shard_bytes_max_;
  std::array<shard, shards> shards_;
  std::array<std::atomic<std::uint64_t>, epochs> epochs_{};
  std::atomic<std::uint64_t> bytes_{0};
  std::atomic<std::uint64_t> hits_{0};
  std::atomic<std::uint64_t> misses_{0};
};

} // namespace memkv::client
