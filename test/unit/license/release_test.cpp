// A library made as for a release, with a key of its own: it refuses what the development key signed. Linked
// with the keys that cmake/write_license_keys.cmake writes without it.
#define CAF_SUITE license_release
#include "test/unit/license/license_test.hpp"

#include "wire/license_file.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

std::string signed_by(std::string_view private_pem) {
  std::string token;
  CAF_REQUIRE_EQUAL(issue_license(some_license(), private_pem, token), "");
  return token;
}

} // namespace

CAF_TEST(a release accepts its own licenses and refuses those of the development key) {
  const auto keys = built_in_license_keys();
  CAF_REQUIRE_EQUAL(keys.size(), 1u);
  CAF_CHECK(!keys[0].development);
  const auto own = read_license_file(MEMKV_TEST_RELEASE_KEY);
  const auto accepted = verify_license(signed_by(own.text), keys, noon_s);
  CAF_CHECK_EQUAL(accepted.problem, "");
  CAF_CHECK(accepted.ok() && !accepted.granted->development);
  const auto everybodys = read_license_file(MEMKV_TEST_DEVELOPMENT_KEY);
  CAF_REQUIRE(everybodys.result == license_text::outcome::read);
  const auto refused = verify_license(signed_by(everybodys.text), keys, noon_s);
  CAF_CHECK(!refused.ok());
  CAF_CHECK_EQUAL(refused.problem, "the license's signature is not one of a key that this build accepts: it "
                                   "was changed, or made for another build");
}
