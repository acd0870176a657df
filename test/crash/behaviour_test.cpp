// What the store promises without any fault: space, visibility, order, eviction, striping, closing.
#define CAF_SUITE store_behaviour

#include "engine/drive_store_core.hpp"
#include "engine/memory_device.hpp"
#include "engine/open_drive.hpp"
#include "test/crash/history.hpp"
#include "wire/crc32c.hpp"

#include <caf/test/unit_test.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

using namespace memkv;
using namespace memkv::crash;
using engine::errc;

namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;

run_options large_units() {
  run_options options;
  options.size_bytes = 40 * mib;
  options.unit_bytes = 64 * kib;
  options.extent_bytes_max = 4 * mib;
  return options;
}

/// One part of a value, or all of it, step by step.
struct part {
  std::string key;
  content what = 0;
  std::uint32_t part = 0, parts = 1;
  std::uint64_t put_id = 0, value_length = 0;
  std::uint64_t deadline_ns = 0;
  bool if_absent = false;
};

engine::key_id id_of_part(const part& one) {
  return one.part == 0 ? id_of(one.key) : engine::part_id(id_of(one.key), one.put_id, one.part);
}

errc reserve(store_run& run, const part& one, std::uint64_t& token) {
  engine::put_description description;
  description.id = id_of_part(one);
  description.name_space = "tenant";
  description.key = wire::as_bytes_view(one.key);
  description.length = length_of(one.what);
  description.value_length = one.value_length != 0 ? one.value_length : length_of(one.what);
  description.part = one.part;
  description.parts = one.parts;
  description.put_id = one.put_id;
  bool answered = false;
  errc result = errc::cancelled;
  run.store->allocate(description, [&](errc code, const engine::reservation& space) {
    answered = true;
    result = code;
    token = space.token;
  });
  CAF_REQUIRE(run.drive_until([&] { return answered; }));
  return result;
}

errc write_all(store_run& run, std::uint64_t token, content what) {
  auto bytes = bytes_of(what);
  bool answered = false;
  errc result = errc::cancelled;
  run.store->write(token, 0, {bytes.data(), length_of(what)}, [&](errc code) {
    answered = true;
    result = code;
  });
  CAF_REQUIRE(run.drive_until([&] { return answered; }));
  return result;
}

errc finish(store_run& run, std::uint64_t token, const part& one) {
  const auto bytes = bytes_of(one.what);
  const auto sums = sums_of(std::span(bytes).first(length_of(one.what)));
  bool answered = false;
  errc result = errc::cancelled;
  const auto done = [&](errc code) {
    answered = true;
    result = code;
  };
  if (one.part > 0)
    run.store->prepare(token, sums, done);
  else
    run.store->commit(token, sums, one.if_absent, one.deadline_ns,
                      [&](errc code, std::uint64_t) { done(code); });
  CAF_REQUIRE(run.drive_until([&] { return answered; }));
  return result;
}

errc put_part(store_run& run, const part& one) {
  std::uint64_t token = 0;
  if (const errc result = reserve(run, one, token); result != errc::ok)
    return result;
  if (const errc result = write_all(run, token, one.what); result != errc::ok)
    return result;
  return finish(run, token, one);
}

struct read_result {
  errc code = errc::cancelled;
  std::vector<std::byte> bytes;
};

read_result read_range(store_run& run, const engine::block_pin& pin, const std::string& key,
                       std::uint32_t offset, std::uint32_t length) {
  read_result result;
  std::vector<std::byte> into((length + 4095) / 4096 * 4096);
  bool answered = false;
  run.store->read(pin, "tenant", wire::as_bytes_view(key), offset, length, into,
                  [&](errc code, const engine::extent_view& view) {
                    answered = true;
                    result.code = code;
                    for (const auto& piece : view.pieces)
                      result.bytes.insert(result.bytes.end(), piece.begin(), piece.end());
                  });
  CAF_REQUIRE(run.drive_until([&] { return answered; }));
  return result;
}

std::uint64_t used(const store_run& run) {
  return run.store->counters().used_bytes;
}

struct opened : store_run {
  explicit opened(const run_options& given = {}) : store_run(given) { CAF_REQUIRE(open().ok()); }
};

} // namespace

