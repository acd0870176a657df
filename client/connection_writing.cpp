// The part of a connection that writes requests to the socket: what goes together, and how it looks there.
#include "client/connection.hpp"
#include "wire/frame_writer.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace memkv::client {
namespace {

using wire::bytes_view;

constexpr std::int64_t ns_per_ms = 1'000'000;
constexpr std::size_t burst_requests_max = 32;
constexpr std::uint64_t burst_payload_bytes_max = 64U << 10U;
constexpr std::size_t burst_header_bytes_max = 256U << 10U;
constexpr std::size_t send_pieces_max = 128;
// A burst that could not begin for so long is stamped anew.
constexpr std::int64_t stamp_ns_max = 2'000'000'000;
// The server is given a little less time than we have, so that its answer arrives before we give up.
constexpr std::int64_t deadline_margin_ms_max = 50;

[[nodiscard]] wire::opcode opcode_of(request_kind kind) noexcept {
  switch (kind) {
  case request_kind::put:
    return wire::opcode::tcp_put;
  case request_kind::get:
    return wire::opcode::tcp_get;
  case request_kind::remove:
    return wire::opcode::tcp_delete;
  case request_kind::exists:
    return wire::opcode::exists;
  case request_kind::lookup:
    return wire::opcode::lookup;
  case request_kind::stat:
    return wire::opcode::stat;
  case request_kind::ping:
    return wire::opcode::ping;
  case request_kind::batch_put:
    return wire::opcode::tcp_batch_put;
  case request_kind::batch_get:
    return wire::opcode::tcp_batch_get;
  case request_kind::batch_remove:
    return wire::opcode::tcp_batch_delete;
  case request_kind::batch_exists:
    return wire::opcode::batch_exists;
  case request_kind::prefix:
    return wire::opcode::prefix;
  case request_kind::batch_write:
    return wire::opcode::batch_write;
  case request_kind::batch_read:
    return wire::opcode::batch_read;
  case request_kind::attach:
    return wire::opcode::tcp_attach;
  case request_kind::detach:
    return wire::opcode::tcp_detach;
  case request_kind::connect:
    return wire::opcode::connect;
  }
  return wire::opcode::ping;
}

} // namespace

std::uint64_t connection::payload_bytes(const request& wanted) const noexcept {
  std::uint64_t total = 0;
  if (wanted.kind == request_kind::put || wanted.kind == request_kind::batch_put) {
    for (const std::uint32_t item : wanted.items) {
      total += wanted.owner->puts[item].value.size();
    }
  }
  return total;
}

void connection::write_requests(std::int64_t now_ns) {
  wants_write_ = false;
  std::uint64_t written_in_turn = 0;
  while (true) {
    if (burst_.is_stale(now_ns, stamp_ns_max)) {
      put_burst_back();
    }
    if (burst_.empty()) {
      if (backlog_.empty() || open_.size() >= in_flight_max_) {
        return;
      }
      build_burst(now_ns);
      if (burst_.empty()) {
        return; // nothing that can be sent now
      }
    }
    if (written_in_turn >= turn_bytes_max) {
      wants_write_ = true;
      return;
    }
    std::array<iovec, send_pieces_max> pieces{};
    const burst::gathered asked = burst_.gather(pieces);
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = asked.pieces;
    const ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (would_block(errno)) {
        wants_write_ = true;
        return;
      }
      ++shared_.counted.connections_lost;
      lose(errc::connection_lost);
      return;
    }
    last_io_ns_ = now_ns;
    shared_.counted.bytes_sent.fetch_add(static_cast<std::uint64_t>(sent), std::memory_order_relaxed);
    written_in_turn += static_cast<std::uint64_t>(sent);
    burst_.advance(static_cast<std::uint64_t>(sent));
    if (static_cast<std::uint64_t>(sent) < asked.bytes) {
      wants_write_ = true;
      return;
    }
  }
}

void connection::build_burst(std::int64_t now_ns) {
  burst_.begin(now_ns);
  std::vector<bytes_view> payload;
  while (burst_.frames().size() < burst_requests_max && open_.size() < in_flight_max_) {
    const auto place = find_sendable();
    if (place == backlog_.end()) {
      break;
    }
    request& next = **place;
    const std::uint64_t bytes = payload_bytes(next);
    if (!burst_.empty() && (burst_.payload_bytes() + bytes > burst_payload_bytes_max ||
                            burst_.headers().size() > burst_header_bytes_max)) {
      break;
    }
    backlog_.erase(place);
    if (next.kind == request_kind::put || next.kind == request_kind::batch_put) {
      // The limits of this server may be known only since its Hello.
      const bool fits = next.kind == request_kind::put
                            ? bytes <= server_.value_bytes_max.load()
                            : next.items.size() <= server_.batch_items_max.load() &&
                                  bytes <= server_.batch_payload_bytes_max.load();
      if (!fits) {
        next.owner->fail(next, errc::too_large);
        complete(next);
        continue;
      }
    }
    payload.clear();
    encode(next, now_ns, socket_carrier(), payload);
    burst_.add(next, payload);
    open_.push_back(&next);
  }
  burst_.seal(wall_ns(), shared_.frame_mac);
}

