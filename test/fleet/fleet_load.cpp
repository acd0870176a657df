// Clients of a fleet that compare every byte with the outside log, on the orders of a script.
//
// fleet_load SERVERS SEED KEYS    with the key in MEMKV_AUTH_KEY; SERVERS as host:port with commas between
//
// Orders come as lines on standard input; each is answered by one line of JSON on standard output:
//   fill               stores every key once
//   run, pause         lets the workers go, and stops them between two calls
//   trouble A B        masks of servers by their place in SERVERS: calls may fail on those of A; blocks of B
//   may
//                      be missed
//   counts             what happened since the last counts: operations and failures by server, the longest
//   call,
//                      and what was wrong
//   verify             reads every key while the workers pause; what was unsure is settled by what is found
//   placement          the server of every key
//   where KEY...       on which servers the block is, each asked by a client of its own
//
// A quarter of the keys is stored once and never changed again. A key whose change was not answered is left
// alone until verify has seen what became of it.
//
// Threading: workers, and main for orders. Ownership: all is main's. Errors: problems in the answers; 1 as
// the exit code for orders nobody knows.
#include "client/client.hpp"
#include "test/process/outside_log.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>

namespace {

using namespace memkv;
using client::errc;
using client::item_result;
using test::outside_log;
using test::version;

constexpr std::uint32_t workers = 4;
constexpr std::uint32_t deadline_ms = 2'000;
constexpr std::size_t problems_max = 20; // told; all are counted

std::unique_ptr<client::client> connect(const std::vector<std::string>& servers) {
  client::options wanted;
  wanted.servers = servers;
  wanted.transport = client::transport_choice::tcp;
  wanted.deadline_ms = deadline_ms;
  wanted.connect_timeout_ms = 500;
  wanted.num_connections = 2;
  wanted.log = [](std::string_view) {};
  std::string_view problem;
  const char* key = std::getenv("MEMKV_AUTH_KEY");
  wanted.auth_key = wire::shared_key::parse(key == nullptr ? "" : key, &problem);
  client::status refused;
  auto made = client::client::make(std::move(wanted), refused);
  if (!made) {
    std::fprintf(stderr, "fleet_load: %s\n", refused.text.c_str());
    std::exit(1);
  }
  return made;
}

bool is_fixed(std::uint32_t key) {
  return key % 4 == 0;
}

class load {
public:
  load(const std::vector<std::string>& servers, std::uint64_t seed, std::uint32_t keys)
      : servers_(servers), kv_(connect(servers)), log_(keys, false), seed_(seed), done_(servers.size()),
        failed_(servers.size()) {
    for (std::uint32_t key = 0; key < keys; ++key) {
      const auto& name = kv_->servers()[kv_->server_of(outside_log::name(key))];
      place_.push_back(
          static_cast<std::size_t>(std::find(servers.begin(), servers.end(), name) - servers.begin()));
      if (place_.back() == servers.size()) {
        std::fprintf(stderr, "fleet_load: name servers as host:port, as in %s\n", name.c_str());
        std::exit(1);
      }
    }
    for (std::uint32_t number = 0; number < workers; ++number)
      threads_.emplace_back([this, number] { work(number); });
  }
  ~load() {
    {
      const std::lock_guard guard(gate_);
      ending_ = true;
    }
    changed_.notify_all();
    for (auto& each : threads_)
      each.join();
  }
  load(const load&) = delete;
  load& operator=(const load&) = delete;

  void run(bool going) {
    std::unique_lock guard(gate_);
    going_ = going;
    changed_.notify_all();
    if (!going)
      changed_.wait(guard, [this] { return busy_ == 0; });
  }

  void trouble(std::uint64_t may_fail, std::uint64_t may_miss) {
    may_fail_ = may_fail;
    may_miss_ = may_miss;
  }

  std::string fill() {
    std::vector<std::byte> value(test::value_bytes_max);
    std::mt19937_64 chance(seed_);
    for (std::uint32_t key = 0; key < log_.keys(); ++key)
      put(key, chance, value);
    return counts();
  }

  std::string counts() {
    const std::lock_guard guard(problems_lock_);
    std::ostringstream text;
    text << "{\"slowest_ms\": " << slowest_ms_.exchange(0) << ", \"missed\": " << missed_.exchange(0);
    for (const auto& [name, numbers] : {std::pair{"done", &done_}, std::pair{"failed", &failed_}}) {
      text << ", \"" << name << "\": [";
      for (std::size_t i = 0; i < numbers->size(); ++i)
        text << (i == 0 ? "" : ", ") << (*numbers)[i].exchange(0);
      text << "]";
    }
    text << ", \"wrong\": " << wrong_ << ", \"problems\": [";
    for (std::size_t i = 0; i < problems_.size(); ++i)
      text << (i == 0 ? "" : ", ") << "\"" << problems_[i] << "\"";
    problems_.clear();
    wrong_ = 0;
    text << "]}";
    return text.str();
  }

