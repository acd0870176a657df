// Makes licences and the keys they are signed with: for memkv-license and for tests. Not part of what servers
// and clients link.
//
// Threading: any thread. Ownership: values; the caller keeps private keys safe. Errors: one sentence, empty
// when it was done; no exception leaves but for want of memory.
#pragma once

#include "wire/license.hpp"

#include <string>
#include <string_view>

namespace memkv::wire {

struct license_key_pair {
  std::string private_pem; // PKCS#8, not encrypted
  std::string public_pem;
};

/// A new pair on P-384.
[[nodiscard]] std::string make_license_keys(license_key_pair& pair);

/// The public half of a private key.
[[nodiscard]] std::string public_license_key(std::string_view private_pem, std::string& public_pem);

/// A signed token that says what `wanted` says (but for `development`, which the key decides). Whether it
/// would be accepted at any time is not looked at.
[[nodiscard]] std::string issue_license(const license& wanted, std::string_view private_pem,
                                        std::string& token);

/// The private key of deploy/license as PEM; empty in a build that does not accept its licences. In the
/// library memkv_license_issuer_key, written by cmake/write_license_keys.cmake.
[[nodiscard]] std::string_view development_license_key() noexcept;

/// A random licence id: 32 hexadecimal digits.
[[nodiscard]] std::string random_license_id();

namespace detail {
/// header.content with whatever they say, signed with ECDSA and SHA-384: for tests, which need wrong ones.
[[nodiscard]] std::string sign_license_parts(std::string_view header, std::string_view content,
                                             std::string_view private_pem, std::string& token);
[[nodiscard]] std::string to_base64url(std::string_view bytes);
} // namespace detail

} // namespace memkv::wire
