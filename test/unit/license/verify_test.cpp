// The verifier against everything that is not a licence. Every sentence is compared.
#define CAF_SUITE license_verify
#include "test/unit/license/license_test.hpp"

#include <caf/test/unit_test.hpp>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>

#include <iostream>
#include <random>
#include <vector>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

constexpr std::string_view good_header = R"({"alg":"ES384","typ":"JWT"})";
constexpr std::string_view forged =
    "the license's signature is not one of a key that this build accepts: it was changed, or made for "
    "another build";
constexpr std::string_view not_encoded =
    "the license is not a JWT: a part of it is not base64url, or was cut off";
constexpr std::string_view no_parts = "the license is not a JWT: three parts with dots between";

std::string problem_of(std::string_view token, std::uint64_t now_s = noon_s) {
  const auto verdict = verify_license(token, accepted_keys(), now_s);
  CAF_CHECK_EQUAL(verdict.ok(), verdict.problem.empty());
  return verdict.problem;
}

/// Claims as some_license() has them, `extra` first.
std::string content_with(const std::string& extra, const std::string& plan = R"("Enterprise")",
                         const std::string& issued = "1800000000", const std::string& ends = "1800086400") {
  return "{" + extra + R"("org":"Example","aid":7,"plan":)" + plan + R"(,"iat":)" + issued + R"(,"exp":)" +
         ends + "}";
}

std::string problem_of_content(const std::string& content) {
  return problem_of(token_of(good_header, content));
}

std::string problem_of_header(std::string_view header) {
  return problem_of(token_of(header, content_with("")));
}

/// A private key on another curve.
std::string private_key_on(const char* curve) {
  EVP_PKEY* key = EVP_EC_gen(curve);
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_PKCS8PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(out, &data);
  std::string text(data, static_cast<std::size_t>(bytes));
  BIO_free(out);
  EVP_PKEY_free(key);
  return text;
}

} // namespace

CAF_TEST(a good license says what it was issued with) {
  for (const auto plan : {license_plan::free, license_plan::enterprise, license_plan::enterprise_lite,
                          license_plan::enterprise_plus}) {
    auto wanted = some_license();
    wanted.plan = plan;
    const auto verdict = verify_license(token_of(wanted), accepted_keys(), noon_s + day_s);
    CAF_CHECK_EQUAL(verdict.problem, "");
    CAF_REQUIRE(verdict.ok());
    const auto& found = *verdict.granted;
    CAF_CHECK(found.plan == plan);
    CAF_CHECK_EQUAL(found.organization, "Example");
    CAF_CHECK_EQUAL(found.issuer, "issuer");
    CAF_CHECK_EQUAL(found.subject, "someone@example.com");
    CAF_CHECK_EQUAL(found.id, "0123");
    CAF_CHECK_EQUAL(found.account, 7u);
    CAF_CHECK_EQUAL(found.issued_at_s, noon_s);
    CAF_CHECK_EQUAL(found.expires_at_s, noon_s + 30 * day_s);
    CAF_CHECK(!found.development);
  }
}

CAF_TEST(names of plans are exact) {
  CAF_CHECK_EQUAL(name(license_plan::enterprise_lite), "EnterpriseLite");
  CAF_CHECK(parse_license_plan("EnterprisePlus") == license_plan::enterprise_plus);
  for (const auto* wrong : {"free", "FREE", "Enterprise ", "Enterprise-Lite", "STANDARD", "TRIAL", ""})
    CAF_CHECK(!parse_license_plan(wrong));
}

CAF_TEST(the claims of the public verifier that are not used do no harm) {
  CAF_CHECK_EQUAL(
      problem_of_content(content_with(
          R"("did":"x","cap":50.5,"trial":true,"apiKey":"y","sub":"a@b","lid":"z","nested":{"a":[1]},)")),
      "");
  // Numbers as programs write them that know only floating point.
  CAF_CHECK_EQUAL(problem_of_content(content_with("", R"("Free")", "1.8e9", "1800086400.0")), "");
}

