// What is recognised on a drive, how a drive is made empty, and what its metadata says.
#define CAF_SUITE engine::drive_content
#include "engine/drive_content.hpp"

#include "cli/drive_progress.hpp"
#include "cli/drive_snapshot.hpp"
#include "cli/drive_text.hpp"
#include "engine/drive_format.hpp"
#include "engine/drive_io.hpp"
#include "engine/journal_batch.hpp"
#include "engine/memory_device.hpp"
#include "wire/crc32c.hpp"

#include <caf/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <cstring>
#include <fstream>
#include <sstream>

using namespace memkv::cli;
namespace engine = memkv::engine;
using engine::errc;
using engine::page_bytes;

namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t drive_bytes = 64 * mib;

const engine::format_progress quietly = [](std::string_view, std::uint64_t, std::uint64_t) { return true; };

// Memory that is asked to be a drive: persistent metadata is written to it like to any other.
struct drive {
  std::unique_ptr<engine::block_device> device;

  explicit drive(std::uint64_t size = drive_bytes) {
    if (!engine::open_memory_device(size, "memory", device).ok())
      CAF_FAIL("no memory");
  }
  [[nodiscard]] std::span<std::byte> bytes() const { return device->writable_mapping(); }
  void text(std::uint64_t offset, std::string_view what) const {
    std::memcpy(bytes().data() + offset, what.data(), what.size());
  }
  template <class T>
  void number(std::uint64_t offset, T what) const {
    memkv::wire::store_le(bytes().data() + offset, what);
  }
  void fill(std::byte value) const {
    std::memset(bytes().data(), std::to_integer<int>(value), bytes().size());
  }
  void flip(std::uint64_t offset) const { bytes()[offset] ^= std::byte{1}; }
  [[nodiscard]] engine::drive_content look() const {
    engine::drive_content content;
    const auto looked = engine::look_at_content(*device, content);
    if (!looked.ok())
      CAF_FAIL(looked.text);
    return content;
  }
  [[nodiscard]] engine::superblock super() const {
    const auto content = look();
    CAF_REQUIRE(content.kind == engine::content_kind::memkv);
    return content.super;
  }
};

// What was discarded, kept apart from the device.
struct recording_discarder final : engine::discarder {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  bool able = true;
  bool gives_up = false; // finds out that it is not able when it tries
  errc answer = errc::ok;
  errc discard(std::uint64_t offset, std::uint64_t length) override {
    ranges.emplace_back(offset, length);
    able = able && !gives_up;
    return answer;
  }
  bool supported() const noexcept override { return able; }
};

engine::new_drive member(std::uint32_t index = 1, std::uint32_t count = 3) {
  engine::new_drive wanted;
  wanted.identity.set_id.fill(std::byte{0xA5});
  wanted.identity.drive_index = index;
  wanted.identity.drive_count = count;
  wanted.unit_bytes = 64 << 10;
  wanted.extent_bytes_max = 1 << 20;
  return wanted;
}

void format(const drive& on, const engine::new_drive& wanted = member(),
            engine::discarder* discarder = nullptr) {
  const auto done = engine::format_new(*on.device, discarder, wanted, quietly);
  if (!done.ok())
    CAF_FAIL(done.text);
}

engine::store_options options_for(const engine::superblock& super) {
  engine::store_options options;
  options.identity = super.set;
  options.unit_bytes = super.places.unit_bytes;
  options.extent_bytes_max = super.places.extent_bytes_max;
  options.sync = engine::sync_policy::always;
  options.boot_id = super.boot_id;
  return options;
}

constexpr std::string_view key = "a key";

engine::key_id id_of_key() {
  engine::key_id id;
  id.bytes.fill(std::byte{0x3C});
  return id;
}

/// Opens the store; fails when that fails.
std::unique_ptr<engine::drive_store> open_store(const drive& on, engine::clock& time) {
  std::unique_ptr<engine::drive_store> store;
  const auto opened = engine::drive_store::open(*on.device, options_for(on.super()), time, store);
  if (!opened.ok())
    CAF_FAIL(opened.text);
  return store;
}

