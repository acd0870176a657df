#include "verbs/dci_scheduler.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <utility>

namespace memkv::verbs {

namespace {

constexpr std::uint64_t rebuild_ns_max = 1'000'000'000;

transfer_result result_of(completion_status status) noexcept {
  if (status == completion_status::success) {
    return transfer_result::done;
  }
  return retryable(status) ? transfer_result::retryable : transfer_result::refused;
}

} // namespace

status dci_scheduler::create(fabric& device, const dci_scheduler_options& options,
                             std::unique_ptr<dci_scheduler>& out) {
  if (options.initiators == 0 || options.initiators > 4096 || options.sends_max == 0 || options.quota == 0 ||
      options.signal_interval == 0 || options.clients_max == 0 || options.transfers_max == 0 ||
      options.transfers_client_max == 0 || options.transfer_bytes_max == 0 || options.quantum_bytes == 0 ||
      options.cost_bytes_min == 0 || options.rebuild_ns_min == 0) {
    return {errc::invalid_argument,
            "The pool of DC initiators needs limits above zero, and at most 4096 initiators."};
  }
  const device_facts& facts = device.facts();
  dci_scheduler_options cut = options;
  cut.small_bytes_max = std::min(options.small_bytes_max, options.bytes_posted_max);
  cut.small_sends_max = std::max(options.sends_max, std::min({options.small_sends_max, facts.sends_max,
                                                              facts.completions_max / options.initiators}));
  std::unique_ptr<dci_scheduler> made(new dci_scheduler(device, cut));
  if (status failed =
          device.create_completion_queue(cut.initiators * cut.small_sends_max, made->completions_);
      !failed.ok()) {
    return failed;
  }
  for (initiator& one : made->initiators_) {
    if (status failed = made->make_initiator(one); !failed.ok()) {
      return failed;
    }
  }
  out = std::move(made);
  return {};
}

dci_scheduler::dci_scheduler(fabric& device, const dci_scheduler_options& options)
    : device_(device), options_(options), slots_(options.transfers_max), wheel_(options.transfers_max),
      initiators_(options.initiators) {
  free_slots_.reserve(options.transfers_max);
  for (std::uint32_t number = options.transfers_max; number > 0; --number) {
    free_slots_.push_back(number - 1);
  }
}

dci_scheduler::~dci_scheduler() {
  MEMKV_ASSERT(attaching_ == 0, "attachments go before their engine");
  for (initiator& one : initiators_) {
    one.pair.reset(); // before the address handles
  }
}

status dci_scheduler::make_initiator(initiator& one) {
  queue_pair_options wanted;
  wanted.completions = completions_.get();
  wanted.sends_max = options_.small_sends_max;
  wanted.reads_max = device_.facts().reads_max;
  if (status failed = device_.create_dc_initiator(wanted, one.pair); !failed.ok()) {
    return failed;
  }
  one.state = service::ready;
  one.pause_ns = options_.rebuild_ns_min;
  return {};
}

// Lists ------------------------------------------------------------------------------------------------

void dci_scheduler::append(list& to, std::uint32_t number) noexcept {
  append_to<&slot::next, &slot::previous>(to, slots_, number);
}

void dci_scheduler::unlink(list& from, std::uint32_t number) noexcept {
  unlink_from<&slot::next, &slot::previous>(from, slots_, number);
}

void dci_scheduler::activate(std::uint32_t index) noexcept {
  if (!std::exchange(clients_[index].active, true))
    append_to<&client::next_active, &client::previous_active>(active_, clients_, index);
}

void dci_scheduler::deactivate(std::uint32_t index) noexcept {
  client& gone = clients_[index];
  if (!std::exchange(gone.active, false))
    return;
  gone.in_turn = false;
  unlink_from<&client::next_active, &client::previous_active>(active_, clients_, index);
}

// Sessions ---------------------------------------------------------------------------------------------

client_id dci_scheduler::id_of(std::uint32_t index) const noexcept {
  return std::uint64_t{clients_[index].generation} << 32U | index;
}

dci_scheduler::client* dci_scheduler::find(client_id id, std::uint32_t& index) noexcept {
  index = static_cast<std::uint32_t>(id);
  if (index >= clients_.size() || clients_[index].state == session::free || id_of(index) != id) {
    return nullptr;
  }
  return &clients_[index];
}

class dci_scheduler::dc_attachment final : public attachment {
public:
  dc_attachment(dci_scheduler& owner, const peer_address& client) : peer(client), owner_(owner) {
    ++owner_.attaching_;
  }
  ~dc_attachment() override { --owner_.attaching_; }
  void reach() noexcept override { way->run(); }

