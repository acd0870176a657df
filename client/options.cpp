#include "client/options.hpp"

#include "wire/key_id.hpp"
#include "wire/placement.hpp"
#include "wire/text.hpp"

#include <algorithm>

namespace memkv::client {

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> entries;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view entry = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    entry = wire::trimmed(entry);
    if (!entry.empty()) {
      entries.emplace_back(entry);
    }
  }
  return entries;
}

status validate(options& target) {
  const auto refuse = [](std::string text) { return status{errc::bad_config, std::move(text)}; };
  if (!target.auth_key) {
    return refuse(
        "no auth key: set MEMKV_AUTH_KEY, or auth_key in the file of MEMKV_CONFIG, to the servers' key");
  }
  if (target.transport == transport_choice::rdma && target.rdma_devices.empty()) {
    return refuse("transport rdma needs rdma_devices: name the RDMA devices of this host (rdma link lists "
                  "them), or set transport to auto or tcp");
  }
  if (target.rdma_devices.size() > rdma_devices_max) {
    return refuse("rdma_devices: at most 16");
  }
  if (!wire::ns_name::from_text(target.namespace_name)) {
    return refuse("namespace: at most 32 characters of A-Z a-z 0-9 . _ -");
  }
  if (target.servers.empty()) {
    return refuse(
        "no servers: set MEMKV_SERVERS, or servers in the file of MEMKV_CONFIG, to host:port,host:port");
  }
  if (target.servers.size() > servers_max) {
    return refuse("servers: at most 4096");
  }
  std::vector<std::string> names;
  for (const std::string& text : target.servers) {
    if (text.find("://") != std::string::npos) {
      return refuse("servers: '" + text +
                    "' is a URL; the data port is meant here: host:port, 9900 by default");
    }
    wire::normalised_server normalised = wire::normalise_server(text);
    if (!normalised.ok()) {
      return refuse("servers: '" + text + "': " + normalised.problem);
    }
    names.push_back(std::move(normalised.name));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  target.servers = std::move(names);
  const auto within = [](std::uint32_t value, std::uint32_t least, std::uint32_t most) {
    return value >= least && value <= most;
  };
  if (!within(target.num_connections, 1, num_connections_max)) {
    return refuse("num_connections must be 1 to 256");
  }
  if (!within(target.connect_timeout_ms, 1, connect_timeout_ms_max)) {
    return refuse("connect_timeout_ms must be 1 to 60000");
  }
  if (!within(target.deadline_ms, 1, deadline_ms_max)) {
    return refuse("deadline_ms must be 1 to 600000");
  }
  if (!within(target.cache_size_mb, 0, cache_size_mb_max)) {
    return refuse("cache_size_mb must be 0 to 1048576");
  }
  if (!within(target.rdma_staging_mb, 2, rdma_staging_mb_max)) {
    return refuse("rdma_staging_mb must be 2 to 65536");
  }
  if (!within(target.rdma_spin_us.value_or(0), 0, rdma_spin_us_max)) {
    return refuse("rdma_spin_us must be 0 to 1000000");
  }
  if (!within(target.busy_retries, 0, busy_retries_max)) {
    return refuse("busy_retries must be 0 to 64");
  }
  if (!within(target.socket_buffer_kb, 0, socket_buffer_kb_max)) {
    return refuse("socket_buffer_kb must be 0 to 65536");
  }
  return {};
}

} // namespace memkv::client
