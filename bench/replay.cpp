#include "bench/replay.hpp"

#include "bench/value_pattern.hpp"
#include "engine/eviction.hpp"
#include "engine/index.hpp"

#include <algorithm>
#include <chrono>
#include <thread>
#include <unordered_set>

namespace memkv::bench {
namespace {

using client::errc;
using client::item_result;
using clock = std::chrono::steady_clock;

constexpr std::uint64_t bytes_at_once = 64U << 20U; // what a replay holds of values

double seconds_since(clock::time_point begin) {
  return std::chrono::duration<double>(clock::now() - begin).count();
}

std::uint64_t nanoseconds_since(clock::time_point begin) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(clock::now() - begin).count());
}

std::string key_of(std::uint64_t block) {
  return "trace/" + std::to_string(block);
}

/// Moves the blocks of a request in portions that fit the memory.
class mover {
public:
  mover(client::client& kv, const replay_options& chosen, replay_result& result)
      : kv_(kv), chosen_(chosen), result_(result),
        at_once_(std::max<std::uint64_t>(1, bytes_at_once / std::max<std::uint64_t>(1, chosen.block_bytes))) {
  }

  void name_blocks(std::span<const std::uint64_t> blocks) {
    keys_.clear();
    for (const std::uint64_t block : blocks) {
      keys_.push_back(key_of(block));
    }
    views_.assign(keys_.begin(), keys_.end());
  }

  [[nodiscard]] std::uint64_t matched() {
    const client::prefix_result found = kv_.prefix(views_);
    if (found.code != errc::ok || found.cause != errc::ok) {
      fail(found.code != errc::ok ? found.code : found.cause);
      return 0;
    }
    return found.matched;
  }

  void fetch(std::size_t begin, std::size_t end) {
    for (std::size_t first = begin; first < end; first += at_once_) {
      const std::size_t count = std::min<std::size_t>(at_once_, end - first);
      make_room(count);
      std::vector<client::get_item> gets;
      for (std::size_t i = 0; i < count; ++i) {
        gets.push_back({views_[first + i], values_[i]});
      }
      results_.assign(count, {});
      kv_.get(gets, results_);
      for (std::size_t i = 0; i < count; ++i) {
        const item_result& item = results_[i];
        if (item.code == errc::not_found && item.cause == errc::ok) {
          continue; // a miss: evicted since, or never stored
        }
        if (item.code != errc::ok) {
          fail(item.code == errc::not_found ? item.cause : item.code);
        } else if (item.length != chosen_.block_bytes ||
                   (chosen_.verify &&
                    !matches_value(value_seed(chosen_.seed, keys_[first + i]), 0, values_[i]))) {
          ++result_.verify_failures;
        } else {
          ++result_.hits;
          result_.bytes_read += item.length;
        }
      }
    }
  }

  void store(std::size_t begin, std::size_t end) {
    for (std::size_t first = begin; first < end; first += at_once_) {
      const std::size_t count = std::min<std::size_t>(at_once_, end - first);
      make_room(count);
      std::vector<client::put_item> puts;
      for (std::size_t i = 0; i < count; ++i) {
        fill_value(value_seed(chosen_.seed, keys_[first + i]), 0, values_[i]);
        puts.push_back({views_[first + i], values_[i]});
      }
      results_.assign(count, {});
      kv_.put(puts, results_);
      for (const item_result& item : results_) {
        if (item.code != errc::ok) {
          fail(item.code);
        } else {
          ++result_.stored;
          result_.bytes_written += chosen_.block_bytes;
        }
      }
    }
  }

private:
  void make_room(std::size_t count) {
    if (values_.size() >= count) {
      return;
    }
    values_.clear();
    registered_ = {};
    memory_.assign(count * chosen_.block_bytes, std::byte{0});
    for (std::size_t i = 0; i < count; ++i) {
      values_.push_back(std::span(memory_).subspan(i * chosen_.block_bytes, chosen_.block_bytes));
    }
    // Where the device does not take it, values are copied through the staging area, or go over TCP.
    if (!memory_.empty()) {
      static_cast<void>(kv_.register_memory(memory_, registered_));
    }
  }

  void fail(errc code) {
    ++result_.errors;
    if (result_.first_error == errc::ok) {
      result_.first_error = code;
    }
  }

