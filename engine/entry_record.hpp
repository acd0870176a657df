// A block's index entry as it stands in journal batches and tree leaves; and the record of its removal.
//
// Records state everything there is to know about an entry: applying one twice, or one that is older than
// what is known, changes nothing. The higher generation wins.
//
// Format: docs/formats/journal.md, section "Records". Threading: values. Errors: values.
#pragma once

#include "engine/drive_store.hpp"
#include "engine/layout.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace memkv::engine {

enum class record_kind : std::uint8_t {
  put = 1,     // visible block
  prepare = 2, // part 1 and up of a striped value: void without its head
  erase = 3,   // of everything under the id up to the generation
};

constexpr std::size_t entry_record_bytes = 56; // without runs, head id and part count
constexpr std::size_t erase_record_bytes = 32;
constexpr std::size_t extent_runs_max = 64;
constexpr std::size_t record_bytes_max = entry_record_bytes + 16 + 8 + extent_runs_max * 8;

/// The flags of an entry that are kept on the drive.
constexpr std::uint8_t stored_entry_flags = entry_fragmented | entry_part | entry_striped;

struct entry_record {
  record_kind kind = record_kind::put;
  std::uint8_t flags = 0; // entry_flag, those of stored_entry_flags
  key_id id;
  std::uint64_t generation = 0;
  std::uint64_t put_id = 0;
  std::uint32_t value_length = 0;
  std::uint32_t first_unit = 0;
  std::uint32_t header_page = 0;
  std::uint32_t header_crc32c = 0;
  std::uint16_t units = 0;
  std::vector<run> runs;   // two or more when entry_fragmented, else empty
  key_id head;             // of a part: the block it belongs to
  std::uint32_t parts = 0; // of a striped head: how many parts it has, itself included

  [[nodiscard]] std::size_t encoded_bytes() const noexcept;
  /// The extent's runs in order; at most one, made from first_unit and units, when it is not fragmented.
  [[nodiscard]] std::vector<run> all_runs() const;
};

/// `to` has encoded_bytes(). Returns them.
std::size_t encode(const entry_record& record, std::span<std::byte> to) noexcept;

/// Decodes the record at the front of `from` and tells its size. corrupt when anything contradicts itself or
/// the layout.
[[nodiscard]] errc decode(std::span<const std::byte> from, const layout& places, entry_record& out,
                          std::size_t& consumed);

} // namespace memkv::engine
