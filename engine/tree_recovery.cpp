// Reading the tree when a drive's store is opened.
#include "engine/drive_store_core.hpp"
#include "engine/id_range.hpp"
#include "engine/tree_proof.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace memkv::engine {

namespace {

/// Tree pages read at once.
constexpr std::size_t load_pages_max = 64;

/// Where proofs are looked for, read in pieces of this size, so many at once.
constexpr std::uint64_t sweep_bytes = io_bytes_max;
constexpr std::size_t sweeps_in_flight = 4;
static_assert(sweep_bytes % tree_page_bytes == 0);

} // namespace

bool drive_store_core::insert_recovered(const entry_record& record) {
  block_entry fields;
  fields.id = record.id;
  fields.generation = record.generation;
  fields.put_id = record.put_id;
  fields.value_length = record.value_length;
  fields.first_unit = record.first_unit;
  fields.header_page = record.header_page;
  fields.header_crc32c = record.header_crc32c;
  fields.flags = record.flags;
  fields.units = record.units;
  entry_handle inserted = no_entry;
  entry_handle replaced = no_entry;
  if (index_->insert(fields, inserted, replaced) != errc::ok) {
    bump(counters_.dropped_at_recovery);
    return false;
  }
  if (replaced != no_entry)
    release_recovered(replaced);
  if (record.flags != 0)
    extras_.add(inserted, record);
  own_generation_ = std::max(own_generation_, record.generation);
  return true;
}

void drive_store_core::release_recovered(entry_handle handle) {
  extras_.remove(handle, index_->at(handle).flags);
  const bool unused = index_->retire(handle);
  MEMKV_ASSERT(unused, "nobody reads while a drive is recovered");
  index_->free(handle);
}

bool drive_store_core::load_page(std::uint8_t level, const meant_page& meant,
                                 std::span<const std::byte> bytes, std::vector<meant_page>& below,
                                 status& refused) {
  tree_page page;
  const tree_child& child = meant.child;
  const errc decoded = decode(bytes, super_.format_id, child.reference.page, places_, page);
  if (decoded == errc::newer_version)
    refused = newer_structure("a page of the tree", tree_version);
  if (decoded != errc::ok || !is_meant(bytes, page, child.reference) || page.header.level != level ||
      page.header.first != child.first || page.header.last != meant.last)
    return false;
  std::size_t payload = page.children.size() * tree_child_bytes;
  for (const entry_record& record : page.entries)
    payload += record.encoded_bytes();
  if (!tree_->load(level, child.first, child.reference, page.header.journal_sequence, payload))
    return false;
  append_children(page.children, meant.last, below);
  std::size_t surplus = 0;
  for (const entry_record& record : page.entries)
    if (!insert_recovered(record))
      surplus += record.encoded_bytes();
  if (surplus > 0)
    surplus_.push_back({child.first, surplus});
  return true;
}

void drive_store_core::append_children(const std::vector<tree_child>& children, const key_id& last,
                                       std::vector<meant_page>& to) {
  for (std::size_t i = 0; i < children.size(); ++i)
    to.push_back({children[i], i + 1 < children.size() ? before(children[i + 1].first) : last});
}

status drive_store_core::load_level(std::uint8_t level, const std::vector<meant_page>& pages,
                                    std::vector<meant_page>& below) {
  aligned_bytes buffer(load_pages_max * tree_page_bytes);
  std::vector<lost_page> lost;
  for (std::size_t first = 0; first < pages.size(); first += load_pages_max) {
    const std::size_t count = std::min(load_pages_max, pages.size() - first);
    std::size_t left = count;
    bool failed = false;
    for (std::size_t i = 0; i < count; ++i)
      io_.read(places_.tree_offset + std::uint64_t{pages[first + i].child.reference.page} * tree_page_bytes,
               buffer.span().subspan(i * tree_page_bytes, tree_page_bytes), [&](errc result) {
                 failed = failed || result != errc::ok;
                 --left;
               });
    while (left > 0)
      io_.poll(true);
    if (failed)
      return io_failed("its tree was read");
    for (std::size_t i = 0; i < count; ++i) {
      const meant_page& meant = pages[first + i];
      status refused;
      if (load_page(level, meant, buffer.span().subspan(i * tree_page_bytes, tree_page_bytes), below,
                    refused))
        continue;
      if (!refused.ok())
        return refused;
      bump(counters_.bad_tree_pages);
      tree_->load_lost(level, meant.child.first);
      if (level > 0)
        lost.push_back({meant, below.size()});
    }
  }
  if (!lost.empty())
    prove_lost(level, lost, below);
  return {};
}

