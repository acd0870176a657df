// How a request to the administration endpoint is signed, and how a signature is checked.
// Normative text: docs/admin-api.md, "Signed requests".
//
// Threading: sign_request is pure; a request_verifier may be asked by any number of threads.
// Ownership: values; the verifier keeps a copy of the key. Units: seconds since 1970-01-01 UTC.
// Limits: nonces_kept_max nonces are remembered, a few megabytes; while so many are in use, further requests
// are refused. Errors: values. Does not: sign answers, or hide anything.
#pragma once

#include "wire/auth.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::admin {

/// How far the time of a request may be from the server's clock, either way.
constexpr std::uint64_t request_drift_seconds_max = 60;
constexpr std::size_t nonces_kept_max = 65'536;

constexpr std::string_view time_header = "X-Memkv-Time";
constexpr std::string_view nonce_header = "X-Memkv-Nonce";
constexpr std::string_view signature_header = "X-Memkv-Signature";
constexpr std::string_view server_header = "X-Memkv-Server";

/// The values of the headers; all empty: not signed.
struct request_signature {
  std::string time;      // decimal
  std::string nonce;     // 32 hexadecimal digits
  std::string signature; // 64 hexadecimal digits
  std::string server;    // 32 hexadecimal digits: the id of the one server it is for; empty: for any
};

/// `target` is path and query exactly as they are sent; `at` is the present time; `unique` must be random
/// (wire::random_nonce()) and never be used again; `server` is an id as request_signature has it, or empty.
[[nodiscard]] request_signature sign_request(const wire::shared_key& key, std::string_view method,
                                             std::string_view target, std::string_view body, std::uint64_t at,
                                             const wire::nonce& unique, std::string_view server = {});

enum class signature_verdict : std::uint8_t {
  good,
  missing,   // a header is not there
  malformed, // a header is not what it should be
  stale,     // its time is not the server's, or is from before the server's start
  wrong,     // not made with the key, or for another request
  replayed,  // its nonce was used before
  crowded,   // too many nonces are in use
  elsewhere, // made for another server
};
/// One sentence that a person can act on; empty for good.
[[nodiscard]] std::string_view sentence_of(signature_verdict verdict) noexcept;

class request_verifier {
public:
  using clock = std::function<std::uint64_t()>; // seconds since 1970-01-01 UTC
  /// What was signed before the verifier was made is refused: it may have been used before a restart.
  /// `previous`: a key that is accepted beside it while keys are changed.
  request_verifier(const wire::shared_key& key, clock now,
                   std::optional<wire::shared_key> previous = std::nullopt,
                   std::size_t nonces_max = nonces_kept_max);

  /// A request that is found good is good once. Whether `given.server` is this one is for the caller to see.
  [[nodiscard]] signature_verdict check(std::string_view method, std::string_view target,
                                        std::string_view body, const request_signature& given);

  [[nodiscard]] std::size_t nonces_kept() const;

private:
  void forget_before(std::uint64_t oldest);

  const wire::shared_key key_;
  const std::optional<wire::shared_key> previous_;
  const clock now_;
  const std::size_t nonces_max_;

  mutable std::mutex lock_;
  std::uint64_t earliest_; // requests from before it are refused: their nonces are not known any more
  std::set<wire::nonce> used_;
  std::map<std::uint64_t, std::vector<wire::nonce>> used_at_; // by the time of the request
};

} // namespace memkv::admin
