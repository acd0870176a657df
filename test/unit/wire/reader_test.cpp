// The push parsers: cut, merged, hostile, repeated, smuggled and late frames.
#define CAF_SUITE wire_readers

#include "wire_test.hpp"

#include "wire/message_reader.hpp"
#include "wire/reply_reader.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

header_budget plenty;

std::string transcript(bytes_view stream, std::uint64_t now_ns = noon_ns) {
  listening_peer peer(plenty, now_ns);
  peer.feed(stream);
  return peer.joined();
}

buffer large_batch(std::uint64_t id, std::size_t keys) {
  std::vector<batch_key> items(keys,
                               batch_key{as_bytes_view("a key of some length, to make the header large")});
  return request(opcode::batch_exists, id, batch_request<batch_key>{items});
}

// A Ping with one byte of its header changed and signed again.
buffer ping_with(std::size_t at, unsigned value, std::uint64_t id = 3) {
  buffer frame = ping(id);
  frame[at] = static_cast<std::byte>(value);
  reseal(frame);
  return frame;
}

// What the server says to such a frame on an authenticated connection.
std::string judged(const buffer& frame) {
  listening_peer peer(plenty);
  peer.feed(joined({hello(1), ping(2)}));
  peer.log.clear();
  peer.feed(frame);
  return peer.log.empty() ? "need more" : peer.log.front();
}

template <message Body>
buffer reply(opcode code, std::uint64_t id, const Body& body, bytes_view payload = {}, std::uint32_t part = 0,
             bool last = true, status outcome = status::ok, std::uint64_t ts_ns = noon_ns) {
  frame_header header;
  header.direction = direction::reply;
  header.opcode = code;
  header.request_id = id;
  header.status_code = static_cast<std::uint8_t>(outcome);
  header.flags = last ? flags::last : 0;
  header.part_number = part;
  header.tag = code == opcode::hello ? connection_tag{} : test_tag();
  header.payload_length = payload.size();
  buffer frame;
  append_frame(frame, header, body);
  seal(frame, ts_ns, mac(page_key()));
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

struct client_side {
  mac verifier{page_key()};
  reply_reader reader{verifier, plenty};

  explicit client_side(bool tagged = true) {
    if (tagged)
      reader.set_tag(test_tag());
  }
  std::string read(const buffer& frame, std::uint64_t now_ns = noon_ns) {
    switch (reader.consume(frame, now_ns).event) {
    case reply_event::need_more:
      return "need more";
    case reply_event::header:
      return "header";
    case reply_event::wait_for_budget:
      return "wait";
    case reply_event::close:
      return "close " + std::string(name(reader.reason()));
    }
    return "";
  }
};

buffer reply_with(std::size_t at, unsigned value) {
  buffer frame = reply(opcode::ping, 3, empty_message{});
  frame[at] = static_cast<std::byte>(value);
  reseal(frame);
  return frame;
}

} // namespace

CAF_TEST(a stream cut anywhere merged or byte by byte gives the same events) {
  const buffer stream = joined({hello(1), ping(2), put(3, "key", bytes_of("a value")),
                                ping_with(36 + 52, 3, 4), ping(5, noon_ns + 61 * second_ns), put(6, "k", {}),
                                large_batch(7, 30), put(8, "last", bytes_of("x")), ping(8), ping(9)});
  const std::string whole = transcript(stream);
  CAF_MESSAGE(whole);
  CAF_CHECK(whole.find("payload 612076616c7565") != std::string::npos);
  CAF_CHECK(whole.find("malformed bad_digest_kind 4") != std::string::npos);
  CAF_CHECK(whole.find("drop stale_time") != std::string::npos);
  CAF_CHECK(whole.find("drop old_id") != std::string::npos);
  CAF_CHECK(whole.ends_with("Ping 9 \n"));
  listening_peer slow(plenty);
  for (const std::byte byte : stream)
    slow.feed(bytes_view(&byte, 1));
  CAF_CHECK_EQUAL(slow.joined(), whole);
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    listening_peer peer(plenty);
    peer.feed(bytes_view(stream).first(cut));
    peer.feed(bytes_view(stream).subspan(cut));
    if (peer.joined() != whole)
      CAF_FAIL("another result when cut at " << cut);
  }
  CAF_CHECK_EQUAL(plenty.used_bytes(), 0U);
}

CAF_TEST(a stream in random pieces gives the same events) {
  generator random;
  const buffer stream = joined({hello(1), ping(2), large_batch(3, 4000), put(4, "key", random.bytes(5000)),
                                large_batch(5, 900), ping(6)});
  const std::string whole = transcript(stream);
  for (int round = 0; round < 30; ++round) {
    listening_peer peer(plenty);
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t size = std::min<std::size_t>(stream.size() - at, 1 + random.below(20000));
      peer.feed(bytes_view(stream).subspan(at, size));
      at += size;
    }
    if (peer.joined() != whole)
      CAF_FAIL(random.hint());
  }
  CAF_CHECK_EQUAL(plenty.used_bytes(), 0U);
}

CAF_TEST(a connection that ends in the middle of anything executes nothing of it) {
  const buffer start = joined({hello(1), ping(2)});
  const buffer frame = put(3, "key", bytes_of("value"));
  for (std::size_t cut = 0; cut < frame.size() - 5; ++cut) {
    listening_peer peer(plenty);
    peer.feed(start);
    const std::size_t before = peer.log.size();
    peer.feed(bytes_view(frame).first(cut));
    if (peer.log.size() != before)
      CAF_FAIL("an event at byte " << cut);
    CAF_REQUIRE(peer.reader.mid_header() == (cut != 0));
  }
}

