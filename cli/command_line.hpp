// The command line of memkv as one table: commands, flags, arguments, types, defaults and help texts.
//
// Parsing, --help at every level and docs/cli.md all come from this table, so they cannot disagree.
//
// Threading: the tables are constants; a parsed value belongs to whoever holds it.
// Ownership: tables hold views of string literals; parsed copies every value it is given.
// Errors:    parse() returns one sentence for the user; nothing throws and nothing is printed.
// Not here:  what a command does. main maps a command to its function.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

/// What a flag or argument takes. An integer is decimal and not negative; a size is what parse_size() reads.
enum class value_kind {
  none,             // a switch
  text,             // any text that is not empty
  path,             // a file name that is not empty
  path_list,        // one or more: every word up to the next flag; may be given again
  integer,          // 0 ... 2^63 - 1
  size,             // bytes: "4096", "64 KiB", "1 GiB"
  optional_integer, // the flag alone, or followed by an integer, or --flag=INTEGER
  optional_text,    // the flag alone, or --flag=TEXT
};

struct flag {
  std::string_view name = {}; // without the two dashes
  char letter = '\0';         // the short form, if there is one
  value_kind kind = value_kind::none;
  std::string_view value_name = {};   // how help calls the value: PATH, SEC
  std::string_view default_text = {}; // what the tables show; used as the value only if default_is_value
  bool default_is_value = false;
  std::string_view bare_value = {}; // the value of the flag given alone, of the two optional kinds
  bool required = false;
  bool empty_is_unset = false; // an empty value is as good as none, instead of refused
  std::uint64_t least = 0;     // of numbers: the smallest that the command takes; it refuses others itself
  std::string_view help = {};  // one or more sentences
};

struct argument {
  std::string_view name = {}; // in capitals
  bool required = true;
  bool repeated = false; // only the last argument of a command
  std::string_view help = {};
};

struct command {
  std::string_view name = {};
  std::string_view summary = {}; // one line without a full stop, for the list of commands
  std::string_view text = {};    // sentences, for the command's own help
  std::span<const flag> flags = {};
  std::span<const argument> arguments = {};
  std::span<const command> commands = {};
};

/// A command line that parsed. Values that were not given and have a default value hold that.
class parsed {
public:
  /// The names of the commands chosen, from the outermost on: {"client", "put"}.
  std::vector<std::string> path;
  /// The flag --help was given: nothing else was checked.
  bool wants_help = false;

  /// Whether the flag or argument has a value (a switch: whether it was given).
  [[nodiscard]] bool has(std::string_view name) const;
  /// Whether the flag was given by the user rather than filled in from its default.
  [[nodiscard]] bool given(std::string_view name) const;
  /// The value; empty when there is none.
  [[nodiscard]] std::string text(std::string_view name) const;
  /// All values, in the order given.
  [[nodiscard]] std::vector<std::string> list(std::string_view name) const;
  /// The value of an integer flag, or of a size in bytes; nothing when there is none.
  [[nodiscard]] std::optional<std::uint64_t> number(std::string_view name) const;

private:
  friend class parser;
  struct value {
    std::vector<std::string> texts;
    std::optional<std::uint64_t> number;
    bool given = false;
  };
  std::map<std::string, value, std::less<>> values_;
};

struct parse_result {
  parsed line;
  std::string error; // one sentence without "memkv:"; empty when the line parsed
  [[nodiscard]] bool ok() const noexcept { return error.empty(); }
};

/// The whole table of the program.
[[nodiscard]] const command& memkv_commands() noexcept;

/// Reads the words after the program's name. "--" ends the flags; "-" alone is an argument.
[[nodiscard]] parse_result parse(const command& root, std::span<const std::string> words);

/// The text of --help for the command at that path; empty for a path that does not exist.
[[nodiscard]] std::string help_text(const command& root, std::span<const std::string> path);

/// docs/cli.md from the first to the last byte.
[[nodiscard]] std::string help_markdown(const command& root);

/// Bytes of "4096", "64 KiB", "1.5 GiB", "10 MB" (binary units with an i, decimal ones without; one space or
/// none before the unit). Nothing for any other text, for less than one byte of precision, or above 2^63 - 1.
[[nodiscard]] std::optional<std::uint64_t> parse_size(std::string_view text);

/// A size for people: the largest binary unit that divides it, "64 KiB", "3 B".
[[nodiscard]] std::string format_size(std::uint64_t bytes);

} // namespace memkv::cli
