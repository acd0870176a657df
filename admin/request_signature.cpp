#include "admin/request_signature.hpp"

#include "wire/bytes.hpp"

#include <charconv>
#include <optional>

namespace memkv::admin {

namespace {

// What keeps a signature of a request from being one of anything else that the key signs.
constexpr std::string_view label = "memkv admin request v1";

std::string hex_of(wire::bytes_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const auto byte : bytes) {
    text += digits[std::to_integer<unsigned>(byte) >> 4];
    text += digits[std::to_integer<unsigned>(byte) & 15U];
  }
  return text;
}

template <std::size_t Size>
std::optional<std::array<std::byte, Size>> bytes_of(std::string_view hex) {
  if (hex.size() != 2 * Size)
    return std::nullopt;
  const auto value = [](char digit) {
    if (digit >= '0' && digit <= '9')
      return digit - '0';
    if (digit >= 'a' && digit <= 'f')
      return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
      return digit - 'A' + 10;
    return -1;
  };
  std::array<std::byte, Size> bytes{};
  for (std::size_t i = 0; i < Size; ++i) {
    const int high = value(hex[2 * i]), low = value(hex[2 * i + 1]);
    if (high < 0 || low < 0)
      return std::nullopt;
    bytes[i] = static_cast<std::byte>(high * 16 + low);
  }
  return bytes;
}

wire::hash32 signature_of(const wire::shared_key& key, std::string_view method, std::string_view target,
                          std::string_view body, std::string_view time, std::string_view nonce) {
  const wire::detail::keyed_hash hash{key.secret_bytes()};
  const auto body_hash = hex_of(wire::sha256(wire::as_bytes_view(body)));
  std::string text;
  for (const auto line : {label, method, target, std::string_view{body_hash}, time, nonce}) {
    text += line;
    text += '\n';
  }
  wire::detail::hash_state running;
  hash.begin(running);
  hash.update(running, wire::as_bytes_view(text));
  return hash.finish(running);
}

} // namespace

request_signature sign_request(const wire::shared_key& key, std::string_view method, std::string_view target,
                               std::string_view body, std::uint64_t at, const wire::nonce& unique) {
  request_signature made{std::to_string(at), hex_of(unique), {}};
  made.signature = hex_of(signature_of(key, method, target, body, made.time, made.nonce));
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
    return "the signature cannot be read: X-Memkv-Time is a whole number of seconds, X-Memkv-Nonce 32 and "
           "X-Memkv-Signature 64 hexadecimal digits";
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
  const auto unique = bytes_of<16>(given.nonce);
  const auto claimed = bytes_of<32>(given.signature);
  if (read.ec != std::errc{} || read.ptr != end || !unique || !claimed)
    return signature_verdict::malformed;

  const auto now = now_();
  if (at + request_drift_seconds_max < now || (at > now && at - now > request_drift_seconds_max))
    return signature_verdict::stale;
  // Before anything is remembered: a stranger must not fill the memory.
  const auto right = [&](const wire::shared_key& key) {
    return wire::equal_in_constant_time(signature_of(key, method, target, body, given.time, given.nonce),
                                        *claimed);
  };
  const bool by_present = right(key_), by_previous = previous_ && right(*previous_);
  if (!by_present && !by_previous)
    return signature_verdict::wrong;

  std::lock_guard guard{lock_};
  if (now > request_drift_seconds_max)
    forget_before(now - request_drift_seconds_max);
  if (at < earliest_)
    return signature_verdict::stale;
  if (used_.contains(*unique))
    return signature_verdict::replayed;
  if (used_.size() >= nonces_max_)
    return signature_verdict::crowded;
  used_.insert(*unique);
  used_at_[at].push_back(*unique);
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
