// Requests that travel as messages of a queue pair: which ones, how many, and what becomes of them when it
// fails.
#define CAF_SUITE client_rdma_messages

#include "test/unit/client/rdma_rig.hpp"

using namespace rdma_test;
using client::call_options;

namespace {

constexpr transport_choice with_rdma[] = {transport_choice::automatic, transport_choice::rdma};

struct message_rig : rig {
  /// `spin_us` 0: the thread sleeps until the completion channel tells of an answer.
  explicit message_rig(transport_choice transport, std::uint32_t spin_us = 0, std::uint32_t connections = 1)
      : rig(transport) {
    make(message_options(transport, spin_us, connections));
  }
  client::options message_options(transport_choice transport, std::uint32_t spin_us = 0,
                                  std::uint32_t connections = 1) {
    client::options chosen = options(transport);
    chosen.rdma_messages = true;
    chosen.rdma_spin_us = spin_us;
    chosen.num_connections = connections;
    return chosen;
  }
  /// Stores a block by a client of its own, over TCP.
  void store(std::string_view key, std::span<const std::byte> value) {
    client::status problem;
    const auto other = client::client::make(options(transport_choice::tcp), problem);
    CAF_REQUIRE_EQUAL(problem.text, "");
    CAF_REQUIRE_EQUAL(other->put(key, value).code, errc::ok);
  }
  [[nodiscard]] std::uint64_t on_socket(opcode code) const {
    return server.requests(code) - server.messages(code);
  }
};

} // namespace

