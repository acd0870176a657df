// memkv admin: what running servers say of themselves, and the reset of a drive.
//
// Threading: once, from main. Ownership: nothing is kept.
// Errors: one sentence a server on standard error, after every server was asked; then the exit code is 1.
#pragma once

#include "admin/server_url.hpp"
#include "cli/command_line.hpp"

namespace memkv::cli {

constexpr std::uint64_t admin_timeout_ms_default = 5'000;
constexpr std::uint64_t admin_timeout_ms_max = 600'000;

/// Which servers a line means: --servers, else the variable MEMKV_SERVERS (null: not set), else the endpoint
/// of this machine. A variable that is set and names nothing is a problem: it is more likely a slip than a
/// wish for this machine.
[[nodiscard]] admin::server_list_result admin_servers(const parsed& line, const char* variable);

/// Runs the command of a line whose path begins with "admin". Returns the exit code.
[[nodiscard]] int run_admin_command(const parsed& line);

} // namespace memkv::cli
