// The simulated fabric holds everybody to the rules of RC and DC. What it enforces is what tests of its users
// may rely on.
#include "machines.hpp"

#define CAF_SUITE simulated_fabric
#include <caf/test/unit_test.hpp>

#include <poll.h>

using namespace verbs_test;

namespace {

struct rc_end {
  std::unique_ptr<rc_queue_pair> pair;
  explicit rc_end(machine& owner, std::uint32_t sends_max = 64, std::uint32_t reads_max = 16) {
    queue_pair_options options;
    options.completions = owner.completions.get();
    options.sends_max = sends_max;
    options.receives_max = 8;
    options.reads_max = reads_max;
    options.segments_max = 2;
    options.inline_bytes_max = 64;
    must(owner.device->create_rc(options, pair));
  }
};

/// A server and a client with an RC connection, and beside it an initiator here and a target there.
struct world {
  simulated_network network;
  machine server;
  machine client;
  rc_end here;
  rc_end there;
  std::unique_ptr<dc_initiator> initiator;
  std::unique_ptr<dc_target> target;
  std::unique_ptr<address_handle> handle;
  dc_address to;

  explicit world(std::uint64_t seed = 1, const simulated_node_options& client_options = {})
      : network({.seed = seed}), server(network), client(network, 4096, client_options), here(server),
        there(client) {
    must(here.pair->connect(there.pair->address()));
    must(there.pair->connect(here.pair->address()));
    queue_pair_options options;
    options.completions = server.completions.get();
    must(server.device->create_dc_initiator(options, initiator));
    must(client.device->create_dc_target(77, target));
    must(server.device->create_address_handle(client.device->self(), handle));
    to = {handle.get(), target->number(), target->key()};
  }

  work_request request(operation kind, const local_range& local, std::size_t remote_offset = 0,
                       std::uint64_t id = 1) {
    work_request made;
    made.id = id;
    made.kind = kind;
    made.local = {&local, 1};
    made.remote_address = client.region->address() + remote_offset;
    made.rkey = client.region->rkey();
    return made;
  }
  work_request dc_request(operation kind, const local_range& local, std::size_t remote_offset = 0,
                          std::uint64_t id = 1) {
    work_request made = request(kind, local, remote_offset, id);
    made.target = &to;
    return made;
  }
  static post_result post(queue_pair& pair, const work_request& one) { return pair.post({&one, 1}); }

  /// The only report of one request on RC.
  completion_status ending(const work_request& one) {
    must(post(*here.pair, one).outcome);
    network.settle();
    const auto found = server.reports();
    MEMKV_ASSERT(found.size() == 1, "one request has one report");
    return found[0].status;
  }
};

} // namespace

CAF_TEST(a READ fetches and a WRITE places exactly the range that was named on RC and on DC) {
  world w;
  w.client.fill(0, 1024, 0x11);
  const local_range into = w.server.range(100, 300);
  must(w.post(*w.here.pair, w.request(operation::read, into, 50)).outcome);
  w.network.settle();
  CAF_REQUIRE_EQUAL(w.server.reports().size(), 1u);
  CAF_CHECK(w.server.holds(0, 100, 0) && w.server.holds(100, 300, 0x11) && w.server.holds(400, 1000, 0));

  w.server.fill(2000, 300, 0x22);
  const local_range from = w.server.range(2000, 300);
  must(w.post(*w.initiator, w.dc_request(operation::write, from, 3000)).outcome);
  w.network.settle();
  CAF_REQUIRE_EQUAL(w.server.reports().size(), 1u);
  CAF_CHECK(w.client.holds(2999, 1, 0) && w.client.holds(3000, 300, 0x22) && w.client.holds(3300, 100, 0));
  CAF_CHECK(w.network.misuse().empty());
}

CAF_TEST(a SEND takes the oldest receive and both sides get a report) {
  world w;
  const receive_request receives[] = {{11, w.client.range(0, 100)}, {12, w.client.range(100, 100)}};
  must(w.there.pair->post_receives(receives).outcome);
  w.server.fill(0, 40, 0x33);
  const local_range from = w.server.range(0, 40);
  CAF_CHECK(w.ending(w.request(operation::send, from)) == completion_status::success);
  const auto received = w.client.reports();
  CAF_REQUIRE_EQUAL(received.size(), 1u);
  CAF_CHECK_EQUAL(received[0].id, 11u);
  CAF_CHECK_EQUAL(received[0].bytes, 40u);
  CAF_CHECK(received[0].kind == operation::receive && w.client.holds(0, 40, 0x33));
  CAF_CHECK_EQUAL(w.there.pair->outstanding(), 1u);
}

