// What memkv setup decides before it writes anything: whether the drives may be taken, what becomes of them,
// and the configuration that goes with them.
//
// Threading: pure functions. Ownership: values. Errors: one sentence that names the first drive at fault.
// Does not: open, read or write drives.
#pragma once

#include "cli/device_facts.hpp"
#include "engine/drive_content.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::cli {

struct setup_drive {
  std::string path; // as the user wrote it
  path_facts where;
  device_facts facts;            // of a block device
  std::string no_facts;          // why there are none
  engine::drive_content content; // after it was looked at
};

/// Why the devices cannot become a set, whatever lies on them. `force` lets partitioned ones pass.
[[nodiscard]] std::string check_devices(std::span<const setup_drive> drives, bool force);

enum class setup_action : std::uint8_t { refuse, format, keep };

struct setup_decision {
  setup_action action = setup_action::refuse;
  std::string problem; // refuse
};

/// What to do with what lies on the drives. Kept are only drives that form one set in the order given.
[[nodiscard]] setup_decision decide_setup(std::span<const setup_drive> drives, bool force, bool idempotent);

struct setup_sizes {
  std::uint32_t shard_bytes = 0; // storage.shard_size
  std::uint32_t block_bytes = 0; // storage.block_size
};

/// The sizes for --shard-size in KB: the unit of space, and from 1024 on also the largest extent.
[[nodiscard]] std::string choose_sizes(std::uint64_t shard_kb, setup_sizes& out);

/// Half of the available memory in whole chunks of the pool, at least 1 GiB.
[[nodiscard]] std::uint64_t choose_pool_bytes(std::uint64_t available_bytes) noexcept;

struct setup_config {
  std::vector<std::string> media; // absolute paths
  std::string rdma_device;        // empty: the file has no section rdma
  bool rdma_absent = false;       // this machine has no such device: the file says what to do about that
  std::uint64_t pool_bytes = 0;
  setup_sizes sizes;
};

/// The configuration file.
[[nodiscard]] std::string setup_yaml(const setup_config& config);

/// Whether memkv start would read that file as what was meant; if not, why.
[[nodiscard]] std::string check_setup_yaml(const setup_config& config);

} // namespace memkv::cli
