// What it verifies with: libcrypto for ECDSA, nlohmann-json for the two JSON parts.
#include "wire/license.hpp"

#include <nlohmann/json.hpp>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <set>
#include <vector>

namespace memkv::wire {

namespace {

using json = nlohmann::json;

constexpr std::size_t half_bytes = 48;                // r and s are as long as the field of P-384
constexpr std::uint64_t time_s_max = 253'402'300'799; // the end of the year 9999
constexpr std::uint64_t account_max = std::uint64_t{1} << 53U;
constexpr std::size_t depth_max = 8;

struct free_key {
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
};
struct free_bio {
  void operator()(BIO* bio) const noexcept { BIO_free(bio); }
};
struct free_digest {
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
};
struct free_signature {
  void operator()(ECDSA_SIG* signature) const noexcept { ECDSA_SIG_free(signature); }
};

/// A public key of P-384, or null: any other key would let other signatures in.
std::unique_ptr<EVP_PKEY, free_key> read_key(std::string_view pem) {
  const std::unique_ptr<BIO, free_bio> text{BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))};
  if (text == nullptr)
    return nullptr;
  std::unique_ptr<EVP_PKEY, free_key> key{PEM_read_bio_PUBKEY(text.get(), nullptr, nullptr, nullptr)};
  std::array<char, 32> group{};
  if (key == nullptr || EVP_PKEY_is_a(key.get(), "EC") != 1 ||
      EVP_PKEY_get_group_name(key.get(), group.data(), group.size(), nullptr) != 1 ||
      std::string_view{group.data()} != "secp384r1")
    return nullptr;
  return key;
}

const unsigned char* raw(std::string_view bytes) noexcept {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

bool signed_with(EVP_PKEY* key, std::string_view text, std::string_view signature) {
  const std::unique_ptr<ECDSA_SIG, free_signature> numbers{ECDSA_SIG_new()};
  if (numbers == nullptr)
    return false;
  BIGNUM* r = BN_bin2bn(raw(signature), half_bytes, nullptr);
  BIGNUM* s = BN_bin2bn(raw(signature) + half_bytes, half_bytes, nullptr);
  if (r == nullptr || s == nullptr || ECDSA_SIG_set0(numbers.get(), r, s) != 1) {
    BN_free(r);
    BN_free(s);
    return false;
  }
  unsigned char* encoded = nullptr;
  const int encoded_bytes = i2d_ECDSA_SIG(numbers.get(), &encoded);
  const std::unique_ptr<EVP_MD_CTX, free_digest> context{EVP_MD_CTX_new()};
  const bool right = encoded_bytes > 0 && context != nullptr &&
                     EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha384(), nullptr, key) == 1 &&
                     EVP_DigestVerify(context.get(), encoded, static_cast<std::size_t>(encoded_bytes),
                                      raw(text), text.size()) == 1;
  OPENSSL_free(encoded);
  return right;
}

/// An object without a repeated key at any depth; anything else is discarded.
json parse_object(std::string_view text, const char*& problem) {
  std::vector<std::set<std::string>> keys;
  bool repeated = false;
  bool deep = false;
  auto found = json::parse(
      text.begin(), text.end(),
      [&](int, json::parse_event_t event, json& value) {
        if (event == json::parse_event_t::object_start) {
          keys.emplace_back();
          deep = deep || keys.size() > depth_max;
        } else if (event == json::parse_event_t::object_end) {
          keys.pop_back();
        } else if (event == json::parse_event_t::key) {
          repeated = !keys.back().insert(value.get<std::string>()).second || repeated;
        }
        return true;
      },
      false);
  problem = nullptr;
  if (found.is_discarded() || !found.is_object() || deep)
    problem = "is not a JSON object";
  else if (repeated)
    problem = "says something twice";
  return found;
}

/// A text for a sentence: what is not plain is left out, and it is short.
std::string shown(const std::string& text) {
  std::string plain;
  for (const char letter : text)
    if (letter >= ' ' && letter <= '~' && plain.size() < 32)
      plain += letter;
  return plain;
}

bool is_plain(const std::string& text) {
  return text.size() <= license_text_bytes_max && std::ranges::none_of(text, [](char letter) {
           const auto code = static_cast<unsigned char>(letter);
           return code < 0x20 || code == 0x7F;
         });
}

/// One claim after the other; the first that is wrong is the problem.
class claims {
public:
  explicit claims(const json& object) : object_(object) {}

  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