CAF_TEST(what is posted inline belongs to the caller as soon as post returns) {
  world w;
  w.server.fill(0, 64, 0x44);
  const local_range from{address_of(w.server.memory.data()), 64, 0};
  work_request one = w.request(operation::write, from);
  one.inlined = true;
  must(w.post(*w.here.pair, one).outcome);
  CAF_CHECK(!w.network.in_use(w.server.memory.data(), 64));
  w.server.fill(0, 64, 0x55);
  w.network.settle();
  CAF_CHECK(w.client.holds(0, 64, 0x44));
  work_request too_long = w.request(operation::write, from);
  const local_range longer = w.server.range(0, 65);
  too_long.local = {&longer, 1};
  too_long.inlined = true;
  CAF_CHECK(w.post(*w.here.pair, too_long).outcome.code == errc::invalid_argument);
}

CAF_TEST(each status that can be injected arrives and flushes what was posted behind it) {
  for (const completion_status status : errors()) {
    for (const bool dc : {false, true}) {
      world w(7);
      queue_pair& pair = dc ? static_cast<queue_pair&>(*w.initiator) : *w.here.pair;
      const local_range local = w.server.range(0, 64);
      std::vector<work_request> batch;
      for (std::uint64_t id = 0; id < 4; ++id) {
        batch.push_back(dc ? w.dc_request(operation::write, local, 0, id)
                           : w.request(operation::write, local, 0, id));
      }
      w.network.inject(pair.number(), status, 1);
      must(pair.post(batch).outcome);
      w.network.settle();
      const auto found = w.server.reports();
      CAF_REQUIRE_EQUAL(found.size(), 4u);
      CAF_CHECK(found[0].status == completion_status::success && found[1].status == status);
      CAF_CHECK(found[2].status == completion_status::flushed &&
                found[3].status == completion_status::flushed);
      CAF_CHECK(pair.state() == queue_pair_state::error);
      CAF_CHECK_EQUAL(pair.outstanding(), 0u);
      CAF_CHECK(!name(status).empty() && explain(status).back() == '.');
    }
  }
}

CAF_TEST(an initiator leaves the error state only when everything posted was reported) {
  world w;
  const local_range local = w.server.range(0, 64);
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.initiator->fail();
  CAF_CHECK(w.initiator->recover().code == errc::wrong_state);
  w.network.settle();
  CAF_CHECK(w.initiator->recover().code == errc::wrong_state); // in the queue, but not polled
  CAF_CHECK_EQUAL(w.network.misuse().size(), 2u);
  CAF_REQUIRE_EQUAL(w.server.reports().size(), 1u);
  CAF_CHECK(w.initiator->recover().ok());
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.settle();
  const auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 1u);
  CAF_CHECK(found[0].status == completion_status::success);
}

CAF_TEST(what is posted in the error state is taken and flushed) {
  world w;
  w.initiator->fail();
  const local_range local = w.server.range(0, 64);
  w.server.fill(0, 64, 0x66);
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.settle();
  const auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 1u);
  CAF_CHECK(found[0].status == completion_status::flushed && w.client.holds(0, 4096, 0));
}

CAF_TEST(after a reset an RC connection works only when both ends have connected anew) {
  world w;
  const local_range local = w.server.range(0, 64);
  const rc_address before = w.here.pair->address();
  w.here.pair->fail();
  must(w.here.pair->reset());
  CAF_CHECK(w.post(*w.here.pair, w.request(operation::write, local)).outcome.code == errc::wrong_state);
  CAF_CHECK(w.here.pair->address().packet_number != before.packet_number);
  must(w.here.pair->connect(w.there.pair->address()));
  CAF_CHECK(w.ending(w.request(operation::write, local)) == completion_status::retry_exceeded);

  must(w.here.pair->reset());
  w.there.pair->fail();
  must(w.there.pair->reset());
  must(w.here.pair->connect(w.there.pair->address()));
  must(w.there.pair->connect(w.here.pair->address()));
  CAF_CHECK(w.ending(w.request(operation::write, local)) == completion_status::success);
}

