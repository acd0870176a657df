// memkv-peer-bench: one harness for memkv, Redis and memcached, so that bench/compare compares servers and
// not harnesses.
//
// One thread a connection, one call at a time. Of every value that comes back the length is checked and
// CRC32C is computed over each piece while it is in the processor's cache: by libmemkv, which does that for
// every value, and here for the others. The values of all three are the same bytes. The socket buffers are
// flags.
#include "bench/histogram.hpp"
#include "bench/plain_socket.hpp"
#include "bench/text_connection.hpp"
#include "bench/value_pattern.hpp"
#include "cli/command_line.hpp"
#include "client/client.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace memkv::bench {
namespace {

using cli::command;
using cli::flag;
using cli::value_kind;
using clock = std::chrono::steady_clock;

constexpr std::array<flag, 11> flags{
    {{.name = "target",
      .kind = value_kind::text,
      .value_name = "NAME",
      .required = true,
      .help = "memkv, redis, memcached, or socket: a server that only moves bytes."},
     {.name = "address",
      .kind = value_kind::text,
      .value_name = "HOST:PORT",
      .required = true,
      .help = "The server; a numeric IPv4 address for redis and memcached."},
     {.name = "op",
      .kind = value_kind::text,
      .value_name = "NAME",
      .default_text = "get",
      .default_is_value = true,
      .help = "fill stores every block once; put and get run for --milliseconds; exists asks memkv for 4096 "
              "keys a call; serve is the server of --target socket."},
     {.name = "size",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .default_text = "1 MiB",
      .default_is_value = true,
      .least = 1,
      .help = "Bytes of a value."},
     {.name = "data",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .default_text = "1 GiB",
      .default_is_value = true,
      .help = "Bytes of all values, so that they come from memory and not from the processor's cache."},
     {.name = "connections",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "2",
      .default_is_value = true,
      .least = 1,
      .help = "Connections, and threads."},
     {.name = "milliseconds",
      .kind = value_kind::integer,
      .value_name = "MS",
      .default_text = "1000",
      .default_is_value = true,
      .help = "Time to run."},
     {.name = "send-buffer-kb",
      .kind = value_kind::integer,
      .value_name = "KIB",
      .default_text = "256",
      .default_is_value = true,
      .help = "SO_SNDBUF of this side; 0 leaves it to the kernel."},
     {.name = "receive-buffer-kb",
      .kind = value_kind::integer,
      .value_name = "KIB",
      .default_text = "0",
      .default_is_value = true,
      .help = "SO_RCVBUF of this side, for redis and memcached; 0 leaves it to the kernel."},
     {.name = "noise-size",
      .kind = value_kind::size,
      .value_name = "SIZE",
      .help = "memkv only: beside the measured connections, as many others get values of this size all the "
              "time."},
     {.name = "seed",
      .kind = value_kind::integer,
      .value_name = "N",
      .default_text = "1",
      .default_is_value = true,
      .help = "Chooses the order of the keys."}}};

constexpr command root{
    .name = "memkv-peer-bench",
    .summary = "Measures memkv, Redis and memcached alike",
    .text = "Prints one JSON object. Exits with 1, without figures, when a call failed, a value had "
            "another length, or a key was missing.",
    .flags = flags};

/// What one connection does.
class peer {
public:
  virtual ~peer() = default;
  peer() = default;
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;
  virtual bool put(const std::string& key, std::span<const std::byte> value) = 0;
  /// Exactly target.size() bytes under the key, checked.
  virtual bool get(const std::string& key, std::span<std::byte> target) = 0;
};

class redis_peer final : public peer {
public:
  explicit redis_peer(std::uint32_t expected_crc) : expected_crc_(expected_crc) {}
  text_connection connection;
  bool put(const std::string& key, std::span<const std::byte> value) override {
    const std::string head = "*3\r\n$3\r\nSET\r\n$" + std::to_string(key.size()) + "\r\n" + key + "\r\n$" +
                             std::to_string(value.size()) + "\r\n";
    std::array<iovec, 3> pieces{piece_of(head), piece_of(value), piece_of("\r\n")};
    std::string_view line;
    return connection.send_pieces(pieces) && connection.read_line(line) && line == "+OK";
  }
  bool get(const std::string& key, std::span<std::byte> target) override {
    const std::string head = "*2\r\n$3\r\nGET\r\n$" + std::to_string(key.size()) + "\r\n" + key + "\r\n";
    std::array<iovec, 1> pieces{piece_of(head)};
    std::string_view line;
    std::size_t length = 0;
    std::uint32_t crc = 0;
    return connection.send_pieces(pieces) && connection.read_line(line) && !line.empty() && line[0] == '$' &&
           number_in(line.substr(1), length) && length == target.size() &&
           connection.read_value(target, &crc) && crc == expected_crc_ && connection.read_line(line) &&
           line.empty();
  }

private:
  std::uint32_t expected_crc_;
};

class memcached_peer final : public peer {
public:
  explicit memcached_peer(std::uint32_t expected_crc) : expected_crc_(expected_crc) {}
  text_connection connection;
  bool put(const std::string& key, std::span<const std::byte> value) override {
    const std::string head = "set " + key + " 0 0 " + std::to_string(value.size()) + "\r\n";
    std::array<iovec, 3> pieces{piece_of(head), piece_of(value), piece_of("\r\n")};
    std::string_view line;
    return connection.send_pieces(pieces) && connection.read_line(line) && line == "STORED";
  }
  bool get(const std::string& key, std::span<std::byte> target) override {
    const std::string head = "get " + key + "\r\n";
    std::array<iovec, 1> pieces{piece_of(head)};
    std::string_view line;
    std::size_t length = 0;
    std::uint32_t crc = 0;
    return connection.send_pieces(pieces) && connection.read_line(line) && line.starts_with("VALUE ") &&
           number_in(line.substr(line.rfind(' ') + 1), length) && length == target.size() &&
           connection.read_value(target, &crc) && crc == expected_crc_ && connection.read_line(line) &&
           line.empty() && connection.read_line(line) && line == "END";
  }

private:
  std::uint32_t expected_crc_;
};

/// A server that does nothing but move bytes: plain_socket.hpp.
class socket_peer final : public peer {
public:
  explicit socket_peer(std::uint32_t expected_crc) : expected_crc_(expected_crc) {}
  text_connection connection;
  bool put(const std::string& key, std::span<const std::byte> value) override {
    const std::string head = "put " + place(key, value.size());
    std::array<iovec, 2> pieces{piece_of(head), piece_of(value)};
    std::string_view line;
    return connection.send_pieces(pieces) && connection.read_line(line) && line == "ok";
  }
  bool get(const std::string& key, std::span<std::byte> target) override {
    const std::string head = "get " + place(key, target.size());
    std::array<iovec, 1> pieces{piece_of(head)};
    std::uint32_t crc = 0;
    return connection.send_pieces(pieces) && connection.read_value(target, &crc) && crc == expected_crc_;
  }

private:
  /// The number at the end of a key, and the length.
  static std::string place(const std::string& key, std::size_t bytes) {
    return key.substr(key.rfind('/') + 1) + " " + std::to_string(bytes) + "\r\n";
  }
  std::uint32_t expected_crc_;
};

class memkv_peer final : public peer {
public:
  explicit memkv_peer(client::client& kv) : kv_(kv) {}
  bool put(const std::string& key, std::span<const std::byte> value) override {
    return kv_.put(key, value).code == client::errc::ok;
  }
  bool get(const std::string& key, std::span<std::byte> target) override {
    const client::item_result result = kv_.get(key, target);
    return result.code == client::errc::ok && result.length == target.size();
  }

private:
  client::client& kv_;
};

struct run_options {
  std::string target;
  std::string address;
  std::string op;
  std::uint64_t value_bytes = 0;
  std::uint64_t keys = 0;
  std::uint32_t connections = 0;
  std::uint32_t milliseconds = 0;
  int send_buffer_kb = 0, receive_buffer_kb = 0;
  std::uint64_t noise_bytes = 0;
  std::uint64_t seed = 0;
};

std::string key_of(std::uint64_t value_bytes, std::uint64_t number) {
  return "peer/" + std::to_string(value_bytes) + "/" + std::to_string(number);
}

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv-peer-bench: %s\n", sentence.c_str());
  return 1;
}

