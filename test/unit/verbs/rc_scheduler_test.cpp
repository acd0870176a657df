// An RC queue pair for each client: who is served when, what an error costs whom, and when a buffer is whose.
#include "rc_world.hpp"

#define CAF_SUITE rc_scheduler
#include <caf/test/unit_test.hpp>

#include <map>
#include <string>

using namespace verbs_test;
using world = rc_world;

CAF_TEST(transfers fetch from and place into the memory of their client) {
  world w;
  const client_id client = w.add();
  w.host.fill(0, 64, 0x11);
  must(w.engine->submit(client, w.make(1, 64, direction::fetch)));
  w.settle();
  CAF_CHECK(w.result(1) == transfer_result::done);
  CAF_CHECK(w.server.holds(0, 64, 0x11) && w.server.holds(64, 64, 0));
  w.server.fill(0, 64, 0x22);
  must(w.engine->submit(client, w.make(2)));
  w.settle();
  CAF_CHECK(w.result(2) == transfer_result::done);
  CAF_CHECK(w.host.holds(0, 64, 0x22) && w.host.holds(64, 64, 0));
  CAF_CHECK_EQUAL(w.engine->engine_facts().bytes_done, 128u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().queue_pairs_ready, 1u);
}

CAF_TEST(both sides use the smaller path MTU and no more READs than the peer answers) {
  simulated_node_options small;
  small.path_mtu_bytes = 1024;
  small.reads_max = 2;
  world w;
  machine& far = w.more.emplace_back(w.network, 4096, small);
  rc_queue_pair& pair = w.make_pair(far);
  client_id client = 0;
  peer_address own;
  must(w.engine->attach(to_peer_address(pair.address()), client, own));
  must(pair.connect(to_rc_address(own)));
  CAF_CHECK(own.what == peer_address::kind::rc && own.number == w.engine->queue_pair_number(client));
  CAF_CHECK_EQUAL(own.mtu_bytes, 4096u);
  CAF_CHECK_EQUAL(pair.address().mtu_bytes, 1024u);
  for (std::uint64_t cookie = 0; cookie < 20; ++cookie) {
    transfer one = w.make(cookie, 64, direction::fetch);
    one.remote_address = far.region->address();
    one.rkey = far.region->rkey();
    must(w.engine->submit(client, one));
  }
  w.settle();
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 20u);
}

CAF_TEST(a batch for one client costs one doorbell and a completion for each sixteenth request) {
  rc_scheduler_options options = rc_options();
  options.sends_max = 64;
  world w(options);
  const client_id client = w.add();
  const client_id other = w.add();
  for (std::uint64_t cookie = 0; cookie < 64; ++cookie) {
    must(w.engine->submit(client, w.make(cookie)));
  }
  must(w.engine->submit(other, w.make(64)));
  w.settle();
  CAF_CHECK_EQUAL(w.network.statistics().doorbells, 2u);
  CAF_CHECK_EQUAL(w.network.statistics().completions, 5u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().doorbells, 2u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 65u);
}

CAF_TEST(a large transfer is signalled by itself) {
  rc_scheduler_options options = rc_options();
  options.signal_bytes = 1000;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 4; ++cookie) {
    must(w.engine->submit(client, w.make(cookie, 600)));
  }
  w.settle();
  CAF_CHECK_EQUAL(w.network.statistics().completions, 2u);
}

