// Which drives memkv setup takes, what it does with them, and the configuration it prints.
#define CAF_SUITE setup_plan
#include "cli/setup_plan.hpp"

#include "cli/config.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::cli;
namespace engine = memkv::engine;

namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t gib = 1024 * mib;
constexpr std::string_view any_key = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321";

// A whole disk nobody uses, with nothing on it.
setup_drive blank(unsigned number) {
  setup_drive drive;
  drive.path = "/dev/d" + std::to_string(number);
  drive.where.kind = path_kind::block_device;
  drive.where.number = {259, number};
  drive.facts.number = drive.where.number;
  drive.facts.size_bytes = gib;
  return drive;
}

setup_drive foreign(unsigned number) {
  auto drive = blank(number);
  drive.content.kind = engine::content_kind::foreign;
  drive.content.signature = "an XFS file system";
  return drive;
}

setup_drive ours(unsigned number, std::uint32_t index, std::uint32_t count, unsigned char set = 0xA1) {
  auto drive = blank(number);
  drive.content.kind = engine::content_kind::memkv;
  drive.content.super.set.set_id.fill(std::byte{set});
  drive.content.super.set.drive_index = index;
  drive.content.super.set.drive_count = count;
  drive.content.super.places.unit_bytes = 64 << 10;
  drive.content.super.places.extent_bytes_max = 4 << 20;
  return drive;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string refusal(const std::vector<setup_drive>& drives, bool idempotent) {
  const auto decision = decide_setup(drives, false, idempotent);
  return decision.action == setup_action::refuse ? decision.problem : "accepted";
}

setup_action decided(const std::vector<setup_drive>& drives, bool force, bool idempotent) {
  return decide_setup(drives, force, idempotent).action;
}

std::string devices(const std::vector<setup_drive>& drives, bool force = false) {
  return check_devices(drives, force);
}

} // namespace

CAF_TEST(block devices that nobody uses are taken) {
  CAF_CHECK_EQUAL(devices({blank(0), blank(1), blank(2)}), "");
}

CAF_TEST(what is missing or no block device is refused by name) {
  auto drive = blank(1);
  drive.where = {path_kind::missing, {}, 0, "/dev/d1 does not exist: name a drive that does"};
  CAF_CHECK_EQUAL(devices({blank(0), drive}, true), "/dev/d1 does not exist: name a drive that does");
  drive.where = {path_kind::regular_file, {}, 4096, ""};
  CAF_CHECK(contains(devices({blank(0), drive}, true), "/dev/d1 is not a block device"));
  drive.where = {path_kind::other, {}, 0, ""};
  CAF_CHECK(contains(devices({blank(0), drive}, true), "/dev/d1 is not a block device"));
  drive = blank(1);
  drive.no_facts = "the kernel has no block device 259:1";
  CAF_CHECK(contains(devices({blank(0), drive}, true), "/dev/d1: the kernel has no"));
}

CAF_TEST(a drive named twice is refused whatever it is called) {
  auto link = blank(0);
  link.path = "/dev/disk/by-id/first";
  CAF_CHECK_EQUAL(devices({blank(0), blank(1), link}, true),
                  "/dev/disk/by-id/first is the same drive as /dev/d0: name each drive once");
}

CAF_TEST(two paths to one drive are refused and two partitions of one disk are not) {
  auto one = blank(0);
  auto two = blank(1);
  one.facts.wwid = two.facts.wwid = "eui.0025";
  CAF_CHECK_EQUAL(devices({one, two}, true),
                  "/dev/d1 and /dev/d0 are two ways to the same drive (eui.0025): name one of them");
  one.facts.disk = two.facts.disk = device_number{259, 9};
  CAF_CHECK_EQUAL(devices({one, two}), "");
}

