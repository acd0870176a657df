// The two superblocks, foreign and newer drives, and formatting over what was there.
#define CAF_SUITE store_superblock

#include "engine/superblock.hpp"
#include "test/crash/history.hpp"
#include "wire/bytes.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;
using engine::errc;

namespace {

/// A drive with something on it that was closed in order.
struct closed_drive {
  closed_drive() : run(run_options{}) {
    CAF_REQUIRE(run.open().ok());
    live(run);
    CAF_REQUIRE(run.close().ok());
    run.die(false);
    mirror = run.options.size_bytes - 4096;
  }

  engine::status open(const sim::image& drive, std::unique_ptr<store_run>& out) {
    out = std::make_unique<store_run>(run.options, drive, run.expected);
    return out->open();
  }

  /// Opens, and everything is there.
  std::string look_at(const sim::image& drive) {
    std::unique_ptr<store_run> again;
    if (const auto opened = open(drive, again); !opened.ok())
      return opened.text;
    again->get_all();
    return problem_of(*again);
  }

  store_run run;
  std::uint64_t mirror = 0;
};

void change_superblock(sim::image& drive, std::uint64_t at,
                       const std::function<void(std::span<std::byte>)>& edit) {
  std::vector<std::byte> bytes(4096);
  drive.read(at, bytes);
  edit(bytes);
  engine::seal(bytes);
  drive.write(at, bytes);
}

} // namespace

CAF_TEST(either superblock alone is enough and is made two again) {
  closed_drive closed;
  for (const std::uint64_t at : {std::uint64_t{0}, closed.mirror}) {
    for (const bool zeros : {false, true}) {
      sim::random chance(at + 1);
      sim::image damaged = closed.run.device->now();
      if (zeros)
        damaged.fill(at, 4096, std::byte{0});
      else
        damaged.scramble(at, 4096, chance);
      // An empty mirror under a superblock that was in use is damage, not a drive that was never formatted.
      CAF_CHECK_EQUAL(closed.look_at(damaged), "");
      std::unique_ptr<store_run> again;
      const auto opened = closed.open(damaged, again);
      CAF_CHECK(opened.ok());
      CAF_CHECK_EQUAL(again->store->counters().bad_superblocks, 1u);
      const auto mended = again->device->now();
      again->die(false);
      sim::image other = mended;
      other.scramble(at == 0 ? closed.mirror : 0, 4096, chance);
      CAF_CHECK_EQUAL(closed.look_at(other), "");
    }
  }
}

CAF_TEST(a late or damaged superblock is made good before anything else is written) {
  store_run first(run_options{});
  CAF_REQUIRE(first.open().ok());
  live(first);
  first.die(false);
  for (const std::uint64_t late : {std::uint64_t{0}, first.options.size_bytes - 4096}) {
    for (const bool damaged : {false, true}) {
      sim::image drive = first.device->now();
      if (damaged)
        drive.flip_bit(late + 1000, 1);
      else
        change_superblock(drive, late, [](std::span<std::byte> bytes) {
          wire::store_le(bytes.data() + 80, wire::load_le<std::uint64_t>(bytes.data() + 80) - 1);
        });
      store_run second(first.options, drive, first.expected);
      CAF_REQUIRE(second.open().ok());
      const auto& log = second.device->log();
      CAF_REQUIRE(log.size() > 2);
      CAF_CHECK_EQUAL(log[0].offset, late);
      CAF_CHECK(log[1].what == engine::io_operation::kind::flush);
      second.get_all();
      CAF_CHECK_EQUAL(problem_of(second), "");
    }
  }
}

CAF_TEST(both superblocks damaged are refused and nothing is written) {
  closed_drive closed;
  sim::random chance(5);
  sim::image damaged = closed.run.device->now();
  damaged.change_byte(100, chance);
  damaged.change_byte(closed.mirror + 100, chance);
  std::unique_ptr<store_run> again;
  CAF_CHECK(closed.open(damaged, again).code == errc::corrupt);
  CAF_CHECK(again->device->now() == damaged);
}

CAF_TEST(something that is not ours is refused and left as it is) {
  sim::random chance(6);
  sim::image strange(8 << 20);
  strange.scramble(0, 4096, chance);
  run_options options;
  store_run run(options, strange, {});
  CAF_CHECK(run.open().code == errc::bad_format);
  CAF_CHECK(run.device->now() == strange);
  sim::image behind(8 << 20);
  behind.scramble((8 << 20) - 4096, 512, chance);
  store_run other(options, behind, {});
  CAF_CHECK(other.open().code == errc::bad_format);
}

CAF_TEST(a later release is refused by name from either copy) {
  closed_drive closed;
  for (const std::uint64_t at : {std::uint64_t{0}, closed.mirror}) {
    sim::image newer = closed.run.device->now();
    change_superblock(newer, at, [](std::span<std::byte> bytes) {
      bytes[engine::version_offset] = std::byte{engine::superblock_version + 1};
    });
    std::unique_ptr<store_run> again;
    const auto opened = closed.open(newer, again);
    CAF_CHECK(opened.code == errc::newer_version);
    CAF_CHECK(opened.text.find("later release") != std::string::npos);
    CAF_CHECK(again->device->now() == newer);
  }
  sim::image registry = closed.run.device->now();
  for (const std::uint64_t at : {std::uint64_t{0}, closed.mirror})
    change_superblock(registry, at, [](std::span<std::byte> bytes) {
      bytes[256] = std::byte{engine::failure_registry_version + 1};
    });
  std::unique_ptr<store_run> again;
  CAF_CHECK(closed.open(registry, again).code == errc::newer_version);
}

