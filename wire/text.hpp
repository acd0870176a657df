// Small things about texts that several rooms need: blanks, letters, UTF-8.
//
// Threading: pure functions. Ownership: views of what is handed in. Errors: none; what is no UTF-8 is told.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace memkv::wire {

/// Without `blanks` at its ends.
[[nodiscard]] constexpr std::string_view trimmed(std::string_view text,
                                                 std::string_view blanks = " \t") noexcept {
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos)
    return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

/// A to Z in lower case, whatever the locale.
[[nodiscard]] inline std::string lowered(std::string_view text) {
  std::string lower(text);
  for (char& letter : lower)
    if (letter >= 'A' && letter <= 'Z')
      letter = static_cast<char>(letter - 'A' + 'a');
  return lower;
}

/// What stands at the beginning of a text.
struct character {
  char32_t code = 0;
  std::size_t bytes = 1; // of one that is not valid: the byte to leave out
  bool valid = false;    // well-formed UTF-8: neither longer than needed nor half of a pair
};

/// Of a text that is not empty.
[[nodiscard]] inline character first_character(std::string_view text) noexcept {
  const auto byte = [&text](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned lead = byte(0);
  if (lead < 0x80)
    return {lead, 1, true};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length)
    return {};
  char32_t code = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80)
      return {};
    code = code << 6U | (byte(i) & 0x3FU);
  }
  constexpr std::array<char32_t, 5> least{0, 0, 0x80, 0x800, 0x10000};
  if (code < least[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
    return {};
  return {code, length, true};
}

} // namespace memkv::wire
