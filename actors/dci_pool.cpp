#include "actors/dci_pool.hpp"

#include "actors/admin_gateway.hpp"
#include "actors/log.hpp"
#include "actors/mailbox_size.hpp"
#include "actors/self_description.hpp"
#include "wire/assert.hpp"
#include "wire/limits.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <utility>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::rdma";
constexpr std::uint64_t second_ns = 1'000'000'000;

/// Begins anywhere, so that a client that still names a session of an earlier process hardly ever meets one.
std::uint64_t next_session() {
  static std::atomic<std::uint64_t> next{[] {
    std::random_device chance;
    return (std::uint64_t{chance()} << 32U | chance()) >> 1U;
  }()};
  std::uint64_t id = 0;
  while (id == 0)
    id = next.fetch_add(1, std::memory_order_relaxed);
  return id;
}

std::uint64_t address_of(const std::byte* data) noexcept {
  return reinterpret_cast<std::uintptr_t>(data);
}

wire::status status_of(const verbs::outcome& one) noexcept {
  switch (one.result) {
  case verbs::transfer_result::done:
    return wire::status::ok;
  case verbs::transfer_result::retryable:
    return wire::status::unavailable;
  case verbs::transfer_result::refused:
    // What the device here refuses is no fault of the client's memory.
    return verbs::caused_by_peer(one.status) ? wire::status::memory_refused : wire::status::internal;
  case verbs::transfer_result::deadline_exceeded:
    return wire::status::deadline_exceeded;
  case verbs::transfer_result::cancelled:
    return wire::status::session_ended;
  }
  return wire::status::internal;
}

} // namespace

/// Wakes the actor when a descriptor becomes readable.
class dci_pool::watch final : public ring_operation {
public:
  watch(dci_pool& owner, int descriptor) : owner_(owner), descriptor_(descriptor) {}
  void completed(std::int32_t result, std::uint32_t /*flags*/) override {
    armed_ = false;
    fired_ = true;
    broken_ = broken_ || result < 0 || (result & (POLLERR | POLLHUP | POLLNVAL)) != 0;
  }
  void arm() {
    if (armed_ || broken_ || descriptor_ < 0)
      return;
    io_uring_prep_poll_add(owner_.next_sqe(this), descriptor_, POLLIN);
    armed_ = true;
  }
  void cancel() {
    if (armed_)
      io_uring_prep_cancel(owner_.next_sqe(nullptr), this, 0);
  }
  [[nodiscard]] bool take_fired() noexcept { return std::exchange(fired_, false); }
  /// The descriptor tells nothing any more: its device is gone.
  [[nodiscard]] bool broken() const noexcept { return broken_; }

private:
  dci_pool& owner_;
  int descriptor_;
  bool armed_ = false;
  bool fired_ = false;
  bool broken_ = false;
};

dci_pool::dci_pool(caf::actor_config& configuration, dci_pool_settings settings)
    : ring_actor(configuration), settings_(std::move(settings)) {}

dci_pool::~dci_pool() = default;

// --- start ---

void dci_pool::on_no_ring(const std::string& problem) {
  fail(problem);
  tell_of_failure();
}

bool dci_pool::on_start() {
  self_ = caf::actor_cast<caf::actor>(this);
  std::vector<std::string> warnings;
  const auto opened = settings_.open(fabric_, warnings);
  for (const auto& warning : warnings)
    log::warn(target, warning, {{"rail", std::to_string(settings_.rail)}});
  if (!opened.ok()) {
    fail(opened.text);
    return false;
  }
  const auto& device = fabric_->facts();
  if (!device.port_active) {
    fail(device.name + " port " + std::to_string(device.port) + " is not active: check cable and link.");
    return false;
  }
  for (const auto& each : std::exchange(settings_.memory, {}))
    if (const auto added = add_memory(each); !added.ok()) {
      fail(added.text);
      return false;
    }
  if (const auto made = make_engines(); !made.ok()) {
    fail(made.text);
    return false;
  }
  device_events_ = std::make_unique<watch>(*this, fabric_->event_descriptor());
  ways_.emplace(settings_.attaching_threads, settings_.attach_wait_ns_max);
  ways_found_ = std::make_unique<watch>(*this, ways_->event_descriptor());
  registrar_.emplace();
  registered_ = std::make_unique<watch>(*this, registrar_->event_descriptor());
  const auto& path = fabric_->path();
  log::info(target, "RDMA device is in use",
            {{"rail", std::to_string(settings_.rail)},
             {"device", device.name},
             {"mtu", std::to_string(path.mtu_bytes)},
             {"gid_index", std::to_string(path.gid_index)},
             {"transports", seats_.size() > 1 ? "rc, dc" : "rc"}});
  tell_server();
  return true;
}

