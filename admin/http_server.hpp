// Serves HTTP or HTTPS to strangers without letting any of them hold it up.
//
// Operation. One thread, FRONT, owns all sockets: it accepts, shakes hands, gathers requests and sends
// answers, and never waits for a peer. A request that is there in whole goes to one of a few workers, which
// have cpp-httplib read it and write the answer down in memory. So a slow peer costs a place in a table and
// at most 64 KiB, never a thread. When the table is full, the connection that has been sending its request
// (or nothing) for longest makes room for a new one.
//
// Threading: make, bind, serve and stop from one thread; the handler is called by many. Ownership: owns its
// threads and sockets; stop() and the destructor end and join them, after the handlers that are running.
// Errors: values at the start; afterwards a peer's connection is closed, and counted.
// Limits: http_limits. Does not: compress, send parts of an answer, or accept bodies in chunks.
#pragma once

#include "admin/http_message.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace memkv::admin {

struct http_limits {
  std::uint32_t connections_max = 64;
  std::uint32_t connections_per_address_max = 16; // loopback excepted
  std::uint32_t workers = 8;
  std::uint32_t requests_per_connection_max = 1000;
  std::uint64_t unsent_bytes_max = 16 << 20; // answers that peers have not taken, of all connections
  std::chrono::milliseconds request{3'000};  // from its first byte to its last; of TLS, from the accept
  std::chrono::milliseconds idle{5'000};     // nothing of a request has come
  std::chrono::milliseconds answer{10'000};  // from its first byte to its last
  std::chrono::milliseconds farewell{1'000}; // what a peer still sends is read so that it sees its answer
};

struct http_counters {
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;  // closed at once: too many connections
  std::uint64_t evicted = 0;  // made room for another
  std::uint64_t requests = 0; // given to a worker
  std::uint64_t malformed = 0;
  std::uint64_t late = 0; // handshake, request or answer beyond its time
  std::uint32_t connections = 0;
};

class http_server {
public:
  using handler = std::function<http_answer(const http_request&)>;

  /// With TLS when both paths are given. Null and a sentence when certificate and key cannot be used.
  [[nodiscard]] static std::unique_ptr<http_server> make(const std::string& certificate_path,
                                                         const std::string& key_path, std::string& problem,
                                                         const http_limits& limits = {});
  virtual ~http_server() = default;

  /// Listens on a numeric address; port 0 takes any free one. False and a sentence when it cannot; it may be
  /// tried again with another port then.
  [[nodiscard]] virtual bool bind(const std::string& host, std::uint16_t port, std::string& problem) = 0;
  [[nodiscard]] virtual std::uint16_t port() const noexcept = 0;
  [[nodiscard]] virtual bool secure() const noexcept = 0;

  /// After bind(): begins to answer. The handler must not throw; what it takes longer than a second for, its
  /// peer waits for.
  virtual void serve(handler answer) = 0;
  virtual void stop() noexcept = 0;
  [[nodiscard]] virtual http_counters counters() const noexcept = 0;
};

} // namespace memkv::admin
