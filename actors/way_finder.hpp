// The threads of a DCI POOL that find the way to clients which are being attached: where nobody answers, the
// kernel looks for a peer for a second, and the pool's own thread must not wait for that.
//
// Operation. Each attachment that was given is either reached, by one of a few threads, or found too old when
// its turn comes; then it is among those done, and the descriptor is readable. Threads are started when they
// are wanted. At the end what waits is dropped, and what is under way is waited for.
//
// Whose turn it is. Looking for somebody who is not there costs a thread for a second, so who does that must
// not keep others waiting:
//   - ways that were found lately come first, and a quarter of the threads is kept for them;
//   - of the others, no more than two are looked for at one time for one connection, and to one port;
//   - and those come first whose connection and host have taken the least time of the threads lately; one
//   that
//     is under way counts as what nobody's costs. What was taken is forgotten by half each
//     cost_half_life_ns; ways that are found at once cost nothing.
// When there is no place for another one, who has cost less drives out who has cost more (make_room).
//
// Threading: one owner's thread; the threads here call attachment::reach() and nothing else of it. Ownership:
// attachments are the owner's, and stay until they are done or dropped. Limits: threads_max; what waits is
// bounded by the owner; what is remembered of hosts, connections and ports, remembered_max of each. Errors:
// without a descriptor or a thread nothing is reached, and find() says so.
#pragma once

#include "actors/admission.hpp"
#include "actors/fading_costs.hpp"
#include "verbs/transfer_engine.hpp"

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace memkv::actors {

class way_finder {
public:
  static constexpr std::size_t remembered_max = 4096;
  static constexpr std::uint32_t together_max =
      2; // for one connection; to one port; unless it was found lately
  static constexpr std::uint64_t cost_half_life_ns = 8'000'000'000;
  static constexpr std::uint64_t cost_ns_min = 20'000'000;       // less counts as nothing
  static constexpr std::uint64_t cost_ns_nobody = 1'000'000'000; // what one that is under way may cost
  static constexpr std::uint64_t found_ns_max = 600'000'000'000;

  struct outcome {
    std::uint64_t number = 0;
    bool tried = false; // or it had waited for too long, or was driven out
  };
  /// Who wants to be attached, and where the way leads.
  struct asker {
    std::uint64_t connection = 0;
    actors::peer_address host{}; // of its socket
    verbs::endpoint port;        // of its device
  };

  explicit way_finder(std::uint32_t threads_max, std::uint64_t wait_ns_max);
  ~way_finder();
  way_finder(const way_finder&) = delete;
  way_finder& operator=(const way_finder&) = delete;

  /// False: the system gives no descriptor or no thread.
  [[nodiscard]] bool find(std::uint64_t number, const asker& by, verbs::attachment& to);
  /// Of those that wait, the one whose connection and host have cost the most, and will with what waits, is
  /// done, untried, if that is more than for `by`. False: there is none.
  [[nodiscard]] bool make_room(const asker& by);
  /// The client is attached: its port is one that is found.
  void reached(const verbs::endpoint& port);
  /// Appends those done since the last time.
  void take_done(std::vector<outcome>& out);
  /// Readable when something was done, until acknowledge(). -1: there is none.
  [[nodiscard]] int event_descriptor() const noexcept { return event_fd_; }
  void acknowledge() noexcept;
  /// Drops what waits and waits for what is under way; nothing is found afterwards. A second call does
  /// nothing.
  void end() noexcept;

private:
  using port_name = std::pair<verbs::gid, std::uint16_t>;
  struct wanted {
    std::uint64_t number = 0;
    verbs::attachment* to = nullptr;
    asker by;
    port_name port;
    std::uint64_t since_ns = 0;
    bool proved = false; // its port was reached lately
  };
  void work();
  // The lock is held.
  void drop_late(std::uint64_t now_ns);
  [[nodiscard]] std::deque<wanted>::iterator choose(std::uint64_t now_ns);
  [[nodiscard]] bool may_begin(const wanted& one) const;
  [[nodiscard]] std::uint64_t cost_of(const asker& by, std::uint64_t now_ns) const;
  void begin(const wanted& one);
  void finish(const wanted& one, std::uint64_t took_ns, std::uint64_t now_ns);
  void tell(std::uint64_t number, bool tried);

  const std::uint32_t threads_max_;
  const std::uint64_t wait_ns_max_;
  const int event_fd_;
  mutable std::mutex lock_;
  std::condition_variable changed_;
  std::deque<wanted> waiting_; // lock_, as all below but the threads
  std::vector<outcome> done_;
  std::uint32_t idle_ = 0;
  bool ended_ = false;
  std::uint32_t unproved_ = 0;                             // under way
  std::map<std::uint64_t, std::uint32_t> of_connections_;  // the same
  std::map<actors::peer_address, std::uint32_t> of_hosts_; // the same
  std::map<port_name, std::uint32_t> to_ports_;            // the same
  fading_costs<actors::peer_address> hosts_{cost_half_life_ns, cost_ns_min, remembered_max};
  fading_costs<std::uint64_t> connections_{cost_half_life_ns, cost_ns_min, remembered_max};
  std::map<port_name, std::uint64_t> found_; // when they were reached
  std::vector<std::thread> threads_;         // the owner's
};

} // namespace memkv::actors