verbs::status dci_pool::make_engines() {
  const auto& device = fabric_->facts();
  const auto add = [this](verbs::peer_address::kind kind, std::unique_ptr<verbs::transfer_engine> engine) {
    engine_seat seat;
    seat.kind = kind;
    seat.completions = std::make_unique<watch>(*this, engine->completions().event_descriptor());
    seat.engine = std::move(engine);
    seats_.push_back(std::move(seat));
  };
  transfer_bytes_max_ = std::min(settings_.transfer_bytes_max, device.transfer_bytes_max);
  settings_.rc.transfer_bytes_max = settings_.dc.transfer_bytes_max = transfer_bytes_max_;
  settings_.rc.clients_max = std::min(settings_.rc.clients_max, settings_.sessions_max);
  settings_.dc.clients_max = settings_.sessions_max;
  std::unique_ptr<verbs::rc_scheduler> rc;
  if (auto outcome = verbs::rc_scheduler::create(*fabric_, settings_.rc, rc); !outcome.ok())
    return outcome;
  verbs::message_port* const messages = rc.get();
  add(verbs::peer_address::kind::rc, std::move(rc));
  seats_.back().messages = messages;
  if (!device.dc)
    return {};
  std::unique_ptr<verbs::dci_scheduler> dc;
  if (const auto outcome = verbs::dci_scheduler::create(*fabric_, settings_.dc, dc); outcome.ok())
    add(verbs::peer_address::kind::dc, std::move(dc));
  else
    log::warn(target, "clients cannot use DC, but RC: " + outcome.text,
              {{"rail", std::to_string(settings_.rail)}});
  return {};
}

void dci_pool::fail(const std::string& reason) {
  if (!failed_.empty())
    return;
  failed_ = reason;
  stop(caf::exit_reason::user_shutdown);
}

/// Only when the device is closed: who hears of it answers requests, and then no byte may move any more.
void dci_pool::tell_of_failure() {
  if (!failed_.empty() && settings_.server != nullptr)
    caf::anon_send(settings_.server, dci_pool_failed{settings_.rail, failed_});
}

void dci_pool::tell_server() {
  if (settings_.server == nullptr)
    return;
  dci_pool_changed change{settings_.rail, settings_.rails, self_, {}};
  for (const auto& each : memory_)
    change.reachable.push_back(each.range);
  caf::anon_send(settings_.server, std::move(change));
}

// --- memory ---

verbs::status dci_pool::add_memory(const register_memory& message) {
  std::unique_ptr<verbs::memory_region> region;
  if (auto outcome = fabric_->register_memory(message.range, {}, region); !outcome.ok())
    return outcome;
  keep_memory({message.range, std::move(region), message.keep});
  return {};
}

void dci_pool::keep_memory(registered added) {
  const auto place = std::ranges::lower_bound(memory_, added.range.data(), {},
                                              [](const registered& each) { return each.range.data(); });
  memory_.insert(place, std::move(added));
}

void dci_pool::begin_registration(const register_memory& message) {
  const auto is_within = [&](std::span<std::byte> range) {
    return range.data() == message.range.data() && range.size() >= message.range.size();
  };
  // A memory drive that died and came back still lies where it was.
  if (std::ranges::any_of(memory_, is_within, &registered::range)) {
    tell_server();
    return;
  }
  if (std::ranges::any_of(registering_, [&](const auto& each) { return is_within(each.wanted.range); }))
    return;
  registering one{message, nullptr};
  if (const auto started = fabric_->start_registration(message.range, {}, one.step); !started.ok()) {
    warn_of_copies(started);
    return;
  }
  auto& step = *one.step;
  if (registrar_->run(step)) {
    registering_.push_back(std::move(one));
    return;
  }
  step.run();
  finish_registration(std::move(one));
}

