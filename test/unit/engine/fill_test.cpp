// How much of a drive is values: layout, packing into units, watermarks, and a mixed load that turns over;
// and how much memory its blocks take. The drives are sparse; payload is not written.
#define CAF_SUITE drive_fill

#include "engine/layout.hpp"
#include "engine/limits.hpp"
#include "test/sim/empty_puts.hpp"
#include "test/sim/random.hpp"
#include "test/sim/sparse_device.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

using namespace memkv;
using namespace memkv::engine;

namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t gib = 1024 * mib;
constexpr std::uint64_t terabyte = 1'000'000'000'000;

/// Goes on by a microsecond each time it is asked.
class step_clock final : public clock {
public:
  [[nodiscard]] std::uint64_t wall_ns() const noexcept override { return 1'700'000'000'000'000'000 + tick(); }
  [[nodiscard]] std::uint64_t steady_ns() const noexcept override { return tick(); }

private:
  std::uint64_t tick() const noexcept { return now_ += 1'000; }
  mutable std::uint64_t now_ = 1'000;
};

struct drive {
  explicit drive(std::uint64_t size_bytes, bool eviction, const store_options& others = {})
      : bytes(size_bytes), options(others) {
    options.eviction = eviction;
    std::unique_ptr<sim::sparse_device> made;
    CAF_REQUIRE(sim::open_sparse_device(size_bytes, options.unit_bytes, options.extent_bytes_max, made).ok());
    device = std::move(made);
    CAF_REQUIRE(drive_store::open(*device, options, time, store).ok());
  }

  /// What the server's evictor does when it looks.
  void keep_below_high_watermark() {
    const store_counters now = store->counters();
    const auto usable = static_cast<double>(now.usable_bytes);
    if (static_cast<double>(now.used_bytes) > usable * options.high_watermark)
      store->evict(now.used_bytes - static_cast<std::uint64_t>(usable * options.low_watermark));
  }

  [[nodiscard]] double useful_share() {
    std::uint64_t torn = 0;
    const std::uint64_t useful = sim::useful_bytes(*store, options.extent_bytes_max, torn);
    CAF_CHECK_EQUAL(torn, 0u);
    return static_cast<double>(useful) / static_cast<double>(bytes);
  }

  std::uint64_t bytes;
  store_options options;
  step_clock time;
  std::unique_ptr<block_device> device;
  std::unique_ptr<drive_store> store;
};

double metadata_share(std::uint64_t device_bytes) {
  layout places;
  CAF_REQUIRE(compute_layout(device_bytes, 64 * kib, 4 * mib, places).ok());
  const std::uint64_t data = std::uint64_t{places.units} * places.unit_bytes;
  return static_cast<double>(device_bytes - data) / static_cast<double>(device_bytes);
}

/// Without a line in the log for each of a million puts.
void require(bool goes_on) {
  if (!goes_on)
    CAF_FAIL("the store does not get on");
}

/// MEMKV_TEST_DRIVE_BYTES: a larger drive takes longer.
std::uint64_t drive_bytes(std::uint64_t usual) {
  const char* text = std::getenv("MEMKV_TEST_DRIVE_BYTES");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : usual;
}

} // namespace

CAF_TEST(metadata takes at most 0.35 percent of a drive of 8 terabytes) {
  const double share = metadata_share(8 * terabyte);
  CAF_MESSAGE("metadata takes " << share * 100 << " %");
  CAF_CHECK_LESS_OR_EQUAL(share, 0.0035);
  // And of every drive of that class.
  for (const std::uint64_t bytes :
       {400 * terabyte / 1000, terabyte, 2 * terabyte, 4 * terabyte, 16 * terabyte})
    CAF_CHECK_LESS_OR_EQUAL(metadata_share(bytes), 0.0035);
}

CAF_TEST(values of 1000000 bytes fill a drive to 95 percent without eviction) {
  drive one(drive_bytes(400 * terabyte / 1000), false);
  sim::empty_puts puts(*one.store, one.options.extent_bytes_max, 1024);
  std::uint64_t number = 0;
  while (puts.refused() == 0)
    require(puts.put(number++, 1'000'000));
  CAF_REQUIRE(puts.finish());
  CAF_CHECK(puts.first_refusal() == errc::no_space);
  const double share = one.useful_share();
  CAF_MESSAGE(puts.stored() << " values are " << share * 100 << " % of the drive");
  CAF_CHECK_GREATER_OR_EQUAL(share, 0.95);
  CAF_CHECK(one.store->close().ok());
}

