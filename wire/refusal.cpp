#include "wire/refusal.hpp"

namespace memkv::wire {

std::string_view name(refusal reason) noexcept {
  static constexpr std::array<std::string_view, refusal_count> names = {
      "none",        "bad_magic",  "bad_direction", "bad_length",     "bad_mac",      "stale_time",
      "bad_version", "bad_tag",    "old_id",        "hello_expected", "second_hello", "too_many_drops",
      "malformed",   "unknown_id", "wrong_opcode",  "wrong_part",     "wrong_kind"};
  const auto index = static_cast<std::size_t>(reason);
  return index < names.size() ? names[index] : "none";
}

} // namespace memkv::wire
