// A simulated network for several threads, whose time passes by itself: for actors that own a fabric each.
//
// Each call on a fabric, and on what it made, is made under one lock; a thread of the network's own advances
// its clock with the real one. hold() stops the network's time, so that what was posted stays in flight.
//
// Ownership: outlives its fabrics.
#pragma once

#include "verbs/simulated_fabric.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace memkv::test {

class shared_network {
public:
  explicit shared_network(const verbs::simulated_network_options& options = {}) : network_(options) {
    driver_ = std::thread([this] { drive(); });
  }
  ~shared_network() {
    {
      const std::lock_guard guard(lock_);
      ended_ = true;
    }
    changed_.notify_all();
    driver_.join();
  }
  shared_network(const shared_network&) = delete;
  shared_network& operator=(const shared_network&) = delete;

  /// Of several nodes with one name the last one is meant below.
  [[nodiscard]] std::unique_ptr<verbs::fabric> create_node(const verbs::simulated_node_options& options) {
    const std::lock_guard guard(lock_);
    return std::make_unique<locked_fabric>(*this, options.name, network_.create_node(options));
  }

  void hold(bool held = true) {
    const std::lock_guard guard(lock_);
    held_ = held;
  }
  /// Everything that is left to happen, whether it is held or not.
  void settle() {
    const std::lock_guard guard(lock_);
    network_.settle();
  }
  /// As if the device had been taken away. False: there is none of that name.
  bool kill(const std::string& name) {
    const std::lock_guard guard(lock_);
    const auto found = nodes_.find(name);
    if (found != nodes_.end())
      network_.kill(*found->second);
    return found != nodes_.end();
  }
  /// What finding the way to a peer waits for, from now on; not called under the lock.
  void set_way_taking(std::function<void(const verbs::endpoint& peer)> wait) {
    const std::lock_guard guard(lock_);
    network_.set_way_taking(std::move(wait));
  }
  void withhold_reports(const std::string& name) {
    const std::lock_guard guard(lock_);
    for (const auto number : pairs_[name])
      network_.withhold_reports(number);
  }
  [[nodiscard]] bool in_use(const void* address, std::uint64_t length) {
    const std::lock_guard guard(lock_);
    return network_.in_use(address, length);
  }
  [[nodiscard]] std::vector<std::string> misuse() {
    const std::lock_guard guard(lock_);
    return network_.misuse();
  }
  [[nodiscard]] verbs::simulated_statistics statistics() {
    const std::lock_guard guard(lock_);
    return network_.statistics();
  }

private:
  /// Something that a fabric made; it goes under the lock.
  template <class Base>
  class locked : public Base {
  public:
    locked(shared_network& network, std::unique_ptr<Base> inner)
        : network_(network), inner_(std::move(inner)) {}
    ~locked() override {
      const std::lock_guard guard(network_.lock_);
      inner_.reset();
    }
    [[nodiscard]] Base* inner() const noexcept { return inner_.get(); }

  protected:
    shared_network& network_;
    std::unique_ptr<Base> inner_;
  };

  class locked_region final : public locked<verbs::memory_region> {
  public:
    using locked::locked;
    std::uint64_t address() const noexcept override { return inner_->address(); }
    std::uint64_t length() const noexcept override { return inner_->length(); }
    std::uint32_t lkey() const noexcept override { return inner_->lkey(); }
    std::uint32_t rkey() const noexcept override { return inner_->rkey(); }
  };

  class locked_handle final : public locked<verbs::address_handle> {
  public:
    using locked::locked;
  };

  class locked_target final : public locked<verbs::dc_target> {
  public:
    using locked::locked;
    std::uint32_t number() const noexcept override { return inner_->number(); }
    std::uint64_t key() const noexcept override { return inner_->key(); }
  };