CAF_TEST(small requests are messages and touch no socket) {
  for (const transport_choice transport : with_rdma) {
    for (const std::uint32_t spin_us : {0U, 20'000U}) {
      message_rig one(transport, spin_us);
      const bytes value = filled(5000, 3);
      one.store("there", value);
      one.store("gone", value);
      const item_result found = one.kv->exists("there");
      CAF_CHECK_EQUAL(found.code, errc::ok);
      CAF_CHECK_EQUAL(found.value_length, 5000u);
      CAF_CHECK_EQUAL(one.kv->exists("never").code, errc::not_found);
      const item_result looked_up = one.kv->lookup("there");
      CAF_CHECK_EQUAL(looked_up.code, errc::ok);
      CAF_CHECK(looked_up.generation != 0);
      CAF_CHECK_EQUAL(one.kv->remove("gone").code, errc::ok);
      CAF_CHECK_EQUAL(one.kv->remove("gone").code, errc::not_found);
      CAF_CHECK(!one.server.has("gone"));
      const std::string_view keys[] = {"there", "gone", "never"};
      item_result results[3];
      CAF_CHECK_EQUAL(one.kv->exists(keys, results), errc::not_found);
      CAF_CHECK_EQUAL(results[0].code, errc::ok);
      CAF_CHECK_EQUAL(results[0].value_length, 5000u);
      CAF_CHECK_EQUAL(results[2].code, errc::not_found);
      CAF_CHECK_EQUAL(one.kv->remove(std::span(keys).subspan(1), std::span(results).subspan(1)),
                      errc::not_found);
      CAF_CHECK_EQUAL(one.kv->prefix(keys).matched, 1u);
      const std::vector<client::server_stat> stats = one.kv->stat();
      CAF_CHECK_EQUAL(stats.front().blocks, 1u);
      for (const opcode code :
           {opcode::exists, opcode::lookup, opcode::batch_exists, opcode::prefix, opcode::stat}) {
        CAF_CHECK_EQUAL(one.on_socket(code), 0u);
        CAF_CHECK(one.server.messages(code) != 0);
      }
      // With auto what changes something stays on the socket.
      const bool strict = transport == transport_choice::rdma;
      for (const opcode code : {opcode::tcp_delete, opcode::tcp_batch_delete}) {
        CAF_CHECK_EQUAL(one.on_socket(code) == 0, strict);
        CAF_CHECK_EQUAL(one.server.messages(code) != 0, strict);
      }
      CAF_CHECK_EQUAL(one.rdma.connected.load(), 1u);
      CAF_CHECK_EQUAL(one.rdma.attached.load(), 0u);
      const client::counters count = one.kv->count();
      CAF_CHECK_EQUAL(count.rdma_queue_pairs_opened, 1u);
      CAF_CHECK_EQUAL(count.rdma_messages, one.rdma.messages.load());
      CAF_CHECK_EQUAL(count.rdma_failures, 0u);
    }
  }
}

CAF_TEST(small values travel in batches that are messages and others on a session) {
  for (const bool keyed : {false, true}) {
    for (const transport_choice transport : with_rdma) {
      message_rig one(transport);
      one.server.keyed_required = keyed;
      bytes value = filled(40'000, 5);
      bytes target(40'000, poison);
      const registered_memory from = one.known(value);
      const registered_memory to = one.known(target);
      for (const std::size_t length : {std::size_t{1}, std::size_t{4096}, std::size_t{40'000}}) {
        CAF_CHECK_EQUAL(one.kv->put("key", std::span(value).first(length)).code, errc::ok);
        const item_result got = one.kv->get("key", std::span(target).first(length));
        CAF_CHECK_EQUAL(got.code, errc::ok);
        CAF_CHECK_EQUAL(got.length, length);
        CAF_CHECK(
            std::equal(value.begin(), value.begin() + static_cast<std::ptrdiff_t>(length), target.begin()));
      }
      const bool strict = transport == transport_choice::rdma;
      CAF_CHECK_EQUAL(one.server.messages(opcode::batch_write), strict ? 3u : 0u);
      CAF_CHECK_EQUAL(one.server.messages(opcode::batch_read), 3u);
      CAF_CHECK_EQUAL(one.rdma.attached.load(), strict ? 0u : 1u);
      // Two of 40,000 bytes are above what may go as a message together.
      const client::put_item puts[] = {{"a", value}, {"b", value}};
      item_result results[2];
      CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
      CAF_CHECK_EQUAL(one.server.messages(opcode::batch_write), strict ? 3u : 0u);
      CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 4u);
      CAF_CHECK_EQUAL(one.rdma.attached.load(), 1u);
      // A digest that does not match is an error of the item, or fetched again over TCP.
      one.rdma.damage_reads = true;
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, strict ? errc::digest_mismatch : errc::ok);
    }
  }
}

CAF_TEST(small values outside registered memory are staged and asked for by messages) {
  message_rig one(transport_choice::rdma);
  const bytes value = filled(10'000, 5);
  bytes target(10'000, poison);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
  CAF_CHECK_EQUAL(one.server.messages(opcode::batch_write), 1u);
  CAF_CHECK_EQUAL(one.server.messages(opcode::batch_read), 1u);
  CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 20'000u);
}

CAF_TEST(what is too long for a message goes over the socket) {
  message_rig one(transport_choice::rdma);
  std::vector<std::string> names;
  for (int i = 0; i < 1000; ++i) {
    names.push_back("block-" + std::to_string(i));
  }
  const std::vector<std::string_view> keys(names.begin(), names.end());
  std::vector<item_result> results(keys.size());
  one.store("block-7", filled(10, 1));
  CAF_CHECK_EQUAL(one.kv->exists(keys, results), errc::not_found);
  CAF_CHECK_EQUAL(results[7].code, errc::ok);
  CAF_CHECK_EQUAL(one.server.messages(opcode::batch_exists), 0u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_exists), 1u);
  // Short keys make answers that are longer than their requests: both have to fit.
  std::vector<std::string> letters;
  for (int i = 0; i < 700; ++i) {
    letters.push_back({static_cast<char>('a' + i % 26), static_cast<char>('a' + i / 26)});
  }
  for (const std::size_t count : {430U, 450U, 700U}) {
    const std::vector<std::string_view> some(letters.begin(),
                                             letters.begin() + static_cast<std::ptrdiff_t>(count));
    std::vector<item_result> answers(count);
    CAF_CHECK_EQUAL(one.kv->exists(some, answers), errc::not_found);
  }
  CAF_CHECK_EQUAL(one.server.messages(opcode::batch_exists), 1u);
  // A server whose receives are smaller than ours gets over the socket what does not fit there.
  message_rig other(transport_choice::rdma);
  other.rdma.message_bytes_max = 512;
  const std::string longer(500, 'k');
  CAF_CHECK_EQUAL(other.kv->exists("k").code, errc::not_found);
  CAF_CHECK_EQUAL(other.kv->exists(longer).code, errc::not_found);
  CAF_CHECK_EQUAL(other.server.messages(opcode::exists), 1u);
  CAF_CHECK_EQUAL(other.server.requests(opcode::exists), 2u);
  CAF_CHECK_EQUAL(other.kv->count().rdma_failures, 0u);
}

CAF_TEST(a thousand requests under way are never more on the queue pair than it has receives) {
  for (const std::uint32_t receives : {1U, 4U, 32U, 100U}) {
    message_rig one(transport_choice::rdma);
    one.rdma.messages_max = receives;
    one.store("there", filled(100, 1));
    constexpr std::size_t count = 1000;
    std::vector<item_result> results(count);
    std::atomic<std::size_t> completed{0};
    constexpr std::string_view keys[] = {"there", "never"};
    one.rdma.answers_held = true;
    for (std::size_t i = 0; i < count; ++i) {
      CAF_REQUIRE(one.kv
                      ->submit_exists({&keys[i % 2], 1}, {&results[i], 1},
                                      client::completion::call([&] { ++completed; }))
                      .ok());
    }
    // One place is kept for the Ping that asks whether the server is alive.
    const std::uint64_t places = std::min(receives, 32U);
    const std::uint64_t most = std::max<std::uint64_t>(places, 2) - 1;
    CAF_CHECK(comes_true([&] { return one.rdma.messages == most; }));
    ::poll(nullptr, 0, 300);
    CAF_CHECK_EQUAL(one.rdma.messages.load(), most);
    CAF_CHECK_EQUAL(completed.load(), 0u);
    one.rdma.answers_held = false;
    CAF_CHECK(comes_true([&] { return completed == count; }));
    for (std::size_t i = 0; i < count; ++i) {
      CAF_CHECK_EQUAL(results[i].code, i % 2 == 0 ? errc::ok : errc::not_found);
    }
    CAF_CHECK_EQUAL(one.rdma.messages_open_peak.load(), places);
    CAF_CHECK_EQUAL(one.on_socket(opcode::exists), 0u);
    CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
  }
}

CAF_TEST(requests are answered in any order and beside those on the socket) {
  message_rig one(transport_choice::automatic, 0, 2);
  const bytes large = filled(300'000, 4);
  one.store("large", large);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      bytes target(large.size());
      for (int i = 0; i < 100; ++i) {
        wrong += one.kv->exists("large").code == errc::ok ? 0 : 1;
        wrong += one.kv->exists("never").code == errc::not_found ? 0 : 1;
        if (i % 10 == 0) {
          wrong += one.kv->get("large", target).code == errc::ok && target == large ? 0 : 1;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_CHECK_EQUAL(wrong.load(), 0);
  CAF_CHECK_EQUAL(one.server.messages(opcode::exists), 800u);
}

// ---- failures ----

CAF_TEST(a queue pair that dies in flight leaves its requests to TCP with auto and fails them with rdma) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    const bool strict = transport == transport_choice::rdma;
    one.store("there", filled(100, 1));
    CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
    one.rdma.answers_held = true;
    errc existed = errc::pending;
    errc removed = errc::pending;
    std::atomic<std::uint64_t> before{one.rdma.messages.load()};
    std::thread asking([&] { existed = one.kv->exists("there").code; });
    CAF_CHECK(comes_true([&] { return one.rdma.messages == before + 1; }));
    std::thread removing([&] { removed = one.kv->remove("there").code; });
    CAF_CHECK(comes_true([&] { return one.server.requests(opcode::tcp_delete) == 1; }));
    one.rdma.break_messages();
    // The client hears of it when it sends the next time.
    errc next = errc::pending;
    std::thread next_one([&] { next = one.kv->lookup("there").code; });
    asking.join();
    removing.join();
    next_one.join();
    one.rdma.answers_held = false;
    CAF_CHECK_EQUAL(existed, strict ? errc::rdma_failed : errc::not_found);
    CAF_CHECK_EQUAL(next, strict ? errc::rdma_failed : errc::not_found);
    // It has taken effect, which as a message nobody told the client.
    CAF_CHECK_EQUAL(removed, strict ? errc::connection_lost : errc::ok);
    CAF_CHECK(!one.server.has("there"));
    CAF_CHECK_EQUAL(one.log.warnings(), 1u);
    CAF_CHECK_EQUAL(one.kv->count().rdma_in_use, strict);
    CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::not_found);
    CAF_CHECK_EQUAL(one.rdma.connected.load(), strict ? 2u : 1u);
  }
}

CAF_TEST(a queue pair that the server lost with a request in hand is found out without another one) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    one.store("there", filled(100, 1));
    CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
    one.rdma.answers_held = true;
    const std::uint64_t before = one.rdma.messages;
    errc existed = errc::pending;
    const auto begin = std::chrono::steady_clock::now();
    std::thread asking([&] { existed = one.kv->exists("there").code; });
    CAF_CHECK(comes_true([&] { return one.rdma.messages == before + 1; }));
    one.rdma.break_messages();
    asking.join();
    CAF_CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15)); // its deadline is 30
    CAF_CHECK_EQUAL(existed, transport == transport_choice::rdma ? errc::rdma_failed : errc::ok);
    one.rdma.answers_held = false;
  }
}

