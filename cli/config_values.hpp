// How a value of a configuration is read: what it must be, and the sentence when it is not.
//
// A reader returns what the value "must be", or nothing when it was taken; the caller puts the key in front
// of it. What was refused leaves `out` as it was, and a key empty.
//
// Threading: pure functions. Ownership: values. Units: bytes, milliseconds. Errors: half a sentence.
#pragma once

#include "cli/command_line.hpp" // parse_size, format_size
#include "cli/config_tree.hpp"
#include "wire/auth.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace memkv::cli {

/// Of all RDMA devices together.
constexpr std::size_t rdma_threads_max = 256;

/// A value as a sentence shows it.
[[nodiscard]] std::string shown(const config_node& node);
[[nodiscard]] std::string must_be(const std::string& what, const config_node& node);

/// Of digits alone, at most 18 of them.
[[nodiscard]] std::optional<std::uint64_t> whole_number(std::string_view text);
/// Neither in quotes nor a list or a map.
[[nodiscard]] bool is_plain(const config_node& node);

[[nodiscard]] std::string read_bool(const config_node& node, bool& out);
[[nodiscard]] std::string read_text(const config_node& node, std::string& out);
[[nodiscard]] std::string read_duration(const config_node& node, std::uint32_t& out_ms,
                                        std::uint64_t least_ms, std::uint64_t most_ms);
/// From 1 to 99, with or without a percent sign.
[[nodiscard]] std::string read_percent(const config_node& node, std::uint32_t& out);
/// Never shows the text, which is a secret.
[[nodiscard]] std::string read_key(const config_node& node, std::optional<wire::shared_key>& out);

template <class T>
[[nodiscard]] std::string read_integer(const config_node& node, T& out, std::uint64_t least,
                                       std::uint64_t most) {
  const auto value = is_plain(node) ? whole_number(node.text) : std::nullopt;
  if (!value || *value < least || *value > most)
    return must_be("a whole number from " + std::to_string(least) + " to " + std::to_string(most), node) +
           (node.quoted ? " in quotes" : "");
  out = static_cast<T>(*value);
  return {};
}

template <class T>
[[nodiscard]] std::string read_size(const config_node& node, T& out, std::uint64_t least,
                                    std::uint64_t most) {
  const auto value = node.what == config_node::kind::scalar ? parse_size(node.text) : std::nullopt;
  if (!value)
    return must_be("a size such as \"64 KiB\", \"4 MiB\" or \"247 GiB\"", node);
  if (*value < least || *value > most)
    return must_be("a size from " + format_size(least) + " to " + format_size(most), node);
  out = static_cast<T>(*value);
  return {};
}

template <class T>
[[nodiscard]] std::string read_power_of_two(const config_node& node, T& out, std::uint64_t least,
                                            std::uint64_t most) {
  T value = 0;
  auto wrong = read_size(node, value, least, most);
  if (wrong.empty() && (value & (value - 1)) != 0)
    wrong = must_be("a power of two, such as " + format_size(least) + " or " + format_size(most), node);
  if (wrong.empty())
    out = value;
  return wrong;
}

template <class T, std::size_t N>
[[nodiscard]] std::string read_choice(const config_node& node, T& out,
                                      const std::array<std::pair<std::string_view, T>, N>& all) {
  std::string names;
  for (std::size_t i = 0; i < N; ++i) {
    if (is_plain(node) && node.text == all[i].first) {
      out = all[i].second;
      return {};
    }
    if (i > 0)
      names += i + 1 == N ? " or " : ", ";
    names += all[i].first;
  }
  return must_be(names, node);
}

[[nodiscard]] std::string read_optional(const config_node& node, std::optional<std::uint32_t>& out,
                                        std::uint64_t least, std::uint64_t most);

} // namespace memkv::cli