CAF_TEST(a value of 1000000 bytes costs one mebibyte) {
  opened run(large_units());
  CAF_CHECK(run.put("a", content_of(1, 1'000'000)) == errc::ok);
  CAF_CHECK_EQUAL(used(run), 1 * mib);
}

CAF_TEST(values of 64 KiB cost 68 KiB each) {
  opened run(large_units());
  for (int i = 0; i < 32; ++i)
    CAF_CHECK(run.put("key-" + std::to_string(i), content_of(1 + static_cast<std::uint64_t>(i), 64 * kib)) ==
              errc::ok);
  CAF_CHECK_EQUAL(used(run), 32 * 68 * kib);
}

CAF_TEST(an empty value is a block) {
  opened run;
  CAF_CHECK(run.put("a", content_of(0, 0)) == errc::ok);
  CAF_CHECK(run.get("a") == content{0});
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  store_run again(run.options, run.device->now(), run.expected);
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK(again.get("a") == content{0});
  expect_all_space_back(again);
  CAF_CHECK_EQUAL(problem_of(again), "");
}

CAF_TEST(all space comes back however blocks were stored and removed) {
  for (const auto seed : seeds(6)) {
    run_options options;
    options.seed = seed;
    opened run(options);
    history_options history;
    history.steps = 150;
    live(run, history);
    expect_all_space_back(run);
    CAF_CHECK_EQUAL(problem_of(run), "");
  }
}

CAF_TEST(a put of a present key replaces it and the old one stays readable for who holds it) {
  opened run;
  run.put("a", content_of(1, 5000));
  {
    const auto old = run.store->index().find_and_pin(id_of("a"));
    run.put("a", content_of(2, 6000));
    CAF_CHECK(run.get("a") == content_of(2, 6000));
    // Others need space meanwhile.
    for (std::uint64_t i = 0; i < 400; ++i)
      run.put("other-" + std::to_string(i % 20), content_of(10 + i, 20000));
    const auto still = read_range(run, old, "a", 0, 5000);
    CAF_CHECK(still.code == errc::ok);
    auto meant = bytes_of(content_of(1, 5000));
    meant.resize(5000);
    CAF_CHECK(still.bytes == meant);
  }
  expect_all_space_back(run);
  CAF_CHECK_EQUAL(problem_of(run), "");
}

CAF_TEST(put if absent refuses a present key and one that is on its way) {
  opened run;
  CAF_CHECK(run.put("a", content_of(1, 5000), true) == errc::ok);
  CAF_CHECK(run.put("a", content_of(2, 5000), true) == errc::already_exists);
  CAF_CHECK(run.get("a") == content_of(1, 5000));
  run.erase("a");
  CAF_CHECK(run.put("a", content_of(3, 5000), true) == errc::ok);
  expect_all_space_back(run);
  CAF_CHECK_EQUAL(problem_of(run), "");
}

CAF_TEST(a put is not committed after its deadline) {
  opened run;
  part late{"a", content_of(1, 5000)};
  late.deadline_ns = 1;
  CAF_CHECK(put_part(run, late) == errc::deadline_exceeded);
  CAF_CHECK(!run.store->index().find_and_pin(id_of("a")));
  late.deadline_ns = run.time.steady_ns() + 3'600'000'000'000;
  CAF_CHECK(put_part(run, late) == errc::ok);
  CAF_CHECK_EQUAL(used(run), 8 * kib + 4 * kib);
}

CAF_TEST(space that is given back is free and its token is void) {
  opened run;
  std::uint64_t token = 0;
  CAF_CHECK(reserve(run, {"a", content_of(1, 5000)}, token) == errc::ok);
  CAF_CHECK(used(run) > 0);
  run.store->abandon(token);
  run.store->abandon(token);
  run.store->abandon(12345);
  CAF_CHECK_EQUAL(used(run), 0u);
  CAF_CHECK(finish(run, token, {"a", content_of(1, 5000)}) == errc::invalid_argument);
}