CAF_TEST(a server that takes its time is asked whether it is alive and nothing else happens) {
  message_rig one(transport_choice::rdma);
  one.store("there", filled(100, 1));
  one.server.shape = [](test::fake_frame& frame) {
    if (frame.by_message) {
      ::poll(nullptr, 0, 1000);
    }
  };
  CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
  CAF_CHECK_EQUAL(one.rdma.connected.load(), 1u);
  CAF_CHECK_EQUAL(one.kv->count().rdma_messages, 2u);
  CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
}

CAF_TEST(a server that starts again is asked on a new queue pair) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    one.store("there", filled(100, 1));
    for (unsigned round = 1; round < 4; ++round) {
      CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
      CAF_CHECK_EQUAL(one.rdma.connected.load(), round);
      one.server.stop();
      const item_result away = one.kv->exists("there");
      CAF_CHECK_EQUAL(away.code, errc::not_found);
      CAF_CHECK_EQUAL(away.cause, errc::server_down);
      one.server.start();
      CAF_CHECK(comes_true([&] { return one.kv->exists("there").code == errc::ok; }));
    }
    CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
    CAF_CHECK_EQUAL(one.on_socket(opcode::exists), 0u);
  }
}

CAF_TEST(a connection that is lost with requests on its queue pair asks again what only reads) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    one.store("there", filled(100, 1));
    CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
    one.rdma.answers_held = true;
    const std::uint64_t before = one.rdma.messages;
    item_result existed;
    item_result removed;
    std::thread asking([&] { existed = one.kv->exists("there"); });
    CAF_CHECK(comes_true([&] { return one.rdma.messages == before + 1; }));
    const bool strict = transport == transport_choice::rdma;
    std::thread removing([&] { removed = one.kv->remove("other"); });
    CAF_CHECK(comes_true([&] { return one.server.requests(opcode::tcp_delete) == 1; }));
    if (!strict) {
      removing.join(); // on the socket, which nobody holds up
    }
    one.server.stop();
    one.rdma.answers_held = false;
    asking.join();
    if (strict) {
      removing.join();
    }
    CAF_CHECK_EQUAL(existed.code, errc::not_found);
    CAF_CHECK_EQUAL(existed.cause, errc::server_down);
    CAF_CHECK_EQUAL(removed.code, strict ? errc::connection_lost : errc::not_found);
    CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
    one.server.start();
  }
}

