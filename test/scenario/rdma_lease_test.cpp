// Values written and read by messages of a queue pair: Allocate, Write, Commit, Lookup with LEASE, and Read.
#define CAF_SUITE rdma_lease
#include "test/scenario/message_client.hpp"

#include <map>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;
using wire::digest_kind;
using wire::opcode;
using wire::status;

namespace {

using bytes = std::vector<std::byte>;

// The algorithms of the library take seconds for these without optimisation.
void spoil(std::span<std::byte> memory) {
  std::memset(memory.data(), 0xEE, memory.size());
}
bool is_spoilt(wire::bytes_view memory) {
  return memory[0] == poison && std::memcmp(memory.data(), memory.data() + 1, memory.size() - 1) == 0;
}
bool same(wire::bytes_view one, wire::bytes_view other) {
  return one.size() == other.size() &&
         (one.empty() || std::memcmp(one.data(), other.data(), one.size()) == 0);
}
void copy(wire::bytes_view from, std::span<std::byte> to) {
  if (!from.empty())
    std::memcpy(to.data(), from.data(), from.size());
}

twist with(std::uint32_t flags, std::uint32_t deadline_ms = 0) {
  return {[=](wire::frame_header& header) {
    header.flags = flags;
    header.deadline_ms = deadline_ms;
  }};
}

/// What Allocate answered, and what its Commit's digest is made of.
struct open_value {
  std::uint64_t token = 0;
  std::uint32_t life_ms = 0;
  std::uint64_t id = 0; // of the Allocate
  digest_kind kind = digest_kind::crc32c;
};

struct lease {
  std::uint64_t token = 0;
  std::uint64_t length = 0;
  wire::lookup_reply found;
};

wire::allocate_request opening(std::string_view key, std::uint64_t length, std::uint32_t lease_ms = 20'000) {
  return {length, lease_ms, key_bytes(key)};
}

open_value allocate(message_client& by, std::string_view key, std::uint64_t length,
                    digest_kind kind = digest_kind::crc32c, std::uint32_t lease_ms = 20'000) {
  open_value out{0, 0, by.next_id, kind};
  const auto got = by.ask(opcode::allocate, opening(key, length, lease_ms), {}, kind);
  CAF_REQUIRE_EQUAL(text(got), "Ok");
  wire::allocate_reply given;
  CAF_REQUIRE(wire::allocate_reply::decode(got.variable, given) == status::ok);
  CAF_CHECK_NOT_EQUAL(given.token, 0u);
  out.token = given.token;
  out.life_ms = given.lease_ms;
  return out;
}

wire::transfer_request range(message_client& by, std::uint64_t token, std::uint64_t offset,
                             std::uint64_t length, std::size_t at) {
  return {token, offset, length, by.address(at), by.rkey()};
}

/// The bytes of the value lie at `offset` of the memory.
answer write(message_client& by, const open_value& to, std::uint64_t offset, std::uint64_t length,
             const twist& change = {}) {
  return by.ask(opcode::write, range(by, to.token, offset, length, offset), change, to.kind);
}

wire::commit_request closing(message_client& by, const open_value& which, wire::bytes_view value,
                             bool if_absent = false) {
  wire::payload_digest digest{by.tcp->keys().payload_key};
  digest.begin(which.kind, wire::direction::request, which.id | 1ULL << 63U, 0, 0);
  digest.update(value);
  return {which.token, if_absent, value.size(), digest.finish()};
}

answer commit(message_client& by, const open_value& which, wire::bytes_view value, bool if_absent = false) {
  return by.ask(opcode::commit, closing(by, which, value, if_absent), {}, which.kind);
}

lease look_up(message_client& by, std::string_view key, digest_kind kind = digest_kind::crc32c) {
  const auto got = by.ask(opcode::lookup, wire::key_request{key_bytes(key)}, with(wire::flags::lease), kind);
  CAF_REQUIRE_EQUAL(text(got), "Ok");
  lease out;
  CAF_REQUIRE(wire::lookup_reply::decode(got.variable, out.found) == status::ok);
  out.token = out.found.lease_token;
  out.length = got.header.value_length;
  CAF_CHECK_NOT_EQUAL(out.token, 0u);
  CAF_CHECK_GREATER(out.found.lease_ms, 0u);
  return out;
}

/// Places the range at the front of the memory, and compares what is there, what is behind it and the digest.
/// The status.
std::string read(message_client& by, const lease& from, std::uint64_t offset, std::uint64_t length,
                 wire::bytes_view expected, digest_kind kind = digest_kind::crc32c, std::uint32_t flags = 0) {
  spoil(by.data(0, length + 64));
  const auto id = by.next_id;
  const auto got = by.ask(opcode::read, range(by, from.token, offset, length, 0), with(flags), kind);
  if (got.status() != status::ok) {
    CAF_CHECK(got.variable.empty());
    return std::string(text(got));
  }
  wire::read_reply answered;
  CAF_REQUIRE(wire::read_reply::decode(got.variable, answered) == status::ok);
  wire::payload_digest digest{by.tcp->keys().payload_key};
  digest.begin(kind, wire::direction::reply, id | 1ULL << 63U, 0, 0);
  digest.update(by.data(0, length));
  CAF_CHECK(digest.matches(answered.digest));
  CAF_CHECK(same(by.data(0, length), expected));
  CAF_CHECK(is_spoilt(by.data(length, 64)));
  return "Ok";
}

struct fixture : message_fixture {
  using message_fixture::message_fixture;

