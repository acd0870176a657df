#include "verbs/simulated_parts.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <sys/eventfd.h>
#include <unistd.h>

namespace memkv::verbs {
namespace detail {
namespace {

status error(errc code, std::string text) {
  return {code, std::move(text)};
}

class simulated_region final : public memory_region {
public:
  simulated_region(simulated_node* node, const region_record& record, std::uint32_t lkey, std::uint32_t rkey)
      : node_(node), record_(record), lkey_(lkey), rkey_(rkey) {
    node_->by_lkey.emplace(lkey_, record_);
    node_->by_rkey.emplace(rkey_, record_);
    ++node_->objects;
  }
  ~simulated_region() override {
    node_->by_lkey.erase(lkey_);
    node_->by_rkey.erase(rkey_);
    --node_->objects;
    if (simulated_core::in_use(record_.address, record_.length, *node_)) {
      node_->core->misuse.emplace_back("a memory region was destroyed while requests named it");
    }
  }
  std::uint64_t address() const noexcept override { return record_.address; }
  std::uint64_t length() const noexcept override { return record_.length; }
  std::uint32_t lkey() const noexcept override { return lkey_; }
  std::uint32_t rkey() const noexcept override { return rkey_; }

private:
  simulated_node* node_;
  region_record record_;
  std::uint32_t lkey_;
  std::uint32_t rkey_;
};

class simulated_dc_target final : public dc_target {
public:
  simulated_dc_target(simulated_node* node, std::uint64_t key) : node_(node), key_(key) {
    number_ = ++node_->core->number_last;
    node_->core->targets.emplace(number_, simulated_target{node_, key_});
    node_->core->queue_pair_added();
    ++node_->objects;
  }
  ~simulated_dc_target() override {
    node_->core->targets.erase(number_);
    --node_->core->statistics.queue_pairs;
    --node_->objects;
  }
  std::uint32_t number() const noexcept override { return number_; }
  std::uint64_t key() const noexcept override { return key_; }

private:
  simulated_node* node_;
  std::uint64_t key_;
  std::uint32_t number_ = 0;
};

/// What both kinds of queue pairs do alike. `base` is rc_queue_pair or dc_initiator.
template <class base>
class simulated_queue_pair : public base {
public:
  simulated_queue_pair(simulated_node* node, const queue_pair_options& options, bool dc) {
    pair_.node = node;
    pair_.number = ++node->core->number_last;
    pair_.dc = dc;
    pair_.options = options;
    pair_.completions = static_cast<simulated_completions*>(options.completions);
    pair_.completions->reserved += options.sends_max + options.receives_max;
    ++pair_.completions->pairs;
    pair_.reads_max = std::min(options.reads_max, node->device.reads_max);
    node->core->pairs.emplace(pair_.number, &pair_);
    node->core->queue_pair_added();
    node->pairs.push_back(&pair_);
    ++node->objects;
  }
  ~simulated_queue_pair() override {
    pair_.completions->reserved -= pair_.options.sends_max + pair_.options.receives_max;
    --pair_.completions->pairs;
    std::erase_if(pair_.completions->reports,
                  [this](const report& one) { return one.queue_pair == pair_.number; });
    core().pairs.erase(pair_.number);
    std::erase(pair_.node->pairs, &pair_);
    --core().statistics.queue_pairs;
    --pair_.node->objects;
  }
  std::uint32_t number() const noexcept override { return pair_.number; }
  queue_pair_state state() const noexcept override { return pair_.state; }
  std::uint32_t outstanding() const noexcept override {
    return pair_.sends_outstanding + pair_.receives_outstanding;
  }
  std::uint32_t sends_free() const noexcept override {
    return pair_.options.sends_max - pair_.sends_outstanding;
  }

  post_result post(std::span<const work_request> batch) noexcept override {
    if (!pair_.node->alive) {
      return {error(errc::device_failed, "The device is gone."), 0};
    }
    if (pair_.state == queue_pair_state::initial) {
      return {error(errc::wrong_state, "The queue pair is not connected."), 0};
    }
    if (batch.size() > sends_free()) {
      return {error(errc::queue_full, "The send queue has no room for the batch."), 0};
    }
    for (const work_request& request : batch) {
      if (status refused = check(request); !refused.ok()) {
        return {std::move(refused), 0};
      }
    }
    for (const work_request& request : batch) {
      take(request, &request == &batch.back());
    }
    core().statistics.doorbells += batch.empty() ? 0 : 1;
    if (pair_.state == queue_pair_state::error) {
      flush_late_comers();
    }
    core().pump(pair_);
    return {{}, batch.size()};
  }

  void fail() noexcept override {
    if (pair_.state == queue_pair_state::initial) {
      pair_.state = queue_pair_state::ready; // so that receives are flushed as well
    }
    core().to_error(pair_);
  }

protected:
  simulated_core& core() noexcept { return *pair_.node->core; }

