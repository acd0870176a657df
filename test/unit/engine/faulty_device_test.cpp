// Injected faults of a drive: which operations meet them, and what the store makes of them.
#define CAF_SUITE faulty_device
#include "engine/faulty_device.hpp"

#include "test/crash/store_run.hpp"
#include "test/sim/sim_device.hpp"

#include <caf/test/unit_test.hpp>

#include <bit>
#include <deque>
#include <string>
#include <vector>

using namespace memkv;
using namespace memkv::engine;
using kind = io_operation::kind;
using effect = drive_fault::effect;
using target = drive_fault::target;

namespace {

constexpr std::uint64_t ms = 1'000'000;

class still_clock final : public engine::clock {
public:
  [[nodiscard]] std::uint64_t wall_ns() const noexcept override { return now; }
  [[nodiscard]] std::uint64_t steady_ns() const noexcept override { return now; }
  std::uint64_t now = 1'000 * ms;
};

/// Somebody else's device, as one that can be wrapped.
class lent_device final : public block_device {
public:
  explicit lent_device(block_device& to) : to_(to) {}
  [[nodiscard]] const device_information& information() const noexcept override { return to_.information(); }
  void submit(io_operation& operation) override { to_.submit(operation); }
  std::size_t poll(bool wait) override { return to_.poll(wait); }
  [[nodiscard]] std::size_t in_flight() const noexcept override { return to_.in_flight(); }
  void close() noexcept override {}

private:
  block_device& to_;
};

/// A device with faults on a simulated one, and operations on single pages filled with one byte.
struct bench {
  still_clock time;
  sim::world world{1};
  sim::sim_device below{world, {.size_bytes = 1 << 20, .delay_ticks_max = 0}};
  std::shared_ptr<drive_faults> faults = std::make_shared<drive_faults>();
  std::unique_ptr<block_device> device;
  struct one : io_operation {
    std::vector<std::byte> buffer;
    int times_done = 0;
  };
  std::deque<one> operations;

  bench() { open(); }
  void open() { device = make_faulty_device(std::make_unique<lent_device>(below), faults, time); }

  one& start(kind what, std::uint64_t page = 0, int value = 0) {
    auto& next = operations.emplace_back();
    next.what = what;
    if (what != kind::flush) {
      next.offset = page * 4096;
      next.length = 4096;
      next.buffer.assign(next.length, static_cast<std::byte>(value));
      next.data = next.buffer.data();
    }
    next.done = [](io_operation& self) { ++static_cast<one&>(self).times_done; };
    device->submit(next);
    CAF_REQUIRE_EQUAL(next.times_done, 0);
    return next;
  }
  errc run(kind what, std::uint64_t page = 0, int value = 0) {
    auto& next = start(what, page, value);
    device->poll(true);
    CAF_REQUIRE_EQUAL(next.times_done, 1);
    return next.result;
  }
  void arm(const drive_fault& order) { CAF_REQUIRE(faults->arm(order)); }
};

std::size_t bits_that_differ(const std::vector<std::byte>& bytes, int value) {
  std::size_t count = 0;
  for (const auto each : bytes)
    count += static_cast<std::size_t>(std::popcount(std::to_integer<unsigned>(each) ^ unsigned(value)));
  return count;
}

} // namespace

CAF_TEST(without an order everything passes) {
  bench one;
  CAF_CHECK(one.run(kind::write, 1, 7) == errc::ok);
  CAF_CHECK(one.run(kind::flush) == errc::ok);
  CAF_CHECK(one.run(kind::read, 1) == errc::ok);
  CAF_CHECK_EQUAL(bits_that_differ(one.operations.back().buffer, 7), 0u);
  CAF_CHECK_EQUAL(one.device->in_flight(), 0u);
}

