#include "cli/device_facts.hpp"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace memkv::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t sector_bytes = 512; // sysfs counts in these, whatever the device's blocks are

// The first line without blanks at its ends; empty when there is no such file.
std::string line_of(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  const auto begin = line.find_first_not_of(" \t");
  if (begin == std::string::npos)
    return {};
  return line.substr(begin, line.find_last_not_of(" \t\r") - begin + 1);
}

std::uint64_t number_of(const fs::path& file) {
  std::istringstream text(line_of(file));
  std::uint64_t value = 0;
  text >> value;
  return text.fail() ? 0 : value;
}

std::optional<device_number> parse_number(const std::string& text) {
  std::istringstream stream(text);
  device_number number;
  char colon = 0;
  if (stream >> number.major >> colon >> number.minor && colon == ':')
    return number;
  return std::nullopt;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

void append(std::vector<std::string>& to, const std::vector<std::string>& more) {
  for (const auto& each : more)
    if (std::ranges::find(to, each) == to.end())
      to.push_back(each);
}

// mountinfo and swaps write blanks and backslashes as \ooo.
std::string unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// The number of the device a name such as /dev/sda1 stands for. File systems that span devices have numbers
// of their own, and swap areas are listed by name only.
std::optional<device_number> number_of_name(const fs::path& root, const std::string& name) {
  const auto slash = name.rfind('/');
  if (slash == std::string::npos || slash + 1 == name.size())
    return std::nullopt;
  return parse_number(line_of(root / "sys/class/block" / name.substr(slash + 1) / "dev"));
}

bool contains(const std::vector<device_number>& numbers, const std::optional<device_number>& number) {
  return number && std::ranges::find(numbers, *number) != numbers.end();
}

std::vector<std::string> mounts_of(const fs::path& root, const std::vector<device_number>& numbers) {
  std::vector<std::string> found;
  std::ifstream stream(root / "proc/self/mountinfo");
  for (std::string line; std::getline(stream, line);) {
    std::istringstream words(line);
    std::string id, parent, number, root_of_mount, where, word;
    if (!(words >> id >> parent >> number >> root_of_mount >> where))
      continue;
    while (words >> word && word != "-") {
    }
    std::string type, source;
    words >> type >> source;
    if (contains(numbers, parse_number(number)) || contains(numbers, number_of_name(root, unescaped(source))))
      append(found, {unescaped(where)});
  }
  return found;
}

std::vector<std::string> swaps_of(const fs::path& root, const std::vector<device_number>& numbers) {
  std::vector<std::string> found;
  std::ifstream stream(root / "proc/swaps");
  for (std::string line; std::getline(stream, line);) {
    const std::string name = unescaped(line.substr(0, line.find_first_of(" \t")));
    if (contains(numbers, number_of_name(root, name)))
      append(found, {name});
  }
  return found;
}

std::string model_of(const fs::path& disk) {
  std::string model = line_of(disk / "device/model");
  if (const auto vendor = line_of(disk / "device/vendor");
      !model.empty() && !vendor.empty() && !vendor.starts_with("0x"))
    model = vendor + " " + model;
  if (model.empty())
    if (const auto file = line_of(disk / "loop/backing_file"); !file.empty())
      model = "loop device on " + file;
  return model;
}

// The device says which file it has, whatever the file is called by now. Where it cannot be asked, the name
// in sysfs must do.
bool file_of_loop(const std::string& root, const fs::path& disk, backing_place& place) {
  if (root.empty()) {
    const int file = ::open(("/dev/" + disk.filename().string()).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    loop_info64 about{};
    const bool told = file >= 0 && ::ioctl(file, LOOP_GET_STATUS64, &about) == 0;
    if (file >= 0)
      ::close(file);
    if (told) {
      place.device = about.lo_device;
      place.inode = about.lo_inode;
      return true;
    }
  }
  struct stat about {};
  if (::stat(line_of(disk / "loop/backing_file").c_str(), &about) != 0)
    return false;
  place.device = about.st_dev;
  place.inode = about.st_ino;
  return true;
}

std::optional<backing_place> backing_of(const std::string& root, const fs::path& disk) {
  backing_place place;
  if (line_of(disk / "loop/backing_file").empty() || !file_of_loop(root, disk, place))
    return std::nullopt;
  place.begin = number_of(disk / "loop/offset");
  place.end = place.begin + number_of(disk / "size") * sector_bytes;
  return place;
}

std::vector<std::string> twins_of(const std::string& root, const fs::path& disk, const backing_place& place) {
  const fs::path block = fs::path(root.empty() ? "/" : root) / "sys/class/block";
  std::vector<std::string> found;
  for (const auto& name : names_in(block))
    if (name.starts_with("loop") && name != disk.filename().string())
      if (const auto other = backing_of(root, block / name); other && other->overlaps(place))
        found.push_back("/dev/" + name);
  return found;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names)
    text += (text.empty() ? "" : ", ") + name;
  return text;
}

} // namespace

