// A server with an rc_scheduler, and machines of clients, each of which has a queue pair of its own.
#pragma once

#include "machines.hpp"
#include "verbs/rc_scheduler.hpp"

#include <deque>

namespace verbs_test {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint64_t far_away = 1000 * second;

inline rc_scheduler_options rc_options() {
  rc_scheduler_options options;
  options.clients_max = 100;
  options.transfers_max = 1000;
  return options;
}

struct rc_world {
  simulated_network network;
  machine server;
  machine host;
  std::deque<machine> more;
  std::unique_ptr<rc_scheduler> engine;
  std::deque<std::unique_ptr<rc_queue_pair>> pairs; // before whom the machines' completion queues may not go
  std::vector<client_id> clients;
  std::vector<outcome> outcomes;

  explicit rc_world(const rc_scheduler_options& options = rc_options(),
                    const simulated_network_options& network_options = {},
                    const simulated_node_options& server_options = {}, std::uint32_t clients_max = 64)
      : network(network_options), server(network, 1U << 16U, server_options, {true, true}, 1),
        host(network, 1U << 16U, {}, {true, true}, clients_max * 64) {
    must(rc_scheduler::create(*server.device, options, engine));
  }
  ~rc_world() {
    pairs.clear();
    engine.reset();
  }

  rc_queue_pair& make_pair(machine& at, std::uint32_t receives_max = 0, std::uint32_t sends_max = 16) {
    queue_pair_options options;
    options.completions = at.completions.get();
    options.sends_max = sends_max;
    options.receives_max = receives_max;
    pairs.emplace_back();
    must(at.device->create_rc(options, pairs.back()));
    return *pairs.back();
  }
  client_id add(machine& at) {
    rc_queue_pair& pair = make_pair(at);
    client_id made = 0;
    peer_address own;
    must(engine->attach(to_peer_address(pair.address()), made, own));
    must(pair.connect(to_rc_address(own)));
    clients.push_back(made);
    return made;
  }
  client_id add() { return add(host); }
  [[nodiscard]] transfer make(std::uint64_t cookie, std::uint32_t length = 64,
                              direction way = direction::place, std::uint64_t deadline_ns = far_away) const {
    transfer one;
    one.cookie = cookie;
    one.way = way;
    one.local = server.range(0, length);
    one.remote_address = host.region->address();
    one.rkey = host.region->rkey();
    one.deadline_ns = deadline_ns;
    return one;
  }
  void run() { engine->run(network.now_ns(), outcomes); }
  /// For this long, looking after each microsecond while something happens, and less often when not.
  void settle(std::uint64_t limit_ns = 5 * second) {
    const std::uint64_t until_ns = network.now_ns() + limit_ns;
    std::uint64_t step_ns = 1000;
    run();
    while (network.now_ns() < until_ns) {
      const std::uint64_t before = happened();
      network.advance(std::min(step_ns, until_ns - network.now_ns()));
      run();
      step_ns = happened() == before ? std::min<std::uint64_t>(2 * step_ns, second / 100) : 1000;
    }
  }
  [[nodiscard]] std::uint64_t happened() const {
    return network.statistics().requests + network.statistics().completions + outcomes.size();
  }
  [[nodiscard]] std::vector<outcome> of(std::uint64_t cookie) const {
    std::vector<outcome> found;
    std::copy_if(outcomes.begin(), outcomes.end(), std::back_inserter(found), [&](const outcome& one) {
      return one.kind == outcome::what::transfer && one.cookie == cookie;
    });
    return found;
  }
  [[nodiscard]] transfer_result result(std::uint64_t cookie) const {
    const auto found = of(cookie);
    MEMKV_ASSERT(found.size() == 1, "a transfer has exactly one outcome");
    return found[0].result;
  }
  [[nodiscard]] std::size_t count(outcome::what kind, client_id client) const {
    return static_cast<std::size_t>(std::count_if(outcomes.begin(), outcomes.end(), [&](const outcome& one) {
      return one.kind == kind && one.client == client;
    }));
  }
};

} // namespace verbs_test
