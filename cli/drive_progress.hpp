// A line on a terminal that says how far something long has come, how fast it is, and how long it will take.
//
// Nothing is shown when standard error is no terminal, and nothing in the first second: what is over in a
// moment needs no line.
//
// Threading: one thread. Ownership: views of the verb, which outlives it. Errors: none; what cannot be
// written is not shown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::cli {

/// "reading [###.................] 12.0 of 96.0 GiB  13 %  812.4 MiB/s  1 min 46 s left", without an end of
/// line.
[[nodiscard]] std::string progress_text(std::string_view verb, std::uint64_t done_bytes,
                                        std::uint64_t total_bytes, double seconds);

class drive_progress {
public:
  drive_progress();
  /// Removes the line.
  ~drive_progress();
  drive_progress(const drive_progress&) = delete;
  drive_progress& operator=(const drive_progress&) = delete;

  /// Shows where it is, at most ten times a second. A new verb starts a new measurement of rate.
  void show(std::string_view verb, std::uint64_t done_bytes, std::uint64_t total_bytes);
  /// Removes the line until the next show(), so that something else can be printed.
  void clear();

private:
  bool terminal_;
  bool shown_ = false;
  std::string verb_;
  std::uint64_t begin_ns_ = 0, verb_begin_ns_ = 0, last_ns_ = 0;
};

} // namespace memkv::cli
