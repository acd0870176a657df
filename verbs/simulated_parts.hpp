// The inside of the simulated fabric: the network's state, and its nodes and queue pairs as the network sees
// them. For simulated_fabric.cpp, which shows them as a fabric, and simulated_network.cpp, where time passes.
//
// Threading: one thread. Numbers of queue pairs and keys are never used twice, so an event or an address
// of something that is gone finds nothing.
#pragma once

#include "verbs/simulated_fabric.hpp"

#include <array>
#include <deque>
#include <map>
#include <queue>
#include <unordered_map>

namespace memkv::verbs::detail {

struct simulated_core;
struct simulated_node;
struct simulated_completions;

inline constexpr std::uint32_t simulated_segments_max = 4;
inline constexpr std::uint32_t simulated_inline_bytes_max = 220;

struct simulated_random {
  std::uint64_t state = 0;
  std::uint64_t next() noexcept;
  /// 0 to bound, both included.
  std::uint64_t up_to(std::uint64_t bound) noexcept { return bound == 0 ? 0 : next() % (bound + 1); }
};

struct region_record {
  std::uint64_t address = 0;
  std::uint64_t length = 0;
  remote_access access;
};

/// The node that an address handle leads to, as a number, since the node may be gone.
struct simulated_handle final : address_handle {
  simulated_node* owner = nullptr;
  std::uint64_t node = 0;
  ~simulated_handle() override;
};

/// Waits, if it was told to: everything else happens when it is finished.
struct simulated_way final : slow_step {
  std::function<void(const endpoint&)> wait;
  rc_address peer; // of an address handle: the port alone
  void run() noexcept override {
    if (wait)
      wait(peer.port);
  }
};

struct simulated_request {
  work_request request; // `local` and `target` are not used; their copies follow
  std::array<local_range, simulated_segments_max> local{};
  std::uint32_t segments = 0;
  std::uint64_t length = 0;
  std::vector<std::byte> inlined;
  dc_address target;
  std::uint64_t handle_node = 0;
  std::uint64_t serial = 0;
  std::uint32_t attempts = 0;
  bool retried = false;
  bool started = false;
  bool arrived = false; // its time has come, but one before it is not done
  completion_status first_half = completion_status::success;
};

struct simulated_report {
  report what;
  std::uint64_t serial = 0;
  bool late = false; // carry the request out before this report is seen
  simulated_request request;
};

struct simulated_pair {
  simulated_node* node = nullptr;
  std::uint32_t number = 0;
  bool dc = false;
  queue_pair_options options;
  simulated_completions* completions = nullptr;
  queue_pair_state state = queue_pair_state::initial;
  bool silent = false;      // reports nothing
  std::uint64_t epoch = 0;  // what was scheduled in another one is void
  std::uint64_t serial = 0; // of the next request
  std::uint32_t sends_outstanding = 0;
  std::uint32_t receives_outstanding = 0;
  std::uint32_t started = 0; // of `posted`, from its front
  std::uint32_t reads_in_flight = 0;
  std::uint64_t finish_ns = 0;
  std::uint64_t delivery_ns = 0;
  std::uint64_t receive_delivery_ns = 0;
  dc_address current; // whom a DC initiator is connected to
  std::deque<simulated_request> posted;
  std::deque<simulated_report> reporting;
  std::deque<receive_request> receives;
  std::deque<report> receive_reporting;
  // RC
  rc_address self;
  rc_address peer;
  std::uint32_t mtu_bytes = 0;
  std::uint32_t reads_max = 0;
  // injected
  completion_status injected = completion_status::success;
  std::uint32_t injected_after = 0;
};

struct simulated_target {
  simulated_node* node = nullptr;
  std::uint64_t key = 0;
};

struct simulated_event {
  enum class what : std::uint8_t { first_half, finish, deliver, deliver_receive };
  std::uint64_t time_ns = 0;
  std::uint64_t order = 0;
  what kind = what::finish;
  std::uint32_t pair = 0;
  std::uint64_t epoch = 0;
  std::uint64_t serial = 0;
  bool operator>(const simulated_event& other) const noexcept {
    return time_ns != other.time_ns ? time_ns > other.time_ns : order > other.order;
  }
};

struct simulated_core {
  simulated_network_options options;
  simulated_random random;
  std::uint64_t now_ns = 0;
  std::uint64_t order = 0;
  std::uint32_t number_last = 0; // of queue pairs
  std::uint32_t key_last = 0;
  std::uint64_t node_last = 0;
  std::priority_queue<simulated_event, std::vector<simulated_event>, std::greater<>> events;
  std::unordered_map<std::uint32_t, simulated_pair*> pairs;
  std::unordered_map<std::uint32_t, simulated_target> targets;
  std::map<std::uint64_t, simulated_node*> nodes;
  std::vector<std::string> misuse;
  simulated_statistics statistics;
  std::function<void(const endpoint&)> way_taking;

