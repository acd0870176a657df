// The drives of SERVER: opening them, who takes part, and what becomes of a failing one.
#include "actors/admin_gateway.hpp"
#include "actors/drive.hpp"
#include "actors/fault_points.hpp"
#include "actors/log.hpp"
#include "actors/registry_writer.hpp"
#include "actors/supervisor.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::server";
/// A pool in ordinary memory that is larger is not registered with the drives' rings.
constexpr std::uint64_t registered_bytes_max = std::uint64_t{4} << 30;
/// A drive that is opened may be silent for so many times io_timeout_ms before a start goes on without it.
constexpr std::uint64_t opening_timeouts = 3;
/// Parts of striped blocks whose heads are looked for at a time.
constexpr std::size_t parts_a_look = 4096;

using phase = server_state::phase;
using kind = membership_step::kind;

} // namespace

drive_changed supervisor::change_of(std::uint32_t index) const {
  const auto& seat = state.drives[index];
  if (!seat.admitted)
    return {index, nullptr, nullptr, nullptr};
  return {index, seat.actor, seat.body.lock(), nullptr};
}

void supervisor::tell_about_drive(std::uint32_t index) const {
  const auto change = change_of(index);
  for (const auto& seat : state.reactors)
    if (seat.alive)
      self->send(caf::actor_cast<reactor_actor>(seat.actor), change);
  if (state.evictor != nullptr)
    self->send(caf::actor_cast<evictor_actor>(state.evictor), change);
}

void supervisor::spawn_drive(std::uint32_t index) const {
  auto& seat = state.drives[index];
  drive_settings settings;
  settings.index = index;
  settings.description = state.options.drives[index];
  settings.options = state.options.store;
  settings.options.identity.drive_index = index;
  settings.options.persistent = !settings.description.memory;
  settings.options.failures = seat.unnoted;
  settings.options.waits_since_ns = seat.waits_since_ns;
  settings.time = state.options.time;
  settings.server = caf::actor_cast<server_actor>(self);
  // Registering fills and pins the whole pool, for each drive anew. In huge pages that takes no time.
  const auto pool = state.shared->pool->statistics();
  if (pool.huge_pages || state.options.pool_bytes <= registered_bytes_max)
    settings.pool = state.shared->pool->range();
  settings.pool_keeper = state.shared;
  settings.trim_batcher = state.trim_batcher;
  if (state.options.faults != nullptr)
    settings.faults = state.options.faults->drives[index];
  settings.io_timeout_ns = state.options.io_timeout_ms * 1'000'000;
  settings.epoch_least = settings.description.memory ? 0 : seat.epoch_least;
  if (state.now == phase::opening && !settings.description.memory)
    settings.epoch_most = state.options.set.epoch;
  settings.survivor = std::move(seat.survivor);
  seat.survivor = nullptr;
  settings.past = seat.past;
  settings.unwanted = [board = state.board, told = state.options.told_to_stop] {
    return board->stopping || (told && told());
  };
  seat.reopen_at_ns = 0;
  seat.alive = true;
  seat.actor = self->home_system().spawn<drive, caf::detached>(std::move(settings));
  self->monitor(seat.actor);
  publish("drive-" + std::to_string(index), seat.actor);
}

void supervisor::drive_opened(const drive_changed& change) const {
  auto& seat = state.drives[change.index];
  if (change.drive != seat.actor)
    return; // of an incarnation that has died since
  seat.body = change.body;
  seat.online = true;
  seat.silent = false;
  seat.attempts = 0;
  seat.opened_ns = steady_now_ns();
  if (change.body->memory) {
    seat.survivor = change.body;
  } else {
    seat.unclosed = true;
    seat.unnoted = {};
    seat.counted = true;
    seat.failures = change.registry.failure_count;
    seat.first_failed_ns = change.registry.first_failed_at_ns;
    seat.last_failed_ns = change.registry.last_failed_at_ns;
  }
  if (change.recovered != nullptr)
    state.recovered.insert(state.recovered.end(), change.recovered->begin(), change.recovered->end());
  if (state.now == phase::opening) {
    begin_serving_when_ready();
    return;
  }
  // A drive that never left, and missed nothing, is simply there again.
  if (engine::is_member(state.members.members(), change.index) && !state.members.changing() &&
      change.epoch == state.members.epoch())
    admit(change.index);
  else
    change_members(steady_now_ns());
}

