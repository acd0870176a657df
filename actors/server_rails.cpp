// The RDMA rails of SERVER: a DCI POOL for each, and what becomes of one whose device fails.
//
// Rail r is thread r / devices of device r % devices: clients name a rail modulo the devices.
#include "actors/dci_pool.hpp"
#include "actors/log.hpp"
#include "actors/supervisor.hpp"
#include "verbs/ibverbs_fabric.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::server";
constexpr std::uint64_t again_ns_min = 100'000'000;
constexpr std::uint64_t again_ns_max = 10'000'000'000;
/// A server that starts waits for its rails so long: a client that finds none may do without for good.
constexpr std::uint64_t first_ns_max = 30'000'000'000;

using phase = server_state::phase;

verbs::status open_device(const std::string& device, const verbs::path_wishes& path,
                          std::unique_ptr<verbs::fabric>& out, std::vector<std::string>& warnings) {
  const verbs::ibverbs_library* library = nullptr;
  if (auto loaded = verbs::load_ibverbs(library); !loaded.ok())
    return loaded;
  return verbs::open_ibverbs_fabric(*library, device, 1, path, out, warnings);
}

std::string name_of(std::uint32_t rail) {
  return "dci-pool-" + std::to_string(rail);
}

} // namespace

void supervisor::begin_with_rails() const {
  state.rails_until_ns = steady_now_ns() + first_ns_max;
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail)
    spawn_rail(rail);
  begin_accepting_when_ready();
}

bool supervisor::rails_decided() const {
  return std::ranges::all_of(state.rails,
                             [](const auto& seat) { return seat.online || !seat.problem.empty(); });
}

void supervisor::spawn_rail(std::uint32_t rail) const {
  auto& seat = state.rails[rail];
  const auto& wanted = state.options.rdma;
  const auto& device = wanted.devices[rail % wanted.devices.size()];
  dci_pool_settings settings;
  settings.rail = rail;
  settings.rails = static_cast<std::uint32_t>(state.rails.size());
  settings.open = [device, open = wanted.open, path = wanted.path](std::unique_ptr<verbs::fabric>& out,
                                                                   std::vector<std::string>& warnings) {
    return open ? open(device, out, warnings) : open_device(device, path, out, warnings);
  };
  settings.memory.push_back({state.shared->pool->range(), state.shared});
  settings.dc.initiators = wanted.initiators;
  settings.transfer_bytes_max =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(state.shared->pool->chunk_bytes(), 1U << 30U));
  settings.sessions_max = wanted.sessions_max;
  settings.server = caf::actor_cast<server_actor>(self);
  settings.past = seat.past;
  seat.again_ns = 0;
  seat.alive = true;
  seat.actor =
      caf::actor_cast<caf::actor>(self->home_system().spawn<dci_pool, caf::detached>(std::move(settings)));
  self->monitor(seat.actor);
  publish(name_of(rail), seat.actor);
  for (std::uint32_t drive = 0; drive < state.drives.size(); ++drive)
    register_drive(drive, rail);
}

/// Values of a memory drive move without a copy.
void supervisor::register_drive(std::uint32_t drive, std::uint32_t rail) const {
  const auto& to = state.rails[rail];
  const auto& seat = state.drives[drive];
  const auto body = seat.admitted ? seat.body.lock() : nullptr;
  if (!to.alive || body == nullptr || !body->memory)
    return;
  const auto range = body->device->writable_mapping();
  if (!range.empty())
    self->send(caf::actor_cast<dci_pool_actor>(to.actor), register_memory{range, body});
}

void supervisor::register_drive(std::uint32_t drive) const {
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail)
    register_drive(drive, rail);
}

dci_pool_changed supervisor::change_of_rail(std::uint32_t rail) const {
  const auto& seat = state.rails[rail];
  const auto rails = static_cast<std::uint32_t>(state.rails.size());
  if (!seat.online)
    return {rail, rails, nullptr, {}};
  return {rail, rails, seat.actor, seat.reachable};
}

