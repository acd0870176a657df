#include "wire/key_id.hpp"

#include <algorithm>

namespace memkv::wire {

namespace {

constexpr std::array<bool, 256> allowed = [] {
  std::array<bool, 256> table{};
  for (const char letter :
       std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"))
    table[static_cast<unsigned char>(letter)] = true;
  return table;
}();

} // namespace

std::optional<ns_name> ns_name::from_text(std::string_view text) noexcept {
  if (text.size() > limits::namespace_bytes_max)
    return std::nullopt;
  ns_name result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!allowed[static_cast<unsigned char>(text[i])])
      return std::nullopt;
    result.field_[i] = static_cast<std::byte>(text[i]);
  }
  result.length_ = static_cast<std::uint8_t>(text.size());
  return result;
}

std::optional<ns_name>
ns_name::from_field(std::span<const std::byte, limits::namespace_bytes_max> field) noexcept {
  std::size_t length = 0;
  while (length < field.size() && allowed[std::to_integer<std::uint8_t>(field[length])])
    ++length;
  // A character that is not allowed is a fault, and so is anything behind the first zero byte.
  if (!all_zero(field.subspan(length)))
    return std::nullopt;
  ns_name result;
  std::copy(field.begin(), field.end(), result.field_.begin());
  result.length_ = static_cast<std::uint8_t>(length);
  return result;
}

} // namespace memkv::wire
