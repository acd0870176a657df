// Values that travel by RDMA, through a REACTOR and real drives, with a stand-in for the device.
#define CAF_SUITE rdma_requests
#include "test/scenario/rdma_world.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <tuple>

using namespace memkv;
using test::all_storages;
using test::kib;
using test::mib;
using test::rdma_world;
using test::storage;
using wire::digest_kind;
using wire::opcode;
using wire::status;

namespace {

constexpr std::byte poison{0xEE};

// The algorithms of the library take seconds for these without optimisation.
void spoil(std::span<std::byte> memory) {
  std::memset(memory.data(), 0xEE, memory.size());
}
bool is_spoilt(std::span<const std::byte> memory) {
  return memory.empty() ||
         (memory[0] == poison && std::memcmp(memory.data(), memory.data() + 1, memory.size() - 1) == 0);
}
bool same(std::span<const std::byte> one, std::span<const std::byte> other) {
  return one.size() == other.size() &&
         (one.empty() || std::memcmp(one.data(), other.data(), one.size()) == 0);
}

/// test::pattern, made once.
const std::vector<std::byte>& pattern(const std::string& key, std::uint64_t version, std::size_t size) {
  static std::map<std::tuple<std::string, std::uint64_t, std::size_t>, std::vector<std::byte>> made;
  auto& out = made[{key, version, size}];
  if (out.size() != size)
    out = test::pattern(key, version, size);
  return out;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool memory_is_measured = false; // they keep what was let go, and books of it
#else
constexpr bool memory_is_measured = true;
#endif

/// RssAnon and RssShmem of this process.
std::uint64_t resident_bytes() {
  std::ifstream file{"/proc/self/status"};
  std::uint64_t sum = 0;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("RssAnon:") || line.starts_with("RssShmem:"))
      sum += std::stoull(line.substr(line.find(':') + 1)) * kib;
  return sum;
}

wire::bytes_view key_bytes(const std::string& key) {
  return {reinterpret_cast<const std::byte*>(key.data()), key.size()};
}

/// A client with one session and memory of its own, registered under one rkey.
struct user {
  user(rdma_world& in, std::size_t bytes) : world(in), memory(bytes), client(in.connect()) {
    static std::uint32_t next_rkey = 100;
    rkey = next_rkey++;
    const std::lock_guard guard(world.plan->lock);
    world.plan->memory[rkey] = memory;
  }
  ~user() {
    client.reset();
    const std::lock_guard guard(world.plan->lock);
    world.plan->memory.erase(rkey);
  }

  status attach(std::uint32_t rail = 0) {
    wire::attach_request wanted;
    wanted.rail = rail;
    wanted.client.path_mtu = 1024;
    wanted.client.number = 5;
    wanted.client.reads_served_max = 16;
    const auto answer = client->ask(opcode::tcp_attach, wanted);
    if (answer.status() != status::ok)
      return answer.status();
    wire::attach_reply reply;
    CAF_REQUIRE(wire::attach_reply::decode(answer.variable, reply) == status::ok);
    CAF_CHECK_EQUAL(reply.server.number, 77u);
    session = reply.session_id;
    return status::ok;
  }
  status detach() { return client->ask(opcode::tcp_detach, wire::session_message{session}).status(); }

  [[nodiscard]] std::uint64_t address(std::size_t offset = 0) const {
    return reinterpret_cast<std::uint64_t>(memory.data() + offset);
  }

  /// An item for the next request: the bytes at `offset` of the memory as they are now.
  wire::batch_write_item& add(const std::string& key, std::size_t offset, std::uint32_t bytes,
                              digest_kind kind = digest_kind::crc32c) {
    keys.push_back(std::make_unique<std::string>(key));
    auto& item = writes.emplace_back();
    item.rkey = rkey;
    item.client_address = address(offset);
    item.value_length = bytes;
    item.key = key_bytes(*keys.back());
    wire::payload_digest digest{client->keys().payload_key};
    digest.begin(kind, wire::direction::request, client->next_id(), 0,
                 static_cast<std::uint32_t>(writes.size() - 1));
    digest.update({memory.data() + offset, bytes});
    item.digest = digest.finish();
    return item;
  }
  wire::batch_read_item& want(const std::string& key, std::size_t offset, std::uint64_t capacity) {
    keys.push_back(std::make_unique<std::string>(key));
    auto& item = reads.emplace_back();
    item.rkey = rkey;
    item.client_address = address(offset);
    item.capacity = capacity;
    item.key = key_bytes(*keys.back());
    return item;
  }

