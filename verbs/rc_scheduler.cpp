#include "verbs/rc_scheduler.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace memkv::verbs {

namespace {

/// How many times what is left for all one client may have posted.
constexpr std::uint64_t share = 4;
constexpr std::uint32_t number_max = 0xFFFFFF;

transfer_result result_of(completion_status status) noexcept {
  if (status == completion_status::success) {
    return transfer_result::done;
  }
  return retryable(status) ? transfer_result::retryable : transfer_result::refused;
}

} // namespace

peer_address to_peer_address(const rc_address& address) noexcept {
  peer_address out;
  out.what = peer_address::kind::rc;
  out.port = address.port;
  out.number = address.queue_pair_number;
  out.packet_number = address.packet_number;
  out.mtu_bytes = address.mtu_bytes;
  out.reads_served_max = address.reads_served_max;
  return out;
}

rc_address to_rc_address(const peer_address& address) noexcept {
  return {address.port, address.number, address.packet_number, address.mtu_bytes, address.reads_served_max};
}

status rc_scheduler::create(fabric& device, const rc_scheduler_options& options,
                            std::unique_ptr<rc_scheduler>& out) {
  if (options.clients_max == 0 || options.sends_min == 0 || options.sends_max < options.sends_min ||
      options.bytes_client_max == 0 || options.posted_max == 0 || options.bytes_posted_max == 0 ||
      options.signal_interval == 0 || options.signal_bytes == 0 || options.transfers_max == 0 ||
      options.transfers_client_max == 0 || options.transfer_bytes_max == 0 || options.quantum_bytes == 0 ||
      options.cost_bytes_min == 0) {
    return {errc::invalid_argument, "The limits of RC queue pairs have to be above zero."};
  }
  const device_facts& facts = device.facts();
  rc_scheduler_options cut = options;
  cut.message_reports_max = std::min(options.message_reports_max, facts.completions_max / 4);
  cut.transfer_bytes_max = std::min(options.transfer_bytes_max, facts.transfer_bytes_max);
  cut.small_bytes_max = std::min(options.small_bytes_max, options.bytes_client_max);
  cut.sends_max = std::min(options.sends_max, facts.sends_max);
  const std::uint32_t left = facts.completions_max - cut.message_reports_max;
  const std::uint32_t share_of_it = left / options.clients_max;
  // Where it is short, a third of it is for deeper queue pairs of those who are there.
  const std::uint32_t each =
      std::min(std::clamp(share_of_it >= options.sends_max ? share_of_it : share_of_it - share_of_it / 3,
                          options.sends_min, options.sends_max),
               facts.sends_max);
  const std::uint32_t pairs_max = each == 0 ? 0 : std::min(options.clients_max, left / each);
  if (pairs_max == 0) {
    return {errc::no_resources, facts.name + " has no room for the completions of a single queue pair."};
  }
  const std::uint32_t deep = std::min(options.deep_reports_max, left - pairs_max * each);
  std::unique_ptr<rc_scheduler> made(new rc_scheduler(device, cut));
  made->pairs_max_ = pairs_max;
  made->statistics_.engine.clients_max = pairs_max;
  made->statistics_.sends_client = each;
  made->statistics_.deep_free = deep;
  if (status failed = device.create_completion_queue(pairs_max * each + deep + cut.message_reports_max,
                                                     made->completions_);
      !failed.ok()) {
    return failed;
  }
  out = std::move(made);
  return {};
}

rc_scheduler::rc_scheduler(fabric& device, const rc_scheduler_options& options)
    : device_(device), options_(options), slots_(options.transfers_max), wheel_(options.transfers_max),
      message_wheel_(options.clients_max) {
  for (std::uint32_t number = 0; number < options.transfers_max; ++number) {
    append(free_slots_, number);
  }
}

rc_scheduler::~rc_scheduler() {
  MEMKV_ASSERT(attaching_ == 0, "attachments go before their engine");
  for (client& one : clients_) {
    one.pair.reset(); // before the memory of messages
  }
}

// Lists ------------------------------------------------------------------------------------------------

void rc_scheduler::append(list& to, std::uint32_t number) noexcept {
  append_to<&slot::next, &slot::previous>(to, slots_, number);
}