std::unique_ptr<client::client> make_client(const run_options& chosen, std::string& problem) {
  client::options options;
  if (const client::status loaded =
          client::load_options([](const char* name) { return std::getenv(name); }, options);
      !loaded.ok()) {
    problem = loaded.text;
    return nullptr;
  }
  options.servers = {chosen.address};
  options.transport = client::transport_choice::tcp;
  options.num_connections = chosen.connections * (chosen.noise_bytes != 0 ? 2 : 1);
  options.socket_buffer_kb = static_cast<std::uint32_t>(chosen.send_buffer_kb);
  client::status refused;
  auto made = client::client::make(std::move(options), refused);
  problem = refused.text;
  return made;
}

struct share {
  std::uint64_t done = 0;
  std::uint64_t failed = 0;
  histogram latency;
};

/// What one thread does until the time is over.
void work(peer& connection, const run_options& chosen, std::uint32_t number, clock::time_point until,
          std::span<std::byte> value, share& result) {
  std::mt19937_64 random(chosen.seed * 1000 + number);
  std::uint64_t next = number;
  while (true) {
    const clock::time_point begin = clock::now();
    bool good = false;
    if (chosen.op == "fill") {
      if (next >= chosen.keys) {
        return;
      }
      good = connection.put(key_of(chosen.value_bytes, next), value);
      next += chosen.connections;
    } else {
      if (begin >= until) {
        return;
      }
      const std::string key = key_of(chosen.value_bytes, random() % chosen.keys);
      good = chosen.op == "put" ? connection.put(key, value) : connection.get(key, value);
    }
    result.latency.record(static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(clock::now() - begin).count()));
    if (!good) {
      ++result.failed;
      return;
    }
    ++result.done;
  }
}

