#include "cli/doctor_sysfs.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace memkv::cli {

namespace {

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t");
  return begin == std::string::npos ? std::string()
                                    : text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

} // namespace

std::string sysfs_line(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return trimmed(line);
}

std::optional<std::uint64_t> sysfs_number(const std::filesystem::path& file) {
  std::istringstream text(sysfs_line(file));
  std::uint64_t value = 0;
  if (text >> value)
    return value;
  return std::nullopt;
}

std::vector<std::string> sysfs_names(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  // Processes and devices vanish while they are listed.
  for (std::filesystem::directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error))
    names.push_back(at->path().filename().string());
  std::ranges::sort(names);
  return names;
}

std::string proc_field(const std::filesystem::path& file, const std::string& field) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);)
    if (line.starts_with(field + ":"))
      return trimmed(line.substr(field.size() + 1));
  return {};
}

} // namespace memkv::cli
