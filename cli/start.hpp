// memkv start: reads the configuration, looks at the machine, and runs the server until it is told to stop.
//
// Threading: once, from main. Ownership: nothing is kept. Errors: one sentence on standard error and exit
// code 1.
#pragma once

#include "cli/command_line.hpp"

namespace memkv::cli {

/// Returns the exit code: 0 after SIGINT or SIGTERM, else 1.
[[nodiscard]] int run_start_command(const parsed& line);

} // namespace memkv::cli