  /// What a server has when nobody has anything of it.
  struct holdings {
    std::uint64_t used_bytes = 0, chunks = 0;
  };
  holdings now() {
    const auto said = report();
    return {said->used_bytes(), said->pool.chunks_in_use};
  }
  /// A chunk that small values share, for each reactor; on raw drives another one that is read into, and what
  /// is remembered.
  [[nodiscard]] std::uint64_t chunks_at_rest(const actors::server_report& said) const {
    return std::uint64_t{options.reactors} * (options.drives[0].raw ? 2 : 1) + said.cache.segments;
  }
  /// Nothing is open, no space reserved or pinned, and of the pool no more in use than at rest.
  bool all_is_back(std::uint64_t used_bytes) {
    const auto limit = std::chrono::steady_clock::now() + 20s;
    std::shared_ptr<const actors::server_report> said;
    while (std::chrono::steady_clock::now() < limit) {
      said = report();
      if (said->values_open == 0 && said->leases_open == 0 && said->used_bytes() == used_bytes &&
          said->pool.chunks_in_use <= chunks_at_rest(*said) && said->drives_online() == 1)
        return true;
    }
    CAF_MESSAGE("values " << said->values_open << " leases " << said->leases_open << " used "
                          << said->used_bytes() << " of " << used_bytes << " chunks "
                          << said->pool.chunks_in_use << " drives " << said->drives_online());
    return false;
  }
  /// The value by TCP, if there is one.
  std::optional<bytes> get(const std::string& key) {
    bytes target(4 * mib);
    const auto got = connect(1)->get(key, target);
    if (got.code == client::errc::not_found)
      return std::nullopt;
    CAF_REQUIRE_EQUAL(got.code, client::errc::ok);
    target.resize(got.value_length);
    return target;
  }
  void kill(const std::string& actor) {
    for (const auto& [name, who] : server->actors())
      if (name == actor)
        caf::anon_send_exit(who, caf::exit_reason::kill);
  }
};

/// A mebibyte takes a second.
struct slow_fixture : fixture {
  slow_fixture() : fixture(verbs::simulated_network_options{.byte_ns_per_kib = 1'000'000}) {}
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(rdma_lease_tests, fixture)

CAF_TEST(a value written in ranges of any length is read under a lease with digests of both kinds) {
  for (const auto kind : {media::memory, media::file, media::raw}) {
    CAF_MESSAGE(text_of(kind));
    // Values of more than one extent, too.
    begin(kind, [](auto& given) { given.store.extent_bytes_max = mib; });
    {
      const auto one = join();
      std::uint64_t version = 0;
      for (const auto digest : {digest_kind::crc32c, digest_kind::keyed})
        for (const std::size_t size : {0U, 1U, 70'000U, 3 * mib + 5}) {
          const auto value = pattern("v", ++version, size);
          copy(value, one->data(0, size));
          const auto to = allocate(*one, "v", size, digest);
          CAF_CHECK_EQUAL(to.life_ms, 20'000u);
          const std::size_t steps[] = {size, 1000, 5000, 1, 123'457};
          std::size_t written = 0;
          for (std::size_t turn = version % 5; written < size; ++turn) {
            const auto length = std::min(size - written, size / 8 + steps[turn % 5]);
            CAF_REQUIRE_EQUAL(text(write(*one, to, written, length)), "Ok");
            written += length;
            CAF_CHECK_EQUAL(text(write(*one, to, written, 0)), "Ok");
          }
          if (version > 1)
            CAF_CHECK(get("v") != value); // not visible before the Commit
          const auto stored = commit(*one, to, value);
          CAF_REQUIRE_EQUAL(text(stored), "Ok");
          wire::generation_reply made;
          CAF_REQUIRE(wire::generation_reply::decode(stored.variable, made) == status::ok);
          CAF_CHECK(get("v") == value);
          CAF_CHECK_EQUAL(text(commit(*one, to, value)), "NotFound");
          const auto from = look_up(*one, "v", digest);
          CAF_CHECK_EQUAL(from.found.generation, made.generation);
          CAF_CHECK_EQUAL(from.found.value_crc32c, wire::crc32c(value, 0));
          CAF_CHECK_EQUAL(from.length, size);
          CAF_CHECK_EQUAL(read(*one, from, 0, size, value, digest), "Ok");
          CAF_CHECK_EQUAL(read(*one, from, size, 0, {}, digest), "Ok");
          if (size > 1)
            CAF_CHECK_EQUAL(read(*one, from, size / 3, size / 2,
                                 wire::bytes_view(value).subspan(size / 3, size / 2), digest),
                            "Ok");
          CAF_CHECK_EQUAL(read(*one, from, 0, size + 1, {}, digest), "OutOfRange");
          CAF_CHECK_EQUAL(read(*one, from, size + 1, 0, {}, digest), "OutOfRange");
          CAF_CHECK_EQUAL(read(*one, from, 0, size, value, digest, wire::flags::release), "Ok");
          CAF_CHECK_EQUAL(read(*one, from, 0, size, value, digest), "NotFound");
        }
      const auto said = report();
      CAF_CHECK_EQUAL(said->values_open, 0u);
      CAF_CHECK_EQUAL(said->leases_open, 0u);
    }
    finish();
  }
}

CAF_TEST(a block under a lease stays readable when it is replaced or deleted and goes with the lease) {
  for (const auto kind : {media::memory, media::file, media::raw}) {
    CAF_MESSAGE(text_of(kind));
    begin(kind);
    {
      const auto one = join();
      const auto before = now().used_bytes;
      const auto old = pattern("v", 1, mib), fresh = pattern("v", 2, 2 * mib);
      put("v", old);
      const auto first = look_up(*one, "v");
      put("v", fresh);
      const auto second = look_up(*one, "v");
      CAF_CHECK_NOT_EQUAL(first.found.generation, second.found.generation);
      CAF_CHECK_EQUAL(text(one->ask(opcode::erase, wire::key_request{key_bytes("v")})), "Ok");
      CAF_CHECK(!has("v"));
      // Both at one time, out of order.
      for (int round = 0; round < 3; ++round) {
        CAF_CHECK_EQUAL(read(*one, second, 100, mib, wire::bytes_view(fresh).subspan(100, mib)), "Ok");
        CAF_CHECK_EQUAL(read(*one, first, 0, mib, old), "Ok");
      }
      CAF_CHECK_EQUAL(report()->leases_open, 2u);
      CAF_CHECK_GREATER(now().used_bytes, before); // it is pinned
      CAF_CHECK_EQUAL(read(*one, first, 0, mib + 1, {}, digest_kind::crc32c, wire::flags::release),
                      "OutOfRange");
      CAF_CHECK_EQUAL(read(*one, first, 0, 1, {}), "NotFound");
      CAF_CHECK_EQUAL(read(*one, second, 0, 0, {}, digest_kind::crc32c, wire::flags::release), "Ok");
      CAF_CHECK(all_is_back(before));
    }
    finish();
  }
}

CAF_TEST(what cannot be done is answered with its status and the token stays or is void as the page says) {
  begin(media::memory, [](auto& given) { given.limits.value_bytes_max = 4 * mib; });
  {
    const auto one = join(), other = join();
    const auto before = now().used_bytes;
    const auto value = pattern("v", 1, 100'000);
    copy(value, one->data(0, value.size()));
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("v", 10, 0))), "BadRequest");
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("", 10))), "BadRequest");
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening(std::string(1025, 'k'), 10))), "TooLarge");
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("v", 4 * mib + 1))), "TooLarge");
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("v", wire::limits::value_bytes_max + 1))),
                    "TooLarge");
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, wire::empty_message{})), "BadRequest");
    CAF_CHECK_EQUAL(allocate(*one, "long", 1, digest_kind::crc32c, 1'000'000).life_ms, 30'000u);

    const auto to = allocate(*one, "v", value.size());
    CAF_CHECK_EQUAL(text(other->ask(opcode::write, range(*other, to.token, 0, 10, 0))), "NotFound");
    CAF_CHECK_EQUAL(text(other->ask(opcode::commit, closing(*one, to, value))), "NotFound");
    CAF_CHECK_EQUAL(read(*one, {to.token, 0, {}}, 0, 10, {}), "NotFound"); // no lease
    copy(value, one->data(0, value.size()));
    CAF_CHECK_EQUAL(text(one->ask(opcode::write, range(*one, to.token + 1'000'000, 0, 10, 0))), "NotFound");
    CAF_CHECK_EQUAL(text(one->ask(opcode::write, wire::empty_message{})), "BadRequest");
    auto around = range(*one, to.token, 0, 100, 0);
    around.client_address = ~0ULL - 10;
    CAF_CHECK_EQUAL(text(one->ask(opcode::write, around)), "BadRequest");
    CAF_CHECK_EQUAL(text(one->ask(opcode::write, range(*one, to.token, ~0ULL, 100, 0))), "TooLarge");
    CAF_CHECK_EQUAL(text(write(*one, to, 0, value.size() + 1)), "OutOfRange");
    CAF_CHECK_EQUAL(text(write(*one, to, value.size() + 1, 0)), "OutOfRange");
    CAF_CHECK_EQUAL(text(write(*one, to, 10, 100)), "BadRequest"); // a gap
    CAF_CHECK_EQUAL(text(write(*one, to, 0, 60'000)), "Ok");
    CAF_CHECK_EQUAL(text(write(*one, to, 0, 60'000)), "BadRequest"); // again
    CAF_CHECK_EQUAL(text(write(*one, to, 50'000, 20'000)), "BadRequest");
    auto malformed = closing(*one, to, value);
    malformed.value_length = wire::limits::value_bytes_max + 1;
    CAF_CHECK_EQUAL(text(one->ask(opcode::commit, malformed)), "TooLarge");
    CAF_CHECK_EQUAL(text(write(*one, to, 60'000, 40'000)), "Ok");
    CAF_CHECK_EQUAL(text(commit(*one, to, value)), "Ok");
    CAF_CHECK(get("v") == value);

    // Each of these ends the value, and nothing of it is seen.
    const auto prepared = [&](std::size_t written, digest_kind kind = digest_kind::crc32c) {
      auto made = allocate(*one, "w", value.size(), kind);
      CAF_CHECK_EQUAL(text(write(*one, made, 0, written)), "Ok");
      return made;
    };
    const auto refused = [&](const open_value& which, const wire::commit_request& with_this, digest_kind kind,
                             std::string_view expected) {
      CAF_CHECK_EQUAL(text(one->ask(opcode::commit, with_this, {}, kind)), expected);
      CAF_CHECK_EQUAL(text(one->ask(opcode::commit, with_this, {}, kind)), "NotFound");
      CAF_CHECK_EQUAL(text(write(*one, which, value.size(), 0)), "NotFound");
      CAF_CHECK(!has("w"));
    };
    auto early = prepared(99'999);
    refused(early, closing(*one, early, value), digest_kind::crc32c, "BadRequest");
    auto shorter = prepared(99'999);
    refused(shorter, closing(*one, shorter, wire::bytes_view(value).first(99'999)), digest_kind::crc32c,
            "BadRequest");
    auto of_other_kind = prepared(value.size());
    refused(of_other_kind, closing(*one, of_other_kind, value), digest_kind::keyed, "BadRequest");
    for (const auto kind : {digest_kind::crc32c, digest_kind::keyed}) {
      const auto damaged = prepared(value.size(), kind);
      auto wrong = closing(*one, damaged, value);
      wrong.digest[3] ^= std::byte{1};
      refused(damaged, wrong, kind, "DigestMismatch");
      const auto of_another = prepared(value.size(), digest_kind::keyed);
      auto taken = of_another;
      taken.id += 1; // a digest under another id
      refused(of_another, closing(*one, taken, value), digest_kind::keyed, "DigestMismatch");
    }
    const auto nothing = allocate(*one, "w", 0);
    auto not_nothing = closing(*one, nothing, {});
    not_nothing.digest[0] = std::byte{1};
    CAF_CHECK_EQUAL(text(one->ask(opcode::commit, not_nothing)), "DigestMismatch");

    // IF_ABSENT
    const auto late = allocate(*one, "v", value.size());
    CAF_CHECK_EQUAL(text(write(*one, late, 0, value.size())), "Ok");
    CAF_CHECK_EQUAL(text(commit(*one, late, value, true)), "AlreadyExists");
    const auto first = allocate(*one, "x", value.size());
    CAF_CHECK_EQUAL(text(write(*one, first, 0, value.size())), "Ok");
    CAF_CHECK_EQUAL(text(commit(*one, first, value, true)), "Ok");
    CAF_CHECK(get("x") == value);

    // Leases
    CAF_CHECK_EQUAL(text(one->ask(opcode::lookup, wire::key_request{key_bytes("none")}, with(4))),
                    "NotFound");
    const auto from = look_up(*one, "v");
    CAF_CHECK_EQUAL(read(*other, from, 0, 10, {}), "NotFound");
    CAF_CHECK_EQUAL(text(one->ask(opcode::read, range(*one, from.token, ~0ULL, 100, 0))), "TooLarge");
    auto wrapping = range(*one, from.token, 0, 100, 0);
    wrapping.client_address = ~0ULL - 10;
    CAF_CHECK_EQUAL(text(one->ask(opcode::read, wrapping)), "BadRequest");
    CAF_CHECK_EQUAL(text(one->ask(opcode::write, range(*one, from.token, 0, 10, 0))), "NotFound"); // no value
    CAF_CHECK_EQUAL(read(*one, from, 0, value.size(), value, digest_kind::crc32c, 8), "Ok");

    // On the socket there are no tokens.
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::allocate, opening("v", 10)).status(), status::unsupported);
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::write, range(*one, 1, 0, 10, 0)).status(), status::unsupported);
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::commit, wire::commit_request{}).status(), status::unsupported);
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::read, range(*one, 1, 0, 10, 0)).status(), status::unsupported);
    for (const auto* key : {"v", "x"})
      CAF_CHECK_EQUAL(text(one->ask(opcode::erase, wire::key_request{key_bytes(key)})), "Ok");
    CAF_CHECK_EQUAL(report()->values_open, 1u); // "long"
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status(),
                    status::ok);
    CAF_CHECK(all_is_back(before));
  }
  finish();
}