CAF_TEST(a license is refused when it is over and before it was issued) {
  const auto token = token_of(some_license());
  CAF_CHECK_EQUAL(problem_of(token, noon_s + 30 * day_s - 1), "");
  CAF_CHECK_EQUAL(problem_of(token, noon_s + 30 * day_s),
                  "the license ended at 2027-02-14T08:00:00Z: get a new one");
  CAF_CHECK_EQUAL(problem_of(token, UINT64_MAX), "the license ended at 2027-02-14T08:00:00Z: get a new one");
  CAF_CHECK_EQUAL(problem_of(token, noon_s - license_clock_allowance_s), "");
  const std::string early = "the license was issued at 2027-01-15T08:00:00Z, which has not come yet: check "
                            "this machine's clock";
  CAF_CHECK_EQUAL(problem_of(token, noon_s - license_clock_allowance_s - 1), early);
  CAF_CHECK_EQUAL(problem_of(token, 0), early);
  CAF_CHECK_EQUAL(
      problem_of_content(content_with(R"("nbf":1800000301,)")),
      "the license is not valid before 2027-01-15T08:05:01Z: check this machine's clock, or wait");
  CAF_CHECK_EQUAL(problem_of_content(content_with(R"("nbf":1800000300,)")), "");
}

CAF_TEST(only ES384 is accepted) {
  const std::string only = ": only ES384 is accepted";
  for (const auto* other :
       {"none", "None", "NONE", "nOnE", "HS256", "HS384", "RS256", "ES256", "ES512", "es384", ""})
    CAF_CHECK_EQUAL(problem_of_header(std::string(R"({"alg":")") + other + R"("})"),
                    std::string("the license is signed with \"") + other + "\"" + only);
  CAF_CHECK_EQUAL(problem_of_header(R"({"typ":"JWT"})"),
                  "the license does not say what it is signed with" + only);
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":["ES384"]})"),
                  "the license does not say what it is signed with" + only);
}

CAF_TEST(no signature at all is refused) {
  const auto parts = detail::to_base64url(R"({"alg":"none"})") + "." + detail::to_base64url(content_with(""));
  CAF_CHECK_EQUAL(problem_of(parts + "."), not_encoded);
  CAF_CHECK_EQUAL(problem_of(parts), no_parts);
  // An empty signature under the right name.
  const auto good = token_of(some_license());
  CAF_CHECK_EQUAL(problem_of(good.substr(0, good.rfind('.') + 1)), not_encoded);
}

CAF_TEST(the public key as the secret of an HMAC opens nothing) {
  for (const auto* header : {R"({"alg":"HS256","typ":"JWT"})", R"({"alg":"ES384","typ":"JWT"})"}) {
    const auto text = detail::to_base64url(header) + "." + detail::to_base64url(content_with(""));
    const auto& secret = test_keys().public_pem;
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    unsigned bytes = 0;
    HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash.data(), &bytes);
    const auto token = text + "." + detail::to_base64url({reinterpret_cast<const char*>(hash.data()), bytes});
    CAF_CHECK_EQUAL(problem_of(token), std::string_view(header).find("HS256") != std::string_view::npos
                                           ? "the license is signed with \"HS256\": only ES384 is accepted"
                                           : "the license's signature has 32 bytes: one of ES384 has 96");
  }
}

