// The vocabulary of the tests of the offline check: an image is checked, repaired, or cut while it is
// repaired.
//
// Threading: one thread. Errors: what must never happen (a check that writes) is a sentence in `problem`.
#pragma once

#include "engine/drive_check.hpp"
#include "test/crash/history.hpp"

#include <functional>
#include <string>
#include <vector>

namespace memkv::crash {

struct checked_image {
  engine::status result;
  engine::check_report report;
  std::string problem; // it wrote, or its account of regions is not the drive

  [[nodiscard]] std::uint64_t count(engine::finding_kind kind) const {
    return report.found[static_cast<std::size_t>(kind)];
  }
  [[nodiscard]] bool is_clean() const { return result.ok() && report.clean() && problem.empty(); }
  /// Damage was seen.
  [[nodiscard]] bool tells() const { return !result.ok() || report.total(engine::check_severity::error) > 0; }
  /// The kinds that were found, in the order of their numbers.
  [[nodiscard]] std::string kinds() const;
  /// All findings, for a message.
  [[nodiscard]] std::string text() const;
};

[[nodiscard]] checked_image check(const sim::image& drive, const engine::check_options& options = {});

struct repaired_image {
  engine::status result;
  engine::check_report before;
  engine::repair_report done;
  sim::image after;
  std::uint64_t writes = 0; // seen by the device
};

[[nodiscard]] repaired_image repair(const sim::image& drive, const engine::check_options& options = {});

/// Cuts the power at each event of a repair, in two legal states each (all open writes absent; a random one),
/// and repairs again: empty when every end is `after`, byte by byte.
[[nodiscard]] std::string repair_cut_everywhere(const sim::image& drive, const sim::image& after,
                                                std::uint64_t seed, std::uint64_t& states);

/// Opens the drive, reads everything, and says what is wrong by the model.
[[nodiscard]] std::string serve(const run_options& options, const sim::image& drive,
                                const sim::model& expected);

/// Puts without a model: values of any shape, also parts of striped ones.
struct part_of {
  std::uint32_t part = 0, parts = 1;
  std::uint64_t put_id = 0, value_length = 0;
};
[[nodiscard]] engine::errc put_part(store_run& run, const std::string& key, content what,
                                    const part_of& shape);

/// Encodes a superblock anew after `edit`.
void edit_superblock(sim::image& drive, int copy, const std::function<void(engine::superblock&)>& edit);
[[nodiscard]] engine::superblock superblock_of(const sim::image& drive, int copy = 0);

} // namespace memkv::crash