std::string to_text(device_number number) {
  return std::to_string(number.major) + ":" + std::to_string(number.minor);
}

std::string device_facts::in_use() const {
  if (!mounts.empty())
    return "is mounted on " + joined(mounts) + ": unmount it first";
  if (!swaps.empty())
    return "is swapped to (" + joined(swaps) + "): run swapoff first";
  if (!holders.empty())
    return "is part of " + joined(holders) + ": take it out of that first";
  return {};
}

bool read_device_facts(const std::string& root, device_number number, device_facts& out,
                       std::string& problem) {
  const fs::path top = root.empty() ? "/" : root;
  const std::string shown = "/sys/dev/block/" + to_text(number);
  std::error_code error;
  // A link into the tree of devices; the way up from a partition is only there.
  const fs::path here = fs::canonical(top / "sys/dev/block" / to_text(number), error);
  if (error) {
    problem =
        "the kernel has no block device " + to_text(number) + " (" + shown + " is not there): mount /sys";
    return false;
  }
  device_facts facts;
  facts.number = number;
  facts.name = here.filename().string();
  facts.is_partition = fs::exists(here / "partition", error);
  const fs::path disk = facts.is_partition ? here.parent_path() : here;
  if (facts.is_partition)
    facts.disk = parse_number(line_of(disk / "dev"));
  facts.model = model_of(disk);
  facts.serial = line_of(disk / "device/serial");
  if (facts.serial.empty())
    facts.serial = line_of(disk / "serial");
  facts.wwid = line_of(disk / "wwid");
  if (facts.wwid.empty())
    facts.wwid = line_of(disk / "device/wwid");
  facts.size_bytes = number_of(here / "size") * sector_bytes;
  const fs::path queue = disk / "queue";
  facts.logical_block_bytes = static_cast<std::uint32_t>(number_of(queue / "logical_block_size"));
  facts.physical_block_bytes = static_cast<std::uint32_t>(number_of(queue / "physical_block_size"));
  facts.optimal_io_bytes = number_of(queue / "optimal_io_size");
  facts.max_sectors_kb = static_cast<std::uint32_t>(number_of(queue / "max_sectors_kb"));
  facts.discards = number_of(queue / "discard_max_bytes") > 0;
  facts.write_cache = line_of(queue / "write_cache");
  const auto zones = line_of(queue / "zoned");
  facts.zoned = !zones.empty() && zones != "none";
  facts.read_only = number_of(here / "ro") != 0;

  std::vector<device_number> numbers{number};
  append(facts.holders, names_in(here / "holders"));
  if (!facts.is_partition)
    for (const auto& name : names_in(here)) {
      if (!fs::exists(here / name / "partition", error))
        continue;
      facts.partitions.push_back(name);
      if (const auto part = parse_number(line_of(here / name / "dev")))
        numbers.push_back(*part);
      append(facts.holders, names_in(here / name / "holders"));
    }
  facts.mounts = mounts_of(top, numbers);
  facts.swaps = swaps_of(top, numbers);
  facts.backing = backing_of(root, disk);
  if (facts.backing)
    facts.twins = twins_of(root, disk, *facts.backing);
  out = std::move(facts);
  return true;
}

path_facts look_at_path(const std::string& path) {
  path_facts facts;
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) {
    facts.problem = errno == ENOENT ? path + " does not exist: name a drive that does"
                                    : path + " cannot be looked at (" + std::strerror(errno) + ")";
    return facts;
  }
  if (S_ISBLK(about.st_mode)) {
    facts.kind = path_kind::block_device;
    facts.number = {::major(about.st_rdev), ::minor(about.st_rdev)};
  } else if (S_ISREG(about.st_mode)) {
    facts.kind = path_kind::regular_file;
    facts.size_bytes = static_cast<std::uint64_t>(about.st_size);
  } else {
    facts.kind = path_kind::other;
  }
  return facts;
}

std::string loop_device_on(const std::string& root, const std::string& file) {
  const fs::path block = fs::path(root.empty() ? "/" : root) / "sys/class/block";
  struct stat about {
  }, backing{};
  if (::stat(file.c_str(), &about) != 0)
    return {};
  for (const auto& name : names_in(block)) {
    const auto path = name.starts_with("loop") ? line_of(block / name / "loop/backing_file") : std::string{};
    if (!path.empty() && ::stat(path.c_str(), &backing) == 0 && backing.st_dev == about.st_dev &&
        backing.st_ino == about.st_ino)
      return "/dev/" + name;
  }
  return {};
}

} // namespace memkv::cli