CAF_TEST(memory that the device refuses ends the queue pair that was to reach it) {
  for (const wire::status answer : {wire::status::memory_refused, wire::status::session_ended}) {
    for (const transport_choice transport : with_rdma) {
      message_rig one(transport);
      const bool strict = transport == transport_choice::rdma;
      const bytes value = filled(10'000, 4);
      one.store("key", value);
      bytes target(10'000);
      const registered_memory to = one.known(target);
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
      one.rdma.transfers_end = answer;
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, strict ? static_cast<errc>(answer) : errc::ok);
      CAF_CHECK_EQUAL(one.kv->count().rdma_in_use, strict);
      CAF_CHECK_EQUAL(one.log.warnings(), 1u);
      one.rdma.transfers_end = wire::status::ok;
      std::fill(target.begin(), target.end(), poison);
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
      CAF_CHECK(target == value);
      CAF_CHECK_EQUAL(one.rdma.connected.load(), strict ? 2u : 1u);
    }
  }
}

CAF_TEST(an answer that fails a check ends the queue pair and is not believed) {
  struct trick {
    const char* what;
    std::function<void(test::fake_frame&)> play;
  };
  const trick tricks[] = {
      {"a wrong tag", [](test::fake_frame& frame) { frame.damage_tag = true; }},
      {"a wrong MAC", [](test::fake_frame& frame) { frame.damage_mac = true; }},
      {"another clock", [](test::fake_frame& frame) { frame.clock_offset_ns = 120'000'000'000; }},
      {"the id of an earlier request", [](test::fake_frame& frame) { frame.header.request_id -= 1; }},
      {"an id that was never sent", [](test::fake_frame& frame) { frame.header.request_id += 1; }},
      {"another opcode", [](test::fake_frame& frame) { frame.header.opcode = opcode::lookup; }},
      {"a part that is not the last", [](test::fake_frame& frame) { frame.header.flags = 0; }},
      {"a payload",
       [](test::fake_frame& frame) {
         frame.payload.resize(8);
         frame.header.value_length = 8;
       }},
      {"a variable part of another length", [](test::fake_frame& frame) { frame.variable.resize(9); }},
  };
  for (const trick& each : tricks) {
    CAF_MESSAGE(each.what);
    for (const transport_choice transport : with_rdma) {
      message_rig one(transport);
      one.store("there", filled(100, 1));
      CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
      one.server.shape = [&](test::fake_frame& frame) {
        if (frame.by_message) {
          each.play(frame);
        }
      };
      const bool strict = transport == transport_choice::rdma;
      const item_result got = one.kv->exists("there");
      CAF_CHECK_EQUAL(got.code, strict ? errc::rdma_failed : errc::ok);
      CAF_CHECK_EQUAL(one.on_socket(opcode::exists), strict ? 0u : 1u);
      CAF_CHECK_EQUAL(one.log.warnings(), 1u);
      one.server.shape = nullptr;
      CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
    }
  }
}

CAF_TEST(an answer that comes after its deadline is never taken for that of another request) {
  message_rig one(transport_choice::rdma);
  one.store("there", filled(100, 1));
  CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
  one.rdma.answers_held = true;
  const std::uint64_t connections = one.server.connections();
  CAF_CHECK_EQUAL(one.kv->exists("there", {.deadline_ms = 100}).code, errc::deadline_exceeded);
  one.rdma.answers_held = false;
  for (int i = 0; i < 20; ++i) {
    CAF_CHECK_EQUAL(one.kv->exists("never").code, errc::not_found);
  }
  CAF_CHECK_EQUAL(one.rdma.connected.load(), 2u);
  CAF_CHECK_EQUAL(one.server.connections(), connections); // the socket stays
  CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
}

CAF_TEST(a deadline takes along what changes something and not what reads) {
  message_rig one(transport_choice::rdma);
  one.store("there", filled(100, 1));
  CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
  one.rdma.answers_held = true;
  const std::uint64_t before = one.rdma.messages;
  constexpr std::string_view keys[] = {"there", "other", "late"};
  item_result results[3];
  std::atomic<int> completed{0};
  const auto done = [&] { return client::completion::call([&] { ++completed; }); };
  const std::span<const std::string_view> all(keys);
  const std::span<item_result> into(results);
  CAF_CHECK(one.kv->submit_exists(all.subspan(0, 1), into.subspan(0, 1), done()).ok());
  CAF_CHECK(one.kv->submit_remove(all.subspan(1, 1), into.subspan(1, 1), done()).ok());
  CAF_CHECK(one.kv->submit_exists(all.subspan(2, 1), into.subspan(2, 1), done(), {.deadline_ms = 300}).ok());
  CAF_CHECK(comes_true([&] { return one.rdma.messages == before + 3; }));
  CAF_CHECK(comes_true([&] { return completed == 2; }));
  CAF_CHECK_EQUAL(results[2].code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(results[1].code, errc::connection_lost);
  one.rdma.answers_held = false;
  CAF_CHECK(comes_true([&] { return completed == 3; }));
  CAF_CHECK_EQUAL(results[0].code, errc::ok);
}

CAF_TEST(three deadlines of messages in a row turn RDMA off with auto) {
  message_rig one(transport_choice::automatic);
  one.store("there", filled(100, 1));
  CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
  one.rdma.answers_held = true;
  for (int i = 0; i < 3; ++i) {
    CAF_CHECK(one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.kv->exists("there", {.deadline_ms = 50}).code, errc::deadline_exceeded);
  }
  CAF_CHECK(!one.kv->count().rdma_in_use);
  CAF_CHECK_EQUAL(one.kv->exists("there").code, errc::ok);
  CAF_CHECK_EQUAL(one.on_socket(opcode::exists), 1u);
}

CAF_TEST(no byte of a target is written after the deadline of a get that went as a message) {
  message_rig one(transport_choice::rdma);
  const bytes value = filled(40'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(40'000);
  const registered_memory to = one.known(target);
  one.network.hold();
  CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 200}).code, errc::deadline_exceeded);
  std::fill(target.begin(), target.end(), poison);
  one.network.hold(false);
  one.network.settle();
  CAF_CHECK(holds_poison(target));
  // The same when the transfer is what does not end.
  const std::uint64_t begun = one.rdma.transfers_begun;
  item_result got;
  one.server.shape = [&](test::fake_frame& frame) {
    if (frame.header.opcode == opcode::batch_read) {
      frame.drop = true;
    }
  };
  got = one.kv->get("key", target, {.deadline_ms = 200});
  CAF_CHECK_EQUAL(got.code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(one.rdma.transfers_begun.load(), begun + 1);
  std::fill(target.begin(), target.end(), poison);
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(a server without room for a queue pair is asked over the socket and RDMA stays) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    one.rdma.connect_answer = wire::status::busy;
    bytes value = filled(10'000, 4);
    bytes target(10'000);
    const registered_memory from = one.known(value);
    const registered_memory to = one.known(target);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
    CAF_CHECK(target == value);
    CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::ok);
    CAF_CHECK_EQUAL(one.kv->exists("never").code, errc::not_found);
    CAF_CHECK_EQUAL(one.on_socket(opcode::exists), 2u);
    CAF_CHECK_EQUAL(one.on_socket(opcode::batch_write), 1u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::connect), 1u); // it is not asked each time
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 0u);
    CAF_CHECK(one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
    CAF_CHECK_EQUAL(one.log.warnings(), 0u);
  }
}

CAF_TEST(a server without RDMA is asked over the socket) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    one.rdma.present = false;
    one.store("key", filled(100, 4));
    CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::ok);
    CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::ok);
    CAF_CHECK_EQUAL(one.server.requests(opcode::connect), 0u);
    CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
  }
}