CAF_TEST(a signature on another curve is refused by its length and a key on one is no key) {
  const auto p256 = private_key_on("P-256");
  std::string token;
  CAF_REQUIRE_EQUAL(detail::sign_license_parts(good_header, content_with(""), p256, token), "");
  CAF_CHECK_EQUAL(problem_of(token), "the license's signature has 64 bytes: one of ES384 has 96");
  const auto p521 = private_key_on("P-521");
  CAF_REQUIRE_EQUAL(detail::sign_license_parts(good_header, content_with(""), p521, token), "");
  CAF_CHECK_EQUAL(problem_of(token), "the license's signature has 132 bytes: one of ES384 has 96");
  // 96 bytes of another curve of 384 bits, whose key somebody built in.
  const auto other = private_key_on("brainpoolP384r1");
  CAF_REQUIRE_EQUAL(detail::sign_license_parts(good_header, content_with(""), other, token), "");
  CAF_CHECK_EQUAL(problem_of(token), forged);
  std::string public_pem;
  CAF_REQUIRE_EQUAL(public_license_key(other, public_pem), "");
  const std::array<license_key, 1> keys{{{public_pem, false}}};
  CAF_CHECK_EQUAL(verify_license(token, keys, noon_s).problem,
                  "this build has no key on the curve P-384 to verify licenses with");
  const std::array<license_key, 1> nonsense{{{"no key", false}}};
  CAF_CHECK_EQUAL(verify_license(token, nonsense, noon_s).problem,
                  "this build has no key on the curve P-384 to verify licenses with");
  CAF_CHECK_EQUAL(verify_license(token, {}, noon_s).problem,
                  "this build has no key on the curve P-384 to verify licenses with");
}

CAF_TEST(a signature by another key or of nothing is refused) {
  license_key_pair other;
  CAF_REQUIRE_EQUAL(make_license_keys(other), "");
  std::string token;
  CAF_REQUIRE_EQUAL(issue_license(some_license(), other.private_pem, token), "");
  CAF_CHECK_EQUAL(problem_of(token), forged);
  const auto good = token_of(some_license());
  const auto text = good.substr(0, good.rfind('.') + 1);
  for (const char byte : {'\0', '\1', '\x7F', '\xFF'})
    CAF_CHECK_EQUAL(problem_of(text + detail::to_base64url(std::string(96, byte))), forged);
  // Half of it nothing.
  const auto signature = *detail::from_base64url(good.substr(good.rfind('.') + 1));
  CAF_CHECK_EQUAL(problem_of(text + detail::to_base64url(signature.substr(0, 48) + std::string(48, '\0'))),
                  forged);
  CAF_CHECK_EQUAL(problem_of(text + detail::to_base64url(std::string(48, '\0') + signature.substr(48))),
                  forged);
  // In the form that libraries give it, not the form that tokens have.
  CAF_CHECK_EQUAL(problem_of(text + detail::to_base64url(signature + "\x01")),
                  "the license's signature has 97 bytes: one of ES384 has 96");
}

CAF_TEST(any key of several is accepted and says which kind it is) {
  license_key_pair other;
  CAF_REQUIRE_EQUAL(make_license_keys(other), "");
  const std::array<license_key, 3> keys{
      {{"not a key", false}, {other.public_pem, false}, {test_keys().public_pem, true}}};
  const auto verdict = verify_license(token_of(some_license()), keys, noon_s);
  CAF_REQUIRE(verdict.ok());
  CAF_CHECK(verdict.granted->development);
}

CAF_TEST(other content under a good signature is refused) {
  const auto good = token_of(some_license());
  auto more = some_license();
  more.plan = license_plan::enterprise_plus;
  more.expires_at_s += 1000 * day_s;
  const auto other = token_of(more);
  const auto content_begin = [](const std::string& token) { return token.find('.') + 1; };
  const auto content_of = [&](const std::string& token) {
    return token.substr(content_begin(token), token.rfind('.') - content_begin(token));
  };
  CAF_CHECK_EQUAL(
      problem_of(good.substr(0, content_begin(good)) + content_of(other) + good.substr(good.rfind('.'))),
      forged);
}

CAF_TEST(a token with one letter changed is never accepted) {
  const auto good = token_of(some_license());
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << std::endl;
  std::mt19937 chance{seed};
  constexpr std::string_view letters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n";
  for (std::size_t at = 0; at < good.size(); ++at) {
    auto changed = good;
    while (changed == good)
      changed[at] = letters[chance() % letters.size()];
    CAF_CHECK(!verify_license(changed, accepted_keys(), noon_s).ok());
  }
  for (std::size_t length = 0; length < good.size(); ++length)
    CAF_CHECK(!verify_license(good.substr(0, length), accepted_keys(), noon_s).ok());
}

