// What a client may expect of a running server, over real sockets, with memory and with files.
#define CAF_SUITE server
#include "test/scenario/server_fixture.hpp"

#include <atomic>
#include <thread>

using namespace memkv;
using test::media;
using test::pattern;

namespace {

struct fixture : test::server_fixture {
  /// Puts a block of its own pattern.
  static client::errc put(client::client& to, const std::string& key, std::size_t size,
                          std::uint64_t version = 0) {
    return to.put(key, pattern(key, version, size)).code;
  }
  /// "ok", "miss", "wrong" or the error.
  static std::string get(client::client& from, const std::string& key, std::size_t size,
                         std::uint64_t version = 0) {
    std::vector<std::byte> target(size);
    const auto result = from.get(key, target);
    if (result.code == client::errc::not_found)
      return "miss";
    if (result.code != client::errc::ok)
      return std::string{client::name(result.code)};
    return result.length == size && target == pattern(key, version, size) ? "ok" : "wrong";
  }
  static const std::vector<std::size_t>& sizes() {
    static const std::vector<std::size_t> all{0,       1,       4095,    4096,    65535,
                                              65536,   65537,   1000000, 1048576, 1048577,
                                              4194303, 4194304, 4194305, 9000001, 16777216};
    return all;
  }
  static std::string key_of(std::size_t size) { return "block of " + std::to_string(size); }
  void every_size_comes_back(media kind, std::uint32_t drives) {
    configure(kind, drives, 256 << 20);
    start();
    auto user = connect();
    for (const auto size : sizes())
      CAF_CHECK_EQUAL(put(*user, key_of(size), size), client::errc::ok);
    for (const auto size : sizes())
      CAF_CHECK_EQUAL(get(*user, key_of(size), size), "ok");
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(server_tests, fixture)

CAF_TEST(blocks of all sizes come back from memory) {
  every_size_comes_back(media::memory, 1);
}

CAF_TEST(blocks of all sizes come back from three memory drives) {
  every_size_comes_back(media::memory, 3);
}

CAF_TEST(blocks of all sizes come back from a file) {
  every_size_comes_back(media::file, 1);
}

CAF_TEST(blocks of all sizes come back from three files and after a restart) {
  every_size_comes_back(media::file, 3);
  CAF_CHECK(stop());
  start();
  auto user = connect();
  for (const auto size : sizes())
    CAF_CHECK_EQUAL(get(*user, key_of(size), size), "ok");
}

CAF_TEST(a key in one namespace is not seen in another) {
  configure(media::memory, 1, 64 << 20);
  start();
  auto one = connect(1, "tenant-a");
  auto other = connect(1, "tenant-b");
  CAF_CHECK_EQUAL(put(*one, "same", 1000, 1), client::errc::ok);
  CAF_CHECK_EQUAL(get(*other, "same", 1000, 1), "miss");
  CAF_CHECK_EQUAL(put(*other, "same", 1000, 2), client::errc::ok);
  CAF_CHECK_EQUAL(get(*one, "same", 1000, 1), "ok");
  CAF_CHECK_EQUAL(other->remove("same").code, client::errc::ok);
  CAF_CHECK_EQUAL(get(*one, "same", 1000, 1), "ok");
}

CAF_TEST(an overwrite and a delete take effect at once and for good) {
  configure(media::file, 2, 128 << 20);
  start();
  auto user = connect();
  for (const std::size_t size : {5000UL, 300000UL, 9000000UL}) {
    const auto key = key_of(size);
    CAF_CHECK_EQUAL(put(*user, key, size, 1), client::errc::ok);
    CAF_CHECK_EQUAL(put(*user, key, size, 2), client::errc::ok);
    CAF_CHECK_EQUAL(get(*user, key, size, 2), "ok");
    CAF_CHECK_EQUAL(user->remove(key).code, client::errc::ok);
    CAF_CHECK_EQUAL(user->remove(key).code, client::errc::not_found);
    CAF_CHECK_EQUAL(get(*user, key, size, 2), "miss");
  }
  CAF_CHECK(stop());
  start();
  auto again = connect();
  for (const std::size_t size : {5000UL, 300000UL, 9000000UL})
    CAF_CHECK_EQUAL(get(*again, key_of(size), size, 2), "miss");
}

CAF_TEST(a put with if absent leaves what is there) {
  configure(media::memory, 1, 64 << 20);
  start();
  auto user = connect();
  CAF_CHECK_EQUAL(user->put("key", pattern("key", 1, 100000), true).code, client::errc::ok);
  CAF_CHECK_EQUAL(user->put("key", pattern("key", 2, 100000), true).code, client::errc::already_exists);
  CAF_CHECK_EQUAL(get(*user, "key", 100000, 1), "ok");
}

CAF_TEST(any range of a block can be read from every media) {
  for (const auto kind : {media::memory, media::file}) {
    configure(kind, 2, 128 << 20);
    start();
    auto user = connect();
    const std::size_t size = 9'000'001;
    const auto whole = pattern("ranged", 0, size);
    CAF_CHECK_EQUAL(put(*user, "ranged", size), client::errc::ok);
    for (const std::size_t offset : {0UL, 1UL, 65535UL, 65536UL, 1048575UL, 4194303UL, 4194304UL, 8999999UL})
      for (const std::size_t length : {1UL, 2UL, 4096UL, 65537UL, 1048577UL, 5000000UL}) {
        std::vector<std::byte> target(length);
        const client::get_item item{"ranged", target, offset, length};
        client::item_result result;
        user->get({&item, 1}, {&result, 1});
        const auto want = std::min(length, size - offset);
        CAF_CHECK_EQUAL(result.code, client::errc::ok);
        CAF_CHECK_EQUAL(result.length, want);
        CAF_CHECK(std::equal(target.begin(), target.begin() + static_cast<std::ptrdiff_t>(want),
                             whole.begin() + static_cast<std::ptrdiff_t>(offset)));
      }
    server.reset();
  }
}

CAF_TEST(batches of small and large items are stored found counted and deleted) {
  for (const auto kind : {media::memory, media::file}) {
    configure(kind, 2, 256 << 20);
    start();
    auto user = connect();
    std::vector<std::string> keys;
    std::vector<std::vector<std::byte>> values;
    for (int i = 0; i < 600; ++i) {
      keys.push_back("batch " + std::to_string(i));
      values.push_back(pattern(keys.back(), 0, static_cast<std::size_t>(i % 7 == 0 ? 200'000 : i * 37)));
    }
    std::vector<client::put_item> puts;
    for (std::size_t i = 0; i < keys.size(); ++i)
      puts.push_back({keys[i], values[i], false});
    std::vector<client::item_result> results(keys.size());
    CAF_CHECK_EQUAL(user->put(puts, results), client::errc::ok);
    std::vector<std::vector<std::byte>> targets;
    std::vector<client::get_item> gets;
    keys.emplace_back("not there");
    for (std::size_t i = 0; i < keys.size(); ++i) {
      targets.emplace_back(i < values.size() ? values[i].size() : 100);
      gets.push_back({keys[i], targets.back(), 0, 0});
    }
    results.assign(keys.size(), {});
    user->get(gets, results);
    for (std::size_t i = 0; i < values.size(); ++i)
      CAF_CHECK(results[i].code == client::errc::ok && targets[i] == values[i]);
    CAF_CHECK_EQUAL(results.back().code, client::errc::not_found);
    std::vector<std::string_view> names(keys.begin(), keys.end());
    results.assign(keys.size(), {});
    user->exists(names, results);
    CAF_CHECK_EQUAL(results[14].value_length, values[14].size());
    CAF_CHECK_EQUAL(results.back().code, client::errc::not_found);
    CAF_CHECK_EQUAL(user->prefix(names).matched, values.size());
    results.assign(keys.size(), {});
    user->remove(names, results);
    CAF_CHECK_EQUAL(user->prefix(names).matched, 0u);
    server.reset();
  }
}

CAF_TEST(more large batches than a server holds at a time are all served in the end) {
  configure(media::file, 1, 512 << 20);
  options.store.unit_bytes = 4 << 10;
  start();
  // Of so many items ten or so are as much as it holds; the next is Busy until one is answered.
  constexpr std::size_t users = 12;
  constexpr std::size_t items = 4096;
  std::atomic<std::uint64_t> stored{0}, asked_again{0};
  std::vector<std::thread> threads;
  for (std::size_t number = 0; number < users; ++number)
    threads.emplace_back([&, number] {
      auto user = connect(1, "", 60'000);
      const auto value = pattern("value", number, 16);
      std::vector<std::string> keys;
      for (std::size_t i = 0; i < items; ++i)
        keys.push_back(std::to_string(number) + "-" + std::to_string(i));
      std::vector<client::put_item> puts;
      for (const auto& key : keys)
        puts.push_back({key, value, false});
      std::vector<client::item_result> results(items);
      user->put(puts, results);
      for (const auto& result : results)
        stored += result.code == client::errc::ok ? 1 : 0;
      asked_again += user->count().busy_retried;
    });
  for (auto& thread : threads)
    thread.join();
  CAF_MESSAGE("asked again: " << asked_again);
  CAF_CHECK_EQUAL(stored.load(), users * items);
}

CAF_TEST(a full store evicts and never refuses a put) {
  for (const auto kind : {media::memory, media::file}) {
    configure(kind, 1, 64 << 20);
    options.store.extent_bytes_max = 1 << 20;
    start();
    auto user = connect();
    int gone_at_once = 0;
    for (int i = 0; i < 400; ++i) {
      const auto key = "evicted " + std::to_string(i);
      CAF_REQUIRE_EQUAL(put(*user, key, 1'000'000), client::errc::ok);
      // A block nobody has read yet may be the first to go, but that is rare.
      const auto found = get(*user, key, 1'000'000);
      CAF_REQUIRE(found == "ok" || found == "miss");
      gone_at_once += found == "miss";
    }
    CAF_CHECK(gone_at_once < 20);
    int hits = 0;
    for (int i = 0; i < 400; ++i) {
      const auto found = get(*user, "evicted " + std::to_string(i), 1'000'000);
      CAF_CHECK(found == "ok" || found == "miss");
      hits += found == "ok";
    }
    CAF_CHECK(hits > 30);
    server.reset();
  }
}

CAF_TEST(with eviction off a full store says so and keeps everything) {
  configure(media::memory, 1, 32 << 20);
  options.store.eviction = false;
  options.store.extent_bytes_max = 1 << 20;
  start();
  auto user = connect();
  int stored = 0;
  auto last = client::errc::ok;
  for (; stored < 100; ++stored)
    if (last = put(*user, "kept " + std::to_string(stored), 1'000'000); last != client::errc::ok)
      break;
  CAF_CHECK_EQUAL(last, client::errc::no_space);
  CAF_CHECK(stored > 20);
  for (int i = 0; i < stored; ++i)
    CAF_CHECK_EQUAL(get(*user, "kept " + std::to_string(i), 1'000'000), "ok");
}

CAF_TEST(keyed digests are accepted and can be required) {
  configure(media::memory, 1, 64 << 20);
  options.require_keyed_digest = true;
  start();
  client::options wanted;
  wanted.servers = {"127.0.0.1:" + std::to_string(server->port())};
  wanted.auth_key = wire::shared_key::parse(test::key_hex);
  wanted.digest = client::digest_choice::keyed;
  client::status problem;
  auto strong = client::client::make(std::move(wanted), problem);
  CAF_REQUIRE(strong != nullptr);
  CAF_CHECK_EQUAL(put(*strong, "k", 3'000'000), client::errc::ok);
  CAF_CHECK_EQUAL(get(*strong, "k", 3'000'000), "ok");
  // The server says in its Hello that it requires them, and clients follow.
  auto plain = connect();
  CAF_CHECK_EQUAL(get(*plain, "k", 3'000'000), "ok");
}

CAF_TEST(the key of a running fleet is changed without a failed request) {
  constexpr std::string_view new_key = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f91";
  const auto connect_with = [&](std::string_view key, client::digest_choice digest) {
    client::options wanted;
    wanted.servers = {"127.0.0.1:" + std::to_string(server->port())};
    wanted.auth_key = wire::shared_key::parse(key);
    wanted.digest = digest;
    client::status problem;
    return client::client::make(std::move(wanted), problem);
  };
  const auto plain = client::digest_choice::crc32c;
  configure(media::file, 1, 128 << 20);
  start();
  CAF_CHECK_EQUAL(put(*connect_with(test::key_hex, plain), "a", 3'000'000), client::errc::ok);
  CAF_CHECK(stop());
  // First the servers know both keys, the new one in front.
  options.previous_key = options.key;
  options.key = std::make_shared<wire::shared_key>(*wire::shared_key::parse(new_key));
  start();
  for (const auto digest : {plain, client::digest_choice::keyed}) {
    auto old_one = connect_with(test::key_hex, digest);
    auto new_one = connect_with(new_key, digest);
    CAF_CHECK_EQUAL(get(*old_one, "a", 3'000'000), "ok");
    CAF_CHECK_EQUAL(get(*new_one, "a", 3'000'000), "ok");
    CAF_CHECK_EQUAL(put(*old_one, "b", 200'000), client::errc::ok);
    CAF_CHECK_EQUAL(get(*new_one, "b", 200'000), "ok");
  }
  auto stranger = connect_with("00112233445566778899aabbccddeeff0123456789abcdef0123456789abcde0", plain);
  CAF_CHECK(put(*stranger, "c", 1000) != client::errc::ok);
  CAF_CHECK(stop());
  // Then the clients; at last the old key goes.
  options.previous_key = nullptr;
  start();
  CAF_CHECK_EQUAL(get(*connect_with(new_key, plain), "a", 3'000'000), "ok");
  CAF_CHECK(put(*connect_with(test::key_hex, plain), "c", 1000) != client::errc::ok);
}

CAF_TEST(a stop in good order ends within its time and a second start finds everything) {
  configure(media::file, 2, 128 << 20);
  start();
  auto user = connect();
  for (int i = 0; i < 50; ++i)
    CAF_CHECK_EQUAL(put(*user, std::to_string(i), 200'000), client::errc::ok);
  CAF_CHECK(stop());
  start();
  auto again = connect();
  for (int i = 0; i < 50; ++i)
    CAF_CHECK_EQUAL(get(*again, std::to_string(i), 200'000), "ok");
}

CAF_TEST_FIXTURE_SCOPE_END()
