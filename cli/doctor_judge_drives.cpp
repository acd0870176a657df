// Drives: each one, and all of them as a set.
#include "cli/doctor_judge.hpp"

#include "cli/drive_text.hpp"
#include "cli/setup_plan.hpp"
#include "engine/drive_content.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

namespace memkv::cli {

namespace {

using enum check_state;

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t serial_ns = 1'000'000;
constexpr std::uint64_t request_kb = 1024; // the server's requests are at most this large

std::string time_text(std::uint64_t nanoseconds) {
  std::array<char, 32> text{};
  const auto value = static_cast<double>(nanoseconds);
  if (nanoseconds < 1'000'000)
    std::snprintf(text.data(), text.size(), "%.0f us", value / 1e3);
  else
    std::snprintf(text.data(), text.size(), "%.1f ms", value / 1e6);
  return text.data();
}

class drive_judge {
public:
  drive_judge(const doctor_drive_facts& drive, const doctor_facts& facts, std::vector<finding>& out)
      : drive_(drive), facts_(facts), out_(out) {
    std::uint64_t taken = 0;
    for (const auto& earlier : facts.drives) {
      if (&earlier == &drive)
        break;
      if (earlier.file_system_number == drive.file_system_number &&
          earlier.wanted_bytes > earlier.allocated_bytes)
        taken += earlier.wanted_bytes - earlier.allocated_bytes;
    }
    room_bytes_ = drive.room_bytes - std::min(drive.room_bytes, taken);
    others_are_there_ = std::ranges::any_of(facts.drives, [](const doctor_drive_facts& each) {
      return each.where.kind == path_kind::regular_file;
    });
    beside_ = taken == 0 ? "" : " beside the drives before it";
  }

  // False: it cannot be used at all, and nothing more can be said of it.
  bool usable() {
    const bool raw = facts_.loaded.config.storage.mode == storage_mode::direct;
    const auto& path = drive_.path;
    if (drive_.stuck)
      return say(failed, "drive", "does not answer within the deadline when its path is looked at",
                 "check the mount or the device below it");
    switch (drive_.where.kind) {
    case path_kind::missing:
      if (!raw)
        return new_file();
      return sentence(failed, "drive", without_path(drive_.where.problem));
    case path_kind::other:
      return say(failed, "drive", "is neither a block device nor a file", "name a drive in storage.drives");
    case path_kind::regular_file:
      if (raw)
        return say(failed, "drive", "is a regular file, and storage.mode is direct",
                   "name a block device, or set storage.mode to file");
      return old_file();
    case path_kind::block_device:
      if (!raw)
        return say(failed, "drive", "is a block device, and storage.mode is file",
                   "set storage.mode to direct after memkv setup --drives " + path + ", or name a file");
      break;
    }
    if (!drive_.no_facts.empty())
      return sentence(failed, "drive", drive_.no_facts);
    if (const auto use = drive_.device.in_use(); !use.empty())
      return sentence(failed, "drive", use);
    if (drive_.device.read_only)
      return say(failed, "drive", "is read-only", "blockdev --setrw " + path + ", or name another drive");
    if (drive_.device.zoned)
      return say(failed, "drive", "is a zoned device, which can only be written in sequence",
                 "name another drive");
    const auto& device = drive_.device;
    if (device.logical_block_bytes == 0 || page_bytes % device.logical_block_bytes != 0)
      return say(failed, "drive",
                 "has blocks of " + std::to_string(device.logical_block_bytes) +
                     " bytes, which do not divide 4096",
                 "format it with another LBA size (nvme format --lbaf)");
    say(ok, "drive",
        (device.model.empty() ? "unknown model" : device.model) + ", " + about_size(device.size_bytes) +
            ", blocks of " + std::to_string(device.logical_block_bytes) + " bytes",
        "");
    return true;
  }

