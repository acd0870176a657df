#include "cli/command_line.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace memkv::cli {

namespace {

constexpr std::uint64_t number_max = std::numeric_limits<std::int64_t>::max();

std::optional<std::uint64_t> parse_integer(std::string_view text) {
  if (text.empty() || text.size() > 19)
    return std::nullopt;
  std::uint64_t value = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9')
      return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(digit - '0');
  }
  if (value > number_max)
    return std::nullopt;
  return value;
}

struct unit {
  std::string_view name;
  std::uint64_t bytes;
};

constexpr std::uint64_t kibibyte = 1024;
constexpr std::array<unit, 11> units{{
    {"B", 1},
    {"KiB", kibibyte},
    {"MiB", kibibyte* kibibyte},
    {"GiB", kibibyte* kibibyte* kibibyte},
    {"TiB", kibibyte* kibibyte* kibibyte* kibibyte},
    {"PiB", kibibyte* kibibyte* kibibyte* kibibyte* kibibyte},
    {"KB", 1000},
    {"MB", 1000 * 1000},
    {"GB", 1000ULL * 1000 * 1000},
    {"TB", 1000ULL * 1000 * 1000 * 1000},
    {"PB", 1000ULL * 1000 * 1000 * 1000 * 1000},
}};

bool takes_number(const flag& f) {
  return f.kind == value_kind::integer || f.kind == value_kind::optional_integer ||
         f.kind == value_kind::size;
}

bool is_negative(std::string_view word) {
  return word.size() > 1 && word[0] == '-' && word[1] >= '0' && word[1] <= '9';
}

bool takes_value(const flag& f) {
  return f.kind != value_kind::none;
}

std::string joined(const command& root, std::span<const std::string> path) {
  std::string text(root.name);
  for (const auto& name : path)
    text += " " + name;
  return text;
}

} // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::size_t digits = 0;
  while (digits < text.size() && (text[digits] == '.' || (text[digits] >= '0' && text[digits] <= '9')))
    ++digits;
  std::string_view amount = text.substr(0, digits);
  std::string_view rest = text.substr(digits);
  if (rest.starts_with(' '))
    rest.remove_prefix(1);
  else if (rest.empty() && amount.size() != text.size())
    return std::nullopt;
  std::uint64_t scale = 1;
  if (!rest.empty()) {
    const auto* found =
        std::find_if(units.begin(), units.end(), [rest](const unit& u) { return u.name == rest; });
    if (found == units.end())
      return std::nullopt;
    scale = found->bytes;
  } else if (text.size() != digits) {
    return std::nullopt; // a space with nothing behind it
  }
  const auto point = amount.find('.');
  const auto whole = parse_integer(amount.substr(0, point));
  if (!whole || *whole > number_max / scale)
    return std::nullopt;
  std::uint64_t bytes = *whole * scale;
  if (point != std::string_view::npos) {
    const auto fraction_text = amount.substr(point + 1);
    const auto fraction = parse_integer(fraction_text);
    if (!fraction || fraction_text.size() > 6)
      return std::nullopt;
    std::uint64_t divisor = 1;
    for (std::size_t i = 0; i < fraction_text.size(); ++i)
      divisor *= 10;
    // A fraction of a byte is a mistake, but 1.1 GiB is what people write: round down to bytes, and refuse
    // only a fraction that counts no unit at all.
    if (scale == 1)
      return std::nullopt;
    // scale * fraction / divisor, without its product, which may not fit.
    bytes += scale / divisor * *fraction + scale % divisor * *fraction / divisor;
    if (bytes > number_max)
      return std::nullopt;
  }
  return bytes;
}

std::string format_size(std::uint64_t bytes) {
  if (bytes == 0)
    return "0 B";
  const unit* best = &units[0];
  for (std::size_t i = 1; i <= 5; ++i)
    if (bytes % units[i].bytes == 0)
      best = &units[i];
  return std::to_string(bytes / best->bytes) + " " + std::string(best->name);
}

bool parsed::has(std::string_view name) const {
  return values_.find(name) != values_.end();
}

bool parsed::given(std::string_view name) const {
  const auto found = values_.find(name);
  return found != values_.end() && found->second.given;
}

std::string parsed::text(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() || found->second.texts.empty() ? std::string{} : found->second.texts.back();
}

