// An actor that waits in its io_uring: messages and completions in one place.
//
// Operation. Derived from caf::blocking_actor, so it has a thread of its own. Senders enqueue as usual; only
// if the actor is parked do they also write its eventfd, of which a read is always armed in the ring. Before
// it parks the actor sets `parked_`, looks at its mailbox once more, and then waits for a completion. The
// ring is made inside the actor's own thread, since IORING_SETUP_SINGLE_ISSUER binds it to the first thread
// that submits.
//
// Threading: everything but enqueue() runs in the actor's thread.
// Ownership: whatever the kernel may still touch belongs to ring_operation objects, and the actor does not
// return from act() before the kernel has given every one of them back. A subclass helps by making them
// complete (shutdown of sockets) in on_stop(). Errors: an exception that reaches the loop, and
// caf::exit_reason::kill, end the actor in the same orderly way; one that on_stop() or a completion throws
// after that ends what threw it, and nothing else.
#pragma once

#include "engine/ring_host.hpp"

#include <caf/blocking_actor.hpp>

#include <liburing.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace memkv::actors {

using engine::ring_operation;

class ring_actor : public caf::blocking_actor, public engine::ring_host {
public:
  explicit ring_actor(caf::actor_config& configuration);
  ~ring_actor() override;

  void enqueue(caf::mailbox_element_ptr message, caf::execution_unit* host) final;
  void act() final;

protected:
  struct settings {
    std::uint32_t entries = 256;        // submission queue; the completion queue has eight times as many
    std::uint64_t tick_ns = 50'000'000; // on_tick() comes at least this often
    /// For how long it polls before it parks; unset: 20 us where more than four cores are there, else not.
    std::optional<std::uint64_t> spin_ns_max{};
  };

  virtual settings ring_settings() const { return {}; }
  /// The kernel gives no ring; the actor ends after this, without on_start(). `problem` is one sentence.
  virtual void on_no_ring(const std::string& problem) = 0;
  /// Called once, in the actor's thread, with the ring there. False ends the actor.
  virtual bool on_start() = 0;
  /// What it does with messages; made once, after on_start().
  virtual caf::behavior make_handlers() = 0;
  /// Called after each round of messages and completions. True: there is more to do at once, do not wait.
  virtual bool on_turn() { return false; }
  virtual void on_tick(std::uint64_t now_ns) { static_cast<void>(now_ns); }
  // For what comes neither as a message nor through the ring.
  /// Called any number of times while it polls before it parks. True: something came, and there is a turn.
  virtual bool look_beside() { return false; }
  /// Called before it parks: from here on a completion in the ring has to tell. False: something came
  /// already, and there is a turn.
  virtual bool arm_beside() { return true; }
  /// When there is to be a turn even if nothing comes, by the steady clock; ~0: at the next tick.
  virtual std::uint64_t next_turn_ns() const { return ~std::uint64_t{0}; }
  /// Begin to stop: no more messages will come; make every operation complete. Called once.
  virtual void on_stop() {}
  /// True when nothing but the ring's own operations keeps it from ending. Asked after on_stop(), each turn,
  /// for at most stop_ns_max.
  virtual bool stopped() { return true; }
  /// Last of all: let go of other actors and of shared objects. The actor object itself may be kept alive by
  /// others for long.
  virtual void on_end() {}

  // ring_host: for a device of the engine that shares this ring, and for the actor itself. In next_sqe() the
  // operation may be null: then its completion is ignored.
  [[nodiscard]] io_uring_sqe* next_sqe(ring_operation* operation) final;
  void turn_ring(bool wait) final;
  [[nodiscard]] io_uring* ring() noexcept final { return ring_.get(); }
  [[nodiscard]] std::uint32_t operations_in_flight() const noexcept { return in_flight_; }

  /// Ends the actor after the current turn.
  void stop(caf::exit_reason reason) noexcept;
  /// The sender of the message that is being handled.
  [[nodiscard]] const caf::strong_actor_ptr& message_sender() const noexcept { return sender_; }
  [[nodiscard]] static std::uint64_t steady_now_ns() noexcept;
  /// The time at which this round began: good enough for limits, and read once a round.
  [[nodiscard]] std::uint64_t round_ns() const noexcept { return round_ns_; }

private:
  class wake_operation;

  bool open_ring();
  void close_ring() noexcept;
  void run();
  void handle_messages(caf::behavior& handlers, unsigned limit);
  void reap();
  void wait(std::uint64_t timeout_ns);
  void arm_wake();

  std::unique_ptr<io_uring> ring_;
  bool ring_open_ = false;
  int event_fd_ = -1;
  std::uint64_t event_value_ = 0;
  std::unique_ptr<wake_operation> wake_;
  std::atomic<bool> parked_{false};
  std::uint32_t in_flight_ = 0;
  bool stopping_ = false;
  caf::exit_reason reason_ = caf::exit_reason::normal;
  caf::strong_actor_ptr sender_;
  std::uint64_t round_ns_ = 0;
  std::uint64_t spin_ns_ = 0;
  std::uint64_t spin_ns_max_ = 0;
};

constexpr std::uint64_t stop_ns_max = 10'000'000'000;

} // namespace memkv::actors
