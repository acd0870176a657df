#include "actors/server.hpp"

#include "actors/connection.hpp"
#include "actors/drive.hpp"
#include "actors/evictor.hpp"
#include "actors/listener.hpp"
#include "actors/log.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::server";
constexpr auto look_interval = std::chrono::milliseconds{20};

std::uint64_t steady_now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

std::uint64_t retry_ns(std::uint32_t failures) {
  return std::min<std::uint64_t>(100'000'000ULL << std::min(failures, 10U), 30'000'000'000ULL);
}

using self_pointer = server_actor::stateful_pointer<server_state>;
using phase = server_state::phase;

/// What SERVER does, apart from the table of contents in server(). Event-based: nothing here blocks.
struct supervisor {
  self_pointer self;
  server_state& state = self->state;

  void publish(const std::string& name, const caf::actor& who) const {
    std::lock_guard guard{state.board->lock};
    if (who == nullptr)
      state.board->actors.erase(name);
    else
      state.board->actors[name] = who;
  }

  void tell_reactors(const drive_changed& change) const {
    for (const auto& seat : state.reactors)
      if (seat.alive)
        self->send(caf::actor_cast<reactor_actor>(seat.actor), change);
    if (state.evictor != nullptr)
      self->send(caf::actor_cast<evictor_actor>(state.evictor), change);
  }

  void spawn_drive(std::uint32_t index) const {
    auto& seat = state.drives[index];
    drive_settings settings;
    settings.index = index;
    settings.description = state.options.drives[index];
    settings.options = state.options.store;
    settings.options.identity.drive_index = index;
    settings.options.persistent = !settings.description.memory;
    settings.time = state.options.time;
    settings.server = caf::actor_cast<server_actor>(self);
    settings.pool = state.shared->pool->range();
    settings.pool_keeper = state.shared;
    settings.survivor = std::move(seat.survivor);
    seat.survivor = nullptr;
    seat.reopen_at_ns = 0;
    seat.alive = true;
    seat.actor = self->home_system().spawn<drive, caf::detached>(std::move(settings));
    self->monitor(seat.actor);
    publish("drive-" + std::to_string(index), seat.actor);
  }

  void spawn_reactor(std::uint32_t index) const {
    auto& seat = state.reactors[index];
    seat.actor = self->home_system().spawn<reactor, caf::detached>(index, state.shared,
                                                                   caf::actor_cast<server_actor>(self));
    seat.alive = true;
    seat.started = false;
    seat.respawn_at_ns = 0;
    self->monitor(seat.actor);
    publish("reactor-" + std::to_string(index), seat.actor);
    for (std::uint32_t drive = 0; drive < state.drives.size(); ++drive)
      if (state.drives[drive].online)
        self->send(caf::actor_cast<reactor_actor>(seat.actor),
                   drive_changed{drive, state.drives[drive].actor, state.drives[drive].body.lock(), nullptr});
    if (state.listener.alive)
      self->send(caf::actor_cast<listener_actor>(state.listener.actor), reactor_changed{index, seat.actor});
  }

  void spawn_listener() const {
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

  void spawn_evictor() const {
    if (!state.options.store.eviction)
      return;
    state.evictor = caf::actor_cast<caf::actor>(self->home_system().spawn(
        evictor, state.options.store.high_watermark, state.options.store.low_watermark));
    self->monitor(state.evictor);
    publish("evictor", state.evictor);
    for (std::uint32_t drive = 0; drive < state.drives.size(); ++drive)
      if (state.drives[drive].online)
        self->send(caf::actor_cast<evictor_actor>(state.evictor),
                   drive_changed{drive, state.drives[drive].actor, state.drives[drive].body.lock(), nullptr});
  }

  void drive_opened(const drive_changed& change) const {
    auto& seat = state.drives[change.index];
    if (change.drive != seat.actor)
      return; // of an incarnation that has died since
    seat.body = change.body;
    seat.online = true;
    seat.opened_ns = steady_now_ns();
    if (change.body->memory)
      seat.survivor = change.body;
    if (change.recovered != nullptr)
      state.recovered.insert(state.recovered.end(), change.recovered->begin(), change.recovered->end());
    ++state.board->drives_online;
    if (state.now == phase::opening) {
      begin_serving_when_ready();
    } else {
      tell_reactors(drive_changed{change.index, change.drive, change.body, nullptr});
      drop_parts_without_heads();
      log::info(target, "drive is back", {{"drive", std::to_string(change.index)}});
    }
  }

  void drive_went(std::uint32_t index, const std::string& why) const {
    auto& seat = state.drives[index];
    if (seat.online) {
      seat.online = false;
      --state.board->drives_online;
      tell_reactors(drive_changed{index, nullptr, nullptr, nullptr});
    }
    seat.reason = why;
  }

  /// An incarnation of a drive has ended.
  void drive_ended(std::uint32_t index) const {
    auto& seat = state.drives[index];
    drive_went(index, seat.reason);
    seat.alive = false;
    seat.actor = nullptr;
    publish("drive-" + std::to_string(index), nullptr);
    if (state.now == phase::closing_drives)
      return;
    if (state.now == phase::opening) {
      begin_serving_when_ready();
      return;
    }
    // An actor that ends without an error of its device costs no trust in the device: it is opened again at
    // once, unless that has just been tried.
    const auto now = steady_now_ns();
    std::uint64_t wait_ns = seat.opened_ns != 0 && now - seat.opened_ns < 1'000'000'000 ? 100'000'000 : 0;
    if (!seat.reason.empty()) {
      ++seat.failures;
      if (seat.failures > state.options.flap_threshold) {
        log::error(target,
                   "drive stays offline: it failed more often than storage.flap_threshold allows; look at "
                   "the drive, "
                   "then restart the server",
                   {{"drive", std::to_string(index)},
                    {"failures", std::to_string(seat.failures)},
                    {"reason", seat.reason}});
        return;
      }
      wait_ns = retry_ns(seat.failures);
    }
    seat.reopen_at_ns = now + wait_ns;
    log::warn(target, "drive is offline and will be opened again",
              {{"drive", std::to_string(index)},
               {"reason", seat.reason.empty() ? std::string{"its actor ended"} : seat.reason}});
    seat.reason.clear();
  }

  void begin_serving_when_ready() const {
    std::size_t decided = 0;
    std::size_t online = 0;
    for (const auto& seat : state.drives) {
      decided += seat.online || !seat.alive;
      online += seat.online;
    }
    if (decided < state.drives.size())
      return;
    if (online == 0) {
      std::string reason = "no drive could be opened";
      for (const auto& seat : state.drives)
        if (!seat.reason.empty())
          reason += ": " + seat.reason;
      state.board->started.set_value(reason);
      state.now = phase::ended;
      self->quit(caf::exit_reason::user_shutdown);
      return;
    }
    for (std::size_t index = 0; index < state.drives.size(); ++index)
      if (!state.drives[index].online)
        log::error(target, "serving without a drive: its blocks are misses",
                   {{"drive", std::to_string(index)}, {"reason", state.drives[index].reason}});
    state.now = phase::starting;
    for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
      spawn_reactor(index);
    spawn_evictor();
    spawn_listener();
    drop_parts_without_heads();
  }

  template <class Function>
  void for_each_ring(Function&& function) const {
    for (auto& seat : state.reactors)
      function(seat);
    function(state.listener);
  }

  /// A reactor or the listener is at work, or says why it is not.
  void ring_started(const actor_started& message) const {
    bool all = true;
    for_each_ring([&](server_state::ring_seat& seat) {
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
  bool ring_ended(server_state::ring_seat& seat, const std::string& who) const {
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

  void give_up_starting(const std::string& problem) const {
    for_each_ring([](const server_state::ring_seat& seat) {
      if (seat.alive)
        caf::anon_send_exit(seat.actor, caf::exit_reason::user_shutdown);
    });
    if (state.evictor != nullptr)
      self->send_exit(state.evictor, caf::exit_reason::user_shutdown);
    for (const auto& seat : state.drives)
      if (seat.alive)
        self->send(caf::actor_cast<drive_actor>(seat.actor), close_drive{});
    state.board->started.set_value(problem);
    state.now = phase::ended;
    self->quit(caf::exit_reason::user_shutdown);
  }

  /// Parts of striped puts that were never committed, or whose head was replaced, take space and serve
  /// nobody.
  void drop_parts_without_heads() const {
    std::vector<engine::drive_store::recovered_part> undecided;
    for (const auto& part : state.recovered) {
      const auto home = home_drive(part.head, state.drives.size());
      const auto body = state.drives[home].body.lock();
      if (body == nullptr) {
        undecided.push_back(part); // the head may be there: decided when its drive is
        continue;
      }
      const auto pin = body->store->index().find_and_pin(part.head);
      if (pin && pin->put_id == part.put_id)
        continue;
      erase_part(part.id);
    }
    state.recovered = std::move(undecided);
  }

  void erase_part(const wire::key_id& id) const {
    const auto where = home_drive(id, state.drives.size());
    if (!state.drives[where].online)
      return;
    auto erase = std::make_shared<block_erase>();
    erase->id = id;
    self->send(caf::actor_cast<drive_actor>(state.drives[where].actor), erase_block{std::move(erase)});
  }

  void down(const caf::down_msg& message) const {
    const auto same = [&](const caf::actor& who) { return who != nullptr && message.source == who; };
    for (std::uint32_t index = 0; index < state.drives.size(); ++index)
      if (same(state.drives[index].actor)) {
        drive_ended(index);
        return;
      }
    for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
      if (same(state.reactors[index].actor)) {
        if (state.listener.alive)
          self->send(caf::actor_cast<listener_actor>(state.listener.actor), reactor_changed{index, nullptr});
        if (ring_ended(state.reactors[index], "reactor-" + std::to_string(index)))
          spawn_reactor(index);
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
    }
  }

  void stop() const {
    if (state.now == phase::starting) {
      give_up_starting("the server was stopped while it started");
      return;
    }
    if (state.now == phase::opening) {
      // Drives that are still recovering are left to their exit messages.
      for (const auto& seat : state.drives)
        if (seat.alive)
          caf::anon_send_exit(seat.actor, caf::exit_reason::user_shutdown);
      state.now = phase::ended;
      self->quit(caf::exit_reason::user_shutdown);
      return;
    }
    if (state.now != phase::serving)
      return;
    log::info(target, "stopping: finishing open requests");
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

  void look() const {
    const auto now = steady_now_ns();
    switch (state.now) {
    case phase::serving:
      for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
        auto& seat = state.drives[index];
        if (seat.alive || seat.reopen_at_ns == 0 || now < seat.reopen_at_ns)
          continue;
        // The old mapping is read by requests that were under way: the space on it is not reused under them.
        if (seat.survivor == nullptr && !seat.body.expired())
          continue;
        spawn_drive(index);
      }
      for (std::uint32_t index = 0; index < state.reactors.size(); ++index)
        if (const auto at = state.reactors[index].respawn_at_ns; at != 0 && now >= at)
          spawn_reactor(index);
      if (const auto at = state.listener.respawn_at_ns; at != 0 && now >= at)
        spawn_listener();
      break;
    case phase::finishing_requests: {
      const bool any = std::any_of(state.reactors.begin(), state.reactors.end(),
                                   [](const auto& seat) { return seat.alive; });
      if (any && now < state.phase_end_ns)
        break;
      for (const auto& seat : state.reactors)
        if (seat.alive)
          caf::anon_send_exit(seat.actor, caf::exit_reason::kill);
      log::info(target, "stopping: writing the drives' metadata");
      for (const auto& seat : state.drives)
        if (seat.alive)
          self->send(caf::actor_cast<drive_actor>(seat.actor), close_drive{});
      state.now = phase::closing_drives;
      state.phase_end_ns = now + state.options.shutdown_ms * 500'000;
      break;
    }
    case phase::closing_drives: {
      const bool any =
          std::any_of(state.drives.begin(), state.drives.end(), [](const auto& seat) { return seat.alive; });
      if (any && now < state.phase_end_ns)
        break;
      if (any)
        log::error(target, "a drive did not close in time; it will be recovered at the next start");
      state.board->orderly = !any;
      state.now = phase::ended;
      self->quit();
      return;
    }
    case phase::opening:
    case phase::starting:
    case phase::ended:
      break;
    }
    self->delayed_send(self, look_interval, look_again{});
  }
};

} // namespace

server_actor::behavior_type server(self_pointer self, server_options options, int listening_socket,
                                   std::shared_ptr<reactor_shared> shared,
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
  const supervisor work{self};
  work.publish("server", caf::actor_cast<caf::actor>(self));
  self->set_down_handler([self](const caf::down_msg& message) { supervisor{self}.down(message); });
  for (std::uint32_t index = 0; index < state.drives.size(); ++index)
    work.spawn_drive(index);
  self->delayed_send(self, look_interval, look_again{});
  return {
      [self](const drive_changed& change) { supervisor{self}.drive_opened(change); },
      [self](const drive_failed& failure) { supervisor{self}.drive_went(failure.index, failure.reason); },
      [self](const parts_orphaned& message) {
        const supervisor now{self};
        for (const auto& orphan : message.orphans)
          for (std::uint32_t part = 1; part < orphan.parts; ++part)
            now.erase_part(engine::part_id(orphan.id, orphan.put_id, part));
      },
      [self](const actor_started& message) { supervisor{self}.ring_started(message); },
      [self](const stop_server&) { supervisor{self}.stop(); },
      [self](const look_again&) { supervisor{self}.look(); },
  };
}

} // namespace memkv::actors
