#define CAF_SUITE engine_sim
#include <caf/test/unit_test.hpp>

#include "test/sim/model.hpp"
#include "test/sim/sim_device.hpp"
#include "test/unit/engine_leaves/support.hpp"

#include <deque>
#include <set>

using namespace memkv;
using namespace memkv::sim;
using engine::errc;
using engine::io_operation;
using engine::test_seed;
using kind = io_operation::kind;

namespace {

/// A device and operations on single 4 KiB pages filled with one byte.
struct bench {
  world all;
  sim_device device;
  struct one : io_operation {
    std::vector<std::byte> buffer;
    int times_done = 0;
  };
  std::deque<one> operations;
  std::vector<std::size_t> order;

  explicit bench(std::uint64_t seed = 1, std::uint64_t delay = 0, bool stays_failed = true)
      : all(seed),
        device(all, {.size_bytes = 1 << 20, .delay_ticks_max = delay, .stays_failed = stays_failed}) {}

  one& start(kind what, std::uint64_t page = 0, int value = 0, bool durable = false,
             std::uint64_t pages = 1) {
    one& next = operations.emplace_back();
    next.what = what;
    next.durable = durable;
    if (what != kind::flush) {
      next.offset = page * 4096;
      next.length = pages * 4096;
      next.buffer.assign(next.length, static_cast<std::byte>(value));
      next.data = next.buffer.data();
    }
    next.context = this;
    next.done = [](io_operation& self) {
      ++static_cast<one&>(self).times_done;
      auto& mine = *static_cast<bench*>(self.context);
      for (std::size_t i = 0; i < mine.operations.size(); ++i)
        if (&mine.operations[i] == &self)
          mine.order.push_back(i);
    };
    device.submit(next);
    CAF_REQUIRE_EQUAL(next.times_done, 0);
    return next;
  }
  errc run(kind what, std::uint64_t page = 0, int value = 0, bool durable = false, std::uint64_t pages = 1) {
    one& next = start(what, page, value, durable, pages);
    while (next.times_done == 0)
      device.poll(true);
    CAF_REQUIRE_EQUAL(next.times_done, 1);
    return next.result;
  }
  std::vector<std::byte> read(std::uint64_t page) {
    CAF_REQUIRE(run(kind::read, page) == errc::ok);
    return operations.back().buffer;
  }
  void drain() {
    while (device.in_flight() > 0)
      device.poll(true);
  }
};

int page_value(const image& of, std::uint64_t page) {
  std::vector<std::byte> bytes(4096);
  of.read(page * 4096, bytes);
  for (const std::byte value : bytes)
    if (value != bytes[0])
      return -1; // torn
  return std::to_integer<int>(bytes[0]);
}

std::size_t different_bytes(const std::vector<std::byte>& bytes, std::byte from) {
  return static_cast<std::size_t>(
      std::count_if(bytes.begin(), bytes.end(), [&](std::byte b) { return b != from; }));
}

} // namespace

CAF_TEST(images share pages until one of them is written) {
  image first(100000);
  const std::vector<std::byte> bytes(20000, std::byte{7});
  first.write(10000, bytes);
  image second = first;
  CAF_CHECK(first == second);
  second.flip_bit(15000, 3);
  CAF_CHECK(!(first == second));
  second.flip_bit(15000, 3);
  CAF_CHECK(first == second);
  CAF_CHECK(!(first == image(99999)));
  second.copy_from(first, 10000, 50000, 4096);
  std::vector<std::byte> back(4096);
  second.read(50000, back);
  CAF_CHECK_EQUAL(different_bytes(back, std::byte{7}), 0u);
  sim::random chance(1);
  second.change_byte(50000, chance);
  second.read(50000, back);
  CAF_CHECK_EQUAL(different_bytes(back, std::byte{7}), 1u);
  second.fill(50000, 4096, std::byte{9});
  second.scramble(50000, 512, chance);
  second.read(50000, back);
  CAF_CHECK_GREATER(different_bytes(back, std::byte{9}), 400u);
  CAF_CHECK_LESS_OR_EQUAL(different_bytes(back, std::byte{9}), 512u);
  CAF_CHECK_EQUAL(first.bytes().size(), 100000u);
}

