#include "cli/doctor_gather.hpp"

#include "cli/doctor_apart.hpp"
#include "cli/doctor_clock.hpp"
#include "cli/doctor_probe.hpp"
#include "cli/doctor_sysfs.hpp"
#include "cli/doctor_tls.hpp"
#include "engine/page.hpp"

#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bitset>
#include <cerrno>
#include <cstring>
#include <functional>

namespace memkv::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t look_deadline_ms = 5'000;

fs::path top_of(const std::string& root) {
  return root.empty() ? "/" : root;
}

// Numbers of linux/magic.h and of file systems that keep theirs elsewhere.
std::string file_system_of(const std::string& path) {
  struct statfs about {};
  if (::statfs(path.c_str(), &about) != 0)
    return {};
  switch (static_cast<std::uint64_t>(about.f_type) & 0xFFFFFFFFU) {
  case 0x01021994:
    return "tmpfs";
  case 0x858458F6:
    return "ramfs";
  case 0x6969:
    return "NFS";
  case 0xFF534D42:
  case 0xFE534D42:
    return "SMB";
  case 0x794C7630:
    return "overlayfs";
  default:
    return {};
  }
}

std::string directory_of(const std::string& path) {
  const auto parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

std::uint64_t room_in(const std::string& directory) {
  struct statvfs about {};
  return ::statvfs(directory.c_str(), &about) == 0 ? std::uint64_t{about.f_bavail} * about.f_frsize : 0;
}

void gather_memory(const std::string& root, doctor_facts& facts) {
  facts.memory_known = read_memory_facts(root, facts.memory);
  const fs::path pages = top_of(root) / "sys/kernel/mm/hugepages/hugepages-2048kB";
  facts.pool_pages = sysfs_number(pages / "nr_hugepages").value_or(0);
  facts.pool_pages_free = sysfs_number(pages / "free_hugepages").value_or(0);
}

void gather_ports(const gather_order& order, const server_config& config, doctor_facts& facts) {
  if (config.network.port == 0)
    return;
  for (const bool admin : {false, true}) {
    auto port = read_port_facts(order.root, config.network.host,
                                static_cast<std::uint16_t>(config.network.port + (admin ? 1 : 0)));
    port.admin = admin;
    if (port.error == EADDRINUSE)
      port.holder = find_listener(order.root, port.port, order.config_path);
    facts.ports.push_back(port);
  }
}

// Paths on a mount whose server is gone hang whoever looks at them, so somebody else looks first.
std::vector<bool> find_stuck(const std::vector<std::string>& paths) {
  std::vector<std::function<std::string()>> work;
  for (const auto& path : paths)
    work.emplace_back([&path] {
      struct stat about {};
      const bool there = ::stat(path.c_str(), &about) == 0;
      return std::to_string(there ? 1 : 0) + std::to_string(room_in(directory_of(path)));
    });
  std::vector<bool> stuck;
  for (const auto& answer : run_apart(work, apart_max, look_deadline_ms))
    stuck.push_back(!answer);
  return stuck;
}

// Drives, certificate and log: what lies at paths that a person chose.
void gather_files(const gather_order& order, server_config& config, doctor_facts& facts) {
  const bool on_drives = config.storage.mode != storage_mode::memory;
  const bool tls = !config.network.tls_cert.empty() && !config.network.tls_key.empty();
  std::vector<std::string> paths{order.log_file.empty() ? "." : order.log_file, config.network.tls_cert,
                                 config.network.tls_key};
  const std::size_t drives_begin = paths.size();
  if (on_drives)
    for (const auto& each : config.storage.drives)
      paths.push_back(each.media);
  const auto stuck = order.probe ? find_stuck(paths) : std::vector<bool>(paths.size());
  if (stuck[0]) {
    facts.log.file = order.log_file;
    facts.log.stuck = true;
  } else {
    facts.log = read_log_facts(order.log_file);
  }
  if (tls && (stuck[1] || stuck[2])) {
    facts.tls.configured = true;
    facts.tls.cert_problem =
        paths[stuck[1] ? 1 : 2] + " does not answer within the deadline: check the mount it is on";
  } else if (tls) {
    facts.tls = read_tls_facts(config.network.tls_cert, config.network.tls_key);
  }
  if (!on_drives)
    return;
  for (auto& each : config.storage.drives) {
    doctor_drive_facts drive;
    drive.path = each.media;
    drive.wanted_bytes = each.max_size_bytes;
    drive.stuck = stuck[drives_begin + facts.drives.size()];
    if (!drive.stuck)
      gather_drive(order.root, config, drive);
    // A raw drive is used whole, as at a start.
    if (config.storage.mode == storage_mode::direct)
      each.max_size_bytes = drive.device.size_bytes;
    facts.drives.push_back(std::move(drive));
  }
}

void find_holders(const gather_order& order, doctor_facts& facts) {
  for (auto& drive : facts.drives) {
    if (!drive.probe.in_use)
      continue;
    std::error_code error;
    const auto real = fs::canonical(drive.path, error);
    drive.holder = find_holder(order.root, error ? drive.path : real.string(), order.config_path);
  }
}

} // namespace

ring_facts read_ring_facts(const std::string& root) {
  ring_facts facts;
  if (const auto disabled = sysfs_number(top_of(root) / "proc/sys/kernel/io_uring_disabled"))
    facts.disabled = static_cast<int>(*disabled);
  if (const auto mode = proc_field(top_of(root) / "proc/self/status", "Seccomp"); !mode.empty())
    facts.seccomp = std::atoi(mode.c_str());
  // The very flags that the server's rings have.
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  const auto ring = ::syscall(__NR_io_uring_setup, 8U, &parameters);
  if (ring < 0)
    facts.error = errno;
  else
    ::close(static_cast<int>(ring));
  return facts;
}

