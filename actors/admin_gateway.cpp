#include "actors/admin_gateway.hpp"

#include "actors/admission.hpp"
#include "actors/fault_points.hpp"
#include "actors/log.hpp"
#include "actors/reactor.hpp"
#include "actors/server.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace memkv::actors {

namespace {

using self_pointer = admin_gateway_actor::stateful_pointer<admin_gateway_state>;

constexpr std::uint64_t second_ns = 1'000'000'000;
/// How long actors are waited for.
constexpr std::uint64_t gathering_ns_max = second_ns;
/// A report that is no older is given again.
constexpr std::uint64_t fresh_ns = second_ns / 10;

std::uint64_t steady_ns() noexcept {
  return engine::system_clock{}.steady_ns();
}

std::uint64_t resident_bytes() {
  unsigned long long pages = 0;
  if (auto* file = std::fopen("/proc/self/statm", "re"); file != nullptr) {
    if (std::fscanf(file, "%*u %llu", &pages) != 1)
      pages = 0;
    std::fclose(file);
  }
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// What can be had without asking anybody.
void add_shared(server_report& report, const reactor_shared& shared, const admission* door) {
  const auto& options = shared.options;
  report.address = (options.host.find(':') == std::string::npos ? options.host : "[" + options.host + "]") +
                   ":" + std::to_string(options.port);
  report.set_id = options.store.identity.set_id;
  const auto now = options.time->wall_ns();
  report.uptime_ns = options.time->steady_ns() - shared.started_ns;
  report.now_ns = now;
  report.started_at = (now - report.uptime_ns) / second_ns;
  const auto all = [&options](auto what) { return std::ranges::all_of(options.drives, what); };
  report.storage_mode = all([](const auto& each) { return each.memory; }) ? "memory"
                        : all([](const auto& each) { return each.raw; })  ? "direct"
                                                                          : "file";
  report.block_size = options.store.extent_bytes_max;
  report.shard_size = options.store.unit_bytes;
  report.eviction = options.store.eviction;
  report.high_watermark = options.store.high_watermark;
  report.low_watermark = options.store.low_watermark;
  report.pool = shared.pool->statistics();
  report.pool_bytes = options.pool_bytes;
  report.pool_chunk_bytes = shared.pool->chunk_bytes();
  report.cache = shared.cache->statistics();
  report.resident_bytes = resident_bytes();
  report.fault_injection = options.fault_injection;
  if (options.license != nullptr) {
    const auto facts = options.license->state()->read();
    report.license = {.plan = facts.plan,
                      .organization = facts.organization,
                      .source = facts.source,
                      .expires_at = facts.expires_at_s,
                      .days_left = static_cast<std::int64_t>(facts.days_left),
                      .development = facts.development,
                      .valid = facts.valid};
  }
  report.connections_max = options.limits.connections_max;
  if (door != nullptr) {
    report.connections = door->connections();
    report.connections_unauthenticated = door->unauthenticated();
    report.connections_refused = door->refused();
  }
  for (const auto& each : shared.counters)
    add_to(*each, report);
  report.log_lines = log::lines_written();
  report.log_lines_lost = log::lines_lost();
}

/// Everybody has answered, or nobody is waited for any more.
void begin(self_pointer self);

void finish(self_pointer self) {
  auto& state = self->state;
  auto report = std::make_shared<server_report>();
  std::vector<std::string> silent;
  add_shared(*report, *state.shared, state.board->door.get());
  const auto now = steady_ns();
  const auto entry = [&](const std::string& name, const caf::actor& who, std::uint64_t restarts, bool asked,
                         std::uint64_t patience_ns) {
    actor_report each{.name = name, .restarts = restarts, .alive = who != nullptr};
    if (who != nullptr && asked) {
      const auto found = state.answers.find(who.id());
      const auto late = state.unanswered.find(who.id());
      each.answered = found != state.answers.end();
      if (each.answered) {
        each.mailbox = found->second.mailbox;
        each.answered_in_ns = state.took_ns[who.id()];
      } else if (late != state.unanswered.end()) {
        if (now - late->second.asked_ns >= patience_ns)
          silent.push_back(name);
        else
          each.answered = true;
      } else {
        each.alive = false; // it ended meanwhile
      }
    } else {
      each.answered = who != nullptr;
    }
    report->actors.push_back(std::move(each));
  };
  if (state.facts) {
    report->phase = state.facts->phase;
    report->drives = state.facts->drives;
    report->rails = state.facts->rails;
    for (const auto& seat : state.facts->actors) {
      entry(seat.name, seat.who, seat.restarts, seat.asked, seat.patience_ns);
      if (seat.drive && seat.who != nullptr && *seat.drive < report->drives.size())
        if (const auto found = state.answers.find(seat.who.id()); found != state.answers.end())
          if (const auto& facts = found->second.what->drive)
            take_facts(report->drives[*seat.drive], *facts);
      if (seat.rail && seat.who != nullptr && *seat.rail < report->rails.size())
        if (const auto found = state.answers.find(seat.who.id()); found != state.answers.end())
          if (const auto& facts = found->second.what->dci_pool)
            take_facts(*report, report->rails[*seat.rail], *facts);
    }
    report->rdma_active =
        std::ranges::any_of(report->rails, [](const auto& each) { return each.state == rail_state::online; });
  } else {
    entry("server", state.server, 0, true, 0);
  }
  for (const auto& [who, said] : state.answers)
    if (said.what->reactor) {
      report->requests_open += said.what->reactor->requests_open;
      report->requests_waiting_for_room += said.what->reactor->waiting_for_room;
      report->held_bytes += said.what->reactor->held_bytes;
      report->values_open += said.what->reactor->values_open;
      report->leases_open += said.what->reactor->leases_open;
    }
  state.last = {std::move(report), std::move(silent)};
  state.last_ns = now;
  state.gathering = false;
  state.facts.reset(); // it keeps actors alive
  state.answers.clear();
  for (const auto& each : std::exchange(state.waiting, {}))
    each->give(state.last);
  if (!std::exchange(state.outdated, false))
    return;
  state.last_ns = 0;
  state.waiting = std::exchange(state.waiting_for_next, {});
  if (!state.waiting.empty())
    begin(self);
}

void finish_if_complete(self_pointer self) {
  auto& state = self->state;
  if (!state.gathering || !state.facts)
    return;
  for (const auto& seat : state.facts->actors)
    if (seat.asked && seat.who != nullptr && !state.answers.contains(seat.who.id()) &&
        state.unanswered.contains(seat.who.id()) && seat.patience_ns == 0)
      return;
  finish(self);
}

void ask(self_pointer self, const caf::actor& who) {
  auto& state = self->state;
  if (!state.unanswered.emplace(who.id(), admin_gateway_state::question{steady_ns(), who.address()}).second)
    return; // it has a question already
  self->monitor(who);
  caf::anon_send(who, describe_yourself{state.serial, caf::actor_cast<caf::actor>(self)});
}

void begin(self_pointer self) {
  auto& state = self->state;
  state.gathering = true;
  ++state.serial;
  state.begun_ns = steady_ns();
  state.facts.reset();
  state.answers.clear();
  ask(self, state.server);
  self->delayed_send(self, std::chrono::nanoseconds{gathering_ns_max}, look_again{});
}

void take(self_pointer self, const described& message) {
  auto& state = self->state;
  const auto asked = state.unanswered.find(message.who);
  if (asked == state.unanswered.end())
    return;
  state.took_ns[message.who] = steady_ns() - asked->second.asked_ns;
  self->demonitor(asked->second.who);
  state.unanswered.erase(asked);
  if (!state.gathering)
    return;
  state.answers[message.who] = message;
  if (message.what->server && !state.facts) {
    state.facts = message.what->server;
    for (const auto& seat : state.facts->actors)
      if (seat.asked && seat.who != nullptr && seat.who.id() != message.who && seat.who.id() != self->id())
        ask(self, seat.who);
    // The gateway itself answers by being here.
    state.answers[self->id()] = {message.serial, self->id(), mailbox_size(*self),
                                 std::make_shared<self_description>()};
    std::erase_if(state.took_ns, [&](const auto& each) {
      return !state.answers.contains(each.first) && !state.unanswered.contains(each.first);
    });
  }
  finish_if_complete(self);
}

} // namespace

void answer(const describe_yourself& question, caf::actor_id who, std::size_t mailbox,
            self_description what) {
  caf::anon_send(
      caf::actor_cast<admin_gateway_actor>(question.reply_to),
      described{question.serial, who, mailbox, std::make_shared<const self_description>(std::move(what))});
}

admin_gateway_actor::behavior_type admin_gateway(self_pointer self, std::shared_ptr<server_board> board,
                                                 std::shared_ptr<reactor_shared> shared, caf::actor server) {
  let_act_up(self);
  self->state.board = std::move(board);
  self->state.shared = std::move(shared);
  self->state.server = std::move(server);
  self->set_down_handler([self](const caf::down_msg& message) {
    if (self->state.unanswered.erase(message.source.id()) > 0)
      finish_if_complete(self);
  });
  return {
      [self](const gather_report& message) {
        auto& state = self->state;
        if (!state.gathering && state.last.report != nullptr && state.last.silent.empty() &&
            steady_ns() - state.last_ns <= fresh_ns) {
          message.waiter->give(state.last);
          return;
        }
        (state.outdated ? state.waiting_for_next : state.waiting).push_back(message.waiter);
        if (!state.gathering)
          begin(self);
      },
      [self](const reset_drive& message) {
        // Whoever asks from here on is to see what becomes of it.
        self->state.outdated = self->state.gathering;
        self->state.last_ns = 0;
        self->send(caf::actor_cast<server_actor>(self->state.server), message);
      },
      [self](const described& message) { take(self, message); },
      [self](const look_again&) {
        // Of an earlier gathering, if this one has only begun.
        if (self->state.gathering && steady_ns() - self->state.begun_ns >= gathering_ns_max)
          finish(self);
      },
  };
}

// --- the door ---

namespace {

class board_door final : public admin_door {
public:
  explicit board_door(std::shared_ptr<server_board> board) : board_(std::move(board)) {}

