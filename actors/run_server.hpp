// Runs a server in this process until it is told to stop.
#pragma once

#include "actors/admin_gateway.hpp"
#include "actors/fault_orders.hpp"
#include "actors/server_options.hpp"

#include <caf/actor_system.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace memkv::actors {

/// A server in this process. Made by start_server; tests use it directly, run_server adds the signals.
/// Threading: any thread.
class running_server {
public:
  virtual ~running_server() = default;
  /// The port that the data listener is bound to.
  [[nodiscard]] virtual std::uint16_t port() const noexcept = 0;
  /// Asks for a stop in good order. Idempotent.
  virtual void stop() noexcept = 0;
  /// Waits for the end; true if it was in good order: everything is closed. Otherwise destroying this may
  /// wait for as long as a drive or an RDMA device does.
  virtual bool wait() = 0;
  /// Every actor that is alive, by name ("server", "listener", "evictor", "reactor-0", "drive-0", …): for
  /// fault injection.
  [[nodiscard]] virtual std::vector<std::pair<std::string, caf::actor>> actors() const = 0;
  /// Why it stopped by itself, in good order; empty when it did not.
  [[nodiscard]] virtual std::string ended_because() const = 0;
  /// Reports, and what an operator may change. It may outlive the server.
  [[nodiscard]] virtual std::shared_ptr<admin_door> door() const = 0;
  /// Null, unless server_options::fault_injection was set.
  [[nodiscard]] virtual std::shared_ptr<fault_injector> faults() const = 0;
  [[nodiscard]] virtual std::uint32_t drives_online() const noexcept = 0;
  [[nodiscard]] virtual std::uint32_t connections() const noexcept = 0;
};

/// Looks which set the drives belong to, waiting for each (find_set.hpp), binds, opens the drives and starts
/// the actors. Null and a sentence in `problem` when that cannot be done.
[[nodiscard]] std::unique_ptr<running_server> start_server(const server_options& options,
                                                           std::string& problem);

/// Keeps SIGINT, SIGTERM and SIGPIPE from every thread made afterwards: before start_server.
void block_signals();

/// Waits for SIGINT or SIGTERM, stops in good order and returns the exit code of the process. If the root
/// supervisor dies, or the stop was not in good order, it ends the process with 1 itself. A server that
/// stopped by itself in good order gives 1, and says why in `problem`.
[[nodiscard]] int serve_until_told(std::unique_ptr<running_server> server, std::string& problem);

/// The three together. `ready` is called once it serves. `problem` says why it did not, or why it
/// stopped, in one sentence. A stop that comes before it serves ends what the start waits for, and the code
/// is 0 then too.
[[nodiscard]] int run_server(const server_options& given, const std::function<void(running_server&)>& ready,
                             std::string& problem);

} // namespace memkv::actors
