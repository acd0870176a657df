// What memkv doctor knows of a machine and a configuration before it judges: plain values, so that every
// verdict can be tried with machines that are not there.
//
// Threading: plain data. Ownership: values. Errors: a fact that could not be had is empty, -1, or says why.
// Not here: gathering (doctor_gather.hpp) and judging (doctor_judge.hpp).
#pragma once

#include "cli/config.hpp"
#include "cli/device_facts.hpp"
#include "cli/machine.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace memkv::cli {

/// Who has a drive or a port. pid 0: nobody was found, which proves nothing without root.
struct holder_facts {
  int pid = 0;
  std::string name;         // the program's
  bool this_server = false; // memkv start with the configuration that is looked at
};

struct ring_facts {
  int error = 0;     // errno of io_uring_setup; 0: it works
  int disabled = -1; // kernel.io_uring_disabled; -1: no such setting
  int seccomp = -1;  // 0: none, 2: a filter; -1: unknown
};

struct limit_facts {
  std::uint64_t memlock_bytes = 0;                        // soft; RLIM_INFINITY: none
  std::uint64_t descriptors_soft = 0;                     // RLIMIT_NOFILE
  std::uint64_t descriptors_hard = 0;                     // RLIMIT_NOFILE
  std::uint64_t descriptors_kernel_max = 0;               // fs.nr_open; 0: unknown
  bool may_lock_memory = false, may_raise_limits = false; // CAP_IPC_LOCK, CAP_SYS_RESOURCE
};

struct port_facts {
  std::uint16_t port = 0;
  bool admin = false;         // the one after the data port
  int error = 0;              // errno of an attempt to bind it; 0: free
  int unprivileged_from = -1; // net.ipv4.ip_unprivileged_port_start; -1: unknown
  holder_facts holder;        // when it is taken
};

struct tls_facts {
  bool configured = false;
  std::string cert_problem, key_problem; // why one cannot be read: "what: what to do"
  bool matches = false;                  // the key is the certificate's
  std::int64_t not_before_s = 0, not_after_s = 0;
  std::string name;           // the certificate's subject
  std::uint32_t key_mode = 0; // permissions of the key's file
};

/// The clock of this machine, and now.
struct clock_facts {
  std::string problem;
  bool synchronised = false;
  std::uint64_t error_bound_us = 0;
  std::int64_t now_s = 0;
};

/// What a server said of its time.
struct peer_facts {
  enum class outcome : std::uint8_t {
    answered,
    unreachable, // no connection
    wrong_key,   // took the connection, refused the greeting, and the clock does not explain it
    silent,      // took the connection and said nothing, whatever time we named
    timed_out,
  };
  std::string server;
  bool previous_key = false; // it answered to network.previous_key only
  outcome what = outcome::timed_out;
  std::string problem;              // unreachable: why
  std::int64_t ahead_ns = 0;        // answered: its clock minus ours
  std::uint64_t uncertainty_ns = 0; // half of the round trip
};

struct nic_facts {
  std::string device;
  bool present = false;
  std::vector<std::string> others; // that are there
  std::string driver;              // "mlx5_core"
  std::uint32_t port = 1;
  std::string state, rate, link_layer; // "4: ACTIVE", "100 Gb/sec (4X EDR)", "Ethernet"
  std::uint32_t net_mtu = 0;           // of the network interface of a RoCE port; 0: unknown
  std::string net_name;
  struct gid {
    std::uint32_t index = 0;
    std::string address, type; // "RoCE v2"
  };
  std::vector<gid> gids; // that are set
};

struct log_facts {
  std::string file;   // empty: standard error
  bool stuck = false; // not even a look at it came back
  bool exists = false, is_file = false, writable = false;
  std::string directory;
  std::string problem; // errno in words, when not writable
  std::uint64_t free_bytes = 0;
  bool is_pipe = false;
};

/// What was found out by opening a drive and reading from it.
struct probe_facts {
  bool done = false, timed_out = false;
  std::string problem;             // why it could not be opened or read
  bool in_use = false;             // that is why
  bool direct = false;             // reads past the page cache work
  std::uint32_t depth_wanted = 0;  // requests we kept in flight
  std::uint32_t depth_reached = 0; // requests handed to the kernel and not yet back, at most
  std::uint32_t device_depth = 0;  // requests the kernel counted at the device; 0: it does not count
  std::uint64_t reads = 0, read_errors = 0, probe_ns = 0, median_ns = 0, p99_ns = 0;
  std::uint32_t nvme_atomic_bytes = 0; // from the controller (AWUPF); 0: not known

  // What lies on it: the numbers of engine::content_kind and errc.
  std::uint32_t content = 0, fits = 0;
  std::string content_problem; // why it is no drive of ours
  std::string set_id;          // 32 digits
  std::uint32_t drive_index = 0, drive_count = 0, failure_count = 0;
  bool blacklisted = false, clean = false, one_copy = false;
  std::uint64_t unit_bytes = 0, extent_bytes = 0;
};

struct doctor_drive_facts {
  std::string path;
  bool stuck = false; // not even a look at the path came back
  path_facts where;
  device_facts device; // of a block device
  std::string no_facts;
  holder_facts holder; // when somebody else has it
  probe_facts probe;   // when the drives are probed

  // Of the block device's queue; nothing: the kernel does not say.
  std::optional<std::uint64_t> atomic_unit_max_bytes, max_hw_sectors_kb, requests_max;
  std::optional<bool> fua;

  // Of a file, or of the directory it would be made in.
  std::uint64_t allocated_bytes = 0, room_bytes = 0, wanted_bytes = 0;
  std::uint64_t file_system_number = 0; // the same for all drives that share the room
  bool directory_writable = false;
  std::string directory, file_system; // "tmpfs"; empty: none that matters
};

struct doctor_facts {
  std::string config_path;
  config_result loaded;
  bool key_from_environment = false;
  std::uint32_t key_different_bytes = 0; // of 32

  bool probed = false; // drives, ports and peers were asked too: memkv doctor, not memkv start
  std::string kernel;
  ring_facts ring;
  bool memory_known = false;
  memory_facts memory;
  std::uint64_t pool_pages_free = 0, pool_pages = 0; // hugepages of 2 MiB, the size the pool uses
  limit_facts limits;
  std::vector<port_facts> ports;
  std::vector<doctor_drive_facts> drives;
  tls_facts tls;
  std::vector<nic_facts> nics;
  clock_facts clock;
  std::vector<peer_facts> peers;
  log_facts log;
};

} // namespace memkv::cli
