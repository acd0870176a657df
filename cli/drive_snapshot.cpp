#include "cli/drive_snapshot.hpp"

#include "cli/command_line.hpp" // format_size
#include "cli/drive_text.hpp"
#include "engine/drive_content.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cstdio>

namespace memkv::cli {

namespace {

using engine::errc;

constexpr std::uint64_t ns_per_s = 1'000'000'000;

std::string percent(std::uint64_t part, std::uint64_t whole) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %%",
                whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  return text.data();
}

std::string state_text(const engine::drive_facts& facts) {
  if (facts.super.clean)
    return "clean";
  if (facts.emptied_by_power_loss)
    return "the power was lost while it was used without storage.sync: memkv start will empty it";
  if (facts.super.format_cut_short())
    return "empty: a reset was cut short, and what the drive held may still be in its free space; run memkv "
           "drive reset again";
  return "unclean: it was not closed in order, and memkv start will replay its journal";
}

std::string journal_text(const engine::drive_facts& facts) {
  const std::string size = " (" + about_size(facts.super.places.journal_bytes) + ")";
  if (facts.pending_batches == 0)
    return "empty" + size;
  return counted(facts.pending_batches, "batch", "batches") + " with " +
         counted(facts.pending_records, "record", "records") + " to be replayed" + size;
}

std::string failures_text(const drive_snapshot& snapshot) {
  const auto& failures = snapshot.facts.super.failures;
  if (failures.failure_count == 0 && !failures.blacklisted)
    return "none";
  std::string text = std::to_string(failures.failure_count) + ", first " +
                     utc_text(failures.first_failed_at_ns) + ", last " + utc_text(failures.last_failed_at_ns);
  if (failures.blacklisted)
    text += "; blacklisted until memkv drive reset " + snapshot.path;
  return text;
}

} // namespace

std::uint64_t drive_snapshot::used_bytes() const noexcept {
  return facts.units_taken * facts.super.places.unit_bytes;
}

std::uint64_t drive_snapshot::usable_bytes() const noexcept {
  return std::uint64_t{facts.super.places.units} * facts.super.places.unit_bytes;
}

std::string read_snapshot(engine::block_device& device, const engine::identity& boot_id,
                          drive_snapshot& out) {
  engine::drive_content content;
  if (const auto looked = engine::look_at_content(device, content); !looked.ok())
    return looked.text;
  if (const auto why = engine::why_not_ours(content); !why.empty())
    return why;
  engine::check_options options;
  options.boot_id = boot_id;
  if (const auto read = engine::read_drive_facts(device, options, out.facts); !read.ok())
    return "cannot be judged: " + read.text;
  return {};
}

std::string_view superblock_state(errc state) noexcept {
  switch (state) {
  case errc::ok:
    return "ok";
  case errc::bad_format:
    return "not memkv's";
  case errc::newer_version:
    return "of a later release";
  case errc::io_error:
    return "unreadable";
  default:
    return "damaged";
  }
}

std::string_view shutdown_state(const engine::drive_facts& facts) noexcept {
  if (facts.super.clean)
    return "clean";
  return facts.emptied_by_power_loss ? "emptied at the next start" : "unclean";
}

std::string snapshot_text(const drive_snapshot& snapshot) {
  const auto& facts = snapshot.facts;
  const auto& super = facts.super;
  std::string text = snapshot.path + "\n";
  text += text_row("model", snapshot.model.empty() ? "unknown" : snapshot.model);
  if (!snapshot.serial.empty())
    text += text_row("serial", snapshot.serial);
  text += text_row("capacity",
                   about_size(facts.device_bytes) + " (" + std::to_string(facts.device_bytes) + " bytes)");
  text += text_row("fill",
                   counted(super.blocks, "block", "blocks") + ", " + about_size(snapshot.used_bytes()) +
                       " of " + about_size(snapshot.usable_bytes()) + " (" +
                       percent(snapshot.used_bytes(), snapshot.usable_bytes()) + "), at the last checkpoint");
  text += text_row("state", state_text(facts));
  text += text_row("journal", journal_text(facts));
  text += text_row("set", hex_text(super.set.set_id) + ", drive " + std::to_string(super.set.drive_index) +
                              " of " + std::to_string(super.set.drive_count) + ", epoch " +
                              std::to_string(super.set_epoch));
  text += text_row("format", "version " + std::to_string(facts.version) + " of " +
                                 utc_text(super.formatted_at_ns) + ", shard size " +
                                 format_size(super.places.unit_bytes) + ", block size " +
                                 format_size(super.places.extent_bytes_max));
  text += text_row("superblocks", "primary " + std::string(superblock_state(facts.superblocks[0])) +
                                      ", mirror " + std::string(superblock_state(facts.superblocks[1])));
  if (facts.bitmap_pages_damaged > 0)
    text += text_row("bitmap", counted(facts.bitmap_pages_damaged, "page", "pages") +
                                   " cannot be read: run memkv drive verify " + snapshot.path);
  return text + text_row("failures", failures_text(snapshot));
}

std::string snapshot_json(const drive_snapshot& snapshot) {
  using json = nlohmann::ordered_json;
  const auto& facts = snapshot.facts;
  const auto& super = facts.super;
  const json document = {
      {"report", "health"},
      {"path", snapshot.path},
      {"model", snapshot.model},
      {"serial", snapshot.serial},
      {"capacity_bytes", facts.device_bytes},
      {"state", shutdown_state(facts)},
      {"superblocks",
       {{"primary", superblock_state(facts.superblocks[0])},
        {"mirror", superblock_state(facts.superblocks[1])}}},
      {"format",
       {{"version", facts.version},
        {"format_id", hex_text(super.format_id)},
        {"formatted_at", super.formatted_at_ns / ns_per_s},
        {"shard_bytes", super.places.unit_bytes},
        {"block_bytes", super.places.extent_bytes_max}}},
      {"set",
       {{"set_id", hex_text(super.set.set_id)},
        {"drive_id", hex_text(super.drive_id)},
        {"device_id", super.set.drive_index},
        {"num_devices", super.set.drive_count},
        {"epoch", super.set_epoch}}},
      {"fill",
       {{"blocks", super.blocks},
        {"used_bytes", snapshot.used_bytes()},
        {"usable_bytes", snapshot.usable_bytes()},
        {"damaged_bitmap_pages", facts.bitmap_pages_damaged}}},
      {"journal",
       {{"bytes", super.places.journal_bytes},
        {"batches", facts.pending_batches},
        {"records", facts.pending_records}}},
      {"failures",
       {{"device_id", super.set.drive_index},
        {"failure_count", super.failures.failure_count},
        {"first_failed_at", super.failures.first_failed_at_ns / ns_per_s},
        {"last_failed_at", super.failures.last_failed_at_ns / ns_per_s},
        {"blacklisted", super.failures.blacklisted}}},
  };
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

} // namespace memkv::cli