  std::string text(const char* claim, bool required) {
    const auto at = object_.find(claim);
    if (at == object_.end()) {
      if (required)
        refuse(std::string("has no ") + claim);
      return {};
    }
    if (!at->is_string() || !is_plain(at->get_ref<const std::string&>())) {
      refuse(std::string("has a ") + claim + " that is not a text of at most " +
             std::to_string(license_text_bytes_max) + " plain bytes");
      return {};
    }
    return at->get<std::string>();
  }

  /// Some issuers write whole numbers with a fraction of zero.
  std::optional<std::uint64_t> number(const char* claim, bool required, std::uint64_t most) {
    const auto at = object_.find(claim);
    if (at == object_.end()) {
      if (required)
        refuse(std::string("has no ") + claim);
      return std::nullopt;
    }
    std::optional<std::uint64_t> value;
    if (at->is_number_unsigned()) {
      value = at->get<std::uint64_t>();
    } else if (at->is_number_float()) {
      const double whole = at->get<double>();
      if (whole >= 0 && whole <= static_cast<double>(account_max) &&
          static_cast<double>(static_cast<std::uint64_t>(whole)) == whole)
        value = static_cast<std::uint64_t>(whole);
    }
    if (!value || *value > most) {
      refuse(std::string("has an ") + claim + " that is not a whole number from 0 to " +
             std::to_string(most));
      return std::nullopt;
    }
    return value;
  }

  void refuse(std::string why) {
    if (problem_.empty())
      problem_ = std::move(why);
  }

private:
  const json& object_;
  std::string problem_;
};

license_verdict refused(std::string why) {
  return {std::nullopt, std::move(why)};
}

license_verdict read_claims(std::string_view text, std::uint64_t now_s) {
  const char* problem = nullptr;
  const auto object = parse_object(text, problem);
  if (problem != nullptr)
    return refused(std::string("the license's content ") + problem);
  claims from{object};
  license found;
  found.issuer = from.text("iss", false);
  found.subject = from.text("sub", false);
  found.id = from.text("lid", false);
  found.organization = from.text("org", true);
  found.account = from.number("aid", true, account_max).value_or(0);
  found.issued_at_s = from.number("iat", true, time_s_max).value_or(0);
  found.expires_at_s = from.number("exp", true, time_s_max).value_or(0);
  const auto not_before_s = from.number("nbf", false, time_s_max).value_or(0);
  const auto plan_text = from.text("plan", true);
  if (!from.problem().empty())
    return refused("the license " + from.problem());
  const auto plan = parse_license_plan(plan_text);
  if (!plan)
    return refused("the license's plan is \"" + shown(plan_text) +
                   "\": Free, Enterprise, EnterpriseLite and EnterprisePlus are accepted");
  found.plan = *plan;
  if (found.expires_at_s <= found.issued_at_s)
    return refused("the license ends before it begins");
  if (auto why = license_time_problem(found, now_s); !why.empty())
    return refused(std::move(why));
  if (not_before_s > now_s && not_before_s - now_s > license_clock_allowance_s)
    return refused("the license is not valid before " + utc_text(not_before_s) +
                   ": check this machine's clock, or wait");
  return {std::move(found), {}};
}

std::string check_header(std::string_view text) {
  const char* problem = nullptr;
  const auto header = parse_object(text, problem);
  if (problem != nullptr)
    return std::string("the license's header ") + problem;
  const auto algorithm = header.find("alg");
  if (algorithm == header.end() || !algorithm->is_string())
    return "the license does not say what it is signed with: only ES384 is accepted";
  if (const auto& given = algorithm->get_ref<const std::string&>(); given != "ES384")
    return "the license is signed with \"" + shown(given) + "\": only ES384 is accepted";
  if (const auto type = header.find("typ"); type != header.end()) {
    if (!type->is_string())
      return "the license is not a JWT by its own header";
    auto given = type->get<std::string>();
    std::ranges::transform(given, given.begin(),
                           [](char each) { return each >= 'a' && each <= 'z' ? char(each - 32) : each; });
    if (given != "JWT")
      return "the license is a \"" + shown(type->get<std::string>()) + "\" by its own header, not a JWT";
  }
  // Whoever does not understand what is marked as critical has to refuse; nothing of it is understood here.
  if (header.contains("crit") || header.contains("b64"))
    return "the license asks for extensions that this version does not know";
  return {};
}

