#include "cli/doctor.hpp"

#include "actors/log.hpp"
#include "cli/doctor_gather.hpp"
#include "cli/doctor_judge.hpp"
#include "cli/doctor_license.hpp"
#include "cli/doctor_report.hpp"
#include "cli/version.hpp"
#include "client/options.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>

namespace memkv::cli {

namespace {

constexpr std::string_view target = "memkv::doctor";
constexpr std::size_t peers_max = 256;

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

int refuse(const std::string& sentence) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  return 1;
}

std::vector<finding> all_findings(const doctor_facts& facts, const std::string& license) {
  auto findings = judge(facts);
  findings.push_back(check_license(license));
  return findings;
}

// memkv start has lines of its own for these.
bool is_said_by_start(const finding& each) {
  for (const std::string_view check :
       {"config", "config.access", "config.effect", "kernel", "memory", "license"})
    if (each.check == check)
      return true;
  return false;
}

} // namespace

int run_doctor_command(const parsed& line) {
  gather_order order;
  order.config_path = line.text("config");
  order.probe = true;
  if (line.text("log-file") != "none")
    order.log_file = line.text("log-file");
  const auto peers = line.given("servers") ? std::optional(line.text("servers")) : variable("MEMKV_SERVERS");
  if (peers)
    order.peers = client::split_list(*peers);
  if (order.peers.size() > peers_max)
    return refuse("--servers names more than " + std::to_string(peers_max) + " servers: name fewer");
  const auto key = variable("MEMKV_AUTH_KEY");
  const auto facts = gather_facts(order, load_config(order.config_path, {key}), key.has_value());
  const auto findings = all_findings(facts, "");
  const bool colour = ::isatty(STDOUT_FILENO) == 1 && !variable("NO_COLOR");
  const auto text = line.has("json") ? findings_json(findings, order.config_path, version())
                                     : findings_text(findings, colour);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    return refuse("standard output cannot be written");
  const auto code = exit_code(findings);
  if (code != 0)
    std::fprintf(stderr, "memkv: %s\n", failed_checks(findings).c_str());
  return code;
}

void log_doctor_report(const std::string& config_path, const config_result& loaded, bool key_from_environment,
                       const std::string& log_file, const std::string& license) {
  try {
    gather_order order;
    order.config_path = config_path;
    order.log_file = log_file;
    const auto findings = all_findings(gather_facts(order, loaded, key_from_environment), license);
    const auto counts = count_states(findings);
    log::info(target, "checked the machine; memkv doctor checks more",
              {{"ok", counts.ok},
               {"warnings", counts.warning},
               {"failed", counts.failed},
               {"skipped", counts.skipped}});
    for (const auto& each : findings)
      if ((each.state == check_state::warning || each.state == check_state::failed) &&
          !is_said_by_start(each))
        log::warn(target, each.sentence());
  } catch (const std::exception& problem) {
    // A start that would work must not fail here.
    log::warn(target, std::string("the machine could not be checked: ") + problem.what());
  }
}

} // namespace memkv::cli
