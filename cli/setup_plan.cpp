#include "cli/setup_plan.hpp"

#include "cli/command_line.hpp" // format_size
#include "cli/config.hpp"
#include "cli/drive_text.hpp"
#include "engine/layout.hpp"

#include <algorithm>
#include <bit>

namespace memkv::cli {

namespace {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t pool_bytes_min = 1024 * mib;

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names)
    text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string place_of(const engine::superblock& super) {
  return "drive " + std::to_string(super.set.drive_index) + " of " + std::to_string(super.set.drive_count) +
         " of set " + hex_text(super.set.set_id);
}

// What lies on a drive, as the end of a sentence that begins with the drive.
std::string holding(const engine::drive_content& content) {
  switch (content.kind) {
  case engine::content_kind::blank:
    return "is blank";
  case engine::content_kind::memkv:
    return "holds memkv data (" + place_of(content.super) + ")";
  case engine::content_kind::memkv_damaged:
    return "holds memkv data whose superblocks are both damaged";
  case engine::content_kind::memkv_newer:
    return "holds memkv data of a later release";
  case engine::content_kind::foreign:
    break;
  }
  return "holds " + content.signature;
}

bool is_memkv(const setup_drive& drive) {
  return drive.content.kind != engine::content_kind::blank &&
         drive.content.kind != engine::content_kind::foreign;
}

// Why the drives, each of which is memkv's, are no set in this order that a server could start on.
std::string why_no_set(std::span<const setup_drive> drives) {
  for (std::size_t index = 0; index < drives.size(); ++index) {
    const auto& [path, where, facts, no_facts, content] = drives[index];
    if (content.kind != engine::content_kind::memkv)
      return path + " " + holding(content);
    const auto& super = content.super;
    const auto& first = drives[0].content.super;
    if (content.fits != engine::errc::ok)
      return path + " was formatted for a device of another size";
    if (super.set.set_id != first.set.set_id)
      return path + " is " + place_of(super) + ", and " + drives[0].path + " is of set " +
             hex_text(first.set.set_id);
    if (super.set.drive_index != index || super.set.drive_count != drives.size())
      return path + " is " + place_of(super) + ", but is named as drive " + std::to_string(index) + " of " +
             std::to_string(drives.size());
    if (super.places.unit_bytes != first.places.unit_bytes ||
        super.places.extent_bytes_max != first.places.extent_bytes_max)
      return path + " was formatted with other sizes than " + drives[0].path;
  }
  return {};
}

// Two devices of the kernel that are one drive, as without native multipathing. Partitions of one disk share
// its identity and are not meant.
bool same_hardware(const device_facts& a, const device_facts& b) {
  const device_number disk_a = a.disk.value_or(a.number);
  const device_number disk_b = b.disk.value_or(b.number);
  return !a.wwid.empty() && a.wwid == b.wwid && !(disk_a == disk_b);
}

// Two loop devices on the same bytes.
bool same_file(const device_facts& a, const device_facts& b) {
  const device_number disk_a = a.disk.value_or(a.number);
  const device_number disk_b = b.disk.value_or(b.number);
  return a.backing && b.backing && a.backing->overlaps(*b.backing) && !(disk_a == disk_b);
}

constexpr std::string_view or_force = "add --force to destroy what the drives hold";

// A word that YAML takes as it is, or a text in quotes.
std::string scalar(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto plain = [&letter](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '/' || c == '.' || c == '-';
  };
  // Only what cannot be taken for anything else: a path, or a name such as mlx5_0.
  const bool named =
      text.starts_with('/') || (!text.empty() && letter(text.front()) && text.find('_') != text.npos);
  if (named && std::ranges::all_of(text, plain))
    return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

} // namespace

std::string check_devices(std::span<const setup_drive> drives, bool force) {
  if (drives.size() > engine::drives_max)
    return "a set has at most " + std::to_string(engine::drives_max) + " drives: name fewer";
  for (std::size_t index = 0; index < drives.size(); ++index) {
    const setup_drive& drive = drives[index];
    const auto& path = drive.path;
    if (drive.where.kind == path_kind::missing)
      return drive.where.problem;
    if (drive.where.kind != path_kind::block_device)
      return path + " is not a block device: name raw drives such as /dev/nvme0n1";
    if (std::ranges::any_of(path, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }))
      return "the path of a drive has control characters: name it by another one";
    for (std::size_t earlier = 0; earlier < index; ++earlier)
      if (drives[earlier].where.number == drive.where.number)
        return path + " is the same drive as " + drives[earlier].path + ": name each drive once";
    if (!drive.no_facts.empty())
      return path + ": " + drive.no_facts;
    for (std::size_t earlier = 0; earlier < index; ++earlier)
      if (same_hardware(drive.facts, drives[earlier].facts))
        return path + " and " + drives[earlier].path + " are two ways to the same drive (" +
               drive.facts.wwid + "): name one of them";
    for (std::size_t earlier = 0; earlier < index; ++earlier)
      if (same_file(drive.facts, drives[earlier].facts))
        return path + " and " + drives[earlier].path +
               " are loop devices on the same bytes of one file: name one of them";
    for (const auto& other : drives)
      if (drive.facts.disk && *drive.facts.disk == other.where.number)
        return path + " is a partition of " + other.path + ": name one of the two";
    if (const auto use = drive.facts.in_use(); !use.empty())
      return path + " " + use;
    if (drive.facts.read_only)
      return path + " is read-only: make it writable, or name another drive";
    if (drive.facts.zoned)
      return path + " is a zoned device, which can only be written in sequence: name another drive";
    if (!drive.facts.partitions.empty() && !force)
      return path + " has partitions (" + joined(drive.facts.partitions) + "): name another drive, or " +
             std::string(or_force);
  }
  return {};
}

