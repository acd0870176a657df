// Every message: what is written is what is read, and every way to be malformed is found.
#define CAF_SUITE wire_messages

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

// Writes, reads, writes again; and every shorter or longer form is refused.
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

// Every byte in [begin, begin + size) must be zero.
template <class Message>
void zeros_checked(buffer bytes, std::size_t begin, std::size_t size) {
  Message out;
  CAF_REQUIRE(Message::decode(bytes, out) == status::ok);
  for (std::size_t i = begin; i < begin + size; ++i) {
    bytes[i] = std::byte{1};
    if (Message::decode(bytes, out) != status::bad_request)
      CAF_FAIL("byte " << i << " may be anything");
    bytes[i] = std::byte{0};
  }
}

template <class Message>
status decoded(bytes_view bytes) {
  Message out;
  return Message::decode(bytes, out);
}

template <class Item>
buffer batch_of(const std::vector<Item>& items) {
  return encoded(batch_request<Item>{items});
}

} // namespace

CAF_TEST(random fixed messages are read as written) {
  generator random;
  for (int round = 0; round < 200; ++round) {
    hello_request hello;
    random.fill(hello.client_nonce);
    hello.highest_version = static_cast<std::uint8_t>(1 + random.below(255));
    hello.capabilities = random.number();
    round_trip(hello, random);
    hello_reply welcome;
    random.fill(welcome.client_nonce);
    random.fill(welcome.server_nonce);
    random.fill(welcome.server_id);
    welcome.version = static_cast<std::uint8_t>(1 + random.below(255));
    welcome.capabilities = random.number();
    welcome.value_bytes_max = random.number();
    welcome.header_bytes_max = random.any<std::uint32_t>();
    welcome.batch_items_max = random.any<std::uint32_t>();
    welcome.batch_payload_bytes_max = random.any<std::uint32_t>();
    welcome.part_bytes_max = random.any<std::uint32_t>();
    welcome.frames_in_flight_max = random.any<std::uint32_t>();
    welcome.idle_timeout_ms = random.any<std::uint32_t>();
    round_trip(welcome, random);
    hello_refusal refusal;
    random.fill(refusal.client_nonce);
    round_trip(refusal, random);
    round_trip(generation_reply{random.number()}, random);
    round_trip(lookup_reply{random.number(), random.any<std::uint32_t>(), random.number(),
                            random.any<std::uint32_t>()},
               random);
    round_trip(stat_reply{random.number(), random.number(), random.number(), random.number(),
                          random.any<std::uint32_t>(), random.any<std::uint32_t>()},
               random);
    round_trip(allocate_reply{random.number(), random.any<std::uint32_t>()}, random);
    round_trip(transfer_request{random.number(), random.below(limits::value_bytes_max), 0, random.number(),
                                random.any<std::uint32_t>()},
               random);
    commit_request commit{
        random.number(), random.below(2) == 1, random.below(limits::value_bytes_max + 1), {}};
    random.fill(commit.digest);
    round_trip(commit, random);
    read_reply read;
    random.fill(read.digest);
    round_trip(read, random);
    round_trip(session_message{random.number()}, random);
  }
  round_trip(empty_message{}, random);
}

CAF_TEST(random messages with a key are read as written) {
  generator random;
  for (int round = 0; round < 100; ++round) {
    const buffer key = random.bytes(1 + random.below(round == 0 ? 1 : 100));
    round_trip(key_request{key}, random);
    round_trip(get_request{random.number(), random.number(), random.number(), key}, random);
    round_trip(allocate_request{random.below(limits::value_bytes_max + 1), random.any<std::uint32_t>(), key},
               random);
  }
  const buffer longest = random.bytes(limits::key_bytes_max);
  round_trip(key_request{longest}, random);
  round_trip(get_request{0, 0, 0, longest}, random);
  round_trip(allocate_request{0, 0, longest}, random);
}

