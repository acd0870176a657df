// Killing any actor under load: no acknowledged block lost, no wrong byte, every request answered or its
// connection closed within its deadline, and the server healthy again by itself.
//
// MEMKV_TEST_SECONDS makes it longer; MEMKV_TEST_SEED repeats a run.
#define CAF_SUITE kill
#include "test/scenario/server_fixture.hpp"

#include <caf/send.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

using namespace memkv;
using test::media;
using test::pattern;

namespace {

using namespace std::chrono_literals;

/// What one thread knows of its own keys: the versions that a get may return.
struct key_state {
  std::vector<std::uint64_t> possible; // versions; empty: must be a miss
  bool may_miss = true;
};

struct outcome {
  std::uint64_t puts = 0, acknowledged = 0, hits = 0, misses = 0, wrong = 0, lost = 0, late = 0;
};

struct load {
  std::string prefix;
  std::uint64_t seed = 0;
  std::map<std::string, key_state> keys;
  outcome seen;
  std::map<std::string, std::size_t> sizes;

  static constexpr std::size_t key_count = 24;

  void check(client::client& user, const std::string& key, bool must_be_decided) {
    auto& state = keys[key];
    std::vector<std::byte> target(sizes[key]);
    const auto result = user.get(key, target);
    if (result.code == client::errc::not_found) {
      ++seen.misses;
      // While a drive is being recovered its blocks are misses; afterwards an acknowledged one must be there.
      if (must_be_decided && !state.may_miss && !state.possible.empty()) {
        ++seen.lost;
        CAF_MESSAGE("lost: " << key);
      }
      return;
    }
    if (result.code != client::errc::ok)
      return;
    target.resize(result.length);
    for (const auto version : state.possible)
      if (target == pattern(key, version, sizes[key])) {
        ++seen.hits;
        return;
      }
    ++seen.wrong;
    CAF_MESSAGE("wrong bytes: " << key);
  }

  void run(client::client& user, const std::atomic<bool>& over) {
    std::mt19937_64 random{seed};
    std::uint64_t version = 0;
    while (!over) {
      const auto key = prefix + std::to_string(random() % key_count);
      if (!sizes.contains(key)) {
        static constexpr std::size_t choices[]{900, 40'000, 66'000, 700'000, 5'000'000};
        sizes[key] = choices[random() % 5];
      }
      const auto begun = std::chrono::steady_clock::now();
      auto& state = keys[key];
      if (random() % 2 == 0) {
        ++version;
        ++seen.puts;
        const auto code = user.put(key, pattern(key, version, sizes[key])).code;
        if (code == client::errc::ok) {
          ++seen.acknowledged;
          state.possible = {version};
          state.may_miss = false;
        } else {
          state.possible.push_back(version); // may or may not have taken effect
        }
      } else if (random() % 8 == 0) {
        const auto code = user.remove(key).code;
        if (code == client::errc::ok) {
          state.possible.clear();
          state.may_miss = true;
        } else {
          state.may_miss = true;
        }
      } else {
        check(user, key, false);
      }
      if (std::chrono::steady_clock::now() - begun > 15s)
        ++seen.late;
    }
  }
};

struct fixture : test::server_fixture {
  std::uint64_t seed = test::test_seed(20260523);

  void kill_under_load(media kind, std::uint32_t drives, std::vector<std::string> kinds) {
    configure(kind, drives, 512 << 20);
    options.flap_threshold = 1'000'000;
    options.store.eviction = true;
    start();
    const char* text = std::getenv("MEMKV_TEST_SECONDS");
    const auto duration = std::chrono::seconds{text != nullptr ? std::atoi(text) : 6};
    std::vector<load> loads(3);
    std::vector<std::unique_ptr<client::client>> users;
    std::atomic<bool> over{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < loads.size(); ++i) {
      loads[i].prefix = "thread " + std::to_string(i) + " key ";
      loads[i].seed = seed + i;
      users.push_back(connect(2, "", 10'000));
    }
    for (std::size_t i = 0; i < loads.size(); ++i)
      threads.emplace_back([&, i] { loads[i].run(*users[i], over); });
    std::mt19937_64 random{seed ^ 0xABCDEF};
    const auto end = std::chrono::steady_clock::now() + duration;
    std::map<std::string, int> killed;
    caf::actor last; // that was killed
    std::vector<std::string> next; // kinds that have their turn before any comes again
    while (std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds{50 + random() % 200});
      if (next.empty()) {
        next = kinds;
        std::ranges::shuffle(next, random);
      }
      std::vector<caf::actor> targets;
      for (const auto& [name, who] : server->actors())
        if (name.starts_with(next.back()))
          targets.push_back(who);
      if (targets.empty())
        continue; // all of them are being started anew
      last = targets[random() % targets.size()];
      caf::anon_send_exit(last, caf::exit_reason::kill);
      ++killed[next.back()];
      next.pop_back();
    }
    over = true;
    for (auto& thread : threads)
      thread.join();
    for (const auto& wanted : kinds)
      CAF_CHECK(killed[wanted] > 0);
    // Healthy again by itself, once the last death is known.
    const auto limit = std::chrono::steady_clock::now() + 30s;
    const auto is_last = [&](const auto& each) { return each.second == last; };
    while (std::ranges::any_of(server->actors(), is_last) && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(10ms);
    while (server->drives_online() < drives && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(10ms);
    CAF_CHECK_EQUAL(server->drives_online(), drives);
    auto user = connect();
    while (user->put("healthy", pattern("healthy", 0, 1000)).code != client::errc::ok &&
           std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(10ms);
    outcome all;
    for (auto& each : loads) {
      for (const auto& [key, state] : each.keys)
        if (each.sizes.contains(key))
          each.check(*user, key, true);
      all.puts += each.seen.puts;
      all.acknowledged += each.seen.acknowledged;
      all.hits += each.seen.hits;
      all.wrong += each.seen.wrong;
      all.lost += each.seen.lost;
      all.late += each.seen.late;
    }
    for (const auto& [name, count] : killed)
      CAF_MESSAGE("killed " << name << ": " << count);
    CAF_MESSAGE("puts " << all.puts << ", acknowledged " << all.acknowledged << ", hits " << all.hits
                        << ", seed " << seed);
    CAF_CHECK_EQUAL(all.wrong, 0u);
    CAF_CHECK_EQUAL(all.lost, 0u);
    CAF_CHECK_EQUAL(all.late, 0u);
    CAF_CHECK(all.acknowledged > 20);
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(kill_tests, fixture)

CAF_TEST(killing drives under load loses no acknowledged block in files) {
  kill_under_load(media::file, 2, {"drive"});
}

CAF_TEST(killing drives under load loses no acknowledged block in memory) {
  kill_under_load(media::memory, 2, {"drive"});
}

CAF_TEST(killing reactors the listener the evictor and the license watcher under load loses nothing) {
  kill_under_load(media::file, 1, {"reactor", "listener", "evictor", "license-watcher"});
}

CAF_TEST(killing everything but the root under load loses nothing) {
  kill_under_load(media::file, 3,
                  {"drive", "reactor", "listener", "evictor", "license-watcher", "admin-gateway"});
}

CAF_TEST_FIXTURE_SCOPE_END()
