// The tree region: every page by itself, then the tree that the superblock names, then its entries.
#include "engine/drive_checker.hpp"

#include "engine/id_range.hpp"
#include "wire/assert.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

constexpr std::size_t leaves_in_flight = 64;

} // namespace

void drive_checker::summarise(std::uint32_t page, std::span<const std::byte> bytes, errc read) {
  page_summary& summary = summaries_[page];
  if (read != errc::ok) {
    summary.state = errc::io_error;
    return;
  }
  tree_page found;
  summary.state = decode(bytes, super().format_id, page, places(), found);
  if (summary.state != errc::ok)
    return;
  static_cast<tree_page_facts&>(summary) = facts_of(bytes, found.header);
  if (found.header.level > 0)
    children_.insert_or_assign(page, std::move(found.children));
}

status drive_checker::look_at_tree() {
  const layout& at = places();
  const std::uint64_t region_bytes = std::uint64_t{at.tree_pages} * tree_page_bytes;
  bytes_total_ += region_bytes + at.journal_bytes + at.bitmap_pages * page_bytes;
  advance(check_stage::tree, 0);
  summaries_.resize(at.tree_pages);
  tree_claimed_.assign(at.tree_pages, false);
  tree_evidence_.assign(at.tree_pages, false);
  sweep(check_stage::tree, at.tree_offset, region_bytes, tree_page_bytes,
        [&](std::uint64_t offset, std::span<const std::byte> bytes, errc result) {
          for (std::size_t i = 0; i < bytes.size(); i += tree_page_bytes)
            summarise(static_cast<std::uint32_t>((offset - at.tree_offset + i) / tree_page_bytes),
                      bytes.subspan(i, tree_page_bytes), result);
        });
  report_.counts.tree_pages = at.tree_pages;
  if (super().root.page != no_tree_page) {
    if (status walked = walk(super().root_level, super().root, key_id{}, highest_id()); !walked.ok())
      return walked;
  } else {
    leaves_.push_back({key_id{}, highest_id(), 0, no_tree_page});
  }
  for (std::uint32_t page = 0; page < at.tree_pages; ++page) {
    if (summaries_[page].state == errc::io_error)
      find(finding_kind::unreadable, tree_claimed_[page] ? check_region::tree : check_region::tree_unused,
           at.tree_offset + std::uint64_t{page} * tree_page_bytes, tree_page_bytes,
           "the device cannot read page " + std::to_string(page) + " of the tree region");
    if (tree_claimed_[page] && summaries_[page].state == errc::ok &&
        summaries_[page].sequence > super().tree_sequence) {
      tree_is_right_ = false;
      find(finding_kind::tree_counts_differ, check_region::tree,
           at.tree_offset + std::uint64_t{page} * tree_page_bytes, tree_page_bytes,
           "page " + std::to_string(page) + " of the tree is younger than its superblock");
    }
  }
  highest_generation_ = super().generation;
  load_leaves();
  children_.clear();
  return {};
}

void drive_checker::lose(const key_id& first, const key_id& last) {
  tree_is_right_ = false;
  ++report_.counts.tree_pages_damaged;
  leaves_.push_back({first, last, 0, no_tree_page});
}

status drive_checker::walk(std::uint8_t level, const tree_reference& reference, const key_id& first,
                           const key_id& last) {
  const std::uint64_t offset = places().tree_offset + std::uint64_t{reference.page} * tree_page_bytes;
  const std::string named = "page " + std::to_string(reference.page) + " of the tree";
  if (tree_claimed_[reference.page]) {
    find(finding_kind::tree_page_repeated, check_region::tree, offset, tree_page_bytes,
         named + " has two parents");
    lose(first, last);
    return {};
  }
  tree_claimed_[reference.page] = true;
  const page_summary& summary = summaries_[reference.page];
  if (summary.state == errc::newer_version)
    return {errc::newer_version, newer_text(named.c_str(), tree_version)};
  const bool meant = summary.state == errc::ok && summary.checksum == reference.checksum &&
                     summary.sequence == reference.sequence && summary.level == level &&
                     summary.first == first && summary.last == last;
  if (!meant && summary.state == errc::io_error) {
    // What the device cannot read may be whole: nobody may write a new tree on the strength of that.
    metadata_unreadable_ = true;
    lose(first, last);
    return {};
  }
  if (!meant) {
    const std::vector<tree_child> proven =
        level == 0 ? std::vector<tree_child>{} : reconstruct(level, reference, first, last);
    find(finding_kind::tree_page_damaged, check_region::tree, offset, tree_page_bytes,
         named +
             (summary.state == errc::ok ? " is a whole page, but not the one that is meant" : " is damaged") +
             (!proven.empty() ? ": what it said could be proven from the pages below it, nothing is lost"
              : level == 0    ? ": the blocks it named are lost"
                              : ": the blocks that all pages below it named are lost"));
    if (proven.empty()) {
      lose(first, last);
      return {};
    }
    tree_is_right_ = false;
    ++report_.counts.tree_pages_damaged;
    return walk_children(level, proven, last);
  }
  ++report_.counts.tree_pages_used;
  if (level == 0) {
    leaves_.push_back({first, last, summary.journal_sequence, reference.page});
    return {};
  }
  return walk_children(level, children_.at(reference.page), last);
}

