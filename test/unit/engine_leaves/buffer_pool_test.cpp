#define CAF_SUITE engine_buffer_pool
#include <caf/test/unit_test.hpp>

#include "engine/buffer_pool.hpp"

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

using namespace memkv::engine;

namespace {

std::unique_ptr<buffer_pool> make_pool(std::uint64_t size, std::uint64_t chunk) {
  std::unique_ptr<buffer_pool> pool;
  const status result = buffer_pool::create({size, chunk, false}, pool);
  if (!result.ok())
    CAF_FAIL(result.text);
  return pool;
}

} // namespace

CAF_TEST(a pool hands out its chunks and no more) {
  const auto pool = make_pool(5 * 8192 + 4096, 8192);
  std::vector<buffer> held;
  for (int i = 0; i < 5; ++i) {
    held.push_back(pool->acquire());
    CAF_REQUIRE(held.back());
    CAF_CHECK_EQUAL(held.back().size(), 8192u);
    std::memset(held.back().data(), i, 8192);
  }
  CAF_CHECK(!pool->acquire());
  for (std::size_t i = 0; i < 5; ++i)
    CAF_CHECK_EQUAL(std::to_integer<std::size_t>(held[i].span().back()), i);
  CAF_CHECK_EQUAL(pool->statistics().refused, 1u);
  CAF_CHECK_EQUAL(pool->statistics().chunks_in_use, 5u);
  held.pop_back();
  CAF_CHECK(pool->acquire());
  CAF_CHECK_EQUAL(pool->statistics().chunks_in_use, 4u);
  CAF_CHECK_EQUAL(pool->statistics().chunks_in_use_most, 5u);
}

CAF_TEST(the chunk that came back last is handed out first and unused ones stay untouched) {
  const auto pool = make_pool(100 * 4096, 4096);
  for (int i = 0; i < 50; ++i) {
    buffer one = pool->acquire();
    buffer two = pool->acquire();
    const std::byte* const last = one.data();
    two.release();
    one.release();
    CAF_CHECK_EQUAL(pool->acquire().data(), last);
  }
  CAF_CHECK_EQUAL(pool->statistics().chunks_touched, 2u);
}

CAF_TEST(a buffer moves and outlives the pool) {
  auto pool = make_pool(2 * 4096, 4096);
  buffer one = pool->acquire();
  buffer other = std::move(one);
  CAF_CHECK(!one);
  CAF_REQUIRE(other);
  one = std::move(other);
  one = pool->acquire();
  CAF_CHECK_EQUAL(pool->statistics().chunks_in_use, 1u);
  pool.reset();
  std::memset(one.data(), 1, one.size());
  one.release();
  one.release();
}

CAF_TEST(impossible sizes are refused in a sentence) {
  std::unique_ptr<buffer_pool> pool;
  for (const buffer_pool_options& wrong :
       {buffer_pool_options{4096, 0}, {4096, 1000}, {4095, 4096}, {std::uint64_t{1} << 45, 4096}}) {
    const status result = buffer_pool::create(wrong, pool);
    CAF_CHECK(result.code == errc::invalid_argument);
    CAF_CHECK(!result.text.empty() && result.text.back() == '.');
    CAF_CHECK(pool == nullptr);
  }
  // More addresses than a process has.
  const status result = buffer_pool::create({std::uint64_t{1} << 60, std::uint64_t{1} << 30, true}, pool);
  CAF_CHECK(result.code == errc::no_space);
  CAF_CHECK(!result.text.empty());
}

CAF_TEST(missing huge pages are replaced by ordinary memory) {
  // More than any test machine has set aside.
  std::unique_ptr<buffer_pool> pool;
  const status result = buffer_pool::create({std::uint64_t{1} << 38, std::uint64_t{4} << 20, true}, pool);
  CAF_REQUIRE(result.ok());
  CAF_CHECK(!pool->statistics().huge_pages);
  buffer one = pool->acquire();
  std::memset(one.data(), 1, one.size());
  CAF_CHECK_EQUAL(pool->range().data(), one.data());
}

CAF_TEST(threads share a pool without sharing a chunk) {
  const auto pool = make_pool(8 * 4096, 4096);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int me = 1; me <= 4; ++me)
    threads.emplace_back([&, me] {
      for (int i = 0; i < 5000; ++i) {
        buffer mine = pool->acquire();
        buffer more = i % 3 == 0 ? pool->acquire() : buffer();
        if (!mine)
          continue;
        std::memset(mine.data(), me, 64);
        std::this_thread::yield();
        for (int at = 0; at < 64; ++at)
          wrong += std::to_integer<int>(mine.data()[at]) != me;
      }
    });
  for (std::thread& one : threads)
    one.join();
  CAF_CHECK_EQUAL(wrong.load(), 0);
  CAF_CHECK_EQUAL(pool->statistics().chunks_in_use, 0u);
}
