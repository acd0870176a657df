#include "actors/server.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/connection.hpp"
#include "actors/evictor.hpp"
#include "actors/fault_points.hpp"
#include "actors/license_watcher.hpp"
#include "actors/listener.hpp"
#include "actors/log.hpp"
#include "actors/supervisor.hpp"
#include "actors/trim_batcher.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::server";
constexpr auto look_interval = std::chrono::milliseconds{20};
constexpr std::uint64_t fault_warning_interval_ns = 60'000'000'000;
constexpr std::uint64_t rails_close_ns_max = 5'000'000'000;

using phase = server_state::phase;

template <class Function>
void for_each_ring(server_state& state, Function&& function) {
  for (auto& seat : state.reactors)
    function(seat);
  function(state.listener);
}

} // namespace

std::uint64_t supervisor::steady_now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

std::uint64_t supervisor::retry_ns(std::uint32_t failures) noexcept {
  return std::min<std::uint64_t>(100'000'000ULL << std::min(failures, 10U), 30'000'000'000ULL);
}

members_changed supervisor::members_now(std::uint64_t serial) const {
  // A REACTOR that is spawned while the others are being told hears the same.
  const auto* step = state.members.step();
  const bool telling = step != nullptr && step->what == membership_step::kind::tell && state.step_sent;
  return {serial, telling ? step->after : state.members.members(), state.changed};
}

void supervisor::publish(const std::string& name, const caf::actor& who) const {
  std::lock_guard guard{state.board->lock};
  if (who == nullptr)
    state.board->actors.erase(name);
  else
    state.board->actors[name] = who;
  if (who != nullptr)
    ++state.spawned[name];
}

void supervisor::spawn_reactor(std::uint32_t index) const {
  auto& seat = state.reactors[index];
  seat.actor = self->home_system().spawn<reactor, caf::detached>(index, state.shared,
                                                                 caf::actor_cast<server_actor>(self));
  seat.alive = true;
  seat.started = false;
  seat.respawn_at_ns = 0;
  self->monitor(seat.actor);
  publish("reactor-" + std::to_string(index), seat.actor);
  self->send(caf::actor_cast<reactor_actor>(seat.actor), members_now(0));
  for (std::uint32_t drive = 0; drive < state.drives.size(); ++drive)
    self->send(caf::actor_cast<reactor_actor>(seat.actor), change_of(drive));
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail)
    self->send(caf::actor_cast<reactor_actor>(seat.actor), change_of_rail(rail));
  if (state.listener.alive)
    self->send(caf::actor_cast<listener_actor>(state.listener.actor), reactor_changed{index, seat.actor});
}

void supervisor::spawn_listener() const {
  auto& seat = state.listener;
  seat.actor = self->home_system().spawn<listener, caf::detached>(state.listening_socket, state.door,
                                                                  caf::actor_cast<server_actor>(self));
  seat.alive = true;
  seat.started = false;
  seat.respawn_at_ns = 0;
  self->monitor(seat.actor);
  publish("listener", seat.actor);
  for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
    if (state.reactors[index].alive)
      self->send(caf::actor_cast<listener_actor>(seat.actor),
                 reactor_changed{index, state.reactors[index].actor});
}

void supervisor::spawn_evictor() const {
  if (!state.options.store.eviction)
    return;
  state.evictor = caf::actor_cast<caf::actor>(self->home_system().spawn(
      evictor, state.options.store.high_watermark, state.options.store.low_watermark));
  self->monitor(state.evictor);
  publish("evictor", state.evictor);
  for (std::uint32_t drive = 0; drive < state.drives.size(); ++drive)
    self->send(caf::actor_cast<evictor_actor>(state.evictor), change_of(drive));
}

void supervisor::spawn_trim_batcher() const {
  const auto& drives = state.options.drives;
  if (std::ranges::none_of(drives, [](const auto& each) { return each.raw; }))
    return;
  state.trim_batcher = caf::actor_cast<caf::actor>(self->home_system().spawn<caf::detached>(trim_batcher, 0));
  self->monitor(state.trim_batcher);
  publish("trim-batcher", state.trim_batcher);
  for (const auto& seat : state.drives)
    if (seat.alive)
      self->send(caf::actor_cast<drive_actor>(seat.actor), trim_batcher_changed{state.trim_batcher});
}

