#include "cli/doctor_clock.hpp"

#include "cli/doctor_apart.hpp"
#include "engine/system_call.hpp"
#include "wire/hello.hpp"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <functional>

namespace memkv::cli {

namespace {

constexpr int connect_ms = 1'500;
constexpr int answer_ms = 1'500; // a busy server takes its time
// Two stamps this far apart are not both near one clock, so only one greeting of a connection is answered.
constexpr std::int64_t step_s = 115;
constexpr std::int64_t near_steps = 16;
constexpr std::int64_t hours_max = 14;
constexpr std::int64_t second_ns = 1'000'000'000;

std::int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class connection_to_peer {
public:
  connection_to_peer() = default;
  connection_to_peer(const connection_to_peer&) = delete;
  connection_to_peer& operator=(const connection_to_peer&) = delete;
  ~connection_to_peer() {
    if (socket_ >= 0)
      ::close(socket_);
  }

  bool open(const addrinfo& to, std::string& problem) {
    socket_ = ::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket_ < 0 || (::connect(socket_, to.ai_addr, to.ai_addrlen) != 0 && errno != EINPROGRESS)) {
      problem = std::strerror(errno);
      return false;
    }
    if (!wait(POLLOUT, steady_ms() + connect_ms)) {
      problem = "no answer";
      return false;
    }
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size);
    problem = error == 0 ? "" : std::strerror(error);
    return error == 0;
  }

  bool send(wire::bytes_view bytes) {
    const auto sent = engine::repeated_if_interrupted(
        [&] { return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL); });
    return sent == static_cast<ssize_t>(bytes.size()); // a fresh socket takes a few hundred bytes
  }

  enum class got : std::uint8_t { all, closed, nothing };

  got receive(wire::bytes_span to, std::int64_t until_ms) {
    for (std::size_t at = 0; at < to.size();) {
      if (!wait(POLLIN, until_ms))
        return got::nothing;
      const auto count = ::recv(socket_, to.data() + at, to.size() - at, 0);
      if (count < 0 && (errno == EINTR || errno == EAGAIN))
        continue;
      if (count <= 0)
        return got::closed;
      at += static_cast<std::size_t>(count);
    }
    return got::all;
  }

private:
  bool wait(short events, std::int64_t until_ms) {
    for (;;) {
      pollfd wanted{socket_, events, 0};
      const int left = static_cast<int>(std::max<std::int64_t>(0, until_ms - steady_ms()));
      const int count = ::poll(&wanted, 1, left);
      if (count > 0)
        return true;
      if (count == 0 || errno != EINTR)
        return false;
    }
  }

  int socket_ = -1;
};

enum class greeting : std::uint8_t { answered, closed, silent, unreachable };

