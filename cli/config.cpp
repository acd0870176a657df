#include "cli/config.hpp"

#include "actors/log.hpp" // filter
#include "cli/config_values.hpp"
#include "engine/layout.hpp"
#include "wire/limits.hpp"
#include "wire/regular_file.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <map>

namespace memkv::cli {

namespace {

constexpr std::size_t drives_max = 256;
constexpr std::size_t rdma_devices_max = 64;

// Setters return what the key "must be", or nothing. The caller puts the key in front of it.
using setter = std::string (*)(const config_node&, server_config&);

std::string read_address(const config_node& node, server_config& c) {
  const std::string wrong =
      must_be("a numeric address and a port, such as \"0.0.0.0:9900\" or \"[::]:9900\"", node);
  if (node.what != config_node::kind::scalar)
    return wrong;
  const std::string& text = node.text;
  const auto colon = text.rfind(':');
  if (colon == std::string::npos)
    return wrong;
  std::string host = text.substr(0, colon);
  const auto port = whole_number(std::string_view(text).substr(colon + 1));
  // The administration port is the next one, so the last port cannot be used.
  if (!port || *port > 65'534)
    return wrong;
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    if (::inet_pton(AF_INET6, host.c_str(), bytes.data()) != 1)
      return wrong;
  } else if (::inet_pton(AF_INET, host.c_str(), bytes.data()) != 1) {
    return wrong;
  }
  c.network.host = host;
  c.network.port = static_cast<std::uint16_t>(*port);
  return {};
}

std::string read_level(const config_node& node, server_config& c) {
  std::string text;
  if (auto wrong = read_text(node, text); !wrong.empty())
    return wrong;
  log::filter ignored;
  std::string problem;
  if (!log::filter::parse(text, ignored, problem))
    return "cannot be used because " + problem;
  c.logging.level = text;
  return {};
}

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t tib = 1024 * 1024 * mib;

std::string read_devices(const config_node& node, server_config& c) {
  const std::string wrong = must_be("a list of device names, such as [mlx5_0, mlx5_1]", node);
  if (node.what != config_node::kind::list || node.items.empty() || node.items.size() > rdma_devices_max)
    return wrong;
  for (const auto& item : node.items) {
    std::string name;
    if (!read_text(item, name).empty())
      return wrong;
    if (std::find(c.rdma.devices.begin(), c.rdma.devices.end(), name) != c.rdma.devices.end())
      return "names " + name + " twice: remove one";
    c.rdma.devices.push_back(name);
  }
  return {};
}

struct key_row {
  config_key documented;
  setter set; // null: the reader of drives does it
};

constexpr auto rows = std::to_array<key_row>({
    {{"network.address", "ip:port", "0.0.0.0:9900",
      "Address to listen on. IPv6 in brackets. Port 0 takes any free port and logs it.", ""},
     read_address},
    {{"network.auth_key", "64 hex digits", "required",
      "Secret shared by all servers and clients. `MEMKV_AUTH_KEY` in the environment wins over it.", ""},
     [](const config_node& n, server_config& c) { return read_key(n, c.network.auth_key); }},
    {{"network.previous_key", "64 hex digits", "unset",
      "The key in use before `auth_key`: clients that still have it are served, too, while keys are changed.",
      ""},
     [](const config_node& n, server_config& c) { return read_key(n, c.network.previous_key); }},
    {{"network.require_keyed_digest", "bool", "false",
      "Refuses payloads whose digest is a plain CRC32C instead of a keyed one.", ""},
     [](const config_node& n, server_config& c) { return read_bool(n, c.network.require_keyed_digest); }},
    {{"network.tls_cert", "path", "unset",
      "Certificate of the administration endpoint, with its chain, in PEM form. Only together with "
      "`tls_key`; "
      "both are read again when they change.",
      ""},
     [](const config_node& n, server_config& c) { return read_text(n, c.network.tls_cert); }},
    {{"network.tls_key", "path", "unset", "Private key of that certificate, without a passphrase.", ""},
     [](const config_node& n, server_config& c) { return read_text(n, c.network.tls_key); }},
    {{"network.admin_open", "bool", "false",
      "Lets anyone who reaches the administration endpoint change what it can change, without a signature.",
      ""},
     [](const config_node& n, server_config& c) { return read_bool(n, c.network.admin_open); }},
    {{"network.max_connections", "integer", "16384", "Connections at one time, 1 to 1000000.", ""},
     [](const config_node& n, server_config& c) {
       return read_integer(n, c.network.max_connections, 1, 1'000'000);
     }},
    {{"network.max_connections_per_address", "integer", "1024",
      "Connections from one address at one time, 1 to 1000000.", ""},
     [](const config_node& n, server_config& c) {
       return read_integer(n, c.network.max_connections_per_address, 1, 1'000'000);
     }},
    {{"network.max_value_size", "size", "1 GiB", "Largest value that is accepted, 4 KiB to 1 GiB.", ""},
     [](const config_node& n, server_config& c) {
       return read_size(n, c.network.max_value_bytes, 4 * kib, wire::limits::value_bytes_max);
     }},
    {{"network.reactors", "integer", "0",
      "Threads that serve connections, up to 64. 0: as many as the machine suggests.", ""},
     [](const config_node& n, server_config& c) { return read_integer(n, c.network.reactors, 0, 64); }},
    {{"network.socket_buffer", "auto or size", "auto",
      "Send buffer of a connection, 4 KiB to 64 MiB. `auto`: 256 KiB. The receive buffer is 1 MiB where "
      "net.core.rmem_max allows it, else the kernel's to size.",
      ""},
     [](const config_node& n, server_config& c) {
       if (n.what == config_node::kind::scalar && n.text == "auto") {
         c.network.socket_buffer_bytes = 0;
         return std::string{};
       }
       auto wrong = read_size(n, c.network.socket_buffer_bytes, 4 * kib, 64 * mib);
       return wrong.empty() ? wrong : must_be("auto, or a size from 4 KiB to 64 MiB", n);
     }},
    {{"network.idle_timeout", "time", "300 s",
      "A connection without a frame for this long is closed, 1 s to 24 h.", ""},
     [](const config_node& n, server_config& c) {
       return read_duration(n, c.network.idle_timeout_ms, 1'000, 86'400'000);
     }},
    {{"memory.block_size", "size", "2 MiB",
      "One piece of the pool of transfer buffers, a power of two from 64 KiB to 64 MiB.", ""},
     [](const config_node& n, server_config& c) {
       return read_power_of_two(n, c.memory.block_bytes, 64 * kib, 64 * mib);
     }},
    {{"memory.max_size", "size", "1 GiB",
      "The pool of transfer buffers, at least eight pieces. Needs free hugepages, or fits with memory drives "
      "into 80 % "
      "of the available memory.",
      ""},
     [](const config_node& n, server_config& c) { return read_size(n, c.memory.max_bytes, mib, 64 * tib); }},
    {{"rdma.device", "text", "unset", "RDMA device, such as mlx5_0; without one, clients use TCP.", ""},
     [](const config_node& n, server_config& c) { return read_text(n, c.rdma.device); }},
    {{"rdma.devices", "list of text", "unset",
      "Several RDMA devices, at most 64. Not together with `rdma.device`.", ""},
     read_devices},
    {{"rdma.num_worker_threads", "integer", "1",
      "Threads that serve each RDMA device, 1 to 256, and 256 together.", ""},
     [](const config_node& n, server_config& c) {
       return read_optional(n, c.rdma.num_worker_threads, 1, 256);
     }},
    {{"rdma.num_dcis", "integer", "8",
      "DC initiators of each of these threads, 1 to 4096, where the device has DC.", ""},
     [](const config_node& n, server_config& c) { return read_optional(n, c.rdma.num_dcis, 1, 4096); }},
    {{"rdma.gid_index", "integer", "unset",
      "Index of the RoCE address, 0 to 255. Unset: of RoCE v2, over IPv4 if there is one.", ""},
     [](const config_node& n, server_config& c) { return read_optional(n, c.rdma.gid_index, 0, 255); }},
    {{"rdma.traffic_class", "integer", "unset", "Four times the DSCP, 0 to 255. Unset: 104 on Ethernet.", ""},
     [](const config_node& n, server_config& c) { return read_optional(n, c.rdma.traffic_class, 0, 255); }},
    {{"rdma.service_level", "integer", "unset", "Priority, 0 to 15. Unset: 3 on Ethernet.", ""},
     [](const config_node& n, server_config& c) { return read_optional(n, c.rdma.service_level, 0, 15); }},
    {{"rdma.mtu", "integer", "unset",
      "Path MTU: 256, 512, 1024, 2048 or 4096. Unset, or more than the port has: that of the port.", ""},
     [](const config_node& n, server_config& c) {
       constexpr std::array<std::pair<std::string_view, std::uint32_t>, 5> all{
           {{"256", 256}, {"512", 512}, {"1024", 1024}, {"2048", 2048}, {"4096", 4096}}};
       std::uint32_t value = 0;
       auto wrong = read_choice(n, value, all);
       if (wrong.empty())
         c.rdma.mtu = value;
       return wrong;
     }},
    {{"storage.mode", "direct, file or memory", "required",
      "`direct` keeps blocks on raw block devices, which `memkv setup` prepares; `file` in regular files; "
      "`memory` in memory.",
      ""},
     [](const config_node& n, server_config& c) {
       constexpr std::array<std::pair<std::string_view, storage_mode>, 3> all{
           {{"direct", storage_mode::direct},
            {"file", storage_mode::file},
            {"memory", storage_mode::memory}}};
       return read_choice(n, c.storage.mode, all);
     }},
    {{"storage.block_size", "size", "4 MiB",
      "Largest extent, a power of two from 64 KiB to 32 MiB. Larger values are striped over the drives.", ""},
     [](const config_node& n, server_config& c) {
       return read_power_of_two(n, c.storage.block_bytes, engine::extent_bytes_least,
                                engine::extent_bytes_most);
     }},
    {{"storage.shard_size", "size", "64 KiB",
      "Unit in which space is given out, a power of two from 4 KiB to `storage.block_size`.", ""},
     [](const config_node& n, server_config& c) {
       return read_power_of_two(n, c.storage.shard_bytes, engine::unit_bytes_min, engine::extent_bytes_most);
     }},
    {{"storage.drives", "list", "required", "The drives, 1 to 256, each a map of the two keys below.", ""},
     nullptr},
    {{"storage.drives[].media", "path", "required",
      "A block device in direct mode, a file in file mode (created in full size when absent), `memory` in "
      "memory mode.",
      ""},
     nullptr},
    {{"storage.drives[].max_size", "size", "required in file and memory mode",
      "Size of the file or the memory, 4 MiB to 16 TiB. Not in direct mode: a raw drive is used whole.", ""},
     nullptr},
    {{"storage.eviction.enabled", "bool", "true",
      "Makes room for new blocks by dropping old ones. Without it a put fails when the store is full.", ""},
     [](const config_node& n, server_config& c) { return read_bool(n, c.storage.eviction_enabled); }},
    {{"storage.eviction.high_watermark", "percent", "95",
      "Fill at which blocks begin to be dropped, 1 to 99.", ""},
     [](const config_node& n, server_config& c) { return read_percent(n, c.storage.eviction_high_percent); }},
    {{"storage.eviction.low_watermark", "percent", "90",
      "Fill at which dropping ends, 1 to 98 and below the high watermark.", ""},
     [](const config_node& n, server_config& c) { return read_percent(n, c.storage.eviction_low_percent); }},
    {{"storage.flap_threshold", "integer", "5",
      "Failures after which a drive is blacklisted: it stays offline until `memkv drive reset`, 1 to 1000.",
      ""},
     [](const config_node& n, server_config& c) {
       return read_integer(n, c.storage.flap_threshold, 1, 1000);
     }},
    {{"storage.verify_on_read", "bool", "true", "Verifies checksums of everything that is read from a drive.",
      ""},
     [](const config_node& n, server_config& c) { return read_bool(n, c.storage.verify_on_read); }},
    {{"storage.sync", "never or always", "always in direct mode, else never",
      "`always` makes an acknowledged put survive a power cut; `never` survives the death of the process. "
      "Direct mode always syncs, memory mode never.",
      ""},
     [](const config_node& n, server_config& c) {
       constexpr std::array<std::pair<std::string_view, sync_mode>, 2> all{
           {{"never", sync_mode::never}, {"always", sync_mode::always}}};
       return read_choice(n, c.storage.sync, all);
     }},
    {{"logging.level", "text", "RUST_LOG, else info",
      "A level, or target=level pairs such as `memkv_server=debug,info`. `--log-level` wins over it.", ""},
     read_level},
    {{"logging.format", "text or json", "text", "Form of the log's lines.", ""},
     [](const config_node& n, server_config& c) {
       constexpr std::array<std::pair<std::string_view, log_format>, 2> all{
           {{"text", log_format::text}, {"json", log_format::json}}};
       return read_choice(n, c.logging.format, all);
     }},
});

constexpr auto documented_keys = [] {
  std::array<config_key, rows.size()> keys{};
  for (std::size_t i = 0; i < rows.size(); ++i)
    keys[i] = rows[i].documented;
  return keys;
}();

// How many letters must change to make one word of the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

class config_reader {
public:
  explicit config_reader(config_result& result) : result_(result) {}

  void read(const config_node& root) {
    if (root.what == config_node::kind::nothing)
      return fail(0, "", "the file says nothing: see docs/configuration.md for a small example");
    if (root.what != config_node::kind::map)
      return fail(root.line, "",
                  "the file must be a map of sections such as network: and storage:, not " + shown(root));
    section(root, "");
  }

  // Puts the line to a problem that validate() found.
  void locate(config_problem& problem) const {
    std::string_view key = problem.key;
    while (!key.empty()) {
      if (const auto found = lines_.find(key); found != lines_.end()) {
        problem.line = found->second;
        return;
      }
      key = key.substr(0, key.find_last_of(".[") == std::string_view::npos ? 0 : key.find_last_of(".["));
    }
  }

  [[nodiscard]] bool has(std::string_view key) const { return lines_.find(key) != lines_.end(); }

private:
  void fail(std::size_t line, const std::string& key, const std::string& sentence) {
    if (result_.problem.ok())
      result_.problem = {line, key, key.empty() ? sentence : key + " " + sentence};
  }

  // A list item "storage.drives[3].media" is documented as "storage.drives[].media".
  static std::string pattern_of(std::string_view path) {
    std::string pattern;
    bool inside = false;
    for (const char c : path) {
      inside = inside && c != ']';
      if (!inside)
        pattern += c;
      inside = inside || c == '[';
    }
    return pattern;
  }

  void unknown(const config_node::member& member, const std::string& prefix, const std::string& path) {
    std::string best;
    std::size_t least = 3;
    std::string names;
    for (const auto& row : rows) {
      const auto pattern = pattern_of(prefix);
      if (!row.documented.path.starts_with(pattern))
        continue;
      auto rest = row.documented.path.substr(pattern.size());
      rest = rest.substr(0, rest.find_first_of(".["));
      if (names.find(rest) == std::string::npos)
        names += (names.empty() ? "" : ", ") + std::string(rest);
      if (const auto d = distance(rest, member.key); d < least) {
        least = d;
        best = rest;
      }
    }
    // What is no name at all may be a line of a file that is none of ours, and a secret.
    const bool is_name = member.key.size() <= 64 && std::ranges::all_of(member.key, [](char c) {
                           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                  (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
                         });
    fail(member.line, is_name ? path : prefix + "(what stands here)",
         best.empty() ? "is not a key of the configuration: use " + names
                      : "is not a key of the configuration: did you mean " + prefix + best + "?");
  }

  void section(const config_node& node, const std::string& prefix) {
    for (const auto& member : node.members) {
      if (!result_.problem.ok())
        return;
      const std::string path = prefix + member.key;
      lines_.emplace(path, member.line);
      const std::string pattern = pattern_of(path);
      const auto row = std::find_if(rows.begin(), rows.end(),
                                    [&](const key_row& each) { return each.documented.path == pattern; });
      const bool is_section =
          pattern != "storage.drives" && std::any_of(rows.begin(), rows.end(), [&](const key_row& each) {
            return each.documented.path.starts_with(pattern + ".");
          });
      if (is_section && member.value.what == config_node::kind::map)
        section(member.value, path + ".");
      else if (is_section)
        fail(member.line, path, "must be a map of keys, not " + shown(member.value));
      else if (row == rows.end())
        unknown(member, prefix, path);
      else if (member.value.what == config_node::kind::nothing)
        fail(member.line, path, "has no value: write one, or remove the key");
      else if (pattern == "storage.drives")
        drives(member, path);
      else if (row->set == nullptr)
        drive_key(member, path);
      else
        value(member, *row, path);
    }
  }

  void value(const config_node::member& member, const key_row& row, const std::string& path) {
    if (const auto wrong = row.set(member.value, result_.config); !wrong.empty())
      return fail(member.line, path, wrong);
    if (!row.documented.ineffective.empty())
      result_.not_in_effect.push_back({path, member.line, std::string(row.documented.ineffective)});
  }

  void drives(const config_node::member& member, const std::string& path) {
    if (member.value.what != config_node::kind::list)
      return fail(member.line, path,
                  must_be("a list of maps, such as [{ media: /var/lib/memkv/drive0, max_size: 1 TiB }]",
                          member.value));
    if (member.value.items.size() > drives_max)
      return fail(member.line, path, "has more than " + std::to_string(drives_max) + " drives");
    for (std::size_t i = 0; i < member.value.items.size() && result_.problem.ok(); ++i) {
      const auto& item = member.value.items[i];
      const std::string item_path = path + "[" + std::to_string(i) + "]";
      lines_.emplace(item_path, item.line);
      if (item.what != config_node::kind::map)
        return fail(item.line, item_path, must_be("a map with media and max_size", item));
      result_.config.storage.drives.emplace_back();
      section(item, item_path + ".");
    }
  }

  void drive_key(const config_node::member& member, const std::string& path) {
    drive_config& drive = result_.config.storage.drives.back();
    const std::string wrong =
        member.key == "media"
            ? read_text(member.value, drive.media)
            : read_size(member.value, drive.max_size_bytes, engine::drive_bytes_min, engine::drive_bytes_max);
    if (!wrong.empty())
      fail(member.line, path, wrong);
  }

  config_result& result_;
  std::map<std::string, std::size_t, std::less<>> lines_;
};

} // namespace

config_result parse_config(std::string_view text, const config_environment& environment) {
  config_result result;
  config_node root;
  result.problem = parse_config_tree(text, root);
  if (!result.ok())
    return result;
  config_reader reader(result);
  reader.read(root);
  if (!result.ok())
    return result;
  if (environment.auth_key && !environment.auth_key->empty()) {
    auto key = wire::shared_key::parse(*environment.auth_key);
    if (!key) {
      result.problem = {
          0, "",
          "MEMKV_AUTH_KEY must hold a key of exactly 64 hexadecimal digits that does not repeat itself: "
          "make one with openssl rand -hex 32"};
      return result;
    }
    result.config.network.auth_key = std::move(key);
  }
  result.problem = result.config.validate();
  if (!result.ok())
    reader.locate(result.problem);
  return result;
}

config_result load_config(const std::string& path, const config_environment& environment) {
  config_result result;
  const auto refuse = [&result](const std::string& what) {
    result.problem = {0, "", what};
    return result;
  };
  auto file = wire::read_regular_file(path, file_bytes_max);
  using outcome = wire::file_text::outcome;
  if (file.result == outcome::too_long)
    return refuse(std::string(too_long_sentence));
  if (file.result != outcome::read)
    return refuse("the file cannot be opened (" + file.problem + "): name another with --config");
  result = parse_config(file.text, environment);
  const bool holds_key =
      file.text.find("auth_key") != std::string::npos || file.text.find("previous_key") != std::string::npos;
  if (result.ok() && holds_key && (file.mode & 077U) != 0)
    result.warnings.push_back(path +
                              " holds the authentication key and can be read by others than its owner: run "
                              "chmod 600 on it");
  wire::wipe(std::as_writable_bytes(std::span(file.text)));
  return result;
}

std::string describe(std::string_view path, const config_problem& problem) {
  std::string text(path);
  if (problem.line > 0)
    text += ", line " + std::to_string(problem.line);
  return text + ": " + problem.sentence;
}

std::span<const config_key> config_keys() noexcept {
  return documented_keys;
}

std::string config_keys_markdown() {
  std::string text = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n";
  for (const auto& key : documented_keys) {
    text += "| `" + std::string(key.path) + "` | " + std::string(key.type) + " | " +
            std::string(key.default_text) + " | " + std::string(key.help);
    if (!key.ineffective.empty())
      text += " *Not in effect: " + std::string(key.ineffective) + ".*";
    text += " |\n";
  }
  return text;
}

} // namespace memkv::cli
