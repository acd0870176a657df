// The ring actor: messages and completions in one wait, and an end that leaves nothing with the kernel.
#define CAF_SUITE ring_actor
#include "actors/ring_actor.hpp"

#include "actors/log.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>
#include <caf/test/unit_test.hpp>

#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <thread>

using namespace memkv::actors;

struct ping {
  int number = 0;
};
struct throw_up {};
struct begin_many {
  int operations = 0;
};
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(begin_many)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(ping)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(throw_up)

namespace {

/// What the test sees of the actor, which it outlives.
struct probe {
  std::atomic<int> received{0};
  std::atomic<int> completions{0};
  std::atomic<int> nothings{0};
  std::atomic<bool> stopped{false};
  std::atomic<bool> throws_at_the_end{false};
  int sockets[2] = {-1, -1};
  probe() { CAF_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0); }
  ~probe() {
    ::close(sockets[0]);
    ::close(sockets[1]);
  }
};

class subject final : public ring_actor {
public:
  subject(caf::actor_config& configuration, probe* seen)
      : ring_actor(configuration), seen_(*seen), receive_(*this) {}

private:
  class receive final : public ring_operation {
  public:
    explicit receive(subject& owner) : owner_(owner) {}
    void completed(std::int32_t result, std::uint32_t) override {
      ++owner_.seen_.completions;
      if (result > 0)
        owner_.arm();
      else if (owner_.seen_.throws_at_the_end)
        throw std::runtime_error("as planned, in a completion");
    }
    char byte = 0;

  private:
    subject& owner_;
  };

  class nothing final : public ring_operation {
  public:
    explicit nothing(subject& owner) : owner_(owner) {}
    void completed(std::int32_t, std::uint32_t) override { ++owner_.seen_.nothings; }

  private:
    subject& owner_;
  };

  settings ring_settings() const override { return {.entries = 8}; }
  void on_no_ring(const std::string&) override {}
  bool on_start() override {
    arm();
    return true;
  }
  caf::behavior make_handlers() override {
    return {[this](const ping&) { ++seen_.received; },
            [this](const begin_many& message) {
              for (int i = 0; i < message.operations; ++i)
                io_uring_prep_nop(next_sqe(&nothing_));
            },
            [](const throw_up&) { throw std::runtime_error("as planned"); }};
  }
  void on_stop() override {
    ::shutdown(seen_.sockets[0], SHUT_RDWR);
    seen_.stopped = true;
    if (seen_.throws_at_the_end)
      throw std::runtime_error("as planned, at the end");
  }
  void arm() {
    auto* sqe = next_sqe(&receive_);
    io_uring_prep_recv(sqe, seen_.sockets[0], &receive_.byte, 1, 0);
  }

  probe& seen_;
  receive receive_;
  nothing nothing_{*this};
};

struct fixture {
  caf::actor_system_config configuration;
  caf::actor_system system{configuration};
  probe seen;
  caf::actor who = system.spawn<subject, caf::detached>(&seen);

  /// Waits, generously, for what another thread does.
  template <class Condition>
  bool eventually(Condition condition) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition() && std::chrono::steady_clock::now() < limit)
      std::this_thread::yield();
    return condition();
  }
  caf::error down_reason() {
    caf::scoped_actor self{system};
    self->monitor(who);
    caf::error reason;
    self->receive([&](const caf::down_msg& message) { reason = message.reason; });
    return reason;
  }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(ring_actor_tests, fixture)

CAF_TEST(messages wake a parked actor) {
  for (int i = 0; i < 200; ++i) {
    caf::anon_send(who, ping{i});
    CAF_REQUIRE(eventually([&] { return seen.received == i + 1; }));
  }
  caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  down_reason();
}

CAF_TEST(a flood of messages from several threads arrives whole) {
  std::vector<std::thread> senders;
  for (int t = 0; t < 4; ++t)
    senders.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i)
        caf::anon_send(who, ping{i});
    });
  for (auto& sender : senders)
    sender.join();
  CAF_CHECK(eventually([&] { return seen.received == 80'000; }));
  caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  down_reason();
}

CAF_TEST(completions come between messages) {
  for (int i = 0; i < 100; ++i) {
    caf::anon_send(who, ping{i});
    CAF_REQUIRE_EQUAL(::write(seen.sockets[1], "x", 1), 1);
    CAF_REQUIRE(eventually([&] { return seen.completions == i + 1 && seen.received == i + 1; }));
  }
  caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  down_reason();
}

CAF_TEST(more completions than their queue has places for are all seen) {
  // 64 places; all of these complete before the first one is looked at.
  caf::anon_send(who, begin_many{1000});
  CAF_CHECK(eventually([&] { return seen.nothings == 1000; }));
  caf::anon_send(who, ping{1});
  CAF_CHECK(eventually([&] { return seen.received == 1; }));
  caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  down_reason();
}

CAF_TEST(a kill ends it after the kernel gave everything back) {
  CAF_REQUIRE(eventually([&] { return seen.completions == 0; }));
  caf::anon_send_exit(who, caf::exit_reason::kill);
  CAF_CHECK(down_reason() == caf::exit_reason::kill);
  CAF_CHECK(seen.stopped);
  CAF_CHECK_EQUAL(seen.completions, 1);
}

CAF_TEST(an exception in a handler ends it in the same order) {
  caf::anon_send(who, throw_up{});
  CAF_CHECK(down_reason() == caf::exit_reason::unhandled_exception);
  CAF_CHECK(seen.stopped);
  CAF_CHECK_EQUAL(seen.completions, 1);
}

CAF_TEST(an exception while it ends leaves nothing with the kernel either) {
  seen.throws_at_the_end = true;
  caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  CAF_CHECK(down_reason() == caf::exit_reason::unhandled_exception);
  CAF_CHECK(seen.stopped);
  CAF_CHECK_EQUAL(seen.completions, 1);
}

CAF_TEST_FIXTURE_SCOPE_END()
