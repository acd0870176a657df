// The part of a connection that takes bytes from the socket: headers into a buffer, payloads where they
// belong.
#include "client/connection.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace memkv::client {
namespace {

using wire::bytes_view;
namespace limits = wire::limits;

// A recv of this size leaves its bytes in the processor's cache for the checksum that follows.
constexpr std::size_t receive_step_bytes = 256U << 10U;
// Small answers are read together; one that announces a long payload is read on its own, so that little is
// copied.
constexpr std::size_t buffer_bytes = 16U << 10U;
constexpr std::size_t buffer_bytes_before_payload = 1U << 10U;
constexpr std::size_t long_payload_bytes = 8U << 10U;
constexpr std::size_t receive_pieces_max = 64;
// What comes before the payload of an answer to a single get.
constexpr std::size_t get_header_bytes =
    limits::fixed_header_bytes + wire::generation_reply::size + limits::trailer_bytes;

} // namespace

void connection::read_replies() {
  if (buffer_.empty()) {
    buffer_.resize(buffer_bytes);
  }
  drained_ = false;
  std::uint64_t received_in_turn = 0;
  while (received_in_turn < turn_bytes_max) {
    if (drained_ || !receive()) {
      return;
    }
    received_in_turn += receive_step_bytes;
    if (!take_buffered()) {
      return;
    }
    // Nothing more can come but the end of the connection, which the next poll tells.
    if (state_ == state::ready && open_.empty()) {
      return;
    }
  }
}

bool connection::receive() {
  std::array<iovec, receive_pieces_max> pieces{};
  // One piece is left for the next header.
  const payload_receiver::gathered payload_asked =
      payload_.gather(std::span(pieces).first(pieces.size() - 1), receive_step_bytes);
  std::size_t count = payload_asked.pieces;
  std::uint64_t asked = payload_asked.bytes;
  std::span<std::byte> expected;
  // The next header comes with the end of this payload.
  if (payload_asked.bytes == payload_.bytes_left()) {
    expected = expected_payload();
    const bool long_payload_expected =
        !open_.empty() && open_.front()->kind == request_kind::get &&
        open_.front()->owner->gets[open_.front()->items.front()].target.size() > long_payload_bytes;
    const std::size_t room = !expected.empty()       ? get_header_bytes
                             : long_payload_expected ? buffer_bytes_before_payload
                                                     : buffer_bytes;
    pieces[count++] = {buffer_.data(), room};
    asked += room;
    if (!expected.empty()) {
      pieces[count++] = {expected.data(), expected.size()};
      asked += expected.size();
    }
  }
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = count;
  const ssize_t received = ::recvmsg(fd_, &message, MSG_DONTWAIT);
  if (received < 0 && would_block(errno)) {
    return false;
  }
  if (received <= 0) {
    if (state_ == state::greeting) {
      // Servers close without a byte when a frame's MAC is wrong.
      fail_to_open(errc::clock_or_key, steady_ns());
    } else {
      ++shared_.counted.connections_lost;
      lose(errc::connection_lost);
    }
    return false;
  }
  last_io_ns_ = turn_ns_;
  const auto bytes = static_cast<std::uint64_t>(received);
  drained_ = bytes < asked;
  shared_.counted.bytes_received.fetch_add(bytes, std::memory_order_relaxed);
  const std::uint64_t payload = std::min(bytes, payload_asked.bytes);
  if (payload > 0 && !advance_payload(payload)) {
    return false;
  }
  buffer_begin_ = 0;
  buffer_end_ = static_cast<std::size_t>(bytes - payload);
  if (!expected.empty() && buffer_end_ > get_header_bytes) {
    const std::size_t early = buffer_end_ - get_header_bytes;
    buffer_end_ = get_header_bytes;
    return take_early(expected.first(early));
  }
  return true;
}

std::span<std::byte> connection::expected_payload() const noexcept {
  // With one request open, nothing but its answer can come.
  if (state_ != state::ready || payload_.bytes_left() != 0 || open_.size() != 1 || reader_->mid_header()) {
    return {};
  }
  const request& only = *open_.front();
  if (only.kind != request_kind::get || only.received_bytes != 0) {
    return {};
  }
  const std::span<std::byte> target = only.owner->gets[only.items.front()].target;
  return target.size() > long_payload_bytes ? target.first(std::min(target.size(), receive_step_bytes))
                                            : std::span<std::byte>{};
}

bool connection::take_early(std::span<const std::byte> bytes) {
  if (!take_buffered()) {
    return false;
  }
  if (!payload_.is_at_begin_of(bytes.data())) {
    // More than the one answer that was asked for, or no answer to it. The target may be the caller's again.
    ++shared_.counted.connections_closed_by_check;
    lose(errc::bad_reply);
    return false;
  }
  const auto payload = static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), payload_.bytes_left()));
  // A part may be shorter than the target: the next header lies behind it. It is taken out before the answer
  // may be complete.
  const std::span<const std::byte> behind = bytes.subspan(payload);
  buffer_.resize(std::max(buffer_.size(), behind.size()));
  std::copy(behind.begin(), behind.end(), buffer_.begin());
  buffer_begin_ = 0;
  buffer_end_ = behind.size();
  return advance_payload(payload);
}

bool connection::take_buffered() {
  while (buffer_begin_ < buffer_end_) {
    const bytes_view buffered = bytes_view(buffer_).subspan(buffer_begin_, buffer_end_ - buffer_begin_);
    if (payload_.bytes_left() > 0) {
      const std::uint64_t length = payload_.copy_in(buffered);
      buffer_begin_ += static_cast<std::size_t>(length);
      if (!advance_payload(length)) {
        return false;
      }
      continue;
    }
    const wire::reply_reader::result taken = reader_->consume(buffered, wall_ns());
    buffer_begin_ += taken.consumed;
    if (taken.event == wire::reply_event::need_more) {
      continue;
    }
    if (taken.event == wire::reply_event::header) {
      const bool accepted = state_ == state::greeting ? accept_greeting() : accept_reply();
      if (accepted) {
        // It may be the last one for a while, and others need the room.
        reader_->release_header();
        continue;
      }
    }
    if (state_ == state::closed) {
      return false;
    }
    ++shared_.counted.connections_closed_by_check;
    if (state_ == state::greeting) {
      fail_to_open(taken.event == wire::reply_event::close && (reader_->reason() == wire::refusal::bad_mac ||
                                                               reader_->reason() == wire::refusal::stale_time)
                       ? errc::clock_or_key
                       : errc::bad_reply,
                   steady_ns());
    } else {
      lose(errc::bad_reply);
    }
    return false;
  }
  return true;
}

bool connection::advance_payload(std::uint64_t length) {
  if (!payload_.advance(length) || (payload_.bytes_left() == 0 && !end_frame())) {
    ++shared_.counted.connections_closed_by_check;
    lose(errc::bad_reply);
    return false;
  }
  return true;
}

} // namespace memkv::client