void connection::put_burst_back() {
  for (auto frame = burst_.frames().rbegin(); frame != burst_.frames().rend(); ++frame) {
    const auto place = std::find(open_.begin(), open_.end(), frame->owner);
    if (place != open_.end()) {
      open_.erase(place);
      backlog_.push_front(frame->owner);
    }
  }
  burst_.clear();
}

void connection::encode(request& wanted, std::int64_t now_ns, const carrier& by,
                        std::vector<bytes_view>& payload) {
  wanted.open = {.request_id = by.request_id, .opcode = opcode_of(wanted.kind)};
  wire::frame_header header;
  header.opcode = wanted.open.opcode;
  header.request_id = wanted.open.request_id;
  const std::int64_t left_ms = (wanted.deadline_ns - now_ns) / ns_per_ms;
  header.deadline_ms = static_cast<std::uint32_t>(
      std::max<std::int64_t>(1, left_ms - std::min(left_ms / 8, deadline_margin_ms_max)));
  header.tag = by.tag;
  header.ns = shared_.ns;
  header.kind = digest_kind_;
  const auto add_frame = [&](const auto& body) {
    [[maybe_unused]] const std::size_t begin = wire::append_frame(by.frames, header, body);
  };
  if (wanted.kind == request_kind::ping || wanted.kind == request_kind::stat) {
    add_frame(wire::empty_message{});
    return;
  }
  if (wanted.uses_rdma() || wanted.kind == request_kind::attach || wanted.kind == request_kind::detach ||
      wanted.kind == request_kind::connect) {
    encode_rdma(wanted, header, by);
    return;
  }
  const operation& owner = *wanted.owner;
  const auto key_of = [&](std::uint32_t item) { return wire::as_bytes_view(owner.key_of(item)); };
  const auto digest_of = [&](bytes_view value, std::uint32_t index) {
    if (digest_kind_ == wire::digest_kind::crc32c && !value.empty()) {
      // Its front is sent next.
      return wire::crc32c_digest(wire::crc32c_from_behind(value));
    }
    send_digest_->begin(digest_kind_, wire::direction::request, header.request_id, 0, index);
    send_digest_->update(value);
    return send_digest_->finish();
  };
  const auto get_request_of = [&](std::uint32_t item) {
    const get_item& get = owner.gets[item];
    return wire::get_request{get.range_offset, get.range_length, capacity_of(get), key_of(item)};
  };
  const auto add_payload = [&](bytes_view value) {
    if (!value.empty()) {
      payload.push_back(value);
    }
  };
  switch (wanted.kind) {
  case request_kind::put: {
    const put_item& put = owner.puts[wanted.items.front()];
    header.flags = put.if_absent ? wire::flags::if_absent : 0;
    header.payload_length = put.value.size();
    header.digest = digest_of(put.value, 0);
    add_frame(wire::key_request{wire::as_bytes_view(put.key)});
    add_payload(put.value);
    break;
  }
  case request_kind::get:
    add_frame(get_request_of(wanted.items.front()));
    break;
  case request_kind::remove:
  case request_kind::exists:
  case request_kind::lookup:
    add_frame(wire::key_request{key_of(wanted.items.front())});
    break;
  case request_kind::batch_put: {
    std::vector<wire::batch_put_item> items;
    items.reserve(wanted.items.size());
    for (const std::uint32_t item : wanted.items) {
      const put_item& put = owner.puts[item];
      items.push_back({put.if_absent, static_cast<std::uint32_t>(put.value.size()),
                       digest_of(put.value, static_cast<std::uint32_t>(items.size())),
                       wire::as_bytes_view(put.key)});
      header.payload_length += put.value.size();
      add_payload(put.value);
    }
    add_frame(wire::batch_request<wire::batch_put_item>{items});
    break;
  }
  case request_kind::batch_get: {
    std::vector<wire::get_request> items;
    items.reserve(wanted.items.size());
    for (const std::uint32_t item : wanted.items) {
      items.push_back(get_request_of(item));
    }
    wanted.received.assign(wanted.items.size(), 0);
    add_frame(wire::batch_request<wire::get_request>{items});
    break;
  }
  case request_kind::batch_remove:
  case request_kind::batch_exists:
  case request_kind::prefix: {
    std::vector<wire::batch_key> items;
    items.reserve(wanted.items.size());
    for (const std::uint32_t item : wanted.items) {
      items.push_back({key_of(item)});
    }
    add_frame(wire::batch_request<wire::batch_key>{items});
    break;
  }
  case request_kind::ping:
  case request_kind::stat:
  case request_kind::batch_write:
  case request_kind::batch_read:
  case request_kind::attach:
  case request_kind::detach:
  case request_kind::connect:
    break;
  }
}

} // namespace memkv::client
