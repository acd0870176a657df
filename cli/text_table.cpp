#include "cli/text_table.hpp"

#include "admin/printable_text.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace memkv::cli {

namespace {

constexpr std::size_t bar_places = 20;
constexpr std::size_t rule_columns = 80;

double share_of(std::uint64_t used, std::uint64_t whole) {
  return std::min(static_cast<double>(used) / static_cast<double>(whole), 1.0);
}

} // namespace

std::string palette::paint(colour which, std::string_view text) const {
  if (!on || which == colour::none)
    return std::string(text);
  constexpr std::array<std::string_view, 5> codes{"", "32", "33", "31", "1"};
  return "\033[" + std::string(codes[static_cast<std::size_t>(which)]) + "m" + std::string(text) + "\033[0m";
}

void text_table::add(std::vector<cell> row) {
  MEMKV_ASSERT(row.size() == columns_.size(), "a row has a cell for every column");
  rows_.push_back(std::move(row));
}

std::string text_table::render(const palette& colours, std::size_t indent) const {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    widths.push_back(admin::columns_of(columns_[i].title));
    for (const auto& row : rows_)
      widths[i] = std::max(widths[i], admin::columns_of(row[i].text));
  }
  std::string text;
  const auto line = [&](const auto& cell_at) {
    text.append(indent, ' ');
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const cell& each = cell_at(i);
      const std::string blanks(widths[i] - admin::columns_of(each.text), ' ');
      const bool last = i + 1 == columns_.size();
      text += columns_[i].right ? blanks : "";
      text += colours.paint(each.tint, each.text);
      if (!last)
        text += (columns_[i].right ? "" : blanks) + "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  };
  std::vector<cell> titles;
  for (const auto& each : columns_)
    titles.push_back({each.title, colour::heading});
  line([&titles](std::size_t i) -> const cell& { return titles[i]; });
  for (const auto& row : rows_)
    line([&row](std::size_t i) -> const cell& { return row[i]; });
  return text;
}

std::string usage_bar(std::uint64_t used, std::uint64_t whole) {
  std::size_t places = 0;
  if (whole != 0) {
    places = static_cast<std::size_t>(std::lround(share_of(used, whole) * bar_places));
    if (used != 0)
      places = std::max<std::size_t>(places, 1); // something is not nothing
  }
  return "[" + std::string(places, '#') + std::string(bar_places - places, '.') + "]";
}

std::string percent_text(std::uint64_t used, std::uint64_t whole) {
  if (whole == 0)
    return "-";
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.1f %%",
                100.0 * static_cast<double>(used) / static_cast<double>(whole));
  return text.data();
}

colour fill_colour(std::uint64_t used, std::uint64_t whole) {
  if (whole == 0)
    return colour::none;
  const double share = share_of(used, whole);
  return share >= 0.95 ? colour::bad : share >= 0.85 ? colour::doubtful : colour::good;
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e12)
    return "-";
  const auto whole = static_cast<std::uint64_t>(seconds);
  const auto two = [](std::uint64_t large, const char* one, std::uint64_t small, const char* other) {
    return std::to_string(large) + one + std::to_string(small) + other;
  };
  if (whole >= 86'400)
    return two(whole / 86'400, " d ", whole % 86'400 / 3'600, " h");
  if (whole >= 3'600)
    return two(whole / 3'600, " h ", whole % 3'600 / 60, " min");
  if (whole >= 60)
    return two(whole / 60, " min ", whole % 60, " s");
  return std::to_string(whole) + " s";
}

std::string labelled_rule(std::string_view label) {
  std::string text = "---- " + std::string(label) + " ";
  const auto columns = admin::columns_of(text);
  text.append(columns + 4 < rule_columns ? rule_columns - columns : 4, '-');
  return text;
}

} // namespace memkv::cli
