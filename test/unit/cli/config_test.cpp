// What a configuration may say, and how each mistake is refused: with its line, its key, and what to do.
#define CAF_SUITE config
#include "cli/config.hpp"

#include <caf/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include <sys/stat.h>

using namespace memkv::cli;

namespace {

const std::string key_digits = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321";
const std::string other_digits = "aa1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321";

// A minimal valid file of six lines; tests add lines to it or change it.
const std::string minimal = "network:\n  auth_key: " + key_digits +
                            "\nstorage:\n  mode: file\n  drives:\n    - { media: /d0, max_size: 1 GiB }\n";

server_config accepted(const std::string& text, const config_environment& environment = {}) {
  const auto result = parse_config(text, environment);
  if (!result.ok())
    CAF_FAIL("refused: " << describe("file", result.problem));
  return result.config;
}

struct expectation {
  std::string text;
  std::size_t line;
  std::string key;
  std::string part; // of the sentence
};

void check_refused(const expectation& wanted) {
  const auto result = parse_config(wanted.text, {});
  if (result.ok()) {
    CAF_ERROR("accepted:\n" << wanted.text.substr(0, 500));
    return;
  }
  const auto& problem = result.problem;
  if (problem.line != wanted.line || problem.key != wanted.key ||
      problem.sentence.find(wanted.part) == std::string::npos)
    CAF_ERROR("expected line " << wanted.line << " key " << wanted.key << " with \"" << wanted.part
                               << "\", got line " << problem.line << " key " << problem.key << ": "
                               << problem.sentence << "\nfor:\n"
                               << wanted.text.substr(0, 500));
  else
    CAF_CHECK(true);
  CAF_CHECK(problem.sentence.find('\n') == std::string::npos);
  CAF_CHECK(problem.sentence.starts_with(problem.key));
}

// One more line at the end of the storage section of the minimal file: line 7.
std::string with_storage(const std::string& line) {
  return minimal + "  " + line + "\n";
}

// One more section of two lines: its key is in line 8.
std::string with_section(const std::string& section, const std::string& line) {
  return minimal + section + ":\n  " + line + "\n";
}

// A file of its own for a network key: line 3.
std::string with_network(const std::string& line) {
  auto text = minimal;
  text.insert(text.find("storage:"), "  " + line + "\n");
  return text;
}

} // namespace

