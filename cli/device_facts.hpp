// What the kernel says of a block device: which hardware it is, how it wants its I/O, and who uses it.
//
// Everything comes from sysfs and /proc below a root that tests may set. The device itself is not opened.
//
// Threading: functions without state; each call reads anew. Ownership: values. Errors: a sentence; a fact
// that the kernel does not give is empty or 0.
// Limits: a mount or a swap area of another mount namespace is not seen; opening the device exclusively is
// what the kernel then refuses. Does not: read or write the device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

struct device_number {
  unsigned major = 0, minor = 0;
  friend bool operator==(const device_number&, const device_number&) noexcept = default;
};

/// "259:0".
[[nodiscard]] std::string to_text(device_number number);

/// Where a loop device keeps its bytes.
struct backing_place {
  std::uint64_t device = 0, inode = 0; // of the file
  std::uint64_t begin = 0, end = 0;    // in the file

  /// Whether they have bytes in common.
  [[nodiscard]] bool overlaps(const backing_place& other) const noexcept {
    return device == other.device && inode == other.inode && begin < other.end && other.begin < end;
  }
};

struct device_facts {
  device_number number;
  std::string name;   // the kernel's: nvme0n1, nvme0n1p1, loop0
  std::string model;  // of the whole disk
  std::string serial; // of the whole disk
  std::string wwid;   // of the whole disk: the same on every path that leads to it
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 0, physical_block_bytes = 0;
  std::uint64_t optimal_io_bytes = 0; // 0: the device has no preference
  std::uint32_t max_sectors_kb = 0;   // largest request the kernel sends it
  bool discards = false;
  std::string write_cache; // "write back" or "write through"
  bool read_only = false;
  bool zoned = false; // must be written in sequence, which a store does not
  bool is_partition = false;
  std::optional<device_number> disk;    // of a partition: the disk it is part of
  std::vector<std::string> partitions;  // of a disk: those on it
  std::vector<std::string> holders;     // device-mapper or md devices made of it or of a partition on it
  std::vector<std::string> mounts;      // where it, or a partition on it, is mounted
  std::vector<std::string> swaps;       // of it and the partitions on it: those that are swapped to
  std::optional<backing_place> backing; // of a loop device, and of a partition on one: all of the device
  std::vector<std::string> twins;       // "/dev/loop3": other loop devices that keep some of the same bytes

  /// Why nobody may write to it, as the end of a sentence: "is mounted on /data". Empty: nothing is known.
  [[nodiscard]] std::string in_use() const;
};

/// False with a sentence: sysfs does not know the device.
[[nodiscard]] bool read_device_facts(const std::string& root, device_number number, device_facts& out,
                                     std::string& problem);

enum class path_kind : std::uint8_t { missing, block_device, regular_file, other };

struct path_facts {
  path_kind kind = path_kind::missing;
  device_number number;         // of a block device
  std::uint64_t size_bytes = 0; // of a regular file
  std::string problem;          // why it is missing: one sentence
};

/// What a path leads to, through symbolic links.
[[nodiscard]] path_facts look_at_path(const std::string& path);

/// "/dev/loop3" when the file is what a loop device keeps its bytes in: then they are that device's, and
/// whoever uses it is not seen at the file. Empty when there is none, or one whose path for the file means
/// nothing here.
[[nodiscard]] std::string loop_device_on(const std::string& root, const std::string& file);

} // namespace memkv::cli
