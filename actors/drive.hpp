// The DRIVE actor. Interface and duties: interfaces.hpp.
#pragma once

#include "actors/drive_body.hpp"
#include "actors/interfaces.hpp"
#include "actors/ring_actor.hpp"
#include "engine/open_drive.hpp"

#include <memory>
#include <string>
#include <unordered_map>

namespace memkv::actors {

struct drive_settings {
  std::uint32_t index = 0;
  engine::drive_description description;
  engine::store_options options;
  std::shared_ptr<engine::clock> time;
  server_actor server;
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
  void on_end() override { settings_.server = nullptr; }

  void store_whole(const extent_put_ptr& put);
  void allocate(const extent_put_ptr& put);
  void write(const extent_put_ptr& put, const payload_slice& piece);
  void commit(const extent_put_ptr& put);
  void commit_when_written(const extent_put_ptr& put);
  void stored(const extent_put_ptr& put, engine::errc result, std::uint64_t generation);
  void read(const extent_read_ptr& read);
  void erase(const block_erase_ptr& erase);
  void look_for_failure();
  [[nodiscard]] engine::put_description describe(const extent_put& put) const;

  /// Writes of one reservation that have not come back, and a commit that waits for them.
  struct writing {
    std::uint32_t pending = 0;
    engine::errc failed = engine::errc::ok;
    bool commit_wanted = false;
    std::vector<payload_slice> held; // payload stays until its write is done
  };

  drive_settings settings_;
  std::shared_ptr<drive_body> body_;
  std::unordered_map<std::uint64_t, writing> writing_; // by token
  bool closing_ = false;
  bool failure_reported_ = false;
};

} // namespace memkv::actors
