// An index that holds fewer blocks than the drive has room for, as where memory is short at this start.
#define CAF_SUITE store_small_index

#include "test/crash/store_run.hpp"

#include <caf/test/unit_test.hpp>

#include <string>
#include <vector>

using namespace memkv;
using namespace memkv::crash;
using engine::errc;

namespace {

constexpr std::uint64_t mib = 1 << 20;

std::string name(std::uint64_t number) {
  return "key-" + std::to_string(number);
}

void put_some(store_run& run, std::uint64_t first, std::uint64_t end, std::uint64_t serial) {
  for (std::uint64_t i = first; i < end; ++i) {
    run.start_put(name(i), content_of(serial + i, 100));
    if (i % 64 == 0)
      run.poll_all();
  }
  run.poll_all();
}

/// On what `run` left, opened with an index of `entries`.
struct next_start : store_run {
  next_start(const store_run& run, std::uint32_t entries)
      : store_run(run.options, run.device->now(), run.expected) {
    store_options.blocks_max = entries;
  }
};

} // namespace

CAF_TEST(a start with memory for fewer blocks takes all in and then evicts) {
  constexpr std::uint32_t count = 1'000, less = 850;
  for (const bool in_order : {true, false}) {
    CAF_MESSAGE((in_order ? "closed in order" : "killed"));
    store_run first{run_options{.size_bytes = 16 * mib}};
    CAF_REQUIRE(first.open().ok());
    put_some(first, 0, count, 1);
    CAF_REQUIRE(first.close().ok());
    // Replaced and deleted, but only the journal knows.
    next_start second(first, 0);
    CAF_REQUIRE(second.open().ok());
    CAF_REQUIRE_EQUAL(second.store->counters().blocks, count);
    put_some(second, 0, count / 10, 100'000);
    for (std::uint64_t i = count / 2; i < count / 2 + 10; ++i)
      CAF_REQUIRE(second.erase(name(i)) == errc::ok);
    if (in_order)
      CAF_REQUIRE(second.close().ok());
    else
      second.die(false);
    next_start third(second, less);
    CAF_REQUIRE(third.open().ok());
    CAF_CHECK_EQUAL(third.store->counters().dropped_at_recovery, 0u);
    CAF_CHECK_EQUAL(third.store->counters().blocks, count - 10);
    third.get_all();
    CAF_CHECK(third.put("one more", content_of(300'000, 100)) == errc::ok);
    CAF_CHECK_LESS_OR_EQUAL(third.store->counters().blocks, std::uint64_t{less});
    CAF_CHECK_GREATER(third.store->counters().blocks, less / 2u);
    put_some(third, 0, count, 400'000);
    CAF_CHECK_LESS_OR_EQUAL(third.store->counters().blocks, std::uint64_t{less});
    third.get_all();
    CAF_CHECK_EQUAL(problem_of(third), "");
    third.die(false);
    next_start fourth(third, 0);
    CAF_REQUIRE(fourth.open().ok());
    fourth.get_all();
    CAF_CHECK_EQUAL(problem_of(fourth), "");
    CAF_CHECK(fourth.close().ok());
  }
}

CAF_TEST(a drive with many more blocks than memory can index is refused and stays as it is) {
  constexpr std::uint32_t count = 500;
  store_run first{run_options{}};
  CAF_REQUIRE(first.open().ok());
  put_some(first, 0, count, 1);
  CAF_REQUIRE(first.close().ok());
  next_start small(first, count / 2);
  const auto refused = small.open();
  CAF_CHECK(refused.code == errc::too_large);
  CAF_CHECK_NOT_EQUAL(refused.text.find("holds 500 blocks, and memory allows an index of 250"),
                      std::string::npos);
  next_start again(small, count);
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->counters().blocks, count);
  again.get_all();
  CAF_CHECK_EQUAL(problem_of(again), "");
}

CAF_TEST(a put that finds no entry because of what is still being read leaves the old value) {
  constexpr std::uint32_t entries = 20;
  run_options options;
  options.eviction = false;
  store_run run(options);
  run.store_options.blocks_max = entries;
  CAF_REQUIRE(run.open().ok());
  for (std::uint32_t i = 0; i + 1 < entries; ++i)
    CAF_REQUIRE(run.put(name(i), content_of(1 + i, 5000)) == errc::ok);
  {
    const auto read = run.store->index().find_and_pin(id_of(name(0)));
    CAF_REQUIRE(run.put(name(0), content_of(50, 5000)) == errc::ok);
    // All entries are in use now, though one less is live. It waits for that one.
    run.start_put(name(1), content_of(51, 5000));
    for (int i = 0; i < 200; ++i)
      run.store->poll(false);
    CAF_CHECK_EQUAL(run.unanswered(), 1u);
  }
  run.die(false);
  CAF_REQUIRE_EQUAL(problem_of(run), "");
  store_run again(run.options, run.device->now(), run.expected);
  again.store_options.blocks_max = entries;
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK(again.get(name(1)) == content_of(2, 5000));
  again.get_all();
  CAF_CHECK_EQUAL(problem_of(again), "");
}

CAF_TEST(a full index evicts although space is on its way that brings no entry) {
  constexpr std::uint32_t entries = 20;
  store_run run{run_options{}};
  run.store_options.blocks_max = entries;
  CAF_REQUIRE(run.open().ok());
  for (std::uint32_t i = 0; i + 1 < entries; ++i)
    CAF_REQUIRE(run.put(name(i), content_of(1 + i, 5000)) == errc::ok);
  const auto read = run.store->index().find_and_pin(id_of(name(0)));
  // The space of the old value is freed when it has been read, which takes long.
  CAF_REQUIRE(run.put(name(0), content_of(50, 5000)) == errc::ok);
  for (std::uint32_t i = 0; i < 3 * entries; ++i)
    CAF_REQUIRE(run.put(name(100 + i), content_of(100 + i, 5000)) == errc::ok);
  CAF_CHECK_LESS(run.store->counters().blocks, std::uint64_t{entries});
  CAF_CHECK_GREATER(run.store->counters().blocks, entries / 2u);
  run.get_all();
  CAF_CHECK_EQUAL(problem_of(run), "");
}
