#include "client/options.hpp"
#include "wire/regular_file.hpp"

#include <yaml-cpp/yaml.h>

#include <cstdio>
#include <limits>
#include <set>
#include <sstream>

namespace memkv::client {
namespace {

/// Where a value came from, in the words of a message.
struct origin {
  std::string text;
};

[[nodiscard]] status refuse(const origin& where, std::string_view what) {
  return {errc::bad_config, where.text + ": " + std::string(what)};
}

[[nodiscard]] status set_number(const origin& where, std::string_view text, std::uint32_t least,
                                std::uint32_t most, std::uint32_t& target) {
  std::uint64_t number = 0;
  bool valid = !text.empty() && text.size() <= 10;
  for (const char digit : text) {
    valid = valid && digit >= '0' && digit <= '9';
    number = number * 10 + static_cast<std::uint64_t>(digit - '0');
  }
  if (!valid || number < least || number > most) {
    return refuse(where, "must be a whole number from " + std::to_string(least) + " to " +
                             std::to_string(most) + ", not '" + std::string(text) + "'");
  }
  target = static_cast<std::uint32_t>(number);
  return {};
}

[[nodiscard]] status set_number(const origin& where, std::string_view text, std::uint32_t least,
                                std::uint32_t most, std::optional<std::uint32_t>& target) {
  std::uint32_t number = 0;
  status result = set_number(where, text, least, most, number);
  if (result.ok()) {
    target = number;
  }
  return result;
}

/// One key of the configuration: its name in the file, its variable, and what a value does.
struct setting {
  const char* key;
  const char* variable; // nullptr: only in the file
  bool list;
  status (*set_text)(const origin&, const std::string&, options&);
  status (*set_list)(const origin&, std::vector<std::string>, options&);
};

[[nodiscard]] status set_transport(const origin& where, const std::string& text, options& target) {
  if (text == "auto") {
    target.transport = transport_choice::automatic;
  } else if (text == "rdma") {
    target.transport = transport_choice::rdma;
  } else if (text == "tcp") {
    target.transport = transport_choice::tcp;
  } else {
    return refuse(where, "must be auto, rdma or tcp, not '" + text + "'");
  }
  return {};
}

[[nodiscard]] status set_digest(const origin& where, const std::string& text, options& target) {
  if (text == "crc32c") {
    target.digest = digest_choice::crc32c;
  } else if (text == "keyed") {
    target.digest = digest_choice::keyed;
  } else {
    return refuse(where, "must be crc32c or keyed, not '" + text + "'");
  }
  return {};
}

[[nodiscard]] status set_auth_key(const origin& where, const std::string& text, options& target) {
  // The value is a secret, also a mistyped one: no message repeats it.
  std::string_view problem;
  target.auth_key = wire::shared_key::parse(text, &problem);
  if (!target.auth_key) {
    return refuse(where, problem);
  }
  return {};
}

[[nodiscard]] status set_mtu(const origin& where, const std::string& text, options& target) {
  for (const std::uint32_t mtu : {256U, 512U, 1024U, 2048U, 4096U}) {
    if (text == std::to_string(mtu)) {
      target.mtu = mtu;
      return {};
    }
  }
  return refuse(where, "must be 256, 512, 1024, 2048 or 4096, not '" + text + "'");
}

[[nodiscard]] status set_license(const origin& where, const std::string& text, options& target) {
  target.license = text;
  target.license_source = where.text;
  return {};
}

template <auto member>
[[nodiscard]] status set_switch(const origin& where, const std::string& text, options& target) {
  if (text != "true" && text != "false") {
    return refuse(where, "must be true or false, not '" + text + "'");
  }
  target.*member = text == "true";
  return {};
}

template <auto member>
[[nodiscard]] status set_string(const origin&, const std::string& text, options& target) {
  target.*member = text;
  return {};
}

template <auto member, std::uint32_t least, std::uint32_t most>
[[nodiscard]] status set_range(const origin& where, const std::string& text, options& target) {
  return set_number(where, text, least, most, target.*member);
}

template <auto member>
[[nodiscard]] status set_strings(const origin&, std::vector<std::string> texts, options& target) {
  target.*member = std::move(texts);
  return {};
}

constexpr setting settings[] = {
    {"servers", "MEMKV_SERVERS", true, nullptr, set_strings<&options::servers>},
    {"transport", "MEMKV_TRANSPORT", false, set_transport, nullptr},
    {"auth_key", "MEMKV_AUTH_KEY", false, set_auth_key, nullptr},
    {"license", "MEMKV_LICENSE", false, set_license, nullptr},
    {"rdma_devices", "MEMKV_RDMA_DEVICES", true, nullptr, set_strings<&options::rdma_devices>},
    {"rdma_messages", "MEMKV_RDMA_MESSAGES", false, set_switch<&options::rdma_messages>, nullptr},
    {"bind_addresses", "MEMKV_BIND_ADDRESSES", true, nullptr, set_strings<&options::bind_addresses>},
    {"cache_size_mb", "MEMKV_CACHE_SIZE_MB", false, set_range<&options::cache_size_mb, 0, cache_size_mb_max>,
     nullptr},
    {"connect_timeout_ms", "MEMKV_CONNECT_TIMEOUT_MS", false,
     set_range<&options::connect_timeout_ms, 1, connect_timeout_ms_max>, nullptr},
    {"gid_index", "MEMKV_GID_INDEX", false, set_range<&options::gid_index, 0, 255>, nullptr},
    {"num_connections", "MEMKV_NUM_CONNECTIONS", false,
     set_range<&options::num_connections, 1, num_connections_max>, nullptr},
    {"traffic_class", "MEMKV_TRAFFIC_CLASS", false, set_range<&options::traffic_class, 0, 255>, nullptr},
    {"service_level", "MEMKV_SERVICE_LEVEL", false, set_range<&options::service_level, 0, 15>, nullptr},
    {"mtu", "MEMKV_MTU", false, set_mtu, nullptr},
    {"namespace", "MEMKV_NAMESPACE", false, set_string<&options::namespace_name>, nullptr},
    {"deadline_ms", "MEMKV_DEADLINE_MS", false, set_range<&options::deadline_ms, 1, deadline_ms_max>,
     nullptr},
    {"digest", "MEMKV_DIGEST", false, set_digest, nullptr},
    {"socket_buffer_kb", "MEMKV_SOCKET_BUFFER_KB", false,
     set_range<&options::socket_buffer_kb, 0, socket_buffer_kb_max>, nullptr},
};

[[nodiscard]] const setting* find_setting(const std::string& key) {
  for (const setting& candidate : settings) {
    if (key == candidate.key) {
      return &candidate;
    }
  }
  return nullptr;
}

[[nodiscard]] origin line_of(std::string_view file_name, const YAML::Mark& mark, std::string_view key) {
  std::string text(file_name);
  text += ":" + std::to_string(mark.line + 1);
  if (!key.empty()) {
    text += ": " + std::string(key);
  }
  return {std::move(text)};
}

[[nodiscard]] status apply_node(const setting& known, const origin& where, const YAML::Node& value,
                                options& target) {
  if (!known.list) {
    if (!value.IsScalar()) {
      return refuse(where, "must be a single value");
    }
    return known.set_text(where, value.Scalar(), target);
  }
  std::vector<std::string> texts;
  if (value.IsScalar()) {
    texts = split_list(value.Scalar());
  } else if (value.IsSequence()) {
    for (const YAML::Node& item : value) {
      if (!item.IsScalar() || item.Scalar().empty()) {
        return refuse(where, "must be a list of plain texts");
      }
      texts.push_back(item.Scalar());
    }
  } else {
    return refuse(where, "must be a list");
  }
  return known.set_list(where, std::move(texts), target);
}

[[nodiscard]] status apply_document(const YAML::Node& document, std::string_view file_name, options& target) {
  if (document.IsNull()) {
    return {};
  }
  if (!document.IsMap()) {
    return refuse(line_of(file_name, document.Mark(), ""),
                  "the file must consist of lines of the form key: value");
  }
  std::set<std::string> seen;
  for (const auto& entry : document) {
    if (!entry.first.IsScalar()) {
      return refuse(line_of(file_name, entry.first.Mark(), ""), "a key must be a plain text");
    }
    const std::string& key = entry.first.Scalar();
    const origin where = line_of(file_name, entry.first.Mark(), key);
    const setting* known = find_setting(key);
    if (known == nullptr) {
      return refuse(where, "unknown key");
    }
    if (!seen.insert(key).second) {
      return refuse(where, "the key stands in the file twice");
    }
    if (status result = apply_node(*known, where, entry.second, target); !result.ok()) {
      return result;
    }
  }
  return {};
}

} // namespace

status apply_config_text(std::string_view text, std::string_view file_name, options& target) {
  // A second document would be ignored by the loader, so it is refused rather than lost.
  try {
    options changed = target;
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) {
      return refuse({std::string(file_name)}, "the file must hold one YAML document, not several");
    }
    if (!documents.empty()) {
      if (status result = apply_document(documents.front(), file_name, changed); !result.ok()) {
        return result;
      }
    }
    target = std::move(changed);
    return {};
  } catch (const YAML::Exception& error) {
    return refuse(line_of(file_name, error.mark, ""), "this is not YAML: " + error.msg);
  } catch (const std::exception& error) {
    return refuse({std::string(file_name)}, error.what());
  }
}