void supervisor::spawn_license_watcher() const {
  if (state.options.license == nullptr)
    return;
  state.license_watcher = caf::actor_cast<caf::actor>(
      self->home_system().spawn(license_watcher, state.options.license, caf::actor_cast<server_actor>(self)));
  self->monitor(state.license_watcher);
  publish("license-watcher", state.license_watcher);
}

void supervisor::spawn_admin_gateway() const {
  state.admin_gateway = caf::actor_cast<caf::actor>(
      self->home_system().spawn(admin_gateway, state.board, state.shared, caf::actor_cast<caf::actor>(self)));
  self->monitor(state.admin_gateway);
  publish(admin_gateway_state::name, state.admin_gateway);
}

server_facts supervisor::facts() const {
  server_facts out;
  switch (state.now) {
  case phase::opening:
    out.phase = "opening";
    break;
  case phase::starting:
    out.phase = "starting";
    break;
  case phase::serving:
    out.phase = "serving";
    break;
  case phase::finishing_requests:
  case phase::closing_rails:
  case phase::closing_drives:
  case phase::ended:
    out.phase = "stopping";
    break;
  }
  const auto add = [&](const std::string& name, const caf::actor& who, bool asked) -> server_facts::seat& {
    const auto spawned = state.spawned.find(name);
    out.actors.push_back({.name = name,
                          .who = who,
                          .restarts = spawned == state.spawned.end() ? 0 : spawned->second - 1,
                          .asked = asked && who != nullptr});
    return out.actors.back();
  };
  add(server_state::name, caf::actor_cast<caf::actor>(self), true);
  add(admin_gateway_state::name, state.admin_gateway, false);
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    const auto& seat = state.drives[index];
    out.drives.push_back(report_of(index));
    if (seat.alive || (!seat.blacklisted && seat.reset == nullptr))
      add("drive-" + std::to_string(index), seat.actor, seat.online).drive = index;
  }
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail) {
    const auto& seat = state.rails[rail];
    out.rails.push_back(report_of_rail(rail));
    // While its device is away it comes and goes with each trial, and is neither missing nor started anew.
    if (!seat.device_away && (state.now == phase::serving || seat.alive)) {
      auto& pool = add("dci-pool-" + std::to_string(rail), seat.actor, seat.online);
      pool.rail = rail;
      pool.restarts -= std::min(pool.restarts, seat.unopened);
    }
  }
  if (state.now == phase::serving) {
    add("listener", state.listener.actor, state.listener.started);
    for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
      add("reactor-" + std::to_string(index), state.reactors[index].actor, state.reactors[index].started);
    if (state.options.store.eviction)
      add("evictor", state.evictor, true);
    if (state.options.license != nullptr)
      add("license-watcher", state.license_watcher, true);
  }
  // A large discard takes as long as the device takes.
  if (state.trim_batcher != nullptr)
    add("trim-batcher", state.trim_batcher, true).patience_ns = 60'000'000'000;
  std::ranges::sort(out.actors, {}, &server_facts::seat::name);
  return out;
}

void supervisor::begin_serving() const {
  state.now = phase::starting;
  begin_with_rails();
}

void supervisor::begin_accepting_when_ready() const {
  if (state.now != phase::starting || state.accepting ||
      (!rails_decided() && steady_now_ns() < state.rails_until_ns))
    return;
  state.accepting = true;
  for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
    spawn_reactor(index);
  spawn_evictor();
  spawn_license_watcher();
  spawn_listener();
}

/// A reactor or the listener is at work, or says why it is not.
void supervisor::ring_started(const actor_started& message) const {
  bool all = true;
  for_each_ring(state, [&](server_state::ring_seat& seat) {
    if (seat.alive && seat.actor.id() == message.which) {
      seat.started = message.problem.empty();
      seat.problem = message.problem;
      if (seat.started)
        seat.failures = 0;
    }
    all = all && seat.started;
  });
  if (state.now != phase::starting || !all)
    return;
  state.now = phase::serving;
  state.board->started.set_value("");
}