CAF_TEST(a simulated drive reads what was written) {
  bench drive;
  CAF_CHECK(drive.run(kind::write, 3, 5) == errc::ok);
  CAF_CHECK(drive.run(kind::flush) == errc::ok);
  CAF_CHECK_EQUAL(different_bytes(drive.read(3), std::byte{5}), 0u);
  CAF_CHECK_EQUAL(different_bytes(drive.read(4), std::byte{0}), 0u);
  CAF_CHECK(drive.run(kind::write, 256, 1) == errc::invalid_argument);
  CAF_CHECK(drive.run(kind::discard, 3) == errc::ok);
  CAF_CHECK_EQUAL(drive.device.submitted(), 6u);
}

CAF_TEST(the same seed gives the same order and another seed another) {
  const auto order = [](std::uint64_t seed) {
    bench drive(seed, 50);
    for (std::uint64_t page = 0; page < 40; ++page)
      drive.start(kind::write, page, 1);
    drive.drain();
    CAF_REQUIRE_EQUAL(drive.order.size(), 40u);
    return drive.order;
  };
  const auto first = order(1);
  CAF_CHECK_EQUAL(order(1), first);
  CAF_CHECK(order(2) != first);
  CAF_CHECK(!std::ranges::is_sorted(first));
}

CAF_TEST(each kind of planned fault does what it says) {
  using fault_kind = fault::kind;
  const auto hit = [](fault what, kind operation) {
    auto drive = std::make_unique<bench>();
    CAF_REQUIRE(drive->run(kind::write, 1, 1) == errc::ok);
    CAF_REQUIRE(drive->run(kind::write, 2, 2) == errc::ok);
    drive->device.plan(2, what);
    const errc result = drive->run(operation, 1, 9);
    CAF_CHECK_EQUAL(drive->device.met(), 1u);
    return std::pair(std::move(drive), result);
  };
  const auto value = [](const auto& result, std::uint64_t page) {
    return page_value(result.first->device.now(), page);
  };
  {
    const auto result = hit({fault_kind::io_error}, kind::write);
    CAF_CHECK(result.second == errc::io_error);
    CAF_CHECK_EQUAL(value(result, 1), 1);
    CAF_CHECK(result.first->run(kind::write, 5, 5) == errc::io_error);
    CAF_CHECK(result.first->run(kind::flush) == errc::io_error);
    CAF_CHECK(result.first->run(kind::read, 2) == errc::ok);
  }
  CAF_CHECK(hit({fault_kind::no_space}, kind::write).second == errc::no_space);
  {
    const auto result = hit({fault_kind::short_transfer}, kind::write);
    CAF_CHECK(result.second == errc::io_error);
    CAF_CHECK_EQUAL(value(result, 1), -1);
  }
  {
    const auto result = hit({fault_kind::lost_write}, kind::write);
    CAF_CHECK(result.second == errc::ok);
    CAF_CHECK_EQUAL(value(result, 1), 1);
  }
  {
    const auto result = hit({fault_kind::torn_write}, kind::write);
    CAF_CHECK(result.second == errc::ok);
    CAF_CHECK_EQUAL(value(result, 1), -1);
  }
  {
    const auto result = hit({fault_kind::misdirected_write, 2 * 4096}, kind::write);
    CAF_CHECK(result.second == errc::ok);
    CAF_CHECK_EQUAL(value(result, 1), 1);
    CAF_CHECK_EQUAL(value(result, 2), 9);
  }
  {
    const auto result = hit({fault_kind::misdirected_read, 2 * 4096}, kind::read);
    CAF_CHECK(result.second == errc::ok);
    CAF_CHECK_EQUAL(different_bytes(result.first->operations.back().buffer, std::byte{2}), 0u);
  }
  for (const fault_kind flip :
       {fault_kind::flipped_bit, fault_kind::flipped_byte, fault_kind::flipped_sector}) {
    const auto read = hit({flip}, kind::read);
    CAF_CHECK(read.second == errc::ok);
    CAF_CHECK_GREATER(different_bytes(read.first->operations.back().buffer, std::byte{1}), 0u);
    CAF_CHECK_LESS_OR_EQUAL(different_bytes(read.first->operations.back().buffer, std::byte{1}), 512u);
    CAF_CHECK_EQUAL(value(read, 1), 1);
    const auto written = hit({flip}, kind::write);
    CAF_CHECK(written.second == errc::ok);
    CAF_CHECK_EQUAL(value(written, 1), -1);
  }
}

