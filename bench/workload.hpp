// One measured run against servers: threads that put, get or ask, and what came of it.
//
// Threading: run_workload() makes its threads and joins them. Ownership: values. Errors: one sentence, when
// the run could not begin; what goes wrong in single operations is counted. Keys are
// "bench/<kind>/<seed>/<block size>/<number>".
//
// The memory of values is registered with the client, so with RDMA they travel from and to it.
//
// With `verify` every value follows from its key and every byte that a get returns is compared. Without it
// all values are one pattern, so that making them costs nothing; such blocks have other names.
#pragma once

#include "bench/histogram.hpp"
#include "client/client.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace memkv::bench {

enum class workload_op : std::uint8_t { put, get, exists, mixed, prefix };

[[nodiscard]] const char* name(workload_op op) noexcept;

struct workload {
  workload_op op = workload_op::get;
  std::uint64_t block_bytes = 1U << 20U;
  std::uint64_t ops = 0; // items of all threads together; 0 = by time
  double seconds = 5;    // when ops is 0
  std::uint32_t threads = 2;
  std::uint32_t depth = 1;   // calls in flight of each thread
  std::uint32_t batch = 1;   // items of a call
  std::uint64_t keys = 1024; // different blocks
  std::uint64_t seed = 1;
  bool verify = false;
  bool preload = true; // store all blocks first, unmeasured, where the run reads
};

struct workload_result {
  workload_op op = workload_op::get;
  std::uint64_t block_bytes = 0;
  std::uint32_t threads = 0, connections = 0, depth = 0, batch = 0;
  std::uint64_t ops = 0;   // items
  std::uint64_t bytes = 0; // of values
  double seconds = 0;
  histogram latency; // of calls
  std::uint64_t hits = 0, misses = 0, errors = 0, verify_failures = 0;
  client::errc first_error = client::errc::ok;
  // Of `bytes`: between registered memory and servers over RDMA, and through the client's staging area. The
  // rest went over TCP. Items whose check failed are not in `bytes`, but are in these.
  std::uint64_t rdma_bytes = 0, staged_bytes = 0;
  std::uint64_t messages = 0; // requests that were messages of a queue pair

  /// What carried the values: rdma, staged, tcp, or several, as "rdma+tcp"; and messages, when requests were
  /// some.
  [[nodiscard]] std::string transport() const;
  /// Whether figures may be shown.
  [[nodiscard]] bool sound() const noexcept { return errors == 0 && verify_failures == 0; }
};

/// Runs it. Returns an empty text, or why it could not begin.
[[nodiscard]] std::string run_workload(client::client& kv, std::uint32_t connections, const workload& wanted,
                                       workload_result& result);

/// A line for the terminal; its heading.
[[nodiscard]] std::string table_line(const workload_result& result);
[[nodiscard]] std::string table_heading();
/// The document of --json.
[[nodiscard]] std::string json_of(const std::vector<workload_result>& results);

} // namespace memkv::bench
