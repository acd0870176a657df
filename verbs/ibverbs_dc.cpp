#include "verbs/ibverbs_dc.hpp"

#include "verbs/ibverbs_device.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace memkv::verbs::detail {
namespace {

constexpr std::uint32_t target_number_max = 0xFFFFFF;

class hardware_handle final : public address_handle {
public:
  hardware_handle(const ibverbs_library& library, ibv_ah* handle) : library_(library), handle_(handle) {}
  ~hardware_handle() override { library_.destroy_ah(handle_); }
  [[nodiscard]] ibv_ah* get() const noexcept { return handle_; }

private:
  const ibverbs_library& library_;
  ibv_ah* handle_;
};

/// On Ethernet the kernel looks for the peer on the network.
class handle_step final : public slow_step {
public:
  handle_step(const ibverbs_library& library, ibv_pd* domain, const ibv_ah_attr& way, const gid& peer)
      : peer(peer), library_(library), domain_(domain), way_(way) {}
  ~handle_step() override {
    if (made != nullptr) {
      library_.destroy_ah(made);
    }
  }
  void run() noexcept override {
    errno = 0;
    made = library_.create_ah(domain_, &way_);
    problem = errno;
  }

  ibv_ah* made = nullptr;
  int problem = EINTR; // until run() has tried
  gid peer{};

private:
  const ibverbs_library& library_;
  ibv_pd* domain_;
  ibv_ah_attr way_;
};

// Initiators -------------------------------------------------------------------------------------------

class hardware_initiator final : public hardware_queue_pair<dc_initiator> {
public:
  hardware_initiator(hardware& owner, const queue_pair_options& options, ibv_qp* pair)
      : hardware_queue_pair(owner, options, pair), requests_(owner.library.qp_to_qp_ex(pair)),
        addresses_(requests_ == nullptr ? nullptr : owner.library.mlx5_qp_ex_from(requests_)),
        segments_(options.segments_max), copied_(options.segments_max) {
    state_ = queue_pair_state::error; // until it is made ready
  }
  post_result post(std::span<const work_request> batch) noexcept override;
  status recover() noexcept override;
  /// To the state `ready`, from that of a new or a reset queue pair.
  status make_ready() noexcept;

private:
  [[nodiscard]] status check_for_dc(const work_request& request) const;
  void add(const work_request& request) noexcept;

