// Clocks of servers, asked over real sockets; the server is a few lines here, and its clock is what it likes.
#define CAF_SUITE doctor_clock
#include "cli/doctor_clock.hpp"
#include "wire/frame_writer.hpp"
#include "wire/hello.hpp"

#include <caf/test/unit_test.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

using namespace memkv;
using namespace memkv::cli;

namespace {

constexpr std::int64_t s = 1'000'000'000;

std::int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

enum class manner { as_documented, mute };

// Checks greetings as section 5 of the protocol's page says, with a clock that is `ahead_ns` ahead.
class peer {
public:
  peer(const wire::shared_key& key, std::int64_t ahead_ns, manner how, std::uint16_t port = 0)
      : key_(key), ahead_ns_(ahead_ns), how_(how), socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    CAF_REQUIRE_EQUAL(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::listen(socket_, 16);
    socklen_t size = sizeof address;
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~peer() {
    ending_ = true;
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
    ::close(socket_);
  }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

private:
  void serve() {
    while (!ending_) {
      const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0)
        return;
      talk(connection);
      ::close(connection);
    }
  }

  void talk(int connection) {
    constexpr std::size_t header_bytes = 160;
    const wire::mac signer(key_);
    for (int drops = 0; drops < 3;) {
      std::vector<std::byte> frame(header_bytes + wire::limits::trailer_bytes);
      if (::recv(connection, frame.data(), frame.size(), MSG_WAITALL) != static_cast<ssize_t>(frame.size()))
        return;
      if (how_ == manner::mute)
        continue;
      const wire::bytes_view header = wire::bytes_view(frame).first(header_bytes);
      const auto trailer = wire::bytes_view(frame).subspan(header_bytes);
      const auto stamp = wire::load_le<std::uint64_t>(trailer.data());
      if (!signer.verify(header, stamp, trailer.subspan<8, 32>()))
        return;
      const auto own = wall_ns() + ahead_ns_;
      if (std::llabs(static_cast<std::int64_t>(stamp) - own) > 60 * s) {
        ++drops;
        continue;
      }
      wire::frame_header request;
      if (wire::decode_header(header, request) != wire::header_fault::none)
        return;
      const auto answer = wire::answer_hello(key_, header.subspan(wire::limits::fixed_header_bytes),
                                             wire::random_nonce(), wire::hello_reply{});
      std::vector<std::byte> reply;
      wire::append_hello_answer(reply, request, answer);
      wire::seal(reply, static_cast<std::uint64_t>(own), signer);
      ::send(connection, reply.data(), reply.size(), MSG_NOSIGNAL);
    }
  }