CAF_TEST(a server that wants keyed digests wants them for tokens too) {
  begin(media::memory, [](auto& given) { given.require_keyed_digest = true; });
  {
    const auto one = std::make_unique<message_client>(network, server->port(), message_client::receives,
                                                      message_client::room, digest_kind::keyed);
    const auto value = pattern("v", 1, 10'000);
    copy(value, one->data(0, value.size()));
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("v", 10))), "KeyedDigestRequired");
    CAF_CHECK_EQUAL(text(one->ask(opcode::lookup, wire::key_request{key_bytes("v")}, with(4))),
                    "KeyedDigestRequired");
    CAF_CHECK_EQUAL(text(one->ask(opcode::read, range(*one, 1, 0, 10, 0))), "KeyedDigestRequired");
    const auto to = allocate(*one, "v", value.size(), digest_kind::keyed);
    CAF_CHECK_EQUAL(text(write(*one, to, 0, value.size())), "Ok");
    CAF_CHECK_EQUAL(text(commit(*one, to, value)), "Ok");
    CAF_CHECK_EQUAL(
        read(*one, look_up(*one, "v", digest_kind::keyed), 0, value.size(), value, digest_kind::keyed), "Ok");
  }
  finish();
}

CAF_TEST(writes and the commit of a value may be sent one behind the other) {
  for (const auto kind : {media::memory, media::file}) {
    CAF_MESSAGE(text_of(kind));
    begin(kind);
    {
      const auto one = join();
      const auto value = pattern("v", 1, 3 * mib);
      copy(value, one->data(0, value.size()));
      for (int round = 0; round < 4; ++round) {
        const auto to = allocate(*one, "v", value.size());
        std::map<std::uint64_t, std::string_view> expected;
        for (std::uint64_t at = 0; at < value.size(); at += 256 * kib)
          expected[one->send(opcode::write, range(*one, to.token, at, 256 * kib, at))] = "Ok";
        expected[one->send(opcode::commit, closing(*one, to, value))] = "Ok";
        expected[one->send(opcode::write, range(*one, to.token, value.size(), 0, 0))] = "NotFound";
        while (!expected.empty()) {
          const auto got = one->receive();
          CAF_REQUIRE(got.has_value());
          CAF_CHECK_EQUAL(text(*got), expected.at(got->header.request_id));
          expected.erase(got->header.request_id);
        }
        CAF_CHECK(get("v") == value);
        // Many reads of one lease at one time.
        const auto from = look_up(*one, "v");
        spoil(one->data(0, value.size()));
        for (std::uint64_t at = 0; at < value.size(); at += 256 * kib)
          one->send(opcode::read, range(*one, from.token, at, 256 * kib, at));
        for (std::uint64_t at = 0; at < value.size(); at += 256 * kib) {
          const auto got = one->receive();
          CAF_REQUIRE(got.has_value());
          CAF_CHECK_EQUAL(text(*got), "Ok");
        }
        CAF_CHECK(same(one->data(0, value.size()), value));
      }
    }
    finish();
  }
}