CAF_TEST(keys and bounds and permissions are checked on both sides) {
  const auto ending_with = [](auto change) {
    world w;
    local_range local = w.server.range(0, 64);
    work_request one = w.request(operation::write, local);
    change(w, local, one);
    const completion_status status = w.ending(one);
    CAF_CHECK(w.client.holds(0, 4096, 0));
    return status;
  };
  CAF_CHECK(ending_with([](world&, local_range& local, work_request&) { local.lkey += 1000; }) ==
            completion_status::local_protection);
  CAF_CHECK(ending_with([](world&, local_range& local, work_request&) { local.address += 4096 - 63; }) ==
            completion_status::local_protection);
  CAF_CHECK(ending_with([](world&, local_range&, work_request& one) { one.rkey += 1000; }) ==
            completion_status::remote_access);
  CAF_CHECK(ending_with([](world&, local_range&, work_request& one) { one.remote_address += 4096 - 63; }) ==
            completion_status::remote_access);
  CAF_CHECK(ending_with([](world&, local_range&, work_request& one) { one.remote_address -= 1; }) ==
            completion_status::remote_access);
  CAF_CHECK(ending_with([](world& w, local_range&, work_request& one) {
              one.rkey = w.client.region->lkey();
            }) == completion_status::remote_access);
  CAF_CHECK(ending_with([](world&, local_range&, work_request& one) {
              one.remote_address = ~std::uint64_t{0} - 32; // wraps around
            }) == completion_status::remote_access);
  CAF_CHECK(ending_with([](world& w, local_range&, work_request& one) {
              std::unique_ptr<memory_region> read_only;
              must(w.client.device->register_memory(w.client.memory, {true, false}, read_only));
              one.rkey = read_only->rkey();
              w.client.region = std::move(read_only);
            }) == completion_status::remote_access);
}

CAF_TEST(memory that was deregistered is never written afterwards) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    world w(seed);
    w.server.fill(0, 1024, 0x77);
    const local_range local = w.server.range(0, 1024);
    std::vector<work_request> batch;
    for (std::uint64_t id = 0; id < 6; ++id) {
      batch.push_back(w.dc_request(operation::write, local, 512 * id, id));
    }
    must(w.initiator->post(batch).outcome);
    for (std::uint64_t steps = seed % 20; steps > 0; --steps) {
      w.network.step();
    }
    w.client.region.reset();
    w.client.fill(0, 4096, 0xEE);
    w.network.settle();
    CAF_CHECK_EQUAL(w.server.reports().size(), 6u);
    CAF_CHECK(w.client.holds(0, 4096, 0xEE));
  }
}

CAF_TEST(a flushed request may still have its effect until its report and none when its queue pair is gone) {
  std::uint64_t late = 0;
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    world w(seed);
    w.client.fill(0, 1024, 0x11);
    const local_range into = w.server.range(0, 1024);
    must(w.post(*w.initiator, w.dc_request(operation::read, into)).outcome);
    w.initiator->fail();
    w.server.fill(0, 1024, 0xEE); // too early
    w.network.settle();
    late += w.server.holds(0, 1024, 0xEE) ? 0 : 1;
    CAF_REQUIRE_EQUAL(w.server.reports().size(), 1u);
    must(w.initiator->recover());

    must(w.post(*w.initiator, w.dc_request(operation::read, into)).outcome);
    w.initiator->fail();
    w.initiator.reset();
    CAF_CHECK(!w.network.in_use(w.server.memory.data(), 1024));
    w.server.fill(0, 1024, 0xEE);
    w.network.settle();
    CAF_CHECK(w.server.holds(0, 1024, 0xEE));
    CAF_CHECK(w.server.reports().empty());
  }
  CAF_CHECK(late > 20 && late < 80);
}

CAF_TEST(reports keep the order of one queue pair and mix those of several) {
  bool mixed = false;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    world w(seed);
    const local_range local = w.server.range(0, 64);
    for (std::uint64_t id = 0; id < 10; ++id) {
      must(w.post(*w.initiator, w.dc_request(operation::write, local, 0, id)).outcome);
      must(w.post(*w.here.pair, w.request(operation::read, local, 0, 100 + id)).outcome);
    }
    w.network.settle();
    const auto found = w.server.reports();
    CAF_REQUIRE_EQUAL(found.size(), 20u);
    std::uint64_t dc = 0;
    std::uint64_t rc = 100;
    for (std::size_t index = 0; index < found.size(); ++index) {
      CAF_CHECK_EQUAL(found[index].id, found[index].id < 100 ? dc++ : rc++);
      mixed = mixed || (index < 10 && found[index].id >= 100);
    }
  }
  CAF_CHECK(mixed);
}

