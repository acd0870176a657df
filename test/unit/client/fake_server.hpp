// A small server of the protocol in the test's own process, honest or not as the test wants.
//
// Threading: knobs and counters from any thread; one thread accepts, one serves each connection. Ownership:
// its map of blocks outlives stop() and start(), like a server's drives. Errors: none; a port that cannot be
// had aborts the test.
#pragma once

#include "wire/auth.hpp"
#include "wire/header.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace memkv::test {

class fake_rdma;

/// One frame of an answer, before it is digested, sealed and sent.
struct fake_frame {
  wire::frame_header header;
  std::vector<std::byte> variable;
  std::vector<std::byte> payload;
  bool by_message = false; // on a queue pair
  bool damage_mac = false;
  bool damage_payload = false; // one bit, after the digest
  bool damage_tag = false;
  std::int64_t clock_offset_ns = 0;
  bool drop = false;
  std::size_t behind = 0;   // bytes that nobody asked for, after the payload
  bool close_after = false; // after the header and half of the payload
};

/// A function that may be changed while the server calls it.
class frame_shaper {
public:
  frame_shaper& operator=(std::function<void(fake_frame&)> changed) {
    const std::lock_guard lock(mutex_);
    function_ = std::move(changed);
    return *this;
  }
  void operator()(fake_frame& frame) {
    const std::lock_guard lock(mutex_);
    if (function_) {
      function_(frame);
    }
  }

private:
  std::mutex mutex_;
  std::function<void(fake_frame&)> function_;
};

class fake_server {
public:
  struct stored {
    std::vector<std::byte> value;
    std::uint64_t generation = 0;
  };

  explicit fake_server(std::string_view key_digits = default_key);
  ~fake_server();

  static constexpr std::string_view default_key =
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

  /// Listens and serves. The first start takes any free port and later ones the same.
  void start();
  /// Closes the listening socket and all connections.
  void stop();
  /// "127.0.0.1:port"; the port is free for start() also before the first one.
  [[nodiscard]] std::string address() const;

  [[nodiscard]] std::uint64_t connections() const noexcept { return connections_; }
  /// Numeric addresses that connections came from.
  [[nodiscard]] std::set<std::string> peers() const;
  [[nodiscard]] std::uint64_t requests(wire::opcode code) const noexcept {
    return requests_[static_cast<std::uint8_t>(code)];
  }
  /// Those that came as messages, which are among the above too.
  [[nodiscard]] std::uint64_t messages(wire::opcode code) const noexcept {
    return messages_[static_cast<std::uint8_t>(code)];
  }
  [[nodiscard]] bool has(std::string_view key, std::string_view ns = "") const;
  [[nodiscard]] std::size_t blocks() const;

  // Knobs, which may be turned at any time.

  /// Called with every frame that is about to be sent, those of Hello and Ping left out.
  frame_shaper shape;
  /// Payload of one reply frame at most.
  std::atomic<std::uint32_t> part_bytes{1U << 20U};
  /// So many requests are read before the first is answered; then all are answered, last one first, their
  /// parts taking turns.
  std::atomic<std::uint32_t> gather{1};
  std::atomic<bool> mute_hello{false}; // reads Hellos and says nothing
  std::atomic<bool> keyed_required{false};
  std::atomic<std::uint32_t> in_flight_max{128};
  std::atomic<std::int64_t> clock_offset_ns{0}; // of the whole server
  std::atomic<fake_rdma*> rdma{nullptr};        // what it has of RDMA; outlives stop()

private:
  struct session;
  void accept_main(int listening);
  void serve(session& served);
  [[nodiscard]] std::vector<fake_frame> answer_rdma(const wire::frame_header& header,
                                                    wire::bytes_view variable, session& served);
  [[nodiscard]] std::vector<fake_frame> answer(const wire::frame_header& header, wire::bytes_view variable,
                                               const std::vector<std::byte>& payload, session& served);
  [[nodiscard]] std::vector<fake_frame> connect(const wire::frame_header& header, wire::bytes_view variable,
                                                session& served);
  /// Sealed; empty when the frame is dropped.
  [[nodiscard]] std::vector<std::byte> made_bytes(fake_frame& frame, session& served);
  void send_frame(fake_frame frame, session& served, bool is_special);
  [[nodiscard]] std::uint64_t now_ns() const;

  wire::shared_key key_;
  wire::mac mac_;
  std::uint16_t port_ = 0;
  int reserved_ = -1; // bound, not listening: keeps the port until the first start
  int listening_ = -1;
  std::thread acceptor_;
  mutable std::mutex mutex_;
  std::map<std::string, stored> blocks_;
  std::uint64_t generation_ = 0;
  std::set<std::string> peers_;
  std::vector<std::unique_ptr<session>> sessions_;
  std::atomic<std::uint64_t> connections_{0};
  std::array<std::atomic<std::uint64_t>, 256> requests_{};
  std::array<std::atomic<std::uint64_t>, 256> messages_{};
};

} // namespace memkv::test
