#include "cli/drive_progress.hpp"

#include "engine/clock.hpp"

#include <unistd.h>

#include <array>
#include <cstdio>

namespace memkv::cli {

namespace {

constexpr std::uint64_t silent_ns = 1'000'000'000;
constexpr std::uint64_t interval_ns = 100'000'000;

std::string time_left(double seconds) {
  const auto whole = static_cast<std::uint64_t>(seconds + 0.5);
  if (whole >= 3600)
    return std::to_string(whole / 3600) + " h " + std::to_string(whole / 60 % 60) + " min";
  if (whole >= 60)
    return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return std::to_string(whole) + " s";
}

} // namespace

std::string progress_text(std::string_view verb, std::uint64_t done_bytes, std::uint64_t total_bytes,
                          double seconds) {
  constexpr double mib = 1024.0 * 1024.0;
  const auto done = static_cast<double>(done_bytes < total_bytes ? done_bytes : total_bytes);
  const auto total = static_cast<double>(total_bytes);
  const bool large = total >= 10 * 1024 * mib;
  const double unit = large ? 1024 * mib : mib;
  const double rate = seconds > 0 ? done / seconds : 0;
  constexpr std::size_t columns = 20;
  const auto filled = total > 0 ? static_cast<std::size_t>(columns * (done / total)) : columns;
  const std::string bar = " [" + std::string(filled, '#') + std::string(columns - filled, '.') + "]";
  std::array<char, 128> numbers{};
  std::snprintf(numbers.data(), numbers.size(), " %.1f of %.1f %s  %.0f %%  %.1f MiB/s", done / unit,
                total / unit, large ? "GiB" : "MiB", total > 0 ? 100 * done / total : 100, rate / mib);
  std::string text = std::string(verb) + bar + numbers.data();
  if (rate > 0)
    text += "  " + time_left((total - done) / rate) + " left";
  return text;
}

drive_progress::drive_progress()
    : terminal_(::isatty(STDERR_FILENO) == 1), begin_ns_(engine::system_clock().steady_ns()) {}

drive_progress::~drive_progress() {
  clear();
}

void drive_progress::clear() {
  if (shown_)
    std::fprintf(stderr, "\r\033[K");
  shown_ = false;
}

void drive_progress::show(std::string_view verb, std::uint64_t done_bytes, std::uint64_t total_bytes) {
  if (!terminal_)
    return;
  const std::uint64_t now = engine::system_clock().steady_ns();
  const bool other = verb != verb_;
  if (other) {
    verb_ = verb;
    verb_begin_ns_ = now;
  }
  if (now - begin_ns_ < silent_ns || (!other && now - last_ns_ < interval_ns))
    return;
  last_ns_ = now;
  shown_ = true;
  const std::string text =
      progress_text(verb, done_bytes, total_bytes, static_cast<double>(now - verb_begin_ns_) / 1e9);
  std::fprintf(stderr, "\r%s\033[K", text.c_str());
}

} // namespace memkv::cli
