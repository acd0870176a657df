#include "test/crash/image_map.hpp"

#include "engine/extent_header.hpp"
#include "engine/journal_batch.hpp"
#include "engine/tree_page.hpp"
#include "wire/assert.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>
#include <map>

namespace memkv::crash {

using engine::check_region;
using engine::errc;

namespace {

std::vector<std::byte> bytes_at(const sim::image& drive, std::uint64_t offset, std::uint64_t length) {
  std::vector<std::byte> bytes(length);
  drive.read(offset, bytes);
  return bytes;
}

struct mapper {
  const sim::image& drive;
  image_map& map;
  struct leaf {
    key_id first, last;
    std::uint64_t journal_sequence;
  };
  std::vector<leaf> leaves;
  std::map<key_id, engine::entry_record> entries;

  void add(check_region region, std::uint64_t offset, std::uint64_t length,
           std::vector<std::pair<key_id, key_id>> costs = {}, std::uint64_t batch = 0) {
    map.places.push_back({offset, length, region, batch, std::move(costs)});
  }

  void superblocks() {
    bool found = false;
    for (const std::uint8_t copy : {0, 1}) {
      const std::uint64_t at = copy == 0 ? 0 : drive.size() - engine::page_bytes;
      add(copy == 0 ? check_region::superblock : check_region::mirror, at, engine::page_bytes);
      const auto bytes = bytes_at(drive, at, engine::page_bytes);
      engine::superblock block;
      if (decode(std::span<const std::byte, engine::page_bytes>(bytes), copy, block) == errc::ok &&
          (!found || block.sequence > map.super.sequence)) {
        map.super = block;
        found = true;
      }
    }
    MEMKV_ASSERT(found, "a drive that is mapped has a superblock");
  }

  void tree(const engine::tree_reference& reference) {
    const std::uint64_t at =
        map.super.places.tree_offset + std::uint64_t{reference.page} * engine::tree_page_bytes;
    const auto bytes = bytes_at(drive, at, engine::tree_page_bytes);
    engine::tree_page page;
    const auto decoded = decode(bytes, map.super.format_id, reference.page, map.super.places, page);
    MEMKV_ASSERT(decoded == errc::ok, "a drive that is mapped has a whole tree");
    // What an inner page says is proven by the pages below it and by its parent's checksum of it.
    if (page.header.level > 0)
      add(check_region::tree, at, engine::tree_page_bytes);
    else
      add(check_region::tree, at, engine::tree_page_bytes, {{page.header.first, page.header.last}});
    for (const auto& child : page.children)
      tree(child.reference);
    if (page.header.level > 0)
      return;
    leaves.push_back({page.header.first, page.header.last, page.header.journal_sequence});
    for (const auto& record : page.entries)
      entries[record.id] = record;
  }

  void journal() {
    const auto& at = map.super.places;
    const auto region = bytes_at(drive, at.journal_offset, at.journal_bytes);
    std::map<std::uint64_t, engine::journal_batch> batches;
    for (std::uint64_t page = 0; page < region.size(); page += engine::page_bytes) {
      engine::journal_batch batch;
      if (decode(std::span(region).subspan(page), map.super.format_id, at.journal_offset + page, at, batch) ==
              errc::ok &&
          batch.header.sequence >= map.super.journal_tail_sequence)
        batches[batch.header.sequence] = batch;
    }
    for (const auto& [sequence, batch] : batches) {
      std::vector<std::pair<key_id, key_id>> costs;
      for (const auto& record : batch.records) {
        costs.emplace_back(record.id, record.id);
        apply(record, sequence);
      }
      add(check_region::journal, batch.header.address, batch.header.length, std::move(costs), sequence);
      map.last_batch = sequence;
    }
  }

  void apply(const engine::entry_record& record, std::uint64_t batch) {
    for (const leaf& each : leaves)
      if (each.first <= record.id && record.id <= each.last && each.journal_sequence >= batch)
        return;
    const auto known = entries.find(record.id);
    if (known != entries.end() && known->second.generation > record.generation)
      return;
    if (record.kind == engine::record_kind::erase)
      entries.erase(record.id);
    else
      entries[record.id] = record;
  }

  void extents() {
    for (const auto& [id, record] : entries) {
      const std::uint64_t header_at = map.super.places.data_page_offset(record.header_page);
      const auto bytes = bytes_at(drive, header_at, engine::page_bytes);
      engine::extent_header header;
      if (decode(std::span<const std::byte, engine::page_bytes>(bytes), header) != errc::ok ||
          header.id != id || header.generation != record.generation)
        continue; // a put that was not answered
      std::vector<std::byte> data;
      std::vector<mapped_place> places;
      for (const auto& run : record.all_runs()) {
        const std::uint64_t here = std::min<std::uint64_t>(
            header.length - data.size(), std::uint64_t{run.units} * map.super.places.unit_bytes);
        if (here == 0)
          continue;
        const std::uint64_t at = map.super.places.unit_offset(run.first_unit);
        places.push_back({at, here, check_region::extent_data, 0, {{id, id}}});
        const auto piece = bytes_at(drive, at, here);
        data.insert(data.end(), piece.begin(), piece.end());
      }
      bool whole = true;
      for (std::uint32_t i = 0; i < engine::chunk_count(header.length); ++i)
        whole = whole &&
                wire::crc32c(std::span(data).subspan(
                    std::size_t{i} * engine::chunk_bytes,
                    std::min<std::size_t>(engine::chunk_bytes, data.size() - i * engine::chunk_bytes))) ==
                    header.chunk_at(i);
      if (!whole)
        continue;
      add(check_region::extent_header, header_at, engine::page_bytes, {{id, id}});
      map.places.insert(map.places.end(), places.begin(), places.end());
    }
  }
};

} // namespace

bool mapped_place::costs_block(const key_id& id) const {
  return std::ranges::any_of(costs,
                             [&](const auto& range) { return range.first <= id && id <= range.second; });
}

std::vector<const mapped_place*> image_map::of(check_region region) const {
  std::vector<const mapped_place*> found;
  for (const mapped_place& place : places)
    if (place.region == region)
      found.push_back(&place);
  return found;
}

image_map map_of(const sim::image& drive) {
  image_map map;
  mapper work{drive, map, {}, {}};
  work.superblocks();
  if (map.super.clean)
    work.add(check_region::bitmap, map.super.places.bitmap_offset,
             map.super.places.bitmap_pages * engine::page_bytes);
  if (map.super.root.page != engine::no_tree_page)
    work.tree(map.super.root);
  work.journal();
  work.extents();
  return map;
}

} // namespace memkv::crash