  ibv_qp_ex* requests_;
  mlx5dv_qp_ex* addresses_;
  bool flushes_ = false; // what is posted in the error state; not when a walk to `ready` ended halfway
  std::vector<ibv_sge> segments_;
  std::vector<ibv_data_buf> copied_;
};

status hardware_initiator::make_ready() noexcept {
  flushes_ = false;
  if (requests_ == nullptr || addresses_ == nullptr) {
    return {errc::unsupported, owner_.device.name + " gives a DC initiator that takes no requests; a newer "
                                                    "libmlx5 is needed."};
  }
  const path_options& path = owner_.chosen;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = owner_.device.port;
  if (status refused =
          modify(attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT, "initialised as a DC initiator");
      !refused.ok()) {
    return refused;
  }
  attributes = {};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = mtu_of(path.mtu_bytes);
  attributes.ah_attr = owner_.way_to(owner_.self()); // only what holds for all peers is used of it
  int number = owner_.library.modify_qp(pair_, &attributes, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_AV);
  if (number == EINVAL) { // older drivers take the service level from the address handle alone
    number = owner_.library.modify_qp(pair_, &attributes, IBV_QP_STATE | IBV_QP_PATH_MTU);
  }
  if (number != 0) {
    return failed(errc::device_failed,
                  "A DC initiator of " + owner_.device.name + " cannot be given its path MTU", number);
  }
  attributes = {};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.timeout = timeout_of(path.retry_ms);
  attributes.retry_cnt = retries;
  attributes.rnr_retry = std::min<std::uint8_t>(path.receiver_retries, 7);
  attributes.max_rd_atomic = owner_.reads_of(options_);
  if (status refused = modify(attributes,
                              IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                  IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
                              "made ready as a DC initiator");
      !refused.ok()) {
    return refused;
  }
  flushes_ = true;
  state_ = queue_pair_state::ready;
  return {};
}

status hardware_initiator::recover() noexcept {
  if (outstanding() != 0) {
    return {errc::wrong_state, "Not everything that was posted has been reported."};
  }
  if (state_ != queue_pair_state::error) {
    return {errc::wrong_state, "The initiator is not in the error state."};
  }
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RESET;
  if (status refused = modify(attributes, IBV_QP_STATE, "reset as a DC initiator"); !refused.ok()) {
    return refused;
  }
  return make_ready();
}

status hardware_initiator::check_for_dc(const work_request& request) const {
  if (request.kind != operation::read && request.kind != operation::write) {
    return {errc::invalid_argument, "A DC initiator reads and writes; targets take no messages."};
  }
  if (request.target == nullptr || request.target->handle == nullptr ||
      request.target->target_number > target_number_max) {
    return {errc::invalid_argument, "A request on a DC initiator names its target, by a number of 24 bits."};
  }
  return check(request);
}

/// libmlx5 finishes the request when it has both address and data.
void hardware_initiator::add(const work_request& request) noexcept {
  if (request.kind == operation::read) {
    ::ibv_wr_rdma_read(requests_, request.rkey, request.remote_address);
  } else {
    ::ibv_wr_rdma_write(requests_, request.rkey, request.remote_address);
  }
  const dc_address& to = *request.target;
  ::mlx5dv_wr_set_dc_addr(addresses_, static_cast<const hardware_handle*>(to.handle)->get(), to.target_number,
                          to.key);
  const std::size_t count = request.local.size();
  if (request.inlined) {
    for (std::size_t part = 0; part < count; ++part) {
      copied_[part] = {reinterpret_cast<void*>(request.local[part].address), request.local[part].length};
    }
    ::ibv_wr_set_inline_data_list(requests_, count, copied_.data());
  } else if (count == 1) {
    ::ibv_wr_set_sge(requests_, request.local[0].lkey, request.local[0].address, request.local[0].length);
  } else {
    for (std::size_t part = 0; part < count; ++part) {
      segments_[part] = {request.local[part].address, request.local[part].length, request.local[part].lkey};
    }
    ::ibv_wr_set_sge_list(requests_, count, segments_.data());
  }
}

post_result hardware_initiator::post(std::span<const work_request> batch) noexcept {
  if (batch.empty()) {
    return {};
  }
  if (!flushes_) {
    return {{errc::device_failed, "The initiator could not be made ready again: destroy it."}, 0};
  }
  if (batch.size() > sends_free()) {
    return {{errc::queue_full, "The send queue has no room for the batch."}, 0};
  }
  for (const work_request& request : batch) {
    if (status refused = check_for_dc(request); !refused.ok()) {
      return {std::move(refused), 0};
    }
  }
  ::ibv_wr_start(requests_);
  for (std::size_t index = 0; index < batch.size(); ++index) {
    const bool signalled = batch[index].signalled || index + 1 == batch.size();
    requests_->wr_id = send_tag(index);
    requests_->wr_flags = signalled ? unsigned{IBV_SEND_SIGNALED} : 0U;
    add(batch[index]);
  }
  const int number = ::ibv_wr_complete(requests_);
  if (number != 0) {
    return {failed(errc::device_failed, owner_.device.name + " does not take the batch", number), 0};
  }
  sent(batch);
  return {{}, batch.size()};
}

// Targets ----------------------------------------------------------------------------------------------

class hardware_target final : public dc_target {
public:
  hardware_target(hardware& owner, std::uint64_t key) : owner_(owner), key_(key) {}
  ~hardware_target() override {
    if (pair_ != nullptr) {
      owner_.library.destroy_qp(pair_);
    }
    if (receives_ != nullptr) {
      owner_.library.destroy_srq(receives_);
    }
    if (completions_ != nullptr) {
      owner_.library.destroy_cq(completions_);
    }
  }
  std::uint32_t number() const noexcept override { return pair_->qp_num; }
  std::uint64_t key() const noexcept override { return key_; }
  status make() noexcept;

private:
  status refused(const char* what, int number) const {
    const bool cannot = number == EOPNOTSUPP || number == ENOSYS;
    return failed(cannot ? errc::unsupported : errc::no_resources, owner_.device.name + " gives no " + what,
                  number);
  }
  status change(ibv_qp_attr& attributes, int mask) noexcept {
    const int number = owner_.library.modify_qp(pair_, &attributes, mask);
    return number == 0 ? status{}
                       : failed(errc::device_failed,
                                "A DC target of " + owner_.device.name + " cannot be made ready", number);
  }