void rc_scheduler::unlink(list& from, std::uint32_t number) noexcept {
  unlink_from<&slot::next, &slot::previous>(from, slots_, number);
}

void rc_scheduler::activate(std::uint32_t index) noexcept {
  if (!std::exchange(clients_[index].active, true))
    append_to<&client::next_active, &client::previous_active>(active_, clients_, index);
}

void rc_scheduler::deactivate(std::uint32_t index) noexcept {
  client& gone = clients_[index];
  if (!std::exchange(gone.active, false))
    return;
  gone.in_turn = false;
  unlink_from<&client::next_active, &client::previous_active>(active_, clients_, index);
}

void rc_scheduler::append_draining(std::uint32_t index) noexcept {
  client& added = clients_[index];
  added.draining = true;
  added.since_ns = now_ns_;
  append_to<&client::next_draining, &client::previous_draining>(draining_, clients_, index);
}

void rc_scheduler::unlink_draining(std::uint32_t index) noexcept {
  clients_[index].draining = false;
  unlink_from<&client::next_draining, &client::previous_draining>(draining_, clients_, index);
}

// Sessions ---------------------------------------------------------------------------------------------

client_id rc_scheduler::id_of(std::uint32_t index) const noexcept {
  return std::uint64_t{clients_[index].generation} << 32U | index;
}

rc_scheduler::client* rc_scheduler::find(client_id id, std::uint32_t& index) noexcept {
  index = static_cast<std::uint32_t>(id);
  if (index >= clients_.size() || clients_[index].state == session::free || id_of(index) != id) {
    return nullptr;
  }
  return &clients_[index];
}

std::uint32_t rc_scheduler::queue_pair_number(client_id id) const noexcept {
  const auto index = static_cast<std::uint32_t>(id);
  return index < clients_.size() && id_of(index) == id && clients_[index].pair != nullptr
             ? clients_[index].pair->number()
             : 0;
}

/// Has the queue pair, and the room for messages. Receives are posted when it is connected, so nothing is
/// reported of it before.
class rc_scheduler::rc_attachment final : public attachment {
public:
  rc_attachment(rc_scheduler& owner, std::unique_ptr<mailbox> box) : messages(std::move(box)), owner_(owner) {
    ++owner_.attaching_;
    ++owner_.pairs_;
    depth = owner_.take_depth(messages == nullptr ? 0 : messages->slots);
    owner_.count_mailbox(messages.get(), true);
  }
  ~rc_attachment() override {
    --owner_.attaching_;
    if (attached) {
      return;
    }
    way.reset();
    pair.reset(); // before the memory of messages
    --owner_.pairs_;
    owner_.give_depth_back(depth);
    owner_.count_mailbox(messages.get(), false);
  }
  void reach() noexcept override { way->run(); }

  std::unique_ptr<mailbox> messages;
  std::unique_ptr<rc_queue_pair> pair;
  std::unique_ptr<slow_step> way;
  std::uint32_t depth = 0;
  bool attached = false; // all of it is the client's

private:
  rc_scheduler& owner_;
};

/// What a new queue pair has room for, with room for `beside` more.
std::uint32_t rc_scheduler::take_depth(std::uint32_t beside) noexcept {
  const std::uint32_t each = statistics_.sends_client;
  const std::uint32_t wanted = std::max(options_.small_sends_max, options_.sends_max);
  const std::uint32_t possible = device_.facts().sends_max - beside;
  const std::uint32_t more =
      std::min({std::max(wanted, each) - each, std::max(possible, each) - each, statistics_.deep_free / 8});
  statistics_.deep_free -= more;
  return each + more;
}

void rc_scheduler::give_depth_back(std::uint32_t depth) noexcept {
  statistics_.deep_free += depth - statistics_.sends_client;
}

void rc_scheduler::count_mailbox(const mailbox* one, bool there) noexcept {
  if (one == nullptr) {
    return;
  }
  const std::uint32_t reports = one->slots + one->ours.messages_max;
  message_reserved_ += there ? reports : 0 - reports;
  statistics_.message_memory += there ? one->memory.size() : 0 - one->memory.size();
}