setup_decision decide_setup(std::span<const setup_drive> drives, bool force, bool idempotent) {
  const bool all_ours = std::ranges::all_of(drives, is_memkv);
  const std::string no_set = all_ours ? why_no_set(drives) : std::string();
  if (idempotent && all_ours && no_set.empty())
    return {setup_action::keep, {}};
  if (force)
    return {setup_action::format, {}};
  if (idempotent && all_ours)
    return {setup_action::refuse,
            no_set + ": name the drives of one set in their order, or " + std::string(or_force)};
  const auto blank = std::ranges::find_if(
      drives, [](const setup_drive& each) { return each.content.kind == engine::content_kind::blank; });
  // Drives of ours are what is wished for then: in the way is what is something else.
  const bool stranger = idempotent && std::ranges::any_of(drives, [](const setup_drive& each) {
                          return each.content.kind == engine::content_kind::foreign;
                        });
  for (const setup_drive& drive : drives) {
    if (drive.content.kind == engine::content_kind::blank || (stranger && is_memkv(drive)))
      continue;
    if (idempotent && is_memkv(drive) && blank != drives.end())
      return {setup_action::refuse, drive.path + " " + holding(drive.content) + ", but " + blank->path +
                                        " is blank: name only drives of one set, or " +
                                        std::string(or_force)};
    return {setup_action::refuse, drive.path + " " + holding(drive.content) + ": name another drive, or " +
                                      std::string(or_force) +
                                      (all_ours && !idempotent ? ", or --idempotent to keep it" : "")};
  }
  return {setup_action::format, {}};
}

std::string choose_sizes(std::uint64_t shard_kb, setup_sizes& out) {
  constexpr std::uint64_t least = engine::unit_bytes_min / kib;
  constexpr std::uint64_t most = engine::extent_bytes_most / kib;
  if (shard_kb < least || shard_kb > most || !std::has_single_bit(shard_kb))
    return "--shard-size must be a power of two from " + std::to_string(least) + " to " +
           std::to_string(most) + " (KB), not " + std::to_string(shard_kb);
  out.shard_bytes = static_cast<std::uint32_t>(shard_kb * kib);
  out.block_bytes = shard_kb >= 1024 ? out.shard_bytes : server_config().storage.block_bytes;
  return {};
}

std::uint64_t choose_pool_bytes(std::uint64_t available_bytes) noexcept {
  const std::uint64_t chunk = server_config().memory.block_bytes;
  return std::max(available_bytes / 2 / chunk * chunk, pool_bytes_min);
}

std::string setup_yaml(const setup_config& config) {
  std::string text = "# Made by memkv setup.\n"
                     "#\n"
                     "# The authentication key is not in this file: set MEMKV_AUTH_KEY for memkv start and "
                     "for all clients to\n"
                     "# the same 64 hexadecimal digits, made once with: openssl rand -hex 32\n"
                     "network:\n"
                     "  address: 0.0.0.0:9900\n"
                     "memory:\n"
                     "  max_size: " +
                     format_size(config.pool_bytes) + "\n";
  if (config.rdma_absent)
    text += "# This machine had no such device when this was made. Without it the server serves over TCP and "
            "is\n"
            "# degraded; on a machine that is to do without RDMA, take these lines out.\n";
  if (!config.rdma_device.empty())
    text += "rdma:\n"
            "  device: " +
            scalar(config.rdma_device) + "\n";
  text += "storage:\n"
          "  mode: direct\n"
          "  # What the drives were formatted with, and their order: neither can be changed "
          "without memkv setup.\n"
          "  block_size: " +
          format_size(config.sizes.block_bytes) +
          "\n"
          "  shard_size: " +
          format_size(config.sizes.shard_bytes) +
          "\n"
          "  drives:\n";
  for (const auto& media : config.media)
    text += "    - media: " + scalar(media) + "\n";
  return text;
}

std::string check_setup_yaml(const setup_config& config) {
  // The key comes from the environment of the server; any will do here.
  constexpr std::string_view any_key = "0123456789abcdeffedcba98765432100f1e2d3c4b5a69788796a5b4c3d2e1f0";
  const auto read = parse_config(setup_yaml(config), {std::string(any_key)});
  if (!read.ok())
    return "the configuration would not be accepted: " + read.problem.sentence;
  std::vector<std::string> media;
  for (const auto& drive : read.config.storage.drives)
    media.push_back(drive.media);
  if (media != config.media || read.config.rdma.device != config.rdma_device)
    return "the path of a drive or the name of the RDMA device cannot be written into a configuration: use "
           "names of printable characters";
  return {};
}

} // namespace memkv::cli
