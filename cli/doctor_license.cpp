#include "cli/doctor_license.hpp"

namespace memkv::cli {

finding check_license() {
  return {check_state::skipped, "license", "", "this build does not check licences", ""};
}

} // namespace memkv::cli
