#include "cli/doctor_report.hpp"

#include "cli/drive_text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <vector>

namespace memkv::cli {

namespace {

constexpr std::string_view colour_of(check_state state) noexcept {
  switch (state) {
  case check_state::ok:
    return "\033[32m";
  case check_state::warning:
    return "\033[33m";
  case check_state::failed:
    return "\033[1;31m";
  case check_state::skipped:
    break;
  }
  return "\033[2m";
}

std::string padded(std::string text, std::size_t columns) {
  if (text.size() < columns)
    text.append(columns - text.size(), ' ');
  return text;
}

// What comes from files and devices must not move the cursor of a terminal.
std::string printable(std::string_view text) {
  std::string plain;
  for (const char c : text)
    plain += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  return plain;
}

std::string what_to_do(const finding& each) {
  return each.remedy.empty() ? each.found : each.found + ": " + each.remedy;
}

} // namespace

std::string_view name(check_state state) noexcept {
  switch (state) {
  case check_state::ok:
    return "ok";
  case check_state::warning:
    return "warning";
  case check_state::failed:
    return "failed";
  case check_state::skipped:
    break;
  }
  return "skipped";
}

std::string finding::sentence() const {
  return check + (subject.empty() ? "" : " " + subject) + ": " + what_to_do(*this);
}

finding from_sentence(check_state state, std::string check, std::string subject, std::string_view sentence) {
  finding made{state, std::move(check), std::move(subject), std::string(sentence), {}};
  if (const auto colon = sentence.rfind(": "); colon != std::string_view::npos) {
    made.found = sentence.substr(0, colon);
    made.remedy = sentence.substr(colon + 2);
  }
  if (made.remedy.ends_with('.'))
    made.remedy.pop_back();
  return made;
}

state_counts count_states(std::span<const finding> findings) noexcept {
  state_counts counts;
  for (const auto& each : findings)
    switch (each.state) {
    case check_state::ok:
      ++counts.ok;
      break;
    case check_state::warning:
      ++counts.warning;
      break;
    case check_state::failed:
      ++counts.failed;
      break;
    case check_state::skipped:
      ++counts.skipped;
      break;
    }
  return counts;
}

int exit_code(std::span<const finding> findings) noexcept {
  return count_states(findings).failed > 0 ? 1 : 0;
}

std::string failed_checks(std::span<const finding> findings) {
  std::vector<std::string_view> names;
  for (const auto& each : findings)
    if (each.state == check_state::failed && std::ranges::find(names, each.check) == names.end())
      names.push_back(each.check);
  std::string text = counted(count_states(findings).failed, "check", "checks") + " failed: ";
  for (const auto& name : names)
    text.append(&name == &names.front() ? "" : ", ").append(name);
  return text;
}

std::string findings_text(std::span<const finding> findings, bool colour) {
  std::size_t check_columns = 0;
  std::size_t subject_columns = 0;
  for (const auto& each : findings) {
    check_columns = std::max(check_columns, each.check.size());
    subject_columns = std::max(subject_columns, each.subject.size());
  }
  std::string text;
  for (const auto& each : findings) {
    const std::string state = padded(std::string(name(each.state)), 7);
    text += colour ? std::string(colour_of(each.state)) + state + "\033[0m" : state;
    text += "  " + padded(each.check, check_columns) + "  ";
    if (subject_columns > 0)
      text += padded(printable(each.subject), subject_columns) + "  ";
    text += printable(what_to_do(each)) + "\n";
  }
  const auto counts = count_states(findings);
  return text + std::to_string(counts.ok) + " ok, " + counted(counts.warning, "warning", "warnings") + ", " +
         std::to_string(counts.failed) + " failed, " + std::to_string(counts.skipped) + " skipped\n";
}

std::string findings_json(std::span<const finding> findings, std::string_view config,
                          std::string_view version) {
  using json = nlohmann::ordered_json;
  const auto counts = count_states(findings);
  json document;
  document["report"] = "doctor";
  document["version"] = version;
  document["config"] = config;
  document["healthy"] = counts.failed == 0;
  document["ok"] = counts.ok;
  document["warnings"] = counts.warning;
  document["failed"] = counts.failed;
  document["skipped"] = counts.skipped;
  document["checks"] = json::array();
  for (const auto& each : findings)
    document["checks"].push_back({{"check", each.check},
                                  {"subject", each.subject},
                                  {"state", name(each.state)},
                                  {"found", each.found},
                                  {"remedy", each.remedy}});
  // Names of files and devices need not be UTF-8.
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

} // namespace memkv::cli
