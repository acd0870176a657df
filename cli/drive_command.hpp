// memkv drive reset|verify|fsck|health: maintenance of one drive while no server has it.
//
// All of it stands on the storage engine alone: no actors, no network.
//
// Threading: one thread; blocks. Errors: one sentence on standard error and exit code 1.
#pragma once

#include "cli/command_line.hpp"

namespace memkv::cli {

/// Runs the subcommand that the line names; returns the exit code.
[[nodiscard]] int run_drive_command(const parsed& line);

// One file each.
[[nodiscard]] int run_drive_reset(const parsed& line);
[[nodiscard]] int run_drive_verify(const parsed& line);
[[nodiscard]] int run_drive_fsck(const parsed& line);
[[nodiscard]] int run_drive_health(const parsed& line);

} // namespace memkv::cli
