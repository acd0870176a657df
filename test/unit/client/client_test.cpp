#define CAF_SUITE client

#include "client/client.hpp"
#include "test/unit/client/fake_server.hpp"
#include "wire/bytes.hpp"
#include "wire/crc32c.hpp"
#include "wire/placement.hpp"

#include <caf/test/unit_test.hpp>

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <thread>

using namespace memkv;
using client::errc;
using client::item_result;
using test::fake_frame;
using test::fake_server;

namespace {

using bytes = std::vector<std::byte>;

bytes filled(std::size_t length, unsigned first) {
  bytes result(length);
  for (std::size_t i = 0; i < length; ++i) {
    result[i] = static_cast<std::byte>((first + i * 7 + i / 251) & 0xFFU);
  }
  return result;
}

client::options options_for(const std::vector<std::string>& servers) {
  client::options chosen;
  chosen.servers = servers;
  chosen.transport = client::transport_choice::tcp;
  chosen.auth_key = wire::shared_key::parse(fake_server::default_key);
  chosen.num_connections = 2;
  chosen.seed = 7;
  chosen.log = [](std::string_view) {};
  return chosen;
}

std::unique_ptr<client::client> made(client::options chosen) {
  client::status problem;
  auto result = client::client::make(std::move(chosen), problem);
  CAF_REQUIRE_EQUAL(problem.text, "");
  return result;
}

/// One honest server and a client of it.
struct pair {
  fake_server server;
  std::unique_ptr<client::client> kv;
  explicit pair(client::options chosen = options_for({})) {
    server.start();
    chosen.servers = {server.address()};
    kv = made(std::move(chosen));
  }
  errc put(std::string_view key, const bytes& value) { return kv->put(key, value).code; }
  /// The value, or nothing when it is not exactly what a get says it is.
  bytes get(std::string_view key, std::size_t room) {
    bytes target(room);
    const item_result result = kv->get(key, target);
    CAF_CHECK_EQUAL(name(result.code), "ok");
    target.resize(result.length);
    return target;
  }
};

std::vector<std::string_view> views(const std::vector<std::string>& texts) {
  return {texts.begin(), texts.end()};
}

std::vector<std::string> numbered(std::string_view stem, std::size_t count) {
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < count; ++i) {
    texts.push_back(std::string(stem) + std::to_string(i));
  }
  return texts;
}

std::uint64_t test_seed() {
  const char* chosen = std::getenv("MEMKV_TEST_SEED");
  return chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device{}();
}

/// The answer that a server gives which had no room for the request at that moment.
void refuse_as_busy(fake_frame& frame) {
  frame.header.status_code = static_cast<std::uint8_t>(wire::status::busy);
  frame.header.flags |= wire::flags::last;
  frame.header.value_length = 0;
  frame.header.value_offset = 0;
  frame.variable.clear();
  frame.payload.clear();
}

/// How many sockets of this process are connected to it.
std::size_t sockets_to(const fake_server& server) {
  const std::string address = server.address();
  const auto port = static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
  std::size_t found = 0;
  for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
    sockaddr_in peer{};
    socklen_t length = sizeof peer;
    if (::getpeername(std::stoi(each.path().filename()), reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
        peer.sin_family == AF_INET && peer.sin_port == htons(port)) {
      ++found;
    }
  }
  return found;
}

/// Waits, up to a minute, for something that another thread brings about.
template <class Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 60'000; ++i) {
    if (condition()) {
      return true;
    }
    ::poll(nullptr, 0, 1);
  }
  return false;
}

} // namespace

CAF_TEST(a block comes back as it was put) {
  pair one;
  for (const std::size_t length : {0U, 1U, 4096U, 32768U, 32769U, 1048576U, 5000001U}) {
    const bytes value = filled(length, 3);
    CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
    CAF_CHECK(one.get("key", length + 1) == value);
  }
  CAF_CHECK_EQUAL(one.server.blocks(), 1u);
}

CAF_TEST(a get of a key that is not there is a miss without a cause) {
  pair one;
  bytes target(8);
  const item_result result = one.kv->get("nothing", target);
  CAF_CHECK_EQUAL(result.code, errc::not_found);
  CAF_CHECK_EQUAL(result.cause, errc::ok);
}

CAF_TEST(a range of a value is cut at its end and refused behind it) {
  pair one;
  const bytes value = filled(1000, 9);
  CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
  bytes target(1000);
  const auto ranged = [&](std::uint64_t offset, std::uint64_t length) {
    const client::get_item item{"key", target, offset, length};
    item_result result;
    one.kv->get(std::span(&item, 1), std::span(&result, 1));
    return result;
  };
  item_result result = ranged(10, 20);
  CAF_CHECK_EQUAL(result.length, 20u);
  CAF_CHECK_EQUAL(result.value_length, 1000u);
  CAF_CHECK(std::equal(target.begin(), target.begin() + 20, value.begin() + 10));
  result = ranged(990, 500);
  CAF_CHECK_EQUAL(result.length, 10u);
  result = ranged(1000, 0);
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK_EQUAL(result.length, 0u);
  result = ranged(1001, 0);
  CAF_CHECK_EQUAL(result.code, errc::out_of_range);
  CAF_CHECK_EQUAL(result.value_length, 1000u);
}

CAF_TEST(too small a target is told the length of the value and one of no bytes tells empty from full) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(100, 1)), errc::ok);
  CAF_CHECK_EQUAL(one.put("one", filled(1, 1)), errc::ok);
  CAF_CHECK_EQUAL(one.put("empty", {}), errc::ok);
  bytes target(99);
  item_result result = one.kv->get("key", target);
  CAF_CHECK_EQUAL(result.code, errc::buffer_too_small);
  CAF_CHECK_EQUAL(result.value_length, 100u);
  CAF_CHECK_EQUAL(one.kv->get("one", {}).code, errc::buffer_too_small);
  CAF_CHECK_EQUAL(one.kv->get("empty", {}).code, errc::ok);
  const client::get_item items[] = {{"one", {}}, {"empty", {}}, {"key", target}, {"nothing", target}};
  item_result results[4];
  one.kv->get(items, results);
  CAF_CHECK_EQUAL(results[0].code, errc::buffer_too_small);
  CAF_CHECK_EQUAL(results[1].code, errc::ok);
  CAF_CHECK_EQUAL(results[2].code, errc::buffer_too_small);
  CAF_CHECK_EQUAL(results[2].value_length, 100u);
  CAF_CHECK_EQUAL(results[3].code, errc::not_found);
}