CAF_TEST(two loop devices on the same bytes of a file are refused and two places of one file are not) {
  auto one = blank(0);
  auto two = blank(1);
  one.facts.backing = backing_place{5, 17, 0, 4096};
  two.facts.backing = backing_place{5, 17, 4095, 8192};
  CAF_CHECK_EQUAL(devices({one, two}, true),
                  "/dev/d1 and /dev/d0 are loop devices on the same bytes of one file: name one of them");
  two.facts.backing->begin = 4096;
  CAF_CHECK_EQUAL(devices({one, two}), "");
  two.facts.backing = backing_place{5, 18, 0, 4096};
  CAF_CHECK_EQUAL(devices({one, two}), "");
  two.facts.backing = backing_place{6, 17, 0, 4096};
  CAF_CHECK_EQUAL(devices({one, two}), "");
  // Of partitions it is known where the whole device lies.
  two.facts.backing = one.facts.backing;
  one.facts.disk = two.facts.disk = device_number{259, 9};
  CAF_CHECK_EQUAL(devices({one, two}), "");
}

CAF_TEST(a partition is refused beside its disk and taken alone) {
  auto part = blank(1);
  part.facts.is_partition = true;
  part.facts.disk = device_number{259, 0};
  CAF_CHECK_EQUAL(devices({part}), "");
  CAF_CHECK_EQUAL(devices({part, blank(0)}, true), "/dev/d1 is a partition of /dev/d0: name one of the two");
}

CAF_TEST(what is in use is refused even with force) {
  for (const bool force : {false, true}) {
    auto drive = blank(1);
    drive.facts.mounts = {"/data"};
    CAF_CHECK(contains(devices({blank(0), drive}, force), "/dev/d1 is mounted on /data"));
    drive = blank(1);
    drive.facts.swaps = {"/dev/d1"};
    CAF_CHECK(contains(devices({blank(0), drive}, force), "/dev/d1 is swapped to"));
    drive = blank(1);
    drive.facts.holders = {"dm-0"};
    CAF_CHECK(contains(devices({blank(0), drive}, force), "/dev/d1 is part of dm-0"));
    drive = blank(1);
    drive.facts.read_only = true;
    CAF_CHECK(contains(devices({blank(0), drive}, force), "/dev/d1 is read-only"));
    drive = blank(1);
    drive.facts.zoned = true;
    CAF_CHECK(contains(devices({blank(0), drive}, force), "/dev/d1 is a zoned device"));
  }
}

CAF_TEST(a partitioned drive is refused unless forced) {
  auto drive = blank(1);
  drive.facts.partitions = {"d1p1", "d1p2"};
  CAF_CHECK(contains(devices({blank(0), drive}), "/dev/d1 has partitions (d1p1, d1p2)"));
  CAF_CHECK_EQUAL(devices({blank(0), drive}, true), "");
}

CAF_TEST(a set has a limit) {
  std::vector<setup_drive> drives;
  for (unsigned i = 0; i <= engine::drives_max; ++i)
    drives.push_back(blank(i));
  CAF_CHECK_EQUAL(devices(drives), "a set has at most 256 drives: name fewer");
  drives.pop_back();
  CAF_CHECK_EQUAL(devices(drives), "");
}

CAF_TEST(blank drives are formatted whatever the flags) {
  for (const bool force : {false, true})
    for (const bool idempotent : {false, true})
      CAF_CHECK(decided({blank(0), blank(1)}, force, idempotent) == setup_action::format);
}

CAF_TEST(without flags the first drive that holds anything is named) {
  CAF_CHECK(contains(refusal({blank(0), ours(1, 0, 1), foreign(2)}, false),
                     "/dev/d1 holds memkv data (drive 0 of 1 of set a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1)"));
  CAF_CHECK(
      contains(refusal({blank(0), foreign(1), ours(2, 0, 1)}, false), "/dev/d1 holds an XFS file system"));
  auto drive = ours(0, 0, 1);
  drive.content.kind = engine::content_kind::memkv_damaged;
  CAF_CHECK(contains(refusal({drive}, false), "/dev/d0 holds memkv data whose superblocks"));
  drive.content.kind = engine::content_kind::memkv_newer;
  CAF_CHECK(contains(refusal({drive}, false), "/dev/d0 holds memkv data of a later release"));
}