  std::string verify() {
    std::vector<std::byte> found(test::value_bytes_max + 1);
    std::uint64_t came = 0;
    std::uint64_t gone = 0;
    // A put that nobody answered may still take effect, as long as its deadline, which counts from when the
    // server has received it, is not over.
    for (std::uint32_t key = 0; key < log_.keys(); ++key)
      if (log_.is_lost(key)) {
        std::this_thread::sleep_for(std::chrono::milliseconds{2 * deadline_ms});
        break;
      }
    for (std::uint32_t key = 0; key < log_.keys(); ++key) {
      auto result = kv_->get(outside_log::name(key), found);
      for (int tries = 0; tries < 5 && is_late(result); ++tries) {
        std::this_thread::sleep_for(std::chrono::milliseconds{300});
        result = kv_->get(outside_log::name(key), found);
      }
      const bool missed = result.code == errc::not_found && result.cause == errc::ok;
      if (result.code != errc::ok && !missed) {
        report(outside_log::name(key) + ": a get failed: " + error_of(result));
      } else if (missed && bit(may_miss_, key) && !is_fixed(key)) {
        forget(key);
        ++gone;
      } else if (auto problem = log_.settle(key, !missed, {found.data(), missed ? 0 : result.length});
                 !problem.empty()) {
        report("after the trouble, on server " + std::to_string(place_[key] + 1) + ": " + problem);
      } else {
        came += missed ? 0 : 1;
      }
    }
    std::ostringstream text;
    text << "{\"came\": " << came << ", \"present\": " << log_.present() << ", \"gone\": " << gone
         << ", \"counts\": " << counts() << "}";
    return text.str();
  }

  std::string placement() const {
    std::string text = "[";
    for (const auto each : place_)
      text += (text.size() == 1 ? "" : ", ") + std::to_string(each);
    return text + "]";
  }

  std::string where(std::istream& keys) const {
    std::vector<std::unique_ptr<client::client>> each_alone;
    for (const auto& server : servers_)
      each_alone.push_back(connect({server}));
    std::string text = "[";
    for (std::uint32_t key = 0; keys >> key;) {
      std::string holders;
      for (std::size_t i = 0; i < each_alone.size(); ++i)
        if (each_alone[i]->exists(outside_log::name(key)).code == errc::ok)
          holders += (holders.empty() ? "" : ", ") + std::to_string(i);
      text += (text.size() == 1 ? "[" : ", [") + holders + "]";
    }
    return text + "]";
  }

private:
  static std::string error_of(const item_result& result) {
    return std::string(client::name(result.code == errc::not_found ? result.cause : result.code));
  }

  /// What a machine that is overloaded brings about: an answer after the deadline, and what shared its
  /// connection.
  static bool is_late(const item_result& result) {
    const auto why = result.code == errc::not_found ? result.cause : result.code;
    return why == errc::deadline_exceeded || why == errc::connection_lost || why == errc::server_down ||
           why == errc::no_greeting;
  }

  [[nodiscard]] bool bit(std::uint64_t mask, std::uint32_t key) const {
    return (mask >> place_[key] & 1U) != 0;
  }

  void report(std::string sentence) {
    const std::lock_guard guard(problems_lock_);
    ++wrong_;
    if (problems_.size() < problems_max)
      problems_.push_back(std::move(sentence));
  }

  /// The block may be gone with its drive: what is true from now on is that it is not there.
  void forget(std::uint32_t key) {
    const auto removed = log_.begin_remove(key);
    const auto result = kv_->remove(outside_log::name(key));
    if (result.code != errc::ok && (result.code != errc::not_found || result.cause != errc::ok))
      return report(outside_log::name(key) + ": a delete failed: " + error_of(result));
    log_.acknowledge(key, removed);
    if (auto problem = log_.settle(key, false, {}); !problem.empty())
      report(problem);
  }