  std::uint64_t send_writes(std::uint32_t deadline_ms = 0, digest_kind kind = digest_kind::crc32c) {
    return client->send(opcode::batch_write,
                        wire::session_batch_request<wire::batch_write_item>{session, writes}, deadline_ms,
                        kind);
  }
  std::uint64_t send_reads(std::uint32_t deadline_ms = 0, digest_kind kind = digest_kind::crc32c) {
    return client->send(opcode::batch_read,
                        wire::session_batch_request<wire::batch_read_item>{session, reads}, deadline_ms,
                        kind);
  }
  /// What became of each; of the whole request when it was refused.
  std::vector<status> written(std::uint64_t id) {
    const auto answer = client->receive(id);
    writes.clear();
    if (answer.status() != status::ok)
      return {answer.status()};
    wire::batch_put_reply_view view;
    CAF_REQUIRE(wire::batch_put_reply_view::decode(answer.variable, view) == status::ok);
    std::vector<status> out;
    for (std::uint32_t index = 0; index < view.size(); ++index)
      out.push_back(view[index].status);
    return out;
  }
  std::vector<wire::batch_read_result> were_read(std::uint64_t id) {
    const auto answer = client->receive(id);
    if (answer.status() != status::ok)
      return {{.status = answer.status()}};
    wire::batch_read_reply_view view;
    CAF_REQUIRE(wire::batch_read_reply_view::decode(answer.variable, view) == status::ok);
    std::vector<wire::batch_read_result> out;
    for (std::uint32_t index = 0; index < view.size(); ++index)
      out.push_back(view[index]);
    return out;
  }
  std::vector<status> write(std::uint32_t deadline_ms = 0, digest_kind kind = digest_kind::crc32c) {
    return written(send_writes(deadline_ms, kind));
  }
  std::vector<wire::batch_read_result> read(std::uint32_t deadline_ms = 0,
                                            digest_kind kind = digest_kind::crc32c) {
    return were_read(send_reads(deadline_ms, kind));
  }
  /// One value, from the beginning of the memory.
  status put(const std::string& key, std::span<const std::byte> value) {
    std::ranges::copy(value, memory.begin());
    add(key, 0, static_cast<std::uint32_t>(value.size()));
    return write().at(0);
  }
  /// Whether the digest of item `index`, which the request `id` read to `offset`, is right.
  bool right(std::uint64_t id, std::uint32_t index, std::size_t offset, const wire::batch_read_result& result,
             digest_kind kind = digest_kind::crc32c) {
    wire::payload_digest digest{client->keys().payload_key};
    digest.begin(kind, wire::direction::reply, id, 0, index);
    digest.update({memory.data() + offset, result.length});
    return digest.matches(result.digest);
  }
  /// Over TCP.
  std::vector<std::byte> get(const std::string& key) {
    wire::get_request wanted;
    wanted.key = key_bytes(key);
    const auto id = client->send(opcode::tcp_get, wanted);
    std::vector<std::byte> out;
    for (;;) {
      const auto part = client->receive(id);
      CAF_REQUIRE(part.status() == status::ok);
      out.insert(out.end(), part.payload.begin(), part.payload.end());
      if (part.header.last())
        return out;
    }
  }
  status look_up(const std::string& key) {
    return client->ask(opcode::exists, wire::key_request{key_bytes(key)}).status();
  }

  rdma_world& world;
  std::vector<std::byte> memory;
  std::unique_ptr<test::wire_client> client;
  std::uint32_t rkey = 0;
  std::uint64_t session = 0;
  std::vector<std::unique_ptr<std::string>> keys;
  std::vector<wire::batch_write_item> writes;
  std::vector<wire::batch_read_item> reads;
};

std::vector<status> statuses(const std::vector<wire::batch_read_result>& results) {
  std::vector<status> out;
  for (const auto& each : results)
    out.push_back(each.status);
  return out;
}

bool are(const std::vector<status>& found, const std::vector<status>& expected) {
  if (found == expected)
    return true;
  for (const auto each : found)
    CAF_MESSAGE("found " << wire::name(each));
  return false;
}

bool all(const std::vector<status>& found, status expected, std::size_t count) {
  for (const auto each : found)
    if (each != expected)
      CAF_MESSAGE("found " << wire::name(each) << ", expected " << wire::name(expected));
  return found == std::vector<status>(count, expected);
}

const std::vector<std::uint32_t>& sizes() {
  static const std::vector<std::uint32_t> out{0, 1, 4 * kib, 64 * kib, 100 * kib + 1, mib, 4 * mib + 1};
  return out;
}

void set(rdma_world& world, const std::function<void(test::pool_plan&)>& what) {
  const std::lock_guard guard(world.plan->lock);
  what(*world.plan);
}

/// What is held back goes on.
void speak(rdma_world& world) {
  set(world, [](test::pool_plan& plan) { plan.silent = false; });
  caf::anon_send(world.pool, actors::look_again{});
}

bool nothing_is_left(rdma_world& world) {
  return rdma_world::eventually([&] {
    const auto facts = world.facts();
    const std::lock_guard guard(world.plan->lock);
    return facts.connections == 0 && facts.requests_open == 0 && facts.sessions == 0 &&
           facts.held_bytes == 0 && world.plan->sessions.empty() && world.plan->pending == 0;
  });
}

} // namespace

CAF_TEST(values of all sizes come and go on every kind of drive and with both digests) {
  for (const auto kind : all_storages) {
    for (const bool shuffled : {false, true}) {
      CAF_MESSAGE(text_of(kind) << (shuffled ? ", out of order" : ""));
      rdma_world world{kind, 2};
      set(world, [&](test::pool_plan& plan) {
        plan.shuffles = shuffled;
        plan.transfer_bytes_max = shuffled ? 96 * kib : mib;
      });
      {
        user one{world, 8 * mib};
        CAF_REQUIRE(one.attach() == status::ok);
        for (const auto digest : {digest_kind::crc32c, digest_kind::keyed}) {
          const auto version = static_cast<std::uint64_t>(digest);
          std::vector<std::size_t> offsets;
          std::size_t end = 1; // addresses of any alignment
          for (const auto size : sizes()) {
            const auto key = "block of " + std::to_string(size);
            offsets.push_back(end);
            std::ranges::copy(pattern(key, version, size), one.memory.begin() + static_cast<long>(end));
            one.add(key, end, size, digest);
            end += size;
          }
          CAF_CHECK(all(one.write(0, digest), status::ok, sizes().size()));
          spoil(one.memory);
          one.reads.clear();
          for (std::size_t index = 0; index < sizes().size(); ++index)
            one.want("block of " + std::to_string(sizes()[index]), offsets[index], sizes()[index]);
          const auto id = one.send_reads(0, digest);
          const auto results = one.were_read(id);
          CAF_CHECK(all(statuses(results), status::ok, sizes().size()));
          for (std::uint32_t index = 0; index < sizes().size(); ++index) {
            const auto size = sizes()[index];
            CAF_CHECK_EQUAL(results[index].length, size);
            CAF_CHECK_EQUAL(results[index].value_length, size);
            CAF_CHECK(one.right(id, index, offsets[index], results[index], digest));
            const auto expected = pattern("block of " + std::to_string(size), version, size);
            CAF_CHECK(same(expected, std::span{one.memory}.subspan(offsets[index], size)));
            CAF_CHECK(same(one.get("block of " + std::to_string(size)), expected));
          }
          CAF_CHECK(one.memory[0] == poison);
          CAF_CHECK(one.memory[end] == poison);
        }
        CAF_CHECK(one.detach() == status::ok);
      }
      CAF_CHECK(nothing_is_left(world));
    }
  }
}

