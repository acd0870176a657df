#include "engine/ghost_list.hpp"

#include <algorithm>
#include <new>

namespace memkv::engine {

namespace {

/// Not the bits that the index goes by, so that ids that share a shard spread over all buckets.
std::uint16_t fingerprint(const wire::key_id& id) noexcept {
  const auto value = static_cast<std::uint16_t>(id.tail());
  return value == 0 ? std::uint16_t{1} : value;
}

} // namespace

ghost_list::ghost_list(std::uint32_t factor) : factor_(factor) {}

std::size_t ghost_list::position(const wire::key_id& id) const noexcept {
  return static_cast<std::size_t>((id.tail() >> 16) & (count_ - 1));
}

void ghost_list::grow() noexcept {
  const std::uint64_t larger = count_ == 0 ? 1 : count_ * 2;
  std::unique_ptr<bucket[]> grown(new (std::nothrow) bucket[larger]);
  if (!grown)
    return;
  // An id of a bucket belongs to one of the two that follow it, and its fingerprint does not say to which.
  // Both get it: the wrong one will push it out in time, and until then it is one more chance match.
  for (std::uint64_t i = 0; i < larger && count_ != 0; ++i)
    grown[i] = buckets_[i & (count_ - 1)];
  buckets_ = std::move(grown);
  count_ = larger;
}

void ghost_list::remember(const wire::key_id& id, std::uint64_t blocks_held) {
  const std::uint64_t wanted = factor_ * blocks_held;
  // A little late, so that the memory stays below its limit right after doubling.
  while (count_ * (slots + 2) < wanted) {
    const std::uint64_t before = count_;
    grow();
    if (count_ == before)
      break;
  }
  if (count_ == 0)
    return;
  const auto used =
      static_cast<std::uint16_t>(std::clamp<std::uint64_t>((wanted + count_ / 2) / count_, 1, slots));
  bucket& in = buckets_[position(id)];
  std::fill(in.fingerprints.begin() + used, in.fingerprints.end(), std::uint16_t{0});
  if (in.cursor >= used)
    in.cursor = 0;
  in.fingerprints[in.cursor++] = fingerprint(id);
}

bool ghost_list::take(const wire::key_id& id) noexcept {
  if (count_ == 0)
    return false;
  bucket& in = buckets_[position(id)];
  const auto found = std::find(in.fingerprints.begin(), in.fingerprints.end(), fingerprint(id));
  if (found == in.fingerprints.end())
    return false;
  *found = 0;
  return true;
}

std::uint64_t ghost_list::memory_bytes() const noexcept {
  return count_ * sizeof(bucket);
}

void ghost_list::clear() noexcept {
  buckets_.reset();
  count_ = 0;
}

} // namespace memkv::engine
