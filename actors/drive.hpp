// The DRIVE actor. Interface and duties: interfaces.hpp.
#pragma once

#include "actors/drive_body.hpp"
#include "actors/interfaces.hpp"
#include "actors/ring_actor.hpp"
#include "engine/open_drive.hpp"

#include <memory>
#include <string>

namespace memkv::actors {

struct drive_settings {
  std::uint32_t index = 0;
  engine::drive_description description;
  engine::store_options options;
  std::shared_ptr<engine::clock> time;
  server_actor server;
  /// Raw drives: where payload lies, registered with the drive's ring; kept alive by `pool_keeper`.
  std::span<std::byte> pool;
  std::shared_ptr<void> pool_keeper;
  /// Memory drives only: what an earlier incarnation left.
  std::shared_ptr<drive_body> survivor;
};

class drive final : public ring_actor {
public:
  drive(caf::actor_config& configuration, drive_settings settings);
  const char* name() const override { return "drive"; }

private:
  void on_no_ring(const std::string& problem) override;
  bool on_start() override;
  caf::behavior make_handlers() override;
  bool on_turn() override;
  void on_tick(std::uint64_t now_ns) override;
  void on_stop() override;
  void on_end() override {
    settings_.server = nullptr;
    settings_.pool_keeper.reset();
  }

  void look_for_failure();

  drive_settings settings_;
  std::shared_ptr<drive_body> body_;
  bool closing_ = false;
  bool failure_reported_ = false;
};

} // namespace memkv::actors
