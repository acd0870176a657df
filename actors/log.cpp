#include "actors/log.hpp"

#include "wire/assert.hpp"
#include "wire/text.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <mutex>
#include <optional>
#include <span>

#include <fcntl.h>
#include <unistd.h>

namespace memkv::log {

struct capture::store {
  mutable std::mutex lock;
  std::vector<captured_line> lines;
};

namespace {

// Targets are compared in one spelling: people write memkv_server in an environment variable and
// memkv::server in the code.
std::string normalised(std::string_view target) {
  std::string text;
  text.reserve(target.size());
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (target[i] == ':' && i + 1 < target.size() && target[i + 1] == ':') {
      text += '_';
      ++i;
    } else {
      text += target[i];
    }
  }
  return text;
}

// Compares without making a copy: this runs for every line that the lowest level lets through.
bool matches(std::string_view wanted, std::string_view target) noexcept {
  std::size_t at = 0;
  std::size_t i = 0;
  while (at < wanted.size() && i < target.size()) {
    const bool colons = target[i] == ':' && i + 1 < target.size() && target[i + 1] == ':';
    if ((colons ? '_' : target[i]) != wanted[at])
      return false;
    ++at;
    i += colons ? 2 : 1;
  }
  return at == wanted.size() && (i == target.size() || target[i] == ':' || target[i] == '_');
}

std::optional<level> level_of(std::string_view text) {
  const auto lower = wire::lowered(text);
  if (lower == "trace")
    return level::trace;
  if (lower == "debug")
    return level::debug;
  if (lower == "info")
    return level::info;
  if (lower == "warn" || lower == "warning")
    return level::warn;
  if (lower == "error")
    return level::error;
  if (lower == "off")
    return level::off;
  return std::nullopt;
}

constexpr std::string_view hex_digits = "0123456789abcdef";

// U+0085, U+2028 and U+2029 end a line for some readers, and U+009B starts a terminal sequence for others.
bool is_c1_or_separator(char32_t code) noexcept {
  return (code >= 0x80 && code < 0xA0) || code == 0x2028 || code == 0x2029;
}

void append_escaped(std::string& out, std::string_view text, format how) {
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text.front());
    const auto next = wire::first_character(text);
    if (!next.valid) {
      if (how == format::json) {
        out += "\\ufffd";
      } else {
        out += "\\x";
        out += hex_digits[byte >> 4];
        out += hex_digits[byte & 15];
      }
      text.remove_prefix(1);
      continue;
    }
    const auto sequence = text.substr(0, next.bytes);
    text.remove_prefix(next.bytes);
    if (is_c1_or_separator(next.code)) {
      out += "\\u";
      for (int shift = 12; shift >= 0; shift -= 4)
        out += hex_digits[next.code >> shift & 15];
    } else if (next.bytes > 1) {
      out += sequence;
    } else if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\r') {
      out += "\\r";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      out += how == format::json ? "\\u00" : "\\x";
      out += hex_digits[byte >> 4];
      out += hex_digits[byte & 15];
    } else if (how == format::json && (byte == '"' || byte == '\\')) {
      out += '\\';
      out += static_cast<char>(byte);
    } else {
      out += static_cast<char>(byte);
    }
  }
}

// A text value is quoted in text lines only where a reader could not see its end otherwise.
bool needs_quotes(std::string_view text) noexcept {
  return text.empty() || text.find_first_of(" =\"\\,") != std::string_view::npos;
}

