// Finds out what memkv doctor judges: sysfs and /proc below a root that tests may set, limits of this
// process, and, when probing, drives, ports and other servers.
//
// Threading: one thread; probing forks. Ownership: values. Errors: in the facts. Does not: write anything,
// or judge.
#pragma once

#include "cli/doctor_facts.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace memkv::cli {

struct gather_order {
  std::string root;               // where sys/ and proc/ are; empty: the system's
  std::string config_path;        // as the user named it
  std::string log_file;           // empty: standard error
  std::vector<std::string> peers; // servers whose clocks count; may be empty
  bool probe = false;             // open drives, bind ports, ask peers
};

/// `loaded` is what became of the configuration; when it is not ok, only what needs none is gathered.
[[nodiscard]] doctor_facts gather_facts(const gather_order& order, config_result loaded,
                                        bool key_from_environment);

// The parts, for tests.

/// Everything but what probing tells.
void gather_drive(const std::string& root, const server_config& config, doctor_drive_facts& drive);
/// The part of it that is about the block device `where` names.
void gather_device(const std::string& root, doctor_drive_facts& drive);
[[nodiscard]] ring_facts read_ring_facts(const std::string& root);
[[nodiscard]] limit_facts read_limit_facts(const std::string& root);
[[nodiscard]] log_facts read_log_facts(const std::string& file);
/// Binds the port and gives it back.
[[nodiscard]] port_facts read_port_facts(const std::string& root, const std::string& host,
                                         std::uint16_t port);
[[nodiscard]] nic_facts read_nic_facts(const std::string& root, const std::string& device);

/// Who has a file open, by /proc/PID/fd: `link` is where such a descriptor points to.
[[nodiscard]] holder_facts find_holder(const std::string& root, const std::string& link,
                                       const std::string& config_path);
/// Who listens on a port, by /proc/net/tcp and tcp6.
[[nodiscard]] holder_facts find_listener(const std::string& root, std::uint16_t port,
                                         const std::string& config_path);

} // namespace memkv::cli