/// One that has worked is started anew at once; one that could not start is tried again later and later.
/// Returns whether it is to be spawned now.
bool supervisor::ring_ended(server_state::ring_seat& seat, const std::string& who) const {
  seat.alive = false;
  seat.actor = nullptr;
  publish(who, nullptr);
  if (state.now == phase::starting) {
    give_up_starting(seat.problem.empty() ? who + " ended while it was started" : seat.problem);
    return false;
  }
  if (state.now != phase::serving)
    return false;
  if (seat.started) {
    log::error(target, who + " ended and is started anew");
    return true;
  }
  ++seat.failures;
  seat.respawn_at_ns = steady_now_ns() + retry_ns(seat.failures);
  log::error(target, who + " could not be started and will be tried again: " + seat.problem);
  return false;
}

void supervisor::give_up_starting(const std::string& problem) const {
  for_each_ring(state, [](const server_state::ring_seat& seat) {
    if (seat.alive)
      caf::anon_send_exit(seat.actor, caf::exit_reason::user_shutdown);
  });
  if (state.evictor != nullptr)
    self->send_exit(state.evictor, caf::exit_reason::user_shutdown);
  for (const auto& seat : state.drives)
    if (seat.alive)
      self->send(caf::actor_cast<drive_actor>(seat.actor), close_drive{});
  state.board->started.set_value(problem);
  end(caf::exit_reason::user_shutdown);
}

void supervisor::end(caf::exit_reason reason) const {
  state.now = phase::ended;
  forget_rails();
  if (state.trim_batcher != nullptr)
    self->send_exit(state.trim_batcher, caf::exit_reason::user_shutdown);
  if (state.license_watcher != nullptr)
    self->send_exit(state.license_watcher, caf::exit_reason::user_shutdown);
  state.license_watcher = nullptr;
  publish("license-watcher", nullptr);
  // Its thread ends when nobody refers to it any more.
  state.trim_batcher = nullptr;
  publish("trim-batcher", nullptr);
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    state.drives[index].resetter = nullptr;
    publish("drive-resetter-" + std::to_string(index), nullptr);
  }
  if (state.admin_gateway != nullptr)
    self->send_exit(state.admin_gateway, caf::exit_reason::user_shutdown);
  state.admin_gateway = nullptr;
  publish(admin_gateway_state::name, nullptr);
  self->quit(reason);
}

void supervisor::down(const caf::down_msg& message) const {
  const auto same = [&](const caf::actor& who) { return who != nullptr && message.source == who; };
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    if (same(state.drives[index].actor)) {
      drive_ended(index);
      return;
    }
    if (same(state.drives[index].resetter)) {
      resetter_ended(index, "resetting it was interrupted: reset it again");
      return;
    }
  }
  for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
    if (same(state.reactors[index].actor)) {
      if (state.listener.alive)
        self->send(caf::actor_cast<listener_actor>(state.listener.actor), reactor_changed{index, nullptr});
      forget_reactor(message.source.id());
      if (ring_ended(state.reactors[index], "reactor-" + std::to_string(index)))
        spawn_reactor(index);
      return;
    }
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail)
    if (same(state.rails[rail].actor)) {
      rail_ended(rail);
      return;
    }
  if (same(state.listener.actor)) {
    if (ring_ended(state.listener, "listener"))
      spawn_listener();
  } else if (same(state.evictor)) {
    state.evictor = nullptr;
    publish("evictor", nullptr);
    if (state.now == phase::serving) {
      log::error(target, "the evictor ended and is started anew");
      spawn_evictor();
    }
  } else if (same(state.admin_gateway)) {
    state.admin_gateway = nullptr;
    publish(admin_gateway_state::name, nullptr);
    if (state.now != phase::ended) {
      log::error(target, "the admin gateway ended and is started anew");
      spawn_admin_gateway();
    }
  } else if (same(state.trim_batcher)) {
    state.trim_batcher = nullptr;
    publish("trim-batcher", nullptr);
    if (state.now != phase::ended) {
      log::error(target, "the trim batcher ended and is started anew");
      spawn_trim_batcher();
    }
  } else if (same(state.license_watcher)) {
    state.license_watcher = nullptr;
    publish("license-watcher", nullptr);
    if (state.now != phase::ended) {
      log::error(target, "the license watcher ended and is started anew");
      spawn_license_watcher();
    }
  }
}