status rc_scheduler::check_address(const peer_address& peer) const {
  if (peer.what != peer_address::kind::rc) {
    return {errc::unsupported, "The address is not that of an RC queue pair."};
  }
  if (peer.number == 0 || peer.number > number_max || peer.packet_number > number_max) {
    return {errc::invalid_argument,
            "The numbers of a queue pair and of its first packet have 24 bits, and the first is not 0."};
  }
  if (peer.mtu_bytes < 256 || peer.mtu_bytes > 4096 || !std::has_single_bit(peer.mtu_bytes)) {
    return {errc::invalid_argument, "The peer's path MTU is none of 256, 512, 1024, 2048 and 4096."};
  }
  if (peer.reads_served_max == 0) {
    return {errc::invalid_argument, "The peer answers no RDMA READ, so nothing can be fetched from it."};
  }
  return {};
}

status rc_scheduler::start_attach(const peer_address& peer, std::unique_ptr<attachment>& out) {
  return start_client(peer, nullptr, out);
}

status rc_scheduler::start_client(const peer_address& peer, std::unique_ptr<mailbox> messages,
                                  std::unique_ptr<attachment>& out) {
  if (status refused = check_address(peer); !refused.ok()) {
    return refused;
  }
  if (statistics_.engine.clients + attaching_ >= options_.clients_max) {
    return {errc::queue_full, "As many clients are attached as may be."};
  }
  if (pairs_ >= pairs_max_) {
    return {errc::queue_full, "The completion queue of " + device_.facts().name +
                                  " has no room for another client: it is as large as the device makes it."};
  }
  auto made = std::make_unique<rc_attachment>(*this, std::move(messages));
  const mailbox* const box = made->messages.get();
  queue_pair_options wanted;
  wanted.completions = completions_.get();
  wanted.sends_max = made->depth + (box == nullptr ? 0 : box->slots);
  wanted.receives_max = box == nullptr ? 0 : box->ours.messages_max;
  wanted.reads_max = std::min(device_.facts().reads_max, peer.reads_served_max);
  if (status failed = device_.create_rc(wanted, made->pair); !failed.ok()) {
    return failed;
  }
  if (status failed = made->pair->start_connect(to_rc_address(peer), made->way); !failed.ok()) {
    return failed;
  }
  out = std::move(made);
  return {};
}

status rc_scheduler::finish_attach(std::unique_ptr<attachment> made, client_id& out, peer_address& own) {
  auto& one = static_cast<rc_attachment&>(*made);
  if (status failed = one.pair->finish_connect(*one.way); !failed.ok()) {
    return failed;
  }
  if (free_client_ == none) {
    free_client_ = static_cast<std::uint32_t>(clients_.size());
    clients_.emplace_back();
  }
  const std::uint32_t index = free_client_;
  if (one.messages != nullptr) {
    for (std::uint32_t number = 0; number < one.messages->ours.messages_max; ++number) {
      if (status failed = post_receive(*one.pair, *one.messages, index, number); !failed.ok()) {
        return failed;
      }
    }
  }
  client& added = clients_[index];
  free_client_ = added.next_active;
  const std::uint32_t generation = added.generation + 1;
  added = {};
  added.generation = generation;
  added.state = session::open;
  added.messages = std::move(one.messages);
  added.pair = std::move(one.pair);
  added.depth = one.depth;
  one.attached = true;
  own = to_peer_address(added.pair->address());
  out = id_of(index);
  ++statistics_.engine.clients;
  ++statistics_.engine.queue_pairs_ready;
  return {};
}

status rc_scheduler::submit(client_id id, const transfer& one) {
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
  if (owner->queue.count + owner->posted.count >= options_.transfers_client_max || free_slots_.count == 0) {
    return {errc::queue_full, "As many transfers are queued as may be."};
  }
  const std::uint32_t number = free_slots_.last; // still in the processor's cache
  unlink(free_slots_, number);
  slot& taken = slots_[number];
  taken.what = one;
  taken.client = index;
  taken.where = place_of::queued;
  append(owner->queue, number);
  wheel_.add(number, one.deadline_ns);
  if (!owner->blocked) {
    activate(index);
  }
  ++statistics_.engine.queued;
  return {};
}

