#include "verbs/ibverbs_fabric.hpp"

#include "verbs/ibverbs_dc.hpp"
#include "verbs/ibverbs_parts.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <sys/random.h>
#include <unistd.h>
#include <utility>

namespace memkv::verbs {

using namespace detail;

namespace {

class hardware_region final : public memory_region {
public:
  hardware_region(const ibverbs_library& library, ibv_mr* region, std::uint64_t address, std::uint64_t length)
      : library_(library), region_(region), address_(address), length_(length) {}
  ~hardware_region() override {
    const int refused = library_.dereg_mr(region_);
    MEMKV_ASSERT(refused == 0 || refused == EIO || refused == ENODEV, "a memory region can be deregistered");
  }
  std::uint64_t address() const noexcept override { return address_; }
  std::uint64_t length() const noexcept override { return length_; }
  std::uint32_t lkey() const noexcept override { return region_->lkey; }
  std::uint32_t rkey() const noexcept override { return region_->rkey; }

private:
  const ibverbs_library& library_;
  ibv_mr* region_;
  std::uint64_t address_;
  std::uint64_t length_;
};

/// A queue pair on its way to `ready`. The driver lets several threads change queue pairs, each its own; the
/// first change is where the kernel looks for the peer on the network.
class connect_step final : public slow_step {
public:
  explicit connect_step(const ibverbs_library& library, ibv_qp* pair) : library_(library), pair_(pair) {}
  void run() noexcept override {
    to_receive_failed = library_.modify_qp(pair_, &to_receive, to_receive_mask);
    if (to_receive_failed == 0)
      to_send_failed = library_.modify_qp(pair_, &to_send, to_send_mask);
  }

  ibv_qp_attr to_receive{};
  ibv_qp_attr to_send{};
  int to_receive_mask = 0;
  int to_send_mask = 0;
  int to_receive_failed = EINTR; // until run() has tried
  int to_send_failed = EINTR;
  gid peer{};

private:
  const ibverbs_library& library_;
  ibv_qp* pair_;
};

/// The driver lets any thread register memory.
class registration_step final : public slow_step {
public:
  registration_step(const ibverbs_library& library, ibv_pd* domain, std::span<std::byte> range, int access)
      : range(range), library_(library), domain_(domain), access_(access) {}
  ~registration_step() override {
    if (made != nullptr)
      library_.dereg_mr(made);
  }
  void run() noexcept override {
    made = library_.reg_mr(domain_, range.data(), range.size(), access_);
    number = made == nullptr ? errno : 0;
  }

  const std::span<std::byte> range;
  ibv_mr* made = nullptr; // until it is finished
  int number = EINTR;     // until run() has tried

private:
  const ibverbs_library& library_;
  ibv_pd* domain_;
  int access_;
};

class hardware_rc final : public hardware_queue_pair<rc_queue_pair> {
public:
  hardware_rc(hardware& owner, const queue_pair_options& options, ibv_qp* pair)
      : hardware_queue_pair(owner, options, pair), requests_(options.sends_max),
        segments_(std::size_t{options.sends_max} * options.segments_max),
        receive_requests_(options.receives_max), receive_segments_(options.receives_max) {}

