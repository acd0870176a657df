// Makes the image of today's formats: make_image PATH. Run once for each version of a format and kept; an
// image that is in the tree is never made again.
#include "engine/superblock.hpp"
#include "test/crash/store_run.hpp"
#include "test/images/format_image.hpp"
#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <cstdio>
#include <memory>

using namespace memkv;

namespace {

struct drive {
  drive() : device(world, options()) { open(); }
  static sim::sim_options options() {
    sim::sim_options result;
    result.size_bytes = images::drive_bytes;
    return result;
  }

  void open() {
    const auto opened = engine::drive_store::open(device, images::options(), time, store);
    MEMKV_ASSERT(opened.ok(), "a new drive opens");
  }
  void finish(const bool& answered) {
    while (!answered)
      store->poll(true);
  }

  void put(const engine::put_description& what, std::uint8_t seed) {
    auto value = images::bytes_of(what.length, seed);
    const auto sums = crash::sums_of(std::span(value).first(what.length));
    bool answered = false;
    const auto done = [&](engine::errc result) {
      MEMKV_ASSERT(result == engine::errc::ok, "the image has room for all of it");
      answered = true;
    };
    store->allocate(what, [&](engine::errc result, const engine::reservation& space) {
      MEMKV_ASSERT(result == engine::errc::ok, "the image has room for all of it");
      store->write(space.token, 0, {value.data(), what.length}, [&, token = space.token](engine::errc) {
        if (what.part == 0)
          store->commit(token, sums, false, 0, [&](engine::errc ended, std::uint64_t) { done(ended); });
        else
          store->prepare(token, sums, done);
      });
    });
    finish(answered);
  }
  void put(const std::string& key, std::uint32_t length, std::uint8_t seed) {
    engine::put_description what;
    what.id = crash::id_of(key);
    what.name_space = "tenant";
    what.key = wire::as_bytes_view(key);
    what.length = length;
    what.value_length = length;
    put(what, seed);
  }
  void erase(const std::string& key) {
    bool answered = false;
    store->erase(crash::id_of(key), 0, [&](engine::errc) { answered = true; });
    finish(answered);
  }

  sim::world world{1};
  crash::test_clock time;
  sim::sim_device device;
  std::unique_ptr<engine::drive_store> store;
};

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_image PATH\n", stderr);
    return 1;
  }
  drive one;
  const auto put_value = [&](std::size_t i) {
    const auto& value = images::values()[i];
    one.put(value.key, value.length, value.seed);
  };
  for (std::size_t i = 0; i < 4; ++i)
    put_value(i);
  one.put("overwritten", 900, 99);
  const auto& part = images::part();
  engine::put_description what;
  what.id = engine::part_id(crash::id_of(part.key), part.put_id, part.part);
  what.name_space = "tenant";
  what.key = wire::as_bytes_view(part.key);
  what.length = part.length;
  what.value_length = part.value_length;
  what.part = part.part;
  what.parts = part.parts;
  what.put_id = part.put_id;
  one.put(what, part.seed);
  // One-unit blocks until nothing is free; then room in two places.
  for (int filler = 0;; ++filler) {
    const auto counters = one.store->counters();
    if (counters.used_bytes == counters.usable_bytes)
      break;
    one.put("filler-" + std::to_string(filler), 1, 200);
  }
  one.erase(images::removed()[0]);
  one.erase(images::removed()[1]);
  put_value(4); // in pieces
  const auto closed = one.store->close();
  MEMKV_ASSERT(closed.ok(), "a good drive closes");
  one.store.reset();
  one.open();
  one.erase(images::removed()[2]);
  for (int filler = 3; filler < 6; ++filler)
    one.erase("filler-" + std::to_string(filler));
  for (std::size_t i = 5; i < images::values().size(); ++i)
    put_value(i);
  // Not closed: the last changes are in the journal only.
  one.store.reset();
  if (const std::string wrong = images::save(one.device.now(), argv[1]); !wrong.empty()) {
    std::fprintf(stderr, "%s\n", wrong.c_str());
    return 1;
  }
  return 0;
}