status rc_scheduler::detach(client_id id, std::vector<outcome>& out) {
  std::uint32_t index = 0;
  client* const leaving = find(id, index);
  if (leaving == nullptr || leaving->state == session::ending) {
    return {errc::not_found, "No such client is attached."};
  }
  leaving->state = session::ending;
  drop_queue(index, transfer_result::cancelled, out);
  finish(index, out);
  return {};
}

void rc_scheduler::drop_queue(std::uint32_t index, transfer_result result, std::vector<outcome>& out) {
  while (clients_[index].queue.count != 0) {
    answer(clients_[index].queue.first, result, completion_status::flushed, out);
  }
}

/// Takes the queue pair out of service and breaks the session.
void rc_scheduler::fail(std::uint32_t index, std::vector<outcome>& out) {
  client& failed = clients_[index];
  if (failed.pair != nullptr && !failed.draining) {
    failed.pair->fail();
    append_draining(index);
    message_wheel_.remove(index);
    --statistics_.engine.queue_pairs_ready;
    done_.push_back(index);
  }
  if (failed.state == session::open) {
    failed.state = session::broken;
    drop_queue(index, transfer_result::retryable, out);
    out.push_back({outcome::what::session_broken, id_of(index), 0, {}, {}});
  }
}

void rc_scheduler::destroy_pair(std::uint32_t index) {
  client& gone = clients_[index];
  if (gone.pair == nullptr) {
    return;
  }
  if (gone.draining) {
    unlink_draining(index);
  } else {
    --statistics_.engine.queue_pairs_ready;
  }
  message_wheel_.remove(index);
  gone.pair.reset();
  --pairs_;
  give_depth_back(gone.depth);
  count_mailbox(gone.messages.get(), false);
  gone.messages.reset();
}

void rc_scheduler::destroy_with_posted(std::uint32_t index, std::vector<outcome>& out) {
  destroy_pair(index);
  while (clients_[index].posted.count != 0) {
    ended(clients_[index].posted.first, completion_status::flushed, out);
  }
}

/// Once nothing is posted any more: a queue pair that failed goes, and a session that was ended is over.
void rc_scheduler::finish(std::uint32_t index, std::vector<outcome>& out) {
  client& leaving = clients_[index];
  if (leaving.state == session::free || leaving.posted.count != 0) {
    return;
  }
  if (leaving.draining || leaving.state == session::ending) {
    destroy_pair(index);
  }
  if (leaving.state != session::ending) {
    return;
  }
  MEMKV_ASSERT(leaving.queue.count == 0, "a session that ends has nothing queued");
  const client_id id = id_of(index);
  std::erase_if(arrivals_, [id](const arrival& one) { return one.what.client == id; });
  out.push_back({outcome::what::session_ended, id, 0, {}, {}});
  leaving.state = session::free;
  leaving.next_active = free_client_;
  free_client_ = index;
  --statistics_.engine.clients;
}

void rc_scheduler::finish_those_done(std::vector<outcome>& out) {
  for (const std::uint32_t index : done_) {
    finish(index, out);
  }
  done_.clear();
}

// Outcomes ---------------------------------------------------------------------------------------------

void rc_scheduler::answer(std::uint32_t number, transfer_result result, completion_status status,
                          std::vector<outcome>& out) {
  slot& done = slots_[number];
  client& owner = clients_[done.client];
  const std::uint32_t index = done.client;
  wheel_.remove(number);
  if (done.where == place_of::queued) {
    unlink(owner.queue, number);
    --statistics_.engine.queued;
    if (owner.queue.count == 0) {
      deactivate(index);
      owner.deficit = 0;
      owner.blocked = false;
      owner.in_turn = false;
    }
  } else {
    MEMKV_ASSERT(done.where == place_of::posted, "a transfer has one outcome");
    unlink(owner.posted, number);
    owner.bytes -= done.what.local.length;
    bytes_posted_ -= done.what.local.length;
    --statistics_.engine.posted;
  }
  out.push_back({outcome::what::transfer, id_of(index), done.what.cookie, result, status});
  done.where = place_of::free;
  append(free_slots_, number);
}