status drive_checker::walk_children(std::uint8_t level, const std::vector<tree_child>& children,
                                    const key_id& last) {
  for (std::size_t i = 0; i < children.size(); ++i) {
    const key_id end = i + 1 < children.size() ? before(children[i + 1].first) : last;
    if (status walked = walk(level - 1, children[i].reference, children[i].first, end); !walked.ok())
      return walked;
  }
  return {};
}

std::vector<tree_child> drive_checker::reconstruct(std::uint8_t level, const tree_reference& reference,
                                                   const key_id& first, const key_id& last) {
  if (by_range_.empty()) {
    for (const page_summary& summary : summaries_)
      if (summary.state == errc::ok)
        by_range_.push_back(&summary);
    order_by_range(by_range_);
  }
  return prove_children(places(), super().format_id, level, reference, first, last, by_range_,
                        [&](const tree_page_facts& seen) {
                          tree_evidence_[seen.page] = true;
                          return !tree_claimed_[seen.page];
                        });
}

checked_entry drive_checker::entry_of(const entry_record& record) {
  checked_entry entry;
  entry.id = record.id;
  entry.generation = record.generation;
  entry.put_id = record.put_id;
  entry.value_length = record.value_length;
  entry.first_unit = record.first_unit;
  entry.header_page = record.header_page;
  entry.header_crc32c = record.header_crc32c;
  entry.units = record.units;
  entry.flags = record.flags;
  return entry;
}

entry_record drive_checker::record_of(const checked_entry& entry) const {
  entry_record record;
  record.kind = (entry.flags & entry_part) != 0 ? record_kind::prepare : record_kind::put;
  record.flags = entry.flags;
  record.id = entry.id;
  record.generation = entry.generation;
  record.put_id = entry.put_id;
  record.value_length = entry.value_length;
  record.first_unit = entry.first_unit;
  record.header_page = entry.header_page;
  record.header_crc32c = entry.header_crc32c;
  record.units = entry.units;
  if (entry.flags != 0) {
    const checked_extra& extra = extras_.at(entry.id);
    record.runs = extra.runs;
    record.head = extra.head;
    record.parts = extra.parts;
  }
  return record;
}

void drive_checker::load_leaf(leaf& of, std::span<const std::byte> bytes, errc read) {
  tree_page page;
  if (read != errc::ok || decode(bytes, super().format_id, of.page, places(), page) != errc::ok ||
      page.header.sequence != summaries_[of.page].sequence) {
    // It was whole a moment ago.
    find(finding_kind::unreadable, check_region::tree,
         places().tree_offset + std::uint64_t{of.page} * tree_page_bytes, tree_page_bytes,
         "the device read page " + std::to_string(of.page) + " of the tree once and then no more");
    metadata_unreadable_ = true;
    tree_is_right_ = false;
    of.journal_sequence = 0;
    return;
  }
  for (const entry_record& record : page.entries) {
    entries_.push_back(entry_of(record));
    if (record.flags != 0)
      extras_[record.id] = {record.runs, record.head, record.parts};
    highest_generation_ = std::max(highest_generation_, record.generation);
  }
}

void drive_checker::load_leaves() {
  aligned_bytes buffer(leaves_in_flight * tree_page_bytes);
  std::vector<leaf*> whole;
  for (leaf& each : leaves_)
    if (each.page != no_tree_page)
      whole.push_back(&each);
  for (std::size_t begin = 0; begin < whole.size(); begin += leaves_in_flight) {
    const std::size_t count = std::min(leaves_in_flight, whole.size() - begin);
    std::vector<errc> results(count, errc::ok);
    std::size_t left = count;
    for (std::size_t i = 0; i < count; ++i)
      io_.read(places().tree_offset + std::uint64_t{whole[begin + i]->page} * tree_page_bytes,
               buffer.span().subspan(i * tree_page_bytes, tree_page_bytes), [&, i](errc result) {
                 results[i] = result;
                 --left;
               });
    while (left > 0)
      io_.poll(true);
    for (std::size_t i = 0; i < count; ++i)
      load_leaf(*whole[begin + i], buffer.span().subspan(i * tree_page_bytes, tree_page_bytes), results[i]);
  }
  report_.counts.tree_entries = entries_.size();
  summaries_.clear();
  summaries_.shrink_to_fit();
  by_range_.clear();
}

} // namespace memkv::engine
