// memkv admin drives reset: asks one server to empty a drive, and on a terminal follows a secure reset to its
// end.
//
// Threading: once, from main. Ownership: nothing is kept. Errors: one sentence on standard error, exit
// code 1.
#pragma once

#include "cli/admin_session.hpp"

#include <string>

namespace memkv::cli {

/// Returns the exit code. Leaving it early (^C) leaves the reset running on the server.
[[nodiscard]] int reset_drive(admin_session& session, const std::string& device_id, bool secure);

} // namespace memkv::cli
