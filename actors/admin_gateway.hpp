// The ADMIN GATEWAY actor, and the door through which threads outside the actor system come to it.
//
// Operation. Asked for a report, the gateway asks every actor that is in a state to answer to describe
// itself, and answers when all have, or when the deadline is over: then the report names who has not. One
// gathering runs at a time; whoever asks meanwhile, or a moment later, gets the same one, so that many who
// ask cost no more than one. An actor that has not answered is not asked a second time, so that a stuck one
// does not collect questions.
//
// The gateway can be killed like any other actor; SERVER starts it anew, and a door that asks meanwhile gets
// no answer within its limit, and says so.
#pragma once

#include "actors/interfaces.hpp"
#include "actors/mailbox_size.hpp"
#include "actors/self_description.hpp"
#include "actors/server_report.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
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

/// Where an actor leaves an answer for a thread that is none. Threading: any.
template <class Answer>
class waiter {
public:
  void give(Answer answer) {
    {
      const std::lock_guard guard(lock_);
      if (!answer_)
        answer_ = std::move(answer);
    }
    there_.notify_all();
  }
  [[nodiscard]] std::optional<Answer> wait(std::chrono::milliseconds limit) {
    std::unique_lock guard(lock_);
    there_.wait_for(guard, limit, [this] { return answer_.has_value(); });
    return answer_;
  }

private:
  std::mutex lock_;
  std::condition_variable there_;
  std::optional<Answer> answer_;
};
class report_waiter final : public waiter<gathered> {};
class outcome_waiter final : public waiter<admin_outcome> {};

struct admin_gateway_state {
  static inline const char* name = "admin-gateway";

  std::shared_ptr<server_board> board;
  std::shared_ptr<reactor_shared> shared;
  caf::actor server;

  std::uint64_t serial = 0;
  bool gathering = false;
  std::uint64_t begun_ns = 0;
  bool outdated = false; // something was changed on order since this gathering began
  std::vector<std::shared_ptr<report_waiter>> waiting, waiting_for_next;
  std::optional<server_facts> facts;              // of SERVER, in this gathering
  std::map<caf::actor_id, described> answers;     // in this gathering
  std::map<caf::actor_id, std::uint64_t> took_ns; // to answer
  struct question {
    std::uint64_t asked_ns = 0;
    caf::actor_addr who;
  };
  std::map<caf::actor_id, question> unanswered; // of this gathering or an earlier one
  gathered last;
  std::uint64_t last_ns = 0;
};

admin_gateway_actor::behavior_type
admin_gateway(admin_gateway_actor::stateful_pointer<admin_gateway_state> self,
              std::shared_ptr<server_board> board, std::shared_ptr<reactor_shared> shared, caf::actor server);

/// The answer of an actor to `question`; `mailbox` counts what waits behind it.
void answer(const describe_yourself& question, caf::actor_id who, std::size_t mailbox,
            self_description what = {});

} // namespace memkv::actors
