// A client that speaks to a server by messages of a queue pair, on a simulated network; and a server there.
// With MEMKV_TEST_RDMA_DEVICE both use that device instead, and what a test asks of the network has no
// effect.
//
// Threading: one thread uses a client; the network's own moves its bytes.
#pragma once

#include "test/scenario/rdma_world.hpp"
#include "test/support/shared_network.hpp"
#include "verbs/ibverbs_fabric.hpp"
#include "verbs/rc_scheduler.hpp"

#include <caf/send.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace memkv::test {

using namespace std::chrono_literals;

inline constexpr std::byte poison{0xEE};

inline std::uint64_t wall_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

inline wire::bytes_view key_bytes(std::string_view key) {
  return {reinterpret_cast<const std::byte*>(key.data()), key.size()};
}

/// Null: the simulated network is used.
inline const char* real_device() {
  return std::getenv("MEMKV_TEST_RDMA_DEVICE");
}

inline std::unique_ptr<verbs::fabric> client_device(shared_network& network) {
  if (real_device() == nullptr)
    return network.create_node({.name = "client"});
  const verbs::ibverbs_library* library = nullptr;
  CAF_REQUIRE_EQUAL(verbs::load_ibverbs(library).text, "");
  std::unique_ptr<verbs::fabric> out;
  std::vector<std::string> warnings;
  CAF_REQUIRE_EQUAL(verbs::open_ibverbs_fabric(*library, real_device(), 1, {}, out, warnings).text, "");
  return out;
}

/// What a test may do to a frame before it is sealed and sent.
struct twist {
  std::function<void(wire::frame_header&)> header{};
  std::function<void(std::vector<std::byte>&)> sealed{};
  std::int64_t clock_ns = 0;
};

struct answer {
  wire::frame_header header;
  std::vector<std::byte> variable;
  [[nodiscard]] wire::status status() const { return header.status(); }
};

/// A connection, and a queue pair that it made.
class message_client {
public:
  static constexpr std::uint32_t receives = 64, room = 4096, sends = 64, send_room = 16'384;
  static constexpr std::size_t data_at = receives * room + sends * send_room;

