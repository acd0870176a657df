// What SERVER does, in three files: server.cpp (start, stop, the actors with rings), server_drives.cpp
// (drives, who takes part, what becomes of a failing one) and server_rails.cpp (RDMA). Not for anybody else.
//
// Threading: SERVER's; event-based: nothing here blocks.
#pragma once

#include "actors/self_description.hpp"
#include "actors/server.hpp"

#include <string>

namespace memkv::actors {

struct supervisor {
  server_actor::stateful_pointer<server_state> self;
  server_state& state = self->state;

  [[nodiscard]] static std::uint64_t steady_now_ns() noexcept;
  [[nodiscard]] static std::uint64_t retry_ns(std::uint32_t failures) noexcept;
  void publish(const std::string& name, const caf::actor& who) const;

  // server.cpp
  void spawn_reactor(std::uint32_t index) const;
  void spawn_listener() const;
  void spawn_evictor() const;
  void spawn_trim_batcher() const;
  void spawn_license_watcher() const;
  void spawn_admin_gateway() const;
  /// What SERVER says of itself.
  [[nodiscard]] server_facts facts() const;
  /// The drives are there.
  void begin_serving() const;
  /// Everything that a client can reach, as soon as it is known which rails there are.
  void begin_accepting_when_ready() const;
  void ring_started(const actor_started& message) const;
  /// One that has worked is started anew at once; one that could not start is tried again later and later.
  /// Returns whether it is to be spawned now.
  [[nodiscard]] bool ring_ended(server_state::ring_seat& seat, const std::string& who) const;
  void give_up_starting(const std::string& problem) const;
  void down(const caf::down_msg& message) const;
  void stop() const;
  /// Stops a server that serves, with that as the reason.
  void stop_without_license(const std::string& reason) const;
  /// The last thing SERVER does.
  void end(caf::exit_reason reason) const;
  void look() const;

  // server_drives.cpp
  void spawn_drive(std::uint32_t index) const;
  void drive_opened(const drive_changed& change) const;
  void drive_failed_with(const drive_failed& failure) const;
  /// An incarnation of a drive has ended.
  void drive_ended(std::uint32_t index) const;
  void begin_serving_when_ready() const;
  void look_for_silent_drives() const;
  void look_at_drives(std::uint64_t now_ns) const;
  void drive_finished_step(const drive_did& message) const;
  void reactor_finished_step(const members_taken& message) const;
  /// REACTORs and EVICTOR: about one drive, as it is now.
  [[nodiscard]] drive_changed change_of(std::uint32_t index) const;
  [[nodiscard]] members_changed members_now(std::uint64_t serial) const;
  [[nodiscard]] drive_report report_of(std::uint32_t index) const;
  void reset(const reset_drive& message) const;
  void was_reset(const drive_was_reset& message) const;
  void resetter_ended(std::uint32_t index, const std::string& problem) const;
  void erase_part(const wire::key_id& id) const;
  /// Some of them at each look.
  void drop_parts_without_heads() const;
  /// The step that is under way waits for this drive, or reactor, no more.
  void forget_drive(std::uint32_t index) const;
  void forget_reactor(caf::actor_id which) const;

  // server_rails.cpp
  void begin_with_rails() const;
  /// Each has been online, or said why it is not.
  [[nodiscard]] bool rails_decided() const;
  void rail_opened(const dci_pool_changed& message) const;
  void rail_failed(const dci_pool_failed& message) const;
  void rail_ended(std::uint32_t rail) const;
  void look_at_rails(std::uint64_t now_ns) const;
  void stop_rails() const;
  /// The end of SERVER: they end by themselves.
  void forget_rails() const;
  /// REACTORs: about one rail, as it is now.
  [[nodiscard]] dci_pool_changed change_of_rail(std::uint32_t rail) const;
  /// A drive was admitted.
  void register_drive(std::uint32_t drive) const;
  [[nodiscard]] rail_report report_of_rail(std::uint32_t rail) const;

private:
  void spawn_rail(std::uint32_t rail) const;
  void register_drive(std::uint32_t drive, std::uint32_t rail) const;
  void tell_about_rail(std::uint32_t rail) const;
  void rail_went(std::uint32_t rail) const;
  void begin_reset_when_possible(std::uint32_t index) const;
  void tell_about_drive(std::uint32_t index) const;
  void drive_went(std::uint32_t index, const std::string& why) const;
  void admit(std::uint32_t index) const;
  [[nodiscard]] bool may_bring_blocks(std::uint32_t index) const;
  /// Drives have come, or will not come back.
  void look_at_parts_anew() const;
  void blacklist(std::uint32_t index) const;
  void take_steps() const;
  void carry_out(const membership_step& step) const;
  void change_members(std::uint64_t now_ns) const;
};

} // namespace memkv::actors