void append_value(std::string& out, const field::content& value, format how) {
  if (const auto* text = std::get_if<std::string_view>(&value)) {
    if (how == format::json) {
      out += '"';
      append_escaped(out, *text, how);
      out += '"';
    } else if (needs_quotes(*text)) {
      out += '"';
      append_escaped(out, *text, format::json);
      out += '"';
    } else {
      append_escaped(out, *text, how);
    }
  } else if (const auto* whole = std::get_if<std::int64_t>(&value)) {
    out += std::to_string(*whole);
  } else if (const auto* natural = std::get_if<std::uint64_t>(&value)) {
    out += std::to_string(*natural);
  } else if (const auto* yes = std::get_if<bool>(&value)) {
    out += *yes ? "true" : "false";
  } else {
    std::array<char, 40> number{};
    const double real = std::get<double>(value);
    // JSON has no infinities.
    if (real != real || real - real != 0)
      out += how == format::json ? "null" : (real != real ? "nan" : (real > 0 ? "inf" : "-inf"));
    else {
      std::snprintf(number.data(), number.size(), "%.9g", real);
      out += number.data();
    }
  }
}

void append_time(std::string& out, std::uint64_t nanoseconds) {
  const auto seconds = static_cast<std::time_t>(nanoseconds / 1'000'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%06uZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<unsigned>(nanoseconds % 1'000'000'000 / 1000));
  out += text.data();
}

std::string render_span(format how, std::uint64_t nanoseconds, level value, std::string_view target,
                        std::string_view message, std::span<const field> fields) {
  // Escaping makes a text up to six times as long: at an eighth the fields still fit and say where it came
  // from.
  constexpr std::size_t message_bytes_max = line_bytes_max / 8;
  constexpr std::string_view cut = " ...";
  const bool too_long = message.size() > message_bytes_max;
  if (too_long)
    message = message.substr(0, message_bytes_max);
  std::string line;
  line.reserve(256);
  if (how == format::json) {
    line += R"({"timestamp":")";
    append_time(line, nanoseconds);
    line += R"(","level":")";
    line += name_of(value);
    line += R"(","message":")";
    append_escaped(line, message, how);
    if (too_long)
      line += cut;
    line += '"';
    const std::size_t reserved = target.size() * 6 + 64;
    for (const auto& each : fields) {
      std::string text = ",\"";
      append_escaped(text, each.name, how);
      text += "\":";
      append_value(text, each.value, how);
      // Half a field would be no JSON any more.
      if (line.size() + text.size() + reserved > line_bytes_max) {
        line += R"(,"cut":true)";
        break;
      }
      line += text;
    }
    line += R"(,"target":")";
    append_escaped(line, target.substr(0, 256), how);
    line += "\"}\n";
    return line;
  }
  append_time(line, nanoseconds);
  line += name_of(value).size() == 4 ? "  " : " ";
  line += name_of(value);
  line += ' ';
  append_escaped(line, target.substr(0, 256), how);
  line += ": ";
  append_escaped(line, message, how);
  if (too_long)
    line += cut;
  for (const auto& each : fields) {
    line += ' ';
    append_escaped(line, each.name, how);
    line += '=';
    append_value(line, each.value, how);
  }
  if (line.size() >= line_bytes_max) {
    line.resize(line_bytes_max - 1 - cut.size());
    line += cut;
  }
  line += '\n';
  return line;
}

struct state {
  std::mutex lock;
  filter what;
  format how = format::text;
  int descriptor = STDERR_FILENO;
  std::shared_ptr<capture::store> captured;
  filter captured_what;
  // Read without the lock: most lines of a busy server end here.
  std::atomic<level> lowest{level::info};
  std::array<std::atomic<std::uint64_t>, 5> written{};
  std::atomic<std::uint64_t> lost{0};
};

state& the_state() {
  // Never destroyed: threads may log while the program ends.
  static auto* only = new state;
  return *only;
}