CAF_TEST(force formats whatever lies there) {
  CAF_CHECK(decided({blank(0), foreign(1), ours(2, 0, 1)}, true, false) == setup_action::format);
  CAF_CHECK(decided({ours(0, 0, 2), ours(1, 1, 2)}, true, false) == setup_action::format);
}

CAF_TEST(idempotent keeps one set in its order even when forced) {
  const std::vector<setup_drive> set{ours(0, 0, 2), ours(1, 1, 2)};
  CAF_CHECK(decided(set, false, true) == setup_action::keep);
  CAF_CHECK(decided(set, true, true) == setup_action::keep);
}

CAF_TEST(idempotent refuses a mixed state and force then formats) {
  const std::vector<setup_drive> mixed{ours(0, 0, 2), blank(1)};
  CAF_CHECK(contains(refusal(mixed, true), "/dev/d0 holds memkv data"));
  CAF_CHECK(contains(refusal(mixed, true), "but /dev/d1 is blank"));
  CAF_CHECK(contains(refusal({blank(0), ours(1, 1, 2)}, true), "/dev/d1 holds memkv data"));
  CAF_CHECK(decided(mixed, true, true) == setup_action::format);
  CAF_CHECK(contains(refusal({ours(0, 0, 2), foreign(1)}, true), "/dev/d1 holds an XFS file system"));
  CAF_CHECK(contains(refusal({blank(0), foreign(1)}, true), "/dev/d1 holds an XFS file system"));
}

CAF_TEST(idempotent refuses drives that are no set in this order) {
  CAF_CHECK(contains(refusal({ours(0, 1, 2), ours(1, 0, 2)}, true), "/dev/d0 is drive 1 of 2"));
  CAF_CHECK(contains(refusal({ours(0, 0, 3), ours(1, 1, 3)}, true), "but is named as drive 0 of 2"));
  CAF_CHECK(
      contains(refusal({ours(0, 0, 2), ours(1, 1, 2, 0xB2)}, true),
               "/dev/d1 is drive 1 of 2 of set b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2, and /dev/d0 is of set a1"));
  auto other = ours(1, 1, 2);
  other.content.super.places.unit_bytes = 4096;
  CAF_CHECK(contains(refusal({ours(0, 0, 2), other}, true), "/dev/d1 was formatted with other sizes"));
  other = ours(1, 1, 2);
  other.content.fits = engine::errc::wrong_size;
  CAF_CHECK(contains(refusal({ours(0, 0, 2), other}, true), "/dev/d1 was formatted for a device of another"));
  other = ours(1, 1, 2);
  other.content.kind = engine::content_kind::memkv_damaged;
  CAF_CHECK(contains(refusal({ours(0, 0, 2), other}, true), "/dev/d1 holds memkv data whose"));
  CAF_CHECK(decided({ours(0, 1, 2), ours(1, 0, 2)}, true, true) == setup_action::format);
}

CAF_TEST(the shard size is the unit and from 1024 on the block size too) {
  setup_sizes sizes;
  CAF_REQUIRE_EQUAL(choose_sizes(64, sizes), "");
  CAF_CHECK_EQUAL(sizes.shard_bytes, 64U << 10);
  CAF_CHECK_EQUAL(sizes.block_bytes, 4U << 20);
  CAF_REQUIRE_EQUAL(choose_sizes(512, sizes), "");
  CAF_CHECK_EQUAL(sizes.shard_bytes, 512U << 10);
  CAF_CHECK_EQUAL(sizes.block_bytes, 4U << 20);
  for (const std::uint32_t kb : {1024U, 2048U, 32768U}) {
    CAF_REQUIRE_EQUAL(choose_sizes(kb, sizes), "");
    CAF_CHECK_EQUAL(sizes.shard_bytes, kb << 10);
    CAF_CHECK_EQUAL(sizes.block_bytes, kb << 10);
  }
  for (const std::uint64_t kb : {std::uint64_t{0}, std::uint64_t{2}, std::uint64_t{100}, std::uint64_t{1500},
                                 std::uint64_t{65536}, std::uint64_t{1} << 60})
    CAF_CHECK_EQUAL(choose_sizes(kb, sizes),
                    "--shard-size must be a power of two from 4 to 32768 (KB), not " + std::to_string(kb));
}

