// The server of HTTP on real sockets: slow peers, many peers, stopping.
#define CAF_SUITE http_server
#include "admin/http_server.hpp"
#include "admin/tls.hpp"

#include <caf/test/unit_test.hpp>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

using namespace memkv::admin;
using namespace std::chrono_literals;

namespace {

using clock = std::chrono::steady_clock;

/// A peer that sends what the test says and nothing else.
class peer {
public:
  explicit peer(std::uint16_t port, const char* from = "127.0.0.1") {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    ::inet_pton(AF_INET, from, &address.sin_addr);
    ::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(port);
    CAF_REQUIRE_EQUAL(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~peer() { ::close(socket_); }
  peer(const peer&) = delete;
  peer& operator=(const peer&) = delete;

  /// False when the server has closed the connection.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0)
        return false;
      bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  /// What comes until it contains `end`, the server closes, or the time is over.
  std::string read_until(std::string_view end, std::chrono::milliseconds limit = 10s) {
    const auto until = clock::now() + limit;
    std::string text;
    while (text.find(end) == std::string::npos || end.empty()) {
      pollfd ready{socket_, POLLIN, 0};
      const auto rest = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
      if (rest <= 0 || ::poll(&ready, 1, static_cast<int>(rest)) <= 0)
        break;
      char bytes[4096];
      const auto count = ::recv(socket_, bytes, sizeof bytes, 0);
      closed = count <= 0;
      if (closed)
        break;
      text.append(bytes, static_cast<std::size_t>(count));
    }
    return text;
  }
  std::string read_all(std::chrono::milliseconds limit = 10s) { return read_until({}, limit); }

  bool closed = false;

private:
  int socket_;
};

constexpr std::string_view get = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

http_answer echo(const http_request& request) {
  http_answer out;
  out.body = request.method + " " + request.target + " " + request.body + " " + request.peer + "!";
  return out;
}

std::unique_ptr<http_server> serve(const http_limits& limits, http_server::handler handler = echo) {
  std::string problem;
  auto server = http_server::make("", "", problem, limits);
  CAF_REQUIRE(server != nullptr);
  CAF_REQUIRE(server->bind("127.0.0.1", 0, problem));
  server->serve(std::move(handler));
  return server;
}

/// Short times, so that tests do not take long.
http_limits short_limits() {
  http_limits limits;
  limits.request = 400ms;
  limits.idle = 600ms;
  limits.answer = 800ms;
  limits.farewell = 200ms;
  return limits;
}

template <class Condition>
bool soon(Condition condition) {
  for (const auto until = clock::now() + 10s; clock::now() < until;) {
    if (condition())
      return true;
    std::this_thread::yield();
  }
  return false;
}

} // namespace

CAF_TEST(requests are answered one after the other on one connection) {
  const auto server = serve({});
  peer one{server->port()};
  one.send(get);
  const auto first = one.read_until("!");
  CAF_CHECK(first.starts_with("HTTP/1.1 200 OK\r\n"));
  CAF_CHECK(first.ends_with("GET /a  127.0.0.1!"));
  one.send("POST /b?c=%41 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
  CAF_CHECK(one.read_until("!").ends_with("POST /b?c=%41 hi 127.0.0.1!"));
  one.send("HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto head = one.read_all();
  CAF_CHECK(head.ends_with("\r\n\r\n"));
  CAF_CHECK(head.find("Content-Length: 19\r\n") != std::string::npos);
  CAF_CHECK(head.find("Connection: close\r\n") != std::string::npos);
  CAF_CHECK(one.closed);
  CAF_CHECK_EQUAL(server->counters().requests, 3u);
}

CAF_TEST(requests that come at once are answered in their order) {
  const auto server = serve({});
  peer one{server->port()};
  std::string all;
  for (int i = 0; i < 50; ++i)
    all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n\r\n";
  one.send(all);
  const auto text = one.read_until("GET /49 ");
  std::size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = text.find("GET /" + std::to_string(i) + " ", at);
    CAF_CHECK(at != std::string::npos);
  }
  CAF_CHECK_EQUAL(server->counters().requests, 50u);
}

CAF_TEST(ranges and compression and percent signs are nothing to the library) {
  const auto server = serve({});
  peer one{server->port()};
  std::string ranges = "GET /a HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip, br\r\nExpect: 100-continue\r\n"
                       "X: %0d%0aSet-Cookie:%20a\r\nConnection: close\r\nRange: bytes=0-";
  for (int i = 0; i < 1500; ++i)
    ranges += ",0-";
  one.send(ranges + "\r\n\r\n");
  const auto text = one.read_all();
  CAF_CHECK(text.starts_with("HTTP/1.1 200 OK\r\n"));
  CAF_CHECK(text.ends_with("GET /a  127.0.0.1!"));
  CAF_CHECK(text.size() < 400);
  CAF_CHECK(text.find("Set-Cookie") == std::string::npos);
  CAF_CHECK(text.find("multipart") == std::string::npos);
}

CAF_TEST(slow peers cost others nothing) {
  auto limits = short_limits();
  limits.workers = 1;
  const auto server = serve(limits);
  std::vector<std::unique_ptr<peer>> slow;
  for (int i = 0; i < 40; ++i) {
    slow.push_back(std::make_unique<peer>(server->port()));
    slow.back()->send("GET / HTTP/1.1\r\nX: ");
  }
  const auto begin = clock::now();
  peer probe{server->port()};
  probe.send(get);
  CAF_CHECK(probe.read_until("!").starts_with("HTTP/1.1 200"));
  CAF_CHECK(clock::now() - begin < 300ms); // less than any of them may take
  CAF_CHECK(slow[0]->read_all().starts_with("HTTP/1.1 408"));
  CAF_CHECK(soon([&] { return server->counters().late == 40; }));
}

CAF_TEST(a request that trickles in is cut at its deadline however lively it is) {
  const auto server = serve(short_limits());
  peer slow{server->port()};
  const auto begin = clock::now();
  slow.send("GET / HTTP/1.1\r\nX: ");
  while (clock::now() - begin < 5s && slow.read_until("HTTP", 20ms).empty() && !slow.closed)
    slow.send("y");
  CAF_CHECK(clock::now() - begin >= 400ms);
  CAF_CHECK(clock::now() - begin < 3s);
}

CAF_TEST(an idle connection is closed without a word) {
  const auto server = serve(short_limits());
  peer fresh{server->port()}, used{server->port()};
  used.send(get);
  used.read_until("!");
  CAF_CHECK_EQUAL(fresh.read_all(), "");
  CAF_CHECK(fresh.closed);
  CAF_CHECK_EQUAL(used.read_all(), "");
  CAF_CHECK(used.closed);
  CAF_CHECK(soon([&] { return server->counters().connections == 0; }));
  CAF_CHECK_EQUAL(server->counters().late, 0u);
}

CAF_TEST(who does not read an answer is closed) {
  const auto server = serve(short_limits(), [](const http_request&) {
    http_answer out;
    out.body.assign(4 << 20, 'x');
    return out;
  });
  peer slow{server->port()};
  slow.send(get);
  CAF_CHECK(soon([&] { return server->counters().late == 1 && server->counters().connections == 0; }));
}

CAF_TEST(answers that nobody takes are bounded in sum) {
  auto limits = short_limits();
  limits.answer = 60s;
  limits.unsent_bytes_max = 10 << 20;
  const auto server = serve(limits, [](const http_request&) {
    http_answer out;
    out.body.assign(4 << 20, 'x');
    return out;
  });
  std::vector<std::unique_ptr<peer>> slow;
  for (int i = 0; i < 8; ++i) {
    slow.push_back(std::make_unique<peer>(server->port()));
    slow.back()->send(get);
  }
  // Of eight answers of four megabytes two fit.
  CAF_CHECK(soon([&] { return server->counters().requests == 8 && server->counters().evicted >= 5; }));
  CAF_CHECK(soon([&] { return server->counters().connections <= 3; }));
}

CAF_TEST(a full table makes room for who sends whole requests) {
  auto limits = short_limits();
  limits.request = limits.idle = 60s;
  limits.connections_max = 8;
  const auto server = serve(limits);
  std::vector<std::unique_ptr<peer>> idle;
  for (int i = 0; i < 8; ++i) {
    idle.push_back(std::make_unique<peer>(server->port()));
    idle.back()->send(i % 2 == 0 ? "GET /" : "");
  }
  CAF_REQUIRE(soon([&] { return server->counters().connections == 8; }));
  CAF_CHECK_EQUAL(idle[0]->read_all(200ms), ""); // and as much time passes
  for (std::uint64_t i = 1; i <= 8; ++i) {
    peer probe{server->port()};
    probe.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    CAF_CHECK(probe.read_all().starts_with("HTTP/1.1 200"));
  }
  CAF_CHECK(server->counters().evicted >= 1);
  CAF_CHECK_EQUAL(server->counters().refused, 0u);
}

CAF_TEST(who comes in crowds is refused when nobody can make room) {
  auto limits = short_limits();
  limits.connections_max = 4;
  limits.request = limits.idle = 60s;
  const auto server = serve(limits);
  std::vector<std::unique_ptr<peer>> crowd;
  for (int i = 0; i < 20; ++i)
    crowd.push_back(std::make_unique<peer>(server->port()));
  // Who is refused is counted as accepted a moment before.
  CAF_CHECK(soon([&] { return server->counters().refused + server->counters().evicted == 16; }));
  CAF_CHECK_EQUAL(server->counters().accepted, 20u);
  CAF_CHECK(server->counters().connections <= 4);
}

CAF_TEST(what is no request is told so and closed) {
  const auto server = serve(short_limits());
  const std::vector<std::pair<std::string, std::string>> cases{
      {std::string("\0\1\2\3", 4), "400"},
      {"\x16\x03\x01\x02", "400"},
      {"GET / HTTP/1.1\r\n\r\n", "400"},
      {"BREW /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "411"},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "413"},
      {"GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(1 << 20, 'x'), "431"},
  };
  for (const auto& [text, status] : cases) {
    peer one{server->port()};
    one.send(text);
    const auto answer = one.read_all();
    CAF_CHECK(answer.starts_with("HTTP/1.1 " + status));
    CAF_CHECK(answer.find("{\"error\":") != std::string::npos);
    CAF_CHECK(one.closed);
  }
}

CAF_TEST(an exception of the handler is an answer) {
  const auto server =
      serve({}, [](const http_request&) -> http_answer { throw std::runtime_error("secret"); });
  peer one{server->port()};
  one.send(get);
  const auto text = one.read_until("}");
  CAF_CHECK(text.starts_with("HTTP/1.1 500"));
  CAF_CHECK(text.find("secret") == std::string::npos);
}

CAF_TEST(a connection ends after its last request) {
  auto limits = short_limits();
  limits.requests_per_connection_max = 2;
  const auto server = serve(limits);
  peer one{server->port()};
  one.send(std::string{get} + std::string{get} + std::string{get});
  const auto text = one.read_all();
  CAF_CHECK(text.find("Connection: close") != std::string::npos);
  CAF_CHECK_EQUAL(server->counters().requests, 2u);
}

CAF_TEST(stopping waits for handlers and for nobody else) {
  std::mutex lock;
  std::condition_variable changed;
  bool entered = false, go_on = false;
  auto server = serve({}, [&](const http_request& request) {
    std::unique_lock guard{lock};
    entered = true;
    changed.notify_all();
    changed.wait(guard, [&] { return go_on; });
    return echo(request);
  });
  peer busy{server->port()}, idle{server->port()}, half{server->port()};
  busy.send(get);
  half.send("GET / HT");
  {
    std::unique_lock guard{lock};
    changed.wait(guard, [&] { return entered; });
  }
  std::thread stopper{[&] { server->stop(); }};
  {
    std::lock_guard guard{lock};
    go_on = true;
  }
  changed.notify_all();
  const auto begin = clock::now();
  stopper.join();
  CAF_CHECK(clock::now() - begin < 2s);
  idle.read_all();
  CAF_CHECK(idle.closed);
}

CAF_TEST(a port that is taken is told in one sentence and another may be tried) {
  const auto first = serve({});
  std::string problem;
  const auto second = http_server::make("", "", problem);
  CAF_CHECK(!second->bind("127.0.0.1", first->port(), problem));
  CAF_CHECK(problem.find("cannot listen on 127.0.0.1:" + std::to_string(first->port())) != std::string::npos);
  CAF_CHECK(!second->bind("example", 0, problem));
  CAF_CHECK(second->bind("127.0.0.1", 0, problem));
}

CAF_TEST(a certificate that changed is read by whoever looks and not by whoever needs it) {
  namespace fs = std::filesystem;
  const fs::path from = TLS_DIRECTORY;
  const auto folder = fs::temp_directory_path() / ("memkv_tls_test." + std::to_string(::getpid()));
  fs::create_directories(folder);
  const auto put = [&](const std::string& certificate, const std::string& key) {
    fs::copy_file(from / certificate, folder / "tls.pem", fs::copy_options::overwrite_existing);
    fs::copy_file(from / key, folder / "tls.key", fs::copy_options::overwrite_existing);
  };
  put("one.pem", "one.key");
  std::string problem;
  const auto identity = tls_identity::load(folder / "tls.pem", folder / "tls.key", problem);
  CAF_REQUIRE_EQUAL(problem, "");
  const auto first = identity->context();
  const auto now = clock::now();
  CAF_CHECK(!identity->wants_look(now, 60s));
  CAF_CHECK(identity->wants_look(now + 61s, 60s));
  // One look at a time, however long its disk keeps it.
  CAF_CHECK(!identity->wants_look(now + 1000s, 60s));
  identity->look();
  CAF_CHECK(identity->context() == first);
  CAF_CHECK(identity->wants_look(now + 1000s, 60s));
  put("one.pem", "two.key");
  identity->look();
  CAF_CHECK(identity->context() == first);
  put("ec.pem", "ec.key");
  CAF_CHECK(identity->context() == first);
  identity->look();
  CAF_CHECK(identity->context() != nullptr);
  CAF_CHECK(identity->context() != first);
  fs::remove_all(folder);
}

CAF_TEST(certificates and keys that cannot be used are told in one sentence) {
  const std::string directory = TLS_DIRECTORY;
  const auto problem_of = [&](const std::string& certificate, const std::string& key) {
    std::string problem;
    const auto made = http_server::make(certificate.empty() ? "" : directory + certificate,
                                        key.empty() ? "" : directory + key, problem);
    CAF_CHECK_EQUAL(made == nullptr, !problem.empty());
    return problem;
  };
  const auto says = [&](const std::string& certificate, const std::string& key, std::string_view what) {
    const auto problem = problem_of(certificate, key);
    CAF_CHECK(problem.find(what) != std::string::npos);
    if (problem.find(what) == std::string::npos)
      CAF_MESSAGE(problem);
  };
  CAF_CHECK_EQUAL(problem_of("one.pem", "one.key"), "");
  CAF_CHECK_EQUAL(problem_of("ec.pem", "ec.key"), "");
  says("one.pem", "ec.key", "does not belong to the certificate");
  says("one.pem", "two.key", "does not belong to the certificate");
  says("one.key", "one.key", "holds no certificate");
  says("one.pem", "one.pem", "holds no private key");
  says("one.pem", "locked.key", "is encrypted");
  says("missing.pem", "one.key", "network.tls_cert: ");
  says("one.pem", "missing.key", "network.tls_key: ");
  says("", "one.key", "set alone");
  says("one.pem", "", "set alone");
  says("one.pem", ".", "not a regular file");
}
