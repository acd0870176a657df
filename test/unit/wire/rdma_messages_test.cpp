// Messages of RDMA sessions: what is written is what is read, and every way to be malformed is found.
#define CAF_SUITE wire_rdma_messages

#include "wire/rdma_messages.hpp"

#include "wire_test.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

template <message Body>
buffer encoded(const Body& body) {
  buffer bytes(body.encoded_size());
  byte_writer writer(bytes);
  body.encode(writer);
  if (!writer.finished())
    throw std::runtime_error("a message has another size than it announced");
  return bytes;
}

template <class Message>
status decoded(bytes_view bytes) {
  Message out;
  return Message::decode(bytes, out);
}

template <message Body>
void round_trip(const Body& body, const generator& random) {
  const buffer bytes = encoded(body);
  Body again;
  if (Body::decode(bytes, again) != status::ok || encoded(again) != bytes)
    CAF_FAIL("not the same again: " << to_hex(bytes) << " " << random.hint());
  for (std::size_t size = 0; size < bytes.size(); ++size)
    if (Body::decode(bytes_view(bytes).first(size), again) == status::ok)
      CAF_FAIL("accepted " << size << " of " << bytes.size() << " bytes: " << to_hex(bytes));
  buffer longer = bytes;
  longer.push_back(std::byte{0});
  if (Body::decode(longer, again) == status::ok)
    CAF_FAIL("accepted a byte too many: " << to_hex(longer));
}

