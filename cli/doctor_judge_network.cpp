// RDMA devices, as far as sysfs knows them.
#include "cli/doctor_judge.hpp"

#include <algorithm>
#include <array>

namespace memkv::cli {

namespace {

using enum check_state;

constexpr std::uint32_t default_mtu = 4096;
// What the kernel keeps free in a frame of Ethernet for the headers of RoCE when it derives an MTU of RDMA.
constexpr std::uint32_t roce_header_bytes = 96;

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names)
    text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::uint32_t roce_mtu(std::uint32_t net_mtu) {
  for (const std::uint32_t each : {4096U, 2048U, 1024U, 512U, 256U})
    if (net_mtu >= each + roce_header_bytes)
      return each;
  return 0;
}

finding judge_link(const nic_facts& nic) {
  const std::string where = "port " + std::to_string(nic.port);
  if (nic.state.find("ACTIVE") == std::string::npos)
    return {warning, "rdma.link", nic.device, where + " is not up (" + nic.state + ")",
            nic.net_name.empty() ? "check the cable and the subnet manager"
                                 : "ip link set " + nic.net_name + " up, and check the cable"};
  return {ok, "rdma.link", nic.device, where + " is up, " + nic.rate + ", " + nic.link_layer, ""};
}

finding judge_mtu(const nic_facts& nic, std::uint32_t wanted) {
  if (nic.link_layer != "Ethernet")
    return {skipped, "rdma.mtu", nic.device,
            "the MTU of an InfiniBand port is not in sysfs; compare rdma.mtu with active_mtu of ibv_devinfo",
            ""};
  if (nic.net_mtu == 0)
    return {skipped, "rdma.mtu", nic.device, "the network interface of the port was not found", ""};
  const std::uint32_t active = roce_mtu(nic.net_mtu);
  const std::string found = nic.net_name + " has an MTU of " + std::to_string(nic.net_mtu) +
                            ", which lets RDMA have " + std::to_string(active) + "; rdma.mtu is " +
                            std::to_string(wanted);
  if (active < wanted)
    return {warning, "rdma.mtu", nic.device, found,
            "ip link set " + nic.net_name + " mtu " +
                std::to_string(wanted == 4096 ? 9000 : wanted + roce_header_bytes) + ", or lower rdma.mtu"};
  return {ok, "rdma.mtu", nic.device, found, ""};
}

finding judge_gid(const nic_facts& nic, const std::optional<std::uint32_t>& wanted) {
  if (nic.link_layer != "Ethernet")
    return {skipped, "rdma.gid", nic.device, "only RoCE ports have types of addresses", ""};
  const auto is_v2 = [](const nic_facts::gid& each) { return each.type == "RoCE v2"; };
  const auto v2 = std::ranges::find_if(nic.gids, is_v2);
  const std::string use = v2 == nic.gids.end() ? "give " + nic.net_name + " an IP address"
                                               : "set rdma.gid_index to " + std::to_string(v2->index);
  if (!wanted) {
    if (v2 == nic.gids.end())
      return {warning, "rdma.gid", nic.device, "no address is of RoCE v2", use};
    return {ok, "rdma.gid", nic.device,
            "rdma.gid_index is not set; the first of RoCE v2 is " + std::to_string(v2->index) + " (" +
                v2->address + ")",
            ""};
  }
  const auto chosen =
      std::ranges::find_if(nic.gids, [&](const nic_facts::gid& each) { return each.index == *wanted; });
  const std::string index = "rdma.gid_index " + std::to_string(*wanted);
  if (chosen == nic.gids.end())
    return {warning, "rdma.gid", nic.device, index + " is empty", use};
  if (!is_v2(*chosen))
    return {warning, "rdma.gid", nic.device,
            index + " is " + (chosen->type.empty() ? "of an unknown type" : chosen->type) + ", not RoCE v2",
            use};
  return {ok, "rdma.gid", nic.device, index + " is RoCE v2 (" + chosen->address + ")", ""};
}

finding judge_dc(const nic_facts& nic) {
  if (nic.driver == "mlx5_core")
    return {
        skipped, "rdma.dc", nic.device,
        "driver mlx5_core: its NICs have DC from ConnectX-4 on; what is in use is in the status of a server "
        "that runs",
        ""};
  return {warning, "rdma.dc", nic.device,
          "driver " + (nic.driver.empty() ? "unknown" : nic.driver) + ", and DC needs mlx5_core",
          "expect RC, one connection a client"};
}

} // namespace

void judge_network(const doctor_facts& facts, std::vector<finding>& out) {
  const auto& rdma = facts.loaded.config.rdma;
  if (facts.nics.empty())
    out.push_back({skipped, "rdma.device", "", "none is configured: clients use TCP", ""});
  for (const auto& nic : facts.nics) {
    if (!nic.present) {
      // A start goes on without it.
      out.push_back({warning, "rdma.device", nic.device,
                     nic.others.empty() ? "this machine has no RDMA device, so clients use TCP"
                                        : "is not there, so clients use TCP",
                     nic.others.empty() ? "remove rdma.device, or load the driver of the NIC"
                                        : "name one of " + joined(nic.others) + " in rdma.device"});
      continue;
    }
    out.push_back({ok, "rdma.device", nic.device, "is there, driver " + nic.driver, ""});
    out.push_back(judge_link(nic));
    out.push_back(judge_mtu(nic, rdma.mtu.value_or(default_mtu)));
    out.push_back(judge_gid(nic, rdma.gid_index));
    out.push_back(judge_dc(nic));
  }
  if (rdma.traffic_class && *rdma.traffic_class % 4 != 0)
    out.push_back({warning, "rdma.traffic_class", "",
                   "rdma.traffic_class is " + std::to_string(*rdma.traffic_class) +
                       ", and its two low bits are not part of a DSCP",
                   "set it to four times the DSCP, such as 104 for 26"});
  else if (rdma.traffic_class)
    out.push_back(
        {ok, "rdma.traffic_class", "",
         std::to_string(*rdma.traffic_class) + " is DSCP " + std::to_string(*rdma.traffic_class / 4), ""});
  const bool roce =
      std::ranges::any_of(facts.nics, [](const nic_facts& nic) { return nic.link_layer == "Ethernet"; });
  if (rdma.service_level && *rdma.service_level > 7 && roce)
    out.push_back(
        {warning, "rdma.service_level", "",
         "rdma.service_level is " + std::to_string(*rdma.service_level) + ", and Ethernet has 8 priorities",
         "set it to the lossless one, 0 to 7"});
}

} // namespace memkv::cli
