// The inside of the fabric on libibverbs: what RC and DC queue pairs have in common. For ibverbs_fabric.cpp,
// which shows it as a fabric and makes RC, and ibverbs_dc.cpp, which makes DC.
//
// Threading: one thread. Ownership: `hardware` owns context and domain; everything else is destroyed before.
#pragma once

#include "verbs/fabric.hpp"
#include "verbs/ibverbs_library.hpp"
#include "verbs/send_ledger.hpp"

#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

namespace memkv::verbs::detail {

inline constexpr std::uint64_t receive_bit = 1ULL << 32U;
inline constexpr unsigned generation_shift = 33;
/// How often a queue pair sends again without an acknowledgement. Soft-RoCE takes the largest number there
/// is, 7, for "never give up".
inline constexpr std::uint8_t retries = 6;
/// What a peer without a receive is told to wait: 0.64 ms.
inline constexpr std::uint8_t receiver_wait = 12;

/// `what`: the system's words for the number. 0 is taken for EINVAL: some drivers refuse without a reason.
status failed(errc code, std::string what, int number);
completion_status status_of(ibv_wc_status code) noexcept;
ibv_mtu mtu_of(std::uint32_t bytes) noexcept;
/// The device waits 4.096 us times two to this power for an acknowledgement, and again for each retry.
std::uint8_t timeout_of(std::uint32_t retry_ms) noexcept;
bool set_nonblocking(int descriptor) noexcept;

class hardware_pair;

class hardware_completions final : public completion_queue {
public:
  hardware_completions(const ibverbs_library& library, ibv_comp_channel* channel, ibv_cq* queue,
                       std::uint32_t reports_max)
      : reports_max(reports_max), library_(library), channel_(channel), queue_(queue) {}
  ~hardware_completions() override;
  std::size_t poll(std::span<report> out) noexcept override;
  status arm() noexcept override;
  int event_descriptor() const noexcept override { return channel_->fd; }
  void acknowledge() noexcept override;
  /// Takes what the device has written, so that nothing of a queue pair that goes away stays in the way.
  void take() noexcept;
  [[nodiscard]] ibv_cq* queue() const noexcept { return queue_; }

  std::uint32_t reports_max;
  std::uint32_t reserved = 0;
  std::unordered_map<std::uint32_t, hardware_pair*> pairs; // by number
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
  ~hardware() override;
  status start();

  const device_facts& facts() const noexcept override { return device; }
  const path_options& path() const noexcept override { return chosen; }
  endpoint self() const noexcept override;
  status register_memory(std::span<std::byte> range, remote_access access,
                         std::unique_ptr<memory_region>& out) noexcept override;
  status start_registration(std::span<std::byte> range, remote_access access,
                            std::unique_ptr<slow_step>& out) noexcept override;
  status finish_registration(slow_step& step, std::unique_ptr<memory_region>& out) noexcept override;
  status register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length, std::uint64_t address,
                          remote_access access, std::unique_ptr<memory_region>& out) noexcept override;
  status create_completion_queue(std::uint32_t reports_max,
                                 std::unique_ptr<completion_queue>& out) noexcept override;
  status create_rc(const queue_pair_options& options, std::unique_ptr<rc_queue_pair>& out) noexcept override;
  status create_dc_initiator(const queue_pair_options& options,
                             std::unique_ptr<dc_initiator>& out) noexcept override;
  status create_dc_target(std::uint64_t key, std::unique_ptr<dc_target>& out) noexcept override;
  status start_address_handle(const endpoint& peer, std::unique_ptr<slow_step>& out) noexcept override;
  status finish_address_handle(slow_step& step, std::unique_ptr<address_handle>& out) noexcept override;
  std::uint32_t queue_pairs_left() const noexcept override { return left; }
  fabric_event next_event() noexcept override;
  int event_descriptor() const noexcept override { return context->async_fd; }

  /// Destroys a queue pair or target; counts one that stays.
  void destroy(ibv_qp* pair) noexcept;
  /// Whether a queue pair of this size can be made, and its completion queue has room for it.
  [[nodiscard]] status check(const queue_pair_options& options) const;
  /// How packets to a peer are addressed. With a global header on Ethernet, and to other subnets.
  [[nodiscard]] ibv_ah_attr way_to(const endpoint& peer) const noexcept;
  /// READs that a queue pair with these options may have in flight.
  [[nodiscard]] std::uint8_t reads_of(const queue_pair_options& options) const noexcept;

  const ibverbs_library& library;
  ibv_context* context;
  ibv_pd* domain = nullptr;
  device_facts device;
  path_options chosen;
  std::string no_dc;            // why not, as a sentence; empty when facts().dc
  std::uint32_t generation = 0; // of queue pairs
  std::uint32_t left = 0;       // queue pairs that are neither destroyed nor stopped
  std::string sysfs_path;       // of the device's door to programs; empty: not known
  bool removed = false;         // and next_event has said so
};

/// A queue pair of the device, with the books of what it has been given. Destroys it.
class hardware_pair {
public:
  hardware_pair(hardware& owner, const queue_pair_options& options, ibv_qp* pair);
  hardware_pair(const hardware_pair&) = delete;
  hardware_pair& operator=(const hardware_pair&) = delete;

  void ended(const ibv_wc& completion) noexcept;
  void polled(const report& one) noexcept { --(one.kind == operation::receive ? receives_out_ : sends_out_); }

protected:
  ~hardware_pair();
  /// What no queue pair can carry out.
  [[nodiscard]] status check(const work_request& request) const;
  /// What the completion of the next send but `ahead` is known by.
  [[nodiscard]] std::uint64_t send_tag(std::size_t ahead) const noexcept {
    return tag_ | static_cast<std::uint32_t>(sends_.next() + ahead);
  }
  void sent(std::span<const work_request> taken) noexcept;
  void to_error() noexcept;
  status modify(ibv_qp_attr& attributes, int mask, const char* what) noexcept;

  hardware& owner_;
  queue_pair_options options_;
  ibv_qp* pair_;
  hardware_completions& completions_;
  queue_pair_state state_ = queue_pair_state::initial;
  std::uint64_t tag_ =
      0; // a number may be used again by the device, with completions of its predecessor about
  std::uint32_t sends_out_ = 0;
  std::uint32_t receives_out_ = 0;
  send_ledger sends_;
  send_ledger receives_;
};

/// `base` is rc_queue_pair or dc_initiator.
template <class base>
class hardware_queue_pair : public base, public hardware_pair {
public:
  using hardware_pair::hardware_pair;
  std::uint32_t number() const noexcept override { return pair_->qp_num; }
  queue_pair_state state() const noexcept override { return state_; }
  std::uint32_t outstanding() const noexcept override { return sends_out_ + receives_out_; }
  std::uint32_t sends_free() const noexcept override { return options_.sends_max - sends_out_; }
  void fail() noexcept override { to_error(); }
};

} // namespace memkv::verbs::detail
