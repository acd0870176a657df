// The RC scheduler on a real device, or on soft-RoCE, with its clients in processes of their own, whose
// memory this one can see as well. Moves bytes both ways and compares them, exchanges messages, has a client
// withdraw its key and another one die. Prints one line a step and ends with 0 when all held.
//
//   verbs_rc_scheduler DEVICE            the test
//   verbs_rc_scheduler DEVICE SECONDS    throughput of 1 MiB transfers, each way for so long
#include "verbs/ibverbs_fabric.hpp"
#include "verbs/rc_scheduler.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace memkv::verbs;

namespace {

constexpr std::size_t chunk = 1U << 20U;
constexpr std::size_t chunks = 8; // more than are posted at one time
constexpr std::uint32_t receives = 4;
constexpr std::uint32_t receive_bytes = 512;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "verbs_rc_scheduler: %s\n", what.c_str());
  std::exit(1);
}

void must(const status& outcome) {
  if (!outcome.ok()) {
    fail(outcome.text);
  }
}

void require(bool held, const std::string& what) {
  if (!held) {
    fail("not so: " + what);
  }
  std::printf("%s\n", what.c_str());
  std::fflush(stdout);
}

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

std::unique_ptr<fabric> open_device(const std::string& name) {
  const ibverbs_library* library = nullptr;
  must(load_ibverbs(library));
  std::unique_ptr<fabric> device;
  std::vector<std::string> warnings;
  must(open_ibverbs_fabric(*library, name, 1, {.mtu_bytes = 4096}, device, warnings));
  return device;
}

template <class what>
void tell(int to, const what& told) {
  if (::write(to, &told, sizeof told) != static_cast<ssize_t>(sizeof told)) {
    fail("the other process is gone");
  }
}
template <class what>
bool hear(int from, what& heard) {
  return ::recv(from, &heard, sizeof heard, MSG_WAITALL) == static_cast<ssize_t>(sizeof heard);
}

enum class order : std::uint8_t { withdraw, echo };

struct offer {
  rc_address address;
  std::uint32_t rkey = 0;
};

/// Lends its memory, and does what it is told until it is told nothing any more.
[[noreturn]] void be_client(const std::string& name, int wire, std::span<std::byte> memory) {
  const auto device = open_device(name);
  std::unique_ptr<memory_region> region;
  must(device->register_memory(memory, {true, true}, region));
  std::vector<std::byte> mail(2UL * receives * receive_bytes);
  std::unique_ptr<memory_region> mail_region;
  must(device->register_memory(mail, {}, mail_region));
  std::unique_ptr<completion_queue> completions;
  must(device->create_completion_queue(64, completions));
  queue_pair_options options;
  options.completions = completions.get();
  options.sends_max = options.receives_max = receives;
  std::unique_ptr<rc_queue_pair> pair;
  must(device->create_rc(options, pair));
  for (std::uint64_t number = 0; number < receives; ++number) {
    const receive_request one{
        number, {mail_region->address() + number * receive_bytes, receive_bytes, mail_region->lkey()}};
    must(pair->post_receives({&one, 1}).outcome);
  }
  tell(wire, offer{pair->address(), region->rkey()});
  rc_address server;
  if (!hear(wire, server)) {
    std::exit(1);
  }
  must(pair->connect(server));
  tell(wire, true);
  order next{};
  while (hear(wire, next)) {
    if (next == order::withdraw) {
      region.reset();
    } else {
      for (std::uint32_t echoed = 0; echoed < receives;) {
        report one;
        if (completions->poll({&one, 1}) == 1 && one.kind == operation::receive) {
          const local_range local{mail_region->address() + one.id * receive_bytes, one.bytes,
                                  mail_region->lkey()};
          work_request request;
          request.kind = operation::send;
          request.local = {&local, 1};
          must(pair->post({&request, 1}).outcome);
          ++echoed;
        }
      }
    }
    tell(wire, true);
  }
  std::_Exit(0);
}

struct client {
  pid_t process = 0;
  int wire = -1;
  std::span<std::byte> memory;
  offer theirs;
  client_id id = 0;