  status drained() {
    if (!pair_.node->alive) {
      return error(errc::device_failed, "The device is gone.");
    }
    if (outstanding() != 0) {
      core().misuse.emplace_back("a queue pair was to leave the error state with requests not reported");
      return error(errc::wrong_state, "Not everything that was posted has been reported.");
    }
    return {};
  }

  simulated_pair pair_;

private:
  status check(const work_request& request) {
    std::uint64_t length = 0;
    for (const local_range& local : request.local) {
      length += local.length;
    }
    if (request.kind == operation::receive) {
      return error(errc::invalid_argument, "Receives are posted by post_receives.");
    }
    if (request.local.size() > pair_.options.segments_max) {
      return error(errc::invalid_argument, "The request has more local ranges than the queue pair takes.");
    }
    if (length > pair_.node->device.transfer_bytes_max) {
      return error(errc::invalid_argument, "The request is longer than the device takes.");
    }
    if (request.inlined && (request.kind == operation::read || length > pair_.options.inline_bytes_max)) {
      return error(errc::invalid_argument, "The request cannot be posted inline.");
    }
    if (!pair_.dc) {
      return request.target == nullptr
                 ? status{}
                 : error(errc::invalid_argument, "A request on an RC queue pair names no target.");
    }
    if (request.target == nullptr || request.target->handle == nullptr) {
      return error(errc::invalid_argument, "A request on a DC initiator names its target.");
    }
    if (static_cast<const simulated_handle*>(request.target->handle)->owner != pair_.node) {
      return error(errc::invalid_argument, "The address handle was made by another fabric.");
    }
    return {};
  }

  void take(const work_request& request, bool last) {
    simulated_request taken;
    taken.request = request;
    taken.request.local = {};
    taken.request.target = nullptr;
    taken.request.signalled = request.signalled || last;
    for (const local_range& local : request.local) {
      taken.local[taken.segments++] = local;
      taken.length += local.length;
      if (request.inlined) {
        const auto* from = reinterpret_cast<const std::byte*>(static_cast<std::uintptr_t>(local.address));
        taken.inlined.insert(taken.inlined.end(), from, from + local.length);
      }
    }
    if (request.target != nullptr) {
      taken.target = *request.target;
      taken.handle_node = static_cast<const simulated_handle*>(request.target->handle)->node;
    }
    taken.serial = ++pair_.serial;
    pair_.posted.push_back(std::move(taken));
    ++pair_.sends_outstanding;
    ++core().statistics.requests;
  }

  void flush_late_comers() {
    while (!pair_.posted.empty()) {
      simulated_request request = std::move(pair_.posted.front());
      pair_.posted.pop_front();
      core().add_report(pair_, std::move(request), completion_status::flushed, true);
    }
  }
};

class simulated_rc final : public simulated_queue_pair<rc_queue_pair> {
public:
  simulated_rc(simulated_node* node, const queue_pair_options& options)
      : simulated_queue_pair<rc_queue_pair>(node, options, false) {
    renew();
  }
  rc_address address() const noexcept override { return pair_.self; }

  status start_connect(const rc_address& peer, std::unique_ptr<slow_step>& out) noexcept override {
    if (!pair_.node->alive) {
      return error(errc::device_failed, "The device is gone.");
    }
    if (pair_.state != queue_pair_state::initial) {
      return error(errc::wrong_state, "The queue pair is connected, or has to be reset.");
    }
    if (peer.mtu_bytes < 256 || peer.mtu_bytes > 4096 || (peer.mtu_bytes & (peer.mtu_bytes - 1)) != 0) {
      return error(errc::invalid_argument, "The peer's path MTU is none of 256, 512, 1024, 2048 and 4096.");
    }
    auto made = std::make_unique<simulated_way>();
    made->wait = core().way_taking;
    made->peer = peer;
    out = std::move(made);
    return {};
  }

  status finish_connect(slow_step& step) noexcept override {
    if (!pair_.node->alive) {
      return error(errc::device_failed, "The device is gone.");
    }
    if (pair_.state != queue_pair_state::initial) {
      return error(errc::wrong_state, "The queue pair is connected, or has to be reset.");
    }
    const rc_address& peer = static_cast<simulated_way&>(step).peer;
    pair_.peer = peer;
    pair_.mtu_bytes = std::min(peer.mtu_bytes, pair_.self.mtu_bytes);
    pair_.reads_max =
        std::min({pair_.options.reads_max, pair_.node->device.reads_max, peer.reads_served_max});
    pair_.state = queue_pair_state::ready;
    return {};
  }