CAF_TEST(no client has more posted than its bounds in requests and in bytes) {
  rc_scheduler_options options = rc_options();
  options.sends_max = 4;
  options.small_sends_max = 0;
  options.bytes_client_max = 3000;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 20; ++cookie) {
    must(w.engine->submit(client, w.make(cookie, 64)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.engine->engine_facts().posted, 4u);
  w.settle();
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 20u);
  for (std::uint64_t cookie = 20; cookie < 40; ++cookie) {
    must(w.engine->submit(client, w.make(cookie, 1400)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.engine->engine_facts().posted, 2u);
  must(w.engine->submit(client, w.make(40, 5000))); // more than the bound, and alone
  w.settle();
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 41u);
}

CAF_TEST(a batch of small transfers is one doorbell) {
  for (const std::uint32_t size : {33U, 1000U, 1024U}) {
    world w(rc_scheduler_options{});
    const client_id client = w.add();
    for (std::uint64_t cookie = 0; cookie < size; ++cookie) {
      must(w.engine->submit(client, w.make(cookie)));
    }
    w.run();
    CAF_CHECK_EQUAL(w.engine->engine_facts().posted, size);
    CAF_CHECK_EQUAL(w.network.statistics().doorbells, 1u);
    w.settle();
    CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, size);
    CAF_CHECK_EQUAL(w.network.statistics().doorbells, 1u);
  }
  rc_scheduler_options options;
  options.small_bytes_max = 100 * 64;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 1000; ++cookie) {
    must(w.engine->submit(client, w.make(cookie, 64)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.engine->engine_facts().posted, 100u);
}

CAF_TEST(the first clients have deep queue pairs and those who come later what is left) {
  rc_scheduler_options options;
  options.clients_max = 100;
  options.deep_reports_max = 8000;
  simulated_node_options shallow;
  shallow.sends_max = 700;
  world w(options, {}, shallow);
  const auto posted_by_a_new_one = [&] {
    const client_id client = w.add();
    const auto before = w.engine->engine_facts().posted;
    for (std::uint64_t cookie = 0; cookie < 1000; ++cookie) {
      must(w.engine->submit(client, w.make(cookie)));
    }
    w.run();
    const auto after = w.engine->engine_facts().posted - before;
    w.settle();
    return after;
  };
  CAF_CHECK_EQUAL(posted_by_a_new_one(), 700u); // the device's
  std::uint64_t last = 700;
  for (int client = 1; client < 100; ++client) {
    const auto now = posted_by_a_new_one();
    CAF_CHECK(now <= last && now >= 32);
    last = now;
  }
  CAF_CHECK_EQUAL(last, 32u);
  // What is given back is for others.
  must(w.engine->detach(w.clients.front(), w.outcomes));
  w.settle();
  CAF_CHECK(posted_by_a_new_one() > 32);
  for (const client_id client : w.clients) {
    static_cast<void>(w.engine->detach(client, w.outcomes));
  }
  w.settle();
  CAF_CHECK_EQUAL(w.engine->statistics().deep_free, 8000u);
}

CAF_TEST(clients that do not move take a share of what may be posted and never all of it) {
  rc_scheduler_options options = rc_options();
  options.bytes_posted_max = 12'000;
  options.small_sends_max = 0;
  world w(options, {.retry_ns = 100 * second});
  machine& stuck = w.more.emplace_back(w.network);
  const client_id first = w.add(stuck);
  const client_id other = w.add(stuck);
  const client_id alive = w.add();
  w.network.kill(*stuck.device);
  for (std::uint64_t cookie = 0; cookie < 100; ++cookie) {
    must(w.engine->submit(first, w.make(cookie, 100)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.engine->engine_facts().posted, 32u); // sends_max
  for (std::uint64_t cookie = 100; cookie < 200; ++cookie) {
    must(w.engine->submit(other, w.make(cookie, 1000)));
  }
  w.run();
  CAF_CHECK_EQUAL(w.engine->engine_facts().posted, 39u); // 7,000 of the 8,800 bytes that were left
  for (std::uint64_t cookie = 200; cookie < 300; ++cookie) {
    must(w.engine->submit(alive, w.make(cookie, 1000)));
  }
  w.settle(second);
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 100u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().posted, 39u);
}

CAF_TEST(bounds are kept and broken requests refused with a sentence) {
  rc_scheduler_options options = rc_options();
  options.clients_max = 2;
  options.transfers_max = 6;
  options.transfers_client_max = 4;
  options.transfer_bytes_max = 1000;
  world w(options);
  const client_id first = w.add();
  const client_id other = w.add();
  const peer_address good = to_peer_address(w.make_pair(w.host).address());
  client_id third = 0;
  peer_address own;
  CAF_CHECK(w.engine->attach(good, third, own).code == errc::queue_full);
  for (std::uint64_t cookie = 0; cookie < 4; ++cookie) {
    must(w.engine->submit(first, w.make(cookie)));
  }
  CAF_CHECK(w.engine->submit(first, w.make(4)).code == errc::queue_full);
  must(w.engine->submit(other, w.make(5)));
  must(w.engine->submit(other, w.make(6)));
  CAF_CHECK(w.engine->submit(other, w.make(7)).code == errc::queue_full);
  w.settle();
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 6u);
  CAF_CHECK(w.engine->submit(first, w.make(8, 1001)).code == errc::invalid_argument);
  CAF_CHECK(w.engine->submit(first, w.make(8, 0)).code == errc::invalid_argument);
  transfer wraps = w.make(8);
  wraps.remote_address = ~std::uint64_t{0} - 10;
  CAF_CHECK(w.engine->submit(first, wraps).code == errc::invalid_argument);
  CAF_CHECK(w.engine->submit(first + (1ULL << 32U), w.make(8)).code == errc::not_found);
  CAF_CHECK(w.engine->submit(0, w.make(8)).code == errc::not_found);
  must(w.engine->detach(other, w.outcomes));
  const auto refusal = [&](const auto& change) {
    peer_address bad = good;
    change(bad);
    const status refused = w.engine->attach(bad, third, own);
    CAF_CHECK(!refused.text.empty());
    return refused.code;
  };
  CAF_CHECK(refusal([](auto& bad) { bad.what = peer_address::kind::dc; }) == errc::unsupported);
  CAF_CHECK(refusal([](auto& bad) { bad.number = 0; }) == errc::invalid_argument);
  CAF_CHECK(refusal([](auto& bad) { bad.number = 1U << 24U; }) == errc::invalid_argument);
  CAF_CHECK(refusal([](auto& bad) { bad.packet_number = 1U << 24U; }) == errc::invalid_argument);
  CAF_CHECK(refusal([](auto& bad) { bad.mtu_bytes = 1000; }) == errc::invalid_argument);
  CAF_CHECK(refusal([](auto& bad) { bad.mtu_bytes = 8192; }) == errc::invalid_argument);
  CAF_CHECK(refusal([](auto& bad) { bad.reads_served_max = 0; }) == errc::invalid_argument);
  must(w.engine->attach(good, third, own));
  CAF_CHECK(third != other && third != first);
  std::unique_ptr<rc_scheduler> none;
  options.clients_max = 0;
  CAF_CHECK(rc_scheduler::create(*w.server.device, options, none).code == errc::invalid_argument);
}

CAF_TEST(what the completion queue has room for is shared out and more clients are refused) {
  world wide({}, {}, {});
  CAF_CHECK_EQUAL(wide.engine->statistics().sends_client, 32u);
  simulated_node_options tight;
  tight.completions_max = 32'767; // as soft-RoCE has it
  world w({}, {}, tight, 4200);
  CAF_CHECK_EQUAL(w.engine->statistics().sends_client, 4u);
  CAF_CHECK_EQUAL(w.engine->statistics().deep_free, 8192u); // a third of what there is beside messages
  std::uint64_t attached = 0;
  for (;;) {
    rc_queue_pair& pair = w.make_pair(w.host);
    client_id made = 0;
    peer_address own;
    const status outcome = w.engine->attach(to_peer_address(pair.address()), made, own);
    if (!outcome.ok()) {
      CAF_CHECK(outcome.code == errc::queue_full);
      break;
    }
    w.clients.push_back(made);
    ++attached;
  }
  CAF_CHECK_EQUAL(attached, 4096u);
  CAF_CHECK(w.engine->statistics().deep_free < 8u);
  must(w.engine->detach(w.clients[7], w.outcomes));
  static_cast<void>(w.add());

  tight.completions_max = 40;
  rc_scheduler_options few = rc_options();
  few.clients_max = 100;
  world little(few, {}, tight);
  for (int client = 0; client < 7; ++client) { // 30 reports, and 4 for each
    static_cast<void>(little.add());
  }
  client_id made = 0;
  peer_address own;
  CAF_CHECK(little.engine->attach(to_peer_address(little.make_pair(little.host).address()), made, own).code ==
            errc::queue_full);
}

CAF_TEST(each error status breaks its own session and no other) {
  for (const completion_status status : errors()) {
    rc_scheduler_options options = rc_options();
    options.sends_max = 4;
    options.small_sends_max = 0;
    world w(options);
    const client_id guilty = w.add();
    const client_id innocent = w.add();
    const std::uint32_t before = w.engine->queue_pair_number(guilty);
    w.network.inject(before, status);
    for (std::uint64_t cookie = 1; cookie <= 6; ++cookie) { // two of them stay queued
      must(w.engine->submit(guilty, w.make(cookie)));
    }
    must(w.engine->submit(innocent, w.make(10)));
    w.settle();
    const auto failed = w.of(1);
    CAF_REQUIRE_EQUAL(failed.size(), 1u);
    CAF_CHECK(failed[0].status == status);
    CAF_CHECK(failed[0].result ==
              (retryable(status) ? transfer_result::retryable : transfer_result::refused));
    for (std::uint64_t cookie = 2; cookie <= 6; ++cookie) {
      CAF_CHECK(w.result(cookie) == transfer_result::retryable);
    }
    CAF_CHECK(w.result(10) == transfer_result::done);
    CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, guilty), 1u);
    CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, innocent), 0u);
    CAF_CHECK(w.engine->submit(guilty, w.make(11)).code == errc::wrong_state);
    CAF_CHECK_EQUAL(w.engine->queue_pair_number(guilty), 0u); // gone with its last report
    CAF_CHECK_EQUAL(w.engine->engine_facts().queue_pairs_ready, 1u);
    must(w.engine->detach(guilty, w.outcomes));
    CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, guilty), 1u);
    const client_id again = w.add();
    must(w.engine->submit(again, w.make(12)));
    must(w.engine->submit(innocent, w.make(13)));
    w.settle();
    CAF_CHECK(w.result(12) == transfer_result::done && w.result(13) == transfer_result::done);
    CAF_CHECK_EQUAL(w.engine->engine_facts().destroyed, 0u);
    CAF_CHECK(w.network.misuse().empty());
  }
}