CAF_TEST(a write can go to another drive of the same world) {
  world all(1);
  sim_device first(all, {.size_bytes = 1 << 20});
  sim_device second(all, {.size_bytes = 1 << 20});
  first.plan(0, {fault::kind::misdirected_write, 8192, &second});
  io_operation write;
  std::vector<std::byte> data(4096, std::byte{3});
  write.what = kind::write;
  write.length = 4096;
  write.data = data.data();
  write.done = [](io_operation&) {};
  first.submit(write);
  while (first.in_flight() > 0)
    first.poll(true);
  CAF_CHECK_EQUAL(page_value(first.now(), 0), 0);
  CAF_CHECK_EQUAL(page_value(second.now(), 2), 3);
}

CAF_TEST(what never completes does so when told or when the drive is closed) {
  bench drive;
  drive.device.plan(0, {fault::kind::never_completes});
  drive.device.plan(1, {fault::kind::never_completes});
  const auto& stuck = drive.start(kind::write, 1, 1);
  for (int i = 0; i < 100; ++i)
    drive.device.poll(true);
  CAF_CHECK_EQUAL(stuck.times_done, 0);
  drive.device.release_stuck(errc::ok);
  drive.device.poll(true);
  CAF_CHECK_EQUAL(stuck.times_done, 1);
  CAF_CHECK_EQUAL(page_value(drive.device.now(), 1), 1);
  const auto& other = drive.start(kind::write, 2, 2);
  drive.device.close();
  CAF_CHECK_EQUAL(other.times_done, 1);
  CAF_CHECK(other.result == errc::io_error);
}

CAF_TEST(random faults come at about their rate) {
  bench drive(test_seed(8), 0, false);
  drive.device.set_rates({.read_error = 0.1, .write_error = 0.2});
  int reads = 0, writes = 0;
  for (int i = 0; i < 2000; ++i) {
    reads += drive.run(kind::read, 1) != errc::ok;
    writes += drive.run(kind::write, 1, 1) != errc::ok;
  }
  CAF_CHECK(reads > 120 && reads < 300);
  CAF_CHECK(writes > 300 && writes < 520);
}

CAF_TEST(a discarded range reads as the drive pleases) {
  for (const auto& [how, value] : {std::pair(discarded::zeros, 0),
                                   {discarded::ones, 255},
                                   {discarded::old_bytes, 5},
                                   {discarded::noise, -1}}) {
    world all(1);
    sim_device device(all, {.size_bytes = 1 << 20, .after_discard = how});
    device.now().fill(4096, 4096, std::byte{5});
    io_operation discard;
    discard.what = kind::discard;
    discard.offset = discard.length = 4096;
    discard.done = [](io_operation&) {};
    device.submit(discard);
    while (device.in_flight() > 0)
      device.poll(true);
    CAF_CHECK_EQUAL(page_value(device.now(), 1), value);
  }
}

CAF_TEST(misuse of buffers and overlapping writes are counted) {
  bench drive(1, 10);
  auto& changed = drive.start(kind::write, 1, 1);
  changed.buffer[100] = std::byte{2};
  drive.start(kind::write, 1, 3);
  drive.start(kind::read, 7);
  drive.drain();
  CAF_CHECK_EQUAL(drive.device.changed_buffers(), 1u);
  CAF_CHECK_EQUAL(drive.device.overlaps(), 1u);
}