CAF_TEST(the minimal file is accepted and everything else has its default) {
  const auto c = accepted(minimal);
  CAF_CHECK_EQUAL(c.network.host, "0.0.0.0");
  CAF_CHECK_EQUAL(c.network.port, 9900);
  CAF_CHECK_EQUAL(c.network.max_value_bytes, 1ULL << 30);
  CAF_CHECK_EQUAL(c.network.max_connections, 16384u);
  CAF_CHECK_EQUAL(c.network.max_connections_per_address, 1024u);
  CAF_CHECK_EQUAL(c.network.reactors, 0u);
  CAF_CHECK_EQUAL(c.network.socket_buffer_bytes, 0u);
  CAF_CHECK_EQUAL(c.network.idle_timeout_ms, 300'000u);
  CAF_CHECK(!c.network.require_keyed_digest);
  CAF_CHECK_EQUAL(c.memory.block_bytes, 2ULL << 20);
  CAF_CHECK_EQUAL(c.memory.max_bytes, 1ULL << 30);
  CAF_CHECK(c.storage.mode == storage_mode::file);
  CAF_CHECK_EQUAL(c.storage.block_bytes, 4U << 20);
  CAF_CHECK_EQUAL(c.storage.shard_bytes, 64U << 10);
  CAF_REQUIRE_EQUAL(c.storage.drives.size(), 1u);
  CAF_CHECK_EQUAL(c.storage.drives[0].media, "/d0");
  CAF_CHECK_EQUAL(c.storage.drives[0].max_size_bytes, 1ULL << 30);
  CAF_CHECK(c.storage.eviction_enabled);
  CAF_CHECK_EQUAL(c.storage.eviction_high_percent, 95u);
  CAF_CHECK_EQUAL(c.storage.eviction_low_percent, 90u);
  CAF_CHECK(c.storage.verify_on_read);
  CAF_CHECK(c.storage.sync == sync_mode::unset);
  CAF_CHECK(!c.logging.level);
  CAF_CHECK(c.logging.format == log_format::text);
}

CAF_TEST(every key is accepted and read) {
  const auto result =
      parse_config("# everything\n"
                   "network:\n"
                   "  address: \"[::1]:7000\"\n"
                   "  auth_key: " +
                       key_digits +
                       "\n"
                       "  previous_key: '" +
                       other_digits +
                       "'\n"
                       "  require_keyed_digest: true\n"
                       "  tls_cert: /c.pem\n"
                       "  tls_key: /k.pem\n"
                       "  admin_open: true\n"
                       "  max_connections: 20000\n"
                       "  max_connections_per_address: 20000\n"
                       "  max_value_size: 64 MiB\n"
                       "  reactors: 3\n"
                       "  socket_buffer: 256 KiB\n"
                       "  idle_timeout: 2 min\n"
                       "memory: { block_size: 1 MiB, max_size: 247 GiB }\n"
                       "rdma:\n"
                       "  devices: [rocep1s0f0, roceP2p1s0f0]\n"
                       "  num_worker_threads: 8\n"
                       "  num_dcis: 16\n"
                       "  gid_index: 3\n"
                       "  traffic_class: 104\n"
                       "  service_level: 3\n"
                       "  mtu: 4096\n"
                       "storage:\n"
                       "  mode: file\n"
                       "  block_size: 1048576\n"
                       "  shard_size: 4KiB\n"
                       "  drives:\n"
                       "    - media: /d0\n"
                       "      max_size: 1 TiB\n"
                       "    - { media: '/d 1', max_size: 10 GB }\n"
                       "  eviction: { enabled: false, high_watermark: 80 %, low_watermark: 70 }\n"
                       "  flap_threshold: 7\n"
                       "  verify_on_read: false\n"
                       "  sync: always\n"
                       "logging: { level: \"memkv_server=debug,info\", format: json }\n",
                   {});
  if (!result.ok())
    CAF_FAIL(describe("file", result.problem));
  const auto& c = result.config;
  CAF_CHECK_EQUAL(c.network.host, "::1");
  CAF_CHECK_EQUAL(c.network.port, 7000);
  CAF_CHECK(c.network.previous_key.has_value());
  CAF_CHECK(c.network.require_keyed_digest);
  CAF_CHECK_EQUAL(c.network.max_connections_per_address, 20000u);
  CAF_CHECK_EQUAL(c.network.max_value_bytes, 64ULL << 20);
  CAF_CHECK_EQUAL(c.network.reactors, 3u);
  CAF_CHECK_EQUAL(c.network.socket_buffer_bytes, 256u << 10);
  CAF_CHECK_EQUAL(c.network.idle_timeout_ms, 120'000u);
  CAF_CHECK_EQUAL(c.memory.max_bytes, 247ULL << 30);
  CAF_CHECK_EQUAL(c.rdma.devices.size(), 2u);
  CAF_CHECK_EQUAL(c.rdma.mtu.value_or(0), 4096u);
  CAF_CHECK_EQUAL(c.rdma.traffic_class.value_or(0), 104u);
  CAF_CHECK_EQUAL(c.storage.block_bytes, 1U << 20);
  CAF_CHECK_EQUAL(c.storage.shard_bytes, 4096u);
  CAF_REQUIRE_EQUAL(c.storage.drives.size(), 2u);
  CAF_CHECK_EQUAL(c.storage.drives[0].max_size_bytes, 1ULL << 40);
  CAF_CHECK_EQUAL(c.storage.drives[1].media, "/d 1");
  CAF_CHECK_EQUAL(c.storage.drives[1].max_size_bytes, 10'000'000'000ULL);
  CAF_CHECK(!c.storage.eviction_enabled);
  CAF_CHECK_EQUAL(c.storage.eviction_high_percent, 80u);
  CAF_CHECK_EQUAL(c.storage.eviction_low_percent, 70u);
  CAF_CHECK_EQUAL(c.storage.flap_threshold, 7u);
  CAF_CHECK(!c.storage.verify_on_read);
  CAF_CHECK(c.storage.sync == sync_mode::always);
  CAF_CHECK_EQUAL(c.logging.level.value_or(""), "memkv_server=debug,info");
  CAF_CHECK(c.logging.format == log_format::json);
  CAF_CHECK(result.not_in_effect.empty());
}

CAF_TEST(every documented key can stand in a file) {
  // The reader and the documentation share a table; this finds a row whose setter was forgotten.
  for (const auto& key : config_keys()) {
    if (key.path == "storage.drives" || key.path.find("[]") != std::string::npos)
      continue;
    std::string text;
    std::string path(key.path);
    std::string indent;
    for (auto dot = path.find('.'); dot != std::string::npos; dot = path.find('.')) {
      text += indent + path.substr(0, dot) + ":\n";
      indent += "  ";
      path = path.substr(dot + 1);
    }
    text += indent + path + ": { x: 1 }\n";
    const auto result = parse_config(text, {});
    CAF_CHECK(!result.ok());
    CAF_CHECK_EQUAL(result.problem.key, key.path);
    CAF_CHECK(result.problem.sentence.find("must be") != std::string::npos);
  }
}

CAF_TEST(memory and direct mode have their own rules for drives) {
  const std::string head = "network: { auth_key: " + key_digits + " }\nstorage:\n  mode: ";
  const auto c = accepted(
      head + "memory\n  drives: [{media: memory, max_size: 8 GiB}, {media: memory, max_size: 1 GiB}]\n");
  CAF_CHECK_EQUAL(c.storage.drives.size(), 2u);
  CAF_CHECK(accepted(head + "direct\n  drives: [{media: /dev/nvme0n1}]\n").storage.mode ==
            storage_mode::direct);
  check_refused({head + "memory\n  drives: [{media: /d0, max_size: 8 GiB}]\n", 4, "storage.drives[0].media",
                 "must be memory in memory mode"});
  check_refused({head + "file\n  drives: [{media: memory, max_size: 8 GiB}]\n", 4, "storage.drives[0].media",
                 "set storage.mode to memory"});
  check_refused(
      {head + "memory\n  drives:\n    - media: memory\n", 5, "storage.drives[0].max_size", "is missing"});
  check_refused({head + "memory\n  sync: always\n  drives: [{media: memory, max_size: 8 GiB}]\n", 4,
                 "storage.sync", "cannot be always in memory mode"});
  check_refused({head + "direct\n  sync: never\n  drives: [{media: /dev/nvme0n1}]\n", 4, "storage.sync",
                 "raw drives always sync"});
  check_refused({head + "direct\n  drives: [{media: /dev/nvme0n1, max_size: 8 GiB}]\n", 4,
                 "storage.drives[0].max_size", "a raw drive is used whole"});
}

CAF_TEST(wrong types and units and ranges are refused with line and key) {
  const std::vector<expectation> all{
      // Sizes.
      {with_storage("shard_size: 64 kb"), 7, "storage.shard_size", "must be a size such as"},
      {with_storage("shard_size: -64 KiB"), 7, "storage.shard_size", "must be a size such as"},
      {with_storage("shard_size: -1"), 7, "storage.shard_size", "must be a size such as"},
      {with_storage("shard_size: 64 s"), 7, "storage.shard_size", "must be a size such as"},
      {with_storage("shard_size: [64 KiB]"), 7, "storage.shard_size", "not a list"},
      {with_storage("shard_size: {a: 1}"), 7, "storage.shard_size", "not a map"},
      {with_storage("shard_size: true"), 7, "storage.shard_size", "must be a size"},
      {with_storage("shard_size: 2 KiB"), 7, "storage.shard_size", "from 4 KiB to 32 MiB"},
      {with_storage("shard_size: 12 KiB"), 7, "storage.shard_size", "power of two"},
      {with_storage("shard_size: 8 MiB"), 7, "storage.shard_size", "larger than storage.block_size"},
      {with_storage("block_size: 64 MiB"), 7, "storage.block_size", "from 64 KiB to 32 MiB"},
      {with_storage("block_size: 18446744073709551616"), 7, "storage.block_size", "must be a size"},
      {with_storage("block_size: 99999999999999999999 TiB"), 7, "storage.block_size", "must be a size"},
      {with_section("memory", "max_size: 1 MiB"), 8, "memory.max_size", "less than eight times"},
      {with_section("memory", "block_size: 100 KiB"), 8, "memory.block_size", "power of two"},
      {with_network("max_value_size: 2 GiB"), 3, "network.max_value_size", "from 4 KiB to 1 GiB"},
      {with_network("socket_buffer: automatic"), 3, "network.socket_buffer", "auto, or a size"},
      // Whole numbers.
      {with_network("max_connections: 0"), 3, "network.max_connections", "from 1 to 1000000"},
      {with_network("max_connections: -5"), 3, "network.max_connections", "whole number"},
      {with_network("max_connections: 1.5"), 3, "network.max_connections", "whole number"},
      {with_network("max_connections: 1e3"), 3, "network.max_connections", "whole number"},
      {with_network("max_connections: 0x10"), 3, "network.max_connections", "whole number"},
      {with_network("max_connections: many"), 3, "network.max_connections", "whole number"},
      {with_network("max_connections: '5'"), 3, "network.max_connections", "in quotes"},
      {with_network("max_connections: 99999999999999999999"), 3, "network.max_connections", "whole number"},
      {with_network("max_connections: 10"), 1, "network.max_connections_per_address", "lower it"},
      {with_network("reactors: 65"), 3, "network.reactors", "from 0 to 64"},
      {with_storage("flap_threshold: 0"), 7, "storage.flap_threshold", "from 1 to 1000"},
      // Truth values.
      {with_storage("verify_on_read: yes"), 7, "storage.verify_on_read", "must be true or false"},
      {with_storage("verify_on_read: 1"), 7, "storage.verify_on_read", "must be true or false"},
      {with_storage("verify_on_read: \"true\""), 7, "storage.verify_on_read", "in quotes"},
      {with_storage("verify_on_read: True"), 7, "storage.verify_on_read", "must be true or false"},
      // Times and percentages.
      {with_network("idle_timeout: 30"), 3, "network.idle_timeout", "a time such as"},
      {with_network("idle_timeout: 30 KiB"), 3, "network.idle_timeout", "a time such as"},
      {with_network("idle_timeout: 0 s"), 3, "network.idle_timeout", "from 1 s"},
      {with_network("idle_timeout: 25 h"), 3, "network.idle_timeout", "to 86400 s"},
      {with_network("idle_timeout: 99999999999999999 h"), 3, "network.idle_timeout", "a time"},
      {with_storage("eviction: { high_watermark: 100 }"), 7, "storage.eviction.high_watermark",
       "from 1 to 99"},
      {with_storage("eviction: { high_watermark: 0.95 }"), 7, "storage.eviction.high_watermark",
       "percentage"},
      {with_storage("eviction: { low_watermark: 95 }"), 7, "storage.eviction.low_watermark", "must be below"},
      {with_storage("eviction: { high_watermark: 50 }"), 7, "storage.eviction.low_watermark",
       "must be below"},
      {with_storage("eviction: on"), 7, "storage.eviction", "must be a map of keys"},
      // Choices and texts.
      {with_storage("sync: sometimes"), 7, "storage.sync", "must be never or always, not \"sometimes\""},
      {with_section("logging", "format: xml"), 8, "logging.format", "must be text or json"},
      {with_section("logging", "level: loud"), 8, "logging.level", "there is no log level \"loud\""},
      {with_section("rdma", "mtu: 1500"), 8, "rdma.mtu", "256, 512, 1024, 2048 or 4096"},
      {with_section("rdma", "service_level: 16"), 8, "rdma.service_level", "from 0 to 15"},
      {with_section("rdma", "devices: mlx5_0"), 8, "rdma.devices", "a list of device names"},
      {with_section("rdma", "devices: []"), 8, "rdma.devices", "a list of device names"},
      {with_section("rdma", "devices: [a, a]"), 8, "rdma.devices", "names a twice"},
      {with_section("rdma", "device: ''"), 8, "rdma.device", "must be text"},
      {minimal + "rdma:\n  device: a\n  devices: [b]\n", 9, "rdma.devices", "keep one"},
      {minimal + "rdma:\n  devices: [a, b]\n  num_worker_threads: 129\n", 9, "rdma.num_worker_threads",
       "more than 256"},
      {with_network("tls_cert: /c"), 3, "network.tls_cert", "is set alone"},
      {with_network("tls_key: /c"), 3, "network.tls_key", "is set alone"},
      {with_network("previous_key: 12"), 3, "network.previous_key", "64 hexadecimal digits"},
      // Addresses.
      {with_network("address: localhost:9900"), 3, "network.address", "numeric address"},
      {with_network("address: 127.0.0.1"), 3, "network.address", "numeric address"},
      {with_network("address: 127.0.0.1:65535"), 3, "network.address", "numeric address"},
      {with_network("address: 127.0.0.1:-1"), 3, "network.address", "numeric address"},
      {with_network("address: ::1:9900"), 3, "network.address", "numeric address"},
      {with_network("address: 1.2.3:9900"), 3, "network.address", "numeric address"},
      {with_network("address: 9900"), 3, "network.address", "numeric address"},
  };
  for (const auto& each : all)
    check_refused(each);
}

CAF_TEST(unknown and misspelt and repeated keys are refused with line and key) {
  check_refused(
      {with_storage("shard_sise: 4 KiB"), 7, "storage.shard_sise", "did you mean storage.shard_size?"});
  check_refused(
      {with_storage("evictoin: { enabled: true }"), 7, "storage.evictoin", "did you mean storage.eviction?"});
  check_refused({with_storage("eviction: { enable: true }"), 7, "storage.eviction.enable",
                 "did you mean storage.eviction.enabled?"});
  check_refused({with_storage("colour: blue"), 7, "storage.colour", "use mode, block_size"});
  check_refused({minimal + "netwrok: {}\n", 7, "netwrok", "did you mean network?"});
  check_refused({minimal + "license: x\n", 7, "license", "is not a key"});
  // Somebody else's file may hold a secret in every line.
  for (const std::string line : {"root:$6$secret:20228:0:99999:7::: x\n", "\"secret words\": 1\n"}) {
    const auto refused = parse_config(line, {}).problem;
    CAF_CHECK_EQUAL(refused.line, 1u);
    CAF_CHECK(refused.sentence.starts_with("(what stands here) is not a key of the configuration: use "));
    CAF_CHECK_EQUAL(refused.sentence.find("secret"), std::string::npos);
  }
  check_refused({minimal + "Storage: {}\n", 7, "Storage", "did you mean storage?"});
  check_refused({with_storage("mode: memory"), 7, "storage.mode", "the first is in line 4"});
  check_refused({minimal + "network: {}\n", 7, "network", "the first is in line 1"});
  check_refused({"storage:\n  mode: file\n  drives:\n    - media: /a\n      media: /b\n", 5,
                 "storage.drives[0].media", "second time"});
  check_refused({"storage:\n  mode: file\n  drives:\n    - media: /a\n      size: 1 GiB\n", 5,
                 "storage.drives[0].size", "use media, max_size"});
  check_refused({with_storage("? [a, b]\n  : 1"), 7, "storage", "plain word"});
}

CAF_TEST(drives are checked one by one) {
  const std::string head = "network: { auth_key: " + key_digits + " }\nstorage:\n  mode: file\n";
  check_refused({head, 2, "storage.drives", "is missing"});
  check_refused({head + "  drives: []\n", 4, "storage.drives", "is missing"});
  check_refused({head + "  drives: /d0\n", 4, "storage.drives", "a list of maps"});
  check_refused({head + "  drives: { media: /d0 }\n", 4, "storage.drives", "a list of maps"});
  check_refused({head + "  drives: [/d0]\n", 4, "storage.drives[0]", "a map with media"});
  check_refused({head + "  drives:\n    - media: /d0\n", 5, "storage.drives[0].max_size", "is missing"});
  check_refused({head + "  drives:\n    - max_size: 1 GiB\n", 5, "storage.drives[0].media", "is missing"});
  check_refused({head + "  drives:\n    - media:\n", 5, "storage.drives[0].media", "has no value"});
  check_refused(
      {head + "  drives:\n    - { media: /d0, max_size: 1 GiB }\n    - { media: /d0, max_size: 1 GiB }\n", 6,
       "storage.drives[1].media", "names \"/d0\""});
  check_refused({head + "  drives: [{ media: /d0, max_size: 1 KiB }]\n", 4, "storage.drives[0].max_size",
                 "from 4 MiB to 16 TiB"});
  std::string many = head + "  drives:\n";
  for (int i = 0; i < 257; ++i)
    many += "    - { media: /d" + std::to_string(i) + ", max_size: 1 GiB }\n";
  check_refused({many, 4, "storage.drives", "more than 256"});
}

CAF_TEST(files that are no configuration are refused) {
  check_refused({"", 0, "", "says nothing"});
  check_refused({"\n# only a comment\n", 0, "", "says nothing"});
  check_refused({"---\n", 0, "", "says nothing"});
  check_refused({"- a\n- b\n", 1, "", "not a list"});
  check_refused({"hello\n", 1, "", "not \"hello\""});
  check_refused({"network:\n  a: [1\n", 3, "", "is not YAML"});
  check_refused({"network: {\n", 2, "", "is not YAML"});
  check_refused({"network:\n\taddress: x\n", 2, "", "is not YAML"});
  check_refused({minimal + "---\n" + minimal, 7, "", "more than one document"});
  check_refused({minimal + std::string(1, '\0'), 7, "", "control character"});
  check_refused({"network: \x1b[31m\n", 1, "", "control character"});
  check_refused({std::string(file_bytes_max + 1, ' '), 0, "", "larger than 1 MiB"});
  check_refused({"network:\n", 1, "network", "must be a map of keys, not nothing"});
  check_refused({"network: ~\n", 1, "network", "must be a map of keys, not nothing"});
  check_refused({with_storage("shard_size:"), 7, "storage.shard_size", "has no value"});
  check_refused({with_storage("shard_size: null"), 7, "storage.shard_size", "has no value"});
}

CAF_TEST(anchors and aliases and merges and tags are refused) {
  check_refused({"network: &a\n  reactors: 1\n", 1, "network", "anchors"});
  check_refused({"a: &x [1]\nb: *x\n", 1, "a", "anchors"});
  check_refused({"network:\n  reactors: *x\n", 2, "", "is not YAML"});
  check_refused({"network:\n  <<: { reactors: 1 }\n", 2, "network", "merge keys"});
  check_refused({with_network("reactors: !!int 3"), 3, "network.reactors", "tags"});
  check_refused({with_network("reactors: !thing 3"), 3, "network.reactors", "tags"});
  check_refused({"network: !!map { reactors: 1 }\n", 1, "network", "tags"});
  // The bomb: nine lists of nine aliases. It is refused at its first anchor.
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 9; ++i)
      bomb += std::string(i == 0 ? "*" : ", *") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  check_refused({bomb, 1, "a", "anchors"});
}

CAF_TEST(deep and wide files are refused without trouble) {
  check_refused({"a:\n  - - - - - - - - - x\n", 2, "a[0][0][0][0][0][0][0]", "nested deeper"});
  check_refused({std::string(file_bytes_max, '['), 0, "", "opening brackets"});
  std::string deep;
  for (int i = 0; i < 100; ++i)
    deep += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  CAF_CHECK(!parse_config(deep, {}).ok());
  std::string wide = "network:\n";
  for (int i = 0; i < 3000; ++i)
    wide += "  k" + std::to_string(i) + ": 1\n";
  check_refused({wide, 2, "network.k0", "is not a key"});
}

CAF_TEST(the key comes from the file or the environment and the environment wins) {
  const std::string text = "storage:\n  mode: file\n  drives: [{ media: /d0, max_size: 1 GiB }]\n";
  check_refused({text, 0, "network.auth_key", "openssl rand -hex 32"});
  const auto bytes = [](const server_config& c) {
    const auto view = c.network.auth_key->secret_bytes();
    return std::vector<std::byte>(view.begin(), view.end());
  };
  const auto of_file = bytes(accepted(minimal));
  CAF_CHECK(bytes(accepted(text, {other_digits})) != of_file);
  CAF_CHECK(bytes(accepted(minimal, {other_digits})) == bytes(accepted(text, {other_digits})));
  CAF_CHECK(bytes(accepted(minimal, {""})) == of_file);
}

CAF_TEST(weak and broken keys are refused and never shown) {
  std::string repeated;
  for (int i = 0; i < 16; ++i)
    repeated += "ab12";
  std::string too_long = key_digits + "00";
  for (const auto& digits : {std::string(64, '0'), std::string(64, 'f'), repeated, key_digits.substr(1),
                             too_long, key_digits.substr(0, 63) + "g",
                             std::string("0x") + key_digits.substr(2), key_digits + " ", std::string("")}) {
    const auto in_file = parse_config("network:\n  auth_key: \"" + digits + "\"\n", {});
    CAF_CHECK(!in_file.ok());
    CAF_CHECK_EQUAL(in_file.problem.line, 2u);
    CAF_CHECK_EQUAL(in_file.problem.key, "network.auth_key");
    if (digits.size() > 8)
      CAF_CHECK(in_file.problem.sentence.find(digits.substr(0, 8)) == std::string::npos);
    if (digits.empty())
      continue;
    const auto in_environment = parse_config(minimal, {digits});
    CAF_CHECK(!in_environment.ok());
    CAF_CHECK(in_environment.problem.sentence.starts_with("MEMKV_AUTH_KEY must hold a key"));
    CAF_CHECK(in_environment.problem.sentence.find(digits.substr(0, 8)) == std::string::npos);
  }
}

CAF_TEST(a file with a key that others can read is warned about) {
  const auto path =
      (std::filesystem::temp_directory_path() / ("memkv_config." + std::to_string(::getpid()))).string();
  std::ofstream(path) << minimal;
  CAF_REQUIRE_EQUAL(::chmod(path.c_str(), 0640), 0);
  auto loaded = load_config(path, {});
  CAF_CHECK(loaded.ok());
  CAF_REQUIRE_EQUAL(loaded.warnings.size(), 1u);
  CAF_CHECK(loaded.warnings[0].find("chmod 600") != std::string::npos);
  CAF_REQUIRE_EQUAL(::chmod(path.c_str(), 0600), 0);
  loaded = load_config(path, {});
  CAF_CHECK(loaded.ok() && loaded.warnings.empty());
  std::filesystem::remove(path);
}

CAF_TEST(files that cannot be read are refused by name) {
  auto loaded = load_config("/nonexistent/config.yaml", {});
  CAF_CHECK(!loaded.ok());
  CAF_CHECK_EQUAL(
      describe("/nonexistent/config.yaml", loaded.problem),
      "/nonexistent/config.yaml: the file cannot be opened (No such file or directory): name another with "
      "--config");
  const auto pipe =
      (std::filesystem::temp_directory_path() / ("memkv_config_pipe." + std::to_string(::getpid()))).string();
  CAF_REQUIRE_EQUAL(::mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& path : {std::string("/"), std::string("/dev/zero"), pipe})
    CAF_CHECK_EQUAL(describe(path, load_config(path, {}).problem),
                    path + ": the file cannot be opened (it is no regular file): name another with --config");
  std::filesystem::remove(pipe);
  const auto large = pipe + ".yaml";
  std::ofstream(large) << std::string((1U << 20U) + 1, '#');
  CAF_CHECK(load_config(large, {}).problem.sentence.find("larger than 1 MiB") != std::string::npos);
  std::filesystem::remove(large);
}

CAF_TEST(random damage to a file is accepted or refused with a sentence) {
  const char* wanted = std::getenv("MEMKV_TEST_SEED");
  const std::uint64_t seed = wanted == nullptr ? std::random_device{}() : std::strtoull(wanted, nullptr, 10);
  CAF_MESSAGE("MEMKV_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::string pieces[] = {"\n", ":",  " ",  "  ",    "-",  "[",    "]", "{",  "}", "&a ",
                                "*a", "!!", "|",  ">",     "'",  "\"",   "#", "? ", ",", "%",
                                "@",  "\t", "\\", "---\n", "<<", "\xff", "~", "0",  "9"};
  for (int round = 0; round < 3000; ++round) {
    std::string text = minimal;
    for (auto count = random() % 6 + 1; count > 0; --count) {
      const auto at = random() % (text.size() + 1);
      if (random() % 3 == 0 && at < text.size())
        text.erase(at, random() % 8 + 1);
      else
        text.insert(at, pieces[random() % std::size(pieces)]);
    }
    const auto result = parse_config(text, {});
    if (!result.ok() &&
        (result.problem.sentence.find('\n') != std::string::npos ||
         result.problem.line > static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 2))
      CAF_ERROR("seed " << seed << " round " << round << ": " << result.problem.sentence << "\nfor:\n"
                        << text);
  }
  CAF_CHECK(true);
}
