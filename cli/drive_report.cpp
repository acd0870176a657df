#include "cli/drive_report.hpp"

#include "cli/drive_snapshot.hpp"
#include "cli/drive_text.hpp"

#include <nlohmann/json.hpp>

#include <array>

namespace memkv::cli {

namespace {

using engine::check_report;
using engine::check_severity;
using engine::finding_kind;
using json = nlohmann::ordered_json;

constexpr std::size_t lines_max = 100; // findings printed for people; all are counted

std::string tree_text(const check_report& check) {
  const auto& counts = check.counts;
  return counted(counts.tree_pages, "page", "pages") + " swept, " + std::to_string(counts.tree_pages_used) +
         " in use, " + std::to_string(counts.tree_pages_damaged) + " damaged, " +
         counted(counts.tree_entries, "entry", "entries");
}

std::string journal_text(const check_report& check) {
  const auto& counts = check.counts;
  if (counts.journal_batches == 0 && counts.journal_holes == 0)
    return check.facts.super.clean ? "empty: the drive was closed in order" : "nothing to replay";
  return counted(counts.journal_batches, "batch", "batches") + " with " +
         counted(counts.journal_records, "record", "records") + " replayed in memory, " +
         counted(counts.journal_holes, "hole", "holes");
}

std::string space_text(const check_report& check) {
  const auto& counts = check.counts;
  std::string text = counted(counts.units_owned, "unit", "units") + " in use by " +
                     counted(counts.blocks, "block", "blocks");
  if (counts.bitmap_compared)
    return text + ", " + std::to_string(counts.units_leaked) + " leaked, " +
           std::to_string(counts.units_missing) + " missing in the bitmap";
  return text + "; the bitmap is out of date until the next start and was not compared";
}

std::string data_text(const check_report& check) {
  if (check.quick)
    return "not read (--quick)";
  const auto& counts = check.counts;
  return counted(counts.blocks_verified, "block", "blocks") + " with " + about_size(counts.bytes_verified) +
         " read and right, " + std::to_string(counts.blocks_damaged) + " damaged";
}

std::string findings_text(const drive_report& report) {
  std::string text;
  std::size_t lines = 0;
  for (const auto& finding : report.check.findings) {
    if (++lines > lines_max)
      break;
    text += "  " + std::string(name(finding.severity())) + " at byte " + std::to_string(finding.offset) +
            ": " + finding.text + "\n";
  }
  const std::uint64_t shown = std::min<std::uint64_t>(report.check.findings.size(), lines_max);
  const std::uint64_t more = report.check.findings.size() - shown + report.check.left_out();
  if (more > 0)
    text += "  and " + counted(more, "more", "more") + "\n";
  return text;
}

// By kind, with what a repair makes of it.
std::string errors_text(const check_report& check) {
  std::string text;
  for (std::size_t kind = 0; kind < engine::finding_kinds; ++kind) {
    const auto which = static_cast<finding_kind>(kind);
    if (check.found[kind] > 0 && severity_of(which) == check_severity::error)
      text += "  " + std::to_string(check.found[kind]) + " x " + std::string(name(which)) + ": " +
              std::string(remedy_of(which)) + "\n";
  }
  return text;
}

std::string repair_text(const engine::repair_report& repair) {
  if (!repair.changed)
    return text_row("repair", "there was nothing to mend, and nothing was written");
  std::string text = text_row("repair", counted(repair.blocks_kept, "block", "blocks") + " kept, " +
                                            std::to_string(repair.blocks_dropped) + " dropped");
  text += text_row("written", counted(repair.tree_pages_written, "tree page", "tree pages") +
                                  (repair.tree_rebuilt ? " (the tree was made anew)" : "") + ", " +
                                  counted(repair.bitmap_pages_written, "bitmap page", "bitmap pages") + ", " +
                                  counted(repair.superblocks_written, "superblock", "superblocks"));
  if (repair.journal_reset)
    text += text_row("journal", "its content is in the tree now, and it is empty");
  if (repair.marked_clean)
    text += text_row("state", "the drive counts as closed in order");
  for (std::size_t i = 0; i < repair.dropped.size() && i < lines_max; ++i) {
    const auto& each = repair.dropped[i];
    text += "  dropped " + hex_text(each.id.bytes) + " (" + about_size(each.value_length) +
            "): " + std::string(name(each.why)) + "\n";
  }
  const auto shown = std::min<std::uint64_t>(repair.dropped.size(), lines_max);
  if (repair.blocks_dropped > shown)
    text += "  and " + std::to_string(repair.blocks_dropped - shown) + " more\n";
  return text;
}

json findings_json(const check_report& check) {
  json list = json::array();
  for (const auto& finding : check.findings)
    list.push_back({{"kind", name(finding.kind)},
                    {"severity", name(finding.severity())},
                    {"region", name(finding.region)},
                    {"offset", finding.offset},
                    {"length", finding.length},
                    {"block", finding.id ? hex_text(finding.id->bytes) : std::string()},
                    {"text", finding.text}});
  return list;
}

json found_json(const check_report& check) {
  json list = json::array();
  for (std::size_t kind = 0; kind < engine::finding_kinds; ++kind)
    if (check.found[kind] > 0)
      list.push_back({{"kind", name(static_cast<finding_kind>(kind))},
                      {"severity", name(severity_of(static_cast<finding_kind>(kind)))},
                      {"count", check.found[kind]}});
  return list;
}

json regions_json(const check_report& check) {
  json list = json::array();
  for (std::size_t region = 0; region < engine::check_regions; ++region) {
    const auto& account = check.regions[region];
    list.push_back({{"region", name(static_cast<engine::check_region>(region))},
                    {"bytes", account.bytes},
                    {"read_bytes", account.read},
                    {"covered_bytes", account.covered}});
  }
  return list;
}

json repair_json(const drive_report& report) {
  const auto& repair = report.repair;
  json dropped = json::array();
  for (const auto& each : repair.dropped)
    dropped.push_back({{"block", hex_text(each.id.bytes)},
                       {"why", name(each.why)},
                       {"generation", each.generation},
                       {"value_bytes", each.value_length}});
  return {{"done", report.repaired},
          {"changed", repair.changed},
          {"errors_left", report.errors_left},
          {"blocks_kept", repair.blocks_kept},
          {"blocks_dropped", repair.blocks_dropped},
          {"tree_rebuilt", repair.tree_rebuilt},
          {"tree_pages_written", repair.tree_pages_written},
          {"bitmap_pages_written", repair.bitmap_pages_written},
          {"superblocks_written", repair.superblocks_written},
          {"journal_reset", repair.journal_reset},
          {"marked_clean", repair.marked_clean},
          {"dropped", std::move(dropped)}};
}

} // namespace

std::string_view remedy_of(finding_kind kind) noexcept {
  switch (kind) {
  case finding_kind::superblock_damaged:
  case finding_kind::superblock_foreign:
  case finding_kind::superblock_behind:
    return "both superblocks are written anew";
  case finding_kind::tree_page_damaged:
  case finding_kind::tree_page_repeated:
  case finding_kind::tree_counts_differ:
    return "the tree is made anew from the entries that survive";
  case finding_kind::journal_hole:
  case finding_kind::journal_not_empty:
    return "what can be proven of the journal goes into the tree, and the journal is emptied";
  case finding_kind::block_unproven:
  case finding_kind::entry_contradicts:
  case finding_kind::two_owners:
  case finding_kind::header_damaged:
  case finding_kind::data_damaged:
    return "the block is dropped and becomes a miss";
  case finding_kind::bitmap_page_damaged:
  case finding_kind::units_leaked:
  case finding_kind::units_missing:
    return "the bitmap is made anew from the tree";
  case finding_kind::unreadable:
    return "what the device cannot read any more is dropped; look at the kernel's log, the drive may be "
           "failing";
  case finding_kind::superblock_interrupted:
  case finding_kind::journal_torn_tail:
  case finding_kind::put_unfinished:
  case finding_kind::head_missing:
  case finding_kind::emptied_by_power_loss:
  case finding_kind::blacklisted:
    break;
  }
  return "nothing";
}

std::string report_text(const drive_report& report) {
  const auto& check = report.check;
  const auto& super = check.facts.super;
  std::string text = report.path + "\n";
  text += text_row("drive", std::to_string(super.set.drive_index) + " of " +
                                std::to_string(super.set.drive_count) + ", set " +
                                hex_text(super.set.set_id) + ", " + std::string(shutdown_state(check.facts)));
  text +=
      text_row("superblocks", "primary " + std::string(superblock_state(check.facts.superblocks[0])) +
                                  ", mirror " + std::string(superblock_state(check.facts.superblocks[1])));
  if (!check.facts.emptied_by_power_loss) {
    text += text_row("tree", tree_text(check));
    text += text_row("journal", journal_text(check));
    text += text_row("space", space_text(check));
    text += text_row("data", data_text(check));
  }
  text += text_row("looked at", std::to_string(check.bytes_accounted()) + " of " +
                                    std::to_string(check.facts.device_bytes) +
                                    " bytes, each in one named region");
  text += findings_text(report);
  if (report.repaired)
    return text + repair_text(report.repair) +
           text_row("result",
                    report.clean() ? "clean" : counted(report.errors_left, "error", "errors") + " left");
  const std::uint64_t errors = check.total(check_severity::error);
  if (report.fsck && errors > 0)
    text += text_row("would repair", counted(errors, "error", "errors")) + errors_text(check);
  return text + text_row("result", report.clean() ? "clean" : counted(errors, "error", "errors"));
}

std::string report_json(const drive_report& report) {
  const auto& check = report.check;
  const auto& facts = check.facts;
  const auto& super = facts.super;
  const auto& counts = check.counts;
  json document = {
      {"report", report.fsck ? "fsck" : "verify"},
      {"path", report.path},
      {"model", report.model},
      {"serial", report.serial},
      {"clean", report.clean()},
      {"quick", check.quick},
      {"complete", check.complete},
      {"errors", check.total(check_severity::error)},
      {"warnings", check.total(check_severity::warning)},
      {"notes", check.total(check_severity::note)},
      {"capacity_bytes", facts.device_bytes},
      {"accounted_bytes", check.bytes_accounted()},
      {"state", shutdown_state(facts)},
      {"superblocks",
       {{"primary", superblock_state(facts.superblocks[0])},
        {"mirror", superblock_state(facts.superblocks[1])}}},
      {"set",
       {{"set_id", hex_text(super.set.set_id)},
        {"drive_id", hex_text(super.drive_id)},
        {"device_id", super.set.drive_index},
        {"num_devices", super.set.drive_count},
        {"epoch", super.set_epoch}}},
      {"tree",
       {{"pages", counts.tree_pages},
        {"pages_used", counts.tree_pages_used},
        {"pages_damaged", counts.tree_pages_damaged},
        {"entries", counts.tree_entries}}},
      {"journal",
       {{"batches", counts.journal_batches},
        {"records", counts.journal_records},
        {"holes", counts.journal_holes}}},
      {"space",
       {{"blocks", counts.blocks},
        {"parts", counts.parts},
        {"units_owned", counts.units_owned},
        {"units_leaked", counts.units_leaked},
        {"units_missing", counts.units_missing},
        {"bitmap_compared", counts.bitmap_compared}}},
      {"data",
       {{"blocks_verified", counts.blocks_verified},
        {"bytes_verified", counts.bytes_verified},
        {"blocks_damaged", counts.blocks_damaged}}},
      {"regions", regions_json(check)},
      {"found", found_json(check)},
      {"findings", findings_json(check)},
      {"findings_left_out", check.left_out()},
  };
  if (report.fsck)
    document["repair"] = repair_json(report);
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string report_advice(const drive_report& report) {
  if (report.clean())
    return {};
  if (report.repaired)
    return report.path + " still has " + counted(report.errors_left, "error", "errors") +
           " after the repair: the drive may be failing, look at the kernel's log";
  const std::uint64_t errors = report.check.total(check_severity::error);
  if (errors == 0)
    return report.path + " could not be checked to the end: run the command again";
  return report.path + " has " + counted(errors, "error", "errors") + ": run memkv drive fsck --repair " +
         report.path;
}

} // namespace memkv::cli
