// Replays a trace of LLM requests: against servers, or, to compare eviction orders, against the engine's
// orders alone.
//
// Each request asks how many of its leading blocks are stored, fetches those and stores the others: what an
// inference engine does. A hit is a fetched leading block. Requests are replayed one after the other, so the
// number of hits of a store that never forgets is known before: see ideal_hits().
//
// Threading: the calling thread. Ownership: values. Errors: one sentence; what goes wrong with single blocks
// is counted.
#pragma once

#include "bench/histogram.hpp"
#include "bench/trace.hpp"
#include "client/client.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::bench {

struct replay_options {
  std::uint64_t block_bytes = 0; // of 512 tokens
  double speed = 0;              // 1 = as recorded, 10 = ten times as fast; 0 = as fast as possible
  std::uint64_t seed = 1;
  bool verify = true; // compare every byte that comes back
};

struct replay_result {
  std::uint64_t requests = 0;
  std::uint64_t references = 0; // blocks asked for
  std::uint64_t hits = 0;
  std::uint64_t stored = 0; // blocks put
  std::uint64_t bytes_read = 0, bytes_written = 0;
  std::uint64_t errors = 0, verify_failures = 0;
  client::errc first_error = client::errc::ok;
  double seconds = 0;
  double late_seconds_max = 0; // behind the trace's own time
  histogram request_latency;

  [[nodiscard]] bool sound() const noexcept { return errors == 0 && verify_failures == 0; }
};

/// All requests of the trace, once.
[[nodiscard]] replay_result replay_trace(client::client& kv, const trace& requests,
                                         const replay_options& chosen);

/// Fetches each different block of the trace once: the second pass, after a restart. `references` is their
/// number.
[[nodiscard]] replay_result read_stored(client::client& kv, const trace& requests,
                                        const replay_options& chosen);

struct simulation_result {
  std::string policy;
  double capacity_share = 0; // of the trace's different blocks
  std::uint64_t capacity_blocks = 0;
  std::uint64_t hits = 0, references = 0, written = 0;
};

/// Runs the trace through one of the engine's eviction orders holding that share of the different blocks.
/// Returns an empty text, or that there is no such order.
[[nodiscard]] std::string simulate(const trace& requests, std::string_view policy, double capacity_share,
                                   simulation_result& result);

} // namespace memkv::bench