void dci_pool::finish_registration(registering one) {
  std::unique_ptr<verbs::memory_region> region;
  if (const auto outcome = fabric_->finish_registration(*one.step, region); !outcome.ok()) {
    warn_of_copies(outcome);
    return;
  }
  keep_memory({one.wanted.range, std::move(region), one.wanted.keep});
  tell_server();
}

bool dci_pool::finish_registrations() {
  if (registering_.empty())
    return false;
  std::vector<verbs::slow_step*> done;
  registrar_->take_done(done);
  for (const auto* step : done) {
    const auto found =
        std::ranges::find_if(registering_, [step](const auto& each) { return each.step.get() == step; });
    MEMKV_ASSERT(found != registering_.end(), "a registration is there until it is done");
    auto one = std::move(*found);
    registering_.erase(found);
    finish_registration(std::move(one));
  }
  return !done.empty();
}

void dci_pool::warn_of_copies(const verbs::status& why) const {
  log::warn(target, "values of a memory drive are copied on their way: " + why.text,
            {{"rail", std::to_string(settings_.rail)}});
}

const dci_pool::registered* dci_pool::region_of(const std::byte* data, std::uint64_t bytes) const {
  auto after = std::ranges::upper_bound(memory_, data, std::less<const std::byte*>{},
                                        [](const registered& each) { return each.range.data(); });
  if (after == memory_.begin())
    return nullptr;
  const auto& found = *--after;
  const auto offset = address_of(data) - address_of(found.range.data());
  return offset <= found.range.size() && bytes <= found.range.size() - offset ? &found : nullptr;
}

// --- messages ---

caf::behavior dci_pool::make_handlers() {
  auto on_attach = [this](const attach_session& message) { attach(message); };
  auto on_detach = [this](const detach_session& message) { detach(message); };
  auto on_move = [this](const move_bytes& message) {
    for (const auto& each : message.transfers)
      take(each);
  };
  auto on_answers = [this](const send_messages& message) {
    for (const auto& each : message.messages)
      take_answer(each);
  };
  auto on_memory = [this](const register_memory& message) { begin_registration(message); };
  auto on_finish = [this](const finish_requests&) { stop(caf::exit_reason::normal); };
  auto on_describe = [this](const describe_yourself& question) {
    answer(question, id(), mailbox_size(*this), {.dci_pool = facts()});
  };
  auto on_down = [this](const caf::down_msg& message) { owner_ended(message.source.id()); };
  [[maybe_unused]] dci_pool_actor::behavior_type conforms{on_attach, on_detach, on_move,    on_answers,
                                                          on_memory, on_finish, on_describe};
  return {on_attach, on_detach, on_move, on_answers, on_memory, on_finish, on_describe, on_down};
}

void dci_pool::attach(const attach_session& message) {
  if (message.owner == nullptr)
    return; // nobody to answer to
  if (const auto started = start_attach(message); started != wire::status::ok) {
    session_attached refused;
    refused.result = started;
    answer_attach(message, std::move(refused));
  }
}

void dci_pool::answer_attach(const attach_session& wanted, session_attached answer) {
  answer.request = wanted.request;
  answer.pool = self_;
  caf::anon_send(caf::actor_cast<connection_actor>(wanted.owner), std::move(answer));
}

