#define CAF_SUITE bench

#include "bench/histogram.hpp"
#include "bench/replay.hpp"
#include "bench/trace.hpp"
#include "bench/value_pattern.hpp"
#include "bench/workload.hpp"
#include "test/unit/client/fake_rdma.hpp"
#include "test/unit/client/fake_server.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <random>
#include <unistd.h>
#include <zlib.h>

using namespace memkv;
using namespace memkv::bench;
using test::fake_frame;
using test::fake_server;

namespace {

using bytes = std::vector<std::byte>;

bytes value_of(std::uint64_t seed, std::size_t length) {
  bytes value(length);
  fill_value(seed, 0, value);
  return value;
}

struct file {
  std::string path = "bench_test." + std::to_string(::getpid()) + ".jsonl";
  explicit file(std::string_view text) { std::ofstream(path) << text; }
  ~file() { std::remove(path.c_str()); }
};

std::string line_of(std::uint64_t ms, const std::string& ids) {
  return R"({"timestamp": )" + std::to_string(ms) +
         R"(, "input_length": 600, "output_length": 5, "hash_ids": [)" + ids + "]}\n";
}

const std::string small_trace =
    line_of(0, "1, 2, 3") + line_of(10, "1, 2, 4") + line_of(70'000, "5, 3") + line_of(80'000, "1, 2, 3, 6");

client::options options_of(const fake_server& server) {
  client::options chosen;
  chosen.servers = {server.address()};
  chosen.transport = client::transport_choice::tcp;
  chosen.auth_key = wire::shared_key::parse(fake_server::default_key);
  chosen.num_connections = 2;
  return chosen;
}

struct pair {
  fake_server server;
  std::unique_ptr<client::client> kv;
  pair() {
    server.start();
    client::status problem;
    kv = client::client::make(options_of(server), problem);
    CAF_REQUIRE(kv != nullptr);
  }
};

} // namespace

