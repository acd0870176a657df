// What a configuration must be as a whole, beyond what each key must be.
#include "cli/config.hpp"
#include "cli/config_values.hpp"

#include <set>
#include <string>

namespace memkv::cli {

namespace {

config_problem about(const std::string& key, const std::string& sentence) {
  return {0, key, key + " " + sentence};
}

} // namespace

config_problem server_config::validate() const {
  if (!network.auth_key)
    return about("network.auth_key",
                 "is missing: set MEMKV_AUTH_KEY or this key to 64 hexadecimal digits, made with "
                 "openssl rand -hex 32");
  if (network.tls_cert.empty() != network.tls_key.empty())
    return about(network.tls_cert.empty() ? "network.tls_key" : "network.tls_cert",
                 "is set alone: set network.tls_cert and network.tls_key, or neither");
  if (network.max_connections_per_address > network.max_connections)
    return about("network.max_connections_per_address", "is larger than network.max_connections (" +
                                                            std::to_string(network.max_connections) +
                                                            "): lower it, or raise the other");
  if (memory.max_bytes / memory.block_bytes < 8)
    return about("memory.max_size", "is " + format_size(memory.max_bytes) +
                                        ", less than eight times memory.block_size (" +
                                        format_size(memory.block_bytes) + "): raise it");
  if (!rdma.device.empty() && !rdma.devices.empty())
    return about("rdma.devices", "stands beside rdma.device: keep one of them");
  if (rdma.devices.size() * rdma.num_worker_threads.value_or(1) > rdma_threads_max)
    return about("rdma.num_worker_threads",
                 "times the RDMA devices is more than " + std::to_string(rdma_threads_max) + ": lower it");
  if (storage.mode == storage_mode::unset)
    return about("storage.mode", "is missing: set it to file, memory or direct");
  if (storage.shard_bytes > storage.block_bytes)
    return about("storage.shard_size", "is larger than storage.block_size (" +
                                           format_size(storage.block_bytes) +
                                           "): lower it, or raise the other");
  if (storage.eviction_low_percent >= storage.eviction_high_percent)
    return about("storage.eviction.low_watermark", "must be below storage.eviction.high_watermark (" +
                                                       std::to_string(storage.eviction_high_percent) + ")");
  if (storage.sync == sync_mode::always && storage.mode == storage_mode::memory)
    return about("storage.sync", "cannot be always in memory mode: remove it, or set storage.mode to file");
  if (storage.sync == sync_mode::never && storage.mode == storage_mode::direct)
    return about("storage.sync", "is never, but raw drives always sync: remove it");
  if (storage.drives.empty())
    return about("storage.drives",
                 "is missing: name at least one drive, such as [{ media: /var/lib/memkv/drive0, "
                 "max_size: 100 GiB }]");
  std::set<std::string> media;
  for (std::size_t i = 0; i < storage.drives.size(); ++i) {
    const auto& drive = storage.drives[i];
    const std::string path = "storage.drives[" + std::to_string(i) + "].";
    if (drive.media.empty())
      return about(path + "media", "is missing: name the drive");
    if (storage.mode == storage_mode::memory && drive.media != "memory")
      return about(path + "media", "must be memory in memory mode, not \"" + drive.media + "\"");
    if (storage.mode != storage_mode::memory && drive.media == "memory")
      return about(path + "media", "is memory: set storage.mode to memory, or name a path");
    if (storage.mode != storage_mode::memory && !media.insert(drive.media).second)
      return about(path + "media",
                   "names \"" + drive.media + "\", as an earlier drive does: name each drive once");
    if (storage.mode == storage_mode::direct && drive.max_size_bytes != 0)
      return about(path + "max_size", "is for files and memory: remove it, a raw drive is used whole");
    if (storage.mode != storage_mode::direct && drive.max_size_bytes == 0)
      return about(path + "max_size", "is missing: give the drive a size, such as 100 GiB");
  }
  return {};
}

} // namespace memkv::cli
