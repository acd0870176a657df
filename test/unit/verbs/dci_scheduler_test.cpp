// The pool of DC initiators: who is served when, what an error costs whom, and when a buffer is whose.
#include "machines.hpp"
#include "verbs/dci_scheduler.hpp"

#define CAF_SUITE dci_scheduler
#include <caf/test/unit_test.hpp>

#include <deque>
#include <map>
#include <string>

using namespace verbs_test;

namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint64_t far_away = 1000 * second;

/// A server with a pool, and one machine of clients, each with a target of its own.
struct world {
  simulated_network network;
  machine server;
  machine host;
  std::deque<machine> more;
  std::unique_ptr<dci_scheduler> pool;
  std::vector<std::unique_ptr<dc_target>> targets;
  std::vector<client_id> clients;
  std::vector<outcome> outcomes;

  explicit world(const dci_scheduler_options& options, const simulated_network_options& network_options = {},
                 const simulated_node_options& node = {})
      : network(network_options), server(network, 1U << 16U, node), host(network, 1U << 16U) {
    must(dci_scheduler::create(*server.device, options, pool));
  }
  client_id add(machine& at) {
    targets.emplace_back();
    must(at.device->create_dc_target(targets.size(), targets.back()));
    client_id made = 0;
    must(pool->attach(at.device->self(), targets.back()->number(), targets.back()->key(), made));
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
  void run() { pool->run(network.now_ns(), outcomes); }
  /// Until nothing happens any more, or for this long.
  void settle(std::uint64_t limit_ns = 5 * second) {
    const std::uint64_t until_ns = network.now_ns() + limit_ns;
    run();
    while (network.now_ns() < until_ns) {
      if (!network.step()) {
        const std::uint64_t next_ns = pool->next_ns();
        if (next_ns > until_ns) {
          break;
        }
        network.advance(next_ns > network.now_ns() ? next_ns - network.now_ns() : 0);
      }
      run();
    }
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

dci_scheduler_options pool_of(std::uint32_t initiators) {
  dci_scheduler_options options;
  options.initiators = initiators;
  options.clients_max = 100;
  options.transfers_max = 4096;
  return options;
}

} // namespace

CAF_TEST(transfers fetch from and place into the memory of their client) {
  world w(pool_of(2));
  const client_id client = w.add();
  w.host.fill(0, 64, 0x11);
  transfer fetch = w.make(1, 64, direction::fetch);
  must(w.pool->submit(client, fetch));
  w.settle();
  CAF_CHECK(w.result(1) == transfer_result::done);
  CAF_CHECK(w.server.holds(0, 64, 0x11) && w.server.holds(64, 64, 0));
  w.server.fill(0, 64, 0x22);
  must(w.pool->submit(client, w.make(2)));
  w.settle();
  CAF_CHECK(w.result(2) == transfer_result::done);
  CAF_CHECK(w.host.holds(0, 64, 0x22) && w.host.holds(64, 64, 0));
  CAF_CHECK_EQUAL(w.pool->statistics().bytes_done, 128u);
}

CAF_TEST(a batch for one client costs one doorbell and a completion for each sixteenth request) {
  dci_scheduler_options options = pool_of(1);
  options.quota = 1000;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 64; ++cookie) {
    must(w.pool->submit(client, w.make(cookie)));
  }
  w.settle();
  CAF_CHECK_EQUAL(w.network.statistics().doorbells, 1u);
  CAF_CHECK_EQUAL(w.network.statistics().completions, 4u);
  CAF_CHECK_EQUAL(w.network.statistics().peer_changes, 1u);
  CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 64u);
}

CAF_TEST(a batch for one client is one doorbell whatever was posted before) {
  world w(pool_of(8));
  const client_id client = w.add();
  const client_id other = w.add();
  std::uint64_t cookie = 0;
  std::uint64_t batches = 0;
  for (const client_id one : {client, client, other, client}) {
    for (const std::uint32_t size : {1U, 10U, 16U, 31U, 32U, 33U, 64U, 2U}) {
      for (std::uint32_t number = 0; number < size; ++number) {
        must(w.pool->submit(one, w.make(++cookie)));
      }
      w.settle();
      CAF_CHECK_EQUAL(w.network.statistics().doorbells, ++batches);
      CAF_CHECK_EQUAL(w.pool->statistics().doorbells, batches);
      CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, cookie);
    }
  }
}