  peer_address peer;
  std::unique_ptr<slow_step> way; // to the address handle

private:
  dci_scheduler& owner_;
};

status dci_scheduler::check_address(const peer_address& peer) const {
  if (peer.what != peer_address::kind::dc) {
    return {errc::unsupported, "The address is not that of a DC target."};
  }
  if (peer.number > 0xFFFFFF) {
    return {errc::invalid_argument, "The number of a DC target has 24 bits."};
  }
  return {};
}

status dci_scheduler::start_attach(const peer_address& peer, std::unique_ptr<attachment>& out) {
  if (status refused = check_address(peer); !refused.ok()) {
    return refused;
  }
  if (statistics_.clients + attaching_ >= options_.clients_max) {
    return {errc::queue_full, "As many clients are attached as may be."};
  }
  auto made = std::make_unique<dc_attachment>(*this, peer);
  if (status failed = device_.start_address_handle(peer.port, made->way); !failed.ok()) {
    return failed;
  }
  out = std::move(made);
  return {};
}

status dci_scheduler::finish_attach(std::unique_ptr<attachment> made, client_id& out, peer_address& own) {
  auto& one = static_cast<dc_attachment&>(*made);
  std::unique_ptr<address_handle> handle;
  if (status failed = device_.finish_address_handle(*one.way, handle); !failed.ok()) {
    return failed;
  }
  std::uint32_t index = free_clients_.first;
  if (index == none) {
    index = static_cast<std::uint32_t>(clients_.size());
    clients_.emplace_back();
  } else {
    free_clients_.first = clients_[index].next_active;
  }
  client& added = clients_[index];
  const std::uint32_t generation = added.generation + 1;
  added = {};
  added.generation = generation;
  added.state = session::open;
  added.handle = std::move(handle);
  added.address = {added.handle.get(), one.peer.number, one.peer.dc_key};
  ++statistics_.clients;
  out = id_of(index);
  own = {};
  own.what = peer_address::kind::dc;
  own.port = device_.self();
  own.mtu_bytes = device_.path().mtu_bytes;
  return {};
}

status dci_scheduler::attach(const endpoint& port, std::uint32_t target_number, std::uint64_t key,
                             client_id& out) {
  peer_address peer;
  peer.what = peer_address::kind::dc;
  peer.port = port;
  peer.number = target_number;
  peer.dc_key = key;
  peer_address own;
  return attach(peer, out, own);
}

engine_statistics dci_scheduler::engine_facts() const noexcept {
  const auto now = statistics();
  engine_statistics out;
  out.clients = now.clients;
  out.clients_max = options_.clients_max;
  out.queued = now.queued;
  out.posted = now.posted;
  out.queue_pairs_ready = now.initiators_ready;
  out.doorbells = now.doorbells;
  out.transfers_done = now.transfers_done;
  out.bytes_done = now.bytes_done;
  out.rebuilt = now.rebuilt;
  out.destroyed = now.destroyed;
  out.reports = now.reports;
  return out;
}

status dci_scheduler::submit(client_id id, const transfer& one) {
  std::uint32_t index = 0;
  client* const owner = find(id, index);
  if (owner == nullptr) {
    return {errc::not_found, "No such client is attached."};
  }
  if (owner->state != session::open) {
    return {errc::wrong_state,
            "The session is over, because of an error or because it was ended: attach again."};
  }
  if (one.local.length == 0 || one.local.length > options_.transfer_bytes_max ||
      one.remote_address + one.local.length < one.remote_address) {
    return {errc::invalid_argument, "The transfer is empty, longer than a chunk, or wraps around."};
  }
  if (owner->queue.count + owner->posted >= options_.transfers_client_max || free_slots_.empty()) {
    return {errc::queue_full, "As many transfers are queued as may be."};
  }
  const std::uint32_t number = free_slots_.back();
  free_slots_.pop_back();
  slot& taken = slots_[number];
  taken.what = one;
  taken.client = index;
  taken.where = place_of::queued;
  append(owner->queue, number);
  wheel_.add(number, one.deadline_ns);
  activate(index);
  ++statistics_.queued;
  return {};
}

status dci_scheduler::detach(client_id id, std::vector<outcome>& out) {
  std::uint32_t index = 0;
  client* const leaving = find(id, index);
  if (leaving == nullptr || leaving->state == session::ending) {
    return {errc::not_found, "No such client is attached."};
  }
  leaving->state = session::ending;
  drop_queue(index, transfer_result::cancelled, out);
  end_session_if_done(index, out);
  return {};
}

void dci_scheduler::drop_queue(std::uint32_t index, transfer_result result, std::vector<outcome>& out) {
  while (clients_[index].queue.count != 0) {
    answer(clients_[index].queue.first, result, completion_status::flushed, out);
  }
}

void dci_scheduler::break_session(std::uint32_t index, std::vector<outcome>& out) {
  if (clients_[index].state != session::open) {
    return;
  }
  clients_[index].state = session::broken;
  drop_queue(index, transfer_result::retryable, out);
  out.push_back({outcome::what::session_broken, id_of(index), 0, {}, {}});
}

void dci_scheduler::end_session_if_done(std::uint32_t index, std::vector<outcome>& out) {
  client& leaving = clients_[index];
  if (leaving.state != session::ending || leaving.posted != 0) {
    return;
  }
  MEMKV_ASSERT(leaving.queue.count == 0, "a session that ends has nothing queued");
  out.push_back({outcome::what::session_ended, id_of(index), 0, {}, {}});
  if (leaving.initiator != none && initiators_[leaving.initiator].peer == index) {
    initiators_[leaving.initiator].peer = none;
  }
  leaving.handle.reset();
  leaving.state = session::free;
  leaving.next_active = free_clients_.first;
  free_clients_.first = index;
  --statistics_.clients;
}

// Outcomes ---------------------------------------------------------------------------------------------

void dci_scheduler::answer(std::uint32_t number, transfer_result result, completion_status status,
                           std::vector<outcome>& out) {
  slot& done = slots_[number];
  client& owner = clients_[done.client];
  const std::uint32_t index = done.client;
  wheel_.remove(number);
  if (done.where == place_of::queued) {
    unlink(owner.queue, number);
    --statistics_.queued;
    if (owner.queue.count == 0) {
      owner.deficit = 0;
      deactivate(index);
    }
  } else {
    MEMKV_ASSERT(done.where == place_of::posted, "a transfer has one outcome");
    initiator& carrier = initiators_[done.initiator];
    unlink(carrier.posted, number);
    carrier.bytes -= done.what.local.length;
    --owner.posted;
    --statistics_.posted;
  }
  out.push_back({outcome::what::transfer, id_of(index), done.what.cookie, result, status});
  done.where = place_of::free;
  free_slots_.push_back(number);
}

void dci_scheduler::ended(std::uint32_t number, completion_status status, std::vector<outcome>& out) {
  const slot& done = slots_[number];
  const std::uint32_t index = done.client;
  transfer_result result = result_of(status);
  if (result == transfer_result::done) {
    ++statistics_.transfers_done;
    statistics_.bytes_done += done.what.local.length;
  } else if (now_ns_ >= done.what.deadline_ns) {
    result = transfer_result::deadline_exceeded;
  }
  answer(number, result, status, out);
  if (result != transfer_result::done && caused_by_peer(status)) {
    break_session(index, out);
  }
  end_session_if_done(index, out);
}

void dci_scheduler::take_reports(std::vector<outcome>& out) {
  while (const std::size_t count = completions_->poll(reports_)) {
    for (std::size_t index = 0; index < count; ++index) {
      const report& one = reports_[index];
      const auto number = static_cast<std::uint32_t>(one.id);
      MEMKV_ASSERT(number < slots_.size() && slots_[number].where == place_of::posted,
                   "what is reported was posted");
      initiator& carrier = initiators_[slots_[number].initiator];
      ++statistics_.reports[static_cast<std::size_t>(one.status)];
      if (one.status != completion_status::success) {
        start_draining(carrier);
      }
      ended(number, one.status, out);
    }
  }
}

void dci_scheduler::expire(std::vector<outcome>& out) {
  expired_.clear();
  wheel_.expire(now_ns_, expired_);
  for (const std::uint32_t number : expired_) {
    slot& late = slots_[number];
    if (late.where == place_of::queued) {
      answer(number, transfer_result::deadline_exceeded, completion_status::flushed, out);
    } else if (late.where == place_of::posted) {
      // Whoever is at the head is what the initiator could not get done.
      initiator& carrier = initiators_[late.initiator];
      if (carrier.state == service::ready) {
        carrier.pair->fail();
        start_draining(carrier);
        break_session(slots_[carrier.posted.first].client, out);
      }
    }
  }
}

// Initiators -------------------------------------------------------------------------------------------

void dci_scheduler::start_draining(initiator& one) {
  if (one.state != service::ready) {
    return;
  }
  one.state = service::draining;
  one.since_ns = now_ns_;
  one.peer = none;
}

void dci_scheduler::destroy(initiator& one, std::vector<outcome>& out) {
  statistics_.destroyed += one.pair == nullptr ? 0 : 1;
  one.pair.reset();
  while (one.posted.count != 0) {
    ended(one.posted.first, completion_status::flushed, out);
  }
  one.state = service::missing;
  one.peer = none;
  one.again_ns = now_ns_ + one.pause_ns;
  one.pause_ns = std::min(one.pause_ns * 2, rebuild_ns_max);
}

void dci_scheduler::rebuild(std::vector<outcome>& out) {
  for (initiator& one : initiators_) {
    if (one.state == service::draining) {
      if (one.posted.count == 0) {
        if (one.pair->recover().ok()) {
          one.state = service::ready;
          ++statistics_.rebuilt;
        } else {
          destroy(one, out);
        }
      } else if (now_ns_ - one.since_ns >= options_.drain_ns_max) {
        destroy(one, out);
      }
    } else if (one.state == service::missing && now_ns_ >= one.again_ns) {
      const std::uint64_t pause_ns = one.pause_ns;
      if (make_initiator(one).ok()) {
        ++statistics_.rebuilt;
      } else {
        one.again_ns = now_ns_ + pause_ns;
        one.pause_ns = std::min(pause_ns * 2, rebuild_ns_max);
      }
    }
  }
}

bool dci_scheduler::has_room(const initiator& one, std::uint64_t bytes) const noexcept {
  if (one.state != service::ready || one.posted.count == 0) {
    return one.state == service::ready;
  }
  // Beyond the plain credit only what no other client waits behind, or loses with it.
  return (one.posted.count < options_.sends_max && one.bytes + bytes <= options_.bytes_posted_max) ||
         (alone() && one.posted.count < options_.small_sends_max &&
          one.bytes + bytes <= options_.small_bytes_max);
}

std::uint32_t dci_scheduler::choose(std::uint32_t index, std::uint64_t bytes) noexcept {
  client& owner = clients_[index];
  if (owner.initiator != none) {
    initiator& current = initiators_[owner.initiator];
    // Alone, nobody waits for it to leave.
    if (current.peer == index && (alone() || current.quota > 0) && has_room(current, bytes)) {
      current.quota -= alone() ? 0 : 1;
      return owner.initiator;
    }
  }
  const auto count = static_cast<std::uint32_t>(initiators_.size());
  std::uint32_t chosen = none;
  for (std::uint32_t step = 0; step < count; ++step) {
    const std::uint32_t number = (cursor_ + step) % count;
    if (!has_room(initiators_[number], bytes)) {
      continue;
    }
    if (initiators_[number].posted.count == 0) {
      chosen = number;
      break;
    }
    chosen = chosen == none ? number : chosen;
  }
  if (chosen == none) {
    return none;
  }
  cursor_ = (chosen + 1) % count;
  initiator& one = initiators_[chosen];
  statistics_.attachments += one.peer == index ? 0 : 1;
  one.peer = index;
  one.quota = options_.quota - 1;
  owner.initiator = chosen;
  return chosen;
}

void dci_scheduler::assign(std::uint32_t number, std::uint32_t chosen) {
  slot& next = slots_[number];
  client& owner = clients_[next.client];
  initiator& carrier = initiators_[chosen];
  unlink(owner.queue, number);
  --statistics_.queued;
  next.where = place_of::posted;
  next.initiator = chosen;
  append(carrier.posted, number);
  carrier.bytes += next.what.local.length;
  ++owner.posted;
  ++statistics_.posted;
  if (const std::uint64_t earliest_ns = now_ns_ + options_.posted_ns_min;
      earliest_ns > next.what.deadline_ns) {
    wheel_.remove(number);
    wheel_.add(number, earliest_ns);
  }

  work_request request;
  request.id = number;
  request.kind = next.what.way == direction::fetch ? operation::read : operation::write;
  request.local = {&next.what.local, 1};
  request.remote_address = next.what.remote_address;
  request.rkey = next.what.rkey;
  request.target = &owner.address;
  request.signalled = (carrier.batch.size() + 1) % options_.signal_interval == 0;
  carrier.batch.push_back(request);
}

void dci_scheduler::fill(std::vector<outcome>& out) {
  while (active_.first != none) {
    const std::uint32_t index = active_.first;
    client& owner = clients_[index];
    if (!owner.in_turn) {
      owner.in_turn = true;
      owner.deficit += options_.quantum_bytes;
    }
    while (owner.queue.count != 0) {
      const std::uint32_t number = owner.queue.first;
      const std::uint32_t bytes = slots_[number].what.local.length;
      const std::uint32_t cost = std::max(bytes, options_.cost_bytes_min);
      if (now_ns_ >= slots_[number].what.deadline_ns) {
        answer(number, transfer_result::deadline_exceeded, completion_status::flushed, out);
        continue;
      }
      if (cost > owner.deficit) {
        break;
      }
      const std::uint32_t chosen = choose(index, bytes);
      if (chosen == none) {
        return; // without credit anywhere; its turn goes on when there is some
      }
      owner.deficit -= cost;
      assign(number, chosen);
    }
    if (owner.queue.count == 0) {
      owner.deficit = 0;
      deactivate(index);
    } else {
      deactivate(index);
      activate(index); // to the end
    }
  }
}

void dci_scheduler::ring(initiator& one, std::vector<outcome>& out) {
  const post_result result = one.pair->post(one.batch);
  statistics_.doorbells += result.posted == 0 ? 0 : 1;
  if (result.posted < one.batch.size()) {
    // Only a device in trouble does that, since the credit was there.
    one.pair->fail();
    start_draining(one);
    for (std::size_t index = result.posted; index < one.batch.size(); ++index) {
      ended(static_cast<std::uint32_t>(one.batch[index].id), completion_status::flushed, out);
    }
  }
  one.batch.clear();
}

void dci_scheduler::run(std::uint64_t now_ns, std::vector<outcome>& out) {
  now_ns_ = std::max(now_ns_, now_ns);
  take_reports(out);
  expire(out);
  rebuild(out);
  fill(out);
  for (initiator& one : initiators_) {
    if (!one.batch.empty()) {
      ring(one, out);
    }
  }
}

void dci_scheduler::close(std::vector<outcome>& out) {
  take_reports(out);
  for (initiator& one : initiators_) {
    destroy(one, out);
  }
  for (std::uint32_t index = 0; index < clients_.size(); ++index) {
    if (clients_[index].state != session::free) {
      drop_queue(index, transfer_result::retryable, out);
      clients_[index].state = session::ending;
      end_session_if_done(index, out);
    }
  }
}

std::uint64_t dci_scheduler::next_ns() const noexcept {
  std::uint64_t next = wheel_.empty() ? ~std::uint64_t{0} : wheel_.next_tick_ns();
  for (const initiator& one : initiators_) {
    if (one.state == service::draining) {
      next = std::min(next, one.posted.count == 0 ? now_ns_ : one.since_ns + options_.drain_ns_max);
    } else if (one.state == service::missing) {
      next = std::min(next, one.again_ns);
    }
  }
  return next;
}

dci_statistics dci_scheduler::statistics() const noexcept {
  dci_statistics now = statistics_;
  now.initiators_ready = static_cast<std::uint32_t>(
      std::count_if(initiators_.begin(), initiators_.end(),
                    [](const initiator& one) { return one.state == service::ready; }));
  return now;
}

std::vector<std::uint32_t> dci_scheduler::queue_pair_numbers() const {
  std::vector<std::uint32_t> numbers;
  for (const initiator& one : initiators_) {
    if (one.pair != nullptr) {
      numbers.push_back(one.pair->number());
    }
  }
  return numbers;
}

} // namespace memkv::verbs