CAF_TEST(a power cut keeps what was flushed and leaves the rest whole or torn or absent) {
  bench drive;
  drive.run(kind::write, 1, 1);
  drive.run(kind::flush);
  drive.run(kind::write, 2, 2);
  drive.run(kind::write, 3, 3, true); // durable by itself
  drive.start(kind::write, 4, 4);     // in flight
  const crash_states states(drive.device);
  CAF_CHECK_EQUAL(states.open_writes(), 2u);
  // Absent, whole, first sector, half, all but the last sector.
  CAF_CHECK_EQUAL(states.count(), 25u);
  std::set<std::pair<int, int>> seen;
  for (std::uint64_t i = 0; i < states.count(); ++i) {
    const image after = states.list(i);
    CAF_CHECK_EQUAL(page_value(after, 1), 1);
    CAF_CHECK_EQUAL(page_value(after, 3), 3);
    seen.emplace(page_value(after, 2), page_value(after, 4));
  }
  CAF_CHECK_EQUAL(seen.size(), 9u);
  sim::random chance(test_seed(9));
  std::set<std::pair<int, int>> drawn;
  for (int i = 0; i < 5000; ++i) {
    const image after = states.draw(chance);
    CAF_CHECK_EQUAL(page_value(after, 1), 1);
    CAF_CHECK_EQUAL(page_value(after, 3), 3);
    drawn.emplace(page_value(after, 2), page_value(after, 4));
  }
  CAF_CHECK(drawn == seen);
}

CAF_TEST(a write that a flush overtook is not certain and an earlier moment knows less) {
  bench drive(1, 0);
  drive.run(kind::write, 1, 1);
  const std::uint64_t before_flush = drive.device.events();
  drive.start(kind::write, 2, 2);
  drive.start(kind::flush); // submitted while the write is in flight
  drive.drain();
  const crash_states now(drive.device);
  CAF_CHECK_EQUAL(now.open_writes(), 1u);
  CAF_CHECK_EQUAL(page_value(now.list(0), 1), 1);
  CAF_CHECK_EQUAL(page_value(now.list(0), 2), 0);
  const crash_states earlier(drive.device, before_flush);
  CAF_CHECK_EQUAL(earlier.open_writes(), 1u);
  CAF_CHECK_EQUAL(page_value(earlier.list(0), 1), 0);
  CAF_CHECK_EQUAL(crash_states(drive.device, 0).count(), 1u);
}

CAF_TEST(after a failed flush nothing written before it is ever certain) {
  bench drive(1, 0, false);
  drive.run(kind::write, 1, 1);
  drive.run(kind::flush);
  drive.run(kind::write, 2, 2);
  drive.device.plan(3, {fault::kind::io_error});
  CAF_CHECK(drive.run(kind::flush) == errc::io_error);
  CAF_CHECK(drive.run(kind::flush) == errc::ok);
  const crash_states states(drive.device);
  CAF_CHECK_EQUAL(states.open_writes(), 1u);
  CAF_CHECK_EQUAL(page_value(states.list(0), 1), 1);
  CAF_CHECK_EQUAL(page_value(states.list(0), 2), 0);
}

CAF_TEST(lost and refused writes never appear after a power cut and misdirected ones do elsewhere) {
  bench drive(1, 0, false);
  drive.device.plan(0, {fault::kind::lost_write});
  drive.device.plan(1, {fault::kind::io_error});
  drive.device.plan(2, {fault::kind::misdirected_write, 9 * 4096});
  drive.run(kind::write, 1, 1);
  drive.run(kind::write, 2, 2);
  drive.run(kind::write, 3, 3);
  drive.run(kind::flush);
  const crash_states states(drive.device);
  CAF_CHECK_EQUAL(states.count(), 1u);
  CAF_CHECK_EQUAL(page_value(states.list(0), 1), 0);
  CAF_CHECK_EQUAL(page_value(states.list(0), 2), 0);
  CAF_CHECK_EQUAL(page_value(states.list(0), 3), 0);
  CAF_CHECK_EQUAL(page_value(states.list(0), 9), 3);
}

