// What is known about one port of one RDMA device, and how paths through it are set up.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace memkv::verbs {

using gid = std::array<std::uint8_t, 16>;

enum class link_layer : std::uint8_t { infiniband, ethernet };
enum class gid_kind : std::uint8_t { infiniband, roce_v1, roce_v2 };

struct gid_entry {
  std::uint32_t index = 0; // as the driver counts; entries may be missing
  gid_kind kind = gid_kind::infiniband;
  gid value{};
};

/// Limits are those of the device; a fabric refuses what is beyond them.
struct device_facts {
  std::string name; // "mlx5_0"
  std::uint8_t port = 1;
  bool port_active = false;
  link_layer layer = link_layer::ethernet;
  std::uint16_t lid = 0;              // 0 on Ethernet
  std::uint32_t mtu_bytes_active = 0; // 256, 512, 1024, 2048 or 4096
  std::vector<gid_entry> gids;
  bool dc = false;                // can make DC initiators and targets
  std::uint32_t dc_streams = 0;   // of one initiator; 0: the device has none
  bool dma_buf = false;           // can register device memory by a dma-buf descriptor
  std::uint32_t sends_max = 0;    // work requests of one send queue
  std::uint32_t receives_max = 0; // of one receive queue
  std::uint32_t segments_max = 0; // local ranges of one work request
  std::uint32_t inline_bytes_max = 0;
  std::uint32_t reads_max = 0;        // RDMA READs in flight that one queue pair may start
  std::uint32_t reads_served_max = 0; // and answer
  std::uint32_t transfer_bytes_max = 0;
  std::uint32_t completions_max = 0; // of one completion queue
};

/// As in the configuration under rdma; what is not set is chosen.
struct path_wishes {
  std::optional<std::uint32_t> gid_index = {};
  std::optional<std::uint32_t> mtu_bytes = {};
  std::optional<std::uint8_t> traffic_class = {};
  std::optional<std::uint8_t> service_level = {};
};

/// The same for all queue pairs of a fabric: chosen once, from the configuration and the facts.
struct path_options {
  std::uint32_t gid_index = 0;
  std::uint32_t mtu_bytes = 1024; // not above the port's
  std::uint8_t traffic_class = 0; // four times the DSCP
  std::uint8_t service_level = 0; // 0 to 15
  std::uint8_t hop_limit = 64;
  std::uint32_t retry_ms = 2000;     // without an acknowledgement: then retry_exceeded. Rounded up by devices
  std::uint8_t receiver_retries = 7; // 0 to 6; 7: for ever, as the specification has it
};

} // namespace memkv::verbs
