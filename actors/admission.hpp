// Who may connect: counts connections in total, per address, and not yet authenticated.
//
// Threading: any thread; one small lock, taken when a connection begins, authenticates and ends.
// Ownership: LISTENER asks; the slot it gets is the connection's place and its descriptor, and gives both
// back when destroyed, whoever holds it then. So the counts are right even if LISTENER or a REACTOR dies.
#pragma once

#include "actors/door_log.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

struct sockaddr_storage;

namespace memkv::actors {

class admission;

[[nodiscard]] peer_address address_of(const sockaddr_storage& peer) noexcept;
[[nodiscard]] std::string to_string(const peer_address& address);

class admission_slot {
public:
  admission_slot(std::shared_ptr<admission> owner, int descriptor, peer_address peer);
  ~admission_slot();
  admission_slot(const admission_slot&) = delete;
  admission_slot& operator=(const admission_slot&) = delete;

  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] const peer_address& peer() const noexcept { return peer_; }
  /// The connection no longer counts as unauthenticated.
  void authenticated() noexcept;
  [[nodiscard]] bool is_authenticated() const noexcept { return authenticated_; }
  /// For the log.
  void note(door_event what);

private:
  std::shared_ptr<admission> owner_;
  int descriptor_ = -1;
  peer_address peer_{};
  bool authenticated_ = false;
};

class admission : public std::enable_shared_from_this<admission> {
public:
  enum class refusal : std::uint8_t { none, total, address, unauthenticated };

  /// One address may have a quarter of `unauthenticated_max`, so that one host alone cannot keep others out.
  admission(std::uint32_t total_max, std::uint32_t per_address_max, std::uint32_t unauthenticated_max);

  /// A slot, which owns `descriptor` from now on; or null and why. The descriptor is the caller's then.
  [[nodiscard]] std::shared_ptr<admission_slot> admit(int descriptor, const peer_address& peer, refusal& why);
  /// What is not let in, or not let go on. LISTENER has it report.
  [[nodiscard]] door_log& events() noexcept { return events_; }

  [[nodiscard]] std::uint32_t connections() const;
  [[nodiscard]] std::uint32_t unauthenticated() const;
  [[nodiscard]] std::uint64_t refused() const;

private:
  friend class admission_slot;
  void leave(const peer_address& peer, bool authenticated) noexcept;
  void authenticated(const peer_address& peer) noexcept;

  struct count {
    std::uint32_t connections = 0, unauthenticated = 0;
  };
  const std::uint32_t total_max_, per_address_max_, unauthenticated_max_;
  mutable std::mutex lock_;
  std::map<peer_address, count> by_address_;
  std::uint32_t total_ = 0, unauthenticated_ = 0;
  std::uint64_t refused_ = 0;
  door_log events_;
};

} // namespace memkv::actors