  void work(std::uint32_t number) {
    std::mt19937_64 chance(seed_ * 1'000 + number);
    std::vector<std::byte> value(test::value_bytes_max);
    std::vector<std::byte> found(test::value_bytes_max + 1);
    while (true) {
      {
        std::unique_lock guard(gate_);
        changed_.wait(guard, [this] { return going_ || ending_; });
        if (ending_)
          return;
        ++busy_;
      }
      step(number, chance, value, found);
      {
        const std::lock_guard guard(gate_);
        --busy_;
      }
      changed_.notify_all();
    }
  }

  void step(std::uint32_t number, std::mt19937_64& chance, std::vector<std::byte>& value,
            std::vector<std::byte>& found) {
    const auto some_key = static_cast<std::uint32_t>(chance() % log_.keys());
    const auto own_key = some_key / workers * workers + number;
    const auto what = chance() % 10;
    // A worker alone changes the keys that are its number modulo the workers.
    if (what < 5 || own_key >= log_.keys() || is_fixed(own_key) || log_.is_lost(own_key))
      get(some_key, found);
    else if (what < 9)
      put(own_key, chance, value);
    else
      remove(own_key);
  }

  /// Times a call, and says whether its failure is one that must not be.
  template <class Call>
  item_result timed(std::uint32_t key, const char* what, Call call) {
    const auto may_fail = may_fail_.load();
    const auto begin = std::chrono::steady_clock::now();
    const item_result result = call();
    const auto took =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    auto slowest = slowest_ms_.load();
    while (took.count() > slowest && !slowest_ms_.compare_exchange_weak(slowest, took.count())) {
    }
    const bool answered =
        result.code == errc::ok || (result.code == errc::not_found && result.cause == errc::ok);
    ++(answered ? done_ : failed_)[place_[key]];
    if (!answered && !bit(may_fail | may_fail_, key) && !is_late(result))
      report(outside_log::name(key) + ": " + what + " failed although server " +
             std::to_string(place_[key] + 1) + " is well: " + error_of(result));
    return result;
  }

  void get(std::uint32_t key, std::vector<std::byte>& found) {
    const auto since = log_.acknowledged(key);
    const auto may_miss = may_miss_.load();
    const auto result = timed(key, "a get", [&] { return kv_->get(outside_log::name(key), found); });
    const bool missed = result.code == errc::not_found && result.cause == errc::ok;
    if (missed && bit(may_miss | may_miss_, key)) {
      ++missed_;
      return;
    }
    if (result.code != errc::ok && !missed)
      return;
    if (auto problem = log_.check_read(key, since, !missed, {found.data(), missed ? 0 : result.length});
        !problem.empty())
      report("under load, on server " + std::to_string(place_[key] + 1) + ": " + problem);
  }

  void put(std::uint32_t key, std::mt19937_64& chance, std::vector<std::byte>& value) {
    // Some are striped over the drives of their server.
    const std::size_t bytes = key % 50 == 1 ? 1'000'000 + chance() % 4'000'000 : 1 + chance() % 60'000;
    const auto put = log_.begin_put(key, bytes);
    const std::span<std::byte> wanted{value.data(), bytes};
    test::fill(key, put, wanted);
    if (timed(key, "a put", [&] { return kv_->put(outside_log::name(key), wanted); }).code == errc::ok)
      log_.acknowledge(key, put);
    else
      log_.lose(key);
  }

  void remove(std::uint32_t key) {
    const auto before = log_.acknowledged(key);
    const auto may_miss = may_miss_.load();
    const auto removed = log_.begin_remove(key);
    const auto result = timed(key, "a delete", [&] { return kv_->remove(outside_log::name(key)); });
    const bool missed = result.code == errc::not_found && result.cause == errc::ok;
    if (result.code != errc::ok && !missed)
      return log_.lose(key);
    if (missed && before.is_put && !bit(may_miss | may_miss_, key))
      report(outside_log::name(key) + ": was there, and a delete did not find it");
    log_.acknowledge(key, removed);
  }

  const std::vector<std::string> servers_;
  std::unique_ptr<client::client> kv_;
  outside_log log_;
  const std::uint64_t seed_;
  std::vector<std::size_t> place_; // of each key, in servers_
  std::atomic<std::uint64_t> may_fail_{0};
  std::atomic<std::uint64_t> may_miss_{0};
  std::atomic<long> slowest_ms_{0};
  std::atomic<std::uint64_t> missed_{0};
  std::vector<std::atomic<std::uint64_t>> done_;
  std::vector<std::atomic<std::uint64_t>> failed_;

  std::mutex gate_;
  std::condition_variable changed_;
  bool going_ = false;
  bool ending_ = false;
  std::uint32_t busy_ = 0;

  std::mutex problems_lock_;
  std::vector<std::string> problems_;
  std::uint64_t wrong_ = 0;
  std::vector<std::thread> threads_;
};

bool obey(load& fleet, const std::string& line, std::string& answer) {
  std::istringstream words(line);
  std::string order;
  words >> order;
  answer = "{}";
  if (order == "fill")
    answer = fleet.fill();
  else if (order == "run" || order == "pause")
    fleet.run(order == "run");
  else if (order == "counts")
    answer = fleet.counts();
  else if (order == "verify")
    answer = fleet.verify();
  else if (order == "placement")
    answer = fleet.placement();
  else if (order == "where")
    answer = fleet.where(words);
  else if (order == "trouble") {
    std::uint64_t may_fail = 0;
    std::uint64_t may_miss = 0;
    words >> may_fail >> may_miss;
    fleet.trouble(may_fail, may_miss);
  } else
    return false;
  return true;
}

} // namespace

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "fleet_load SERVERS SEED KEYS\n");
    return 1;
  }
  load fleet(client::split_list(words[1]), std::strtoull(words[2], nullptr, 10),
             static_cast<std::uint32_t>(std::strtoul(words[3], nullptr, 10)));
  for (std::string line, answer; std::getline(std::cin, line);) {
    if (!obey(fleet, line, answer)) {
      std::fprintf(stderr, "fleet_load: nobody knows the order \"%s\"\n", line.c_str());
      return 1;
    }
    std::cout << answer << std::endl;
  }
  return 0;
}
