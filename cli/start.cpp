#include "cli/start.hpp"

#include "actors/license_watch.hpp"
#include "actors/log.hpp"
#include "actors/patient_reader.hpp"
#include "actors/run_server.hpp"
#include "cli/admin_endpoint.hpp"
#include "cli/config.hpp"
#include "cli/doctor.hpp"
#include "cli/machine.hpp"
#include "cli/start_options.hpp"
#include "cli/version.hpp"
#include "wire/license_file.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

namespace memkv::cli {

namespace {

constexpr std::string_view target = "memkv::start";

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

// Before the log is open a sentence goes to standard error; afterwards to both, so that a person at the
// terminal and the log's reader see it.
int refuse(const std::string& sentence, bool log_is_open) {
  std::fprintf(stderr, "memkv: %s\n", sentence.c_str());
  if (log_is_open)
    log::error(target, sentence);
  return 1;
}

void log_license(const wire::found_license& license) {
  const auto& granted = *license.verdict.granted;
  log::info(target, "license",
            {{"plan", name(granted.plan)},
             {"organization", granted.organization},
             {"ends", wire::utc_text(granted.expires_at_s)},
             {"id", granted.id},
             {"source", license.source},
             {"path", license.path},
             {"development", granted.development}});
}

} // namespace

int run_start_command(const parsed& line) {
  if (line.number("log-write-timing") == 0U)
    return refuse("--log-write-timing needs at least 1 second: leave the flag out to switch it off", false);
  if (const auto problem = check_kernel(kernel_release()); !problem.empty())
    return refuse(problem, false);
  const auto faults = line.text("fault-injection");
  if (!faults.empty() && faults != "on" && faults != "force")
    return refuse("--fault-injection is given alone or as --fault-injection=force", false);
  const auto path = line.text("config");
  const auto loaded = load_config(path, {variable("MEMKV_AUTH_KEY")});
  if (!loaded.ok())
    return refuse(describe(path, loaded.problem), false);
  auto config = loaded.config;

  const auto level = line.given("log-level") ? std::optional(line.text("log-level")) : std::nullopt;
  const auto file = line.text("log-file");
  const auto choice = choose_log(config, level, file, variable("RUST_LOG"));
  std::string problem = choice.problem;
  if (!problem.empty() || !log::configure(choice.settings, problem))
    return refuse(problem, false);
  const bool log_is_apart = file != "none";

  log::info(target, "starting", {{"version", version()}, {"config", path}, {"kernel", kernel_release()}});
  if (!choice.warning.empty())
    log::warn(target, choice.warning);
  for (const auto& warning : loaded.warnings)
    log::warn(target, warning);
  for (const auto& key : loaded.not_in_effect)
    log::warn(target, key.key + " is not in effect: " + key.reason, {{"line", key.line}});

  // Before a drive or a socket is touched.
  const auto time = std::make_shared<engine::system_clock>();
  const auto license =
      wire::find_license_here({"--license", line.text("license")}, time->wall_ns() / 1'000'000'000);
  if (!license.verdict.ok())
    return refuse(license.verdict.problem, log_is_apart);
  log_license(license);
  log_doctor_report(path, loaded, variable("MEMKV_AUTH_KEY").value_or("") != "", log_is_apart ? file : "",
                    line.text("license"));

  const auto admin = admin_endpoint::make(config, !faults.empty(), problem);
  if (admin == nullptr)
    return refuse(path + ": " + problem, log_is_apart);

  if (config.storage.mode == storage_mode::direct)
    for (auto& drive : config.storage.drives)
      drive.max_size_bytes = device_bytes(drive.media);
  memory_facts facts;
  if (!read_memory_facts("", facts))
    return refuse("the available memory cannot be read from /proc/meminfo: mount /proc", log_is_apart);
  const auto verdict = check_memory(config, facts);
  if (!verdict.refusal.empty())
    return refuse(path + ": " + verdict.refusal, log_is_apart);
  if (!verdict.warning.empty())
    log::warn(target, verdict.warning);
  log::info(target, "memory",
            {{"pool_bytes", verdict.pool_bytes},
             {"memory_drive_bytes", verdict.drive_bytes},
             {"index_bytes_max", verdict.index_bytes},
             {"available_bytes", facts.available_bytes}});

  auto options = server_options_of(config, line.number("log-write-timing").value_or(0));
  options.fault_injection = !faults.empty();
  if (options.fault_injection && !may_inject_faults(license.verdict.granted->development, faults == "force"))
    return refuse("--fault-injection is refused with a release license: use a development license, or "
                  "--fault-injection=force",
                  log_is_apart);
  options.store.blocks_max = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(verdict.blocks_max, std::numeric_limits<std::uint32_t>::max()));
  options.time = time;
  const auto keys = wire::built_in_license_keys();
  options.license =
      std::make_shared<actors::license_watch>(license, actors::patient_reader(wire::read_license_file),
                                              std::vector<wire::license_key>(keys.begin(), keys.end()), time);
  options.beside = [&admin](std::uint16_t port, std::string& why) { return admin->begin(port, why); };
  const int code = actors::run_server(
      options,
      [&config, &admin](actors::running_server& server) {
        admin->open(server.door(), server.faults());
        std::printf("memkv: serving on %s\nmemkv: administration on %s\n",
                    address_text(config.network.host, server.port()).c_str(), admin->url().c_str());
        std::fflush(stdout);
      },
      problem);
  if (code != 0 && log_is_apart)
    std::fprintf(stderr, "memkv: %s\n",
                 problem.empty() ? ("the server ended because of a problem: see the end of " + file).c_str()
                                 : problem.c_str());
  return code;
}

} // namespace memkv::cli
