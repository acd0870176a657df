#include "actors/queries.hpp"

#include "actors/block_head.hpp"
#include "actors/reactor.hpp"
#include "actors/tcp_connection.hpp"
#include "wire/assert.hpp"
#include "wire/messages.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace memkv::actors {

using wire::digest_kind;
using wire::frame_header;
using wire::opcode;
using wire::status;

namespace {

// --- what is answered at once ---

/// Whether a block is there with all its parts, from the indexes alone; its length and generation.
bool present(reactor& owner, std::string_view name_space, wire::bytes_view key, std::uint32_t& length,
             std::uint64_t& generation, bool touch) {
  const auto id = wire::make_key_id(name_space, key);
  auto& drives = owner.drives();
  const auto& seat = drives.at(drives.home(id));
  if (seat.body == nullptr || !seat.body->store->index().contains(id, length, generation, touch))
    return false;
  if (length <= owner.extent_bytes_max())
    return true;
  const auto head = find_head(drives, id, owner.extent_bytes_max());
  if (!head.pin || !head.whole)
    return false;
  length = head.pin->value_length;
  generation = head.pin->generation;
  return true;
}

template <class Body>
void answer(tcp_connection& connection, const frame_header& header, const Body& body,
            request_clock clock = {}) {
  outgoing out;
  out.clock = clock;
  wire::append_frame(out.frame, header, body);
  connection.queue(std::move(out));
}

/// A query is over at once, but for the sending.
request_clock clock_of(request_kind what, const reactor& owner) {
  return request_clock(what, owner.now_ns()).hand_over(owner.now_ns());
}

void answer_exists(tcp_connection& connection, reactor& owner, const frame_header& header,
                   wire::bytes_view variable) {
  const auto clock = clock_of(request_kind::exists, owner);
  wire::key_request message;
  auto code = wire::key_request::decode(variable, message);
  std::uint32_t length = 0;
  std::uint64_t generation = 0;
  owner.counters().exists_keys.add();
  if (code == status::ok && !present(owner, header.ns.text(), message.key, length, generation, true))
    code = status::not_found;
  auto reply = wire::reply_header(header, connection.tag(), code);
  if (code != status::ok) {
    answer(connection, reply, wire::empty_message{}, clock);
    return;
  }
  reply.value_length = length;
  answer(connection, reply, wire::generation_reply{generation}, clock);
}

void answer_batch_exists(tcp_connection& connection, reactor& owner, const frame_header& header,
                         wire::bytes_view variable) {
  const auto clock = clock_of(request_kind::batch_exists, owner);
  wire::batch_keys_view keys;
  const auto code = wire::batch_keys_view::decode(variable, keys);
  const auto reply = wire::reply_header(header, connection.tag(), code);
  if (code != status::ok) {
    answer(connection, reply, wire::empty_message{}, clock);
    return;
  }
  std::vector<wire::batch_exists_result> results;
  results.reserve(keys.size());
  for (const auto& each : keys) {
    std::uint32_t length = 0;
    std::uint64_t generation = 0;
    const bool there = present(owner, header.ns.text(), each.key, length, generation, true);
    results.push_back({there ? status::ok : status::not_found, there ? length : 0});
  }
  owner.counters().exists_keys.add(keys.size());
  answer(connection, reply, wire::batch_exists_reply{results}, clock);
}

void answer_prefix(tcp_connection& connection, reactor& owner, const frame_header& header,
                   wire::bytes_view variable) {
  const auto clock = clock_of(request_kind::prefix, owner);
  wire::batch_keys_view keys;
  const auto code = wire::batch_keys_view::decode(variable, keys);
  const auto reply = wire::reply_header(header, connection.tag(), code);
  if (code != status::ok) {
    answer(connection, reply, wire::empty_message{}, clock);
    return;
  }
  std::vector<std::uint64_t> lengths;
  for (const auto& each : keys) {
    std::uint32_t length = 0;
    std::uint64_t generation = 0;
    if (!present(owner, header.ns.text(), each.key, length, generation, true))
      break;
    lengths.push_back(length);
  }
  owner.counters().prefixes.add();
  answer(connection, reply, wire::prefix_reply{lengths}, clock);
}

} // namespace

bool answer_query(tcp_connection& connection, reactor& owner, const frame_header& header,
                  wire::bytes_view variable) {
  switch (header.opcode) {
  case opcode::exists:
    answer_exists(connection, owner, header, variable);
    return true;
  case opcode::batch_exists:
    answer_batch_exists(connection, owner, header, variable);
    return true;
  case opcode::prefix:
    answer_prefix(connection, owner, header, variable);
    return true;
  case opcode::ping:
  case opcode::stat: {
    const auto code = variable.empty() ? status::ok : status::bad_request;
    const auto reply = wire::reply_header(header, connection.tag(), code);
    if (code == status::ok && header.opcode == opcode::stat)
      answer(connection, reply, owner.stat());
    else
      answer(connection, reply, wire::empty_message{});
    return true;
  }
  default:
    return false;
  }
}

} // namespace memkv::actors