/// Stores one block and leaves: in order, or as a killed process does.
void store_block(const drive& on, bool in_order) {
  engine::system_clock time;
  auto store = open_store(on, time);
  engine::put_description what;
  what.id = id_of_key();
  what.key = std::as_bytes(std::span(key));
  what.length = 5000;
  what.value_length = 5000;
  engine::aligned_bytes data(8192);
  std::memset(data.data(), 7, 5000);
  const std::uint32_t sum = memkv::wire::crc32c(data.span().first(5000));
  bool done = false;
  store->allocate(what, [&](errc allocated, engine::reservation place) {
    CAF_REQUIRE(allocated == errc::ok);
    store->write(place.token, 0, data.span().first(5000), [&, place](errc written) {
      CAF_REQUIRE(written == errc::ok);
      store->commit(place.token, std::span(&sum, 1), false, 0, [&](errc committed, std::uint64_t) {
        CAF_REQUIRE(committed == errc::ok);
        done = true;
      });
    });
  });
  while (!done)
    store->poll(true);
  if (in_order)
    CAF_REQUIRE(store->close().ok());
}

bool has_block(const drive& on) {
  engine::system_clock time;
  return open_store(on, time)->counters().blocks > 0;
}

std::string signature_of(const drive& on) {
  const auto content = on.look();
  return content.kind == engine::content_kind::foreign ? content.signature : "";
}

} // namespace

CAF_TEST(a drive of zeros or of ones is blank) {
  const drive zeros;
  CAF_CHECK(zeros.look().kind == engine::content_kind::blank);
  const drive ones;
  ones.fill(std::byte{0xFF});
  CAF_CHECK(ones.look().kind == engine::content_kind::blank);
  // Between the two ends nothing says whose a drive is.
  zeros.text(drive_bytes / 2, "something");
  CAF_CHECK(zeros.look().kind == engine::content_kind::blank);
}

CAF_TEST(known file systems and tables and volumes are named) {
  const auto marked = [](std::uint64_t offset, std::string_view what) {
    const drive on;
    on.text(offset, what);
    return signature_of(on);
  };
  CAF_CHECK_EQUAL(marked(512, "EFI PART"), "a GPT partition table");
  CAF_CHECK_EQUAL(marked(4096, "EFI PART"), "a GPT partition table");
  CAF_CHECK_EQUAL(marked(drive_bytes - 512, "EFI PART"), "a GPT partition table");
  CAF_CHECK_EQUAL(marked(drive_bytes - 4096, "EFI PART"), "a GPT partition table");
  CAF_CHECK_EQUAL(marked(510, "\x55\xAA"), "an MBR partition table or a boot sector");
  CAF_CHECK_EQUAL(marked(1024 + 56, "\x53\xEF"), "an ext2, ext3 or ext4 file system");
  CAF_CHECK_EQUAL(marked(1024, std::string_view("\x10\x20\xF5\xF2", 4)), "an F2FS file system");
  CAF_CHECK_EQUAL(marked(0, "XFSB"), "an XFS file system");
  CAF_CHECK_EQUAL(marked(0x10040, "_BHRfS_M"), "a btrfs file system");
  CAF_CHECK_EQUAL(marked(512, "LABELONE"), "an LVM physical volume");
  CAF_CHECK_EQUAL(marked(4086, "SWAPSPACE2"), "a swap area");
  CAF_CHECK_EQUAL(marked(0, "LUKS\xBA\xBE"), "a LUKS volume");
  CAF_CHECK_EQUAL(marked(32769, "CD001"), "an ISO 9660 file system");
  CAF_CHECK_EQUAL(marked(140 << 10, std::string_view("\x0C\xB1\xBA\x00\x00\x00\x00\x00", 8)), "a ZFS volume");
  for (const std::uint64_t offset :
       {std::uint64_t{0}, std::uint64_t{4096}, drive_bytes - 8192, drive_bytes - (64 << 10)}) {
    const drive on;
    on.number<std::uint32_t>(offset, 0xA92B4EFC);
    CAF_CHECK_EQUAL(signature_of(on), "a member of a software RAID");
  }
  CAF_CHECK_EQUAL(marked(100, "what nobody knows"), "data that is not memkv's");
  CAF_CHECK_EQUAL(marked(drive_bytes - 20, "at the end"), "data that is not memkv's");
}

CAF_TEST(the newer whole superblock counts and each copy has a state) {
  const drive on;
  format(on);
  auto content = on.look();
  CAF_REQUIRE(content.kind == engine::content_kind::memkv);
  CAF_CHECK(content.copies[0] == errc::ok && content.copies[1] == errc::ok);
  CAF_CHECK(content.fits == errc::ok);
  on.flip(100);
  content = on.look();
  CAF_CHECK(content.kind == engine::content_kind::memkv);
  CAF_CHECK(content.copies[0] == errc::corrupt);
  CAF_CHECK_EQUAL(content.super.set.drive_index, 1U);
  on.flip(drive_bytes - page_bytes + 100);
  CAF_CHECK(on.look().kind == engine::content_kind::memkv_damaged);
  // What helps beside others of its set, and what helps where there are none.
  const auto why = engine::why_not_ours(on.look());
  CAF_CHECK(why.find("memkv admin drives reset") != std::string::npos);
  CAF_CHECK(why.find("memkv setup --force") != std::string::npos);
  on.flip(100);
  CAF_CHECK(on.look().copies[1] == errc::corrupt);
}

