// memkv setup: formats raw drives as one set and prints the configuration of a server on them.
//
// Threading: one thread; blocks. Errors: one sentence on standard error and exit code 1; then nothing was
// printed on standard output.
#pragma once

#include "cli/command_line.hpp"

namespace memkv::cli {

/// Returns the exit code.
[[nodiscard]] int run_setup_command(const parsed& line);

} // namespace memkv::cli
