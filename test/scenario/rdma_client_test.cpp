// libmemkv and a server, both with simulated RDMA devices on one network: values come and go over RDMA, and
// stay right when RDMA fails in the middle.
#define CAF_SUITE rdma_client
#include "test/scenario/server_fixture.hpp"
#include "test/support/shared_network.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;
using client::errc;
using client::transport_choice;

namespace {

constexpr std::uint64_t mib = 1 << 20;

struct fixture : server_fixture {
  shared_network network;

  void configure(media kind) {
    server_fixture::configure(kind, 2, 128 * mib);
    options.rdma.devices = {"server"};
    options.rdma.open = [this](const std::string& device, std::unique_ptr<verbs::fabric>& out,
                               std::vector<std::string>&) {
      out = network.create_node({.name = device});
      return verbs::status{};
    };
  }
  ~fixture() { server.reset(); } // before the network

  [[nodiscard]] std::unique_ptr<client::client> connect_rdma(transport_choice transport, bool dc) {
    client::options wanted;
    wanted.servers = {"127.0.0.1:" + std::to_string(server->port())};
    wanted.auth_key = wire::shared_key::parse(key_hex);
    wanted.num_connections = 2;
    wanted.deadline_ms = 20'000;
    wanted.transport = transport;
    wanted.rdma_messages = true;
    wanted.rdma_devices = {"client"};
    wanted.log = [](std::string_view) {};
    wanted.open_fabric = [this, dc](const std::string& device, std::unique_ptr<verbs::fabric>& made) {
      made = network.create_node({.name = device, .dc = dc});
      return client::status{};
    };
    client::status problem;
    auto made = client::client::make(std::move(wanted), problem);
    if (made == nullptr)
      CAF_FAIL("no client: " << problem.text);
    return made;
  }
  [[nodiscard]] bool no_sessions_left() const {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (std::chrono::steady_clock::now() < limit) {
      const auto got = server->door()->report(2s);
      if (got.report != nullptr && got.report->sessions == 0)
        return true;
      std::this_thread::sleep_for(20ms);
    }
    return false;
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(rdma_client_tests, fixture)

CAF_TEST(values of all sizes come back over RDMA from memory and from files) {
  for (const media kind : {media::memory, media::file}) {
    configure(kind);
    start();
    for (const bool dc : {true, false}) {
      const auto kv = connect_rdma(transport_choice::rdma, dc);
      std::vector<std::byte> memory(6 * mib);
      client::registered_memory registered;
      CAF_REQUIRE_EQUAL(kv->register_memory(memory, registered).text, "");
      std::uint64_t registered_bytes = 0;
      for (const std::size_t size : {0U, 1U, 4096U, 65'536U, 1'048'576U, 4'194'305U}) {
        const std::string key = std::to_string(size) + (dc ? "dc" : "rc");
        const auto value = pattern(key, size, size);
        std::copy(value.begin(), value.end(), memory.begin() + 3);
        CAF_CHECK_EQUAL(kv->put(key, std::span(memory).subspan(3, size)).code, errc::ok);
        std::fill(memory.begin(), memory.end(), std::byte{0x5A});
        const auto got = kv->get(key, std::span(memory).subspan(7, size));
        CAF_CHECK_EQUAL(got.code, errc::ok);
        CAF_CHECK_EQUAL(got.length, size);
        CAF_CHECK(std::equal(value.begin(), value.end(), memory.begin() + 7));
        CAF_CHECK_EQUAL(memory[6], std::byte{0x5A});
        CAF_CHECK_EQUAL(memory[7 + size], std::byte{0x5A});
        registered_bytes += 2 * size;
        // The same through the staging area, and without RDMA.
        std::vector<std::byte> elsewhere(size);
        CAF_CHECK_EQUAL(kv->get(key, elsewhere).code, errc::ok);
        CAF_CHECK(elsewhere == value);
        std::fill(elsewhere.begin(), elsewhere.end(), std::byte{0});
        CAF_CHECK_EQUAL(connect()->get(key, elsewhere).code, errc::ok);
        CAF_CHECK(elsewhere == value);
      }
      CAF_CHECK_EQUAL(kv->count().rdma_value_bytes, registered_bytes);
      CAF_CHECK_EQUAL(kv->count().rdma_failures, 0u);
    }
    CAF_CHECK(no_sessions_left());
    CAF_CHECK(stop());
  }
  CAF_CHECK(network.misuse().empty());
}

CAF_TEST(a thousand small values are put and got in two calls) {
  configure(media::memory);
  start();
  const auto kv = connect_rdma(transport_choice::rdma, true);
  constexpr std::size_t count = 1000;
  auto memory = pattern("all", 1, count * 4096);
  std::vector<std::byte> targets(memory.size());
  client::registered_memory from;
  client::registered_memory to;
  CAF_REQUIRE_EQUAL(kv->register_memory(memory, from).text, "");
  CAF_REQUIRE_EQUAL(kv->register_memory(targets, to).text, "");
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < count; ++i)
    keys.push_back("block-" + std::to_string(i));
  std::vector<client::put_item> puts;
  std::vector<client::get_item> gets;
  for (std::size_t i = 0; i < count; ++i) {
    puts.push_back({keys[i], std::span(memory).subspan(i * 4096, 4096)});
    gets.push_back({keys[i], std::span(targets).subspan(i * 4096, 4096)});
  }
  std::vector<client::item_result> results(count);
  CAF_CHECK_EQUAL(kv->put(puts, results), errc::ok);
  CAF_CHECK_EQUAL(kv->get(gets, results), errc::ok);
  CAF_CHECK(targets == memory);
  CAF_CHECK(stop());
}

CAF_TEST(small requests are messages to a server and come back right) {
  for (const media kind : {media::memory, media::file}) {
    configure(kind);
    start();
    for (const transport_choice transport : {transport_choice::rdma, transport_choice::automatic}) {
      const auto kv = connect_rdma(transport, true);
      std::vector<std::byte> memory(100'000);
      client::registered_memory registered;
      CAF_REQUIRE_EQUAL(kv->register_memory(memory, registered).text, "");
      const auto value = pattern("small", 1, 30'000);
      const auto place = std::span(memory).subspan(11, value.size());
      std::ranges::copy(value, place.begin());
      CAF_CHECK_EQUAL(kv->put("small", place).code, errc::ok);
      std::ranges::fill(place, std::byte{0});
      const auto got = kv->get("small", place);
      CAF_CHECK_EQUAL(got.code, errc::ok);
      CAF_CHECK(std::ranges::equal(place, value));
      const auto found = kv->exists("small");
      CAF_CHECK_EQUAL(found.code, errc::ok);
      CAF_CHECK_EQUAL(found.value_length, value.size());
      CAF_CHECK_EQUAL(kv->exists("never").code, errc::not_found);
      const auto looked_up = kv->lookup("small");
      CAF_CHECK_EQUAL(looked_up.code, errc::ok);
      CAF_CHECK_EQUAL(looked_up.value_length, value.size());
      std::vector<std::string> names;
      for (int number = 0; number < 60; ++number)
        names.push_back("key-" + std::to_string(number));
      names[0] = "small";
      const std::vector<std::string_view> keys(names.begin(), names.end());
      std::vector<client::item_result> results(keys.size());
      CAF_CHECK_EQUAL(kv->exists(keys, results), errc::not_found);
      CAF_CHECK_EQUAL(results[0].value_length, value.size());
      CAF_CHECK_EQUAL(kv->prefix(keys).matched, 1u);
      const auto stats = kv->stat();
      CAF_CHECK_EQUAL(stats[0].blocks, 1u);
      CAF_CHECK_EQUAL(kv->remove("small").code, errc::ok);
      CAF_CHECK_EQUAL(kv->exists("small").code, errc::not_found);
      // With auto puts and deletes go over the socket, and the put's value on a session.
      const bool strict = transport == transport_choice::rdma;
      CAF_CHECK_EQUAL(kv->count().rdma_messages, strict ? 10u : 8u);
      CAF_CHECK_EQUAL(kv->count().rdma_queue_pairs_opened, 1u);
      CAF_CHECK_EQUAL(kv->count().rdma_sessions_opened, strict ? 0u : 1u);
      CAF_CHECK_EQUAL(kv->count().rdma_failures, 0u);
    }
    CAF_CHECK(no_sessions_left());
    CAF_CHECK(stop());
  }
  CAF_CHECK(network.misuse().empty());
}

CAF_TEST(a thousand small requests under way at a server are all answered) {
  configure(media::memory);
  start();
  const auto kv = connect_rdma(transport_choice::rdma, false);
  CAF_REQUIRE_EQUAL(connect()->put("there", pattern("there", 1, 77)).code, errc::ok);
  constexpr std::size_t count = 1000;
  constexpr std::string_view keys[] = {"there", "never"};
  std::vector<client::item_result> results(count);
  std::atomic<std::size_t> completed{0};
  for (std::size_t i = 0; i < count; ++i)
    CAF_REQUIRE(
        kv->submit_exists({&keys[i % 2], 1}, {&results[i], 1}, client::completion::call([&] { ++completed; }))
            .ok());
  const auto limit = std::chrono::steady_clock::now() + 20s;
  while (completed != count && std::chrono::steady_clock::now() < limit)
    kv->drive(10);
  CAF_REQUIRE_EQUAL(completed.load(), count);
  for (std::size_t i = 0; i < count; ++i)
    CAF_CHECK_EQUAL(results[i].code, i % 2 == 0 ? errc::ok : errc::not_found);
  CAF_CHECK_EQUAL(kv->count().rdma_messages, count);
  CAF_CHECK_EQUAL(kv->count().rdma_failures, 0u);
  CAF_CHECK(stop());
}

CAF_TEST(a server that starts again is asked by messages again) {
  configure(media::memory);
  start();
  options.port = server->port();
  const auto kv = connect_rdma(transport_choice::rdma, false);
  for (std::uint64_t round = 1; round < 4; ++round) {
    CAF_CHECK_EQUAL(kv->exists("never").cause, errc::ok);
    CAF_CHECK_EQUAL(kv->count().rdma_queue_pairs_opened, round);
    CAF_CHECK(stop());
    CAF_CHECK(kv->exists("never").cause != errc::ok);
    start();
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (kv->exists("never").cause != errc::ok && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(10ms);
  }
  CAF_CHECK_EQUAL(kv->count().rdma_failures, 0u);
  CAF_CHECK(stop());
}

CAF_TEST(small requests stay right while the pool is killed under load) {
  configure(media::memory);
  start();
  CAF_REQUIRE_EQUAL(connect()->put("there", pattern("there", 1, 77)).code, errc::ok);
  std::mutex lock;
  std::string wrong;
  const auto expect = [&](bool right, const char* what, errc got) {
    if (!right) {
      const std::lock_guard guard(lock);
      wrong += std::string(what) + ": " + to_string(got) + "; ";
    }
  };
  std::atomic<std::uint64_t> done{0};
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 3; ++number)
    threads.emplace_back([&, number] {
      const auto kv = connect_rdma(number == 0 ? transport_choice::rdma : transport_choice::automatic, false);
      std::vector<std::byte> memory(20'000);
      client::registered_memory registered;
      const auto known = kv->register_memory(memory, registered);
      expect(known.ok(), "memory is registered", known.code);
      for (std::uint64_t round = 0; !over; ++round) {
        const auto there = kv->exists("there");
        const auto never = kv->lookup("never");
        const std::string key = std::to_string(number);
        const auto value = pattern(key, round, memory.size());
        std::ranges::copy(value, memory.begin());
        const errc stored = kv->put(key, memory).code;
        std::ranges::fill(memory, std::byte{0xEE});
        const auto got = kv->get(key, memory);
        expect(there.code != errc::ok || there.value_length == 77, "the length is right", there.code);
        expect(there.code != errc::not_found || there.cause != errc::ok, "a block is there", there.code);
        expect(never.code != errc::ok, "a block is not there", never.code);
        expect(stored != errc::ok || got.code != errc::ok || memory == value, "the value is right", got.code);
        // With auto all is well, whatever becomes of RDMA.
        if (number != 0) {
          expect(there.code == errc::ok, "with auto a block is there", there.code);
          expect(never.code == errc::not_found, "with auto a block is not there", never.code);
          expect(stored == errc::ok, "with auto a value is stored", stored);
          expect(got.code == errc::ok, "with auto a value is got", got.code);
        }
        ++done;
      }
      // With rdma everything is there again.
      const auto limit = std::chrono::steady_clock::now() + 20s;
      errc last = errc::pending;
      while (last != errc::ok && std::chrono::steady_clock::now() < limit) {
        std::this_thread::sleep_for(1ms);
        last = kv->exists("there").code;
      }
      expect(last == errc::ok, "in the end a block is there", last);
    });
  const auto after = [&](std::uint64_t rounds) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    for (const std::uint64_t until = done + rounds; done < until;) {
      CAF_REQUIRE(std::chrono::steady_clock::now() < limit);
      std::this_thread::sleep_for(1ms);
    }
  };
  after(50);
  for (int i = 0; i < 3; ++i) {
    for (const auto& [name, who] : server->actors())
      if (name == "dci-pool-0")
        caf::anon_send_exit(who, caf::exit_reason::kill);
    after(50);
  }
  over = true;
  for (std::thread& one : threads)
    one.join();
  CAF_CHECK_EQUAL(wrong, "");
  CAF_CHECK(no_sessions_left());
  CAF_CHECK(stop());
}

CAF_TEST(values stay right while the pool is killed under load) {
  configure(media::memory);
  start();
  std::atomic<int> wrong{0};
  std::atomic<std::uint64_t> done{0};
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 3; ++number)
    threads.emplace_back([&, number] {
      const auto kv =
          connect_rdma(number == 0 ? transport_choice::rdma : transport_choice::automatic, number == 1);
      std::vector<std::byte> memory(300'000);
      std::vector<std::byte> target(300'000);
      client::registered_memory from;
      client::registered_memory to;
      wrong += kv->register_memory(memory, from).ok() && kv->register_memory(target, to).ok() ? 0 : 1;
      for (std::uint64_t round = 0; !over; ++round) {
        const std::string key = std::to_string(number) + "/" + std::to_string(round % 20);
        const auto value = pattern(key, round, memory.size());
        std::copy(value.begin(), value.end(), memory.begin());
        const errc stored = kv->put(key, memory).code;
        // The memory is ours again, whatever the call said: the server must not see this.
        std::fill(memory.begin(), memory.end(), std::byte{0xEE});
        const auto got = kv->get(key, target);
        if (stored == errc::ok && got.code == errc::ok && target != value)
          ++wrong;
        std::fill(target.begin(), target.end(), std::byte{0xDD});
        // With auto all is well, whatever becomes of RDMA.
        if (number != 0 && (stored != errc::ok || got.code != errc::ok))
          ++wrong;
        const bool untouched =
            std::all_of(target.begin(), target.end(), [](std::byte one) { return one == std::byte{0xDD}; });
        wrong += untouched ? 0 : 1;
        ++done;
      }
    });
  const auto after = [&](std::uint64_t rounds) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    for (const std::uint64_t until = done + rounds; done < until;) {
      CAF_REQUIRE(std::chrono::steady_clock::now() < limit);
      std::this_thread::sleep_for(1ms);
    }
  };
  after(20);
  for (int i = 0; i < 3; ++i) {
    for (const auto& [name, who] : server->actors())
      if (name == "dci-pool-0")
        caf::anon_send_exit(who, caf::exit_reason::kill);
    after(20);
  }
  over = true;
  for (std::thread& one : threads)
    one.join();
  CAF_CHECK_EQUAL(wrong.load(), 0);
  CAF_CHECK(no_sessions_left());
  CAF_CHECK(stop());
}

CAF_TEST_FIXTURE_SCOPE_END()
