// Tables, bars and colours of what commands print for people.
//
// Threading: values. Ownership: values. Errors: none. Only ASCII is used for rules and bars, so that nothing
// depends on how wide a terminal draws a character. Does not: shorten cells, or know the terminal's width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

enum class colour : std::uint8_t { none, good, doubtful, bad, heading };

/// Colours text where colours are wanted.
struct palette {
  bool on = false;
  [[nodiscard]] std::string paint(colour which, std::string_view text) const;
};

struct cell {
  std::string text; // printable: no line breaks, no control characters
  colour tint = colour::none;
};

struct column {
  std::string title;
  bool right = false; // numbers stand at the right
};

class text_table {
public:
  explicit text_table(std::vector<column> columns) : columns_(std::move(columns)) {}

  /// As many cells as there are columns.
  void add(std::vector<cell> row);
  /// Every line begins with `indent` blanks; nothing follows the last cell of a line.
  [[nodiscard]] std::string render(const palette& colours, std::size_t indent = 0) const;

private:
  std::vector<column> columns_;
  std::vector<std::vector<cell>> rows_;
};

/// "[#####...............]"; 20 places. More than whole is whole.
[[nodiscard]] std::string usage_bar(std::uint64_t used, std::uint64_t whole);
/// "12.3 %"; "-" when there is no whole.
[[nodiscard]] std::string percent_text(std::uint64_t used, std::uint64_t whole);
/// How full is alarming: from 85 % doubtful, from 95 % bad.
[[nodiscard]] colour fill_colour(std::uint64_t used, std::uint64_t whole);
/// "3 d 4 h", "2 h 5 min", "59 s": the two largest units.
[[nodiscard]] std::string duration_text(double seconds);

/// What separates the output of several servers: "---- label ----...".
[[nodiscard]] std::string labelled_rule(std::string_view label);

} // namespace memkv::cli
