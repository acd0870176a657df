// What every fuzz target does with a variable part that reached it: decode it as its opcode says, walk it to
// the end, and encode it again where that must give the same bytes.
#pragma once

#include "wire/assert.hpp"
#include "wire/frame_writer.hpp"
#include "wire/hello.hpp"
#include "wire/messages.hpp"
#include "wire/rdma_messages.hpp"

#include <algorithm>
#include <vector>

namespace memkv::wire::fuzz {

template <message Body>
void expect_same_bytes(const Body& body, bytes_view bytes) {
  std::vector<std::byte> again(body.encoded_size());
  byte_writer writer(again);
  body.encode(writer);
  MEMKV_ASSERT(writer.finished(), "a message has the size it announces");
  MEMKV_ASSERT(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()),
               "encoding undoes decoding");
}

template <class Body>
void exercise_single(bytes_view variable) {
  Body body;
  if (Body::decode(variable, body) == status::ok)
    expect_same_bytes(body, variable);
}

template <class Item, class View>
[[nodiscard]] std::vector<Item> items_of(const View& view, bytes_view variable) {
  std::vector<Item> items;
  for (const Item item : view) {
    MEMKV_ASSERT(!item.key.empty() && item.key.size() <= limits::key_bytes_max,
                 "keys of a batch are within limits");
    MEMKV_ASSERT(item.key.data() + item.key.size() <= variable.data() + variable.size(),
                 "keys lie in their batch");
    items.push_back(item);
  }
  MEMKV_ASSERT(items.size() == view.size(), "a batch has as many items as it says");
  return items;
}

template <class View, class Item>
void exercise_batch(bytes_view variable) {
  View view;
  if (View::decode(variable, view) == status::ok) {
    const auto items = items_of<Item>(view, variable);
    expect_same_bytes(batch_request<Item>{items}, variable);
  }
}

template <class Item>
void exercise_session_batch(bytes_view variable) {
  session_batch_view<Item> view;
  if (session_batch_view<Item>::decode(variable, view) != status::ok)
    return;
  const auto items = items_of<Item>(view, variable);
  expect_same_bytes(session_batch_request<Item>{view.session_id(), items}, variable);
}

inline void exercise_request(opcode code, bytes_view variable) {
  switch (code) {
  case opcode::hello:
    exercise_single<hello_request>(variable);
    return;
  case opcode::lookup:
  case opcode::exists:
  case opcode::erase:
  case opcode::tcp_put:
  case opcode::tcp_delete:
    exercise_single<key_request>(variable);
    return;
  case opcode::tcp_get:
    exercise_single<get_request>(variable);
    return;
  case opcode::tcp_batch_put: {
    exercise_batch<batch_put_view, batch_put_item>(variable);
    return;
  }
  case opcode::tcp_batch_get:
    exercise_batch<batch_get_view, get_request>(variable);
    return;
  case opcode::tcp_batch_delete:
  case opcode::batch_exists:
  case opcode::prefix:
    exercise_batch<batch_keys_view, batch_key>(variable);
    return;
  case opcode::allocate:
    exercise_single<allocate_request>(variable);
    return;
  case opcode::read:
  case opcode::write:
    exercise_single<transfer_request>(variable);
    return;
  case opcode::commit:
    exercise_single<commit_request>(variable);
    return;
  case opcode::tcp_detach:
    exercise_single<session_message>(variable);
    return;
  case opcode::tcp_attach:
    exercise_single<attach_request>(variable);
    return;
  case opcode::connect:
    exercise_single<connect_request>(variable);
    return;
  case opcode::batch_write:
    exercise_session_batch<batch_write_item>(variable);
    return;
  case opcode::batch_read:
    exercise_session_batch<batch_read_item>(variable);
    return;
  default:
    exercise_single<empty_message>(variable);
    return;
  }
}