  void queue() {
    const auto& device = drive_.device;
    if (device.discards)
      say(ok, "drive.discard", "supported", "");
    else
      say(warning, "drive.discard",
          "not supported, so the drive never learns what is free and slows down as it fills up",
          "use a drive with TRIM, or check that the layer below passes it on");
    if (device.write_cache.empty())
      say(skipped, "drive.write_cache", "the kernel does not say", "");
    else if (device.write_cache == "write back")
      say(ok, "drive.write_cache",
          std::string("write back, flushed by the server; ") +
              (!drive_.fua   ? "FUA unknown"
               : *drive_.fua ? "with FUA"
                             : "without FUA, so each durable write costs a flush"),
          "");
    else
      say(ok, "drive.write_cache", device.write_cache + ": what is written is durable", "");
    atomic_writes();
    const std::string sizes =
        "requests of up to " + std::to_string(device.max_sectors_kb) + " KiB, optimal " +
        (device.optimal_io_bytes == 0 ? "unknown" : about_size(device.optimal_io_bytes));
    const std::uint64_t could = std::min(drive_.max_hw_sectors_kb.value_or(0), request_kb);
    if (device.max_sectors_kb < could)
      say(warning, "drive.io_size",
          sizes + ", and the hardware takes more, so larger requests are split needlessly",
          "echo " + std::to_string(could) + " > /sys/block/" + device.name + "/queue/max_sectors_kb");
    else
      say(ok, "drive.io_size", sizes, "");
  }

  void probed() {
    const auto& probe = drive_.probe;
    if (!probe.done)
      return;
    if (probe.timed_out) {
      say(failed, "drive.read", "did not answer a read within the deadline",
          "look at dmesg; reset or replace the drive");
      return;
    }
    if (probe.in_use && drive_.holder.this_server) {
      say(skipped, "drive.read",
          "in use by the server of this configuration, which is running (pid " +
              std::to_string(drive_.holder.pid) + "); stop it to probe the drive",
          "");
      return;
    }
    if (probe.in_use) {
      if (drive_.holder.pid != 0)
        say(failed, "drive.read",
            "in use by " + drive_.holder.name + " (pid " + std::to_string(drive_.holder.pid) + ")",
            "stop that");
      else
        say(failed, "drive.read", "in use by something that cannot be seen from here",
            "find it with lsof or lsblk as root");
      return;
    }
    if (!probe.problem.empty()) {
      sentence(failed, "drive.read", probe.problem);
      return;
    }
    if (drive_.where.kind == path_kind::block_device)
      depth();
    content();
  }

private:
  bool say(check_state state, std::string check, std::string found, std::string remedy) {
    out_.push_back({state, std::move(check), drive_.path, std::move(found), std::move(remedy)});
    return state != failed;
  }

  bool sentence(check_state state, const std::string& check, std::string_view text) {
    out_.push_back(from_sentence(state, check, drive_.path, text));
    return state != failed;
  }

  [[nodiscard]] std::string_view without_path(std::string_view text) const {
    return text.starts_with(drive_.path + " ") ? text.substr(drive_.path.size() + 1) : text;
  }

  bool new_file() {
    if (!drive_.directory_writable)
      return say(failed, "drive", "does not exist, and cannot be made in " + drive_.directory,
                 "mkdir -p " + drive_.directory + ", and let the server's user write there");
    if (room_bytes_ < drive_.wanted_bytes)
      return say(failed, "drive",
                 "will be made, but max_size is " + about_size(drive_.wanted_bytes) + " and " +
                     drive_.directory + " has room for " + about_size(room_bytes_) + beside_,
                 "lower max_size, or name another directory");
    const auto what = "will be made in full size, " + about_size(drive_.wanted_bytes);
    // A path that was mistyped, or a file system that is not mounted, would otherwise go by in silence.
    if (others_are_there_)
      say(warning, "drive", what + ", and empty, although other drives of this server are there",
          "if blocks were kept in it, correct the path or mount its file system before the start");
    else
      say(ok, "drive", what, "");
    return kept();
  }

  bool old_file() {
    if (drive_.where.size_bytes / page_bytes != drive_.wanted_bytes / page_bytes &&
        drive_.where.size_bytes > 0) {
      const auto sizes = "has " + std::to_string(drive_.where.size_bytes) + " bytes, and max_size is " +
                         std::to_string(drive_.wanted_bytes);
      switch (whose_file()) {
      case file_owner::memkv:
        return say(failed, "drive", sizes,
                   "set max_size to the size of the file, or remove the file to start it empty");
      case file_owner::somebody_else:
        return say(failed, "drive", "is not a file of memkv's, and is left alone (it " + sizes + ")",
                   "check the path in storage.drives");
      case file_owner::unknown:
        return say(failed, "drive", sizes, "check the path, or set max_size to the size of the file");
      }
    }
    if (drive_.allocated_bytes + room_bytes_ < drive_.wanted_bytes)
      return say(failed, "drive",
                 "has holes that its file system has no room to fill (" + about_size(room_bytes_) + " left" +
                     beside_ + ")",
                 "make room there, or name another directory");
    say(ok, "drive", "is a file of " + about_size(drive_.where.size_bytes), "");
    return kept();
  }

