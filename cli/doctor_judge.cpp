#include "cli/doctor_judge.hpp"

#include "cli/drive_text.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>

namespace memkv::cli {

namespace {

constexpr std::uint64_t pool_page_bytes = std::uint64_t{2} << 20;
constexpr std::uint64_t other_descriptors = 256; // as the server counts them

using enum check_state;

finding judge_ring(const ring_facts& ring) {
  constexpr std::string_view check = "io_uring";
  const auto made = [&](check_state state, std::string found, std::string remedy) {
    return finding{state, std::string(check), "", std::move(found), std::move(remedy)};
  };
  if (ring.error == 0)
    return made(ok,
                ring.disabled > 0 ? "a ring could be set up, by this user (kernel.io_uring_disabled is " +
                                        std::to_string(ring.disabled) + ")"
                                  : "a ring could be set up",
                "");
  const std::string reason = std::string("a ring cannot be set up (") + std::strerror(ring.error) + ")";
  if (ring.disabled == 2)
    return made(failed, reason + ", since kernel.io_uring_disabled is 2",
                "sysctl -w kernel.io_uring_disabled=0");
  if (ring.disabled == 1 && ring.error == EPERM)
    return made(failed,
                reason +
                    ", since kernel.io_uring_disabled is 1 and this user has neither CAP_SYS_ADMIN nor the "
                    "group of kernel.io_uring_group",
                "sysctl -w kernel.io_uring_disabled=0, or add the user to that group");
  if (ring.seccomp == 2 && (ring.error == EPERM || ring.error == ENOSYS || ring.error == EACCES))
    return made(
        failed, reason + ", and this process is under a seccomp filter",
        "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile");
  if (ring.error == ENOSYS)
    return made(failed, reason + ", since this kernel is built without it",
                "boot a kernel with CONFIG_IO_URING");
  if (ring.error == EINVAL)
    return made(failed, reason + ", since this kernel does not know the options of the server's rings",
                "boot Linux 6.8 or newer");
  if (ring.error == ENOMEM)
    return made(failed, reason, "raise the limit on locked memory (ulimit -l)");
  return made(failed, reason, "look for a security module that forbids io_uring (SELinux, AppArmor)");
}

void judge_memory(const doctor_facts& facts, std::vector<finding>& out) {
  const auto& config = facts.loaded.config;
  if (!facts.memory_known) {
    out.push_back(
        {failed, "memory", "", "the available memory cannot be read from /proc/meminfo", "mount /proc"});
    return;
  }
  const auto verdict = check_memory(config, facts.memory);
  if (!verdict.refusal.empty()) {
    out.push_back(from_sentence(failed, "memory", "", verdict.refusal));
  } else if (!verdict.warning.empty()) {
    out.push_back({warning, "memory", "", verdict.warning, ""});
  } else {
    std::string found = "memory.max_size is " + about_size(verdict.pool_bytes);
    if (verdict.drive_bytes > 0)
      found += " and the memory drives have " + about_size(verdict.drive_bytes);
    out.push_back(
        {ok, "memory", "",
         found + ", and " + about_size(facts.memory.available_bytes) + " are available beside hugepages",
         ""});
  }
  const std::uint64_t pages = (verdict.pool_bytes + pool_page_bytes - 1) / pool_page_bytes;
  const std::string remedy =
      "sysctl -w vm.nr_hugepages=" +
      std::to_string(pages + facts.pool_pages - std::min(facts.pool_pages, facts.pool_pages_free));
  const std::string have = std::to_string(facts.pool_pages_free) + " of " + std::to_string(facts.pool_pages) +
                           " hugepages of 2 MiB are free";
  const std::string want = ", and the pool needs " + std::to_string(pages);
  if (facts.pool_pages_free >= pages)
    out.push_back({ok, "hugepages", "", have + want, ""});
  else if (facts.pool_pages == 0)
    out.push_back({skipped, "hugepages", "",
                   "none are reserved, so the pool will lie in ordinary memory; to reserve them", remedy});
  else
    out.push_back({warning, "hugepages", "", have + want + ", so it will lie in ordinary memory", remedy});
}

finding judge_memlock(const doctor_facts& facts) {
  const auto& config = facts.loaded.config;
  if (config.storage.mode != storage_mode::direct)
    return {skipped, "memlock", "", "only raw drives have memory locked", ""};
  // The ring of each drive registers the whole pool, and the kernel counts each time.
  const std::uint64_t need = config.memory.max_bytes * config.storage.drives.size();
  const auto& limits = facts.limits;
  if (limits.may_lock_memory)
    return {ok, "memlock", "", "this user may lock what it likes (CAP_IPC_LOCK)", ""};
  if (limits.memlock_bytes == RLIM_INFINITY)
    return {ok, "memlock", "", "the limit on locked memory is infinite", ""};
  const std::string found = "the rings of " + counted(config.storage.drives.size(), "drive", "drives") +
                            " lock memory.max_size each, " + about_size(need) +
                            " in all, and RLIMIT_MEMLOCK is " + about_size(limits.memlock_bytes);
  if (limits.memlock_bytes >= need)
    return {ok, "memlock", "", found, ""};
  return {warning, "memlock", "", found + ", so buffers will not be registered, which costs speed",
          "LimitMEMLOCK=infinity in the systemd unit, or \"USER - memlock unlimited\" in "
          "/etc/security/limits.conf"};
}

finding judge_descriptors(const doctor_facts& facts) {
  const auto& limits = facts.limits;
  const std::uint64_t need = facts.loaded.config.network.max_connections + other_descriptors;
  const std::uint64_t kernel =
      limits.descriptors_kernel_max > 0 ? limits.descriptors_kernel_max : limits.descriptors_hard;
  const std::uint64_t most =
      limits.may_raise_limits ? std::max(kernel, limits.descriptors_hard) : limits.descriptors_hard;
  const std::string found = "network.max_connections needs " + std::to_string(need) +
                            " open files, and this user may have " + std::to_string(most);
  if (most >= need)
    return {ok, "descriptors", "", found, ""};
  if (limits.may_raise_limits)
    return {warning, "descriptors", "", found, "sysctl -w fs.nr_open=" + std::to_string(need)};
  return {warning, "descriptors", "", found + ", where accepting will pause",
          "LimitNOFILE=" + std::to_string(need) + " in the systemd unit, or \"USER - nofile " +
              std::to_string(need) + "\" in /etc/security/limits.conf"};
}

finding judge_port(const port_facts& port, const std::string& host) {
  const std::string number = std::to_string(port.port);
  const std::string check = port.admin ? "port.admin" : "port.data";
  switch (port.error) {
  case 0:
    return {ok, check, number, "free", ""};
  case EADDRINUSE:
    if (port.holder.this_server)
      return {ok, check, number,
              "held by the server of this configuration, which is running (pid " +
                  std::to_string(port.holder.pid) + ")",
              ""};
    if (port.holder.pid != 0)
      return {failed, check, number,
              "held by " + port.holder.name + " (pid " + std::to_string(port.holder.pid) + ")",
              "stop that, or choose another port in network.address"};
    return {failed, check, number, "held by a process that cannot be seen from here",
            "find it with ss -ltnp as root, or choose another port in network.address"};
  case EACCES:
    return {failed, check, number,
            "ports below " +
                (port.unprivileged_from > 0 ? std::to_string(port.unprivileged_from) : std::string("1024")) +
                " are not for this user",
            "choose a higher port, or setcap cap_net_bind_service+ep on the program"};
  case EADDRNOTAVAIL:
    return {failed, check, number, "no interface of this machine has the address " + host,
            "name one that ip address shows in network.address, or 0.0.0.0"};
  default:
    return {failed, check, number, std::string("it cannot be bound (") + std::strerror(port.error) + ")",
            "choose another address in network.address"};
  }
}

} // namespace

void judge_machine(const doctor_facts& facts, std::vector<finding>& out) {
  if (const auto problem = check_kernel(facts.kernel); problem.empty())
    out.push_back({ok, "kernel", "", "Linux " + facts.kernel, ""});
  else
    out.push_back(from_sentence(failed, "kernel", "", problem));
  out.push_back(judge_ring(facts.ring));
  if (!facts.loaded.ok())
    return;
  judge_memory(facts, out);
  out.push_back(judge_memlock(facts));
  out.push_back(judge_descriptors(facts));
  if (!facts.probed)
    return;
  if (facts.loaded.config.network.port == 0)
    out.push_back({skipped, "port.data", "0", "any free port will be taken", ""});
  for (const auto& port : facts.ports)
    out.push_back(judge_port(port, facts.loaded.config.network.host));
}

std::vector<finding> judge(const doctor_facts& facts) {
  std::vector<finding> out;
  if (!facts.loaded.ok()) {
    auto problem = from_sentence(failed, "config", "", facts.loaded.problem.sentence);
    // Path and line in front, which have a colon of their own.
    problem.found = describe(facts.config_path, {facts.loaded.problem.line, {}, problem.found});
    out.push_back(std::move(problem));
  } else {
    out.push_back({ok, "config", "", facts.config_path + " is read and consistent", ""});
  }
  for (const auto& each : facts.loaded.warnings)
    out.push_back(from_sentence(warning, "config.access", "", each));
  for (const auto& key : facts.loaded.not_in_effect)
    out.push_back({warning, "config.effect", key.key,
                   "not in effect (line " + std::to_string(key.line) + "), since " + key.reason,
                   "remove it, or use a build that has it"});
  judge_machine(facts, out);
  if (facts.loaded.ok()) {
    judge_drives(facts, out);
    judge_network(facts, out);
  }
  judge_access(facts, out);
  return out;
}

} // namespace memkv::cli
