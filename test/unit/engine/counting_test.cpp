// What the engine counts: times in buckets, requests of devices, why and when blocks were evicted.
#define CAF_SUITE counting

#include "engine/age_samples.hpp"
#include "engine/file_device.hpp"
#include "engine/latency.hpp"
#include "test/sim/empty_puts.hpp"
#include "test/sim/sparse_device.hpp"

#include <caf/test/dsl.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

using namespace memkv;
using namespace memkv::engine;

namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint64_t mib = 1 << 20;

class hand_clock final : public clock {
public:
  [[nodiscard]] std::uint64_t wall_ns() const noexcept override { return now; }
  [[nodiscard]] std::uint64_t steady_ns() const noexcept override { return now; }
  std::uint64_t now = second;
};

std::uint64_t all_of(const latency_counts& counts) {
  std::uint64_t all = 0;
  for (const auto each : counts.counts)
    all += each;
  return all;
}

struct drive {
  drive() {
    options.generation = &generation;
    std::unique_ptr<sim::sparse_device> made;
    CAF_REQUIRE(sim::open_sparse_device(256 * mib, options.unit_bytes, options.extent_bytes_max, made).ok());
    device = std::move(made);
    CAF_REQUIRE(drive_store::open(*device, options, time, store).ok());
    store->tick();
    puts = std::make_unique<sim::empty_puts>(*store, options.extent_bytes_max, 16);
  }
  void put(std::uint64_t number) {
    CAF_REQUIRE(puts->put(number, mib));
    CAF_REQUIRE(puts->finish());
  }
  void settle() {
    for (int step = 0; step < 100'000 && !store->idle(); ++step)
      store->poll(false);
  }

  std::atomic<std::uint64_t> generation{0};
  store_options options;
  hand_clock time;
  std::unique_ptr<block_device> device;
  std::unique_ptr<drive_store> store;
  std::unique_ptr<sim::empty_puts> puts;
};

} // namespace

CAF_TEST(a time falls into the first bucket whose bound it does not exceed) {
  for (std::size_t bucket = 0; bucket + 1 < latency_buckets; ++bucket) {
    CAF_CHECK_EQUAL(latency_bucket(latency_bound_ns(bucket)), bucket);
    CAF_CHECK_EQUAL(latency_bucket(latency_bound_ns(bucket) + 1), bucket + 1);
  }
  CAF_CHECK_EQUAL(latency_bucket(0), 0u);
  CAF_CHECK_EQUAL(latency_bucket(UINT64_MAX), latency_buckets - 1);
}

