#include "actors/ring_actor.hpp"

#include "actors/fault_points.hpp"
#include "actors/log.hpp"
#include "wire/assert.hpp"

#include <caf/behavior.hpp>
#include <caf/exit_reason.hpp>
#include <caf/system_messages.hpp>

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace memkv::actors {

namespace {
constexpr const char* target = "memkv::ring";
constexpr unsigned messages_a_turn = 256;
} // namespace

/// The read of the eventfd that senders write when the actor is parked.
class ring_actor::wake_operation final : public ring_operation {
public:
  explicit wake_operation(ring_actor& owner) : owner_(owner) {}
  void completed(std::int32_t, std::uint32_t) override { owner_.arm_wake(); }

private:
  ring_actor& owner_;
};

ring_actor::ring_actor(caf::actor_config& configuration)
    : caf::blocking_actor(configuration), ring_(std::make_unique<io_uring>()),
      event_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), wake_(std::make_unique<wake_operation>(*this)) {
  // Polling before parking pays only where a core is free to do it.
  const auto cores = std::thread::hardware_concurrency();
  spin_ns_max_ = cores > 4 ? 20'000 : 0;
  spin_ns_ = spin_ns_max_ / 4;
}

ring_actor::~ring_actor() {
  if (event_fd_ >= 0)
    ::close(event_fd_);
}

std::uint64_t ring_actor::steady_now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

void ring_actor::enqueue(caf::mailbox_element_ptr message, caf::execution_unit* host) {
  caf::blocking_actor::enqueue(std::move(message), host);
  // Sequentially consistent with wait(): either the actor sees the message, or we see that it parks.
  if (parked_.load() && parked_.exchange(false)) {
    const std::uint64_t one = 1;
    // The counter cannot overflow: one write for each time the actor parks.
    [[maybe_unused]] const auto written = ::write(event_fd_, &one, sizeof one);
  }
}

void ring_actor::stop(caf::exit_reason reason) noexcept {
  if (!stopping_) {
    stopping_ = true;
    reason_ = reason;
  }
}

bool ring_actor::open_ring() {
  io_uring_params parameters{};
  const auto wanted = ring_settings();
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE;
  parameters.cq_entries = wanted.entries * 8;
  if (wanted.spin_ns_max) {
    spin_ns_max_ = *wanted.spin_ns_max;
    spin_ns_ = spin_ns_max_ / 4;
  }
  const int rc = io_uring_queue_init_params(wanted.entries, ring_.get(), &parameters);
  if (rc < 0) {
    const int code = rc == -1 ? EPERM : -rc;
    on_no_ring(std::string{"io_uring is not available ("} + std::strerror(code) +
               "): allow io_uring_setup in the container's seccomp profile and check "
               "/proc/sys/kernel/io_uring_disabled");
    return false;
  }
  ring_open_ = true;
  // Each system call then finds the ring without taking and giving back a reference, which threads share. A
  // ring that cannot be registered works as well.
  io_uring_register_ring_fd(ring_.get());
  arm_wake();
  return true;
}

void ring_actor::close_ring() noexcept {
  if (ring_open_) {
    ring_open_ = false;
    // Ends the armed read too; the kernel waits for what it still owns.
    io_uring_queue_exit(ring_.get());
  }
}

void ring_actor::arm_wake() {
  auto* sqe = next_sqe(wake_.get());
  --in_flight_; // the wake-up is always armed and not counted
  io_uring_prep_read(sqe, event_fd_, &event_value_, sizeof event_value_, 0);
}

io_uring_sqe* ring_actor::next_sqe(ring_operation* operation) {
  auto* sqe = io_uring_get_sqe(ring_.get());
  while (sqe == nullptr) {
    // EINTR, EAGAIN and EBUSY mean that completions must be taken first or that nothing was taken yet: go on.
    const int rc = io_uring_submit(ring_.get());
    MEMKV_ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY, "the ring accepts submissions");
    sqe = io_uring_get_sqe(ring_.get());
  }
  // The io_uring_prep functions of liburing 2.3 leave the user data alone, so it may be set before them.
  io_uring_sqe_set_data(sqe, operation);
  ++in_flight_;
  return sqe;
}

void ring_actor::handle_messages(caf::behavior& handlers, unsigned limit) {
  for (unsigned handled = 0; handled < limit && !stopping_; ++handled) {
    if (!has_next_message())
      break;
    auto element = dequeue();
    sender_ = element->sender;
    auto& content = element->content();
    if (content.match_elements<caf::exit_msg>()) {
      const auto& message = content.get_as<caf::exit_msg>(0);
      stop(message.reason == caf::exit_reason::kill ? caf::exit_reason::kill
                                                    : caf::exit_reason::user_shutdown);
      break;
    }
    if (handlers(content))
      continue;
    if (content.match_elements<act_up>())
      carry_out(content.get_as<act_up>(0));
    else
      log::warn(target, "a message of an unknown kind was dropped by " + std::string{name()});
  }
  sender_ = nullptr;
}

