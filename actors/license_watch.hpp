// What LICENSE WATCHER does at each look, without the actor: whether the licence is still in force, what its
// file says now, and which warnings are due.
//
// The file is read at each look, not only when its times or size changed: those do not tell every change
// apart. Only a whole and valid licence replaces the one in force. While the file is away or holds anything
// else, the one in force stays, and a warning is due once the same was seen at two looks in a row: whoever
// replaces a file in several steps is not warned about.
//
// Time: a licence ends by the wall clock, which may step. A step of more than license_clock_step_s is
// believed only after the clock went on from there for license_clock_believed_s; until then time goes on as
// it did before, so a moment of nonsense stops no server. A step back is believed in the same way. Only the
// end of its licence stops a server that runs, not a clock that now says that the licence has not been issued
// yet.
//
// Threading: one caller at a time; `state` any thread. Ownership: it outlives the actor, so that an actor
// that is started anew warns of nothing twice. Errors: in the result.
#pragma once

#include "actors/license_state.hpp"
#include "engine/clock.hpp"
#include "wire/license_search.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace memkv::actors {

constexpr std::uint64_t license_clock_step_s = 5;
constexpr std::uint64_t license_clock_believed_s = 60;

/// The wall clock, with steps taken in only when they last.
class license_clock {
public:
  explicit license_clock(std::shared_ptr<const engine::clock> time);
  /// Seconds since 1970-01-01 UTC. `remark` receives a sentence when a step is seen, and when it is believed.
  [[nodiscard]] std::uint64_t now_s(std::string& remark);

private:
  struct moment {
    std::int64_t wall_ns = 0, steady_ns = 0;
  };
  [[nodiscard]] moment read() const;
  [[nodiscard]] static std::int64_t wall_at(const moment& from, const moment& now);
  [[nodiscard]] static bool near(std::int64_t a_ns, std::int64_t b_ns);

  std::shared_ptr<const engine::clock> time_;
  moment believed_;
  std::optional<moment> stepped_; // where the clock went on from
};

struct license_look {
  enum class level : std::uint8_t { info, warning };
  struct remark {
    level how = level::info;
    std::string text;
  };
  std::vector<remark> remarks; // for the log
  std::string ended;           // why the licence is not in force any more; empty while it is
};

class license_watch {
public:
  /// `found` is a licence that was verified just now.
  license_watch(const wire::found_license& found, wire::license_reader read,
                std::vector<wire::license_key> keys, std::shared_ptr<const engine::clock> time);

  [[nodiscard]] license_look look();
  [[nodiscard]] const std::shared_ptr<license_state>& state() const noexcept { return state_; }

private:
  void look_at_file(std::uint64_t now_s, license_look& result);
  void warn_of_the_end(std::uint64_t now_s, license_look& result);
  void publish(std::uint64_t now_s);

  wire::license granted_;
  std::string token_;
  std::string source_, path_;
  wire::license_reader read_;
  std::vector<wire::license_key> keys_;
  license_clock clock_;
  std::shared_ptr<license_state> state_ = std::make_shared<license_state>();
  std::uint32_t warned_days_ = UINT32_MAX; // the last warning was that so many days are left
  std::string seen_;                       // at the last look, if it was wrong: why, and the file
  bool told_ = false;                      // and the log says so
};

} // namespace memkv::actors
