#include "cli/doctor_license.hpp"

#include "wire/license_file.hpp"

#include <chrono>
#include <cstdint>

namespace memkv::cli {

namespace {

constexpr std::uint64_t warning_s = 30 * 86'400;

} // namespace

finding check_license(const std::string& flag) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto now_s =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  const auto found = wire::find_license_here({"--license", flag}, now_s);
  if (!found.verdict.ok())
    return {check_state::failed, "license", found.source, found.verdict.problem, "see docs/license.md"};
  const auto& granted = *found.verdict.granted;
  const auto what = std::string(name(granted.plan)) + " for " + granted.organization + ", until " +
                    wire::utc_text(granted.expires_at_s);
  if (granted.expires_at_s - now_s <= warning_s)
    return {check_state::warning, "license", found.source, what, "get a new one before it ends"};
  return {check_state::ok, "license", found.source, what, ""};
}

} // namespace memkv::cli
