// The sessions that were attached through one connection and not yet detached.
//
// A session is usable from its own connection only. Owned by the CONNECTION actor; what is left in it when
// the connection has ended, and every request on it with it, is closed. Threading: the owner's. Limit:
// sessions_max.
#pragma once

#include "wire/limits.hpp"

#include <caf/actor.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>

namespace memkv::actors {

class session_tracker {
public:
  static constexpr std::size_t sessions_max = wire::limits::sessions_connection_max;

  /// False: the bound is reached, or the id is attached already.
  [[nodiscard]] bool attach(std::uint64_t session_id, const caf::actor& pool) {
    return sessions_.size() < sessions_max && sessions_.emplace(session_id, pool).second;
  }
  /// False: not attached through this connection.
  [[nodiscard]] bool detach(std::uint64_t session_id) { return sessions_.erase(session_id) == 1; }
  /// The pool that has it; null: it is not one of this connection.
  [[nodiscard]] caf::actor pool_of(std::uint64_t session_id) const {
    const auto found = sessions_.find(session_id);
    return found == sessions_.end() ? nullptr : found->second;
  }
  [[nodiscard]] std::size_t size() const noexcept { return sessions_.size(); }

  /// Hands every session left to `close` and forgets them.
  void drain(const std::function<void(std::uint64_t, const caf::actor&)>& close) {
    for (const auto& [id, pool] : sessions_)
      close(id, pool);
    sessions_.clear();
  }

private:
  std::unordered_map<std::uint64_t, caf::actor> sessions_;
};

} // namespace memkv::actors
