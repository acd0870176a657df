// A fabric that takes its time, in front of a simulated one: for actors that must not wait for it.
//
// Threading: gate any thread; slow_to_close as verbs::fabric. Ownership: a gate outlives what waits at it.
#pragma once

#include "verbs/fabric.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace memkv::test {

/// Where others are held up until it opens.
class gate {
public:
  void wait() {
    std::unique_lock guard(lock_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(guard, [this] { return open_; });
    --waiting_;
  }
  void wait(std::chrono::milliseconds most) {
    std::unique_lock guard(lock_);
    changed_.wait_for(guard, most, [this] { return open_; });
  }
  void open() {
    {
      const std::lock_guard guard(lock_);
      open_ = true;
    }
    changed_.notify_all();
  }
  /// Until so many wait at it.
  bool holds_up(unsigned count) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, std::chrono::seconds{20}, [&] { return waiting_ == count; });
  }

private:
  std::mutex lock_;
  std::condition_variable changed_;
  unsigned waiting_ = 0;
  bool open_ = false;
};

/// Does something before the device behind it is closed, and registers memory when a gate opens.
class slow_to_close final : public verbs::fabric {
public:
  slow_to_close(std::unique_ptr<verbs::fabric> behind, std::function<void()> before,
                const std::atomic<std::uint32_t>* left = nullptr, gate* registers = nullptr)
      : behind_(std::move(behind)), before_(std::move(before)), left_(left), registers_(registers) {}
  ~slow_to_close() override { before_(); }
  const verbs::device_facts& facts() const noexcept override { return behind_->facts(); }
  const verbs::path_options& path() const noexcept override { return behind_->path(); }
  verbs::endpoint self() const noexcept override { return behind_->self(); }
  verbs::status register_memory(std::span<std::byte> range, verbs::remote_access access,
                                std::unique_ptr<verbs::memory_region>& out) noexcept override {
    return behind_->register_memory(range, access, out);
  }
  verbs::status start_registration(std::span<std::byte> range, verbs::remote_access access,
                                   std::unique_ptr<verbs::slow_step>& out) noexcept override {
    auto made = std::make_unique<held_up>();
    made->at = registers_;
    auto started = behind_->start_registration(range, access, made->step);
    out = std::move(made);
    return started;
  }
  verbs::status finish_registration(verbs::slow_step& step,
                                    std::unique_ptr<verbs::memory_region>& out) noexcept override {
    return behind_->finish_registration(*static_cast<held_up&>(step).step, out);
  }
  verbs::status register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                 std::uint64_t address, verbs::remote_access access,
                                 std::unique_ptr<verbs::memory_region>& out) noexcept override {
    return behind_->register_dma_buf(descriptor, offset, length, address, access, out);
  }
  verbs::status create_completion_queue(std::uint32_t reports_max,
                                        std::unique_ptr<verbs::completion_queue>& out) noexcept override {
    return behind_->create_completion_queue(reports_max, out);
  }
  verbs::status create_rc(const verbs::queue_pair_options& options,
                          std::unique_ptr<verbs::rc_queue_pair>& out) noexcept override {
    return behind_->create_rc(options, out);
  }
  verbs::status create_dc_initiator(const verbs::queue_pair_options& options,
                                    std::unique_ptr<verbs::dc_initiator>& out) noexcept override {
    return behind_->create_dc_initiator(options, out);
  }
  verbs::status create_dc_target(std::uint64_t key,
                                 std::unique_ptr<verbs::dc_target>& out) noexcept override {
    return behind_->create_dc_target(key, out);
  }
  verbs::status start_address_handle(const verbs::endpoint& peer,
                                     std::unique_ptr<verbs::slow_step>& out) noexcept override {
    return behind_->start_address_handle(peer, out);
  }
  verbs::status finish_address_handle(verbs::slow_step& step,
                                      std::unique_ptr<verbs::address_handle>& out) noexcept override {
    return behind_->finish_address_handle(step, out);
  }
  verbs::fabric_event next_event() noexcept override { return behind_->next_event(); }
  int event_descriptor() const noexcept override { return behind_->event_descriptor(); }
  std::uint32_t queue_pairs_left() const noexcept override { return left_ == nullptr ? 0 : left_->load(); }

private:
  struct held_up final : verbs::slow_step {
    void run() noexcept override {
      if (at != nullptr)
        at->wait();
      step->run();
    }
    gate* at = nullptr;
    std::unique_ptr<verbs::slow_step> step;
  };
  std::unique_ptr<verbs::fabric> behind_;
  std::function<void()> before_;
  const std::atomic<std::uint32_t>* left_;
  gate* registers_;
};

} // namespace memkv::test
