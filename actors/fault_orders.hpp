// Faults on order: what may be ordered of a server that runs with fault injection, and who carries it out.
//
// The orders are values that know nothing of how they came (admin/faults.hpp reads them from JSON). Limits
// stand beside each; apply() refuses what exceeds them.
//
// Threading: fault_injector from any thread. Ownership: may outlive the server; then nothing is there to
// fail. Errors: as values, with one sentence.
#pragma once

#include "engine/drive_faults.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace memkv::actors {

struct fault_points;
struct server_board;

namespace faults {

/// How an actor is to end.
enum class how : std::uint8_t { kill, exception, shutdown };

/// One actor ends. One of the two is set.
struct kill {
  std::string name; // "server", "listener", "reactor-0", "drive-1", …
  std::string kind; // the name without its number, one of them at random; also "connection"
  how by = how::kill;
};

/// The next operations of a drive meet a fault. Not for memory drives.
struct drive {
  static constexpr std::uint64_t count_max = 1'000'000;
  static constexpr std::uint64_t slow_ms_max = 60'000;
  static constexpr std::uint64_t hang_ms_max = 600'000;
  std::uint32_t id = 0;
  engine::drive_fault fault;
};

/// Connections are closed, chosen at random.
struct drop_connections {
  static constexpr std::uint32_t all = ~std::uint32_t{0};
  std::uint32_t count = all;
};

/// Connections are read from, and answered, later; it replaces an order of this kind before it.
struct delay_connections {
  static constexpr std::uint64_t delay_ms_max = 10'000;
  static constexpr std::uint64_t seconds_max = 600;
  std::uint64_t delay_ms = 0;
  std::uint64_t seconds = 0;
};

/// An actor does nothing for a while; what it is sent waits.
struct stall {
  static constexpr std::uint64_t ms_max = 60'000;
  std::string name;
  std::uint64_t ms = 0;
};

/// Nothing is armed any more, and what hangs goes on. What has ended is not undone.
struct clear {};

using order = std::variant<kill, drive, drop_connections, delay_connections, stall, clear>;

} // namespace faults

struct fault_outcome {
  enum class kind : std::uint8_t {
    done,     // ordered; what comes of it shows in the report
    unknown,  // there is no such actor or drive
    conflict, // it cannot have this fault, or has too many already
    refused,  // out of limits
  };
  kind what = kind::done;
  std::string text; // one sentence, or empty; of a kill: the name of who is to end
};

/// What is armed now, and what was met since the start.
struct fault_list {
  struct drive {
    std::uint32_t id = 0;
    bool possible = true; // false: memory
    std::vector<engine::drive_fault> armed;
    engine::drive_faults_met met;
  };
  std::vector<drive> drives;
  std::uint64_t connection_delay_ms = 0; // 0: none
  std::uint64_t connection_delay_left_ms = 0;
  std::vector<std::string> actors; // that can be ended or stalled by name now
};

class fault_injector {
public:
  fault_injector(std::shared_ptr<fault_points> points, std::shared_ptr<server_board> board);
  /// Does not wait for anything that it orders.
  [[nodiscard]] fault_outcome apply(const faults::order& order);
  [[nodiscard]] fault_list list() const;

private:
  [[nodiscard]] fault_outcome carry_out(const faults::kill& order) const;
  [[nodiscard]] fault_outcome carry_out(const faults::drive& order) const;
  [[nodiscard]] fault_outcome carry_out(const faults::drop_connections& order) const;
  [[nodiscard]] fault_outcome carry_out(const faults::delay_connections& order) const;
  [[nodiscard]] fault_outcome carry_out(const faults::stall& order) const;
  [[nodiscard]] fault_outcome carry_out(const faults::clear& order) const;

  std::shared_ptr<fault_points> points_;
  std::shared_ptr<server_board> board_;
};

/// The kind of an actor: its name without the number behind it.
[[nodiscard]] std::string kind_of_actor(const std::string& name);

} // namespace memkv::actors