CAF_TEST(small items of one call share frames and large ones travel alone) {
  pair one;
  const std::vector<std::string> keys = numbered("k", 300);
  std::vector<bytes> values;
  std::vector<client::put_item> puts;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    values.push_back(filled(i % 50 == 0 ? 200'000 : 700 + i, static_cast<unsigned>(i)));
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    puts.push_back({keys[i], values[i]});
  }
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  CAF_CHECK_EQUAL(one.server.blocks(), 300u);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_put), 6u);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_batch_put), 1u);
  std::vector<bytes> targets;
  std::vector<client::get_item> gets;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    targets.emplace_back(values[i].size());
    gets.push_back({keys[i], targets[i]});
  }
  for (const std::uint32_t part : {1U << 20U, 1000U, 7U}) {
    one.server.part_bytes = part;
    for (bytes& target : targets) {
      std::fill(target.begin(), target.end(), std::byte{0});
    }
    if (part == 7) { // a frame a handful of bytes: the small ones suffice
      gets.resize(40);
      gets.erase(gets.begin());
      results.resize(gets.size());
    }
    CAF_CHECK_EQUAL(one.kv->get(gets, results), errc::ok);
    const std::size_t first = part == 7 ? 1 : 0;
    for (std::size_t i = 0; i < gets.size(); ++i) {
      CAF_CHECK(targets[i + first] == values[i + first]);
      CAF_CHECK_EQUAL(results[i].length, values[i + first].size());
    }
  }
}

CAF_TEST(hundreds of keys are asked for and deleted in one frame) {
  pair one;
  const std::vector<std::string> keys = numbered("key-", 500);
  for (std::size_t i = 0; i < keys.size(); i += 2) {
    CAF_CHECK_EQUAL(one.put(keys[i], filled(i, 0)), errc::ok);
  }
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(one.kv->exists(views(keys), results), errc::not_found);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CAF_CHECK_EQUAL(results[i].code, i % 2 == 0 ? errc::ok : errc::not_found);
    CAF_CHECK_EQUAL(results[i].value_length, i % 2 == 0 ? i : 0u);
  }
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::batch_exists), 1u);
  CAF_CHECK_EQUAL(one.kv->remove(views(keys), results), errc::not_found);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_batch_delete), 1u);
  CAF_CHECK_EQUAL(one.server.blocks(), 0u);
}

CAF_TEST(more keys than a frame takes go in several frames) {
  pair one;
  std::vector<std::string> keys = numbered(std::string(900, 'x'), 5000);
  CAF_CHECK_EQUAL(one.put(keys[4999], filled(5, 0)), errc::ok);
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(one.kv->exists(views(keys), results), errc::not_found);
  CAF_CHECK_EQUAL(results[4999].code, errc::ok);
  CAF_CHECK_GREATER(one.server.requests(wire::opcode::batch_exists), 4u);
}

CAF_TEST(a prefix ends at the first gap) {
  pair one;
  const std::vector<std::string> keys = numbered("chain-", 10);
  for (const std::size_t i : {0U, 1U, 2U, 4U}) {
    CAF_CHECK_EQUAL(one.put(keys[i], filled(100 + i, 0)), errc::ok);
  }
  std::vector<std::uint64_t> lengths(keys.size());
  client::prefix_result result = one.kv->prefix(views(keys), lengths);
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK_EQUAL(result.matched, 3u);
  CAF_CHECK_EQUAL(result.total_bytes, 303u);
  CAF_CHECK_EQUAL(lengths[2], 102u);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::prefix), 1u);
  result = one.kv->prefix(views({"nothing"}));
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK_EQUAL(result.matched, 0u);
}

CAF_TEST(lookup and stat tell what the server knows) {
  pair one;
  const bytes value = filled(12345, 77);
  CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
  const item_result found = one.kv->lookup("key");
  CAF_CHECK_EQUAL(found.value_length, 12345u);
  CAF_CHECK_EQUAL(found.crc32c, wire::crc32c(value));
  CAF_CHECK_GREATER(found.generation, 0u);
  const auto stats = one.kv->stat();
  CAF_REQUIRE_EQUAL(stats.size(), 1u);
  CAF_CHECK_EQUAL(stats[0].code, errc::ok);
  CAF_CHECK_EQUAL(stats[0].blocks, 1u);
  CAF_CHECK_EQUAL(stats[0].server, one.server.address());
}

CAF_TEST(put if absent leaves a block that is there) {
  pair one;
  CAF_CHECK_EQUAL(one.kv->put("key", filled(3, 1), true).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->put("key", filled(3, 2), true).code, errc::already_exists);
  CAF_CHECK(one.get("key", 3) == filled(3, 1));
}

CAF_TEST(keys of one namespace are not seen in another) {
  fake_server server;
  server.start();
  client::options chosen = options_for({server.address()});
  chosen.namespace_name = "tenant-a";
  auto a = made(chosen);
  chosen.namespace_name = "tenant-b";
  auto b = made(chosen);
  CAF_CHECK_EQUAL(a->put("key", filled(3, 1)).code, errc::ok);
  CAF_CHECK(server.has("key", "tenant-a"));
  CAF_CHECK_EQUAL(b->exists("key").code, errc::not_found);
}

CAF_TEST(keys and values outside the limits are refused without asking) {
  pair one;
  const std::string long_key(1025, 'k');
  CAF_CHECK_EQUAL(one.put("", filled(1, 0)), errc::invalid_argument);
  CAF_CHECK_EQUAL(one.put(long_key, filled(1, 0)), errc::invalid_argument);
  CAF_CHECK_EQUAL(one.put(std::string(1024, 'k'), filled(1, 0)), errc::ok);
  const std::vector<std::string> keys = {"a", ""};
  std::vector<item_result> results(2);
  one.kv->exists(views(keys), results);
  CAF_CHECK_EQUAL(results[0].code, errc::not_found);
  CAF_CHECK_EQUAL(results[1].code, errc::invalid_argument);
  results.resize(1);
  CAF_CHECK_EQUAL(one.kv->exists(views(keys), results), errc::invalid_argument);
}