license_verdict verify(std::string_view token, std::span<const license_key> keys, std::uint64_t now_s) {
  if (token.empty())
    return refused("the license is empty");
  if (token.size() > license_bytes_max)
    return refused("the license is longer than " + std::to_string(license_bytes_max) + " bytes");
  const auto first = token.find('.');
  const auto second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
    return refused("the license is not a JWT: three parts with dots between");
  const auto header = detail::from_base64url(token.substr(0, first));
  const auto content = detail::from_base64url(token.substr(first + 1, second - first - 1));
  const auto signature = detail::from_base64url(token.substr(second + 1));
  if (!header || !content || !signature)
    return refused("the license is not a JWT: a part of it is not base64url, or was cut off");
  if (auto why = check_header(*header); !why.empty())
    return refused(std::move(why));
  if (signature->size() != 2 * half_bytes)
    return refused("the license's signature has " + std::to_string(signature->size()) +
                   " bytes: one of ES384 has 96");
  const license_key* by = nullptr;
  bool any = false;
  for (const auto& key : keys) {
    const auto opened = read_key(key.pem);
    any = any || opened != nullptr;
    if (by == nullptr && opened != nullptr && signed_with(opened.get(), token.substr(0, second), *signature))
      by = &key;
  }
  ERR_clear_error();
  if (!any)
    return refused("this build has no key on the curve P-384 to verify licenses with");
  if (by == nullptr)
    return refused("the license's signature is not one of a key that this build accepts: it was changed, or "
                   "made for another build");
  auto verdict = read_claims(*content, now_s);
  if (verdict.ok())
    verdict.granted->development = by->development;
  return verdict;
}

constexpr const char* out_of_memory = "the license could not be checked: not enough memory";

} // namespace

std::string utc_text(std::uint64_t seconds) {
  using namespace std::chrono;
  const auto at = sys_seconds{std::chrono::seconds{std::min(seconds, time_s_max)}};
  const auto day = floor<days>(at);
  const year_month_day date{day};
  const hh_mm_ss time{at - day};
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
                static_cast<int>(time.seconds().count()));
  return text.data();
}

std::string license_time_problem(const license& granted, std::uint64_t now_s) {
  if (now_s >= granted.expires_at_s)
    return "the license ended at " + utc_text(granted.expires_at_s) + ": get a new one";
  if (granted.issued_at_s > now_s && granted.issued_at_s - now_s > license_clock_allowance_s)
    return "the license was issued at " + utc_text(granted.issued_at_s) +
           ", which has not come yet: check this machine's clock";
  return {};
}

license_verdict verify_license(std::string_view token, std::span<const license_key> keys,
                               std::uint64_t now_s) noexcept {
  try {
    return verify(token, keys, now_s);
  } catch (const std::exception&) {
    return {std::nullopt, out_of_memory};
  }
}

namespace detail {

std::string check_license_header(std::string_view text) noexcept {
  try {
    return check_header(text);
  } catch (const std::exception&) {
    return out_of_memory;
  }
}

license_verdict read_license_claims(std::string_view text, std::uint64_t now_s) noexcept {
  try {
    return read_claims(text, now_s);
  } catch (const std::exception&) {
    return {std::nullopt, out_of_memory};
  }
}

std::optional<std::string> from_base64url(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  unsigned held = 0;
  for (const char letter : text) {
    std::uint32_t value = 0;
    if (letter >= 'A' && letter <= 'Z')
      value = static_cast<std::uint32_t>(letter - 'A');
    else if (letter >= 'a' && letter <= 'z')
      value = static_cast<std::uint32_t>(letter - 'a') + 26;
    else if (letter >= '0' && letter <= '9')
      value = static_cast<std::uint32_t>(letter - '0') + 52;
    else if (letter == '-' || letter == '_')
      value = letter == '-' ? 62 : 63;
    else
      return std::nullopt;
    bits = bits << 6U | value;
    held += 6;
    if (held >= 8) {
      held -= 8;
      bytes += static_cast<char>(static_cast<unsigned char>(bits >> held));
      bits &= (1U << held) - 1;
    }
  }
  // One letter alone says nothing; bits that are left over would let a token be written in several ways.
  if (text.empty() || held >= 6 || bits != 0)
    return std::nullopt;
  return bytes;
}

} // namespace detail

} // namespace memkv::wire
