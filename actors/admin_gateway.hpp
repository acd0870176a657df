// The ADMIN GATEWAY actor, and the door through which threads outside the actor system come to it.
//
// Operation. Asked for a report, the gateway asks every actor that is alive to describe itself, and answers
// when all have, or when the deadline is over: then the report names who has not. One gathering runs at a
// time; whoever asks meanwhile gets its result, so that many who ask cost no more than one.
//
// The gateway can be killed like any other actor; SERVER starts it anew, and a door that asks meanwhile gets
// no answer within its deadline, and says so.
#pragma once

#include "actors/interfaces.hpp"
#include "actors/server_report.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace memkv::actors {

struct server_board;
struct reactor_shared;

/// What came of asking for a report.
struct gathered {
  std::shared_ptr<const server_report> report; // null: the gateway itself did not answer
  std::vector<std::string> silent;             // actors that did not answer in time, by name
};

/// What came of a request that changes something.
struct admin_outcome {
  enum class kind : std::uint8_t {
    done,     // it was begun; the report shows how it goes on
    unknown,  // there is no such thing
    conflict, // not in the state it is in
    failed,
    silent, // no answer in time
  };
  kind what = kind::silent;
  std::string text; // one sentence, or empty
};

/// Threading: any thread; every function blocks for at most `limit` and a little more.
/// Ownership: may outlive the server; then everything is unanswered.
class admin_door {
public:
  virtual ~admin_door() = default;
  [[nodiscard]] virtual gathered report(std::chrono::milliseconds limit) = 0;
  /// Empties a drive that is offline, and has it join the others again. Blacklisted or online: conflict.
  [[nodiscard]] virtual admin_outcome reset_drive(std::uint32_t index, bool secure,
                                                  std::chrono::milliseconds limit) = 0;
};

[[nodiscard]] std::shared_ptr<admin_door> make_admin_door(std::shared_ptr<server_board> board);

} // namespace memkv::actors
