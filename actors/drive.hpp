// The DRIVE actor. Interface and duties: interfaces.hpp.
#pragma once

#include "actors/damage_log.hpp"
#include "actors/drive_body.hpp"
#include "actors/drive_past.hpp"
#include "actors/interfaces.hpp"
#include "actors/ring_actor.hpp"
#include "actors/server_report.hpp"
#include "engine/open_drive.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <span>
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
  caf::actor trim_batcher; // null: there is none at the moment
  std::uint64_t io_timeout_ns = 10'000'000'000;
  std::shared_ptr<engine::drive_faults> faults; // null: none are injected
  /// What a drive of an older epoch holds is stale: it starts empty.
  std::uint64_t epoch_least = 0;
  /// One of a later epoch knows what whoever judged the set did not: it is left as it is (errc::later_epoch).
  std::uint64_t epoch_most = UINT64_MAX;
  /// Memory drives only: what an earlier incarnation left.
  std::shared_ptr<drive_body> survivor;
  std::shared_ptr<drive_past> past; // never null in a server
  /// Nobody wants the drive any more: it is not waited for. Null: that does not happen.
  std::function<bool()> unwanted;
};

class drive final : public ring_actor {
public:
  drive(caf::actor_config& configuration, drive_settings settings);
  const char* name() const override { return "drive"; }

private:
  settings ring_settings() const override;
  void on_no_ring(const std::string& problem) override;
  bool on_start() override;
  caf::behavior make_handlers() override;
  bool on_turn() override;
  void on_tick(std::uint64_t now_ns) override;
  void on_stop() override;
  void on_end() override {
    settings_.server = nullptr;
    settings_.trim_batcher = nullptr;
    settings_.pool_keeper.reset();
    settings_.unwanted = nullptr;
  }

  [[nodiscard]] drive_facts facts();
  void look_for_failure();
  /// Writes what is due about damaged blocks; all of it when this is the end.
  void tell_of_damage(const drive_body& of, bool last);
  void report_failure(std::string reason, engine::errc code = engine::errc::io_error);
  void trim_if_due();
  [[nodiscard]] bool sweep_on();
  void begin_sweep(const sweep_blocks& message);
  void end_of_sweep();

  drive_settings settings_;
  std::shared_ptr<drive_body> body_;
  std::shared_ptr<engine::discarder> discarder_; // null: nothing is discarded
  bool trimming_ = false;
  std::uint64_t submitted_bytes_ = 0, trimmed_bytes_ = 0;
  std::uint64_t opened_in_ns_ = 0;
  std::uint64_t memory_bytes_ = 0, memory_looked_ns_ = 0;

  /// A walk through the index, a slice each turn, that erases what is not to stay.
  struct sweep {
    sweep_blocks order;
    std::uint32_t next_slice = 0;
    std::uint64_t erasing = 0;
    std::uint64_t erased = 0;
  };
  std::optional<sweep> sweep_;

  std::uint64_t slow_since_ns_ = 0; // when the count of slow requests was last taken
  std::uint64_t slow_before_ = 0;
  std::uint64_t read_errors_before_ = 0;
  damage_log damage_;
  bool closing_ = false;
  bool hung_ = false; // reported as failed; stays until the kernel has given its requests back
  bool failure_reported_ = false;
};

} // namespace memkv::actors