void supervisor::admit(std::uint32_t index) const {
  auto& seat = state.drives[index];
  seat.admitted = true;
  seat.last_reason.clear();
  seat.away_since_ns = 0;
  ++state.board->drives_online;
  register_drive(index);
  if (state.now != phase::serving)
    return;
  tell_about_drive(index);
  look_at_parts_anew();
  log::info(target, "drive is back", {{"drive", std::to_string(index)}});
}

void supervisor::drive_went(std::uint32_t index, const std::string& why) const {
  auto& seat = state.drives[index];
  if (seat.online) {
    seat.online = false;
    // From here on it is known what it missed, whatever was thought of it at the start.
    if (!state.options.drives[index].memory && seat.admitted && seat.epoch != 0)
      seat.epoch_least = engine::epoch_least_of_member(seat.epoch);
  }
  if (seat.admitted) {
    seat.admitted = false;
    seat.away_since_ns = steady_now_ns();
    --state.board->drives_online;
    tell_about_drive(index);
  }
  seat.reason = why;
  if (!why.empty())
    seat.last_reason = why;
}

void supervisor::drive_failed_with(const drive_failed& failure) const {
  auto& seat = state.drives[failure.index];
  if (state.now == phase::opening || state.now == phase::starting) {
    if (failure.code == engine::errc::later_epoch) {
      give_up_starting(failure.reason);
      return;
    }
    // Served without it, the set would go on in a new epoch, and what it holds would be lost for want of a
    // little memory at one start.
    if (failure.code == engine::errc::too_large) {
      give_up_starting(state.options.drives[failure.index].path + ": " + failure.reason);
      return;
    }
  }
  const bool was_online = seat.online;
  drive_went(failure.index, failure.reason);
  if (failure.code == engine::errc::blacklisted)
    seat.blacklisted = true;
  if (!was_online)
    return;
  forget_drive(failure.index);
  ++seat.failures;
  const auto now = state.options.time->wall_ns();
  if (seat.first_failed_ns == 0)
    seat.first_failed_ns = now;
  seat.last_failed_ns = now;
  if (seat.unnoted.count++ == 0)
    seat.unnoted.first_ns = now;
  seat.unnoted.last_ns = now;
}

void supervisor::drive_ended(std::uint32_t index) const {
  auto& seat = state.drives[index];
  const bool device_failed = !seat.reason.empty();
  drive_went(index, seat.reason);
  seat.alive = seat.silent = false;
  seat.actor = nullptr;
  publish("drive-" + std::to_string(index), nullptr);
  forget_drive(index);
  if (state.now == phase::closing_drives && !device_failed)
    seat.unclosed = false;
  if (state.now == phase::closing_drives || state.now == phase::ended)
    return;
  const auto now = steady_now_ns();
  // An actor that ends without an error of its device costs no trust in the device: it is opened again at
  // once, unless that has just been tried.
  std::uint64_t wait_ns = seat.opened_ns != 0 && now - seat.opened_ns < 1'000'000'000 ? 100'000'000 : 0;
  if (device_failed)
    wait_ns = retry_ns(seat.attempts++);
  if (!seat.blacklisted && seat.failures > state.options.flap_threshold)
    blacklist(index);
  if (seat.blacklisted) {
    log::error(target, "drive stays offline: it is blacklisted",
               {{"drive", std::to_string(index)},
                {"failures", std::to_string(report_of(index).failure_count)},
                {"reason", seat.reason}});
  } else {
    seat.reopen_at_ns = now + wait_ns;
    if (state.now != phase::opening)
      log::warn(target, "drive is offline and will be opened again",
                {{"drive", std::to_string(index)},
                 {"reason", device_failed ? seat.reason : std::string{"its actor ended"}}});
  }
  if (state.now == phase::opening)
    begin_serving_when_ready();
  else
    seat.reason.clear();
}

