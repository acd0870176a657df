#include "admin/request_signature.hpp"

#include "wire/hex.hpp"

#include <array>
#include <charconv>
#include <optional>

namespace memkv::admin {

namespace {

// What keeps a signature of a request from being one of anything else that the key signs.
constexpr std::string_view label = "memkv admin request v1";
constexpr std::string_view label_with_server = "memkv admin request v2";

wire::hash32 signature_of(const wire::shared_key& key, std::string_view method, std::string_view target,
                          std::string_view body, const request_signature& given) {
  const wire::detail::keyed_hash hash{key.secret_bytes()};
  const auto body_hash = wire::hex_text(wire::sha256(wire::as_bytes_view(body)));
  std::string text;
  const auto add = [&text](std::string_view line) {
    text += line;
    text += '\n';
  };
  add(given.server.empty() ? label : label_with_server);
  for (const std::string_view line : {method, target, std::string_view{body_hash},
                                      std::string_view{given.time}, std::string_view{given.nonce}})
    add(line);
  if (!given.server.empty())
    add(given.server);
  wire::detail::hash_state running;
  hash.begin(running);
  hash.update(running, wire::as_bytes_view(text));
  return hash.finish(running);
}

} // namespace

request_signature sign_request(const wire::shared_key& key, std::string_view method, std::string_view target,
                               std::string_view body, std::uint64_t at, const wire::nonce& unique,
                               std::string_view server) {
  request_signature made{std::to_string(at), wire::hex_text(unique), {}, std::string{server}};
  made.signature = wire::hex_text(signature_of(key, method, target, body, made));
  return made;
}

std::string_view sentence_of(signature_verdict verdict) noexcept {
  switch (verdict) {
  case signature_verdict::good:
    return "";
  case signature_verdict::missing:
    return "this request changes something and must be signed when it does not come from loopback: set "
           "MEMKV_AUTH_KEY for memkv admin, or see docs/admin-api.md";
  case signature_verdict::malformed:
    return "the signature cannot be read: X-Memkv-Time is a whole number of seconds, X-Memkv-Nonce and "
           "X-Memkv-Server have 32 and X-Memkv-Signature 64 hexadecimal digits";
  case signature_verdict::stale:
    return "the request was signed more than 60 s ago, in the future, or before this server was started: "
           "compare the clocks of both machines, and sign it anew";
  case signature_verdict::wrong:
    return "the signature is wrong: the keys differ, or method, path, query or body changed after it was "
           "signed";
  case signature_verdict::replayed:
    return "the nonce was used before: sign each request anew";
  case signature_verdict::crowded:
    return "too many signed requests came within a minute: try again in a minute";
  case signature_verdict::elsewhere:
    return "the request was signed for another server: sign it anew with the server_id that /v1/status of "
           "this one shows";
  }
  return "";
}

request_verifier::request_verifier(const wire::shared_key& key, clock now,
                                   std::optional<wire::shared_key> previous, std::size_t nonces_max)
    : key_(key), previous_(std::move(previous)), now_(std::move(now)), nonces_max_(nonces_max),
      earliest_(now_()) {}

signature_verdict request_verifier::check(std::string_view method, std::string_view target,
                                          std::string_view body, const request_signature& given) {
  if (given.time.empty() || given.nonce.empty() || given.signature.empty())
    return signature_verdict::missing;
  std::uint64_t at = 0;
  const auto* end = given.time.data() + given.time.size();
  const auto read = std::from_chars(given.time.data(), end, at);
  wire::nonce unique{};
  wire::hash32 claimed{};
  std::array<std::byte, 16> server{};
  if (read.ec != std::errc{} || read.ptr != end || !wire::read_hex(given.nonce, unique) ||
      !wire::read_hex(given.signature, claimed) ||
      (!given.server.empty() && !wire::read_hex(given.server, server)))
    return signature_verdict::malformed;

  const auto now = now_();
  if (at + request_drift_seconds_max < now || (at > now && at - now > request_drift_seconds_max))
    return signature_verdict::stale;
  // Before anything is remembered: a stranger must not fill the memory.
  const auto right = [&](const wire::shared_key& key) {
    return wire::equal_in_constant_time(signature_of(key, method, target, body, given), claimed);
  };
  const bool by_present = right(key_), by_previous = previous_ && right(*previous_);
  if (!by_present && !by_previous)
    return signature_verdict::wrong;

  std::lock_guard guard{lock_};
  if (now > request_drift_seconds_max)
    forget_before(now - request_drift_seconds_max);
  if (at < earliest_)
    return signature_verdict::stale;
  if (used_.contains(unique))
    return signature_verdict::replayed;
  if (used_.size() >= nonces_max_)
    return signature_verdict::crowded;
  used_.insert(unique);
  used_at_[at].push_back(unique);
  return signature_verdict::good;
}

std::size_t request_verifier::nonces_kept() const {
  std::lock_guard guard{lock_};
  return used_.size();
}

// What is forgotten stays refused even when the clock is set back.
void request_verifier::forget_before(std::uint64_t oldest) {
  if (oldest <= earliest_)
    return;
  earliest_ = oldest;
  while (!used_at_.empty() && used_at_.begin()->first < oldest) {
    for (const auto& each : used_at_.begin()->second)
      used_.erase(each);
    used_at_.erase(used_at_.begin());
  }
}

} // namespace memkv::admin
