#include "cli/drive_text.hpp"

#include <array>
#include <cstdio>
#include <ctime>

namespace memkv::cli {

std::string about_size(std::uint64_t bytes) {
  if (bytes < 1024)
    return std::to_string(bytes) + " B";
  constexpr std::array<const char*, 6> units{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit)
    value /= 1024;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), value < 10 ? "%.2f %s" : "%.1f %s", value, units[unit]);
  return text.data();
}

std::string utc_text(std::uint64_t nanoseconds) {
  if (nanoseconds == 0)
    return "never";
  const auto seconds = static_cast<std::time_t>(nanoseconds / 1'000'000'000);
  std::tm parts{};
  std::array<char, 64> text{};
  if (::gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
    return "unknown";
  return text.data();
}

std::string counted(std::uint64_t number, std::string_view one, std::string_view many) {
  return std::to_string(number) + " " + std::string(number == 1 ? one : many);
}

std::string text_row(std::string_view name, const std::string& value) {
  constexpr std::size_t column = 15;
  std::string text = "  " + std::string(name);
  text.append(column > name.size() ? column - name.size() : 1, ' ');
  return text + value + "\n";
}

} // namespace memkv::cli