std::vector<std::string> parsed::list(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::vector<std::string>{} : found->second.texts;
}

std::optional<std::uint64_t> parsed::number(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::nullopt : found->second.number;
}

// One pass over the words. Flags may stand before and after arguments; a command's own flags only after its
// name.
class parser {
public:
  parser(const command& root, std::span<const std::string> words)
      : root_(root), current_(&root), words_(words) {}

  parse_result run() {
    while (error_.empty() && next_ < words_.size() && !result_.wants_help) {
      const std::string& word = words_[next_++];
      if (!flags_ended_ && word == "--")
        flags_ended_ = true;
      else if (!flags_ended_ && word.starts_with("--"))
        long_flag(word);
      else if (!flags_ended_ && word.size() > 1 && word.starts_with('-'))
        short_flags(word);
      else
        plain_word(word);
    }
    if (error_.empty() && !result_.wants_help)
      finish();
    return {std::move(result_), std::move(error_)};
  }

private:
  void fail(std::string sentence) {
    if (error_.empty())
      error_ = std::move(sentence);
  }

  // Where to read on, in the form that the user can type.
  [[nodiscard]] std::string help_command() const { return joined(root_, result_.path) + " --help"; }

  const flag* find(std::string_view name) const {
    for (const auto& f : current_->flags)
      if (f.name == name)
        return &f;
    return nullptr;
  }

  const flag* find(char letter) const {
    for (const auto& f : current_->flags)
      if (f.letter == letter && letter != '\0')
        return &f;
    return nullptr;
  }

  void long_flag(const std::string& word) {
    const auto equals = word.find('=');
    const auto name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (name == "help" && equals == std::string::npos) {
      result_.wants_help = true;
      return;
    }
    const flag* f = find(name);
    if (f == nullptr) {
      fail(joined(root_, result_.path) + " has no flag --" + name + ": see " + help_command());
      return;
    }
    if (equals == std::string::npos)
      value_from_next_words(*f, "--" + name);
    else if (!takes_value(*f))
      fail("--" + name + " takes no value: write --" + name + " alone");
    else
      store(*f, word.substr(equals + 1), "--" + name);
  }

  void short_flags(const std::string& word) {
    for (std::size_t i = 1; i < word.size() && error_.empty(); ++i) {
      const char letter = word[i];
      const std::string shown = std::string("-") + letter;
      const flag* f = find(letter);
      if (f == nullptr && letter == 'h') {
        result_.wants_help = true;
        return;
      }
      if (f == nullptr) {
        fail(joined(root_, result_.path) + " has no flag " + shown + ": see " + help_command());
        return;
      }
      if (!takes_value(*f)) {
        value_from_next_words(*f, shown);
        continue;
      }
      if (i + 1 == word.size()) {
        value_from_next_words(*f, shown);
      } else {
        const auto rest = word.substr(i + 1);
        store(*f, rest.starts_with('=') ? rest.substr(1) : rest, shown);
      }
      return;
    }
  }

  // A word that can only be a flag; "-" alone names standard input.
  [[nodiscard]] bool next_is_value() const {
    return next_ < words_.size() && (words_[next_].size() < 2 || !words_[next_].starts_with('-'));
  }

  void value_from_next_words(const flag& f, const std::string& shown) {
    // It can be meant as nothing else: no flag has a digit for its letter.
    if (takes_number(f) && next_ < words_.size() && is_negative(words_[next_])) {
      store(f, words_[next_++], shown);
      return;
    }
    switch (f.kind) {
    case value_kind::none:
      if (result_.given(f.name))
        fail(shown + " is given twice: give it once");
      result_.values_[std::string(f.name)].given = true;
      return;
    case value_kind::optional_integer:
      // The word after it belongs to the flag only if it is a number: memkv start --log-write-timing 60.
      if (next_ < words_.size() && parse_integer(words_[next_]))
        store(f, words_[next_++], shown);
      else
        store(f, std::string(f.bare_value), shown);
      return;
    case value_kind::optional_text:
      store(f, std::string(f.bare_value), shown);
      return;
    case value_kind::path_list:
      if (!next_is_value())
        break;
      while (next_is_value() && error_.empty())
        store(f, words_[next_++], shown);
      return;
    default:
      if (!next_is_value())
        break;
      store(f, words_[next_++], shown);
      return;
    }
    fail(shown + " needs a value: write " + shown + " " + std::string(f.value_name));
  }