CAF_TEST(a batch is one doorbell and unsignalled requests are reported with the next signalled one) {
  world w;
  const local_range local = w.server.range(0, 64);
  std::vector<work_request> batch;
  for (std::uint64_t id = 0; id < 32; ++id) {
    batch.push_back(w.dc_request(operation::write, local, 0, id));
  }
  batch[7].signalled = true;
  must(w.initiator->post(batch).outcome);
  w.network.settle();
  CAF_CHECK_EQUAL(w.network.statistics().doorbells, 1u);
  CAF_CHECK_EQUAL(w.network.statistics().completions, 2u);
  CAF_CHECK_EQUAL(w.network.statistics().peer_changes, 1u);
  const auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 32u);
  for (std::uint64_t id = 0; id < 32; ++id) {
    CAF_CHECK_EQUAL(found[id].id, id);
  }
}

CAF_TEST(a batch that does not fit is not posted at all) {
  world w;
  const local_range local = w.server.range(0, 64);
  std::vector<work_request> batch(w.initiator->sends_free() + 1, w.dc_request(operation::write, local));
  const post_result refused = w.initiator->post(batch);
  CAF_CHECK(refused.outcome.code == errc::queue_full);
  CAF_CHECK_EQUAL(refused.posted, 0u);
  CAF_CHECK_EQUAL(w.initiator->outstanding(), 0u);
  batch.pop_back();
  CAF_CHECK_EQUAL(w.initiator->post(batch).posted, batch.size());
  CAF_CHECK_EQUAL(w.initiator->sends_free(), 0u);
  w.network.settle();
  CAF_CHECK_EQUAL(w.initiator->sends_free(), 0u); // the reports were not polled
  CAF_CHECK_EQUAL(w.server.reports().size(), batch.size());
  CAF_CHECK_EQUAL(w.initiator->sends_free(), batch.size());
}

CAF_TEST(requests that no fabric could carry out are refused when they are posted) {
  world w;
  const local_range local = w.server.range(0, 64);
  const auto refused = [&](queue_pair& pair, const work_request& one) {
    const post_result result = w.post(pair, one);
    return result.outcome.code == errc::invalid_argument && result.posted == 0 &&
           !result.outcome.text.empty();
  };
  CAF_CHECK(refused(*w.initiator, w.request(operation::write, local)));
  CAF_CHECK(refused(*w.here.pair, w.dc_request(operation::write, local)));
  CAF_CHECK(refused(*w.here.pair, w.request(operation::receive, local)));
  std::unique_ptr<address_handle> foreign;
  must(w.client.device->create_address_handle(w.server.device->self(), foreign));
  w.to.handle = foreign.get();
  CAF_CHECK(refused(*w.initiator, w.dc_request(operation::write, local)));
  const std::vector<local_range> three(3, local);
  work_request many = w.request(operation::write, local);
  many.local = three;
  CAF_CHECK(refused(*w.here.pair, many));
}

CAF_TEST(a completion queue takes no more queue pairs than it has room for) {
  simulated_network network({});
  machine server(network);
  std::unique_ptr<completion_queue> small;
  must(server.device->create_completion_queue(100, small));
  queue_pair_options options;
  options.completions = small.get();
  options.sends_max = 60;
  std::unique_ptr<dc_initiator> first;
  std::unique_ptr<dc_initiator> second;
  must(server.device->create_dc_initiator(options, first));
  CAF_CHECK(server.device->create_dc_initiator(options, second).code == errc::no_resources);
  first.reset();
  CAF_CHECK(server.device->create_dc_initiator(options, second).ok());
}

CAF_TEST(a device without DC makes RC alone) {
  simulated_network network({});
  machine server(network, 4096, {.dc = false});
  queue_pair_options options;
  options.completions = server.completions.get();
  std::unique_ptr<dc_initiator> initiator;
  std::unique_ptr<dc_target> target;
  std::unique_ptr<rc_queue_pair> pair;
  CAF_CHECK(server.device->create_dc_initiator(options, initiator).code == errc::unsupported);
  CAF_CHECK(server.device->create_dc_target(1, target).code == errc::unsupported);
  CAF_CHECK(server.device->create_rc(options, pair).ok());
}

