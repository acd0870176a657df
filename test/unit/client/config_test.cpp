#define CAF_SUITE client_config

#include "client/client.hpp"
#include "client/options.hpp"

#include <caf/test/unit_test.hpp>

#include <cstdio>
#include <fstream>
#include <map>
#include <unistd.h>

using namespace memkv::client;

namespace {

constexpr const char* key_digits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

std::string refused(std::string_view text) {
  options target;
  return apply_config_text(text, "client.yaml", target).text;
}

environment environment_of(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) -> const char* {
    const auto place = variables.find(name);
    return place == variables.end() ? nullptr : place->second.c_str();
  };
}

/// A file that lives as long as this.
struct file {
  std::string path = "client_config_test." + std::to_string(::getpid()) + ".yaml";
  explicit file(std::string_view text) { std::ofstream(path) << text; }
  ~file() { std::remove(path.c_str()); }
};

options complete() {
  options target;
  target.servers = {"localhost"};
  target.auth_key = memkv::wire::shared_key::parse(key_digits);
  target.transport = transport_choice::tcp;
  return target;
}

} // namespace

CAF_TEST(every key of the file has its effect) {
  options target;
  const status result = apply_config_text(R"(
servers: [kv-a:9900, kv-b]
transport: tcp
auth_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
license: some.text
rdma_devices: [mlx5_0, mlx5_1]
rdma_messages: false
bind_addresses: [10.0.0.1, 10.0.0.2]
cache_size_mb: 512
connect_timeout_ms: 250
gid_index: 3
num_connections: 8
traffic_class: 104
service_level: 3
mtu: 4096
namespace: tenant-a
deadline_ms: 1500
digest: keyed
socket_buffer_kb: 512
)",
                                          "client.yaml", target);
  CAF_CHECK_EQUAL(result.text, "");
  CAF_CHECK(target.servers == std::vector<std::string>({"kv-a:9900", "kv-b"}));
  CAF_CHECK(target.transport == transport_choice::tcp);
  CAF_CHECK(target.auth_key.has_value());
  CAF_CHECK_EQUAL(target.license, "some.text");
  CAF_CHECK_EQUAL(target.rdma_devices.size(), 2u);
  CAF_CHECK(target.rdma_messages == false);
  CAF_CHECK_EQUAL(target.bind_addresses.size(), 2u);
  CAF_CHECK_EQUAL(target.cache_size_mb, 512u);
  CAF_CHECK_EQUAL(target.connect_timeout_ms, 250u);
  CAF_CHECK_EQUAL(target.gid_index.value_or(0), 3u);
  CAF_CHECK_EQUAL(target.num_connections, 8u);
  CAF_CHECK_EQUAL(target.traffic_class.value_or(0), 104u);
  CAF_CHECK_EQUAL(target.service_level.value_or(0), 3u);
  CAF_CHECK_EQUAL(target.mtu.value_or(0), 4096u);
  CAF_CHECK_EQUAL(target.namespace_name, "tenant-a");
  CAF_CHECK_EQUAL(target.deadline_ms, 1500u);
  CAF_CHECK(target.digest == digest_choice::keyed);
  CAF_CHECK_EQUAL(target.socket_buffer_kb, 512u);
}

