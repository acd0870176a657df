// The addresses behind a server's name. The system's resolver may take longer than anybody's deadline, so a
// name is looked up by a thread of its own, and nobody waits for it here: who wants it asks again.
// Internal to client/.
//
// Threading: any thread. Ownership: a look-up that takes long outlives the object, and nobody hears of it.
// Errors: a name without addresses gives none. Limits: one look-up at a time.
#pragma once

#include <sys/socket.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace memkv::client {

/// A socket address of either family.
struct socket_address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

/// Asks the system; `numeric`: only what needs nobody else.
[[nodiscard]] std::vector<socket_address> resolve(const std::string& host, const std::string& port,
                                                  bool numeric);

class name_lookup {
public:
  using resolver = std::function<std::vector<socket_address>()>;

  /// Known at once when the host is a numeric address.
  name_lookup(const std::string& host, const std::string& port);
  /// For tests: what the thread calls.
  explicit name_lookup(resolver ask);

  /// The addresses that were known last; none when the name never had any. False: it is being looked up, and
  /// there may soon be others.
  [[nodiscard]] bool find(std::vector<socket_address>& known);
  /// None of the addresses could be used: the next find() asks again.
  void forget();

private:
  struct state;
  std::shared_ptr<state> state_;
};

} // namespace memkv::client
