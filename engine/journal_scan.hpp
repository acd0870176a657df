// What a journal region holds: the batches that the published tree may lack, in order, and how it ends.
//
// Threading: pure functions; any thread. Ownership: values. Errors: values.
// Format and rules: docs/formats/journal.md, section "Recovery".
#pragma once

#include "engine/journal_batch.hpp"
#include "engine/superblock.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <span>

namespace memkv::engine {

/// Generations skipped after a crash: more than puts can have been under way, so that a number that was given
/// to a put that was lost is never given again.
constexpr std::uint64_t generation_gap = 1 << 17;

struct journal_scan {
  std::map<std::uint64_t, journal_batch> batches; // by sequence, from the superblock's tail on
  /// Where something lies that was to become one of these batches and is not whole.
  std::optional<std::uint64_t> damaged_at; // bytes from the start of the device
  /// Up to here batches and their data were as durable as the policy asked.
  std::uint64_t settled = 0;

  /// One higher than the last batch; the tail when there is none.
  [[nodiscard]] std::uint64_t next(std::uint64_t tail) const noexcept {
    return batches.empty() ? tail : batches.rbegin()->first + 1;
  }
};

/// `region` is all of it. ok, or newer_version: a batch of a later release is there.
[[nodiscard]] errc scan_journal(std::span<const std::byte> region, const superblock& super,
                                journal_scan& out);

} // namespace memkv::engine