CAF_TEST(the first frame is a Hello and there is no second) {
  CAF_CHECK_EQUAL(transcript(ping(1)), "close hello_expected\n");
  CAF_CHECK(transcript(joined({hello(1), hello(2)})).ends_with("close second_hello\n"));
  CAF_CHECK(transcript(joined({hello(1), ping(2), hello(3)})).ends_with("close second_hello\n"));
}

CAF_TEST(a malformed Hello is answered and ends its connection) {
  for (const unsigned kind : {0U, 2U, 3U}) {
    buffer wrong = hello(1);
    wrong[88] = static_cast<std::byte>(kind);
    reseal(wrong);
    CAF_CHECK_EQUAL(transcript(joined({wrong, hello(2), ping(3)})),
                    "malformed bad_digest_kind 1\nclose malformed\n");
  }
}

CAF_TEST(a connection is authenticated by its first frame with the tag and not before) {
  listening_peer peer(plenty);
  peer.feed(hello(1));
  CAF_CHECK(!peer.reader.authenticated());
  peer.feed(ping(2));
  CAF_CHECK(peer.reader.authenticated());
}

CAF_TEST(a Hello needs a zero tag and every other frame the tag of its connection) {
  buffer tagged_hello = hello(1);
  tagged_hello[40] = std::byte{1};
  reseal(tagged_hello);
  CAF_CHECK_EQUAL(transcript(tagged_hello), "close bad_tag\n");
  for (std::size_t at = 40; at < 56; ++at)
    CAF_CHECK_EQUAL(judged(ping_with(at, 0)), "close bad_tag");
}

CAF_TEST(headers are small before authentication and up to 1 MiB afterwards) {
  const buffer at_limit = request(opcode::tcp_put, 2, key_request{buffer(512 - 128 - 8, std::byte{'k'})});
  const buffer above = request(opcode::tcp_put, 2, key_request{buffer(512 - 128 - 7, std::byte{'k'})});
  CAF_CHECK(transcript(joined({hello(1), at_limit})).find("TcpPut 2") != std::string::npos);
  CAF_CHECK(transcript(joined({hello(1), above})).ends_with("close bad_length\n"));
  CAF_CHECK(transcript(joined({hello(1), ping(2), large_batch(3, 4096)})).find("BatchExists 3") !=
            std::string::npos);
  buffer frame = ping(3);
  store_le(frame.data() + 8, limits::header_bytes_max + 1);
  CAF_CHECK_EQUAL(judged(frame), "close bad_length");
  store_le(frame.data() + 8, limits::header_bytes_max);
  CAF_CHECK_EQUAL(judged(frame), "need more");
  store_le(frame.data() + 8, std::uint32_t{127});
  CAF_CHECK_EQUAL(judged(frame), "close bad_length");
  store_le(frame.data() + 8, std::uint32_t{0});
  CAF_CHECK_EQUAL(judged(frame), "close bad_length");
  store_le(frame.data() + 8, ~std::uint32_t{0});
  CAF_CHECK_EQUAL(judged(frame), "close bad_length");
}