  void schedule(simulated_event::what kind, const simulated_pair& pair, std::uint64_t time_ns,
                std::uint64_t serial);
  void happen(const simulated_event& event);
  /// Starts what may start.
  void pump(simulated_pair& pair);
  void first_half(simulated_pair& pair, std::uint64_t serial);
  void finish(simulated_pair& pair, std::uint64_t serial);
  /// True when it is done; false when it will be tried again.
  bool end_front(simulated_pair& pair);
  void to_error(simulated_pair& pair);
  void add_report(simulated_pair& pair, simulated_request&& request, completion_status status, bool flushed);
  void add_receive_report(simulated_pair& pair, const receive_request& request, completion_status status,
                          std::uint32_t bytes);
  void deliver(simulated_pair& pair, std::uint64_t serial);
  void deliver_receive(simulated_pair& pair);
  /// Moves the bytes from `begin` to `end` of a request that is a READ or WRITE.
  completion_status move(simulated_pair& pair, const simulated_request& request, std::uint64_t begin,
                         std::uint64_t end);
  completion_status send(simulated_pair& pair, const simulated_request& request);
  /// The node at the far end, or null when nobody would acknowledge; for RC also its queue pair.
  simulated_node* far_end(const simulated_pair& pair, const simulated_request& request,
                          simulated_pair** far_pair);
  void queue_pair_added();
  [[nodiscard]] static bool in_use(std::uint64_t address, std::uint64_t length, const simulated_node& of);
  [[nodiscard]] static bool names(const simulated_handle* handle);
};

struct simulated_node final : fabric {
  simulated_core* core = nullptr;
  simulated_node_options options;
  std::uint64_t id = 0;
  device_facts device;
  path_options chosen;
  bool alive = true;
  bool reachable = true;
  bool removal_told = false;
  std::uint32_t objects = 0;
  std::vector<simulated_pair*> pairs;
  std::unordered_map<std::uint32_t, region_record> by_lkey;
  std::unordered_map<std::uint32_t, region_record> by_rkey;

  ~simulated_node() override;
  const device_facts& facts() const noexcept override { return device; }
  const path_options& path() const noexcept override { return chosen; }
  endpoint self() const noexcept override;
  status register_memory(std::span<std::byte> range, remote_access access,
                         std::unique_ptr<memory_region>& out) noexcept override;
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
  fabric_event next_event() noexcept override;
  int event_descriptor() const noexcept override { return -1; }
};

struct simulated_completions final : completion_queue {
  simulated_node* node = nullptr;
  std::uint32_t reports_max = 0;
  std::uint32_t reserved = 0;
  std::uint32_t pairs = 0;
  std::deque<report> reports;
  bool armed = false;
  int descriptor = -1;

  ~simulated_completions() override;
  std::size_t poll(std::span<report> out) noexcept override;
  status arm() noexcept override;
  int event_descriptor() const noexcept override { return descriptor; }
  void acknowledge() noexcept override;
  void push(const report& one);
};

} // namespace memkv::verbs::detail
