#include "engine/drive_check.hpp"

#include "engine/bitmap_page.hpp"
#include "engine/drive_checker.hpp"
#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

namespace memkv::engine {

namespace {

struct kind_row {
  std::string_view name;
  check_severity severity;
};

constexpr std::array<kind_row, finding_kinds> kinds{{
    {"superblock_damaged", check_severity::error},  {"superblock_foreign", check_severity::error},
    {"superblock_behind", check_severity::error},   {"superblock_interrupted", check_severity::note},
    {"tree_page_damaged", check_severity::error},   {"tree_page_repeated", check_severity::error},
    {"tree_counts_differ", check_severity::error},  {"journal_hole", check_severity::error},
    {"journal_torn_tail", check_severity::note},    {"journal_not_empty", check_severity::error},
    {"put_unfinished", check_severity::note},       {"block_unproven", check_severity::error},
    {"entry_contradicts", check_severity::error},   {"two_owners", check_severity::error},
    {"bitmap_page_damaged", check_severity::error}, {"units_leaked", check_severity::error},
    {"units_missing", check_severity::error},       {"header_damaged", check_severity::error},
    {"data_damaged", check_severity::error},        {"unreadable", check_severity::error},
    {"head_missing", check_severity::note},         {"emptied_by_power_loss", check_severity::warning},
    {"blacklisted", check_severity::warning},
}};

constexpr std::array<std::string_view, check_regions> region_names{
    "superblock",  "bitmap",     "journal",       "journal_unused", "tree",
    "tree_unused", "gap",        "extent_header", "extent_data",    "extent_unused",
    "free_units",  "end_unused", "mirror",        "outside",        "void_space"};

constexpr std::array<std::string_view, check_stages> stage_names{"superblocks", "tree", "journal",
                                                                 "space",       "data", "repair"};

} // namespace

std::string_view name(check_region region) noexcept {
  return region_names[static_cast<std::size_t>(region)];
}

std::string_view name(check_severity severity) noexcept {
  constexpr std::array<std::string_view, 3> names{"note", "warning", "error"};
  return names[static_cast<std::size_t>(severity)];
}

std::string_view name(finding_kind kind) noexcept {
  return kinds[static_cast<std::size_t>(kind)].name;
}

check_severity severity_of(finding_kind kind) noexcept {
  return kinds[static_cast<std::size_t>(kind)].severity;
}

std::string_view name(check_stage stage) noexcept {
  return stage_names[static_cast<std::size_t>(stage)];
}

std::uint64_t check_report::total(check_severity severity) const noexcept {
  std::uint64_t sum = 0;
  for (std::size_t kind = 0; kind < finding_kinds; ++kind)
    if (kinds[kind].severity == severity)
      sum += found[kind];
  return sum;
}

std::uint64_t check_report::left_out() const noexcept {
  return std::accumulate(found.begin(), found.end(), std::uint64_t{0}) - findings.size();
}

std::uint64_t check_report::bytes_accounted() const noexcept {
  std::uint64_t sum = 0;
  for (const region_account& region : regions)
    sum += region.bytes;
  return sum;
}

status check_drive(block_device& device, const check_options& options, check_report& report) {
  return drive_checker(device, options, report).look();
}

status read_drive_facts(block_device& device, const check_options& options, drive_facts& facts) {
  check_report report;
  drive_checker checker(device, options, report);
  status found = checker.look_at_superblocks();
  if (found.ok() && !report.facts.emptied_by_power_loss)
    found = checker.read_facts();
  facts = std::move(report.facts);
  return found;
}

status drive_checker::read_facts() {
  drive_facts& facts = report_.facts;
  const layout& at = places();
  aligned_bytes region(at.journal_bytes);
  if (io_.read_now(at.journal_offset, region.span()) != errc::ok)
    return {errc::io_error, "the device cannot read the journal: look at the kernel's log"};
  if (scan_journal(region.span(), super(), scan_) == errc::newer_version)
    return {errc::newer_version, newer_text("the journal", journal_version)};
  facts.pending_batches = scan_.batches.size();
  for (const auto& [sequence, batch] : scan_.batches)
    facts.pending_records += batch.records.size();
  facts.torn_tail = scan_.damaged_at.has_value() && !super().clean;
  sweep(check_stage::space, at.bitmap_offset, at.bitmap_pages * page_bytes, page_bytes,
        [&](std::uint64_t offset, std::span<const std::byte> bytes, errc result) {
          for (std::size_t i = 0; i < bytes.size(); i += page_bytes) {
            const auto page = static_cast<std::uint32_t>((offset - at.bitmap_offset + i) / page_bytes);
            bitmap_page_header header;
            std::span<const std::byte> bits;
            if (result != errc::ok ||
                decode(std::span<const std::byte, page_bytes>(bytes.data() + i, std::size_t{page_bytes}),
                       super().format_id, page, units_of_page(page), header, bits) != errc::ok) {
              ++facts.bitmap_pages_damaged;
              continue;
            }
            for (const std::byte each : bits)
              facts.units_taken += static_cast<std::uint64_t>(std::popcount(std::to_integer<unsigned>(each)));
          }
        });
  return {};
}

} // namespace memkv::engine