  message_client(shared_network& network, std::uint16_t port, std::uint32_t messages_max = receives,
                 std::uint32_t message_bytes_max = room, wire::digest_kind kind = wire::digest_kind::crc32c)
      : key_(*wire::shared_key::parse(key_hex)), mac_(key_), memory_(data_at + 4 * mib, poison),
        device_(client_device(network)) {
    const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CAF_REQUIRE_EQUAL(::connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    tcp = std::make_unique<wire_client>(descriptor, key_);
    CAF_REQUIRE(device_->create_completion_queue(4096, completions_).ok());
    CAF_REQUIRE(device_->register_memory(memory_, {.read = true, .write = true}, region_).ok());
    CAF_REQUIRE(
        device_
            ->create_rc({.completions = completions_.get(), .sends_max = sends, .receives_max = receives},
                        pair_)
            .ok());
    for (std::uint32_t number = 0; number < std::min(receives, messages_max); ++number)
      post_receive(number);
    const auto own = pair_->address();
    wire::connect_request wanted;
    wanted.messages_max = messages_max;
    wanted.message_bytes_max = message_bytes_max;
    std::ranges::copy(own.port.port_gid, wanted.client.gid.begin());
    wanted.client.lid = own.port.lid;
    wanted.client.number = own.queue_pair_number;
    wanted.client.packet_number = own.packet_number;
    wanted.client.path_mtu = own.mtu_bytes;
    wanted.client.reads_served_max = own.reads_served_max;
    const auto got = tcp->ask(wire::opcode::connect, wanted, 0, kind);
    CAF_REQUIRE_EQUAL(wire::name(got.status()), "Ok");
    CAF_REQUIRE(wire::connect_reply::decode(got.variable, given) == wire::status::ok);
    verbs::rc_address server;
    std::ranges::copy(given.server.gid, server.port.port_gid.begin());
    server.port.lid = given.server.lid;
    server.queue_pair_number = given.server.number;
    server.packet_number = given.server.packet_number;
    server.mtu_bytes = given.server.path_mtu;
    server.reads_served_max = given.server.reads_served_max;
    CAF_REQUIRE(pair_->connect(server).ok());
    tag = wire::derive_queue_pair_tag(key_, tcp->keys().tag, given.nonce,
                                      {own.queue_pair_number, own.packet_number},
                                      {server.queue_pair_number, server.packet_number});
  }

  template <class Body>
  std::vector<std::byte> frame(wire::opcode what, const Body& body, std::uint64_t id,
                               const twist& change = {}, wire::digest_kind kind = wire::digest_kind::crc32c) {
    wire::frame_header header;
    header.opcode = what;
    header.request_id = id;
    header.tag = tag;
    header.kind = kind;
    if (change.header)
      change.header(header);
    std::vector<std::byte> out;
    wire::append_frame(out, header, body);
    wire::seal(out, wall_ns() + static_cast<std::uint64_t>(change.clock_ns), mac_);
    if (change.sealed)
      change.sealed(out);
    return out;
  }
  void post(const std::vector<std::byte>& bytes) {
    CAF_REQUIRE(bytes.size() <= send_room);
    const std::size_t place = receives * room + posted_++ % sends * send_room;
    std::memcpy(memory_.data() + place, bytes.data(), bytes.size());
    const auto from = range(place, bytes.size());
    verbs::work_request request;
    request.kind = verbs::operation::send;
    request.local = {&from, 1};
    request.signalled = true;
    CAF_REQUIRE(pair_->post({&request, 1}).outcome.ok());
  }
  template <class Body>
  std::uint64_t send(wire::opcode what, const Body& body, const twist& change = {},
                     wire::digest_kind kind = wire::digest_kind::crc32c) {
    post(frame(what, body, next_id, change, kind));
    return next_id++;
  }
  /// The next one; none when nothing comes in that time, or the queue pair is broken.
  std::optional<answer> receive(std::chrono::milliseconds patience = 20s) {
    const auto limit = std::chrono::steady_clock::now() + patience;
    while (got_.empty() && !broken) {
      if (std::chrono::steady_clock::now() > limit)
        return std::nullopt;
      look();
      if (got_.empty())
        std::this_thread::sleep_for(200us);
    }
    if (got_.empty())
      return std::nullopt;
    auto out = std::move(got_.front());
    got_.erase(got_.begin());
    return out;
  }
  template <class Body>
  answer ask(wire::opcode what, const Body& body, const twist& change = {},
             wire::digest_kind kind = wire::digest_kind::crc32c) {
    const auto id = send(what, body, change, kind);
    auto out = receive();
    CAF_REQUIRE(out.has_value());
    CAF_REQUIRE_EQUAL(out->header.request_id, id);
    return *out;
  }
  /// Whether the queue pair, on which nothing is under way, is of no use any more.
  bool ended() {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (!broken && std::chrono::steady_clock::now() < limit) {
      look();
      if (posted_ == sent_ && !broken)
        post(frame(wire::opcode::ping, wire::empty_message{}, next_id++));
      std::this_thread::sleep_for(1ms);
    }
    return broken;
  }
  void fail() { pair_->fail(); }

  [[nodiscard]] std::span<std::byte> data(std::size_t offset, std::size_t bytes) {
    return std::span(memory_).subspan(data_at + offset, bytes);
  }
  [[nodiscard]] std::uint64_t address(std::size_t offset) const {
    return region_->address() + data_at + offset;
  }
  [[nodiscard]] std::uint32_t rkey() const { return region_->rkey(); }

  /// BatchWrite of one value that lies in the memory.
  answer write(std::string_view name, std::size_t offset, std::size_t bytes, wire::digest_kind kind,
               std::uint64_t session) {
    wire::batch_write_item item;
    item.rkey = rkey();
    item.client_address = address(offset);
    item.value_length = static_cast<std::uint32_t>(bytes);
    item.key = key_bytes(name);
    wire::payload_digest digest{tcp->keys().payload_key};
    digest.begin(kind, wire::direction::request, next_id | 1ULL << 63U, 0, 0);
    digest.update(data(offset, bytes));
    item.digest = digest.finish();
    return ask(wire::opcode::batch_write,
               wire::session_batch_request<wire::batch_write_item>{session, {&item, 1}}, {}, kind);
  }
  answer read(std::string_view name, std::size_t offset, std::size_t bytes, wire::digest_kind kind) {
    wire::batch_read_item item;
    item.rkey = rkey();
    item.client_address = address(offset);
    item.capacity = bytes;
    item.key = key_bytes(name);
    return ask(wire::opcode::batch_read,
               wire::session_batch_request<wire::batch_read_item>{given.session_id, {&item, 1}}, {}, kind);
  }

  std::unique_ptr<wire_client> tcp;
  wire::connect_reply given;
  wire::connection_tag tag{};
  std::uint64_t next_id = 1;
  bool broken = false;

private:
  [[nodiscard]] verbs::local_range range(std::size_t at, std::size_t bytes) const {
    return {region_->address() + at, static_cast<std::uint32_t>(bytes), region_->lkey()};
  }
  void post_receive(std::uint64_t number) {
    const verbs::receive_request one{number, range(number * room, room)};
    static_cast<void>(pair_->post_receives({&one, 1}).outcome.ok());
  }
  void look() {
    std::array<verbs::report, 64> reports;
    const auto count = completions_->poll(reports);
    for (const auto& one : std::span(reports).first(count)) {
      if (one.status != verbs::completion_status::success) {
        broken = true;
      } else if (one.kind == verbs::operation::send) {
        ++sent_;
      } else {
        const auto bytes = wire::bytes_view(memory_).subspan(one.id * room, one.bytes);
        auto& out = got_.emplace_back();
        CAF_REQUIRE(wire::decode_header(bytes, out.header) == wire::header_fault::none);
        CAF_REQUIRE_EQUAL(bytes.size(), out.header.header_length + wire::limits::trailer_bytes);
        const auto head = bytes.first(out.header.header_length);
        const auto trailer = bytes.subspan(out.header.header_length);
        CAF_CHECK(mac_.verify(head, wire::load_le<std::uint64_t>(trailer.data()),
                              std::span<const std::byte, 32>(trailer.data() + 8, 32)));
        CAF_CHECK(out.header.direction == wire::direction::reply && out.header.last());
        if (out.status() != wire::status::unsupported_version)
          CAF_CHECK(out.header.tag == tag);
        const auto variable = head.subspan(wire::limits::fixed_header_bytes);
        out.variable.assign(variable.begin(), variable.end());
        post_receive(one.id);
      }
    }
  }

  wire::shared_key key_;
  wire::mac mac_;
  std::vector<std::byte> memory_;
  std::unique_ptr<verbs::fabric> device_;
  std::unique_ptr<verbs::completion_queue> completions_;
  std::unique_ptr<verbs::memory_region> region_;
  std::unique_ptr<verbs::rc_queue_pair> pair_;
  std::uint64_t posted_ = 0, sent_ = 0;
  std::vector<answer> got_;
};

struct message_fixture : server_fixture {
  shared_network network;

