// Values and leases of a queue pair of messages, through a REACTOR and drives of every kind, with a stand-in
// for the device that copies late, in any order, or not at all.
#define CAF_SUITE rdma_tokens
#include "test/scenario/rdma_world.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>

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

using bytes = std::vector<std::byte>;
constexpr std::byte poison{0xEE};

bool in_memory(storage kind) {
  return kind == storage::memory || kind == storage::memory_out_of_reach;
}

// The algorithms of the library take seconds for these without optimisation.
void spoil(std::span<std::byte> memory) {
  std::memset(memory.data(), 0xEE, memory.size());
}
bool same(wire::bytes_view one, wire::bytes_view other) {
  return one.size() == other.size() &&
         (one.empty() || std::memcmp(one.data(), other.data(), one.size()) == 0);
}

wire::bytes_view key_bytes(std::string_view key) {
  return {reinterpret_cast<const std::byte*>(key.data()), key.size()};
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

std::uint64_t pending(rdma_world& world) {
  const std::lock_guard guard(world.plan->lock);
  return world.plan->pending;
}

std::uint64_t used_bytes(rdma_world& world) {
  std::uint64_t sum = 0;
  for (const auto& each : world.bodies)
    sum += each->store->counters().used_bytes;
  return sum;
}

/// No token, no transfer, no space but that of blocks, and of the pool no more than a chunk that small values
/// share and what of raw drives is remembered.
constexpr std::uint64_t any = ~std::uint64_t{0};
bool all_is_back(rdma_world& world, std::uint64_t used) {
  const bool back = rdma_world::eventually([&] {
    const auto facts = world.facts();
    const auto pool = world.shared->pool->statistics().chunks_in_use;
    const auto remembered = world.shared->cache->statistics().segments;
    return facts.values_open == 0 && facts.leases_open == 0 && facts.value_buffers == 0 &&
           facts.requests_open == 0 && (used == any || used_bytes(world) == used) && pool <= 2 + remembered &&
           pending(world) == 0;
  });
  if (!back) {
    const auto facts = world.facts();
    CAF_MESSAGE("values " << facts.values_open << " leases " << facts.leases_open << " requests "
                          << facts.requests_open << " used " << used_bytes(world) << " of " << used
                          << " chunks " << world.shared->pool->statistics().chunks_in_use);
  }
  return back;
}

struct answer {
  wire::frame_header header;
  bytes variable;
};

/// A connection with a queue pair whose messages go to REACTOR by hand.
struct user {
  user(rdma_world& in, std::size_t room) : world(in), memory(room), tcp(in.connect()), mac(*in.options.key) {
    static std::uint32_t next_rkey = 5000;
    rkey = next_rkey++;
    set(world, [&](test::pool_plan& plan) { plan.memory[rkey] = memory; });
    wire::connect_request wanted;
    wanted.messages_max = 32;
    wanted.message_bytes_max = 4096;
    wanted.client.path_mtu = 1024;
    wanted.client.number = 5;
    wanted.client.packet_number = 9;
    wanted.client.reads_served_max = 16;
    const auto got = tcp->ask(opcode::connect, wanted);
    CAF_REQUIRE_EQUAL(wire::name(got.status()), "Ok");
    CAF_REQUIRE(wire::connect_reply::decode(got.variable, given) == status::ok);
    tag = wire::derive_queue_pair_tag(*in.options.key, tcp->keys().tag, given.nonce, {5, 9}, {77, 9});
  }
  ~user() {
    tcp.reset();
    set(world, [&](test::pool_plan& plan) { plan.memory.erase(rkey); });
  }

  template <class Body>
  std::uint64_t send(opcode what, const Body& body, digest_kind kind = digest_kind::crc32c,
                     std::uint32_t flags = 0, std::uint32_t deadline_ms = 0) {
    wire::frame_header header;
    header.opcode = what;
    header.request_id = next_id;
    header.tag = tag;
    header.kind = kind;
    header.flags = flags;
    header.deadline_ms = deadline_ms;
    bytes frame;
    wire::append_frame(frame, header, body);
    wire::seal(frame,
               static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                              std::chrono::system_clock::now().time_since_epoch())
                                              .count()),
               mac);
    actors::messages_arrived message;
    message.messages.push_back({given.session_id, 0, std::move(frame)});
    caf::anon_send(world.reactor, std::move(message));
    return next_id++;
  }
  /// True when the answer to that one is there.
  bool answered(std::uint64_t id) {
    const std::lock_guard guard(world.plan->lock);
    for (const auto& each : world.plan->answers[given.session_id]) {
      answer out;
      CAF_REQUIRE(wire::decode_header(each, out.header) == wire::header_fault::none);
      const auto variable = wire::bytes_view(each).first(out.header.header_length);
      out.variable.assign(variable.begin() + wire::limits::fixed_header_bytes, variable.end());
      CAF_CHECK(out.header.tag == tag);
      got[out.header.request_id] = std::move(out);
    }
    world.plan->answers[given.session_id].clear();
    return got.contains(id);
  }
  status wait(std::uint64_t id) {
    CAF_REQUIRE(rdma_world::eventually([&] { return answered(id); }));
    return got.at(id).header.status();
  }

  [[nodiscard]] std::uint64_t address(std::size_t at) const {
    return reinterpret_cast<std::uint64_t>(memory.data() + at);
  }

  struct value {
    std::uint64_t token = 0, id = 0;
    digest_kind kind = digest_kind::crc32c;
  };
  value allocate(std::string_view key, std::uint64_t length, digest_kind kind = digest_kind::crc32c,
                 std::uint32_t life_ms = 30'000) {
    value out{0, next_id, kind};
    const auto id = send(opcode::allocate, wire::allocate_request{length, life_ms, key_bytes(key)}, kind);
    CAF_REQUIRE_EQUAL(wire::name(wait(id)), "Ok");
    wire::allocate_reply reply;
    CAF_REQUIRE(wire::allocate_reply::decode(got.at(id).variable, reply) == status::ok);
    out.token = reply.token;
    return out;
  }
  std::uint64_t begin_write(const value& to, std::uint64_t offset, std::uint64_t length,
                            std::uint32_t deadline_ms = 0) {
    return send(opcode::write, wire::transfer_request{to.token, offset, length, address(offset), rkey},
                to.kind, 0, deadline_ms);
  }
  std::string write(const value& to, std::uint64_t offset, std::uint64_t length) {
    return std::string(wire::name(wait(begin_write(to, offset, length))));
  }
  std::uint64_t begin_commit(const value& which, wire::bytes_view content) {
    wire::payload_digest digest{tcp->keys().payload_key};
    digest.begin(which.kind, wire::direction::request, which.id | 1ULL << 63U, 0, 0);
    digest.update(content);
    return send(opcode::commit, wire::commit_request{which.token, false, content.size(), digest.finish()},
                which.kind);
  }
  std::string commit(const value& which, wire::bytes_view content) {
    return std::string(wire::name(wait(begin_commit(which, content))));
  }
  std::string look_up(std::string_view key, std::uint64_t& lease, digest_kind kind = digest_kind::crc32c) {
    const auto id = send(opcode::lookup, wire::key_request{key_bytes(key)}, kind, wire::flags::lease);
    const auto code = wait(id);
    wire::lookup_reply reply;
    if (code == status::ok)
      CAF_REQUIRE(wire::lookup_reply::decode(got.at(id).variable, reply) == status::ok);
    lease = reply.lease_token;
    return std::string(wire::name(code));
  }
  std::uint64_t begin_read(std::uint64_t lease, std::uint64_t offset, std::uint64_t length,
                           digest_kind kind = digest_kind::crc32c, std::uint32_t deadline_ms = 0) {
    spoil(std::span(memory).first(std::min<std::size_t>(length + 64, memory.size())));
    return send(opcode::read, wire::transfer_request{lease, offset, length, address(0), rkey}, kind, 0,
                deadline_ms);
  }
  /// The digest and what is there are compared.
  std::string read(std::uint64_t lease, std::uint64_t offset, wire::bytes_view expected,
                   digest_kind kind = digest_kind::crc32c) {
    const auto id = begin_read(lease, offset, expected.size(), kind);
    if (const auto code = wait(id); code != status::ok)
      return std::string(wire::name(code));
    wire::read_reply reply;
    CAF_REQUIRE(wire::read_reply::decode(got.at(id).variable, reply) == status::ok);
    const auto there = wire::bytes_view(memory).first(expected.size());
    wire::payload_digest digest{tcp->keys().payload_key};
    digest.begin(kind, wire::direction::reply, id | 1ULL << 63U, 0, 0);
    digest.update(there);
    CAF_CHECK(digest.matches(reply.digest));
    CAF_CHECK(same(there, expected));
    CAF_CHECK_EQUAL(memory[expected.size()], poison);
    return "Ok";
  }
  void fill(wire::bytes_view content) {
    if (!content.empty())
      std::memcpy(memory.data(), content.data(), content.size());
  }
  status erase(std::string_view key) { return wait(send(opcode::erase, wire::key_request{key_bytes(key)})); }
  bool exists(std::string_view key) {
    return wait(send(opcode::exists, wire::key_request{key_bytes(key)})) == status::ok;
  }

  rdma_world& world;
  bytes memory;
  std::unique_ptr<test::wire_client> tcp;
  wire::mac mac;
  wire::connect_reply given;
  wire::connection_tag tag{};
  std::uint32_t rkey = 0;
  std::uint64_t next_id = 1;
  std::map<std::uint64_t, answer> got;
};

} // namespace