bool write_line(int descriptor, std::string_view line) {
  while (!line.empty()) {
    const ssize_t count = ::write(descriptor, line.data(), line.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    line.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

void write_span(level value, std::string_view target, std::string_view message,
                std::span<const field> fields) {
  state& all = the_state();
  if (value < all.lowest.load(std::memory_order_relaxed) || value >= level::off)
    return;
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  const auto now =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(since_1970).count());
  const std::lock_guard guard(all.lock);
  const filter& what = all.captured ? all.captured_what : all.what;
  if (!what.passes(value, target))
    return;
  all.written[static_cast<std::size_t>(value)].fetch_add(1, std::memory_order_relaxed);
  if (all.captured) {
    const std::lock_guard store_guard(all.captured->lock);
    all.captured->lines.push_back({value, std::string(target), std::string(message),
                                   render_span(format::text, now, value, target, message, fields)});
    return;
  }
  if (!write_line(all.descriptor, render_span(all.how, now, value, target, message, fields)))
    all.lost.fetch_add(1, std::memory_order_relaxed);
}

} // namespace

std::string_view name_of(level value) noexcept {
  switch (value) {
  case level::trace:
    return "TRACE";
  case level::debug:
    return "DEBUG";
  case level::info:
    return "INFO";
  case level::warn:
    return "WARN";
  case level::error:
    return "ERROR";
  case level::off:
    return "OFF";
  }
  return "OFF";
}

bool filter::parse(std::string_view text, filter& out, std::string& problem) {
  const auto refuse = [&problem](std::string_view what, std::string_view shown) {
    problem = std::string(what) + " \"" + std::string(shown.substr(0, 64)) +
              "\": write a level (trace, debug, info, warn, error, off), or target=level pairs with commas "
              "between, "
              "such as memkv_server=debug,info";
    return false;
  };
  if (text.size() > filter_bytes_max) {
    problem = "a log filter has at most " + std::to_string(filter_bytes_max) + " bytes";
    return false;
  }
  filter made;
  bool has_level = false;
  std::string_view rest = text;
  while (true) {
    const auto comma = rest.find(',');
    const auto part_text = wire::trimmed(rest.substr(0, comma));
    const auto equals = part_text.find('=');
    if (part_text.empty())
      return refuse("an empty part in the log filter", text);
    if (equals == std::string_view::npos) {
      const auto value = level_of(part_text);
      if (!value)
        return refuse("there is no log level", part_text);
      if (has_level)
        return refuse("two levels without a target in the log filter", text);
      has_level = true;
      made.otherwise_ = *value;
    } else {
      const auto target = wire::trimmed(part_text.substr(0, equals));
      const auto value = level_of(wire::trimmed(part_text.substr(equals + 1)));
      if (!value)
        return refuse("there is no log level", wire::trimmed(part_text.substr(equals + 1)));
      const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
               c == ':' || c == '-';
      };
      if (target.empty() || !std::all_of(target.begin(), target.end(), allowed))
        return refuse("there is no log target", target);
      part made_part{normalised(target), *value};
      for (const auto& other : made.parts_)
        if (other.target == made_part.target)
          return refuse("the log filter names a target twice:", target);
      if (made.parts_.size() == filter_parts_max) {
        problem = "a log filter has at most " + std::to_string(filter_parts_max) + " targets";
        return false;
      }
      made.parts_.push_back(std::move(made_part));
    }
    if (comma == std::string_view::npos)
      break;
    rest = rest.substr(comma + 1);
  }
  // Somebody who names targets only wants to see those; but never at the price of not seeing an error.
  if (!has_level)
    made.otherwise_ = level::error;
  // The longest match decides: look at long ones first.
  std::stable_sort(made.parts_.begin(), made.parts_.end(),
                   [](const part& a, const part& b) { return a.target.size() > b.target.size(); });
  out = std::move(made);
  return true;
}

bool filter::passes(level value, std::string_view target) const noexcept {
  for (const auto& each : parts_)
    if (matches(each.target, target))
      return value >= each.from;
  return value >= otherwise_;
}

level filter::lowest() const noexcept {
  level least = otherwise_;
  for (const auto& each : parts_)
    least = std::min(least, each.from);
  return least;
}