status apply_config_file(const std::string& path, options& target) {
  const auto file = wire::read_regular_file(path, config_file_bytes_max);
  if (file.result == wire::file_text::outcome::too_long) {
    return {errc::bad_config, path + ": a configuration file has at most 1 MiB"};
  }
  if (file.result != wire::file_text::outcome::read) {
    return {errc::bad_config, path + ": the file of MEMKV_CONFIG cannot be opened (" + file.problem +
                                  "): check its path and permissions"};
  }
  return apply_config_text(file.text, path, target);
}

status apply_environment(const environment& lookup, options& target) {
  options changed = target;
  for (const setting& known : settings) {
    const char* value = lookup(known.variable);
    if (value == nullptr || *value == '\0') {
      continue;
    }
    // The file's own licence wins over the variable; all other variables win over the file.
    if (std::string_view(known.key) == "license" && !target.license.empty()) {
      continue;
    }
    const origin where{known.variable};
    status result = known.list ? known.set_list(where, split_list(value), changed)
                               : known.set_text(where, value, changed);
    if (!result.ok()) {
      return result;
    }
  }
  target = std::move(changed);
  return {};
}

status load_options(const environment& lookup, options& target) {
  options changed = target;
  if (const char* path = lookup("MEMKV_CONFIG"); path != nullptr && *path != '\0') {
    if (status result = apply_config_file(path, changed); !result.ok()) {
      return result;
    }
  }
  if (status result = apply_environment(lookup, changed); !result.ok()) {
    return result;
  }
  target = std::move(changed);
  return {};
}

} // namespace memkv::client
