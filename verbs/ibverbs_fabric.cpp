#include "verbs/ibverbs_fabric.hpp"

#include "verbs/send_ledger.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <sys/random.h>
#include <unordered_map>

namespace memkv::verbs {
namespace {

constexpr std::uint64_t receive_bit = 1ULL << 32U;
constexpr unsigned generation_shift = 33;

status failed(errc code, std::string what, int number) {
  return {code, std::move(what) + ": " + std::strerror(number) + "."};
}

completion_status status_of(ibv_wc_status code) noexcept {
  switch (code) {
  case IBV_WC_SUCCESS:
    return completion_status::success;
  case IBV_WC_LOC_LEN_ERR:
    return completion_status::local_length;
  case IBV_WC_LOC_QP_OP_ERR:
    return completion_status::local_queue_pair_operation;
  case IBV_WC_LOC_PROT_ERR:
    return completion_status::local_protection;
  case IBV_WC_WR_FLUSH_ERR:
    return completion_status::flushed;
  case IBV_WC_MW_BIND_ERR:
    return completion_status::memory_window_bind;
  case IBV_WC_BAD_RESP_ERR:
    return completion_status::bad_response;
  case IBV_WC_LOC_ACCESS_ERR:
    return completion_status::local_access;
  case IBV_WC_REM_INV_REQ_ERR:
    return completion_status::remote_invalid_request;
  case IBV_WC_REM_ACCESS_ERR:
    return completion_status::remote_access;
  case IBV_WC_REM_OP_ERR:
    return completion_status::remote_operation;
  case IBV_WC_RETRY_EXC_ERR:
    return completion_status::retry_exceeded;
  case IBV_WC_RNR_RETRY_EXC_ERR:
    return completion_status::receiver_retry_exceeded;
  case IBV_WC_REM_ABORT_ERR:
    return completion_status::remote_aborted;
  case IBV_WC_FATAL_ERR:
    return completion_status::fatal;
  case IBV_WC_RESP_TIMEOUT_ERR:
    return completion_status::response_timeout;
  default:
    return completion_status::general;
  }
}

ibv_mtu mtu_of(std::uint32_t bytes) noexcept {
  return static_cast<ibv_mtu>(std::countr_zero(std::clamp(bytes, 256U, 4096U)) - 7);
}

/// Soft-RoCE takes the largest number there is, 7, for "never give up".
constexpr std::uint8_t retries = 6;

/// The device waits 4.096 us times two to this power for an acknowledgement, and again for each retry.
std::uint8_t timeout_of(std::uint32_t retry_ms) noexcept {
  std::uint8_t power = 1;
  while (power < 31 && (4096ULL << power) * (retries + 1) < std::uint64_t{retry_ms} * 1'000'000) {
    ++power;
  }
  return power;
}

bool set_nonblocking(int descriptor) noexcept {
  const int flags = ::fcntl(descriptor, F_GETFL);
  return flags >= 0 && ::fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0;
}

class hardware;
class hardware_rc;

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

class hardware_completions final : public completion_queue {
public:
  hardware_completions(const ibverbs_library& library, ibv_comp_channel* channel, ibv_cq* queue,
                       std::uint32_t reports_max)
      : reports_max(reports_max), library_(library), channel_(channel), queue_(queue) {}
  ~hardware_completions() override {
    MEMKV_ASSERT(pairs.empty(), "queue pairs are destroyed before their completion queue");
    library_.destroy_cq(queue_);
    library_.destroy_comp_channel(channel_);
  }
  std::size_t poll(std::span<report> out) noexcept override;
  status arm() noexcept override {
    const int number = ::ibv_req_notify_cq(queue_, 0);
    return number == 0 ? status{}
                       : failed(errc::device_failed, "The completion queue cannot be armed", number);
  }
  int event_descriptor() const noexcept override { return channel_->fd; }
  void acknowledge() noexcept override {
    ibv_cq* from = nullptr;
    void* context = nullptr;
    while (library_.get_cq_event(channel_, &from, &context) == 0) { // the descriptor does not block
      library_.ack_cq_events(from, 1);
    }
  }
  /// Takes what the device has written, so that nothing of a queue pair that goes away stays in the way.
  void take() noexcept;
  [[nodiscard]] ibv_cq* queue() const noexcept { return queue_; }

