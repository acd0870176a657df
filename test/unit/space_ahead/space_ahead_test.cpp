// Space that is reserved before it is known what for: what is not needed comes back, what was placed stays.
#define CAF_SUITE space_ahead
#include "engine/drive_store.hpp"
#include "engine/memory_device.hpp"
#include "wire/crc32c.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <cstring>
#include <random>

using namespace memkv;
using engine::errc;

namespace {

constexpr std::uint32_t kib = 1024, mib = 1024 * 1024;

struct fixture {
  engine::system_clock time;
  std::unique_ptr<engine::block_device> device;
  std::unique_ptr<engine::drive_store> store;

  fixture() {
    CAF_REQUIRE(engine::open_memory_device(64 * mib, "memory", device).ok());
    engine::store_options options;
    options.persistent = false;
    CAF_REQUIRE(engine::drive_store::open(*device, options, time, store).ok());
  }

  engine::reservation reserve(std::uint32_t bytes) {
    engine::put_description nothing;
    nothing.length = bytes;
    nothing.value_length = bytes;
    engine::reservation out;
    store->allocate(nothing, [&](errc result, engine::reservation space) {
      CAF_REQUIRE(result == errc::ok);
      out = std::move(space);
    });
    CAF_REQUIRE(out.token != 0);
    return out;
  }

  [[nodiscard]] static std::vector<std::byte> value_of(std::uint32_t bytes) {
    std::mt19937 random{bytes};
    std::vector<std::byte> value(bytes);
    std::generate(value.begin(), value.end(), [&] { return static_cast<std::byte>(random()); });
    return value;
  }

  /// Places a value at the beginning of reserved space and makes it a block of that length.
  errc use(const engine::reservation& space, const std::string& key, std::uint32_t bytes) {
    const auto value = value_of(bytes);
    std::size_t at = 0;
    for (const auto& piece : space.place) {
      const auto count = std::min(piece.size(), value.size() - at);
      std::memcpy(piece.data(), value.data() + at, count);
      at += count;
    }
    engine::put_description what;
    what.id = wire::make_key_id("", std::as_bytes(std::span{key}));
    what.key = std::as_bytes(std::span{key});
    what.length = bytes;
    what.value_length = bytes;
    if (const auto assigned = store->assign(space.token, what); assigned != errc::ok)
      return assigned;
    std::vector<std::uint32_t> sums;
    for (std::size_t begin = 0; begin < value.size(); begin += engine::chunk_bytes)
      sums.push_back(wire::crc32c(
          std::span{value}.subspan(begin, std::min<std::size_t>(engine::chunk_bytes, value.size() - begin))));
    auto outcome = errc::cancelled;
    store->commit(space.token, sums, false, 0, [&](errc result, std::uint64_t) { outcome = result; });
    while (store->poll(false)) {
    }
    return outcome;
  }

  [[nodiscard]] bool comes_back(const std::string& key, std::uint32_t bytes) {
    const auto name = std::as_bytes(std::span{key});
    const auto pin = store->index().find_and_pin(wire::make_key_id("", name));
    engine::extent_view view;
    if (!pin || store->view(pin, "", name, view) != errc::ok)
      return false;
    std::vector<std::byte> read;
    for (const auto& piece : view.pieces)
      read.insert(read.end(), piece.begin(), piece.end());
    return read == value_of(bytes);
  }
};

const std::vector<std::uint32_t>& lengths() {
  static const std::vector<std::uint32_t> all{
      1, 4096, 64 * kib - 4096, 64 * kib - 1, 64 * kib, 64 * kib + 1, 1000000, mib, 4 * mib - 5000, 4 * mib};
  return all;
}

} // namespace

CAF_TEST_FIXTURE_SCOPE(space_ahead_tests, fixture)

CAF_TEST(a block of any length up to what was reserved is stored where its payload lies) {
  for (const auto bytes : lengths()) {
    const auto key = std::to_string(bytes);
    CAF_CHECK(use(reserve(4 * mib), key, bytes) == errc::ok);
    CAF_CHECK(comes_back(key, bytes));
  }
  for (const auto bytes : lengths())
    CAF_CHECK(comes_back(std::to_string(bytes), bytes));
}

CAF_TEST(space that was not needed is used as if it had never been reserved) {
  for (const auto bytes : lengths()) {
    CAF_REQUIRE(use(reserve(4 * mib), "ahead", bytes) == errc::ok);
    const auto ahead = store->counters().used_bytes;
    store->erase(wire::make_key_id("", std::as_bytes(std::span{std::string_view{"ahead"}})), 0, [](errc) {});
    while (store->poll(false)) {
    }
    CAF_CHECK_EQUAL(store->counters().used_bytes, 0u);
    CAF_REQUIRE(use(reserve(bytes), "exact", bytes) == errc::ok);
    CAF_CHECK_EQUAL(store->counters().used_bytes, ahead);
    store->erase(wire::make_key_id("", std::as_bytes(std::span{std::string_view{"exact"}})), 0, [](errc) {});
    while (store->poll(false)) {
    }
    CAF_CHECK_EQUAL(store->counters().used_bytes, 0u);
  }
}

CAF_TEST(more than was reserved and what has its purpose already are refused) {
  const auto space = reserve(mib);
  CAF_CHECK(use(space, "too long", mib + 1) == errc::invalid_argument);
  CAF_CHECK(use(space, "fits", mib) == errc::ok);
  CAF_CHECK(use(space, "again", mib) == errc::invalid_argument);
  const auto other = reserve(mib);
  store->abandon(other.token);
  CAF_CHECK(use(other, "given back", 1000) == errc::invalid_argument);
}

CAF_TEST_FIXTURE_SCOPE_END()