  [[nodiscard]] gathered report(std::chrono::milliseconds limit) override {
    auto waiter = std::make_shared<report_waiter>();
    const auto end = std::chrono::steady_clock::now() + limit + std::chrono::milliseconds{200};
    caf::actor_id asked = 0;
    // A gateway that died with the question is followed by another one.
    do {
      if (const auto now = gateway(); now != nullptr && now.id() != asked) {
        asked = now.id();
        caf::anon_send(caf::actor_cast<admin_gateway_actor>(now), gather_report{waiter});
      }
      if (auto answer = waiter->wait(std::chrono::milliseconds{20}))
        return std::move(*answer);
    } while (std::chrono::steady_clock::now() < end);
    return {nullptr, {admin_gateway_state::name}};
  }

  [[nodiscard]] admin_outcome reset_drive(std::uint32_t index, bool secure,
                                          std::chrono::milliseconds limit) override {
    auto waiter = std::make_shared<outcome_waiter>();
    if (const auto now = gateway(); now != nullptr) {
      caf::anon_send(caf::actor_cast<admin_gateway_actor>(now), actors::reset_drive{index, secure, waiter});
      if (auto answer = waiter->wait(limit))
        return std::move(*answer);
    }
    return {admin_outcome::kind::silent,
            "the server has not answered: whether the drive is reset is unknown"};
  }

private:
  [[nodiscard]] caf::actor gateway() const {
    const std::lock_guard guard(board_->lock);
    const auto found = board_->actors.find(admin_gateway_state::name);
    return found == board_->actors.end() ? nullptr : found->second;
  }

  std::shared_ptr<server_board> board_;
};

} // namespace

std::shared_ptr<admin_door> make_admin_door(std::shared_ptr<server_board> board) {
  return std::make_shared<board_door>(std::move(board));
}

} // namespace memkv::actors
