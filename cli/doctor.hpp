// memkv doctor: proves on this machine what a configuration promises. The same, short, at memkv start.
//
// Threading: once, from main, while the process has one thread: it forks. Ownership: nothing is kept.
// Errors: in the report; exit code 1 if a check failed. Does not: write to drives, or change the machine.
#pragma once

#include "cli/command_line.hpp"
#include "cli/config.hpp"

#include <string>

namespace memkv::cli {

/// Returns the exit code: 0 if nothing failed, else 1.
[[nodiscard]] int run_doctor_command(const parsed& line);

/// The checks that cost no time, as lines of the log: one with the counts, and one for each finding that is
/// not as it should be. What memkv start says itself is only counted. `log_file`: empty is standard error.
/// `license`: the value of --license.
void log_doctor_report(const std::string& config_path, const config_result& loaded, bool key_from_environment,
                       const std::string& log_file, const std::string& license);

} // namespace memkv::cli