CAF_TEST(a batch of a thousand small values takes one control message and few for the pool) {
  for (const auto kind : {storage::memory, storage::raw, storage::direct}) {
    CAF_MESSAGE(text_of(kind));
    constexpr std::uint32_t count = 1000, bytes = 4 * kib;
    rdma_world world{kind};
    user one{world, count * bytes};
    CAF_REQUIRE(one.attach() == status::ok);
    const auto value = pattern("all", 1, one.memory.size());
    std::ranges::copy(value, one.memory.begin());
    for (std::uint32_t index = 0; index < count; ++index)
      one.add(std::to_string(index), index * bytes, bytes);
    const auto frames = world.counters().frames.value();
    CAF_CHECK(all(one.write(), status::ok, count));
    CAF_CHECK_EQUAL(world.counters().frames.value(), frames + 1);
    std::uint64_t messages = 0;
    set(world, [&](test::pool_plan& plan) {
      CAF_CHECK_EQUAL(plan.transfers, count);
      messages = std::exchange(plan.messages, 0);
      plan.transfers = 0;
    });
    CAF_CHECK_LESS_OR_EQUAL(messages, 2u);
    spoil(one.memory);
    for (std::uint32_t index = 0; index < count; ++index)
      one.want(std::to_string(index), index * bytes, bytes);
    {
      // A raw drive answers what has come when it looks, so how much that is depends on the machine: here it
      // looks when all was asked for.
      const auto body = world.bodies[0];
      std::unique_lock turn(body->turn, std::defer_lock);
      if (kind != storage::memory)
        turn.lock();
      const auto asked = world.counters().frames.value();
      const auto id = one.send_reads();
      CAF_CHECK(rdma_world::eventually([&] { return world.counters().frames.value() > asked; }));
      if (turn.owns_lock()) {
        CAF_CHECK_EQUAL(world.facts().requests_open, 1u);
        turn.unlock();
      }
      CAF_CHECK(all(statuses(one.were_read(id)), status::ok, count));
    }
    CAF_CHECK(same(one.memory, value));
    set(world, [&](test::pool_plan& plan) {
      CAF_CHECK_EQUAL(plan.transfers, count);
      CAF_MESSAGE(plan.messages << " messages to the pool");
      CAF_CHECK_LESS_OR_EQUAL(plan.messages, kind == storage::memory ? 2u : count / 8);
    });
    CAF_CHECK_EQUAL(world.counters().writes.value(), count);
    CAF_CHECK_EQUAL(world.counters().write_bytes.value(), count * bytes);
    CAF_CHECK_EQUAL(world.counters().reads.value(), count);
    CAF_CHECK_EQUAL(world.counters().read_bytes.value(), count * bytes);
  }
}

CAF_TEST(what is more than the pool takes of one session waits and is not refused) {
  // Of each a thousand transfers.
  constexpr std::uint32_t requests = 6, count = 8, bytes = 512 * kib;
  constexpr std::uint64_t most = actors::rdma_rails::transfers_session_max;
  rdma_world world{storage::memory};
  set(world, [](test::pool_plan& plan) { plan.transfer_bytes_max = 4 * kib; });
  {
    user one{world, requests * count * bytes}, other{world, mib};
    CAF_REQUIRE(one.attach() == status::ok);
    CAF_REQUIRE(other.attach() == status::ok);
    const auto value = pattern("all", 1, one.memory.size());
    std::ranges::copy(value, one.memory.begin());
    const auto pending = [&](std::uint64_t number) {
      return rdma_world::eventually([&] {
        const std::lock_guard guard(world.plan->lock);
        return world.plan->pending == number;
      });
    };
    const auto for_all = [&](const auto& each, std::uint32_t request) {
      for (std::uint32_t index = request * count; index < (request + 1) * count; ++index)
        each(std::to_string(index), index * bytes);
    };
    for (const bool writes : {true, false}) {
      set(world, [](test::pool_plan& plan) { plan.silent = true; });
      std::set<std::uint64_t> asked;
      for (std::uint32_t request = 0; request < requests; ++request) {
        one.writes.clear();
        one.reads.clear();
        if (writes)
          for_all([&](const auto& key, std::size_t at) { one.add(key, at, bytes); }, request);
        else
          for_all([&](const auto& key, std::size_t at) { one.want(key, at, bytes); }, request);
        asked.insert(writes ? one.send_writes() : one.send_reads());
      }
      CAF_CHECK(pending(most));
      // One whose turn does not come in time.
      if (writes) {
        one.writes.clear();
        one.add("late", 0, bytes);
        const auto late = one.send_writes(100);
        CAF_CHECK(are(one.written(late), {status::deadline_exceeded}));
      }
      // Others have their own.
      other.writes.clear();
      other.add("other", 0, bytes);
      const auto id = other.send_writes();
      CAF_CHECK(pending(most + bytes / (4 * kib)));
      CAF_CHECK_EQUAL(world.facts().requests_open, requests + 1);
      if (!writes)
        spoil(one.memory);
      speak(world);
      CAF_CHECK(are(other.written(id), {status::ok}));
      while (!asked.empty()) {
        const auto answer = one.client->receive();
        CAF_REQUIRE(answer.status() == status::ok);
        CAF_CHECK_EQUAL(asked.erase(answer.header.request_id), 1u);
        std::vector<status> found;
        if (writes) {
          wire::batch_put_reply_view view;
          CAF_REQUIRE(wire::batch_put_reply_view::decode(answer.variable, view) == status::ok);
          for (std::uint32_t index = 0; index < view.size(); ++index)
            found.push_back(view[index].status);
        } else {
          wire::batch_read_reply_view view;
          CAF_REQUIRE(wire::batch_read_reply_view::decode(answer.variable, view) == status::ok);
          for (std::uint32_t index = 0; index < view.size(); ++index)
            found.push_back(view[index].status);
        }
        CAF_CHECK(all(found, status::ok, count));
      }
    }
    CAF_CHECK(same(one.memory, value));
  }
  CAF_CHECK(nothing_is_left(world));
}