CAF_TEST(tokens have limits that are answered Busy and places that become free again) {
  begin(media::file, [](auto& given) {
    given.reactors = 1;
    given.pool_bytes = 16 * mib; // eight chunks: four may wait
  });
  {
    const auto one = join();
    const auto value = pattern("v", 1, 1000);
    put("v", value);
    const auto before = now().used_bytes;
    std::vector<open_value> values;
    std::vector<lease> leases;
    for (std::uint32_t number = 0; number < wire::limits::tokens_max; ++number) {
      if (number % 2 == 0)
        leases.push_back(look_up(*one, "v"));
      else
        values.push_back(allocate(*one, "w" + std::to_string(number), 3 * mib));
    }
    const wire::key_request named{key_bytes("v")};
    CAF_CHECK_EQUAL(text(one->ask(opcode::lookup, named, with(4))), "Busy");
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("w", 1))), "Busy");
    CAF_CHECK_EQUAL(text(one->ask(opcode::lookup, named)), "Ok");
    const auto another = join();
    look_up(*another, "v");
    CAF_CHECK_EQUAL(report()->leases_open, leases.size() + 1);
    CAF_CHECK_EQUAL(report()->values_open, values.size());
    CAF_CHECK_EQUAL(read(*one, leases[0], 0, value.size(), value, digest_kind::crc32c, 8), "Ok");
    values.push_back(allocate(*one, "w", 3 * mib));
    CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("w", 1))), "Busy");
    // Some bytes of each wait for those that follow.
    for (std::size_t number = 0; number < 4; ++number)
      CAF_CHECK_EQUAL(text(write(*one, values[number], 0, 5000)), "Ok");
    CAF_CHECK_EQUAL(text(write(*one, values[4], 0, 5000)), "Busy");
    CAF_CHECK_EQUAL(text(write(*one, values[0], 5000, 3 * mib - 5000)), "Ok"); // that one has its chunk
    CAF_CHECK_EQUAL(text(write(*one, values[4], 0, 5000)), "Ok");
    CAF_CHECK_EQUAL(text(write(*one, values[5], 0, 5000)), "Busy");
    CAF_CHECK_EQUAL(text(commit(*one, values[1], {})), "BadRequest");
    CAF_CHECK_EQUAL(text(write(*one, values[5], 0, 5000)), "Ok");
    CAF_CHECK_LESS_OR_EQUAL(now().chunks, 6u);
    // The others are served meanwhile.
    const auto large = pattern("large", 1, 4 * mib);
    put("large", large);
    CAF_CHECK(get("large") == large);
    CAF_CHECK_EQUAL(text(one->ask(opcode::erase, wire::key_request{key_bytes("large")})), "Ok");
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status(),
                    status::ok);
    another->tcp->close();
    CAF_CHECK(all_is_back(before));
  }
  finish();
}