void ask_in_batches(client::client& kv, const run_options& chosen, clock::time_point until, share& result) {
  constexpr std::size_t batch = 4096;
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < batch; ++i) {
    keys.push_back(key_of(chosen.value_bytes, i % chosen.keys));
  }
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  std::vector<client::item_result> results(batch);
  while (clock::now() < until) {
    const clock::time_point begin = clock::now();
    if (kv.exists(views, results) != client::errc::ok) {
      ++result.failed;
      return;
    }
    result.latency.record(static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(clock::now() - begin).count()));
    result.done += batch;
  }
}

int measure(const run_options& chosen) {
  std::vector<std::byte> pattern(chosen.value_bytes);
  fill_value(value_seed(1, "peer"), 0, pattern);
  const std::uint32_t crc = wire::crc32c(pattern);
  std::unique_ptr<client::client> kv;
  if (chosen.target == "memkv") {
    std::string problem;
    kv = make_client(chosen, problem);
    if (!kv) {
      return refuse(problem);
    }
  }
  std::vector<std::unique_ptr<peer>> peers;
  for (std::uint32_t i = 0; i < chosen.connections; ++i) {
    bool opened = true;
    if (chosen.target == "memkv") {
      peers.push_back(std::make_unique<memkv_peer>(*kv));
    } else if (chosen.target == "redis") {
      auto made = std::make_unique<redis_peer>(crc);
      opened = made->connection.open(chosen.address, chosen.send_buffer_kb, chosen.receive_buffer_kb);
      peers.push_back(std::move(made));
    } else if (chosen.target == "socket") {
      auto made = std::make_unique<socket_peer>(crc);
      opened = made->connection.open(chosen.address, chosen.send_buffer_kb, chosen.receive_buffer_kb);
      peers.push_back(std::move(made));
    } else {
      auto made = std::make_unique<memcached_peer>(crc);
      opened = made->connection.open(chosen.address, chosen.send_buffer_kb, chosen.receive_buffer_kb);
      peers.push_back(std::move(made));
    }
    if (!opened) {
      return refuse(chosen.address + ": no connection");
    }
  }
  std::atomic<bool> go{false};
  std::atomic<bool> noise_ends{false};
  clock::time_point until;
  std::vector<share> shares(chosen.connections);
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < chosen.connections; ++i) {
    threads.emplace_back([&, i] {
      std::vector<std::byte> value = pattern;
      go.wait(false);
      if (chosen.op == "exists") {
        ask_in_batches(*kv, chosen, until, shares[i]);
      } else {
        work(*peers[i], chosen, i, until, value, shares[i]);
      }
    });
  }
  std::vector<std::thread> noise;
  std::atomic<std::uint64_t> noise_failed{0};
  for (std::uint32_t i = 0; chosen.noise_bytes != 0 && i < chosen.connections; ++i) {
    noise.emplace_back([&, i] {
      std::vector<std::byte> value(chosen.noise_bytes);
      go.wait(false);
      for (std::uint64_t turn = i; !noise_ends; ++turn) {
        if (kv->get(key_of(chosen.noise_bytes, turn % 4), value).code != client::errc::ok) {
          ++noise_failed;
          return;
        }
      }
    });
  }
  const clock::time_point begin = clock::now();
  until = begin + std::chrono::milliseconds(chosen.milliseconds);
  go = true;
  go.notify_all();
  for (std::thread& thread : threads) {
    thread.join();
  }
  const double seconds = std::chrono::duration<double>(clock::now() - begin).count();
  noise_ends = true;
  for (std::thread& thread : noise) {
    thread.join();
  }
  share total;
  for (const share& one : shares) {
    total.done += one.done;
    total.failed += one.failed;
    total.latency.add(one.latency);
  }
  if (total.failed != 0 || noise_failed != 0 || (chosen.op == "fill" && total.done != chosen.keys)) {
    return refuse("a call failed, a value was wrong or a key was missing: no figures");
  }
  const double bytes = static_cast<double>(total.done) * static_cast<double>(chosen.value_bytes);
  std::printf(
      "{\"target\":\"%s\",\"op\":\"%s\",\"size\":%llu,\"connections\":%u,\"ops\":%llu,\"seconds\":%.6f,"
      "\"gib_per_s\":%.4f,\"ops_per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%."
      "1f}\n",
      chosen.target.c_str(), chosen.op.c_str(), static_cast<unsigned long long>(chosen.value_bytes),
      chosen.connections, static_cast<unsigned long long>(total.done), seconds,
      chosen.op == "exists" ? 0.0 : bytes / seconds / (1024.0 * 1024.0 * 1024.0),
      static_cast<double>(total.done) / seconds, static_cast<double>(total.latency.quantile_ns(0.5)) / 1000.0,
      static_cast<double>(total.latency.quantile_ns(0.99)) / 1000.0,
      static_cast<double>(total.latency.quantile_ns(0.999)) / 1000.0,
      static_cast<double>(total.latency.max_ns()) / 1000.0);
  return 0;
}