  const wire::shared_key key_;
  const std::int64_t ahead_ns_;
  const manner how_;
  const int socket_;
  std::uint16_t port_ = 0;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

} // namespace

CAF_TEST(a clock is measured however far off it is) {
  const auto key = wire::shared_key::generate();
  for (const std::int64_t ahead : {0 * s, 3 * s, -20 * s, 59 * s, -61 * s, -1500 * s, 3600 * s}) {
    const peer other(key, ahead, manner::as_documented);
    const auto facts = ask_peer(other.address(), key);
    CAF_CHECK(facts.what == peer_facts::outcome::answered);
    // What the scheduler takes away is within the bound that is told.
    const auto error = std::llabs(facts.ahead_ns - ahead);
    if (error > static_cast<std::int64_t>(facts.uncertainty_ns) + 50'000'000)
      CAF_ERROR("a clock " << ahead << " ns ahead was taken for one " << facts.ahead_ns << " ns ahead");
  }
}

CAF_TEST(another key is told from another time) {
  const peer other(wire::shared_key::generate(), 0, manner::as_documented);
  CAF_CHECK(ask_peer(other.address(), wire::shared_key::generate()).what == peer_facts::outcome::wrong_key);
}

CAF_TEST(a clock beyond all that is tried and a server that says nothing are silent) {
  const auto key = wire::shared_key::generate();
  const peer far(key, 40LL * 24 * 3600 * s, manner::as_documented);
  CAF_CHECK(ask_peer(far.address(), key).what == peer_facts::outcome::silent);
  const peer mute(key, 0, manner::mute);
  CAF_CHECK(ask_peer(mute.address(), key).what == peer_facts::outcome::silent);
}

namespace {

/// The second of two neighbouring ports that nobody has.
std::uint16_t free_neighbour() {
  const auto bound = [](std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool good = ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    socklen_t size = sizeof address;
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(socket);
    return good ? ntohs(address.sin_port) : std::uint16_t{0};
  };
  // Below the ports that the kernel takes for outgoing connections.
  std::minstd_rand chance(std::random_device{}());
  std::uint16_t port = 0;
  do
    port = static_cast<std::uint16_t>(20'001 + chance() % 12'000);
  while (bound(port) == 0 || bound(static_cast<std::uint16_t>(port - 1)) == 0);
  return port;
}

} // namespace

CAF_TEST(beside its administration endpoint a server is found) {
  const auto key = wire::shared_key::generate();
  for (const auto how : {manner::mute, manner::as_documented}) {
    const auto free = free_neighbour();
    const peer server(key, 9 * s, manner::as_documented, static_cast<std::uint16_t>(free - 1));
    const peer admin(wire::shared_key::generate(), 0, how, free);
    const auto facts = ask_peer(admin.address(), key);
    CAF_CHECK(facts.what == peer_facts::outcome::answered);
    CAF_CHECK_EQUAL(facts.server, admin.address());
    CAF_CHECK(facts.ahead_ns > 8 * s);
  }
}

CAF_TEST(a server that still has the previous key is asked with that) {
  const auto key = wire::shared_key::generate();
  const auto previous = wire::shared_key::generate();
  const peer old(previous, 2 * s, manner::as_documented);
  const std::vector<std::string> servers{old.address(), "127.0.0.1:1"};
  const auto with = ask_peers(servers, key, previous);
  CAF_REQUIRE_EQUAL(with.size(), 2U);
  CAF_CHECK(with[0].what == peer_facts::outcome::answered && with[0].previous_key);
  CAF_CHECK(with[1].what == peer_facts::outcome::unreachable);
  CAF_CHECK(ask_peers(servers, key, std::nullopt)[0].what == peer_facts::outcome::wrong_key);
}

CAF_TEST(nobody listening is said in the words of the system) {
  const auto facts = ask_peer("127.0.0.1:1", wire::shared_key::generate());
  CAF_CHECK(facts.what == peer_facts::outcome::unreachable);
  CAF_CHECK_EQUAL(facts.problem, "Connection refused");
  CAF_CHECK_EQUAL(ask_peer("a:b:c", wire::shared_key::generate()).problem, "this is no host:port");
}

CAF_TEST(servers are named as clients and as administrators name them) {
  struct {
    std::string_view text, host;
    std::uint16_t port;
  } const good[] = {{"a", "a", 9900},
                    {"a:1234", "a", 1234},
                    {"[::1]", "::1", 9900},
                    {"[::1]:77", "::1", 77},
                    {"http://a", "a", 9900},
                    {"https://a:9901/", "a", 9900},
                    {"http://[fe80::1]:10001/v1/status", "fe80::1", 10000}};
  for (const auto& each : good) {
    std::string host;
    std::uint16_t port = 0;
    CAF_CHECK(parse_peer(each.text, host, port));
    CAF_CHECK_EQUAL(host, each.host);
    CAF_CHECK_EQUAL(port, each.port);
  }
  for (const auto* text : {"", ":9900", "a:", "a:b", "a:65536", "a:0", "::1", "[::1", "[::1]x",
                           "[::1]:", "http://a:1", "http://", "a:999999"}) {
    std::string host;
    std::uint16_t port = 0;
    CAF_CHECK(!parse_peer(text, host, port));
  }
}

CAF_TEST(what peers said survives a pipe and nothing else passes for it) {
  peer_facts facts{"a", true, peer_facts::outcome::answered, "p", -5, 7};
  peer_facts back;
  CAF_REQUIRE(decode(encode(facts), back));
  CAF_CHECK(back.what == facts.what && back.problem == "p" && back.previous_key && back.ahead_ns == -5 &&
            back.uncertainty_ns == 7);
  for (const auto* text : {"", "{}", "3", "{\"what\": 99}"})
    CAF_CHECK(!decode(text, back));
}
