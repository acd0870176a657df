#include "admin/http_server.hpp"

#include "admin/http_answerer.hpp"
#include "admin/http_connection.hpp"
#include "wire/assert.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace memkv::admin {

namespace {

using clock = std::chrono::steady_clock;
using phase = http_connection::phase;

// Whoever has not taken an answer after so long makes room for another connection.
constexpr std::chrono::milliseconds slow_answer{1'000};
constexpr std::chrono::milliseconds pause_without_descriptors{100};
constexpr int socket_buffer_bytes = 128 * 1024;

bool is_loopback(const actors::peer_address& peer) noexcept {
  actors::peer_address v6{};
  v6[15] = 1;
  const bool mapped = std::all_of(peer.begin(), peer.begin() + 10, [](auto byte) { return byte == 0; }) &&
                      peer[10] == 0xFF && peer[11] == 0xFF;
  return peer == v6 || (mapped && peer[12] == 127);
}

class server final : public http_server {
public:
  server(std::shared_ptr<tls_identity> identity, const http_limits& limits)
      : identity_(std::move(identity)), limits_(limits), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    MEMKV_ASSERT(wake_ >= 0, "a process has a descriptor left at its start");
  }
  ~server() override {
    stop();
    if (listener_ >= 0)
      ::close(listener_);
    ::close(wake_);
  }

  bool bind(const std::string& host, std::uint16_t port, std::string& problem) override;
  std::uint16_t port() const noexcept override { return port_; }
  bool secure() const noexcept override { return identity_ != nullptr; }
  void serve(handler answer) override;
  void stop() noexcept override;
  http_counters counters() const noexcept override;

private:
  using number = std::uint64_t; // of a connection; none is used twice
  struct task {
    number connection = 0;
    http_request request;
    bool close = false;
  };
  struct result {
    number connection = 0;
    std::string text;
    bool close = false;
  };
  enum counter { accepted, refused, evicted, requests, malformed, late, counters_all };

  void count(counter which) noexcept { counted_[which].fetch_add(1, std::memory_order_relaxed); }
  void wake() noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(wake_, &one, sizeof one);
  }

  // FRONT
  void front();
  int wait(clock::time_point now);
  void accept_some(clock::time_point now);
  bool make_room(const actors::peer_address* of, clock::time_point now);
  void take_results(clock::time_point now);
  void hand_over(number connection, http_connection& from, std::optional<http_request> request);
  void look_at_certificate(clock::time_point now);
  void expire_some(clock::time_point now);
  void bound_unsent();
  void remove_closed();

  void work(const handler& answer);

  const std::shared_ptr<tls_identity> identity_;
  const http_limits limits_;
  const int wake_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::array<std::atomic<std::uint64_t>, counters_all> counted_{};
  std::atomic<std::uint32_t> connections_now_{0};
  std::atomic<bool> stopping_{false};

  // FRONT's own
  std::map<number, std::unique_ptr<http_connection>> connections_;
  number next_ = 1;
  clock::time_point accept_again_{};
  std::vector<pollfd> polled_;
  std::vector<number> polled_connections_; // of polled_, behind the first two

  // Between FRONT and the workers. Each connection has at most one task or result here.
  std::mutex lock_;
  std::condition_variable there_is_work_;
  std::deque<task> tasks_;
  bool certificate_is_due_ = false;
  std::vector<result> results_;

  std::thread front_;
  std::vector<std::thread> workers_;
};

bool server::bind(const std::string& host, std::uint16_t port, std::string& problem) {
  MEMKV_ASSERT(listener_ < 0, "a server of HTTP listens once");
  sockaddr_storage address{};
  socklen_t bytes = 0;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
      ::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    bytes = sizeof *v4;
  } else if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
             ::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    bytes = sizeof *v6;
  } else {
    problem = "network.address: '" + host + "' is not an IPv4 or IPv6 address";
    return false;
  }
  const int socket = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int one = 1;
  if (socket >= 0) {
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    // Inherited by what is accepted: strangers make the kernel hold little.
    ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &socket_buffer_bytes, sizeof socket_buffer_bytes);
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &socket_buffer_bytes, sizeof socket_buffer_bytes);
  }
  if (socket < 0 || ::bind(socket, reinterpret_cast<sockaddr*>(&address), bytes) != 0 ||
      ::listen(socket, 128) != 0) {
    problem = "the administration endpoint cannot listen on " + host + ":" + std::to_string(port) +
              ", the port after that of network.address: " + std::strerror(errno);
    if (socket >= 0)
      ::close(socket);
    return false;
  }
  bytes = sizeof address;
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &bytes);
  port_ = ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                              : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  listener_ = socket;
  return true;
}

