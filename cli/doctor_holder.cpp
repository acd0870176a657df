// Who holds a drive or a port: what /proc tells of the descriptors of all processes.
#include "cli/doctor_gather.hpp"
#include "cli/doctor_sysfs.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <sstream>

namespace memkv::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view default_config = "/etc/memkv/config.yaml";

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  const bool same = fs::equivalent(a, b, error);
  return same && !error;
}

// Whether this is memkv start with the same configuration: then what it holds is held rightly.
bool is_server_of(const fs::path& process, const std::string& config_path) {
  std::ifstream file(process / "cmdline", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; std::getline(stream, word, '\0');)
    words.push_back(word);
  if (words.size() < 2 || words[1] != "start" || fs::path(words[0]).filename() != "memkv")
    return false;
  std::string named(default_config);
  for (std::size_t i = 2; i < words.size(); ++i) {
    if (words[i] == "--config" && i + 1 < words.size())
      named = words[i + 1];
    else if (words[i].starts_with("--config="))
      named = words[i].substr(9);
  }
  return same_file(process / "cwd" / named, config_path) ||
         (named.front() == '/' && same_file(named, config_path));
}

} // namespace

holder_facts find_holder(const std::string& root, const std::string& link, const std::string& config_path) {
  const fs::path all = fs::path(root.empty() ? "/" : root) / "proc";
  for (const auto& name : sysfs_names(all)) {
    if (name.empty() || !std::ranges::all_of(name, [](unsigned char c) { return std::isdigit(c) != 0; }))
      continue;
    for (const auto& number : sysfs_names(all / name / "fd")) {
      std::error_code error;
      if (fs::read_symlink(all / name / "fd" / number, error).string() != link || error)
        continue;
      return {std::atoi(name.c_str()), sysfs_line(all / name / "comm"),
              is_server_of(all / name, config_path)};
    }
  }
  return {};
}

holder_facts find_listener(const std::string& root, std::uint16_t port, const std::string& config_path) {
  constexpr std::string_view listening = "0A";
  for (const char* name : {"tcp", "tcp6"}) {
    std::ifstream file(fs::path(root.empty() ? "/" : root) / "proc/net" / name);
    for (std::string line; std::getline(file, line);) {
      // sl local remote state queues timer retransmits uid timeout inode
      std::istringstream words(line);
      std::string sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
      if (!(words >> sl >> local >> remote >> state >> queues >> timer >> retransmits >> uid >> timeout >>
            inode))
        continue;
      const auto colon = local.rfind(':');
      if (state != listening || colon == std::string::npos ||
          std::strtoul(local.c_str() + colon + 1, nullptr, 16) != port)
        continue;
      if (auto holder = find_holder(root, "socket:[" + inode + "]", config_path); holder.pid != 0)
        return holder;
    }
  }
  return {};
}

} // namespace memkv::cli
