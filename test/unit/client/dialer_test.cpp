// Connecting to a server that has several addresses. The clock is the test's, so that nothing waits for time.
#define CAF_SUITE dialer

#include "client/dialer.hpp"

#include <caf/test/unit_test.hpp>

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <cstring>

using namespace memkv;
using client::dialer;
using client::name_lookup;
using client::socket_address;
using progress = client::dialer::progress;

namespace {

constexpr std::int64_t ms = 1'000'000;
constexpr std::int64_t start_ns = 1'000'000 * ms;

/// A socket of 127.0.0.1, on a port of its own.
class local_socket {
public:
  local_socket() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in wanted{};
    wanted.sin_family = AF_INET;
    wanted.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(&address_.storage, &wanted, sizeof wanted);
    address_.length = sizeof wanted;
    CAF_REQUIRE_EQUAL(::bind(fd_, reinterpret_cast<sockaddr*>(&address_.storage), address_.length), 0);
    CAF_REQUIRE_EQUAL(::getsockname(fd_, reinterpret_cast<sockaddr*>(&address_.storage), &address_.length),
                      0);
  }
  ~local_socket() {
    for (const int each : filling_) {
      ::close(each);
    }
    ::close(fd_);
  }
  local_socket(const local_socket&) = delete;
  local_socket& operator=(const local_socket&) = delete;

  void listen() { CAF_REQUIRE_EQUAL(::listen(fd_, 16), 0); }
  /// From now on it says nothing to who connects.
  void fall_silent() {
    CAF_REQUIRE_EQUAL(::listen(fd_, 0), 0);
    // The kernel answers until its queue of connections is full.
    for (int i = 0; i < 64; ++i) {
      const int each =
          filling_.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      static_cast<void>(
          ::connect(each, reinterpret_cast<const sockaddr*>(&address_.storage), address_.length));
      pollfd one{each, POLLOUT, 0};
      if (::poll(&one, 1, 200) == 0) {
        return;
      }
    }
    CAF_FAIL("a listening socket took 64 connections that nobody accepted");
  }
  [[nodiscard]] const socket_address& address() const { return address_; }

private:
  int fd_;
  socket_address address_;
  std::vector<int> filling_;
};

/// Somebody who connects to these addresses, within a second.
struct caller {
  name_lookup lookup;
  client::shared_state shared{options()};
  dialer dials{shared, lookup};

  explicit caller(const std::vector<socket_address>& addresses) : lookup([addresses] { return addresses; }) {}

  static client::options options() {
    client::options chosen;
    chosen.auth_key =
        wire::shared_key::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    chosen.connect_timeout_ms = 1000;
    return chosen;
  }
  /// Until the name was looked up; the clock stands still.
  progress begin() {
    progress now = dials.begin(start_ns);
    for (int i = 0; i < 60'000 && now == progress::waiting && dials.descriptor() < 0; ++i) {
      ::poll(nullptr, 0, 1);
      now = dials.go_on(0, start_ns);
    }
    return now;
  }
  /// Goes on until it connected or failed, at this time.
  progress finish(progress now, std::int64_t now_ns) {
    while (now == progress::waiting) {
      pollfd one{dials.descriptor(), POLLOUT, 0};
      if (::poll(&one, 1, 60'000) <= 0) {
        CAF_FAIL("nothing came of a connection for a minute");
      }
      now = dials.go_on(one.revents, now_ns);
    }
    return now;
  }
};

bool is_connected_to(int fd, const socket_address& wanted) {
  sockaddr_in peer{};
  socklen_t length = sizeof peer;
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
         std::memcmp(&peer, &wanted.storage, sizeof peer) == 0;
}

} // namespace

CAF_TEST(the address that refuses leaves the turn to the next one) {
  const local_socket refuses;
  local_socket listens;
  listens.listen();
  caller one({refuses.address(), listens.address()});
  CAF_CHECK(one.finish(one.begin(), start_ns) == progress::connected);
  const int fd = one.dials.take();
  CAF_CHECK(is_connected_to(fd, listens.address()));
  CAF_CHECK_EQUAL(one.dials.descriptor(), -1);
  ::close(fd);
}

CAF_TEST(an address that says nothing leaves half of the time to the one behind it) {
  local_socket silent;
  silent.fall_silent();
  local_socket listens;
  listens.listen();
  caller one({silent.address(), listens.address()});
  CAF_REQUIRE(one.begin() == progress::waiting);
  CAF_CHECK_EQUAL(one.dials.wake_ns(), start_ns + 500 * ms);
  CAF_REQUIRE(one.dials.go_on(0, start_ns + 499 * ms) == progress::waiting);
  const progress now = one.dials.go_on(0, start_ns + 500 * ms);
  CAF_REQUIRE(one.finish(now, start_ns + 501 * ms) == progress::connected);
  const int fd = one.dials.take();
  CAF_CHECK(is_connected_to(fd, listens.address()));
  ::close(fd);
}

CAF_TEST(the only address has all of the time) {
  local_socket silent;
  silent.fall_silent();
  caller one({silent.address()});
  CAF_REQUIRE(one.begin() == progress::waiting);
  CAF_CHECK_EQUAL(one.dials.wake_ns(), start_ns + 1000 * ms);
  CAF_CHECK(one.dials.go_on(0, start_ns + 999 * ms) == progress::waiting);
  CAF_CHECK(one.dials.go_on(0, start_ns + 1000 * ms) == progress::failed);
}

CAF_TEST(a name without addresses fails when it was looked up) {
  caller one({});
  CAF_CHECK(one.begin() == progress::failed);
}

CAF_TEST(who gives up keeps no socket) {
  local_socket silent;
  silent.fall_silent();
  caller one({silent.address()});
  CAF_REQUIRE(one.begin() == progress::waiting);
  const int fd = one.dials.descriptor();
  CAF_REQUIRE(::fcntl(fd, F_GETFD) >= 0);
  one.dials.stop();
  CAF_CHECK_EQUAL(::fcntl(fd, F_GETFD), -1);
  CAF_CHECK_EQUAL(one.dials.descriptor(), -1);
}