CAF_TEST(a key that was withdrawn is refused) {
  world w;
  const client_id client = w.add();
  transfer one = w.make(1);
  one.rkey += 1000;
  must(w.engine->submit(client, one));
  w.settle();
  CAF_CHECK(w.result(1) == transfer_result::refused);
  CAF_CHECK(w.of(1)[0].status == completion_status::remote_access);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, client), 1u);
}

CAF_TEST(what is still queued at its deadline is dropped and what is posted keeps its buffer) {
  rc_scheduler_options options = rc_options();
  options.sends_min = options.sends_max = 1;
  options.small_sends_max = 0;
  options.posted_ns_min = second;
  world w(options, {.retry_ns = 100 * second});
  machine& doomed = w.more.emplace_back(w.network);
  const client_id dead = w.add(doomed);
  const client_id alive = w.add();
  w.network.kill(*doomed.device);
  must(w.engine->submit(dead, w.make(1, 64, direction::place, second / 10)));
  transfer waiting = w.make(2, 64, direction::place, second / 10);
  waiting.local = w.server.range(1000, 64);
  must(w.engine->submit(dead, waiting));
  must(w.engine->submit(dead, w.make(3)));
  must(w.engine->submit(alive, w.make(4)));
  w.settle(second / 2);
  CAF_CHECK(w.result(2) == transfer_result::deadline_exceeded);
  CAF_CHECK(w.of(1).empty() && w.of(3).empty());
  CAF_CHECK(w.result(4) == transfer_result::done);
  CAF_CHECK(w.network.in_use(w.server.memory.data(), 64));
  w.settle(second);
  CAF_CHECK(w.result(1) == transfer_result::deadline_exceeded);
  CAF_CHECK(w.result(3) == transfer_result::retryable);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, dead), 1u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().destroyed, 0u);
  must(w.engine->submit(alive, w.make(5)));
  w.settle();
  CAF_CHECK(w.result(5) == transfer_result::done);
}