wire::status dci_pool::start_attach(const attach_session& message) {
  const auto seat = std::ranges::find(seats_, message.client.what, &engine_seat::kind);
  if (seat == seats_.end())
    return wire::status::unsupported;
  const bool carries = message.reactor != nullptr;
  if (carries && seat->messages == nullptr)
    return wire::status::unsupported;
  if (const auto checked = seat->engine->check_address(message.client); !checked.ok())
    return refusal(checked);
  if (carries)
    if (const auto checked = seat->messages->check_rooms(message.theirs, message.ours); !checked.ok())
      return refusal(checked);
  // What is done already needs no place.
  if (attaching_.size() >= settings_.attaching_max)
    static_cast<void>(finish_attaches());
  const bool full = attaching_.size() >= settings_.attaching_max;
  if (const auto owner = owners_.find(message.owner.id());
      owner != owners_.end() &&
      (owner->second.attaching >= settings_.attaching_connection_max ||
       owner->second.sessions.size() + owner->second.attaching >= wire::limits::sessions_connection_max))
    return wire::status::busy;
  if (sessions_.size() + attaching_.size() - (full ? 1 : 0) >= settings_.sessions_max ||
      !host_may_have_more(*seat, message.host))
    return wire::status::busy;
  // Last: nobody is driven out for one that is refused anyway.
  const way_finder::asker by{message.owner.id(), message.host, message.client.port};
  if (full) {
    if (!ways_->make_room(by))
      return wire::status::busy;
    static_cast<void>(finish_attaches());
    // The places and owners are others now; what was tried meanwhile has become a session.
    if (attaching_.size() >= settings_.attaching_max ||
        sessions_.size() + attaching_.size() >= settings_.sessions_max)
      return wire::status::busy;
  }
  attaching one;
  one.seat = static_cast<std::size_t>(seat - seats_.begin());
  one.wanted = message;
  one.wanted.pool = nullptr;
  const auto started = carries ? seat->messages->start_attach_with_messages(message.client, message.theirs,
                                                                            message.ours, one.made)
                               : seat->engine->start_attach(message.client, one.made);
  if (!started.ok())
    return refusal(started);
  const auto number = ++last_attach_;
  if (!ways_->find(number, by, *one.made)) {
    log::warn(target, "a client cannot be attached: the system gives no thread for it",
              {{"rail", std::to_string(settings_.rail)}});
    return wire::status::unavailable;
  }
  attaching_.emplace(number, std::move(one));
  if (!owners_.contains(message.owner.id()))
    monitor(message.owner); // of one that is dead already DOWN comes at once
  ++owners_[message.owner.id()].attaching;
  ++seat->of_hosts[message.host];
  return wire::status::ok;
}

bool dci_pool::host_may_have_more(const engine_seat& seat, const peer_address& host) {
  const auto found = seat.of_hosts.find(host);
  const auto most = seat.engine->engine_facts().clients_max;
  return found == seat.of_hosts.end() || found->second < std::max<std::uint64_t>(most - most / 4, 1);
}

void dci_pool::count_out(engine_seat& seat, const peer_address& host) {
  const auto found = seat.of_hosts.find(host);
  MEMKV_ASSERT(found != seat.of_hosts.end(), "a session counts for its host");
  if (--found->second == 0)
    seat.of_hosts.erase(found);
}

/// What the client is told, and the log.
wire::status dci_pool::refusal(const verbs::status& why) const {
  log::debug(target, "a client cannot be attached: " + why.text, {{"rail", std::to_string(settings_.rail)}});
  switch (why.code) {
  case verbs::errc::queue_full:
    return wire::status::busy;
  case verbs::errc::unsupported:
    return wire::status::unsupported;
  case verbs::errc::invalid_argument:
    return wire::status::bad_request;
  default:
    return wire::status::unavailable;
  }
}

bool dci_pool::finish_attaches() {
  found_.clear();
  ways_->take_done(found_);
  for (const auto& each : found_) {
    const auto found = attaching_.find(each.number);
    MEMKV_ASSERT(found != attaching_.end(), "an attach is there until it is done");
    auto one = std::move(found->second);
    attaching_.erase(found);
    if (one.abandoned) {
      count_out(seats_[one.seat], one.wanted.host);
      continue; // which undoes it
    }
    const auto from = one.wanted.owner.address();
    --owners_.at(from.id()).attaching;
    session_attached answer;
    answer.result = each.tried ? finish_attach(one, answer) : wire::status::busy;
    if (answer.result != wire::status::ok)
      count_out(seats_[one.seat], one.wanted.host);
    answer_attach(one.wanted, std::move(answer));
    forget_owner_if_idle(from);
  }
  return !found_.empty();
}

wire::status dci_pool::finish_attach(attaching& one, session_attached& made) {
  auto& seat = seats_[one.seat];
  const auto& wanted = one.wanted;
  verbs::client_id client = 0;
  const auto outcome = seat.engine->finish_attach(std::move(one.made), client, made.server);
  if (!outcome.ok())
    return refusal(outcome);
  ways_->reached(wanted.client.port);
  made.session = next_session();
  made.transfer_bytes_max = transfer_bytes_max_;
  session added;
  added.seat = one.seat;
  added.client = client;
  added.owner = wanted.owner.address();
  added.host = wanted.host;
  if (wanted.reactor != nullptr) {
    auto& messages = added.messages.emplace();
    messages.reactor = wanted.reactor;
    // The last drop ends the session, so those before it are the most that stay without an answer.
    messages.open_max =
        std::min(wanted.theirs.messages_max, wanted.ours.messages_max) + wire::limits::drops_max;
  }
  seat.sessions.emplace(client, made.session);
  owners_.at(wanted.owner.id()).sessions.insert(made.session);
  sessions_.emplace(made.session, std::move(added));
  ++counters_.attached;
  return wire::status::ok;
}

