#include "actors/fault_orders.hpp"

#include "actors/fault_points.hpp"
#include "actors/interfaces.hpp"
#include "actors/log.hpp"
#include "actors/server.hpp"

#include <caf/actor_cast.hpp>
#include <caf/exit_reason.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <optional>
#include <random>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::faults";
using outcome = fault_outcome::kind;
using named_actor = std::pair<std::string, caf::actor>;

std::uint64_t steady_now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

std::vector<named_actor> actors_on(server_board& board) {
  const std::lock_guard guard(board.lock);
  return {board.actors.begin(), board.actors.end()};
}

template <class Matches>
std::vector<named_actor> actors_that(server_board& board, Matches&& matches) {
  auto found = actors_on(board);
  std::erase_if(found, [&](const named_actor& each) { return !matches(each.first); });
  std::shuffle(found.begin(), found.end(), std::mt19937_64{std::random_device{}()});
  return found;
}

std::optional<named_actor> actor_of(server_board& board, const faults::kill& order) {
  const auto found = actors_that(board, [&](const std::string& name) {
    return order.name.empty() ? kind_of_actor(name) == order.kind : name == order.name;
  });
  return found.empty() ? std::nullopt : std::optional(found.front());
}

fault_outcome no_actor(const std::string& name) {
  return {outcome::unknown,
          "there is no actor '" + name + "' at the moment: GET /v1/faults names those there are"};
}

/// Asks every REACTOR; together they end `count` of their connections.
bool end_some(server_board& board, std::uint32_t count, end_connections::by how) {
  const auto reactors =
      actors_that(board, [](const std::string& name) { return kind_of_actor(name) == "reactor"; });
  const auto left = std::make_shared<std::atomic<std::uint32_t>>(count);
  for (const auto& [name, who] : reactors)
    caf::anon_send(caf::actor_cast<reactor_actor>(who), end_connections{how, left});
  return !reactors.empty();
}

} // namespace

std::string kind_of_actor(const std::string& name) {
  const auto last = name.find_last_not_of("0123456789");
  return last != std::string::npos && last > 0 && last + 1 < name.size() && name[last] == '-'
             ? name.substr(0, last)
             : name;
}

fault_injector::fault_injector(std::shared_ptr<fault_points> points, std::shared_ptr<server_board> board)
    : points_(std::move(points)), board_(std::move(board)) {}

fault_outcome fault_injector::apply(const faults::order& order) {
  return std::visit([this](const auto& one) { return carry_out(one); }, order);
}

fault_outcome fault_injector::carry_out(const faults::kill& order) const {
  if (order.name.empty() == order.kind.empty())
    return {outcome::refused, "an actor is killed by its name or by its kind: give one of the two"};
  if (order.kind == "connection") {
    const auto how = order.by == faults::how::kill        ? end_connections::by::kill
                     : order.by == faults::how::exception ? end_connections::by::exception
                                                          : end_connections::by::shutdown;
    if (!end_some(*board_, 1, how))
      return no_actor("reactor");
    log::warn(target, "a connection is killed on order");
    return {outcome::done, "connection"};
  }
  const auto found = actor_of(*board_, order);
  if (!found)
    return no_actor(order.name.empty() ? order.kind : order.name);
  log::warn(target, "an actor is killed on order", {{"actor", found->first}});
  switch (order.by) {
  case faults::how::kill:
    caf::anon_send_exit(found->second, caf::exit_reason::kill);
    break;
  case faults::how::exception:
    caf::anon_send(found->second, act_up{});
    break;
  case faults::how::shutdown:
    caf::anon_send_exit(found->second, caf::exit_reason::user_shutdown);
    break;
  }
  return {outcome::done, found->first};
}

fault_outcome fault_injector::carry_out(const faults::drive& order) const {
  const auto& fault = order.fault;
  if (order.id >= points_->drives.size())
    return {outcome::unknown, "there is no drive " + std::to_string(order.id) + ": ids begin with 0"};
  using effect = engine::drive_fault::effect;
  const std::uint64_t ms = fault.ns / 1'000'000;
  if (fault.count == 0 || fault.count > faults::drive::count_max ||
      (fault.what == effect::slow && (ms == 0 || ms > faults::drive::slow_ms_max)) ||
      (fault.what == effect::hang && ms > faults::drive::hang_ms_max))
    return {outcome::refused, "a count is 1 to 1,000,000, slow_ms 1 to 60,000, and hang_ms 0 to 600,000"};
  const auto& seat = points_->drives[order.id];
  if (seat == nullptr)
    return {outcome::conflict, "drive " + std::to_string(order.id) +
                                   " is memory: nothing is read or written there that could fail; kill its "
                                   "actor instead"};
  if (!seat->arm(fault))
    return {outcome::conflict,
            "drive " + std::to_string(order.id) +
                " has 16 orders already, or nothing could meet this one: only reads can be "
                "corrupted; clear the faults first"};
  log::warn(target, "a drive is told to fail on order", {{"drive", std::to_string(order.id)}});
  return {};
}

fault_outcome fault_injector::carry_out(const faults::drop_connections& order) const {
  if (order.count == 0)
    return {outcome::refused, "at least one connection is dropped"};
  if (!end_some(*board_, order.count, end_connections::by::closing))
    return no_actor("reactor");
  log::warn(target, "connections are dropped on order");
  return {};
}

fault_outcome fault_injector::carry_out(const faults::delay_connections& order) const {
  if (order.delay_ms == 0 || order.delay_ms > faults::delay_connections::delay_ms_max || order.seconds == 0 ||
      order.seconds > faults::delay_connections::seconds_max)
    return {outcome::refused, "a delay is 1 to 10,000 ms, for 1 to 600 s"};
  points_->delay_ns = order.delay_ms * 1'000'000;
  points_->delay_until_ns = steady_now_ns() + order.seconds * 1'000'000'000;
  log::warn(target, "connections are delayed on order");
  return {};
}

fault_outcome fault_injector::carry_out(const faults::stall& order) const {
  if (order.ms == 0 || order.ms > faults::stall::ms_max)
    return {outcome::refused, "an actor stalls for 1 to 60,000 ms"};
  const auto found = actor_of(*board_, {.name = order.name, .kind = {}});
  if (!found)
    return no_actor(order.name);
  log::warn(target, "an actor is stalled on order", {{"actor", found->first}});
  caf::anon_send(found->second, act_up{order.ms});
  return {outcome::done, found->first};
}

fault_outcome fault_injector::carry_out(const faults::clear&) const {
  for (const auto& each : points_->drives)
    if (each != nullptr)
      each->clear();
  points_->delay_until_ns = 0;
  log::warn(target, "injected faults are cleared");
  return {};
}

fault_list fault_injector::list() const {
  fault_list out;
  for (std::uint32_t id = 0; id < points_->drives.size(); ++id) {
    const auto& each = points_->drives[id];
    if (each == nullptr)
      out.drives.push_back({id, false, {}, {}});
    else
      out.drives.push_back({id, true, each->armed(), each->met()});
  }
  const auto now = steady_now_ns();
  if (const auto until = points_->delay_until_ns.load(); until > now) {
    out.connection_delay_ms = points_->delay_ns / 1'000'000;
    out.connection_delay_left_ms = (until - now + 999'999) / 1'000'000;
  }
  for (const auto& [name, who] : actors_on(*board_))
    out.actors.push_back(name);
  return out;
}

} // namespace memkv::actors