void rc_scheduler::ended(std::uint32_t number, completion_status status, std::vector<outcome>& out) {
  const slot& done = slots_[number];
  const std::uint32_t index = done.client;
  transfer_result result = result_of(status);
  if (result == transfer_result::done) {
    ++statistics_.engine.transfers_done;
    statistics_.engine.bytes_done += done.what.local.length;
  } else if (now_ns_ >= done.what.deadline_ns) {
    result = transfer_result::deadline_exceeded;
  }
  answer(number, result, status, out);
  client& owner = clients_[index];
  if (owner.posted.count == 0 && (owner.draining || owner.state == session::ending)) {
    done_.push_back(index);
  }
  if (owner.blocked) {
    owner.blocked = false;
    activate(index);
  }
}

void rc_scheduler::take_reports(std::vector<outcome>& out) {
  std::array<report, 64> some;
  while (const std::size_t count = completions_->poll(some)) {
    for (std::size_t position = 0; position < count; ++position) {
      const report& one = some[position];
      ++statistics_.engine.reports[static_cast<std::size_t>(one.status)];
      if (one.kind == operation::send || one.kind == operation::receive) {
        take_message_report(one, out);
        continue;
      }
      const auto number = static_cast<std::uint32_t>(one.id);
      MEMKV_ASSERT(number < slots_.size() && slots_[number].where == place_of::posted,
                   "what is reported was posted");
      const std::uint32_t index = slots_[number].client;
      ended(number, one.status, out);
      if (one.status != completion_status::success) {
        fail(index, out);
      }
    }
  }
}

void rc_scheduler::expire(std::vector<outcome>& out) {
  expired_.clear();
  wheel_.expire(now_ns_, expired_);
  for (const std::uint32_t number : expired_) {
    if (slots_[number].where == place_of::queued) {
      answer(number, transfer_result::deadline_exceeded, completion_status::flushed, out);
    } else if (slots_[number].where == place_of::posted) {
      fail(slots_[number].client, out);
    }
  }
  expired_.clear();
  message_wheel_.expire(now_ns_, expired_);
  for (const std::uint32_t index : expired_) {
    fail(index, out);
  }
  for (const client_id id : failing_) {
    std::uint32_t index = 0;
    if (find(id, index) != nullptr) {
      fail(index, out);
    }
  }
  failing_.clear();
  finish_those_done(out);
  while (draining_.first != none && now_ns_ - clients_[draining_.first].since_ns >= options_.drain_ns_max) {
    ++statistics_.engine.destroyed;
    destroy_with_posted(draining_.first, out);
  }
  finish_those_done(out);
}

// Posting ----------------------------------------------------------------------------------------------

bool rc_scheduler::has_room(std::uint64_t bytes) const noexcept {
  const std::uint64_t posted = statistics_.engine.posted;
  return posted == 0 || (posted < options_.posted_max && bytes_posted_ + bytes <= options_.bytes_posted_max);
}

bool rc_scheduler::within_bounds(const client& one, std::uint64_t bytes) const noexcept {
  return one.posted.count == 0 ||
         (one.posted.count < std::min(options_.sends_max, one.depth) &&
          one.bytes + bytes <= options_.bytes_client_max) ||
         (one.posted.count < one.depth && one.bytes + bytes <= options_.small_bytes_max);
}

/// Only asked when there is room for it.
bool rc_scheduler::within_share(const client& one, std::uint64_t bytes) const noexcept {
  return one.posted.count == 0 ||
         (one.posted.count < share * (options_.posted_max - statistics_.engine.posted) &&
          one.bytes + bytes <= share * (options_.bytes_posted_max - bytes_posted_));
}

void rc_scheduler::add_to_batch(std::uint32_t index) {
  if (!clients_[index].in_batch) {
    clients_[index].in_batch = true;
    in_batch_.push_back(index);
  }
}

void rc_scheduler::assign(std::uint32_t number) {
  slot& next = slots_[number];
  client& owner = clients_[next.client];
  unlink(owner.queue, number);
  --statistics_.engine.queued;
  next.where = place_of::posted;
  append(owner.posted, number);
  owner.fresh = owner.fresh == none ? number : owner.fresh;
  owner.bytes += next.what.local.length;
  bytes_posted_ += next.what.local.length;
  ++statistics_.engine.posted;
  wheel_.remove(number);
  wheel_.add(number, std::max(next.what.deadline_ns, now_ns_ + options_.posted_ns_min));
  add_to_batch(next.client);
}