// Greets once for each shift of our clock, on one connection.
greeting greet(const addrinfo& to, const wire::shared_key& key, const std::vector<std::int64_t>& shifts_s,
               peer_facts& out) {
  connection_to_peer peer;
  if (!peer.open(to, out.problem))
    return greeting::unreachable;
  const wire::mac signer(key);
  const wire::nonce nonce = wire::random_nonce();
  const std::int64_t sent_ns = wall_ns();
  std::uint64_t id = 0;
  for (const auto shift : shifts_s) {
    std::vector<std::byte> frame;
    wire::append_hello(frame, ++id, nonce);
    wire::seal(frame, static_cast<std::uint64_t>(sent_ns + shift * second_ns), signer);
    if (!peer.send(frame))
      return greeting::closed;
  }
  std::vector<std::byte> header(wire::limits::frozen_bytes);
  const auto until = steady_ms() + answer_ms;
  const auto first = peer.receive(header, until);
  const std::int64_t received_ns = wall_ns();
  if (first != connection_to_peer::got::all)
    return first == connection_to_peer::got::closed ? greeting::closed : greeting::silent;
  wire::frozen_part sizes;
  if (wire::check_frozen(header, wire::direction::reply, wire::limits::header_bytes_max_unauthenticated,
                         wire::limits::part_bytes_max, sizes) != wire::frozen_fault::none)
    return greeting::closed;
  header.resize(sizes.header_length + wire::limits::trailer_bytes);
  if (peer.receive(wire::bytes_span(header).subspan(wire::limits::frozen_bytes), until) !=
      connection_to_peer::got::all)
    return greeting::closed;
  const wire::bytes_view signed_part = wire::bytes_view(header).first(sizes.header_length);
  const wire::bytes_view trailer = wire::bytes_view(header).subspan(sizes.header_length);
  const auto stamp_ns = wire::load_le<std::uint64_t>(trailer.data());
  wire::frame_header decoded;
  if (!signer.verify(signed_part, stamp_ns, trailer.subspan<8, 32>()) ||
      wire::decode_header(signed_part, decoded) != wire::header_fault::none)
    return greeting::closed;
  // The nonce proves that this is an answer to us and not one that somebody kept. A refusal has it too.
  const auto answer = wire::read_hello_answer(
      key, decoded, signed_part.subspan(wire::limits::fixed_header_bytes), decoded.request_id, nonce);
  if (!answer.genuine || decoded.request_id == 0 || decoded.request_id > id)
    return greeting::closed;
  out.ahead_ns = static_cast<std::int64_t>(stamp_ns) - (sent_ns + (received_ns - sent_ns) / 2);
  out.uncertainty_ns = static_cast<std::uint64_t>(std::max<std::int64_t>(0, received_ns - sent_ns)) / 2;
  return greeting::answered;
}

std::vector<std::int64_t> shifts_to_try() {
  std::vector<std::int64_t> shifts;
  for (std::int64_t step = 1; step <= near_steps; ++step)
    shifts.insert(shifts.end(), {step * step_s, -step * step_s});
  for (std::int64_t hours = 1; hours <= hours_max; ++hours)
    shifts.insert(shifts.end(), {hours * 3600, -hours * 3600});
  return shifts;
}

peer_facts ask_at(const std::string& host, std::uint16_t port, const wire::shared_key& key) {
  peer_facts out;
  out.what = peer_facts::outcome::unreachable;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int rc = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); rc != 0) {
    out.problem = ::gai_strerror(rc);
    return out;
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(found, &::freeaddrinfo);
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    switch (greet(*each, key, {0}, out)) {
    case greeting::unreachable:
      continue;
    case greeting::answered:
      out.what = peer_facts::outcome::answered;
      return out;
    case greeting::closed:
      // Only a good signature with a time that is not is left unanswered on an open connection.
      out.what = peer_facts::outcome::wrong_key;
      return out;
    case greeting::silent:
      break;
    }
    const auto shifts = shifts_to_try();
    for (std::size_t at = 0; at < shifts.size(); at += wire::limits::drops_max) {
      const auto end = std::min<std::size_t>(shifts.size(), at + wire::limits::drops_max);
      const auto heard = greet(*each, key,
                               {shifts.begin() + static_cast<std::ptrdiff_t>(at),
                                shifts.begin() + static_cast<std::ptrdiff_t>(end)},
                               out);
      if (heard == greeting::answered) {
        out.what = peer_facts::outcome::answered;
        return out;
      }
      // All three dropped end the connection; one that stays open is not a server that drops.
      if (heard != greeting::closed)
        break;
    }
    out.what = peer_facts::outcome::silent;
    return out;
  }
  return out;
}

} // namespace