CAF_TEST(what batches hold whose transfers do not end is bounded) {
  constexpr std::uint32_t users = memory_is_measured ? 40 : 10, batches = 5, count = 1000, bytes = 64;
  // Frames of which a part has come are not held against their senders while the server does not read.
  // Their threads may have to wait for a processor, but not for so long.
  constexpr std::uint32_t header_ms = 3000;
  rdma_world world{storage::memory, 1, 64 * mib, true,
                   [](auto& given) { given.limits.header_ms = header_ms; }};
  {
    std::vector<std::unique_ptr<user>> all_of_them;
    for (std::uint32_t number = 0; number < users; ++number) {
      auto& one = *all_of_them.emplace_back(std::make_unique<user>(world, mib));
      CAF_REQUIRE(one.attach() == status::ok);
      for (std::uint32_t index = 0; index < count; ++index)
        if (number == 0)
          one.add(std::to_string(index), index * bytes, bytes);
      if (number == 0)
        CAF_REQUIRE(all(one.write(), status::ok, count));
      for (std::uint32_t index = 0; index < count; ++index)
        one.want(std::to_string(index), index * bytes, bytes);
    }
    set(world, [](test::pool_plan& plan) { plan.silent = true; });
    const auto before = resident_bytes();
    // Whoever finds its socket full waits until the server reads on.
    std::vector<std::thread> senders;
    for (const auto& each : all_of_them)
      senders.emplace_back([&one = *each] {
        for (std::uint32_t batch = 0; batch < batches; ++batch)
          static_cast<void>(one.send_reads());
      });
    // Until nothing more is taken from the sockets.
    std::uint64_t pending = 0;
    CAF_CHECK(rdma_world::eventually([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds{200});
      const std::lock_guard guard(world.plan->lock);
      return std::exchange(pending, world.plan->pending) == world.plan->pending && pending > 0;
    }));
    CAF_CHECK_LESS_OR_EQUAL(pending, actors::rdma_rails::transfers_pool_max + 0ULL);
    std::this_thread::sleep_for(std::chrono::milliseconds{header_ms + 1500});
    CAF_CHECK_EQUAL(world.facts().connections, users);
    const auto grown = resident_bytes() - std::min(before, resident_bytes());
    CAF_MESSAGE("grown by " << grown / kib << " KiB with " << pending << " transfers under way");
    if (memory_is_measured)
      CAF_CHECK_LESS_OR_EQUAL(grown, 64ULL * mib);
    // Each is answered, if only that the server is busy.
    speak(world);
    std::uint32_t taken = 0;
    for (const auto& each : all_of_them)
      for (std::uint32_t batch = 0; batch < batches; ++batch) {
        const auto answer = each->client->receive().status();
        CAF_CHECK(answer == status::ok || answer == status::busy);
        taken += answer == status::ok;
      }
    CAF_CHECK_GREATER(taken, users);
    for (auto& each : senders)
      each.join();
  }
  CAF_CHECK(nothing_is_left(world));
}

CAF_TEST(a batch that is larger than the buffer pool passes) {
  for (const auto kind : {storage::memory_out_of_reach, storage::file, storage::raw}) {
    CAF_MESSAGE(text_of(kind));
    constexpr std::uint32_t count = 40, bytes = 1 * mib + 300 * kib;
    rdma_world world{kind, 1, 8 * mib};
    set(world, [](test::pool_plan& plan) { plan.shuffles = true; });
    {
      user one{world, std::size_t{count} * bytes};
      user other{world, std::size_t{count} * bytes};
      for (auto* each : {&one, &other}) {
        CAF_REQUIRE(each->attach() == status::ok);
        std::ranges::copy(pattern("large", 1, each->memory.size()), each->memory.begin());
        for (std::uint32_t index = 0; index < count; ++index)
          each->add(std::to_string(each->rkey % 2) + "/" + std::to_string(index % 20), index * bytes, bytes);
      }
      const auto first = one.send_writes(), second = other.send_writes();
      CAF_CHECK(all(one.written(first), status::ok, count));
      CAF_CHECK(all(other.written(second), status::ok, count));
      for (auto* each : {&one, &other})
        for (std::uint32_t index = 0; index < count; ++index)
          each->want(std::to_string(each->rkey % 2) + "/" + std::to_string(index % 20), index * bytes, bytes);
      const auto third = one.send_reads(), fourth = other.send_reads();
      CAF_CHECK(all(statuses(one.were_read(third)), status::ok, count));
      CAF_CHECK(all(statuses(other.were_read(fourth)), status::ok, count));
    }
    CAF_CHECK(nothing_is_left(world));
  }
}