CAF_TEST(a superblock of a later release is told from damage) {
  const drive on;
  format(on);
  on.bytes()[engine::version_offset] = std::byte{engine::superblock_version + 1};
  engine::seal(on.bytes().first(page_bytes));
  CAF_CHECK(on.look().kind == engine::content_kind::memkv_newer);
  CAF_CHECK(engine::why_not_ours(on.look()).find("upgrade memkv") != std::string::npos);
}

CAF_TEST(a set takes a drive with its place and without its past) {
  const drive on;
  format(on);
  store_block(on, true);
  auto old = on.super();
  CAF_CHECK(has_block(on));
  recording_discarder discarder;
  auto wanted = member(0, 2);
  wanted.identity.set_id.fill(std::byte{0x77});
  wanted.failures.failure_count = 4;
  wanted.failures.blacklisted = true;
  format(on, wanted, &discarder);
  const auto super = on.super();
  CAF_CHECK(super.set.set_id == wanted.identity.set_id);
  CAF_CHECK_EQUAL(super.set.drive_index, 0U);
  CAF_CHECK_EQUAL(super.set.drive_count, 2U);
  CAF_CHECK_EQUAL(super.set_epoch, 0U);
  CAF_CHECK(super.clean && !super.untrimmed);
  CAF_CHECK(super.format_id != old.format_id);
  CAF_CHECK(super.failures == wanted.failures);
  // Everything that a format does not write is discarded, and nothing that it does.
  CAF_REQUIRE_EQUAL(discarder.ranges.size(), 1U);
  CAF_CHECK_EQUAL(discarder.ranges[0].first, super.places.tree_offset);
  CAF_CHECK_EQUAL(discarder.ranges[0].first + discarder.ranges[0].second, super.places.mirror_offset());
  // A blacklisted drive is not opened at all, so it is looked at as one that is not.
  wanted.failures.blacklisted = false;
  format(on, wanted);
  CAF_CHECK(!has_block(on));
}

CAF_TEST(a drive without discard is told to be trimmed later) {
  for (const bool able : {false, true}) {
    const drive on;
    recording_discarder discarder;
    discarder.able = able;
    discarder.answer = errc::io_error;
    const auto done = engine::format_new(*on.device, &discarder, member(), quietly);
    CAF_CHECK(done.ok());
    CAF_CHECK_EQUAL(done.text.empty(), !able);
    CAF_CHECK(on.super().untrimmed);
  }
}

CAF_TEST(a device that cannot discard after all is told to be trimmed later) {
  const drive on;
  recording_discarder discarder;
  discarder.gives_up = true;
  const auto done = engine::format_new(*on.device, &discarder, member(), quietly);
  CAF_CHECK(done.ok() && done.text.empty());
  CAF_CHECK_EQUAL(discarder.ranges.size(), 1U);
  CAF_CHECK(on.super().untrimmed);
}

CAF_TEST(a reset drive keeps its place and its epoch and loses its blocks and failures) {
  const drive on;
  format(on);
  store_block(on, true);
  CAF_CHECK(has_block(on));
  {
    // As a server that lost another drive and then failed on this one leaves it.
    auto super = on.super();
    super.set_epoch = 41;
    super.members = {};
    engine::add_member(super.members, 1);
    super.failures = {"SERIAL", 9, 1'000, 2'000, true};
    super.sequence += 1;
    for (const std::uint8_t copy : {0, 1}) {
      super.copy = copy;
      encode(super, std::span<std::byte, page_bytes>(on.bytes().data() +
                                                         (copy == 0 ? 0 : super.places.mirror_offset()),
                                                     std::size_t{page_bytes}));
    }
  }
  const auto before = on.super();
  recording_discarder discarder;
  CAF_REQUIRE(engine::format_again(*on.device, &discarder, before, false, quietly).ok());
  const auto after = on.super();
  CAF_CHECK(after.set.set_id == before.set.set_id && after.drive_id == before.drive_id);
  CAF_CHECK_EQUAL(after.set.drive_index, 1U);
  CAF_CHECK_EQUAL(after.set.drive_count, 3U);
  CAF_CHECK_EQUAL(after.set_epoch, 41U);
  CAF_CHECK(after.members == before.members);
  CAF_CHECK(after.format_id != before.format_id);
  CAF_CHECK_EQUAL(after.failures.failure_count, 0U);
  CAF_CHECK(!after.failures.blacklisted);
  CAF_CHECK_EQUAL(after.failures.device_id, "SERIAL");
  CAF_CHECK(after.clean && !after.untrimmed);
  CAF_CHECK_EQUAL(discarder.ranges.size(), 1U);
  CAF_CHECK(!has_block(on));
}