CAF_TEST(a histogram gives its counts and the sum of its times) {
  latency_histogram histogram;
  histogram.note(1'000);
  histogram.note(9'000);
  histogram.note(100 * second);
  latency_series series;
  histogram.add_to(series);
  histogram.add_to(series);
  CAF_CHECK_EQUAL(series.count(), 6u);
  CAF_CHECK_EQUAL(series.counts[0], 2u);
  CAF_CHECK_EQUAL(series.counts[1], 2u);
  CAF_CHECK_EQUAL(series.counts[latency_buckets - 1], 2u);
  CAF_CHECK_EQUAL(series.sum_ns, 2 * (100 * second + 10'000));
}

CAF_TEST(the age of a generation is right to a 256th of what was covered) {
  age_samples samples;
  CAF_CHECK_EQUAL(samples.age_ns(1, second), 0u);
  // A thousand generations a second, for three hours.
  constexpr std::uint64_t seconds = 3 * 3600;
  for (std::uint64_t now = 1; now <= seconds; ++now)
    samples.note(now * 1000, now * second);
  for (const std::uint64_t at : {std::uint64_t{2}, seconds / 3, seconds / 2, seconds - 600}) {
    const auto age = samples.age_ns(at * 1000, seconds * second) / second;
    CAF_CHECK_LESS_OR_EQUAL(age, seconds - at);
    CAF_CHECK_GREATER_OR_EQUAL(age + seconds / 256 + 1, seconds - at);
  }
  // Older than anything known, and newer than the last sample.
  CAF_CHECK_EQUAL(samples.age_ns(0, seconds * second), (seconds - 1) * second);
  CAF_CHECK_LESS_OR_EQUAL(samples.age_ns(UINT64_MAX, seconds * second), seconds / 256 * second);
}

CAF_TEST(a device in a file counts its requests and how long they took) {
  std::string path = "/tmp";
  if (const char* given = std::getenv("TMPDIR"); given != nullptr)
    path = given;
  path += "/memkv-counting-" + std::to_string(::getpid());
  std::unique_ptr<block_device> device;
  CAF_REQUIRE(open_file_device({.path = path, .size_bytes = mib}, device).ok());
  std::vector<std::byte> page(4096);
  int answered = 0;
  const auto perform = [&](io_operation::kind what, std::uint64_t length) {
    io_operation operation;
    operation.what = what;
    operation.length = length;
    operation.data = page.data();
    operation.context = &answered;
    operation.done = [](io_operation& done) { ++*static_cast<int*>(done.context); };
    device->submit(operation);
    device->poll(true);
    return operation.result;
  };
  CAF_CHECK(perform(io_operation::kind::write, 4096) == errc::ok);
  CAF_CHECK(perform(io_operation::kind::write, 4096) == errc::ok);
  CAF_CHECK(perform(io_operation::kind::flush, 0) == errc::ok);
  CAF_CHECK(perform(io_operation::kind::read, 4096) == errc::ok);
  // Refused before the kernel sees it.
  CAF_CHECK(perform(io_operation::kind::read, 4095) == errc::invalid_argument);
  CAF_CHECK_EQUAL(answered, 5);
  const auto counted = device->statistics();
  CAF_CHECK_EQUAL(counted.writes, 2u);
  CAF_CHECK_EQUAL(counted.written_bytes, 8192u);
  CAF_CHECK_EQUAL(counted.flushes, 1u);
  CAF_CHECK_EQUAL(counted.reads, 1u);
  CAF_CHECK_EQUAL(counted.errors, 0u);
  CAF_CHECK_EQUAL(counted.depth_most, 1u);
  CAF_CHECK_EQUAL(all_of(counted.write_times), 2u);
  CAF_CHECK_EQUAL(all_of(counted.flush_times), 1u);
  CAF_CHECK_EQUAL(all_of(counted.read_times), 1u);
  CAF_CHECK(counted.write_times.sum_ns > 0);
  device.reset();
  std::remove(path.c_str());
}

CAF_TEST(evictions are told apart by their reason and carry the age of the block) {
  drive one;
  for (std::uint64_t number = 0; number < 100; ++number) {
    one.put(number);
    one.time.now += second;
    one.store->tick();
  }
  CAF_CHECK_EQUAL(one.store->counters().evicted_blocks, 0u);
  CAF_CHECK_EQUAL(one.store->counters().evicted_age_ns, 0u);
  one.store->evict(mib);
  one.settle();
  auto now = one.store->counters();
  CAF_CHECK(now.evicted_at_watermark > 0);
  CAF_CHECK_EQUAL(now.evicted_at_watermark, now.evicted_blocks);
  // The first one, which is a hundred seconds old.
  CAF_CHECK_GREATER_OR_EQUAL(now.evicted_age_ns, 98 * second);
  CAF_CHECK_LESS_OR_EQUAL(now.evicted_age_ns, 101 * second);
  CAF_CHECK_GREATER_OR_EQUAL(now.evicted_age_sum_ns, now.evicted_age_ns);
  // Past the end of the drive nobody has made room ahead.
  for (std::uint64_t number = 1000; number < 1400; ++number)
    one.put(number);
  now = one.store->counters();
  CAF_CHECK(now.evicted_for_space > 0);
  CAF_CHECK_EQUAL(now.evicted_at_watermark + now.evicted_for_space + now.evicted_for_room,
                  now.evicted_blocks);
  CAF_CHECK(now.journal_bytes > 0);
  CAF_CHECK(now.journal_used_bytes <= now.journal_bytes);
  CAF_CHECK(one.store->close().ok());
}

CAF_TEST(counters go on over incarnations and facts of the present do not add up) {
  store_counters now;
  now.blocks = 7;
  now.used_bytes = 70;
  now.evicted_blocks = 3;
  now.recovered_blocks = 7;
  store_counters earlier;
  earlier.blocks = 5;
  earlier.used_bytes = 50;
  earlier.evicted_blocks = 2;
  earlier.evicted_age_ns = 9;
  earlier.recovered_blocks = 4;
  now += earlier;
  CAF_CHECK_EQUAL(now.blocks, 7u);
  CAF_CHECK_EQUAL(now.used_bytes, 70u);
  CAF_CHECK_EQUAL(now.evicted_blocks, 5u);
  CAF_CHECK_EQUAL(now.evicted_age_ns, 9u);
  CAF_CHECK_EQUAL(now.recovered_blocks, 7u);
  device_statistics io;
  io.reads = 1;
  io.depth_most = 4;
  device_statistics io_earlier;
  io_earlier.reads = 2;
  io_earlier.depth_most = 8;
  io_earlier.slowest_ns = 5;
  io += io_earlier;
  CAF_CHECK_EQUAL(io.reads, 3u);
  CAF_CHECK_EQUAL(io.depth_most, 8u);
  CAF_CHECK_EQUAL(io.slowest_ns, 5u);
}
