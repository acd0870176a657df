// The journal, replayed in memory: the rules of docs/formats/journal.md on a plain list of entries.
#include "engine/drive_checker.hpp"
#include "engine/extent_check.hpp"
#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

key_id id_from_head(std::uint64_t head, std::byte rest) {
  key_id id;
  id.bytes.fill(rest);
  wire::store_le(id.bytes.data(), head);
  return id;
}

} // namespace

status drive_checker::read_journal() {
  const layout& at = places();
  advance(check_stage::journal, 0);
  std::vector<std::byte> region(at.journal_bytes);
  std::uint64_t unreadable = 0;
  sweep(check_stage::journal, at.journal_offset, at.journal_bytes, page_bytes,
        [&](std::uint64_t offset, std::span<const std::byte> bytes, errc result) {
          if (result == errc::ok) {
            std::ranges::copy(bytes,
                              region.begin() + static_cast<std::ptrdiff_t>(offset - at.journal_offset));
            return;
          }
          ++unreadable;
          find(finding_kind::unreadable, check_region::journal_unused, offset, bytes.size(),
               "the device cannot read a page of the journal: the server could not open the drive");
        });
  if (unreadable > 0 && !super().clean)
    metadata_unreadable_ = true;
  if (scan_journal(region, super(), scan_) == errc::newer_version)
    return {errc::newer_version, newer_text("the journal", journal_version)};
  return {};
}

status drive_checker::look_at_journal() {
  if (status read = read_journal(); !read.ok())
    return read;
  if (super().clean && !scan_.batches.empty())
    find(finding_kind::journal_not_empty, check_region::journal, scan_.batches.begin()->second.header.address,
         scan_.batches.begin()->second.header.length,
         "the drive was closed in order, and its journal holds " + std::to_string(scan_.batches.size()) +
             " batches that the tree lacks");
  if (scan_.damaged_at && !super().clean) {
    // With a hole it is most likely a part of that, and told of there.
    const std::uint64_t tail = super().journal_tail_sequence;
    if (scan_.next(tail) - tail == scan_.batches.size()) {
      report_.facts.torn_tail = true;
      find(finding_kind::journal_torn_tail, check_region::journal_unused, *scan_.damaged_at, page_bytes,
           "the last batch of the journal is not whole: its write was interrupted, or it was damaged later");
    }
  }
  replay();
  merge_changes();
  return {};
}

void drive_checker::replay() {
  std::uint64_t expected = super().journal_tail_sequence;
  for (const auto& [sequence, batch] : scan_.batches) {
    if (sequence != expected) {
      ++report_.counts.journal_holes;
      find(finding_kind::journal_hole, check_region::journal, batch.header.address, batch.header.length,
           "batches " + std::to_string(expected) + " to " + std::to_string(sequence - 1) +
               " are missing in front of this one: what they said is lost");
      forget_unproven(expected, sequence - 1, batch);
    }
    const bool must_verify = sequence > scan_.settled && !batch.header.data_settled;
    for (const entry_record& record : batch.records)
      replay_record(record, sequence, must_verify);
    ++report_.counts.journal_batches;
    report_.counts.journal_records += batch.records.size();
    expected = sequence + 1;
  }
  next_batch_ = expected;
  report_.facts.pending_batches = report_.counts.journal_batches;
  report_.facts.pending_records = report_.counts.journal_records;
}

const drive_checker::leaf& drive_checker::leaf_of(const key_id& id) const {
  auto at = std::ranges::upper_bound(leaves_, id, {}, &leaf::first);
  MEMKV_ASSERT(at != leaves_.begin(), "the leaves cover all ids");
  return *--at;
}

const checked_entry* drive_checker::find_entry(const key_id& id) const {
  if (const auto changed = changes_.find(id); changed != changes_.end())
    return changed->second ? &*changed->second : nullptr;
  const auto at = std::ranges::lower_bound(entries_, id, {}, &checked_entry::id);
  return at != entries_.end() && at->id == id ? &*at : nullptr;
}