CAF_TEST(keyed digests are used when asked for and when the server wants them) {
  for (const bool asked : {true, false}) {
    client::options chosen = options_for({});
    chosen.digest = asked ? client::digest_choice::keyed : client::digest_choice::crc32c;
    pair one(chosen);
    one.server.keyed_required = !asked;
    one.server.part_bytes = 1000;
    const bytes value = filled(100'000, 5);
    CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
    CAF_CHECK(one.get("key", value.size()) == value);
    CAF_CHECK_EQUAL(one.put("small", filled(10, 1)), errc::ok);
    bytes first(10);
    bytes second(10);
    const client::get_item items[] = {{"small", first}, {"small", second}};
    item_result results[2];
    CAF_CHECK_EQUAL(one.kv->get(items, results), errc::ok);
    CAF_CHECK(second == filled(10, 1));
  }
}

CAF_TEST(answers may come in any order and their parts mixed) {
  pair one;
  const std::vector<std::string> keys = numbered("k", 8);
  std::vector<bytes> values;
  std::vector<bytes> targets;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    values.push_back(filled(100'000 + 9'000 * i, static_cast<unsigned>(i)));
    targets.emplace_back(values.back().size());
    CAF_CHECK_EQUAL(one.put(keys[i], values[i]), errc::ok);
  }
  one.server.part_bytes = 10'000;
  one.server.gather = 8;
  std::vector<client::get_item> gets;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    gets.push_back({keys[i], targets[i]});
  }
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(one.kv->get(gets, results), errc::ok);
  CAF_CHECK(targets == values);
}

