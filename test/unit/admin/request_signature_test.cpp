// Signed requests: what is accepted, what is refused, and what is remembered.
#define CAF_SUITE request_signature
#include "admin/request_signature.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::admin;
using verdict = signature_verdict;

namespace {

constexpr std::string_view key_text = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321";
constexpr std::string_view target = "/v1/drives/2/reset?secure=true";

wire::shared_key key_of(std::string_view text) {
  return *wire::shared_key::parse(text);
}

wire::nonce nonce_of(std::uint32_t number) {
  wire::nonce unique{};
  wire::store_le(unique.data(), number);
  return unique;
}

struct fixture {
  std::uint64_t now = 1'763'720'000;
  wire::shared_key key = key_of(key_text);
  request_verifier verifier{key, [this] { return now; }, std::nullopt, 100};

  request_signature sign(std::uint32_t number) {
    return sign_request(key, "POST", target, "", now, nonce_of(number));
  }
  verdict check(const request_signature& given) { return verifier.check("POST", target, "", given); }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(request_signature_tests, fixture)

CAF_TEST(the signature is the one that openssl computes) {
  // printf 'memkv admin request v1\nPOST\n/v1/drives/2/reset?secure=true\n<sha256 of nothing>\n1763720000\n
  // <nonce>\n' | openssl dgst -sha256 -mac HMAC -macopt hexkey:...
  const auto made = sign_request(key, "POST", target, "", 1'763'720'000, nonce_of(7));
  CAF_CHECK_EQUAL(made.time, "1763720000");
  CAF_CHECK_EQUAL(made.nonce, "07000000000000000000000000000000");
  CAF_CHECK_EQUAL(made.signature, "bc53d94eb66fe542a385737fa7bc12fc4e8b8e06b2f2616e5a594ffa2f580bfc");
}

CAF_TEST(a signed request is good once) {
  const auto made = sign(1);
  CAF_CHECK(check(made) == verdict::good);
  CAF_CHECK(check(made) == verdict::replayed);
  CAF_CHECK(check(sign(2)) == verdict::good);
  // A nonce stays used when it comes with another time.
  now += 1;
  CAF_CHECK(check(sign(2)) == verdict::replayed);
}

CAF_TEST(every part of the request is signed) {
  const auto made = sign(1);
  CAF_CHECK(verifier.check("PUT", target, "", made) == verdict::wrong);
  CAF_CHECK(verifier.check("POST", "/v1/drives/2/reset", "", made) == verdict::wrong);
  CAF_CHECK(verifier.check("POST", target, "x", made) == verdict::wrong);
  auto other = made;
  other.time = std::to_string(now + 1);
  CAF_CHECK(check(other) == verdict::wrong);
  other = made;
  other.nonce[0] = '7';
  CAF_CHECK(check(other) == verdict::wrong);
  other = made;
  other.signature[63] = other.signature[63] == '0' ? '1' : '0';
  CAF_CHECK(check(other) == verdict::wrong);
  // No end of a part can be moved into the next one.
  CAF_CHECK(verifier.check("POST\n/v1", "/drives/2/reset?secure=true", "", made) == verdict::wrong);
  CAF_CHECK(check(made) == verdict::good);
}

CAF_TEST(a signature for one server is none for another or for any) {
  const std::string here = "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5", there = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
  // printf 'memkv admin request v2\n...\n<nonce>\n<server>\n' | openssl dgst -sha256 -mac HMAC -macopt
  // hexkey:...
  const auto made = sign_request(key, "POST", target, "", 1'763'720'000, nonce_of(7), here);
  CAF_CHECK_EQUAL(made.server, here);
  CAF_CHECK_EQUAL(made.signature, "5d870655d8adfe4840415324d21509bbc15989774ea804aa5ab5525a356b3764");
  for (const auto& server : {there, std::string{}}) {
    auto other = made;
    other.server = server;
    CAF_CHECK(check(other) == verdict::wrong);
  }
  auto added = sign(1);
  added.server = here;
  CAF_CHECK(check(added) == verdict::wrong);
  for (const auto& server : {here.substr(1), here + "0", std::string{"no server"}, here + "\n"})
    CAF_CHECK(check(sign_request(key, "POST", target, "", now, nonce_of(2), server)) == verdict::malformed);
  CAF_CHECK(check(made) == verdict::good);
  CAF_CHECK(check(made) == verdict::replayed);
}

CAF_TEST(another key does not do) {
  const auto other = key_of("1f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321");
  CAF_CHECK(check(sign_request(other, "POST", target, "", now, nonce_of(1))) == verdict::wrong);
  CAF_CHECK_EQUAL(verifier.nonces_kept(), 0u);
}

CAF_TEST(while keys are changed both are accepted and a nonce is used once under either) {
  const auto previous = key_of("1f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321");
  request_verifier both{key, [this] { return now; }, previous};
  CAF_CHECK(both.check("POST", target, "", sign_request(previous, "POST", target, "", now, nonce_of(1))) ==
            verdict::good);
  CAF_CHECK(both.check("POST", target, "", sign(1)) == verdict::replayed);
  CAF_CHECK(both.check("POST", target, "", sign(2)) == verdict::good);
}

CAF_TEST(a missing header and one that cannot be read are told apart) {
  CAF_CHECK(check({}) == verdict::missing);
  auto made = sign(1);
  made.nonce.clear();
  CAF_CHECK(check(made) == verdict::missing);
  for (const auto* text : {"+1763720000", " 1763720000", "1763720000 ", "1763720000.5", "-1", "0x10", "",
                           "99999999999999999999999999"}) {
    made = sign(1);
    made.time = text;
    CAF_CHECK(check(made) == (*text == '\0' ? verdict::missing : verdict::malformed));
  }
  made = sign(1);
  made.nonce.pop_back();
  CAF_CHECK(check(made) == verdict::malformed);
  made = sign(1);
  made.signature[5] = 'g';
  CAF_CHECK(check(made) == verdict::malformed);
}

CAF_TEST(a time of more than a minute either way is refused) {
  now += 1000;
  const auto made = sign(1), later = sign(2), early = sign(3);
  now += 61;
  CAF_CHECK(check(made) == verdict::stale);
  now -= 1;
  CAF_CHECK(check(made) == verdict::good);
  now -= 121;
  CAF_CHECK(check(early) == verdict::stale);
  auto huge = sign(4);
  huge.time = "18446744073709551615";
  CAF_CHECK(check(huge) == verdict::stale);
}

CAF_TEST(what was signed before the start is refused) {
  const auto made = sign_request(key, "POST", target, "", now - 1, nonce_of(1));
  CAF_CHECK(check(made) == verdict::stale);
}

CAF_TEST(nonces are forgotten when their time is over) {
  for (std::uint32_t number = 0; number < 100; ++number)
    CAF_REQUIRE(check(sign(number)) == verdict::good);
  CAF_CHECK_EQUAL(verifier.nonces_kept(), 100u);
  CAF_CHECK(check(sign(100)) == verdict::crowded);
  now += 60;
  CAF_CHECK(check(sign(100)) == verdict::crowded);
  now += 1;
  CAF_CHECK(check(sign(100)) == verdict::good);
  CAF_CHECK_EQUAL(verifier.nonces_kept(), 1u);
}

CAF_TEST(a clock that is set forward and back lets nothing be replayed) {
  const auto made = sign(1);
  CAF_REQUIRE(check(made) == verdict::good);
  now += 3600;
  CAF_REQUIRE(check(sign(2)) == verdict::good);
  now -= 3600;
  CAF_CHECK(check(made) == verdict::stale);
}

CAF_TEST_FIXTURE_SCOPE_END()