CAF_TEST(a value that is not what its digest says is not stored and the others are) {
  for (const auto kind : all_storages)
    for (const auto digest : {digest_kind::crc32c, digest_kind::keyed}) {
      rdma_world world{kind};
      user one{world, 4 * mib};
      CAF_REQUIRE(one.attach() == status::ok);
      one.add("good", 0, 70'000, digest);
      one.add("bad", 100'000, 70'000, digest).digest[3] ^= std::byte{1};
      one.add("empty", 0, 0, digest);
      CAF_CHECK(are(one.write(0, digest), {status::ok, status::digest_mismatch, status::ok}));
      CAF_CHECK(one.look_up("good") == status::ok);
      CAF_CHECK(one.look_up("bad") == status::not_found);
      CAF_CHECK_EQUAL(world.counters().digest_mismatches.value(), 1u);
    }
}

CAF_TEST(each item is answered for itself when its transfers fail) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    user one{world, 16 * mib};
    CAF_REQUIRE(one.attach() == status::ok);
    CAF_REQUIRE(one.put("old", pattern("old", 1, 3 * mib)) == status::ok);
    const auto unlucky = one.address(8 * mib), late = one.address(12 * mib);
    set(world, [&](test::pool_plan& plan) {
      plan.verdict = [=](const actors::memory_transfer& each) {
        return each.client_address == unlucky + mib ? status::unavailable
               : each.client_address == late        ? status::deadline_exceeded
                                                    : status::ok;
      };
    });
    one.add("good", 0, 5000);
    one.add("no such key", 0, 5000).rkey = 1;
    one.add("beside it", 16 * mib - 100, 100).client_address += 4096;
    one.add("unlucky", 8 * mib, 3 * mib);
    one.add("late", 12 * mib, 10);
    one.add("old", 0, 100).if_absent = true;
    CAF_CHECK(are(one.write(), {status::ok, status::memory_refused, status::memory_refused,
                                status::unavailable, status::deadline_exceeded, status::already_exists}));
    for (const auto* gone : {"no such key", "beside it", "unlucky", "late"})
      CAF_CHECK(one.look_up(gone) == status::not_found);
    one.want("good", 0, 5000);
    one.want("good", 0, 5000).rkey = 1;
    one.want("old", 8 * mib, 3 * mib);
    one.want("good", 12 * mib, 5000);
    CAF_CHECK(are(statuses(one.read()),
                  {status::ok, status::memory_refused, status::unavailable, status::deadline_exceeded}));
    CAF_CHECK_EQUAL(one.get("old").size(), 3 * mib);
  }
}

CAF_TEST(ranges and capacities are kept to and a miss is a miss) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    user one{world, 12 * mib};
    CAF_REQUIRE(one.attach() == status::ok);
    const auto value = pattern("key", 1, 5 * mib);
    CAF_REQUIRE(one.put("key", value) == status::ok);
    spoil(one.memory);
    struct range {
      std::uint64_t offset, length, capacity;
      status expected;
      std::uint64_t bytes;
    };
    const std::vector<range> ranges{{0, 0, 5 * mib, status::ok, 5 * mib},
                                    {1, 100, 100, status::ok, 100},
                                    {4 * mib - 70'000, 140'000, 140'000, status::ok, 140'000},
                                    {5 * mib - 1, 0, 8, status::ok, 1},
                                    {5 * mib - 1, 77, 1, status::ok, 1},
                                    {5 * mib, 0, 0, status::ok, 0},
                                    {5 * mib + 1, 0, 8, status::out_of_range, 0},
                                    {0, 0, 5 * mib - 1, status::buffer_too_small, 0},
                                    {0, 1, 0, status::buffer_too_small, 0},
                                    {65'536, 65'536, 65'536, status::ok, 65'536}};
    for (const auto digest : {digest_kind::crc32c, digest_kind::keyed}) {
      std::vector<std::size_t> offsets;
      std::size_t end = 0;
      one.reads.clear();
      for (const auto& each : ranges) {
        auto& item = one.want("key", end, each.capacity);
        item.range_offset = each.offset;
        item.range_length = each.length;
        offsets.push_back(end);
        end += each.bytes;
      }
      one.want("missing", end, 100);
      const auto id = one.send_reads(0, digest);
      const auto results = one.were_read(id);
      CAF_REQUIRE_EQUAL(results.size(), ranges.size() + 1);
      CAF_CHECK(results.back().status == status::not_found);
      CAF_CHECK_EQUAL(results.back().value_length, 0u);
      for (std::uint32_t index = 0; index < ranges.size(); ++index) {
        const auto& wanted = ranges[index];
        const auto& result = results[index];
        CAF_CHECK_EQUAL(wire::name(result.status), wire::name(wanted.expected));
        CAF_CHECK_EQUAL(result.length, wanted.bytes);
        CAF_CHECK_EQUAL(result.value_length, 5 * mib);
        CAF_CHECK(one.right(id, index, offsets[index], result, digest));
        if (wanted.bytes > 0)
          CAF_CHECK(same(std::span{value}.subspan(wanted.offset, wanted.bytes),
                         std::span{one.memory}.subspan(offsets[index], wanted.bytes)));
      }
      CAF_CHECK(one.memory[end] == poison);
    }
  }
}

