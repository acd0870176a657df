// What memkv doctor says of the licence.
//
// Threading: any one thread. Ownership: values. Errors: in the finding.
#pragma once

#include "cli/doctor_report.hpp"

namespace memkv::cli {

/// The check "license".
[[nodiscard]] finding check_license();

} // namespace memkv::cli
