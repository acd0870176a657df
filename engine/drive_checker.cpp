#include "engine/drive_checker.hpp"

#include "engine/bitmap_page.hpp"
#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <deque>

namespace memkv::engine {

namespace {

constexpr std::uint64_t sweep_bytes = io_bytes_max;
constexpr std::size_t sweeps_in_flight = 4;
constexpr std::uint64_t tell_every_bytes = std::uint64_t{16} << 20;

const char* copy_name(int copy) {
  return copy == 0 ? "the superblock" : "the mirror of the superblock";
}

} // namespace

std::string newer_text(const char* what, unsigned ours) {
  return std::string(what) + " was written by a later release (this one reads versions up to " +
         std::to_string(ours) + "): use the memkv that wrote it, or a later one";
}

drive_checker::drive_checker(block_device& device, const check_options& options, check_report& report)
    : options_(options), report_(report), io_(device) {
  report_ = {};
  report_.quick = options.quick;
  report_.facts.device_bytes = device.information().size_bytes;
}

void drive_checker::find(finding_kind kind, check_region region, std::uint64_t offset, std::uint64_t length,
                         std::string text, const key_id* id) {
  ++report_.found[static_cast<std::size_t>(kind)];
  if (report_.findings.size() >= options_.findings_max)
    return;
  check_finding found{kind, region, offset, length, {}, std::move(text)};
  if (id != nullptr)
    found.id = *id;
  report_.findings.push_back(std::move(found));
}

void drive_checker::drop(checked_entry& entry, finding_kind why) {
  MEMKV_ASSERT(!entry.dropped, "a block is dropped once");
  entry.dropped = true;
  ++dropped_count_;
  if (dropped_.size() < options_.findings_max)
    dropped_.push_back({why, entry.id, entry.generation, entry.value_length});
}

void drive_checker::advance(check_stage stage, std::uint64_t bytes) {
  bytes_done_ += bytes;
  bytes_total_ = std::max(bytes_total_, bytes_done_);
  // The beginning of a stage is told, and then a step now and then.
  if (!options_.progress || (bytes != 0 && bytes_done_ - bytes_told_ < tell_every_bytes))
    return;
  bytes_told_ = bytes_done_;
  options_.progress({stage, bytes_done_, bytes_total_});
}

void drive_checker::sweep(check_stage stage, std::uint64_t offset, std::uint64_t length,
                          std::uint32_t granule, const visitor& visit) {
  struct piece {
    aligned_bytes bytes{sweep_bytes};
    std::uint64_t offset = 0, length = 0;
    errc result = errc::ok;
    bool ended = false;
  };
  static_assert(sweep_bytes % tree_page_bytes == 0);
  std::deque<std::unique_ptr<piece>> running;
  std::unique_ptr<piece> spare;
  const std::uint64_t end = offset + length;
  std::uint64_t next = offset;
  while (next < end || !running.empty()) {
    while (next < end && running.size() < sweeps_in_flight) {
      auto one = spare ? std::move(spare) : std::make_unique<piece>();
      one->offset = next;
      one->length = std::min(sweep_bytes, end - next);
      one->ended = false;
      next += one->length;
      io_.read(one->offset, one->bytes.span().first(one->length), [to = one.get()](errc result) {
        to->result = result;
        to->ended = true;
      });
      running.push_back(std::move(one));
    }
    std::unique_ptr<piece> first = std::move(running.front());
    running.pop_front();
    while (!first->ended)
      io_.poll(true);
    if (first->result == errc::ok) {
      visit(first->offset, first->bytes.span().first(first->length), errc::ok);
    } else {
      // Which part of it cannot be read?
      for (std::uint64_t at = 0; at < first->length; at += granule) {
        const auto bytes = first->bytes.span().subspan(at, granule);
        visit(first->offset + at, bytes, io_.read_now(first->offset + at, bytes));
      }
    }
    advance(stage, first->length);
    spare = std::move(first);
  }
}

status drive_checker::look() {
  if (status found = look_at_superblocks(); !found.ok())
    return found;
  of(check_region::superblock).read = of(check_region::mirror).read = page_bytes;
  of(check_region::superblock).covered = of(check_region::mirror).covered = page_bytes;
  if (!report_.facts.emptied_by_power_loss) {
    if (status found = look_at_tree(); !found.ok())
      return found;
    if (status found = look_at_journal(); !found.ok())
      return found;
    look_at_space();
    look_at_data();
  } else {
    // Nothing of it is judged; but what lies in the journal must not be replayed over what comes later.
    bytes_total_ += places().journal_bytes;
    if (status read = read_journal(); !read.ok())
      return read;
    next_batch_ = scan_.next(super().journal_tail_sequence);
    scan_ = {};
    of(check_region::void_space).read = places().journal_bytes;
    tree_is_right_ = super().root.page == no_tree_page;
    highest_generation_ = super().generation;
    tree_claimed_.assign(places().tree_pages, false);
    tree_evidence_.assign(places().tree_pages, false);
    units_.emplace(places().units);
    headers_.emplace(*units_, places().unit_bytes);
  }
  account();
  report_.complete = true;
  return {};
}

// Superblocks

status drive_checker::look_at_superblocks() {
  drive_facts& facts = report_.facts;
  if (facts.device_bytes < drive_bytes_min)
    return {errc::wrong_size, "a drive of memkv's has at least 4 MiB, this one has " +
                                  std::to_string(facts.device_bytes) + " bytes: is it the right one?"};
  bytes_total_ = 2 * std::uint64_t{page_bytes};
  advance(check_stage::superblocks, 0);
  superblock_pair pair;
  read_superblocks(io_, facts.device_bytes, pair);
  facts.superblocks = pair.states;
  facts.superblock_offsets = pair.offsets;
  advance(check_stage::superblocks, 2 * std::uint64_t{page_bytes});
  const auto tell_damage = [&] {
    for (const int copy : {0, 1}) {
      const check_region region = copy == 0 ? check_region::superblock : check_region::mirror;
      if (pair.states[copy] == errc::io_error)
        find(finding_kind::unreadable, region, pair.offsets[copy], page_bytes,
             std::string("the device cannot read ") + copy_name(copy));
      else if (!pair.valid(copy))
        find(finding_kind::superblock_damaged, region, pair.offsets[copy], page_bytes,
             std::string(copy_name(copy)) + (pair.zero[copy] ? " is empty" : " is damaged"));
    }
  };
  if (pair.states[0] == errc::newer_version || pair.states[1] == errc::newer_version)
    return {errc::newer_version, newer_text("the superblock", superblock_version)};
  if (pair.states[0] == errc::io_error && pair.states[1] == errc::io_error) {
    tell_damage();
    return {errc::io_error, "the device can read neither superblock: look at the kernel's log"};
  }
  if (never_formatted(pair))
    return {errc::bad_format, "the drive was never formatted by memkv"};
  if (!pair.valid(0) && !pair.valid(1)) {
    if (!pair.ours[0] && !pair.ours[1])
      return {errc::bad_format, "the drive holds something that is not memkv's"};
    tell_damage();
    return {errc::corrupt, "both superblocks of the drive are damaged, nothing on it can be found any more: "
                           "reset the drive"};
  }
  const int chosen = choose(pair);
  facts.known = true;
  facts.chosen = chosen;
  facts.version = pair.versions[chosen];
  facts.super = pair.copies[chosen];
  switch (check_against(facts.super, facts.device_bytes)) {
  case errc::ok:
    break;
  case errc::wrong_size:
    return {errc::wrong_size,
            "the drive has " + std::to_string(facts.device_bytes) + " bytes, its superblock says " +
                std::to_string(facts.super.places.device_bytes) + ": give it its size back, or reset it"};
  default:
    return {errc::corrupt, "the superblock's layout contradicts itself: reset the drive"};
  }
  tell_damage();
  compare_copies(pair, chosen);
  if (facts.super.failures.blacklisted)
    find(finding_kind::blacklisted, check_region::superblock, pair.offsets[chosen], page_bytes,
         "the drive is blacklisted after " + std::to_string(facts.super.failures.failure_count) +
             " failures: the server does not use it until it was reset");
  facts.emptied_by_power_loss = !facts.super.clean && facts.super.sync == sync_policy::never &&
                                options_.boot_id != identity{} && facts.super.boot_id != options_.boot_id;
  if (facts.emptied_by_power_loss)
    find(finding_kind::emptied_by_power_loss, check_region::superblock, pair.offsets[chosen], page_bytes,
         "the drive was in use without storage.sync when the power was lost: nothing on it can be proven, "
         "the server starts it empty");
  return {};
}

std::uint64_t drive_checker::witnesses(const superblock& block) {
  // All pages of the bitmap carry the format's id since the format itself.
  std::uint64_t count = 0;
  aligned_bytes page(page_bytes);
  for (std::uint64_t at = 0; at < std::min<std::uint64_t>(block.places.bitmap_pages, 16); ++at)
    if (io_.read_now(block.places.bitmap_offset + at * page_bytes, page.span()) == errc::ok &&
        has_magic(page.span(), bitmap_magic) && load_identity(page.data() + 16) == block.format_id)
      ++count;
  return count;
}

int drive_checker::choose(const superblock_pair& pair) {
  if (!pair.valid(0) || !pair.valid(1))
    return pair.valid(0) ? 0 : 1;
  const superblock& first = pair.copies[0];
  const superblock& second = pair.copies[1];
  if (first.format_id == second.format_id && first.drive_id == second.drive_id)
    return second.sequence > first.sequence ? 1 : 0;
  // One of them was written for another drive or in another format: what lies between them says which.
  const std::uint64_t bytes = report_.facts.device_bytes;
  const std::uint64_t for_first = check_against(first, bytes) == errc::ok ? witnesses(first) + 1 : 0;
  const std::uint64_t for_second = check_against(second, bytes) == errc::ok ? witnesses(second) + 1 : 0;
  if (for_first != for_second)
    return for_second > for_first ? 1 : 0;
  return second.formatted_at_ns > first.formatted_at_ns ? 1 : 0;
}

void drive_checker::compare_copies(const superblock_pair& pair, int chosen) {
  const int other = 1 - chosen;
  const check_region region = other == 0 ? check_region::superblock : check_region::mirror;
  copies_differ_ = true;
  if (!pair.valid(other))
    return;
  const superblock& counts = pair.copies[chosen];
  superblock differs = pair.copies[other];
  if (differs.format_id != counts.format_id || differs.drive_id != counts.drive_id) {
    find(finding_kind::superblock_foreign, region, pair.offsets[other], page_bytes,
         std::string(copy_name(other)) + " is of another drive or of another format of this one");
    return;
  }
  if (differs.sequence == counts.sequence) {
    std::array<std::byte, page_bytes> first{};
    std::array<std::byte, page_bytes> second{};
    differs.copy = counts.copy;
    encode(counts, first);
    encode(differs, second);
    copies_differ_ = first != second || pair.versions[0] != pair.versions[1];
    if (copies_differ_)
      find(finding_kind::superblock_behind, region, pair.offsets[other], page_bytes,
           "the two superblocks have one sequence number and different contents");
    return;
  }
  if (chosen == 0 && counts.sequence - differs.sequence == 1)
    find(finding_kind::superblock_interrupted, region, pair.offsets[other], page_bytes,
         "the mirror is older than the superblock: writing both was interrupted");
  else
    find(finding_kind::superblock_behind, region, pair.offsets[other], page_bytes,
         std::string(copy_name(other)) +
             " is older than the other copy by more than an interrupted write leaves: a write was lost");
}

// Regions

void drive_checker::account() {
  const layout& at = places();
  of(check_region::superblock).bytes = of(check_region::mirror).bytes = page_bytes;
  of(check_region::outside).bytes = report_.facts.device_bytes - at.device_bytes;
  if (report_.facts.emptied_by_power_loss) {
    of(check_region::void_space).bytes = at.device_bytes - 2 * std::uint64_t{page_bytes};
  } else {
    of(check_region::bitmap).bytes = at.bitmap_pages * page_bytes;
    for (const auto& [sequence, batch] : scan_.batches)
      of(check_region::journal).bytes += batch.header.length;
    of(check_region::journal_unused).bytes = at.journal_bytes - of(check_region::journal).bytes;
    for (std::uint32_t page = 0; page < at.tree_pages; ++page)
      of(tree_claimed_[page] ? check_region::tree : check_region::tree_unused).bytes += tree_page_bytes;
    of(check_region::gap).bytes =
        at.data_offset - at.tree_offset - std::uint64_t{at.tree_pages} * tree_page_bytes;
    of(check_region::free_units).bytes = std::uint64_t{units_->free_units()} * at.unit_bytes;
    // What lies in units was counted block by block; units of header pages are shared.
    of(check_region::extent_unused).bytes +=
        std::uint64_t{headers_->units_used()} * at.unit_bytes - headers_->pages_used() * page_bytes;
    of(check_region::end_unused).bytes = at.mirror_offset() - at.unit_offset(at.units);
    // All of these were read.
    of(check_region::bitmap).read = of(check_region::bitmap).bytes;
    of(check_region::bitmap).covered = report_.counts.bitmap_compared ? of(check_region::bitmap).bytes : 0;
    for (const check_region whole : {check_region::journal, check_region::tree})
      of(whole).read = of(whole).covered = of(whole).bytes;
    for (const check_region swept : {check_region::journal_unused, check_region::tree_unused})
      of(swept).read = of(swept).bytes;
  }
  MEMKV_ASSERT(report_.bytes_accounted() == report_.facts.device_bytes,
               "each byte of the device belongs to one region");
}

} // namespace memkv::engine