CAF_TEST(what several items want of one block is read from its drive once) {
  rdma_world world{storage::raw};
  constexpr std::uint32_t count = 300, bytes = 256 * kib;
  user one{world, std::size_t{count} * bytes};
  CAF_REQUIRE(one.attach() == status::ok);
  const auto value = pattern("popular", 1, bytes);
  CAF_REQUIRE(one.put("popular", value) == status::ok);
  spoil(one.memory);
  for (std::uint32_t index = 0; index < count; ++index) {
    one.want("popular", std::size_t{index} * bytes, bytes);
    if (index % 3 == 0)
      one.want("not there", 0, 1);
  }
  const auto before = world.raw->read_bytes.load();
  const auto id = one.send_reads(0, digest_kind::keyed);
  const auto results = one.were_read(id);
  const auto read_bytes = world.raw->read_bytes.load() - before;
  // The range itself, and its header page.
  CAF_CHECK_LESS_OR_EQUAL(read_bytes, bytes + 64 * kib);
  CAF_CHECK_GREATER_OR_EQUAL(read_bytes, bytes);
  std::uint32_t found = 0;
  for (std::uint32_t index = 0; index < results.size(); ++index) {
    if (results[index].status == status::not_found)
      continue;
    const auto offset = std::size_t{found++} * bytes;
    CAF_REQUIRE(results[index].status == status::ok);
    CAF_CHECK(one.right(id, index, offset, results[index], digest_kind::keyed));
    CAF_CHECK(same(value, std::span{one.memory}.subspan(offset, bytes)));
  }
  CAF_CHECK_EQUAL(found, count);
  // Another request finds it in memory.
  one.reads.resize(1);
  CAF_CHECK(one.read()[0].status == status::ok);
  CAF_CHECK_EQUAL(world.raw->read_bytes.load() - before, read_bytes);
}

CAF_TEST(a session belongs to its connection and ends once) {
  rdma_world world{storage::memory};
  {
    user one{world, mib}, other{world, mib};
    CAF_REQUIRE(one.attach() == status::ok);
    CAF_REQUIRE(other.attach() == status::ok);
    CAF_CHECK_EQUAL(world.sessions_of_pool(), 2u);
    const auto own = std::exchange(other.session, one.session);
    other.add("key", 0, 100);
    CAF_CHECK(other.write() == std::vector<status>{status::session_ended});
    other.want("key", 0, 100);
    CAF_CHECK(other.read()[0].status == status::session_ended);
    CAF_CHECK(other.detach() == status::not_found);
    other.session = 0;
    CAF_CHECK(other.detach() == status::not_found);
    CAF_CHECK_EQUAL(world.sessions_of_pool(), 2u);
    CAF_CHECK(one.detach() == status::ok);
    CAF_CHECK(one.detach() == status::not_found);
    one.add("key", 0, 100);
    CAF_CHECK(one.write() == std::vector<status>{status::session_ended});
    other.session = own;
    other.add("key", 0, 100);
    CAF_CHECK(other.write() == std::vector<status>{status::ok});
    CAF_CHECK_EQUAL(world.facts().sessions, 1u);
  }
  CAF_CHECK(nothing_is_left(world));
}

CAF_TEST(a connection has so many sessions and gives them back) {
  rdma_world world{storage::memory};
  {
    user one{world, mib};
    std::vector<std::uint64_t> ids;
    for (std::uint32_t index = 0; index < wire::limits::sessions_connection_max; ++index) {
      CAF_REQUIRE(one.attach(index) == status::ok);
      ids.push_back(one.session);
    }
    CAF_CHECK(one.attach() == status::busy);
    CAF_CHECK(rdma_world::eventually(
        [&] { return world.sessions_of_pool() == wire::limits::sessions_connection_max; }));
    one.session = ids[3];
    CAF_CHECK(one.detach() == status::ok);
    CAF_CHECK(one.attach() == status::ok);
    set(world, [](test::pool_plan& plan) { plan.attach_result = status::unavailable; });
    CAF_CHECK(one.attach() == status::unavailable);
  }
  CAF_CHECK(nothing_is_left(world));
}

CAF_TEST(nothing is answered while its transfers are under way and a deadline waits for them) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    {
      user one{world, 32 * mib};
      CAF_REQUIRE(one.attach() == status::ok);
      CAF_REQUIRE(one.put("old", pattern("old", 1, 2 * mib)) == status::ok);
      const auto blocks = world.bodies[0]->store->counters().used_bytes;
      set(world, [](test::pool_plan& plan) { plan.silent = true; });
      // Some of them have not been begun when the deadline comes.
      for (std::uint32_t index = 0; index < 100; ++index)
        one.add("new " + std::to_string(index), index * 300 * kib, 300 * kib);
      one.want("old", 0, 2 * mib);
      const auto writes = one.send_writes(150), reads = one.send_reads(150);
      CAF_CHECK(rdma_world::eventually([&] { return world.counters().deadlines_exceeded.value() == 2; }));
      CAF_CHECK_EQUAL(world.facts().requests_open, 2u);
      set(world, [](test::pool_plan& plan) {
        CAF_CHECK_GREATER(plan.pending, 0u);
        plan.verdict = [](const actors::memory_transfer&) { return status::deadline_exceeded; };
      });
      speak(world);
      std::map<std::uint64_t, test::wire_client::answer> answers;
      for (int count = 0; count < 2; ++count) {
        auto next = one.client->receive();
        answers[next.header.request_id] = next;
      }
      spoil(one.memory);
      wire::batch_put_reply_view written;
      CAF_REQUIRE(wire::batch_put_reply_view::decode(answers.at(writes).variable, written) == status::ok);
      for (std::uint32_t index = 0; index < written.size(); ++index)
        CAF_CHECK_EQUAL(wire::name(written[index].status), wire::name(status::deadline_exceeded));
      wire::batch_read_reply_view read;
      CAF_REQUIRE(wire::batch_read_reply_view::decode(answers.at(reads).variable, read) == status::ok);
      CAF_CHECK_EQUAL(wire::name(read[0].status), wire::name(status::deadline_exceeded));
      // The space comes back, and nothing touches the memory.
      CAF_CHECK(
          rdma_world::eventually([&] { return world.bodies[0]->store->counters().used_bytes == blocks; }));
      CAF_CHECK(is_spoilt(one.memory));
      CAF_CHECK(one.look_up("new 0") == status::not_found);
    }
    CAF_CHECK(nothing_is_left(world));
  }
}

