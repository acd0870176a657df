#include "client/connection.hpp"

#include "wire/hello.hpp"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

namespace memkv::client {
namespace {

using wire::bytes_view;
namespace limits = wire::limits;

constexpr std::int64_t never_ns = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t ns_per_ms = 1'000'000;

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
// After so much has been received or written in one go, the other direction and the deadlines have their
// turn.
constexpr std::uint64_t turn_bytes_max = 8U << 20U;

constexpr std::size_t burst_requests_max = 32;
constexpr std::uint64_t burst_payload_bytes_max = 64U << 10U;
constexpr std::size_t burst_header_bytes_max = 256U << 10U;
constexpr std::size_t send_pieces_max = 128;
// A burst that could not begin for so long is stamped anew.
constexpr std::int64_t stamp_ns_max = 2'000'000'000;
// So often a name that is being looked up is looked for.
constexpr std::int64_t name_check_ns = 2'000'000;
// A connection that was idle for longer may have been closed by the server meanwhile.
constexpr std::int64_t idle_check_ns = 10'000'000;
// The server is given a little less time than we have, so that its answer arrives before we give up.
constexpr std::int64_t deadline_margin_ms_max = 50;

[[nodiscard]] bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

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

/// What a get's target can take: an empty one stands for the one byte that tells "something" from "nothing".
[[nodiscard]] std::uint64_t capacity_of(const get_item& item) noexcept {
  return std::max<std::uint64_t>(item.target.size(), 1);
}

[[nodiscard]] errc code_of(wire::status status) noexcept {
  return from_wire(static_cast<std::uint8_t>(status));
}

} // namespace

connection::connection(shared_state& shared, server& peer, std::uint32_t number) noexcept
    : shared_(shared), server_(peer),
      rail_(shared.rdma == nullptr || shared.rdma->devices().empty()
                ? 0
                : number % static_cast<std::uint32_t>(shared.rdma->devices().size())) {}

connection::~connection() {
  close_socket();
}

// ---- any thread ----

bool connection::enqueue(request& wanted, const waiter* here) {
  std::shared_ptr<waiter> driver;
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= requests_queued_max) {
      return false;
    }
    queue_.push_back(&wanted);
    ++queued_;
    ++outstanding_;
    if (driver_ && driver_.get() != here) {
      driver = driver_;
    }
  }
  if (driver) {
    driver->notify();
  }
  return true;
}

bool connection::drive_if_free(const std::shared_ptr<waiter>& self) {
  // Nobody but this thread makes itself the driver, or ceases to be it.
  if (self_.load(std::memory_order_relaxed) == self.get()) {
    return true;
  }
  const std::lock_guard lock(mutex_);
  return take_over(self);
}

bool connection::try_drive(const std::shared_ptr<waiter>& self) {
  if (self_.load(std::memory_order_relaxed) == self.get()) {
    return true;
  }
  const std::lock_guard lock(mutex_);
  if (take_over(self)) {
    return true;
  }
  if (std::find(waiting_.begin(), waiting_.end(), self) == waiting_.end()) {
    waiting_.push_back(self);
    ++waiting_count_;
  }
  return false;
}

bool connection::take_over(const std::shared_ptr<waiter>& self) {
  if (driver_) {
    return driver_ == self;
  }
  driver_ = self;
  driven_ = true;
  self_ = self.get();
  if (const auto place = std::find(waiting_.begin(), waiting_.end(), self); place != waiting_.end()) {
    waiting_.erase(place);
    --waiting_count_;
  }
  return true;
}

bool connection::leave(const waiter* self) {
  std::shared_ptr<waiter> next;
  {
    const std::lock_guard lock(mutex_);
    const auto place =
        std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& one) { return one.get() == self; });
    if (place != waiting_.end()) {
      waiting_.erase(place);
      --waiting_count_;
    }
    if (driver_.get() == self) {
      self_ = nullptr;
      driver_.reset();
      driven_ = false;
    }
    if (driver_ || outstanding_.load() == 0) {
      return false;
    }
    if (waiting_.empty()) {
      return true;
    }
    next = waiting_.front();
  }
  next->notify();
  return false;
}

void connection::poke() {
  const std::lock_guard lock(mutex_);
  if (driver_) {
    driver_->notify();
  }
}

// ---- the driver: life of the connection ----

