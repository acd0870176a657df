// What is read from sysfs and /proc about a block device.
#define CAF_SUITE device_facts
#include "cli/device_facts.hpp"

#include <caf/test/unit_test.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace memkv::cli;

namespace {

namespace fs = std::filesystem;

using names = std::vector<std::string>;

// A root directory with devices as the kernel shows them.
struct fake_root {
  std::string path =
      (fs::temp_directory_path() / ("memkv_device_facts." + std::to_string(::getpid()))).string();

  fake_root() {
    fs::remove_all(path);
    put("/proc/self/mountinfo", "");
    put("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
  }
  ~fake_root() { fs::remove_all(path); }

  void put(const std::string& name, const std::string& text) const {
    const fs::path file = path + name;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void device(const std::string& place, const std::string& number) const {
    put("/sys/devices/" + place + "/dev", number + "\n");
    fs::create_directories(path + "/sys/devices/" + place + "/holders");
    fs::create_directories(path + "/sys/dev/block");
    fs::create_directories(path + "/sys/class/block");
    fs::create_directory_symlink("../../devices/" + place, path + "/sys/dev/block/" + number);
    const auto name = fs::path(place).filename().string();
    fs::create_directory_symlink("../../devices/" + place, path + "/sys/class/block/" + name);
  }
  // One NVMe drive.
  void nvme() const {
    device("nvme/nvme0n1", "259:0");
    put("/sys/devices/nvme/nvme0n1/device/model", "FAST DRIVE 9000                \n");
    put("/sys/devices/nvme/nvme0n1/device/serial", "S4CR17  \n");
    put("/sys/devices/nvme/nvme0n1/wwid", "eui.00253859\n");
    put("/sys/devices/nvme/nvme0n1/size", "15628053168\n");
    put("/sys/devices/nvme/nvme0n1/ro", "0\n");
    put("/sys/devices/nvme/nvme0n1/queue/logical_block_size", "512\n");
    put("/sys/devices/nvme/nvme0n1/queue/physical_block_size", "4096\n");
    put("/sys/devices/nvme/nvme0n1/queue/optimal_io_size", "131072\n");
    put("/sys/devices/nvme/nvme0n1/queue/max_sectors_kb", "1280\n");
    put("/sys/devices/nvme/nvme0n1/queue/discard_max_bytes", "2199023255040\n");
    put("/sys/devices/nvme/nvme0n1/queue/write_cache", "write back\n");
    put("/sys/devices/nvme/nvme0n1/queue/zoned", "none\n");
  }
  void partition() const {
    device("nvme/nvme0n1/nvme0n1p1", "259:1");
    put("/sys/devices/nvme/nvme0n1/nvme0n1p1/partition", "1\n");
    put("/sys/devices/nvme/nvme0n1/nvme0n1p1/size", "2048\n");
  }
  [[nodiscard]] device_facts read(device_number number) const {
    device_facts facts;
    std::string problem;
    if (!read_device_facts(path, number, facts, problem))
      CAF_FAIL(problem);
    return facts;
  }
};

constexpr device_number disk{259, 0};
constexpr device_number part{259, 1};

} // namespace

CAF_TEST(a whole disk tells its hardware and how it wants its requests) {
  const fake_root root;
  root.nvme();
  const auto facts = root.read(disk);
  CAF_CHECK_EQUAL(facts.name, "nvme0n1");
  CAF_CHECK_EQUAL(facts.model, "FAST DRIVE 9000");
  CAF_CHECK_EQUAL(facts.serial, "S4CR17");
  CAF_CHECK_EQUAL(facts.wwid, "eui.00253859");
  CAF_CHECK_EQUAL(facts.size_bytes, 15628053168U * 512);
  CAF_CHECK_EQUAL(facts.logical_block_bytes, 512U);
  CAF_CHECK_EQUAL(facts.physical_block_bytes, 4096U);
  CAF_CHECK_EQUAL(facts.optimal_io_bytes, 131072U);
  CAF_CHECK_EQUAL(facts.max_sectors_kb, 1280U);
  CAF_CHECK(facts.discards);
  CAF_CHECK_EQUAL(facts.write_cache, "write back");
  CAF_CHECK(!facts.read_only && !facts.zoned && !facts.is_partition && !facts.disk);
  CAF_CHECK(facts.partitions.empty() && facts.holders.empty() && facts.mounts.empty() && facts.swaps.empty());
  CAF_CHECK_EQUAL(facts.in_use(), "");
}

CAF_TEST(a device that says nothing has empty facts) {
  const fake_root root;
  root.device("virtual/loop0", "7:0");
  auto facts = root.read({7, 0});
  CAF_CHECK_EQUAL(facts.model, "");
  CAF_CHECK_EQUAL(facts.optimal_io_bytes, 0U);
  CAF_CHECK(!facts.discards);
  root.put("/sys/devices/virtual/loop0/loop/backing_file", "/images/a b\n");
  root.put("/sys/devices/virtual/loop0/serial", "virtual-1\n");
  facts = root.read({7, 0});
  CAF_CHECK_EQUAL(facts.model, "loop device on /images/a b");
  CAF_CHECK_EQUAL(facts.serial, "virtual-1");
}

CAF_TEST(a device that sysfs does not have is refused) {
  const fake_root root;
  device_facts facts;
  std::string problem;
  CAF_CHECK(!read_device_facts(root.path, {8, 3}, facts, problem));
  CAF_CHECK(problem.find("8:3") != std::string::npos);
}

CAF_TEST(a vendor stands before the model unless it is a number) {
  const fake_root root;
  root.device("scsi/sda", "8:0");
  root.put("/sys/devices/scsi/sda/device/vendor", "ATA     \n");
  root.put("/sys/devices/scsi/sda/device/model", "DISK\n");
  CAF_CHECK_EQUAL(root.read({8, 0}).model, "ATA DISK");
  root.put("/sys/devices/scsi/sda/device/vendor", "0x1af4\n");
  CAF_CHECK_EQUAL(root.read({8, 0}).model, "DISK");
}

CAF_TEST(a partition has the hardware of its disk and the size of its own) {
  const fake_root root;
  root.nvme();
  root.partition();
  const auto facts = root.read(part);
  CAF_CHECK(facts.is_partition);
  CAF_CHECK(facts.disk == disk);
  CAF_CHECK_EQUAL(facts.model, "FAST DRIVE 9000");
  CAF_CHECK_EQUAL(facts.size_bytes, 2048U * 512);
  CAF_CHECK_EQUAL(facts.max_sectors_kb, 1280U);
  CAF_CHECK(root.read(disk).partitions == names{"nvme0n1p1"});
}

CAF_TEST(a mount of the disk or of a partition on it is a use of the disk) {
  const fake_root root;
  root.nvme();
  root.partition();
  root.put("/proc/self/mountinfo", "36 25 259:1 / /data\\040one rw,relatime shared:1 - ext4 /dev/x rw\n");
  CAF_CHECK(root.read(disk).mounts == names{"/data one"});
  CAF_CHECK(root.read(part).mounts == names{"/data one"});
  CAF_CHECK_EQUAL(root.read(disk).in_use(), "is mounted on /data one: unmount it first");
  root.put("/proc/self/mountinfo", "36 25 259:0 / /whole rw - xfs /dev/nvme0n1 rw\n");
  CAF_CHECK(root.read(disk).mounts == names{"/whole"});
  CAF_CHECK(root.read(part).mounts.empty());
}

CAF_TEST(a mount that has a number of its own is found by its source) {
  const fake_root root;
  root.nvme();
  root.put("/proc/self/mountinfo", "40 25 0:45 /sub /pool rw,relatime - btrfs /dev/nvme0n1 rw\n"
                                   "41 25 0:46 / /proc2 rw - proc proc rw\n"
                                   "42 25 0:47\n");
  CAF_CHECK(root.read(disk).mounts == names{"/pool"});
}

CAF_TEST(a swap area is found by its name and another one is not) {
  const fake_root root;
  root.nvme();
  root.partition();
  root.put("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p1 partition 1024 0 -2\n");
  CAF_CHECK(root.read(disk).swaps == names{"/dev/nvme0n1p1"});
  CAF_CHECK_EQUAL(root.read(part).in_use(), "is swapped to (/dev/nvme0n1p1): run swapoff first");
  root.put("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1024 0 -2\n");
  CAF_CHECK(root.read(disk).swaps.empty());
}

CAF_TEST(a holder of the disk or of a partition on it is a use of the disk) {
  const fake_root root;
  root.nvme();
  root.partition();
  root.put("/sys/devices/nvme/nvme0n1/nvme0n1p1/holders/dm-3", "");
  CAF_CHECK(root.read(disk).holders == names{"dm-3"});
  CAF_CHECK_EQUAL(root.read(part).in_use(), "is part of dm-3: take it out of that first");
  root.put("/sys/devices/nvme/nvme0n1/holders/md0", "");
  CAF_CHECK(root.read(disk).holders == (names{"md0", "dm-3"}));
  CAF_CHECK(root.read(part).holders == names{"dm-3"});
}

CAF_TEST(devices that cannot be written at any place are known) {
  const fake_root root;
  root.nvme();
  root.put("/sys/devices/nvme/nvme0n1/ro", "1\n");
  root.put("/sys/devices/nvme/nvme0n1/queue/zoned", "host-managed\n");
  CAF_CHECK(root.read(disk).read_only);
  CAF_CHECK(root.read(disk).zoned);
}

CAF_TEST(a file that a loop device lies on is known by every name it has) {
  const fake_root here;
  const auto file = here.path + "/image", link = here.path + "/link", other = here.path + "/other";
  here.put("/image", "bytes");
  here.put("/other", "bytes");
  fs::create_symlink(file, link);
  fs::create_hard_link(file, here.path + "/hard");
  CAF_CHECK_EQUAL(loop_device_on(here.path, file), "");
  here.device("virtual/loop0", "7:0"); // not attached: it has no file
  here.device("virtual/loop7", "7:7");
  here.put("/sys/devices/virtual/loop7/loop/backing_file", file + "\n");
  for (const auto& name : {file, link, here.path + "/hard"})
    CAF_CHECK_EQUAL(loop_device_on(here.path, name), "/dev/loop7");
  CAF_CHECK_EQUAL(loop_device_on(here.path, other), "");
  CAF_CHECK_EQUAL(loop_device_on(here.path, here.path + "/none"), "");
  here.put("/sys/devices/virtual/loop7/loop/backing_file", file + " (deleted)\n");
  CAF_CHECK_EQUAL(loop_device_on(here.path, file), "");
}

CAF_TEST(other loop devices on the same bytes of a file are known) {
  const fake_root here;
  here.put("/image", "bytes");
  fs::create_hard_link(here.path + "/image", here.path + "/hard");
  here.put("/other", "bytes");
  const auto loop = [&](int number, const std::string& file, const char* offset, const char* sectors) {
    const auto place = "/sys/devices/virtual/loop" + std::to_string(number);
    here.device("virtual/loop" + std::to_string(number), "7:" + std::to_string(number));
    here.put(place + "/size", sectors);
    here.put(place + "/loop/backing_file", here.path + file + "\n");
    here.put(place + "/loop/offset", offset);
  };
  loop(1, "/image", "0\n", "16\n");
  CAF_CHECK(here.read({7, 1}).twins.empty());
  loop(2, "/hard", "4096\n", "16\n");
  loop(3, "/image", "8192\n", "16\n");
  loop(4, "/other", "0\n", "16\n");
  CAF_CHECK(here.read({7, 1}).twins == names{"/dev/loop2"});
  CAF_CHECK(here.read({7, 2}).twins == (names{"/dev/loop1", "/dev/loop3"}));
  CAF_CHECK(here.read({7, 4}).twins.empty());
  const auto third = here.read({7, 3});
  CAF_REQUIRE(third.backing.has_value());
  CAF_CHECK_EQUAL(third.backing->begin, 8192u);
  CAF_CHECK_EQUAL(third.backing->end, 16384u);
  here.nvme();
  CAF_CHECK(!here.read({259, 0}).backing);
}

CAF_TEST(a path is looked at through links) {
  const fake_root root;
  root.put("/image", "1234567");
  fs::create_symlink("image", root.path + "/link");
  CAF_CHECK(look_at_path(root.path + "/link").kind == path_kind::regular_file);
  CAF_CHECK_EQUAL(look_at_path(root.path + "/link").size_bytes, 7U);
  CAF_CHECK(look_at_path(root.path).kind == path_kind::other);
  CAF_CHECK(look_at_path("/dev/null").kind == path_kind::other);
  const auto missing = look_at_path(root.path + "/none");
  CAF_CHECK(missing.kind == path_kind::missing);
  CAF_CHECK_EQUAL(missing.problem, root.path + "/none does not exist: name a drive that does");
}
