#include "bench/workload.hpp"

#include "bench/value_pattern.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <random>
#include <span>
#include <thread>

namespace memkv::bench {
namespace {

using client::errc;
using client::item_result;
using clock = std::chrono::steady_clock;

constexpr std::uint32_t mixed_puts_percent = 20;
constexpr std::size_t preload_batch_bytes = 16U << 20U;

std::string key_of(const workload& wanted, std::uint64_t number) {
  return std::string("bench/") + (wanted.verify ? "v/" : "p/") + std::to_string(wanted.seed) + "/" +
         std::to_string(wanted.block_bytes) + "/" + std::to_string(number);
}

std::uint64_t plain_seed(const workload& wanted) {
  return value_seed(wanted.seed, "plain");
}

std::string register_with(client::client& kv, std::span<std::byte> memory, client::registered_memory& out) {
  if (memory.empty()) {
    return {};
  }
  const client::status registered = kv.register_memory(memory, out);
  return registered.ok() ? std::string()
                         : "the memory of the values cannot be registered: " + registered.text;
}

/// One call in flight: its items, their memory and their results.
struct slot {
  workload_op op = workload_op::get;
  std::vector<std::string> keys;
  std::vector<std::string_view> views;
  std::vector<std::span<std::byte>> values;
  std::vector<client::put_item> puts;
  std::vector<client::get_item> gets;
  std::vector<item_result> results;
  client::prefix_result prefix;
  clock::time_point begin;
};

class worker {
public:
  worker(client::client& kv, const workload& wanted, std::uint32_t number,
         std::atomic<std::uint64_t>& ops_left)
      : kv_(kv), wanted_(wanted), number_(number), ops_left_(ops_left), random_(wanted.seed * 7919 + number) {
    slots_.resize(wanted.depth);
    if (moves_values(wanted.op)) {
      memory_.resize(std::size_t{wanted.depth} * wanted.batch * wanted.block_bytes);
    }
    std::span<std::byte> left(memory_);
    for (slot& one : slots_) {
      one.keys.resize(wanted.batch);
      one.views.resize(wanted.batch);
      one.results.resize(wanted.batch);
      one.puts.resize(wanted.batch);
      one.gets.resize(wanted.batch);
      if (moves_values(wanted.op)) {
        for (std::uint32_t i = 0; i < wanted.batch; ++i) {
          one.values.push_back(left.first(wanted.block_bytes));
          left = left.subspan(wanted.block_bytes);
          fill_value(plain_seed(wanted), 0, one.values.back());
        }
      }
      free_.push_back(&one);
    }
  }

  /// Empty, or why the memory of its values cannot be used over RDMA.
  [[nodiscard]] std::string register_memory() { return register_with(kv_, memory_, registered_); }

  void run(clock::time_point until) {
    until_ = until;
    if (wanted_.depth == 1) {
      while (prepare(slots_.front())) {
        call_and_wait(slots_.front());
        account(slots_.front());
      }
      return;
    }
    std::size_t in_flight = 0;
    bool more = true;
    while (more || in_flight > 0) {
      while (more && !free_.empty()) {
        slot* const next = free_.back();
        more = prepare(*next);
        if (!more) {
          break;
        }
        free_.pop_back();
        if (!submit(*next)) {
          ++result.errors;
          free_.push_back(next);
          more = false;
          break;
        }
        ++in_flight;
      }
      if (in_flight == 0) {
        break;
      }
      kv_.drive(1000);
      std::vector<slot*> done;
      {
        const std::lock_guard lock(mutex_);
        done.swap(done_);
      }
      for (slot* const one : done) {
        account(*one);
        free_.push_back(one);
        --in_flight;
      }
    }
  }

  workload_result result;

private:
  static bool moves_values(workload_op op) { return op != workload_op::exists && op != workload_op::prefix; }

