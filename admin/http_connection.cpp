#include "admin/http_connection.hpp"

#include "admin/http_answerer.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace memkv::admin {

namespace {

constexpr std::size_t discarded_bytes_max = 256 * 1024;
constexpr char tls_handshake_record = 0x16;

bool would_block(ssize_t result) noexcept {
  return result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

} // namespace

http_connection::http_connection(int socket, const actors::peer_address& peer, bool loopback,
                                 std::unique_ptr<tls_session> tls, const http_limits& limits, time_point now)
    : socket_(socket), peer_(peer), loopback_(loopback), peer_text_(actors::to_string(peer)),
      tls_(std::move(tls)), limits_(limits), accepted_(now), secure_(tls_ != nullptr) {
  enter(secure_ ? phase::shaking : phase::reading, now, secure_ ? limits.request : limits.idle);
  awaited_ = POLLIN;
}

http_connection::~http_connection() {
  close();
}

void http_connection::close() noexcept {
  if (socket_ >= 0)
    ::close(socket_);
  socket_ = -1;
  phase_ = phase::closed;
  gatherer_ = {};
  answer_ = {};
  sent_ = 0;
}

void http_connection::enter(phase next, time_point now, std::chrono::milliseconds limit) {
  phase_ = next;
  since_ = now;
  deadline_ = now + limit;
}

std::optional<http_request> http_connection::go_on(time_point now) {
  if (phase_ == phase::shaking)
    shake(now);
  if (phase_ == phase::writing)
    send(now);
  if (phase_ == phase::farewell)
    discard();
  if (phase_ == phase::reading)
    return receive(now);
  return std::nullopt;
}

void http_connection::shake(time_point now) {
  if (!known_tls_) {
    char first = 0;
    const auto count = ::recv(socket_, &first, 1, MSG_PEEK);
    if (would_block(count))
      return;
    if (count <= 0)
      return close();
    if (first != tls_handshake_record) {
      tls_.reset();
      return refuse(400, "this port speaks HTTPS: write https:// before the address", now);
    }
    known_tls_ = true;
  }
  switch (tls_->handshake()) {
  case tls_session::step::done:
    phase_ = phase::reading; // since and deadline stay: the first request counts from the accept
    return;
  case tls_session::step::wants_read:
    awaited_ = POLLIN;
    return;
  case tls_session::step::wants_write:
    awaited_ = POLLOUT;
    return;
  case tls_session::step::closed:
    malformed_ = true;
    return close();
  }
}

std::optional<http_request> http_connection::receive(time_point now) {
  std::array<char, 16 * 1024> bytes;
  while (true) {
    if (auto request = gatherer_.take()) {
      request->peer = peer_text_;
      request->loopback = loopback_;
      request->secure = secure_;
      ++requests_;
      phase_ = phase::working;
      return request;
    }
    if (gatherer_.refused()) {
      refuse(gatherer_.refused()->status, gatherer_.refused()->sentence, now);
      return std::nullopt;
    }
    const std::span<char> into{bytes.data(), std::min(bytes.size(), gatherer_.room())};
    std::size_t count = 0;
    if (tls_ != nullptr) {
      const auto step = tls_->read(into, count);
      if (step == tls_session::step::closed) {
        close();
        return std::nullopt;
      }
      if (step != tls_session::step::done) {
        awaited_ = step == tls_session::step::wants_read ? POLLIN : POLLOUT;
        return std::nullopt;
      }
    } else {
      const auto got = ::recv(socket_, into.data(), into.size(), 0);
      if (would_block(got)) {
        awaited_ = POLLIN;
        return std::nullopt;
      }
      if (got <= 0) {
        close();
        return std::nullopt;
      }
      count = static_cast<std::size_t>(got);
    }
    if (gatherer_.empty() && !(secure_ && requests_ == 0))
      enter(phase::reading, now, limits_.request);
    gatherer_.add({bytes.data(), count});
  }
}

void http_connection::refuse(int status, std::string_view sentence, time_point now) {
  malformed_ = true;
  gatherer_ = {};
  answer_ = refusal_text(status, sentence);
  sent_ = 0;
  close_after_ = true;
  enter(phase::writing, now, limits_.answer);
  send(now);
}

std::optional<http_request> http_connection::answer(std::string text, bool close, time_point now) {
  answer_ = std::move(text);
  sent_ = 0;
  close_after_ = close;
  enter(phase::writing, now, limits_.answer);
  send(now);
  return phase_ == phase::reading ? receive(now) : std::nullopt;
}

void http_connection::send(time_point now) {
  while (sent_ < answer_.size()) {
    const auto rest = std::string_view{answer_}.substr(sent_);
    std::size_t count = 0;
    if (tls_ != nullptr) {
      const auto step = tls_->write(rest, count);
      if (step == tls_session::step::closed)
        return close();
      if (step != tls_session::step::done) {
        awaited_ = step == tls_session::step::wants_read ? POLLIN : POLLOUT;
        return;
      }
    } else {
      const auto put = ::send(socket_, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (would_block(put)) {
        awaited_ = POLLOUT;
        return;
      }
      if (put < 0)
        return close();
      count = static_cast<std::size_t>(put);
    }
    sent_ += count;
  }
  answer_ = {};
  sent_ = 0;
  if (!close_after_) {
    enter(phase::reading, now, gatherer_.empty() ? limits_.idle : limits_.request);
    awaited_ = POLLIN;
    return;
  }
  if (tls_ != nullptr)
    tls_->close_notify();
  ::shutdown(socket_, SHUT_WR);
  enter(phase::farewell, now, limits_.farewell);
  awaited_ = POLLIN;
  discard();
}

// A socket that is closed while it holds bytes that were not read is reset, and the peer loses the answer.
void http_connection::discard() {
  std::array<char, 16 * 1024> bytes;
  while (discarded_ < discarded_bytes_max) {
    const auto count = ::recv(socket_, bytes.data(), bytes.size(), 0);
    if (would_block(count))
      return;
    if (count <= 0)
      break;
    discarded_ += static_cast<std::size_t>(count);
  }
  close();
}

void http_connection::expire(time_point now) {
  if (phase_ == phase::reading && !gatherer_.empty())
    refuse(408, "the request was not there in whole within 3 s", now);
  else
    close();
}

} // namespace memkv::admin