CAF_TEST(a queue pair that is refused turns RDMA off with auto and fails requests with rdma) {
  for (const wire::status answer :
       {wire::status::unavailable, wire::status::unsupported, wire::status::bad_request}) {
    for (const transport_choice transport : with_rdma) {
      message_rig one(transport);
      one.rdma.connect_answer = answer;
      one.store("key", filled(100, 4));
      const bool strict = transport == transport_choice::rdma;
      CAF_CHECK_EQUAL(one.kv->exists("key").code, strict ? errc::rdma_failed : errc::ok);
      CAF_CHECK_EQUAL(one.log.warnings(), 1u);
      CAF_CHECK_EQUAL(one.kv->count().rdma_in_use, strict);
      one.rdma.connect_answer = wire::status::ok;
      CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::ok);
      CAF_CHECK_EQUAL(one.rdma.connected.load(), strict ? 1u : 0u);
    }
  }
}

CAF_TEST(what the server does not take as a message is no answer) {
  for (const transport_choice transport : with_rdma) {
    message_rig one(transport);
    one.store("key", filled(100, 4));
    one.server.shape = [](test::fake_frame& frame) {
      if (frame.by_message) {
        frame.header.status_code = static_cast<std::uint8_t>(wire::status::session_ended);
        frame.variable.clear();
        frame.header.value_length = 0;
      }
    };
    const bool strict = transport == transport_choice::rdma;
    CAF_CHECK_EQUAL(one.kv->exists("key").code, strict ? errc::rdma_failed : errc::ok);
    CAF_CHECK_EQUAL(one.kv->count().rdma_in_use, strict);
  }
}

