// One connection of the administration endpoint, as FRONT keeps it: its socket, TLS if there is any, and how
// far its request and answer are.
//
// Threading: FRONT's thread only. Ownership: owns the socket. Errors: closed(). Does not: wait.
#pragma once

#include "actors/admission.hpp"
#include "admin/http_server.hpp"
#include "admin/request_gatherer.hpp"
#include "admin/tls.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace memkv::admin {

class http_connection {
public:
  using time_point = std::chrono::steady_clock::time_point;
  enum class phase {
    shaking,  // hands, for TLS
    reading,  // a request, or waiting for the next
    working,  // a worker has the request
    writing,  // the answer
    farewell, // the answer is sent; what the peer still sends is thrown away, or it would not see it
    closed,
  };

  /// Takes the socket, which does not block. `tls` may be null.
  http_connection(int socket, const actors::peer_address& peer, bool loopback,
                  std::unique_ptr<tls_session> tls, const http_limits& limits, time_point now);
  ~http_connection();
  http_connection(const http_connection&) = delete;
  http_connection& operator=(const http_connection&) = delete;

  [[nodiscard]] phase now_in() const noexcept { return phase_; }
  [[nodiscard]] bool idle() const noexcept { return phase_ == phase::reading && gatherer_.empty(); }
  [[nodiscard]] time_point since() const noexcept { return since_; }
  [[nodiscard]] time_point deadline() const noexcept { return deadline_; }
  [[nodiscard]] int socket() const noexcept { return socket_; }
  [[nodiscard]] short awaited() const noexcept { return awaited_; } // of poll()
  [[nodiscard]] const actors::peer_address& peer() const noexcept { return peer_; }
  [[nodiscard]] bool loopback() const noexcept { return loopback_; }
  [[nodiscard]] std::size_t unsent() const noexcept { return answer_.size() - sent_; }

  /// Goes on as far as it can. A request that has become complete; the connection is `working` then.
  [[nodiscard]] std::optional<http_request> go_on(time_point now);
  /// The answer to the request that go_on returned. The next request may have come behind it already.
  [[nodiscard]] std::optional<http_request> answer(std::string text, bool close, time_point now);
  /// Its deadline is over.
  void expire(time_point now);
  void close() noexcept;

  /// Whether the present request is the last that this connection may send.
  [[nodiscard]] bool last() const noexcept { return requests_ >= limits_.requests_per_connection_max; }
  /// What came was no request (or no TLS). True once.
  [[nodiscard]] bool told_malformed() noexcept { return std::exchange(malformed_, false); }

private:
  void enter(phase next, time_point now, std::chrono::milliseconds limit);
  void shake(time_point now);
  [[nodiscard]] std::optional<http_request> receive(time_point now);
  void send(time_point now);
  void discard();
  void refuse(int status, std::string_view sentence, time_point now);

  int socket_;
  const actors::peer_address peer_;
  const bool loopback_;
  const std::string peer_text_;
  std::unique_ptr<tls_session> tls_;
  const http_limits& limits_;
  const time_point accepted_;
  const bool secure_;

  phase phase_ = phase::reading;
  time_point since_, deadline_;
  short awaited_ = 0;
  bool known_tls_ = false; // its first byte was seen
  bool malformed_ = false;
  bool close_after_ = false;
  std::uint32_t requests_ = 0;
  request_gatherer gatherer_;
  std::string answer_;
  std::size_t sent_ = 0;
  std::size_t discarded_ = 0;
};

} // namespace memkv::admin