CAF_TEST(a token has three parts of strict base64url) {
  const auto good = token_of(some_license());
  CAF_CHECK_EQUAL(problem_of(""), "the license is empty");
  CAF_CHECK_EQUAL(problem_of(std::string(license_bytes_max + 1, 'e')),
                  "the license is longer than 8192 bytes");
  CAF_CHECK_EQUAL(problem_of("eyJ"), no_parts);
  CAF_CHECK_EQUAL(problem_of(good + ".eyJ"), no_parts);
  CAF_CHECK_EQUAL(problem_of(".."), not_encoded);
  CAF_CHECK_EQUAL(problem_of(good + "="), not_encoded);
  CAF_CHECK_EQUAL(problem_of(" " + good), not_encoded);
  CAF_CHECK_EQUAL(problem_of(good + "\n"), not_encoded);
  CAF_CHECK_EQUAL(problem_of(std::string(1, '\0') + good), not_encoded);
}

CAF_TEST(base64url has one form for each text) {
  CAF_CHECK_EQUAL(detail::from_base64url("TQ").value_or("none"), "M");
  CAF_CHECK_EQUAL(detail::from_base64url("TWE").value_or("none"), "Ma");
  CAF_CHECK_EQUAL(detail::from_base64url("TWFu").value_or("none"), "Man");
  CAF_CHECK_EQUAL(detail::from_base64url("-_-_").value_or("none"), "\xFB\xFF\xBF");
  for (const auto* wrong :
       {"", "T", "TR", "TWF", "TWFuT", "TQ==", "TQ=", "T+Fu", "T/Fu", "TW Fu", "TWF\n", "TW.u"})
    CAF_CHECK(!detail::from_base64url(wrong));
  for (std::size_t bytes = 1; bytes < 50; ++bytes) {
    std::string text;
    for (std::size_t i = 0; i < bytes; ++i)
      text += static_cast<char>(bytes * 37 + i * 101);
    const auto back = detail::from_base64url(detail::to_base64url(text));
    CAF_CHECK(back && *back == text);
  }
}

CAF_TEST(a header is one object that asks for nothing more) {
  const std::string no_object = "the license's header is not a JSON object";
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384"})"), "");
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","typ":"jwt","kid":"1","jku":"http://example.com"})"),
                  "");
  for (const auto* wrong : {"", "x", "[]", "null", "\"ES384\"",
                            R"({"alg":"ES384"} )"
                            "x",
                            R"({"alg":"ES384"}{})", R"({"alg":"ES384",})", "{\"alg\":\"ES384\"}\n//"})
    CAF_CHECK_EQUAL(detail::check_license_header(wrong), no_object);
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"none","alg":"ES384"})"),
                  "the license's header says something twice");
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","x":{"a":1,"a":2}})"),
                  "the license's header says something twice");
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","typ":"JWE"})"),
                  "the license is a \"JWE\" by its own header, not a JWT");
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","typ":1})"),
                  "the license is not a JWT by its own header");
  const std::string extensions = "the license asks for extensions that this version does not know";
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","crit":["exp"]})"), extensions);
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","crit":[]})"), extensions);
  CAF_CHECK_EQUAL(problem_of_header(R"({"alg":"ES384","b64":false})"), extensions);
}