CAF_TEST(reserved bytes of every fixed message are checked) {
  zeros_checked<hello_request>(encoded(hello_request{}), 17, 7);
  zeros_checked<hello_reply>(encoded(hello_reply{}), 33, 7);
  zeros_checked<key_request>(encoded(key_request{as_bytes_view("key")}), 2, 6);
  zeros_checked<get_request>(encoded(get_request{1, 2, 3, as_bytes_view("key")}), 2, 6);
  zeros_checked<lookup_reply>(encoded(lookup_reply{}), 12, 4);
  zeros_checked<lookup_reply>(encoded(lookup_reply{}), 28, 4);
  zeros_checked<allocate_request>(encoded(allocate_request{1, 2, as_bytes_view("key")}), 2, 6);
  zeros_checked<allocate_request>(encoded(allocate_request{1, 2, as_bytes_view("key")}), 20, 4);
  zeros_checked<allocate_reply>(encoded(allocate_reply{}), 12, 4);
  zeros_checked<transfer_request>(encoded(transfer_request{}), 36, 4);
  zeros_checked<commit_request>(encoded(commit_request{}), 9, 7);
}

CAF_TEST(a version of zero is malformed in both Hellos) {
  hello_request request;
  request.highest_version = 0;
  CAF_CHECK(decoded<hello_request>(encoded(request)) == status::bad_request);
  hello_reply reply;
  reply.version = 0;
  CAF_CHECK(decoded<hello_reply>(encoded(reply)) == status::bad_request);
}

CAF_TEST(no key is malformed and a long one too large) {
  const buffer longer(limits::key_bytes_max + 1);
  CAF_CHECK(decoded<key_request>(encoded(key_request{})) == status::bad_request);
  CAF_CHECK(decoded<key_request>(encoded(key_request{longer})) == status::too_large);
  CAF_CHECK(decoded<get_request>(encoded(get_request{})) == status::bad_request);
  CAF_CHECK(decoded<get_request>(encoded(get_request{0, 0, 0, longer})) == status::too_large);
  CAF_CHECK(decoded<allocate_request>(encoded(allocate_request{})) == status::bad_request);
  CAF_CHECK(decoded<allocate_request>(encoded(allocate_request{0, 0, longer})) == status::too_large);
}

CAF_TEST(a key length that lies is malformed in both directions) {
  for (const int change : {-1, 1, 1000, 65000}) {
    buffer bytes = encoded(key_request{as_bytes_view("block")});
    store_le(bytes.data(), static_cast<std::uint16_t>(5 + change));
    CAF_CHECK(decoded<key_request>(bytes) == status::bad_request);
    bytes = encoded(get_request{0, 0, 0, as_bytes_view("block")});
    store_le(bytes.data(), static_cast<std::uint16_t>(5 + change));
    CAF_CHECK(decoded<get_request>(bytes) == status::bad_request);
  }
}

CAF_TEST(ranges for RDMA may not wrap or leave the largest value) {
  CAF_CHECK(decoded<transfer_request>(encoded(transfer_request{1, limits::value_bytes_max, 1, 0, 0})) ==
            status::too_large);
  CAF_CHECK(decoded<transfer_request>(encoded(transfer_request{1, ~0ULL, 1, 0, 0})) == status::too_large);
  CAF_CHECK(decoded<transfer_request>(encoded(transfer_request{1, 0, limits::value_bytes_max, 0, 0})) ==
            status::ok);
  CAF_CHECK(decoded<transfer_request>(encoded(transfer_request{1, 1, limits::value_bytes_max, 0, 0})) ==
            status::too_large);
  CAF_CHECK(decoded<transfer_request>(encoded(transfer_request{1, 0, 16, ~0ULL - 15, 0})) ==
            status::bad_request);
  CAF_CHECK(decoded<allocate_request>(encoded(
                allocate_request{limits::value_bytes_max + 1, 0, as_bytes_view("k")})) == status::too_large);
  commit_request commit;
  commit.value_length = limits::value_bytes_max + 1;
  CAF_CHECK(decoded<commit_request>(encoded(commit)) == status::too_large);
  buffer flags = encoded(commit_request{});
  flags[8] = std::byte{2};
  CAF_CHECK(decoded<commit_request>(flags) == status::bad_request);
}