CAF_TEST(without a receive the sender retries and then gives up) {
  world w;
  const local_range from = w.server.range(0, 40);
  must(w.post(*w.here.pair, w.request(operation::send, from)).outcome);
  w.network.advance(30'000);
  CAF_CHECK(w.server.reports().empty());
  const receive_request receive{11, w.client.range(0, 100)};
  must(w.there.pair->post_receives({&receive, 1}).outcome);
  w.network.settle();
  auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 1u);
  CAF_CHECK(found[0].status == completion_status::success);
  CAF_CHECK(w.ending(w.request(operation::send, from)) == completion_status::receiver_retry_exceeded);
}

CAF_TEST(a message longer than the receive fails on both sides) {
  world w;
  const receive_request receives[] = {{11, w.client.range(0, 10)}, {12, w.client.range(100, 100)}};
  must(w.there.pair->post_receives(receives).outcome);
  const local_range from = w.server.range(0, 40);
  CAF_CHECK(w.ending(w.request(operation::send, from)) == completion_status::remote_invalid_request);
  const auto found = w.client.reports();
  CAF_REQUIRE_EQUAL(found.size(), 2u);
  CAF_CHECK(found[0].status == completion_status::local_length &&
            found[1].status == completion_status::flushed);
}

CAF_TEST(a peer that refuses a key is in the error state itself on RC and unharmed on DC) {
  world w;
  const local_range local = w.server.range(0, 64);
  work_request wrong = w.dc_request(operation::write, local);
  wrong.rkey += 1000;
  must(w.post(*w.initiator, wrong).outcome);
  w.network.settle();
  CAF_REQUIRE_EQUAL(w.server.reports().size(), 1u);
  must(w.initiator->recover());
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.settle();
  const auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 1u);
  CAF_CHECK(found[0].status == completion_status::success);
  wrong.target = nullptr;
  CAF_CHECK(w.ending(wrong) == completion_status::remote_access);
  CAF_CHECK(w.there.pair->state() == queue_pair_state::error);
}

CAF_TEST(a peer that died or is cut off or has a smaller MTU or another DC key does not acknowledge) {
  const auto ending_with = [](auto change) {
    world w;
    w.server.fill(0, 64, 0x99);
    const local_range local = w.server.range(0, 64);
    change(w);
    must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
    w.network.settle();
    const auto found = w.server.reports();
    CAF_REQUIRE_EQUAL(found.size(), 1u);
    CAF_CHECK(w.client.holds(0, 4096, 0));
    return found[0].status;
  };
  CAF_CHECK(ending_with([](world& w) { w.network.kill(*w.client.device); }) ==
            completion_status::retry_exceeded);
  CAF_CHECK(ending_with([](world& w) { w.network.set_reachable(*w.client.device, false); }) ==
            completion_status::retry_exceeded);
  CAF_CHECK(ending_with([](world& w) { w.to.key += 1; }) == completion_status::retry_exceeded);
  CAF_CHECK(ending_with([](world& w) { w.target.reset(); }) == completion_status::retry_exceeded);

  world small(1, {.mtu_bytes = 1024, .path_mtu_bytes = 1024});
  const local_range local = small.server.range(0, 64);
  must(small.post(*small.initiator, small.dc_request(operation::write, local)).outcome);
  small.network.settle();
  const auto found = small.server.reports(); // an initiator agrees on an MTU with nobody
  CAF_REQUIRE_EQUAL(found.size(), 1u);
  CAF_CHECK(found[0].status == completion_status::retry_exceeded);
  CAF_CHECK(small.ending(small.request(operation::write, local)) == completion_status::success);
}

CAF_TEST(a peer that is back before the retries are over loses nothing) {
  world w;
  w.server.fill(0, 64, 0x99);
  const local_range local = w.server.range(0, 64);
  w.network.set_reachable(*w.client.device, false);
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.advance(100'000);
  w.network.set_reachable(*w.client.device, true);
  w.network.settle();
  const auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 1u);
  CAF_CHECK(found[0].status == completion_status::success && w.client.holds(0, 64, 0x99));
}