CAF_TEST(a device that goes away wakes those who wait for messages on it) {
  for (const transport_choice transport : with_rdma) {
    for (const std::uint32_t spin_us : {0U, 1'000'000U}) {
      message_rig one(transport);
      const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
      client::options chosen = one.message_options(transport, spin_us);
      chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
        made = std::make_unique<gifted_fabric>(one.network.create_node(node("down", false)), descriptor);
        return client::status{};
      };
      one.make(chosen);
      one.store("key", filled(100, 4));
      CAF_CHECK_EQUAL(one.kv->exists("key").code, errc::ok);
      one.rdma.answers_held = true;
      const std::uint64_t before = one.rdma.messages;
      errc existed = errc::pending;
      std::thread asking([&] { existed = one.kv->exists("key").code; });
      CAF_CHECK(comes_true([&] { return one.rdma.messages == before + 1; }));
      const auto begin = std::chrono::steady_clock::now();
      const std::uint64_t down = 1;
      CAF_CHECK_EQUAL(::write(descriptor, &down, sizeof down), static_cast<ssize_t>(sizeof down));
      asking.join();
      CAF_CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15)); // its deadline is 30
      const bool strict = transport == transport_choice::rdma;
      CAF_CHECK_EQUAL(existed, strict ? errc::rdma_failed : errc::ok);
      one.rdma.answers_held = false;
      one.kv.reset();
      ::close(descriptor);
    }
  }
}

