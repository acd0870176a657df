// memkv-bench: measures servers, and replays traces of LLM inference against them. Its command line is one
// table, below.
#include "bench/replay.hpp"
#include "bench/trace.hpp"
#include "bench/workload.hpp"
#include "cli/command_line.hpp"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <optional>

namespace memkv::bench {
namespace {

using cli::argument;
using cli::command;
using cli::flag;
using cli::value_kind;

constexpr flag servers_flag{.name = "servers",
                            .letter = 's',
                            .kind = value_kind::text,
                            .value_name = "LIST",
                            .default_text = "MEMKV_SERVERS, else 127.0.0.1:9900",
                            .help = "Servers as host:port, with commas between."};
constexpr flag transport_flag{.name = "transport",
                              .kind = value_kind::text,
                              .value_name = "NAME",
                              .default_text = "tcp",
                              .default_is_value = true,
                              .help = "tcp, auto or rdma, which needs MEMKV_RDMA_DEVICES."};
constexpr flag namespace_flag{.name = "namespace",
                              .letter = 'n',
                              .kind = value_kind::text,
                              .value_name = "NAME",
                              .default_text = "the default one",
                              .help = "Namespace (tenant) of the keys."};
constexpr flag threads_flag{.name = "threads",
                            .kind = value_kind::integer,
                            .value_name = "N",
                            .default_text = "2",
                            .default_is_value = true,
                            .least = 1,
                            .help = "Threads that ask."};
constexpr flag connections_flag{.name = "connections",
                                .kind = value_kind::integer,
                                .value_name = "N",
                                .default_text = "2",
                                .default_is_value = true,
                                .least = 1,
                                .help = "Connections to each server."};
constexpr flag seed_flag{.name = "seed",
                         .kind = value_kind::integer,
                         .value_name = "N",
                         .default_text = "1",
                         .default_is_value = true,
                         .help = "Chooses keys, values and their order."};
constexpr flag verify_flag{.name = "verify",
                           .help = "Compares every byte that comes back with what must be there."};
constexpr flag json_flag{.name = "json",
                         .kind = value_kind::path,
                         .value_name = "FILE",
                         .help = "Writes the results there as JSON too."};
constexpr flag deadline_flag{.name = "deadline-ms",
                             .kind = value_kind::integer,
                             .value_name = "MS",
                             .default_text = "30000",
                             .default_is_value = true,
                             .help = "Time for each call."};

constexpr std::array<flag, 11> sweep_flags{{servers_flag,
                                            transport_flag,
                                            namespace_flag,
                                            threads_flag,
                                            connections_flag,
                                            {.name = "depth",
                                             .kind = value_kind::integer,
                                             .value_name = "N",
                                             .default_text = "1",
                                             .default_is_value = true,
                                             .least = 1,
                                             .help = "Calls in flight of each thread."},
                                            {.name = "duration",
                                             .kind = value_kind::integer,
                                             .value_name = "SEC",
                                             .default_text = "2",
                                             .default_is_value = true,
                                             .least = 1,
                                             .help = "Seconds for each line of the table."},
                                            {.name = "data",
                                             .kind = value_kind::size,
                                             .value_name = "SIZE",
                                             .default_text = "256 MiB",
                                             .default_is_value = true,
                                             .help = "Bytes of different blocks of each size."},
                                            seed_flag,
                                            verify_flag,
                                            json_flag}};

constexpr std::array<flag, 17> run_flags{
    {servers_flag,
     transport_flag,
     namespace_flag,
     {.name = "op",
      .kind = value_kind::text,
      .value_name = "NAME",
      .default_text = "get",
      .default_is_value = true,
      .help = "put, get, exists, mixed (one put to four gets) or prefix."},
     {.name = "block-size",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .default_text = "1 MiB",
      .default_is_value = true,
      .help = "Bytes of a block."},
     {.name = "ops",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "by time",
      .help = "Number of items, of all threads together."},
     {.name = "duration",
      .kind = value_kind::integer,
      .value_name = "SEC",
      .default_text = "5",
      .default_is_value = true,
      .least = 1,
      .help = "Seconds to run, when --ops is not given."},
     threads_flag,
     connections_flag,
     {.name = "depth",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "1",
      .default_is_value = true,
      .least = 1,
      .help = "Calls in flight of each thread."},
     {.name = "batch",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "1",
      .default_is_value = true,
      .least = 1,
      .help = "Items of a call."},
     {.name = "keys",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "256 MiB of blocks",
      .least = 1,
      .help = "Different blocks."},
     {.name = "no-preload", .help = "Does not store the blocks that the run reads first."},
     deadline_flag,
     seed_flag,
     verify_flag,
     json_flag}};

constexpr std::array<flag, 15> replay_flags{
    {servers_flag,
     transport_flag,
     namespace_flag,
     connections_flag,
     {.name = "bytes-per-token",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .default_text = "128",
      .default_is_value = true,
      .help = "A block has 512 times as many bytes. 128 KiB is what an 8B model in bf16 needs."},
     {.name = "speed",
      .kind = value_kind::text,
      .value_name = "FACTOR",
      .default_text = "0",
      .default_is_value = true,
      .help = "1 replays in the trace's own time, 10 ten times as fast, 0 as fast as possible."},
     {.name = "minutes",
      .kind = value_kind::text,
      .value_name = "N",
      .default_text = "all",
      .help = "Only the first N minutes of the trace."},
     {.name = "expect",
      .kind = value_kind::text,
      .value_name = "WHAT",
      .help =
          "ideal: the hits must be those of a store that never forgets. stored: every block must be a hit. "
          "Any other number fails."},
     {.name = "pass",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "1",
      .default_is_value = true,
      .least = 1,
      .help = "1 replays the requests; 2 reads every block that they stored, for example after a restart."},
     {.name = "policy",
      .kind = value_kind::text,
      .value_name = "LIST",
      .help =
          "Compares eviction orders without a server: fifo, lru, sieve, slru, with commas between, or all."},
     {.name = "capacity",
      .kind = value_kind::text,
      .value_name = "LIST",
      .default_text = "0.05,0.1",
      .default_is_value = true,
      .help = "With --policy: shares of the trace's different blocks that the store holds."},
     deadline_flag,
     seed_flag,
     {.name = "no-verify",
      .help = "Does not compare the bytes that come back; lengths and checksums are always checked."},
     json_flag}};

constexpr std::array<argument, 1> replay_arguments{
    {{.name = "TRACE",
      .help = "JSON lines with timestamp, input_length, output_length and hash_ids; may be gzipped."}}};

constexpr std::array<command, 3> commands{
    {{.name = "sweep",
      .summary = "Measure put, get and exists from 4 KiB to 16 MiB",
      .text = "Prints one line for each operation and block size.",
      .flags = sweep_flags},
     {.name = "run",
      .summary = "Measure one operation",
      .text = "Prints one line. No figures are printed when an operation failed or a byte was wrong, and "
              "then the exit "
              "code is 1.",
      .flags = run_flags},
     {.name = "replay",
      .summary = "Replay a trace of LLM requests",
      .text = "Asks for the leading blocks of each request, fetches those that are there, stores the others, "
              "and counts "
              "hits. With --policy it simulates eviction orders instead and needs no server.",
      .flags = replay_flags,
      .arguments = replay_arguments}}};

constexpr command root{
    .name = "memkv-bench",
    .summary = "Measures memkv servers",
    .text = "The authentication key comes from MEMKV_AUTH_KEY or from the file that MEMKV_CONFIG names.",
    .commands = commands};

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv-bench: %s\n", sentence.c_str());
  return 1;
}

/// A client as the flags say; why not in `problem`.
std::unique_ptr<client::client> make_client(const cli::parsed& line, std::uint32_t connections,
                                            std::string& problem) {
  client::options chosen;
  if (const client::status loaded =
          client::load_options([](const char* name) { return std::getenv(name); }, chosen);
      !loaded.ok()) {
    problem = loaded.text;
    return nullptr;
  }
  if (line.given("servers")) {
    chosen.servers = client::split_list(line.text("servers"));
  } else if (chosen.servers.empty()) {
    chosen.servers = {"127.0.0.1:9900"};
  }
  if (line.given("namespace")) {
    chosen.namespace_name = line.text("namespace");
  }
  const std::string transport = line.text("transport");
  if (transport != "tcp" && transport != "auto" && transport != "rdma") {
    problem = "--transport must be tcp, auto or rdma";
    return nullptr;
  }
  chosen.transport = transport == "rdma"   ? client::transport_choice::rdma
                     : transport == "auto" ? client::transport_choice::automatic
                                           : client::transport_choice::tcp;
  chosen.num_connections = connections;
  if (const auto deadline_ms = line.number("deadline-ms")) {
    chosen.deadline_ms = static_cast<std::uint32_t>(std::min<std::uint64_t>(*deadline_ms, UINT32_MAX));
  }
  client::status refused;
  auto made = client::client::make(std::move(chosen), refused);
  problem = refused.text;
  return made;
}

/// A number of at least one from a flag.
std::string read_count(const cli::parsed& line, const char* name, std::uint32_t most, std::uint32_t& target) {
  const std::uint64_t number = line.number(name).value_or(1);
  if (number == 0 || number > most) {
    return "--" + std::string(name) + " must be from 1 to " + std::to_string(most);
  }
  target = static_cast<std::uint32_t>(number);
  return {};
}

std::string write_json(const cli::parsed& line, const std::string& document) {
  if (!line.has("json")) {
    return {};
  }
  std::ofstream file(line.text("json"), std::ios::binary | std::ios::trunc);
  file << document;
  file.close();
  return file ? std::string() : line.text("json") + ": the file cannot be written";
}

/// The sentence about an error, behind the name of the server when it can be only one.
std::string explain(const client::client& kv, client::errc code) {
  const std::string text(sentence(code));
  return is_of_a_server(code) && kv.servers().size() == 1 ? kv.servers().front() + ": " + text : text;
}

/// Measures, prints, collects. Returns whether the run was sound.
bool measure(client::client& kv, std::uint32_t connections, const workload& wanted,
             std::vector<workload_result>& results, std::string& problem) {
  workload_result& result = results.emplace_back();
  problem = run_workload(kv, connections, wanted, result);
  if (!problem.empty()) {
    results.pop_back();
    return false;
  }
  std::printf("%s\n", table_line(result).c_str());
  std::fflush(stdout);
  if (result.first_error != client::errc::ok) {
    refuse(explain(kv, result.first_error));
  }
  if (result.verify_failures != 0) {
    refuse("bytes came back that are not those that were stored");
  }
  return result.sound();
}

int sweep(const cli::parsed& line) {
  workload wanted;
  std::uint32_t connections = 0;
  std::uint32_t seconds = 0;
  for (const std::string& problem :
       {read_count(line, "threads", 1024, wanted.threads), read_count(line, "connections", 256, connections),
        read_count(line, "depth", 1024, wanted.depth), read_count(line, "duration", 86'400, seconds)}) {
    if (!problem.empty()) {
      return refuse(problem);
    }
  }
  wanted.seconds = seconds;
  wanted.seed = line.number("seed").value_or(1);
  wanted.verify = line.has("verify");
  const std::uint64_t data_bytes = line.number("data").value_or(256U << 20U);
  std::string problem;
  const auto kv = make_client(line, connections, problem);
  if (!kv) {
    return refuse(problem);
  }
  std::vector<workload_result> results;
  bool sound = true;
  std::printf("%s\n", table_heading().c_str());
  for (std::uint64_t block_bytes = 4096; block_bytes <= 16U << 20U; block_bytes *= 4) {
    wanted.block_bytes = block_bytes;
    wanted.keys = std::clamp<std::uint64_t>(data_bytes / block_bytes, 1, 1U << 20U);
    for (const workload_op op : {workload_op::put, workload_op::get, workload_op::exists}) {
      wanted.op = op;
      wanted.batch = op == workload_op::exists ? 64 : 1;
      sound = measure(*kv, connections, wanted, results, problem) && sound;
      if (!problem.empty()) {
        return refuse(problem);
      }
    }
  }
  if (problem = write_json(line, json_of(results)); !problem.empty()) {
    return refuse(problem);
  }
  return sound ? 0 : 1;
}

int run(const cli::parsed& line) {
  workload wanted;
  std::uint32_t connections = 0;
  std::uint32_t seconds = 0;
  for (const std::string& problem :
       {read_count(line, "threads", 1024, wanted.threads), read_count(line, "connections", 256, connections),
        read_count(line, "depth", 1024, wanted.depth), read_count(line, "batch", 65'536, wanted.batch),
        read_count(line, "duration", 86'400, seconds)}) {
    if (!problem.empty()) {
      return refuse(problem);
    }
  }
  const std::string op = line.text("op");
  bool known = false;
  for (const workload_op candidate :
       {workload_op::put, workload_op::get, workload_op::exists, workload_op::mixed, workload_op::prefix}) {
    if (op == name(candidate)) {
      wanted.op = candidate;
      known = true;
    }
  }
  if (!known) {
    return refuse("--op must be put, get, exists, mixed or prefix, not '" + op + "'");
  }
  wanted.block_bytes = line.number("block-size").value_or(1U << 20U);
  if (wanted.block_bytes > 1U << 30U) {
    return refuse("--block-size is at most 1 GiB");
  }
  wanted.keys = line.number("keys").value_or(
      std::max<std::uint64_t>(1, (256U << 20U) / std::max<std::uint64_t>(1, wanted.block_bytes)));
  if (wanted.keys == 0) {
    return refuse("--keys must be at least 1");
  }
  wanted.ops = line.number("ops").value_or(0);
  wanted.seconds = seconds;
  wanted.seed = line.number("seed").value_or(1);
  wanted.verify = line.has("verify");
  wanted.preload = !line.has("no-preload");
  std::string problem;
  const auto kv = make_client(line, connections, problem);
  if (!kv) {
    return refuse(problem);
  }
  std::vector<workload_result> results;
  std::printf("%s\n", table_heading().c_str());
  const bool sound = measure(*kv, connections, wanted, results, problem);
  if (problem.empty()) {
    problem = write_json(line, json_of(results));
  }
  if (!problem.empty()) {
    return refuse(problem);
  }
  return sound ? 0 : 1;
}

std::optional<double> number_of(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return text.empty() || *end != '\0' || !(number >= 0) ? std::nullopt : std::optional(number);
}

int simulate_policies(const cli::parsed& line, const trace& requests) {
  std::vector<std::string> policies = client::split_list(line.text("policy"));
  if (policies == std::vector<std::string>{"all"}) {
    policies = {"fifo", "lru", "sieve", "slru"};
  }
  const std::uint64_t ideal = ideal_hits(requests);
  std::printf("%-8s %9s %10s %10s %9s %9s\n", "policy", "capacity", "blocks", "hits", "hit ratio", "written");
  std::string runs;
  for (const std::string& share_text : client::split_list(line.text("capacity"))) {
    const std::optional<double> share = number_of(share_text);
    if (!share || *share <= 0 || *share > 1) {
      return refuse("--capacity takes shares above 0 and up to 1, not '" + share_text + "'");
    }
    for (const std::string& policy : policies) {
      simulation_result result;
      if (const std::string problem = simulate(requests, policy, *share, result); !problem.empty()) {
        return refuse(problem);
      }
      const double ratio = static_cast<double>(result.hits) / static_cast<double>(result.references);
      std::printf("%-8s %8.1f%% %10" PRIu64 " %10" PRIu64 " %9.4f %9" PRIu64 "\n", policy.c_str(),
                  *share * 100, result.capacity_blocks, result.hits, ratio, result.written);
      char run[256];
      std::snprintf(run, sizeof run,
                    "%s\n    {\"policy\": \"%s\", \"capacity\": %g, \"blocks\": %" PRIu64
                    ", \"hits\": %" PRIu64 ", \"references\": %" PRIu64
                    ", \"hit_ratio\": %.6f, \"written\": %" PRIu64 "}",
                    runs.empty() ? "" : ",", policy.c_str(), *share, result.capacity_blocks, result.hits,
                    result.references, ratio, result.written);
      runs += run;
    }
  }
  std::printf("a store that never forgets: %" PRIu64 " hits of %" PRIu64 " (%.4f)\n", ideal,
              requests.references, static_cast<double>(ideal) / static_cast<double>(requests.references));
  const std::string problem = write_json(line, "{\n  \"simulations\": [" + runs + "\n  ]\n}\n");
  return problem.empty() ? 0 : refuse(problem);
}

int replay(const cli::parsed& line) {
  double minutes = 0;
  if (line.given("minutes")) {
    const std::optional<double> number = number_of(line.text("minutes"));
    if (!number) {
      return refuse("--minutes must be a number");
    }
    minutes = *number;
  }
  trace requests;
  if (const std::string problem = read_trace(line.text("TRACE"), minutes, requests); !problem.empty()) {
    return refuse(problem);
  }
  if (line.given("policy")) {
    return simulate_policies(line, requests);
  }
  const std::string expected_kind = line.text("expect");
  const std::uint64_t pass = line.number("pass").value_or(1);
  if (!expected_kind.empty() && expected_kind != "ideal" && expected_kind != "stored") {
    return refuse("--expect must be ideal or stored");
  }
  if (pass != 1 && pass != 2) {
    return refuse("--pass must be 1 or 2");
  }
  if ((expected_kind == "stored" && pass != 2) || (expected_kind == "ideal" && pass != 1)) {
    return refuse("--expect ideal goes with pass 1 and --expect stored with pass 2");
  }
  const std::optional<double> speed = number_of(line.text("speed"));
  if (!speed) {
    return refuse("--speed must be a number from 0 on");
  }
  replay_options chosen;
  chosen.speed = *speed;
  chosen.block_bytes = line.number("bytes-per-token").value_or(128) * tokens_per_block;
  if (chosen.block_bytes == 0 || chosen.block_bytes > 1U << 30U) {
    return refuse("--bytes-per-token must make blocks of at most 1 GiB");
  }
  chosen.seed = line.number("seed").value_or(1);
  chosen.verify = !line.has("no-verify");
  std::uint32_t connections = 0;
  std::string problem = read_count(line, "connections", 256, connections);
  const auto kv = problem.empty() ? make_client(line, connections, problem) : nullptr;
  if (!kv) {
    return refuse(problem);
  }
  const replay_result result =
      pass == 1 ? replay_trace(*kv, requests, chosen) : read_stored(*kv, requests, chosen);
  std::printf("requests %" PRIu64 ", blocks %" PRIu64 " of %" PRIu64 " bytes, hits %" PRIu64
              ", stored %" PRIu64 ", errors %" PRIu64 ", wrong %" PRIu64 "\n",
              result.requests, result.references, chosen.block_bytes, result.hits, result.stored,
              result.errors, result.verify_failures);
  int code = result.sound() ? 0 : 1;
  if (result.first_error != client::errc::ok) {
    refuse(explain(*kv, result.first_error));
  }
  if (result.verify_failures != 0) {
    refuse("bytes came back that are not those that were stored");
  }
  if (!expected_kind.empty()) {
    const std::uint64_t expected = expected_kind == "ideal" ? ideal_hits(requests) : result.references;
    std::printf("expected hits %" PRIu64 " (%s): %s\n", expected, expected_kind.c_str(),
                result.hits == expected ? "met" : "NOT met");
    code = result.hits == expected ? code : 1;
  }
  if (code == 0) {
    const double mebi = 1024.0 * 1024.0;
    std::printf(
        "hit ratio %.4f, read %.1f MiB, wrote %.1f MiB in %.2f s; a request: p50 %.1f ms, p99 %.1f ms\n",
        result.references == 0 ? 0.0
                               : static_cast<double>(result.hits) / static_cast<double>(result.references),
        static_cast<double>(result.bytes_read) / mebi, static_cast<double>(result.bytes_written) / mebi,
        result.seconds, static_cast<double>(result.request_latency.quantile_ns(0.5)) / 1e6,
        static_cast<double>(result.request_latency.quantile_ns(0.99)) / 1e6);
    if (result.late_seconds_max > 0) {
      std::printf("at most %.2f s behind the trace\n", result.late_seconds_max);
    }
  }
  workload_result run;
  run.op = pass == 1 ? workload_op::mixed : workload_op::get;
  run.block_bytes = chosen.block_bytes;
  run.threads = 1;
  run.connections = connections;
  run.depth = 1;
  run.batch = 1;
  run.ops = result.references;
  run.bytes = result.bytes_read + result.bytes_written;
  run.seconds = result.seconds;
  run.latency = result.request_latency;
  run.hits = result.hits;
  run.misses = result.references - result.hits;
  run.errors = result.errors;
  run.verify_failures = result.verify_failures;
  if (problem = write_json(line, json_of({run})); !problem.empty()) {
    return refuse(problem);
  }
  return code;
}

int dispatch(const std::vector<std::string>& words) {
  const cli::parse_result parsed = cli::parse(root, words);
  if (!parsed.ok()) {
    return refuse(parsed.error);
  }
  if (parsed.line.wants_help || parsed.line.path.empty()) {
    const std::string text = cli::help_text(root, parsed.line.path);
    std::fwrite(text.data(), 1, text.size(), parsed.line.wants_help ? stdout : stderr);
    return parsed.line.wants_help ? 0 : 1;
  }
  const std::string& name = parsed.line.path.front();
  return name == "sweep" ? sweep(parsed.line) : name == "run" ? run(parsed.line) : replay(parsed.line);
}

} // namespace
} // namespace memkv::bench

int main(int count, char** words) {
  try {
    return memkv::bench::dispatch({words + 1, words + count});
  } catch (const std::exception& problem) {
    return memkv::bench::refuse(std::string("ended by an unexpected problem: ") + problem.what());
  }
}