CAF_TEST(as many reads as ordered fail and nothing else does) {
  bench one;
  CAF_CHECK(one.run(kind::write, 1, 7) == errc::ok);
  one.arm({effect::fail, target::reads, 2, 0});
  CAF_CHECK(one.run(kind::write, 2, 8) == errc::ok);
  CAF_CHECK(one.run(kind::read, 1) == errc::io_error);
  const auto armed = one.faults->armed();
  CAF_REQUIRE_EQUAL(armed.size(), 1u);
  CAF_CHECK_EQUAL(armed[0].count, 1u);
  CAF_CHECK(one.run(kind::flush) == errc::ok);
  CAF_CHECK(one.run(kind::read, 1) == errc::io_error);
  CAF_CHECK(one.run(kind::read, 1) == errc::ok);
  CAF_CHECK(one.faults->armed().empty());
  CAF_CHECK_EQUAL(one.faults->met().failed, 2u);
  CAF_CHECK_EQUAL(one.device->statistics().errors, 2u);
}

CAF_TEST(after a write that failed the device stays failed until it is opened anew and reads go on) {
  bench one;
  CAF_CHECK(one.run(kind::write, 1, 7) == errc::ok);
  one.arm({effect::fail, target::writes, 1, 0});
  CAF_CHECK(one.run(kind::write, 1, 8) == errc::io_error);
  CAF_CHECK(one.run(kind::flush) == errc::io_error);
  CAF_CHECK(one.run(kind::write, 1, 9) == errc::io_error);
  CAF_CHECK(one.run(kind::read, 1) == errc::ok);
  CAF_CHECK_EQUAL(bits_that_differ(one.operations.back().buffer, 7), 0u);
  one.device->close();
  one.open();
  CAF_CHECK(one.run(kind::write, 1, 9) == errc::ok);
}

CAF_TEST(what is armed meets the next incarnation of the device) {
  bench one;
  one.arm({effect::fail, target::flushes, 1, 0});
  one.device->close();
  one.open();
  CAF_CHECK(one.run(kind::flush) == errc::io_error);
}