CAF_TEST(lengths up to 2 to the 64 are refused after 32 bytes without allocating) {
  header_budget none(0);
  for (const std::uint64_t length :
       {limits::value_bytes_max + 1, std::uint64_t{1} << 32, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    listening_peer peer(none);
    buffer frame = hello(1);
    store_le(frame.data() + 16, length);
    peer.feed(bytes_view(frame).first(32));
    CAF_CHECK_EQUAL(peer.joined(), "close bad_length\n");
    reseal(frame);
    CAF_CHECK_EQUAL(transcript(frame), "close bad_length\n");
  }
  CAF_CHECK_EQUAL(none.used_bytes(), 0U);
}

CAF_TEST(wrong magic and direction close after 32 bytes) {
  for (std::size_t at = 0; at < 4; ++at)
    CAF_CHECK_EQUAL(judged(ping_with(at, 0)), "close bad_magic");
  for (const unsigned wrong : {0U, 2U, 3U, 255U})
    CAF_CHECK_EQUAL(judged(ping_with(5, wrong)), "close bad_direction");
}

CAF_TEST(any bit changed without the key closes the connection or is not seen yet) {
  const buffer frame = put(3, "key", {});
  for (std::size_t bit = 0; bit < 8 * frame.size(); ++bit) {
    buffer altered = frame;
    altered[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    const std::string outcome = judged(altered);
    if (!outcome.starts_with("close ") && outcome != "need more")
      CAF_FAIL("bit " << bit << ": " << outcome);
  }
}

CAF_TEST(every malformed field of a signed request is found and the connection goes on) {
  const std::tuple<std::size_t, unsigned, const char*> cases[] = {
      {4, 0, "version_zero"},
      {7, 1, "status_in_request"},
      {7, 255, "status_in_request"},
      {12, 1, "reserved_not_zero"},
      {15, 128, "reserved_not_zero"},
      {32, 1, "unknown_flag"},
      {32, 2, "unknown_flag"},
      {32, 4, "unknown_flag"},
      {35, 128, "unknown_flag"},
      {56, ' ', "bad_namespace"},
      {57, 'a', "bad_namespace"},
      {87, 'a', "bad_namespace"},
      {88, 0, "bad_digest_kind"},
      {88, 3, "bad_digest_kind"},
      {89, 1, "reserved_not_zero"},
      {91, 1, "reserved_not_zero"},
      {92, 1, "part_in_request"},
      {96, 1, "digest_without_payload"},
      {111, 1, "digest_without_payload"},
      {112, 1, "value_fields_in_request"},
      {127, 1, "value_fields_in_request"},
      {16, 1, "payload_not_expected"},
  };
  for (const auto& [at, value, fault] : cases) {
    listening_peer peer(plenty);
    peer.feed(joined({hello(1), ping(2), ping_with(at, value)}));
    CAF_CHECK_EQUAL(peer.log.back(), "malformed " + std::string(fault) + " 3");
    if (at == 16)
      peer.feed(buffer(1));
    peer.feed(ping(4));
    CAF_CHECK_EQUAL(peer.log.back(), "Ping 4 ");
  }
}

CAF_TEST(a put may be told to store only if absent and to have a digest) {
  buffer frame = put(3, "key", bytes_of("v"));
  frame[32] = std::byte{2};
  reseal(frame);
  CAF_CHECK(judged(frame).starts_with("TcpPut 3"));
  frame[32] = std::byte{3};
  reseal(frame);
  CAF_CHECK_EQUAL(judged(frame), "malformed unknown_flag 3");
}

CAF_TEST(each flag belongs to the requests that have it) {
  const std::pair<opcode, std::uint32_t> owners[] = {
      {opcode::tcp_put, flags::if_absent}, {opcode::lookup, flags::lease}, {opcode::read, flags::release}};
  for (unsigned code = 0; code < 256; ++code)
    for (unsigned bit = 0; bit < 32; ++bit) {
      frame_header header, again;
      header.opcode = static_cast<opcode>(code);
      header.request_id = 1;
      header.flags = 1U << bit;
      std::array<std::byte, 128> bytes;
      encode_header(header, bytes);
      const bool allowed =
          std::ranges::find(owners, std::pair{header.opcode, header.flags}) != std::end(owners);
      CAF_CHECK_EQUAL(name(decode_header(bytes, again)),
                      name(allowed ? header_fault::none : header_fault::unknown_flag));
    }
}

CAF_TEST(an unknown opcode is handed up to be answered) {
  CAF_CHECK_EQUAL(judged(ping_with(6, 0x7F)), "Unknown 3 ");
  CAF_CHECK(!known(static_cast<opcode>(0)));
  CAF_CHECK(!known(static_cast<opcode>(0x11)));
  CAF_CHECK(known(opcode::batch_exists));
  CAF_CHECK(mutates(opcode::tcp_put) && !mutates(opcode::tcp_get) && !mutates(static_cast<opcode>(0x7F)));
}

CAF_TEST(a higher version is refused by name but only to a holder of the key at the right time) {
  CAF_CHECK_EQUAL(judged(ping_with(4, 2)), "refuse version 3");
  CAF_CHECK_EQUAL(judged(ping_with(4, 255)), "refuse version 3");
  buffer unsigned_frame = ping(3);
  unsigned_frame[4] = std::byte{2};
  CAF_CHECK_EQUAL(judged(unsigned_frame), "close bad_mac");
  buffer late = ping_with(4, 2);
  reseal(late, noon_ns - 61 * second_ns);
  CAF_CHECK_EQUAL(judged(late), "drop stale_time");
  buffer first = hello(1);
  first[4] = std::byte{2};
  reseal(first);
  CAF_CHECK_EQUAL(transcript(first), "refuse version 1\n");
}

CAF_TEST(a frame sent again on its connection is dropped and on another one closes it) {
  const buffer start = joined({hello(1), ping(2)});
  const buffer captured = put(3, "key", bytes_of("value"));
  listening_peer same(plenty);
  same.feed(start);
  same.feed(captured);
  const std::size_t before = same.log.size();
  same.feed(captured);
  CAF_REQUIRE_EQUAL(same.log.size(), before + 1);
  CAF_CHECK_EQUAL(same.log.back(), "drop old_id");
  same.feed(ping(4));
  CAF_CHECK_EQUAL(same.log.back(), "Ping 4 ");

  connection_tag other_tag;
  other_tag.fill(std::byte{1});
  listening_peer other(plenty, noon_ns, other_tag);
  other.feed(hello(1));
  other.feed(captured);
  CAF_CHECK_EQUAL(other.log.back(), "close bad_tag");
}

CAF_TEST(a replayed Hello gets a connection on which nothing captured can be executed) {
  const shared_key key = page_key();
  nonce client{};
  nonce first{};
  nonce second{};
  second[0] = std::byte{1};
  CAF_CHECK(derive_session(key, 1, client, first).tag != derive_session(key, 1, client, second).tag);
  CAF_CHECK(derive_session(key, 1, client, first).payload_key !=
            derive_session(key, 1, client, second).payload_key);
  CAF_CHECK(derive_session(key, 1, first, second).tag != derive_session(key, 1, second, first).tag);
  CAF_CHECK(derive_session(key, 2, client, first).tag != derive_session(key, 1, client, first).tag);
}

CAF_TEST(time stamps count within 60 seconds either way and no further) {
  for (const auto& [offset_seconds, accepted] :
       {std::pair(-61, false), std::pair(-60, true), std::pair(-59, true), std::pair(59, true),
        std::pair(60, true), std::pair(61, false)}) {
    const std::uint64_t ts_ns = noon_ns + static_cast<std::uint64_t>(offset_seconds) * second_ns;
    CAF_CHECK_EQUAL(judged(ping(3, ts_ns)), accepted ? "Ping 3 " : "drop stale_time");
  }
  CAF_CHECK_EQUAL(judged(ping(3, noon_ns + 60 * second_ns + 1)), "drop stale_time");
  CAF_CHECK_EQUAL(judged(ping(3, noon_ns - 60 * second_ns - 1)), "drop stale_time");
  CAF_CHECK_EQUAL(judged(ping(3, 0)), "drop stale_time");
  CAF_CHECK_EQUAL(judged(ping(3, ~0ULL)), "drop stale_time");
}

CAF_TEST(a frame stamped ahead cannot be used twice while its window is open) {
  listening_peer peer(plenty);
  peer.feed(joined({hello(1), ping(2)}));
  const buffer ahead = put(3, "key", bytes_of("v"), noon_ns + 60 * second_ns);
  peer.feed(ahead);
  CAF_CHECK(peer.log.back().starts_with("payload"));
  peer.now_ns = noon_ns + 119 * second_ns;
  peer.feed(ahead);
  CAF_CHECK_EQUAL(peer.log.back(), "drop old_id");
}

CAF_TEST(a server with a clock 61 seconds off drops three times and closes) {
  for (const std::uint64_t server_now : {noon_ns - 61 * second_ns, noon_ns + 61 * second_ns}) {
    CAF_CHECK_EQUAL(transcript(joined({hello(1), hello(2), hello(3), ping(4)}), server_now),
                    "drop stale_time\ndrop stale_time\nclose too_many_drops\n");
  }
}

CAF_TEST(a clock that steps back by 61 seconds drops and recovers when it is right again) {
  listening_peer peer(plenty);
  peer.feed(joined({hello(1), ping(2)}));
  peer.now_ns = noon_ns - 61 * second_ns;
  peer.feed(ping(3));
  CAF_CHECK_EQUAL(peer.log.back(), "drop stale_time");
  peer.now_ns = noon_ns;
  peer.feed(ping(4));
  CAF_CHECK_EQUAL(peer.log.back(), "Ping 4 ");
  CAF_CHECK_EQUAL(peer.reader.drops(), 1U);
}

CAF_TEST(a dropped id is not used up but an accepted one is) {
  listening_peer peer(plenty);
  peer.feed(joined({hello(1), ping(2), ping(9, 0), ping(3), ping(3)}));
  CAF_CHECK_EQUAL(peer.log[2], "drop stale_time");
  CAF_CHECK_EQUAL(peer.log[3], "Ping 3 ");
  CAF_CHECK_EQUAL(peer.log[4], "drop old_id");
  CAF_CHECK_EQUAL(peer.reader.last_request_id(), 3U);
}

CAF_TEST(a malformed frame uses up its id) {
  listening_peer peer(plenty);
  peer.feed(joined({hello(1), ping(2), ping_with(88, 0), ping(3)}));
  CAF_CHECK_EQUAL(peer.log.back(), "drop old_id");
}

CAF_TEST(the id zero is never accepted) {
  CAF_CHECK_EQUAL(transcript(hello(0)), "drop old_id\n");
}

CAF_TEST(after a close nothing is read any more) {
  mac verifier(page_key());
  request_reader reader(verifier, plenty);
  CAF_CHECK(reader.consume(ping(1), noon_ns).event == request_event::close);
  const request_reader::result again = reader.consume(hello(2), noon_ns);
  CAF_CHECK(again.event == request_event::close && again.consumed == 0);
}

CAF_TEST(with two keys a connection uses the one its first frame was signed with and no other) {
  const mac first(*shared_key::parse("00112233445566778899aabbccddeeff0123456789abcdef0123456789abcde0"));
  const mac page(page_key());
  const auto tag = test_tag();
  const auto signed_by = [&](const mac& signer, buffer frame) {
    seal(frame, noon_ns, signer);
    return frame;
  };
  // The key of the page comes second: it is found, and what the first one signs is refused from then on.
  request_reader reader(first, plenty, &page);
  CAF_CHECK(reader.consume(hello(1), noon_ns).event == request_event::header);
  CAF_CHECK(reader.uses_second_key() && &reader.verifier() == &page);
  reader.accept_hello(tag);
  CAF_CHECK(reader.consume(signed_by(first, ping(2)), noon_ns).event == request_event::close);
  // The other way round.
  request_reader other(first, plenty, &page);
  CAF_CHECK(other.consume(signed_by(first, hello(1)), noon_ns).event == request_event::header);
  CAF_CHECK(!other.uses_second_key() && &other.verifier() == &first);
  other.accept_hello(tag);
  CAF_CHECK(other.consume(ping(2), noon_ns).event == request_event::close);
  // A key that is neither.
  const mac strange(*shared_key::parse("10112233445566778899aabbccddeeff0123456789abcdef0123456789abcde0"));
  request_reader third(first, plenty, &page);
  CAF_CHECK(third.consume(signed_by(strange, hello(1)), noon_ns).event == request_event::close);
  CAF_CHECK(third.reason() == refusal::bad_mac);
}

CAF_TEST(a frame inside the payload of a dropped frame is not executed) {
  const buffer captured = put(7, "victim", bytes_of("evil"));
  for (const std::uint64_t ts_ns : {noon_ns - 61 * second_ns, noon_ns + 61 * second_ns}) {
    listening_peer peer(plenty);
    peer.feed(joined({hello(1), ping(2), put(3, "carrier", captured, ts_ns), ping(8)}));
    CAF_CHECK_EQUAL(peer.log[2], "drop stale_time");
    CAF_CHECK_EQUAL(peer.log[3], "Ping 8 ");
    CAF_CHECK_EQUAL(peer.log.size(), 4U);
  }
}

CAF_TEST(a frame inside the payload of a repeated or malformed frame is not executed) {
  const buffer captured = put(7, "victim", bytes_of("evil"));
  buffer malformed = put(4, "carrier", captured);
  malformed[88] = std::byte{9};
  reseal(malformed);
  listening_peer peer(plenty);
  peer.feed(joined({hello(1), ping(2), put(2, "carrier", captured), malformed, ping(8)}));
  CAF_CHECK_EQUAL(peer.log[2], "drop old_id");
  CAF_CHECK_EQUAL(peer.log[3], "malformed bad_digest_kind 4");
  CAF_CHECK_EQUAL(peer.log[4], "Ping 8 ");
  CAF_CHECK_EQUAL(peer.log.size(), 5U);
}

CAF_TEST(a frame behind a bad MAC or a wrong length is never looked for) {
  const buffer captured = put(7, "victim", bytes_of("evil"));
  buffer bad_mac = put(3, "carrier", captured);
  bad_mac[128 + 8 + 7 + 8] ^= std::byte{1};
  buffer shorter = put(3, "carrier", captured);
  store_le(shorter.data() + 16, std::uint64_t{0});
  buffer longer_header = put(3, "carrier", captured);
  store_le(longer_header.data() + 8, load_le<std::uint32_t>(longer_header.data() + 8) - 1);
  for (const buffer& frame : {bad_mac, shorter, longer_header}) {
    listening_peer peer(plenty);
    peer.feed(joined({hello(1), ping(2), frame, captured, ping(8)}));
    CAF_CHECK_EQUAL(peer.log.back(), "close bad_mac");
    CAF_CHECK_EQUAL(peer.log.size(), 3U);
  }
}

CAF_TEST(hostile frames with a valid MAC never break the reader and what it accepts is what was sent) {
  generator random;
  const mac signer(page_key());
  std::size_t accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    buffer frame = round % 2 == 0 ? put(3, "some key", random.bytes(random.below(20)))
                                  : large_batch(3, 1 + random.below(9));
    for (std::uint64_t changes = 1 + random.below(4); changes != 0; --changes) {
      static constexpr unsigned edges[] = {0, 1, 2, 3, 127, 128, 254, 255};
      frame[random.below(168)] = static_cast<std::byte>(edges[random.below(8)]);
    }
    const auto header_length = load_le<std::uint32_t>(frame.data() + 8);
    if (header_length >= 128 && header_length + std::size_t{40} <= frame.size()) {
      const std::uint64_t ts_ns = noon_ns + random.below(3) * 31 * second_ns;
      seal(bytes_span(frame).first(header_length + 40), ts_ns, signer);
      if (random.below(2) == 0) {
        set_connection_tag(frame, test_tag());
        reseal(frame, ts_ns);
      }
    }
    listening_peer peer(plenty);
    peer.feed(joined({hello(1), ping(2)}));
    const request_reader::result result = peer.reader.consume(frame, noon_ns);
    if (result.consumed > frame.size())
      CAF_FAIL(random.hint());
    if (result.event != request_event::header)
      continue;
    ++accepted;
    std::array<std::byte, 128> again;
    encode_header(peer.reader.header(), again);
    if (!std::equal(again.begin(), again.end(), frame.begin()))
      CAF_FAIL("another header after decoding and encoding " << random.hint());
  }
  CAF_CHECK(accepted > 100);
}

CAF_TEST(random headers are decoded as they were encoded) {
  generator random;
  for (int round = 0; round < 5000; ++round) {
    frame_header header;
    header.direction = random.below(2) == 0 ? direction::request : direction::reply;
    const bool reply_frame = header.direction == direction::reply;
    header.opcode = reply_frame ? random.any<opcode>() : opcode::tcp_put;
    header.status_code = reply_frame ? random.any<std::uint8_t>() : 0;
    header.header_length = random.any<std::uint32_t>();
    header.payload_length = 1 + random.below(limits::value_bytes_max);
    header.request_id = 1 + random.below(~0ULL);
    header.flags = reply_frame ? flags::last : flags::if_absent;
    header.deadline_ms = reply_frame ? 0 : random.any<std::uint32_t>();
    random.fill(header.tag);
    if (!reply_frame)
      header.ns = *ns_name::from_text(std::string(random.below(33), 'n'));
    header.kind = random.below(2) == 0 ? digest_kind::crc32c : digest_kind::keyed;
    header.part_number = reply_frame ? random.any<std::uint32_t>() : 0;
    random.fill(header.digest);
    header.value_length = reply_frame ? random.number() : 0;
    header.value_offset = reply_frame ? random.number() : 0;
    std::array<std::byte, 128> bytes;
    encode_header(header, bytes);
    frame_header again;
    if (decode_header(bytes, again) != header_fault::none || again != header)
      CAF_FAIL(to_hex(bytes) << " " << random.hint());
  }
}

CAF_TEST(the budget bounds what all incomplete headers hold together) {
  header_budget budget(20000);
  std::vector<std::unique_ptr<listening_peer>> peers;
  const buffer large = large_batch(3, 400); // about 19 kB
  std::size_t waiting = 0;
  for (int i = 0; i < 10; ++i) {
    peers.push_back(std::make_unique<listening_peer>(budget));
    peers.back()->feed(joined({hello(1), ping(2)}));
    peers.back()->feed(bytes_view(large).first(3000));
    CAF_CHECK(budget.used_bytes() <= 20000);
    waiting += peers.back()->log.back() == "wait" ? 1 : 0;
  }
  CAF_CHECK(waiting >= 6 && waiting < 10);
  peers.clear();
  CAF_CHECK_EQUAL(budget.used_bytes(), 0U);
}

CAF_TEST(who waited for the budget goes on where it was) {
  header_budget budget(8000);
  CAF_REQUIRE(budget.take(8000));
  mac verifier(page_key());
  request_reader reader(verifier, budget);
  CAF_REQUIRE(reader.consume(hello(1), noon_ns).event == request_event::header);
  reader.accept_hello(test_tag());
  CAF_REQUIRE(reader.consume(ping(2), noon_ns).event == request_event::header);
  const buffer large = large_batch(3, 40);
  const bytes_view part = bytes_view(large).first(1000);
  const request_reader::result waited = reader.consume(part, noon_ns);
  CAF_CHECK(waited.event == request_event::wait_for_budget);
  CAF_CHECK(reader.consume(part.subspan(waited.consumed), noon_ns).event == request_event::wait_for_budget);
  budget.give_back(8000);
  CAF_CHECK(reader.consume(part.subspan(waited.consumed), noon_ns).event == request_event::need_more);
  CAF_CHECK(budget.used_bytes() > 0);
  CAF_CHECK(reader.consume(bytes_view(large).subspan(1000), noon_ns).event == request_event::header);
  CAF_CHECK_EQUAL(reader.variable_part().size(), large.size() - 168);
  reader.release_header();
  CAF_CHECK_EQUAL(budget.used_bytes(), 0U);
}

CAF_TEST(who announces much and sends little holds little) {
  header_budget budget;
  listening_peer peer(budget);
  peer.feed(joined({hello(1), ping(2)}));
  buffer frame = ping(3);
  store_le(frame.data() + 8, limits::header_bytes_max);
  peer.feed(frame);
  CAF_CHECK(budget.used_bytes() <= 4096);
}

CAF_TEST(a budget never gives more than it has) {
  header_budget budget(10);
  CAF_CHECK(!budget.take(11));
  CAF_CHECK(budget.take(10));
  CAF_CHECK(!budget.take(1));
  CAF_CHECK(!budget.take(~0ULL));
  budget.give_back(10);
  CAF_CHECK(budget.take(1));
}

CAF_TEST(a frame that waited is stamped and numbered when it is written) {
  buffer frame;
  frame_header header;
  header.tag = test_tag();
  append_frame(frame, header, empty_message{});
  const mac signer(page_key());
  seal(frame, noon_ns - 100 * second_ns, signer);
  set_request_id(frame, 5);
  CAF_CHECK_EQUAL(judged(frame), "close bad_mac");
  seal(frame, noon_ns - 100 * second_ns, signer);
  CAF_CHECK_EQUAL(judged(frame), "drop stale_time");
  seal(frame, noon_ns, signer);
  CAF_CHECK_EQUAL(judged(frame), "Ping 5 ");
  digest16 digest{};
  digest[0] = std::byte{9};
  set_digest(frame, digest);
  seal(frame, noon_ns, signer);
  CAF_CHECK_EQUAL(judged(frame), "malformed digest_without_payload 5");
  set_connection_tag(frame, connection_tag{});
  seal(frame, noon_ns, signer);
  CAF_CHECK_EQUAL(judged(frame), "close bad_tag");
}

CAF_TEST(a reply is not a request and a request is not a reply) {
  CAF_CHECK_EQUAL(judged(reply(opcode::ping, 3, empty_message{})), "close bad_direction");
  CAF_CHECK_EQUAL(client_side().read(ping(3)), "close bad_direction");
}

CAF_TEST(a client takes only replies that are right in everything) {
  CAF_CHECK_EQUAL(client_side().read(reply(opcode::ping, 3, empty_message{})), "header");
  buffer altered = reply(opcode::ping, 3, empty_message{});
  altered[7] ^= std::byte{1};
  CAF_CHECK_EQUAL(client_side().read(altered), "close bad_mac");
  CAF_CHECK_EQUAL(client_side().read(reply_with(0, 0)), "close bad_magic");
  CAF_CHECK_EQUAL(client_side().read(reply_with(40, 0)), "close bad_tag");
  CAF_CHECK_EQUAL(client_side().read(reply_with(4, 2)), "close bad_version");
  for (const auto& [at, value] : {std::pair(4, 0), std::pair(12, 1), std::pair(32, 2), std::pair(36, 1),
                                  std::pair(56, 97), std::pair(88, 0), std::pair(89, 1), std::pair(96, 1)})
    CAF_CHECK_EQUAL(
        client_side().read(reply_with(static_cast<std::size_t>(at), static_cast<unsigned>(value))),
        "close malformed");
  CAF_CHECK_EQUAL(client_side().read(reply(opcode::ping, 0, empty_message{})), "close malformed");
  const buffer late = reply(opcode::ping, 3, empty_message{});
  CAF_CHECK_EQUAL(client_side().read(late, noon_ns + 60 * second_ns), "header");
  CAF_CHECK_EQUAL(client_side().read(late, noon_ns + 61 * second_ns), "close stale_time");
  CAF_CHECK_EQUAL(client_side().read(late, noon_ns - 61 * second_ns), "close stale_time");
}

CAF_TEST(a part of a reply has at most 1 MiB) {
  buffer frame = reply(opcode::tcp_get, 3, generation_reply{1});
  store_le(frame.data() + 16, std::uint64_t{limits::part_bytes_max});
  reseal(frame);
  CAF_CHECK_EQUAL(client_side().read(frame), "header");
  store_le(frame.data() + 16, std::uint64_t{limits::part_bytes_max} + 1);
  reseal(frame);
  CAF_CHECK_EQUAL(client_side().read(frame), "close bad_length");
}

CAF_TEST(before the tag a client hears only the answer to its Hello) {
  CAF_CHECK_EQUAL(client_side(false).read(reply(opcode::hello, 1, hello_reply{})), "header");
  CAF_CHECK_EQUAL(client_side(false).read(reply(opcode::ping, 1, empty_message{})), "close bad_tag");
  buffer untagged = reply(opcode::ping, 1, empty_message{});
  set_connection_tag(untagged, connection_tag{});
  reseal(untagged);
  CAF_CHECK_EQUAL(client_side(false).read(untagged), "close hello_expected");
  CAF_CHECK_EQUAL(client_side(true).read(untagged), "close bad_tag");
}

CAF_TEST(the refusal of a version is heard although it has no tag) {
  for (const opcode code : {opcode::hello, opcode::ping}) {
    frame_header request_head;
    request_head.opcode = code;
    request_head.request_id = 1;
    buffer frame;
    append_version_refusal(frame, request_head, encoded_hello_variable());
    seal(frame, noon_ns, mac(page_key()));
    CAF_CHECK_EQUAL(client_side(true).read(frame), "header");
    CAF_CHECK_EQUAL(client_side(false).read(frame), "header");
  }
}

CAF_TEST(replies cut anywhere give the same headers) {
  const buffer first = reply(opcode::hello, 1, hello_reply{});
  const std::vector<batch_slice> slices(100, batch_slice{});
  const buffer second = reply(opcode::tcp_batch_get, 2, batch_get_reply{slices});
  for (const buffer& frame : {first, second})
    for (std::size_t cut = 0; cut < frame.size(); ++cut) {
      client_side client(false);
      if (frame[6] != std::byte{1})
        client.reader.set_tag(test_tag());
      CAF_REQUIRE(client.reader.consume(bytes_view(frame).first(cut), noon_ns).event ==
                  reply_event::need_more);
      CAF_REQUIRE(client.reader.consume(bytes_view(frame).subspan(cut), noon_ns).event ==
                  reply_event::header);
      CAF_REQUIRE(client.reader.variable_part().size() == frame.size() - 168);
    }
  CAF_CHECK_EQUAL(plenty.used_bytes(), 0U);
}

CAF_TEST(an open request takes its own parts in order and nothing after the last) {
  const auto part = [](std::uint64_t id, opcode code, std::uint32_t number, bool last,
                       status outcome = status::ok) {
    frame_header header;
    header.direction = direction::reply;
    header.opcode = code;
    header.request_id = id;
    header.part_number = number;
    header.flags = last ? flags::last : 0;
    header.status_code = static_cast<std::uint8_t>(outcome);
    return header;
  };
  open_request open{7, opcode::tcp_get};
  CAF_CHECK(open.accept(part(8, opcode::tcp_get, 0, true)) == refusal::unknown_id);
  CAF_CHECK(open.accept(part(7, opcode::tcp_put, 0, true)) == refusal::wrong_opcode);
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 1, true)) == refusal::wrong_part);
  open.kind = digest_kind::keyed;
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 0, false)) == refusal::wrong_kind);
  open.kind = digest_kind::crc32c;
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 0, false)) == refusal::none);
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 0, false)) == refusal::wrong_part);
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 1, false, status::corrupt)) == refusal::malformed);
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 1, true, status::corrupt)) == refusal::none);
  CAF_CHECK(open.complete);
  CAF_CHECK(open.accept(part(7, opcode::tcp_get, 2, true)) == refusal::unknown_id);
}

