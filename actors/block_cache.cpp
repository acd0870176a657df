#include "actors/block_cache.hpp"

#include <algorithm>
#include <utility>

namespace memkv::actors {

namespace {
/// Segments that get another round before one is dropped all the same.
constexpr int second_chances_max = 64;
} // namespace

block_cache::block_cache(engine::buffer_pool& pool)
    : pool_(pool), kept_free_(std::max<std::uint64_t>(1, pool.statistics().chunks / 8)) {}

bool block_cache::drop_one() {
  std::shared_ptr<segment> dropped;
  std::vector<piece> gone; // destroyed outside of the lock
  {
    const std::lock_guard guard(lock_);
    for (int tries = 0; tries < second_chances_max && closed_.size() > 1; ++tries) {
      if (closed_.front()->hits.exchange(0, std::memory_order_relaxed) == 0)
        break;
      closed_.push_back(std::move(closed_.front()));
      closed_.pop_front();
    }
    if (closed_.empty())
      return false;
    dropped = std::move(closed_.front());
    closed_.pop_front();
    dropped->dropped = true;
    for (const auto& each : dropped->pieces) {
      const auto found = pieces_.find(each);
      if (found == pieces_.end() || found->second.in != dropped)
        continue;
      gone.push_back(std::move(found->second));
      pieces_.erase(found);
    }
    ++counted_.dropped_segments;
  }
  return true;
}

engine::buffer block_cache::acquire() {
  auto chunk = pool_.acquire();
  // A segment that a transfer still holds gives its chunk back later.
  while (!chunk && drop_one())
    chunk = pool_.acquire();
  return chunk;
}

std::shared_ptr<block_cache::segment> block_cache::open_segment() {
  for (auto now = pool_.statistics(); now.chunks - now.chunks_in_use <= kept_free_ && drop_one();
       now = pool_.statistics()) {
  }
  auto chunk = acquire();
  if (!chunk)
    return nullptr;
  auto opened = std::make_shared<segment>();
  opened->memory = std::move(chunk);
  return opened;
}

void block_cache::close_segment(std::shared_ptr<segment> full) {
  const std::lock_guard guard(lock_);
  closed_.push_back(std::move(full));
}

void block_cache::insert(std::uint64_t generation, const extent_read& read) {
  if (read.view.pieces.size() != 1 || read.view.sums == nullptr || read.into.keep == nullptr)
    return;
  piece added;
  added.in = std::static_pointer_cast<segment>(read.into.keep);
  added.bytes = read.view.pieces.front();
  added.sums = read.view.sums;
  added.name_space = read.name_space;
  added.key = read.key;
  const place at{generation, read.offset};
  piece replaced;
  const std::lock_guard guard(lock_);
  if (added.in->dropped)
    return;
  auto& there = pieces_[at];
  if (there.in != nullptr && there.bytes.size() >= added.bytes.size())
    return;
  added.in->pieces.push_back(at);
  replaced = std::exchange(there, std::move(added));
}

bool block_cache::find(std::uint64_t generation, extent_read& read) {
  const std::lock_guard guard(lock_);
  const auto found = pieces_.find({generation, read.offset});
  if (found == pieces_.end() || found->second.bytes.size() < read.length ||
      found->second.name_space != read.name_space || found->second.key != read.key) {
    ++counted_.misses;
    return false;
  }
  const auto& there = found->second;
  ++counted_.hits;
  counted_.hit_bytes += read.length;
  there.in->hits.fetch_add(1, std::memory_order_relaxed);
  read.view.pieces.assign(1, there.bytes.first(read.length));
  read.view.sums = there.sums;
  read.view.chunk_crc32c = *there.sums;
  read.into.keep = there.in;
  read.result = engine::errc::ok;
  return true;
}

block_cache_statistics block_cache::statistics() const {
  const std::lock_guard guard(lock_);
  auto now = counted_;
  now.pieces = pieces_.size();
  now.segments = closed_.size();
  return now;
}

} // namespace memkv::actors