bool configure(const settings& wanted, std::string& problem) {
  int descriptor = STDERR_FILENO;
  if (!wanted.file.empty()) {
    // A pipe that nobody reads is refused instead of waited for.
    descriptor =
        ::open(wanted.file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    if (descriptor < 0) {
      problem = "the log file " + wanted.file + " cannot be opened (" +
                (errno == ENXIO ? "it is a pipe that nobody reads" : std::strerror(errno)) +
                "): name another with --log-file, or write --log-file none for standard error";
      return false;
    }
    // From here on whoever reads slowly is waited for, as at standard error: no line is lost to that.
    ::fcntl(descriptor, F_SETFL, O_APPEND);
  }
  state& all = the_state();
  const std::lock_guard guard(all.lock);
  if (all.descriptor != STDERR_FILENO)
    ::close(all.descriptor);
  all.descriptor = descriptor;
  all.what = wanted.what;
  all.how = wanted.how;
  if (!all.captured)
    all.lowest.store(wanted.what.lowest(), std::memory_order_relaxed);
  return true;
}

bool enabled(level value, std::string_view target) {
  state& all = the_state();
  if (value < all.lowest.load(std::memory_order_relaxed) || value >= level::off)
    return false;
  const std::lock_guard guard(all.lock);
  return (all.captured ? all.captured_what : all.what).passes(value, target);
}

void write(level value, std::string_view target, std::string_view message,
           std::initializer_list<field> fields) {
  write_span(value, target, message, {fields.begin(), fields.size()});
}

std::array<std::uint64_t, 5> lines_written() noexcept {
  std::array<std::uint64_t, 5> counts{};
  for (std::size_t i = 0; i < counts.size(); ++i)
    counts[i] = the_state().written[i].load(std::memory_order_relaxed);
  return counts;
}

std::uint64_t lines_lost() noexcept {
  return the_state().lost.load(std::memory_order_relaxed);
}

std::string render(format how, std::uint64_t nanoseconds, level value, std::string_view target,
                   std::string_view message, std::initializer_list<field> fields) {
  return render_span(how, nanoseconds, value, target, message, {fields.begin(), fields.size()});
}

bool rate_limit::allow(std::uint64_t now_ns, std::uint64_t& suppressed) noexcept {
  const std::uint64_t now = now_ns + 1;
  std::uint64_t last = last_ns_.load(std::memory_order_relaxed);
  while (last == 0 || now >= last + interval_ns_) {
    if (last_ns_.compare_exchange_weak(last, now, std::memory_order_relaxed)) {
      suppressed = suppressed_.exchange(0, std::memory_order_relaxed);
      return true;
    }
  }
  suppressed_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

void write_limited(rate_limit& limit, level value, std::string_view target, std::string_view message,
                   std::initializer_list<field> fields) {
  if (!enabled(value, target))
    return;
  const auto since_boot = std::chrono::steady_clock::now().time_since_epoch();
  std::uint64_t suppressed = 0;
  if (!limit.allow(static_cast<std::uint64_t>(
                       std::chrono::duration_cast<std::chrono::nanoseconds>(since_boot).count()),
                   suppressed))
    return;
  if (suppressed == 0) {
    write(value, target, message, fields);
    return;
  }
  std::vector<field> more(fields);
  more.emplace_back("suppressed", suppressed);
  write_span(value, target, message, more);
}

capture::capture(filter what) : store_(std::make_shared<store>()) {
  state& all = the_state();
  const std::lock_guard guard(all.lock);
  MEMKV_ASSERT(!all.captured, "one capture of the log at a time");
  all.captured = store_;
  all.lowest.store(what.lowest(), std::memory_order_relaxed);
  all.captured_what = std::move(what);
}

capture::~capture() {
  state& all = the_state();
  const std::lock_guard guard(all.lock);
  all.captured.reset();
  all.lowest.store(all.what.lowest(), std::memory_order_relaxed);
}

std::vector<captured_line> capture::lines() const {
  const std::lock_guard guard(store_->lock);
  return store_->lines;
}

std::size_t capture::count(level value) const {
  const std::lock_guard guard(store_->lock);
  return static_cast<std::size_t>(
      std::count_if(store_->lines.begin(), store_->lines.end(),
                    [value](const captured_line& line) { return line.value == value; }));
}

} // namespace memkv::log