  /// Chooses the items of the next call. False: the run is over.
  bool prepare(slot& next) {
    if (wanted_.ops != 0) {
      std::uint64_t left = ops_left_.load();
      do {
        if (left < wanted_.batch) {
          return false;
        }
      } while (!ops_left_.compare_exchange_weak(left, left - wanted_.batch));
    } else if (clock::now() >= until_) {
      return false;
    }
    next.op = wanted_.op;
    if (next.op == workload_op::mixed) {
      next.op = random_() % 100 < mixed_puts_percent ? workload_op::put : workload_op::get;
    }
    const std::uint64_t first = random_() % wanted_.keys;
    for (std::uint32_t i = 0; i < wanted_.batch; ++i) {
      // Puts walk through the keys, so that all come to be; reads jump.
      const std::uint64_t number = next.op == workload_op::put
                                       ? (number_ + position_++ * wanted_.threads) % wanted_.keys
                                   : next.op == workload_op::prefix ? i % wanted_.keys
                                                                    : (first + i) % wanted_.keys;
      next.keys[i] = key_of(wanted_, number);
      next.views[i] = next.keys[i];
      next.results[i] = {};
      if (next.op == workload_op::put) {
        if (wanted_.verify) {
          fill_value(value_seed(wanted_.seed, next.keys[i]), 0, next.values[i]);
        }
        next.puts[i] = {next.keys[i], next.values[i]};
      } else if (next.op == workload_op::get) {
        next.gets[i] = {next.keys[i], next.values[i]};
      }
    }
    next.begin = clock::now();
    return true;
  }

  void call_and_wait(slot& one) {
    switch (one.op) {
    case workload_op::put:
      kv_.put(one.puts, one.results);
      break;
    case workload_op::get:
      kv_.get(one.gets, one.results);
      break;
    case workload_op::prefix:
      one.prefix = kv_.prefix(one.views);
      break;
    default:
      kv_.exists(one.views, one.results);
      break;
    }
    record(one);
  }

  bool submit(slot& one) {
    client::completion done = client::completion::call([this, &one] {
      record(one);
      const std::lock_guard lock(mutex_);
      done_.push_back(&one);
    });
    switch (one.op) {
    case workload_op::put:
      return kv_.submit_put(one.puts, one.results, std::move(done)).ok();
    case workload_op::get:
      return kv_.submit_get(one.gets, one.results, std::move(done)).ok();
    case workload_op::prefix:
      return kv_.submit_prefix(one.views, one.prefix, {}, std::move(done)).ok();
    default:
      return kv_.submit_exists(one.views, one.results, std::move(done)).ok();
    }
  }

  void record(const slot& one) {
    const auto passed =
        std::chrono::duration_cast<std::chrono::nanoseconds>(clock::now() - one.begin).count();
    const std::lock_guard lock(latency_mutex_);
    result.latency.record(static_cast<std::uint64_t>(passed));
  }

  void fail(errc code) {
    ++result.errors;
    if (result.first_error == errc::ok) {
      result.first_error = code;
    }
  }

  void account(slot& one) {
    result.ops += wanted_.batch;
    if (one.op == workload_op::prefix) {
      if (one.prefix.code != errc::ok || one.prefix.cause != errc::ok) {
        fail(one.prefix.code != errc::ok ? one.prefix.code : one.prefix.cause);
      } else {
        result.hits += one.prefix.matched;
        result.misses += wanted_.batch - one.prefix.matched;
      }
      return;
    }
    for (std::uint32_t i = 0; i < wanted_.batch; ++i) {
      const item_result& item = one.results[i];
      if (item.code == errc::not_found && item.cause == errc::ok) {
        ++result.misses;
      } else if (item.code != errc::ok) {
        fail(item.code == errc::not_found ? item.cause : item.code);
      } else {
        if (one.op == workload_op::get) {
          const bool right =
              item.length == wanted_.block_bytes &&
              (!wanted_.verify || matches_value(value_seed(wanted_.seed, one.keys[i]), 0, one.values[i]));
          if (!right) {
            ++result.verify_failures;
            continue;
          }
          ++result.hits;
        } else if (one.op == workload_op::exists) {
          ++result.hits;
        }
        if (moves_values(one.op)) {
          result.bytes += wanted_.block_bytes;
        }
      }
    }
  }

