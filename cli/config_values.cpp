#include "cli/config_values.hpp"

#include <algorithm>

namespace memkv::cli {

std::string shown(const config_node& node) {
  switch (node.what) {
  case config_node::kind::nothing:
    return "nothing";
  case config_node::kind::list:
    return "a list";
  case config_node::kind::map:
    return "a map";
  case config_node::kind::scalar:
    break;
  }
  std::string text;
  for (const char c : node.text.substr(0, 64))
    text += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  return "\"" + text + "\"";
}

std::string must_be(const std::string& what, const config_node& node) {
  return "must be " + what + ", not " + shown(node);
}

std::optional<std::uint64_t> whole_number(std::string_view text) {
  if (text.empty() || text.size() > 18)
    return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9')
      return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

bool is_plain(const config_node& node) {
  return node.what == config_node::kind::scalar && !node.quoted;
}

std::string read_bool(const config_node& node, bool& out) {
  if (!is_plain(node) || (node.text != "true" && node.text != "false"))
    return must_be("true or false", node) + (node.quoted ? " in quotes" : "");
  out = node.text == "true";
  return {};
}

std::string read_text(const config_node& node, std::string& out) {
  // A bare number or true is YAML for something else than text; as a name it is more likely a slip.
  if (node.what != config_node::kind::scalar || node.text.empty())
    return must_be("text", node);
  out = node.text;
  return {};
}

std::string read_duration(const config_node& node, std::uint32_t& out_ms, std::uint64_t least_ms,
                          std::uint64_t most_ms) {
  static constexpr std::array<std::pair<std::string_view, std::uint64_t>, 4> units{
      {{"ms", 1}, {"s", 1000}, {"min", 60'000}, {"h", 3'600'000}}};
  std::optional<std::uint64_t> value;
  if (node.what == config_node::kind::scalar) {
    std::string_view text = node.text;
    const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
    auto unit = text.substr(digits);
    if (unit.starts_with(' '))
      unit.remove_prefix(1);
    const auto amount = whole_number(text.substr(0, digits));
    for (const auto& [name, milliseconds] : units)
      if (unit == name && amount && *amount <= most_ms)
        value = *amount * milliseconds;
  }
  if (!value || *value < least_ms || *value > most_ms)
    return must_be("a time such as \"500 ms\", \"30 s\" or \"5 min\", from " +
                       std::to_string(least_ms / 1000) + " s to " + std::to_string(most_ms / 1000) + " s",
                   node);
  out_ms = static_cast<std::uint32_t>(*value);
  return {};
}

std::string read_percent(const config_node& node, std::uint32_t& out) {
  if (node.what == config_node::kind::scalar) {
    std::string_view text = node.text;
    if (text.ends_with('%'))
      text.remove_suffix(1);
    if (text.ends_with(' '))
      text.remove_suffix(1);
    const auto value = whole_number(text);
    if (value && *value >= 1 && *value <= 99) {
      out = static_cast<std::uint32_t>(*value);
      return {};
    }
  }
  return must_be("a percentage from 1 to 99", node);
}

std::string read_key(const config_node& node, std::optional<wire::shared_key>& out) {
  // Never shows the text: it is a secret, also when it is mistyped.
  std::string_view problem;
  if (node.what == config_node::kind::scalar)
    out = wire::shared_key::parse(node.text, &problem);
  if (!out)
    return "must be a key of exactly 64 hexadecimal digits that does not repeat itself" +
           std::string(": make one with openssl rand -hex 32");
  return {};
}

std::string read_optional(const config_node& node, std::optional<std::uint32_t>& out, std::uint64_t least,
                          std::uint64_t most) {
  std::uint32_t value = 0;
  auto wrong = read_integer(node, value, least, most);
  if (wrong.empty())
    out = value;
  return wrong;
}

} // namespace memkv::cli
