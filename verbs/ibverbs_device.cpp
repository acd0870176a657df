#include "verbs/ibverbs_device.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace memkv::verbs {
namespace {

constexpr std::uint8_t roce_traffic_class = 26 * 4;
constexpr std::uint8_t roce_service_level = 3;
constexpr std::size_t gids_max = 1024;

struct device_list {
  const ibverbs_library& library;
  int count = 0;
  ibv_device** devices = nullptr;
  explicit device_list(const ibverbs_library& from) : library(from), devices(from.get_device_list(&count)) {}
  ~device_list() {
    if (devices != nullptr) {
      library.free_device_list(devices);
    }
  }
  device_list(const device_list&) = delete;
  device_list& operator=(const device_list&) = delete;
};

status none_found() {
  return {errc::not_found,
          "This machine has no RDMA device: check with rdma link, and that the driver and the "
          "module ib_uverbs are loaded."};
}

std::uint32_t mtu_bytes(ibv_mtu mtu) {
  return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128U << mtu : 0;
}

gid_kind kind_of(std::uint32_t type) {
  switch (type) {
  case IBV_GID_TYPE_ROCE_V2:
    return gid_kind::roce_v2;
  case IBV_GID_TYPE_ROCE_V1:
    return gid_kind::roce_v1;
  default:
    return gid_kind::infiniband;
  }
}

status read_facts(const ibverbs_library& library, ibv_device* device, ibv_context* context, std::uint8_t port,
                  device_facts& facts) {
  ibv_device_attr limits{};
  // Larger than what older libraries fill in, and zero where they do not.
  ibv_port_attr state{};
  if (library.query_device(context, &limits) != 0) {
    return {errc::device_failed, facts.name + " does not tell its limits: look into the kernel's log."};
  }
  if (port == 0 || port > limits.phys_port_cnt ||
      library.query_port(context, port, reinterpret_cast<_compat_ibv_port_attr*>(&state)) != 0) {
    return {errc::not_found, facts.name + " has no port " + std::to_string(port) + "."};
  }
  const auto positive = [](int value) { return static_cast<std::uint32_t>(std::max(value, 0)); };
  facts.port = port;
  facts.port_active = state.state == IBV_PORT_ACTIVE;
  facts.layer = state.link_layer == IBV_LINK_LAYER_ETHERNET ? link_layer::ethernet : link_layer::infiniband;
  facts.lid = state.lid;
  facts.mtu_bytes_active = mtu_bytes(state.active_mtu);
  facts.transfer_bytes_max = state.max_msg_sz;
  facts.sends_max = positive(limits.max_qp_wr);
  facts.receives_max = positive(limits.max_qp_wr);
  facts.segments_max = positive(limits.max_sge);
  facts.reads_max = positive(limits.max_qp_init_rd_atom);
  facts.reads_served_max = positive(limits.max_qp_rd_atom);
  facts.completions_max = positive(limits.max_cqe);
  facts.inline_bytes_max = 1024; // no driver tells; queue pairs that want more than they get are refused
  facts.dma_buf = library.reg_dmabuf_mr != nullptr;
  facts.dc = library.mlx5_is_supported != nullptr && library.mlx5_is_supported(device);
  std::vector<ibv_gid_entry> entries(gids_max);
  const ssize_t count =
      library.query_gid_table(context, entries.data(), entries.size(), 0, sizeof(ibv_gid_entry));
  for (ssize_t index = 0; index < count; ++index) {
    const ibv_gid_entry& one = entries[static_cast<std::size_t>(index)];
    if (one.port_num != port) {
      continue;
    }
    gid_entry entry{one.gid_index, kind_of(one.gid_type), {}};
    std::memcpy(entry.value.data(), one.gid.raw, entry.value.size());
    facts.gids.push_back(entry);
  }
  return {};
}

bool is_ipv4(const gid& value) {
  return std::all_of(value.begin(), value.begin() + 10, [](std::uint8_t one) { return one == 0; }) &&
         value[10] == 0xFF && value[11] == 0xFF;
}

bool is_link_local(const gid& value) {
  return value[0] == 0xFE && (value[1] & 0xC0U) == 0x80;
}

/// Smaller is better.
int rank_of(const gid_entry& entry) {
  if (entry.kind != gid_kind::roce_v2) {
    return 3;
  }
  return is_ipv4(entry.value) ? 0 : (is_link_local(entry.value) ? 2 : 1);
}

bool is_mtu(std::uint32_t bytes) {
  return bytes >= 256 && bytes <= 4096 && (bytes & (bytes - 1)) == 0;
}

} // namespace

std::string to_text(const gid& value) {
  char text[64];
  if (is_ipv4(value)) {
    std::snprintf(text, sizeof text, "::ffff:%u.%u.%u.%u", value[12], value[13], value[14], value[15]);
    return text;
  }
  std::string found;
  for (std::size_t index = 0; index < value.size(); index += 2) {
    std::snprintf(text, sizeof text, "%s%x", index == 0 ? "" : ":", value[index] << 8U | value[index + 1]);
    found += text;
  }
  return found;
}

