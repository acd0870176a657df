// RDMA without hardware: a network of simulated devices under one clock, for tests.
//
// Operation. A device (a node) is a fabric like any other; RC and DC are both there. Nothing happens by
// itself: step() and advance() carry out what was posted, in an order and with delays drawn from the seed.
// The same calls with the same seed give the same run.
//
// What it enforces: depths of queues, the number of READs in flight, one peer at a time on a DC initiator,
// the error state and the way out of it, keys, bounds and permissions at the moment bytes move, path MTU,
// packet numbers, and receives that must be posted. A transfer moves its bytes in two halves at different
// moments, and a request that is flushed may still have its effect, until it is reported: whoever touches
// a buffer too early gets wrong bytes. What callers must never do, and a real device would not tell them, is
// written down in misuse().
//
// What it can be told to do: fail a request with any status, once or at random; lose a node, or cut it off;
// stop reporting from a queue pair.
//
// Does not: model bandwidth beyond a cost a byte, congestion, packet loss other than by cutting off, or the
// hardware streams of a DC initiator. A wrong DC key is answered by nobody, hence retry_exceeded; hardware
// may choose otherwise.
//
// Threading: a network and its nodes belong to one thread. Ownership: the network outlives its fabrics.
#pragma once

#include "verbs/fabric.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace memkv::verbs {

struct simulated_network_options {
  std::uint64_t seed = 1;
  std::uint64_t latency_ns_max = 2000;          // of one half of a transfer
  std::uint64_t completion_delay_ns_max = 3000; // from its end to its report
  std::uint64_t byte_ns_per_kib = 20;
  std::uint64_t retry_ns = 1'000'000;      // until a peer that does not acknowledge is given up
  std::uint64_t receiver_wait_ns = 10'000; // between two attempts when no receive is posted
  std::uint32_t faults_per_million = 0;    // requests that end with a status drawn from errors()
};

struct simulated_node_options {
  std::string name = "simulated";
  bool dc = true;
  std::uint32_t mtu_bytes = 4096;      // of the port
  std::uint32_t path_mtu_bytes = 4096; // of its queue pairs, if the port has it or not
  std::uint32_t sends_max = 4096;
  std::uint32_t reads_max = 16;
  std::uint32_t transfer_bytes_max = 1U << 30U;
  std::uint32_t completions_max = 1U << 22U; // of one completion queue
  std::uint8_t receiver_retries = 6;
};

struct simulated_statistics {
  std::uint64_t doorbells = 0; // calls of post that posted something
  std::uint64_t requests = 0;
  std::uint64_t completions = 0;  // what the device had to write: reports without those of unsignalled
  std::uint64_t peer_changes = 0; // of DC initiators
  std::uint64_t bytes = 0;
  std::uint64_t faults = 0;       // drawn at random or told to
  std::uint64_t late_effects = 0; // flushed requests that still touched memory
  std::uint64_t queue_pairs = 0;  // there are now: RC, initiators and targets
  std::uint64_t queue_pairs_peak = 0;
};

namespace detail {
struct simulated_core;
}

class simulated_network {
public:
  explicit simulated_network(const simulated_network_options& options);
  ~simulated_network();
  simulated_network(const simulated_network&) = delete;
  simulated_network& operator=(const simulated_network&) = delete;

  [[nodiscard]] std::unique_ptr<fabric> create_node(const simulated_node_options& options = {});

  [[nodiscard]] std::uint64_t now_ns() const noexcept;
  /// To the next thing that happens; false when nothing is left to happen.
  bool step();
  /// Everything that happens within this time.
  void advance(std::uint64_t ns);
  /// Until nothing is left to happen.
  void settle();

  /// The next request that ends on this queue pair ends like this, after as many others as `after` says.
  void inject(std::uint32_t queue_pair, completion_status status, std::uint32_t after = 0);
  /// Takes effect from now on.
  void set_faults_per_million(std::uint32_t rate);
  /// As if its process had ended: its memory is out of reach, its queue pairs report nothing any more.
  void kill(fabric& node);
  /// Cut off, or back again.
  void set_reachable(fabric& node, bool reachable);
  /// What finding the way to a peer waits for, from now on: called by slow_step::run, hence by its thread.
  void set_way_taking(std::function<void(const endpoint& peer)> wait);
  /// This queue pair reports nothing until it is destroyed.
  void withhold_reports(std::uint32_t queue_pair);

  /// Whether the range is among the local ranges of a request that was not reported yet.
  [[nodiscard]] bool in_use(const void* address, std::uint64_t length) const;
  [[nodiscard]] const std::vector<std::string>& misuse() const noexcept;
  [[nodiscard]] const simulated_statistics& statistics() const noexcept;

private:
  std::unique_ptr<detail::simulated_core> core_;
};

} // namespace memkv::verbs