CAF_TEST(a batch above the credit of one initiator is one doorbell for each that it needs) {
  dci_scheduler_options options = pool_of(8);
  options.small_sends_max = 0;
  for (const std::uint32_t size : {65U, 128U, 129U, 512U}) {
    world w(options);
    const client_id client = w.add();
    for (std::uint32_t number = 0; number < size; ++number) {
      must(w.pool->submit(client, w.make(number)));
    }
    w.run();
    CAF_CHECK_EQUAL(w.network.statistics().doorbells, (size + 63) / 64);
    CAF_CHECK_EQUAL(w.pool->statistics().posted, size);
  }
}

CAF_TEST(a batch of small transfers of a client that is alone is one doorbell) {
  for (const std::uint32_t size : {65U, 512U, 1000U, 1024U, 1025U, 4096U}) {
    world w(pool_of(8));
    const client_id client = w.add();
    for (std::uint32_t number = 0; number < size; ++number) {
      must(w.pool->submit(client, w.make(number)));
    }
    w.run();
    CAF_CHECK_EQUAL(w.network.statistics().doorbells, (size + 1023) / 1024);
    CAF_CHECK_EQUAL(w.pool->statistics().posted, size);
  }
  // Their bytes are bounded.
  dci_scheduler_options options = pool_of(8);
  options.small_bytes_max = 100 * 64;
  for (const std::uint32_t size : {100U, 101U, 800U}) {
    world w(options);
    const client_id client = w.add();
    for (std::uint32_t number = 0; number < size; ++number) {
      must(w.pool->submit(client, w.make(number, 64)));
    }
    w.run();
    CAF_CHECK_EQUAL(w.network.statistics().doorbells, (size + 99) / 100);
    CAF_CHECK_EQUAL(w.pool->statistics().posted, size);
  }
}

CAF_TEST(small transfers stay within the plain credit while others wait) {
  world w(pool_of(8));
  const client_id client = w.add();
  const client_id other = w.add();
  for (std::uint32_t number = 0; number < 1000; ++number) {
    must(w.pool->submit(client, w.make(number)));
    must(w.pool->submit(other, w.make(1000 + number)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.pool->statistics().posted, 8U * 64U);
  w.settle();
  CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 2000u);
}

CAF_TEST(the depth of queues and completions of the device bounds what is posted) {
  for (const bool by_completions : {false, true}) {
    simulated_node_options tight;
    (by_completions ? tight.completions_max : tight.sends_max) = by_completions ? 4096 : 512;
    dci_scheduler_options options = pool_of(8);
    options.transfers_max = options.transfers_client_max = 5000;
    world w(options, {}, tight);
    const client_id client = w.add();
    for (std::uint32_t number = 0; number < 5000; ++number) {
      must(w.pool->submit(client, w.make(number)));
    }
    w.run();
    CAF_CHECK_EQUAL(w.pool->statistics().posted, 4096u);
    w.settle();
    CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 5000u);
  }
}

CAF_TEST(while others wait a client keeps its initiator as long as its quota lasts) {
  dci_scheduler_options options = pool_of(4);
  options.quota = 8;
  world w(options);
  const client_id first = w.add();
  const client_id other = w.add();
  const auto both = [&](std::uint64_t cookie) {
    must(w.pool->submit(first, w.make(cookie)));
    must(w.pool->submit(other, w.make(100 + cookie)));
    w.settle();
  };
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) {
    both(cookie);
  }
  CAF_CHECK_EQUAL(w.pool->statistics().attachments, 2u);
  must(w.pool->submit(first, w.make(8))); // alone, so it may stay
  w.settle();
  CAF_CHECK_EQUAL(w.pool->statistics().attachments, 2u);
  both(9);
  CAF_CHECK_EQUAL(w.pool->statistics().attachments, 3u);
}