CAF_TEST(overlapping writes of one epoch end in one of them and later epochs win) {
  bench drive;
  drive.run(kind::write, 1, 1);
  drive.run(kind::flush);
  drive.run(kind::write, 1, 2);
  drive.run(kind::write, 1, 3);
  const crash_states states(drive.device);
  std::set<int> seen;
  for (std::uint64_t i = 0; i < states.count(); ++i)
    seen.insert(page_value(states.list(i), 1));
  CAF_CHECK(seen == std::set<int>({-1, 1, 2, 3}));
}

CAF_TEST(after the power went nothing has an effect and the log can start anew) {
  bench drive;
  drive.run(kind::write, 1, 1);
  drive.run(kind::flush);
  drive.device.forget_log();
  CAF_CHECK_EQUAL(page_value(drive.device.start(), 1), 1);
  drive.device.cut_power_before(4);
  CAF_CHECK(drive.run(kind::write, 2, 2) == errc::ok);
  CAF_CHECK(!drive.device.is_cut());
  auto& flying = drive.start(kind::write, 3, 3);
  auto& late = drive.start(kind::write, 4, 4);
  CAF_CHECK(drive.device.is_cut());
  drive.drain();
  CAF_CHECK(flying.result == errc::io_error && late.result == errc::io_error);
  const crash_states states(drive.device);
  CAF_CHECK_EQUAL(states.open_writes(), 2u); // pages 2 and 3, not 4
  for (std::uint64_t i = 0; i < states.count(); ++i)
    CAF_CHECK_EQUAL(page_value(states.list(i), 4), 0);
}

CAF_TEST(a model allows what is there and nothing else) {
  model expected;
  const auto put = [&](model::content what) {
    expected.end(expected.begin_put("k", what), model::outcome::done);
  };
  const auto get = [&](std::optional<model::content> seen) {
    return expected.end_get(expected.begin_get("k"), seen);
  };
  CAF_CHECK_EQUAL(get(std::nullopt), "");
  CAF_CHECK_NOT_EQUAL(get(1), "");
  put(1);
  CAF_CHECK_EQUAL(get(1), "");
  CAF_CHECK_NOT_EQUAL(get(std::nullopt), "");
  put(2);
  CAF_CHECK_EQUAL(get(2), "");
  CAF_CHECK_NOT_EQUAL(get(1), "");
  expected.end(expected.begin_delete("k"), model::outcome::done);
  CAF_CHECK_EQUAL(get(std::nullopt), "");
  CAF_CHECK_NOT_EQUAL(get(2), "");
}

CAF_TEST(a pending write may be seen and once seen the old value is gone) {
  model expected;
  expected.end(expected.begin_put("k", 1), model::outcome::done);
  const auto pending = expected.begin_put("k", 2);
  const auto get = [&](std::optional<model::content> seen) {
    return expected.end_get(expected.begin_get("k"), seen);
  };
  CAF_CHECK_EQUAL(get(1), "");
  CAF_CHECK_EQUAL(get(1), "");
  CAF_CHECK_EQUAL(get(2), "");
  CAF_CHECK_NOT_EQUAL(get(1), "");
  expected.end(pending, model::outcome::done);
  CAF_CHECK_EQUAL(get(2), "");
}

CAF_TEST(a refused write never shows and an unknown one may until it is settled or overwritten) {
  model expected;
  const auto get = [&](std::optional<model::content> seen) {
    return expected.end_get(expected.begin_get("k"), seen);
  };
  expected.end(expected.begin_put("k", 1), model::outcome::refused);
  CAF_CHECK_NOT_EQUAL(get(1), "");
  expected.end(expected.begin_put("k", 2), model::outcome::unknown);
  CAF_CHECK_EQUAL(get(std::nullopt), "");
  expected.end(expected.begin_put("k", 3), model::outcome::done);
  CAF_CHECK_EQUAL(get(3), "");
  CAF_CHECK_EQUAL(get(2), ""); // it took effect late
  expected.end(expected.begin_put("k", 4), model::outcome::unknown);
  expected.settle();
  expected.end(expected.begin_put("k", 5), model::outcome::done);
  CAF_CHECK_NOT_EQUAL(get(4), "");
  CAF_CHECK_EQUAL(get(5), "");
}