  std::uint32_t reports_max;
  std::uint32_t reserved = 0;
  std::unordered_map<std::uint32_t, hardware_rc*> pairs;
  std::deque<report> reports;

private:
  const ibverbs_library& library_;
  ibv_comp_channel* channel_;
  ibv_cq* queue_;
};

class hardware final : public fabric {
public:
  hardware(const ibverbs_library& library, ibv_context* context, device_facts facts, path_options path)
      : library(library), context(context), device(std::move(facts)), chosen(path) {}
  ~hardware() override {
    if (domain != nullptr) {
      library.dealloc_pd(domain);
    }
    library.close_device(context);
  }
  status start() {
    domain = library.alloc_pd(context);
    if (domain == nullptr) {
      return failed(errc::no_resources, device.name + " gives no protection domain", errno);
    }
    if (!set_nonblocking(context->async_fd)) {
      return failed(errc::no_resources, "The events of " + device.name + " cannot be read", errno);
    }
    return {};
  }

  const device_facts& facts() const noexcept override { return device; }
  const path_options& path() const noexcept override { return chosen; }
  endpoint self() const noexcept override {
    endpoint port;
    port.lid = device.lid;
    for (const gid_entry& one : device.gids) {
      if (one.index == chosen.gid_index) {
        port.port_gid = one.value;
      }
    }
    return port;
  }
  status register_memory(std::span<std::byte> range, remote_access access,
                         std::unique_ptr<memory_region>& out) noexcept override;
  status register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length, std::uint64_t address,
                          remote_access access, std::unique_ptr<memory_region>& out) noexcept override;
  status create_completion_queue(std::uint32_t reports_max,
                                 std::unique_ptr<completion_queue>& out) noexcept override;
  status create_rc(const queue_pair_options& options, std::unique_ptr<rc_queue_pair>& out) noexcept override;
  status create_dc_initiator(const queue_pair_options& /*options*/,
                             std::unique_ptr<dc_initiator>& /*out*/) noexcept override {
    return {errc::unsupported, "DC is not built into this release; RC is."};
  }
  status create_dc_target(std::uint64_t /*key*/, std::unique_ptr<dc_target>& /*out*/) noexcept override {
    return {errc::unsupported, "DC is not built into this release; RC is."};
  }
  status create_address_handle(const endpoint& /*peer*/,
                               std::unique_ptr<address_handle>& /*out*/) noexcept override {
    return {errc::unsupported, "DC is not built into this release; RC is."};
  }
  fabric_event next_event() noexcept override;
  int event_descriptor() const noexcept override { return context->async_fd; }

  const ibverbs_library& library;
  ibv_context* context;
  ibv_pd* domain = nullptr;
  device_facts device;
  path_options chosen;
  std::uint32_t generation = 0; // of queue pairs
};

class hardware_rc final : public rc_queue_pair {
public:
  hardware_rc(hardware& owner, const queue_pair_options& options, ibv_qp* pair)
      : owner_(owner), options_(options), pair_(pair),
        completions_(static_cast<hardware_completions&>(*options.completions)), sends_(options.sends_max),
        receives_(options.receives_max), requests_(options.sends_max),
        segments_(std::size_t{options.sends_max} * options.segments_max),
        receive_requests_(options.receives_max), receive_segments_(options.receives_max) {
    tag_ = std::uint64_t{++owner_.generation} << generation_shift;
    completions_.reserved += options.sends_max + options.receives_max;
    completions_.pairs.emplace(pair_->qp_num, this);
  }
  ~hardware_rc() override {
    const std::uint32_t gone = pair_->qp_num;
    owner_.library.destroy_qp(pair_);
    completions_.take(); // some drivers leave completions of queue pairs that are gone
    completions_.pairs.erase(gone);
    completions_.reserved -= options_.sends_max + options_.receives_max;
    std::erase_if(completions_.reports, [&](const report& one) { return one.queue_pair == gone; });
  }

  std::uint32_t number() const noexcept override { return pair_->qp_num; }
  queue_pair_state state() const noexcept override { return state_; }
  std::uint32_t outstanding() const noexcept override { return sends_out_ + receives_out_; }
  std::uint32_t sends_free() const noexcept override { return options_.sends_max - sends_out_; }
  post_result post(std::span<const work_request> batch) noexcept override;
  void fail() noexcept override {
    if (state_ != queue_pair_state::error) {
      ibv_qp_attr attributes{};
      attributes.qp_state = IBV_QPS_ERR;
      // If even that is refused, the device is in trouble; the owner's patience ends, and it destroys this.
      static_cast<void>(owner_.library.modify_qp(pair_, &attributes, IBV_QP_STATE));
      state_ = queue_pair_state::error;
    }
  }
  rc_address address() const noexcept override {
    return {owner_.self(), pair_->qp_num, packet_number_, owner_.chosen.mtu_bytes,
            owner_.device.reads_served_max};
  }
  status connect(const rc_address& peer) noexcept override;
  post_result post_receives(std::span<const receive_request> batch) noexcept override;
  status reset() noexcept override;
  /// To the state `initial`, from that of a new or a reset queue pair.
  status initialise() noexcept;