void supervisor::stop() const {
  state.board->stopping = true;
  if (state.now == phase::starting) {
    give_up_starting(stopped_while_starting);
    return;
  }
  if (state.now == phase::opening) {
    // Drives that are still recovering are left to their exit messages.
    for (const auto& seat : state.drives)
      if (seat.alive)
        caf::anon_send_exit(seat.actor, caf::exit_reason::user_shutdown);
    end(caf::exit_reason::user_shutdown);
    return;
  }
  if (state.now != phase::serving)
    return;
  log::info(target, "stopping: finishing open requests");
  for (auto& seat : state.drives)
    if (seat.reset != nullptr)
      seat.reset->cancelled = true;
  state.now = phase::finishing_requests;
  state.phase_end_ns = steady_now_ns() + state.options.shutdown_ms * 500'000;
  if (state.listener.alive)
    self->send(caf::actor_cast<listener_actor>(state.listener.actor), stop_accepting{});
  if (state.evictor != nullptr)
    self->send_exit(state.evictor, caf::exit_reason::user_shutdown);
  for (const auto& seat : state.reactors)
    if (seat.alive)
      self->send(caf::actor_cast<reactor_actor>(seat.actor), finish_requests{});
}

void supervisor::stop_without_license(const std::string& reason) const {
  // One that does not serve yet is told again, and one that stops already does so for another reason.
  if (state.now != phase::serving)
    return;
  log::error(target, "the server stops: " + reason);
  {
    std::lock_guard guard{state.board->lock};
    state.board->ended_because = reason;
  }
  stop();
}

void supervisor::look() const {
  const auto now = steady_now_ns();
  if (state.options.faults != nullptr && now >= state.next_fault_warning_ns) {
    state.next_fault_warning_ns = now + fault_warning_interval_ns;
    log::warn(target, "fault injection is on: whoever reaches the administration endpoint from this machine "
                      "can make this server fail; start it without --fault-injection for anything but tests");
  }
  switch (state.now) {
  case phase::serving:
    look_at_drives(now);
    // In a change it is not said where a part lies.
    if (!state.members.changing())
      drop_parts_without_heads();
    for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
      if (const auto at = state.reactors[index].respawn_at_ns; at != 0 && now >= at)
        spawn_reactor(index);
    if (const auto at = state.listener.respawn_at_ns; at != 0 && now >= at)
      spawn_listener();
    look_at_rails(now);
    break;
  case phase::finishing_requests: {
    const bool any = std::any_of(state.reactors.begin(), state.reactors.end(),
                                 [](const auto& seat) { return seat.alive; });
    if (any && now < state.phase_end_ns)
      break;
    for (const auto& seat : state.reactors)
      if (seat.alive)
        caf::anon_send_exit(seat.actor, caf::exit_reason::kill);
    // No card may touch buffers of drives that close.
    stop_rails();
    state.now = phase::closing_rails;
    state.phase_end_ns = now + rails_close_ns_max;
    [[fallthrough]];
  }
  case phase::closing_rails: {
    const bool any =
        std::any_of(state.rails.begin(), state.rails.end(), [](const auto& seat) { return seat.alive; });
    if (any && now < state.phase_end_ns)
      break;
    if (any)
      log::error(target, "an RDMA device was not closed in time");
    log::info(target, "stopping: writing the drives' metadata");
    for (const auto& seat : state.drives)
      if (seat.alive)
        self->send(caf::actor_cast<drive_actor>(seat.actor), close_drive{});
    state.now = phase::closing_drives;
    state.phase_end_ns = now + state.options.shutdown_ms * 500'000;
    break;
  }
  case phase::closing_drives: {
    const bool any = std::any_of(state.drives.begin(), state.drives.end(),
                                 [](const auto& seat) { return seat.alive || seat.resetter != nullptr; });
    if (any && now < state.phase_end_ns)
      break;
    if (any)
      log::error(target, "a drive did not close, or the reset of one did not end, in time: it will be "
                         "recovered at the next start, or has to be reset again");
    // A pool may wait for the kernel for minutes: the process does not wait with it.
    state.board->orderly =
        !any && std::ranges::none_of(state.rails, [](const auto& seat) { return seat.alive; });
    for (std::uint32_t index = 0; !any && index < state.drives.size(); ++index) {
      if (!state.drives[index].unclosed)
        continue;
      const auto problem = "drive " + std::to_string(index) +
                           " was offline when the server stopped, or could not be closed in order: the next "
                           "start recovers it";
      log::error(target, problem);
      const std::lock_guard guard{state.board->lock};
      if (state.board->ended_because.empty())
        state.board->ended_because = problem;
    }
    end(caf::exit_reason::normal);
    return;
  }
  case phase::starting:
    begin_accepting_when_ready();
    break;
  case phase::opening:
    look_for_silent_drives();
    break;
  case phase::ended:
    break;
  }
  self->delayed_send(self, look_interval, look_again{});
}