CAF_TEST(a client believes only the answer to its own Hello) {
  const shared_key key = page_key();
  nonce mine{};
  mine[3] = std::byte{3};
  hello_request request;
  request.client_nonce = mine;
  buffer variable(hello_request::size);
  byte_writer writer(variable);
  request.encode(writer);
  hello_answer answer = answer_hello(key, variable, nonce{}, hello_reply{});
  CAF_REQUIRE(answer.status == status::ok);
  const auto read = [&](const hello_reply& body, std::uint64_t id, status outcome = status::ok) {
    buffer bytes(hello_reply::size);
    byte_writer out(bytes);
    body.encode(out);
    frame_header head;
    head.direction = direction::reply;
    head.opcode = opcode::hello;
    head.request_id = id;
    head.flags = flags::last;
    head.status_code = static_cast<std::uint8_t>(outcome);
    return read_hello_answer(key, head, bytes_view(bytes).first(outcome == status::ok ? 96 : 16), 1, mine);
  };
  CAF_CHECK(read(answer.reply, 1).genuine);
  CAF_CHECK(read(answer.reply, 1).keys.tag == answer.keys.tag);
  CAF_CHECK(!read(answer.reply, 2).genuine);
  CAF_CHECK(read(answer.reply, 1, status::busy).genuine);
  CAF_CHECK(read(answer.reply, 1, status::busy).status == status::busy);
  hello_reply wrong = answer.reply;
  wrong.client_nonce[0] ^= std::byte{1};
  CAF_CHECK(!read(wrong, 1).genuine);
  CAF_CHECK(!read(wrong, 1, status::busy).genuine);
  wrong = answer.reply;
  wrong.version = 2;
  CAF_CHECK(!read(wrong, 1).genuine);
}

