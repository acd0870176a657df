// What is remembered of header pages that were read or written lately, so that a block that is read often, or
// in several pieces, costs one read of its header page.
//
// Operation. A table with one place for each remainder of the header page's number: what comes later takes
// the place. What is found is the caller's to compare with the index entry: generation and checksum of the
// page say whether it is the same header.
//
// Threading: one thread. Limits: `places` entries, each a few hundred bytes for blocks of some MiB.
#pragma once

#include "engine/extent_header.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace memkv::engine {

/// A header as its page said it, checked by whoever remembered it.
struct known_header {
  std::uint32_t page = 0;
  std::uint32_t crc32c = 0; // of the page
  std::uint64_t generation = 0;
  key_id id;
  std::uint32_t length = 0;
  std::string name_space;
  std::vector<std::byte> key;
  std::vector<std::byte> chunk_crc32c; // little-endian u32 each

  [[nodiscard]] std::uint32_t chunk_at(std::size_t chunk) const noexcept {
    return wire::load_le<std::uint32_t>(chunk_crc32c.data() + chunk * 4);
  }
};
using known_header_ptr = std::shared_ptr<const known_header>;

[[nodiscard]] inline known_header_ptr remember(const extent_header& header, std::uint32_t page_crc32c) {
  auto known = std::make_shared<known_header>();
  known->page = header.page;
  known->crc32c = page_crc32c;
  known->generation = header.generation;
  known->id = header.id;
  known->length = header.length;
  known->name_space = header.name_space;
  known->key.assign(header.key.begin(), header.key.end());
  known->chunk_crc32c.assign(header.chunk_crc32c.begin(), header.chunk_crc32c.end());
  return known;
}

class known_headers {
public:
  static constexpr std::size_t places = 16'384;

  void put(known_header_ptr header) {
    if (table_.empty())
      table_.resize(places);
    table_[header->page % places] = std::move(header);
  }

  /// The header of this entry, or null.
  [[nodiscard]] known_header_ptr find(std::uint32_t page, std::uint32_t crc32c, std::uint64_t generation,
                                      const key_id& id) const {
    if (table_.empty())
      return nullptr;
    const auto& found = table_[page % places];
    return found != nullptr && found->page == page && found->crc32c == crc32c &&
                   found->generation == generation && found->id == id
               ? found
               : nullptr;
  }

private:
  std::vector<known_header_ptr> table_;
};

} // namespace memkv::engine