CAF_TEST(a queue pair that does not report is destroyed) {
  rc_scheduler_options options = rc_options();
  options.posted_ns_min = second;
  world w(options);
  const client_id client = w.add();
  w.network.withhold_reports(w.engine->queue_pair_number(client));
  must(w.engine->submit(client, w.make(1, 64, direction::place, second / 10)));
  w.settle(second * 3 / 2);
  CAF_CHECK(w.of(1).empty());
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, client), 1u);
  w.settle(4 * second);
  CAF_CHECK(w.result(1) == transfer_result::deadline_exceeded);
  CAF_CHECK_EQUAL(w.engine->engine_facts().destroyed, 1u);
  CAF_CHECK_EQUAL(w.engine->queue_pair_number(client), 0u);
  must(w.engine->detach(client, w.outcomes));
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, client), 1u);
}

CAF_TEST(detaching drops what is queued at once and waits for what is posted) {
  rc_scheduler_options options = rc_options();
  options.sends_min = options.sends_max = 2;
  options.small_sends_max = 0;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 5; ++cookie) {
    must(w.engine->submit(client, w.make(cookie)));
  }
  w.run();
  must(w.engine->detach(client, w.outcomes));
  CAF_CHECK_EQUAL(w.outcomes.size(), 3u);
  for (std::uint64_t cookie = 2; cookie < 5; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::cancelled);
  }
  CAF_CHECK(w.engine->detach(client, w.outcomes).code == errc::not_found);
  CAF_CHECK(w.engine->submit(client, w.make(9)).code == errc::wrong_state);
  w.settle();
  CAF_CHECK(w.result(0) == transfer_result::done && w.result(1) == transfer_result::done);
  CAF_CHECK(w.outcomes.back().kind == outcome::what::session_ended);
  CAF_CHECK(w.engine->submit(client, w.make(9)).code == errc::not_found);
  const client_id idle = w.add();
  CAF_CHECK(idle != client);
  must(w.engine->detach(idle, w.outcomes));
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, idle), 1u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().clients, 0u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().queue_pairs_ready, 0u);
  CAF_CHECK(w.network.misuse().empty());
}