CAF_TEST(no initiator has more posted than its credit in requests and in bytes) {
  dci_scheduler_options options = pool_of(2);
  options.sends_max = 4;
  options.small_sends_max = 0;
  options.bytes_posted_max = 3000;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 20; ++cookie) {
    must(w.pool->submit(client, w.make(cookie, 64)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.pool->statistics().posted, 8u);
  w.settle();
  CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 20u);
  for (std::uint64_t cookie = 20; cookie < 40; ++cookie) {
    must(w.pool->submit(client, w.make(cookie, 1400)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.pool->statistics().posted, 4u);
  must(w.pool->submit(client, w.make(40, 5000))); // more than the bound, and alone on an initiator
  w.settle();
  CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 41u);
}

CAF_TEST(bounds are kept and broken requests refused with a sentence) {
  dci_scheduler_options options = pool_of(1);
  options.clients_max = 2;
  options.transfers_max = 6;
  options.transfers_client_max = 4;
  options.transfer_bytes_max = 1000;
  world w(options);
  const client_id first = w.add();
  const client_id other = w.add();
  client_id third = 0;
  CAF_CHECK(w.pool->attach(w.host.device->self(), 1, 1, third).code == errc::queue_full);
  for (std::uint64_t cookie = 0; cookie < 4; ++cookie) {
    must(w.pool->submit(first, w.make(cookie)));
  }
  CAF_CHECK(w.pool->submit(first, w.make(4)).code == errc::queue_full);
  must(w.pool->submit(other, w.make(5)));
  must(w.pool->submit(other, w.make(6)));
  CAF_CHECK(w.pool->submit(other, w.make(7)).code == errc::queue_full);
  w.settle();
  CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 6u);
  CAF_CHECK(w.pool->submit(first, w.make(8, 1001)).code == errc::invalid_argument);
  CAF_CHECK(w.pool->submit(first, w.make(8, 0)).code == errc::invalid_argument);
  transfer wraps = w.make(8);
  wraps.remote_address = ~std::uint64_t{0} - 10;
  CAF_CHECK(w.pool->submit(first, wraps).code == errc::invalid_argument);
  CAF_CHECK(w.pool->submit(first + (1ULL << 32U), w.make(8)).code == errc::not_found);
  CAF_CHECK(w.pool->submit(0, w.make(8)).code == errc::not_found);
  std::unique_ptr<dci_scheduler> none;
  CAF_CHECK(dci_scheduler::create(*w.server.device, pool_of(0), none).code == errc::invalid_argument);
}

CAF_TEST(a device without DC gives one clear sentence) {
  simulated_network network({});
  machine server(network, 64, {.dc = false});
  std::unique_ptr<dci_scheduler> pool;
  const status refused = dci_scheduler::create(*server.device, pool_of(2), pool);
  CAF_CHECK(refused.code == errc::unsupported && !refused.text.empty() && pool == nullptr);
}

CAF_TEST(each error status ends each transfer on the initiator exactly once and the initiator comes back) {
  for (const completion_status status : errors()) {
    world w(pool_of(1));
    const client_id guilty = w.add();
    const client_id innocent = w.add();
    w.network.inject(w.pool->queue_pair_numbers()[0], status);
    must(w.pool->submit(guilty, w.make(1)));
    must(w.pool->submit(innocent, w.make(2)));
    w.settle();
    const auto failed = w.of(1);
    CAF_REQUIRE_EQUAL(failed.size(), 1u);
    CAF_CHECK(failed[0].status == status);
    CAF_CHECK(failed[0].result ==
              (retryable(status) ? transfer_result::retryable : transfer_result::refused));
    CAF_CHECK(w.result(2) == transfer_result::retryable);
    CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, guilty), caused_by_peer(status) ? 1u : 0u);
    CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, innocent), 0u);
    CAF_CHECK_EQUAL(w.pool->submit(guilty, w.make(3)).ok(), !caused_by_peer(status));
    must(w.pool->submit(innocent, w.make(4)));
    w.settle();
    CAF_CHECK(w.result(4) == transfer_result::done);
    CAF_CHECK_EQUAL(w.pool->statistics().initiators_ready, 1u);
    CAF_CHECK_EQUAL(w.pool->statistics().rebuilt, 1u);
    CAF_CHECK(w.network.misuse().empty());
  }
}

