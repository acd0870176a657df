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

CAF_TEST_FIXTURE_SCOPE_END()