limit_facts read_limit_facts(const std::string& root) {
  limit_facts facts;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
    facts.memlock_bytes = limit.rlim_cur;
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    facts.descriptors_soft = limit.rlim_cur;
    facts.descriptors_hard = limit.rlim_max;
  }
  facts.descriptors_kernel_max = sysfs_number(top_of(root) / "proc/sys/fs/nr_open").value_or(0);
  const auto capabilities =
      std::strtoull(proc_field(top_of(root) / "proc/self/status", "CapEff").c_str(), nullptr, 16);
  constexpr unsigned ipc_lock = 14;
  constexpr unsigned sys_resource = 24;
  facts.may_lock_memory = (capabilities >> ipc_lock & 1U) != 0;
  facts.may_raise_limits = (capabilities >> sys_resource & 1U) != 0;
  return facts;
}

log_facts read_log_facts(const std::string& file) {
  log_facts facts;
  facts.file = file;
  if (file.empty())
    return facts;
  facts.directory = directory_of(file);
  struct stat about {};
  facts.exists = ::stat(file.c_str(), &about) == 0;
  facts.is_file = facts.exists && !S_ISDIR(about.st_mode);
  facts.is_pipe = facts.exists && S_ISFIFO(about.st_mode);
  facts.writable =
      facts.exists ? ::access(file.c_str(), W_OK) == 0 : ::access(facts.directory.c_str(), W_OK | X_OK) == 0;
  if (!facts.writable)
    facts.problem = std::strerror(errno);
  facts.free_bytes = room_in(facts.directory);
  return facts;
}

port_facts read_port_facts(const std::string& root, const std::string& host, std::uint16_t port) {
  port_facts facts;
  facts.port = port;
  if (const auto from = sysfs_number(top_of(root) / "proc/sys/net/ipv4/ip_unprivileged_port_start"))
    facts.unprivileged_from = static_cast<int>(*from);
  const bool is_ipv6 = host.find(':') != std::string::npos;
  const int socket = ::socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) {
    facts.error = errno;
    return facts;
  }
  // As the server's: connections that ended a moment ago do not count.
  const int yes = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  int rc = 0;
  if (is_ipv6) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    ::inet_pton(AF_INET6, host.c_str(), &address.sin6_addr);
    rc = ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } else {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    ::inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    rc = ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  // Binding beside a socket that listens fails; beside one that is only bound, listening does.
  if (rc == 0)
    rc = ::listen(socket, 1);
  facts.error = rc == 0 ? 0 : errno;
  ::close(socket);
  return facts;
}

void gather_device(const std::string& root, doctor_drive_facts& drive) {
  if (!read_device_facts(root, drive.where.number, drive.device, drive.no_facts))
    return;
  std::error_code error;
  const auto here = fs::canonical(top_of(root) / "sys/dev/block" / to_text(drive.where.number), error);
  const fs::path queue = (drive.device.is_partition ? here.parent_path() : here) / "queue";
  drive.atomic_unit_max_bytes = sysfs_number(queue / "atomic_write_unit_max_bytes");
  drive.max_hw_sectors_kb = sysfs_number(queue / "max_hw_sectors_kb");
  drive.requests_max = sysfs_number(queue / "nr_requests");
  if (const auto fua = sysfs_number(queue / "fua"))
    drive.fua = *fua != 0;
}

void gather_drive(const std::string& root, const server_config& config, doctor_drive_facts& drive) {
  drive.where = look_at_path(drive.path);
  if (drive.where.kind == path_kind::block_device)
    gather_device(root, drive);
  if (config.storage.mode != storage_mode::file)
    return;
  drive.directory = directory_of(drive.path);
  drive.directory_writable = ::access(drive.directory.c_str(), W_OK | X_OK) == 0;
  drive.file_system =
      file_system_of(drive.where.kind == path_kind::regular_file ? drive.path : drive.directory);
  drive.room_bytes = room_in(drive.directory);
  struct stat about {};
  if (::stat(drive.directory.c_str(), &about) == 0)
    drive.file_system_number = about.st_dev;
  if (drive.where.kind == path_kind::regular_file && ::stat(drive.path.c_str(), &about) == 0)
    drive.allocated_bytes = static_cast<std::uint64_t>(about.st_blocks) * 512;
}

doctor_facts gather_facts(const gather_order& order, config_result loaded, bool key_from_environment) {
  doctor_facts facts;
  facts.config_path = order.config_path;
  facts.loaded = std::move(loaded);
  facts.key_from_environment = key_from_environment;
  facts.probed = order.probe;
  facts.kernel = kernel_release();
  facts.ring = read_ring_facts(order.root);
  facts.clock = read_clock_facts();
  if (!facts.loaded.ok())
    return facts;

  server_config& config = facts.loaded.config;
  if (config.network.auth_key) {
    std::bitset<256> seen;
    for (const std::byte each : config.network.auth_key->secret_bytes())
      seen.set(std::to_integer<std::size_t>(each));
    facts.key_different_bytes = static_cast<std::uint32_t>(seen.count());
  }
  gather_memory(order.root, facts);
  facts.limits = read_limit_facts(order.root);
  gather_files(order, config, facts);
  if (!config.rdma.device.empty())
    facts.nics.push_back(read_nic_facts(order.root, config.rdma.device));
  for (const auto& device : config.rdma.devices)
    facts.nics.push_back(read_nic_facts(order.root, device));
  if (!order.probe)
    return facts;
  gather_ports(order, config, facts);
  probe_drives(facts, order.root);
  find_holders(order, facts);
  if (!order.peers.empty())
    facts.peers = ask_peers(order.peers, *config.network.auth_key, config.network.previous_key);
  return facts;
}

} // namespace memkv::cli
