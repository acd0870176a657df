// What drive verify and drive fsck do alike: open, check, show progress, print.
//
// Threading: one thread; blocks. Errors: one sentence on standard error and exit code 1.
#pragma once

#include "cli/drive_progress.hpp"
#include "cli/drive_report.hpp"
#include "cli/drive_tool.hpp"
#include "engine/drive_check.hpp"

#include <string>

namespace memkv::cli {

/// Opens the drive and makes sure that it is one of ours.
[[nodiscard]] std::string open_to_check(const std::string& path, drive_access access, opened_drive& drive,
                                        drive_report& report);

/// Options that show progress on the line, which outlives them.
[[nodiscard]] engine::check_options check_options_for(bool quick, drive_progress& line);

/// Prints the report, and on standard error what to do when the drive is not clean. The exit code.
[[nodiscard]] int print_report(const drive_report& report, bool as_json);

} // namespace memkv::cli