CAF_TEST(a server speaks the lower of both versions and refuses a malformed Hello) {
  buffer variable(hello_request::size);
  variable[16] = std::byte{200};
  CAF_CHECK_EQUAL(static_cast<int>(answer_hello(page_key(), variable, nonce{}, hello_reply{}).reply.version),
                  1);
  variable[17] = std::byte{1};
  CAF_CHECK(answer_hello(page_key(), variable, nonce{}, hello_reply{}).status == status::bad_request);
  frame_header head;
  head.opcode = opcode::hello;
  head.request_id = 1;
  buffer frame;
  append_hello_answer(frame, head, answer_hello(page_key(), variable, nonce{}, hello_reply{}));
  CAF_CHECK_EQUAL(frame.size(), 144U + 40U);
  CAF_CHECK(frame[7] == std::byte{7});
  variable.pop_back();
  frame.clear();
  append_hello_answer(frame, head, answer_hello(page_key(), variable, nonce{}, hello_reply{}));
  CAF_CHECK_EQUAL(frame.size(), 128U + 40U);
  frame.clear();
  append_hello_refusal(frame, head, variable, status::bad_request);
  CAF_CHECK_EQUAL(frame.size(), 128U + 40U);
}

CAF_TEST(reasons and faults have names of their own) {
  std::map<std::string_view, int> names;
  for (std::size_t i = 0; i < refusal_count; ++i)
    ++names[name(static_cast<refusal>(i))];
  CAF_CHECK_EQUAL(names.size(), refusal_count);
  std::map<std::string_view, int> faults;
  for (std::uint8_t i = 0; i <= static_cast<std::uint8_t>(header_fault::id_zero); ++i)
    ++faults[name(static_cast<header_fault>(i))];
  CAF_CHECK_EQUAL(faults.size(), std::size_t{static_cast<std::uint8_t>(header_fault::id_zero)} + 1);
}