  enum class file_owner : std::uint8_t { memkv, somebody_else, unknown };

  // Nobody is told to remove what may be somebody else's.
  [[nodiscard]] file_owner whose_file() const {
    const auto& probe = drive_.probe;
    if (drive_.where.size_bytes < 2 * page_bytes) // too short for a drive
      return file_owner::somebody_else;
    if (!probe.done || probe.timed_out || !probe.problem.empty())
      return file_owner::unknown;
    switch (static_cast<engine::content_kind>(probe.content)) {
    case engine::content_kind::memkv:
    case engine::content_kind::memkv_damaged:
    case engine::content_kind::memkv_newer:
      return file_owner::memkv;
    case engine::content_kind::foreign:
      return file_owner::somebody_else;
    case engine::content_kind::blank:
      break;
    }
    return file_owner::unknown;
  }

  // What the file system makes of the file.
  bool kept() {
    if (drive_.file_system == "tmpfs" || drive_.file_system == "ramfs")
      say(warning, "drive.file_system", "on " + drive_.file_system + ", whose content is gone after a reboot",
          "name a file on a disk");
    else if (drive_.file_system == "NFS" || drive_.file_system == "SMB")
      say(warning, "drive.file_system",
          "on " + drive_.file_system + ", which other machines can change and which may hang",
          "name a file on a local disk");
    return true;
  }

  void atomic_writes() {
    if (const auto bytes = drive_.atomic_unit_max_bytes.value_or(0); bytes > 0)
      say(ok, "drive.atomic_write", "the kernel writes up to " + about_size(bytes) + " whole or not at all",
          "");
    else if (drive_.probe.nvme_atomic_bytes > 0)
      say(ok, "drive.atomic_write",
          "the controller writes " + about_size(drive_.probe.nvme_atomic_bytes) +
              " whole or not at all (AWUPF)",
          "");
    else
      say(skipped, "drive.atomic_write",
          "unknown; memkv does not rely on it: what is torn is found by its checksum", "");
  }

