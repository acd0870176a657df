// The worked example of docs/formats/wire.md, byte for byte in both directions.
#define CAF_SUITE wire_page

#include "wire_test.hpp"

#include "wire/payload_digest.hpp"
#include "wire/placement.hpp"
#include "wire/rdma_messages.hpp"
#include "wire/reply_reader.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

struct page {
  std::map<std::string, buffer> blocks = worked_example();
  shared_key key = page_key();
  mac signer{key};
  std::uint64_t ts_ns = noon_ns;

  const buffer& at(const std::string& label) const {
    const auto found = blocks.find(label);
    if (found == blocks.end())
      throw std::runtime_error("the page has no block " + label);
    return found->second;
  }
  nonce client() const { return array_of<16>(at("client_nonce")); }
  nonce server() const { return array_of<16>(at("server_nonce")); }
  session_keys keys() const { return derive_session(key, 1, client(), server()); }

  frame_header request(opcode code, std::uint64_t id) const {
    frame_header header;
    header.opcode = code;
    header.request_id = id;
    header.tag = keys().tag;
    header.ns = *ns_name::from_text("tenant-a");
    return header;
  }
  frame_header reply(opcode code, std::uint64_t id) const {
    frame_header header;
    header.direction = direction::reply;
    header.opcode = code;
    header.request_id = id;
    header.flags = flags::last;
    header.tag = keys().tag;
    return header;
  }
  template <message Body>
  buffer frame(const frame_header& header, const Body& body, std::uint64_t after_ns,
               bytes_view payload = {}) const {
    buffer bytes;
    append_frame(bytes, header, body);
    seal(bytes, ts_ns + after_ns, signer);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return bytes;
  }
};

const std::string put_label = "put_request (id 2, namespace \"tenant-a\", deadline 250 ms, kind 1)";
const std::string keyed_put_label = "put_request (id 3, kind 2)";

} // namespace

CAF_TEST(the page has all the blocks this suite knows) {
  CAF_CHECK_EQUAL(page().blocks.size(), 19U);
}

CAF_TEST(the Hello and its answer are those of the page) {
  const page p;
  buffer hello;
  append_hello(hello, 1, p.client());
  seal(hello, p.ts_ns, p.signer);
  CAF_CHECK_EQUAL(to_hex(hello), to_hex(p.at("hello_request")));

  hello_reply own;
  own.server_id = array_of<16>(p.at("server_id"));
  frame_header header;
  CAF_REQUIRE(decode_header(hello, header) == header_fault::none);
  const hello_answer answer = answer_hello(p.key, bytes_view(hello).subspan(128, 32), p.server(), own);
  CAF_CHECK(answer.status == status::ok);
  buffer reply;
  append_hello_answer(reply, header, answer);
  seal(reply, p.ts_ns + 1000, p.signer);
  CAF_CHECK_EQUAL(to_hex(reply), to_hex(p.at("hello_reply")));
  CAF_CHECK_EQUAL(to_hex(answer.keys.tag), to_hex(p.at("connection_tag")));
  CAF_CHECK_EQUAL(to_hex(answer.keys.payload_key), to_hex(p.at("payload_key")));

  frame_header reply_head;
  CAF_REQUIRE(decode_header(reply, reply_head) == header_fault::none);
  const hello_outcome outcome =
      read_hello_answer(p.key, reply_head, bytes_view(reply).subspan(128, 96), 1, p.client());
  CAF_CHECK(outcome.genuine);
  CAF_CHECK(outcome.status == status::ok);
  CAF_CHECK(outcome.keys.tag == answer.keys.tag);
  CAF_CHECK(outcome.reply.server_id == own.server_id);
}

