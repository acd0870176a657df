// A batch of the journal: the records of one group commit, written by one operation.
//
// Besides its own records a batch repeats the first eight bytes of each id that the batch before it touched
// (its echo). When one batch is lost to damage, the next one so tells which blocks' fate is unknown, and all
// others keep theirs.
//
// Format: docs/formats/journal.md. Threading: values. Errors: values.
#pragma once

#include "engine/entry_record.hpp"
#include "engine/page.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace memkv::engine {

constexpr std::string_view journal_magic = "memkv-jl";
constexpr std::uint8_t journal_version = 1;
constexpr std::size_t journal_header_bytes = 128;
constexpr std::size_t journal_batch_bytes_max = 256 << 10;

struct journal_batch_header {
  identity format_id{};
  std::uint64_t sequence = 0; // one higher than the batch before
  std::uint64_t address = 0;  // byte offset on the device
  std::uint32_t length = 0;   // bytes, a multiple of 4096
  /// Up to here batches and their data were as durable as the policy asks when this one was written.
  std::uint64_t settled_sequence = 0;
  /// The data of this batch's own puts was so too. Always, when one of them replaces a block: what it
  /// replaced must not come back because of damage. Else recovery compares the data with its checksums.
  bool data_settled = false;
};

struct journal_batch {
  journal_batch_header header;
  std::vector<entry_record> records;
  std::vector<std::uint64_t> echo; // key_id::head() of the ids in the batch before
};

/// Collects records until the batch is full.
class journal_batch_writer {
public:
  /// `bytes_max`: a multiple of 4096, at most journal_batch_bytes_max. The echo counts.
  void start(std::size_t bytes_max, const std::vector<std::uint64_t>& echo);
  [[nodiscard]] bool add(const entry_record& record);
  [[nodiscard]] bool empty() const noexcept { return records_ == 0; }
  [[nodiscard]] std::uint32_t records() const noexcept { return records_; }
  /// Bytes the batch takes on the drive, a multiple of 4096.
  [[nodiscard]] std::uint32_t length() const noexcept;
  /// Writes the batch to `to`, which has length(); header.length is set by it.
  void finish(journal_batch_header header, std::span<std::byte> to) const noexcept;

private:
  std::vector<std::byte> body_;
  std::vector<std::uint64_t> echo_;
  std::size_t body_bytes_max_ = 0;
  std::uint32_t records_ = 0;
};

/// Decodes the batch that starts at `from`, which lies at `address` of the device: bad_format (no batch
/// here), newer_version, foreign_drive (other format id), corrupt, or ok.
[[nodiscard]] errc decode(std::span<const std::byte> from, const identity& format_id, std::uint64_t address,
                          const layout& places, journal_batch& out);

} // namespace memkv::engine