int dispatch(const std::vector<std::string>& words) {
  const cli::parse_result parsed = cli::parse(root, words);
  if (!parsed.ok()) {
    return refuse(parsed.error);
  }
  if (parsed.line.wants_help) {
    std::fputs(cli::help_text(root, {}).c_str(), stdout);
    return 0;
  }
  const cli::parsed& line = parsed.line;
  run_options chosen;
  chosen.target = line.text("target");
  chosen.address = line.text("address");
  chosen.op = line.text("op");
  chosen.value_bytes = line.number("size").value_or(1U << 20U);
  chosen.connections = static_cast<std::uint32_t>(line.number("connections").value_or(2));
  chosen.milliseconds = static_cast<std::uint32_t>(line.number("milliseconds").value_or(1000));
  chosen.send_buffer_kb = static_cast<int>(line.number("send-buffer-kb").value_or(256));
  chosen.receive_buffer_kb = static_cast<int>(line.number("receive-buffer-kb").value_or(0));
  chosen.noise_bytes = line.number("noise-size").value_or(0);
  chosen.seed = line.number("seed").value_or(1);
  const bool known_target = chosen.target == "memkv" || chosen.target == "redis" ||
                            chosen.target == "memcached" || chosen.target == "socket";
  const bool known_op = chosen.op == "fill" || chosen.op == "put" || chosen.op == "get" ||
                        (chosen.op == "exists" && chosen.target == "memkv") ||
                        (chosen.op == "serve" && chosen.target == "socket");
  if (!known_target || !known_op) {
    return refuse("--target must be memkv, redis, memcached or socket, and --op fill, put, get, exists for "
                  "memkv, or serve for socket");
  }
  if (chosen.value_bytes == 0 || chosen.value_bytes > 1U << 30U || chosen.connections == 0 ||
      chosen.connections > 128 || chosen.send_buffer_kb > 65'536 || chosen.receive_buffer_kb > 65'536 ||
      (chosen.noise_bytes != 0 && chosen.target != "memkv")) {
    return refuse("--size is 1 byte to 1 GiB, --connections 1 to 128, the buffers up to 65536 KiB, "
                  "--noise-size for memkv");
  }
  const std::uint64_t data_bytes = line.number("data").value_or(1U << 30U);
  if (chosen.op == "serve") {
    return serve_plain_socket(chosen.address, data_bytes);
  }
  chosen.keys = std::max<std::uint64_t>(1, data_bytes / chosen.value_bytes);
  return measure(chosen);
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