void supervisor::tell_about_rail(std::uint32_t rail) const {
  const auto change = change_of_rail(rail);
  for (const auto& seat : state.reactors)
    if (seat.alive)
      self->send(caf::actor_cast<reactor_actor>(seat.actor), change);
}

void supervisor::rail_opened(const dci_pool_changed& message) const {
  auto& seat = state.rails.at(message.rail);
  if (message.pool != seat.actor)
    return; // it has died since
  if (!seat.online) {
    seat.online = true;
    seat.opened_ns = steady_now_ns();
    seat.attempts = 0;
    seat.device_away = false;
    if (!seat.problem.empty())
      log::info(target, "an RDMA device is back", {{"rail", std::to_string(message.rail)}});
    seat.problem.clear();
  }
  seat.reachable = message.reachable;
  tell_about_rail(message.rail);
  begin_accepting_when_ready();
}

void supervisor::rail_failed(const dci_pool_failed& message) const {
  auto& seat = state.rails.at(message.rail);
  seat.failed = true;
  seat.device_away = true;
  seat.unopened += seat.online ? 0 : 1;
  // Said once for each cause, however often it is tried.
  if (seat.problem != message.reason)
    log::error(target, "an RDMA device is not in use, and is tried again: " + message.reason,
               {{"rail", std::to_string(message.rail)}});
  seat.problem = message.reason;
  rail_went(message.rail);
  begin_accepting_when_ready();
}

void supervisor::rail_went(std::uint32_t rail) const {
  auto& seat = state.rails[rail];
  if (!seat.online)
    return;
  seat.online = false;
  seat.reachable.clear();
  tell_about_rail(rail);
}

/// The DCI POOL of a rail has ended: its device is closed.
void supervisor::rail_ended(std::uint32_t rail) const {
  auto& seat = state.rails[rail];
  rail_went(rail);
  seat.alive = false;
  seat.actor = nullptr;
  publish(name_of(rail), nullptr);
  const bool failed = std::exchange(seat.failed, false);
  if (state.now != phase::starting && state.now != phase::serving)
    return;
  const auto now = steady_now_ns();
  // One that has worked is started anew at once, unless that has just been tried.
  const bool again_at_once = !failed && seat.opened_ns != 0 && now - seat.opened_ns >= 1'000'000'000;
  seat.again_ns =
      again_at_once ? now : now + std::min(again_ns_min << std::min(seat.attempts, 10U), again_ns_max);
  seat.attempts += again_at_once ? 0 : 1;
  if (!failed) {
    seat.device_away = false;
    seat.problem = "its actor ended";
    log::error(target, name_of(rail) + " ended and is started anew");
  }
  begin_accepting_when_ready();
}

void supervisor::look_at_rails(std::uint64_t now_ns) const {
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail)
    if (const auto& seat = state.rails[rail]; !seat.alive && seat.again_ns != 0 && now_ns >= seat.again_ns)
      spawn_rail(rail);
}

/// All sessions end; what was to be answered is.
void supervisor::stop_rails() const {
  for (const auto& seat : state.rails)
    if (seat.alive)
      self->send(caf::actor_cast<dci_pool_actor>(seat.actor), finish_requests{});
}

void supervisor::forget_rails() const {
  for (std::uint32_t rail = 0; rail < state.rails.size(); ++rail) {
    auto& seat = state.rails[rail];
    if (seat.alive)
      caf::anon_send_exit(seat.actor, caf::exit_reason::user_shutdown);
    seat.actor = nullptr; // its thread ends when nobody refers to it any more
    seat.alive = seat.online = false;
    publish(name_of(rail), nullptr);
  }
}

rail_report supervisor::report_of_rail(std::uint32_t rail) const {
  const auto& seat = state.rails[rail];
  const auto& devices = state.options.rdma.devices;
  rail_report out;
  out.rail = rail;
  out.device = devices[rail % devices.size()];
  out.state = seat.online            ? rail_state::online
              : seat.problem.empty() ? rail_state::opening
                                     : rail_state::offline;
  if (!seat.online)
    out.reason = seat.problem;
  out.counters = seat.past->read();
  return out;
}

} // namespace memkv::actors