CAF_TEST(a message is judged as a frame of a stream is) {
  const mac verifier{page_key()};
  const auto judge = [&](const std::vector<buffer>& frames) {
    message_reader reader{verifier, test_tag()};
    auto last = request_event::need_more;
    for (const auto& frame : frames)
      last = reader.judge(frame, noon_ns);
    return std::pair{last, reader.reason()};
  };
  const auto says = [&](const std::vector<buffer>& frames, request_event event, refusal reason) {
    const auto [got, why] = judge(frames);
    CAF_CHECK(got == event);
    CAF_CHECK_EQUAL(name(why), name(reason));
  };
  says({ping(1)}, request_event::header, refusal::none);
  says({ping(1), ping(9)}, request_event::header, refusal::none);
  says({ping(9), ping(9)}, request_event::drop, refusal::old_id);
  says({ping(9), ping(8)}, request_event::drop, refusal::old_id);
  says({ping(0)}, request_event::drop, refusal::old_id);
  says({ping(1, noon_ns - limits::drift_ns_max)}, request_event::header, refusal::none);
  says({ping(1, noon_ns - limits::drift_ns_max - 1)}, request_event::drop, refusal::stale_time);
  says({ping(1, noon_ns + limits::drift_ns_max + 1)}, request_event::drop, refusal::stale_time);
  const auto late = ping(1, noon_ns - limits::drift_ns_max - 1);
  // A dropped one does not use up its id; the third one ends it, and nothing is taken after that.
  says({late, late, ping(1)}, request_event::header, refusal::none);
  says({late, late, late}, request_event::close, refusal::too_many_drops);
  says({late, late, late, ping(1)}, request_event::close, refusal::too_many_drops);
  connection_tag other = test_tag();
  other[15] ^= std::byte{1};
  says({request(opcode::ping, 1, empty_message{}, noon_ns, {}, other)}, request_event::close,
       refusal::bad_tag);
  says({hello(1)}, request_event::close, refusal::second_hello);
  says({ping_with(0, 0)}, request_event::close, refusal::bad_magic);
  says({ping_with(5, 2)}, request_event::close, refusal::bad_direction);
  says({ping_with(4, 2)}, request_event::refuse_version, refusal::bad_version);
  says({ping_with(4, 2), ping(9)}, request_event::close, refusal::bad_version);
  says({ping_with(13, 1)}, request_event::malformed, refusal::malformed);
  // Exactly one frame; what its header says of a payload is for the owner.
  says({request(opcode::tcp_put, 1, key_request{as_bytes_view("k")}, noon_ns, as_bytes_view("value"))},
       request_event::close, refusal::bad_length);
  for (std::size_t bytes = 0; bytes < ping(1).size(); ++bytes) {
    auto cut = ping(1);
    cut.resize(bytes);
    says({cut}, request_event::close, refusal::bad_length);
  }
  for (std::size_t at = 0; at < ping(1).size(); ++at) {
    auto changed = ping(1);
    changed[at] ^= std::byte{0x10};
    CAF_CHECK(judge({changed}).first == request_event::close);
  }
}
