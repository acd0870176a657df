// A striped block of which a drive has lost a part: whoever asks hears that there is no such block, and it
// goes.
#define CAF_SUITE incomplete_block
#include "actors/drive_table.hpp"
#include "test/scenario/server_fixture.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

using namespace memkv;
using client::errc;
using test::media;
using test::pattern;

namespace {

constexpr std::uint32_t drives = 3;
constexpr std::size_t value_bytes = 9'000'000; // a head and two parts

struct fixture : test::server_fixture {
  std::unique_ptr<client::client> user;

  void serve(media kind, std::uint32_t extent_bytes = 4 << 20) {
    configure(kind, drives, 256 << 20);
    options.store.extent_bytes_max = extent_bytes;
    start();
    user = connect(1);
  }

  [[nodiscard]] std::uint64_t blocks() const {
    const auto stat = user->stat().at(0);
    CAF_REQUIRE(stat.code == errc::ok);
    return stat.blocks;
  }

  [[nodiscard]] bool settles_at(std::uint64_t count) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (blocks() != count) {
      if (std::chrono::steady_clock::now() > end)
        return false;
      std::this_thread::sleep_for(std::chrono::milliseconds{2});
    }
    return true;
  }

  /// Has a drive lose a part of what was stored with that generation.
  void lose_part(const std::string& key, std::uint64_t before, std::uint32_t part) const {
    const auto id = wire::make_key_id("", wire::as_bytes_view(key));
    const auto actors = server->actors();
    // The server keeps to itself how it calls a put: it is a number below that of its commit.
    for (std::uint64_t put_id = 1; put_id <= before; ++put_id) {
      auto erase = std::make_shared<actors::block_erase>();
      erase->id = engine::part_id(id, put_id, part);
      const auto name = "drive-" + std::to_string(actors::home_drive(erase->id, drives));
      for (const auto& [each, who] : actors)
        if (each == name)
          caf::anon_send(caf::actor_cast<actors::drive_actor>(who), actors::erase_block{std::move(erase)});
    }
  }

