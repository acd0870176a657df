// What sysfs tells of an RDMA device. Without verbs that is all; what only verbs tell stays open.
#include "cli/doctor_gather.hpp"
#include "cli/doctor_sysfs.hpp"

#include <algorithm>

namespace memkv::cli {

nic_facts read_nic_facts(const std::string& root, const std::string& device) {
  namespace fs = std::filesystem;
  nic_facts facts;
  facts.device = device;
  const fs::path all = fs::path(root.empty() ? "/" : root) / "sys/class/infiniband";
  facts.others = sysfs_names(all);
  facts.present = std::ranges::find(facts.others, device) != facts.others.end();
  if (!facts.present)
    return facts;
  const fs::path here = all / device;
  std::error_code error;
  facts.driver = fs::read_symlink(here / "device/driver", error).filename().string();
  // The first port that is up, else the first one.
  const auto ports = sysfs_names(here / "ports");
  for (const auto& name : ports) {
    const bool up = sysfs_line(here / "ports" / name / "state").find("ACTIVE") != std::string::npos;
    if (name == ports.front() || up)
      facts.port = static_cast<std::uint32_t>(std::strtoul(name.c_str(), nullptr, 10));
    if (up)
      break;
  }
  const fs::path port = here / "ports" / std::to_string(facts.port);
  facts.state = sysfs_line(port / "state");
  facts.rate = sysfs_line(port / "rate");
  facts.link_layer = sysfs_line(port / "link_layer");
  for (const auto& name : sysfs_names(here / "device/net")) {
    // Two ports of one function have an interface each.
    const auto of_port = sysfs_number(here / "device/net" / name / "dev_port");
    if (!facts.net_name.empty() && of_port != facts.port - 1)
      continue;
    facts.net_name = name;
    facts.net_mtu = static_cast<std::uint32_t>(sysfs_number(here / "device/net" / name / "mtu").value_or(0));
  }
  for (const auto& name : sysfs_names(port / "gids")) {
    const auto address = sysfs_line(port / "gids" / name);
    if (address.empty() || address.find_first_not_of("0:") == std::string::npos ||
        address == "fe80:0000:0000:0000:0000:0000:0000:0000")
      continue;
    facts.gids.push_back({static_cast<std::uint32_t>(std::strtoul(name.c_str(), nullptr, 10)), address,
                          sysfs_line(port / "gid_attrs/types" / name)});
  }
  std::ranges::sort(facts.gids, {}, &nic_facts::gid::index);
  return facts;
}

} // namespace memkv::cli