CAF_TEST(after a session ended no byte is written into the memory of its client) {
  std::uint64_t late = 0;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    world w(rc_options(), {.seed = seed});
    const client_id client = w.add();
    w.server.fill(0, 1024, 0x77);
    for (std::uint64_t cookie = 0; cookie < 40; ++cookie) {
      must(w.engine->submit(client, w.make(cookie, 1024)));
    }
    w.run();
    for (std::uint64_t steps = seed % 30; steps > 0; --steps) {
      w.network.step();
    }
    w.run();
    w.network.inject(w.engine->queue_pair_number(client), completion_status::general);
    must(w.engine->detach(client, w.outcomes));
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
  world w;
  const client_id client = w.add();
  const client_id other = w.add();
  for (std::uint64_t cookie = 0; cookie < 300; ++cookie) {
    must(w.engine->submit(cookie % 2 == 0 ? client : other, w.make(cookie, 64, direction::fetch)));
  }
  w.run();
  CAF_CHECK(w.network.in_use(w.server.memory.data(), 64));
  w.engine->close(w.outcomes);
  CAF_CHECK(!w.network.in_use(w.server.memory.data(), 64));
  w.server.fill(0, 64, 0xEE);
  w.network.settle();
  CAF_CHECK(w.server.holds(0, 64, 0xEE));
  for (std::uint64_t cookie = 0; cookie < 300; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::retryable);
  }
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, client), 1u);
  CAF_CHECK_EQUAL(w.count(outcome::what::session_ended, other), 1u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().clients, 0u);
  CAF_CHECK_EQUAL(w.engine->engine_facts().queue_pairs_ready, 0u);
}