rdma_address some_address(generator& random, rdma_kind kind) {
  rdma_address out;
  out.kind = kind;
  out.path_mtu = 256U << random.below(5);
  for (auto& byte : out.gid)
    byte = static_cast<std::uint8_t>(random.below(256));
  out.lid = static_cast<std::uint16_t>(random.below(65'536));
  out.number = static_cast<std::uint32_t>(random.below(1U << 24U));
  if (kind == rdma_kind::rc) {
    out.packet_number = static_cast<std::uint32_t>(random.below(1U << 24U));
    out.reads_served_max = static_cast<std::uint32_t>(1 + random.below(128));
  } else {
    out.dc_key = random.number();
  }
  return out;
}

/// With one byte of an encoded message changed.
template <class Message>
status with(buffer bytes, std::size_t at, std::uint8_t value) {
  bytes[at] = std::byte{value};
  return decoded<Message>(bytes);
}

template <class Item>
void batch_round_trip(std::uint64_t session, const std::vector<Item>& items, const generator& random) {
  const auto bytes = encoded(session_batch_request<Item>{session, items});
  session_batch_view<Item> view;
  if (session_batch_view<Item>::decode(bytes, view) != status::ok)
    CAF_FAIL("refused: " << to_hex(bytes) << " " << random.hint());
  CAF_CHECK_EQUAL(view.session_id(), session);
  std::vector<Item> again;
  for (const Item item : view)
    again.push_back(item);
  CAF_CHECK(encoded(session_batch_request<Item>{session, again}) == bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    if (session_batch_view<Item>::decode(bytes_view(bytes).first(size), view) == status::ok)
      CAF_FAIL("accepted " << size << " of " << bytes.size() << " bytes: " << to_hex(bytes));
}

} // namespace

CAF_TEST(random messages that open sessions are read as written) {
  generator random;
  for (int round = 0; round < 200; ++round) {
    for (const auto kind : {rdma_kind::rc, rdma_kind::dc}) {
      round_trip(attach_request{random.any<std::uint32_t>(), some_address(random, kind)}, random);
      round_trip(
          attach_reply{1 + random.below(1U << 30U), random.any<std::uint32_t>(), some_address(random, kind)},
          random);
    }
    round_trip(connect_request{static_cast<std::uint32_t>(1 + random.below(1024)),
                               static_cast<std::uint32_t>(512 + random.below(65'025)),
                               some_address(random, rdma_kind::rc)},
               random);
    connect_reply reply{1 + random.below(1U << 30U), 7, 4096, {}, some_address(random, rdma_kind::rc)};
    random.fill(reply.nonce);
    round_trip(reply, random);
  }
}

CAF_TEST(an address that cannot be one is malformed) {
  generator random;
  const auto rc = encoded(some_address(random, rdma_kind::rc));
  const auto dc = encoded(some_address(random, rdma_kind::dc));
  CAF_REQUIRE(decoded<rdma_address>(rc) == status::ok);
  CAF_REQUIRE(decoded<rdma_address>(dc) == status::ok);
  for (const std::size_t zero : {1, 2, 3, 26, 27, 31, 35, 48, 55})
    CAF_CHECK(with<rdma_address>(rc, zero, 1) == status::bad_request);
  for (const std::uint8_t kind : {0, 3, 255})
    CAF_CHECK(with<rdma_address>(rc, 0, kind) == status::bad_request);
  CAF_CHECK(with<rdma_address>(rc, 4, 1) == status::bad_request);  // no MTU
  CAF_CHECK(with<rdma_address>(rc, 40, 1) == status::bad_request); // a key of DC
  CAF_CHECK(with<rdma_address>(dc, 32, 1) == status::bad_request); // a packet number
  CAF_CHECK(with<rdma_address>(dc, 36, 1) == status::bad_request);
  auto serves_none = rc;
  store_le(serves_none.data() + 36, std::uint32_t{0});
  CAF_CHECK(decoded<rdma_address>(serves_none) == status::bad_request);
}

CAF_TEST(a queue pair for messages has bounds and is of kind RC) {
  generator random;
  const auto address = some_address(random, rdma_kind::rc);
  for (const auto& [messages, bytes] : {std::pair{0U, 512U}, {1025U, 512U}, {1U, 511U}, {1U, 65'537U}})
    CAF_CHECK(decoded<connect_request>(encoded(connect_request{messages, bytes, address})) ==
              status::bad_request);
  CAF_CHECK(decoded<connect_request>(encoded(connect_request{1, 512, some_address(random, rdma_kind::dc)})) ==
            status::bad_request);
  CAF_CHECK(decoded<attach_reply>(encoded(attach_reply{0, 1, address})) == status::bad_request);
}

CAF_TEST(random batches of a session are read as written and every cut is refused) {
  generator random;
  for (int round = 0; round < 30; ++round) {
    std::vector<buffer> keys;
    for (std::size_t i = 1 + random.below(10); i != 0; --i)
      keys.push_back(random.bytes(1 + random.below(40)));
    std::vector<batch_write_item> writes;
    std::vector<batch_read_item> reads;
    for (const auto& key : keys) {
      auto& write = writes.emplace_back();
      write = {random.below(2) == 1,
               random.any<std::uint32_t>(),
               random.number() >> 1U,
               static_cast<std::uint32_t>(random.below(1U << 30U)),
               {},
               key};
      if (write.value_length != 0)
        random.fill(write.digest);
      reads.push_back({random.any<std::uint32_t>(), random.number() >> 1U, random.number(), random.number(),
                       random.number() >> 1U, key});
    }
    batch_round_trip(random.number(), writes, random);
    batch_round_trip(random.number(), reads, random);
  }
}

CAF_TEST(items whose memory wraps around or whose reserved bytes are set are malformed) {
  const auto key = as_bytes_view("block");
  const batch_write_item write{false, 1, 4096, 10, {}, key};
  const batch_read_item read{1, 4096, 0, 0, 10, key};
  const auto writes = encoded(session_batch_request<batch_write_item>{9, {&write, 1}});
  const auto reads = encoded(session_batch_request<batch_read_item>{9, {&read, 1}});
  CAF_REQUIRE(decoded<batch_write_view>(writes) == status::ok);
  CAF_REQUIRE(decoded<batch_read_view>(reads) == status::ok);
  for (const std::size_t at : {16 + 2, 16 + 3, 16 + 20, 16 + 23})
    CAF_CHECK(with<batch_write_view>(writes, at, 2) == status::bad_request);
  for (const std::size_t at : {16 + 2, 16 + 3})
    CAF_CHECK(with<batch_read_view>(reads, at, 1) == status::bad_request);
  for (const std::size_t at : {4, 7}) {
    CAF_CHECK(with<batch_write_view>(writes, at, 1) == status::bad_request);
    CAF_CHECK(with<batch_read_view>(reads, at, 1) == status::bad_request);
  }
  const batch_write_item wrapping{false, 1, ~0ULL - 5, 10, {}, key};
  CAF_CHECK(decoded<batch_write_view>(encoded(session_batch_request<batch_write_item>{9, {&wrapping, 1}})) ==
            status::bad_request);
  const batch_read_item wrapped{1, ~0ULL - 5, 0, 0, 10, key};
  CAF_CHECK(decoded<batch_read_view>(encoded(session_batch_request<batch_read_item>{9, {&wrapped, 1}})) ==
            status::bad_request);
  batch_write_item digest_of_nothing{false, 1, 4096, 0, {}, key};
  digest_of_nothing.digest[0] = std::byte{1};
  CAF_CHECK(decoded<batch_write_view>(encoded(
                session_batch_request<batch_write_item>{9, {&digest_of_nothing, 1}})) == status::bad_request);
}

CAF_TEST(results of reads are read as written and must agree with themselves) {
  generator random;
  std::vector<batch_read_result> results(3);
  results[0] = {status::ok, 100, 40, {}};
  random.fill(results[0].digest);
  results[1] = {status::not_found, 0, 0, {}};
  results[2] = {status::buffer_too_small, 900, 0, {}};
  const auto bytes = encoded(batch_read_reply{results});
  batch_read_reply_view view;
  CAF_REQUIRE(batch_read_reply_view::decode(bytes, view) == status::ok);
  CAF_REQUIRE_EQUAL(view.size(), 3u);
  for (std::uint32_t i = 0; i < 3; ++i) {
    const auto one = view[i];
    CAF_CHECK(one.status == results[i].status && one.value_length == results[i].value_length &&
              one.length == results[i].length && one.digest == results[i].digest);
  }
  CAF_CHECK(with<batch_read_reply_view>(bytes, 8 + 1, 1) == status::bad_request);
  CAF_CHECK(with<batch_read_reply_view>(bytes, 8 + 40 + 16, 1) == status::bad_request); // bytes of a miss
  CAF_CHECK(with<batch_read_reply_view>(bytes, 8 + 40 + 24, 1) == status::bad_request); // and their digest
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CAF_CHECK(decoded<batch_read_reply_view>(bytes_view(bytes).first(size)) == status::bad_request);
}
