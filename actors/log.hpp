// The log: lines with a level, a target, a message and named fields, as text or JSON, to a file or standard
// error.
//
// A target says which part speaks: "memkv::server", "memkv::drive". What is written is decided by a filter
// such as "info" or "memkv_server=debug,info": the longest target that matches decides, whole names between
// "::" (or "_", which counts the same) are compared, and a level alone is for everything else.
//
// Threading: everything here may be called from any thread, except where it says otherwise. One line is one
// write(2). Ownership: nothing that is passed in is kept. Errors:    a line that cannot be written is counted
// (lines_lost), never reported to the caller. Limits:    a line is cut at line_bytes_max; the cut is marked.
// Not here:  rotation. Lines are appended, so a rotating tool that copies and truncates works.
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace memkv::log {

/// Longest line, in bytes, its newline included.
inline constexpr std::size_t line_bytes_max = 16 * 1024;
/// Longest filter text, and most parts in it.
inline constexpr std::size_t filter_bytes_max = 4 * 1024;
inline constexpr std::size_t filter_parts_max = 64;

enum class level : std::uint8_t { trace = 0, debug = 1, info = 2, warn = 3, error = 4, off = 5 };

/// "TRACE" ... "ERROR", "OFF".
[[nodiscard]] std::string_view name_of(level value) noexcept;

/// What is written and what is not.
class filter {
public:
  /// Everything from info on.
  filter() = default;
  /// Reads a filter. On failure returns false and puts one sentence into `problem`.
  [[nodiscard]] static bool parse(std::string_view text, filter& out, std::string& problem);
  [[nodiscard]] bool passes(level value, std::string_view target) const noexcept;
  /// No line below this level passes for any target.
  [[nodiscard]] level lowest() const noexcept;

private:
  struct part {
    std::string target; // normalised
    level from = level::info;
  };
  std::vector<part> parts_;
  level otherwise_ = level::info;
};

enum class format : std::uint8_t { text, json };

struct settings {
  filter what;
  format how = format::text;
  /// File to append to, made with mode 0640; empty: standard error.
  std::string file;
};

/// A named value of a line. Holds views: only for the duration of the call that writes the line.
class field {
public:
  using content = std::variant<std::string_view, std::int64_t, std::uint64_t, double, bool>;

  field(std::string_view name, std::string_view value) noexcept : name(name), value(value) {}
  field(std::string_view name, const char* value) noexcept : name(name), value(std::string_view(value)) {}
  field(std::string_view name, const std::string& value) noexcept
      : name(name), value(std::string_view(value)) {}
  field(std::string_view name, bool value) noexcept : name(name), value(value) {}
  field(std::string_view name, double value) noexcept : name(name), value(value) {}
  template <std::signed_integral T>
  field(std::string_view name, T value) noexcept : name(name), value(static_cast<std::int64_t>(value)) {}
  template <std::unsigned_integral T>
  requires(!std::same_as<T, bool>) field(std::string_view name, T value)
  noexcept : name(name), value(static_cast<std::uint64_t>(value)) {}

  std::string_view name;
  content value;
};

/// Puts the settings into effect. On failure (the file cannot be opened) returns false, changes nothing, and
/// puts one sentence into `problem`. Before the first call lines from info on go to standard error as text.
[[nodiscard]] bool configure(const settings& wanted, std::string& problem);

/// Whether a line would be written: for callers to whom making the message costs something.
[[nodiscard]] bool enabled(level value, std::string_view target);

void write(level value, std::string_view target, std::string_view message,
           std::initializer_list<field> fields = {});

inline void trace(std::string_view target, std::string_view message,
                  std::initializer_list<field> fields = {}) {
  write(level::trace, target, message, fields);
}
inline void debug(std::string_view target, std::string_view message,
                  std::initializer_list<field> fields = {}) {
  write(level::debug, target, message, fields);
}
inline void info(std::string_view target, std::string_view message,
                 std::initializer_list<field> fields = {}) {
  write(level::info, target, message, fields);
}
inline void warn(std::string_view target, std::string_view message,
                 std::initializer_list<field> fields = {}) {
  write(level::warn, target, message, fields);
}
inline void error(std::string_view target, std::string_view message,
                  std::initializer_list<field> fields = {}) {
  write(level::error, target, message, fields);
}

/// Lines written so far, by level (trace ... error), whether they went to a file, standard error or a
/// capture.
[[nodiscard]] std::array<std::uint64_t, 5> lines_written() noexcept;
/// Lines that could not be written, in whole or in part.
[[nodiscard]] std::uint64_t lines_lost() noexcept;

/// The line as it would be written, newline included; `nanoseconds` since 1970-01-01 UTC. For tests and
/// captures.
[[nodiscard]] std::string render(format how, std::uint64_t nanoseconds, level value, std::string_view target,
                                 std::string_view message, std::initializer_list<field> fields);

/// Lets one line through an interval and counts the others.
///
/// Threading: any thread. Time is passed in, so that tests need not wait.
class rate_limit {
public:
  /// `interval_ns` 0: everything passes.
  explicit rate_limit(std::uint64_t interval_ns) noexcept : interval_ns_(interval_ns) {}
  /// Whether a line may be written at this (monotonic) time; if so, `suppressed` is how many were refused
  /// since the last one.
  [[nodiscard]] bool allow(std::uint64_t now_ns, std::uint64_t& suppressed) noexcept;

private:
  std::uint64_t interval_ns_;
  // 0: nothing passed yet. Otherwise the time of the last line, plus one so that it is never 0.
  std::atomic<std::uint64_t> last_ns_{0};
  std::atomic<std::uint64_t> suppressed_{0};
};

/// write(), through a rate limit on the monotonic clock; adds a field "suppressed" if lines were left out. At
/// most one level and target should use one limit.
void write_limited(rate_limit& limit, level value, std::string_view target, std::string_view message,
                   std::initializer_list<field> fields = {});

struct captured_line {
  level value = level::info;
  std::string target;
  std::string message;
  std::string text; // as render() makes it, format text
};

/// While it lives, lines that pass `what` come here instead of where settings send them. One at a time.
///
/// Threading: make and destroy it on one thread; lines may come from any.
class capture {
public:
  explicit capture(filter what = {});
  capture(const capture&) = delete;
  capture& operator=(const capture&) = delete;
  ~capture();
  [[nodiscard]] std::vector<captured_line> lines() const;
  /// How many lines of this level came.
  [[nodiscard]] std::size_t count(level value) const;

  struct store;

private:
  std::shared_ptr<store> store_;
};

} // namespace memkv::log