CAF_TEST(overlapping writes may end in either order and a get may see any value of its time) {
  model expected;
  const auto first = expected.begin_put("k", 1);
  const auto second = expected.begin_put("k", 2);
  expected.end(second, model::outcome::done);
  expected.end(first, model::outcome::done);
  CAF_CHECK_EQUAL(expected.allowed("k").size(), 2u);
  const auto get = expected.begin_get("k");
  expected.end(expected.begin_put("k", 3), model::outcome::done);
  expected.end(expected.begin_put("k", 4), model::outcome::done);
  const auto other = expected.begin_get("k");
  CAF_CHECK_EQUAL(expected.end_get(get, 1), "");
  CAF_CHECK_NOT_EQUAL(expected.end_get(other, 3), "");
  const auto third = expected.begin_get("k");
  expected.abandon_get(third);
  CAF_CHECK_EQUAL(expected.end_get(expected.begin_get("k"), 4), "");
}

CAF_TEST(announced evictions turn must into may and nothing evicted comes back) {
  model expected;
  expected.end(expected.begin_put("k", 1), model::outcome::done);
  const auto get = [&](std::optional<model::content> seen) {
    return expected.end_get(expected.begin_get("k"), seen);
  };
  expected.evicted("k");
  CAF_CHECK_EQUAL(get(1), ""); // announced ahead of time, or of an older block
  CAF_CHECK_NOT_EQUAL(get(std::nullopt), "");
  expected.evicted("k");
  CAF_CHECK_EQUAL(get(std::nullopt), "");
  CAF_CHECK_NOT_EQUAL(get(1), "");

  expected.end(expected.begin_put("k", 2), model::outcome::done);
  expected.evicted_some(1);
  CAF_CHECK_EQUAL(get(std::nullopt), "");
  CAF_CHECK_NOT_EQUAL(get(2), "");
  CAF_CHECK_EQUAL(expected.unexplained_misses(), 1u);
  expected.end(expected.begin_put("k", 3), model::outcome::done);
  CAF_CHECK_NOT_EQUAL(get(std::nullopt), ""); // the announcement is used up
}

CAF_TEST(a crash decides what was under way and never brings back the old) {
  const auto get = [](model& expected, std::optional<model::content> seen) {
    return expected.end_get(expected.begin_get("k"), seen);
  };
  for (const bool lossy : {false, true}) {
    model expected;
    expected.end(expected.begin_put("k", 1), model::outcome::done);
    expected.end(expected.begin_put("k", 2), model::outcome::done);
    static_cast<void>(expected.begin_put("k", 3));
    expected.crash(lossy);
    CAF_CHECK_NOT_EQUAL(get(expected, 1), "");
    CAF_CHECK_EQUAL(get(expected, std::nullopt).empty(), lossy);
    if (!lossy) {
      CAF_CHECK_EQUAL(get(expected, 2), "");
      expected.crash(lossy);
      CAF_CHECK_NOT_EQUAL(get(expected, 3), ""); // it was not there, so it never happened
    }
  }
  model expected;
  expected.end(expected.begin_put("a", 1), model::outcome::done);
  expected.end(expected.begin_put("b", 1), model::outcome::done);
  expected.lost([](const model::key& name) { return name == "a"; });
  CAF_CHECK_EQUAL(expected.allowed("a").size(), 2u);
  CAF_CHECK_EQUAL(expected.allowed("b").size(), 1u);
  CAF_CHECK_EQUAL(expected.keys().size(), 2u);
}