void drive_checker::set_entry(const entry_record& record) {
  changes_[record.id] = entry_of(record);
  if (record.flags != 0)
    extras_[record.id] = {record.runs, record.head, record.parts};
  else
    extras_.erase(record.id);
}

void drive_checker::remove_entry(const key_id& id) {
  changes_[id].reset();
  extras_.erase(id);
}

void drive_checker::lose_entry(const checked_entry& entry, finding_kind why, std::string text) {
  checked_entry lost = entry;
  drop(lost, why);
  find(why, check_region::extent_header, places().data_page_offset(entry.header_page), page_bytes,
       std::move(text), &lost.id);
  remove_entry(lost.id);
}

bool drive_checker::data_is_there(const entry_record& record) {
  return verify_extent(io_, super(), record) == errc::ok;
}

void drive_checker::replay_record(const entry_record& record, std::uint64_t batch, bool must_verify) {
  // A leaf written after this batch has its effect already, and perhaps that of later ones.
  if (leaf_of(record.id).journal_sequence >= batch)
    return;
  highest_generation_ = std::max(highest_generation_, record.generation);
  const checked_entry* before = find_entry(record.id);
  if (record.kind == record_kind::erase) {
    if (before != nullptr && before->generation <= record.generation)
      remove_entry(record.id);
    return;
  }
  if (before != nullptr && before->generation >= record.generation)
    return;
  if (must_verify && !data_is_there(record)) {
    // The batch became durable and its data did not: it was never answered, and replaced nothing.
    find(finding_kind::put_unfinished, check_region::extent_header,
         places().data_page_offset(record.header_page), page_bytes,
         "the last batch of the journal names a block whose bytes never arrived: its put was not answered",
         &record.id);
    if (before != nullptr)
      remove_entry(record.id);
    return;
  }
  set_entry(record);
}

void drive_checker::visit_range(const key_id& first, const key_id& last,
                                const std::function<void(const checked_entry&)>& visit) const {
  for (auto at = std::ranges::lower_bound(entries_, first, {}, &checked_entry::id);
       at != entries_.end() && at->id <= last; ++at)
    if (!changes_.contains(at->id))
      visit(*at);
  for (auto at = changes_.lower_bound(first); at != changes_.end() && at->first <= last; ++at)
    if (at->second)
      visit(*at->second);
}

void drive_checker::forget_unproven(std::uint64_t first, std::uint64_t last, const journal_batch& next) {
  std::vector<checked_entry> unproven;
  for (const leaf& each : leaves_)
    if (each.journal_sequence < last && std::max(first, each.journal_sequence + 1) < last)
      visit_range(each.first, each.last, [&](const checked_entry& entry) { unproven.push_back(entry); });
  for (const checked_entry& entry : unproven)
    lose_entry(entry, finding_kind::block_unproven,
               "more than one batch of the journal is lost: nobody knows whether this block was removed");
  // The batch after the gap repeats which ids the last one in it touched: all others kept their state.
  for (const std::uint64_t head : next.echo) {
    std::vector<checked_entry> touched;
    visit_range(id_from_head(head, std::byte{0}), id_from_head(head, std::byte{0xFF}),
                [&](const checked_entry& entry) {
                  if (leaf_of(entry.id).journal_sequence < last)
                    touched.push_back(entry);
                });
    for (const checked_entry& entry : touched)
      lose_entry(entry, finding_kind::block_unproven,
                 "the lost batch of the journal replaced or removed this block");
  }
}

void drive_checker::merge_changes() {
  if (!changes_.empty())
    tree_is_right_ = false;
  std::vector<checked_entry> merged;
  if (!changes_.empty()) {
    merged.reserve(entries_.size() + changes_.size());
    auto base = entries_.begin();
    for (auto& [id, changed] : changes_) {
      while (base != entries_.end() && base->id < id)
        merged.push_back(*base++);
      if (base != entries_.end() && base->id == id)
        ++base;
      if (changed)
        merged.push_back(*changed);
    }
    merged.insert(merged.end(), base, entries_.end());
    entries_ = std::move(merged);
    changes_.clear();
  }
  report_.counts.blocks = entries_.size();
}

} // namespace memkv::engine