inline void exercise_reply(opcode code, bytes_view variable) {
  switch (code) {
  case opcode::hello:
    exercise_single<hello_reply>(variable);
    exercise_single<hello_refusal>(variable);
    return;
  case opcode::lookup:
    exercise_single<lookup_reply>(variable);
    return;
  case opcode::stat:
    exercise_single<stat_reply>(variable);
    return;
  case opcode::allocate:
    exercise_single<allocate_reply>(variable);
    return;
  case opcode::read:
    exercise_single<read_reply>(variable);
    return;
  case opcode::tcp_attach:
    exercise_single<attach_reply>(variable);
    return;
  case opcode::connect:
    exercise_single<connect_reply>(variable);
    return;
  case opcode::batch_read: {
    batch_read_reply_view view;
    if (batch_read_reply_view::decode(variable, view) == status::ok)
      for (std::uint32_t i = 0; i < view.size(); ++i)
        MEMKV_ASSERT(static_cast<std::uint8_t>(view[i].status) <= status_last,
                     "unknown codes become internal");
    return;
  }
  case opcode::exists:
  case opcode::commit:
  case opcode::tcp_put:
  case opcode::tcp_get:
    exercise_single<generation_reply>(variable);
    return;
  case opcode::batch_write:
  case opcode::tcp_batch_put: {
    batch_put_reply_view view;
    if (batch_put_reply_view::decode(variable, view) == status::ok)
      for (std::uint32_t i = 0; i < view.size(); ++i)
        MEMKV_ASSERT(static_cast<std::uint8_t>(view[i].status) <= status_last,
                     "unknown codes become internal");
    return;
  }
  case opcode::tcp_batch_get: {
    batch_get_reply_view view;
    std::uint64_t total = 0;
    if (batch_get_reply_view::decode(variable, view) == status::ok) {
      for (std::uint32_t i = 0; i < view.size(); ++i)
        total += view[i].length;
      MEMKV_ASSERT(total == view.payload_bytes() && total <= limits::part_bytes_max, "slices fill a part");
    }
    return;
  }
  case opcode::tcp_batch_delete: {
    batch_delete_reply_view view;
    if (batch_delete_reply_view::decode(variable, view) == status::ok)
      for (std::uint32_t i = 0; i < view.size(); ++i)
        MEMKV_ASSERT(static_cast<std::uint8_t>(view[i]) <= status_last, "unknown codes become internal");
    return;
  }
  case opcode::batch_exists: {
    batch_exists_reply_view view;
    if (batch_exists_reply_view::decode(variable, view) == status::ok)
      for (std::uint32_t i = 0; i < view.size(); ++i)
        MEMKV_ASSERT(view[i].status == status::ok || view[i].value_length == 0, "only a hit has a length");
    return;
  }
  case opcode::prefix: {
    prefix_reply_view view;
    std::uint64_t total = 0;
    if (prefix_reply_view::decode(variable, view) == status::ok) {
      for (std::uint32_t i = 0; i < view.matched(); ++i)
        total += view.value_length(i);
      MEMKV_ASSERT(total == view.total_bytes(), "the total is the sum");
    }
    return;
  }
  default:
    exercise_single<empty_message>(variable);
    return;
  }
}

// --- streams ---

inline constexpr std::uint64_t now_ns = 1'700'000'000'000'000'000;

inline const shared_key& fuzz_key() {
  static const shared_key key =
      *shared_key::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  return key;
}

inline const mac& fuzz_mac() {
  static const mac signer(fuzz_key());
  return signer;
}

inline connection_tag fuzz_tag() {
  connection_tag tag;
  tag.fill(std::byte{0x5A});
  return tag;
}

/// The first byte of an input says how the rest is treated.
struct treatment {
  explicit treatment(std::byte mode)
      : sign((mode & std::byte{1}) != std::byte{0}), open((mode & std::byte{2}) != std::byte{0}),
        piece_bytes(1 + 37 * std::to_integer<std::size_t>(mode >> 2)) {}

  bool sign; ///< sign every frame of the mutated stream, so that what lies behind the MAC is reached
  bool open; ///< begin on a connection that is open already
  std::size_t piece_bytes; ///< how the stream is cut
};

/// Gives every frame of a mutated stream the right magic, direction and tag, an honest stamp and a good MAC.
/// Other fields stay as the mutator left them, only lengths are cut to what is there.
inline void sign_stream(std::span<std::byte> stream, direction from, bool open) {
  std::uint64_t id = 3;
  bool first = !open;
  while (stream.size() >= frame_bytes(0)) {
    store_le(stream.data(), frame_magic);
    stream[5] = static_cast<std::byte>(from);
    auto header_length = load_le<std::uint32_t>(stream.data() + 8);
    const std::size_t most =
        std::min<std::size_t>(stream.size() - limits::trailer_bytes, limits::header_bytes_max);
    if (header_length < limits::fixed_header_bytes || header_length > most)
      header_length = static_cast<std::uint32_t>(limits::fixed_header_bytes +
                                                 header_length % (most - limits::fixed_header_bytes + 1));
    store_le(stream.data() + 8, header_length);
    auto payload_length = load_le<std::uint64_t>(stream.data() + 16);
    const std::size_t rest = stream.size() - header_length - limits::trailer_bytes;
    if (payload_length > rest)
      payload_length = rest == 0 ? 0 : payload_length % rest;
    store_le(stream.data() + 16, payload_length);
    // An id now and then stays as it is, for the path of repeated ones.
    if ((stream[24] & std::byte{7}) != std::byte{7})
      store_le(stream.data() + 24, id++);
    if (first)
      stream[6] = static_cast<std::byte>(opcode::hello);
    set_connection_tag(stream, first ? connection_tag{} : fuzz_tag());
    first = false;
    seal(stream.first(header_length + limits::trailer_bytes), now_ns, fuzz_mac());
    stream = stream.subspan(header_length + limits::trailer_bytes + payload_length);
  }
}

} // namespace memkv::wire::fuzz