CAF_TEST(a dead client takes an initiator down once and not for each of its transfers) {
  world w(pool_of(2));
  machine& doomed = w.more.emplace_back(w.network);
  const client_id dead = w.add(doomed);
  const client_id alive = w.add();
  w.network.kill(*doomed.device);
  for (std::uint64_t cookie = 0; cookie < 200; ++cookie) {
    must(w.pool->submit(dead, w.make(cookie)));
  }
  w.settle();
  for (std::uint64_t cookie = 0; cookie < 200; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::retryable);
  }
  CAF_CHECK(w.pool->statistics().rebuilt <= 2);
  must(w.pool->submit(alive, w.make(1000)));
  must(w.pool->detach(dead, w.outcomes));
  w.settle();
  CAF_CHECK(w.result(1000) == transfer_result::done);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, dead), 1u);
  CAF_CHECK_EQUAL(w.pool->statistics().clients, 1u);
}

CAF_TEST(what is still queued at its deadline is dropped and what is posted keeps its buffer) {
  dci_scheduler_options options = pool_of(1);
  options.sends_max = 1;
  options.small_sends_max = 0;
  options.posted_ns_min = second;
  world w(options, {.retry_ns = 100 * second});
  machine& doomed = w.more.emplace_back(w.network);
  const client_id dead = w.add(doomed);
  const client_id alive = w.add();
  w.network.kill(*doomed.device);
  must(w.pool->submit(dead, w.make(1, 64, direction::place, second / 10)));
  w.run();
  transfer waiting = w.make(2, 64, direction::place, second / 10);
  waiting.local = w.server.range(1000, 64);
  must(w.pool->submit(alive, waiting));
  must(w.pool->submit(alive, w.make(3)));
  w.settle(second / 2);
  CAF_CHECK(w.result(2) == transfer_result::deadline_exceeded);
  CAF_CHECK(w.of(1).empty());
  CAF_CHECK(w.network.in_use(w.server.memory.data(), 64));
  w.settle(second);
  CAF_CHECK(w.result(1) == transfer_result::deadline_exceeded);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, dead), 1u);
  CAF_CHECK(w.result(3) == transfer_result::done);
}

CAF_TEST(an initiator that does not report is destroyed and replaced) {
  dci_scheduler_options options = pool_of(1);
  options.posted_ns_min = second;
  world w(options);
  const client_id client = w.add();
  const std::uint32_t before = w.pool->queue_pair_numbers()[0];
  w.network.withhold_reports(before);
  must(w.pool->submit(client, w.make(1, 64, direction::place, second / 10)));
  w.settle(second * 3 / 2);
  CAF_CHECK(w.of(1).empty());
  w.settle(4 * second);
  CAF_CHECK(w.result(1) == transfer_result::deadline_exceeded);
  CAF_CHECK_EQUAL(w.pool->statistics().destroyed, 1u);
  CAF_CHECK(w.pool->queue_pair_numbers()[0] != before);
  must(w.pool->detach(client, w.outcomes));
  const client_id again = w.add();
  must(w.pool->submit(again, w.make(2)));
  w.settle();
  CAF_CHECK(w.result(2) == transfer_result::done);
}

CAF_TEST(detaching drops what is queued at once and waits for what is posted) {
  dci_scheduler_options options = pool_of(1);
  options.sends_max = 2;
  options.small_sends_max = 0;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 5; ++cookie) {
    must(w.pool->submit(client, w.make(cookie)));
  }
  w.run();
  must(w.pool->detach(client, w.outcomes));
  CAF_CHECK_EQUAL(w.outcomes.size(), 3u);
  for (std::uint64_t cookie = 2; cookie < 5; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::cancelled);
  }
  CAF_CHECK(w.pool->detach(client, w.outcomes).code == errc::not_found);
  CAF_CHECK(w.pool->submit(client, w.make(9)).code == errc::wrong_state);
  w.settle();
  CAF_CHECK(w.result(0) == transfer_result::done && w.result(1) == transfer_result::done);
  CAF_CHECK(w.outcomes.back().kind == outcome::what::session_ended);
  CAF_CHECK(w.pool->submit(client, w.make(9)).code == errc::not_found);
  const client_id idle = w.add();
  CAF_CHECK(idle != client);
  must(w.pool->detach(idle, w.outcomes));
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, idle), 1u);
  CAF_CHECK_EQUAL(w.pool->statistics().clients, 0u);
  CAF_CHECK(w.network.misuse().empty());
}