  void ended(const ibv_wc& completion) noexcept;
  void polled(const report& one) noexcept { --(one.kind == operation::receive ? receives_out_ : sends_out_); }

private:
  [[nodiscard]] status check(const work_request& request) const;

  hardware& owner_;
  queue_pair_options options_;
  ibv_qp* pair_;
  hardware_completions& completions_;
  queue_pair_state state_ = queue_pair_state::initial;
  std::uint64_t tag_ =
      0; // a number may be used again by the device, with completions of its predecessor about
  std::uint32_t packet_number_ = 0;
  std::uint32_t sends_out_ = 0;
  std::uint32_t receives_out_ = 0;
  send_ledger sends_;
  send_ledger receives_;
  std::vector<ibv_send_wr> requests_;
  std::vector<ibv_sge> segments_;
  std::vector<ibv_recv_wr> receive_requests_;
  std::vector<ibv_sge> receive_segments_;
};

// Completions ------------------------------------------------------------------------------------------

void hardware_completions::take() noexcept {
  std::array<ibv_wc, 32> some;
  for (;;) {
    const int count = ::ibv_poll_cq(queue_, static_cast<int>(some.size()), some.data());
    for (int index = 0; index < count; ++index) {
      const ibv_wc& one = some[static_cast<std::size_t>(index)];
      if (const auto found = pairs.find(one.qp_num); found != pairs.end()) {
        found->second->ended(one);
      }
    }
    if (count < static_cast<int>(some.size())) {
      return;
    }
  }
}

std::size_t hardware_completions::poll(std::span<report> out) noexcept {
  if (reports.size() < out.size()) {
    take();
  }
  std::size_t count = 0;
  while (count < out.size() && !reports.empty()) {
    out[count] = reports.front();
    reports.pop_front();
    pairs.at(out[count].queue_pair)->polled(out[count]);
    ++count;
  }
  return count;
}

void hardware_rc::ended(const ibv_wc& completion) noexcept {
  if (completion.wr_id >> generation_shift << generation_shift != tag_) {
    return; // of another that had this number before
  }
  const completion_status status = status_of(completion.status);
  if (status != completion_status::success) {
    state_ = queue_pair_state::error;
  }
  const auto number = static_cast<std::uint32_t>(completion.wr_id);
  const bool receive = (completion.wr_id & receive_bit) != 0;
  (receive ? receives_ : sends_)
      .complete(number, status, [&](std::uint64_t id, operation kind, completion_status how) {
        const std::uint32_t bytes = receive && how == completion_status::success ? completion.byte_len : 0;
        completions_.reports.push_back({id, pair_->qp_num, kind, how, bytes, completion.vendor_err});
      });
}

// Queue pairs ------------------------------------------------------------------------------------------

status hardware_rc::check(const work_request& request) const {
  std::uint64_t length = 0;
  for (const local_range& local : request.local) {
    length += local.length;
  }
  if (request.kind == operation::receive || request.target != nullptr) {
    return {errc::invalid_argument, "An RC queue pair sends, reads and writes, to its own peer."};
  }
  if (request.local.size() > options_.segments_max || length > owner_.device.transfer_bytes_max) {
    return {errc::invalid_argument, "The request has more ranges or bytes than the queue pair takes."};
  }
  if (request.inlined && (request.kind == operation::read || length > options_.inline_bytes_max)) {
    return {errc::invalid_argument, "The request cannot be posted inline."};
  }
  return {};
}

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
    if (status refused = check(request); !refused.ok()) {
      return {std::move(refused), 0};
    }
  }
  for (std::size_t index = 0; index < batch.size(); ++index) {
    const work_request& from = batch[index];
    ibv_send_wr& to = requests_[index];
    ibv_sge* const segments = segments_.data() + index * options_.segments_max;
    to = {};
    to.wr_id = tag_ | static_cast<std::uint32_t>(sends_.next() + index);
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
  for (std::size_t index = 0; index < posted; ++index) {
    sends_.add(batch[index].id, batch[index].kind);
  }
  sends_out_ += static_cast<std::uint32_t>(posted);
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

status hardware_rc::connect(const rc_address& peer) noexcept {
  if (state_ != queue_pair_state::initial) {
    return {errc::wrong_state, "The queue pair is connected, or has to be reset."};
  }
  if (peer.mtu_bytes < 256 || peer.mtu_bytes > 4096 || !std::has_single_bit(peer.mtu_bytes) ||
      peer.queue_pair_number > 0xFFFFFF || peer.packet_number > 0xFFFFFF) {
    return {errc::invalid_argument, "The peer's address is none: MTU or a number is out of range."};
  }
  const path_options& path = owner_.chosen;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = mtu_of(std::min(peer.mtu_bytes, path.mtu_bytes));
  attributes.dest_qp_num = peer.queue_pair_number;
  attributes.rq_psn = peer.packet_number;
  attributes.max_dest_rd_atomic = static_cast<std::uint8_t>(std::min(owner_.device.reads_served_max, 255U));
  attributes.min_rnr_timer = 12; // 0.64 ms
  attributes.ah_attr.is_global = owner_.device.layer == link_layer::ethernet ? 1 : 0;
  std::memcpy(attributes.ah_attr.grh.dgid.raw, peer.port.port_gid.data(), peer.port.port_gid.size());
  attributes.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(path.gid_index);
  attributes.ah_attr.grh.hop_limit = path.hop_limit;
  attributes.ah_attr.grh.traffic_class = path.traffic_class;
  attributes.ah_attr.dlid = peer.port.lid;
  attributes.ah_attr.sl = path.service_level;
  attributes.ah_attr.port_num = owner_.device.port;
  int number = owner_.library.modify_qp(pair_, &attributes,
                                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                            IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (number != 0) {
    return failed(errc::device_failed,
                  owner_.device.name + " finds no path to the peer " + to_text(peer.port.port_gid), number);
  }
  attributes = {};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.timeout = timeout_of(path.retry_ms);
  attributes.retry_cnt = retries;
  attributes.rnr_retry = std::min<std::uint8_t>(path.receiver_retries, 7);
  attributes.sq_psn = packet_number_;
  attributes.max_rd_atomic = static_cast<std::uint8_t>(
      std::min({options_.reads_max, owner_.device.reads_max, peer.reads_served_max, 255U}));
  number = owner_.library.modify_qp(pair_, &attributes,
                                    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                        IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
  if (number != 0) {
    state_ = queue_pair_state::error; // it left `initial`, and only a reset brings it back
    return failed(errc::device_failed, "A queue pair of " + owner_.device.name + " cannot be made ready",
                  number);
  }
  state_ = queue_pair_state::ready;
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

// The fabric -------------------------------------------------------------------------------------------

int access_of(remote_access access) noexcept {
  return IBV_ACCESS_LOCAL_WRITE | (access.read ? IBV_ACCESS_REMOTE_READ : 0) |
         (access.write ? IBV_ACCESS_REMOTE_WRITE : 0);
}

status hardware::register_memory(std::span<std::byte> range, remote_access access,
                                 std::unique_ptr<memory_region>& out) noexcept {
  ibv_mr* const made = library.reg_mr(domain, range.data(), range.size(), access_of(access));
  if (made == nullptr) {
    const int number = errno;
    return failed(errc::no_resources,
                  device.name + " cannot register " + std::to_string(range.size()) + " bytes" +
                      (number == ENOMEM ? ", perhaps for the limit on locked memory (ulimit -l)" : ""),
                  number);
  }
  out = std::make_unique<hardware_region>(library, made, reinterpret_cast<std::uintptr_t>(range.data()),
                                          range.size());
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
  auto* const completions = static_cast<hardware_completions*>(options.completions);
  if (completions == nullptr || options.sends_max == 0 || options.sends_max > device.sends_max ||
      options.receives_max > device.receives_max || options.segments_max == 0 ||
      options.segments_max > device.segments_max || options.reads_max == 0) {
    return {errc::invalid_argument, device.name + " cannot make a queue pair of this size."};
  }
  if (options.sends_max + options.receives_max > completions->reports_max - completions->reserved) {
    return {errc::no_resources, "The completion queue has no room for another queue pair."};
  }
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

} // namespace

status open_ibverbs_fabric(const ibverbs_library& library, const std::string& device, std::uint8_t port,
                           const path_wishes& wishes, std::unique_ptr<fabric>& out,
                           std::vector<std::string>& warnings) {
  ibv_context* context = nullptr;
  device_facts facts;
  if (status refused = open_device(library, device, port, context, facts); !refused.ok()) {
    return refused;
  }
  facts.dc = false; // whatever the device can: see above
  path_options path;
  if (status refused = choose_path(facts, wishes, path, warnings); !refused.ok()) {
    library.close_device(context);
    return refused;
  }
  auto made = std::make_unique<hardware>(library, context, std::move(facts), path);
  if (status refused = made->start(); !refused.ok()) {
    return refused;
  }
  out = std::move(made);
  return {};
}

} // namespace memkv::verbs
