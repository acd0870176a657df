// What travels over RDMA, and how, when all is well.
#define CAF_SUITE client_rdma

#include "test/unit/client/rdma_rig.hpp"

using namespace rdma_test;

CAF_TEST(values travel from and to registered memory without TCP carrying them) {
  for (const bool dc : {false, true}) {
    rig one(transport_choice::rdma, dc);
    for (const std::size_t length : sizes) {
      bytes value = filled(length + 1, static_cast<unsigned>(length));
      bytes target(length + 1, poison);
      const registered_memory from = one.known(value);
      const registered_memory to = one.known(target);
      CAF_CHECK_EQUAL(one.kv->put("key", std::span(value).first(length)).code, errc::ok);
      const item_result got = one.kv->get("key", std::span(target).first(length));
      CAF_CHECK_EQUAL(got.code, errc::ok);
      CAF_CHECK_EQUAL(got.length, length);
      CAF_CHECK(std::equal(value.begin(), value.end() - 1, target.begin()));
      CAF_CHECK_EQUAL(target.back(), poison);
    }
    CAF_CHECK_EQUAL(one.rdma.attached.load(), 1u);
    CAF_CHECK_EQUAL(one.rdma.attached_dc.load(), dc ? 1u : 0u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put) + one.server.requests(opcode::tcp_get), 0u);
    CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 0u);
    CAF_CHECK(one.kv->count().rdma_value_bytes > 8'000'000u);
    CAF_CHECK(one.kv->count().rdma_in_use);
  }
}

CAF_TEST(a server that does not want a DC target is given a queue pair) {
  rig one(transport_choice::rdma, true);
  one.rdma.takes_dc = false;
  const bytes value = filled(5000, 1);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.rdma.attached_dc.load(), 0u);
  CAF_CHECK_EQUAL(one.rdma.attached.load(), 1u);
  CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
}

CAF_TEST(keyed digests are made and checked over RDMA) {
  rig one(transport_choice::rdma);
  one.server.keyed_required = true;
  const bytes value = filled(100'000, 1);
  bytes target(100'000);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
  one.rdma.damage_reads = true;
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::digest_mismatch);
}

CAF_TEST(values outside registered memory are copied through the staging area with transport rdma) {
  rig one(transport_choice::rdma);
  for (const std::size_t length : sizes) {
    const bytes value = filled(length, 5);
    bytes target(length + 1, poison);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    const item_result got = one.kv->get("key", target);
    CAF_CHECK_EQUAL(got.code, errc::ok);
    CAF_CHECK_EQUAL(got.length, length);
    CAF_CHECK(std::equal(value.begin(), value.end(), target.begin()));
    CAF_CHECK_EQUAL(target.back(), poison);
  }
  const bytes large(17U << 20U);
  CAF_CHECK_EQUAL(one.kv->put("large", large).code, errc::memory_not_registered);
  CAF_CHECK_EQUAL(one.kv->count().rdma_value_bytes, 0u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put) + one.server.requests(opcode::tcp_get), 0u);
}

CAF_TEST(many threads share a staging area that is too small for all of them) {
  rig one(transport_choice::rdma);
  auto chosen = one.options(transport_choice::rdma);
  chosen.rdma_staging_mb = 4;
  chosen.num_connections = 3;
  one.make(std::move(chosen));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 8; ++i) {
        const std::string key = std::to_string(t) + "/" + std::to_string(i);
        const bytes value = filled(700'000 + t * 500'000, t + i);
        bytes target(value.size());
        wrong += one.kv->put(key, value).code == errc::ok ? 0 : 1;
        wrong += one.kv->get(key, target).code == errc::ok && target == value ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_CHECK_EQUAL(wrong.load(), 0);
}