void dci_pool::forget_owner_if_idle(const caf::actor_addr& which) {
  const auto found = owners_.find(which.id());
  if (found == owners_.end() || found->second.attaching > 0 || !found->second.sessions.empty())
    return;
  owners_.erase(found);
  // CAF leaves this to us: the connection would remember each session that ever was.
  demonitor(which);
}

void dci_pool::detach(const detach_session& message) {
  if (message.owner == nullptr)
    return;
  const auto found = sessions_.find(message.session);
  if (found == sessions_.end() || found->second.owner.id() != message.owner.id()) {
    if (message.request != 0)
      caf::anon_send(
          caf::actor_cast<connection_actor>(message.owner),
          session_ended{message.request, message.session, message.owner.id(), wire::status::not_found});
    return;
  }
  auto& which = found->second;
  if (message.request != 0)
    which.requests.push_back(message.request);
  else
    which.told = true;
  end_session(which);
}

void dci_pool::end_session(session& which) {
  if (which.ending)
    return;
  which.ending = true;
  const auto seat = which.seat;
  // not_found: the engine ends it already.
  static_cast<void>(seats_[seat].engine->detach(which.client, outcomes_));
  take_outcomes(seat);
}

void dci_pool::owner_ended(caf::actor_id owner) {
  const auto found = owners_.find(owner);
  if (found == owners_.end())
    return;
  const auto all = std::exchange(found->second.sessions, {});
  const bool waits = found->second.attaching > 0;
  owners_.erase(found);
  if (waits)
    for (auto& [number, each] : attaching_)
      each.abandoned = each.abandoned || each.wanted.owner.id() == owner;
  for (const auto id : all)
    if (const auto each = sessions_.find(id); each != sessions_.end()) {
      each->second.told = true;
      each->second.requests.clear();
      end_session(each->second);
    }
}

/// None of its client's memory is touched any more.
void dci_pool::session_is_over(std::uint64_t id) {
  const auto found = sessions_.find(id);
  auto gone = std::move(found->second);
  sessions_.erase(found);
  count_out(seats_[gone.seat], gone.host);
  const auto owner = gone.owner.id();
  if (const auto of = owners_.find(owner); of != owners_.end() && of->second.sessions.erase(id) == 1)
    forget_owner_if_idle(gone.owner);
  const auto handle = caf::actor_cast<caf::actor>(gone.owner);
  if (handle == nullptr)
    return;
  if (gone.requests.empty() && !gone.told)
    gone.requests.push_back(0);
  // What became of its transfers arrives before this: each is answered with its own status.
  send_answers();
  for (const auto request : gone.requests)
    caf::anon_send(caf::actor_cast<connection_actor>(handle), session_ended{request, id, owner});
}

// --- messages of sessions ---

bool dci_pool::take_messages(std::size_t seat) {
  if (seats_[seat].messages == nullptr)
    return false;
  seats_[seat].messages->take_messages(arrived_);
  const bool came = !arrived_.empty();
  for (auto& each : arrived_) {
    const auto known = seats_[seat].sessions.find(each.client);
    if (known == seats_[seat].sessions.end())
      continue;
    const auto id = known->second;
    auto& which = sessions_.at(id);
    if (which.ending || closing_)
      continue;
    if (++which.messages->open > which.messages->open_max) {
      log::info(target, "a client sent more messages than it may have open, and loses its queue pair",
                {{"rail", std::to_string(settings_.rail)}});
      end_session(which);
      continue;
    }
    answers_to(which.messages->reactor).messages.push_back({id, which.owner.id(), std::move(each.bytes)});
  }
  arrived_.clear();
  return came;
}