CAF_TEST(both puts are those of the page) {
  const page p;
  const buffer& value = p.at("value");
  frame_header header = p.request(opcode::tcp_put, 2);
  header.deadline_ms = 250;
  header.payload_length = value.size();
  payload_digest digest(p.keys().payload_key);
  digest.begin(digest_kind::crc32c, direction::request, 2, 0, 0);
  digest.update(value);
  header.digest = digest.finish();
  CAF_CHECK_EQUAL(to_hex(p.frame(header, key_request{p.at("key")}, 2000, value)), to_hex(p.at(put_label)));

  header = p.request(opcode::tcp_put, 3);
  header.payload_length = value.size();
  header.kind = digest_kind::keyed;
  digest.begin(digest_kind::keyed, direction::request, 3, 0, 0);
  digest.update(value);
  header.digest = digest.finish();
  CAF_CHECK_EQUAL(to_hex(p.frame(header, key_request{p.at("key")}, 3000, value)),
                  to_hex(p.at(keyed_put_label)));
}

CAF_TEST(the tag of a queue pair is that of the page) {
  const page p;
  const auto nonce = array_of<16>(p.at("queue_pair_nonce"));
  const auto derived = derive_queue_pair_tag(p.key, p.keys().tag, nonce, {0x123, 0x456}, {0x789, 0xABC});
  CAF_CHECK_EQUAL(
      to_hex(derived),
      to_hex(p.at("queue_pair_tag (client 0x123 from packet 0x456, server 0x789 from packet 0xabc)")));
}

CAF_TEST(the requests over RDMA are those of the page) {
  const page p;
  const buffer& value = p.at("value");
  attach_request attach;
  attach.rail = 1;
  attach.client.path_mtu = 4096;
  attach.client.gid = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1};
  attach.client.number = 0x123;
  attach.client.packet_number = 0x456;
  attach.client.reads_served_max = 16;
  CAF_CHECK_EQUAL(to_hex(p.frame(p.request(opcode::tcp_attach, 5), attach, 7000)),
                  to_hex(p.at("attach_request (id 5, rail 1, RC)")));
  batch_write_item item;
  item.if_absent = true;
  item.rkey = 0x1234;
  item.client_address = 0x7F0000001000;
  item.value_length = static_cast<std::uint32_t>(value.size());
  item.key = p.at("key");
  payload_digest digest(p.keys().payload_key);
  digest.begin(digest_kind::keyed, direction::request, 6, 0, 0);
  digest.update(value);
  item.digest = digest.finish();
  frame_header header = p.request(opcode::batch_write, 6);
  header.kind = digest_kind::keyed;
  CAF_CHECK_EQUAL(to_hex(p.frame(header, session_batch_request<batch_write_item>{9, {&item, 1}}, 8000)),
                  to_hex(p.at("batch_write_request (id 6, session 9, kind 2, IF_ABSENT)")));
}

CAF_TEST(the put reply the get and its reply are those of the page) {
  const page p;
  const buffer& value = p.at("value");
  CAF_CHECK_EQUAL(to_hex(p.frame(p.reply(opcode::tcp_put, 2), generation_reply{7}, 4000)),
                  to_hex(p.at("put_reply (to id 2, generation 7)")));
  get_request get;
  get.range_offset = 4;
  get.range_length = 5;
  get.key = p.at("key");
  CAF_CHECK_EQUAL(to_hex(p.frame(p.request(opcode::tcp_get, 4), get, 5000)),
                  to_hex(p.at("get_request (id 4, bytes 4 to 8)")));
  frame_header header = p.reply(opcode::tcp_get, 4);
  const bytes_view sub = bytes_view(value).subspan(4, 5);
  header.payload_length = sub.size();
  header.digest = crc32c_digest(crc32c(sub));
  header.value_length = value.size();
  header.value_offset = 4;
  CAF_CHECK_EQUAL(to_hex(p.frame(header, generation_reply{7}, 6000, sub)),
                  to_hex(p.at("get_reply (to id 4)")));
}

