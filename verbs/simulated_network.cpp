#include "verbs/simulated_parts.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::verbs {
namespace detail {

std::uint64_t simulated_random::next() noexcept {
  std::uint64_t mixed = (state += 0x9E3779B97F4A7C15ULL);
  mixed = (mixed ^ (mixed >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94D049BB133111EBULL;
  return mixed ^ (mixed >> 31U);
}

namespace {

bool covers(const region_record& region, std::uint64_t address, std::uint64_t length) noexcept {
  return address >= region.address && length <= region.length &&
         address - region.address <= region.length - length;
}

std::byte* memory(std::uint64_t address) noexcept {
  return reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address));
}

const region_record* find(const std::unordered_map<std::uint32_t, region_record>& regions, std::uint32_t key,
                          std::uint64_t address, std::uint64_t length) noexcept {
  const auto found = regions.find(key);
  return found != regions.end() && covers(found->second, address, length) ? &found->second : nullptr;
}

bool same_peer(const dc_address& left, const dc_address& right) noexcept {
  return left.handle == right.handle && left.target_number == right.target_number && left.key == right.key;
}

} // namespace

void simulated_core::schedule(simulated_event::what kind, const simulated_pair& pair, std::uint64_t time_ns,
                              std::uint64_t serial) {
  events.push({time_ns, ++order, kind, pair.number, pair.epoch, serial});
}

void simulated_core::queue_pair_added() {
  statistics.queue_pairs_peak = std::max(statistics.queue_pairs_peak, ++statistics.queue_pairs);
}

void simulated_core::happen(const simulated_event& event) {
  now_ns = std::max(now_ns, event.time_ns);
  const auto found = pairs.find(event.pair);
  if (found == pairs.end() || !found->second->node->alive) {
    return;
  }
  simulated_pair& pair = *found->second;
  switch (event.kind) {
  case simulated_event::what::first_half:
    if (event.epoch == pair.epoch) {
      first_half(pair, event.serial);
    }
    break;
  case simulated_event::what::finish:
    if (event.epoch == pair.epoch) {
      finish(pair, event.serial);
    }
    break;
  case simulated_event::what::deliver:
    deliver(pair, event.serial);
    break;
  case simulated_event::what::deliver_receive:
    deliver_receive(pair);
    break;
  }
}

void simulated_core::pump(simulated_pair& pair) {
  while (pair.state == queue_pair_state::ready && pair.started < pair.posted.size()) {
    simulated_request& next = pair.posted[pair.started];
    const bool read = next.request.kind == operation::read;
    if (read && pair.reads_in_flight >= pair.reads_max) {
      return;
    }
    std::uint64_t begin_ns = now_ns;
    if (pair.dc && !same_peer(next.target, pair.current)) {
      if (pair.started > 0) {
        return; // one peer at a time
      }
      pair.current = next.target;
      ++statistics.peer_changes;
      begin_ns += options.latency_ns_max;
    }
    next.started = true;
    ++pair.started;
    pair.reads_in_flight += read ? 1 : 0;
    const std::uint64_t half_ns = begin_ns + 1 + random.up_to(options.latency_ns_max);
    pair.finish_ns = std::max(pair.finish_ns, half_ns) + 1 + random.up_to(options.latency_ns_max) +
                     next.length * options.byte_ns_per_kib / 1024;
    schedule(simulated_event::what::first_half, pair, half_ns, next.serial);
    schedule(simulated_event::what::finish, pair, pair.finish_ns, next.serial);
  }
}

void simulated_core::first_half(simulated_pair& pair, std::uint64_t serial) {
  if (pair.posted.empty() || serial < pair.posted.front().serial) {
    return;
  }
  simulated_request& request = pair.posted[serial - pair.posted.front().serial];
  if (request.request.kind != operation::send) {
    request.first_half = move(pair, request, 0, request.length / 2);
  }
}

void simulated_core::finish(simulated_pair& pair, std::uint64_t serial) {
  if (pair.posted.empty() || serial < pair.posted.front().serial) {
    return;
  }
  pair.posted[serial - pair.posted.front().serial].arrived = true;
  while (!pair.posted.empty() && pair.posted.front().arrived) {
    if (!end_front(pair)) {
      return;
    }
  }
  pump(pair);
}

bool simulated_core::end_front(simulated_pair& pair) {
  simulated_request& front = pair.posted.front();
  completion_status status = front.first_half;
  bool forced = true;
  if (pair.injected != completion_status::success && pair.injected_after-- == 0) {
    status = pair.injected;
    pair.injected = completion_status::success;
    ++statistics.faults;
  } else if (options.faults_per_million != 0 && random.next() % 1'000'000 < options.faults_per_million) {
    status = errors()[random.next() % errors().size()];
    ++statistics.faults;
  } else {
    forced = false;
    if (front.request.kind == operation::send) {
      status = send(pair, front);
    } else if (front.retried || status == completion_status::success) {
      status = move(pair, front, front.retried ? 0 : front.length / 2, front.length);
    }
  }
  if (!forced && status == completion_status::retry_exceeded && !front.retried) {
    front.retried = true;
    front.arrived = false;
    schedule(simulated_event::what::finish, pair, now_ns + options.retry_ns, front.serial);
    return false;
  }
  if (!forced && status == completion_status::receiver_retry_exceeded &&
      (pair.node->options.receiver_retries >= 7 || front.attempts < pair.node->options.receiver_retries)) {
    ++front.attempts;
    front.arrived = false;
    schedule(simulated_event::what::finish, pair, now_ns + options.receiver_wait_ns, front.serial);
    return false;
  }
  pair.reads_in_flight -= front.request.kind == operation::read ? 1 : 0;
  --pair.started;
  simulated_request ended = std::move(front);
  pair.posted.pop_front();
  const bool failed = status != completion_status::success;
  statistics.bytes += failed ? 0 : ended.length;
  add_report(pair, std::move(ended), status, false);
  if (failed) {
    to_error(pair);
  }
  return true;
}

void simulated_core::to_error(simulated_pair& pair) {
  if (pair.state == queue_pair_state::error) {
    return;
  }
  pair.state = queue_pair_state::error;
  ++pair.epoch;
  pair.started = 0;
  pair.reads_in_flight = 0;
  while (!pair.posted.empty()) {
    simulated_request request = std::move(pair.posted.front());
    pair.posted.pop_front();
    add_report(pair, std::move(request), completion_status::flushed, true);
  }
  while (!pair.receives.empty()) {
    add_receive_report(pair, pair.receives.front(), completion_status::flushed, 0);
    pair.receives.pop_front();
  }
}

void simulated_core::add_report(simulated_pair& pair, simulated_request&& request, completion_status status,
                                bool flushed) {
  simulated_report one;
  one.what = {request.request.id, pair.number, request.request.kind, status, 0, 0};
  one.serial = request.serial;
  one.late =
      flushed && request.started && request.request.kind != operation::send && (random.next() & 1U) == 0;
  const bool seen = request.request.signalled || status != completion_status::success;
  one.request = std::move(request);
  const std::uint64_t serial = one.serial;
  pair.reporting.push_back(std::move(one));
  if (seen) {
    ++statistics.completions;
    pair.delivery_ns = std::max(pair.delivery_ns, now_ns + random.up_to(options.completion_delay_ns_max));
    schedule(simulated_event::what::deliver, pair, pair.delivery_ns, serial);
  }
}

void simulated_core::add_receive_report(simulated_pair& pair, const receive_request& request,
                                        completion_status status, std::uint32_t bytes) {
  pair.receive_reporting.push_back({request.id, pair.number, operation::receive, status, bytes, 0});
  ++statistics.completions;
  pair.receive_delivery_ns =
      std::max(pair.receive_delivery_ns, now_ns + random.up_to(options.completion_delay_ns_max));
  schedule(simulated_event::what::deliver_receive, pair, pair.receive_delivery_ns, 0);
}

void simulated_core::deliver(simulated_pair& pair, std::uint64_t serial) {
  if (pair.silent) {
    return;
  }
  while (!pair.reporting.empty() && pair.reporting.front().serial <= serial) {
    const simulated_report& one = pair.reporting.front();
    if (one.late) {
      ++statistics.late_effects;
      static_cast<void>(move(pair, one.request, 0, one.request.length));
    }
    pair.completions->push(one.what);
    pair.reporting.pop_front();
  }
}

void simulated_core::deliver_receive(simulated_pair& pair) {
  if (pair.silent || pair.receive_reporting.empty()) {
    return;
  }
  pair.completions->push(pair.receive_reporting.front());
  pair.receive_reporting.pop_front();
}

simulated_node* simulated_core::far_end(const simulated_pair& pair, const simulated_request& request,
                                        simulated_pair** far_pair) {
  simulated_node* node = nullptr;
  std::uint32_t mtu_bytes = pair.node->chosen.mtu_bytes;
  if (pair.dc) {
    const auto target = targets.find(request.target.target_number);
    if (target == targets.end() || target->second.key != request.target.key ||
        target->second.node->id != request.handle_node) {
      return nullptr;
    }
    node = target->second.node;
  } else {
    const auto found = pairs.find(pair.peer.queue_pair_number);
    if (found == pairs.end()) {
      return nullptr;
    }
    simulated_pair& far = *found->second;
    if (far.dc || far.state != queue_pair_state::ready || far.peer.queue_pair_number != pair.number ||
        far.peer.packet_number != pair.self.packet_number ||
        far.self.packet_number != pair.peer.packet_number) {
      return nullptr;
    }
    *far_pair = &far;
    node = far.node;
    mtu_bytes = pair.mtu_bytes;
  }
  const bool fits = mtu_bytes <= pair.node->options.mtu_bytes && mtu_bytes <= node->options.mtu_bytes;
  return node->alive && node->reachable && pair.node->reachable && fits ? node : nullptr;
}

completion_status simulated_core::move(simulated_pair& pair, const simulated_request& request,
                                       std::uint64_t begin, std::uint64_t end) {
  simulated_pair* far_pair = nullptr;
  simulated_node* far = far_end(pair, request, &far_pair);
  if (far == nullptr) {
    return completion_status::retry_exceeded;
  }
  const bool read = request.request.kind == operation::read;
  const region_record* region =
      find(far->by_rkey, request.request.rkey, request.request.remote_address, request.length);
  if (request.length != 0 && (region == nullptr || !(read ? region->access.read : region->access.write))) {
    if (far_pair != nullptr) {
      to_error(*far_pair); // an RC responder that refuses goes to the error state as well
    }
    return completion_status::remote_access;
  }
  std::uint64_t offset = 0;
  for (std::uint32_t index = 0; index < request.segments; ++index) {
    const local_range& local = request.local[index];
    const bool copied = !request.inlined.empty();
    if (!copied && find(pair.node->by_lkey, local.lkey, local.address, local.length) == nullptr) {
      return completion_status::local_protection;
    }
    const std::uint64_t from = std::max(begin, offset);
    const std::uint64_t until = std::min<std::uint64_t>(end, offset + local.length);
    if (from < until) {
      std::byte* near = copied ? const_cast<std::byte*>(request.inlined.data()) + from
                               : memory(local.address) + (from - offset);
      std::byte* there = memory(request.request.remote_address) + from;
      std::memcpy(read ? near : there, read ? there : near, until - from);
    }
    offset += local.length;
  }
  return completion_status::success;
}

completion_status simulated_core::send(simulated_pair& pair, const simulated_request& request) {
  simulated_pair* far = nullptr;
  if (far_end(pair, request, &far) == nullptr) {
    return completion_status::retry_exceeded;
  }
  if (far == nullptr) {
    return completion_status::remote_invalid_request; // DC targets take no messages
  }
  for (std::uint32_t index = 0; request.inlined.empty() && index < request.segments; ++index) {
    const local_range& local = request.local[index];
    if (find(pair.node->by_lkey, local.lkey, local.address, local.length) == nullptr) {
      return completion_status::local_protection;
    }
  }
  if (far->receives.empty()) {
    return completion_status::receiver_retry_exceeded;
  }
  const receive_request receive = far->receives.front();
  const bool valid =
      find(far->node->by_lkey, receive.local.lkey, receive.local.address, receive.local.length) != nullptr;
  if (!valid || request.length > receive.local.length) {
    far->receives.pop_front();
    add_receive_report(*far, receive,
                       valid ? completion_status::local_length : completion_status::local_protection, 0);
    to_error(*far);
    return valid ? completion_status::remote_invalid_request : completion_status::remote_operation;
  }
  far->receives.pop_front();
  std::uint64_t offset = 0;
  for (std::uint32_t index = 0; index < request.segments; ++index) {
    const local_range& local = request.local[index];
    const std::byte* from = request.inlined.empty() ? memory(local.address) : request.inlined.data() + offset;
    std::copy_n(from, local.length, memory(receive.local.address) + offset);
    offset += local.length;
  }
  add_receive_report(*far, receive, completion_status::success, static_cast<std::uint32_t>(offset));
  return completion_status::success;
}

bool simulated_core::in_use(std::uint64_t address, std::uint64_t length, const simulated_node& of) {
  const auto overlaps = [&](const local_range& local) {
    return local.address < address + length && address < local.address + local.length;
  };
  const auto any = [&](const simulated_request& request) {
    return request.inlined.empty() &&
           std::any_of(request.local.begin(), request.local.begin() + request.segments, overlaps);
  };
  return of.alive && std::any_of(of.pairs.begin(), of.pairs.end(), [&](const simulated_pair* pair) {
           return std::any_of(pair->posted.begin(), pair->posted.end(), any) ||
                  std::any_of(pair->reporting.begin(), pair->reporting.end(),
                              [&](const auto& one) { return any(one.request); }) ||
                  std::any_of(pair->receives.begin(), pair->receives.end(),
                              [&](const auto& one) { return overlaps(one.local); });
         });
}

bool simulated_core::names(const simulated_handle* handle) {
  const auto any = [&](const simulated_request& request) { return request.target.handle == handle; };
  return std::any_of(handle->owner->pairs.begin(), handle->owner->pairs.end(),
                     [&](const simulated_pair* pair) {
                       return std::any_of(pair->posted.begin(), pair->posted.end(), any) ||
                              std::any_of(pair->reporting.begin(), pair->reporting.end(),
                                          [&](const auto& one) { return any(one.request); });
                     });
}

} // namespace detail