CAF_TEST(a full store answers NoSpace to the write or the commit and the value is gone) {
  for (const auto kind : {media::memory, media::file}) {
    CAF_MESSAGE(text_of(kind));
    begin(kind, [](auto& given) {
      given.drives[0].size_bytes = 24 * mib;
      given.store.eviction = false;
      given.store.extent_bytes_max = mib;
    });
    {
      const auto one = join();
      const auto before = now().used_bytes;
      const auto value = pattern("v", 1, 4 * mib - 64);
      copy(value, one->data(0, value.size()));
      CAF_CHECK_EQUAL(text(one->ask(opcode::allocate, opening("v", 512 * mib))), "NoSpace");
      std::vector<open_value> values;
      std::string_view last;
      while (last.empty() || last == "Ok") {
        const auto id = one->next_id;
        const auto got = one->ask(opcode::allocate, opening("v" + std::to_string(id), value.size()));
        last = text(got);
        if (got.status() != status::ok)
          break;
        wire::allocate_reply given;
        CAF_REQUIRE(wire::allocate_reply::decode(got.variable, given) == status::ok);
        const open_value to{given.token, given.lease_ms, id, digest_kind::crc32c};
        last = text(write(*one, to, 0, value.size()));
        if (last != "Ok") {
          CAF_CHECK_EQUAL(text(write(*one, to, 0, value.size())), "NotFound");
          break;
        }
        values.push_back(to);
        CAF_REQUIRE(values.size() < 8);
      }
      CAF_CHECK_EQUAL(last, "NoSpace");
      CAF_CHECK_GREATER(values.size(), 1u);
      CAF_CHECK_EQUAL(text(commit(*one, values[0], value)), "Ok");
      CAF_CHECK_EQUAL(
          text(one->ask(opcode::erase, wire::key_request{key_bytes("v" + std::to_string(values[0].id))})),
          "Ok");
      for (std::size_t number = 1; number < values.size(); ++number)
        CAF_CHECK_EQUAL(text(commit(*one, values[number], {})), "BadRequest");
      CAF_CHECK(all_is_back(before));
    }
    finish();
  }
}

