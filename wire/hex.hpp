// Bytes as hexadecimal digits, and back.
//
// Threading: pure functions. Errors: what is no digit, or not exactly as many as wanted, is refused.
#pragma once

#include "wire/bytes.hpp"

#include <string>
#include <string_view>

namespace memkv::wire {

/// Two digits a byte, in lower case.
[[nodiscard]] inline std::string hex_text(bytes_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const auto byte : bytes) {
    text += digits[std::to_integer<unsigned>(byte) >> 4U];
    text += digits[std::to_integer<unsigned>(byte) & 15U];
  }
  return text;
}

/// Two digits a byte, in either case, no more and no fewer than `out` has room for; else what it holds then
/// means nothing.
[[nodiscard]] inline bool read_hex(std::string_view text, bytes_span out) noexcept {
  const auto value = [](char digit) {
    if (digit >= '0' && digit <= '9')
      return digit - '0';
    if (digit >= 'a' && digit <= 'f')
      return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
      return digit - 'A' + 10;
    return -1;
  };
  if (text.size() != 2 * out.size())
    return false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const int high = value(text[2 * i]), low = value(text[2 * i + 1]);
    if (high < 0 || low < 0)
      return false;
    out[i] = static_cast<std::byte>(high * 16 + low);
  }
  return true;
}

} // namespace memkv::wire