bool parse_peer(std::string_view text, std::string& host, std::uint16_t& port) {
  bool is_url = false;
  for (const std::string_view scheme : {"http://", "https://"})
    if (text.starts_with(scheme)) {
      text.remove_prefix(scheme.size());
      is_url = true;
    }
  if (is_url)
    text = text.substr(0, text.find('/'));
  std::string_view digits;
  const auto colon = text.rfind(':');
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos)
      return false;
    host = text.substr(1, end - 1);
    if (end + 1 < text.size()) {
      if (text[end + 1] != ':')
        return false;
      digits = text.substr(end + 2);
      if (digits.empty())
        return false;
    }
  } else if (colon != std::string_view::npos) {
    host = text.substr(0, colon);
    digits = text.substr(colon + 1);
    if (digits.empty() || host.find(':') != std::string::npos)
      return false;
  } else {
    host = text;
  }
  unsigned number = is_url ? 9901 : 9900;
  if (!digits.empty()) {
    if (digits.size() > 5 || !std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; }))
      return false;
    number = 0;
    for (const char c : digits)
      number = number * 10 + static_cast<unsigned>(c - '0');
  }
  number -= is_url && number > 0 ? 1 : 0;
  port = static_cast<std::uint16_t>(number);
  return !host.empty() && number > 0 && number <= 65'535;
}

peer_facts ask_peer(const std::string& server, const wire::shared_key& key) {
  peer_facts out;
  out.what = peer_facts::outcome::unreachable;
  std::string host;
  std::uint16_t port = 0;
  if (parse_peer(server, host, port))
    out = ask_at(host, port, key);
  else
    out.problem = "this is no host:port";
  // MEMKV_SERVERS may name administration endpoints, which are for memkv admin and do not greet like this.
  const bool strange = out.what == peer_facts::outcome::wrong_key || out.what == peer_facts::outcome::silent;
  if (strange && port > 1)
    if (auto below = ask_at(host, static_cast<std::uint16_t>(port - 1), key);
        below.what == peer_facts::outcome::answered)
      out = below;
  out.server = server;
  return out;
}

std::string encode(const peer_facts& facts) {
  return nlohmann::json{{"what", static_cast<int>(facts.what)},
                        {"previous_key", facts.previous_key},
                        {"problem", facts.problem},
                        {"ahead_ns", facts.ahead_ns},
                        {"uncertainty_ns", facts.uncertainty_ns}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool decode(const std::string& text, peer_facts& out) {
  const auto document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object())
    return false;
  try {
    const int what = document.at("what").get<int>();
    if (what < 0 || what > static_cast<int>(peer_facts::outcome::timed_out))
      return false;
    document.at("previous_key").get_to(out.previous_key);
    document.at("problem").get_to(out.problem);
    document.at("ahead_ns").get_to(out.ahead_ns);
    document.at("uncertainty_ns").get_to(out.uncertainty_ns);
    out.what = static_cast<peer_facts::outcome>(what);
  } catch (const nlohmann::json::exception&) {
    return false;
  }
  return true;
}

std::vector<peer_facts> ask_peers(const std::vector<std::string>& servers, const wire::shared_key& key,
                                  const std::optional<wire::shared_key>& previous) {
  std::vector<std::function<std::string()>> work;
  for (const auto& server : servers)
    work.emplace_back([&server, &key, &previous] {
      auto facts = ask_peer(server, key);
      if (facts.what == peer_facts::outcome::wrong_key && previous) {
        auto again = ask_peer(server, *previous);
        again.previous_key = true;
        if (again.what == peer_facts::outcome::answered)
          facts = again;
      }
      return encode(facts);
    });
  const auto answers = run_apart(work, apart_max, peer_deadline_ms);
  std::vector<peer_facts> peers(servers.size());
  for (std::size_t i = 0; i < servers.size(); ++i) {
    peers[i].server = servers[i];
    if (!answers[i] || !decode(*answers[i], peers[i]))
      peers[i].what = peer_facts::outcome::timed_out;
  }
  return peers;
}

clock_facts read_clock_facts() {
  clock_facts facts;
  timex query{};
  const int state = ::adjtimex(&query);
  if (state < 0)
    facts.problem = std::strerror(errno);
  facts.synchronised = state >= 0 && state != TIME_ERROR && (query.status & STA_UNSYNC) == 0;
  facts.error_bound_us = static_cast<std::uint64_t>(std::max<long>(0, query.maxerror));
  facts.now_s = static_cast<std::int64_t>(std::time(nullptr));
  return facts;
}

} // namespace memkv::cli