CAF_TEST(values of 1000000 bytes fill a small drive to 95 percent with units of 32 kibibytes) {
  // With those of 64 KiB the last one of each value wastes more, and what is kept for a checkpoint weighs
  // more the smaller the drive is.
  store_options options;
  options.unit_bytes = 32 * kib;
  drive one(8 * terabyte / 1000, false, options);
  sim::empty_puts puts(*one.store, one.options.extent_bytes_max, 1024);
  std::uint64_t number = 0;
  while (puts.refused() == 0)
    require(puts.put(number++, 1'000'000));
  CAF_REQUIRE(puts.finish());
  const double share = one.useful_share();
  CAF_MESSAGE(puts.stored() << " values are " << share * 100 << " % of the drive");
  CAF_CHECK_GREATER_OR_EQUAL(share, 0.95);
  CAF_CHECK(one.store->close().ok());
}

CAF_TEST(values of 1000000 bytes fill a drive to 90 percent at the default high watermark) {
  drive one(drive_bytes(128 * terabyte / 1000), true);
  sim::empty_puts puts(*one.store, one.options.extent_bytes_max, 1024);
  // The fullest that the evictor leaves alone.
  const auto full = [&] {
    const store_counters now = one.store->counters();
    return static_cast<double>(now.used_bytes) + 2.0 * mib >
           one.options.high_watermark * static_cast<double>(now.usable_bytes);
  };
  std::uint64_t number = 0;
  while (!full()) {
    require(puts.put(number++, 1'000'000));
    one.keep_below_high_watermark();
  }
  CAF_REQUIRE(puts.finish());
  CAF_CHECK_EQUAL(one.store->counters().evicted_blocks, 0u);
  CAF_CHECK_EQUAL(puts.refused(), 0u);
  const double share = one.useful_share();
  CAF_MESSAGE(puts.stored() << " values are " << share * 100 << " % of the drive");
  CAF_CHECK_GREATER_OR_EQUAL(share, 0.90);
  // One step further it drops to the low one, once, however often the evictor looks meanwhile.
  while (one.store->counters().evicted_blocks == 0) {
    require(puts.put(number++, 1'000'000));
    one.keep_below_high_watermark();
  }
  do
    one.keep_below_high_watermark();
  while (one.store->poll(false) || !one.store->idle());
  CAF_CHECK_EQUAL(puts.refused(), 0u);
  const store_counters after = one.store->counters();
  const double used = static_cast<double>(after.used_bytes) / static_cast<double>(after.usable_bytes);
  CAF_CHECK_LESS_OR_EQUAL(used, one.options.low_watermark);
  CAF_CHECK_GREATER_OR_EQUAL(used, one.options.low_watermark - 0.02);
  CAF_CHECK(one.store->close().ok());
}