CAF_TEST(values in ranges of any length come and go on every kind of drive in any order of transfers) {
  const auto seed = test::test_seed(4711);
  CAF_MESSAGE("MEMKV_TEST_SEED=" << seed);
  std::mt19937 random{static_cast<std::mt19937::result_type>(seed)};
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind, 2, 24 * mib};
    set(world, [&](test::pool_plan& plan) {
      plan.shuffles = true;
      plan.transfer_bytes_max = 128 * kib;
      plan.random.seed(random());
    });
    user one{world, 9 * mib};
    std::uint64_t version = 0;
    for (const auto digest : {digest_kind::crc32c, digest_kind::keyed})
      for (const std::size_t size : {0U, 3U, 200'000U, 5 * mib + 77}) {
        const auto content = test::pattern("v", ++version, size);
        one.fill(content);
        const auto to = one.allocate("v", size, digest);
        std::vector<std::uint64_t> ids;
        for (std::size_t at = 0; at < size;) {
          const auto length = std::min<std::size_t>(size - at, 1 + random() % (size / 4 + 1));
          ids.push_back(one.begin_write(to, at, length));
          at += length;
          while (ids.size() > 8) {
            CAF_CHECK_EQUAL(wire::name(one.wait(ids.front())), "Ok");
            ids.erase(ids.begin());
          }
        }
        for (const auto id : ids)
          CAF_CHECK_EQUAL(wire::name(one.wait(id)), "Ok");
        CAF_CHECK_EQUAL(one.commit(to, content), "Ok");
        std::uint64_t lease = 0;
        CAF_REQUIRE_EQUAL(one.look_up("v", lease, digest), "Ok");
        CAF_CHECK_EQUAL(one.read(lease, 0, content, digest), "Ok");
        for (int round = 0; size > 0 && round < 3; ++round) {
          const auto at = random() % size;
          const auto length = random() % (size - at);
          CAF_CHECK_EQUAL(one.read(lease, at, wire::bytes_view(content).subspan(at, length), digest), "Ok");
        }
      }
    CAF_CHECK(one.erase("v") == status::ok);
    one.tcp->close();
    CAF_CHECK(all_is_back(world, any)); // parts of striped blocks are removed by SERVER
  }
}