void dci_pool::take_answer(const session_message& answer) {
  const auto found = sessions_.find(answer.session);
  if (found == sessions_.end() || found->second.ending || found->second.owner.id() != answer.owner ||
      !found->second.messages.has_value())
    return;
  auto& box = *found->second.messages;
  MEMKV_ASSERT(box.open > 0, "what is sent answers what came");
  --box.open;
  const auto sent = box.waiting.empty() ? send_to(found->second, answer.bytes) : sending::no_slot;
  if (sent == sending::impossible) {
    end_session(found->second);
  } else if (sent == sending::no_slot) {
    // As many can wait as were open.
    if (box.waiting.empty())
      sessions_waiting_.push_back(answer.session);
    box.waiting.push_back(answer.bytes);
  }
}

dci_pool::sending dci_pool::send_to(const session& which, std::span<const std::byte> bytes) {
  const auto sent = seats_[which.seat].messages->send_message(which.client, bytes);
  if (sent.code == verbs::errc::queue_full)
    return sending::no_slot;
  return sent.ok() ? sending::done : sending::impossible;
}

bool dci_pool::send_waiting() {
  bool any = false;
  std::erase_if(sessions_waiting_, [&](std::uint64_t id) {
    const auto found = sessions_.find(id);
    if (found == sessions_.end() || found->second.ending)
      return true;
    auto& waiting = found->second.messages->waiting;
    while (!waiting.empty()) {
      const auto sent = send_to(found->second, waiting.front());
      if (sent == sending::no_slot)
        return false;
      if (sent == sending::impossible) {
        end_session(found->second);
        return true;
      }
      any = true;
      waiting.pop_front();
    }
    return true;
  });
  return any;
}

// --- transfers ---

void dci_pool::take(const memory_transfer_ptr& transfer) {
  const auto found = sessions_.find(transfer->session);
  if (found == sessions_.end() || found->second.ending || found->second.owner.id() != transfer->owner) {
    finish(transfer, wire::status::session_ended);
    return;
  }
  const auto* region = region_of(transfer->data, transfer->bytes);
  if (region == nullptr) {
    if (round_ns() >= next_log_ns_) {
      next_log_ns_ = round_ns() + second_ns;
      log::error(target, "a transfer names memory that is not registered");
    }
    finish(transfer, wire::status::internal);
    return;
  }
  if (free_transfers_.empty()) {
    free_transfers_.push_back(static_cast<std::uint32_t>(transfers_.size()));
    transfers_.emplace_back();
  }
  const auto cookie = free_transfers_.back();
  verbs::transfer one;
  one.cookie = cookie;
  one.way = transfer->fetch ? verbs::direction::fetch : verbs::direction::place;
  one.local = {address_of(transfer->data), transfer->bytes, region->region->lkey()};
  one.remote_address = transfer->client_address;
  one.rkey = transfer->rkey;
  one.deadline_ns = transfer->deadline_ns != 0
                        ? transfer->deadline_ns
                        : round_ns() + std::uint64_t{wire::limits::request_ms_max} * 1'000'000;
  const auto taken = seats_[found->second.seat].engine->submit(found->second.client, one);
  switch (taken.code) {
  case verbs::errc::ok:
    free_transfers_.pop_back();
    transfers_[cookie] = transfer;
    return;
  case verbs::errc::not_found:
  case verbs::errc::wrong_state:
    finish(transfer, wire::status::session_ended);
    return;
  case verbs::errc::invalid_argument:
    finish(transfer, wire::status::internal);
    return;
  default:
    finish(transfer, wire::status::unavailable);
    return;
  }
}

/// To be answered with the others of this round.
void dci_pool::finish(const memory_transfer_ptr& transfer, wire::status result) {
  transfer->result = result;
  switch (result) {
  case wire::status::ok:
    ++(transfer->fetch ? counters_.fetched : counters_.placed);
    (transfer->fetch ? counters_.fetched_bytes : counters_.placed_bytes) += transfer->bytes;
    break;
  case wire::status::memory_refused:
    ++counters_.refused;
    break;
  case wire::status::deadline_exceeded:
    ++counters_.deadline_exceeded;
    break;
  case wire::status::session_ended:
    ++counters_.session_ended;
    break;
  case wire::status::unavailable:
    ++counters_.retryable;
    break;
  default:
    ++counters_.internal;
    break;
  }
  if (transfer->reply_to == nullptr)
    return;
  answers_to(transfer->reply_to).transfers.push_back(transfer);
}

