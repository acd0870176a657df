#include "engine/faulty_device.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <deque>
#include <unistd.h>
#include <utility>
#include <vector>

namespace memkv::engine {

namespace {

/// Pause between two looks at what is held, while nothing else is in flight.
constexpr unsigned look_again_us = 500;

class faulty_device final : public block_device {
public:
  faulty_device(std::unique_ptr<block_device> below, std::shared_ptr<drive_faults> faults, const clock& time)
      : below_(std::move(below)), faults_(std::move(faults)), time_(time) {
    MEMKV_ASSERT(below_->writable_mapping().empty(), "payload passes through a device that has faults");
  }

  ~faulty_device() override { close(); }

  [[nodiscard]] const device_information& information() const noexcept override {
    return below_->information();
  }

  void submit(io_operation& operation) override {
    const bool changes = operation.what != io_operation::kind::read;
    const auto hit = faults_->take(operation.what);
    if ((changes && failed_) || (hit && hit->what == drive_fault::effect::fail)) {
      failed_ = failed_ || changes;
      count(errors_);
      operation.result = errc::io_error;
      refused_.push_back(&operation);
      return;
    }
    if (!hit) {
      below_->submit(operation);
      return;
    }
    auto held = std::make_unique<held_operation>();
    held->outer = &operation;
    held->hit = *hit;
    held->begun_ns = time_.steady_ns();
    held->times_cleared = faults_->times_cleared();
    held->inner = operation;
    held->inner.context = held.get();
    held->inner.done = [](io_operation& inner) {
      static_cast<held_operation*>(inner.context)->came_back = true;
    };
    held_.push_back(std::move(held));
    below_->submit(held_.back()->inner);
  }

  std::size_t poll(bool wait) override {
    while (true) {
      std::size_t done = 0;
      // What `done` submits and refuses waits for the next poll.
      for (auto left = refused_.size(); left > 0; --left) {
        io_operation& operation = *refused_.front();
        refused_.pop_front();
        operation.done(operation);
        ++done;
      }
      if (below_->in_flight() > 0) {
        const auto held_before = returned();
        const auto completed = below_->poll(wait && done == 0 && !any_due());
        done += completed - (returned() - held_before);
      }
      done += release_due();
      if (!wait || done > 0 || in_flight() == 0)
        return done;
      if (below_->in_flight() == 0)
        ::usleep(look_again_us);
    }
  }

  [[nodiscard]] std::size_t in_flight() const noexcept override {
    // Those that came back and are held are no longer in the device below.
    return below_->in_flight() + refused_.size() + returned();
  }

  [[nodiscard]] bool needs_poll() const noexcept override {
    return !refused_.empty() || below_->needs_poll() || any_due();
  }

  [[nodiscard]] device_statistics statistics() const noexcept override {
    auto sum = below_->statistics();
    sum.errors += errors_.load(std::memory_order_relaxed);
    sum.slow += slow_.load(std::memory_order_relaxed);
    sum.slowest_ns = std::max(sum.slowest_ns, slowest_ns_.load(std::memory_order_relaxed));
    return sum;
  }

  [[nodiscard]] std::uint64_t oldest_request_ns() const noexcept override {
    auto oldest = below_->oldest_request_ns();
    if (held_.empty())
      return oldest;
    const auto now = time_.steady_ns();
    for (const auto& each : held_)
      oldest = std::max(oldest, now - std::min(now, each->begun_ns));
    return oldest;
  }

  [[nodiscard]] std::shared_ptr<discarder> make_discarder() override { return below_->make_discarder(); }

  void close() noexcept override {
    while (in_flight() > 0)
      poll(true);
    below_->close();
  }

private:
  struct held_operation {
    io_operation inner; // what the device below works on
    io_operation* outer = nullptr;
    drive_fault hit;
    std::uint64_t begun_ns = 0;
    std::uint64_t times_cleared = 0;
    bool came_back = false;
  };

  [[nodiscard]] std::size_t returned() const noexcept {
    return static_cast<std::size_t>(
        std::count_if(held_.begin(), held_.end(), [](const auto& each) { return each->came_back; }));
  }

  [[nodiscard]] bool is_due(const held_operation& held, std::uint64_t now_ns) const noexcept {
    if (!held.came_back)
      return false;
    if (held.hit.what == drive_fault::effect::corrupt || held.times_cleared != faults_->times_cleared())
      return true;
    const bool for_ever = held.hit.what == drive_fault::effect::hang && held.hit.ns == 0;
    return !for_ever && now_ns - held.begun_ns >= held.hit.ns;
  }

  [[nodiscard]] bool any_due() const noexcept {
    if (held_.empty())
      return false;
    const auto now = time_.steady_ns();
    return std::any_of(held_.begin(), held_.end(), [&](const auto& each) { return is_due(*each, now); });
  }

  std::size_t release_due() {
    if (held_.empty())
      return 0;
    const auto now = time_.steady_ns();
    // Taken out first: `done` may submit more.
    std::vector<std::unique_ptr<held_operation>> due;
    for (auto at = held_.begin(); at != held_.end();) {
      if (is_due(**at, now)) {
        due.push_back(std::move(*at));
        at = held_.erase(at);
      } else {
        ++at;
      }
    }
    for (const auto& each : due)
      finish(*each, now);
    return due.size();
  }

  void finish(const held_operation& held, std::uint64_t now_ns) {
    auto& operation = *held.outer;
    operation.result = held.inner.result;
    if (held.hit.what == drive_fault::effect::corrupt) {
      if (operation.result == errc::ok && operation.length > 0)
        flip_a_bit(operation);
    } else {
      const auto took = now_ns - held.begun_ns;
      if (took > slow_request_ns)
        count(slow_);
      if (took > slowest_ns_.load(std::memory_order_relaxed))
        slowest_ns_.store(took, std::memory_order_relaxed);
    }
    if (operation.result != errc::ok && operation.what != io_operation::kind::read)
      failed_ = true;
    operation.done(operation);
  }

  void flip_a_bit(io_operation& operation) noexcept {
    // Anywhere, and elsewhere each time: splitmix64.
    spoilt_ += 0x9E3779B97F4A7C15U;
    std::uint64_t mixed = (spoilt_ ^ (spoilt_ >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    mixed ^= mixed >> 31;
    const auto bit = mixed % (operation.length * 8);
    operation.data[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
  }

  static void count(std::atomic<std::uint64_t>& counter) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  std::unique_ptr<block_device> below_;
  std::shared_ptr<drive_faults> faults_;
  const clock& time_;
  std::deque<io_operation*> refused_;
  std::vector<std::unique_ptr<held_operation>> held_;
  std::uint64_t spoilt_ = 0;
  bool failed_ = false;
  std::atomic<std::uint64_t> errors_{0}, slow_{0}, slowest_ns_{0};
};

} // namespace

std::unique_ptr<block_device> make_faulty_device(std::unique_ptr<block_device> below,
                                                 std::shared_ptr<drive_faults> faults, const clock& time) {
  return std::make_unique<faulty_device>(std::move(below), std::move(faults), time);
}

} // namespace memkv::engine
