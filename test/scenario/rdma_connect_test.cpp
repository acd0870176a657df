// Requests that come as messages of a queue pair, to a server whose RDMA device is simulated.
#define CAF_SUITE rdma_connect
#include "test/scenario/message_client.hpp"

#include <set>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;
using wire::digest_kind;
using wire::opcode;
using wire::status;

using fixture = message_fixture;

CAF_TEST_FIXTURE_SCOPE(rdma_connect_tests, fixture)

CAF_TEST(every request without a payload is answered by a message) {
  begin();
  {
    const auto one = join();
    const auto value = pattern("key", 1, 100'000);
    put("key", value);
    const wire::key_request there{key_bytes("key")}, elsewhere{key_bytes("other")};
    CAF_CHECK_EQUAL(text(one->ask(opcode::ping, wire::empty_message{})), "Ok");
    const auto exists = one->ask(opcode::exists, there);
    CAF_CHECK_EQUAL(text(exists), "Ok");
    CAF_CHECK_EQUAL(exists.header.value_length, value.size());
    CAF_CHECK_EQUAL(text(one->ask(opcode::exists, elsewhere)), "NotFound");
    const auto looked = one->ask(opcode::lookup, there);
    wire::lookup_reply lookup;
    CAF_REQUIRE(wire::lookup_reply::decode(looked.variable, lookup) == status::ok);
    CAF_CHECK_EQUAL(lookup.value_crc32c, wire::crc32c(value, 0));
    CAF_CHECK_EQUAL(lookup.lease_token, 0u);
    CAF_CHECK_EQUAL(text(one->ask(opcode::stat, wire::empty_message{})), "Ok");
    std::vector<std::byte> two(8 + 2 * 5);
    wire::store_le<std::uint32_t>(two.data(), 2);
    for (std::size_t at : {8U, 13U}) {
      wire::store_le<std::uint16_t>(two.data() + at, 3);
      std::memcpy(two.data() + at + 2, at == 8 ? "key" : "off", 3);
    }
    const wire::raw_message both{two};
    const auto many = one->ask(opcode::batch_exists, both);
    CAF_REQUIRE_EQUAL(many.variable.size(), 8u + 2 * 9);
    CAF_CHECK(many.variable[8] == std::byte{0} && many.variable[9] == std::byte{1});
    const auto prefix = one->ask(opcode::prefix, both);
    CAF_REQUIRE_EQUAL(prefix.variable.size(), 16u + 8);
    const auto gone = one->ask(opcode::tcp_batch_delete, both);
    CAF_REQUIRE_EQUAL(gone.variable.size(), 8u + 2);
    CAF_CHECK(gone.variable[8] == std::byte{0} && gone.variable[9] == std::byte{1});
    CAF_CHECK(!has("key"));
    put("key", value);
    CAF_CHECK_EQUAL(text(one->ask(opcode::erase, there)), "Ok");
    CAF_CHECK_EQUAL(text(one->ask(opcode::tcp_delete, there)), "NotFound");
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::ping, wire::empty_message{}).status(), status::ok);
    // The ids of the socket are others: the next one is 3, and was used here.
    CAF_CHECK_LESS(one->tcp->next_id(), one->next_id);
  }
  finish();
}

