#include "wire/license_search.hpp"

#include "wire/text.hpp"

#include <algorithm>
#include <array>
#include <optional>

namespace memkv::wire {

namespace {

constexpr std::array<const char*, 3> variables{"MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE"};

/// A token with something around it, in it or cut off it passes for a path. It must not reach a log: whoever
/// reads that could use it.
bool may_be_token(std::string_view value) noexcept {
  constexpr std::size_t shortest = 32; // less than the header of a token
  return value.size() >= shortest && value.find("eyJ") != std::string_view::npos;
}

std::string shown_path(const std::string& path) {
  constexpr std::size_t most = 200;
  return path.size() <= most ? path : path.substr(0, most) + "...";
}

/// A file that was read, or could not be.
void judge(found_license& found, const license_text& file, std::span<const license_key> keys,
           std::uint64_t now_s) {
  if (file.result != license_text::outcome::read && may_be_token(found.path)) {
    found.verdict.problem =
        "the value is no path of a file, and looks like a license with something around "
        "or in it that is not part of it: give the license alone, or the path of its file";
    found.path.clear();
    return;
  }
  if (file.result != license_text::outcome::read) {
    found.verdict.problem = "the license file " + shown_path(found.path) + " cannot be read: " + file.problem;
    return;
  }
  found.token = trimmed_license(file.text);
  found.verdict = verify_license(found.token, keys, now_s);
  if (!found.verdict.ok())
    found.verdict.problem = shown_path(found.path) + ": " + found.verdict.problem;
}

found_license look_at(const license_place& place, const license_reader& read,
                      std::span<const license_key> keys, std::uint64_t now_s) {
  found_license found;
  found.source = place.source;
  const auto value = trimmed_license(place.value);
  if (is_inline_license(value)) {
    found.token = value;
    found.verdict = verify_license(found.token, keys, now_s);
  } else {
    found.path = value;
    judge(found, read(found.path), keys, now_s);
  }
  if (!found.verdict.ok())
    found.verdict.problem = place.source + ": " + found.verdict.problem;
  return found;
}

} // namespace

std::string_view trimmed_license(std::string_view text) noexcept {
  return trimmed(text, " \t\r\n");
}

// The header of a token is a JSON object, so a token begins with '{"' in base64.
bool is_inline_license(std::string_view value) noexcept {
  return value.starts_with("eyJ") && value.find('/') == std::string_view::npos;
}

std::vector<std::string> well_known_licenses(std::string_view home) {
  std::vector<std::string> paths{"/etc/memkv/memkv.license", "/etc/memkv/minio.license"};
  if (home.starts_with('/'))
    for (const auto* name : {"/.memkv/memkv.license", "/.memkv/minio.license", "/.minio/minio.license"})
      paths.push_back(std::string(home) + name);
  return paths;
}

found_license find_license(const license_place& first, const license_variable& variable,
                           const license_reader& read, std::span<const license_key> keys,
                           std::uint64_t now_s) {
  if (!trimmed_license(first.value).empty())
    return look_at(first, read, keys, now_s);
  for (const auto* name : variables)
    if (const char* value = variable(name); value != nullptr && !trimmed_license(value).empty())
      return look_at({name, value}, read, keys, now_s);
  const char* home = variable("HOME");
  std::string looked;
  for (const auto& path : well_known_licenses(home == nullptr ? "" : home)) {
    const auto file = read(path);
    const bool hidden = file.result == license_text::outcome::forbidden;
    if (hidden || file.result == license_text::outcome::absent) {
      // Somebody else's file is no licence of ours, but worth a word.
      looked += (looked.empty() ? "" : ", ") + path + (hidden ? " (which may not be read)" : "");
      continue;
    }
    found_license found;
    found.source = path;
    found.path = path;
    judge(found, file, keys, now_s);
    return found;
  }
  found_license none;
  none.verdict.problem = "no license found: looked for one in " +
                         (first.source.empty() ? "" : first.source + ", ") +
                         "MEMKV_LICENSE, AISTOR_LICENSE, MINIO_LICENSE, " + looked +
                         "; set MEMKV_LICENSE to a license or the path of one (docs/license.md)";
  return none;
}

} // namespace memkv::wire
