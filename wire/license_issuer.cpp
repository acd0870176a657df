#include "wire/license_issuer.hpp"

#include "wire/hex.hpp"

#include <nlohmann/json.hpp>

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <array>
#include <memory>
#include <vector>

namespace memkv::wire {

namespace {

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
using key_ptr = std::unique_ptr<EVP_PKEY, free_key>;
using bio_ptr = std::unique_ptr<BIO, free_bio>;

constexpr const char* no_private_key = "the file holds no private key in PEM form that can be read without a "
                                       "password";

/// No password is asked for: the default would wait at the terminal.
int no_password(char*, int, int, void*) {
  return -1;
}

key_ptr read_private(std::string_view pem) {
  const bio_ptr text{BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))};
  return key_ptr{text == nullptr ? nullptr
                                 : PEM_read_bio_PrivateKey(text.get(), nullptr, no_password, nullptr)};
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio, &data);
  return bytes <= 0 ? std::string{} : std::string(data, static_cast<std::size_t>(bytes));
}

std::string public_text(EVP_PKEY* key) {
  const bio_ptr out{BIO_new(BIO_s_mem())};
  if (out == nullptr || PEM_write_bio_PUBKEY(out.get(), key) != 1)
    return {};
  return text_of(out.get());
}

} // namespace

std::string make_license_keys(license_key_pair& pair) {
  const key_ptr key{EVP_EC_gen("P-384")};
  const bio_ptr out{BIO_new(BIO_s_mem())};
  if (key == nullptr || out == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return "a key pair could not be made";
  pair = {text_of(out.get()), public_text(key.get())};
  return {};
}

std::string public_license_key(std::string_view private_pem, std::string& public_pem) {
  const auto key = read_private(private_pem);
  if (key == nullptr)
    return no_private_key;
  public_pem = public_text(key.get());
  return {};
}

std::string issue_license(const license& wanted, std::string_view private_pem, std::string& token) {
  nlohmann::json content{{"plan", name(wanted.plan)},
                         {"org", wanted.organization},
                         {"aid", wanted.account},
                         {"iat", wanted.issued_at_s},
                         {"exp", wanted.expires_at_s}};
  if (!wanted.issuer.empty())
    content["iss"] = wanted.issuer;
  if (!wanted.subject.empty())
    content["sub"] = wanted.subject;
  if (!wanted.id.empty())
    content["lid"] = wanted.id;
  // Bytes that are no UTF-8 become U+FFFD instead of an exception.
  return detail::sign_license_parts(R"({"alg":"ES384","typ":"JWT"})",
                                    content.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                                    private_pem, token);
}

std::string random_license_id() {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1)
    return {};
  return hex_text(std::as_bytes(std::span(bytes)));
}

namespace detail {

std::string to_base64url(std::string_view bytes) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  std::uint32_t bits = 0;
  unsigned held = 0;
  for (const char each : bytes) {
    bits = (bits << 8U | static_cast<unsigned char>(each)) & 0xFFFFU;
    for (held += 8; held >= 6; held -= 6)
      text += letters[bits >> (held - 6) & 63U];
  }
  if (held > 0)
    text += letters[bits << (6 - held) & 63U];
  return text;
}

std::string sign_license_parts(std::string_view header, std::string_view content,
                               std::string_view private_pem, std::string& token) {
  const auto key = read_private(private_pem);
  if (key == nullptr)
    return no_private_key;
  const auto text = to_base64url(header) + "." + to_base64url(content);
  const std::unique_ptr<EVP_MD_CTX, free_digest> context{EVP_MD_CTX_new()};
  std::vector<unsigned char> encoded(256);
  std::size_t encoded_bytes = encoded.size();
  if (context == nullptr || EVP_PKEY_is_a(key.get(), "EC") != 1 ||
      EVP_DigestSignInit(context.get(), nullptr, EVP_sha384(), nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), encoded.data(), &encoded_bytes,
                     reinterpret_cast<const unsigned char*>(text.data()), text.size()) != 1)
    return "the key cannot sign a license: it must be one on the curve P-384";
  const unsigned char* at = encoded.data();
  const std::unique_ptr<ECDSA_SIG, free_signature> numbers{
      d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(encoded_bytes))};
  // As long as the curve's numbers: 48 bytes each on P-384.
  const int half = (EVP_PKEY_get_bits(key.get()) + 7) / 8;
  std::string signature(static_cast<std::size_t>(2 * half), '\0');
  auto* out = reinterpret_cast<unsigned char*>(signature.data());
  if (numbers == nullptr || BN_bn2binpad(ECDSA_SIG_get0_r(numbers.get()), out, half) != half ||
      BN_bn2binpad(ECDSA_SIG_get0_s(numbers.get()), out + half, half) != half)
    return "the license could not be signed";
  token = text + "." + to_base64url(signature);
  return {};
}

} // namespace detail

} // namespace memkv::wire