CAF_TEST(what is wrong in the file is refused with line and key) {
  CAF_CHECK_EQUAL(refused("servers: [a]\nserver: b\n"), "client.yaml:2: server: unknown key");
  CAF_CHECK_EQUAL(refused("mtu: 4096\nmtu: 1024\n"), "client.yaml:2: mtu: the key stands in the file twice");
  CAF_CHECK_EQUAL(refused("mtu: 1500\n"),
                  "client.yaml:1: mtu: must be 256, 512, 1024, 2048 or 4096, not '1500'");
  CAF_CHECK_EQUAL(refused("\n\nnum_connections: 0\n"),
                  "client.yaml:3: num_connections: must be a whole number from 1 to 256, not '0'");
  CAF_CHECK_EQUAL(refused("deadline_ms: 5 s\n"),
                  "client.yaml:1: deadline_ms: must be a whole number from 1 to 600000, not '5 s'");
  CAF_CHECK_EQUAL(refused("cache_size_mb: -1\n"),
                  "client.yaml:1: cache_size_mb: must be a whole number from 0 to 1048576, not '-1'");
  CAF_CHECK_EQUAL(
      refused("cache_size_mb: 99999999999999999999\n").find("client.yaml:1: cache_size_mb: must be"), 0u);
  CAF_CHECK_EQUAL(refused("cache_size_mb: [1]\n"), "client.yaml:1: cache_size_mb: must be a single value");
  CAF_CHECK_EQUAL(refused("servers: {a: b}\n"), "client.yaml:1: servers: must be a list");
  CAF_CHECK_EQUAL(refused("servers: [[a]]\n"), "client.yaml:1: servers: must be a list of plain texts");
  CAF_CHECK_EQUAL(refused("transport: udp\n"),
                  "client.yaml:1: transport: must be auto, rdma or tcp, not 'udp'");
  CAF_CHECK_EQUAL(refused("digest: none\n"), "client.yaml:1: digest: must be crc32c or keyed, not 'none'");
  CAF_CHECK_EQUAL(refused("- a\n- b\n"),
                  "client.yaml:1: the file must consist of lines of the form key: value");
  CAF_CHECK_EQUAL(refused("mtu: 256\n---\nmtu: 256\n"),
                  "client.yaml: the file must hold one YAML document, not several");
  CAF_CHECK_EQUAL(refused("servers: [a\n").find("client.yaml:"), 0u);
  CAF_CHECK_NOT_EQUAL(refused("servers: [a\n").find("this is not YAML"), std::string::npos);
  CAF_CHECK_EQUAL(refused(""), "");
}

CAF_TEST(a mistyped auth key is refused and not repeated) {
  const std::string text = refused("auth_key: 0102secret\n");
  CAF_CHECK_EQUAL(text.find("client.yaml:1: auth_key: "), 0u);
  CAF_CHECK_EQUAL(text.find("secret"), std::string::npos);
}

CAF_TEST(nothing of a refused file has an effect) {
  options target;
  CAF_CHECK(!apply_config_text("num_connections: 9\nmtu: 1\n", "client.yaml", target).ok());
  CAF_CHECK_EQUAL(target.num_connections, options().num_connections);
}

CAF_TEST(the environment wins over the file and the file over the defaults) {
  const file config("num_connections: 9\ndeadline_ms: 77\nservers: [from-file]\n");
  options target;
  const status result = load_options(environment_of({{"MEMKV_CONFIG", config.path},
                                                     {"MEMKV_NUM_CONNECTIONS", "3"},
                                                     {"MEMKV_SERVERS", " a:1 ,, b "},
                                                     {"MEMKV_AUTH_KEY", key_digits},
                                                     {"MEMKV_BIND_ADDRESSES", "127.0.0.1"},
                                                     {"MEMKV_CACHE_SIZE_MB", ""}}),
                                     target);
  CAF_CHECK_EQUAL(result.text, "");
  CAF_CHECK_EQUAL(target.num_connections, 3u);
  CAF_CHECK_EQUAL(target.deadline_ms, 77u);
  CAF_CHECK_EQUAL(target.connect_timeout_ms, options().connect_timeout_ms);
  CAF_CHECK_EQUAL(target.cache_size_mb, 0u);
  CAF_CHECK(target.servers == std::vector<std::string>({"a:1", "b"}));
  CAF_CHECK(target.bind_addresses == std::vector<std::string>({"127.0.0.1"}));
  CAF_CHECK(target.auth_key.has_value());
}