void connection::take_queue() {
  if (queued_.load() == 0) {
    return;
  }
  const std::lock_guard lock(mutex_);
  for (request* const taken : queue_) {
    (travels_as_message(*taken) ? messages_.backlog : backlog_).push_back(taken);
    next_deadline_ns_ =
        next_deadline_ns_ == 0 ? taken->deadline_ns : std::min(next_deadline_ns_, taken->deadline_ns);
  }
  queue_.clear();
  queued_ = 0;
}

void connection::pump(std::span<const pollfd> ready) {
  const std::int64_t now_ns = turn_ns_ = steady_ns();
  const short revents = ready.empty() ? short{0} : ready[0].revents;
  take_queue();
  leave_rdma();
  if (pause_over_ns_ != 0 && now_ns >= pause_over_ns_) {
    end_pauses(now_ns);
  }
  if (next_deadline_ns_ != 0 && now_ns >= next_deadline_ns_) {
    watch_deadlines(now_ns);
  }
  if (state_ == state::ready && (revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
    read_replies();
  }
  if (state_ == state::resolving) {
    look_up(now_ns);
  } else if (state_ == state::connecting || state_ == state::greeting) {
    finish_connecting(revents, now_ns);
  }
  if (messages_.state == session_state::ready) {
    read_messages(!ready.empty() && ready[1].revents != 0);
    if (now_ns >= ping_due_ns()) {
      ping_by_message(now_ns);
    }
  }
  if (backlog_.empty() && burst_frames_.empty() && messages_.backlog.empty()) {
    return;
  }
  if (state_ == state::ready && open_.empty() && messages_.open.empty() && was_closed_while_idle(now_ns)) {
    ++shared_.counted.connections_lost;
    close_socket();
  }
  if (state_ == state::closed) {
    open(now_ns);
  }
  if (state_ == state::ready) {
    write_messages(now_ns);
    write_requests(now_ns);
  }
}

void connection::wanted(polled out) const noexcept {
  out[0] = {fd_, POLLIN, 0};
  if (state_ == state::connecting || wants_write_) {
    out[0].events |= POLLOUT;
  }
  out[1] = {awaits_message() ? messages_.pair->descriptor() : -1, POLLIN, 0};
}

std::int64_t connection::wake_ns() const noexcept {
  // A connection that was lost while it was written to has requests to try again on a new one.
  if (queued_.load() != 0 || (state_ == state::closed && !(backlog_.empty() && messages_.backlog.empty()))) {
    return 0;
  }
  std::int64_t wake = never_ns;
  if (next_deadline_ns_ != 0 && outstanding_.load() != 0) {
    wake = next_deadline_ns_; // perhaps of a request that is complete by now: then pump() only finds the next
                              // one
  }
  if (state_ == state::connecting || state_ == state::greeting) {
    wake = std::min(wake, opening_until_ns_);
  }
  if (state_ == state::resolving) {
    wake = std::min(wake, steady_ns() + name_check_ns);
  }
  if (pause_over_ns_ != 0) {
    wake = std::min(wake, pause_over_ns_);
  }
  return std::min(wake, ping_due_ns());
}

void connection::watch_deadlines(std::int64_t now_ns) {
  watch_message_deadlines(now_ns);
  bool late_on_its_way = false;
  for (const request* const one : open_) {
    late_on_its_way = late_on_its_way || one->deadline_ns <= now_ns;
  }
  if (late_on_its_way) {
    // What was written may still be carried out or answered; only the end of the connection makes an end of
    // that.
    ++shared_.counted.connections_closed_by_deadline;
    end_session(false);
    for (std::size_t i = 0; i < open_.size();) {
      request& one = *open_[i];
      if (one.deadline_ns > now_ns) {
        ++i;
        continue;
      }
      if (one.owner != nullptr) {
        one.owner->fail(one, errc::deadline_exceeded);
      }
      if (one.uses_rdma()) {
        shared_.rdma->note_deadline();
      } else if (one.kind == request_kind::attach) {
        fail_rdma("no answer to the request for a session");
      } else if (one.kind == request_kind::connect) {
        fail_messages("no answer to the request for a queue pair");
      }
      complete(one);
    }
    lose(errc::connection_lost);
  }
  for (auto place = backlog_.begin(); place != backlog_.end();) {
    request& one = **place;
    if (one.deadline_ns > now_ns) {
      ++place;
      continue;
    }
    place = backlog_.erase(place);
    if (one.owner != nullptr) {
      one.owner->fail(one, errc::deadline_exceeded);
    } else if (one.kind == request_kind::attach && session_state_ == session_state::attaching &&
               one.session_id == session_.id) {
      // It never went out, behind a long payload. What waits for the session asks for another one.
      end_session(false);
    } else if (one.kind == request_kind::connect && one.session_id == messages_.session.id) {
      end_messages(false); // likewise
    }
    complete(one);
  }
  next_deadline_ns_ = 0;
  const auto note = [&](const request* one) {
    next_deadline_ns_ =
        next_deadline_ns_ == 0 ? one->deadline_ns : std::min(next_deadline_ns_, one->deadline_ns);
  };
  std::for_each(open_.begin(), open_.end(), note);
  std::for_each(backlog_.begin(), backlog_.end(), note);
  for (const request* const one : messages_.open) {
    if (one->owner != nullptr) { // a Ping has no end of its own
      note(one);
    }
  }
  std::for_each(messages_.backlog.begin(), messages_.backlog.end(), note);
}

void connection::open(std::int64_t now_ns) {
  if (now_ns < server_.down_until_ns.load()) {
    fail_to_open(errc::ok, now_ns);
    return;
  }
  opening_until_ns_ = now_ns + std::int64_t{shared_.chosen.connect_timeout_ms} * ns_per_ms;
  state_ = state::resolving;
  look_up(now_ns);
}

void connection::look_up(std::int64_t now_ns) {
  // A name that takes long is left half of the time: then what it stood for last is tried.
  const std::int64_t half_ns = std::int64_t{shared_.chosen.connect_timeout_ms} * ns_per_ms / 2;
  if (!server_.lookup.find(addresses_) && now_ns < opening_until_ns_ - half_ns) {
    return;
  }
  // It may have been a while since somebody looked.
  opening_until_ns_ = std::max(opening_until_ns_, now_ns + half_ns);
  state_ = state::closed;
  next_address_ = 0;
  try_next_address(now_ns);
}

void connection::try_next_address(std::int64_t now_ns) {
  while (next_address_ < addresses_.size()) {
    const socket_address& address = addresses_[next_address_++];
    fd_ = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) {
      continue;
    }
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // What waits to be sent should still be in the processor's cache when it is. The receive buffer is left
    // to the kernel, which sizes it to what is taken from it (docs/performance.md).
    if (shared_.chosen.socket_buffer_kb != 0) {
      const int bytes = static_cast<int>(shared_.chosen.socket_buffer_kb * 1024);
      ::setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    bool bound = true;
    if (!shared_.bind_to.empty()) {
      const socket_address* const local = shared_.next_local(address.storage.ss_family);
      bound = local != nullptr &&
              ::bind(fd_, reinterpret_cast<const sockaddr*>(&local->storage), local->length) == 0;
    }
    if (bound) {
      if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0) {
        send_hello(now_ns);
        return;
      }
      if (errno == EINPROGRESS) {
        state_ = state::connecting;
        return;
      }
    }
    ::close(fd_);
    fd_ = -1;
  }
  fail_to_open(errc::server_down, now_ns);
}

