// memkv doc: serves the documentation of this build on this machine until SIGINT or SIGTERM.
//
// Threading: once, from main, while the process has one thread: it blocks signals. Ownership: nothing is
// kept. Errors: one sentence on standard error and 1. Does not: need a licence, a configuration, or the
// network.
#pragma once

#include "cli/command_line.hpp"

namespace memkv::cli {

/// Returns the exit code.
[[nodiscard]] int run_doc_command(const parsed& line);

} // namespace memkv::cli