CAF_TEST(random batches are read as written and every cut is refused) {
  generator random;
  for (int round = 0; round < 30; ++round) {
    std::vector<buffer> keys;
    std::vector<batch_key> names;
    std::vector<get_request> gets;
    std::vector<batch_put_item> puts;
    std::uint64_t payload = 0;
    for (std::size_t i = 1 + random.below(20); i != 0; --i)
      keys.push_back(random.bytes(1 + random.below(60)));
    for (const buffer& key : keys) {
      names.push_back({key});
      gets.push_back({random.number(), random.number(), random.number(), key});
      batch_put_item put{random.below(2) == 1, static_cast<std::uint32_t>(random.below(1000)), {}, key};
      if (put.value_length != 0)
        random.fill(put.digest);
      payload += put.value_length;
      puts.push_back(put);
    }
    const auto checked = [&]<class View, class Item>(View view, const std::vector<Item>& items) {
      const buffer bytes = batch_of(items);
      if (View::decode(bytes, view) != status::ok || view.size() != items.size())
        CAF_FAIL("refused " << random.hint());
      std::vector<Item> again;
      for (const Item item : view)
        again.push_back(item);
      if (batch_of(again) != bytes)
        CAF_FAIL("not the same again " << random.hint());
      for (std::size_t size = 0; size < bytes.size(); ++size)
        if (View::decode(bytes_view(bytes).first(size), view) == status::ok)
          CAF_FAIL("accepted a cut at " << size << " " << random.hint());
      buffer longer = bytes;
      longer.push_back(std::byte{0});
      if (View::decode(longer, view) == status::ok)
        CAF_FAIL("accepted a byte too many " << random.hint());
    };
    checked(batch_keys_view(), names);
    checked(batch_get_view(), gets);
    checked(batch_put_view(), puts);
    batch_put_view view;
    CAF_REQUIRE(batch_put_view::decode(batch_of(puts), view) == status::ok);
    CAF_CHECK_EQUAL(view.payload_bytes(), payload);
  }
}

CAF_TEST(batches have one to 4096 items) {
  std::vector<batch_key> keys(limits::batch_items_max, batch_key{as_bytes_view("k")});
  CAF_CHECK(decoded<batch_keys_view>(batch_of(keys)) == status::ok);
  keys.push_back(keys.front());
  CAF_CHECK(decoded<batch_keys_view>(batch_of(keys)) == status::too_large);
  CAF_CHECK(decoded<batch_keys_view>(buffer(8)) == status::bad_request);
  CAF_CHECK(decoded<batch_keys_view>({}) == status::bad_request);
  CAF_CHECK(decoded<batch_keys_view>(from_hex("ffffffff00000000")) == status::too_large);
}

CAF_TEST(items of a batch are as strict as single requests) {
  const auto with = [](buffer bytes, std::size_t at, unsigned value) {
    bytes[at] = static_cast<std::byte>(value);
    return bytes;
  };
  const buffer keys = batch_of(std::vector<batch_key>{{as_bytes_view("block")}});
  CAF_CHECK(decoded<batch_keys_view>(with(keys, 4, 1)) == status::bad_request);
  CAF_CHECK(decoded<batch_keys_view>(with(keys, 8, 0)) == status::bad_request);
  CAF_CHECK(decoded<batch_keys_view>(with(keys, 8, 6)) == status::bad_request);
  CAF_CHECK(decoded<batch_keys_view>(with(keys, 8, 4)) == status::bad_request);
  CAF_CHECK(decoded<batch_keys_view>(with(keys, 9, 5)) == status::too_large);
  const buffer gets = batch_of(std::vector<get_request>{{1, 2, 3, as_bytes_view("block")}});
  for (std::size_t at = 10; at < 16; ++at)
    CAF_CHECK(decoded<batch_get_view>(with(gets, at, 1)) == status::bad_request);
  const buffer puts = batch_of(std::vector<batch_put_item>{{false, 1, {}, as_bytes_view("block")}});
  CAF_CHECK(decoded<batch_put_view>(with(puts, 10, 1)) == status::ok);
  CAF_CHECK(decoded<batch_put_view>(with(puts, 10, 2)) == status::bad_request);
  CAF_CHECK(decoded<batch_put_view>(with(puts, 11, 1)) == status::bad_request);
  const buffer empty_value = batch_of(std::vector<batch_put_item>{{false, 0, {}, as_bytes_view("block")}});
  CAF_CHECK(decoded<batch_put_view>(empty_value) == status::ok);
  CAF_CHECK(decoded<batch_put_view>(with(empty_value, 16, 1)) == status::bad_request);
  CAF_CHECK(decoded<batch_put_view>(with(empty_value, 31, 1)) == status::bad_request);
}