CAF_TEST(a thousand small values in registered memory are one control message) {
  rig one(transport_choice::automatic);
  constexpr std::size_t count = 1000;
  bytes memory = filled(count * 4096, 3);
  bytes targets(count * 4096 + 1'000'000);
  const registered_memory from = one.known(memory);
  const registered_memory to = one.known(targets);
  std::vector<std::string> keys;
  std::vector<client::put_item> puts;
  std::vector<client::get_item> gets;
  for (std::size_t i = 0; i < count; ++i) {
    keys.push_back("block-" + std::to_string(i));
  }
  for (std::size_t i = 0; i < count; ++i) {
    puts.push_back({keys[i], std::span(memory).subspan(i * 4096, 4096)});
    gets.push_back({keys[i], std::span(targets).subspan(i * 4096, 4096)});
  }
  // A large one shares the message.
  const bytes large = filled(1'000'000, 9);
  CAF_CHECK_EQUAL(one.kv->put("large", large).code, errc::ok);
  gets.push_back({"large", std::span(targets).last(1'000'000)});
  std::vector<item_result> results(count);
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  results.resize(count + 1);
  CAF_CHECK_EQUAL(one.kv->get(gets, results), errc::ok);
  CAF_CHECK(std::equal(memory.begin(), memory.end(), targets.begin()));
  CAF_CHECK(std::equal(large.begin(), large.end(), targets.end() - 1'000'000));
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 1u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_read), 1u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 1u); // `large` was not in registered memory
  CAF_CHECK_EQUAL(one.kv->count().rdma_value_bytes, count * 4096 * 2 + 1'000'000);
}

CAF_TEST(batches stay within the items and bytes of one message) {
  rig one(transport_choice::automatic);
  constexpr std::size_t count = 4100; // a message has 4096 at most
  bytes memory = filled(count * 16, 3);
  const registered_memory from = one.known(memory);
  std::vector<std::string> keys(count);
  std::vector<client::put_item> puts(count);
  std::vector<item_result> results(count);
  for (std::size_t i = 0; i < count; ++i) {
    keys[i] = "block-" + std::to_string(i);
    puts[i] = {keys[i], std::span(memory).subspan(i * 16, 16)};
  }
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  CAF_CHECK_EQUAL(one.server.blocks(), count);
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 2u);
  // Three values of 30 MiB, which may share memory: two in the first message.
  bytes large = filled(30U << 20U, 5);
  const registered_memory larger = one.known(large);
  puts.assign({{"a", large}, {"b", large}, {"c", large}});
  results.resize(3);
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 4u);
}

CAF_TEST(ranges and results of single items over RDMA are those of TCP) {
  rig one(transport_choice::rdma);
  const bytes value = filled(1000, 9);
  bytes target(1000, poison);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->put("key", value, true).code, errc::already_exists);
  const auto ranged = [&](std::uint64_t offset, std::uint64_t length, std::size_t room) {
    const client::get_item item{"key", std::span(target).first(room), offset, length};
    item_result result;
    one.kv->get(std::span(&item, 1), std::span(&result, 1));
    return result;
  };
  item_result result = ranged(10, 20, 1000);
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK_EQUAL(result.length, 20u);
  CAF_CHECK(std::equal(target.begin(), target.begin() + 20, value.begin() + 10));
  CAF_CHECK(holds_poison(std::span(target).subspan(20)));
  result = ranged(990, 20, 1000);
  CAF_CHECK_EQUAL(result.length, 10u);
  CAF_CHECK_EQUAL(ranged(1001, 1, 1000).code, errc::out_of_range);
  result = ranged(0, 0, 999);
  CAF_CHECK_EQUAL(result.code, errc::buffer_too_small);
  CAF_CHECK_EQUAL(result.value_length, 1000u);
  CAF_CHECK_EQUAL(one.kv->get("nothing", target).code, errc::not_found);
}

CAF_TEST(memory is deregistered only when no call uses it) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  auto to = std::make_unique<registered_memory>(one.known(target));
  registered_memory second;
  CAF_CHECK_EQUAL(one.kv->register_memory(std::span(target).subspan(10, 10), second).code,
                  errc::invalid_argument);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  item_result result;
  std::thread getter([&] { result = one.kv->get("key", target); });
  CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
  CAF_CHECK_EQUAL(to->release().code, errc::busy);
  std::atomic<bool> gone{false};
  std::thread ender([&] {
    to.reset();
    gone = true;
  });
  ::poll(nullptr, 0, 50);
  CAF_CHECK(!gone);
  one.network.hold(false);
  getter.join();
  ender.join();
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK(target == value);
  CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 400'000u);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 800'000u);
}