// ---- queue pairs that stay ----

CAF_TEST(a device that would not destroy a queue pair is closed before memory is given back) {
  for (const bool by_message : {true, false}) {
    message_rig one(transport_choice::rdma);
    const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    std::atomic<std::uint32_t> left{0};
    std::atomic<unsigned> opened{0};
    client::options chosen = one.message_options(transport_choice::rdma, 0, 2);
    chosen.rdma_messages = by_message;
    chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
      ++opened;
      left = 0; // of the device that is new
      auto gifted = std::make_unique<gifted_fabric>(one.network.create_node(node("left", false)), descriptor);
      gifted->leave(left);
      made = std::move(gifted);
      return client::status{};
    };
    one.make(chosen);
    const bytes value = filled(40'000, 4);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    bytes target(40'000);
    registered_memory to = one.known(target);
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
    CAF_CHECK_EQUAL(opened.load(), 1u);
    // The server has its answer on hold, so that the deadline ends the queue pair, which then stays.
    one.network.hold();
    left = 1;
    CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 200}).code, errc::deadline_exceeded);
    CAF_CHECK(!to.effective()); // nothing is lent to anybody any more
    std::fill(target.begin(), target.end(), poison);
    one.network.hold(false);
    one.network.settle();
    CAF_CHECK(holds_poison(target));
    // The next call opens the device again, with the same memory.
    CAF_CHECK(comes_true([&] { return one.kv->get("key", target).code == errc::ok; }));
    CAF_CHECK(target == value);
    CAF_CHECK_EQUAL(opened.load(), 2u);
    CAF_CHECK(to.effective());
    CAF_CHECK_EQUAL(to.release().text, "");
    one.kv.reset();
    ::close(descriptor);
  }
}

CAF_TEST(a queue pair that stays at the device ends the requests of other connections on it at once) {
  message_rig one(transport_choice::rdma);
  const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  std::atomic<std::uint32_t> left{0};
  client::options chosen = one.message_options(transport_choice::rdma, 0, 2);
  chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
    left = 0;
    auto gifted = std::make_unique<gifted_fabric>(one.network.create_node(node("left", false)), descriptor);
    gifted->leave(left);
    made = std::move(gifted);
    return client::status{};
  };
  one.make(chosen);
  one.store("key", filled(100, 1));
  one.rdma.answers_held = true;
  errc first = errc::pending;
  errc second = errc::pending;
  // Each waits on a connection of its own.
  std::thread patient([&] { first = one.kv->exists("key").code; });
  CAF_CHECK(comes_true([&] { return one.rdma.messages == 1; }));
  left = 1;
  const auto begin = std::chrono::steady_clock::now();
  std::thread hasty([&] { second = one.kv->exists("key", {.deadline_ms = 300}).code; });
  hasty.join();
  patient.join();
  CAF_CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15)); // its deadline is 30
  CAF_CHECK_EQUAL(second, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(first, errc::rdma_failed);
  one.rdma.answers_held = false;
  CAF_CHECK(comes_true([&] { return one.kv->exists("key").code == errc::ok; }));
  one.kv.reset();
  ::close(descriptor);
}