CAF_TEST(a value comes whole whatever the length of its parts and of its target) {
  pair one;
  for (const std::size_t length : {20'000, 300'000, 600'000}) {
    const bytes value = filled(length, static_cast<unsigned>(length));
    CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
    for (const std::uint32_t part : {97U, 176U, 5'000U, 65'537U, 262'144U, 1U << 20U}) {
      one.server.part_bytes = part;
      for (const std::size_t room : {length, length + 1, length + 300'000}) {
        CAF_CHECK(one.get("key", room) == value);
      }
    }
  }
  CAF_CHECK_EQUAL(one.kv->count().connections_closed_by_check, 0u);
}

CAF_TEST(bytes that nobody asked for end the connection and reach no value) {
  pair one;
  const bytes value = filled(50'000, 9);
  CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
  // Behind a value that is shorter than its target.
  one.server.shape = [](fake_frame& frame) { frame.behind = 5'000; };
  CAF_CHECK(one.get("key", 100'000) == value);
  one.server.shape = nullptr;
  CAF_CHECK(one.get("key", value.size()) == value);
  CAF_CHECK_EQUAL(one.kv->count().connections_closed_by_check, 1u);
  // Behind a refusal, which has no value.
  one.server.shape = [](fake_frame& frame) { frame.behind = 5'000; };
  bytes target(100'000);
  CAF_CHECK_EQUAL(one.kv->get("another key", target).code, errc::not_found);
  one.server.shape = nullptr;
  CAF_CHECK(one.get("key", value.size()) == value);
  CAF_CHECK_EQUAL(one.kv->count().connections_closed_by_check, 2u);
}

CAF_TEST(no more requests are on their way than the server allows) {
  pair one;
  one.server.in_flight_max = 3;
  const std::vector<std::string> keys = numbered("k", 20);
  std::vector<bytes> values(20, filled(40'000, 1));
  std::vector<client::put_item> puts;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    puts.push_back({keys[i], values[i]});
  }
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  // The server waits for four requests before it answers, the client sends three: only the deadline ends
  // that.
  one.server.gather = 4;
  for (item_result& result : results) {
    result = {};
  }
  one.kv->put(std::span(puts).first(4), std::span(results).first(4), {.deadline_ms = 100});
  CAF_CHECK_EQUAL(results[0].code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(results[3].code, errc::deadline_exceeded);
}

CAF_TEST(an answer that fails any check closes the connection and gives nothing to the caller) {
  struct scenario {
    const char* what;
    std::function<void(fake_frame&)> shape;
  };
  const scenario scenarios[] = {
      {"mac", [](fake_frame& frame) { frame.damage_mac = true; }},
      {"tag", [](fake_frame& frame) { frame.damage_tag = true; }},
      {"time", [](fake_frame& frame) { frame.clock_offset_ns = 61'000'000'000; }},
      {"time behind", [](fake_frame& frame) { frame.clock_offset_ns = -61'000'000'000; }},
      {"direction", [](fake_frame& frame) { frame.header.direction = wire::direction::request; }},
      {"version", [](fake_frame& frame) { frame.header.version = 2; }},
      {"id", [](fake_frame& frame) { frame.header.request_id += 1000; }},
      {"opcode", [](fake_frame& frame) { frame.header.opcode = wire::opcode::stat; }},
      {"part", [](fake_frame& frame) { frame.header.part_number += 1; }},
      {"payload", [](fake_frame& frame) { frame.damage_payload = true; }},
      {"value offset", [](fake_frame& frame) { frame.header.value_offset += 1; }},
      {"value length", [](fake_frame& frame) { frame.header.value_length = 1U << 30U; }},
      {"variable part", [](fake_frame& frame) { frame.variable.push_back(std::byte{0}); }},
      {"short", [](fake_frame& frame) { frame.payload.resize(10); }},
      {"cut", [](fake_frame& frame) { frame.close_after = true; }},
  };
  for (const scenario& tried : scenarios) {
    pair one;
    const bytes value = filled(50'000, 4);
    CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
    const std::uint64_t connections = one.server.connections();
    one.server.shape = tried.shape;
    bytes target(value.size());
    const item_result result = one.kv->get("key", target);
    CAF_MESSAGE(tried.what);
    CAF_CHECK_EQUAL(result.code, errc::not_found);
    CAF_CHECK_NOT_EQUAL(result.cause, errc::ok);
    CAF_CHECK_EQUAL(result.length, 0u);
    // The get was tried once more on a new connection, not again and again.
    CAF_CHECK_EQUAL(one.server.connections(), connections + 1);
    CAF_CHECK_EQUAL(one.kv->count().requests_retried, 1u);
    one.server.shape = nullptr;
    CAF_CHECK(one.get("key", value.size()) == value);
  }
}

CAF_TEST(a batch answer that fails a check closes the connection) {
  struct scenario {
    const char* what;
    std::function<void(std::vector<std::byte>&)> spoil; // of the variable part: 8 bytes, then slices of 48
  };
  const scenario scenarios[] = {
      {"item beyond the request", [](auto& body) { body[8] = std::byte{9}; }},
      {"item twice", [](auto& body) { body[8 + 48] = std::byte{0}; }},
      {"offset", [](auto& body) { body[8 + 16] = std::byte{1}; }},
      {"digest", [](auto& body) { body[8 + 32] ^= std::byte{1}; }},
      {"not last", [](auto& body) { body[8 + 5] = std::byte{0}; }},
      {"length", [](auto& body) { body[8 + 24] = std::byte{1}; }},
  };
  for (const scenario& tried : scenarios) {
    pair one;
    CAF_CHECK_EQUAL(one.put("a", filled(100, 1)), errc::ok);
    CAF_CHECK_EQUAL(one.put("b", filled(100, 2)), errc::ok);
    one.server.shape = [&](fake_frame& frame) { tried.spoil(frame.variable); };
    bytes first(100);
    bytes second(100);
    const client::get_item items[] = {{"a", first}, {"b", second}};
    item_result results[2];
    one.kv->get(items, results);
    CAF_MESSAGE(tried.what);
    CAF_CHECK(results[0].cause == errc::bad_reply || results[1].cause == errc::bad_reply);
    CAF_CHECK_GREATER(one.kv->count().connections_closed_by_check, 0u);
    one.server.shape = nullptr;
    CAF_CHECK_EQUAL(one.kv->get(items, results), errc::ok);
  }
}

CAF_TEST(an empty last slice does not make an item right whose bytes are wrong) {
  pair one;
  CAF_CHECK_EQUAL(one.put("a", filled(100, 1)), errc::ok);
  CAF_CHECK_EQUAL(one.put("b", filled(100, 2)), errc::ok);
  one.server.shape = [](fake_frame& frame) {
    std::vector<std::byte>& body = frame.variable; // 8 bytes, then slices of 48
    CAF_REQUIRE_EQUAL(body.size(), 8 + 2 * 48u);
    body[0] = std::byte{3};
    body[8 + 5] = std::byte{0};         // not the last one of the first item
    std::vector<std::byte> empty(48);   // of the first item too
    empty[5] = std::byte{1};            // the last one
    empty[8] = empty[16] = body[8 + 8]; // at the end of the value
    body.insert(body.begin() + 8 + 48, empty.begin(), empty.end());
    frame.payload[50] ^= std::byte{1};
  };
  bytes first(100);
  bytes second(100);
  const client::get_item items[] = {{"a", first}, {"b", second}};
  item_result results[2];
  one.kv->get(items, results);
  CAF_CHECK_EQUAL(results[0].code, errc::not_found);
  CAF_CHECK_EQUAL(results[0].cause, errc::bad_reply);
}

CAF_TEST(a put whose answer is lost is not repeated and says that it may have happened) {
  pair one;
  CAF_CHECK_EQUAL(one.put("warm", filled(1, 1)), errc::ok);
  one.server.shape = [](fake_frame& frame) { frame.damage_mac = true; };
  CAF_CHECK_EQUAL(one.put("key2", filled(50'000, 4)), errc::bad_reply);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_put), 2u);
  CAF_CHECK_EQUAL(one.kv->count().requests_retried, 0u);
}

CAF_TEST(what a server was too busy for is asked for again) {
  pair one;
  const bytes value = filled(50'000, 4);
  std::atomic<int> busy{2};
  one.server.shape = [&](fake_frame& frame) {
    if (busy > 0) {
      --busy;
      refuse_as_busy(frame);
    }
  };
  CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_put), 3u);
  CAF_CHECK_EQUAL(one.kv->count().busy_retried, 2u);
  busy = 1;
  CAF_CHECK(one.get("key", value.size()) == value);
  busy = 1;
  CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::ok);
  busy = 1;
  CAF_CHECK_EQUAL(one.kv->prefix(views({"key"})).matched, 1u);
  busy = 1;
  const std::vector<client::server_stat> stats = one.kv->stat();
  CAF_CHECK_EQUAL(stats[0].code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->count().busy_retried, 6u);
  CAF_CHECK_EQUAL(one.kv->count().requests_retried, 0u);
  CAF_CHECK_EQUAL(one.server.connections(), 1u);
}

CAF_TEST(of a batch only the items that were refused as busy are asked for again) {
  pair one;
  const std::vector<std::string> keys = numbered("k", 5);
  std::vector<bytes> values;
  std::vector<client::put_item> puts;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    values.push_back(filled(1000 + i, static_cast<unsigned>(i)));
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    puts.push_back({keys[i], values[i]});
  }
  std::vector<std::size_t> answered; // items of each answer
  std::mutex guard;
  std::atomic<bool> spoil{true};
  one.server.shape = [&](fake_frame& frame) {
    const std::lock_guard lock(guard);
    const std::size_t item_bytes = frame.header.opcode == wire::opcode::tcp_batch_put ? 16 : 48;
    answered.push_back((frame.variable.size() - 8) / item_bytes);
    if (!spoil.exchange(false)) {
      return;
    }
    if (frame.header.opcode == wire::opcode::tcp_batch_put) {
      for (const std::size_t item : {1U, 3U}) {
        std::fill_n(frame.variable.begin() + static_cast<std::ptrdiff_t>(8 + 16 * item), 16, std::byte{0});
        frame.variable[8 + 16 * item] = static_cast<std::byte>(wire::status::busy);
      }
      return;
    }
    // The last slice, of an item that the server has bytes of, says busy instead.
    std::byte* const slice = frame.variable.data() + frame.variable.size() - 48;
    const auto length = wire::load_le<std::uint32_t>(slice + 24);
    frame.payload.resize(frame.payload.size() - length);
    slice[4] = static_cast<std::byte>(wire::status::busy);
    std::fill(slice + 8, slice + 48, std::byte{0});
  };
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  CAF_CHECK(answered == std::vector<std::size_t>({5, 2}));
  for (const item_result& result : results) {
    CAF_CHECK_GREATER(result.generation, 0u);
  }
  std::vector<bytes> targets;
  std::vector<client::get_item> gets;
  for (const bytes& value : values) {
    targets.emplace_back(value.size());
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    gets.push_back({keys[i], targets[i]});
  }
  answered.clear();
  spoil = true;
  CAF_CHECK_EQUAL(one.kv->get(gets, results), errc::ok);
  CAF_CHECK(answered == std::vector<std::size_t>({5, 1}));
  CAF_CHECK(targets == values);
  CAF_CHECK_EQUAL(one.kv->count().busy_retried, 2u);
}

CAF_TEST(a server that stays busy is asked a bounded number of times and never beyond the deadline) {
  constexpr std::uint32_t retries = 8;
  client::options chosen = options_for({});
  chosen.busy_retries = retries;
  pair one(chosen);
  CAF_CHECK_EQUAL(one.put("key", filled(10, 1)), errc::ok);
  one.server.shape = refuse_as_busy;
  CAF_CHECK_EQUAL(one.kv->put("key", filled(10, 2), false, {.deadline_ms = 2000}).code, errc::busy);
  const auto asked = one.server.requests(wire::opcode::tcp_put) - 1;
  CAF_CHECK_GREATER(asked, 1u);
  CAF_CHECK_LESS_OR_EQUAL(asked, std::uint64_t{retries} + 1);
  CAF_CHECK_EQUAL(one.kv->count().busy_retried, asked - 1);
  // The connection was not given up for it.
  CAF_CHECK_EQUAL(one.kv->count().connections_closed_by_deadline, 0u);
  CAF_CHECK_EQUAL(one.server.connections(), 1u);
  // With time enough: after the last of its pauses, which are 2.3 s together, more or less a quarter.
  const auto begin = std::chrono::steady_clock::now();
  bytes target(10);
  const item_result got = one.kv->get("key", target);
  const auto passed = std::chrono::steady_clock::now() - begin;
  CAF_CHECK_EQUAL(got.code, errc::busy);
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_get), std::uint64_t{retries} + 1);
  CAF_CHECK(passed > std::chrono::milliseconds(1000));
  chosen.busy_retries = 0;
  chosen.servers = {one.server.address()};
  auto impatient = made(chosen);
  CAF_CHECK_EQUAL(impatient->exists("key").code, errc::busy);
  CAF_CHECK_EQUAL(impatient->count().busy_retried, 0u);
}

CAF_TEST(calls that wait for a busy server end with their client) {
  pair one;
  one.server.shape = refuse_as_busy;
  const bytes value = filled(10, 1);
  const client::put_item item{"key", value};
  item_result result;
  std::atomic<int> done{0};
  CAF_CHECK(
      one.kv
          ->submit_put(std::span(&item, 1), std::span(&result, 1), client::completion::call([&] { ++done; }))
          .ok());
  CAF_CHECK(comes_true([&] { return one.kv->count().busy_retried > 3; }));
  one.kv.reset();
  CAF_CHECK_EQUAL(done.load(), 1);
  CAF_CHECK_EQUAL(result.code, errc::closed);
}

CAF_TEST(a server that recovers serves asynchronous calls that waited for it) {
  pair one;
  std::atomic<bool> busy{true};
  one.server.shape = [&](fake_frame& frame) {
    if (busy) {
      refuse_as_busy(frame);
    }
  };
  const bytes value = filled(10, 1);
  const std::vector<std::string> keys = numbered("k", 20);
  std::vector<client::put_item> items;
  std::vector<item_result> results(keys.size());
  for (const std::string& key : keys) {
    items.push_back({key, value});
  }
  std::atomic<std::size_t> done{0};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CAF_CHECK(one.kv
                  ->submit_put(std::span(items).subspan(i, 1), std::span(results).subspan(i, 1),
                               client::completion::call([&] { ++done; }))
                  .ok());
  }
  CAF_CHECK(comes_true([&] { return one.kv->count().busy_retried > keys.size(); }));
  busy = false;
  CAF_CHECK(comes_true([&] { return done == keys.size(); }));
  for (const item_result& result : results) {
    CAF_CHECK_EQUAL(result.code, errc::ok);
  }
  CAF_CHECK_EQUAL(one.server.blocks(), keys.size());
}

CAF_TEST(an error says which server it was and a plain miss does not) {
  pair one;
  CAF_CHECK_EQUAL(one.kv->explain("key", {.code = errc::not_found}), sentence(errc::not_found));
  one.server.stop();
  const item_result put = one.kv->put("key", filled(1, 1));
  CAF_CHECK_EQUAL(one.kv->explain("key", put),
                  one.server.address() + ": " + std::string(sentence(errc::server_down)));
  const item_result missed = one.kv->exists("key");
  CAF_CHECK_EQUAL(one.kv->explain("key", missed),
                  one.server.address() + ": " + std::string(sentence(errc::server_down)));
}

CAF_TEST(a server that was started again is found again) {
  pair one;
  const bytes value = filled(70'000, 4);
  CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
  one.server.stop();
  one.server.start();
  CAF_CHECK(one.get("key", value.size()) == value);
}

CAF_TEST(a server that is down makes misses and errors at once and comes back by itself) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(10, 4)), errc::ok);
  one.server.stop();
  const auto begin = std::chrono::steady_clock::now();
  bytes target(10);
  for (int i = 0; i < 20; ++i) {
    const item_result got = one.kv->get("key", target);
    CAF_CHECK_EQUAL(got.code, errc::not_found);
    CAF_CHECK_EQUAL(got.cause, errc::server_down);
    CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::not_found);
    CAF_CHECK_EQUAL(one.put("key", filled(10, 5)), errc::server_down);
    CAF_CHECK_EQUAL(one.kv->remove("key").code, errc::server_down);
    const client::prefix_result prefix = one.kv->prefix(views({"key"}));
    CAF_CHECK_EQUAL(prefix.matched, 0u);
    CAF_CHECK_EQUAL(prefix.cause, errc::server_down);
  }
  CAF_CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
  const std::vector<client::server_stat> stats = one.kv->stat();
  CAF_CHECK_EQUAL(stats[0].code, errc::server_down);
  one.server.start();
  CAF_CHECK(comes_true([&] { return one.kv->get("key", target).code == errc::ok; }));
}

CAF_TEST(a client may be made before its server) {
  fake_server server;
  auto kv = made(options_for({server.address()}));
  CAF_CHECK_EQUAL(kv->put("key", filled(1, 1)).code, errc::server_down);
  server.start();
  CAF_CHECK(comes_true([&] { return kv->put("key", filled(1, 1)).code == errc::ok; }));
}

CAF_TEST(a server is found by its name) {
  fake_server server;
  server.start();
  const std::string address = server.address();
  auto kv = made(options_for({"localhost" + address.substr(address.rfind(':'))}));
  // Where a resolver is slow, the first calls may find the server down.
  CAF_CHECK(comes_true([&] { return kv->put("key", filled(1, 1)).code == errc::ok; }));
  auto none = made(options_for({"no-such-host.invalid:1"}));
  CAF_CHECK_EQUAL(none->put("key", filled(1, 1)).code, errc::server_down);
}

CAF_TEST(connections begin at the local addresses of the family that the server has) {
  client::options chosen = options_for({});
  chosen.bind_addresses = {"127.0.0.5", "127.0.0.6"};
  // The address of another family is never used for this server, nor does it make it seem to be down.
  const int six = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  if (six >= 0 && ::bind(six, reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback) == 0) {
    chosen.bind_addresses = {"::1", "127.0.0.5", "::1", "127.0.0.6", "::1"};
  }
  ::close(six);
  pair one(chosen);
  for (int i = 0; i < 6; ++i) {
    CAF_CHECK_EQUAL(one.put("key", filled(1, 1)), errc::ok);
    one.server.stop();
    one.server.start();
    bytes target(1);
    CAF_CHECK(comes_true([&] { return one.kv->get("key", target).code == errc::ok; }));
  }
  CAF_CHECK(one.server.peers() == std::set<std::string>({"127.0.0.5", "127.0.0.6"}));
  client::status problem;
  chosen.servers = {one.server.address()};
  chosen.bind_addresses = {"192.0.2.1"};
  CAF_CHECK(client::client::make(chosen, problem) == nullptr);
  CAF_CHECK_EQUAL(problem.text.find("bind_addresses: '192.0.2.1' is not"), 0u);
}

CAF_TEST(a server that is down is not asked for at each request) {
  pair one;
  one.server.stop();
  bytes target(1);
  for (int i = 0; i < 500; ++i) {
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::not_found);
  }
  // The first pause is a tenth of a second and each is longer than the one before; 500 misses take less.
  CAF_CHECK_GREATER(one.kv->count().connections_failed, 0u);
  CAF_CHECK_LESS(one.kv->count().connections_failed, 20u);
}

CAF_TEST(a wrong key is suspected and said) {
  fake_server server("101112131415161718191a1b1c1d1e1f000102030405060708090a0b0c0d0e0f");
  server.start();
  auto kv = made(options_for({server.address()}));
  CAF_CHECK_EQUAL(kv->put("key", filled(1, 1)).code, errc::clock_or_key);
  const item_result got = kv->exists("key");
  CAF_CHECK_EQUAL(got.code, errc::not_found);
  CAF_CHECK_EQUAL(got.cause, errc::clock_or_key);
  CAF_CHECK_NOT_EQUAL(sentence(errc::clock_or_key).find("clock skew or wrong key?"), std::string_view::npos);
}

CAF_TEST(a clock that is off is suspected and said) {
  fake_server server;
  server.clock_offset_ns = 61'000'000'000;
  server.start();
  client::options chosen = options_for({server.address()});
  chosen.connect_timeout_ms = 200;
  auto kv = made(chosen);
  const auto late = kv->put("key", filled(1, 1));
  CAF_CHECK_EQUAL(late.code, errc::no_greeting);
  CAF_CHECK_NOT_EQUAL(sentence(late.code).find("clock skew?"), std::string_view::npos);
}

CAF_TEST(a greeting that is not answered in time is not taken for a wrong key) {
  fake_server silent;
  silent.mute_hello = true;
  silent.start();
  client::options chosen = options_for({silent.address()});
  chosen.connect_timeout_ms = 200;
  auto kv = made(chosen);
  CAF_CHECK_EQUAL(kv->put("key", filled(1, 1)).code, errc::no_greeting);
  const item_result got = kv->exists("key");
  CAF_CHECK_EQUAL(got.code, errc::not_found);
  CAF_CHECK_EQUAL(got.cause, errc::no_greeting);
  for (const auto* part : {"clock skew", "overloaded"})
    CAF_CHECK_NOT_EQUAL(sentence(errc::no_greeting).find(part), std::string_view::npos);
}

CAF_TEST(a deadline ends the waiting for a server that says nothing) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(1, 1)), errc::ok);
  one.server.shape = [](fake_frame& frame) { frame.drop = true; };
  const auto begin = std::chrono::steady_clock::now();
  bytes target(10);
  // Long enough for the put to connect again before.
  CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 400}).code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(one.kv->put("key", filled(1, 1), false, {.deadline_ms = 400}).code,
                  errc::deadline_exceeded);
  const auto passed = std::chrono::steady_clock::now() - begin;
  CAF_CHECK(passed >= std::chrono::milliseconds(800));
  CAF_CHECK_EQUAL(one.kv->count().connections_closed_by_deadline, 2u);
  one.server.shape = nullptr;
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
}

CAF_TEST(a request is not given up before the connection that it went out on has ended) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(1, 1)), errc::ok);
  CAF_CHECK_EQUAL(sockets_to(one.server), 1u);
  one.server.shape = [](fake_frame& frame) { frame.drop = true; };
  const bytes value = filled(1, 2);
  const client::put_item item{"key", value};
  item_result result;
  std::size_t still_open = 0;
  std::atomic<bool> done{false};
  CAF_CHECK(one.kv
                ->submit_put(std::span(&item, 1), std::span(&result, 1), client::completion::call([&] {
                               still_open = sockets_to(one.server);
                               done = true;
                             }),
                             {.deadline_ms = 100})
                .ok());
  CAF_CHECK(comes_true([&] { return done.load(); }));
  CAF_CHECK_EQUAL(result.code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(still_open, 0u);
}

CAF_TEST(giving up on one request does not lose the gets that shared its connection) {
  client::options chosen = options_for({});
  chosen.num_connections = 1;
  pair one(chosen);
  CAF_CHECK_EQUAL(one.put("key", filled(1000, 1)), errc::ok);
  CAF_CHECK_EQUAL(one.put("lost", filled(1000, 1)), errc::ok);
  std::atomic<bool> first{true};
  one.server.shape = [&](fake_frame& frame) { frame.drop = first.exchange(false); };
  bytes lost(1000);
  bytes kept(1000);
  item_result lost_result;
  item_result kept_result;
  const client::get_item lost_item{"lost", lost};
  const client::get_item kept_item{"key", kept};
  std::atomic<int> done{0};
  const auto count = [&] { return client::completion::call([&] { ++done; }); };
  one.server.gather = 2;
  CAF_CHECK(one.kv->submit_get(std::span(&kept_item, 1), std::span(&kept_result, 1), count()).ok());
  CAF_CHECK(
      one.kv->submit_get(std::span(&lost_item, 1), std::span(&lost_result, 1), count(), {.deadline_ms = 50})
          .ok());
  // Answered last one first: "lost" is swallowed, and "key" comes. Then "key" once more, alone.
  CAF_CHECK(comes_true([&] { return done == 2; }));
  CAF_CHECK_EQUAL(lost_result.code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(kept_result.code, errc::ok);
}

CAF_TEST(completion by eventfd counts calls that nobody waits for) {
  pair one;
  const int event_fd = ::eventfd(0, EFD_CLOEXEC);
  const bytes value = filled(100'000, 2);
  const std::vector<std::string> keys = numbered("k", 50);
  std::vector<client::put_item> puts;
  std::vector<item_result> results(keys.size());
  for (const std::string& key : keys) {
    puts.push_back({key, value});
  }
  for (std::size_t i = 0; i < keys.size(); ++i) {
    CAF_CHECK(one.kv
                  ->submit_put(std::span(puts).subspan(i, 1), std::span(results).subspan(i, 1),
                               client::completion::signal(event_fd))
                  .ok());
  }
  std::uint64_t seen = 0;
  while (seen < keys.size()) {
    std::uint64_t count = 0;
    CAF_REQUIRE_EQUAL(::read(event_fd, &count, sizeof count), static_cast<ssize_t>(sizeof count));
    seen += count;
  }
  CAF_CHECK_EQUAL(seen, keys.size());
  for (const item_result& result : results) {
    CAF_CHECK_EQUAL(result.code, errc::ok);
  }
  CAF_CHECK_EQUAL(one.server.blocks(), keys.size());
  ::close(event_fd);
}

CAF_TEST(requests that a silent server leaves waiting are bounded) {
  client::options chosen = options_for({});
  chosen.num_connections = 1;
  std::vector<item_result> results(client::requests_queued_max + 100);
  std::atomic<std::size_t> done{0};
  {
    pair one(chosen);
    CAF_CHECK_EQUAL(one.put("key", filled(10, 1)), errc::ok);
    one.server.shape = [](fake_frame& frame) { frame.drop = true; };
    constexpr std::string_view key = "key";
    for (item_result& result : results) {
      CAF_REQUIRE(one.kv
                      ->submit_exists({&key, 1}, {&result, 1}, client::completion::call([&] { ++done; }),
                                      {.deadline_ms = 600'000})
                      .ok());
    }
    CAF_CHECK_EQUAL(done.load(), 100u);
    CAF_CHECK_EQUAL(results.back().code, errc::queue_full);
    CAF_CHECK_EQUAL(results.front().code, errc::pending);
  }
  CAF_CHECK_EQUAL(done.load(), results.size());
  CAF_CHECK_EQUAL(results.front().code, errc::closed);
}

CAF_TEST(a callback may submit the next call) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(10, 1)), errc::ok);
  bytes target(10);
  item_result result;
  const client::get_item item{"key", target};
  std::atomic<int> left{200};
  std::function<void()> next = [&] {
    if (--left > 0) {
      static_cast<void>(
          one.kv->submit_get(std::span(&item, 1), std::span(&result, 1), client::completion::call(next)));
    }
  };
  static_cast<void>(
      one.kv->submit_get(std::span(&item, 1), std::span(&result, 1), client::completion::call(next)));
  CAF_CHECK(comes_true([&] { return left == 0; }));
}

CAF_TEST(a thread may lend itself to asynchronous calls) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(1000, 1)), errc::ok);
  std::vector<bytes> targets(8, bytes(1000));
  std::vector<item_result> results(8);
  std::vector<client::get_item> items;
  for (bytes& target : targets) {
    items.push_back({"key", target});
  }
  std::atomic<std::size_t> done{0};
  std::size_t submitted = 0;
  while (done < 500) {
    while (submitted < done + 8) {
      const std::size_t slot = submitted++ % 8;
      CAF_CHECK(one.kv
                    ->submit_get(std::span(items).subspan(slot, 1), std::span(results).subspan(slot, 1),
                                 client::completion::call([&] { ++done; }))
                    .ok());
    }
    one.kv->drive(1000);
  }
  CAF_CHECK(comes_true([&] { return done == submitted; }));
  CAF_CHECK(targets[7] == filled(1000, 1));
}