CAF_TEST(a drive of another set or another place is refused) {
  closed_drive closed;
  const auto with = [&](const std::function<void(engine::set_identity&)>& change) {
    store_run other(closed.run.options, closed.run.device->now(), closed.run.expected);
    change(other.store_options.identity);
    return other.open().code;
  };
  CAF_CHECK(with([](engine::set_identity& set) { set.set_id[3] = std::byte{1}; }) == errc::foreign_drive);
  CAF_CHECK(with([](engine::set_identity& set) { set.drive_index = 1; }) == errc::foreign_drive);
  CAF_CHECK(with([](engine::set_identity& set) { set.drive_count = 2; }) == errc::foreign_drive);
  CAF_CHECK(with([](engine::set_identity& set) { set.set_id = {}; }) == errc::ok);
}

CAF_TEST(other settings than those of the format are refused with the right ones) {
  closed_drive closed;
  run_options options = closed.run.options;
  options.unit_bytes = 8 << 10;
  store_run other(options, closed.run.device->now(), closed.run.expected);
  const auto opened = other.open();
  CAF_CHECK(opened.code == errc::invalid_argument);
  CAF_CHECK(opened.text.find("4096") != std::string::npos);
}

CAF_TEST(a drive that changed its size is refused) {
  closed_drive closed;
  run_options options = closed.run.options;
  options.size_bytes += 1 << 20;
  sim::image larger(options.size_bytes);
  larger.copy_from(closed.run.device->now(), 0, 0, closed.run.options.size_bytes);
  store_run other(options, larger, closed.run.expected);
  CAF_CHECK(other.open().code == errc::wrong_size);
}

CAF_TEST(an older copy of a superblock loses against the newer one) {
  closed_drive closed;
  const sim::image before = closed.run.device->now();
  std::unique_ptr<store_run> again;
  CAF_REQUIRE(closed.open(before, again).ok());
  again->put("later", content_of(8'000'000, 5000));
  CAF_REQUIRE(again->close().ok());
  again->die(false);
  for (const std::uint64_t at : {std::uint64_t{0}, closed.mirror}) {
    sim::image stale = again->device->now();
    stale.copy_from(before, at, at, 4096);
    store_run third(closed.run.options, stale, again->expected);
    CAF_REQUIRE(third.open().ok());
    third.get_all();
    CAF_CHECK(third.get("later").has_value());
    CAF_CHECK_EQUAL(problem_of(third), "");
  }
}

CAF_TEST(a copy in the other ones place is not believed) {
  closed_drive closed;
  sim::image swapped = closed.run.device->now();
  swapped.copy_from(swapped, 0, closed.mirror, 4096);
  std::unique_ptr<store_run> again;
  CAF_CHECK(closed.open(swapped, again).ok());
  CAF_CHECK_EQUAL(again->store->counters().bad_superblocks, 1u);
}

CAF_TEST(after a format nothing of before comes back) {
  closed_drive closed;
  auto& device = *closed.run.device;
  store_run again(closed.run.options, device.now(), closed.run.expected);
  CAF_REQUIRE(engine::drive_store::format(*again.device, again.store_options).ok());
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->counters().blocks, 0u);
  for (const std::string& key : again.expected.keys())
    CAF_CHECK(!again.store->index().find_and_pin(id_of(key)));
  // Neither does it after a crash that leaves old pages lying about.
  CAF_CHECK(again.put("after", content_of(1, 100)) == errc::ok);
  again.die(false);
  again.expected.lost([](const std::string&) { return true; });
  store_run third(closed.run.options, again.device->now(), {});
  CAF_REQUIRE(third.open().ok());
  CAF_CHECK_EQUAL(third.store->counters().blocks, 1u);
}

CAF_TEST(a format that was interrupted anywhere is begun again or had ended) {
  run_options options;
  options.size_bytes = 5 << 20;
  for (std::uint64_t cut = 0;; ++cut) {
    store_run run(options);
    run.device->cut_power_before(cut);
    const bool formatted = engine::drive_store::format(*run.device, run.store_options).ok();
    run.device->cut_power();
    const sim::crash_states after(*run.device);
    for (std::uint64_t number = 0; number < std::min<std::uint64_t>(after.count(), 8); ++number) {
      store_run again(options, after.list(number), {});
      const auto opened = again.open();
      CAF_REQUIRE_EQUAL(opened.ok() ? std::string() : opened.text, "");
      CAF_REQUIRE(again.put("a", content_of(1, 100)) == errc::ok);
    }
    if (formatted)
      break;
  }
}

CAF_TEST(a drive that was blacklisted stays shut and one that is cut while it is written down is whole) {
  store_run first(run_options{});
  CAF_REQUIRE(first.open().ok());
  live(first);
  first.die(false);
  engine::drive_failures failures;
  failures.count = 3;
  failures.first_ns = 1'000;
  failures.last_ns = 2'000;
  for (const bool late : {false, true}) {
    sim::image drive = first.device->now();
    if (late)
      drive.flip_bit(1000, 1);
    for (std::uint64_t cut = 0;; ++cut) {
      store_run second(first.options, drive, first.expected);
      second.device->cut_power_before(cut);
      const auto written = engine::drive_store::blacklist(*second.device, failures);
      const bool was_cut = second.device->is_cut();
      CAF_CHECK_EQUAL(written.ok(), !was_cut);
      second.device->cut_power();
      const sim::crash_states after(*second.device);
      store_run third(first.options, after.draw(second.world.chance), first.expected);
      const auto opened = third.open();
      if (!was_cut) {
        CAF_CHECK(opened.code == errc::blacklisted);
        CAF_CHECK(opened.text.find("it failed 3 times") != std::string::npos);
        break;
      }
      if (opened.ok())
        third.get_all();
      else
        CAF_CHECK(opened.code == errc::blacklisted);
      CAF_CHECK_EQUAL(problem_of(third), "");
    }
  }
}
