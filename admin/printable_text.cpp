#include "admin/printable_text.hpp"

#include "wire/text.hpp"

#include <array>
#include <cstdint>
#include <cstdio>

namespace memkv::admin {

namespace {

bool within(char32_t code, char32_t first, char32_t last) {
  return code >= first && code <= last;
}

bool is_control(char32_t code) {
  return code < 0x20 || within(code, 0x7F, 0x9F);
}

// What turns text around or hides in it.
bool is_deceptive(char32_t code) {
  return within(code, 0x200B, 0x200F) || within(code, 0x2028, 0x202E) || within(code, 0x2060, 0x206F) ||
         code == 0x61C || code == 0xFEFF || within(code, 0xFFF9, 0xFFFB) || within(code, 0xE0000, 0xE007F);
}

std::size_t width_of(char32_t code) {
  if (within(code, 0x300, 0x36F) || within(code, 0x1AB0, 0x1AFF) || within(code, 0x20D0, 0x20FF) ||
      within(code, 0xFE00, 0xFE0F))
    return 0;
  const bool wide =
      within(code, 0x1100, 0x115F) || within(code, 0x2E80, 0xA4CF) || within(code, 0xAC00, 0xD7A3) ||
      within(code, 0xF900, 0xFAFF) || within(code, 0xFE30, 0xFE6F) || within(code, 0xFF00, 0xFF60) ||
      within(code, 0xFFE0, 0xFFE6) || within(code, 0x1F300, 0x1FAFF) || within(code, 0x20000, 0x3FFFD);
  return wide ? 2 : 1;
}

} // namespace

std::string printable(std::string_view text, std::size_t characters_max) {
  std::string shown;
  std::size_t characters = 0;
  bool blank = false;
  while (!text.empty()) {
    const auto next = wire::first_character(text);
    const auto bytes = text.substr(0, next.bytes);
    text.remove_prefix(next.bytes);
    if (next.valid && (next.code == ' ' || within(next.code, '\t', '\r'))) {
      blank = true;
      continue;
    }
    if (characters + (blank ? 1 : 0) >= characters_max)
      return shown + "...";
    if (blank && !shown.empty()) {
      shown += ' ';
      ++characters;
    }
    blank = false;
    if (!next.valid || is_control(next.code) || is_deceptive(next.code))
      shown += '?';
    else
      shown += bytes;
    ++characters;
  }
  return shown;
}

std::size_t columns_of(std::string_view text) {
  std::size_t columns = 0;
  while (!text.empty()) {
    const auto next = wire::first_character(text);
    columns += next.valid ? width_of(next.code) : 1;
    text.remove_prefix(next.bytes);
  }
  return columns;
}

std::string json_for_terminal(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const auto next = wire::first_character(text);
    const bool blank = next.code == '\n' || next.code == '\t' || next.code == '\r';
    if (next.valid && !blank && next.code <= 0xFFFF && (is_control(next.code) || is_deceptive(next.code))) {
      std::array<char, 8> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(next.code));
      shown += escaped.data();
    } else if (next.valid) {
      shown += text.substr(0, next.bytes);
    } else {
      shown += '?';
    }
    text.remove_prefix(next.bytes);
  }
  return shown;
}

std::string lines_for_terminal(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const auto next = wire::first_character(text);
    const bool blank = next.code == '\n' || next.code == '\t';
    if (!next.valid || (!blank && is_control(next.code)) || is_deceptive(next.code))
      shown += '?';
    else
      shown += text.substr(0, next.bytes);
    text.remove_prefix(next.bytes);
  }
  return shown;
}

} // namespace memkv::admin