void supervisor::blacklist(std::uint32_t index) const {
  auto& seat = state.drives[index];
  seat.blacklisted = true;
  const auto& description = state.options.drives[index];
  log::error(target,
             "drive is blacklisted: it failed more often than storage.flap_threshold allows; look at it and "
             "replace it, or run memkv drive reset on it while the server is stopped",
             {{"drive", std::to_string(index)}, {"failures", std::to_string(seat.failures)}});
  // Nobody waits for it: the drive is a failing one.
  if (!description.memory)
    write_registry_aside(description.path, seat.unnoted);
  look_at_parts_anew();
}

void supervisor::begin_serving_when_ready() const {
  if (state.members.changing())
    return;
  std::size_t decided = 0;
  bool silent = false;
  engine::drive_members online{};
  std::size_t count = 0;
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    const auto& seat = state.drives[index];
    decided += seat.online || !seat.alive || seat.silent;
    silent = silent || seat.silent;
    if (!seat.online)
      continue;
    ++count;
    engine::add_member(online, index);
  }
  // With none of them there is nothing to be served, so those that do not answer are waited for.
  if (decided < state.drives.size() || (count == 0 && silent))
    return;
  if (state.options.told_to_stop && state.options.told_to_stop()) {
    give_up_starting(stopped_while_starting);
    return;
  }
  if (count == 0) {
    std::string reason = "no drive could be opened";
    for (const auto& seat : state.drives)
      if (!seat.reason.empty())
        reason += ": " + seat.reason;
    state.board->started.set_value(reason);
    end(caf::exit_reason::user_shutdown);
    return;
  }
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    auto& seat = state.drives[index];
    if (!seat.online) {
      log::error(target, "serving without a drive: its keys go to the others until it is back",
                 {{"drive", std::to_string(index)}, {"reason", seat.reason}});
      seat.reason.clear();
      continue;
    }
    admit(index);
  }
  state.members.begin(online);
  if (!state.members.all_take_part())
    state.changed = std::make_shared<change_filter>();
  take_steps();
}

/// A start waits for a drive as long as it gets on. That the set is judged without one that says nothing at
/// all cannot be: what each knows of it was read before (find_set.hpp).
void supervisor::look_for_silent_drives() const {
  const auto now = state.options.time->steady_ns();
  bool any = false;
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    auto& seat = state.drives[index];
    const auto since = seat.waits_since_ns->load(std::memory_order_relaxed);
    if (seat.silent || seat.online || !seat.alive || since == 0 || now < since ||
        now - since < opening_timeouts * state.options.io_timeout_ms * 1'000'000)
      continue;
    seat.silent = any = true;
    seat.reason = seat.last_reason = state.options.drives[index].path + " has not answered a request for " +
                                     std::to_string((now - since) / 1'000'000'000) + " s while it was opened";
    log::error(target, "drive hangs while it is opened: it takes part when it has answered",
               {{"drive", std::to_string(index)}, {"reason", seat.reason}});
  }
  if (any)
    begin_serving_when_ready();
}

// Members

void supervisor::change_members(std::uint64_t now_ns) const {
  if (state.now != phase::serving)
    return;
  for (std::uint32_t index = 0; index < state.drives.size() && !state.members.changing(); ++index) {
    const auto& seat = state.drives[index];
    const bool member = engine::is_member(state.members.members(), index);
    if (seat.online && !member) {
      state.members.join(index);
    } else if (seat.online && !seat.admitted) {
      state.members.rejoin(index);
    } else if (!seat.online && member && state.board->drives_online > 0 &&
               (seat.blacklisted ||
                now_ns - seat.away_since_ns >= state.options.leave_after_ms * 1'000'000)) {
      log::warn(target, "a drive has been away for long: its keys go to the others from now on",
                {{"drive", std::to_string(index)}});
      state.members.leave(index);
      if (state.changed == nullptr)
        state.changed = std::make_shared<change_filter>();
    }
  }
  take_steps();
}