CAF_TEST(after a session ended no byte is written into the memory of its client) {
  std::uint64_t late = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    world w(pool_of(2), {.seed = seed});
    const client_id client = w.add();
    w.server.fill(0, 1024, 0x77);
    for (std::uint64_t cookie = 0; cookie < 40; ++cookie) {
      must(w.pool->submit(client, w.make(cookie, 1024)));
    }
    w.run();
    for (std::uint64_t steps = seed % 30; steps > 0; --steps) {
      w.network.step();
    }
    w.run();
    w.network.inject(w.pool->queue_pair_numbers()[0], completion_status::general);
    must(w.pool->detach(client, w.outcomes));
    while (w.count(outcome::what::session_ended, client) == 0) {
      w.network.step();
      w.run();
    }
    w.host.fill(0, 1024, 0xEE); // its key is still good
    w.settle();
    late += w.network.statistics().late_effects;
    CAF_CHECK(w.host.holds(0, 1024, 0xEE));
  }
  CAF_CHECK(late > 0);
}

CAF_TEST(closing ends everything at once and leaves no buffer with the device) {
  world w(pool_of(2));
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 300; ++cookie) {
    must(w.pool->submit(client, w.make(cookie, 64, direction::fetch)));
  }
  w.run();
  CAF_CHECK(w.network.in_use(w.server.memory.data(), 64));
  w.pool->close(w.outcomes);
  CAF_CHECK(!w.network.in_use(w.server.memory.data(), 64));
  w.server.fill(0, 64, 0xEE);
  w.network.settle();
  CAF_CHECK(w.server.holds(0, 64, 0xEE));
  for (std::uint64_t cookie = 0; cookie < 300; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::retryable);
  }
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, client), 1u);
  CAF_CHECK_EQUAL(w.pool->statistics().clients, 0u);
}

CAF_TEST(a device that is removed ends all transfers as retryable) {
  dci_scheduler_options options = pool_of(2);
  options.posted_ns_min = second;
  options.sends_max = 2;
  options.small_sends_max = 0;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) {
    must(w.pool->submit(client, w.make(cookie, 64, direction::place, 10 * second)));
  }
  w.run();
  w.network.kill(*w.server.device);
  w.settle(20 * second);
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::retryable ||
              w.result(cookie) == transfer_result::deadline_exceeded);
  }
  CAF_CHECK_EQUAL(w.pool->statistics().initiators_ready, 0u);
}