CAF_TEST(what was under way with a pool that dies is answered and touched no more) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    {
      user one{world, 32 * mib}, other{world, mib};
      CAF_REQUIRE(one.attach() == status::ok);
      CAF_REQUIRE(one.put("old", pattern("old", 1, 2 * mib)) == status::ok);
      set(world, [](test::pool_plan& plan) { plan.silent = true; });
      for (std::uint32_t index = 0; index < 100; ++index)
        one.add("new " + std::to_string(index), index * 300 * kib, 300 * kib);
      one.want("old", 0, 2 * mib);
      const auto writes = one.send_writes(), reads = one.send_reads();
      wire::attach_request attach;
      attach.client.path_mtu = 1024;
      attach.client.reads_served_max = 1;
      const auto attached = other.client->send(opcode::tcp_attach, attach);
      CAF_CHECK(rdma_world::eventually([&] { return world.facts().requests_open == 3; }));
      world.kill_pool();
      CAF_CHECK(other.client->receive(attached).status() == status::unavailable);
      for (int count = 0; count < 2; ++count) {
        const auto next = one.client->receive();
        if (next.header.request_id == writes) {
          wire::batch_put_reply_view view;
          CAF_REQUIRE(wire::batch_put_reply_view::decode(next.variable, view) == status::ok);
          for (std::uint32_t index = 0; index < view.size(); ++index)
            CAF_CHECK(view[index].status == status::session_ended);
        } else {
          CAF_CHECK_EQUAL(next.header.request_id, reads);
          wire::batch_read_reply_view view;
          CAF_REQUIRE(wire::batch_read_reply_view::decode(next.variable, view) == status::ok);
          CAF_CHECK(view[0].status == status::session_ended);
        }
      }
      // Without a pool there is no RDMA; TCP goes on.
      one.writes.clear();
      one.add("key", 0, 100);
      CAF_CHECK(one.write() == std::vector<status>{status::unsupported});
      CAF_CHECK(one.attach() == status::unsupported);
      CAF_CHECK(one.detach() == status::not_found);
      CAF_CHECK_EQUAL(one.get("old").size(), 2 * mib);
      // More pools than a connection may have sessions: none of them is counted any more.
      set(world, [](test::pool_plan& plan) { plan.silent = false; });
      for (std::uint32_t again = 0; again <= wire::limits::sessions_connection_max; ++again) {
        world.start_pool();
        CAF_REQUIRE(rdma_world::eventually([&] { return one.attach() == status::ok; }));
        world.kill_pool();
        CAF_REQUIRE(rdma_world::eventually([&] { return world.facts().sessions == 0; }));
      }
      world.start_pool();
      CAF_REQUIRE(rdma_world::eventually([&] { return one.attach() == status::ok; }));
      CAF_CHECK(one.put("key", pattern("key", 1, 5000)) == status::ok);
    }
    CAF_CHECK(nothing_is_left(world));
  }
}

CAF_TEST(a session that breaks ends what is open on it) {
  rdma_world world{storage::memory};
  {
    user one{world, 8 * mib};
    CAF_REQUIRE(one.attach() == status::ok);
    set(world, [](test::pool_plan& plan) { plan.silent = true; });
    one.add("one", 0, mib);
    one.add("other", mib, mib);
    const auto id = one.send_writes();
    CAF_CHECK(rdma_world::eventually([&] {
      const std::lock_guard guard(world.plan->lock);
      return world.plan->pending == 2;
    }));
    caf::anon_send(world.pool, actors::session_ended{0, one.session, 0, status::ok});
    CAF_CHECK(all(one.written(id), status::session_ended, 2));
    spoil(one.memory);
    one.add("one", 0, mib);
    CAF_CHECK(one.write() == std::vector<status>{status::session_ended});
    CAF_CHECK(one.detach() == status::not_found);
    set(world, [](test::pool_plan& plan) { plan.silent = false; });
    CAF_CHECK(one.attach() == status::ok);
    CAF_CHECK(one.put("one", pattern("one", 1, mib)) == status::ok);
    CAF_CHECK(is_spoilt(std::span{one.memory}.subspan(mib)));
  }
  CAF_CHECK(nothing_is_left(world));
}

CAF_TEST(a detach is answered after everything that is open on its session) {
  rdma_world world{storage::file};
  user one{world, 32 * mib};
  CAF_REQUIRE(one.attach() == status::ok);
  set(world, [](test::pool_plan& plan) { plan.silent = true; });
  for (std::uint32_t index = 0; index < 20; ++index)
    one.add(std::to_string(index), index * mib, mib);
  const auto writes = one.send_writes();
  CAF_CHECK(rdma_world::eventually([&] {
    const std::lock_guard guard(world.plan->lock);
    return world.plan->pending > 0;
  }));
  const auto detach = one.client->send(opcode::tcp_detach, wire::session_message{one.session});
  one.want("0", 0, mib);
  // The session takes nothing more from the moment on.
  const auto reads = one.send_reads();
  std::vector<std::uint64_t> order;
  for (int count = 0; count < 3; ++count)
    order.push_back(one.client->receive().header.request_id);
  CAF_CHECK_LESS(std::ranges::find(order, writes) - order.begin(),
                 std::ranges::find(order, detach) - order.begin());
  CAF_CHECK(std::ranges::find(order, reads) != order.end());
  CAF_CHECK_EQUAL(world.facts().sessions, 0u);
}