CAF_TEST(the values of a batch may not be too large together) {
  std::vector<batch_put_item> puts(
      2, batch_put_item{false, limits::batch_payload_bytes_max / 2, {}, as_bytes_view("k")});
  CAF_CHECK(decoded<batch_put_view>(batch_of(puts)) == status::ok);
  puts[1].value_length += 1;
  CAF_CHECK(decoded<batch_put_view>(batch_of(puts)) == status::too_large);
  puts.assign(limits::batch_items_max, batch_put_item{false, 0xFFFFFFFF, {}, as_bytes_view("k")});
  CAF_CHECK(decoded<batch_put_view>(batch_of(puts)) == status::too_large);
}

CAF_TEST(answers to batches are read as written) {
  const std::vector<batch_put_result> puts = {{status::ok, 7}, {status::no_space, 0}, {status::ok, 3}};
  const buffer put_bytes = encoded(batch_put_reply{puts});
  batch_put_reply_view put_view;
  CAF_REQUIRE(batch_put_reply_view::decode(put_bytes, put_view) == status::ok);
  CAF_REQUIRE_EQUAL(put_view.size(), 3U);
  CAF_CHECK(put_view[1].status == status::no_space && put_view[2].generation == 3);
  for (std::size_t at = 9; at < 16; ++at) {
    buffer wrong = put_bytes;
    wrong[at] = std::byte{1};
    CAF_CHECK(decoded<batch_put_reply_view>(wrong) == status::bad_request);
  }

  buffer miss_with_generation = put_bytes;
  miss_with_generation[8 + 16 + 8] = std::byte{1};
  CAF_CHECK(decoded<batch_put_reply_view>(miss_with_generation) == status::bad_request);
  const std::vector<batch_put_result> failed = {{status::busy, 5}};
  CAF_CHECK(decoded<batch_put_reply_view>(encoded(batch_put_reply{failed})) == status::ok);

  const std::vector<status> deletes = {status::ok, status::not_found};
  const buffer delete_bytes = encoded(batch_delete_reply{deletes});
  batch_delete_reply_view delete_view;
  CAF_REQUIRE(batch_delete_reply_view::decode(delete_bytes, delete_view) == status::ok);
  CAF_CHECK(delete_view.size() == 2 && delete_view[0] == status::ok && delete_view[1] == status::not_found);

  const std::vector<batch_exists_result> exists = {{status::ok, 1U << 20}, {status::not_found, 0}};
  buffer exists_bytes = encoded(batch_exists_reply{exists});
  batch_exists_reply_view exists_view;
  CAF_REQUIRE(batch_exists_reply_view::decode(exists_bytes, exists_view) == status::ok);
  CAF_CHECK(exists_view.size() == 2 && exists_view[0].value_length == 1U << 20);
  CAF_CHECK(exists_view[1].status == status::not_found);
  exists_bytes.back() = std::byte{1};
  CAF_CHECK(decoded<batch_exists_reply_view>(exists_bytes) == status::bad_request);

  const std::vector<std::uint64_t> lengths = {10, 20, 30};
  buffer prefix_bytes = encoded(prefix_reply{lengths});
  prefix_reply_view prefix_view;
  CAF_REQUIRE(prefix_reply_view::decode(prefix_bytes, prefix_view) == status::ok);
  CAF_CHECK(prefix_view.matched() == 3 && prefix_view.total_bytes() == 60 &&
            prefix_view.value_length(2) == 30);
  prefix_bytes[8] = std::byte{61};
  CAF_CHECK(decoded<prefix_reply_view>(prefix_bytes) == status::bad_request);
  CAF_CHECK(decoded<prefix_reply_view>(encoded(prefix_reply{})) == status::ok);

  for (const buffer& bytes :
       {put_bytes, delete_bytes, encoded(batch_exists_reply{exists}), encoded(prefix_reply{lengths})}) {
    buffer longer = bytes;
    longer.push_back(std::byte{0});
    for (std::size_t size = 0; size <= longer.size(); ++size) {
      const bytes_view cut = bytes_view(longer).first(size);
      if (size == bytes.size())
        continue;
      if (bytes == put_bytes)
        CAF_CHECK(decoded<batch_put_reply_view>(cut) == status::bad_request);
      else if (bytes == delete_bytes)
        CAF_CHECK(decoded<batch_delete_reply_view>(cut) == status::bad_request);
      else if (bytes.size() == encoded(batch_exists_reply{exists}).size())
        CAF_CHECK(decoded<batch_exists_reply_view>(cut) == status::bad_request);
      else
        CAF_CHECK(decoded<prefix_reply_view>(cut) == status::bad_request);
    }
  }
}