CAF_TEST(values travel between the memory and the store with digests of both kinds) {
  for (const auto kind : {media::memory, media::file}) {
    begin(kind);
    {
      const auto one = join();
      for (const auto digest : {digest_kind::crc32c, digest_kind::keyed})
        for (const std::size_t bytes : {1U, 4096U, 70'000U, 1U << 20U}) {
          const auto value = pattern("v", bytes, bytes);
          std::ranges::copy(value, one->data(0, bytes).begin());
          const auto stored = one->write("v", 0, bytes, digest, one->given.session_id);
          CAF_REQUIRE_EQUAL(text(stored), "Ok");
          CAF_CHECK(stored.variable.at(8) == std::byte{0});
          std::ranges::fill(one->data(0, bytes), poison);
          const auto read = one->read("v", 7, bytes, digest);
          CAF_REQUIRE_EQUAL(text(read), "Ok");
          wire::batch_read_reply_view results;
          CAF_REQUIRE(wire::batch_read_reply_view::decode(read.variable, results) == status::ok);
          CAF_CHECK(std::ranges::equal(one->data(7, bytes), value));
          CAF_CHECK_EQUAL(one->data(6, 1)[0], poison);
          wire::payload_digest expected{one->tcp->keys().payload_key};
          expected.begin(digest, wire::direction::reply, (one->next_id - 1) | 1ULL << 63U, 0, 0);
          expected.update(value);
          CAF_CHECK(expected.matches(results[0].digest));
        }
      // A session of nobody, or of another way.
      CAF_CHECK_EQUAL(text(one->write("v", 0, 10, digest_kind::crc32c, one->given.session_id + 1)),
                      "SessionEnded");
    }
    finish();
  }
}

CAF_TEST(what does not travel by messages is refused and the queue pair goes on) {
  begin();
  {
    const auto one = join(8, 512);
    const wire::key_request named{key_bytes("key")};
    for (const auto what :
         {opcode::tcp_put, opcode::tcp_attach, opcode::connect, opcode::tcp_detach, opcode::tcp_batch_get,
          static_cast<opcode>(0x77)})
      CAF_CHECK_EQUAL(text(one->ask(what, named)), "Unsupported");
    // A payload that is announced does not follow.
    const twist with_payload{[](auto& header) {
      header.payload_length = 100;
      header.digest[0] = std::byte{1};
    }};
    CAF_CHECK_EQUAL(text(one->ask(opcode::tcp_put, named, with_payload)), "Unsupported");
    CAF_CHECK_EQUAL(text(one->ask(opcode::ping, wire::empty_message{}, with_payload)), "BadRequest");
    CAF_CHECK_EQUAL(text(one->ask(opcode::exists, wire::empty_message{})), "BadRequest");
    CAF_CHECK_EQUAL(text(one->ask(opcode::lookup, named, {[](auto& header) { header.flags = 8; }})),
                    "BadRequest");
    // An answer for which there would be no room, of which nothing may be done.
    put("k", pattern("k", 1, 10));
    std::vector<std::byte> many(8 + 400 * 3);
    wire::store_le<std::uint32_t>(many.data(), 400);
    for (std::size_t at = 8; at < many.size(); at += 3) {
      wire::store_le<std::uint16_t>(many.data() + at, 1);
      many[at + 2] = std::byte{'k'};
    }
    CAF_CHECK_EQUAL(text(one->ask(opcode::tcp_batch_delete, wire::raw_message{many})), "TooLarge");
    CAF_CHECK(has("k"));
    CAF_CHECK_EQUAL(text(one->ask(opcode::ping, wire::empty_message{})), "Ok");
    CAF_CHECK(!one->broken);
  }
  finish();
}

CAF_TEST(a message that fails a check ends the queue pair and not the connection) {
  begin();
  const auto other = join();
  using bytes = std::vector<std::byte>;
  const std::vector<std::pair<std::string, twist>> wrongs{
      {"tag", {[](auto& header) { header.tag[3] ^= std::byte{1}; }}},
      {"of the socket", {}}, // below
      {"of another queue pair", {[&](auto& header) { header.tag = other->tag; }}},
      {"magic", {{}, [](bytes& frame) { frame[0] = std::byte{0}; }}},
      {"direction", {[](auto& header) { header.direction = wire::direction::reply; }}},
      {"mac", {{}, [](bytes& frame) { frame.back() ^= std::byte{1}; }}},
      {"one byte more", {{}, [](bytes& frame) { frame.push_back(std::byte{0}); }}},
      {"one byte less", {{}, [](bytes& frame) { frame.pop_back(); }}},
      {"short", {{}, [](bytes& frame) { frame.resize(20); }}},
      {"empty header", {{}, [](bytes& frame) { wire::store_le<std::uint32_t>(frame.data() + 8, 0); }}},
      {"longer than a receive", {{}, [](bytes& frame) { frame.resize(8193); }}},
      {"a second Hello", {[](auto& header) { header.opcode = opcode::hello; }}},
      {"version", {[](auto& header) { header.version = 9; }}}};
  for (const auto& [name, wrong] : wrongs) {
    CAF_MESSAGE(name);
    const auto one = join();
    CAF_CHECK_EQUAL(text(one->ask(opcode::ping, wire::empty_message{})), "Ok");
    auto change = wrong;
    if (name == "of the socket")
      change.header = [&](auto& header) { header.tag = one->tcp->keys().tag; };
    one->send(opcode::ping, wire::empty_message{}, change);
    if (name == "version") {
      const auto refused = one->receive();
      CAF_REQUIRE(refused.has_value());
      CAF_CHECK_EQUAL(text(*refused), "UnsupportedVersion");
      CAF_CHECK(wire::all_zero(refused->header.tag));
    }
    CAF_CHECK(one->ended());
    CAF_CHECK(!one->receive(0ms).has_value());
    CAF_CHECK(sessions(1));
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::ping, wire::empty_message{}).status(), status::ok);
    CAF_CHECK_EQUAL(one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status(),
                    status::not_found);
  }
  // The one that fits no receive is refused by the device.
  CAF_CHECK_EQUAL(refused("protocol"), wrongs.size() - 2);
  CAF_CHECK_EQUAL(refused("version"), 1u);
  CAF_CHECK_EQUAL(text(other->ask(opcode::ping, wire::empty_message{})), "Ok");
  other->tcp->close();
  finish();
}