CAF_TEST(the licence of the file wins over the variable) {
  const file config("license: file\n");
  options target;
  CAF_CHECK(
      load_options(environment_of({{"MEMKV_CONFIG", config.path}, {"MEMKV_LICENSE", "variable"}}), target)
          .ok());
  CAF_CHECK_EQUAL(target.license, "file");
  options other;
  CAF_CHECK(load_options(environment_of({{"MEMKV_LICENSE", "variable"}}), other).ok());
  CAF_CHECK_EQUAL(other.license, "variable");
}

CAF_TEST(a variable that is wrong is refused by name and a file that is missing by path) {
  options target;
  CAF_CHECK_EQUAL(load_options(environment_of({{"MEMKV_TRANSPORT", "fast"}}), target).text,
                  "MEMKV_TRANSPORT: must be auto, rdma or tcp, not 'fast'");
  CAF_CHECK_EQUAL(load_options(environment_of({{"MEMKV_RDMA_MESSAGES", "off"}}), target).text,
                  "MEMKV_RDMA_MESSAGES: must be true or false, not 'off'");
  CAF_CHECK_EQUAL(load_options(environment_of({{"MEMKV_CONFIG", "no/such.yaml"}}), target).text,
                  "no/such.yaml: the file of MEMKV_CONFIG cannot be opened (No such file or directory): "
                  "check its path and permissions");
  CAF_CHECK_EQUAL(load_options(environment_of({{"MEMKV_CONFIG", "/dev/zero"}}), target).text,
                  "/dev/zero: the file of MEMKV_CONFIG cannot be opened (it is no regular file): check its "
                  "path and permissions");
}

CAF_TEST(a client is not made without a key or servers or with what this machine lacks) {
  const auto refusal = [](options target) {
    status problem;
    CAF_CHECK(client::make(std::move(target), problem) == nullptr);
    CAF_CHECK_EQUAL(problem.code, errc::bad_config);
    return problem.text;
  };
  options target = complete();
  target.auth_key.reset();
  CAF_CHECK_EQUAL(refusal(target).find("no auth key"), 0u);
  target = complete();
  target.servers.clear();
  CAF_CHECK_EQUAL(refusal(target).find("no servers"), 0u);
  target = complete();
  target.transport = transport_choice::rdma;
  CAF_CHECK_EQUAL(refusal(target).find("transport rdma needs rdma_devices"), 0u);
  target.rdma_devices = {"no_such_device"};
  CAF_CHECK_EQUAL(refusal(target).find("rdma_devices: "), 0u);
  target = complete();
  target.servers = {"http://a:9901"};
  CAF_CHECK_EQUAL(refusal(target).find("servers: 'http://a:9901' is a URL"), 0u);
  target = complete();
  target.servers = {"a:99999"};
  CAF_CHECK_EQUAL(refusal(target).find("servers: 'a:99999': "), 0u);
  target = complete();
  target.namespace_name = "tenant a";
  CAF_CHECK_EQUAL(refusal(target).find("namespace: "), 0u);
  target = complete();
  target.num_connections = 0;
  CAF_CHECK_EQUAL(refusal(target).find("num_connections"), 0u);
  target = complete();
  target.busy_retries = 65;
  CAF_CHECK_EQUAL(refusal(target).find("busy_retries"), 0u);
  target = complete();
  target.bind_addresses = {"eth0"};
  CAF_CHECK_EQUAL(refusal(target).find("bind_addresses: 'eth0'"), 0u);
}

CAF_TEST(servers are a set of normalised names) {
  options target = complete();
  target.servers = {"KV-B.example.", "10.0.0.1:9900", "kv-b.example:9900"};
  CAF_CHECK(validate(target).ok());
  CAF_CHECK(target.servers == std::vector<std::string>({"10.0.0.1:9900", "kv-b.example:9900"}));
}

CAF_TEST(settings without effect are said) {
  options target = complete();
  target.transport = transport_choice::tcp;
  target.mtu = 4096;
  target.log = [](std::string_view) {};
  status problem;
  const auto made = client::make(target, problem);
  CAF_REQUIRE(made != nullptr);
  CAF_CHECK_EQUAL(made->notes().size(), 1u);
}
