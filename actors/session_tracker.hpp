// The sessions that were attached through one connection and not yet detached.
//
// A session is usable from its own connection only. Owned by the CONNECTION actor; what is left in it when
// the connection has ended, and every request on it with it, is closed. Threading: the owner's. Limit:
// sessions_max.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_set>

namespace memkv::actors {

class session_tracker {
public:
  static constexpr std::size_t sessions_max = 1024;

  /// False: the bound is reached, or the id is attached already.
  [[nodiscard]] bool attach(std::uint64_t session_id) {
    return sessions_.size() < sessions_max && sessions_.insert(session_id).second;
  }
  /// False: not attached through this connection.
  [[nodiscard]] bool detach(std::uint64_t session_id) { return sessions_.erase(session_id) == 1; }
  [[nodiscard]] bool contains(std::uint64_t session_id) const { return sessions_.contains(session_id); }
  [[nodiscard]] std::size_t size() const noexcept { return sessions_.size(); }

  /// Hands every session left to `close` and forgets them.
  void drain(const std::function<void(std::uint64_t)>& close) {
    for (const auto id : sessions_)
      close(id);
    sessions_.clear();
  }

private:
  std::unordered_set<std::uint64_t> sessions_;
};

} // namespace memkv::actors