CAF_TEST(a server reads the requests of the page) {
  const page p;
  header_budget budget;
  listening_peer peer(budget, p.ts_ns, p.keys().tag);
  const buffer stream = joined({p.at("hello_request"), p.at(put_label), p.at(keyed_put_label),
                                p.at("get_request (id 4, bytes 4 to 8)")});
  peer.feed(stream);
  CAF_REQUIRE_EQUAL(peer.log.size(), 6U);
  CAF_CHECK(peer.log[0].starts_with("Hello 1 "));
  CAF_CHECK_EQUAL(peer.log[1], "TcpPut 2 0a00000000000000" + to_hex(p.at("key")));
  CAF_CHECK_EQUAL(peer.log[2], "payload " + to_hex(p.at("value")));
  CAF_CHECK(peer.log[3].starts_with("TcpPut 3 "));
  CAF_CHECK(peer.log[5].starts_with("TcpGet 4 "));
  CAF_CHECK(peer.reader.header().ns.text() == "tenant-a");
  get_request get;
  CAF_REQUIRE(get_request::decode(peer.reader.variable_part(), get) == status::ok);
  CAF_CHECK(get.range_offset == 4 && get.range_length == 5 && get.capacity == 0);
}

CAF_TEST(a client reads the replies of the page) {
  const page p;
  header_budget budget;
  reply_reader reader(p.signer, budget);
  const auto next = [&](const std::string& label) {
    const reply_reader::result result = reader.consume(p.at(label), p.ts_ns);
    CAF_REQUIRE(result.event == reply_event::header);
    CAF_CHECK_EQUAL(result.consumed + reader.payload_bytes(), p.at(label).size());
  };
  next("hello_reply");
  reader.set_tag(p.keys().tag);
  next("put_reply (to id 2, generation 7)");
  generation_reply generation;
  CAF_CHECK(generation_reply::decode(reader.variable_part(), generation) == status::ok);
  CAF_CHECK_EQUAL(generation.generation, 7U);
  next("get_reply (to id 4)");
  CAF_CHECK_EQUAL(reader.header().value_length, p.at("value").size());
  CAF_CHECK_EQUAL(reader.header().value_offset, 4U);
  CAF_CHECK(reader.header().digest == crc32c_digest(crc32c(bytes_view(p.at("value")).subspan(4, 5))));
}

CAF_TEST(the key id is that of the page) {
  const page p;
  CAF_CHECK_EQUAL(to_hex(make_key_id("tenant-a", p.at("key")).bytes),
                  to_hex(p.at("key_id in namespace \"tenant-a\"")));
}

CAF_TEST(the placement vectors of the page hold) {
  std::vector<std::string> servers;
  std::size_t seeds = 0;
  std::size_t placed = 0;
  for (const std::string& line : page_lines()) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "servers:") {
      while (words >> word)
        servers.push_back(word);
    } else if (word == "seed" && !servers.empty()) {
      std::string server;
      std::string hex;
      words >> server >> hex;
      CAF_CHECK_EQUAL(placement::seed(server), std::stoull(hex, nullptr, 16));
      ++seeds;
    } else if (word == "namespace" && line.find(" key_id ") != std::string::npos) {
      std::string ns, key, hex, server, score;
      words >> ns >> word >> key >> word >> hex >> word >> server >> word >> score;
      const std::string ns_text = ns.substr(1, ns.size() - 2);
      const key_id id = make_key_id(ns_text, as_bytes_view(std::string_view(key).substr(1, key.size() - 2)));
      CAF_CHECK_EQUAL(to_hex(id.bytes), hex);
      const placement places(servers);
      CAF_CHECK_EQUAL(places.servers()[places.pick(id)], server);
      CAF_CHECK_EQUAL(placement::score(placement::seed(server), id), std::stoull(score, nullptr, 16));
      ++placed;
    }
  }
  CAF_CHECK_EQUAL(seeds, 5U);
  CAF_CHECK_EQUAL(placed, 6U);
}
