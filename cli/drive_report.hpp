// The reports of memkv drive verify and fsck, for people and as JSON.
//
// Threading: pure functions. Ownership: values. Errors: none.
// Does not: check or repair; engine/drive_check.hpp does.
#pragma once

#include "engine/drive_check.hpp"

#include <cstdint>
#include <string>

namespace memkv::cli {

/// What was done to one drive.
struct drive_report {
  std::string path, model, serial;
  bool fsck = false;             // else verify
  bool repaired = false;         // fsck --repair ended well
  engine::check_report check;    // before a repair
  engine::repair_report repair;  // repaired
  std::uint64_t errors_left = 0; // repaired: what a second look at the metadata still found

  /// No uncorrected error remains.
  [[nodiscard]] bool clean() const noexcept { return repaired ? errors_left == 0 : check.clean(); }
};

/// The summary for people.
[[nodiscard]] std::string report_text(const drive_report& report);

/// docs/drive-json.md's document "verify" or "fsck".
[[nodiscard]] std::string report_json(const drive_report& report);

/// What to do about a drive that is not clean, as one sentence; empty when it is.
[[nodiscard]] std::string report_advice(const drive_report& report);

/// What becomes of a finding of this kind in a repair: "the block is dropped".
[[nodiscard]] std::string_view remedy_of(engine::finding_kind kind) noexcept;

} // namespace memkv::cli