CAF_TEST(many threads share few connections) {
  const std::uint64_t seed = test_seed();
  pair one;
  one.server.part_bytes = 30'000;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(seed + thread);
      for (int i = 0; i < 150; ++i) {
        const std::string key = "t" + std::to_string(thread) + "-" + std::to_string(random() % 5);
        const bytes value = filled(random() % 120'000, static_cast<unsigned>(random()));
        if (one.kv->put(key, value).code != errc::ok) {
          ++wrong;
          continue;
        }
        bytes target(value.size());
        const item_result result = one.kv->get(key, target);
        if (result.code != errc::ok || target != value) {
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_MESSAGE("seed " << seed);
  CAF_CHECK_EQUAL(wrong.load(), 0);
  CAF_CHECK_LESS_OR_EQUAL(one.server.connections(), 2u);
}

CAF_TEST(a thread that only submits is never waited for by the one that drives) {
  client::options chosen = options_for({});
  chosen.num_connections = 1;
  pair one(chosen);
  CAF_CHECK_EQUAL(one.put("key", filled(10, 1)), errc::ok);
  constexpr std::string_view key = "key";
  for (int round = 0; round < 20; ++round) {
    // Each finds the connection without a driver now and then, at the same time as another.
    std::vector<std::thread> submitting;
    for (int i = 0; i < 4; ++i) {
      submitting.emplace_back([&] {
        std::array<item_result, 200> results;
        std::atomic<std::size_t> open{0};
        for (item_result& result : results) {
          ++open;
          if (!one.kv->submit_exists({&key, 1}, {&result, 1}, client::completion::call([&] { --open; }))
                   .ok()) {
            --open;
          }
          static_cast<void>(comes_true([&] { return open < 2; }));
        }
        static_cast<void>(comes_true([&] { return open == 0; }));
      });
    }
    for (std::thread& each : submitting) {
      each.join();
    }
    // Nobody else is there now: the background thread has to read the answer, long before its deadline.
    item_result last;
    std::atomic<bool> done{false};
    const auto begin = std::chrono::steady_clock::now();
    CAF_CHECK(
        one.kv->submit_exists({&key, 1}, {&last, 1}, client::completion::call([&] { done = true; })).ok());
    CAF_CHECK(comes_true([&] { return done.load(); }));
    CAF_CHECK_EQUAL(last.code, errc::ok);
    CAF_CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15)); // its deadline is 30
  }
}

CAF_TEST(blocking and asynchronous calls mix while the server comes and goes) {
  const std::uint64_t seed = test_seed();
  pair one;
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<int> open{0};
  std::atomic<int> good{0};
  const bytes value = filled(90'000, 3);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(seed + thread);
      while (!stop) {
        const std::string key = "k" + std::to_string(random() % 4);
        bytes target(value.size());
        if (random() % 3 == 0) {
          static_cast<void>(one.kv->put(key, value));
        } else {
          const item_result result = one.kv->get(key, target);
          if (result.code == errc::ok) {
            ++good;
            wrong += target != value ? 1 : 0;
          } else if (result.code != errc::not_found) {
            ++wrong;
          }
        }
      }
    });
  }
  threads.emplace_back([&] {
    bytes target(value.size());
    item_result result;
    const client::get_item item{"k1", target};
    while (!stop) {
      ++open;
      if (!one.kv
               ->submit_get(std::span(&item, 1), std::span(&result, 1),
                            client::completion::call([&] { --open; }))
               .ok()) {
        ++wrong;
        --open;
      }
      while (open > 0) {
        ::poll(nullptr, 0, 1);
      }
    }
  });
  for (int round = 0; round < 5; ++round) {
    const int before = good;
    CAF_CHECK(comes_true([&] { return good > before + 20; }));
    one.server.stop();
    one.server.start();
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_MESSAGE("seed " << seed);
  CAF_CHECK_EQUAL(wrong.load(), 0);
}