void server::serve(handler answer) {
  MEMKV_ASSERT(listener_ >= 0 && workers_.empty(), "a server of HTTP serves once, after it is bound");
  for (std::uint32_t i = 0; i < limits_.workers; ++i)
    workers_.emplace_back([this, answer] { work(answer); });
  front_ = std::thread{[this] { front(); }};
}

void server::stop() noexcept {
  if (!front_.joinable())
    return;
  {
    std::lock_guard guard{lock_};
    stopping_ = true;
    tasks_.clear();
  }
  there_is_work_.notify_all();
  wake();
  front_.join();
  for (auto& each : workers_)
    each.join();
  workers_.clear();
  connections_.clear();
  connections_now_ = 0;
}

http_counters server::counters() const noexcept {
  const auto of = [this](counter which) { return counted_[which].load(std::memory_order_relaxed); };
  return {of(accepted),
          of(refused),
          of(evicted),
          of(requests),
          of(malformed),
          of(late),
          connections_now_.load(std::memory_order_relaxed)};
}

void server::work(const handler& answer) {
  http_answerer answerer{answer};
  std::unique_lock guard{lock_};
  while (true) {
    there_is_work_.wait(guard, [this] { return stopping_ || certificate_is_due_ || !tasks_.empty(); });
    if (stopping_)
      return;
    if (std::exchange(certificate_is_due_, false)) {
      guard.unlock();
      identity_->look();
      guard.lock();
      continue;
    }
    auto next = std::move(tasks_.front());
    tasks_.pop_front();
    guard.unlock();
    auto text = answerer.answer(next.request, next.close);
    guard.lock();
    results_.push_back({next.connection, std::move(text), next.close});
    wake();
  }
}

void server::front() {
  while (!stopping_) {
    auto now = clock::now();
    const int ready = wait(now);
    if (stopping_)
      return;
    now = clock::now();
    take_results(now);
    if (ready > 0) {
      for (std::size_t i = 0; i < polled_connections_.size(); ++i) {
        if (polled_[i + 2].revents == 0)
          continue;
        const auto found = connections_.find(polled_connections_[i]);
        // The result of a worker may have moved it on meanwhile; going on does no harm then.
        if (found != connections_.end() && found->second->now_in() != phase::working)
          hand_over(found->first, *found->second, found->second->go_on(now));
      }
      if (polled_[1].revents != 0)
        accept_some(now);
    }
    expire_some(now);
    bound_unsent();
    remove_closed();
  }
}

int server::wait(clock::time_point now) {
  polled_.clear();
  polled_connections_.clear();
  polled_.push_back({wake_, POLLIN, 0});
  const bool accepting = now >= accept_again_;
  polled_.push_back({accepting ? listener_ : -1, POLLIN, 0});
  auto until = now + std::chrono::seconds{60};
  if (!accepting)
    until = std::min(until, accept_again_);
  for (const auto& [each, connection] : connections_) {
    if (connection->now_in() == phase::working)
      continue; // it has no deadline here: the handler has
    polled_.push_back({connection->socket(), connection->awaited(), 0});
    polled_connections_.push_back(each);
    until = std::min(until, connection->deadline());
  }
  const auto rest = std::chrono::ceil<std::chrono::milliseconds>(until - now).count();
  return ::poll(polled_.data(), polled_.size(), static_cast<int>(std::max<std::int64_t>(rest, 0)));
}

void server::accept_some(clock::time_point now) {
  for (int i = 0; i < 16; ++i) {
    sockaddr_storage from{};
    socklen_t bytes = sizeof from;
    const int socket =
        ::accept4(listener_, reinterpret_cast<sockaddr*>(&from), &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        accept_again_ = now + pause_without_descriptors;
      if (errno == ECONNABORTED || errno == EINTR)
        continue;
      return;
    }
    count(accepted);
    look_at_certificate(now);
    const auto peer = actors::address_of(from);
    const bool loopback = is_loopback(peer);
    const auto of_peer = [&] {
      return std::count_if(connections_.begin(), connections_.end(), [&](const auto& each) {
        return each.second->now_in() != phase::closed && each.second->peer() == peer;
      });
    };
    remove_closed();
    const bool crowded = !loopback && of_peer() >= limits_.connections_per_address_max;
    const bool full = connections_.size() >= limits_.connections_max;
    if ((crowded && !make_room(&peer, now)) || (!crowded && full && !make_room(nullptr, now))) {
      count(refused);
      ::close(socket);
      continue;
    }
    const int one = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    std::unique_ptr<tls_session> tls;
    if (identity_ != nullptr && (tls = tls_session::accept(identity_->context(), socket)) == nullptr) {
      ::close(socket);
      continue;
    }
    const auto name = next_++;
    auto& made = connections_[name];
    made = std::make_unique<http_connection>(socket, peer, loopback, std::move(tls), limits_, now);
    connections_now_ = static_cast<std::uint32_t>(connections_.size());
    hand_over(name, *made, made->go_on(now));
  }
}