CAF_TEST(work to one peer of an initiator waits for work to another that was posted before) {
  world w;
  machine other(w.network);
  std::unique_ptr<dc_target> target;
  std::unique_ptr<address_handle> handle;
  must(other.device->create_dc_target(5, target));
  must(w.server.device->create_address_handle(other.device->self(), handle));
  const dc_address to_other{handle.get(), target->number(), target->key()};
  w.network.kill(*w.client.device);
  const local_range local = w.server.range(0, 64);
  work_request second = w.dc_request(operation::write, local, 0, 2);
  second.remote_address = other.region->address();
  second.rkey = other.region->rkey();
  second.target = &to_other;
  const work_request batch[] = {w.dc_request(operation::write, local, 0, 1), second};
  must(w.initiator->post(batch).outcome);
  w.network.advance(500'000);
  CAF_CHECK(w.server.reports().empty());
  w.network.settle();
  const auto found = w.server.reports();
  CAF_REQUIRE_EQUAL(found.size(), 2u);
  CAF_CHECK(found[0].status == completion_status::retry_exceeded &&
            found[1].status == completion_status::flushed);
}

CAF_TEST(no more READs are in flight than the queue pair may have) {
  const auto duration = [](std::uint32_t reads_max) {
    simulated_network network({.completion_delay_ns_max = 0, .byte_ns_per_kib = 0});
    machine server(network);
    machine client(network);
    rc_end here(server, 64, reads_max);
    rc_end there(client);
    must(here.pair->connect(there.pair->address()));
    must(there.pair->connect(here.pair->address()));
    const local_range local = server.range(0, 64);
    work_request one;
    one.kind = operation::read;
    one.local = {&local, 1};
    one.remote_address = client.region->address();
    one.rkey = client.region->rkey();
    const std::vector<work_request> batch(64, one);
    must(here.pair->post(batch).outcome);
    network.settle();
    return network.now_ns();
  };
  CAF_CHECK(duration(1) > duration(16) * 5 / 4);
}

CAF_TEST(a device that is removed says so and reports nothing any more) {
  world w;
  const local_range local = w.server.range(0, 64);
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.kill(*w.server.device);
  w.network.settle();
  CAF_CHECK(w.server.device->next_event() == fabric_event::device_removed);
  CAF_CHECK(w.server.device->next_event() == fabric_event::none);
  CAF_CHECK(w.server.reports().empty());
  CAF_CHECK(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome.code == errc::device_failed);
  CAF_CHECK(w.initiator->recover().code == errc::device_failed);
}

CAF_TEST(the descriptor of a completion queue becomes readable once for each time it is armed) {
  world w;
  const local_range local = w.server.range(0, 64);
  const auto readable = [&] {
    pollfd one{w.server.completions->event_descriptor(), POLLIN, 0};
    return ::poll(&one, 1, 0) == 1;
  };
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.settle();
  CAF_CHECK(!readable());
  must(w.server.completions->arm());
  CAF_CHECK(!readable()); // hence the second poll after arming
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.network.settle();
  CAF_CHECK(readable());
  w.server.completions->acknowledge();
  CAF_CHECK(!readable());
  CAF_CHECK_EQUAL(w.server.reports().size(), 2u);
}

CAF_TEST(what a real device would not notice is written down as misuse) {
  world w;
  const local_range local = w.server.range(0, 64);
  must(w.post(*w.initiator, w.dc_request(operation::write, local)).outcome);
  w.handle.reset();
  w.server.region.reset();
  CAF_REQUIRE_EQUAL(w.network.misuse().size(), 2u);
  CAF_CHECK(w.network.misuse()[0].find("address handle") != std::string::npos);
  CAF_CHECK(w.network.misuse()[1].find("memory region") != std::string::npos);
}

CAF_TEST(the same seed gives the same run) {
  const auto run = [](std::uint64_t seed) {
    world w(seed);
    w.network.set_faults_per_million(200'000);
    std::vector<std::uint64_t> trace;
    const local_range local = w.server.range(0, 64);
    for (std::uint64_t id = 0; id < 30; ++id) {
      must(w.post(*w.initiator, w.dc_request(operation::write, local, 0, id)).outcome);
      w.network.settle();
      trace.push_back(w.network.now_ns());
      for (const report& one : w.server.reports()) {
        trace.push_back(static_cast<std::uint64_t>(one.status));
      }
      if (w.initiator->state() == queue_pair_state::error) {
        must(w.initiator->recover());
      }
    }
    return trace;
  };
  CAF_CHECK(run(3) == run(3));
  CAF_CHECK(run(3) != run(4));
}
