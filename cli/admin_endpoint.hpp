// The administration endpoint of a server that `memkv start` runs: what the room admin/ makes of a
// configuration.
//
// Operation. make() reads certificate and key; begin() listens beside the data port, and answers that the
// server is starting; open() answers for the server.
//
// Threading: one thread; the endpoint has its own. Ownership: ends its threads when destroyed. Errors:
// values.
#pragma once

#include "actors/admin_gateway.hpp"
#include "actors/fault_orders.hpp"
#include "cli/config.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace memkv::cli {

/// "192.0.2.1:9900", "[::1]:9900"
[[nodiscard]] std::string address_text(const std::string& host, std::uint16_t port);

class admin_endpoint {
public:
  virtual ~admin_endpoint() = default;
  /// Null and a sentence when certificate and key cannot be used.
  [[nodiscard]] static std::unique_ptr<admin_endpoint> make(const server_config& config, bool fault_injection,
                                                            std::string& problem);
  /// False and a sentence when the port after `data_port` cannot be had.
  [[nodiscard]] virtual bool begin(std::uint16_t data_port, std::string& problem) = 0;
  /// `faults`: null without fault injection.
  virtual void open(std::shared_ptr<actors::admin_door> door,
                    std::shared_ptr<actors::fault_injector> faults) = 0;
  /// After begin(): where it is.
  [[nodiscard]] virtual std::string url() const = 0;
};

} // namespace memkv::cli