// By a worker: whoever waits for a slow disk must not be the one that serves everybody. The connection that
// brings it about still gets the certificate there was.
void server::look_at_certificate(clock::time_point now) {
  if (identity_ == nullptr || !identity_->wants_look(now))
    return;
  {
    const std::lock_guard guard{lock_};
    certificate_is_due_ = true;
  }
  there_is_work_.notify_one();
}

// Those that wait for a peer, the slowest first. Whoever sends a whole request at once is among them for a
// moment only, and as the youngest.
bool server::make_room(const actors::peer_address* of, clock::time_point now) {
  http_connection* victim = nullptr;
  int victim_rank = 0;
  for (const auto& [name, each] : connections_) {
    if (of != nullptr && each->peer() != *of)
      continue;
    int rank = 0;
    const auto age = now - each->since();
    switch (each->now_in()) {
    case phase::closed:
    case phase::working:
      continue;
    case phase::farewell:
      rank = 3;
      break;
    case phase::shaking:
    case phase::reading:
      rank = each->idle() ? 2 : 1;
      break;
    case phase::writing:
      if (age < slow_answer)
        continue;
      rank = 1;
      break;
    }
    if (victim == nullptr || rank > victim_rank || (rank == victim_rank && each->since() < victim->since())) {
      victim = each.get();
      victim_rank = rank;
    }
  }
  if (victim == nullptr)
    return false;
  victim->close();
  count(evicted);
  remove_closed();
  return true;
}

void server::hand_over(number connection, http_connection& from, std::optional<http_request> request) {
  if (from.told_malformed())
    count(malformed);
  if (!request)
    return;
  count(requests);
  {
    std::lock_guard guard{lock_};
    tasks_.push_back({connection, std::move(*request), from.last()});
  }
  there_is_work_.notify_one();
}

void server::take_results(clock::time_point now) {
  std::uint64_t times = 0;
  [[maybe_unused]] const auto got = ::read(wake_, &times, sizeof times);
  std::vector<result> results;
  {
    std::lock_guard guard{lock_};
    results.swap(results_);
  }
  for (auto& each : results) {
    const auto found = connections_.find(each.connection);
    MEMKV_ASSERT(found != connections_.end() && found->second->now_in() == phase::working,
                 "a connection stays while a worker has its request");
    if (each.text.empty())
      found->second->close();
    else
      hand_over(each.connection, *found->second,
                found->second->answer(std::move(each.text), each.close, now));
  }
}

void server::expire_some(clock::time_point now) {
  for (const auto& [name, each] : connections_) {
    if (each->now_in() == phase::working || each->now_in() == phase::closed || now < each->deadline())
      continue;
    if (!each->idle() && each->now_in() != phase::farewell)
      count(late);
    each->expire(now);
    (void)each->told_malformed(); // it is counted as late
  }
}

// Whoever has been taking an answer for longest pays for those that do not take theirs.
void server::bound_unsent() {
  std::uint64_t unsent = 0;
  for (const auto& [name, each] : connections_)
    unsent += each->unsent();
  while (unsent > limits_.unsent_bytes_max) {
    http_connection* oldest = nullptr;
    for (const auto& [name, each] : connections_)
      if (each->unsent() > 0 && (oldest == nullptr || each->since() < oldest->since()))
        oldest = each.get();
    unsent -= oldest->unsent();
    oldest->close();
    count(evicted);
  }
}

void server::remove_closed() {
  std::erase_if(connections_, [](const auto& each) { return each.second->now_in() == phase::closed; });
  connections_now_ = static_cast<std::uint32_t>(connections_.size());
}

} // namespace

std::unique_ptr<http_server> http_server::make(const std::string& certificate_path,
                                               const std::string& key_path, std::string& problem,
                                               const http_limits& limits) {
  std::shared_ptr<tls_identity> identity;
  if (certificate_path.empty() != key_path.empty()) {
    problem = std::string{certificate_path.empty() ? "network.tls_key" : "network.tls_cert"} +
              " is set alone: set network.tls_cert and network.tls_key, or neither";
    return nullptr;
  }
  if (!certificate_path.empty()) {
    identity = tls_identity::load(certificate_path, key_path, problem);
    if (identity == nullptr)
      return nullptr;
  }
  return std::make_unique<server>(std::move(identity), limits);
}

} // namespace memkv::admin