CAF_TEST(space that is given back while it is written to is not used before the device is done) {
  opened run;
  std::uint64_t token = 0;
  CAF_REQUIRE(reserve(run, {"a", content_of(1, 65536)}, token) == errc::ok);
  auto bytes = bytes_of(content_of(1, 65536));
  bool answered = false;
  run.store->write(token, 0, bytes, [&](errc) { answered = true; });
  run.store->abandon(token);
  CAF_CHECK(answered || used(run) > 0);
  CAF_CHECK(run.drive_until([&] { return answered; }));
  CAF_CHECK_EQUAL(used(run), 0u);
}

CAF_TEST(requests that make no sense are refused) {
  opened run;
  std::uint64_t token = 0;
  CAF_CHECK(reserve(run, {"a", content_of(1, 65537)}, token) == errc::too_large);
  part odd{"a", content_of(1, 100)};
  odd.parts = 0;
  CAF_CHECK(reserve(run, odd, token) == errc::invalid_argument);
  odd.parts = 1;
  odd.value_length = 99;
  CAF_CHECK(reserve(run, odd, token) == errc::invalid_argument);
  CAF_CHECK(reserve(run, {std::string(1025, 'k'), content_of(1, 100)}, token) == errc::invalid_argument);
  CAF_CHECK(run.erase("absent") == errc::not_found);
  // Too few checksums.
  CAF_REQUIRE(reserve(run, {"a", content_of(1, 100)}, token) == errc::ok);
  bool answered = false;
  run.store->commit(token, {}, false, 0, [&](errc code, std::uint64_t) {
    answered = true;
    CAF_CHECK(code == errc::invalid_argument);
  });
  CAF_CHECK(answered);
  CAF_CHECK_EQUAL(used(run), 0u);
}

CAF_TEST(a removal of one generation leaves a later one alone) {
  opened run;
  run.put("a", content_of(1, 100));
  const std::uint64_t first = run.store->index().find_and_pin(id_of("a"))->generation;
  run.put("a", content_of(2, 100));
  bool answered = false;
  errc result = errc::ok;
  run.store->erase(id_of("a"), first, [&](errc code) {
    answered = true;
    result = code;
  });
  CAF_CHECK(run.drive_until([&] { return answered; }));
  CAF_CHECK(result == errc::not_found);
  CAF_CHECK(run.get("a") == content_of(2, 100));
}

CAF_TEST(numbers given to puts that a crash may have lost are not given again) {
  opened run;
  run.put("a", content_of(1, 100));
  const std::uint64_t before = run.store->index().find_and_pin(id_of("a"))->generation;
  run.die(false);
  std::atomic<std::uint64_t> shared{0};
  run.store_options.generation = &shared;
  CAF_REQUIRE(run.open().ok());
  CAF_CHECK(shared.load() > before + engine::limits::reservations_max);
  run.put("a", content_of(2, 100));
  CAF_CHECK(run.store->index().find_and_pin(id_of("a"))->generation >
            before + engine::limits::reservations_max);
}

CAF_TEST(the right id under another key is not found) {
  opened run;
  run.put("a", content_of(1, 5000));
  const auto pin = run.store->index().find_and_pin(id_of("a"));
  CAF_CHECK(read_range(run, pin, "b", 0, 5000).code == errc::not_found);
  CAF_CHECK(run.get("a") == content_of(1, 5000));
}