  hardware& owner_;
  std::uint64_t key_;
  ibv_cq* completions_ = nullptr; // both are asked for, and stay empty
  ibv_srq* receives_ = nullptr;
  ibv_qp* pair_ = nullptr;
};

status hardware_target::make() noexcept {
  errno = 0;
  completions_ = owner_.library.create_cq(owner_.context, 1, nullptr, nullptr, 0);
  if (completions_ == nullptr) {
    return refused("completion queue for a DC target", errno);
  }
  ibv_srq_init_attr room{};
  room.attr.max_wr = 1;
  room.attr.max_sge = 1;
  receives_ = owner_.library.create_srq(owner_.domain, &room);
  if (receives_ == nullptr) {
    return refused("shared receive queue for a DC target", errno);
  }
  ibv_qp_init_attr_ex wanted{};
  wanted.send_cq = wanted.recv_cq = completions_;
  wanted.srq = receives_;
  wanted.qp_type = IBV_QPT_DRIVER;
  wanted.comp_mask = IBV_QP_INIT_ATTR_PD;
  wanted.pd = owner_.domain;
  mlx5dv_qp_init_attr kind{};
  kind.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC;
  kind.dc_init_attr.dc_type = MLX5DV_DCTYPE_DCT;
  kind.dc_init_attr.dct_access_key = key_;
  errno = 0;
  pair_ = owner_.library.mlx5_create_qp(owner_.context, &wanted, &kind);
  if (pair_ == nullptr) {
    return refused("DC target", errno);
  }
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = owner_.device.port;
  attributes.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
  if (status failed =
          change(attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
      !failed.ok()) {
    return failed;
  }
  attributes = {};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = mtu_of(owner_.chosen.mtu_bytes);
  attributes.min_rnr_timer = receiver_wait;
  attributes.ah_attr = owner_.way_to(owner_.self()); // of its answers; their address is the asker's
  return change(attributes, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV);
}

} // namespace

// The fabric -------------------------------------------------------------------------------------------

void find_dc(hardware& device, std::vector<std::string>& warnings) {
  const ibverbs_library& library = device.library;
  const std::string& name = device.device.name;
  device.device.dc = false;
  if (library.mlx5_is_supported == nullptr || !library.mlx5_is_supported(device.context->device)) {
    device.no_dc = name + " has no DC: only network cards of the driver mlx5 have it, with libmlx5.";
    return;
  }
  mlx5dv_context told{};
  told.comp_mask = MLX5DV_CONTEXT_MASK_DCI_STREAMS;
  std::string reason;
  if (library.mlx5_query_device == nullptr || library.mlx5_create_qp == nullptr ||
      library.mlx5_qp_ex_from == nullptr) {
    reason = "this libmlx5 is older than DC; rdma-core 32 or later is needed.";
  } else if (const int number = library.mlx5_query_device(device.context, &told); number != 0) {
    reason = failed({}, "its driver does not tell what it can", number).text;
  } else {
    device.device.dc = true; // so that the attempt is made
    std::unique_ptr<completion_queue> completions;
    std::unique_ptr<dc_target> target;
    std::unique_ptr<dc_initiator> initiator;
    queue_pair_options options;
    options.sends_max = 1;
    status tried = device.create_completion_queue(options.sends_max, completions);
    options.completions = completions.get();
    if (tried.ok()) {
      tried = device.create_dc_target(0, target);
    }
    if (tried.ok()) {
      tried = device.create_dc_initiator(options, initiator);
    }
    reason = tried.text;
  }
  device.device.dc = reason.empty();
  if (!device.device.dc) {
    device.no_dc = name + " is a device of mlx5 without DC: " + reason;
    warnings.push_back(device.no_dc + " Clients get an RC queue pair each.");
  } else if ((told.comp_mask & MLX5DV_CONTEXT_MASK_DCI_STREAMS) != 0) {
    device.device.dc_streams = 1U << std::min<unsigned>(told.dci_streams_caps.max_log_num_concurent, 31);
  }
}

status hardware::create_dc_initiator(const queue_pair_options& options,
                                     std::unique_ptr<dc_initiator>& out) noexcept {
  if (!device.dc) {
    return {errc::unsupported, no_dc};
  }
  if (options.receives_max != 0) {
    return {errc::invalid_argument, "A DC initiator receives nothing."};
  }
  if (status refused = check(options); !refused.ok()) {
    return refused;
  }
  ibv_qp_init_attr_ex wanted{};
  wanted.send_cq = wanted.recv_cq = static_cast<hardware_completions*>(options.completions)->queue();
  wanted.cap.max_send_wr = options.sends_max;
  wanted.cap.max_send_sge = options.segments_max;
  wanted.cap.max_inline_data = options.inline_bytes_max;
  wanted.qp_type = IBV_QPT_DRIVER;
  wanted.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  wanted.pd = domain;
  wanted.send_ops_flags = IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_RDMA_WRITE;
  mlx5dv_qp_init_attr kind{};
  kind.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC;
  kind.dc_init_attr.dc_type = MLX5DV_DCTYPE_DCI;
  errno = 0;
  ibv_qp* const pair = library.mlx5_create_qp(context, &wanted, &kind);
  if (pair == nullptr) {
    const int number = errno;
    const bool cannot = number == EOPNOTSUPP || number == ENOSYS;
    return failed(cannot ? errc::unsupported : errc::no_resources, device.name + " gives no DC initiator",
                  number);
  }
  auto made = std::make_unique<hardware_initiator>(*this, options, pair);
  if (status refused = made->make_ready(); !refused.ok()) {
    return refused;
  }
  out = std::move(made);
  return {};
}

status hardware::create_dc_target(std::uint64_t key, std::unique_ptr<dc_target>& out) noexcept {
  if (!device.dc) {
    return {errc::unsupported, no_dc};
  }
  auto made = std::make_unique<hardware_target>(*this, key);
  if (status refused = made->make(); !refused.ok()) {
    return refused;
  }
  out = std::move(made);
  return {};
}

status hardware::start_address_handle(const endpoint& peer, std::unique_ptr<slow_step>& out) noexcept {
  if (!device.dc) {
    return {errc::unsupported, no_dc};
  }
  out = std::make_unique<handle_step>(library, domain, way_to(peer), peer.port_gid);
  return {};
}

status hardware::finish_address_handle(slow_step& step, std::unique_ptr<address_handle>& out) noexcept {
  auto& done = static_cast<handle_step&>(step);
  if (done.made == nullptr) {
    return failed(errc::device_failed, device.name + " finds no path to the peer " + to_text(done.peer),
                  done.problem);
  }
  out = std::make_unique<hardware_handle>(library, std::exchange(done.made, nullptr));
  return {};
}

} // namespace memkv::verbs::detail