void rc_scheduler::fill(std::vector<outcome>& out) {
  while (active_.first != none) {
    const std::uint32_t index = active_.first;
    client& owner = clients_[index];
    if (!owner.in_turn) {
      owner.in_turn = true;
      owner.deficit += options_.quantum_bytes;
    }
    while (owner.queue.count != 0) {
      const std::uint32_t number = owner.queue.first;
      const std::uint64_t bytes = slots_[number].what.local.length;
      const std::uint64_t cost = std::max<std::uint64_t>(bytes, options_.cost_bytes_min);
      if (now_ns_ >= slots_[number].what.deadline_ns) {
        answer(number, transfer_result::deadline_exceeded, completion_status::flushed, out);
        continue;
      }
      if (cost > owner.deficit) {
        break;
      }
      if (!within_bounds(owner, bytes)) {
        owner.blocked = true;
        break;
      }
      if (!has_room(bytes)) {
        return; // its turn goes on when there is some
      }
      if (!within_share(owner, bytes)) {
        owner.blocked = true;
        break;
      }
      owner.deficit -= cost;
      assign(number);
    }
    owner.deficit = owner.queue.count == 0 ? 0 : owner.deficit;
    deactivate(index);
    if (owner.blocked) {
      owner.in_turn = true; // which goes on with a report: waiting earns nothing
    } else if (owner.queue.count != 0) {
      activate(index); // to the end
    }
  }
}

void rc_scheduler::ring(std::uint32_t index, std::vector<outcome>& out) {
  client& owner = clients_[index];
  owner.in_batch = false;
  if (owner.pair == nullptr || owner.draining) {
    return;
  }
  batch_.clear();
  add_messages(owner, index);
  const std::size_t messages = batch_.size();
  std::uint64_t bytes = 0;
  for (std::uint32_t number = owner.fresh; number != none; number = slots_[number].next) {
    const transfer& what = slots_[number].what;
    bytes += what.local.length;
    work_request request;
    request.id = number;
    request.kind = what.way == direction::fetch ? operation::read : operation::write;
    request.local = {&what.local, 1};
    request.remote_address = what.remote_address;
    request.rkey = what.rkey;
    request.signalled = (batch_.size() + 1) % options_.signal_interval == 0 || bytes >= options_.signal_bytes;
    bytes = request.signalled ? 0 : bytes;
    batch_.push_back(request);
  }
  owner.fresh = none;
  if (batch_.empty()) {
    return;
  }
  const post_result result = owner.pair->post(batch_);
  statistics_.engine.doorbells += result.posted == 0 ? 0 : 1;
  if (messages != 0) {
    messages_posted(owner, index, static_cast<std::uint32_t>(std::min(messages, result.posted)));
  }
  if (result.posted < batch_.size()) {
    // Only a device in trouble does that, since the room was there.
    for (std::size_t position = std::max(messages, result.posted); position < batch_.size(); ++position) {
      ended(static_cast<std::uint32_t>(batch_[position].id), completion_status::flushed, out);
    }
    fail(index, out);
  }
}

void rc_scheduler::run(std::uint64_t now_ns, std::vector<outcome>& out) {
  now_ns_ = std::max(now_ns_, now_ns);
  take_reports(out);
  expire(out);
  fill(out);
  for (const std::uint32_t index : in_batch_) {
    ring(index, out);
  }
  in_batch_.clear();
  finish_those_done(out);
}

void rc_scheduler::close(std::vector<outcome>& out) {
  take_reports(out);
  for (std::uint32_t index = 0; index < clients_.size(); ++index) {
    destroy_with_posted(index, out);
    if (clients_[index].state != session::free) {
      drop_queue(index, transfer_result::retryable, out);
      clients_[index].state = session::ending;
      finish(index, out);
    }
  }
  done_.clear();
}

std::uint64_t rc_scheduler::next_ns() const noexcept {
  std::uint64_t next = wheel_.empty() ? ~std::uint64_t{0} : wheel_.next_tick_ns();
  if (!message_wheel_.empty()) {
    next = std::min(next, message_wheel_.next_tick_ns());
  }
  if (draining_.first != none) {
    next = std::min(next, clients_[draining_.first].since_ns + options_.drain_ns_max);
  }
  return failing_.empty() ? next : now_ns_;
}

} // namespace memkv::verbs
