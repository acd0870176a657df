// What memkv doctor says of the licence.
//
// Threading: any one thread. Ownership: values. Errors: in the finding.
#pragma once

#include "cli/doctor_report.hpp"

#include <string>

namespace memkv::cli {

/// The check "license". `flag` is the value of --license, if there is one.
[[nodiscard]] finding check_license(const std::string& flag);

} // namespace memkv::cli