  post_result post(std::span<const work_request> batch) noexcept override;
  rc_address address() const noexcept override {
    return {owner_.self(), pair_->qp_num, packet_number_, owner_.chosen.mtu_bytes,
            owner_.device.reads_served_max};
  }
  status start_connect(const rc_address& peer, std::unique_ptr<slow_step>& out) noexcept override;
  status finish_connect(slow_step& step) noexcept override;
  post_result post_receives(std::span<const receive_request> batch) noexcept override;
  status reset() noexcept override;
  /// To the state `initial`, from that of a new or a reset queue pair.
  status initialise() noexcept;

private:
  std::uint32_t packet_number_ = 0;
  std::vector<ibv_send_wr> requests_;
  std::vector<ibv_sge> segments_;
  std::vector<ibv_recv_wr> receive_requests_;
  std::vector<ibv_sge> receive_segments_;
};

// RC queue pairs ---------------------------------------------------------------------------------------

post_result hardware_rc::post(std::span<const work_request> batch) noexcept {
  if (state_ == queue_pair_state::initial) {
    return {{errc::wrong_state, "The queue pair is not connected."}, 0};
  }
  if (batch.empty()) {
    return {};
  }
  if (batch.size() > sends_free()) {
    return {{errc::queue_full, "The send queue has no room for the batch."}, 0};
  }
  for (const work_request& request : batch) {
    if (request.kind == operation::receive || request.target != nullptr) {
      return {{errc::invalid_argument, "An RC queue pair sends, reads and writes, to its own peer."}, 0};
    }
    if (status refused = check(request); !refused.ok()) {
      return {std::move(refused), 0};
    }
  }
  for (std::size_t index = 0; index < batch.size(); ++index) {
    const work_request& from = batch[index];
    ibv_send_wr& to = requests_[index];
    ibv_sge* const segments = segments_.data() + index * options_.segments_max;
    to = {};
    to.wr_id = send_tag(index);
    to.next = index + 1 < batch.size() ? &requests_[index + 1] : nullptr;
    for (std::size_t part = 0; part < from.local.size(); ++part) {
      segments[part] = {from.local[part].address, from.local[part].length, from.local[part].lkey};
    }
    to.sg_list = segments;
    to.num_sge = static_cast<int>(from.local.size());
    to.opcode = from.kind == operation::send   ? IBV_WR_SEND
                : from.kind == operation::read ? IBV_WR_RDMA_READ
                                               : IBV_WR_RDMA_WRITE;
    const bool signalled = from.signalled || index + 1 == batch.size();
    to.send_flags =
        (signalled ? unsigned{IBV_SEND_SIGNALED} : 0U) | (from.inlined ? unsigned{IBV_SEND_INLINE} : 0U);
    to.wr.rdma.remote_addr = from.remote_address;
    to.wr.rdma.rkey = from.rkey;
  }
  ibv_send_wr* bad = nullptr;
  const int number = ::ibv_post_send(pair_, requests_.data(), &bad);
  std::size_t posted = batch.size();
  if (number != 0) {
    posted = bad == nullptr ? 0 : static_cast<std::size_t>(bad - requests_.data());
  }
  sent(batch.first(posted));
  if (number != 0) {
    // What was posted may lack a signalled request at its end; whoever waits for it in vain destroys this.
    return {failed(errc::device_failed, owner_.device.name + " does not take the batch", number), posted};
  }
  return {{}, posted};
}

post_result hardware_rc::post_receives(std::span<const receive_request> batch) noexcept {
  if (batch.empty()) {
    return {};
  }
  if (batch.size() > options_.receives_max - receives_out_) {
    return {{errc::queue_full, "The receive queue has no room for the batch."}, 0};
  }
  for (std::size_t index = 0; index < batch.size(); ++index) {
    const local_range& local = batch[index].local;
    receive_segments_[index] = {local.address, local.length, local.lkey};
    receive_requests_[index] = {};
    receive_requests_[index].wr_id =
        tag_ | receive_bit | static_cast<std::uint32_t>(receives_.next() + index);
    receive_requests_[index].next = index + 1 < batch.size() ? &receive_requests_[index + 1] : nullptr;
    receive_requests_[index].sg_list = &receive_segments_[index];
    receive_requests_[index].num_sge = 1;
  }
  ibv_recv_wr* bad = nullptr;
  const int number = ::ibv_post_recv(pair_, receive_requests_.data(), &bad);
  std::size_t posted = batch.size();
  if (number != 0) {
    posted = bad == nullptr ? 0 : static_cast<std::size_t>(bad - receive_requests_.data());
  }
  for (std::size_t index = 0; index < posted; ++index) {
    receives_.add(batch[index].id, operation::receive);
  }
  receives_out_ += static_cast<std::uint32_t>(posted);
  if (number != 0) {
    return {failed(errc::device_failed, owner_.device.name + " does not take the receives", number), posted};
  }
  return {{}, posted};
}

status hardware_rc::initialise() noexcept {
  std::uint32_t drawn = 0;
  if (::getrandom(&drawn, sizeof drawn, 0) != sizeof drawn) {
    return failed(errc::no_resources, "The system gives no random numbers", errno);
  }
  packet_number_ = drawn & 0xFFFFFFU; // not to be guessed: packets are accepted by it
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = owner_.device.port;
  attributes.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
  const int number = owner_.library.modify_qp(
      pair_, &attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (number != 0) {
    return failed(errc::device_failed, "A queue pair of " + owner_.device.name + " cannot be initialised",
                  number);
  }
  state_ = queue_pair_state::initial;
  return {};
}

status hardware_rc::start_connect(const rc_address& peer, std::unique_ptr<slow_step>& out) noexcept {
  if (state_ != queue_pair_state::initial) {
    return {errc::wrong_state, "The queue pair is connected, or has to be reset."};
  }
  if (peer.mtu_bytes < 256 || peer.mtu_bytes > 4096 || !std::has_single_bit(peer.mtu_bytes) ||
      peer.queue_pair_number > 0xFFFFFF || peer.packet_number > 0xFFFFFF) {
    return {errc::invalid_argument, "The peer's address is none: MTU or a number is out of range."};
  }
  const path_options& path = owner_.chosen;
  auto made = std::make_unique<connect_step>(owner_.library, pair_);
  made->peer = peer.port.port_gid;
  made->to_receive.qp_state = IBV_QPS_RTR;
  made->to_receive.path_mtu = mtu_of(std::min(peer.mtu_bytes, path.mtu_bytes));
  made->to_receive.dest_qp_num = peer.queue_pair_number;
  made->to_receive.rq_psn = peer.packet_number;
  made->to_receive.max_dest_rd_atomic =
      static_cast<std::uint8_t>(std::min(owner_.device.reads_served_max, 255U));
  made->to_receive.min_rnr_timer = receiver_wait;
  made->to_receive.ah_attr = owner_.way_to(peer.port);
  made->to_receive_mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  made->to_send.qp_state = IBV_QPS_RTS;
  made->to_send.timeout = timeout_of(path.retry_ms);
  made->to_send.retry_cnt = retries;
  made->to_send.rnr_retry = std::min<std::uint8_t>(path.receiver_retries, 7);
  made->to_send.sq_psn = packet_number_;
  made->to_send.max_rd_atomic =
      static_cast<std::uint8_t>(std::min<std::uint32_t>(owner_.reads_of(options_), peer.reads_served_max));
  made->to_send_mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                       IBV_QP_MAX_QP_RD_ATOMIC;
  out = std::move(made);
  return {};
}

status hardware_rc::finish_connect(slow_step& step) noexcept {
  const auto& done = static_cast<connect_step&>(step);
  if (done.to_receive_failed != 0) {
    return failed(errc::device_failed,
                  owner_.device.name + " finds no path to the peer " + to_text(done.peer),
                  done.to_receive_failed);
  }
  if (done.to_send_failed != 0) {
    state_ = queue_pair_state::error; // it left `initial`, and only a reset brings it back
    return failed(errc::device_failed, "A queue pair of " + owner_.device.name + " cannot be made ready",
                  done.to_send_failed);
  }
  // What was flushed meanwhile took it to the error state.
  if (state_ == queue_pair_state::initial) {
    state_ = queue_pair_state::ready;
  }
  return {};
}

status hardware_rc::reset() noexcept {
  if (outstanding() != 0) {
    return {errc::wrong_state, "Not everything that was posted has been reported."};
  }
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RESET;
  const int number = owner_.library.modify_qp(pair_, &attributes, IBV_QP_STATE);
  if (number != 0) {
    return failed(errc::device_failed, "A queue pair of " + owner_.device.name + " cannot be reset", number);
  }
  state_ = queue_pair_state::error; // in case the next step fails
  return initialise();
}

} // namespace

// The fabric -------------------------------------------------------------------------------------------

hardware::~hardware() {
  if (domain != nullptr) {
    library.dealloc_pd(domain);
  }
  library.close_device(context);
}

void hardware::destroy(ibv_qp* pair) noexcept {
  // A device that is gone touches nothing, and its driver may say so.
  const auto is_over = [](int refused) { return refused == 0 || refused == EIO || refused == ENODEV; };
  if (is_over(library.destroy_qp(pair))) {
    return;
  }
  // One that was reset carries nothing out, and is destroyed now or with the device.
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RESET;
  const bool stopped = is_over(library.modify_qp(pair, &attributes, IBV_QP_STATE));
  if (!is_over(library.destroy_qp(pair)) && !stopped) {
    ++left;
  }
}

status hardware::start() {
  domain = library.alloc_pd(context);
  if (domain == nullptr) {
    return failed(errc::no_resources, device.name + " gives no protection domain", errno);
  }
  if (!set_nonblocking(context->async_fd)) {
    return failed(errc::no_resources, "The events of " + device.name + " cannot be read", errno);
  }
  if (context->device != nullptr && ::access(context->device->dev_path, F_OK) == 0) {
    sysfs_path = context->device->dev_path;
  }
  return {};
}

endpoint hardware::self() const noexcept {
  endpoint port;
  port.lid = device.lid;
  for (const gid_entry& one : device.gids) {
    if (one.index == chosen.gid_index) {
      port.port_gid = one.value;
    }
  }
  return port;
}

status hardware::check(const queue_pair_options& options) const {
  const auto* const completions = static_cast<const hardware_completions*>(options.completions);
  if (completions == nullptr || options.sends_max == 0 || options.sends_max > device.sends_max ||
      options.receives_max > device.receives_max || options.segments_max == 0 ||
      options.segments_max > device.segments_max || options.reads_max == 0) {
    return {errc::invalid_argument, device.name + " cannot make a queue pair of this size."};
  }
  if (options.sends_max + options.receives_max > completions->reports_max - completions->reserved) {
    return {errc::no_resources, "The completion queue has no room for another queue pair."};
  }
  return {};
}

ibv_ah_attr hardware::way_to(const endpoint& peer) const noexcept {
  const gid own = self().port_gid;
  const bool other_subnet = !std::equal(own.begin(), own.begin() + 8, peer.port_gid.begin());
  ibv_ah_attr way{};
  way.is_global = device.layer == link_layer::ethernet || other_subnet ? 1 : 0;
  std::memcpy(way.grh.dgid.raw, peer.port_gid.data(), peer.port_gid.size());
  way.grh.sgid_index = static_cast<std::uint8_t>(chosen.gid_index);
  way.grh.hop_limit = chosen.hop_limit;
  way.grh.traffic_class = chosen.traffic_class;
  way.dlid = peer.lid;
  way.sl = chosen.service_level;
  way.port_num = device.port;
  return way;
}

std::uint8_t hardware::reads_of(const queue_pair_options& options) const noexcept {
  return static_cast<std::uint8_t>(std::min({options.reads_max, device.reads_max, 255U}));
}

static int access_of(remote_access access) noexcept {
  return IBV_ACCESS_LOCAL_WRITE | (access.read ? IBV_ACCESS_REMOTE_READ : 0) |
         (access.write ? IBV_ACCESS_REMOTE_WRITE : 0);
}

status hardware::register_memory(std::span<std::byte> range, remote_access access,
                                 std::unique_ptr<memory_region>& out) noexcept {
  registration_step step(library, domain, range, access_of(access));
  step.run();
  return finish_registration(step, out);
}

status hardware::start_registration(std::span<std::byte> range, remote_access access,
                                    std::unique_ptr<slow_step>& out) noexcept {
  out = std::make_unique<registration_step>(library, domain, range, access_of(access));
  return {};
}

status hardware::finish_registration(slow_step& step, std::unique_ptr<memory_region>& out) noexcept {
  auto& done = static_cast<registration_step&>(step);
  if (done.made == nullptr) {
    return failed(errc::no_resources,
                  device.name + " cannot register " + std::to_string(done.range.size()) + " bytes" +
                      (done.number == ENOMEM ? ", perhaps for the limit on locked memory (ulimit -l)" : ""),
                  done.number);
  }
  out = std::make_unique<hardware_region>(library, std::exchange(done.made, nullptr),
                                          reinterpret_cast<std::uintptr_t>(done.range.data()),
                                          done.range.size());
  return {};
}

status hardware::register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                  std::uint64_t address, remote_access access,
                                  std::unique_ptr<memory_region>& out) noexcept {
  if (library.reg_dmabuf_mr == nullptr) {
    return {errc::unsupported, "Registering device memory needs a newer libibverbs (rdma-core 34 or later)."};
  }
  ibv_mr* const made = library.reg_dmabuf_mr(domain, offset, length, address, descriptor, access_of(access));
  if (made == nullptr) {
    const int number = errno;
    const bool cannot = number == EOPNOTSUPP || number == ENOSYS || number == EINVAL;
    return failed(cannot ? errc::unsupported : errc::no_resources,
                  device.name +
                      " cannot register device memory; kernel 5.12 and a driver that supports dma-buf are "
                      "needed",
                  number);
  }
  out = std::make_unique<hardware_region>(library, made, address, length);
  return {};
}

status hardware::create_completion_queue(std::uint32_t reports_max,
                                         std::unique_ptr<completion_queue>& out) noexcept {
  if (reports_max == 0 || reports_max > device.completions_max) {
    return {errc::invalid_argument, device.name + " cannot make a completion queue of this size."};
  }
  ibv_comp_channel* const channel = library.create_comp_channel(context);
  if (channel == nullptr) {
    return failed(errc::no_resources, device.name + " gives no completion channel", errno);
  }
  ibv_cq* const queue = set_nonblocking(channel->fd)
                            ? library.create_cq(context, static_cast<int>(reports_max), nullptr, channel, 0)
                            : nullptr;
  if (queue == nullptr) {
    const int number = errno;
    library.destroy_comp_channel(channel);
    return failed(errc::no_resources, device.name + " gives no completion queue", number);
  }
  out = std::make_unique<hardware_completions>(library, channel, queue, reports_max);
  return {};
}

status hardware::create_rc(const queue_pair_options& options, std::unique_ptr<rc_queue_pair>& out) noexcept {
  if (status refused = check(options); !refused.ok()) {
    return refused;
  }
  auto* const completions = static_cast<hardware_completions*>(options.completions);
  ibv_qp_init_attr wanted{};
  wanted.send_cq = wanted.recv_cq = completions->queue();
  wanted.cap.max_send_wr = options.sends_max;
  wanted.cap.max_recv_wr = options.receives_max;
  wanted.cap.max_send_sge = options.segments_max;
  wanted.cap.max_recv_sge = options.receives_max == 0 ? 0 : 1;
  wanted.cap.max_inline_data = options.inline_bytes_max;
  wanted.qp_type = IBV_QPT_RC;
  ibv_qp* const pair = library.create_qp(domain, &wanted);
  if (pair == nullptr) {
    return failed(errc::no_resources, device.name + " gives no queue pair", errno);
  }
  auto made = std::make_unique<hardware_rc>(*this, options, pair);
  if (status refused = made->initialise(); !refused.ok()) {
    return refused;
  }
  out = std::move(made);
  return {};
}

fabric_event hardware::next_event() noexcept {
  ibv_async_event event{};
  if (library.get_async_event(context, &event) != 0) {
    // Where a driver cannot take a device from under its users, as soft-RoCE cannot, removing it raises no
    // event: the kernel takes it out of sysfs, and waits until everybody has closed it.
    if (!removed && !sysfs_path.empty() && ::access(sysfs_path.c_str(), F_OK) != 0) {
      removed = true;
      return fabric_event::device_removed;
    }
    return fabric_event::none;
  }
  library.ack_async_event(&event);
  switch (event.event_type) {
  case IBV_EVENT_PORT_ERR:
    return fabric_event::port_down;
  case IBV_EVENT_PORT_ACTIVE:
    return fabric_event::port_up;
  case IBV_EVENT_DEVICE_FATAL:
    return fabric_event::device_removed;
  default:
    return fabric_event::other;
  }
}

status open_ibverbs_fabric(const ibverbs_library& library, const std::string& device, std::uint8_t port,
                           const path_wishes& wishes, std::unique_ptr<fabric>& out,
                           std::vector<std::string>& warnings) {
  ibv_context* context = nullptr;
  device_facts facts;
  if (status refused = open_device(library, device, port, context, facts); !refused.ok()) {
    return refused;
  }
  path_options path;
  if (status refused = choose_path(facts, wishes, path, warnings); !refused.ok()) {
    library.close_device(context);
    return refused;
  }
  auto made = std::make_unique<hardware>(library, context, std::move(facts), path);
  if (status refused = made->start(); !refused.ok()) {
    return refused;
  }
  find_dc(*made, warnings);
  out = std::move(made);
  return {};
}

} // namespace memkv::verbs