CAF_TEST(the pool is half of the memory and at least one gibibyte) {
  CAF_CHECK_EQUAL(choose_pool_bytes(24 * gib), 12 * gib);
  CAF_CHECK_EQUAL(choose_pool_bytes(24 * gib + 3 * mib), 12 * gib);
  CAF_CHECK_EQUAL(choose_pool_bytes(2 * gib), gib);
  CAF_CHECK_EQUAL(choose_pool_bytes(2 * gib - 1), gib);
  CAF_CHECK_EQUAL(choose_pool_bytes(0), gib);
}

CAF_TEST(the configuration is what the reader of configurations reads) {
  setup_config config;
  config.media = {"/dev/nvme0n1", "/dev/disk/by-id/nvme-a b:c#d", "/dev/qu\"ote\\"};
  config.rdma_device = "mlx5_0";
  config.pool_bytes = 12346 * mib;
  CAF_REQUIRE_EQUAL(choose_sizes(2048, config.sizes), "");
  CAF_CHECK_EQUAL(check_setup_yaml(config), "");
  const auto yaml = setup_yaml(config);
  auto without = config;
  without.rdma_absent = true;
  CAF_CHECK_EQUAL(check_setup_yaml(without), "");
  CAF_CHECK(contains(setup_yaml(without), "take these lines out.\nrdma:\n  device: mlx5_0\n"));
  CAF_CHECK(!contains(yaml, "take these lines out"));
  CAF_CHECK(contains(yaml, "MEMKV_AUTH_KEY"));
  CAF_CHECK(contains(yaml, "\n  mode: direct\n"));
  const auto read = parse_config(yaml, {std::string(any_key)});
  if (!read.ok())
    CAF_FAIL(describe("yaml", read.problem));
  CAF_CHECK(read.config.storage.mode == storage_mode::direct);
  CAF_CHECK_EQUAL(read.config.memory.max_bytes, 12346 * mib);
  CAF_CHECK_EQUAL(read.config.storage.block_bytes, 2U << 20);
  CAF_CHECK_EQUAL(read.config.storage.shard_bytes, 2U << 20);
  CAF_CHECK_EQUAL(read.config.rdma.device, "mlx5_0");
  CAF_REQUIRE_EQUAL(read.config.storage.drives.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    CAF_CHECK_EQUAL(read.config.storage.drives[i].media, config.media[i]);
    CAF_CHECK_EQUAL(read.config.storage.drives[i].max_size_bytes, 0U);
  }
}

CAF_TEST(names that YAML would take for something else stay names) {
  for (const auto* name :
       {"null", "true", "1.5", "~", "a: b", "- x", "x #y", "mlx5_bond_0", "&a", "*a", ""}) {
    setup_config config;
    config.media = {"/dev/nvme0n1"};
    config.rdma_device = name;
    config.pool_bytes = gib;
    CAF_REQUIRE_EQUAL(choose_sizes(64, config.sizes), "");
    CAF_CHECK_EQUAL(check_setup_yaml(config), "");
    CAF_CHECK_EQUAL(contains(setup_yaml(config), "\nrdma:\n"), !config.rdma_device.empty());
  }
  setup_config config;
  config.media = {"/dev/nvme0n1"};
  config.rdma_device = "two\nlines";
  config.pool_bytes = gib;
  CAF_REQUIRE_EQUAL(choose_sizes(64, config.sizes), "");
  CAF_CHECK(contains(check_setup_yaml(config), "cannot be written into a configuration"));
}