  post_result post_receives(std::span<const receive_request> batch) noexcept override {
    if (!pair_.node->alive) {
      return {error(errc::device_failed, "The device is gone."), 0};
    }
    if (batch.size() > pair_.options.receives_max - pair_.receives_outstanding) {
      return {error(errc::queue_full, "The receive queue has no room for the batch."), 0};
    }
    for (const receive_request& request : batch) {
      ++pair_.receives_outstanding;
      if (pair_.state == queue_pair_state::error) {
        core().add_receive_report(pair_, request, completion_status::flushed, 0);
      } else {
        pair_.receives.push_back(request);
      }
    }
    return {{}, batch.size()};
  }

  status reset() noexcept override {
    if (status refused = drained(); !refused.ok()) {
      return refused;
    }
    ++pair_.epoch;
    pair_.state = queue_pair_state::initial;
    pair_.peer = {};
    renew();
    return {};
  }

private:
  void renew() {
    pair_.self.port = pair_.node->self();
    pair_.self.queue_pair_number = pair_.number;
    pair_.self.packet_number = static_cast<std::uint32_t>(core().random.next() & 0xFFFFFFU);
    pair_.self.mtu_bytes = pair_.node->chosen.mtu_bytes;
    pair_.self.reads_served_max = pair_.node->device.reads_served_max;
  }
};

class simulated_initiator final : public simulated_queue_pair<dc_initiator> {
public:
  simulated_initiator(simulated_node* node, const queue_pair_options& options)
      : simulated_queue_pair<dc_initiator>(node, options, true) {
    pair_.state = queue_pair_state::ready;
  }
  status recover() noexcept override {
    if (status refused = drained(); !refused.ok()) {
      return refused;
    }
    if (pair_.state != queue_pair_state::error) {
      return error(errc::wrong_state, "The initiator is not in the error state.");
    }
    ++pair_.epoch;
    pair_.state = queue_pair_state::ready;
    pair_.current = {};
    return {};
  }
};

} // namespace

simulated_handle::~simulated_handle() {
  if (owner->alive && simulated_core::names(this)) {
    owner->core->misuse.emplace_back("an address handle was destroyed while requests named it");
  }
  --owner->objects;
}

simulated_completions::~simulated_completions() {
  MEMKV_ASSERT(pairs == 0, "queue pairs are destroyed before their completion queue");
  ::close(descriptor);
  --node->objects;
}

std::size_t simulated_completions::poll(std::span<report> out) noexcept {
  std::size_t count = 0;
  while (count < out.size() && !reports.empty()) {
    out[count] = reports.front();
    reports.pop_front();
    simulated_pair& pair = *node->core->pairs.at(out[count].queue_pair);
    --(out[count].kind == operation::receive ? pair.receives_outstanding : pair.sends_outstanding);
    ++count;
  }
  return count;
}

status simulated_completions::arm() noexcept {
  armed = true;
  return {};
}

void simulated_completions::acknowledge() noexcept {
  eventfd_t count = 0;
  static_cast<void>(::eventfd_read(descriptor, &count));
}

void simulated_completions::push(const report& one) {
  MEMKV_ASSERT(reports.size() < reports_max, "a completion queue has room for all that is outstanding");
  reports.push_back(one);
  if (armed) {
    armed = false;
    static_cast<void>(::eventfd_write(descriptor, 1));
  }
}

simulated_node::~simulated_node() {
  MEMKV_ASSERT(objects == 0, "what a fabric made is destroyed before it");
  core->nodes.erase(id);
}

endpoint simulated_node::self() const noexcept {
  endpoint port;
  for (unsigned index = 0; index < 8; ++index) {
    port.port_gid[15 - index] = static_cast<std::uint8_t>(id >> (8 * index));
  }
  return port;
}

status simulated_node::register_memory(std::span<std::byte> range, remote_access access,
                                       std::unique_ptr<memory_region>& out) noexcept {
  if (!alive) {
    return error(errc::device_failed, "The device is gone.");
  }
  if (range.empty()) {
    return error(errc::invalid_argument, "An empty range cannot be registered.");
  }
  const region_record record{reinterpret_cast<std::uintptr_t>(range.data()), range.size(), access};
  const std::uint32_t lkey = ++core->key_last;
  const std::uint32_t rkey = ++core->key_last;
  out = std::make_unique<simulated_region>(this, record, lkey, rkey);
  return {};
}

status simulated_node::register_dma_buf(int /*descriptor*/, std::uint64_t /*offset*/,
                                        std::uint64_t /*length*/, std::uint64_t /*address*/,
                                        remote_access /*access*/,
                                        std::unique_ptr<memory_region>& /*out*/) noexcept {
  return error(errc::unsupported, "The simulated device has no access to other devices' memory.");
}

status simulated_node::create_completion_queue(std::uint32_t reports_max,
                                               std::unique_ptr<completion_queue>& out) noexcept {
  if (reports_max == 0 || reports_max > device.completions_max) {
    return error(errc::invalid_argument, "The device cannot make a completion queue of this size.");
  }
  auto made = std::make_unique<simulated_completions>();
  made->node = this;
  ++objects;
  made->reports_max = reports_max;
  made->descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (made->descriptor < 0) {
    return error(errc::no_resources,
                 "No descriptor is left for a completion queue: raise the limit (ulimit -n).");
  }
  out = std::move(made);
  return {};
}

namespace {

status check_options(const simulated_node& node, const queue_pair_options& options) {
  if (!node.alive) {
    return error(errc::device_failed, "The device is gone.");
  }
  const auto* completions = static_cast<const simulated_completions*>(options.completions);
  if (completions == nullptr || completions->node != &node) {
    return error(errc::invalid_argument, "A queue pair needs a completion queue of its own fabric.");
  }
  if (options.sends_max == 0 || options.sends_max > node.device.sends_max ||
      options.receives_max > node.device.receives_max || options.segments_max == 0 ||
      options.segments_max > node.device.segments_max || options.reads_max == 0 ||
      options.inline_bytes_max > node.device.inline_bytes_max) {
    return error(errc::invalid_argument, "The device cannot make a queue pair of this size.");
  }
  if (options.sends_max + options.receives_max > completions->reports_max - completions->reserved) {
    return error(errc::no_resources, "The completion queue has no room for another queue pair.");
  }
  return {};
}

} // namespace

status simulated_node::create_rc(const queue_pair_options& wanted,
                                 std::unique_ptr<rc_queue_pair>& out) noexcept {
  if (status refused = check_options(*this, wanted); !refused.ok()) {
    return refused;
  }
  out = std::make_unique<simulated_rc>(this, wanted);
  return {};
}

status simulated_node::create_dc_initiator(const queue_pair_options& wanted,
                                           std::unique_ptr<dc_initiator>& out) noexcept {
  if (!device.dc) {
    return error(errc::unsupported, "The device has no DC transport.");
  }
  if (status refused = check_options(*this, wanted); !refused.ok()) {
    return refused;
  }
  if (wanted.receives_max != 0) {
    return error(errc::invalid_argument, "A DC initiator receives nothing.");
  }
  out = std::make_unique<simulated_initiator>(this, wanted);
  return {};
}

status simulated_node::create_dc_target(std::uint64_t key, std::unique_ptr<dc_target>& out) noexcept {
  if (!alive) {
    return error(errc::device_failed, "The device is gone.");
  }
  if (!device.dc) {
    return error(errc::unsupported, "The device has no DC transport.");
  }
  out = std::make_unique<simulated_dc_target>(this, key);
  return {};
}

status simulated_node::start_address_handle(const endpoint& peer, std::unique_ptr<slow_step>& out) noexcept {
  if (!alive) {
    return error(errc::device_failed, "The device is gone.");
  }
  auto made = std::make_unique<simulated_way>();
  made->wait = core->way_taking;
  made->peer.port = peer;
  out = std::move(made);
  return {};
}

status simulated_node::finish_address_handle(slow_step& step, std::unique_ptr<address_handle>& out) noexcept {
  if (!alive) {
    return error(errc::device_failed, "The device is gone.");
  }
  const endpoint& peer = static_cast<simulated_way&>(step).peer.port;
  std::uint64_t node = 0;
  for (unsigned index = 8; index < 16; ++index) {
    node = node << 8U | peer.port_gid[index];
  }
  auto made = std::make_unique<simulated_handle>();
  made->owner = this;
  made->node = node;
  ++objects;
  out = std::move(made);
  return {};
}

fabric_event simulated_node::next_event() noexcept {
  if (alive || removal_told) {
    return fabric_event::none;
  }
  removal_told = true;
  return fabric_event::device_removed;
}

} // namespace detail

std::unique_ptr<fabric> simulated_network::create_node(const simulated_node_options& options) {
  auto made = std::make_unique<detail::simulated_node>();
  made->core = core_.get();
  made->options = options;
  made->id = ++core_->node_last;
  device_facts& facts = made->device;
  facts.name = options.name;
  facts.port_active = true;
  facts.mtu_bytes_active = options.mtu_bytes;
  facts.gids.push_back({0, gid_kind::roce_v2, made->self().port_gid});
  facts.dc = options.dc;
  facts.sends_max = options.sends_max;
  facts.receives_max = options.sends_max;
  facts.segments_max = detail::simulated_segments_max;
  facts.inline_bytes_max = detail::simulated_inline_bytes_max;
  facts.reads_max = options.reads_max;
  facts.reads_served_max = options.reads_max;
  facts.transfer_bytes_max = options.transfer_bytes_max;
  facts.completions_max = options.completions_max;
  made->chosen.mtu_bytes = options.path_mtu_bytes;
  core_->nodes.emplace(made->id, made.get());
  return made;
}

} // namespace memkv::verbs