CAF_TEST(values and leases end with their time) {
  for (const auto kind : {media::memory, media::file}) {
    CAF_MESSAGE(text_of(kind));
    begin(kind, [](auto& given) { given.limits.request_ms = 2000; });
    {
      const auto one = join();
      const auto before = now().used_bytes;
      const auto value = pattern("v", 1, 3 * mib);
      copy(value, one->data(0, value.size()));
      put("v", value);
      const auto from = look_up(*one, "v");
      CAF_CHECK_EQUAL(from.found.lease_ms, 2000u);
      CAF_CHECK_EQUAL(text(one->ask(opcode::erase, wire::key_request{key_bytes("v")})), "Ok");
      const auto idle = allocate(*one, "w", value.size(), digest_kind::crc32c, 1);
      const auto to = allocate(*one, "w", value.size());
      CAF_CHECK_EQUAL(to.life_ms, 2000u);
      CAF_CHECK_EQUAL(text(write(*one, to, 0, mib + 1)), "Ok");
      CAF_CHECK(all_is_back(before));
      CAF_CHECK_EQUAL(report()->requests.values_expired, 2u);
      CAF_CHECK_EQUAL(report()->requests.leases_expired, 1u);
      CAF_CHECK_EQUAL(text(write(*one, idle, 0, 10)), "NotFound");
      CAF_CHECK_EQUAL(text(write(*one, to, mib + 1, 10)), "NotFound");
      CAF_CHECK_EQUAL(text(commit(*one, to, value)), "NotFound");
      CAF_CHECK_EQUAL(read(*one, from, 0, 10, {}), "NotFound");
      CAF_CHECK_EQUAL(text(one->ask(opcode::ping, wire::empty_message{})), "Ok");
    }
    finish();
  }
}

