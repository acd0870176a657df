#define CAF_SUITE block_cache

#include "actors/block_cache.hpp"

#include <caf/test/dsl.hpp>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace memkv;
using namespace memkv::actors;

namespace {

constexpr std::uint32_t chunk = 256 << 10;
constexpr std::uint32_t block = 64 << 10;

struct fixture {
  std::unique_ptr<engine::buffer_pool> pool;
  std::unique_ptr<block_cache> cache;

  fixture() { remake(16); }
  void remake(std::uint64_t chunks) {
    cache.reset();
    engine::buffer_pool_options options;
    options.size_bytes = chunks * chunk;
    options.chunk_bytes = chunk;
    options.huge_pages = false;
    CAF_REQUIRE(engine::buffer_pool::create(options, pool).ok());
    cache = std::make_unique<block_cache>(*pool);
  }

  static extent_read wanted(std::uint32_t offset = 0, std::uint32_t length = block,
                            const std::string& key = "key") {
    extent_read read;
    read.name_space = "ns";
    for (const char c : key)
      read.key.push_back(static_cast<std::byte>(c));
    read.offset = offset;
    read.length = length;
    return read;
  }

  /// Reads a block of the letter `fill` into the segment.
  extent_read read_into(const std::shared_ptr<block_cache::segment>& segment, char fill,
                        std::uint32_t offset = 0) const {
    auto read = wanted(offset);
    read.into.data = segment->memory.data() + segment->filled;
    read.into.bytes = block;
    read.into.keep = segment;
    segment->filled += block;
    std::memset(read.into.data, fill, block);
    read.view.pieces.push_back({read.into.data, block});
    read.view.sums = std::make_shared<const std::vector<std::byte>>(4, static_cast<std::byte>(fill));
    return read;
  }

  /// A segment full of blocks with the generations from `first` on.
  void fill_segment(std::uint64_t first) const {
    const auto segment = cache->open_segment();
    CAF_REQUIRE(segment != nullptr);
    for (std::uint64_t i = 0; i < chunk / block; ++i)
      cache->insert(first + i, read_into(segment, static_cast<char>('a' + i)));
    cache->close_segment(segment);
  }

  [[nodiscard]] bool has(std::uint64_t generation) const {
    auto read = wanted();
    return cache->find(generation, read);
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(block_cache_tests, fixture)

CAF_TEST(what was read is found by its generation with its bytes and its sums) {
  const auto segment = cache->open_segment();
  cache->insert(7, read_into(segment, 'x'));
  cache->insert(7, read_into(segment, 'y', 2 * block));
  auto read = wanted();
  CAF_REQUIRE(cache->find(7, read));
  CAF_REQUIRE_EQUAL(read.view.pieces.size(), 1u);
  CAF_CHECK(read.view.pieces[0][block - 1] == std::byte{'x'});
  CAF_CHECK(read.view.chunk_crc32c[0] == std::byte{'x'});
  auto second = wanted(2 * block, 1000);
  CAF_REQUIRE(cache->find(7, second));
  CAF_CHECK_EQUAL(second.view.pieces[0].size(), 1000u);
  CAF_CHECK(second.view.pieces[0][0] == std::byte{'y'});
}

CAF_TEST(another generation or key or namespace or a longer range is not found) {
  const auto segment = cache->open_segment();
  cache->insert(7, read_into(segment, 'x'));
  auto read = wanted();
  CAF_CHECK(!cache->find(8, read));
  auto longer = wanted(0, 2 * block);
  CAF_CHECK(!cache->find(7, longer));
  auto behind = wanted(block);
  CAF_CHECK(!cache->find(7, behind));
  auto other = wanted(0, block, "kex");
  CAF_CHECK(!cache->find(7, other));
  auto foreign = wanted();
  foreign.name_space = "sn";
  CAF_CHECK(!cache->find(7, foreign));
  CAF_CHECK_EQUAL(cache->statistics().misses, 5u);
}

CAF_TEST(transfers get every chunk that is only cached) {
  for (std::uint64_t i = 0; i < 10; ++i)
    fill_segment(100 * i);
  std::vector<engine::buffer> transfers;
  for (int i = 0; i < 16; ++i) {
    transfers.push_back(cache->acquire());
    CAF_REQUIRE(static_cast<bool>(transfers.back()));
  }
  CAF_CHECK(!cache->acquire());
  CAF_CHECK_EQUAL(cache->statistics().pieces, 0u);
  CAF_CHECK(cache->open_segment() == nullptr);
}

CAF_TEST(some chunks stay free whatever is cached) {
  for (std::uint64_t i = 0; i < 100; ++i)
    fill_segment(100 * i);
  const auto now = pool->statistics();
  CAF_CHECK(now.chunks - now.chunks_in_use >= 2);
  CAF_CHECK(cache->statistics().segments >= 12);
}

CAF_TEST(what is hit outlasts what is not) {
  fill_segment(1000);
  for (std::uint64_t i = 0; i < 100; ++i) {
    CAF_REQUIRE(has(1001));
    fill_segment(100'000 + 100 * i);
  }
  CAF_CHECK(has(1001));
  CAF_CHECK(!has(100'000));
  for (std::uint64_t i = 0; i < 100; ++i)
    fill_segment(900'000 + 100 * i);
  CAF_CHECK(!has(1001));
}

CAF_TEST(a reader keeps its bytes when their segment is dropped) {
  fill_segment(5);
  auto read = wanted();
  CAF_REQUIRE(cache->find(5, read));
  std::vector<engine::buffer> transfers;
  for (auto next = cache->acquire(); next; next = cache->acquire())
    transfers.push_back(std::move(next));
  CAF_CHECK_EQUAL(transfers.size(), 15u); // the reader has the last one
  CAF_CHECK(!has(5));
  CAF_CHECK(read.view.pieces[0][100] == std::byte{'a'});
  read = {};
  CAF_CHECK(static_cast<bool>(cache->acquire()));
}

CAF_TEST(a read that comes back after its segment was dropped is not found) {
  const auto segment = cache->open_segment();
  const auto read = read_into(segment, 'z');
  cache->close_segment(segment);
  std::vector<engine::buffer> transfers;
  for (auto next = cache->acquire(); next; next = cache->acquire())
    transfers.push_back(std::move(next));
  cache->insert(9, read);
  CAF_CHECK(!has(9));
  CAF_CHECK_EQUAL(cache->statistics().pieces, 0u);
}

CAF_TEST(several threads read and fill it at one time and see only right bytes) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int number = 0; number < 3; ++number)
    threads.emplace_back([&, number] {
      std::uint64_t state = 12'345 + static_cast<std::uint64_t>(number);
      std::shared_ptr<block_cache::segment> segment;
      for (int step = 0; step < 4'000; ++step) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        const auto generation = (state >> 33) % 60;
        auto read = wanted();
        if (cache->find(generation, read)) {
          if (read.view.pieces[0][777] != static_cast<std::byte>('A' + generation))
            ++wrong;
          continue;
        }
        if (segment == nullptr || segment->filled == chunk) {
          if (segment != nullptr)
            cache->close_segment(std::move(segment));
          segment = cache->open_segment();
          if (segment == nullptr)
            continue;
        }
        cache->insert(generation, read_into(segment, static_cast<char>('A' + generation)));
      }
      if (segment != nullptr)
        cache->close_segment(std::move(segment));
    });
  for (auto& each : threads)
    each.join();
  CAF_CHECK_EQUAL(wrong.load(), 0);
  CAF_CHECK(cache->statistics().hits > 0);
}

CAF_TEST_FIXTURE_SCOPE_END()