status list_devices(const ibverbs_library& library, std::vector<std::string>& out) {
  const device_list all(library);
  if (all.devices == nullptr || all.count <= 0) {
    return none_found();
  }
  for (int index = 0; index < all.count; ++index) {
    out.emplace_back(library.get_device_name(all.devices[index]));
  }
  return {};
}

status open_device(const ibverbs_library& library, const std::string& name, std::uint8_t port,
                   ibv_context*& context, device_facts& facts) {
  const device_list all(library);
  if (all.devices == nullptr || all.count <= 0) {
    return none_found();
  }
  std::string names;
  status last;
  ibv_context* second_best = nullptr;
  device_facts second_facts;
  for (int index = 0; index < all.count; ++index) {
    device_facts found;
    found.name = library.get_device_name(all.devices[index]);
    names += (names.empty() ? "" : ", ") + found.name;
    if (!name.empty() && name != found.name) {
      continue;
    }
    ibv_context* const opened = library.open_device(all.devices[index]);
    if (opened == nullptr) {
      last = {errc::device_failed, found.name + " cannot be opened: " + std::strerror(errno) +
                                       ". The process needs access to /dev/infiniband/uverbs*."};
      continue;
    }
    last = read_facts(library, all.devices[index], opened, port, found);
    const bool wanted = last.ok() && (found.port_active || !name.empty());
    if (wanted || (last.ok() && second_best == nullptr)) {
      (wanted ? context : second_best) = opened;
      (wanted ? facts : second_facts) = std::move(found);
    } else {
      library.close_device(opened);
    }
    if (wanted) {
      if (second_best != nullptr) {
        library.close_device(second_best);
      }
      return {};
    }
  }
  if (second_best != nullptr) {
    context = second_best;
    facts = std::move(second_facts);
    return {};
  }
  if (!last.ok()) {
    return last;
  }
  return {errc::not_found, "There is no RDMA device " + name + "; this machine has " + names + "."};
}

status choose_path(const device_facts& facts, const path_wishes& wishes, path_options& out,
                   std::vector<std::string>& warnings) {
  const std::string where = facts.name + " port " + std::to_string(facts.port);
  if (!facts.port_active) {
    return {errc::device_failed, where + " is not active: check cable and link (rdma link)."};
  }
  if (facts.gids.empty()) {
    return {errc::device_failed, where + " has no address (GID): give its network interface an IP address."};
  }
  const gid_entry* chosen = nullptr;
  if (wishes.gid_index) {
    const auto found = std::find_if(facts.gids.begin(), facts.gids.end(),
                                    [&](const gid_entry& one) { return one.index == *wishes.gid_index; });
    if (found == facts.gids.end()) {
      return {errc::not_found, where + " has no GID with index " + std::to_string(*wishes.gid_index) +
                                   ": see /sys/class/infiniband/" + facts.name + "/ports."};
    }
    chosen = &*found;
  } else if (facts.layer == link_layer::infiniband) {
    chosen = &facts.gids.front();
  } else {
    chosen =
        &*std::min_element(facts.gids.begin(), facts.gids.end(), [](const auto& left, const auto& right) {
          return rank_of(left) < rank_of(right);
        });
  }
  out.gid_index = chosen->index;
  if (facts.layer == link_layer::ethernet && chosen->kind != gid_kind::roce_v2) {
    warnings.push_back(where + " uses RoCE v1 at " + to_text(chosen->value) +
                       ", which no router forwards; give its network interface an IP address for RoCE v2.");
  }
  if (!is_mtu(facts.mtu_bytes_active)) {
    return {errc::device_failed, where + " does not tell its MTU: look into the kernel's log."};
  }
  out.mtu_bytes = facts.mtu_bytes_active;
  if (wishes.mtu_bytes) {
    if (!is_mtu(*wishes.mtu_bytes)) {
      return {errc::invalid_argument, "A path MTU is 256, 512, 1024, 2048 or 4096 bytes."};
    }
    if (*wishes.mtu_bytes > facts.mtu_bytes_active) {
      warnings.push_back("The path MTU of " + std::to_string(*wishes.mtu_bytes) + " bytes is more than " +
                         where + " has; " + std::to_string(facts.mtu_bytes_active) +
                         " is used. Raise the MTU of the network interface (9000 for 4096) on each hop.");
    }
    out.mtu_bytes = std::min(*wishes.mtu_bytes, facts.mtu_bytes_active);
  }
  const bool ethernet = facts.layer == link_layer::ethernet;
  out.traffic_class = wishes.traffic_class.value_or(ethernet ? roce_traffic_class : 0);
  out.service_level = wishes.service_level.value_or(ethernet ? roce_service_level : 0);
  if (out.service_level > 15) {
    return {errc::invalid_argument, "A service level is 0 to 15."};
  }
  return {};
}

} // namespace memkv::verbs
