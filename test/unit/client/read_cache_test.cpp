#define CAF_SUITE client_read_cache

#include "client/read_cache.hpp"

#include <caf/test/unit_test.hpp>

#include <string>

using memkv::client::read_cache;

namespace {

using bytes = std::vector<std::byte>;

memkv::wire::key_id id_of(std::string_view key) {
  return memkv::wire::make_key_id("", memkv::wire::as_bytes_view(key));
}

struct fixture {
  read_cache cache{16U << 20U};
  void keep(const std::string& key, std::size_t length, std::byte filling = std::byte{1}) {
    cache.keep(id_of(key), key, bytes(length, filling), cache.epoch(id_of(key)));
  }
  read_cache::found copy(const std::string& key, bytes& target, std::uint64_t offset = 0,
                         std::uint64_t length = 0) {
    return cache.copy(id_of(key), key, offset, length, target);
  }
};

} // namespace

CAF_TEST(a kept value is copied whole or in part) {
  fixture f;
  f.keep("a", 100);
  bytes target(100);
  read_cache::found found = f.copy("a", target);
  CAF_CHECK(found.hit && found.fits && found.in_range);
  CAF_CHECK_EQUAL(found.length, 100u);
  CAF_CHECK(target == bytes(100, std::byte{1}));
  found = f.copy("a", target, 90, 50);
  CAF_CHECK_EQUAL(found.length, 10u);
  found = f.copy("a", target, 100);
  CAF_CHECK(found.fits && found.length == 0);
  found = f.copy("a", target, 101);
  CAF_CHECK(found.hit && !found.in_range);
  bytes small(99);
  found = f.copy("a", small);
  CAF_CHECK(found.hit && !found.fits);
  CAF_CHECK_EQUAL(found.value_length, 100u);
  CAF_CHECK(!f.copy("b", target).hit);
}

CAF_TEST(the memory is bounded and the least recently used goes first) {
  fixture f;
  for (int i = 0; i < 2000; ++i) {
    f.keep("key" + std::to_string(i), 50'000);
    CAF_CHECK_LESS_OR_EQUAL(f.cache.bytes(), 16U << 20U);
    bytes target(50'000);
    CAF_CHECK(f.copy("key0", target).hit);
  }
  bytes target(50'000);
  CAF_CHECK(!f.copy("key1", target).hit);
  CAF_CHECK(f.copy("key1999", target).hit);
  CAF_CHECK_GREATER(f.cache.bytes(), 8U << 20U);
}

CAF_TEST(a value that would fill a shard is not kept) {
  fixture f;
  f.keep("large", 1U << 20U);
  bytes target(1U << 20U);
  CAF_CHECK(!f.copy("large", target).hit);
}

CAF_TEST(a value read before an own change is not kept after it) {
  fixture f;
  const std::uint64_t before = f.cache.epoch(id_of("a"));
  f.cache.forget(id_of("a"));
  f.cache.keep(id_of("a"), "a", bytes(10), before);
  bytes target(10);
  CAF_CHECK(!f.copy("a", target).hit);
  f.keep("a", 10);
  CAF_CHECK(f.copy("a", target).hit);
  f.cache.forget(id_of("a"));
  CAF_CHECK(!f.copy("a", target).hit);
  CAF_CHECK_EQUAL(f.cache.bytes(), 0u);
}

CAF_TEST(a new value takes the place of the old one) {
  fixture f;
  f.keep("a", 10);
  f.keep("a", 20, std::byte{2});
  bytes target(20);
  CAF_CHECK_EQUAL(f.copy("a", target).length, 20u);
  CAF_CHECK(target[0] == std::byte{2});
}

CAF_TEST(a cache of no bytes is off) {
  read_cache cache(0);
  CAF_CHECK(!cache.enabled());
}