CAF_TEST(a transfer that fails ends the value and what it had and nothing of it is seen) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    user one{world, 6 * mib};
    const auto before = used_bytes(world);
    const auto content = test::pattern("v", 1, 5 * mib);
    for (const auto verdict : {status::unavailable, status::memory_refused, status::deadline_exceeded}) {
      one.fill(content);
      const auto to = one.allocate("v", content.size());
      CAF_CHECK_EQUAL(one.write(to, 0, 70'001), "Ok");
      set(world, [&](test::pool_plan& plan) {
        plan.verdict = [unlucky = one.address(2 * mib), verdict](const actors::memory_transfer& each) {
          return each.client_address <= unlucky && unlucky < each.client_address + each.bytes ? verdict
                                                                                              : status::ok;
        };
      });
      const auto first = one.begin_write(to, 70'001, 3 * mib),
                 second = one.begin_write(to, 70'001 + 3 * mib, 1);
      const auto last = one.begin_commit(to, content);
      CAF_CHECK_EQUAL(wire::name(one.wait(first)), wire::name(verdict));
      CAF_CHECK_EQUAL(wire::name(one.wait(second)), "NotFound");
      CAF_CHECK_EQUAL(wire::name(one.wait(last)), "NotFound");
      CAF_CHECK_EQUAL(one.write(to, 70'001, 1), "NotFound");
      CAF_CHECK(!one.exists("v"));
      CAF_CHECK(all_is_back(world, before));
      set(world, [](test::pool_plan& plan) { plan.verdict = nullptr; });
    }
    // A lease outlives a Read that fails.
    one.fill(content);
    const auto to = one.allocate("v", content.size());
    CAF_CHECK_EQUAL(one.write(to, 0, content.size()), "Ok");
    CAF_CHECK_EQUAL(one.commit(to, content), "Ok");
    std::uint64_t lease = 0;
    CAF_REQUIRE_EQUAL(one.look_up("v", lease), "Ok");
    set(world, [](test::pool_plan& plan) { plan.verdict = [](const auto&) { return status::unavailable; }; });
    CAF_CHECK_EQUAL(one.read(lease, 0, content), "Unavailable");
    set(world, [](test::pool_plan& plan) { plan.verdict = nullptr; });
    CAF_CHECK_EQUAL(one.read(lease, 0, content), "Ok");
  }
}

CAF_TEST(nothing is answered while a transfer of it is under way whatever ends meanwhile) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    user one{world, 6 * mib};
    const auto content = test::pattern("v", 1, 4 * mib);
    one.fill(content);
    const auto stored = one.allocate("v", content.size());
    CAF_CHECK_EQUAL(one.write(stored, 0, content.size()), "Ok");
    CAF_CHECK_EQUAL(one.commit(stored, content), "Ok");
    const auto before = used_bytes(world);
    std::uint64_t lease = 0;
    CAF_REQUIRE_EQUAL(one.look_up("v", lease), "Ok");
    set(world, [](test::pool_plan& plan) { plan.silent = true; });
    one.fill(content);
    const auto by_deadline = one.allocate("w", content.size());
    const auto by_time = one.allocate("w", content.size(), digest_kind::crc32c, 1000);
    const auto first = one.begin_write(by_deadline, 0, 3 * mib, 150);
    const auto second = one.begin_write(by_time, 0, 3 * mib);
    CAF_CHECK(rdma_world::eventually([&] { return pending(world) > 1; }));
    CAF_CHECK(rdma_world::eventually([&] { return world.counters().values_expired.value() == 1; }));
    CAF_CHECK(rdma_world::eventually([&] { return world.counters().deadlines_exceeded.value() == 1; }));
    // They are void, and not over.
    CAF_CHECK_EQUAL(one.write(by_deadline, 0, 1), "NotFound");
    CAF_CHECK_EQUAL(one.write(by_time, 0, 1), "NotFound");
    CAF_CHECK(!one.answered(first) && !one.answered(second));
    CAF_CHECK_EQUAL(world.facts().values_open, 2u);
    CAF_CHECK_GREATER(pending(world), 1u);
    speak(world);
    CAF_CHECK_EQUAL(wire::name(one.wait(first)), "DeadlineExceeded");
    CAF_CHECK_EQUAL(wire::name(one.wait(second)), "DeadlineExceeded");
    CAF_CHECK_EQUAL(one.read(lease, 5, wire::bytes_view(content).subspan(5, 100)), "Ok");
    one.tcp->close();
    CAF_CHECK(all_is_back(world, before));
  }
}

CAF_TEST(a pool that dies and a connection that ends with transfers under way take all tokens along) {
  for (const auto kind : all_storages)
    for (const std::string first : {"pool", "connection", "client"}) {
      CAF_MESSAGE(text_of(kind) << ", first the " << first);
      rdma_world world{kind};
      user one{world, 6 * mib};
      const auto content = test::pattern("v", 1, 4 * mib);
      const auto before = used_bytes(world);
      one.fill(content);
      const auto stored = one.allocate("v", content.size());
      CAF_CHECK_EQUAL(one.write(stored, 0, content.size()), "Ok");
      CAF_CHECK_EQUAL(one.commit(stored, content), "Ok");
      std::uint64_t lease = 0;
      CAF_REQUIRE_EQUAL(one.look_up("v", lease), "Ok");
      CAF_CHECK(one.erase("v") == status::ok);
      const auto idle = one.allocate("w", content.size()), small = one.allocate("x", 70'000),
                 busy = one.allocate("y", content.size());
      CAF_CHECK_EQUAL(one.write(idle, 0, 100'001), "Ok");
      CAF_CHECK_EQUAL(one.write(small, 0, 70'000), "Ok");
      set(world, [](test::pool_plan& plan) { plan.silent = true; });
      const auto written = one.begin_write(busy, 0, 2 * mib);
      static_cast<void>(one.begin_write(busy, 2 * mib, mib));
      const auto read =
          one.send(opcode::read, wire::transfer_request{lease, 0, mib, one.address(4 * mib), one.rkey});
      CAF_CHECK(rdma_world::eventually([&] { return pending(world) > 1; }));
      if (first == "connection") {
        caf::anon_send(world.reactor,
                       actors::end_connections{actors::end_connections::by::closing,
                                               std::make_shared<std::atomic<std::uint32_t>>(1)});
        // Idle ones end at once; those that are being worked on when their transfers are over.
        CAF_CHECK(rdma_world::eventually(
            [&] { return world.facts().values_open == 1 && world.facts().leases_open == 0; }));
      } else if (first == "client") {
        one.tcp->close(); // what it asked for is still worked on
      }
      world.kill_pool();
      CAF_CHECK(rdma_world::eventually([&] { return world.facts().sessions == 0; }));
      CAF_CHECK(all_is_back(world, before));
      CAF_CHECK(!one.answered(written) && !one.answered(read));
      if (first == "pool") {
        set(world, [](test::pool_plan& plan) { plan.silent = false; });
        world.start_pool();
        user again{world, mib};
        CAF_CHECK_EQUAL(again.write(idle, 100'001, 1), "NotFound");
        CAF_CHECK_EQUAL(again.read(lease, 0, wire::bytes_view(content).first(10)), "NotFound");
        CAF_CHECK(!again.exists("y"));
        CAF_CHECK_EQUAL(one.tcp->ask(opcode::ping, wire::empty_message{}).status(), status::ok);
      }
    }
}

CAF_TEST(a drive that goes away ends what was written to it and the leases of what was on it) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    user one{world, 6 * mib};
    const auto content = test::pattern("v", 1, 4 * mib);
    one.fill(content);
    const auto stored = one.allocate("v", content.size());
    CAF_CHECK_EQUAL(one.write(stored, 0, content.size()), "Ok");
    CAF_CHECK_EQUAL(one.commit(stored, content), "Ok");
    const auto uses = world.bodies[0].use_count();
    std::uint64_t lease = 0;
    CAF_REQUIRE_EQUAL(one.look_up("v", lease), "Ok");
    one.fill(content);
    const auto idle = one.allocate("w", content.size()), busy = one.allocate("w", content.size());
    CAF_CHECK_EQUAL(one.write(idle, 0, 100'001), "Ok");
    set(world, [](test::pool_plan& plan) { plan.silent = true; });
    const auto written = one.begin_write(busy, 0, 2 * mib);
    CAF_CHECK(rdma_world::eventually([&] { return pending(world) > 0; }));
    caf::anon_send(world.reactor, actors::drive_changed{});
    CAF_CHECK_EQUAL(one.write(idle, 100'001, 1), "Unavailable");
    CAF_CHECK_EQUAL(one.write(idle, 100'001, 1), "NotFound");
    CAF_CHECK(!one.answered(written));
    speak(world);
    CAF_CHECK_EQUAL(wire::name(one.wait(written)), "Unavailable");
    // Memory stays where it is; of the others nothing may be held when they are opened again.
    CAF_CHECK_EQUAL(one.read(lease, 0, content), in_memory(kind) ? "Ok" : "NotFound");
    CAF_CHECK_EQUAL(world.facts().leases_open, in_memory(kind) ? 1u : 0u);
    CAF_CHECK_EQUAL(world.facts().values_open, 0u);
    if (!in_memory(kind))
      CAF_CHECK(
          rdma_world::eventually([&] { return world.bodies[0].use_count() < uses; })); // the reactor's too
    const auto id = one.send(opcode::allocate, wire::allocate_request{10, 1000, key_bytes("w")});
    CAF_CHECK_EQUAL(wire::name(one.wait(id)), "Unavailable");
    std::uint64_t none = 0;
    CAF_CHECK_EQUAL(one.look_up("v", none), "NotFound");
  }
}

CAF_TEST(leases pin a share of a drive or one block of any length) {
  for (const auto kind : all_storages) {
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind, 1, 96 * mib};
    const auto& leases = world.bodies[0]->leases;
    const auto room = world.bodies[0]->store->counters().usable_bytes / actors::lease_ledger::share;
    const auto before = used_bytes(world);
    user one{world, 33 * mib}, other{world, mib};
    const auto large = test::pattern("large", 1, 32 * mib), block = test::pattern("v", 1, 3 * mib);
    CAF_REQUIRE_LESS(room, large.size());
    const auto store = [&](const std::string& key, const bytes& content) {
      one.fill(content);
      const auto to = one.allocate(key, content.size());
      CAF_REQUIRE_EQUAL(one.write(to, 0, content.size()), "Ok");
      CAF_REQUIRE_EQUAL(one.commit(to, content), "Ok");
    };
    store("large", large);
    std::uint64_t lease = 0, of_large = 0;
    std::vector<std::uint64_t> got;
    std::string last = "Ok";
    for (int number = 0; last == "Ok"; ++number) {
      const auto key = std::to_string(number);
      store(key, block);
      if (last = one.look_up(key, lease); last == "Ok")
        got.push_back(lease);
    }
    CAF_CHECK_EQUAL(last, "Busy");
    CAF_CHECK_EQUAL(world.counters().leases_refused.value(), 1u);
    CAF_CHECK_EQUAL(got.size(), room / (3 * mib + 4 * kib));
    CAF_CHECK_LESS_OR_EQUAL(leases.bytes(), room);
    CAF_CHECK_EQUAL(one.look_up("large", of_large), "Busy");
    // What is pinned already may be pinned again, and without a lease all is as ever.
    const auto pinned = leases.bytes();
    CAF_CHECK_EQUAL(other.look_up("0", lease), "Ok");
    CAF_CHECK_EQUAL(leases.bytes(), pinned);
    CAF_CHECK_EQUAL(world.facts().leases_open, got.size() + 1);
    CAF_CHECK(one.erase("0") == status::ok);
    CAF_CHECK_EQUAL(one.read(got[0], 0, block), "Ok");
    // Each is given back when the last one goes who holds it.
    const auto release = [](user& by, std::uint64_t which) {
      CAF_CHECK(by.wait(by.send(opcode::read, wire::transfer_request{which, 0, 0, by.address(0), by.rkey},
                                digest_kind::crc32c, wire::flags::release)) == status::ok);
    };
    release(one, got[0]);
    CAF_CHECK_EQUAL(leases.bytes(), pinned);
    release(other, lease);
    CAF_CHECK_EQUAL(leases.bytes(), pinned - pinned / got.size());
    CAF_CHECK_EQUAL(one.look_up(std::to_string(got.size()), lease), "Ok");
    CAF_CHECK_EQUAL(one.look_up("1", lease), "Ok");
    one.tcp->close();
    CAF_CHECK(rdma_world::eventually([&] { return leases.bytes() == 0; }));
    // Nothing else is pinned.
    CAF_CHECK_EQUAL(other.look_up("large", of_large), "Ok");
    CAF_CHECK_GREATER(leases.bytes(), room);
    CAF_CHECK_EQUAL(other.look_up("1", lease), "Busy");
    other.tcp->close();
    CAF_CHECK(rdma_world::eventually([&] { return leases.bytes() == 0; }));
    CAF_CHECK_GREATER(used_bytes(world), before);
  }
}

CAF_TEST(damage under a lease is a miss where the server looks at the bytes) {
  for (const auto kind : all_storages) {
    if (kind == storage::file)
      continue; // DRIVE looks at it: damage_test
    CAF_MESSAGE(text_of(kind));
    rdma_world world{kind};
    user one{world, 9 * mib};
    const auto content = test::pattern("v", 1, 200'000);
    const auto store = [&one](const std::string& key, const bytes& what) {
      one.fill(what);
      const auto to = one.allocate(key, what.size());
      CAF_REQUIRE_EQUAL(one.write(to, 0, what.size()), "Ok");
      CAF_REQUIRE_EQUAL(one.commit(to, what), "Ok");
    };
    store("other", test::pattern("other", 1, 8 * mib));
    const auto before = used_bytes(world);
    store("v", content);
    std::uint64_t lease = 0, other = 0;
    CAF_REQUIRE_EQUAL(one.look_up("v", lease), "Ok");
    // So that what is remembered of a raw drive is not in the chunk that is still being filled.
    CAF_REQUIRE_EQUAL(one.look_up("other", other), "Ok");
    world.damage(std::span{content}.subspan(100'000, 64));
    CAF_CHECK_EQUAL(one.read(lease, 0, content, digest_kind::keyed), "NotFound");
    CAF_CHECK_EQUAL(world.counters().corrupt_blocks.value(), 1u);
    CAF_CHECK(rdma_world::eventually([&] { return !one.exists("v"); }));
    CAF_CHECK_EQUAL(one.read(lease, 0, wire::bytes_view(content).first(1000), digest_kind::keyed), "Ok");
    // Its space is free when nobody pins it any more.
    one.tcp->close();
    CAF_CHECK(all_is_back(world, before));
  }
}

CAF_TEST(a read given up in the middle is answered when its transfers are over) {
  rdma_world world{storage::raw};
  user one{world, 40 * mib};
  const auto content = test::pattern("v", 1, 36 * mib); // more than may be in flight
  one.fill(content);
  const auto stored = one.allocate("v", content.size());
  CAF_CHECK_EQUAL(one.write(stored, 0, content.size()), "Ok");
  CAF_CHECK_EQUAL(one.commit(stored, content), "Ok");
  const auto before = used_bytes(world);
  std::uint64_t lease = 0;
  CAF_REQUIRE_EQUAL(one.look_up("v", lease), "Ok");
  set(world, [](test::pool_plan& plan) { plan.silent = true; });
  const auto id = one.begin_read(lease, 0, content.size(), digest_kind::crc32c, 100);
  CAF_CHECK(rdma_world::eventually([&] { return world.counters().deadlines_exceeded.value() == 1; }));
  CAF_CHECK(!one.answered(id));
  speak(world);
  CAF_CHECK_EQUAL(wire::name(one.wait(id)), "DeadlineExceeded");
  CAF_CHECK_EQUAL(world.facts().leases_open, 1u);
  one.tcp->close();
  CAF_CHECK(all_is_back(world, before));
}