/// Carries steps out, and goes on as long as nobody has to be waited for.
void supervisor::take_steps() const {
  while (const auto* step = state.members.step()) {
    if (!state.step_sent) {
      ++state.step_serial;
      state.step_sent = true;
      state.step_drives.clear();
      state.step_reactors.clear();
      carry_out(*step);
    }
    if (!state.step_drives.empty() || !state.step_reactors.empty())
      return;
    state.step_sent = false;
    state.members.finished();
  }
  if (state.now == phase::opening)
    begin_serving();
}

void supervisor::carry_out(const membership_step& step) const {
  // A member that came back meanwhile has missed sweeps, and must not be given an epoch that says otherwise:
  // its own change follows.
  const auto each_drive = [&](auto&& send) {
    for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
      const auto& seat = state.drives[index];
      if (seat.online && seat.alive &&
          ((seat.admitted && engine::is_member(step.after, index)) || step.joining == index)) {
        state.step_drives.insert(index);
        send(index, caf::actor_cast<drive_actor>(seat.actor));
      }
    }
  };
  switch (step.what) {
  case kind::tell:
    for (const auto& seat : state.reactors)
      if (seat.alive) {
        state.step_reactors.insert(seat.actor.id());
        self->send(caf::actor_cast<reactor_actor>(seat.actor),
                   members_changed{state.step_serial, step.after, state.changed});
      }
    break;
  case kind::sweep:
    each_drive([&](std::uint32_t index, const drive_actor& who) {
      // One that was away may have missed sweeps. For sure it is only of what is its own when all take part:
      // as long as it was a member nobody else could have that, and since then changes have been noted.
      const bool joins = step.joining == index;
      const auto all = engine::all_members(static_cast<std::uint32_t>(state.drives.size()));
      self->send(who, sweep_blocks{state.step_serial, joins ? all : step.before, step.after,
                                   joins ? state.changed : nullptr});
    });
    break;
  case kind::enter_epoch:
    each_drive([&](std::uint32_t, const drive_actor& who) {
      self->send(who, enter_epoch{state.step_serial, step.epoch, step.after});
    });
    break;
  case kind::admit:
    admit(*step.joining);
    if (state.members.all_take_part()) {
      // Nobody is away any more: what was noted is forgotten with the next word to the reactors.
      state.changed = nullptr;
      for (const auto& seat : state.reactors)
        if (seat.alive)
          self->send(caf::actor_cast<reactor_actor>(seat.actor), members_now(0));
    }
    break;
  }
}

void supervisor::drive_finished_step(const drive_did& message) const {
  if (message.serial != state.step_serial || state.step_drives.erase(message.index) == 0)
    return;
  // Durable from here on: what was only begun must not make a drive that died on the way look too old.
  if (const auto* step = state.members.step(); step != nullptr && step->what == kind::enter_epoch)
    state.drives[message.index].epoch = step->epoch;
  take_steps();
}

/// One that failed may still do what it was told, however late: so may one whose actor ended in the middle.
/// When it is back it says which epoch it is in.
void supervisor::forget_drive(std::uint32_t index) const {
  const auto* step = state.members.step();
  if (step == nullptr)
    return;
  state.step_drives.erase(index);
  if (step->joining == index) {
    state.members.lost(index);
    state.step_sent = false;
  }
  take_steps();
}

void supervisor::reactor_finished_step(const members_taken& message) const {
  if (message.serial == state.step_serial)
    forget_reactor(message.reactor);
}

void supervisor::forget_reactor(caf::actor_id which) const {
  if (state.step_reactors.erase(which) > 0)
    take_steps();
}