CAF_TEST(memory of another device travels over RDMA and nowhere else) {
  rig one(transport_choice::automatic);
  const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  client::options chosen = one.options(transport_choice::automatic);
  chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
    made = std::make_unique<gifted_fabric>(one.network.create_node(node("gpu", false)), descriptor);
    return client::status{};
  };
  one.make(chosen);
  bytes memory = filled(3'000'000, 6);
  bytes target(3'000'000);
  std::atomic<std::uint64_t> copied{0};
  const auto known = [&](bytes& range) {
    client::device_memory wanted;
    wanted.descriptor = descriptor;
    wanted.length = range.size();
    wanted.address = reinterpret_cast<std::uintptr_t>(range.data());
    wanted.copy_out = [&](std::uint64_t from, std::span<std::byte> to) {
      std::memcpy(to.data(), reinterpret_cast<const std::byte*>(from), to.size());
      copied += to.size();
      return true;
    };
    registered_memory made;
    CAF_REQUIRE_EQUAL(one.kv->register_device_memory(wanted, made).text, "");
    return made;
  };
  const registered_memory from = known(memory);
  const registered_memory to = known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", memory).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == memory);
  CAF_CHECK_EQUAL(copied.load(), 6'000'000u);
  // Two items of one range: no copy between them is made by the processor.
  const std::vector<client::get_item> items(2, {"key", target});
  std::vector<item_result> results(2);
  CAF_CHECK_EQUAL(one.kv->get(items, results), errc::ok);
  CAF_CHECK_EQUAL(one.rdma.writes.load(), 3u);
  one.rdma.transfers_end = wire::status::memory_refused;
  CAF_CHECK_EQUAL(one.kv->put("key", memory).code, errc::unsupported);
  CAF_CHECK_EQUAL(one.kv->put("key", memory).code, errc::unsupported);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 0u);
  one.kv.reset();
  ::close(descriptor);
}

CAF_TEST(several targets of one range are fetched once) {
  for (const transport_choice transport : {transport_choice::rdma, transport_choice::tcp}) {
    rig one(transport);
    const bytes value = filled(50'000, 4);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    std::vector<bytes> targets{bytes(50'000), bytes(50'000), bytes(60'000), bytes(49'999), bytes(50'000)};
    std::vector<client::get_item> items;
    for (bytes& target : targets) {
      items.push_back({"key", target});
    }
    items.back().range_offset = 1; // another range
    std::vector<item_result> results(items.size());
    CAF_CHECK_EQUAL(one.kv->get(items, results), errc::buffer_too_small);
    for (const std::size_t i : {0U, 1U, 2U}) {
      CAF_CHECK_EQUAL(results[i].code, errc::ok);
      CAF_CHECK_EQUAL(results[i].length, 50'000u);
      CAF_CHECK(std::equal(value.begin(), value.end(), targets[i].begin()));
    }
    CAF_CHECK_EQUAL(results[3].code, errc::buffer_too_small);
    CAF_CHECK_EQUAL(results[3].value_length, 50'000u);
    CAF_CHECK_EQUAL(results[4].code, errc::ok);
    CAF_CHECK(std::equal(value.begin() + 1, value.end(), targets[4].begin()));
    CAF_CHECK_EQUAL(one.rdma.writes.load(), transport == transport_choice::rdma ? 2u : 0u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_get), transport == transport_choice::tcp ? 2u : 0u);
  }
}

CAF_TEST(asynchronous calls over RDMA complete once each) {
  rig one(transport_choice::automatic);
  constexpr std::size_t count = 40;
  bytes memory = filled(count * 10'000, 3);
  bytes targets(count * 10'000);
  const registered_memory from = one.known(memory);
  const registered_memory to = one.known(targets);
  std::vector<std::string> keys(count);
  std::vector<client::put_item> puts(count);
  std::vector<client::get_item> gets(count);
  std::vector<item_result> results(count);
  std::atomic<std::size_t> completed{0};
  for (std::size_t i = 0; i < count; ++i) {
    keys[i] = "block-" + std::to_string(i);
    puts[i] = {keys[i], std::span(memory).subspan(i * 10'000, 10'000)};
    gets[i] = {keys[i], std::span(targets).subspan(i * 10'000, 10'000)};
    CAF_CHECK(one.kv
                  ->submit_put(std::span(&puts[i], 1), std::span(&results[i], 1),
                               client::completion::call([&] { ++completed; }))
                  .ok());
  }
  CAF_CHECK(comes_true([&] { return completed == count; }));
  // RDMA ends in the middle of these.
  for (std::size_t i = 0; i < count; ++i) {
    if (i == count / 2) {
      one.rdma.transfers_end = wire::status::memory_refused;
    }
    CAF_CHECK(one.kv
                  ->submit_get(std::span(&gets[i], 1), std::span(&results[i], 1),
                               client::completion::call([&] { ++completed; }))
                  .ok());
  }
  CAF_CHECK(comes_true([&] { return completed == 2 * count; }));
  for (const item_result& result : results) {
    CAF_CHECK_EQUAL(result.code, errc::ok);
  }
  CAF_CHECK(targets == memory);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}