  class locked_completions final : public locked<verbs::completion_queue> {
  public:
    using locked::locked;
    std::size_t poll(std::span<verbs::report> out) noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->poll(out);
    }
    verbs::status arm() noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->arm();
    }
    int event_descriptor() const noexcept override { return inner_->event_descriptor(); }
    void acknowledge() noexcept override {
      const std::lock_guard guard(network_.lock_);
      inner_->acknowledge();
    }
  };

  template <class Base>
  class locked_pair : public locked<Base> {
  public:
    using locked<Base>::locked;
    std::uint32_t number() const noexcept override { return this->inner_->number(); }
    verbs::queue_pair_state state() const noexcept override {
      const std::lock_guard guard(this->network_.lock_);
      return this->inner_->state();
    }
    std::uint32_t outstanding() const noexcept override {
      const std::lock_guard guard(this->network_.lock_);
      return this->inner_->outstanding();
    }
    std::uint32_t sends_free() const noexcept override {
      const std::lock_guard guard(this->network_.lock_);
      return this->inner_->sends_free();
    }
    verbs::post_result post(std::span<const verbs::work_request> batch) noexcept override {
      std::vector<verbs::work_request> requests(batch.begin(), batch.end());
      std::vector<verbs::dc_address> targets(batch.size());
      for (std::size_t index = 0; index < batch.size(); ++index)
        if (batch[index].target != nullptr) {
          targets[index] = *batch[index].target;
          targets[index].handle = static_cast<const locked_handle*>(targets[index].handle)->inner();
          requests[index].target = &targets[index];
        }
      const std::lock_guard guard(this->network_.lock_);
      return this->inner_->post(requests);
    }
    void fail() noexcept override {
      const std::lock_guard guard(this->network_.lock_);
      this->inner_->fail();
    }
  };

  class locked_initiator final : public locked_pair<verbs::dc_initiator> {
  public:
    using locked_pair::locked_pair;
    verbs::status recover() noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->recover();
    }
  };

  class locked_rc final : public locked_pair<verbs::rc_queue_pair> {
  public:
    using locked_pair::locked_pair;
    verbs::rc_address address() const noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->address();
    }
    verbs::status start_connect(const verbs::rc_address& peer,
                                std::unique_ptr<verbs::slow_step>& out) noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->start_connect(peer, out);
    }
    verbs::status finish_connect(verbs::slow_step& step) noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->finish_connect(step);
    }
    verbs::post_result post_receives(std::span<const verbs::receive_request> batch) noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->post_receives(batch);
    }
    verbs::status reset() noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->reset();
    }
  };

  class locked_fabric final : public verbs::fabric {
  public:
    /// The lock is held.
    locked_fabric(shared_network& network, std::string name, std::unique_ptr<verbs::fabric> inner)
        : network_(network), name_(std::move(name)), inner_(std::move(inner)) {
      network_.nodes_[name_] = inner_.get();
      network_.pairs_[name_].clear();
    }
    ~locked_fabric() override {
      const std::lock_guard guard(network_.lock_);
      if (const auto found = network_.nodes_.find(name_);
          found != network_.nodes_.end() && found->second == inner_.get())
        network_.nodes_.erase(found);
      inner_.reset();
    }
    const verbs::device_facts& facts() const noexcept override { return inner_->facts(); }
    const verbs::path_options& path() const noexcept override { return inner_->path(); }
    verbs::endpoint self() const noexcept override { return inner_->self(); }
    verbs::status register_memory(std::span<std::byte> range, verbs::remote_access access,
                                  std::unique_ptr<verbs::memory_region>& out) noexcept override {
      return make<locked_region>(out,
                                 [&](auto& made) { return inner_->register_memory(range, access, made); });
    }
    verbs::status register_dma_buf(int descriptor, std::uint64_t offset, std::uint64_t length,
                                   std::uint64_t address, verbs::remote_access access,
                                   std::unique_ptr<verbs::memory_region>& out) noexcept override {
      return make<locked_region>(out, [&](auto& made) {
        return inner_->register_dma_buf(descriptor, offset, length, address, access, made);
      });
    }
    verbs::status create_completion_queue(std::uint32_t reports_max,
                                          std::unique_ptr<verbs::completion_queue>& out) noexcept override {
      return make<locked_completions>(
          out, [&](auto& made) { return inner_->create_completion_queue(reports_max, made); });
    }
    verbs::status create_rc(const verbs::queue_pair_options& options,
                            std::unique_ptr<verbs::rc_queue_pair>& out) noexcept override {
      return make<locked_rc>(
          out, [&](auto& made) { return noted(inner_->create_rc(unwrap(options), made), made); });
    }
    verbs::status create_dc_initiator(const verbs::queue_pair_options& options,
                                      std::unique_ptr<verbs::dc_initiator>& out) noexcept override {
      return make<locked_initiator>(
          out, [&](auto& made) { return noted(inner_->create_dc_initiator(unwrap(options), made), made); });
    }
    verbs::status create_dc_target(std::uint64_t key,
                                   std::unique_ptr<verbs::dc_target>& out) noexcept override {
      return make<locked_target>(out, [&](auto& made) { return inner_->create_dc_target(key, made); });
    }
    verbs::status start_address_handle(const verbs::endpoint& peer,
                                       std::unique_ptr<verbs::slow_step>& out) noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->start_address_handle(peer, out);
    }
    verbs::status finish_address_handle(verbs::slow_step& step,
                                        std::unique_ptr<verbs::address_handle>& out) noexcept override {
      return make<locked_handle>(out, [&](auto& made) { return inner_->finish_address_handle(step, made); });
    }
    verbs::fabric_event next_event() noexcept override {
      const std::lock_guard guard(network_.lock_);
      return inner_->next_event();
    }
    int event_descriptor() const noexcept override { return inner_->event_descriptor(); }

  private:
    template <class Locked, class Base, class Function>
    verbs::status make(std::unique_ptr<Base>& out, Function&& function) {
      std::unique_ptr<Base> made;
      const std::lock_guard guard(network_.lock_);
      auto outcome = function(made);
      if (outcome.ok())
        out = std::make_unique<Locked>(network_, std::move(made));
      return outcome;
    }
    template <class Pair>
    verbs::status noted(verbs::status outcome, const std::unique_ptr<Pair>& made) {
      if (outcome.ok())
        network_.pairs_[name_].push_back(made->number());
      return outcome;
    }
    static verbs::queue_pair_options unwrap(verbs::queue_pair_options options) {
      options.completions = static_cast<locked_completions*>(options.completions)->inner();
      return options;
    }

    shared_network& network_;
    std::string name_;
    std::unique_ptr<verbs::fabric> inner_;
  };

  void drive() {
    std::unique_lock guard(lock_);
    auto last = std::chrono::steady_clock::now();
    while (!ended_) {
      changed_.wait_for(guard, std::chrono::microseconds{50});
      const auto now = std::chrono::steady_clock::now();
      const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(now - last).count();
      last = now;
      if (!held_)
        network_.advance(static_cast<std::uint64_t>(std::max<std::int64_t>(passed, 0)));
    }
  }

  std::mutex lock_;
  std::condition_variable changed_;
  verbs::simulated_network network_;
  std::map<std::string, verbs::fabric*> nodes_;
  std::map<std::string, std::vector<std::uint32_t>> pairs_; // numbers of the queue pairs ever made
  bool held_ = false;
  bool ended_ = false;
  std::thread driver_;
};

} // namespace memkv::test
