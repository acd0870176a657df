#include "cli/drive_snapshot.hpp"

#include "cli/command_line.hpp" // format_size
#include "cli/drive_text.hpp"
#include "engine/bitmap_page.hpp"
#include "engine/drive_io.hpp"
#include "engine/journal_batch.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <vector>

namespace memkv::cli {

namespace {

using engine::errc;
using engine::page_bytes;

constexpr std::uint64_t ns_per_s = 1'000'000'000;

bool has_pending_journal(const drive_snapshot& snapshot) {
  return !snapshot.content.super.clean && !snapshot.emptied_at_start;
}

void read_bitmap(engine::drive_io& io, drive_snapshot& out) {
  const auto& super = out.content.super;
  const auto& places = super.places;
  engine::aligned_bytes page(page_bytes);
  std::uint64_t used_units = 0;
  for (std::uint32_t at = 0; at < places.bitmap_pages; ++at) {
    const std::uint32_t units =
        std::min(engine::bitmap_bits_per_page, places.units - at * engine::bitmap_bits_per_page);
    engine::bitmap_page_header header;
    std::span<const std::byte> bits;
    const auto from = std::span<const std::byte, page_bytes>(page.data(), std::size_t{page_bytes});
    if (io.read_now(places.bitmap_offset + std::uint64_t{at} * page_bytes, page.span()) != errc::ok ||
        engine::decode(from, super.format_id, at, units, header, bits) != errc::ok) {
      ++out.bitmap_pages_unreadable;
      continue;
    }
    for (const std::byte each : bits)
      used_units += static_cast<unsigned>(std::popcount(std::to_integer<std::uint8_t>(each)));
  }
  out.used_bytes = used_units * places.unit_bytes;
  out.usable_bytes = std::uint64_t{places.units} * places.unit_bytes;
}

bool read_journal(engine::drive_io& io, drive_snapshot& out) {
  const auto& super = out.content.super;
  const auto& places = super.places;
  engine::aligned_bytes region(places.journal_bytes);
  if (io.read_now(places.journal_offset, region.span()) != errc::ok)
    return false;
  for (std::uint64_t at = 0; at < places.journal_bytes;) {
    engine::journal_batch batch;
    const auto decoded =
        engine::decode(region.span().subspan(at), super.format_id, places.journal_offset + at, places, batch);
    if (decoded != errc::ok) {
      at += page_bytes;
      continue;
    }
    if (batch.header.sequence >= super.journal_tail_sequence) {
      ++out.journal_batches;
      out.journal_records += batch.records.size();
    }
    at += batch.header.length;
  }
  return true;
}

std::string percent(std::uint64_t part, std::uint64_t whole) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %%",
                whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  return text.data();
}

std::string row(std::string_view name, const std::string& value) {
  constexpr std::size_t column = 15;
  std::string text = "  " + std::string(name);
  text.append(column > name.size() ? column - name.size() : 1, ' ');
  return text + value + "\n";
}

std::string state_text(const drive_snapshot& snapshot) {
  if (snapshot.content.super.clean)
    return "clean";
  if (snapshot.emptied_at_start)
    return "the power was lost while it was used without storage.sync: memkv start will empty it";
  return "unclean: it was not closed in order, and memkv start will replay its journal";
}

std::string journal_text(const drive_snapshot& snapshot) {
  const std::string size = about_size(snapshot.journal_bytes);
  if (!has_pending_journal(snapshot))
    return "empty (" + size + ")";
  return std::to_string(snapshot.journal_batches) + " batches with " +
         std::to_string(snapshot.journal_records) + " records to be replayed (" + size + ")";
}

std::string failures_text(const drive_snapshot& snapshot) {
  const auto& failures = snapshot.content.super.failures;
  if (failures == engine::failure_registry{} ||
      (failures.failure_count == 0 && !failures.blacklisted && failures.last_failed_at_ns == 0))
    return "none";
  std::string text = std::to_string(failures.failure_count) + ", first " +
                     utc_text(failures.first_failed_at_ns) + ", last " + utc_text(failures.last_failed_at_ns);
  if (failures.blacklisted)
    text += "; blacklisted until memkv drive reset " + snapshot.path;
  return text;
}

} // namespace

