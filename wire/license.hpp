// Licences: JSON Web Tokens signed with ES384 (ECDSA on P-384 with SHA-384), verified without I/O and without
// a clock of its own. docs/license.md describes them for operators, docs/decisions/0017-licences.md says why.
//
// Threading: any thread. Ownership: values. Errors: one sentence that never quotes the token; no exception
// leaves. Limits: license_bytes_max. Does not: find licences (license_search.hpp), or ask anybody whether one
// was withdrawn.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace memkv::wire {

constexpr std::size_t license_bytes_max = 8192;          // of a token
constexpr std::size_t license_text_bytes_max = 256;      // of one text in it
constexpr std::uint64_t license_clock_allowance_s = 300; // it may be issued so far in the future

enum class license_plan : std::uint8_t { free, enterprise, enterprise_lite, enterprise_plus };

constexpr std::array<std::string_view, 4> license_plan_names{"Free", "Enterprise", "EnterpriseLite",
                                                             "EnterprisePlus"};

[[nodiscard]] constexpr std::string_view name(license_plan plan) noexcept {
  return license_plan_names[static_cast<std::size_t>(plan)];
}

/// From exactly such a name.
[[nodiscard]] constexpr std::optional<license_plan> parse_license_plan(std::string_view text) noexcept {
  for (std::size_t i = 0; i < license_plan_names.size(); ++i)
    if (license_plan_names[i] == text)
      return static_cast<license_plan>(i);
  return std::nullopt;
}

/// What a licence says. Times are in seconds since 1970-01-01 UTC.
struct license {
  license_plan plan = license_plan::free;
  std::string organization;       // org
  std::string issuer;             // iss; may be empty
  std::string subject;            // sub, an address of mail; may be empty
  std::string id;                 // lid; may be empty
  std::uint64_t account = 0;      // aid
  std::uint64_t issued_at_s = 0;  // iat
  std::uint64_t expires_at_s = 0; // exp: the first second in which it is not valid any more
  bool development = false;       // signed with the key that anybody has
};

/// A public key that licences may be signed with, as PEM.
struct license_key {
  std::string_view pem;
  bool development = false;
};

/// The keys that this build was made with: the release key if there is one, and in development builds the key
/// of deploy/license.
[[nodiscard]] std::span<const license_key> built_in_license_keys() noexcept;

struct license_verdict {
  std::optional<license> granted;
  std::string problem; // why not, in one sentence without a full stop
  [[nodiscard]] bool ok() const noexcept { return granted.has_value(); }
};

/// Verifies a token against any of the keys at the time `now_s`. The token must be nothing but a token.
[[nodiscard]] license_verdict verify_license(std::string_view token, std::span<const license_key> keys,
                                             std::uint64_t now_s) noexcept;

/// Why a licence that verified once is not valid at `now_s`; empty when it is.
[[nodiscard]] std::string license_time_problem(const license& granted, std::uint64_t now_s);

/// "2026-01-31T23:59:59Z".
[[nodiscard]] std::string utc_text(std::uint64_t seconds);

namespace detail {
/// The two JSON parts of a token, each alone: what verify_license does before and after the signature.
/// Returns a problem, or nothing.
[[nodiscard]] std::string check_license_header(std::string_view json) noexcept;
[[nodiscard]] license_verdict read_license_claims(std::string_view json, std::uint64_t now_s) noexcept;
/// Strict: no padding, no other letters, no bits left over. Nothing when it is not that.
[[nodiscard]] std::optional<std::string> from_base64url(std::string_view text);
} // namespace detail

} // namespace memkv::wire