  explicit client(const std::string& name) {
    void* const shared =
        ::mmap(nullptr, chunks * chunk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ends[2];
    if (shared == MAP_FAILED || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      fail("no memory, or no descriptor");
    }
    memory = {static_cast<std::byte*>(shared), chunks * chunk};
    process = ::fork();
    if (process == 0) {
      ::close(ends[0]);
      be_client(name, ends[1], memory);
    }
    ::close(ends[1]);
    wire = ends[0];
    if (!hear(wire, theirs)) {
      fail("a client did not start");
    }
  }
  void command(order what) const {
    bool done = false;
    tell(wire, what);
    if (!hear(wire, done)) {
      fail("a client did not obey");
    }
  }
  void kill() {
    ::kill(process, SIGKILL);
    ::waitpid(process, nullptr, 0);
    ::close(wire);
  }
};

struct server {
  std::unique_ptr<fabric> device;
  std::vector<std::byte> memory;
  std::unique_ptr<memory_region> region;
  std::unique_ptr<rc_scheduler> engine;
  std::vector<outcome> outcomes;

  explicit server(const std::string& name) : device(open_device(name)), memory(chunks * chunk) {
    must(device->register_memory(memory, {}, region));
    must(rc_scheduler::create(*device, {}, engine));
    std::printf("%s, MTU %u, %u transfers posted for a client\n", device->facts().name.c_str(),
                device->path().mtu_bytes, engine->statistics().sends_client);
  }
  void attach(client& one) {
    peer_address own;
    must(engine->attach_with_messages(to_peer_address(one.theirs.address), {receives, receive_bytes},
                                      {receives, receive_bytes}, one.id, own));
    bool connected = false;
    tell(one.wire, to_rc_address(own));
    if (!hear(one.wire, connected)) {
      fail("a client did not connect");
    }
  }
  void submit(const client& with, direction way, std::size_t index) {
    transfer one;
    one.cookie = index;
    one.way = way;
    one.local = {region->address() + index * chunk, chunk, region->lkey()};
    one.remote_address = reinterpret_cast<std::uintptr_t>(with.memory.data()) + index * chunk;
    one.rkey = with.theirs.rkey;
    one.deadline_ns = now_ns() + 300'000'000'000;
    must(engine->submit(with.id, one));
  }
  /// Runs and, when there is nothing, waits by the descriptor.
  void turn() {
    const std::size_t before = outcomes.size();
    engine->run(now_ns(), outcomes);
    if (outcomes.size() != before) {
      return;
    }
    must(engine->completions().arm());
    engine->run(now_ns(), outcomes);
    if (outcomes.size() == before) {
      pollfd one{engine->completions().event_descriptor(), POLLIN, 0};
      static_cast<void>(::poll(&one, 1, 10));
      engine->completions().acknowledge();
    }
  }
  /// The outcomes of so many transfers, by cookie; the others stay in `outcomes`.
  std::vector<outcome> wait(std::size_t count) {
    const std::uint64_t until_ns = now_ns() + 120'000'000'000;
    std::vector<outcome> found;
    while (found.size() < count) {
      turn();
      std::erase_if(outcomes, [&](const outcome& one) {
        if (one.kind == outcome::what::transfer) {
          found.push_back(one);
        }
        return one.kind == outcome::what::transfer;
      });
      if (now_ns() > until_ns) {
        fail("outcomes did not come within two minutes");
      }
    }
    std::sort(found.begin(), found.end(),
              [](const outcome& left, const outcome& right) { return left.cookie < right.cookie; });
    return found;
  }
  [[nodiscard]] std::size_t broken(const client& one) const {
    return static_cast<std::size_t>(std::count_if(outcomes.begin(), outcomes.end(), [&](const outcome& any) {
      return any.kind == outcome::what::session_broken && any.client == one.id;
    }));
  }
  bool moves(const client& with, unsigned seed) {
    for (std::size_t index = 0; index < chunks * chunk; ++index) {
      with.memory[index] = std::byte(index * 7 + index / 251 + seed);
    }
    const auto all_done = [&](direction way) {
      for (std::size_t index = 0; index < chunks; ++index) {
        submit(with, way, index);
      }
      const auto found = wait(chunks);
      return std::all_of(found.begin(), found.end(),
                         [](const outcome& one) { return one.result == transfer_result::done; });
    };
    const bool fetched = all_done(direction::fetch);
    const bool right = std::memcmp(memory.data(), with.memory.data(), memory.size()) == 0;
    std::memset(with.memory.data(), 0, with.memory.size());
    return fetched && right && all_done(direction::place) &&
           std::memcmp(memory.data(), with.memory.data(), memory.size()) == 0;
  }
};

void measure(server& here, const client& with, direction way, double seconds) {
  const std::uint64_t begin = now_ns();
  const std::uint64_t until_ns = begin + static_cast<std::uint64_t>(seconds * 1e9);
  std::uint64_t moved = 0;
  for (std::size_t index = 0; index < chunks; ++index) {
    here.submit(with, way, index);
  }
  std::size_t open = chunks;
  std::uint64_t end = begin;
  while (open != 0) {
    here.outcomes.clear();
    here.turn();
    for (const outcome& one : here.outcomes) {
      if (one.result != transfer_result::done) {
        fail("a transfer ended with " + std::string(memkv::verbs::name(one.status)));
      }
      ++moved;
      end = now_ns();
      --open;
      if (end < until_ns) {
        here.submit(with, way, one.cookie);
        ++open;
      }
    }
  }
  here.outcomes.clear(); // what follows waits for its own
  std::printf("%s: %.1f MiB/s\n", way == direction::fetch ? "fetch (READ)" : "place (WRITE)",
              static_cast<double>(moved) * 1e9 / static_cast<double>(end - begin));
}

} // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  client first(name);
  client second(name);
  client third(name); // all before this process opens the device
  server here(name);
  here.attach(first);
  if (argc > 2) {
    measure(here, first, direction::place, std::atof(argv[2]));
    measure(here, first, direction::fetch, std::atof(argv[2]));
  }
  here.attach(second);
  require(here.moves(first, 1) && here.moves(second, 2), "bytes move both ways for two clients");

  for (std::uint32_t sent = 0; sent < receives; ++sent) {
    const std::uint64_t text[2] = {sent, 4711};
    must(here.engine->send_message(first.id, std::as_bytes(std::span(text))));
  }
  require(here.engine->send_message(first.id, here.memory).code == errc::invalid_argument &&
              here.engine->send_message(first.id, std::span(here.memory).first(16)).code == errc::queue_full,
          "a message too long and one too many are refused");
  here.engine->run(now_ns(), here.outcomes);
  first.command(order::echo);
  std::vector<message> echoes;
  for (const std::uint64_t until_ns = now_ns() + 60'000'000'000;
       echoes.size() < receives && now_ns() < until_ns;) {
    here.turn();
    here.engine->take_messages(echoes);
  }
  bool same = echoes.size() == receives;
  for (std::uint64_t number = 0; same && number < receives; ++number) {
    const std::uint64_t text[2] = {number, 4711};
    same = echoes[number].client == first.id && echoes[number].bytes.size() == sizeof text &&
           std::memcmp(echoes[number].bytes.data(), text, sizeof text) == 0;
  }
  require(same, "messages went there and back in their order");

  first.command(order::withdraw);
  std::memset(first.memory.data(), 0xEE, first.memory.size());
  for (std::size_t index = 0; index < chunks; ++index) {
    here.submit(first, direction::place, index);
  }
  auto found = here.wait(chunks);
  const auto refused =
      static_cast<std::size_t>(std::count_if(found.begin(), found.end(), [](const outcome& one) {
        return one.result == transfer_result::refused && one.status == completion_status::remote_access;
      }));
  require(refused == 1 &&
              std::none_of(found.begin(), found.end(),
                           [](const outcome& one) { return one.result == transfer_result::done; }),
          "a withdrawn key is refused and nothing behind it is done");
  require(std::all_of(first.memory.begin(), first.memory.end(),
                      [](std::byte one) { return one == std::byte(0xEE); }),
          "and no byte was written");
  require(here.broken(first) == 1 && here.broken(second) == 0, "which breaks this session and no other");
  must(here.engine->detach(first.id, here.outcomes));
  require(here.moves(second, 3), "the other client goes on");

  second.kill();
  const std::uint64_t begin = now_ns();
  for (std::size_t index = 0; index < chunks; ++index) {
    here.submit(second, index % 2 == 0 ? direction::place : direction::fetch, index);
  }
  found = here.wait(chunks);
  const std::uint64_t taken_ms = (now_ns() - begin) / 1'000'000;
  require(found.front().status == completion_status::retry_exceeded &&
              std::all_of(found.begin(), found.end(),
                          [](const outcome& one) { return one.result == transfer_result::retryable; }),
          "a client that died ends its transfers with retry_exceeded after " + std::to_string(taken_ms) +
              " ms");
  require(taken_ms < 30'000, "which is soon");
  must(here.engine->detach(second.id, here.outcomes));

  here.attach(third);
  require(here.moves(third, 4), "a new client is served");
  for (std::size_t index = 0; index < chunks; ++index) {
    here.submit(third, direction::place, index);
  }
  here.engine->run(now_ns(), here.outcomes);
  here.outcomes.clear();
  here.engine->close(here.outcomes);
  require(here.outcomes.size() >= chunks && here.outcomes.back().kind == outcome::what::session_ended &&
              here.outcomes.back().client == third.id,
          "closing ends everything");
  here.engine.reset();
  here.region.reset();
  first.kill();
  third.kill();
  return 0;
}
