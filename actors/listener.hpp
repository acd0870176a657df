// The LISTENER actor. Interface and duties: interfaces.hpp.
//
// The listening socket belongs to SERVER and is lent, so that connections waiting in its queue survive a
// restart of this actor. When descriptors run out, accepting pauses instead of failing.
#pragma once

#include "actors/admission.hpp"
#include "actors/interfaces.hpp"
#include "actors/ring_actor.hpp"

#include <memory>
#include <vector>

namespace memkv::actors {

class listener final : public ring_actor {
public:
  /// `socket`: listening, non-blocking. `reserve`: descriptors that connections may not take.
  listener(caf::actor_config& configuration, int socket, std::shared_ptr<admission> door,
           server_actor server);
  ~listener() override;
  const char* name() const override { return "listener"; }

private:
  class accept_operation;

  settings ring_settings() const override { return {.entries = 32, .tick_ns = 100'000'000}; }
  void on_no_ring(const std::string& problem) override;
  bool on_start() override;
  caf::behavior make_handlers() override;
  void on_tick(std::uint64_t now_ns) override;
  void on_stop() override;
  void on_end() override;

  void arm();
  void accepted(std::int32_t result);
  [[nodiscard]] bool any_reactor() const noexcept;
  void deal(std::shared_ptr<admission_slot> slot);

  int socket_;
  std::shared_ptr<admission> door_;
  server_actor server_;
  std::vector<reactor_actor> reactors_; // by index; null where one is being restarted
  std::size_t next_ = 0;
  std::shared_ptr<admission_slot> waiting_; // accepted while no reactor was there
  std::unique_ptr<accept_operation> operation_;
  bool armed_ = false;
  bool accepting_ = true;
};

} // namespace memkv::actors