void connection::finish_connecting(short revents, std::int64_t now_ns) {
  if (state_ == state::connecting && (revents & (POLLOUT | POLLERR | POLLHUP)) != 0) {
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
      ::close(fd_);
      fd_ = -1;
      try_next_address(now_ns);
    } else {
      send_hello(now_ns);
    }
  } else if (state_ == state::greeting && (revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
    read_replies();
  }
  if ((state_ == state::connecting || state_ == state::greeting) && now_ns >= opening_until_ns_) {
    // A Hello of another key is answered by the end of the connection; one of another time by nothing, and so
    // is one that a busy server has not come to yet.
    fail_to_open(state_ == state::greeting ? errc::no_greeting : errc::server_down, now_ns);
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
  state_ = state::closed;
  wants_write_ = false;
  reader_.reset();
  send_digest_.reset();
  receive_digest_.reset();
  buffer_begin_ = 0;
  buffer_end_ = 0;
  receiving_ = nullptr;
  payload_left_ = 0;
  segments_.clear();
}

void connection::lose(errc code) {
  if (state_ == state::closed) {
    return;
  }
  close_socket();
  // Frames of the burst that no byte was written of never reached the server: they wait for the next
  // connection.
  std::vector<request*> unwritten;
  for (const burst_frame& frame : burst_frames_) {
    if (!frame.started && std::find(open_.begin(), open_.end(), frame.owner) != open_.end()) {
      unwritten.push_back(frame.owner);
    }
  }
  burst_frames_.clear();
  burst_pieces_.clear();
  std::vector<request*> lost;
  lost.swap(open_);
  ask_again_or_fail(std::exchange(messages_.open, {}), code);
  for (auto place = lost.rbegin(); place != lost.rend(); ++place) {
    request& one = **place;
    if (one.owner == nullptr) {
      complete(one);
      continue;
    }
    const bool written = std::find(unwritten.begin(), unwritten.end(), &one) == unwritten.end();
    if (written && (one.mutates() || one.attempts >= attempts_max)) {
      one.owner->fail(one, code);
      complete(one);
      continue;
    }
    if (written) {
      ++shared_.counted.requests_retried;
    }
    one.start_over();
    backlog_.push_front(&one);
  }
}

void connection::shut(errc code) {
  take_queue();
  say_detach();
  close_socket();
  burst_frames_.clear();
  burst_pieces_.clear();
  std::vector<request*> ended;
  ended.swap(open_);
  ended.insert(ended.end(), backlog_.begin(), backlog_.end());
  ended.insert(ended.end(), messages_.open.begin(), messages_.open.end());
  ended.insert(ended.end(), messages_.backlog.begin(), messages_.backlog.end());
  ended.insert(ended.end(), pausing_.begin(), pausing_.end());
  backlog_.clear();
  messages_.open.clear();
  messages_.backlog.clear();
  pausing_.clear();
  pause_over_ns_ = 0;
  for (request* const one : ended) {
    if (one->owner != nullptr) {
      one->owner->fail(*one, code);
    }
    complete(*one);
  }
}

void connection::keep_alive() {
  const std::int64_t now_ns = steady_ns();
  leave_rdma();
  if (!backlog_.empty() || !messages_.backlog.empty()) {
    pump({});
  }
  if (state_ != state::ready || outstanding_.load() != 0 ||
      now_ns - last_io_ns_ < std::int64_t{idle_timeout_ms_} * ns_per_ms / 3) {
    return;
  }
  auto* const ping = new request;
  ping->deadline_ns = now_ns + ping_deadline_ns;
  if (!enqueue(*ping, self_.load())) {
    delete ping;
    return;
  }
  pump({});
}

request* connection::find_open(std::uint64_t id) const noexcept {
  for (request* const one : open_) {
    if (one->open.request_id == id) {
      return one;
    }
  }
  return nullptr;
}

void connection::let_go(request& done) {
  std::erase(open_, &done);
  std::erase(messages_.open, &done);
  if (receiving_ == &done) {
    receiving_ = nullptr;
  }
  if (done.staged) {
    // Answered, or the session is gone: nobody touches it any more.
    if (done.run.slots != 0) {
      shared_.rdma->staging()->release(std::exchange(done.run, {}));
    } else {
      shared_.rdma->staging()->forget(done);
    }
  }
}

void connection::complete(request& done) {
  let_go(done);
  --outstanding_;
  if (done.owner == nullptr) {
    delete &done;
  } else {
    done.owner->complete_one(self_.load(std::memory_order_relaxed));
  }
}

// ---- the driver: writing ----

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
    if (!burst_frames_.empty() && burst_written_ == 0 && now_ns - burst_sealed_ns_ > stamp_ns_max) {
      put_burst_back();
    }
    if (burst_frames_.empty()) {
      if (backlog_.empty() || open_.size() >= in_flight_max_) {
        return;
      }
      build_burst(now_ns);
      if (burst_frames_.empty()) {
        return; // nothing that can be sent now
      }
    }
    if (written_in_turn >= turn_bytes_max) {
      wants_write_ = true;
      return;
    }
    std::array<iovec, send_pieces_max> pieces{};
    std::size_t count = 0;
    std::uint64_t asked = 0;
    for (std::size_t i = burst_piece_; i < burst_pieces_.size() && count < pieces.size(); ++i) {
      const burst_piece& piece = burst_pieces_[i];
      const std::size_t offset = i == burst_piece_ ? burst_piece_offset_ : 0;
      const std::byte* const bytes =
          piece.payload != nullptr ? piece.payload : burst_headers_.data() + piece.header_offset;
      pieces[count++] = {const_cast<std::byte*>(bytes + offset), piece.length - offset};
      asked += piece.length - offset;
    }
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = count;
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
    burst_written_ += static_cast<std::uint64_t>(sent);
    shared_.counted.bytes_sent.fetch_add(static_cast<std::uint64_t>(sent), std::memory_order_relaxed);
    written_in_turn += static_cast<std::uint64_t>(sent);
    for (burst_frame& frame : burst_frames_) {
      if (!frame.started && frame.begin < burst_written_) {
        frame.started = true;
        ++frame.owner->attempts;
      }
    }
    auto left = static_cast<std::uint64_t>(sent);
    while (left > 0) {
      const std::uint64_t rest = burst_pieces_[burst_piece_].length - burst_piece_offset_;
      if (left < rest) {
        burst_piece_offset_ += left;
        break;
      }
      left -= rest;
      ++burst_piece_;
      burst_piece_offset_ = 0;
    }
    if (burst_piece_ == burst_pieces_.size()) {
      burst_frames_.clear();
      burst_pieces_.clear();
    } else if (static_cast<std::uint64_t>(sent) < asked) {
      wants_write_ = true;
      return;
    }
  }
}