  client::client& kv_;
  const workload& wanted_;
  std::uint32_t number_;
  std::atomic<std::uint64_t>& ops_left_;
  std::mt19937_64 random_;
  std::uint64_t position_ = 0;
  std::vector<std::byte> memory_; // of all values
  client::registered_memory registered_;
  std::vector<slot> slots_;
  std::vector<slot*> free_;
  clock::time_point until_;
  std::mutex mutex_;
  std::vector<slot*> done_; // mutex_
  std::mutex latency_mutex_;
};

/// Stores the blocks that are not there.
std::string preload(client::client& kv, const workload& wanted) {
  const std::uint64_t at_once =
      std::max<std::uint64_t>(1, preload_batch_bytes / std::max<std::uint64_t>(1, wanted.block_bytes));
  // One value for all blocks, or one for each of those that are stored at once.
  std::vector<std::byte> memory(wanted.block_bytes *
                                (wanted.verify ? std::min({at_once, wanted.keys, std::uint64_t{4096}}) : 1));
  client::registered_memory registered;
  if (std::string problem = register_with(kv, memory, registered); !problem.empty()) {
    return problem;
  }
  const auto value_at = [&](std::size_t i) {
    return std::span(memory).subspan(i * wanted.block_bytes, wanted.block_bytes);
  };
  if (!wanted.verify) {
    fill_value(plain_seed(wanted), 0, memory);
  }
  std::uint64_t count = 0;
  for (std::uint64_t first = 0; first < wanted.keys; first += count) {
    count = std::min({at_once, wanted.keys - first, std::uint64_t{4096}});
    std::vector<std::string> keys;
    for (std::uint64_t i = 0; i < count; ++i) {
      keys.push_back(key_of(wanted, first + i));
    }
    const std::vector<std::string_view> views(keys.begin(), keys.end());
    std::vector<item_result> results(count);
    kv.exists(views, results);
    std::vector<client::put_item> puts;
    for (std::uint64_t i = 0; i < count; ++i) {
      if (results[i].code == errc::ok && results[i].value_length == wanted.block_bytes) {
        continue;
      }
      const std::span<std::byte> value = value_at(wanted.verify ? puts.size() : 0);
      if (wanted.verify) {
        fill_value(value_seed(wanted.seed, keys[i]), 0, value);
      }
      puts.push_back({keys[i], value});
    }
    results.resize(puts.size());
    if (const errc code = kv.put(puts, results); code != errc::ok) {
      const auto failed =
          std::ranges::find_if(results, [](const item_result& result) { return result.code != errc::ok; });
      const bool one = failed != results.end();
      return "storing the blocks to be read failed: " +
             (one ? kv.explain(puts[static_cast<std::size_t>(failed - results.begin())].key, *failed)
                  : std::string(sentence(code)));
    }
  }
  return {};
}

} // namespace

const char* name(workload_op op) noexcept {
  switch (op) {
  case workload_op::put:
    return "put";
  case workload_op::get:
    return "get";
  case workload_op::exists:
    return "exists";
  case workload_op::mixed:
    return "mixed";
  case workload_op::prefix:
    return "prefix";
  }
  return "get";
}

std::string run_workload(client::client& kv, std::uint32_t connections, const workload& wanted,
                         workload_result& result) {
  if (wanted.preload && wanted.op != workload_op::put) {
    if (std::string problem = preload(kv, wanted); !problem.empty()) {
      return problem;
    }
  }
  std::atomic<std::uint64_t> ops_left{wanted.ops};
  std::vector<std::unique_ptr<worker>> workers;
  for (std::uint32_t i = 0; i < wanted.threads; ++i) {
    workers.push_back(std::make_unique<worker>(kv, wanted, i, ops_left));
    if (std::string problem = workers.back()->register_memory(); !problem.empty()) {
      return problem;
    }
  }
  const client::counters before = kv.count();
  std::atomic<bool> go{false};
  clock::time_point begin;
  clock::time_point until;
  std::vector<std::thread> threads;
  for (const auto& one : workers) {
    threads.emplace_back([&go, &until, &one] {
      go.wait(false);
      one->run(until);
    });
  }
  begin = clock::now();
  until = begin + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(wanted.seconds));
  go = true;
  go.notify_all();
  for (std::thread& thread : threads) {
    thread.join();
  }
  result = {};
  result.seconds = std::chrono::duration<double>(clock::now() - begin).count();
  const client::counters after = kv.count();
  result.rdma_bytes = after.rdma_value_bytes - before.rdma_value_bytes;
  result.messages = after.rdma_messages - before.rdma_messages;
  result.staged_bytes = after.staged_value_bytes - before.staged_value_bytes;
  result.op = wanted.op;
  result.block_bytes = wanted.block_bytes;
  result.threads = wanted.threads;
  result.connections = connections;
  result.depth = wanted.depth;
  result.batch = wanted.batch;
  for (const auto& one : workers) {
    result.ops += one->result.ops;
    result.bytes += one->result.bytes;
    result.hits += one->result.hits;
    result.misses += one->result.misses;
    result.errors += one->result.errors;
    result.verify_failures += one->result.verify_failures;
    result.latency.add(one->result.latency);
    if (result.first_error == errc::ok) {
      result.first_error = one->result.first_error;
    }
  }
  return {};
}