CAF_TEST(keys are spread over several servers as the protocol says) {
  fake_server servers[3];
  std::vector<std::string> names;
  for (fake_server& server : servers) {
    server.start();
    names.push_back(server.address());
  }
  auto kv = made(options_for(names));
  const wire::placement placed(names);
  const std::vector<std::string> keys = numbered("block-", 90);
  const bytes value = filled(100, 1);
  std::vector<client::put_item> puts;
  for (const std::string& key : keys) {
    puts.push_back({key, value});
  }
  std::vector<item_result> results(keys.size());
  CAF_CHECK_EQUAL(kv->put(puts, results), errc::ok);
  for (const std::string& key : keys) {
    const std::string& owner = placed.servers()[placed.pick(wire::make_key_id("", wire::as_bytes_view(key)))];
    CAF_CHECK_EQUAL(kv->servers()[kv->server_of(key)], owner);
    for (const fake_server& server : servers) {
      CAF_CHECK_EQUAL(server.has(key), server.address() == owner);
    }
  }
  CAF_CHECK_EQUAL(kv->prefix(views(keys)).matched, 90u);
  CAF_CHECK_EQUAL(kv->remove(keys[40]).code, errc::ok);
  client::prefix_result prefix = kv->prefix(views(keys));
  CAF_CHECK_EQUAL(prefix.matched, 40u);
  CAF_CHECK_EQUAL(prefix.total_bytes, 4000u);
  // With one of three down its keys are misses with a reason; the others are served.
  servers[0].stop();
  results.assign(keys.size(), {});
  kv->exists(views(keys), results);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const bool lives = kv->servers()[kv->server_of(keys[i])] != servers[0].address();
    CAF_CHECK_EQUAL(results[i].code, lives && i != 40 ? errc::ok : errc::not_found);
    CAF_CHECK_EQUAL(results[i].cause, lives ? errc::ok : errc::server_down);
  }
}

