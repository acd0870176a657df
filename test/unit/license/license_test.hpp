// Keys and tokens for the tests of licences.
#pragma once

#include "wire/license_issuer.hpp"

#include <array>
#include <stdexcept>
#include <string>

namespace memkv::wire::test {

constexpr std::uint64_t day_s = 86'400;
constexpr std::uint64_t noon_s = 1'800'000'000; // 2027-01-15T08:00:00Z

/// A pair made once a process.
inline const license_key_pair& test_keys() {
  static const license_key_pair pair = [] {
    license_key_pair made;
    if (!make_license_keys(made).empty())
      throw std::runtime_error("no key pair");
    return made;
  }();
  return pair;
}

inline std::span<const license_key> accepted_keys() {
  static const std::array<license_key, 1> keys{{{test_keys().public_pem, false}}};
  return keys;
}

inline license some_license() {
  license wanted;
  wanted.plan = license_plan::enterprise;
  wanted.organization = "Example";
  wanted.issuer = "issuer";
  wanted.subject = "someone@example.com";
  wanted.id = "0123";
  wanted.account = 7;
  wanted.issued_at_s = noon_s;
  wanted.expires_at_s = noon_s + 30 * day_s;
  return wanted;
}

inline std::string token_of(const license& wanted) {
  std::string token;
  if (!issue_license(wanted, test_keys().private_pem, token).empty())
    throw std::runtime_error("no token");
  return token;
}

/// Signed as it should be, whatever it says.
inline std::string token_of(std::string_view header, std::string_view content) {
  std::string token;
  if (!detail::sign_license_parts(header, content, test_keys().private_pem, token).empty())
    throw std::runtime_error("no token");
  return token;
}

} // namespace memkv::wire::test