namespace {

double gib_per_s(const workload_result& result) {
  return result.seconds > 0 ? static_cast<double>(result.bytes) / result.seconds / (1024.0 * 1024.0 * 1024.0)
                            : 0;
}

double ops_per_s(const workload_result& result) {
  return result.seconds > 0 ? static_cast<double>(result.ops) / result.seconds : 0;
}

double microseconds(std::uint64_t ns) {
  return static_cast<double>(ns) / 1000.0;
}

} // namespace

std::string workload_result::transport() const {
  std::string found;
  const auto add = [&](const char* text, bool used) {
    found += used ? (found.empty() ? "" : "+") + std::string(text) : "";
  };
  add("rdma", rdma_bytes != 0);
  add("staged", staged_bytes != 0);
  add("messages", messages != 0);
  add("tcp", bytes > rdma_bytes + staged_bytes || found.empty());
  return found;
}

std::string table_heading() {
  return "op          block  thr conn depth batch        ops     GiB/s        ops/s     p50 us     p99 us    "
         "p999 us     max us   hits %   errors  wrong  transport";
}

std::string table_line(const workload_result& result) {
  char line[256];
  char figures[128];
  if (result.sound()) {
    std::snprintf(figures, sizeof figures, "%9.2f %12.0f %10.1f %10.1f %10.1f %10.1f", gib_per_s(result),
                  ops_per_s(result), microseconds(result.latency.quantile_ns(0.5)),
                  microseconds(result.latency.quantile_ns(0.99)),
                  microseconds(result.latency.quantile_ns(0.999)), microseconds(result.latency.max_ns()));
  } else {
    std::snprintf(figures, sizeof figures, "%-66s", "  no figures: a check failed");
  }
  const std::uint64_t asked = result.hits + result.misses;
  std::snprintf(line, sizeof line, "%-7s %9llu %4u %4u %5u %5u %10llu %s %8.2f %8llu %6llu  %s",
                name(result.op), static_cast<unsigned long long>(result.block_bytes), result.threads,
                result.connections, result.depth, result.batch, static_cast<unsigned long long>(result.ops),
                figures,
                asked == 0 ? 0.0 : 100.0 * static_cast<double>(result.hits) / static_cast<double>(asked),
                static_cast<unsigned long long>(result.errors),
                static_cast<unsigned long long>(result.verify_failures), result.transport().c_str());
  return line;
}

std::string json_of(const std::vector<workload_result>& results) {
  nlohmann::ordered_json runs = nlohmann::ordered_json::array();
  for (const workload_result& result : results) {
    nlohmann::ordered_json run;
    run["op"] = name(result.op);
    run["transport"] = result.transport();
    run["block_size"] = result.block_bytes;
    run["threads"] = result.threads;
    run["connections"] = result.connections;
    run["depth"] = result.depth;
    run["batch"] = result.batch;
    run["ops"] = result.ops;
    run["bytes"] = result.bytes;
    run["rdma_bytes"] = result.rdma_bytes;
    run["staged_bytes"] = result.staged_bytes;
    run["messages"] = result.messages;
    run["seconds"] = result.seconds;
    // A run whose checks failed has no figures.
    if (result.sound()) {
      run["gib_per_s"] = gib_per_s(result);
      run["ops_per_s"] = ops_per_s(result);
      run["latency_us"] = {{"p50", microseconds(result.latency.quantile_ns(0.5))},
                           {"p90", microseconds(result.latency.quantile_ns(0.9))},
                           {"p99", microseconds(result.latency.quantile_ns(0.99))},
                           {"p999", microseconds(result.latency.quantile_ns(0.999))},
                           {"max", microseconds(result.latency.max_ns())}};
    } else {
      run["gib_per_s"] = nullptr;
      run["ops_per_s"] = nullptr;
      run["latency_us"] = nullptr;
    }
    run["hits"] = result.hits;
    run["misses"] = result.misses;
    run["errors"] = result.errors;
    run["verify_failures"] = result.verify_failures;
    runs.push_back(std::move(run));
  }
  return nlohmann::ordered_json{{"runs", std::move(runs)}}.dump(2) + "\n";
}

} // namespace memkv::bench