CAF_TEST(a reset mends what only the mirror still knows) {
  const drive on;
  format(on);
  on.flip(200);
  CAF_REQUIRE(engine::format_again(*on.device, nullptr, on.super(), false, quietly).ok());
  const auto content = on.look();
  CAF_CHECK(content.copies[0] == errc::ok && content.copies[1] == errc::ok);
  CAF_CHECK_EQUAL(content.super.set.drive_index, 1U);
}

CAF_TEST(a secure reset leaves no byte of a block) {
  for (const bool secure : {false, true}) {
    const drive on;
    format(on);
    store_block(on, true);
    const auto super = on.super();
    recording_discarder discarder; // of a device whose discard does nothing
    CAF_REQUIRE(engine::format_again(*on.device, &discarder, super, secure, quietly).ok());
    const auto from =
        on.bytes().subspan(super.places.tree_offset, super.places.mirror_offset() - super.places.tree_offset);
    CAF_CHECK_EQUAL(memkv::wire::all_zero(from), secure);
    CAF_CHECK_EQUAL(on.super().untrimmed, secure);
    CAF_CHECK(!has_block(on));
  }
}

CAF_TEST(a secure reset that was cut short is told until the drive was opened) {
  const drive on;
  format(on);
  store_block(on, true);
  CAF_CHECK(!on.super().format_cut_short());
  const auto stops = [](std::string_view, std::uint64_t done, std::uint64_t) { return done == 0; };
  const auto cut = engine::format_again(*on.device, nullptr, on.super(), true, stops);
  CAF_CHECK(!cut.ok());
  CAF_CHECK(on.super().format_cut_short());
  drive_snapshot snapshot;
  CAF_CHECK_EQUAL(read_snapshot(*on.device, {}, snapshot), "");
  CAF_CHECK_EQUAL(shutdown_state(snapshot.facts), "unclean");
  CAF_CHECK(snapshot_text(snapshot).find("a reset was cut short") != std::string::npos);
  CAF_REQUIRE(engine::format_again(*on.device, nullptr, on.super(), true, quietly).ok());
  CAF_CHECK(!on.super().format_cut_short());
}

CAF_TEST(units as large as the largest extent hold blocks) {
  for (const std::uint32_t bytes : {std::uint32_t{1} << 20, std::uint32_t{32} << 20}) {
    const drive on(512 * mib);
    auto wanted = member();
    wanted.unit_bytes = bytes;
    wanted.extent_bytes_max = bytes;
    format(on, wanted);
    store_block(on, true);
    CAF_CHECK(has_block(on));
  }
}

CAF_TEST(a snapshot counts what is stored and what the journal still has) {
  const drive on;
  format(on);
  const auto snapshot_of = [&on](const engine::identity& boot) {
    drive_snapshot snapshot;
    snapshot.path = "/dev/nvme7n1";
    snapshot.model = "FAST";
    snapshot.serial = "S1";
    const auto problem = read_snapshot(*on.device, boot, snapshot);
    if (!problem.empty())
      CAF_FAIL(problem);
    return snapshot;
  };
  const auto boot = on.super().boot_id;
  auto snapshot = snapshot_of(boot);
  CAF_CHECK_EQUAL(shutdown_state(snapshot.facts), "clean");
  CAF_CHECK_EQUAL(snapshot.used_bytes(), 0U);
  CAF_CHECK_EQUAL(snapshot.usable_bytes(), std::uint64_t{on.super().places.units} * (64 << 10));
  store_block(on, false);
  snapshot = snapshot_of(boot);
  CAF_CHECK_EQUAL(shutdown_state(snapshot.facts), "unclean");
  CAF_CHECK_EQUAL(snapshot.facts.pending_batches, 1U);
  CAF_CHECK_EQUAL(snapshot.facts.pending_records, 1U);
  CAF_CHECK(snapshot_text(snapshot).find("1 batch with 1 record to be replayed") != std::string::npos);
  {
    engine::system_clock time;
    CAF_REQUIRE(open_store(on, time)->close().ok());
  }
  snapshot = snapshot_of(boot);
  CAF_CHECK_EQUAL(shutdown_state(snapshot.facts), "clean");
  CAF_CHECK_EQUAL(snapshot.facts.super.blocks, 1U);
  CAF_CHECK_EQUAL(snapshot.used_bytes(), 64U << 10);
  CAF_CHECK_EQUAL(snapshot.facts.pending_batches, 0U);
  on.flip(on.super().places.bitmap_offset + 100);
  CAF_CHECK_EQUAL(snapshot_of(boot).facts.bitmap_pages_damaged, 1U);
}