void supervisor::look_at_drives(std::uint64_t now_ns) const {
  for (std::uint32_t index = 0; index < state.drives.size(); ++index) {
    auto& seat = state.drives[index];
    if (seat.reset != nullptr && seat.resetter == nullptr)
      begin_reset_when_possible(index);
    if (seat.alive || seat.reopen_at_ns == 0 || now_ns < seat.reopen_at_ns)
      continue;
    // The old mapping is read by requests that were under way: the space on it is not reused under them.
    if (seat.survivor == nullptr && !seat.body.expired())
      continue;
    spawn_drive(index);
  }
  if (!state.members.changing())
    change_members(now_ns);
}

// Reports and resets

drive_report supervisor::report_of(std::uint32_t index) const {
  const auto& seat = state.drives[index];
  const auto& description = state.options.drives[index];
  drive_report out;
  out.index = index;
  out.media = description.memory ? "memory" : description.path;
  out.state = seat.reset != nullptr      ? drive_state::resetting
              : seat.admitted            ? drive_state::online
              : seat.online              ? drive_state::joining
              : seat.blacklisted         ? drive_state::blacklisted
              : seat.last_reason.empty() ? drive_state::opening
                                         : drive_state::offline;
  if (!seat.admitted)
    out.reason = seat.last_reason;
  out.failure_count = seat.failures;
  out.first_failed_at = seat.first_failed_ns / 1'000'000'000;
  out.last_failed_at = seat.last_failed_ns / 1'000'000'000;
  if (!seat.counted) {
    const auto& found = state.options.registries;
    out.failures_known = index < found.size() && found[index].has_value();
    if (out.failures_known) {
      out.failure_count = found[index]->failure_count;
      out.first_failed_at = found[index]->first_failed_at_ns / 1'000'000'000;
      out.last_failed_at = found[index]->last_failed_at_ns / 1'000'000'000;
    }
  }
  out.member = engine::is_member(state.members.members(), index);
  out.reset_problem = seat.reset_problem;
  if (seat.reset != nullptr) {
    out.reset_done_bytes = seat.reset->done_bytes;
    out.reset_total_bytes = seat.reset->total_bytes;
    out.reset_secure = seat.reset_secure;
  }
  return out;
}

void supervisor::reset(const reset_drive& message) const {
  const auto refuse = [&](admin_outcome::kind what, const std::string& why) {
    message.waiter->give({what, why});
  };
  using outcome = admin_outcome::kind;
  if (message.index >= state.drives.size()) {
    refuse(outcome::unknown, "there is no drive " + std::to_string(message.index) + ": this server has " +
                                 std::to_string(state.drives.size()));
    return;
  }
  auto& seat = state.drives[message.index];
  const auto& description = state.options.drives[message.index];
  const auto name = "drive " + std::to_string(message.index);
  if (state.now != phase::serving)
    refuse(outcome::conflict, "the server is starting or stopping: ask again when it serves");
  else if (description.memory)
    refuse(outcome::conflict, name + " is memory: there is nothing to reset");
  else if (seat.reset != nullptr)
    refuse(outcome::conflict, name + " is being reset already");
  else if (seat.online)
    refuse(outcome::conflict, name + " is online: only a drive that is offline can be reset");
  else if (seat.blacklisted)
    refuse(outcome::conflict,
           name + " is blacklisted: replace it, or stop the server and run memkv drive reset " +
               description.path);
  else if (seat.alive)
    refuse(outcome::conflict,
           name + " is being opened, or still has requests in the kernel: ask again later");
  else {
    seat.reset = std::make_shared<reset_progress>();
    seat.reset_secure = message.secure;
    seat.reset_problem.clear();
    seat.reopen_at_ns = 0;
    log::warn(target, "a drive is being reset: everything on it goes",
              {{"drive", std::to_string(message.index)}, {"secure", message.secure ? "yes" : "no"}});
    refuse(outcome::done, {});
    begin_reset_when_possible(message.index);
  }
}