  void store(const flag& f, std::string text, const std::string& shown) {
    const bool repeatable = f.kind == value_kind::path_list;
    if (!repeatable && result_.given(f.name)) {
      fail(shown + " is given twice: give it once");
      return;
    }
    std::optional<std::uint64_t> number;
    if (takes_number(f) && is_negative(text)) {
      fail(shown + (f.kind == value_kind::size ? " must be a number of bytes of at least "
                                               : " must be a whole number of at least ") +
           std::to_string(f.least) + ", not \"" + text + "\"");
      return;
    }
    if (f.kind == value_kind::integer || f.kind == value_kind::optional_integer) {
      number = parse_integer(text);
      if (!number) {
        fail(shown + " needs a whole number, not \"" + text + "\"");
        return;
      }
    } else if (f.kind == value_kind::size) {
      number = parse_size(text);
      if (!number) {
        fail(shown + " needs a size such as \"64 KiB\" or \"4 MiB\", not \"" + text + "\"");
        return;
      }
    } else if (text.empty()) {
      if (f.empty_is_unset)
        return;
      fail(shown + " needs a value that is not empty: write " + shown + " " + std::string(f.value_name));
      return;
    }
    auto& value = result_.values_[std::string(f.name)];
    value.given = true;
    value.number = number;
    value.texts.push_back(std::move(text));
  }

  void plain_word(const std::string& word) {
    if (!current_->commands.empty()) {
      for (const auto& sub : current_->commands) {
        if (sub.name == word) {
          finish_flags();
          current_ = &sub;
          result_.path.push_back(word);
          return;
        }
      }
      std::string shown = word;
      for (auto name = result_.path.rbegin(); name != result_.path.rend(); ++name)
        shown.insert(0, *name + " ");
      fail("this build of " + std::string(root_.name) + " has no command \"" + shown + "\": see " +
           help_command());
      return;
    }
    const auto& arguments = current_->arguments;
    if (arguments.empty() || (argument_ == arguments.size() && !arguments.back().repeated)) {
      fail(joined(root_, result_.path) + " does not take the argument \"" + word + "\": see " +
           help_command());
      return;
    }
    const std::size_t at = std::min(argument_, arguments.size() - 1);
    if (word.empty()) {
      fail(std::string(arguments[at].name) + " must not be empty");
      return;
    }
    auto& value = result_.values_[std::string(arguments[at].name)];
    value.given = true;
    value.texts.push_back(word);
    argument_ = std::min(argument_ + 1, arguments.size());
  }

  // Defaults and required flags of the command that is being left or finished.
  void finish_flags() {
    for (const auto& f : current_->flags) {
      if (result_.has(f.name))
        continue;
      if (f.required) {
        fail(joined(root_, result_.path) + " needs --" + std::string(f.name) + " " +
             std::string(f.value_name));
        return;
      }
      if (f.default_is_value) {
        store(f, std::string(f.default_text), "--" + std::string(f.name));
        MEMKV_ASSERT(error_.empty(), "the default of a flag is a value of its kind");
        result_.values_[std::string(f.name)].given = false;
      }
    }
  }

  void finish() {
    finish_flags();
    // A switch of the top level, such as --version, stands alone.
    const bool answered = std::any_of(current_->flags.begin(), current_->flags.end(),
                                      [this](const flag& f) { return result_.given(f.name); });
    if (!current_->commands.empty() && !(result_.path.empty() && answered)) {
      fail(joined(root_, result_.path) + " needs a command: see " + help_command());
      return;
    }
    for (std::size_t i = argument_; i < current_->arguments.size(); ++i)
      if (current_->arguments[i].required && !result_.has(current_->arguments[i].name))
        fail(joined(root_, result_.path) + " needs " + std::string(current_->arguments[i].name) + ": see " +
             help_command());
  }

  const command& root_;
  const command* current_;
  std::span<const std::string> words_;
  std::size_t next_ = 0;
  std::size_t argument_ = 0;
  bool flags_ended_ = false;
  parsed result_;
  std::string error_;
};

parse_result parse(const command& root, std::span<const std::string> words) {
  return parser(root, words).run();
}

} // namespace memkv::cli
