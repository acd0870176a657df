#include "client/dialer.hpp"

#include "client/waiter.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace memkv::client {
namespace {

constexpr std::int64_t ns_per_ms = 1'000'000;
// So often a name that is being looked up is looked for.
constexpr std::int64_t name_check_ns = 2'000'000;

} // namespace

dialer::progress dialer::begin(std::int64_t now_ns) {
  until_ns_ = now_ns + std::int64_t{shared_.chosen.connect_timeout_ms} * ns_per_ms;
  resolving_ = true;
  return look_up(now_ns);
}

dialer::progress dialer::look_up(std::int64_t now_ns) {
  // A name that takes long is left half of the time: then what it stood for last is tried.
  const std::int64_t half_ns = std::int64_t{shared_.chosen.connect_timeout_ms} * ns_per_ms / 2;
  if (!lookup_.find(addresses_) && now_ns < until_ns_ - half_ns) {
    return progress::waiting;
  }
  // It may have been a while since somebody looked.
  until_ns_ = std::max(until_ns_, now_ns + half_ns);
  resolving_ = false;
  next_address_ = 0;
  return try_next_address(now_ns);
}

dialer::progress dialer::try_next_address(std::int64_t now_ns) {
  while (next_address_ < addresses_.size()) {
    address_until_ns_ =
        now_ns + (until_ns_ - now_ns) / static_cast<std::int64_t>(addresses_.size() - next_address_);
    const socket_address& address = addresses_[next_address_++];
    fd_ = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) {
      continue;
    }
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // What waits to be sent should still be in the processor's cache when it is. The receive buffer is left
    // to the kernel, which sizes it to what is taken from it (docs/performance.md).
    if (shared_.chosen.socket_buffer_kb != 0) {
      const int bytes = static_cast<int>(shared_.chosen.socket_buffer_kb * 1024);
      ::setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    bool bound = true;
    if (!shared_.bind_to.empty()) {
      const socket_address* const local = shared_.next_local(address.storage.ss_family);
      bound = local != nullptr &&
              ::bind(fd_, reinterpret_cast<const sockaddr*>(&local->storage), local->length) == 0;
    }
    if (bound) {
      if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0) {
        return progress::connected;
      }
      if (errno == EINPROGRESS) {
        return progress::waiting;
      }
    }
    stop();
  }
  return progress::failed;
}

dialer::progress dialer::go_on(short revents, std::int64_t now_ns) {
  if (resolving_) {
    return look_up(now_ns);
  }
  progress now = progress::waiting;
  if ((revents & (POLLOUT | POLLERR | POLLHUP)) != 0) {
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0) {
      return progress::connected;
    }
    stop();
    now = try_next_address(now_ns);
  } else if (now_ns >= address_until_ns_) {
    stop();
    now = try_next_address(now_ns);
  }
  return now == progress::waiting && now_ns >= until_ns_ ? progress::failed : now;
}

void dialer::stop() noexcept {
  resolving_ = false;
  if (fd_ >= 0) {
    ::close(fd_);
    fd_ = -1;
  }
}

std::int64_t dialer::wake_ns() const noexcept {
  return resolving_ ? steady_ns() + name_check_ns : address_until_ns_;
}

} // namespace memkv::client