CAF_TEST(a quantile is never below the true one and at most a sixty fourth above) {
  std::mt19937_64 random(1);
  histogram counted;
  std::vector<std::uint64_t> values;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t value = random() >> (24 + random() % 40);
    values.push_back(value);
    counted.record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double fraction : {0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::max(1.0, fraction * 100'000.0 + 0.9999999));
    const std::uint64_t exact = values[std::min<std::size_t>(rank, values.size()) - 1];
    const std::uint64_t told = counted.quantile_ns(fraction);
    CAF_CHECK_GREATER_OR_EQUAL(told, exact);
    CAF_CHECK_LESS_OR_EQUAL(told, exact + exact / 64 + 1);
  }
  CAF_CHECK_EQUAL(counted.max_ns(), values.back());
  CAF_CHECK_EQUAL(counted.count(), values.size());
}

CAF_TEST(histograms add up and forgive values beyond their range) {
  histogram a;
  histogram b;
  CAF_CHECK_EQUAL(a.quantile_ns(0.5), 0u);
  a.record(10);
  b.record(~std::uint64_t{0});
  a.add(b);
  CAF_CHECK_EQUAL(a.count(), 2u);
  CAF_CHECK_EQUAL(a.quantile_ns(0.5), 10u);
  CAF_CHECK_EQUAL(a.max_ns(), histogram::value_ns_max - 1);
}

CAF_TEST(any range of a value is the same bytes as in the whole) {
  const bytes whole = value_of(77, 50'000);
  for (const auto& [offset, length] :
       {std::pair{0, 1}, {4095, 2}, {4096, 4096}, {123, 40'000}, {49'999, 1}}) {
    bytes part(static_cast<std::size_t>(length));
    fill_value(77, static_cast<std::uint64_t>(offset), part);
    CAF_CHECK(std::equal(part.begin(), part.end(), whole.begin() + offset));
    CAF_CHECK(matches_value(77, static_cast<std::uint64_t>(offset), part));
  }
}

CAF_TEST(a flipped bit and another place or key or seed are all noticed) {
  bytes value = value_of(5, 20'000);
  CAF_CHECK(matches_value(5, 0, value));
  CAF_CHECK(!matches_value(6, 0, value));
  CAF_CHECK(!matches_value(5, 4096, value));
  for (const std::size_t at : {0U, 4095U, 4096U, 19'999U}) {
    value[at] ^= std::byte{1};
    CAF_CHECK(!matches_value(5, 0, value));
    value[at] ^= std::byte{1};
  }
  CAF_CHECK_NOT_EQUAL(value_seed(1, "a"), value_seed(1, "b"));
  CAF_CHECK_NOT_EQUAL(value_seed(1, "a"), value_seed(2, "a"));
  CAF_CHECK_NOT_EQUAL(value_seed(1, std::string(8, '\0')), value_seed(1, std::string(9, '\0')));
}

CAF_TEST(a trace is read plain or packed and may be cut) {
  const file plain(small_trace);
  trace read;
  CAF_CHECK_EQUAL(read_trace(plain.path, 0, read), "");
  CAF_CHECK_EQUAL(read.requests.size(), 4u);
  CAF_CHECK_EQUAL(read.references, 12u);
  CAF_CHECK_EQUAL(read.unique_blocks, 6u);
  // 1 2 of the second; of the third nothing, as 5 is new; 1 2 3 of the last.
  CAF_CHECK_EQUAL(ideal_hits(read), 5u);
  CAF_CHECK_EQUAL(read_trace(plain.path, 1, read), "");
  CAF_CHECK_EQUAL(read.requests.size(), 2u);
  CAF_CHECK_EQUAL(ideal_hits(read), 2u);
  const std::string packed = plain.path + ".gz";
  const gzFile target = gzopen(packed.c_str(), "wb");
  gzwrite(target, small_trace.data(), static_cast<unsigned>(small_trace.size()));
  gzclose(target);
  CAF_CHECK_EQUAL(read_trace(packed, 0, read), "");
  CAF_CHECK_EQUAL(read.requests.size(), 4u);
  std::remove(packed.c_str());
}

CAF_TEST(a trace that is wrong is refused with its line) {
  trace read;
  CAF_CHECK_EQUAL(read_trace("no/such/trace", 0, read),
                  "no/such/trace: the trace cannot be opened: check its path and permissions");
  const auto refused = [&](const std::string& text) {
    const file written(text);
    const std::string problem = read_trace(written.path, 0, read);
    return problem.substr(std::min(problem.size(), written.path.size()));
  };
  CAF_CHECK_EQUAL(refused(""), ": the trace has no requests");
  CAF_CHECK_EQUAL(refused(line_of(0, "1") + "nonsense\n"), ":2: a line must be a JSON object");
  CAF_CHECK_EQUAL(refused(line_of(5, "1") + line_of(4, "1")), ":2: the time goes backwards");
  CAF_CHECK_EQUAL(refused(line_of(0, "-1")), ":1: hash_ids must hold whole numbers from 0 on");
  CAF_CHECK_EQUAL(refused("{\"timestamp\": 1.5}\n"), ":1: timestamp must be a whole number from 0 on");
  CAF_CHECK_EQUAL(refused("{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}\n"),
                  ":1: hash_ids must be a list");
}

CAF_TEST(a replay finds the ideal hits and its second pass every block) {
  pair one;
  const file written(small_trace);
  trace requests;
  CAF_REQUIRE_EQUAL(read_trace(written.path, 0, requests), "");
  const replay_options chosen{.block_bytes = 70'000};
  const replay_result first = replay_trace(*one.kv, requests, chosen);
  CAF_CHECK(first.sound());
  CAF_CHECK_EQUAL(first.hits, ideal_hits(requests));
  CAF_CHECK_EQUAL(one.server.blocks(), 6u);
  const replay_result second = read_stored(*one.kv, requests, chosen);
  CAF_CHECK_EQUAL(second.references, 6u);
  CAF_CHECK_EQUAL(second.hits, 6u);
  one.server.stop();
  const replay_result down = read_stored(*one.kv, requests, chosen);
  CAF_CHECK(!down.sound());
  CAF_CHECK_EQUAL(down.hits, 0u);
}

CAF_TEST(a replay with other values counts wrong bytes) {
  pair one;
  const file written(small_trace);
  trace requests;
  CAF_REQUIRE_EQUAL(read_trace(written.path, 0, requests), "");
  CAF_CHECK(replay_trace(*one.kv, requests, {.block_bytes = 1000, .seed = 1}).sound());
  const replay_result other = read_stored(*one.kv, requests, {.block_bytes = 1000, .seed = 2});
  CAF_CHECK_EQUAL(other.verify_failures, 6u);
  CAF_CHECK_EQUAL(other.hits, 0u);
}

CAF_TEST(eviction orders are compared without a server) {
  const file written(small_trace);
  trace requests;
  CAF_REQUIRE_EQUAL(read_trace(written.path, 0, requests), "");
  simulation_result result;
  for (const char* policy : {"fifo", "lru", "sieve", "slru"}) {
    CAF_CHECK_EQUAL(simulate(requests, policy, 1.0, result), "");
    CAF_CHECK_EQUAL(result.hits, ideal_hits(requests));
    CAF_CHECK_EQUAL(result.written, requests.unique_blocks);
    CAF_CHECK_EQUAL(simulate(requests, policy, 0.34, result), "");
    CAF_CHECK_EQUAL(result.capacity_blocks, 2u);
    CAF_CHECK_LESS(result.hits, ideal_hits(requests));
  }
  CAF_CHECK_NOT_EQUAL(simulate(requests, "random", 1.0, result), "");
}

CAF_TEST(a run counts items and bytes and hits in each way of asking) {
  for (const workload_op op :
       {workload_op::put, workload_op::get, workload_op::exists, workload_op::mixed, workload_op::prefix}) {
    for (const std::uint32_t depth : {1U, 4U}) {
      pair one;
      workload wanted;
      wanted.op = op;
      wanted.block_bytes = 5000;
      wanted.ops = 240;
      wanted.threads = 3;
      wanted.depth = depth;
      wanted.batch = 4;
      wanted.keys = 30;
      wanted.verify = true;
      workload_result result;
      CAF_CHECK_EQUAL(run_workload(*one.kv, 2, wanted, result), "");
      CAF_CHECK(result.sound());
      CAF_CHECK_EQUAL(result.ops, 240u);
      CAF_CHECK_EQUAL(result.latency.count(), 60u);
      CAF_CHECK_EQUAL(result.misses, 0u);
      const bool moves = op != workload_op::exists && op != workload_op::prefix;
      CAF_CHECK_EQUAL(result.bytes, moves ? 240u * 5000u : 0u);
      if (op != workload_op::put && op != workload_op::mixed) {
        CAF_CHECK_EQUAL(result.hits, 240u);
      }
    }
  }
}

CAF_TEST(a run over RDMA says so and its values lie in registered memory) {
  test::shared_network network;
  verbs::simulated_node_options node;
  node.name = "server";
  test::fake_rdma rdma(network, node);
  pair one;
  one.server.rdma = &rdma;
  client::options chosen = options_of(one.server);
  chosen.transport = client::transport_choice::rdma;
  chosen.rdma_devices = {"sim0"};
  chosen.rdma_messages = true;
  chosen.open_fabric = [&](const std::string& name, std::unique_ptr<verbs::fabric>& made) {
    node.name = name;
    made = network.create_node(node);
    return client::status{};
  };
  client::status problem;
  one.kv = client::client::make(std::move(chosen), problem);
  CAF_REQUIRE_EQUAL(problem.text, "");
  workload wanted;
  wanted.op = workload_op::get;
  wanted.block_bytes = 5000;
  wanted.ops = 40;
  wanted.depth = 2;
  wanted.batch = 4;
  wanted.keys = 30;
  wanted.verify = true;
  workload_result result;
  CAF_CHECK_EQUAL(run_workload(*one.kv, 2, wanted, result), "");
  CAF_CHECK(result.sound());
  CAF_CHECK_EQUAL(result.transport(), "rdma+messages");
  CAF_CHECK_EQUAL(result.rdma_bytes, result.bytes);
  CAF_CHECK_NOT_EQUAL(json_of({result}).find("\"transport\": \"rdma+messages\""), std::string::npos);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_put), 0u);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_batch_put), 0u);
  one.kv.reset();
  one.server.stop();
}

CAF_TEST(no figures are shown for a run whose bytes were wrong) {
  pair one;
  workload wanted;
  wanted.op = workload_op::put;
  wanted.block_bytes = 40'000;
  wanted.ops = 8;
  wanted.threads = 1;
  wanted.keys = 8;
  wanted.verify = true;
  workload_result result;
  CAF_CHECK_EQUAL(run_workload(*one.kv, 2, wanted, result), "");
  CAF_CHECK(result.sound());
  // A server that answers, correctly signed, with bytes of its own.
  one.server.shape = [](fake_frame& frame) {
    if (!frame.payload.empty()) {
      frame.payload[100] ^= std::byte{1};
    }
  };
  wanted.op = workload_op::get;
  CAF_CHECK_EQUAL(run_workload(*one.kv, 2, wanted, result), "");
  CAF_CHECK(!result.sound());
  CAF_CHECK_EQUAL(result.verify_failures, 8u);
  CAF_CHECK_NOT_EQUAL(table_line(result).find("no figures"), std::string::npos);
  CAF_CHECK_NOT_EQUAL(json_of({result}).find("\"gib_per_s\": null"), std::string::npos);
}

CAF_TEST(the document has exactly the promised members in order) {
  workload_result result;
  result.latency.record(1'500'000);
  result.seconds = 1;
  const std::string text = json_of({result});
  std::size_t at = 0;
  for (const char* key : {"runs",           "op",           "transport", "block_size", "threads",
                          "connections",    "depth",        "batch",     "ops",        "bytes",
                          "rdma_bytes",     "staged_bytes", "messages",  "seconds",    "gib_per_s",
                          "ops_per_s",      "latency_us",   "p50",       "p90",        "p99",
                          "p999",           "max",          "hits",      "misses",     "errors",
                          "verify_failures"}) {
    const std::size_t found = text.find("\"" + std::string(key) + "\":", at);
    CAF_CHECK_NOT_EQUAL(found, std::string::npos);
    at = found == std::string::npos ? at : found;
  }
  CAF_CHECK_EQUAL(std::count(text.begin(), text.end(), ':'), 26);
}