CAF_TEST(a range is read and verified by itself) {
  opened run(large_units());
  const content what = content_of(1, 300'000);
  run.put("a", what);
  const auto whole = bytes_of(what);
  const auto pin = run.store->index().find_and_pin(id_of("a"));
  const auto middle = read_range(run, pin, "a", 128 * kib, 64 * kib);
  CAF_CHECK(middle.code == errc::ok);
  CAF_CHECK(std::ranges::equal(middle.bytes, std::span(whole).subspan(128 * kib, 64 * kib)));
  const auto rest = read_range(run, pin, "a", 256 * kib, 300'000 - 256 * kib);
  CAF_CHECK(rest.code == errc::ok);
  CAF_CHECK(read_range(run, pin, "a", 100, 64 * kib).code == errc::invalid_argument);
  CAF_CHECK(read_range(run, pin, "a", 0, 70'000).code == errc::invalid_argument);
  CAF_CHECK(read_range(run, pin, "a", 0, 400'000).code == errc::invalid_argument);
}

CAF_TEST(full with eviction off a put fails with its own status) {
  run_options options;
  options.eviction = false;
  opened run(options);
  errc result = errc::ok;
  std::uint64_t stored = 0;
  for (std::uint64_t i = 0; result == errc::ok && i < 1000; ++i, ++stored)
    result = run.put("key-" + std::to_string(i), content_of(i + 1, 60'000));
  CAF_CHECK(result == errc::no_space);
  CAF_CHECK_EQUAL(run.store->counters().evicted_blocks, 0u);
  // At least 95 of 100 bytes are useful where values fill their units.
  CAF_CHECK(used(run) * 100 >= run.store->counters().usable_bytes * 98);
  run.erase("key-0");
  CAF_CHECK(run.put("again", content_of(2000, 60'000)) == errc::ok);
  run.get_all();
  CAF_CHECK_EQUAL(problem_of(run), "");
}

CAF_TEST(an index that is full when the process dies has an entry for all that is found afterwards) {
  run_options options;
  options.eviction = false;
  options.unit_bytes = 64 * kib;
  std::uint64_t most = 0;
  for (int polls = 0; polls < 120; polls += 3) {
    opened run(options);
    const std::uint64_t entries = run.store->counters().usable_bytes / options.unit_bytes;
    // Empty ones take an entry and little space.
    for (std::uint64_t i = 0; i < entries + 40; ++i)
      run.start_put("key-" + std::to_string(i), content_of(0, 0));
    for (int i = 0; i < polls; ++i)
      run.store->poll(false);
    run.die(false);
    CAF_REQUIRE_EQUAL(problem_of(run), "");
    store_run again(run.options, run.device->now(), run.expected);
    CAF_REQUIRE(again.open().ok());
    CAF_CHECK_EQUAL(again.store->counters().dropped_at_recovery, 0u);
    CAF_CHECK_LESS_OR_EQUAL(again.store->counters().blocks, entries);
    most = std::max(most, again.store->counters().blocks);
    again.get_all();
    CAF_CHECK_EQUAL(problem_of(again), "");
  }
  CAF_CHECK_GREATER(most, 60u);
}

CAF_TEST(full with eviction no put fails and what is held stays) {
  for (const auto seed : seeds(3)) {
    run_options options;
    options.seed = seed;
    options.size_bytes = 5 * mib;
    opened run(options);
    sim::random chance(seed);
    CAF_REQUIRE(run.put("held", content_of(1, 30'000)) == errc::ok);
    auto held = run.store->index().find_and_pin(id_of("held"));
    for (std::uint64_t i = 0; i < 600; ++i) {
      const auto length = static_cast<std::uint32_t>(8 + chance.below(65'000));
      CAF_REQUIRE(run.put("key-" + std::to_string(chance.below(400)), content_of(i + 2, length)) == errc::ok);
      if (i % 7 == 0)
        (void)run.get("key-" + std::to_string(chance.below(400)));
    }
    CAF_CHECK(run.store->counters().evicted_blocks > 100);
    CAF_CHECK(read_range(run, held, "held", 0, 30'000).code == errc::ok);
    CAF_CHECK_EQUAL(problem_of(run), "");
    // What was evicted does not come back.
    held.release();
    run.die(false);
    store_run again(options, run.device->now(), run.expected);
    CAF_REQUIRE(again.open().ok());
    again.get_all();
    expect_all_space_back(again);
    CAF_CHECK_EQUAL(problem_of(again), "");
  }
}

CAF_TEST(space is made on demand in steps) {
  opened run;
  for (std::uint64_t i = 0; i < 60; ++i)
    run.put("key-" + std::to_string(i), content_of(i + 1, 60'000));
  const std::uint64_t before = used(run);
  run.store->evict(500'000);
  CAF_CHECK(run.drive_until([&] { return run.store->idle(); }));
  CAF_CHECK(used(run) + 500'000 <= before);
  CAF_CHECK(used(run) + 700'000 >= before);
}

CAF_TEST(a striped value appears with its head and leaves parts to be removed) {
  opened run;
  const std::uint64_t put_id = 77;
  part head{"a", content_of(1, 65536), 0, 3, put_id, 150'000};
  part first{"a", content_of(2, 65536), 1, 3, put_id, 150'000};
  part second{"a", content_of(3, 18928), 2, 3, put_id, 150'000};
  CAF_CHECK(put_part(run, first) == errc::ok);
  CAF_CHECK(put_part(run, second) == errc::ok);
  CAF_CHECK(!run.store->index().find_and_pin(id_of("a")));
  CAF_CHECK(put_part(run, head) == errc::ok);
  {
    const auto pin = run.store->index().find_and_pin(id_of("a"));
    CAF_REQUIRE(static_cast<bool>(pin));
    CAF_CHECK_EQUAL(pin->value_length, 150'000u);
    CAF_CHECK_EQUAL(pin->put_id, put_id);
    CAF_CHECK((pin->flags & engine::entry_striped) != 0);
    const auto piece = run.store->index().find_and_pin(id_of_part(second));
    CAF_REQUIRE(static_cast<bool>(piece));
    CAF_CHECK_EQUAL(piece->value_length, 18928u);
    CAF_CHECK(read_range(run, piece, "a", 0, 18928).code == errc::ok);
  }
  // A start tells of the parts, for the comparison with their heads.
  run.die(false);
  store_run again(run.options, run.device->now(), {});
  CAF_REQUIRE(again.open().ok());
  const auto parts = again.store->take_recovered_parts();
  CAF_REQUIRE_EQUAL(parts.size(), 2u);
  for (const auto& one : parts) {
    CAF_CHECK(one.head == id_of("a"));
    CAF_CHECK_EQUAL(one.put_id, put_id);
  }
  // Replaced by a small value: the parts go, and the caller hears of those on other drives.
  CAF_CHECK(put_part(again, {"a", content_of(9, 100)}) == errc::ok);
  CAF_CHECK(again.drive_until([&] { return again.store->idle(); }));
  const auto orphans = again.store->take_orphans();
  CAF_REQUIRE_EQUAL(orphans.size(), 1u);
  CAF_CHECK(orphans[0].id == id_of("a"));
  CAF_CHECK_EQUAL(orphans[0].put_id, put_id);
  CAF_CHECK_EQUAL(orphans[0].parts, 3u);
  CAF_CHECK_EQUAL(again.store->counters().blocks, 1u);
  CAF_CHECK_EQUAL(used(again), 8 * kib);
}

CAF_TEST(put if absent is not taken in by the removal of an older block of the key) {
  opened run;
  CAF_CHECK(run.put("a", content_of(1, 5000)) == errc::ok);
  const auto older = run.store->index().find_and_pin(id_of("a"))->generation;
  CAF_CHECK(run.put("a", content_of(2, 5000)) == errc::ok);
  const auto newer = run.store->index().find_and_pin(id_of("a"))->generation;
  const part third{.key = "a", .what = content_of(3, 5000), .if_absent = true};
  std::uint64_t token = 0;
  CAF_REQUIRE(reserve(run, third, token) == errc::ok);
  CAF_REQUIRE(write_all(run, token, third.what) == errc::ok);
  // Both are on their way to the journal when the put is looked at.
  run.store->erase(id_of("a"), older, [](errc) {});
  CAF_CHECK(finish(run, token, third) == errc::already_exists);
  CAF_CHECK(run.get("a") == content_of(2, 5000));
  CAF_REQUIRE(reserve(run, third, token) == errc::ok);
  CAF_REQUIRE(write_all(run, token, third.what) == errc::ok);
  run.store->erase(id_of("a"), newer, [](errc) {});
  CAF_CHECK(finish(run, token, third) == errc::ok);
  CAF_CHECK(run.store->index().find_and_pin(id_of("a"))->generation > newer);
}

CAF_TEST(a removal does not wait for the data of a put of another key and waits for one of its own) {
  std::size_t passed = 0;
  for (const auto seed : seeds(20)) {
    run_options options = large_units();
    options.seed = seed;
    options.delay_ticks_max = 200;
    opened run(options);
    CAF_CHECK(run.put("small", content_of(1, 5000)) == errc::ok);
    const part large{.key = "large", .what = content_of(2, 4 * mib - 4096)};
    std::uint64_t token = 0;
    CAF_REQUIRE(reserve(run, large, token) == errc::ok);
    auto bytes = bytes_of(large.what);
    std::vector<std::string> answers;
    run.store->write(token, 0, {bytes.data(), length_of(large.what)}, [](errc) {});
    const auto sums = sums_of(std::span(bytes).first(length_of(large.what)));
    run.store->commit(token, sums, false, 0, [&](errc code, std::uint64_t) {
      CAF_CHECK(code == errc::ok);
      answers.emplace_back("put");
    });
    run.store->erase(id_of("large"), 0, [&](errc code) {
      CAF_CHECK(code == errc::ok);
      answers.emplace_back("erase of large");
    });
    run.store->erase(id_of("small"), 0, [&](errc code) {
      CAF_CHECK(code == errc::ok);
      answers.emplace_back("erase of small");
    });
    CAF_REQUIRE(run.drive_until([&] { return answers.size() == 3; }));
    passed += answers.front() == "erase of small" ? 1 : 0;
    CAF_CHECK(std::ranges::find(answers, "put") < std::ranges::find(answers, "erase of large"));
    CAF_CHECK_EQUAL(run.store->counters().blocks, 0u);
    run.die(false);
    store_run again(run.options, run.device->now(), {});
    CAF_REQUIRE(again.open().ok());
    CAF_CHECK_EQUAL(again.store->counters().blocks, 0u);
  }
  CAF_CHECK(passed > 0);
}

CAF_TEST(part ids differ for parts and puts) {
  std::vector<engine::key_id> ids{id_of("a")};
  for (std::uint64_t put_id = 1; put_id < 20; ++put_id)
    for (std::uint32_t one = 1; one < 20; ++one)
      ids.push_back(engine::part_id(id_of("a"), put_id, one));
  std::ranges::sort(ids);
  CAF_CHECK(std::ranges::adjacent_find(ids) == ids.end());
}

CAF_TEST(closing while busy answers everybody and keeps what was answered) {
  for (const auto seed : seeds(5)) {
    run_options options;
    options.seed = seed;
    opened run(options);
    live(run);
    for (std::uint64_t i = 0; i < 40; ++i)
      run.start_put("busy-" + std::to_string(i % 8), content_of(5000 + i, 30'000));
    run.start_erase("key-1");
    CAF_CHECK(run.close().ok());
    CAF_CHECK_EQUAL(run.unanswered(), 0u);
    CAF_CHECK(run.put("late", content_of(1, 100)) == errc::offline);
    CAF_CHECK(run.close().ok());
    run.die(false);
    store_run again(options, run.device->now(), run.expected);
    const auto opened_again = again.open();
    CAF_CHECK(opened_again.ok());
    CAF_CHECK_EQUAL(opened_again.text, "");
    CAF_CHECK_EQUAL(again.store->counters().replayed_records, 0u);
    CAF_CHECK_EQUAL(again.store->counters().bad_bitmap_pages, 0u);
    again.get_all();
    expect_all_space_back(again);
    CAF_CHECK_EQUAL(problem_of(again), "");
  }
}

CAF_TEST(the device is never asked for two things on the same bytes at once) {
  run_options options;
  options.size_bytes = 5 * mib;
  opened run(options);
  for (std::uint64_t i = 0; i < 500; ++i) {
    for (std::uint64_t j = 0; j < 4; ++j)
      run.start_put("key-" + std::to_string((i * 7 + j) % 50), content_of(i * 4 + j + 1, 40'000));
    run.poll_all();
  }
  CAF_CHECK_EQUAL(run.device->overlaps(), 0u);
  CAF_CHECK_EQUAL(run.device->changed_buffers(), 0u);
  CAF_CHECK(run.store->counters().checkpoints > 3);
  run.get_all();
}

CAF_TEST(many small blocks make a tree of several levels and it is all there after a start) {
  run_options options;
  options.size_bytes = 400 * mib;
  options.sync = engine::sync_policy::never;
  options.delay_ticks_max = 0;
  opened run(options);
  constexpr std::uint64_t blocks = 30'000;
  for (std::uint64_t i = 0; i < blocks;) {
    for (int j = 0; j < 100; ++j, ++i)
      run.start_put("key-" + std::to_string(i), content_of(0, 0));
    run.poll_all();
  }
  for (std::uint64_t i = 0; i < blocks; i += 3)
    run.start_erase("key-" + std::to_string(i));
  run.poll_all();
  const std::uint64_t left = run.store->counters().blocks;
  CAF_CHECK_EQUAL(left, blocks - blocks / 3);
  CAF_REQUIRE(run.close().ok());
  run.die(false);
  store_run again(options, run.device->now(), {});
  CAF_REQUIRE(again.open().ok());
  CAF_CHECK_EQUAL(again.store->counters().blocks, left);
  for (std::uint64_t i = 0; i < blocks; i += 101)
    CAF_CHECK_EQUAL(static_cast<bool>(again.store->index().find_and_pin(id_of("key-" + std::to_string(i)))),
                    i % 3 != 0);
}

CAF_TEST(memory is filled in place and read where it lies) {
  run_options options = large_units();
  test_clock time;
  std::unique_ptr<engine::block_device> device;
  std::unique_ptr<engine::drive_store> store;
  engine::store_options settings;
  settings.extent_bytes_max = options.extent_bytes_max;
  engine::drive_description description;
  description.memory = true;
  description.size_bytes = options.size_bytes;
  CAF_REQUIRE(engine::open_drive(description, settings, time, {}, device, store).ok());
  // All of it is for blocks.
  CAF_CHECK_EQUAL(store->counters().usable_bytes, options.size_bytes);
  const content what = content_of(1, 200'000);
  const auto bytes = bytes_of(what);
  engine::put_description put;
  const std::string key = "a";
  put.id = id_of(key);
  put.name_space = "tenant";
  put.key = wire::as_bytes_view(key);
  put.length = length_of(what);
  put.value_length = length_of(what);
  bool done = false;
  store->allocate(put, [&](errc code, const engine::reservation& space) {
    CAF_REQUIRE(code == errc::ok);
    std::size_t at = 0;
    for (const auto& piece : space.place) {
      std::memcpy(piece.data(), bytes.data() + at, piece.size());
      at += piece.size();
    }
    CAF_CHECK_EQUAL(at, 200'000u);
    store->commit(space.token, sums_of(std::span(bytes).first(200'000)), false, 0,
                  [&](errc result, std::uint64_t) {
                    CAF_CHECK(result == errc::ok);
                    done = true;
                  });
  });
  // Nothing to wait for.
  CAF_CHECK(done);
  const auto pin = store->index().find_and_pin(id_of(key));
  engine::extent_view view;
  CAF_REQUIRE(store->view(pin, "tenant", wire::as_bytes_view(key), view) == errc::ok);
  std::vector<std::byte> got;
  for (const auto& piece : view.pieces)
    got.insert(got.end(), piece.begin(), piece.end());
  CAF_CHECK(std::ranges::equal(got, std::span(bytes).first(200'000)));
  CAF_CHECK_EQUAL(view.chunk_crc32c.size(), 16u);
  CAF_CHECK(store->view(pin, "tenant", wire::as_bytes_view("b"), view) == errc::not_found);
  // A byte that changes in memory is found by who verifies.
  device->writable_mapping()[70'000] ^= std::byte{1};
  errc result = errc::ok;
  store->read(pin, "tenant", wire::as_bytes_view(key), 64 * kib, 64 * kib, {},
              [&](errc code, const auto&) { result = code; });
  CAF_CHECK(result == errc::corrupt);
  CAF_CHECK(!store->index().find_and_pin(id_of(key)));
  CAF_CHECK_EQUAL(store->counters().corrupt_blocks, 1u);
}

CAF_TEST(of a file what is in memory is read at once and what is damaged is left to the drive) {
  std::string folder = (std::filesystem::temp_directory_path() / "memkv-test-XXXXXX").string();
  CAF_REQUIRE(::mkdtemp(folder.data()) != nullptr);
  const std::string path = folder + "/drive";
  {
    test_clock time;
    std::unique_ptr<engine::block_device> device;
    std::unique_ptr<engine::drive_store> store;
    engine::store_options settings;
    settings.extent_bytes_max = mib;
    engine::drive_description description;
    description.path = path;
    description.size_bytes = 64 * mib;
    CAF_REQUIRE(engine::open_drive(description, settings, time, {}, device, store).ok());
    const auto until = [&](const auto& condition) {
      for (int turn = 0; turn < 1000 && !condition(); ++turn)
        store->poll(false);
      CAF_REQUIRE(condition());
    };
    const content what = content_of(1, 300'000);
    auto bytes = bytes_of(what);
    engine::put_description put;
    const std::string key = "a";
    put.id = id_of(key);
    put.name_space = "tenant";
    put.key = wire::as_bytes_view(key);
    put.length = put.value_length = length_of(what);
    bool done = false;
    store->allocate(put, [&](errc code, const engine::reservation& space) {
      CAF_REQUIRE(code == errc::ok);
      store->write(space.token, 0, {bytes.data(), length_of(what)}, [&, token = space.token](errc written) {
        CAF_REQUIRE(written == errc::ok);
        store->commit(token, sums_of(std::span(bytes).first(length_of(what))), false, 0,
                      [&](errc result, std::uint64_t) { done = result == errc::ok; });
      });
    });
    until([&] { return done; });

    const auto pin = store->index().find_and_pin(id_of(key));
    engine::extent_view view;
    const std::uint32_t low = 64 * kib, length = 128 * kib;
    CAF_REQUIRE(store->read_resident(pin, "tenant", wire::as_bytes_view(key), low, length, view));
    std::vector<std::byte> got;
    for (const auto& piece : view.pieces)
      got.insert(got.end(), piece.begin(), piece.end());
    CAF_CHECK(std::ranges::equal(got, std::span(bytes).subspan(low, length)));
    CAF_CHECK_EQUAL(view.chunk_crc32c.size(), 20u);
    // Another key, a range that is none, a byte that is wrong: nothing is given, and nothing is decided.
    CAF_CHECK(!store->read_resident(pin, "tenant", wire::as_bytes_view("b"), low, length, view));
    CAF_CHECK(!store->read_resident(pin, "tenant", wire::as_bytes_view(key), low + 1, length, view));
    const auto at = static_cast<std::size_t>(view.pieces.front().data() - device->mapping().data());
    const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    CAF_REQUIRE(file >= 0);
    const auto wrong = bytes[low + 5000] ^ std::byte{1};
    CAF_REQUIRE(::pwrite(file, &wrong, 1, static_cast<off_t>(at + 5000)) == 1);
    ::close(file);
    CAF_CHECK(!store->read_resident(pin, "tenant", wire::as_bytes_view(key), low, length, view));
    CAF_CHECK_EQUAL(store->counters().corrupt_blocks, 0u);
    errc result = errc::ok;
    store->read(pin, "tenant", wire::as_bytes_view(key), low, length, {},
                [&](errc code, const auto&) { result = code; });
    CAF_CHECK(result == errc::corrupt);
    CAF_CHECK_EQUAL(store->counters().corrupt_blocks, 1u);
    CAF_CHECK(!store->index().find_and_pin(id_of(key)));
  }
  CAF_CHECK_EQUAL(::unlink(path.c_str()), 0);
  CAF_CHECK_EQUAL(::rmdir(folder.c_str()), 0);
}

CAF_TEST(a block that is dropped while pinned gives its space back when the pin goes) {
  run_options options;
  opened run(options);
  bool woken = false;
  run.die(false);
  run.store_options.wake = [&] { woken = true; };
  CAF_REQUIRE(run.open().ok());
  run.put("a", content_of(1, 5000));
  auto pin = run.store->index().find_and_pin(id_of("a"));
  run.erase("a");
  CAF_CHECK(used(run) > 0);
  CAF_CHECK(!woken);
  pin.release();
  CAF_CHECK(woken);
  run.store->reclaim();
  CAF_CHECK_EQUAL(used(run), 0u);
}
