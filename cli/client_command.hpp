// memkv client: put, get, exists, delete and stat by hand.
//
// Threading: once, from main. Ownership: nothing is kept. Errors: one sentence on standard error and exit
// code 1.
#pragma once

#include "cli/command_line.hpp"

namespace memkv::cli {

/// Runs the command of a line whose path begins with "client". Returns the exit code.
[[nodiscard]] int run_client_command(const parsed& line);

} // namespace memkv::cli