server_actor::behavior_type server(server_actor::stateful_pointer<server_state> self, server_options options,
                                   int listening_socket, std::shared_ptr<reactor_shared> shared,
                                   std::shared_ptr<server_board> board) {
  auto& state = self->state;
  state.options = std::move(options);
  state.board = std::move(board);
  state.listening_socket = listening_socket;
  const auto& limits = state.options.limits;
  state.door = std::make_shared<admission>(limits.connections_max, limits.connections_per_address_max,
                                           limits.unauthenticated_max);
  state.board->door = state.door;
  state.shared = std::move(shared);
  state.drives.resize(state.options.drives.size());
  state.reactors.resize(state.options.reactors);
  state.rails.resize(state.options.rdma.rails());
  let_act_up(self);
  const supervisor work{self};
  work.publish("server", caf::actor_cast<caf::actor>(self));
  self->set_down_handler([self](const caf::down_msg& message) { supervisor{self}.down(message); });
  state.members = membership(static_cast<std::uint32_t>(state.drives.size()), state.options.set);
  work.spawn_admin_gateway();
  work.spawn_trim_batcher();
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    state.drives[index].epoch_least = state.options.set.epoch_least(index);
    state.drives[index].counted = state.options.drives[index].memory;
    work.spawn_drive(index);
  }
  self->delayed_send(self, look_interval, look_again{});
  return {
      [self](const drive_changed& change) { supervisor{self}.drive_opened(change); },
      [self](const drive_failed& failure) { supervisor{self}.drive_failed_with(failure); },
      [self](const drive_did& message) { supervisor{self}.drive_finished_step(message); },
      [self](const members_taken& message) { supervisor{self}.reactor_finished_step(message); },
      [self](const parts_orphaned& message) {
        const supervisor now{self};
        for (const auto& orphan : message.orphans)
          for (std::uint32_t part = 1; part < orphan.parts; ++part)
            now.erase_part(engine::part_id(orphan.id, orphan.put_id, part));
      },
      [self](const actor_started& message) { supervisor{self}.ring_started(message); },
      [self](const dci_pool_changed& message) { supervisor{self}.rail_opened(message); },
      [self](const dci_pool_failed& message) { supervisor{self}.rail_failed(message); },
      [self](const license_ended& message) { supervisor{self}.stop_without_license(message.reason); },
      [self](const stop_server&) { supervisor{self}.stop(); },
      [self](const describe_yourself& question) {
        answer(question, self->id(), mailbox_size(*self), {.server = supervisor{self}.facts()});
      },
      [self](const reset_drive& message) { supervisor{self}.reset(message); },
      [self](const drive_was_reset& message) { supervisor{self}.was_reset(message); },
      [self](const look_again&) { supervisor{self}.look(); },
  };
}

} // namespace memkv::actors