dci_pool::answer_list& dci_pool::answers_to(const caf::actor& reactor) {
  auto list = std::ranges::find(answers_, reactor, &answer_list::to);
  if (list == answers_.end())
    list = answers_.insert(list, answer_list{reactor, {}, {}});
  return *list;
}

void dci_pool::take_outcomes(std::size_t seat) {
  if (const auto left = fabric_ == nullptr ? 0 : fabric_->queue_pairs_left(); left > 0) {
    // Until the device is closed it may touch what was posted there.
    fail(fabric_->facts().name + " would not destroy " + std::to_string(left) +
         " of its queue pairs, so it was closed: look into the kernel's log");
    auto& held = seats_[seat].held_back;
    held.insert(held.end(), outcomes_.begin(), outcomes_.end());
    outcomes_.clear();
    return;
  }
  // Taking one may add others at the end.
  for (std::size_t index = 0; index < outcomes_.size(); ++index) {
    const auto one = outcomes_[index];
    take_outcome(seat, one);
  }
  outcomes_.clear();
}

void dci_pool::take_outcome(std::size_t seat, const verbs::outcome& one) {
  if (one.kind == verbs::outcome::what::transfer) {
    MEMKV_ASSERT(one.cookie < transfers_.size() && transfers_[one.cookie] != nullptr,
                 "a transfer has one outcome");
    finish(std::exchange(transfers_[one.cookie], nullptr), status_of(one));
    free_transfers_.push_back(static_cast<std::uint32_t>(one.cookie));
    return;
  }
  auto& known = seats_[seat].sessions;
  const auto found = known.find(one.client);
  MEMKV_ASSERT(found != known.end(), "a client of an engine has a session");
  const auto id = found->second;
  if (one.kind == verbs::outcome::what::session_broken) {
    ++counters_.broken;
    auto& which = sessions_.at(id);
    if (!which.ending && !closing_) {
      which.ending = true;
      static_cast<void>(seats_[seat].engine->detach(which.client, outcomes_));
    }
    return;
  }
  known.erase(found);
  session_is_over(id);
}

bool dci_pool::work() {
  bool came = false;
  for (std::size_t seat = 0; seat < seats_.size(); ++seat) {
    seats_[seat].engine->run(steady_now_ns(), outcomes_);
    came = came || !outcomes_.empty();
    take_outcomes(seat);
    came = take_messages(seat) || came;
  }
  came = (!closing_ && finish_attaches()) || came;
  came = (!closing_ && finish_registrations()) || came;
  // They go out with the next round.
  came = (!sessions_waiting_.empty() && send_waiting()) || came;
  send_answers();
  return came;
}

void dci_pool::send_answers() {
  for (auto& [to, transfers, messages] : answers_) {
    const auto reactor = caf::actor_cast<reactor_actor>(to);
    if (!transfers.empty())
      caf::anon_send(reactor, bytes_moved{std::move(transfers)});
    if (!messages.empty())
      caf::anon_send(reactor, messages_arrived{std::move(messages)});
  }
  answers_.clear();
}

// --- the loop ---

bool dci_pool::on_turn() {
  if (device_events_->take_fired())
    look_at_device();
  return work();
}

bool dci_pool::look_beside() {
  return !closing_ && work();
}

bool dci_pool::arm_beside() {
  if (closing_)
    return true;
  for (auto& seat : seats_) {
    auto& completions = seat.engine->completions();
    // What came before this does not count: the engines look once more.
    if (seat.completions->take_fired())
      completions.acknowledge();
    if (const auto armed = completions.arm(); !armed.ok())
      fail(armed.text);
    else if (seat.completions->broken())
      fail("the device " + fabric_->facts().name + " was taken away");
    seat.completions->arm();
  }
  if (ways_found_->take_fired())
    ways_->acknowledge();
  ways_found_->arm();
  if (registered_->take_fired())
    registrar_->acknowledge();
  registered_->arm();
  device_events_->arm();
  return failed_.empty() && !work();
}

std::uint64_t dci_pool::next_turn_ns() const {
  std::uint64_t least = ~std::uint64_t{0};
  for (const auto& seat : seats_)
    least = std::min(least, seat.engine->next_ns());
  return least;
}

void dci_pool::on_tick(std::uint64_t /*now_ns*/) {
  look_at_device();
}