void connection::build_burst(std::int64_t now_ns) {
  burst_headers_.clear();
  burst_pieces_.clear();
  burst_frames_.clear();
  burst_piece_ = 0;
  burst_piece_offset_ = 0;
  burst_written_ = 0;
  burst_sealed_ns_ = now_ns;
  std::uint64_t end = 0;
  std::uint64_t payload_total = 0;
  std::vector<burst_piece> payload;
  while (burst_frames_.size() < burst_requests_max && open_.size() < in_flight_max_) {
    const auto place = find_sendable();
    if (place == backlog_.end()) {
      break;
    }
    request& next = **place;
    const std::uint64_t bytes = payload_bytes(next);
    if (!burst_frames_.empty() &&
        (payload_total + bytes > burst_payload_bytes_max || burst_headers_.size() > burst_header_bytes_max)) {
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
    const std::size_t begin = burst_headers_.size();
    payload.clear();
    encode(next, now_ns, socket_carrier(), payload);
    burst_pieces_.push_back({nullptr, begin, burst_headers_.size() - begin});
    burst_pieces_.insert(burst_pieces_.end(), payload.begin(), payload.end());
    const std::uint64_t frame_begin = end;
    end += burst_headers_.size() - begin + bytes;
    burst_frames_.push_back({&next, frame_begin, end, false});
    open_.push_back(&next);
    payload_total += bytes;
  }
  const std::uint64_t stamp = wall_ns();
  for (const burst_piece& piece : burst_pieces_) {
    if (piece.payload == nullptr) {
      wire::seal(wire::bytes_span(burst_headers_).subspan(piece.header_offset, piece.length), stamp,
                 shared_.frame_mac);
    }
  }
}

void connection::put_burst_back() {
  for (auto frame = burst_frames_.rbegin(); frame != burst_frames_.rend(); ++frame) {
    const auto place = std::find(open_.begin(), open_.end(), frame->owner);
    if (place != open_.end()) {
      open_.erase(place);
      backlog_.push_front(frame->owner);
    }
  }
  burst_frames_.clear();
  burst_pieces_.clear();
}

void connection::encode(request& wanted, std::int64_t now_ns, const carrier& by,
                        std::vector<burst_piece>& payload) {
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
      payload.push_back({value.data(), 0, value.size()});
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

// ---- the driver: reading ----

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
  std::size_t count = 0;
  std::uint64_t asked = 0;
  if (payload_left_ > 0) {
    for (std::size_t i = segment_; i < segments_.size() && count + 1 < pieces.size(); ++i) {
      const segment& to = segments_[i];
      const std::uint64_t done = i == segment_ ? segment_done_ : 0;
      const std::uint64_t length = std::min<std::uint64_t>(to.length - done, receive_step_bytes - asked);
      if (length == 0) {
        break;
      }
      pieces[count++] = {to.target + done, static_cast<std::size_t>(length)};
      asked += length;
    }
  }
  const std::uint64_t asked_payload = asked;
  std::span<std::byte> expected;
  // The next header comes with the end of this payload.
  if (asked_payload == payload_left_) {
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
  const std::uint64_t payload = std::min(bytes, asked_payload);
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
  if (state_ != state::ready || payload_left_ != 0 || open_.size() != 1 || reader_->mid_header()) {
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
  if (payload_left_ == 0 || segment_done_ != 0 || segments_[segment_].target != bytes.data()) {
    // More than the one answer that was asked for, or no answer to it. The target may be the caller's again.
    ++shared_.counted.connections_closed_by_check;
    lose(errc::bad_reply);
    return false;
  }
  const auto payload = static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), payload_left_));
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
    if (payload_left_ > 0) {
      const segment& to = segments_[segment_];
      const std::uint64_t length =
          std::min<std::uint64_t>(buffer_end_ - buffer_begin_, to.length - segment_done_);
      std::memcpy(to.target + segment_done_, buffer_.data() + buffer_begin_,
                  static_cast<std::size_t>(length));
      buffer_begin_ += static_cast<std::size_t>(length);
      if (!advance_payload(length)) {
        return false;
      }
      continue;
    }
    const wire::reply_reader::result taken =
        reader_->consume(bytes_view(buffer_).subspan(buffer_begin_, buffer_end_ - buffer_begin_), wall_ns());
    buffer_begin_ += taken.consumed;
    if (taken.event == wire::reply_event::need_more) {
      continue;
    }
    if (taken.event == wire::reply_event::header) {
      const bool accepted = state_ == state::greeting ? accept_greeting() : accept_reply();
      if (accepted) {
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
  receive_digest_.emplace(outcome.keys.payload_key);
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
  ++outstanding_;
  next_deadline_ns_ =
      next_deadline_ns_ == 0 ? ping->deadline_ns : std::min(next_deadline_ns_, ping->deadline_ns);
  return true;
}

bool connection::accept_reply() {
  const wire::frame_header& header = reader_->header();
  request* const found = find_open(header.request_id);
  if (found == nullptr || found->open.accept(header) != wire::refusal::none) {
    return false;
  }
  // An answer to a request that has not been written completely can only be an error that ends it, and then
  // the rest of the frame must still be sent; no server does this, so it counts as a failed check.
  if (!burst_frames_.empty()) {
    for (const burst_frame& frame : burst_frames_) {
      if (frame.owner == found && frame.end > burst_written_) {
        return false;
      }
    }
  }
  if (found->kind == request_kind::attach || found->kind == request_kind::connect) {
    found->kind == request_kind::attach ? accept_attach(*found) : accept_connect(*found);
    return true;
  }
  if (header.status() != wire::status::ok) {
    accept_refusal(*found, header);
    return true;
  }
  switch (found->kind) {
  case request_kind::get:
    return accept_single_get(*found);
  case request_kind::batch_get:
    return accept_batch_get(*found);
  case request_kind::batch_write:
    return accept_batch_write(*found, header, reader_->variable_part());
  case request_kind::batch_read:
    return accept_batch_read(*found, header, reader_->variable_part());
  default:
    return accept_results(*found, header, reader_->variable_part());
  }
}

void connection::accept_refusal(request& wanted, const wire::frame_header& header) {
  const errc code = code_of(header.status());
  if (wanted.uses_rdma()) {
    refuse_rdma(wanted, code);
    return;
  }
  if (wanted.owner != nullptr) {
    for (const std::uint32_t item : wanted.items) {
      item_result& result = wanted.owner->results[item];
      if (result.code == errc::pending && (code == errc::out_of_range || code == errc::buffer_too_small)) {
        result.value_length = header.value_length;
      }
    }
    wanted.owner->fail(wanted, code);
  }
  finish(wanted);
}

bool connection::accept_single_get(request& wanted) {
  const wire::frame_header& header = reader_->header();
  const std::uint32_t item_number = wanted.items.front();
  const get_item& item = wanted.owner->gets[item_number];
  wire::generation_reply body;
  if (wire::generation_reply::decode(reader_->variable_part(), body) != wire::status::ok) {
    return false;
  }
  if (header.part_number == 0) {
    wanted.value_length = header.value_length;
    wanted.generation = body.generation;
  }
  if (header.value_length != wanted.value_length || body.generation != wanted.generation ||
      header.value_length < item.range_offset ||
      wanted_bytes(item, header.value_length) > capacity_of(item) ||
      header.value_offset != item.range_offset + wanted.received_bytes ||
      header.payload_length > wanted_bytes(item, header.value_length) - wanted.received_bytes) {
    return false;
  }
  if (!header.last() && header.payload_length == 0) {
    return false;
  }
  receiving_ = &wanted;
  receiving_header_ = header;
  segments_.clear();
  segment_ = 0;
  payload_left_ = header.payload_length;
  if (payload_left_ == 0) {
    return end_frame();
  }
  std::byte* const target = item.target.empty() ? &wanted.overflow : item.target.data();
  segments_.push_back({target + wanted.received_bytes, header.payload_length, 0, header.digest, false});
  wanted.received_bytes += header.payload_length;
  begin_segment();
  return true;
}

bool connection::accept_batch_get(request& wanted) {
  const wire::frame_header& header = reader_->header();
  wire::batch_get_reply_view body;
  if (wire::batch_get_reply_view::decode(reader_->variable_part(), body) != wire::status::ok ||
      body.payload_bytes() != header.payload_length) {
    return false;
  }
  receiving_ = &wanted;
  receiving_header_ = header;
  segments_.clear();
  segment_ = 0;
  for (std::uint32_t i = 0; i < body.size(); ++i) {
    const wire::batch_slice slice = body[i];
    if (slice.item >= wanted.items.size() || wanted.received[slice.item] == request::item_done) {
      return false;
    }
    const std::uint32_t item_number = wanted.items[slice.item];
    const get_item& item = wanted.owner->gets[item_number];
    item_result& result = wanted.owner->results[item_number];
    std::uint64_t& received = wanted.received[slice.item];
    if (slice.status != wire::status::ok) {
      result.value_length = slice.value_length;
      result.length = 0;
      wanted.owner->set_result(item_number, code_of(slice.status));
      received = request::item_done;
      continue;
    }
    if (received == 0) {
      result.value_length = slice.value_length;
    }
    if (slice.value_length != result.value_length || slice.value_length < item.range_offset) {
      return false;
    }
    const std::uint64_t total = wanted_bytes(item, slice.value_length);
    if (total > capacity_of(item) || slice.value_offset != item.range_offset + received ||
        slice.length > total - received || (slice.length == 0 && !slice.last) ||
        (slice.last && received + slice.length != total)) {
      return false;
    }
    std::byte* const target = item.target.empty() ? &wanted.overflow : item.target.data();
    if (slice.length > 0) {
      segments_.push_back({target + received, slice.length, slice.item, slice.digest, slice.last});
    }
    received += slice.length;
    if (slice.last) {
      result.length = total;
      received = request::item_done;
      if (slice.length == 0) {
        result.code = errc::ok;
      } else if (item.target.empty()) {
        segments_.back().ends_item = false;
        wanted.owner->set_result(item_number, errc::buffer_too_small);
        result.length = 0;
      }
    }
  }
  payload_left_ = header.payload_length;
  if (payload_left_ == 0) {
    return end_frame();
  }
  begin_segment();
  return true;
}

void connection::begin_segment() {
  segment_done_ = 0;
  receive_digest_->begin(receiving_header_.kind, wire::direction::reply, receiving_header_.request_id,
                         receiving_header_.part_number, segments_[segment_].item_index);
}

bool connection::advance_payload(std::uint64_t length) {
  bool right = true;
  while (length > 0 && right) {
    const segment& to = segments_[segment_];
    const std::uint64_t step = std::min(length, to.length - segment_done_);
    receive_digest_->update({to.target + segment_done_, static_cast<std::size_t>(step)});
    segment_done_ += step;
    payload_left_ -= step;
    length -= step;
    if (segment_done_ < to.length) {
      break;
    }
    right = receive_digest_->matches(to.digest);
    if (right && to.ends_item) {
      receiving_->owner->results[receiving_->items[to.item_index]].code = errc::ok;
    }
    if (++segment_ < segments_.size()) {
      begin_segment();
    }
  }
  if (right && payload_left_ == 0) {
    right = end_frame();
  }
  if (!right) {
    ++shared_.counted.connections_closed_by_check;
    lose(errc::bad_reply);
  }
  return right;
}

bool connection::end_frame() {
  request& wanted = *receiving_;
  receiving_ = nullptr;
  if (!receiving_header_.last()) {
    return true;
  }
  if (wanted.kind == request_kind::get) {
    const std::uint32_t item_number = wanted.items.front();
    const get_item& item = wanted.owner->gets[item_number];
    item_result& result = wanted.owner->results[item_number];
    if (wanted.received_bytes != wanted_bytes(item, wanted.value_length)) {
      return false;
    }
    result.value_length = wanted.value_length;
    result.generation = wanted.generation;
    if (item.target.empty() && wanted.received_bytes != 0) {
      result.code = errc::buffer_too_small;
    } else {
      result.length = wanted.received_bytes;
      result.code = errc::ok;
    }
  } else {
    for (const std::uint64_t received : wanted.received) {
      if (received != request::item_done) {
        return false;
      }
    }
  }
  finish(wanted);
  return true;
}

bool connection::accept_results(request& wanted, const wire::frame_header& header, bytes_view variable) {
  if (!header.last() || header.payload_length != 0) {
    return false;
  }
  constexpr wire::status ok = wire::status::ok;
  if (wanted.owner == nullptr) {
    wire::empty_message body;
    if (wire::empty_message::decode(variable, body) != ok) {
      return false;
    }
    complete(wanted);
    return true;
  }
  const auto result_of = [&](std::size_t i) -> item_result& {
    return wanted.owner->results[wanted.items[i]];
  };
  const std::size_t count = wanted.items.size();
  switch (wanted.kind) {
  case request_kind::put: {
    wire::generation_reply body;
    if (wire::generation_reply::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).generation = body.generation;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::exists: {
    wire::generation_reply body;
    if (wire::generation_reply::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).generation = body.generation;
    result_of(0).value_length = header.value_length;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::lookup: {
    wire::lookup_reply body;
    if (wire::lookup_reply::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).generation = body.generation;
    result_of(0).crc32c = body.value_crc32c;
    result_of(0).value_length = header.value_length;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::stat: {
    wire::stat_reply body;
    if (wire::stat_reply::decode(variable, body) != ok) {
      return false;
    }
    server_stat& stat = (*wanted.owner->stats)[wanted.items.front()];
    stat.blocks = body.blocks;
    stat.used_bytes = body.used_bytes;
    stat.usable_bytes = body.usable_bytes;
    stat.uptime_ms = body.uptime_ms;
    stat.drives_online = body.drives_online;
    stat.drives_total = body.drives_total;
    result_of(0).code = errc::ok;
    break;
  }
  case request_kind::batch_put: {
    wire::batch_put_reply_view body;
    if (wire::batch_put_reply_view::decode(variable, body) != ok || body.size() != count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      result_of(i).generation = body[i].generation;
      wanted.owner->set_result(wanted.items[i], code_of(body[i].status));
    }
    break;
  }
  case request_kind::batch_remove: {
    wire::batch_delete_reply_view body;
    if (wire::batch_delete_reply_view::decode(variable, body) != ok || body.size() != count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      wanted.owner->set_result(wanted.items[i], code_of(body[i]));
    }
    break;
  }
  case request_kind::batch_exists: {
    wire::batch_exists_reply_view body;
    if (wire::batch_exists_reply_view::decode(variable, body) != ok || body.size() != count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      result_of(i).value_length = body[i].value_length;
      wanted.owner->set_result(wanted.items[i], code_of(body[i].status));
    }
    break;
  }
  case request_kind::prefix: {
    wire::prefix_reply_view body;
    if (wire::prefix_reply_view::decode(variable, body) != ok || body.matched() > count) {
      return false;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      if (i < body.matched()) {
        result_of(i).value_length = body.value_length(i);
      }
      result_of(i).code = i < body.matched() ? errc::ok : errc::not_found;
    }
    break;
  }
  default: { // remove
    wire::empty_message body;
    if (wire::empty_message::decode(variable, body) != ok) {
      return false;
    }
    result_of(0).code = errc::ok;
    break;
  }
  }
  finish(wanted);
  return true;
}

} // namespace memkv::client