void supervisor::begin_reset_when_possible(std::uint32_t index) const {
  auto& seat = state.drives[index];
  // While members change, their epoch is not durable on all of them.
  if (!seat.body.expired() || state.members.changing())
    return;
  reset_order order;
  order.drive = state.options.drives[index];
  order.options = state.options.store;
  order.options.identity.drive_index = index;
  order.set_epoch = state.members.epoch();
  order.members = state.members.members();
  order.server = caf::actor_cast<server_actor>(self);
  order.progress = seat.reset;
  seat.resetter =
      caf::actor_cast<caf::actor>(self->home_system().spawn<caf::detached>(drive_resetter, std::move(order)));
  self->monitor(seat.resetter);
  publish("drive-resetter-" + std::to_string(index), seat.resetter);
  self->send(caf::actor_cast<drive_resetter_actor>(seat.resetter),
             reset_drive{index, seat.reset_secure, nullptr});
}

void supervisor::was_reset(const drive_was_reset& message) const {
  resetter_ended(message.index, message.problem);
}

void supervisor::resetter_ended(std::uint32_t index, const std::string& problem) const {
  auto& seat = state.drives[index];
  if (seat.resetter == nullptr)
    return; // its last words came before
  publish("drive-resetter-" + std::to_string(index), nullptr);
  seat.resetter = nullptr;
  seat.reset = nullptr;
  if (problem.empty()) {
    seat.failures = 0;
    seat.counted = true;
    seat.unnoted = {};
    seat.first_failed_ns = seat.last_failed_ns = 0;
    seat.attempts = 0;
    seat.epoch_least = 0; // empty, it misses nothing
    seat.unclosed = false;
    seat.last_reason.clear();
  } else {
    // It is opened all the same, and may come up: that must not pass for a reset that ended well.
    seat.last_reason = seat.reset_problem = problem;
  }
  seat.reopen_at_ns = steady_now_ns();
}

// Parts of striped blocks

/// Whether a drive that is away may come back with blocks of its own.
bool supervisor::may_bring_blocks(std::uint32_t index) const {
  const auto& seat = state.drives[index];
  return !seat.admitted && !seat.blacklisted && seat.epoch_least != engine::no_epoch_will_do;
}

void supervisor::look_at_parts_anew() const {
  state.recovered.insert(state.recovered.end(), state.undecided.begin(), state.undecided.end());
  state.undecided.clear();
  // A drive that came back tells of its parts again.
  std::ranges::sort(state.recovered, {}, &engine::drive_store::recovered_part::id);
  const auto same = std::ranges::unique(state.recovered, {}, &engine::drive_store::recovered_part::id);
  state.recovered.erase(same.begin(), same.end());
}

/// Parts of striped puts that were never committed, or whose head was replaced, take space and serve nobody.
/// Those whose head may be on a drive that is away stay until it is back, or comes back without it.
void supervisor::drop_parts_without_heads() const {
  const auto drives = state.drives.size();
  for (std::size_t looked = 0; looked < parts_a_look && !state.recovered.empty(); ++looked) {
    const auto part = state.recovered.back();
    state.recovered.pop_back();
    const auto home = home_drive(part.head, drives, state.members.members());
    const auto body = state.drives[home].admitted ? state.drives[home].body.lock() : nullptr;
    const auto pin = body != nullptr ? body->store->index().find_and_pin(part.head) : engine::block_pin{};
    if (pin && pin->put_id == part.put_id)
      continue;
    // While its home is away a key belongs to another drive. What the home brings back is only what is its
    // own when all take part. A head that was put since says that the old one does not come back.
    const auto own = home_drive(part.head, drives, engine::all_members(engine::drives_max));
    if (!pin && (body == nullptr || may_bring_blocks(own)))
      state.undecided.push_back(part);
    else
      erase_part(part.id);
  }
  if (state.recovered.empty())
    state.recovered.shrink_to_fit();
}

void supervisor::erase_part(const wire::key_id& id) const {
  const auto where = home_drive(id, state.drives.size(), state.members.members());
  if (!state.drives[where].online)
    return;
  auto erase = std::make_shared<block_erase>();
  erase->id = id;
  self->send(caf::actor_cast<drive_actor>(state.drives[where].actor), erase_block{std::move(erase)});
}

} // namespace memkv::actors
