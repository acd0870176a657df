// The power goes while a drive is reset or set up: it is what it was, or empty, and never something between.
#define CAF_SUITE format_cut
#include "engine/drive_content.hpp"
#include "engine/drive_format.hpp"
#include "test/crash/store_run.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::crash;

namespace {

const engine::format_progress quietly = [](std::string_view, std::uint64_t, std::uint64_t) { return true; };

// Blocks in the tree and in the journal, and one whose removal only the journal knows.
void live(store_run& run) {
  CAF_REQUIRE(run.open().ok());
  for (std::uint64_t i = 1; i <= 6; ++i)
    CAF_REQUIRE(run.put("old" + std::to_string(i), content_of(i, 3000)) == engine::errc::ok);
  CAF_REQUIRE(run.put("gone", content_of(50, 9000)) == engine::errc::ok);
  CAF_REQUIRE(run.close().ok());
  run.store.reset();
  CAF_REQUIRE(run.open().ok());
  CAF_REQUIRE(run.erase("gone") == engine::errc::ok);
  CAF_REQUIRE(run.put("late", content_of(60, 5000)) == engine::errc::ok);
  CAF_REQUIRE(run.put("later", content_of(61, 100)) == engine::errc::ok);
  run.die(false);
}

engine::drive_content look(engine::block_device& device) {
  engine::drive_content content;
  const auto looked = engine::look_at_content(device, content);
  if (!looked.ok())
    CAF_FAIL(looked.text);
  return content;
}

template <class Visit>
void each_state(const store_run& run, sim::random& chance, Visit visit) {
  const sim::crash_states after(*run.device);
  if (after.count() <= 6)
    for (std::uint64_t number = 0; number < after.count(); ++number)
      visit(after.list(number));
  else
    for (int i = 0; i < 4; ++i)
      visit(after.draw(chance));
}

// A store on what a power cut left: how many blocks it shows, none of them wrong, or why it does not open.
struct outcome {
  engine::status opened;
  std::uint64_t blocks = 0;
  std::string problem;
};

outcome start(run_options options, const sim::image& image, const sim::model& expected,
              const engine::set_identity& identity) {
  options.boot = std::byte{2};
  store_run again(options, image, expected);
  again.damaged = true; // any block may be a miss
  again.store_options.identity = identity;
  again.store_options.format_if_new = false;
  outcome result;
  result.opened = again.open();
  if (!result.opened.ok())
    return result;
  result.blocks = again.store->counters().blocks;
  again.get_all();
  result.problem = problem_of(again);
  again.die(false);
  return result;
}

std::string where(std::uint64_t seed, std::uint64_t cut) {
  return " [cut before operation " + std::to_string(cut) + ", MEMKV_TEST_SEED=" + std::to_string(seed) + "]";
}

} // namespace

CAF_TEST(a reset that is cut at any operation leaves the drive as it was or empty) {
  std::uint64_t as_it_was = 0;
  std::uint64_t emptied = 0;
  for (const auto seed : seeds(3)) {
    sim::random chance(seed);
    run_options options;
    options.seed = seed;
    for (std::uint64_t cut = 0;; ++cut) {
      store_run run(options);
      live(run);
      auto found = look(*run.device).super;
      const auto old_format = found.format_id;
      found.set_epoch = 9; // no other drive may come to look younger than it is
      found.members = {};
      engine::add_member(found.members, 0);
      found.failures = {"SERIAL", 6, 1, 2, true};
      run.device->cut_power_before(run.device->submitted() + cut);
      const auto reset = engine::format_again(*run.device, nullptr, found, (seed + cut) % 2 == 0, quietly);
      const bool was_cut = run.device->is_cut();
      CAF_REQUIRE_EQUAL(reset.ok(), !was_cut);
      run.device->cut_power();
      each_state(run, chance, [&](const sim::image& image) {
        sim::world world(seed);
        sim::sim_device device(world, {}, image);
        const auto content = look(device);
        if (content.kind != engine::content_kind::memkv)
          CAF_FAIL("the drive has forgotten its place" << where(seed, cut));
        const auto& super = content.super;
        CAF_CHECK(super.set.set_id == found.set.set_id && super.drive_id == found.drive_id);
        CAF_CHECK_EQUAL(super.set.drive_count, found.set.drive_count);
        const bool is_new = super.format_id != old_format;
        if (is_new) {
          CAF_CHECK_EQUAL(super.set_epoch, 9U);
          CAF_CHECK(super.members == found.members);
          CAF_CHECK_EQUAL(super.failures.failure_count, 0U);
        }
        const auto after = start(options, image, run.expected, found.set);
        if (!after.opened.ok())
          CAF_FAIL(after.opened.text << where(seed, cut));
        CAF_CHECK_EQUAL(after.problem, "");
        const bool told = after.opened.text.find("cut short") != std::string::npos;
        if (told != super.format_cut_short())
          CAF_ERROR("the server's log " << (told ? "speaks" : "is silent") << " of a reset cut short"
                                        << where(seed, cut));
        if (after.blocks != (is_new ? 0U : 8U))
          CAF_ERROR(after.blocks << " blocks are there" << where(seed, cut));
        ++(is_new ? emptied : as_it_was);
        // What was cut can be run again.
        CAF_REQUIRE(engine::format_again(device, nullptr, super, false, quietly).ok());
        CAF_CHECK(look(device).copies[0] == engine::errc::ok && look(device).copies[1] == engine::errc::ok);
      });
      if (!was_cut)
        break;
    }
  }
  CAF_CHECK(as_it_was > 0);
  CAF_CHECK(emptied > as_it_was);
}

CAF_TEST(a setup that is cut at any operation never shows a block of before) {
  std::uint64_t taken = 0;
  std::uint64_t refused = 0;
  for (const auto seed : seeds(3)) {
    sim::random chance(seed);
    run_options options;
    options.seed = seed;
    for (std::uint64_t cut = 0;; ++cut) {
      store_run run(options);
      live(run);
      const auto old = look(*run.device).super;
      engine::new_drive wanted;
      wanted.identity.set_id.fill(std::byte{0x5E});
      wanted.identity.drive_count = old.set.drive_count;
      wanted.unit_bytes = options.unit_bytes;
      wanted.extent_bytes_max = options.extent_bytes_max;
      run.device->cut_power_before(run.device->submitted() + cut);
      const auto formatted = engine::format_new(*run.device, nullptr, wanted, quietly);
      const bool was_cut = run.device->is_cut();
      CAF_REQUIRE_EQUAL(formatted.ok(), !was_cut);
      run.device->cut_power();
      each_state(run, chance, [&](const sim::image& image) {
        const auto as_new = start(options, image, run.expected, wanted.identity);
        CAF_CHECK_EQUAL(as_new.problem, "");
        if (as_new.opened.ok() && as_new.blocks != 0)
          CAF_ERROR("the new set shows blocks of the old one" << where(seed, cut));
        const auto as_old = start(options, image, run.expected, old.set);
        CAF_CHECK_EQUAL(as_old.problem, "");
        if (as_new.opened.ok() && as_old.opened.ok())
          CAF_ERROR("the drive is of two sets" << where(seed, cut));
        ++(as_new.opened.ok() ? taken : refused);
      });
      if (!was_cut) {
        CAF_CHECK(start(options, run.device->now(), run.expected, wanted.identity).opened.ok());
        break;
      }
    }
  }
  CAF_CHECK(taken > 0);
  CAF_CHECK(refused > 0);
}
