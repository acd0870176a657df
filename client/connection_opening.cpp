// The part of a connection that opens it, with an exchange of Hellos, and ends its socket.
#include "client/connection.hpp"
#include "wire/hello.hpp"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace memkv::client {
namespace {

namespace limits = wire::limits;

constexpr std::int64_t ns_per_ms = 1'000'000;
// A connection that was idle for longer may have been closed by the server meanwhile.
constexpr std::int64_t idle_check_ns = 10'000'000;

} // namespace

void connection::open(std::int64_t now_ns) {
  if (now_ns < server_.down_until_ns.load()) {
    fail_to_open(errc::ok, now_ns);
    return;
  }
  state_ = state::dialing;
  take_socket(dialer_.begin(now_ns), now_ns);
}

void connection::take_socket(dialer::progress now, std::int64_t now_ns) {
  if (now == dialer::progress::failed) {
    fail_to_open(errc::server_down, now_ns);
  } else if (now == dialer::progress::connected) {
    fd_ = dialer_.take();
    send_hello(now_ns);
  }
}

void connection::await_greeting(short revents, std::int64_t now_ns) {
  if ((revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
    read_replies();
  }
  if (state_ == state::greeting && now_ns >= dialer_.until_ns()) {
    // A Hello of another key is answered by the end of the connection; one of another time by nothing, and so
    // is one that a busy server has not come to yet.
    fail_to_open(errc::no_greeting, now_ns);
  }
}

void connection::send_hello(std::int64_t now_ns) {
  reader_.emplace(shared_.frame_mac, shared_.headers);
  client_nonce_ = wire::random_nonce();
  last_id_ = 1;
  std::vector<std::byte> frame;
  wire::append_hello(frame, last_id_, client_nonce_);
  wire::seal(frame, wall_ns(), shared_.frame_mac);
  // A fresh socket takes these 200 bytes.
  if (::send(fd_, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) !=
      static_cast<ssize_t>(frame.size())) {
    fail_to_open(errc::server_down, now_ns);
    return;
  }
  state_ = state::greeting;
}

void connection::fail_to_open(errc reason, std::int64_t now_ns) {
  close_socket();
  if (reason != errc::ok) {
    ++shared_.counted.connections_failed;
    server_.note_failure(shared_, reason, now_ns);
  }
  const errc code = reason == errc::ok ? server_.down_reason.load() : reason;
  std::deque<request*> failed;
  failed.swap(backlog_);
  failed.insert(failed.end(), messages_.backlog.begin(), messages_.backlog.end());
  messages_.backlog.clear();
  for (request* const one : failed) {
    if (one->owner != nullptr) {
      one->owner->fail(*one, code);
    }
    complete(*one);
  }
}

bool connection::accept_greeting() {
  const wire::hello_outcome outcome = wire::read_hello_answer(
      *shared_.chosen.auth_key, reader_->header(), reader_->variable_part(), last_id_, client_nonce_);
  if (!outcome.genuine || reader_->payload_bytes() != 0) {
    return false;
  }
  const std::int64_t now_ns = steady_ns();
  if (outcome.status != wire::status::ok) {
    fail_to_open(code_of(outcome.status), now_ns);
    return false;
  }
  tag_ = outcome.keys.tag;
  reader_->set_tag(tag_);
  send_digest_.emplace(outcome.keys.payload_key);
  payload_.start(outcome.keys.payload_key);
  const bool keyed = shared_.chosen.digest == digest_choice::keyed ||
                     (outcome.reply.capabilities & wire::server_capabilities::keyed_digest_required) != 0;
  digest_kind_ = keyed ? wire::digest_kind::keyed : wire::digest_kind::crc32c;
  server_.value_bytes_max = std::min(outcome.reply.value_bytes_max, limits::value_bytes_max);
  server_.batch_items_max =
      std::clamp<std::uint32_t>(outcome.reply.batch_items_max, 1, limits::batch_items_max);
  server_.batch_payload_bytes_max =
      std::min(outcome.reply.batch_payload_bytes_max, limits::batch_payload_bytes_max);
  in_flight_max_ =
      std::clamp<std::uint32_t>(outcome.reply.frames_in_flight_max, 1, limits::frames_in_flight_max);
  server_has_rdma_ = (outcome.reply.capabilities & wire::server_capabilities::rdma) != 0;
  idle_timeout_ms_ = std::clamp<std::uint32_t>(outcome.reply.idle_timeout_ms, 3'000, limits::idle_timeout_ms);
  server_.note_success();
  ++shared_.counted.connections_opened;
  last_io_ns_ = now_ns;
  state_ = state::ready;
  // Until its first frame with the tag a connection takes small headers only: a Ping goes first.
  auto* const ping = new request;
  ping->deadline_ns = now_ns + ping_deadline_ns;
  backlog_.push_front(ping);
  queue_.count_made();
  next_deadline_ns_ =
      next_deadline_ns_ == 0 ? ping->deadline_ns : std::min(next_deadline_ns_, ping->deadline_ns);
  return true;
}

bool connection::was_closed_while_idle(std::int64_t now_ns) const noexcept {
  if (now_ns - last_io_ns_ < idle_check_ns) {
    return false;
  }
  char byte = 0;
  const ssize_t seen = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  // Nobody asked for anything, so also a byte is wrong.
  return seen >= 0 || !would_block(errno);
}

bool connection::socket_is_closed() const noexcept {
  char byte = 0;
  const ssize_t seen = ::recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return seen == 0 || (seen < 0 && !would_block(errno));
}

void connection::close_socket() noexcept {
  // Before any request is given up.
  end_session(false);
  end_messages(false);
  server_has_rdma_ = false;
  if (fd_ >= 0) {
    // What the kernel has not delivered yet is thrown away. It would go on trying for minutes: a put that was
    // given up while the network was cut would arrive long afterwards, and replace what is newer.
    int undelivered = 0;
    if (::ioctl(fd_, SIOCOUTQ, &undelivered) != 0 || undelivered > 0) {
      const linger at_once{.l_onoff = 1, .l_linger = 0};
      ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    ::close(fd_);
  }
  fd_ = -1;
  dialer_.stop();
  state_ = state::closed;
  wants_write_ = false;
  reader_.reset();
  send_digest_.reset();
  payload_.stop();
  buffer_begin_ = 0;
  buffer_end_ = 0;
  receiving_ = nullptr;
}

} // namespace memkv::client
