// Connects a socket to a server: looks its name up, and tries its addresses one after the other. Internal to
// client/.
//
// Operation: begin(), then go_on() whenever descriptor() is ready or wake_ns() has come, until one of them
// says connected or failed. An address that says nothing has its share of the time that is left, so that it
// does not keep those behind it from being tried.
//
// Threading: one thread. Ownership: the socket until take(). Errors: `failed`, without a cause. Limits:
// connect_timeout_ms for all of it. Does not do: speak on the socket, wait, back off.
#pragma once

#include "client/name_lookup.hpp"
#include "client/shared.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace memkv::client {

class dialer {
public:
  enum class progress : std::uint8_t { waiting, connected, failed };

  dialer(shared_state& shared, name_lookup& lookup) noexcept : shared_(shared), lookup_(lookup) {}
  ~dialer() { stop(); }
  dialer(const dialer&) = delete;
  dialer& operator=(const dialer&) = delete;

  [[nodiscard]] progress begin(std::int64_t now_ns);
  /// `revents` as poll() answered for descriptor().
  [[nodiscard]] progress go_on(short revents, std::int64_t now_ns);
  /// Gives up what it tries.
  void stop() noexcept;
  /// After connected: the socket, which does not block.
  [[nodiscard]] int take() noexcept { return std::exchange(fd_, -1); }

  /// To be polled for writing; -1 while the name is being looked up.
  [[nodiscard]] int descriptor() const noexcept { return fd_; }
  /// While waiting: when go_on() must be called at the latest, steady clock.
  [[nodiscard]] std::int64_t wake_ns() const noexcept;
  /// When the time for connecting is over, steady clock.
  [[nodiscard]] std::int64_t until_ns() const noexcept { return until_ns_; }

private:
  [[nodiscard]] progress look_up(std::int64_t now_ns);
  [[nodiscard]] progress try_next_address(std::int64_t now_ns);

  shared_state& shared_;
  name_lookup& lookup_;
  std::int64_t until_ns_ = 0;
  std::int64_t address_until_ns_ = 0; // this address; afterwards the next one
  bool resolving_ = false;
  std::vector<socket_address> addresses_;
  std::size_t next_address_ = 0;
  int fd_ = -1;
};

} // namespace memkv::client
