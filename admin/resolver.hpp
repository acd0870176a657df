// Names of hosts become addresses, without anybody waiting for a name service that does not answer.
//
// getaddrinfo cannot be given a deadline and cannot be broken off. It therefore runs on threads that nobody
// waits for: a caller that has lost patience goes on, and the thread ends when the name service lets it.
//
// Threading: the resolver belongs to one thread. Ownership: what the threads use lives as long as the last of
// them. Limits: resolver_threads_max threads; further names wait for a free one.
// Errors: one sentence a name.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace memkv::admin {

constexpr std::size_t resolver_threads_max = 64;

struct socket_address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

struct resolved_name {
  std::size_t number = 0;                // as given to ask()
  std::vector<socket_address> addresses; // in the order of preference; at most 8
  std::string problem;
};

class resolver {
public:
  resolver();
  ~resolver();
  resolver(const resolver&) = delete;
  resolver& operator=(const resolver&) = delete;

  /// Readable when names were resolved; -1 when there is none, and every question is answered with a problem.
  [[nodiscard]] int ready_descriptor() const noexcept;
  void ask(std::size_t number, const std::string& host, std::uint16_t port);
  /// What was resolved since the last call.
  [[nodiscard]] std::vector<resolved_name> take();

private:
  struct shared;
  static void work(const std::shared_ptr<shared>& common);

  std::shared_ptr<shared> shared_;
};

/// An address that is written down needs no service. Empty with a problem when `host` is a name.
[[nodiscard]] resolved_name address_of(std::size_t number, const std::string& host, std::uint16_t port);

} // namespace memkv::admin
