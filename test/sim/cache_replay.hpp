// A cache without data: how often a trace of prefix chains would hit under an eviction policy.
//
// Operation. The policy runs over a real index exactly as in the server: hits set recency bits, misses
// insert. Each request is a chain of block ids: it hits from its start to the first block that is absent; the
// rest is then put.
//
// Threading: one thread. Limits: capacity 1 ... 2^31 blocks.
#pragma once

#include "engine/eviction.hpp"

#include <cstdint>
#include <memory>
#include <span>

namespace memkv::sim {

struct replay_result {
  std::uint64_t requests = 0;
  std::uint64_t blocks = 0; // asked for
  std::uint64_t hits = 0;   // found, counted up to each request's first miss
  std::uint64_t stored = 0; // blocks written
  std::uint64_t evicted = 0;
  [[nodiscard]] double hit_ratio() const noexcept {
    return blocks == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(blocks);
  }
};

class cache_replay {
public:
  /// `exact`: the policy is told of each hit at once (what an exact LRU needs); otherwise by recency bits as
  /// in the server.
  cache_replay(engine::eviction_kind kind, std::uint64_t capacity_blocks, bool exact);
  ~cache_replay();

  /// One request. Ids are any numbers; equal numbers are equal blocks.
  void request(std::span<const std::uint64_t> chain);

  [[nodiscard]] const replay_result& result() const noexcept;

private:
  struct implementation;
  std::unique_ptr<implementation> impl_;
};

} // namespace memkv::sim
