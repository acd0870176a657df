// Every image that is kept is read in full by this version.
#define CAF_SUITE format_images

#include "test/crash/check_run.hpp"
#include "test/images/format_image.hpp"
#include "wire/bytes.hpp"

#include <caf/test/unit_test.hpp>

#include <filesystem>

using namespace memkv;
using engine::errc;

namespace {

std::vector<std::string> kept_images() {
  std::vector<std::string> paths;
  for (const auto& file : std::filesystem::directory_iterator(MEMKV_SOURCE_DIR "/test/images"))
    if (file.path().extension() == ".image")
      paths.push_back(file.path().string());
  return paths;
}

sim::image loaded(const std::string& path) {
  sim::image drive;
  CAF_REQUIRE_EQUAL(images::load(path, drive), "");
  CAF_REQUIRE_EQUAL(drive.size(), images::drive_bytes);
  return drive;
}

/// Opens it, reads all of it, closes it, and gives back what is then on the drive.
sim::image look_at(const sim::image& start) {
  sim::world world(1);
  sim::sim_options about;
  about.size_bytes = start.size();
  sim::sim_device device(world, about, start);
  crash::test_clock time;
  std::unique_ptr<engine::drive_store> store;
  const auto opened = engine::drive_store::open(device, images::options(), time, store);
  CAF_REQUIRE_EQUAL(opened.text, "");
  const auto read = [&](const engine::key_id& id, const std::string& key, std::uint32_t length,
                        std::uint8_t seed) {
    const auto pin = store->index().find_and_pin(id);
    CAF_REQUIRE(static_cast<bool>(pin));
    std::vector<std::byte> into((length + 4095) / 4096 * 4096);
    std::vector<std::byte> got;
    bool answered = false;
    store->read(pin, "tenant", wire::as_bytes_view(key), 0, length, into,
                [&](errc result, const engine::extent_view& view) {
                  CAF_CHECK(result == errc::ok);
                  for (const auto& piece : view.pieces)
                    got.insert(got.end(), piece.begin(), piece.end());
                  answered = true;
                });
    while (!answered)
      store->poll(true);
    auto wanted = images::bytes_of(length, seed);
    wanted.resize(length);
    CAF_CHECK(got == wanted);
  };
  for (const auto& value : images::values())
    read(crash::id_of(value.key), value.key, value.length, value.seed);
  const auto& part = images::part();
  const auto part_id = engine::part_id(crash::id_of(part.key), part.put_id, part.part);
  read(part_id, part.key, part.length, part.seed);
  const auto parts = store->take_recovered_parts();
  CAF_REQUIRE_EQUAL(parts.size(), 1u);
  CAF_CHECK(parts.front().id == part_id && parts.front().head == crash::id_of(part.key));
  for (const std::string& key : images::removed())
    CAF_CHECK(!store->index().find_and_pin(crash::id_of(key)));
  {
    const auto pieces = store->index().find_and_pin(crash::id_of("pieces"));
    CAF_CHECK((pieces->flags & engine::entry_fragmented) != 0);
  }
  CAF_CHECK(store->close().ok());
  store.reset();
  return device.now();
}

} // namespace

CAF_TEST(there is an image of every version of the superblock since the second) {
  std::vector<bool> there(engine::superblock_version + 1U, false);
  for (const std::string& path : kept_images()) {
    const auto found = crash::check(loaded(path));
    CAF_REQUIRE(found.report.facts.version < there.size());
    there[found.report.facts.version] = true;
  }
  for (unsigned version = 2; version <= engine::superblock_version; ++version)
    CAF_CHECK(there[version]);
}

CAF_TEST(every image that is kept is in order by the check and gives every block back) {
  for (const std::string& path : kept_images()) {
    CAF_MESSAGE(path);
    CAF_CHECK(std::filesystem::file_size(path) < 50 * 1024);
    const sim::image drive = loaded(path);
    const auto found = crash::check(drive);
    CAF_CHECK(found.is_clean());
    CAF_CHECK_EQUAL(found.count(engine::finding_kind::head_missing), 1u);
    CAF_CHECK_EQUAL(found.report.findings.size(), 1u);
    CAF_CHECK(found.report.counts.journal_batches > 3);
    CAF_CHECK(found.report.counts.tree_entries > 20);
    CAF_CHECK_EQUAL(found.report.counts.parts, 1u);
    CAF_CHECK_EQUAL(found.report.counts.blocks_verified, found.report.counts.blocks);
    CAF_CHECK(crash::check(look_at(drive)).is_clean());
  }
}

CAF_TEST(every image that is kept can be repaired and reads the same afterwards) {
  for (const std::string& path : kept_images()) {
    const auto mended = crash::repair(loaded(path));
    CAF_REQUIRE(mended.result.ok());
    CAF_CHECK_EQUAL(mended.done.blocks_dropped, 0u);
    CAF_CHECK(mended.done.journal_reset);
    CAF_CHECK(crash::check(mended.after).is_clean());
    (void)look_at(mended.after);
  }
}
