// Fuzz target: licences. The first byte chooses what the rest is: a token, the header of one, or its content.
#include "wire/assert.hpp"
#include "wire/license_search.hpp"

#include <cstdint>
#include <string_view>

using namespace memkv::wire;

namespace {

constexpr std::uint64_t now_s = 1'800'000'000;

void exercise_claims(std::string_view text) {
  const auto verdict = detail::read_license_claims(text, now_s);
  MEMKV_ASSERT(verdict.ok() == verdict.problem.empty(), "there is a licence or a problem");
  if (!verdict.ok())
    return;
  const auto& found = *verdict.granted;
  MEMKV_ASSERT(now_s < found.expires_at_s && found.issued_at_s <= now_s + license_clock_allowance_s,
               "what is accepted is valid now");
  for (const auto* each : {&found.organization, &found.issuer, &found.subject, &found.id})
    MEMKV_ASSERT(each->size() <= license_text_bytes_max && each->find('\n') == std::string::npos,
                 "what is accepted fits into a line of the log");
  MEMKV_ASSERT(parse_license_plan(name(found.plan)) == found.plan, "a plan has its name");
}

void exercise_token(std::string_view text) {
  // Nobody has signed it.
  MEMKV_ASSERT(!verify_license(text, built_in_license_keys(), now_s).ok(), "a forged licence is refused");
  MEMKV_ASSERT(trimmed_license(trimmed_license(text)) == trimmed_license(text), "trimmed is trimmed");
  if (const auto bytes = detail::from_base64url(text))
    MEMKV_ASSERT(bytes->size() == text.size() * 3 / 4, "every letter of base64url counts");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0)
    return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 3 == 0)
    exercise_token(text);
  else if (data[0] % 3 == 1)
    static_cast<void>(detail::check_license_header(text));
  else
    exercise_claims(text);
  return 0;
}
