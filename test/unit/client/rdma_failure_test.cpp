// What becomes of calls, memory and the transport when RDMA fails.
#define CAF_SUITE client_rdma_failure

#include "test/unit/client/rdma_rig.hpp"

using namespace rdma_test;

CAF_TEST(with auto the first refused session turns RDMA off for good and is logged once) {
  for (const bool present : {true, false}) {
    rig one(transport_choice::automatic);
    one.rdma.present = present;
    one.rdma.attach_answer = wire::status::busy;
    bytes value = filled(200'000, 4);
    bytes target(200'000);
    const registered_memory from = one.known(value);
    const registered_memory to = one.known(target);
    CAF_CHECK(one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    one.rdma.present = true;
    one.rdma.attach_answer = wire::status::ok;
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
    CAF_CHECK(target == value);
    CAF_CHECK_EQUAL(one.log.warnings(), 1u);
    CAF_CHECK(!one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 0u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_attach), present ? 1u : 0u);
  }
}

CAF_TEST(with rdma a refused session is an error of the items and no miss) {
  rig one(transport_choice::rdma);
  one.rdma.attach_answer = wire::status::busy;
  const bytes value = filled(200'000, 4);
  bytes target(200'000);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::rdma_failed);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::rdma_failed);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 0u);
  one.rdma.attach_answer = wire::status::ok;
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}

CAF_TEST(a device that cannot be opened ends the making with rdma and turns RDMA off with auto) {
  rig one(transport_choice::tcp);
  client::options chosen = one.options(transport_choice::rdma);
  chosen.open_fabric = [](const std::string&, std::unique_ptr<verbs::fabric>&) {
    return client::status{errc::rdma_failed, "it is not there"};
  };
  client::status problem;
  CAF_CHECK(client::client::make(chosen, problem) == nullptr);
  CAF_CHECK_EQUAL(problem.text, "rdma_devices: sim0: it is not there");
  chosen.transport = transport_choice::automatic;
  one.make(chosen);
  bytes value = filled(5000, 1);
  registered_memory memory = one.known(value);
  CAF_CHECK(!memory.effective());
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}

CAF_TEST(items that RDMA cannot serve are asked for over TCP with auto and fail with rdma) {
  for (const wire::status answer :
       {wire::status::memory_refused, wire::status::session_ended, wire::status::unavailable}) {
    bytes value = filled(300'000, 4);
    bytes target(300'000);
    {
      rig one(transport_choice::automatic);
      const registered_memory from = one.known(value);
      const registered_memory to = one.known(target);
      one.rdma.transfers_end = answer;
      CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
      CAF_CHECK(target == value);
      CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 1u);
      // A drive that is away is answered `unavailable` as well, and says nothing about RDMA.
      CAF_CHECK_EQUAL(one.log.warnings(), answer == wire::status::unavailable ? 0u : 1u);
      // What is over is given back, also while the client lives.
      if (answer != wire::status::unavailable) {
        CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
      }
    }
    rig one(transport_choice::rdma);
    one.rdma.transfers_end = answer;
    const auto expected = static_cast<errc>(answer);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, expected);
    CAF_CHECK(!one.server.has("key"));
    one.rdma.transfers_end = wire::status::ok;
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  }
}

CAF_TEST(a session that the server ended is an error once and then replaced) {
  rig one(transport_choice::rdma);
  const bytes value = filled(5000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  one.rdma.end_sessions = true;
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::session_ended);
  one.rdma.end_sessions = false;
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->count().rdma_sessions_opened, 2u);
}

CAF_TEST(bytes that do not match their digest are never given) {
  bytes value = filled(300'000, 4);
  bytes target(300'000);
  {
    rig one(transport_choice::rdma);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    one.rdma.damage_reads = true;
    const item_result got = one.kv->get("key", target);
    CAF_CHECK_EQUAL(got.code, errc::digest_mismatch);
    CAF_CHECK_EQUAL(got.length, 0u);
  }
  rig one(transport_choice::automatic);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  one.rdma.damage_reads = true;
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}

CAF_TEST(no byte of a target is written after the deadline of its get) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  const registered_memory to = one.known(target);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 200}).code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(one.rdma.transfers_begun.load(), begun + 1);
  std::fill(target.begin(), target.end(), poison);
  one.network.hold(false);
  CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(no byte of a value is read after the deadline of its put) {
  rig one(transport_choice::rdma);
  bytes value = filled(400'000, 4);
  const registered_memory from = one.known(value);
  one.network.hold();
  CAF_CHECK_EQUAL(one.kv->put("key", value, false, {.deadline_ms = 200}).code, errc::deadline_exceeded);
  one.network.hold(false);
  CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
  one.network.settle();
  // Nothing has changed the memory, so bytes that were fetched late would match their digest.
  CAF_CHECK(!one.server.has("key"));
}

CAF_TEST(no byte of a target is written after its connection was lost) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  const registered_memory to = one.known(target);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  bool begun_in_time = false;
  std::thread stopper([&] {
    begun_in_time = comes_true([&] { return one.rdma.transfers_begun == begun + 1; });
    one.server.stop();
  });
  const item_result got = one.kv->get("key", target);
  CAF_CHECK_EQUAL(got.code, errc::not_found);
  CAF_CHECK_EQUAL(got.cause, errc::server_down);
  std::fill(target.begin(), target.end(), poison);
  one.network.hold(false);
  stopper.join();
  CAF_CHECK(begun_in_time);
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(no byte of a target is written after its client was destroyed) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  registered_memory to = one.known(target);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  const client::get_item item{"key", target};
  item_result result;
  std::atomic<bool> called{false};
  CAF_CHECK(one.kv
                ->submit_get(std::span(&item, 1), std::span(&result, 1),
                             client::completion::call([&] { called = true; }))
                .ok());
  CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
  CAF_CHECK_EQUAL(to.release().code, errc::busy);
  one.kv.reset();
  CAF_CHECK(called);
  CAF_CHECK_EQUAL(result.code, errc::closed);
  std::fill(target.begin(), target.end(), poison);
  CAF_CHECK_EQUAL(to.release().text, "");
  one.network.hold(false);
  CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(memory is out of reach before the completion of a get that was given up is called) {
  enum class ending { deadline, lost, destroyed };
  for (const ending how : {ending::deadline, ending::lost, ending::destroyed}) {
    rig one(transport_choice::rdma);
    const bytes value = filled(400'000, 4);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    bytes target(400'000);
    const registered_memory to = one.known(target);
    one.network.hold();
    const std::uint64_t begun = one.rdma.transfers_begun;
    const client::get_item item{"key", target};
    item_result result;
    std::atomic<bool> completed{false};
    const client::status submitted =
        one.kv->submit_get(std::span(&item, 1), std::span(&result, 1), client::completion::call([&] {
                             // Whatever the server has posted takes effect now, while the completion is
                             // called.
                             std::fill(target.begin(), target.end(), poison);
                             one.network.settle();
                             one.network.hold(false);
                             completed = true;
                           }),
                           {.deadline_ms = how == ending::deadline ? 200U : 20'000U});
    CAF_CHECK(submitted.ok());
    CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
    std::thread stopper;
    if (how == ending::lost) {
      stopper = std::thread([&] { one.server.stop(); });
    } else if (how == ending::destroyed) {
      one.kv.reset();
    }
    CAF_CHECK(comes_true([&] { return completed.load(); }));
    if (stopper.joinable()) {
      stopper.join();
    }
    CAF_CHECK_EQUAL(result.code, how == ending::deadline ? errc::deadline_exceeded
                                 : how == ending::lost   ? errc::not_found
                                                         : errc::closed);
    CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
    one.network.settle();
    CAF_CHECK(holds_poison(target));
  }
}

CAF_TEST(three deadlines in a row turn RDMA off with auto) {
  rig one(transport_choice::automatic);
  bytes value = filled(10'000, 4);
  bytes target(10'000);
  const registered_memory from = one.known(value);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  one.network.hold();
  for (int i = 0; i < 3; ++i) {
    CAF_CHECK(one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 50}).code, errc::deadline_exceeded);
  }
  CAF_CHECK(!one.kv->count().rdma_in_use);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
}

CAF_TEST(a request for a session that did not go out in time is made again) {
  rig one(transport_choice::automatic);
  const bytes large = filled(64U << 20U, 2);
  bytes value = filled(200'000, 3);
  const registered_memory from = one.known(value);
  // The server reads nothing for a while, so what comes behind a long payload cannot be written.
  std::atomic<int> answers{0};
  one.server.shape = [&](test::fake_frame&) {
    if (++answers == 2) {
      ::poll(nullptr, 0, 5'500);
    }
  };
  bytes target(100);
  const client::get_item asked{"small", target};
  const client::put_item puts[] = {{"large", large}, {"value", value}};
  item_result results[4];
  std::atomic<int> completed{0};
  const auto done = [&] { return client::completion::call([&] { ++completed; }); };
  const std::span<item_result> all(results);
  const client::call_options within{.deadline_ms = 9'000};
  // From a completion, so that they go out together.
  CAF_CHECK(one.kv
                ->submit_get({&asked, 1}, all.subspan(0, 1), client::completion::call([&] {
                               const client::status said[] = {
                                   one.kv->submit_get({&asked, 1}, all.subspan(1, 1), done(), within),
                                   one.kv->submit_put({&puts[0], 1}, all.subspan(2, 1), done(), within),
                                   one.kv->submit_put({&puts[1], 1}, all.subspan(3, 1), done(), within)};
                               CAF_CHECK(std::all_of(std::begin(said), std::end(said),
                                                     [](const client::status& each) { return each.ok(); }));
                             }))
                .ok());
  CAF_CHECK(comes_true([&] { return completed.load() == 3; }));
  CAF_CHECK_EQUAL(results[2].code, errc::ok);
  CAF_CHECK_EQUAL(results[3].code, errc::ok);
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 1u);
  CAF_CHECK(one.kv->count().rdma_in_use);
}

CAF_TEST(a device whose port goes down is let go of at once) {
  for (const transport_choice transport : {transport_choice::automatic, transport_choice::rdma}) {
    rig one(transport);
    const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    client::options chosen = one.options(transport);
    chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
      made = std::make_unique<gifted_fabric>(one.network.create_node(node("down", false)), descriptor);
      return client::status{};
    };
    one.make(chosen);
    bytes value = filled(100'000, 6);
    bytes target(100'000);
    registered_memory from = one.known(value);
    const registered_memory to = one.known(target);
    CAF_CHECK(from.effective());
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    CAF_CHECK_EQUAL(one.network.statistics().queue_pairs, 2u);
    const std::uint64_t down = 1;
    CAF_CHECK_EQUAL(::write(descriptor, &down, sizeof down), static_cast<ssize_t>(sizeof down));
    CAF_CHECK(comes_true([&] { return one.kv->count().rdma_failures == 1; }));
    CAF_CHECK_EQUAL(one.network.statistics().queue_pairs, 1u); // the server's
    const bool falls_back = transport == transport_choice::automatic;
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, falls_back ? errc::ok : errc::rdma_failed);
    CAF_CHECK_EQUAL(target == value, falls_back);
    CAF_CHECK(!from.effective());
    CAF_CHECK_EQUAL(from.release().text, "");
    one.kv.reset();
    ::close(descriptor);
  }
}

CAF_TEST(with rdma a client works again when the port of its device is back) {
  rig one(transport_choice::rdma);
  const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  std::atomic<bool> up{true};
  std::atomic<unsigned> opened{0};
  std::atomic<bool> misnamed{false};
  client::options chosen = one.options(transport_choice::rdma);
  chosen.open_fabric = [&](const std::string& name, std::unique_ptr<verbs::fabric>& made) {
    misnamed = misnamed || name != "sim0";
    ++opened;
    if (!up)
      return client::status{errc::rdma_failed, "the port is down"};
    made = std::make_unique<gifted_fabric>(one.network.create_node(node("sim0", false)), descriptor);
    return client::status{};
  };
  one.make(chosen);
  bytes value = filled(100'000, 6);
  bytes target(100'000);
  bytes elsewhere(100'000);
  const registered_memory from = one.known(value);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  for (int outage = 0; outage < 3; ++outage) {
    up = false;
    const auto failures = one.kv->count().rdma_failures;
    const std::uint64_t down = 1;
    CAF_CHECK_EQUAL(::write(descriptor, &down, sizeof down), static_cast<ssize_t>(sizeof down));
    CAF_CHECK(comes_true([&] { return one.kv->count().rdma_failures > failures; }));
    CAF_CHECK_EQUAL(one.network.statistics().queue_pairs, 1u); // the server's
    for (int call = 0; call < 5; ++call)
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::rdma_failed);
    CAF_CHECK(!from.effective());
    registered_memory refused;
    CAF_CHECK(one.kv->register_memory(elsewhere, refused).text.find("the port is down") != std::string::npos);
    up = true;
    // Memory that was registered is of use again, and so is the staging area.
    CAF_CHECK(comes_true([&] { return one.kv->get("key", target).code == errc::ok; }));
    CAF_CHECK(target == value);
    CAF_CHECK(from.effective());
    CAF_CHECK_EQUAL(one.kv->get("key", elsewhere).code, errc::ok);
    CAF_CHECK(elsewhere == value);
    value = filled(100'000, static_cast<unsigned char>(7 + outage));
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  }
  CAF_CHECK(opened >= 4);
  CAF_CHECK(!misnamed);
  one.kv.reset();
  ::close(descriptor);
}

CAF_TEST(whatever fails no memory is touched late and no wrong bytes are given) {
  const std::uint64_t seed = test_seed();
  CAF_MESSAGE("MEMKV_TEST_SEED=" << seed);
  std::mt19937_64 chooser(seed);
  rig one(transport_choice::rdma);
  client::options chosen = one.options(transport_choice::rdma);
  chosen.num_connections = 2;
  one.make(std::move(chosen));
  std::atomic<bool> over{false};
  std::atomic<int> late{0};
  std::atomic<int> wrong{0};
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t, random = std::mt19937_64(seed + t)]() mutable {
      // The first thread's memory is not registered and goes through the staging area.
      bytes memory(60'000);
      bytes target(60'000, poison);
      registered_memory from;
      registered_memory to;
      if (t != 0) {
        wrong += one.kv->register_memory(memory, from).ok() ? 0 : 1;
        wrong += one.kv->register_memory(target, to).ok() ? 0 : 1;
      }
      const std::string key = "key-" + std::to_string(t);
      while (!over) {
        const auto version = static_cast<unsigned>(random() % 251);
        const bytes value = filled(memory.size(), version);
        std::copy(value.begin(), value.end(), memory.begin());
        const client::call_options call{.deadline_ms = static_cast<std::uint32_t>(1 + random() % 40)};
        static_cast<void>(one.kv->put(key, memory, false, call));
        std::fill(memory.begin(), memory.end(), poison); // must not be stored
        const item_result got = one.kv->get(key, target, call);
        if (got.code == errc::ok) {
          const bool known = target == filled(target.size(), static_cast<unsigned>(target.front()));
          wrong += known ? 0 : 1;
          ++right;
        }
        std::fill(target.begin(), target.end(), poison);
        ::poll(nullptr, 0, static_cast<int>(random() % 4));
        late += holds_poison(target) ? 0 : 1;
      }
    });
  }
  const auto set_right = [&] {
    one.network.hold(false);
    one.rdma.transfers_end = wire::status::ok;
    one.rdma.damage_reads = false;
    one.rdma.end_sessions = false;
    one.rdma.attach_answer = wire::status::ok;
  };
  for (int i = 0; i < 60; ++i) {
    switch (chooser() % 8) {
    case 0:
    case 1:
      one.network.hold();
      break;
    case 2:
      one.rdma.transfers_end = wire::status::memory_refused;
      break;
    case 3:
      one.rdma.transfers_end = wire::status::unavailable;
      break;
    case 4:
      one.rdma.damage_reads = true;
      break;
    case 5:
      one.rdma.end_sessions = true;
      break;
    case 6:
      one.rdma.attach_answer = wire::status::unavailable;
      break;
    default:
      break;
    }
    ::poll(nullptr, 0, static_cast<int>(chooser() % 40));
    set_right();
    ::poll(nullptr, 0, static_cast<int>(chooser() % 20));
  }
  CAF_CHECK(comes_true([&, before = right.load()] { return right > before + 3; }));
  over = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_CHECK_EQUAL(late.load(), 0);
  CAF_CHECK_EQUAL(wrong.load(), 0);
}