void drive_store_core::prove_lost(std::uint8_t level, const std::vector<lost_page>& lost,
                                  std::vector<meant_page>& below) {
  const std::vector<tree_page_facts> facts = sweep_tree(level, lost);
  std::vector<const tree_page_facts*> by_range;
  by_range.reserve(facts.size());
  for (const tree_page_facts& each : facts)
    by_range.push_back(&each);
  order_by_range(by_range);
  std::vector<meant_page> all;
  std::size_t taken = 0;
  for (const lost_page& each : lost) {
    all.insert(all.end(), below.begin() + static_cast<std::ptrdiff_t>(taken),
               below.begin() + static_cast<std::ptrdiff_t>(each.place));
    taken = each.place;
    const std::vector<tree_child> proven =
        prove_children(places_, super_.format_id, level, each.meant.child.reference, each.meant.child.first,
                       each.meant.last, by_range, {});
    append_children(proven, each.meant.last, all);
    proven_tree_pages_ += proven.empty() ? 0 : 1;
  }
  all.insert(all.end(), below.begin() + static_cast<std::ptrdiff_t>(taken), below.end());
  below = std::move(all);
}

std::vector<tree_page_facts> drive_store_core::sweep_tree(std::uint8_t level,
                                                          const std::vector<lost_page>& lost) {
  // Only pages that can be children of a lost one: a large region holds a million others.
  const auto wanted = [&](const tree_page_header& header) {
    if (header.level + 1 != level)
      return false;
    const auto after_it = std::ranges::upper_bound(
        lost, header.first, {}, [](const lost_page& each) { return each.meant.child.first; });
    return after_it != lost.begin() && header.last <= std::prev(after_it)->meant.last;
  };
  std::vector<tree_page_facts> facts;
  const std::uint64_t region_bytes = std::uint64_t{places_.tree_pages} * tree_page_bytes;
  aligned_bytes buffer(sweeps_in_flight * sweep_bytes);
  for (std::uint64_t at = 0; at < region_bytes; at += buffer.span().size()) {
    std::array<errc, sweeps_in_flight> results{};
    std::size_t left = 0;
    const auto piece = [&](std::size_t i) {
      const std::uint64_t begin = at + i * sweep_bytes;
      return begin < region_bytes ? std::min(sweep_bytes, region_bytes - begin) : 0;
    };
    for (std::size_t i = 0; i < sweeps_in_flight && piece(i) > 0; ++i) {
      ++left;
      io_.read(places_.tree_offset + at + i * sweep_bytes, buffer.span().subspan(i * sweep_bytes, piece(i)),
               [&, i](errc result) {
                 results[i] = result;
                 --left;
               });
    }
    while (left > 0)
      io_.poll(true);
    for (std::size_t i = 0; i < sweeps_in_flight; ++i)
      for (std::uint64_t inside = 0; inside < piece(i); inside += tree_page_bytes) {
        const auto bytes = buffer.span().subspan(i * sweep_bytes + inside, tree_page_bytes);
        const auto number = static_cast<std::uint32_t>((at + i * sweep_bytes + inside) / tree_page_bytes);
        // One sector that cannot be read must not hide the pages around it.
        if (results[i] != errc::ok &&
            io_.read_now(places_.tree_offset + std::uint64_t{number} * tree_page_bytes, bytes) != errc::ok)
          continue;
        tree_page page;
        if (decode(bytes, super_.format_id, number, places_, page) == errc::ok && wanted(page.header))
          facts.push_back(facts_of(bytes, page.header));
      }
  }
  return facts;
}

status drive_store_core::load_tree() {
  if (super_.root.page != no_tree_page) {
    // Leaves come in ascending order.
    index_->reserve(super_.blocks);
    std::vector<meant_page> pages{{{key_id{}, super_.root}, highest_id()}};
    for (std::uint8_t level = super_.root_level;; --level) {
      std::vector<meant_page> below;
      if (status loaded = load_level(level, pages, below); !loaded.ok())
        return loaded;
      if (level == 0 || below.empty())
        break;
      pages = std::move(below);
    }
  }
  // A checkpoint that was cut off left pages with higher sequences than the tree has. New pages are younger
  // than all of these: a page that is not part of the tree must not pass for the youngest of its range.
  tree_->finish_loading(super_.tree_sequence + (super_.clean ? 0 : places_.tree_pages));
  // What found no entry, for want of memory, is forgotten for good before anything is served: else a later
  // start would bring it back, deleted meanwhile or not.
  for (const auto& [leaf, bytes] : std::exchange(surplus_, {}))
    tree_->note_change(leaf, -static_cast<std::int64_t>(bytes), 0);
  if (const auto bad = counters_.bad_tree_pages.load(std::memory_order_relaxed); bad > 0)
    note(std::to_string(bad) + " damaged pages of the tree" +
         (proven_tree_pages_ == 0
              ? ": the blocks they named are misses now"
              : ", of which " + std::to_string(proven_tree_pages_) +
                    " cost nothing, since the pages below proved what they said; the blocks that the others "
                    "named are misses now"));
  return {};
}

} // namespace memkv::engine