  /// Stores a value and has a drive lose one of its parts.
  void put_incomplete(const std::string& key, std::uint32_t part) {
    CAF_REQUIRE(settles_at(0)); // what was dropped before goes a moment later
    const auto put = user->put(key, pattern(key, 1, value_bytes));
    CAF_REQUIRE_EQUAL(put.code, errc::ok);
    CAF_REQUIRE(settles_at(3));
    lose_part(key, put.generation, part);
    CAF_REQUIRE(settles_at(2));
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(incomplete_block_tests, fixture)

CAF_TEST(nobody is told that a block is there whose part is gone) {
  for (const auto kind : {media::memory, media::file}) {
    serve(kind);
    for (const std::uint32_t part : {1U, 2U}) {
      put_incomplete("asked", part);
      CAF_CHECK_EQUAL(user->exists("asked").code, errc::not_found);
      CAF_CHECK_EQUAL(user->lookup("asked").code, errc::not_found);
      // The look-up has dropped it; a delete sweeps up what is left of a block that nobody has looked at.
      put_incomplete("deleted", part);
      CAF_CHECK_EQUAL(user->remove("deleted").code, errc::not_found);
      CAF_CHECK_EQUAL(user->remove("deleted").code, errc::not_found);
      std::vector<std::byte> found(value_bytes);
      put_incomplete("read", part);
      CAF_CHECK_EQUAL(user->get("read", found).code, errc::not_found);
      CAF_CHECK_EQUAL(user->remove("read").code, errc::not_found);
      put_incomplete("again", part);
      CAF_CHECK_EQUAL(user->put("again", pattern("again", 2, value_bytes), true).code, errc::ok);
      CAF_CHECK_EQUAL(user->put("again", pattern("again", 3, value_bytes), true).code, errc::already_exists);
      CAF_CHECK_EQUAL(user->get("again", found).code, errc::ok);
      CAF_CHECK(found == pattern("again", 2, value_bytes));
      CAF_CHECK_EQUAL(user->exists("again").value_length, value_bytes);
      CAF_CHECK_EQUAL(user->remove("again").code, errc::ok);
      // Nothing of any of them takes space.
      CAF_CHECK(settles_at(0));
    }
    user.reset();
    CAF_CHECK(stop());
  }
}

CAF_TEST(a striped block that is overwritten all the time is there all the time) {
  serve(media::file);
  CAF_REQUIRE_EQUAL(user->put("busy", pattern("busy", 0, value_bytes)).code, errc::ok);
  std::atomic<bool> over{false};
  std::atomic<int> failed{0};
  std::thread writer([&] {
    const auto other = connect(1);
    for (std::uint64_t version = 1; version < 60; ++version)
      failed += other->put("busy", pattern("busy", version, value_bytes)).code != errc::ok;
    over = true;
  });
  std::uint64_t asked = 0;
  while (!over || asked == 0) {
    CAF_CHECK_EQUAL(user->exists("busy").code, errc::ok);
    CAF_CHECK_EQUAL(user->put("busy", pattern("busy", 0, 1), true).code, errc::already_exists);
    ++asked;
  }
  writer.join();
  CAF_CHECK_EQUAL(failed.load(), 0);
  CAF_CHECK_EQUAL(user->remove("busy").code, errc::ok);
}

CAF_TEST(a query looks for so many parts and no more) {
  serve(media::memory, 64 << 10);
  constexpr std::size_t parts = 128, long_bytes = (parts + 1) * (64 << 10);
  CAF_REQUIRE_EQUAL(user->put("whole", pattern("whole", 1, long_bytes)).code, errc::ok);
  const auto blocks_before = blocks();
  const auto put = user->put("lost", pattern("lost", 1, 2 * (64 << 10)));
  CAF_REQUIRE_EQUAL(put.code, errc::ok);
  lose_part("lost", put.generation, 1);
  CAF_REQUIRE(settles_at(blocks_before + 1));
  const auto last_of = [&](std::size_t others) {
    std::vector<std::string_view> keys(others, "whole");
    keys.push_back("lost");
    std::vector<client::item_result> results(keys.size());
    static_cast<void>(user->exists(keys, results));
    for (std::size_t index = 0; index < others; ++index)
      CAF_CHECK_EQUAL(results[index].code, errc::ok);
    return results.back().code;
  };
  constexpr std::size_t enough = actors::drive_table::parts_a_turn / parts;
  CAF_CHECK_EQUAL(last_of(enough - 1), errc::not_found);
  // Here it is taken at its head's word, as it would be if it were asked for a moment earlier.
  CAF_CHECK_EQUAL(last_of(enough), errc::ok);
  CAF_CHECK_EQUAL(last_of(1), errc::not_found);
  std::vector<std::byte> found(2 * (64 << 10));
  CAF_CHECK_EQUAL(user->get("lost", found).code, errc::not_found);
}

CAF_TEST(parts stay as long as a drive that is away may come back with their head) {
  constexpr std::uint32_t victim = 2;
  constexpr std::size_t count = 12;
  configure(media::file, drives, 256 << 20);
  const auto folder = [&](std::uint32_t index) {
    return directory.path() / ("place" + std::to_string(index));
  };
  for (std::uint32_t index = 0; index < drives; ++index) {
    std::filesystem::create_directory(folder(index));
    options.drives[index].path = folder(index) / "drive";
  }
  const auto away = directory.path() / "away";
  const auto key = [](std::size_t number) { return "striped-" + std::to_string(number); };
  const auto is_whole = [&](std::size_t number) {
    std::vector<std::byte> found(value_bytes);
    return user->get(key(number), found).code == errc::ok && found == pattern(key(number), 1, value_bytes);
  };
  const auto serve_again = [&] {
    user.reset();
    CAF_REQUIRE(server == nullptr || stop());
    start();
    user = connect(1);
  };
  const auto online = [&](std::uint32_t wanted) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{40};
    while (server->drives_online() != wanted && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
    return server->drives_online() == wanted;
  };

  serve_again();
  std::vector<std::size_t> lost_heads;
  for (std::size_t number = 0; number < count; ++number) {
    const auto put = user->put(key(number), pattern(key(number), 1, value_bytes));
    CAF_REQUIRE_EQUAL(put.code, errc::ok);
    if (actors::home_drive(wire::make_key_id("", wire::as_bytes_view(key(number))), drives) == victim)
      lost_heads.push_back(number);
  }
  CAF_REQUIRE(settles_at(3 * count));
  CAF_REQUIRE(lost_heads.size() >= 2 && lost_heads.size() < count);

  // The drive comes back to the server that started without it.
  user.reset();
  CAF_REQUIRE(stop());
  std::filesystem::rename(folder(victim), away);
  serve_again();
  CAF_CHECK(online(drives - 1));
  for (const auto number : lost_heads)
    CAF_CHECK_EQUAL(user->exists(key(number)).code, errc::not_found);
  // One of them is put anew meanwhile, and what is left of its old value is of no use any more.
  const auto replaced = lost_heads.back();
  CAF_CHECK_EQUAL(user->put(key(replaced), pattern("new", 1, 1'000)).code, errc::ok);
  std::this_thread::sleep_for(std::chrono::milliseconds{200});
  std::filesystem::rename(away, folder(victim));
  CAF_REQUIRE(online(drives));
  for (std::size_t number = 0; number < count; ++number)
    if (number != replaced)
      CAF_CHECK(is_whole(number));
  // What another drive held of a key that now lives on its own again is a miss.
  CAF_CHECK_EQUAL(user->exists(key(replaced)).code, errc::not_found);
  CAF_CHECK(settles_at(3 * (count - 1)));

  // The next server without it makes it stale, and the one after that knows that no head will come.
  user.reset();
  CAF_REQUIRE(stop());
  std::filesystem::rename(folder(victim), away);
  serve_again();
  CAF_CHECK(online(drives - 1));
  const auto with_parts = blocks();
  serve_again();
  CAF_CHECK(online(drives - 1));
  std::uint64_t left = 0;
  for (std::size_t number = 0; number < count; ++number)
    left += user->exists(key(number)).code == errc::ok ? 3 : 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
  while (blocks() >= with_parts && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
  CAF_CHECK_LESS(blocks(), with_parts);
  CAF_CHECK_GREATER_OR_EQUAL(blocks(), left);
  user.reset();
  CAF_CHECK(stop());
}

CAF_TEST_FIXTURE_SCOPE_END()