  explicit message_fixture(const verbs::simulated_network_options& given = {}) : network(given) {}

  void begin(media kind = media::memory, const std::function<void(actors::server_options&)>& change = {}) {
    configure(kind, 1, 128 * mib);
    if (change)
      change(options);
    options.rdma.devices = {real_device() == nullptr ? "server" : real_device()};
    if (real_device() == nullptr)
      options.rdma.open = [this](const std::string& device, std::unique_ptr<verbs::fabric>& out,
                                 std::vector<std::string>&) {
        out = network.create_node({.name = device});
        return verbs::status{};
      };
    start();
  }
  ~message_fixture() { server.reset(); } // before the network

  std::unique_ptr<message_client> join(std::uint32_t messages_max = message_client::receives,
                                       std::uint32_t message_bytes_max = message_client::room) {
    return std::make_unique<message_client>(network, server->port(), messages_max, message_bytes_max);
  }
  /// Of now: one that is younger than a tenth of a second would be given out again.
  std::shared_ptr<const actors::server_report> report() {
    std::this_thread::sleep_for(110ms);
    auto got = server->door()->report(2s);
    CAF_REQUIRE(got.report != nullptr);
    return got.report;
  }
  bool sessions(std::size_t wanted) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    while (std::chrono::steady_clock::now() < limit) {
      const auto now = report();
      if (now->sessions == wanted && now->rails[0].facts && now->rails[0].facts->sessions == wanted)
        return true;
    }
    return false;
  }
  std::uint64_t refused(std::string_view reason) {
    const auto now = report();
    for (const auto& [name, count] : now->requests.queue_pairs_refused)
      if (name == reason)
        return count;
    CAF_FAIL("not counted: " << reason);
    return 0;
  }
  void put(const std::string& name, std::span<const std::byte> value) {
    CAF_REQUIRE_EQUAL(connect(1)->put(name, value).code, client::errc::ok);
  }
  bool has(const std::string& name) {
    std::vector<std::byte> target(4 * mib);
    return connect(1)->get(name, target).code == client::errc::ok;
  }
  void finish() {
    CAF_CHECK(sessions(0));
    CAF_CHECK(stop());
    CAF_CHECK(network.misuse().empty());
  }
};

inline std::string_view text(const answer& one) {
  return wire::name(one.status());
}

} // namespace memkv::test