  client::client& kv_;
  const replay_options& chosen_;
  replay_result& result_;
  std::uint64_t at_once_;
  std::vector<std::string> keys_;
  std::vector<std::string_view> views_;
  std::vector<std::byte> memory_;
  client::registered_memory registered_;
  std::vector<std::span<std::byte>> values_; // in it
  std::vector<item_result> results_;
};

} // namespace

replay_result replay_trace(client::client& kv, const trace& requests, const replay_options& chosen) {
  replay_result result;
  mover blocks(kv, chosen, result);
  const clock::time_point begin = clock::now();
  for (const trace_request& request : requests.requests) {
    if (chosen.speed > 0) {
      const double due = static_cast<double>(request.timestamp_ms - requests.requests.front().timestamp_ms) /
                         1000.0 / chosen.speed;
      const double ahead = due - seconds_since(begin);
      if (ahead > 0) {
        std::this_thread::sleep_for(std::chrono::duration<double>(ahead));
      } else {
        result.late_seconds_max = std::max(result.late_seconds_max, -ahead);
      }
    }
    const clock::time_point asked = clock::now();
    ++result.requests;
    result.references += request.blocks.size();
    blocks.name_blocks(request.blocks);
    const std::uint64_t matched = request.blocks.empty() ? 0 : blocks.matched();
    blocks.fetch(0, matched);
    blocks.store(matched, request.blocks.size());
    result.request_latency.record(nanoseconds_since(asked));
  }
  result.seconds = seconds_since(begin);
  return result;
}

replay_result read_stored(client::client& kv, const trace& requests, const replay_options& chosen) {
  replay_result result;
  mover blocks(kv, chosen, result);
  const clock::time_point begin = clock::now();
  std::unordered_set<std::uint64_t> seen;
  for (const trace_request& request : requests.requests) {
    std::vector<std::uint64_t> fresh;
    for (const std::uint64_t block : request.blocks) {
      if (seen.insert(block).second) {
        fresh.push_back(block);
      }
    }
    const clock::time_point asked = clock::now();
    ++result.requests;
    result.references += fresh.size();
    blocks.name_blocks(fresh);
    blocks.fetch(0, fresh.size());
    result.request_latency.record(nanoseconds_since(asked));
  }
  result.seconds = seconds_since(begin);
  return result;
}

std::string simulate(const trace& requests, std::string_view policy, double capacity_share,
                     simulation_result& result) {
  const auto kind = engine::eviction_kind_from_name(policy);
  if (!kind) {
    return "there is no eviction order '" + std::string(policy) + "': use fifo, lru, sieve or slru";
  }
  constexpr std::uint32_t unit_bytes = 64U << 10U;
  result = {};
  result.policy = policy;
  result.capacity_share = capacity_share;
  result.capacity_blocks = std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(static_cast<double>(requests.unique_blocks) * capacity_share));
  engine::block_index index(static_cast<std::uint32_t>(result.capacity_blocks + 1));
  engine::eviction_options options;
  options.kind = *kind;
  options.unit_bytes = unit_bytes;
  options.capacity_bytes = result.capacity_blocks * unit_bytes;
  const auto order = engine::make_eviction_policy(index, options);
  std::uint64_t held = 0;
  for (const trace_request& request : requests.requests) {
    result.references += request.blocks.size();
    bool leading = true;
    for (const std::uint64_t block : request.blocks) {
      const wire::key_id id = wire::make_key_id("", wire::as_bytes_view(key_of(block)));
      if (const engine::entry_handle entry = index.find(id); entry != engine::no_entry) {
        result.hits += leading ? 1 : 0;
        if (*kind == engine::eviction_kind::lru) {
          order->touched(entry);
        } else {
          index.find_and_pin(id).release(); // sets the recency bit, as a read does
        }
        continue;
      }
      leading = false;
      if (held == result.capacity_blocks) {
        const engine::entry_handle victim = order->victim();
        if (victim == engine::no_entry) {
          return "the eviction order gives no victim although nothing is held";
        }
        index.unlink(victim);
        order->evicted(victim);
        if (index.retire(victim)) {
          index.free(victim);
        }
        --held;
      }
      engine::block_entry fields;
      fields.id = id;
      fields.units = 1;
      fields.value_length = unit_bytes;
      engine::entry_handle inserted = engine::no_entry;
      engine::entry_handle replaced = engine::no_entry;
      if (index.insert(fields, inserted, replaced) != engine::errc::ok) {
        return "the index refuses an entry";
      }
      order->inserted(inserted);
      ++held;
      ++result.written;
    }
  }
  return {};
}

} // namespace memkv::bench