std::string read_snapshot(engine::block_device& device, const engine::identity& boot_id,
                          drive_snapshot& out) {
  if (const auto looked = look_at_content(device, out.content); !looked.ok())
    return looked.text;
  out.capacity_bytes = device.information().size_bytes;
  if (const auto why = why_not_ours(out.content); !why.empty())
    return why;
  const auto& super = out.content.super;
  if (out.content.fits == errc::wrong_size)
    return "has " + std::to_string(out.capacity_bytes) + " bytes, but was formatted with " +
           std::to_string(super.places.device_bytes) + ": give it its size back, or reset it";
  if (out.content.fits != errc::ok)
    return "has a superblock that contradicts itself: reset the drive";
  out.blocks = super.blocks;
  out.journal_bytes = super.places.journal_bytes;
  out.emptied_at_start = !super.clean && super.sync == engine::sync_policy::never && super.boot_id != boot_id;
  engine::drive_io io(device);
  read_bitmap(io, out);
  if (has_pending_journal(out) && !read_journal(io, out))
    return "cannot be read where its journal is: look at the kernel's log";
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

std::string_view shutdown_state(const drive_snapshot& snapshot) noexcept {
  if (snapshot.content.super.clean)
    return "clean";
  return snapshot.emptied_at_start ? "emptied at the next start" : "unclean";
}

std::string snapshot_text(const drive_snapshot& snapshot) {
  const auto& content = snapshot.content;
  const auto& super = content.super;
  std::string text = snapshot.path + "\n";
  text += row("model", snapshot.model.empty() ? "unknown" : snapshot.model);
  if (!snapshot.serial.empty())
    text += row("serial", snapshot.serial);
  text += row("capacity", about_size(snapshot.capacity_bytes) + " (" +
                              std::to_string(snapshot.capacity_bytes) + " bytes)");
  text += row("fill", std::to_string(snapshot.blocks) + " blocks, " + about_size(snapshot.used_bytes) +
                          " of " + about_size(snapshot.usable_bytes) + " (" +
                          percent(snapshot.used_bytes, snapshot.usable_bytes) + "), at the last checkpoint");
  text += row("state", state_text(snapshot));
  text += row("journal", journal_text(snapshot));
  text +=
      row("set", hex_text(super.set.set_id) + ", drive " + std::to_string(super.set.drive_index) + " of " +
                     std::to_string(super.set.drive_count) + ", epoch " + std::to_string(super.set_epoch));
  text +=
      row("format", "version " + std::to_string(content.version) + " of " + utc_text(super.formatted_at_ns) +
                        ", shard size " + format_size(super.places.unit_bytes) + ", block size " +
                        format_size(super.places.extent_bytes_max));
  text += row("superblocks", "primary " + std::string(superblock_state(content.copies[0])) + ", mirror " +
                                 std::string(superblock_state(content.copies[1])));
  if (snapshot.bitmap_pages_unreadable > 0)
    text += row("bitmap", std::to_string(snapshot.bitmap_pages_unreadable) +
                              " pages cannot be read: run memkv drive verify " + snapshot.path);
  return text + row("failures", failures_text(snapshot));
}

std::string snapshot_json(const drive_snapshot& snapshot) {
  using json = nlohmann::ordered_json;
  const auto& content = snapshot.content;
  const auto& super = content.super;
  const json document = {
      {"report", "health"},
      {"path", snapshot.path},
      {"model", snapshot.model},
      {"serial", snapshot.serial},
      {"capacity_bytes", snapshot.capacity_bytes},
      {"state", shutdown_state(snapshot)},
      {"superblocks",
       {{"primary", superblock_state(content.copies[0])}, {"mirror", superblock_state(content.copies[1])}}},
      {"format",
       {{"version", content.version},
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
       {{"blocks", snapshot.blocks},
        {"used_bytes", snapshot.used_bytes},
        {"usable_bytes", snapshot.usable_bytes},
        {"unreadable_bitmap_pages", snapshot.bitmap_pages_unreadable}}},
      {"journal",
       {{"bytes", snapshot.journal_bytes},
        {"batches", snapshot.journal_batches},
        {"records", snapshot.journal_records}}},
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