CAF_TEST(a connection that ends in the middle leaves neither space nor sessions nor transfers) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    set(world, [](test::pool_plan& plan) { plan.silent = true; });
    {
      user one{world, 32 * mib};
      set(world, [](test::pool_plan& plan) { plan.silent = false; });
      CAF_REQUIRE(one.attach() == status::ok);
      CAF_REQUIRE(one.put("old", pattern("old", 1, 6 * mib)) == status::ok);
      const auto used = world.bodies[0]->store->counters().used_bytes;
      set(world, [](test::pool_plan& plan) { plan.silent = true; });
      for (std::uint32_t index = 0; index < 50; ++index)
        one.add("new " + std::to_string(index), index * 300 * kib, 300 * kib);
      one.want("old", 16 * mib, 6 * mib);
      static_cast<void>(one.send_writes());
      static_cast<void>(one.send_reads());
      CAF_CHECK(rdma_world::eventually([&] { return world.facts().requests_open == 2; }));
      caf::anon_send(world.reactor, actors::end_connections{actors::end_connections::by::closing,
                                                            std::make_shared<std::atomic<std::uint32_t>>(1)});
      CAF_CHECK_EQUAL(world.facts().connections, 1u); // it waits for what is under way
      speak(world);
      CAF_CHECK(nothing_is_left(world));
      CAF_CHECK(
          rdma_world::eventually([&] { return world.bodies[0]->store->counters().used_bytes == used; }));
      CAF_CHECK_EQUAL(world.counters().writes.value(), 1u);
    }
    user other{world, 8 * mib};
    CAF_REQUIRE(other.attach() == status::ok);
    CAF_CHECK(other.put("new 0", pattern("new", 2, 300 * kib)) == status::ok);
  }
}

CAF_TEST(a drive that goes takes its items with it) {
  rdma_world world{storage::file};
  user one{world, 8 * mib};
  CAF_REQUIRE(one.attach() == status::ok);
  CAF_REQUIRE(one.put("old", pattern("old", 1, mib)) == status::ok);
  set(world, [](test::pool_plan& plan) { plan.silent = true; });
  one.add("new", 0, mib);
  one.want("old", mib, mib);
  const auto writes = one.send_writes();
  CAF_CHECK(rdma_world::eventually([&] { return world.facts().requests_open == 1; }));
  caf::anon_send(world.reactor, actors::drive_changed{0, nullptr, nullptr, nullptr});
  CAF_CHECK_EQUAL(world.facts().requests_open, 1u);
  speak(world);
  CAF_CHECK(all(one.written(writes), status::unavailable, 1));
  CAF_CHECK(one.read()[0].status == status::not_found);
}

CAF_TEST(damage is a miss where the server looks at the bytes and is seen by the client where it does not) {
  for (const auto kind : {storage::memory, storage::memory_out_of_reach, storage::raw, storage::direct})
    for (const auto digest : {digest_kind::crc32c, digest_kind::keyed}) {
      CAF_MESSAGE(text_of(kind));
      rdma_world world{kind};
      user one{world, mib};
      CAF_REQUIRE(one.attach() == status::ok);
      const auto value = pattern("key", 1, 200'000);
      CAF_REQUIRE(one.put("key", value) == status::ok);
      world.damage(std::span{value}.subspan(100'000, 64));
      one.want("key", 0, mib);
      const auto id = one.send_reads(0, digest);
      const auto result = one.were_read(id)[0];
      if (kind == storage::memory && digest == digest_kind::crc32c) {
        CAF_CHECK(result.status == status::ok);
        CAF_CHECK(!one.right(id, 0, 0, result));
      } else {
        CAF_CHECK(result.status == status::not_found);
        CAF_CHECK_EQUAL(result.length, 0u);
        CAF_CHECK_EQUAL(world.counters().corrupt_blocks.value(), 1u);
        CAF_CHECK(rdma_world::eventually([&] { return one.look_up("key") == status::not_found; }));
      }
    }
}

CAF_TEST(what is malformed or weak or too large is refused) {
  {
    rdma_world world{storage::memory, 1, 16 * mib, false};
    user one{world, mib};
    // A server that has no RDMA does not look at the rest.
    for (const auto what : {opcode::tcp_attach, opcode::tcp_detach, opcode::batch_write, opcode::batch_read})
      CAF_CHECK(one.client->ask(what, wire::empty_message{}).status() == status::unsupported);
  }
  rdma_world world{storage::memory};
  user one{world, mib};
  CAF_REQUIRE(one.attach() == status::ok);
  for (const auto what : {opcode::tcp_attach, opcode::tcp_detach, opcode::batch_write, opcode::batch_read})
    CAF_CHECK(one.client->ask(what, wire::empty_message{}).status() == status::bad_request);
  one.add("empty", 0, 0).digest[0] = std::byte{1};
  CAF_CHECK(one.write() == std::vector<status>{status::bad_request});
  one.add("key", 0, 100).client_address = ~std::uint64_t{0} - 50;
  CAF_CHECK(one.write() == std::vector<status>{status::bad_request});
  one.want("key", 0, 100).client_address = ~std::uint64_t{0} - 50;
  CAF_CHECK(one.read()[0].status == status::bad_request);
  one.reads.clear();
  wire::attach_request wrong;
  wrong.client.path_mtu = 1000;
  CAF_CHECK(one.client->ask(opcode::tcp_attach, wrong).status() == status::bad_request);
  one.add("key", 0, 100).value_length = (std::uint32_t{1} << 30) + 1;
  CAF_CHECK(one.write().at(0) == status::too_large);
  CAF_CHECK(one.put("key", pattern("key", 1, 100)) == status::ok);
}
