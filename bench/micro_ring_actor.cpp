// What it costs to give an actor something to do: one that waits in its ring, one of CAF's scheduler, one of
// CAF's that blocks. Of a single message it is the time until it has been handled, the waking of who sleeps
// included; of many at once the time for each. And what an operation costs that goes through the ring.
#include "actors/ring_actor.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <thread>

struct to_be_counted {};
struct operations_wanted {
  std::uint32_t count = 0;
};
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(to_be_counted)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(operations_wanted)

namespace {

using namespace memkv::actors;

/// What has been handled so far. It outlives the actors.
using tally = std::atomic<std::uint64_t>;

class on_ring final : public ring_actor {
public:
  on_ring(caf::actor_config& configuration, tally* handled) : ring_actor(configuration), handled_(*handled) {}

private:
  class nothing final : public ring_operation {
  public:
    explicit nothing(tally& handled) : handled_(handled) {}
    void completed(std::int32_t, std::uint32_t) override { ++handled_; }

  private:
    tally& handled_;
  };

  void on_no_ring(const std::string&) override {}
  bool on_start() override { return true; }
  caf::behavior make_handlers() override {
    return {[this](const to_be_counted&) { ++handled_; },
            [this](const operations_wanted& wanted) {
              for (std::uint32_t i = 0; i < wanted.count; ++i)
                io_uring_prep_nop(next_sqe(&nothing_));
            }};
  }

  tally& handled_;
  nothing nothing_{handled_};
};

caf::behavior scheduled(caf::event_based_actor*, tally* handled) {
  return {[handled](const to_be_counted&) { ++*handled; }};
}

void blocking(caf::blocking_actor* self, tally* handled) {
  bool going_on = true;
  self->receive_while(going_on)([handled](const to_be_counted&) { ++*handled; },
                                [&going_on](const caf::exit_msg&) { going_on = false; });
}

/// Sends what `give` sends, and waits until `count` more have been handled.
template <class Give>
void turn(tally& handled, std::uint64_t count, Give give) {
  const std::uint64_t until = handled.load() + count;
  give();
  while (handled.load(std::memory_order_relaxed) < until)
    std::this_thread::yield();
}

template <class Spawn>
void messages(benchmark::State& state, Spawn spawn) {
  tally handled{0};
  caf::actor_system_config configuration;
  // As the server has it.
  configuration.set("scheduler.max-threads", std::size_t{2});
  configuration.set("scheduler.policy", caf::atom("sharing"));
  caf::actor_system system(configuration);
  const auto count = static_cast<std::uint64_t>(state.range(0));
  {
    const caf::actor who = spawn(system, &handled);
    for (auto _ : state)
      turn(handled, count, [&] {
        for (std::uint64_t i = 0; i < count; ++i)
          caf::anon_send(who, to_be_counted{});
      });
    caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void messages_to_ring_actor(benchmark::State& state) {
  messages(state, [](caf::actor_system& system, tally* handled) {
    return caf::actor(system.spawn<on_ring, caf::detached>(handled));
  });
}
BENCHMARK(messages_to_ring_actor)->Arg(1)->Arg(16)->Arg(256)->UseRealTime();

void messages_to_scheduled_actor(benchmark::State& state) {
  messages(state, [](caf::actor_system& system, tally* handled) { return system.spawn(scheduled, handled); });
}
BENCHMARK(messages_to_scheduled_actor)->Arg(1)->Arg(16)->Arg(256)->UseRealTime();

void messages_to_blocking_actor(benchmark::State& state) {
  messages(state, [](caf::actor_system& system, tally* handled) {
    return system.spawn<caf::detached>(blocking, handled);
  });
}
BENCHMARK(messages_to_blocking_actor)->Arg(1)->Arg(16)->Arg(256)->UseRealTime();

void operations_through_the_ring(benchmark::State& state) {
  tally handled{0};
  caf::actor_system_config configuration;
  caf::actor_system system(configuration);
  const auto count = static_cast<std::uint32_t>(state.range(0));
  {
    const caf::actor who = system.spawn<on_ring, caf::detached>(&handled);
    for (auto _ : state)
      turn(handled, count, [&] { caf::anon_send(who, operations_wanted{count}); });
    caf::anon_send_exit(who, caf::exit_reason::user_shutdown);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(operations_through_the_ring)->Arg(1)->Arg(64)->Arg(1024)->UseRealTime();

} // namespace
