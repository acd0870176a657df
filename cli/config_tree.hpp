// A YAML document as a tree that remembers lines; stricter than YAML.
//
// Refused: anchors, aliases and merge keys (they make small files huge), explicit tags, several documents, a
// key twice in one map, keys that are not plain text, control characters, more than depth_max levels, more
// than file_bytes_max bytes.
//
// Threading: plain data. Ownership: values. Errors: one sentence with the line; nothing throws.
// Not here:  what keys there are and what they mean; see config.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

/// Largest configuration file, in bytes, and deepest nesting of maps and lists in it.
inline constexpr std::size_t file_bytes_max = std::size_t{1} << 20;
inline constexpr std::string_view too_long_sentence =
    "the file is larger than 1 MiB: a configuration has a few hundred bytes, so this must be another file";
inline constexpr std::size_t depth_max = 8;
/// Most "[" and "{" in it: four for each drive there may be.
inline constexpr std::size_t brackets_max = 1024;

struct config_node {
  enum class kind : std::uint8_t { nothing, scalar, list, map };
  struct member;

  kind what = kind::nothing;
  bool quoted = false;            // scalars: written in quotes, so it is text whatever it looks like
  std::string text;               // scalars
  std::size_t line = 0;           // 1 ...
  std::vector<config_node> items; // lists
  std::vector<member> members;    // maps, in the order of the file
};

struct config_node::member {
  std::string key;
  std::size_t line = 0;
  config_node value;
};

struct config_problem {
  std::size_t line = 0; // 0: none, such as for a file that is not there
  std::string key;      // full path, "storage.drives[0].media"; empty: the file as a whole
  std::string sentence; // begins with the key where there is one; says what to do

  [[nodiscard]] bool ok() const noexcept { return sentence.empty(); }
};

/// Reads a text. The root of a document that says nothing is of kind nothing.
[[nodiscard]] config_problem parse_config_tree(std::string_view text, config_node& root);

} // namespace memkv::cli