CAF_TEST(a queue pair that the server keeps after the end of the session reaches no memory) {
  message_rig one(transport_choice::rdma);
  bytes value = filled(40'000, 4);
  const registered_memory from = one.known(value);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(40'000, poison);
  const registered_memory to = one.known(target);
  one.rdma.forgets_to_detach = true;
  const std::uint64_t kept = one.rdma.last_session();
  one.server.shape = [](test::fake_frame& frame) { frame.drop = frame.header.opcode == opcode::batch_read; };
  CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 200}).code, errc::deadline_exceeded);
  CAF_CHECK(target == value); // it was placed, and the answer lost
  std::fill(target.begin(), target.end(), poison);
  CAF_CHECK(comes_true([&] { return one.rdma.detached == 1; }));
  // Address and key are right still, and the queue pair at the server's end was not destroyed.
  CAF_CHECK(one.rdma.place(kept, one.rdma.last_address, one.rdma.last_rkey, value) != wire::status::ok);
  one.network.settle();
  CAF_CHECK(holds_poison(target));
  one.server.shape = nullptr;
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
  one.rdma.forgets_to_detach = false;
}

CAF_TEST(whatever fails no answer is wrong and no memory is touched late) {
  const std::uint64_t seed = test_seed();
  CAF_MESSAGE("MEMKV_TEST_SEED=" << seed);
  std::mt19937_64 chooser(seed);
  message_rig one(transport_choice::rdma, 100, 2);
  one.store("there", filled(777, 1));
  std::atomic<bool> over{false};
  std::atomic<int> wrong{0};
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t, random = std::mt19937_64(seed + t)]() mutable {
      bytes memory(20'000);
      bytes target(20'000, poison);
      registered_memory from;
      registered_memory to;
      if (t != 0) {
        wrong += one.kv->register_memory(memory, from).ok() ? 0 : 1;
        wrong += one.kv->register_memory(target, to).ok() ? 0 : 1;
      }
      const std::string key = "key-" + std::to_string(t);
      while (!over) {
        const call_options call{.deadline_ms = static_cast<std::uint32_t>(1 + random() % 40)};
        const item_result there = one.kv->exists("there", call);
        right += there.code == errc::ok ? 1 : 0;
        wrong += there.code == errc::ok && there.value_length != 777 ? 1 : 0;
        wrong += there.code == errc::not_found && there.cause == errc::ok ? 1 : 0;
        wrong += one.kv->lookup("never", call).code == errc::ok ? 1 : 0;
        const bytes value = filled(memory.size(), static_cast<unsigned>(random() % 251));
        std::copy(value.begin(), value.end(), memory.begin());
        static_cast<void>(one.kv->put(key, memory, false, call));
        std::fill(memory.begin(), memory.end(), poison); // must not be stored
        const item_result got = one.kv->get(key, target, call);
        if (got.code == errc::ok) {
          wrong += target == filled(target.size(), static_cast<unsigned>(target.front())) ? 0 : 1;
        }
        std::fill(target.begin(), target.end(), poison);
        ::poll(nullptr, 0, static_cast<int>(random() % 4));
        wrong += holds_poison(target) ? 0 : 1;
        if (random() % 4 == 0) {
          static_cast<void>(one.kv->remove(key, call));
        }
      }
    });
  }
  for (int i = 0; i < 60; ++i) {
    switch (chooser() % 6) {
    case 0:
      one.network.hold();
      break;
    case 1:
      one.rdma.answers_held = true;
      break;
    case 2:
      one.rdma.break_messages();
      break;
    case 3:
      one.rdma.connect_answer = wire::status::unavailable;
      break;
    case 4:
      one.rdma.damage_reads = true;
      break;
    default:
      one.rdma.transfers_end = wire::status::unavailable;
      break;
    }
    ::poll(nullptr, 0, static_cast<int>(chooser() % 40));
    one.network.hold(false);
    one.rdma.answers_held = false;
    one.rdma.connect_answer = wire::status::ok;
    one.rdma.damage_reads = false;
    one.rdma.transfers_end = wire::status::ok;
    ::poll(nullptr, 0, static_cast<int>(chooser() % 20));
  }
  CAF_CHECK(comes_true([&, before = right.load()] { return right > before + 3; }));
  over = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_CHECK_EQUAL(wrong.load(), 0);
}