void ring_actor::reap() {
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(ring_.get(), &cqe) == 0 && cqe != nullptr) {
    auto* operation = static_cast<ring_operation*>(io_uring_cqe_get_data(cqe));
    const auto result = cqe->res;
    const auto flags = cqe->flags;
    io_uring_cqe_seen(ring_.get(), cqe);
    if (operation != wake_.get() && (flags & IORING_CQE_F_MORE) == 0)
      --in_flight_;
    if (operation != nullptr)
      operation->completed(result, flags);
  }
}

void ring_actor::turn_ring(bool wait) {
  const int rc =
      wait ? io_uring_submit_and_wait(ring_.get(), 1) : io_uring_submit_and_get_events(ring_.get());
  MEMKV_ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY, "the ring accepts submissions");
  reap();
}

void ring_actor::wait(std::uint64_t timeout_ns) {
  if (spin_ns_ > 0 && timeout_ns > 0) {
    const auto end = steady_now_ns() + spin_ns_;
    do {
      io_uring_submit_and_get_events(ring_.get());
      if (io_uring_cq_ready(ring_.get()) > 0 || has_next_message() || look_beside()) {
        spin_ns_ = std::min(spin_ns_max_, spin_ns_ + spin_ns_ / 4 + 200);
        return;
      }
    } while (steady_now_ns() < end);
    spin_ns_ = std::max<std::uint64_t>(spin_ns_ / 2, 200);
  }
  if (timeout_ns > 0 && !arm_beside())
    timeout_ns = 0;
  parked_.store(true);
  if (has_next_message()) {
    parked_.store(false);
    timeout_ns = 0;
  }
  __kernel_timespec timeout{};
  timeout.tv_sec = static_cast<long long>(timeout_ns / 1'000'000'000);
  timeout.tv_nsec = static_cast<long long>(timeout_ns % 1'000'000'000);
  if (timeout_ns == 0) {
    io_uring_submit_and_get_events(ring_.get());
  } else {
    io_uring_cqe* cqe = nullptr;
    const int rc = io_uring_submit_and_wait_timeout(ring_.get(), &cqe, 1, &timeout, nullptr);
    MEMKV_ASSERT(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY,
                 "waiting for completions works");
  }
  parked_.store(false);
}

void ring_actor::run() {
  auto handlers = make_handlers();
  const auto tick = ring_settings().tick_ns;
  round_ns_ = steady_now_ns();
  auto next_tick = round_ns_ + tick;
  while (!stopping_) {
    handle_messages(handlers, messages_a_turn);
    reap();
    if (stopping_)
      break;
    const bool more = on_turn();
    if (round_ns_ >= next_tick) {
      on_tick(round_ns_);
      next_tick = round_ns_ + tick;
    }
    // What this round began is handed to the kernel and waited for in one system call: it returns at once
    // when something is there already.
    const auto until = std::min(next_tick, next_turn_ns());
    wait(more || until <= round_ns_ ? 0 : until - round_ns_);
    round_ns_ = steady_now_ns();
  }
}

void ring_actor::act() {
  if (event_fd_ < 0)
    on_no_ring("no eventfd can be made: raise the limit on open files");
  if (event_fd_ < 0 || !open_ring()) {
    on_end();
    fail_state(caf::exit_reason::unhandled_exception);
    return;
  }
  try {
    if (on_start())
      run();
    else
      stop(caf::exit_reason::user_shutdown);
  } catch (const std::exception& problem) {
    log::error(target, std::string{"an exception ended an actor: "} + problem.what());
    stop(caf::exit_reason::unhandled_exception);
  }
  stopping_ = true;
  // Whatever is thrown from here on: nothing may be left with the kernel.
  const auto guarded = [this](auto step) {
    try {
      return step();
    } catch (const std::exception& problem) {
      log::error(target, std::string{"an exception while an actor ended: "} + problem.what());
      if (reason_ != caf::exit_reason::kill)
        reason_ = caf::exit_reason::unhandled_exception;
      return false;
    }
  };
  guarded([this] {
    on_stop();
    return true;
  });
  const auto end = steady_now_ns() + stop_ns_max;
  while ((in_flight_ > 0 || !guarded([this] { return stopped(); })) && steady_now_ns() < end)
    guarded([this] {
      wait(1'000'000);
      reap();
      return true;
    });
  close_ring();
  on_end();
  if (reason_ != caf::exit_reason::normal)
    fail_state(reason_);
}

} // namespace memkv::actors