CAF_TEST(answers to no item or too many are malformed) {
  for (const char* hex : {"0000000000000000", "0110000000000000", "ffffffff00000000"}) {
    CAF_CHECK(decoded<batch_put_reply_view>(from_hex(hex)) == status::bad_request);
    CAF_CHECK(decoded<batch_get_reply_view>(from_hex(hex)) == status::bad_request);
    CAF_CHECK(decoded<batch_delete_reply_view>(from_hex(hex)) == status::bad_request);
    CAF_CHECK(decoded<batch_exists_reply_view>(from_hex(hex)) == status::bad_request);
  }
  CAF_CHECK(decoded<prefix_reply_view>(from_hex("01100000000000000000000000000000")) == status::bad_request);
  buffer many(16 + 8 * 4097);
  store_le(many.data(), std::uint32_t{4097});
  CAF_CHECK(decoded<prefix_reply_view>(many) == status::bad_request);
}

CAF_TEST(slices of a batched get are checked one by one) {
  batch_slice slice;
  slice.item = 3;
  slice.value_length = 100;
  slice.value_offset = 40;
  slice.length = 60;
  slice.last = true;
  slice.digest.fill(std::byte{7});
  const auto outcome = [](const batch_slice& one) {
    return decoded<batch_get_reply_view>(encoded(batch_get_reply{std::span(&one, 1)}));
  };
  CAF_CHECK(outcome(slice) == status::ok);
  const std::vector<batch_slice> two = {slice, slice};
  const buffer bytes = encoded(batch_get_reply{two});
  batch_get_reply_view view;
  CAF_REQUIRE(batch_get_reply_view::decode(bytes, view) == status::ok);
  CAF_CHECK_EQUAL(view.payload_bytes(), 120U);
  CAF_CHECK(view[1].item == 3 && view[1].value_length == 100 && view[1].value_offset == 40 &&
            view[1].length == 60);
  CAF_CHECK(view[1].last && view[1].digest == slice.digest && view[1].status == status::ok);
  for (const std::size_t at : {14U, 15U, 36U, 37U, 38U, 39U}) {
    buffer wrong = bytes;
    wrong[at] = std::byte{1};
    CAF_CHECK(decoded<batch_get_reply_view>(wrong) == status::bad_request);
  }
  buffer flags = bytes;
  flags[13] = std::byte{2};
  CAF_CHECK(decoded<batch_get_reply_view>(flags) == status::bad_request);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    CAF_REQUIRE(decoded<batch_get_reply_view>(bytes_view(bytes).first(size)) == status::bad_request);

  batch_slice wrong = slice;
  wrong.length = 61;
  CAF_CHECK(outcome(wrong) == status::bad_request);
  wrong = slice;
  wrong.value_offset = ~0ULL - 10;
  CAF_CHECK(outcome(wrong) == status::bad_request);
  wrong = slice;
  wrong.item = limits::batch_items_max;
  CAF_CHECK(outcome(wrong) == status::bad_request);
  wrong = slice;
  wrong.status = status::corrupt;
  CAF_CHECK(outcome(wrong) == status::bad_request);
  wrong.length = 0;
  CAF_CHECK(outcome(wrong) == status::bad_request);
  wrong.digest = {};
  CAF_CHECK(outcome(wrong) == status::ok);
  wrong.last = false;
  CAF_CHECK(outcome(wrong) == status::bad_request);
  wrong = slice;
  wrong.value_offset = 0;
  wrong.value_length = limits::gib;
  wrong.length = limits::part_bytes_max;
  CAF_CHECK(outcome(wrong) == status::ok);
  wrong.length += 1;
  CAF_CHECK(outcome(wrong) == status::bad_request);
}