CAF_TEST(a slow operation is answered later and others are not) {
  bench one;
  one.arm({effect::slow, target::any, 1, 1'500 * ms});
  auto& slow = one.start(kind::write, 1, 7);
  CAF_CHECK_EQUAL(one.device->poll(false), 0u);
  CAF_CHECK(one.run(kind::write, 2, 8) == errc::ok);
  CAF_CHECK_EQUAL(slow.times_done, 0);
  CAF_CHECK_EQUAL(one.device->in_flight(), 1u);
  one.time.now += 1'400 * ms;
  CAF_CHECK_EQUAL(one.device->oldest_request_ns(), 1'400 * ms);
  CAF_CHECK(!one.device->needs_poll());
  CAF_CHECK_EQUAL(one.device->poll(false), 0u);
  one.time.now += 100 * ms;
  CAF_CHECK(one.device->needs_poll());
  CAF_CHECK_EQUAL(one.device->poll(false), 1u);
  CAF_CHECK_EQUAL(slow.times_done, 1);
  CAF_CHECK(slow.result == errc::ok);
  CAF_CHECK_EQUAL(one.device->oldest_request_ns(), 0u);
  CAF_CHECK_EQUAL(one.device->statistics().slow, 1u);
  CAF_CHECK_EQUAL(one.device->statistics().slowest_ns, 1'500 * ms);
}

CAF_TEST(what hangs is answered when its time is over or when the faults are cleared) {
  bench one;
  one.arm({effect::hang, target::writes, 1, 2'000 * ms});
  one.arm({effect::hang, target::writes, 1, 0});
  auto& bounded = one.start(kind::write, 1, 7);
  auto& endless = one.start(kind::write, 2, 8);
  one.device->poll(false);
  one.time.now += 3'600'000 * ms;
  CAF_CHECK_EQUAL(one.device->poll(false), 1u);
  CAF_CHECK_EQUAL(bounded.times_done, 1);
  CAF_CHECK_EQUAL(endless.times_done, 0);
  CAF_CHECK_EQUAL(one.device->oldest_request_ns(), 3'600'000 * ms);
  one.faults->clear();
  CAF_CHECK_EQUAL(one.device->poll(true), 1u);
  CAF_CHECK_EQUAL(endless.times_done, 1);
  CAF_CHECK(endless.result == errc::ok);
  // A hang that is armed afterwards is none of those that were let go.
  one.arm({effect::hang, target::any, 1, 0});
  auto& later = one.start(kind::flush);
  CAF_CHECK_EQUAL(one.device->poll(false), 0u);
  CAF_CHECK_EQUAL(later.times_done, 0);
  one.faults->clear();
  CAF_CHECK_EQUAL(one.device->poll(false), 1u);
}

CAF_TEST(a corrupted read has one wrong bit and what is on the device has none) {
  bench one;
  CAF_CHECK(one.run(kind::write, 1, 7) == errc::ok);
  one.arm({effect::corrupt, target::reads, 1, 0});
  CAF_CHECK(one.run(kind::read, 1) == errc::ok);
  CAF_CHECK_EQUAL(bits_that_differ(one.operations.back().buffer, 7), 1u);
  CAF_CHECK(one.run(kind::read, 1) == errc::ok);
  CAF_CHECK_EQUAL(bits_that_differ(one.operations.back().buffer, 7), 0u);
}

CAF_TEST(an order that nothing can meet is refused and so are too many) {
  drive_faults faults;
  CAF_CHECK(!faults.arm({effect::corrupt, target::writes, 1, 0}));
  CAF_CHECK(!faults.arm({effect::fail, target::any, 0, 0}));
  for (std::size_t order = 0; order < drive_faults::orders_max; ++order)
    CAF_CHECK(faults.arm({effect::fail, target::any, 1, 0}));
  CAF_CHECK(!faults.arm({effect::fail, target::any, 1, 0}));
  faults.clear();
  CAF_CHECK(faults.armed().empty());
  CAF_CHECK(!faults.take(kind::write));
}

namespace {

/// A store on a simulated drive with faults between the two.
struct faulty_run {
  crash::store_run run{{}};
  std::shared_ptr<drive_faults> faults = std::make_shared<drive_faults>();
  std::unique_ptr<block_device> device =
      make_faulty_device(std::make_unique<lent_device>(*run.device), faults, run.time);

  faulty_run() { open(); }
  ~faulty_run() { run.store.reset(); }
  void open() {
    run.store.reset();
    device = make_faulty_device(std::make_unique<lent_device>(*run.device), faults, run.time);
    const auto opened = drive_store::open(*device, run.store_options, run.time, run.store);
    if (!opened.ok())
      CAF_FAIL("the store does not open: " << opened.text);
  }
};

} // namespace

CAF_TEST(a store finds every read that was corrupted and serves the other blocks) {
  faulty_run one;
  constexpr int blocks = 20;
  for (int block = 0; block < blocks; ++block)
    CAF_REQUIRE(one.run.put("key " + std::to_string(block), crash::content_of(block + 1, 30'000)) ==
                errc::ok);
  CAF_REQUIRE(one.faults->arm({effect::corrupt, target::reads, 5, 0}));
  // A wrong byte is a problem of the run; a block that is missing is not, from here on.
  one.run.damaged = true;
  int found = 0;
  for (int block = 0; block < blocks; ++block)
    found += one.run.get("key " + std::to_string(block)).has_value() ? 1 : 0;
  CAF_CHECK_EQUAL(one.faults->met().corrupted, 5u);
  CAF_CHECK_EQUAL(crash::problem_of(one.run), "");
  CAF_CHECK_GREATER_OR_EQUAL(found, blocks - 5);
  CAF_CHECK_LESS(found, blocks);
}

CAF_TEST(a store whose write failed goes offline and keeps what it acknowledged before) {
  faulty_run one;
  CAF_REQUIRE(one.run.put("before", crash::content_of(1, 30'000)) == errc::ok);
  CAF_REQUIRE(one.faults->arm({effect::fail, target::writes, 1, 0}));
  CAF_CHECK(one.run.put("during", crash::content_of(2, 30'000)) != errc::ok);
  CAF_CHECK(one.run.store->counters().offline);
  one.open();
  CAF_CHECK(one.run.get("before").has_value());
  CAF_CHECK(one.run.put("after", crash::content_of(3, 30'000)) == errc::ok);
  one.run.get_all();
  CAF_CHECK_EQUAL(crash::problem_of(one.run), "");
}