CAF_TEST(claims that are missing or twice or of another kind are refused by name) {
  const std::string no_object = "the license's content is not a JSON object";
  const std::string twice = "the license's content says something twice";
  CAF_CHECK_EQUAL(problem_of_content("[]"), no_object);
  CAF_CHECK_EQUAL(problem_of_content("{"), no_object);
  CAF_CHECK_EQUAL(problem_of_content("{\"org\":\"\xFF\"}"), no_object);
  CAF_CHECK_EQUAL(problem_of_content(std::string(3000, '[')), no_object);
  std::string deep;
  for (int i = 0; i < 20; ++i)
    deep += "{\"a\":";
  CAF_CHECK_EQUAL(problem_of_content(content_with("\"x\":" + deep + "1" + std::string(20, '}') + ",")),
                  no_object);
  CAF_CHECK_EQUAL(problem_of_content(content_with(R"("plan":"Free",)")), twice);
  CAF_CHECK_EQUAL(problem_of_content(content_with(R"("exp":1,)")), twice);
  CAF_CHECK_EQUAL(problem_of_content(content_with(R"("\u0065xp":1,)")), twice);
  CAF_CHECK_EQUAL(problem_of_content(R"({"aid":7,"plan":"Free","iat":1800000000,"exp":1800000001})"),
                  "the license has no org");
  CAF_CHECK_EQUAL(problem_of_content(R"({"org":"x","plan":"Free","iat":1800000000,"exp":1800000001})"),
                  "the license has no aid");
  CAF_CHECK_EQUAL(problem_of_content(R"({"org":"x","aid":7,"iat":1800000000,"exp":1800000001})"),
                  "the license has no plan");
  CAF_CHECK_EQUAL(problem_of_content(R"({"org":"x","aid":7,"plan":"Free","exp":1800000001})"),
                  "the license has no iat");
  CAF_CHECK_EQUAL(problem_of_content(R"({"org":"x","aid":7,"plan":"Free","iat":1800000000})"),
                  "the license has no exp");
  CAF_CHECK_EQUAL(problem_of_content(content_with(R"("iss":7,)")),
                  "the license has a iss that is not a text of at most 256 plain bytes");
  CAF_CHECK_EQUAL(problem_of_content(content_with(R"("lid":"a\nb",)")),
                  "the license has a lid that is not a text of at most 256 plain bytes");
  CAF_CHECK_EQUAL(problem_of_content(content_with("\"sub\":\"" + std::string(257, 'a') + "\",")),
                  "the license has a sub that is not a text of at most 256 plain bytes");
  const std::string late = "the license has an exp that is not a whole number from 0 to 253402300799";
  for (const auto* wrong : {"\"1800086400\"", "-1", "1800086400.5", "1e300", "253402300800",
                            "18446744073709551616", "null", "true"})
    CAF_CHECK_EQUAL(problem_of_content(content_with("", R"("Free")", "1800000000", wrong)), late);
  CAF_CHECK_EQUAL(problem_of_content(content_with("", R"("Free")", "-5")),
                  "the license has an iat that is not a whole number from 0 to 253402300799");
  CAF_CHECK_EQUAL(problem_of_content(content_with("", R"("Free")", "1800000000", "1800000000")),
                  "the license ends before it begins");
}

CAF_TEST(an unknown plan is refused and shown without what does not belong on a terminal) {
  const std::string accepted = ": Free, Enterprise, EnterpriseLite and EnterprisePlus are accepted";
  CAF_CHECK_EQUAL(problem_of_content(content_with("", R"("STANDARD")")),
                  "the license's plan is \"STANDARD\"" + accepted);
  CAF_CHECK_EQUAL(problem_of_content(content_with("", R"("enterprise")")),
                  "the license's plan is \"enterprise\"" + accepted);
  CAF_CHECK_EQUAL(problem_of_content(content_with("", "\"\xC2\x9B" + std::string(100, 'x') + "\"")),
                  "the license's plan is \"" + std::string(32, 'x') + "\"" + accepted);
}

CAF_TEST(times are written as everybody reads them) {
  CAF_CHECK_EQUAL(utc_text(0), "1970-01-01T00:00:00Z");
  CAF_CHECK_EQUAL(utc_text(951'782'400), "2000-02-29T00:00:00Z");
  CAF_CHECK_EQUAL(utc_text(253'402'300'799), "9999-12-31T23:59:59Z");
  CAF_CHECK_EQUAL(utc_text(UINT64_MAX), "9999-12-31T23:59:59Z");
}

CAF_TEST(a private key that is none issues nothing) {
  std::string token;
  CAF_CHECK(!issue_license(some_license(), "no key", token).empty());
  CAF_CHECK(!issue_license(some_license(), test_keys().public_pem, token).empty());
  CAF_CHECK(token.empty());
}
