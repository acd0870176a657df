#include "admin/http_client.hpp"

#include "admin/http_answer_reader.hpp"
#include "admin/resolver.hpp"
#include "wire/bytes.hpp"
#include "wire/header.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

namespace memkv::admin {

namespace {

using time_point = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

enum class phase : std::uint8_t { resolving, connecting, talking, finished };

std::string in_seconds(milliseconds time) {
  std::string text = std::to_string(time.count() / 1'000);
  if (const auto rest = time.count() % 1'000; rest != 0) {
    text += "." + std::to_string(1'000 + rest).substr(1);
    text.erase(text.find_last_not_of('0') + 1);
  }
  return text + " s";
}

std::string request_of(const http_question& question) {
  std::string text = question.method + " " + question.target +
                     " HTTP/1.1\r\nHost: " + question.server.authority() +
                     "\r\nAccept: */*\r\nConnection: close\r\n";
  if (question.method != "GET")
    text += "Content-Length: 0\r\n";
  for (const auto& [name, value] : question.headers)
    text += name + ": " + value + "\r\n";
  return text + "\r\n";
}

// What the data port answers: a frame of the wire protocol.
bool is_frame(std::string_view beginning) {
  std::array<std::byte, 4> magic{};
  wire::store_le<std::uint32_t>(magic.data(), wire::frame_magic);
  return beginning.size() >= magic.size() && std::memcmp(beginning.data(), magic.data(), magic.size()) == 0;
}

// A record of TLS: an alert or a handshake.
bool is_tls(std::string_view beginning) {
  return beginning.size() >= 2 && (beginning[0] == 0x15 || beginning[0] == 0x16) && beginning[1] == 0x03;
}

/// One question on its way.
class exchange {
public:
  exchange(const http_question& question, const http_options& options, std::shared_ptr<tls_context> tls,
           time_point deadline)
      : question_(question), options_(options), tls_(std::move(tls)), deadline_(deadline),
        reader_(options.body_bytes_max) {}
  ~exchange() { close(); }
  exchange(const exchange&) = delete;
  exchange& operator=(const exchange&) = delete;

  [[nodiscard]] phase now_in() const noexcept { return phase_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] short wanted() const noexcept {
    if (phase_ == phase::connecting)
      return POLLOUT;
    return static_cast<short>(outgoing_.size() > sent_ ? POLLIN | POLLOUT : POLLIN);
  }
  /// When to give up on what is being tried now.
  [[nodiscard]] time_point patience() const noexcept {
    return phase_ == phase::connecting ? attempt_ends_ : deadline_;
  }
  /// Of the answer, as far as it came.
  [[nodiscard]] std::size_t held_bytes() const noexcept {
    return reader_.body().size() + answer_.body.size();
  }
  [[nodiscard]] server_answer take() { return std::move(answer_); }

  void resolved(resolved_name name) {
    if (phase_ != phase::resolving)
      return;
    if (!name.problem.empty())
      return fail(std::move(name.problem));
    addresses_ = std::move(name.addresses);
    connect_next("no address");
  }

  void ready() {
    if (phase_ == phase::connecting)
      connected();
    else if (phase_ == phase::talking)
      talk();
  }

  /// The patience with what is being tried is over.
  void out_of_time() {
    const auto limit = in_seconds(options_.timeout);
    if (phase_ == phase::resolving)
      return fail("the name " + question_.server.host + " could not be resolved within " + limit);
    if (phase_ == phase::connecting)
      return connect_next("nobody answered within " + limit);
    if (stream_ && !stream_->handshake_done())
      return fail("the TLS handshake did not end within " + limit);
    if (reader_.received() == 0)
      return fail("no answer within " + limit);
    fail("the answer had not ended after " + limit + ", when " + std::to_string(reader_.received()) +
         " bytes had come");
  }

  void fail(std::string sentence) {
    answer_.problem = std::move(sentence);
    static_cast<void>(reader_.take_body());
    finish();
  }

private:
  void finish() {
    phase_ = phase::finished;
    close();
  }

  void close() {
    if (descriptor_ >= 0)
      ::close(descriptor_);
    descriptor_ = -1;
  }

  /// Tries the next address, or gives up for the reason that the last one failed for.
  void connect_next(const std::string& why) {
    std::string last = why;
    while (next_address_ < addresses_.size()) {
      close();
      const auto left = addresses_.size() - next_address_;
      const auto& address = addresses_[next_address_++];
      const auto now = std::chrono::steady_clock::now();
      if (now >= deadline_)
        return fail("no answer within " + in_seconds(options_.timeout));
      attempt_ends_ = now + (deadline_ - now) / static_cast<long>(left);
      descriptor_ = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (descriptor_ < 0) {
        last = std::string("no socket can be had: ") + std::strerror(errno);
        continue;
      }
      phase_ = phase::connecting;
      if (::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address.storage), address.size) == 0)
        return connected();
      if (errno == EINPROGRESS)
        return;
      last = std::strerror(errno);
    }
    fail("cannot be reached: " + last);
  }

  void connected() {
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
      error = errno;
    if (error == ECONNRESET) // accepted, and thrown out before we looked
      return fail(stranger("closed the connection without an answer"));
    if (error != 0)
      return connect_next(std::strerror(error));
    phase_ = phase::talking;
    const auto request = request_of(question_);
    if (question_.server.tls) {
      stream_.emplace(tls_, question_.server.host, question_.server.is_address);
      stream_->write(request);
      std::string none;
      stream_->advance(none, outgoing_);
    } else {
      outgoing_ = request;
      answer_.may_have_arrived = true;
    }
    send();
  }

  void send() {
    while (sent_ < outgoing_.size()) {
      const auto took = ::send(descriptor_, outgoing_.data() + sent_, outgoing_.size() - sent_,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
      if (took < 0)
        return; // not now, or never: then receiving says why, and what the peer may have said before
      sent_ += static_cast<std::size_t>(took);
    }
    outgoing_.clear();
    sent_ = 0;
  }

  void talk() {
    std::array<char, 65'536> bytes; // NOLINT: filled by recv
    const auto got = ::recv(descriptor_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
      return send();
    const int error = got < 0 ? errno : 0;
    const std::string_view came(bytes.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    if (beginning_.size() < 16)
      beginning_ += came.substr(0, 16 - beginning_.size());
    if (stream_)
      decrypt(came);
    else
      reader_.push(came);
    if (got <= 0 && phase_ == phase::talking)
      reader_.end(error == 0 && (!stream_ || stream_->ended()));
    if (phase_ == phase::talking)
      settle(error);
    if (phase_ == phase::talking)
      send();
  }

  void decrypt(std::string_view came) {
    stream_->received(came);
    std::string plain;
    stream_->advance(plain, outgoing_);
    answer_.may_have_arrived = answer_.may_have_arrived || stream_->handshake_done();
    reader_.push(plain);
    if (stream_->ended() && phase_ == phase::talking)
      reader_.end(true);
    const bool alive = stream_->problem().empty() || reader_.done() || reader_.fault() != answer_fault::none;
    if (alive)
      return;
    send(); // tells the peer why
    if (!stream_->handshake_done() && !is_tls(beginning_))
      return fail(beginning_.starts_with("HTTP/") ? "does not speak TLS: write http:// instead of https://"
                                                  : stranger("does not speak TLS"));
    fail(stream_->problem());
  }

  /// Ends the exchange when the reader has what it wants, or will not get it.
  void settle(int error) {
    if (reader_.done()) {
      answer_.status = reader_.status();
      answer_.body = reader_.take_body();
      return finish();
    }
    switch (reader_.fault()) {
    case answer_fault::none:
      return;
    case answer_fault::nothing:
      if (stream_ && !stream_->handshake_done())
        return fail(stranger("closed the connection in the TLS handshake"));
      return fail(stranger(error != 0 && error != ECONNRESET && error != EPIPE
                               ? std::string("ended the connection: ") + std::strerror(error)
                               : "closed the connection without an answer"));
    case answer_fault::not_http:
      if (!stream_ && is_tls(beginning_))
        return fail("speaks TLS: write https:// instead of http://");
      return fail(stranger("does not answer in HTTP"));
    case answer_fault::malformed:
    case answer_fault::too_large:
    case answer_fault::truncated:
      return fail(reader_.problem());
    }
  }

  /// Something that is no administration endpoint, and the most likely slip.
  [[nodiscard]] std::string stranger(const std::string& what) const {
    const auto port = question_.server.port;
    if (port == 65'535)
      return what;
    const std::string next = "the administration endpoint is on the next one, " + std::to_string(port + 1);
    if (is_frame(beginning_))
      return "this is the data port: " + next;
    return what + "; if this is the data port, " + next;
  }

  const http_question& question_;
  const http_options& options_;
  std::shared_ptr<tls_context> tls_;
  const time_point deadline_;
  http_answer_reader reader_;
  std::optional<tls_stream> stream_;
  std::vector<socket_address> addresses_;
  std::size_t next_address_ = 0;
  time_point attempt_ends_;
  phase phase_ = phase::resolving;
  int descriptor_ = -1;
  std::string beginning_; // as it came, encrypted or not
  std::string outgoing_;
  std::size_t sent_ = 0;
  server_answer answer_;
};

class conversation {
public:
  conversation(std::span<const http_question> questions, const http_options& options)
      : options_(options), deadline_(std::chrono::steady_clock::now() + options.timeout) {
    std::string tls_problem;
    std::shared_ptr<tls_context> tls;
    if (std::any_of(questions.begin(), questions.end(), [](const auto& each) { return each.server.tls; }))
      tls = tls_context::make(options.tls, tls_problem);
    for (const auto& question : questions) {
      exchanges_.push_back(std::make_unique<exchange>(question, options_, tls, deadline_));
      auto& made = *exchanges_.back();
      const auto number = exchanges_.size() - 1;
      if (question.server.tls && !tls)
        made.fail(tls_problem);
      else if (question.server.is_address)
        made.resolved(address_of(number, question.server.host, question.server.port));
      else
        names_.ask(number, question.server.host, question.server.port);
    }
  }

  std::vector<server_answer> run() {
    while (step()) {
    }
    std::vector<server_answer> answers;
    for (auto& each : exchanges_)
      answers.push_back(each->take());
    return answers;
  }

private:
  bool step() {
    for (auto& name : names_.take())
      exchanges_[name.number]->resolved(std::move(name));
    polled_.clear();
    members_.clear();
    bool waiting = false;
    auto until = deadline_;
    for (auto& each : exchanges_) {
      if (each->now_in() == phase::finished)
        continue;
      waiting = true;
      until = std::min(until, each->patience());
      if (each->descriptor() < 0)
        continue;
      polled_.push_back({each->descriptor(), each->wanted(), 0});
      members_.push_back(each.get());
    }
    if (!waiting)
      return false;
    polled_.push_back({names_.ready_descriptor(), POLLIN, 0});
    // Rounded up, so that time is over when the poll says so.
    const auto left = std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now()).count();
    const int count = ::poll(polled_.data(), polled_.size(), static_cast<int>(std::max<long>(left, 0)));
    for (std::size_t i = 0; count > 0 && i < members_.size(); ++i)
      if (polled_[i].revents != 0)
        members_[i]->ready();
    give_up();
    return true;
  }

  void give_up() {
    const auto now = std::chrono::steady_clock::now();
    std::size_t held = 0;
    exchange* largest = nullptr;
    for (auto& each : exchanges_) {
      if (each->now_in() != phase::finished && now >= each->patience())
        each->out_of_time();
      held += each->held_bytes();
      const bool open = each->now_in() != phase::finished;
      if (open && (largest == nullptr || each->held_bytes() > largest->held_bytes()))
        largest = each.get();
    }
    if (held > options_.all_bytes_max && largest != nullptr)
      largest->fail("the answers of all servers together have more than " +
                    std::to_string(options_.all_bytes_max >> 20U) + " MiB: ask fewer at one time");
  }

  const http_options options_;
  const time_point deadline_;
  resolver names_;
  std::vector<std::unique_ptr<exchange>> exchanges_;
  std::vector<pollfd> polled_;
  std::vector<exchange*> members_;
};

} // namespace

std::vector<server_answer> ask_all(std::span<const http_question> questions, const http_options& options) {
  return conversation(questions, options).run();
}

} // namespace memkv::admin