CAF_TEST(a device that is removed ends all transfers) {
  rc_scheduler_options options = rc_options();
  options.posted_ns_min = second;
  options.sends_min = options.sends_max = 2;
  options.small_sends_max = 0;
  world w(options);
  const client_id client = w.add();
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) {
    must(w.engine->submit(client, w.make(cookie, 64, direction::place, 10 * second)));
  }
  w.run();
  w.network.kill(*w.server.device);
  w.settle(20 * second);
  for (std::uint64_t cookie = 0; cookie < 8; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::retryable ||
              w.result(cookie) == transfer_result::deadline_exceeded);
  }
  CAF_CHECK_EQUAL(w.engine->engine_facts().queue_pairs_ready, 0u);
  client_id made = 0;
  peer_address own;
  CAF_CHECK(w.engine->attach(to_peer_address(w.pairs[0]->address()), made, own).code == errc::device_failed);
}

CAF_TEST(a device that fails between two batches breaks the session and answers what it refused) {
  world w;
  const client_id client = w.add();
  w.network.kill(*w.server.device);
  for (std::uint64_t cookie = 0; cookie < 100; ++cookie) {
    must(w.engine->submit(client, w.make(cookie)));
  }
  w.run();
  for (std::uint64_t cookie = 0; cookie < 100; ++cookie) {
    CAF_CHECK(w.result(cookie) == transfer_result::retryable);
  }
  CAF_CHECK_EQUAL(w.count(outcome::what::session_broken, client), 1u);
  CAF_CHECK_EQUAL(w.engine->queue_pair_number(client), 0u);
}

CAF_TEST(small transfers go on while another client moves large ones) {
  rc_scheduler_options options = rc_options();
  options.quantum_bytes = 4096;
  options.bytes_posted_max = 16'384;
  world w(options);
  const client_id large = w.add();
  const client_id small = w.add();
  for (std::uint64_t cookie = 0; cookie < 200; ++cookie) {
    must(w.engine->submit(large, w.make(cookie, 16'384)));
  }
  w.run();
  must(w.engine->submit(small, w.make(1000)));
  while (w.of(1000).empty()) {
    w.network.step();
    w.run();
  }
  CAF_CHECK(w.engine->engine_facts().transfers_done <= 4);
  w.settle();
  CAF_CHECK_EQUAL(w.engine->engine_facts().transfers_done, 201u);
}

CAF_TEST(four thousand clients get the same number of bytes within ten percent) {
  constexpr std::uint32_t clients = 4096;
  constexpr std::uint32_t rounds = 16;
  rc_scheduler_options options;
  options.transfers_max = clients * 8;
  options.quantum_bytes = 1024;
  options.cost_bytes_min = 256;
  options.posted_max = 512; // far less than they have
  world w(options, {}, {}, clients);
  std::map<client_id, std::uint32_t> numbers;
  std::vector<std::uint64_t> bytes(clients);
  const auto length_of = [](std::uint32_t number) { return 256U << (number % 3); };
  for (std::uint32_t number = 0; number < clients; ++number) {
    numbers.emplace(w.add(), number);
    for (int queued = 0; queued < 8; ++queued) {
      must(w.engine->submit(w.clients[number], w.make(number, length_of(number))));
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
      must(w.engine->submit(one.client, w.make(number, length_of(number))));
    }
    w.network.advance(5000);
  }
  const auto [least, most] = std::minmax_element(bytes.begin(), bytes.end());
  CAF_MESSAGE("least " << *least << " bytes, most " << *most);
  CAF_CHECK(*most * 10 <= *least * 11);
}
