// What is made of a table of commands: help texts and docs/cli.md.
#include "cli/command_line.hpp"

#include <algorithm>

namespace memkv::cli {

namespace {

constexpr std::size_t help_columns = 100;

const command* at_path(const command& root, std::span<const std::string> path) {
  const command* found = &root;
  for (const auto& name : path) {
    const auto next = std::find_if(found->commands.begin(), found->commands.end(),
                                   [&name](const command& each) { return each.name == name; });
    if (next == found->commands.end())
      return nullptr;
    found = &*next;
  }
  return found;
}

// Breaks text between words; every line after the first starts with `indent` blanks. `column` is where it
// begins.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t column) {
  std::string out;
  while (!text.empty()) {
    const auto space = text.find(' ');
    const auto word = text.substr(0, space);
    text = space == std::string_view::npos ? std::string_view{} : text.substr(space + 1);
    const bool first = out.empty();
    if (!first && column + 1 + word.size() > help_columns) {
      out += '\n';
      out.append(indent, ' ');
      column = indent;
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

std::string value_form(const flag& f) {
  switch (f.kind) {
  case value_kind::none:
    return {};
  case value_kind::optional_integer:
  case value_kind::optional_text:
    return "[=" + std::string(f.value_name) + "]";
  case value_kind::path_list:
    return " " + std::string(f.value_name) + "...";
  default:
    return " " + std::string(f.value_name);
  }
}

std::string type_of(const flag& f) {
  switch (f.kind) {
  case value_kind::none:
    return "flag";
  case value_kind::optional_integer:
  case value_kind::optional_text:
    return std::string(f.value_name) + "?";
  case value_kind::path_list:
    return std::string(f.value_name) + "...";
  default:
    return std::string(f.value_name);
  }
}

std::string default_of(const flag& f) {
  if (f.required)
    return "required";
  return f.default_text.empty() ? "off" : std::string(f.default_text);
}

std::string usage(const command& c, std::string_view path) {
  std::string text(path);
  if (!c.flags.empty())
    text += " [FLAGS]";
  if (!c.commands.empty())
    text += " COMMAND";
  for (const auto& each : c.arguments) {
    text += each.required ? " " + std::string(each.name) : " [" + std::string(each.name);
    if (each.repeated)
      text += "...";
    if (!each.required)
      text += "]";
  }
  return text;
}

// Two columns: the term, and its explanation from a fixed column on.
std::string entry(const std::string& term, std::string_view explanation) {
  constexpr std::size_t column = 30;
  std::string line = "  " + term;
  if (line.size() + 2 > column) {
    line += '\n';
    line.append(column, ' ');
  } else {
    line.append(column - line.size(), ' ');
  }
  return line + wrapped(explanation, column, column) + "\n";
}

std::string flag_term(const flag& f) {
  const std::string letter = f.letter == '\0' ? "    " : std::string("-") + f.letter + ", ";
  return letter + "--" + std::string(f.name) + value_form(f);
}

std::string help_of(const command& c, const std::string& path) {
  std::string text = path + ": " + std::string(c.summary) + "\n\n" + wrapped(c.text, 0, 0) +
                     "\n\nUsage: " + usage(c, path) + "\n";
  if (!c.commands.empty()) {
    text += "\nCommands:\n";
    for (const auto& each : c.commands)
      text += entry(std::string(each.name), each.summary);
  }
  if (!c.arguments.empty()) {
    text += "\nArguments:\n";
    for (const auto& each : c.arguments)
      text += entry(std::string(each.name), each.help);
  }
  text += "\nFlags:\n";
  for (const auto& f : c.flags)
    text += entry(flag_term(f),
                  std::string(f.help) + (f.kind == value_kind::none ? "" : " [" + default_of(f) + "]"));
  text += entry("-h, --help", "Prints this help and exits.");
  return text;
}

void append_markdown(std::string& text, const command& c, const std::string& path, std::size_t level) {
  text += "\n" + std::string(level, '#') + " " + path + "\n\n" + std::string(c.text) + "\n\n```\n" +
          usage(c, path) + "\n```\n";
  if (!c.commands.empty()) {
    text += "\n| Command | |\n|---|---|\n";
    for (const auto& each : c.commands)
      text += "| `" + std::string(each.name) + "` | " + std::string(each.summary) + ". |\n";
  }
  if (!c.arguments.empty()) {
    text += "\n| Argument | |\n|---|---|\n";
    for (const auto& each : c.arguments)
      text += "| `" + std::string(each.name) + "` | " + std::string(each.help) + " |\n";
  }
  text += "\n| Flag | Type | Default | Description |\n|---|---|---|---|\n";
  for (const auto& f : c.flags) {
    text += "| `--" + std::string(f.name) + "`";
    if (f.letter != '\0')
      text += std::string(", `-") + f.letter + "`";
    text += " | " + type_of(f) + " | " + default_of(f) + " | " + std::string(f.help) + " |\n";
  }
  text += "| `--help`, `-h` | flag | off | Prints the help of this command and exits. |\n";
  for (const auto& each : c.commands)
    append_markdown(text, each, path + " " + std::string(each.name), std::min<std::size_t>(level + 1, 4));
}

} // namespace

std::string help_text(const command& root, std::span<const std::string> path) {
  const command* found = at_path(root, path);
  if (found == nullptr)
    return {};
  std::string name(root.name);
  for (const auto& each : path)
    name += " " + each;
  return help_of(*found, name);
}

std::string help_markdown(const command& root) {
  std::string text =
      "# Command line\n\n"
      "This page is printed by `memkv --help-markdown`, from the table that the program parses by; a test "
      "compares the two.\n\n"
      "Exit codes: 0 is success, 1 is everything else, with one sentence on standard error. A flag's value "
      "follows it as the next word or after `=`. `--` ends the flags.\n";
  append_markdown(text, root, std::string(root.name), 2);
  return text;
}

} // namespace memkv::cli
