// A device of mlx5 that is not there, behind the table of functions that the fabric on libibverbs calls.
//
// It writes down what it is told: attributes, changes of state, requests, doorbells. It takes what libmlx5
// and the driver of Linux take, and refuses the rest: which attributes belong to which change of state, that
// a request has operation, address and data, what a DC target may be made with. Any function can be told to
// refuse. Completions are made by the test. It moves no bytes.
//
// Threading: one thread, one device a process. start() forgets everything.
#pragma once

#include "verbs/ibverbs_fabric.hpp"

#include <cerrno>
#include <map>
#include <string>
#include <vector>

namespace verbs_test {

/// One request as the device got it.
struct fake_request {
  std::uint64_t id = 0;
  bool read = false;
  bool signalled = false;
  bool inlined = false;
  std::uint32_t rkey = 0;
  std::uint64_t remote_address = 0;
  std::vector<ibv_sge> ranges;
  std::string copied; // inline
  const ibv_ah* handle = nullptr;
  std::uint32_t target_number = 0;
  std::uint64_t target_key = 0;
};

struct fake_change {
  std::uint32_t queue_pair = 0; // 0: a target that has no number yet
  ibv_qp_attr attributes{};
  int mask = 0;
};

struct fake_creation {
  ibv_qp_init_attr_ex wanted{};
  mlx5dv_qp_init_attr kind{};
};

struct fake_card {
  // What it is.
  bool mlx5 = true;
  bool initiator_takes_path = true;  // IBV_QP_AV on the way to RTR; older drivers refuse it
  bool initiator_takes_reset = true; // older drivers refuse it
  int streams_log = -1;              // none
  std::uint8_t layer = IBV_LINK_LAYER_ETHERNET;
  ibv_mtu mtu = IBV_MTU_4096;
  // What it refuses: the name of a function, how many calls of it succeed before, and the system's number.
  std::string refused;
  int refused_after = 0;
  int refusal = ENOMEM;

  // What there is now, and what was ever made, by kind: "context", "pd", "cq", "srq", "qp", "ah", ...
  std::map<std::string, int> there;
  std::map<std::string, int> made;
  std::vector<std::string>
      broken_rules;                     // what a driver would have refused for a reason that we must not give
  std::vector<fake_creation> creations; // of queue pairs
  std::vector<fake_change> changes;
  std::vector<ibv_ah_attr> handles;
  std::vector<ibv_srq_init_attr> shared_receives;
  std::vector<fake_request> requests; // taken
  int doorbells = 0;

  [[nodiscard]] int left() const {
    int sum = 0;
    for (const auto& [kind, count] : there) {
      sum += count;
    }
    return sum;
  }
};

/// The device; what it is may be changed at any time.
fake_card& card();
/// A new device. What was made on the old one must be gone.
void start_fake_mlx5();
memkv::verbs::ibverbs_library fake_mlx5_library();
/// What the device has to say about the request of this wr_id on this queue pair.
void complete_fake(std::uint32_t queue_pair, std::uint64_t id, ibv_wc_status status = IBV_WC_SUCCESS);
/// As the kernel does when the program has closed the device: those that would not be destroyed go.
void take_fake_queue_pairs();
/// The state as the driver sees it.
ibv_qp_state fake_state(std::uint32_t queue_pair);

} // namespace verbs_test