CAF_TEST(a mixed load that turns a drive over ten times never fails a put and keeps it full) {
  const char* given = std::getenv("MEMKV_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  CAF_MESSAGE("MEMKV_TEST_SEED=" << seed);
  sim::random chance(seed);
  drive one(drive_bytes(16 * gib), true);
  sim::empty_puts puts(*one.store, one.options.extent_bytes_max, 64);
  // 4 KiB to 16 MiB, each magnitude as often as any other; keys come again now and then.
  const auto some_length = [&] {
    const double position = static_cast<double>(chance.next() >> 11) * 0x1.0p-53;
    return static_cast<std::uint64_t>(4 * kib * std::exp2(12 * position));
  };
  const std::uint64_t keys = one.bytes / mib;
  std::uint64_t written = 0;
  std::uint64_t number = 0;
  double least = 1;
  double most = 0;
  std::uint64_t next_look = one.bytes * 3 / 2;
  while (written < 10 * one.bytes) {
    const std::uint64_t length = some_length();
    require(puts.put(chance.below(8) == 0 ? chance.below(keys) : keys + number, length));
    written += length;
    // The evictor looks ten times a second; so much is put meanwhile.
    if (++number % 64 == 0) {
      one.keep_below_high_watermark();
      (void)one.store->take_orphans();
    }
    if (written < next_look)
      continue;
    CAF_REQUIRE(puts.finish());
    next_look = written + one.bytes / 16;
    const double share = one.useful_share();
    least = std::min(least, share);
    most = std::max(most, share);
  }
  CAF_REQUIRE(puts.finish());
  CAF_MESSAGE(puts.stored() << " puts; " << least * 100 << " to " << most * 100 << " % of the drive useful");
  CAF_CHECK_EQUAL(puts.refused(), 0u);
  CAF_CHECK_EQUAL(puts.stored(), number);
  CAF_CHECK_GREATER_OR_EQUAL(least, 0.85);
  CAF_CHECK_LESS_OR_EQUAL(most, 1.0);
  CAF_CHECK_GREATER(one.store->counters().evicted_blocks, number / 2);
  CAF_CHECK(one.store->close().ok());
}

CAF_TEST(memory for a million blocks stays within its limit before and after a restart) {
  // The smallest blocks that have their header pages apart, so many that others are evicted and the index
  // tables have just doubled.
  constexpr std::uint64_t blocks = 200'000;
  drive one(blocks * 69 * kib, true);
  sim::empty_puts puts(*one.store, one.options.extent_bytes_max, 1024);
  for (std::uint64_t number = 0; number < blocks * 11 / 10; ++number)
    require(puts.put(number, 64 * kib));
  CAF_REQUIRE(puts.finish());
  CAF_CHECK_EQUAL(puts.refused(), 0u);
  const auto check = [&](const char* when) {
    const std::uint64_t held = one.store->counters().blocks;
    CAF_CHECK_GREATER(held, blocks * 98 / 100);
    const std::uint64_t a_million = one.store->memory_bytes() * 1'000'000 / held;
    CAF_MESSAGE(when << ": " << a_million / 1024.0 / 1024.0 << " MiB for each million blocks");
    CAF_CHECK_LESS_OR_EQUAL(a_million, limits::memory_bytes_per_million_blocks);
    CAF_CHECK_GREATER(a_million, std::uint64_t{limits::entry_bytes} * 1'000'000);
  };
  CAF_CHECK_GREATER(one.store->counters().evicted_blocks, blocks / 20);
  check("full, with ghosts");
  const std::uint64_t before = one.store->counters().blocks;
  CAF_REQUIRE(one.store->close().ok());
  one.store.reset();
  CAF_REQUIRE(drive_store::open(*one.device, one.options, one.time, one.store).ok());
  CAF_CHECK_EQUAL(one.store->counters().blocks, before);
  check("after a restart");
  CAF_CHECK(one.store->close().ok());
}

CAF_TEST(memory for a million parts of striped blocks stays within its limit in every class of size) {
  // Two and five extents, whose parts need the id of their head beside them; full, so that others are
  // evicted, with so many entries that the index tables have just grown. The extents are small for the sake
  // of time.
  for (const std::uint64_t extents : {2, 5}) {
    constexpr std::uint64_t entries = 120'000;
    store_options options;
    options.unit_bytes = options.extent_bytes_max = 64 * kib;
    drive one(entries * 69 * kib, true, options);
    sim::empty_puts puts(*one.store, options.extent_bytes_max, 256);
    std::uint64_t worst = 0;
    for (std::uint64_t number = 0; number < entries * 11 / 10 / extents; ++number) {
      require(puts.put(number, extents * options.extent_bytes_max));
      const std::uint64_t held = one.store->counters().blocks;
      if (held > entries / 2 && number % 64 == 0)
        worst = std::max(worst, one.store->memory_bytes() * 1'000'000 / held);
    }
    CAF_REQUIRE(puts.finish());
    CAF_CHECK_EQUAL(puts.refused(), 0u);
    CAF_MESSAGE(extents << " extents: " << worst / 1024.0 / 1024.0 << " MiB for each million entries");
    CAF_CHECK_LESS_OR_EQUAL(worst, limits::memory_bytes_per_million_blocks);
    CAF_CHECK_GREATER(worst, std::uint64_t{limits::entry_bytes + 16} * 1'000'000);
    CAF_CHECK(one.store->close().ok());
  }
}

CAF_TEST(memory for a million blocks stays within its limit however whole and striped ones are mixed) {
  // The entries of striped blocks lie scattered among the others, so that tables for all entries of a region
  // would have to be there for a few of them.
  for (const std::uint64_t striped_in_ten : {1, 8}) {
    constexpr std::uint64_t entries = 120'000;
    store_options options;
    options.unit_bytes = options.extent_bytes_max = 64 * kib;
    drive one(entries * 69 * kib, true, options);
    sim::empty_puts puts(*one.store, options.extent_bytes_max, 256);
    sim::random chance(striped_in_ten);
    std::uint64_t worst = 0;
    for (std::uint64_t number = 0, put = 0; put < entries * 11 / 10; ++number) {
      const std::uint64_t extents = chance.below(10) < striped_in_ten ? 2 : 1;
      put += extents;
      require(puts.put(number, extents * options.extent_bytes_max));
      const std::uint64_t held = one.store->counters().blocks;
      if (held > entries / 2 && number % 64 == 0)
        worst = std::max(worst, one.store->memory_bytes() * 1'000'000 / held);
    }
    CAF_REQUIRE(puts.finish());
    CAF_CHECK_EQUAL(puts.refused(), 0u);
    CAF_MESSAGE(striped_in_ten << " of ten are striped: " << worst / 1024.0 / 1024.0
                               << " MiB for each million entries");
    CAF_CHECK_LESS_OR_EQUAL(worst, limits::memory_bytes_per_million_blocks);
    CAF_CHECK_GREATER(worst, std::uint64_t{limits::entry_bytes} * 1'000'000);
    CAF_CHECK(one.store->close().ok());
  }
}
