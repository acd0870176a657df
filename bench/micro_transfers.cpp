// What the pool of DC initiators costs for each descriptor of a batch: handing it over, posting it and giving
// back its outcome, for one client, on the simulated fabric. bench/transfer_instructions runs it under
// callgrind, which leaves out what happens inside the fabric; the times printed here do not, so they are not
// the pool's. `doorbells` and `initiators` are those of one batch.

#include "verbs/dci_scheduler.hpp"
#include "verbs/simulated_fabric.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

using namespace memkv::verbs;

constexpr std::uint32_t largest = 64U << 10U;
constexpr std::uint64_t far_away_ns = ~std::uint64_t{0} >> 1U;

/// One server and one client, each with a buffer that all descriptors name.
struct world {
  simulated_network network{{}};
  std::unique_ptr<fabric> server = network.create_node();
  std::unique_ptr<fabric> host = network.create_node();
  std::vector<std::byte> buffer = std::vector<std::byte>(largest);
  std::vector<std::byte> memory = std::vector<std::byte>(largest);
  std::unique_ptr<memory_region> local;
  std::unique_ptr<memory_region> remote;
  std::unique_ptr<dc_target> target;
  std::unique_ptr<dci_scheduler> pool;
  client_id client = 0;

  world() {
    must(server->register_memory(buffer, {}, local));
    must(host->register_memory(memory, {true, true}, remote));
    must(host->create_dc_target(1, target));
    must(dci_scheduler::create(*server, {}, pool));
    must(pool->attach(host->self(), target->number(), target->key(), client));
  }
  static void must(const status& outcome) {
    if (!outcome.ok())
      std::abort();
  }
};

void batch(benchmark::State& state) {
  const auto count = static_cast<std::uint64_t>(state.range(0));
  const auto bytes = static_cast<std::uint32_t>(state.range(1)) << 10U;
  world w;
  transfer one;
  one.local = {w.local->address(), bytes, w.local->lkey()};
  one.remote_address = w.remote->address();
  one.rkey = w.remote->rkey();
  one.deadline_ns = far_away_ns;
  std::vector<outcome> outcomes;
  outcomes.reserve(count);
  std::uint64_t runs = 0;
  for (auto _ : state) {
    outcomes.clear();
    for (one.cookie = 0; one.cookie < count; ++one.cookie)
      world::must(w.pool->submit(w.client, one));
    for (; outcomes.size() < count; ++runs) {
      w.pool->run(w.network.now_ns(), outcomes);
      w.network.settle();
    }
  }
  const auto batches = static_cast<double>(state.iterations());
  const auto facts = w.pool->statistics();
  if (facts.transfers_done != count * static_cast<std::uint64_t>(state.iterations()) ||
      facts.doorbells != w.network.statistics().doorbells)
    state.SkipWithError("not every transfer was done, or doorbells were rung that nobody counted");
  state.counters["doorbells"] = static_cast<double>(facts.doorbells) / batches;
  state.counters["completions"] = static_cast<double>(w.network.statistics().completions) / batches;
  state.counters["runs"] = static_cast<double>(runs) / batches;
}
BENCHMARK(batch)->ArgsProduct({{1, 16, 128, 1000}, {4, 16, 64}})->Iterations(50);

} // namespace