CAF_TEST(a snapshot of what is no drive of ours says why) {
  const drive on;
  drive_snapshot snapshot;
  CAF_CHECK(read_snapshot(*on.device, {}, snapshot).starts_with("is blank and was never memkv's"));
  on.text(0, "XFSB");
  CAF_CHECK(read_snapshot(*on.device, {}, snapshot).starts_with("holds an XFS file system"));
  const drive larger(drive_bytes + mib);
  const drive smaller;
  format(smaller);
  std::memcpy(larger.bytes().data(), smaller.bytes().data(), drive_bytes);
  CAF_CHECK(read_snapshot(*larger.device, {}, snapshot).find("give it its size back") != std::string::npos);
}

CAF_TEST(the failure registry is told in full) {
  const drive on;
  auto wanted = member();
  wanted.failures = {"SERIAL", 3, 1'738'800'000'000'000'000U, 1'738'810'000'000'000'000U, true};
  format(on, wanted);
  drive_snapshot snapshot;
  snapshot.path = "/dev/nvme7n1";
  CAF_REQUIRE_EQUAL(read_snapshot(*on.device, {}, snapshot), "");
  const auto text = snapshot_text(snapshot);
  CAF_CHECK(text.find("3, first 2025-02-06 00:00:00 UTC, last 2025-02-06 02:46:40 UTC; blacklisted until "
                      "memkv drive reset /dev/nvme7n1") != std::string::npos);
  const auto json = nlohmann::json::parse(snapshot_json(snapshot));
  CAF_CHECK_EQUAL(json["failures"]["device_id"], 1);
  CAF_CHECK_EQUAL(json["failures"]["failure_count"], 3);
  CAF_CHECK_EQUAL(json["failures"]["first_failed_at"], 1738800000);
  CAF_CHECK_EQUAL(json["failures"]["last_failed_at"], 1738810000);
  CAF_CHECK_EQUAL(json["failures"]["blacklisted"], true);
}

CAF_TEST(sizes and times are written for people) {
  CAF_CHECK_EQUAL(about_size(0), "0 B");
  CAF_CHECK_EQUAL(about_size(1023), "1023 B");
  CAF_CHECK_EQUAL(about_size(64 << 10), "64.0 KiB");
  CAF_CHECK_EQUAL(about_size(8'001'563'222'016U), "7.28 TiB");
  CAF_CHECK_EQUAL(counted(1, "batch", "batches"), "1 batch");
  CAF_CHECK_EQUAL(counted(0, "batch", "batches"), "0 batches");
  CAF_CHECK_EQUAL(utc_text(0), "never");
  CAF_CHECK_EQUAL(utc_text(1'738'800'000'000'000'000U), "2025-02-06 00:00:00 UTC");
  engine::identity id{};
  id[0] = std::byte{0x0F};
  id[15] = std::byte{0xA0};
  CAF_CHECK_EQUAL(hex_text(id), "0f0000000000000000000000000000a0");
}

CAF_TEST(progress has a share and a rate and the time left) {
  CAF_CHECK_EQUAL(progress_text("reading", 25 * mib, 100 * mib, 0.5),
                  "reading [#####...............] 25.0 of 100.0 MiB  25 %  50.0 MiB/s  2 s left");
  CAF_CHECK_EQUAL(progress_text("reading", 10 * 1024 * mib, 100 * 1024 * mib, 10),
                  "reading [##..................] 10.0 of 100.0 GiB  10 %  1024.0 MiB/s  1 min 30 s left");
  CAF_CHECK(progress_text("r", 7, 7, 1).starts_with("r [####################] "));
  CAF_CHECK_EQUAL(progress_text("reading", 0, 100 * mib, 0),
                  "reading [....................] 0.0 of 100.0 MiB  0 %  0.0 MiB/s");
  CAF_CHECK(progress_text("r", 1 * mib, 7200 * mib, 1).ends_with("1 h 59 min left"));
}