  void depth() {
    const auto& probe = drive_.probe;
    if (probe.read_errors > 0) {
      say(failed, "drive.read",
          std::to_string(probe.read_errors) + " of " + std::to_string(probe.reads) + " reads failed",
          "look at dmesg; memkv drive verify " + drive_.path);
      return;
    }
    say(ok, "drive.read", "O_DIRECT through io_uring works", "");
    const std::string found =
        "reached " + std::to_string(probe.depth_reached) + " of " + std::to_string(probe.depth_wanted) +
        " requests in flight (at the device: " +
        (probe.device_depth == 0 ? "not counted" : std::to_string(probe.device_depth)) + "), " +
        std::to_string(probe.probe_ns == 0 ? 0 : probe.reads * 1'000'000'000 / probe.probe_ns) +
        " reads of 4 KiB a second, median " + time_text(probe.median_ns) + ", p99 " + time_text(probe.p99_ns);
    // One at a time at the device, and slow for it: a queue above that holds the rest back.
    const bool serial = probe.device_depth == 1 && probe.median_ns >= serial_ns;
    if (probe.depth_reached < probe.depth_wanted || serial)
      say(warning, "drive.depth", found, "check the queue of the device (nr_requests, scheduler)");
    else if (drive_.requests_max.value_or(probe.depth_wanted) < probe.depth_wanted)
      say(warning, "drive.depth", found + "; its queue has room for " + std::to_string(*drive_.requests_max),
          "echo " + std::to_string(probe.depth_wanted) + " > /sys/block/" + drive_.device.name +
              "/queue/nr_requests");
    else
      say(ok, "drive.depth", found, "");
  }

  void content() {
    const auto& probe = drive_.probe;
    const bool raw = drive_.where.kind == path_kind::block_device;
    const auto kind = static_cast<engine::content_kind>(probe.content);
    const auto& storage = facts_.loaded.config.storage;
    if (kind == engine::content_kind::blank && !raw) {
      say(ok, "drive.superblock", "the file is empty and will be formatted", "");
    } else if (kind != engine::content_kind::memkv) {
      sentence(failed, "drive.superblock", probe.content_problem);
    } else if (static_cast<engine::errc>(probe.fits) != engine::errc::ok) {
      say(failed, "drive.superblock",
          static_cast<engine::errc>(probe.fits) == engine::errc::corrupt
              ? "has a superblock that contradicts itself"
              : "was formatted for a device of another size",
          "see what memkv drive verify " + drive_.path + " and memkv drive fsck " + drive_.path +
              " find; what stays damaged starts empty after " +
              (raw ? "memkv setup --force on all drives of the set" : "the file was removed"));
    } else if (probe.blacklisted) {
      say(failed, "drive.superblock",
          "is blacklisted after " + counted(probe.failure_count, "failure", "failures"),
          "replace it, or memkv drive reset " + drive_.path);
    } else {
      std::string found = "drive " + std::to_string(probe.drive_index) + " of " +
                          std::to_string(probe.drive_count) + " of set " + probe.set_id +
                          (probe.clean ? ", closed in order" : ", not closed in order");
      if (probe.unit_bytes != storage.shard_bytes || probe.extent_bytes != storage.block_bytes)
        say(failed, "drive.superblock",
            found + "; formatted with storage.shard_size " + about_size(probe.unit_bytes) +
                " and storage.block_size " + about_size(probe.extent_bytes) + ", and not opened with others",
            "write these into the configuration");
      else if (probe.one_copy)
        say(warning, "drive.superblock", found + "; one of its two superblocks is damaged",
            "memkv drive fsck --repair " + drive_.path);
      else if (probe.failure_count > 0)
        say(warning, "drive.superblock",
            found + "; " + counted(probe.failure_count, "failure", "failures") + " since its last reset",
            "memkv drive health " + drive_.path);
      else
        say(ok, "drive.superblock", found, "");
    }
  }

  const doctor_drive_facts& drive_;
  bool others_are_there_ = false; // files of other drives of the configuration
  std::uint64_t room_bytes_ = 0;  // less what the drives before it will take of the same file system
  std::string beside_;
  const doctor_facts& facts_;
  std::vector<finding>& out_;
};

// Whether those that are memkv's are one set in this order: by the set most of them name.
void judge_set(const doctor_facts& facts, std::vector<finding>& out) {
  std::map<std::string, std::size_t> sets;
  for (const auto& drive : facts.drives)
    if (!drive.probe.set_id.empty())
      ++sets[drive.probe.set_id];
  if (sets.empty())
    return;
  const auto most = std::ranges::max_element(sets, {}, [](const auto& each) { return each.second; });
  bool whole = true;
  for (std::size_t i = 0; i < facts.drives.size(); ++i) {
    const auto& drive = facts.drives[i];
    const auto& probe = drive.probe;
    if (probe.set_id.empty())
      continue;
    const bool foreign = probe.set_id != most->first;
    const bool misplaced = probe.drive_index != i || probe.drive_count != facts.drives.size();
    whole = whole && !foreign && !misplaced;
    if (foreign)
      out.push_back({failed, "drive.set", drive.path,
                     "belongs to set " + probe.set_id + ", and the others to " + most->first,
                     "name only drives of one set in storage.drives, or memkv setup --force"});
    else if (misplaced)
      out.push_back({failed, "drive.set", drive.path,
                     "is drive " + std::to_string(probe.drive_index) + " of " +
                         std::to_string(probe.drive_count) + ", and storage.drives names it as drive " +
                         std::to_string(i) + " of " + std::to_string(facts.drives.size()),
                     "keep the order and number of the drives"});
  }
  if (whole)
    out.push_back({ok, "drive.set", "",
                   std::to_string(most->second) + " of " + counted(facts.drives.size(), "drive", "drives") +
                       " found to be in set " + most->first,
                   ""});
}

} // namespace

void judge_drives(const doctor_facts& facts, std::vector<finding>& out) {
  const auto mode = facts.loaded.config.storage.mode;
  if (mode == storage_mode::memory) {
    out.push_back(
        {skipped, "drive", "", "storage.mode is memory: nothing is kept after the end of the server", ""});
    return;
  }
  std::vector<setup_drive> together;
  for (const auto& drive : facts.drives) {
    drive_judge judge(drive, facts, out);
    const bool usable = judge.usable();
    if (usable && drive.where.kind == path_kind::block_device) {
      judge.queue();
      together.push_back({drive.path, drive.where, drive.device, {}, {}});
    }
    if (usable)
      judge.probed();
  }
  // What only shows when drives are looked at together: one named twice, two paths to one, a part of another.
  if (const auto problem = check_devices(together, true); !problem.empty())
    out.push_back(from_sentence(failed, "drive.apart", "", problem));
  judge_set(facts, out);
}

} // namespace memkv::cli