CAF_TEST(messages that were sent before or long ago are dropped and the third one ends the queue pair) {
  begin();
  {
    const auto one = join();
    const auto first = one->frame(opcode::ping, wire::empty_message{}, 7);
    one->post(first);
    CAF_CHECK(one->receive().has_value());
    one->post(first); // again
    one->post(one->frame(opcode::ping, wire::empty_message{}, 8, {{}, {}, -61'000'000'000}));
    one->post(one->frame(opcode::ping, wire::empty_message{}, 8));
    const auto next = one->receive();
    CAF_REQUIRE(next.has_value());
    CAF_CHECK_EQUAL(next->header.request_id, 8u);
    CAF_CHECK_EQUAL(report()->requests.dropped_replayed, 1u);
    CAF_CHECK_EQUAL(report()->requests.dropped_stale, 1u);
    one->post(one->frame(opcode::ping, wire::empty_message{}, 6)); // backwards
    one->next_id = 20;
    CAF_CHECK(one->ended());
    CAF_CHECK(sessions(0));
    CAF_CHECK_EQUAL(refused("too_many_drops"), 1u);
  }
  finish();
}

CAF_TEST(many requests at a time are all answered and one more than may be open ends the queue pair) {
  begin();
  {
    const auto one = join(4); // fewer than the server keeps posted
    for (int round = 0; round < 50; ++round) {
      std::set<std::uint64_t> open;
      for (int i = 0; i < 4; ++i)
        open.insert(one->send(opcode::exists, wire::key_request{key_bytes("nothing")}));
      while (!open.empty()) {
        const auto got = one->receive();
        CAF_REQUIRE(got.has_value());
        CAF_CHECK_EQUAL(open.erase(got->header.request_id), 1u);
      }
    }
    // They are open for as long as the bytes cannot move.
    network.hold();
    for (int i = 0; i < 4; ++i)
      one->send(opcode::ping, wire::empty_message{});
    network.hold(false);
    for (int i = 0; i < 4; ++i)
      CAF_CHECK(one->receive().has_value());
  }
  {
    const auto one = join(2);
    const auto value = pattern("v", 1, mib);
    std::ranges::copy(value, one->data(0, mib).begin());
    std::vector<wire::batch_write_item> items(16);
    for (auto& item : items) {
      item.rkey = one->rkey();
      item.client_address = one->address(0);
      item.value_length = mib;
      item.digest = wire::crc32c_digest(wire::crc32c(value, 0));
      item.key = key_bytes("v");
    }
    for (int i = 0; i < 12; ++i)
      one->post(one->frame(opcode::batch_write,
                           wire::session_batch_request<wire::batch_write_item>{one->given.session_id, items},
                           one->next_id++));
    CAF_CHECK(one->ended());
  }
  finish();
}

CAF_TEST(a queue pair ends with a detach and with its connection and when it breaks) {
  begin(media::file);
  const auto value = pattern("v", 3, 2 * mib);
  const auto write_some = [&](message_client& one) {
    std::ranges::copy(value, one.data(0, value.size()).begin());
    std::vector<wire::batch_write_item> items(8);
    for (auto& item : items) {
      item.rkey = one.rkey();
      item.client_address = one.address(0);
      item.value_length = static_cast<std::uint32_t>(value.size());
      item.digest = wire::crc32c_digest(wire::crc32c(value, 0));
      item.key = key_bytes("v");
    }
    one.send(opcode::batch_write,
             wire::session_batch_request<wire::batch_write_item>{one.given.session_id, items});
    one.send(opcode::lookup, wire::key_request{key_bytes("v")});
  };
  for (const auto how : {"detach", "close", "fail", "kill"}) {
    CAF_MESSAGE(how);
    const auto one = join();
    write_some(*one);
    std::this_thread::sleep_for(2ms);
    if (how == std::string_view{"detach"}) {
      CAF_CHECK_EQUAL(
          one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status(),
          status::ok);
    } else if (how == std::string_view{"close"}) {
      one->tcp->close();
      CAF_CHECK(sessions(0));
    } else if (how == std::string_view{"fail"}) {
      // The server notices when it has something to send, and not before.
      one->fail();
      const auto told =
          one->tcp->ask(opcode::tcp_detach, wire::session_message{one->given.session_id}).status();
      CAF_CHECK(told == status::ok || told == status::not_found);
      CAF_CHECK(sessions(0));
    } else {
      for (const auto& [name, who] : server->actors())
        if (name == "dci-pool-0")
          caf::anon_send_exit(who, caf::exit_reason::kill);
      CAF_CHECK(sessions(0));
    }
    // From here on the memory is the client's: what the server took from it later would not be the value. The
    // network is asked for nothing but its lock, so that who looks for races sees which came first.
    static_cast<void>(network.statistics());
    std::ranges::fill(one->data(0, value.size()), poison);
    CAF_CHECK(one->ended());
    if (how != std::string_view{"close"}) {
      CAF_CHECK_EQUAL(one->tcp->ask(opcode::ping, wire::empty_message{}).status(), status::ok);
    }
    std::vector<std::byte> target(value.size());
    const auto got = connect(1)->get("v", target);
    CAF_CHECK(got.code == client::errc::not_found || (got.code == client::errc::ok && target == value));
    CAF_CHECK(sessions(0));
  }
  finish();
}

CAF_TEST_FIXTURE_SCOPE_END()