CAF_TEST(nothing is left of values and leases when their queue pair ends) {
  for (const auto kind : {media::memory, media::file, media::raw}) {
    CAF_MESSAGE(text_of(kind));
    begin(kind, [](auto& given) { given.store.extent_bytes_max = mib; });
    const auto value = pattern("v", 1, 3 * mib);
    const auto before = now().used_bytes;
    for (const std::string how : {"detach", "close", "refused", "pool", "stop"}) {
      CAF_MESSAGE(how);
      const auto one = join();
      put("v", value);
      copy(value, one->data(0, value.size()));
      const auto from = look_up(*one, "v");
      CAF_CHECK_EQUAL(text(one->ask(opcode::erase, wire::key_request{key_bytes("v")})), "Ok");
      const auto idle = allocate(*one, "w", value.size());
      const auto half = allocate(*one, "w", value.size());
      CAF_CHECK_EQUAL(text(write(*one, half, 0, mib + 100'001)), "Ok");
      const auto whole = allocate(*one, "w", value.size());
      CAF_CHECK_EQUAL(text(write(*one, whole, 0, value.size())), "Ok");
      // And some that are being worked on.
      one->send(opcode::write, range(*one, half.token, mib + 100'001, mib, mib + 100'001));
      one->send(opcode::read, range(*one, from.token, 0, mib, 3 * mib));
      if (how == "detach") {
        CAF_CHECK_EQUAL(
            one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status(),
            status::ok);
      } else if (how == "close") {
        one->tcp->close();
      } else if (how == "refused") {
        auto wrong = range(*one, idle.token, 0, mib, 0);
        wrong.rkey += 12'345;
        one->send(opcode::write, wrong);
      } else if (how == "pool") {
        kill("dci-pool-0");
      } else {
        CAF_CHECK(stop()); // with all of them open
        one->tcp->close();
        break;
      }
      if (how == "detach") {
        // From here on the memory is the client's. The network is asked for nothing but its lock, so that who
        // looks for races sees which came first.
        static_cast<void>(network.statistics());
        spoil(one->data(0, 4 * mib));
        std::this_thread::sleep_for(50ms);
        CAF_CHECK(is_spoilt(one->data(0, 4 * mib)));
      }
      CAF_CHECK(sessions(0));
      CAF_CHECK(all_is_back(before));
      CAF_CHECK(!has("w"));
      if (how != "close") {
        CAF_CHECK(one->ended());
        CAF_CHECK_EQUAL(one->tcp->ask(opcode::ping, wire::empty_message{}).status(), status::ok);
        const auto again = join(); // the tokens are no one's
        CAF_CHECK_EQUAL(text(write(*again, half, 0, 10)), "NotFound");
        CAF_CHECK_EQUAL(read(*again, from, 0, 10, {}), "NotFound");
        again->tcp->close();
        one->tcp->close();
        CAF_CHECK(sessions(0));
      }
    }
    CAF_CHECK(network.misuse().empty());
  }
}

CAF_TEST(a drive that is lost takes what was written to it along and comes back) {
  for (const auto kind : {media::memory, media::file, media::raw}) {
    CAF_MESSAGE(text_of(kind));
    begin(kind);
    {
      const auto one = join();
      const auto value = pattern("v", 1, 3 * mib);
      put("v", value);
      copy(value, one->data(0, value.size()));
      const auto before = now().used_bytes;
      const auto from = look_up(*one, "v");
      const auto half = allocate(*one, "w", value.size()), whole = allocate(*one, "w", value.size());
      CAF_CHECK_EQUAL(text(write(*one, half, 0, mib + 100'001)), "Ok");
      CAF_CHECK_EQUAL(text(write(*one, whole, 0, value.size())), "Ok");
      kill("drive-0");
      CAF_CHECK(rdma_world::eventually([&] { return report()->values_open == 2 && has("v"); }));
      CAF_CHECK_EQUAL(text(write(*one, half, mib + 100'001, 10)), "Unavailable");
      CAF_CHECK_EQUAL(text(commit(*one, whole, value)), "Unavailable");
      CAF_CHECK_EQUAL(text(commit(*one, whole, value)), "NotFound");
      // Memory stays where it is; of a file the drive has another mapping now.
      CAF_CHECK_EQUAL(read(*one, from, 0, value.size(), value, digest_kind::crc32c, 8),
                      kind == media::memory ? "Ok" : "NotFound");
      CAF_CHECK(!has("w"));
      CAF_CHECK(all_is_back(before));
      CAF_CHECK_EQUAL(read(*one, look_up(*one, "v"), 0, value.size(), value), "Ok");
    }
    finish();
  }
}

CAF_TEST_FIXTURE_SCOPE_END()

CAF_TEST_FIXTURE_SCOPE(rdma_lease_slow_tests, slow_fixture)

CAF_TEST(a deadline or the end of its time in the middle of a write ends the value) {
  begin(media::file);
  {
    const auto one = join();
    const auto before = now().used_bytes;
    // A write that is too slow, with another one behind it.
    for (const bool by_deadline : {true, false}) {
      const auto to = allocate(*one, "v", 2 * mib, digest_kind::crc32c, by_deadline ? 20'000 : 700);
      const auto first =
          one->send(opcode::write, range(*one, to.token, 0, 3 * mib / 2, 0), with(0, by_deadline ? 200 : 0));
      const auto second = one->send(opcode::write, range(*one, to.token, 3 * mib / 2, 100, 0));
      std::map<std::uint64_t, std::string_view> got;
      for (int i = 0; i < 2; ++i) {
        const auto answered = one->receive(60s);
        CAF_REQUIRE(answered.has_value());
        got[answered->header.request_id] = text(*answered);
      }
      CAF_CHECK_EQUAL(got[first], "DeadlineExceeded");
      CAF_CHECK_EQUAL(got[second], "NotFound");
      CAF_CHECK_EQUAL(text(write(*one, to, 0, 10)), "NotFound");
      CAF_CHECK(all_is_back(before));
    }
    // One that waits behind another.
    const auto to = allocate(*one, "v", mib + 101);
    const auto first = one->send(opcode::write, range(*one, to.token, 0, mib, 0));
    const auto second = one->send(opcode::write, range(*one, to.token, mib, 100, 0), with(0, 50));
    auto answered = one->receive(60s);
    CAF_REQUIRE(answered.has_value());
    CAF_CHECK_EQUAL(answered->header.request_id, second);
    CAF_CHECK_EQUAL(text(*answered), "DeadlineExceeded");
    answered = one->receive(60s);
    CAF_REQUIRE(answered.has_value());
    CAF_CHECK_EQUAL(answered->header.request_id, first);
    CAF_CHECK_EQUAL(text(*answered), "Ok");
    CAF_CHECK_EQUAL(text(write(*one, to, mib, 100)), "Ok");
    CAF_CHECK_EQUAL(text(commit(*one, to, {})), "BadRequest");
    CAF_CHECK(all_is_back(before));
  }
  finish();
}

CAF_TEST(no memory is touched after the end of a queue pair in the middle of a transfer) {
  for (const std::string how : {"detach", "pool"}) {
    begin(media::file);
    {
      const auto before = now().used_bytes;
      const auto one = join();
      const auto value = pattern("r", 1, mib);
      put("r", value);
      const auto from = look_up(*one, "r");
      const auto to = allocate(*one, "w", 2 * mib);
      one->send(opcode::write, range(*one, to.token, 0, mib, 0));
      one->send(opcode::read, range(*one, from.token, 0, mib, 2 * mib));
      CAF_REQUIRE(rdma_world::eventually([&] { return report()->rails[0].facts->posted > 1; }));
      if (how == "detach")
        CAF_CHECK_EQUAL(
            one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status(),
            status::ok);
      else
        kill("dci-pool-0");
      CAF_CHECK(sessions(0));
      static_cast<void>(network.statistics()); // as above
      spoil(one->data(0, 4 * mib));
      CAF_CHECK_EQUAL(connect(1)->remove("r").code, client::errc::ok);
      CAF_CHECK(all_is_back(before));
      network.settle();
      CAF_CHECK(is_spoilt(one->data(0, 4 * mib)));
      CAF_CHECK(!has("w"));
    }
    finish();
  }
}

CAF_TEST_FIXTURE_SCOPE_END()