void dci_pool::look_at_device() {
  const auto& device = fabric_->facts();
  for (;;) {
    switch (fabric_->next_event()) {
    case verbs::fabric_event::none:
      if (device_events_->broken())
        fail("the device " + device.name + " was taken away");
      return;
    case verbs::fabric_event::port_down:
      fail(device.name + " port " + std::to_string(device.port) + " went down");
      return;
    case verbs::fabric_event::device_removed:
      fail("the device " + device.name + " failed or was taken away");
      return;
    case verbs::fabric_event::port_up:
      break;
    case verbs::fabric_event::other:
      log::debug(target, "the RDMA device has an event", {{"device", device.name}});
      break;
    }
  }
}

// --- the end ---

void dci_pool::on_stop() {
  closing_ = true;
  const bool opened = fabric_ != nullptr;
  {
    // Also when closing an engine throws: what was counted goes on.
    struct adding {
      ~adding() {
        if (!gathered)
          own.count_engines(sum);
        sum += own.counters_;
        if (own.settings_.past != nullptr)
          own.settings_.past->add(sum);
      }
      void gather_engines() {
        own.count_engines(sum);
        gathered = true;
      }
      const dci_pool& own;
      rail_counters sum{};
      bool gathered = false;
    } at_the_end{*this};
    for (auto& seat : seats_)
      seat.engine->close(seat.held_back);
    at_the_end.gather_engines();
    // Nobody is told of an attach that the end came before: REACTORs hear that the pool is gone.
    if (ways_)
      ways_->end();
    attaching_.clear();
    if (registrar_)
      registrar_->end();
    registering_.clear();
    // Here the device lets go of all memory, ours and the clients'; nobody is told of an outcome before.
    for (auto& seat : seats_)
      seat.engine.reset();
    for (auto& each : memory_)
      each.region.reset();
    fabric_.reset();
    for (std::size_t seat = 0; seat < seats_.size(); ++seat) {
      outcomes_ = std::move(seats_[seat].held_back);
      take_outcomes(seat);
    }
  }
  MEMKV_ASSERT(sessions_.empty(), "an engine that is closed has ended its sessions");
  send_answers();
  tell_of_failure();
  for (auto& seat : seats_)
    seat.completions->cancel();
  if (device_events_ != nullptr)
    device_events_->cancel();
  if (ways_found_ != nullptr)
    ways_found_->cancel();
  if (registered_ != nullptr)
    registered_->cancel();
  if (opened && failed_.empty())
    log::info(target, "RDMA device is closed", {{"rail", std::to_string(settings_.rail)}});
}

void dci_pool::on_end() {
  // Done already, unless on_stop() threw.
  if (ways_)
    ways_->end();
  if (registrar_)
    registrar_->end();
  attaching_.clear();
  registering_.clear();
  seats_.clear();
  device_events_.reset();
  ways_found_.reset();
  ways_.reset();
  registered_.reset();
  registrar_.reset();
  transfers_.clear();
  memory_.clear();
  owners_.clear();
  settings_ = {};
  self_ = nullptr;
}

// --- reports ---

rail_counters dci_pool::counted() const {
  auto out = counters_;
  count_engines(out);
  return out;
}

void dci_pool::count_engines(rail_counters& out) const {
  for (const auto& seat : seats_) {
    const auto now = seat.engine->engine_facts();
    out.doorbells += now.doorbells;
    out.rebuilt += now.rebuilt;
    out.destroyed += now.destroyed;
    for (std::size_t index = 0; index < now.reports.size(); ++index)
      out.reports[index] += now.reports[index];
  }
}

dci_pool_facts dci_pool::facts() const {
  dci_pool_facts out;
  out.rail = settings_.rail;
  out.device = fabric_->facts().name;
  for (const auto& seat : seats_) {
    (seat.kind == verbs::peer_address::kind::rc ? out.rc : out.dc) = true;
    const auto now = seat.engine->engine_facts();
    out.queue_pairs += now.queue_pairs_ready;
    out.queued += now.queued;
    out.posted += now.posted;
  }
  out.sessions = sessions_.size();
  out.attaching = attaching_.size();
  out.connections = owners_.size();
  for (const auto& each : memory_)
    out.reachable_bytes += each.range.size();
  out.counters = counted();
  if (settings_.past != nullptr)
    out.counters += settings_.past->read();
  return out;
}

} // namespace memkv::actors