CAF_TEST(the cache answers repeated reads and own changes go through it) {
  client::options chosen = options_for({});
  chosen.cache_size_mb = 64;
  pair one(chosen);
  const bytes value = filled(100'000, 1);
  CAF_CHECK_EQUAL(one.put("key", value), errc::ok);
  for (int i = 0; i < 5; ++i) {
    CAF_CHECK(one.get("key", value.size()) == value);
  }
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_get), 1u);
  CAF_CHECK_EQUAL(one.kv->count().cache_hits, 4u);
  bytes part(10);
  const client::get_item ranged{"key", part, 50, 10};
  item_result result;
  CAF_CHECK_EQUAL(one.kv->get(std::span(&ranged, 1), std::span(&result, 1)), errc::ok);
  CAF_CHECK(std::equal(part.begin(), part.end(), value.begin() + 50));
  CAF_CHECK_EQUAL(one.server.requests(wire::opcode::tcp_get), 1u);
  const bytes other = filled(90'000, 8);
  CAF_CHECK_EQUAL(one.put("key", other), errc::ok);
  CAF_CHECK(one.get("key", value.size()) == other);
  CAF_CHECK_EQUAL(one.kv->remove("key").code, errc::ok);
  bytes target(value.size());
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::not_found);
}

CAF_TEST(destroying a client ends its open calls) {
  pair one;
  CAF_CHECK_EQUAL(one.put("key", filled(10, 1)), errc::ok);
  one.server.shape = [](fake_frame& frame) { frame.drop = true; };
  bytes target(10);
  item_result result;
  const client::get_item item{"key", target};
  std::atomic<int> done{0};
  CAF_CHECK(
      one.kv
          ->submit_get(std::span(&item, 1), std::span(&result, 1), client::completion::call([&] { ++done; }))
          .ok());
  one.kv.reset();
  CAF_CHECK_EQUAL(done.load(), 1);
  CAF_CHECK_EQUAL(result.code, errc::closed);
}