CAF_TEST(small transfers go on while another client moves large ones) {
  dci_scheduler_options options = pool_of(1);
  options.quantum_bytes = 4096;
  options.bytes_posted_max = 16'384;
  world w(options);
  const client_id large = w.add();
  const client_id small = w.add();
  for (std::uint64_t cookie = 0; cookie < 200; ++cookie) {
    must(w.pool->submit(large, w.make(cookie, 16'384)));
  }
  w.run();
  must(w.pool->submit(small, w.make(1000)));
  std::uint64_t large_before = 0;
  while (w.of(1000).empty()) {
    w.network.step();
    w.run();
  }
  large_before = w.pool->statistics().transfers_done;
  CAF_CHECK(large_before <= 4);
  w.settle();
  CAF_CHECK_EQUAL(w.pool->statistics().transfers_done, 201u);
}

CAF_TEST(ten thousand clients on eight initiators get the same number of bytes within ten percent) {
  constexpr std::uint32_t clients = 10'000;
  constexpr std::uint32_t rounds = 16;
  dci_scheduler_options options;
  options.clients_max = clients;
  options.transfers_max = clients * 8;
  options.quantum_bytes = 1024;
  options.cost_bytes_min = 256;
  world w(options);
  std::map<client_id, std::uint32_t> numbers;
  std::vector<std::uint64_t> bytes(clients);
  const auto length_of = [](std::uint32_t number) { return 256U << (number % 3); };
  for (std::uint32_t number = 0; number < clients; ++number) {
    numbers.emplace(w.add(), number);
    for (int queued = 0; queued < 8; ++queued) {
      must(w.pool->submit(w.clients[number], w.make(number, length_of(number))));
    }
  }
  // In the middle of a round, when some had their turn and others had not.
  constexpr std::uint64_t enough = std::uint64_t{clients} * 1024 * rounds + clients * 400ULL;
  std::uint64_t total = 0;
  while (total < enough) {
    w.outcomes.clear();
    w.run();
    for (const outcome& one : w.outcomes) {
      CAF_REQUIRE(one.result == transfer_result::done);
      const auto number = static_cast<std::uint32_t>(one.cookie);
      bytes[number] += length_of(number);
      total += length_of(number);
      must(w.pool->submit(one.client, w.make(number, length_of(number))));
    }
    w.network.advance(5000);
  }
  const auto [least, most] = std::minmax_element(bytes.begin(), bytes.end());
  CAF_MESSAGE("least " << *least << " bytes, most " << *most);
  CAF_CHECK(*most * 10 <= *least * 11);
}

CAF_TEST(queue pairs grow with the sum of servers and clients and not with their product) {
  constexpr std::uint32_t servers = 1000;
  constexpr std::uint32_t clients = 1000;
  constexpr std::uint32_t initiators = 8;
  simulated_network network({});
  machine host(network, 4096);
  std::vector<std::unique_ptr<dc_target>> targets(clients);
  for (std::uint32_t number = 0; number < clients; ++number) {
    must(host.device->create_dc_target(number, targets[number]));
  }
  struct server {
    machine at;
    std::unique_ptr<dci_scheduler> pool;
    explicit server(simulated_network& network) : at(network, 64) {}
  };
  std::vector<std::unique_ptr<server>> all;
  dci_scheduler_options options;
  options.initiators = initiators;
  options.clients_max = clients;
  options.transfers_max = 64;
  std::vector<outcome> outcomes;
  std::uint64_t done = 0;
  for (std::uint32_t number = 0; number < servers; ++number) {
    all.push_back(std::make_unique<server>(network));
    server& one = *all.back();
    must(dci_scheduler::create(*one.at.device, options, one.pool));
    std::vector<client_id> attached(clients);
    for (std::uint32_t client = 0; client < clients; ++client) {
      must(one.pool->attach(host.device->self(), targets[client]->number(), targets[client]->key(),
                            attached[client]));
    }
    for (std::uint32_t client = number % 100; client < clients; client += 100) {
      transfer sample;
      sample.local = one.at.range(0, 64);
      sample.remote_address = host.region->address();
      sample.rkey = host.region->rkey();
      sample.deadline_ns = far_away;
      must(one.pool->submit(attached[client], sample));
    }
    one.pool->run(network.now_ns(), outcomes);
    network.settle();
    one.pool->run(network.now_ns(), outcomes);
    done += one.pool->statistics().transfers_done;
    for (const client_id client : attached) {
      must(one.pool->detach(client, outcomes)); // sessions cost memory, but no queue pairs
    }
    outcomes.clear();
  }
  CAF_CHECK_EQUAL(done, std::uint64_t{servers} * 10);
  CAF_CHECK_EQUAL(network.statistics().queue_pairs, std::uint64_t{servers} * initiators + clients);
  CAF_CHECK_EQUAL(network.statistics().queue_pairs_peak, std::uint64_t{servers} * initiators + clients);
}

CAF_TEST(the wheel gives each number once and never before its time) {
  deadline_wheel wheel(100);
  std::map<std::uint32_t, std::uint64_t> times;
  std::uint64_t mixed = 1;
  std::uint64_t now_ns = 0;
  std::vector<std::uint32_t> over;
  for (int round = 0; round < 5000; ++round) {
    mixed = mixed * 6364136223846793005ULL + 1442695040888963407ULL;
    const auto number = static_cast<std::uint32_t>(mixed >> 33U) % 100;
    if (times.count(number) == 0) {
      times[number] = now_ns + (mixed >> 20U) % (20 * second);
      wheel.add(number, times[number]);
    } else if (round % 3 == 0) {
      wheel.remove(number);
      times.erase(number);
    }
    now_ns += (mixed >> 40U) % (round % 500 == 0 ? 20 * second : second / 20);
    over.clear();
    wheel.expire(now_ns, over);
    for (const std::uint32_t one : over) {
      CAF_REQUIRE_EQUAL(times.count(one), 1u);
      CAF_CHECK(times[one] <= now_ns);
      times.erase(one);
    }
    for (const auto& [one, time_ns] : times) {
      CAF_CHECK(time_ns + deadline_wheel::tick_ns > now_ns);
    }
    CAF_CHECK_EQUAL(wheel.empty(), times.empty());
  }
}