simulated_network::simulated_network(const simulated_network_options& options)
    : core_(std::make_unique<detail::simulated_core>()) {
  core_->options = options;
  core_->random.state = options.seed;
}

simulated_network::~simulated_network() {
  MEMKV_ASSERT(core_->nodes.empty(), "a simulated network outlives its fabrics");
}

std::uint64_t simulated_network::now_ns() const noexcept {
  return core_->now_ns;
}

bool simulated_network::step() {
  if (core_->events.empty()) {
    return false;
  }
  const detail::simulated_event event = core_->events.top();
  core_->events.pop();
  core_->happen(event);
  return true;
}

void simulated_network::advance(std::uint64_t ns) {
  const std::uint64_t until_ns = core_->now_ns + ns;
  while (!core_->events.empty() && core_->events.top().time_ns <= until_ns) {
    step();
  }
  core_->now_ns = until_ns;
}

void simulated_network::settle() {
  while (step()) {
  }
}

void simulated_network::inject(std::uint32_t queue_pair, completion_status status, std::uint32_t after) {
  const auto found = core_->pairs.find(queue_pair);
  MEMKV_ASSERT(found != core_->pairs.end(), "an injected status is for a queue pair that exists");
  found->second->injected = status;
  found->second->injected_after = after;
}

void simulated_network::set_faults_per_million(std::uint32_t rate) {
  core_->options.faults_per_million = rate;
}

void simulated_network::kill(fabric& node) {
  static_cast<detail::simulated_node&>(node).alive = false;
}

void simulated_network::set_reachable(fabric& node, bool reachable) {
  static_cast<detail::simulated_node&>(node).reachable = reachable;
}

void simulated_network::set_way_taking(std::function<void(const endpoint&)> wait) {
  core_->way_taking = std::move(wait);
}

void simulated_network::withhold_reports(std::uint32_t queue_pair) {
  const auto found = core_->pairs.find(queue_pair);
  MEMKV_ASSERT(found != core_->pairs.end(), "reports are withheld from a queue pair that exists");
  found->second->silent = true;
}

bool simulated_network::in_use(const void* address, std::uint64_t length) const {
  return std::any_of(core_->nodes.begin(), core_->nodes.end(), [&](const auto& entry) {
    return detail::simulated_core::in_use(reinterpret_cast<std::uintptr_t>(address), length, *entry.second);
  });
}

const std::vector<std::string>& simulated_network::misuse() const noexcept {
  return core_->misuse;
}

const simulated_statistics& simulated_network::statistics() const noexcept {
  return core_->statistics;
}

} // namespace memkv::verbs
