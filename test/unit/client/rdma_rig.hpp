// A client, a fake server and a simulated network between their RDMA devices, for the tests of both.
//
// A file that includes this defines CAF_SUITE first.
#pragma once

#include "client/client.hpp"
#include "test/unit/client/fake_rdma.hpp"
#include "test/unit/client/fake_server.hpp"

#include <caf/test/unit_test.hpp>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

namespace rdma_test {

using namespace memkv;
using client::errc;
using client::item_result;
using client::registered_memory;
using client::transport_choice;
using test::fake_rdma;
using test::fake_server;
using test::shared_network;
using wire::opcode;

using bytes = std::vector<std::byte>;

inline constexpr std::byte poison{0xA7};

inline bytes filled(std::size_t length, unsigned first) {
  bytes result(length);
  for (std::size_t i = 0; i < length; ++i) {
    result[i] = static_cast<std::byte>((first + i * 7 + i / 251) & 0xFFU);
  }
  return result;
}

inline bool holds_poison(std::span<const std::byte> memory) {
  return std::all_of(memory.begin(), memory.end(), [](std::byte one) { return one == poison; });
}

inline std::uint64_t test_seed() {
  const char* chosen = std::getenv("MEMKV_TEST_SEED");
  return chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device{}();
}

template <class Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 60'000; ++i) {
    if (condition()) {
      return true;
    }
    ::poll(nullptr, 0, 1);
  }
  return false;
}

inline verbs::simulated_node_options node(const std::string& name, bool dc) {
  verbs::simulated_node_options options;
  options.name = name;
  options.dc = dc;
  return options;
}

/// A device that takes memory of others by dma-buf, whose port can go down, and that may leave queue pairs.
class gifted_fabric final : public verbs::fabric {
public:
  /// The port goes down when something is written to the eventfd.
  gifted_fabric(std::unique_ptr<verbs::fabric> inner, int event_fd)
      : inner_(std::move(inner)), event_fd_(event_fd) {}
  const verbs::device_facts& facts() const noexcept override { return inner_->facts(); }
  const verbs::path_options& path() const noexcept override { return inner_->path(); }
  verbs::endpoint self() const noexcept override { return inner_->self(); }
  verbs::status register_memory(std::span<std::byte> range, verbs::remote_access access,
                                std::unique_ptr<verbs::memory_region>& out) noexcept override {
    return inner_->register_memory(range, access, out);
  }
  verbs::status register_dma_buf(int, std::uint64_t, std::uint64_t length, std::uint64_t address,
                                 verbs::remote_access access,
                                 std::unique_ptr<verbs::memory_region>& out) noexcept override {
    return inner_->register_memory({reinterpret_cast<std::byte*>(address), length}, access, out);
  }
  verbs::status create_completion_queue(std::uint32_t reports_max,
                                        std::unique_ptr<verbs::completion_queue>& out) noexcept override {
    return inner_->create_completion_queue(reports_max, out);
  }
  verbs::status create_rc(const verbs::queue_pair_options& options,
                          std::unique_ptr<verbs::rc_queue_pair>& out) noexcept override {
    return inner_->create_rc(options, out);
  }
  verbs::status create_dc_initiator(const verbs::queue_pair_options& options,
                                    std::unique_ptr<verbs::dc_initiator>& out) noexcept override {
    return inner_->create_dc_initiator(options, out);
  }
  verbs::status create_dc_target(std::uint64_t key,
                                 std::unique_ptr<verbs::dc_target>& out) noexcept override {
    return inner_->create_dc_target(key, out);
  }
  verbs::status start_address_handle(const verbs::endpoint& peer,
                                     std::unique_ptr<verbs::slow_step>& out) noexcept override {
    return inner_->start_address_handle(peer, out);
  }
  verbs::status finish_address_handle(verbs::slow_step& step,
                                      std::unique_ptr<verbs::address_handle>& out) noexcept override {
    return inner_->finish_address_handle(step, out);
  }
  verbs::fabric_event next_event() noexcept override {
    std::uint64_t count = 0;
    return ::read(event_fd_, &count, sizeof count) == sizeof count ? verbs::fabric_event::port_down
                                                                   : verbs::fabric_event::none;
  }
  int event_descriptor() const noexcept override { return event_fd_; }
  std::uint32_t queue_pairs_left() const noexcept override { return left_ == nullptr ? 0 : left_->load(); }
  /// Says how many it would not destroy.
  void leave(const std::atomic<std::uint32_t>& left) { left_ = &left; }

private:
  std::unique_ptr<verbs::fabric> inner_;
  int event_fd_;
  const std::atomic<std::uint32_t>* left_ = nullptr;
};

/// What a client logged.
struct log_lines {
  std::mutex mutex;
  std::vector<std::string> lines;
  std::size_t warnings() {
    const std::lock_guard lock(mutex);
    return static_cast<std::size_t>(std::count_if(
        lines.begin(), lines.end(), [](const std::string& line) { return line.starts_with("WARN RDMA"); }));
  }
};

/// A server with RDMA and a client with one device, on one simulated network.
struct rig {
  shared_network network;
  fake_rdma rdma{network, node("server", true)};
  fake_server server;
  log_lines log;
  std::unique_ptr<client::client> kv;

  client::options options(transport_choice transport) {
    client::options chosen;
    chosen.servers = {server.address()};
    chosen.transport = transport;
    chosen.auth_key = wire::shared_key::parse(fake_server::default_key);
    chosen.num_connections = 1;
    chosen.seed = 7;
    chosen.rdma_devices = {"sim0"};
    chosen.rdma_staging_mb = 16;
    chosen.rdma_messages = false; // which the tests of messages turn on
    chosen.log = [this](std::string_view line) {
      const std::lock_guard lock(log.mutex);
      log.lines.emplace_back(line);
    };
    chosen.open_fabric = [this](const std::string& name, std::unique_ptr<verbs::fabric>& made) {
      made = network.create_node(node(name, client_dc));
      return client::status{};
    };
    return chosen;
  }
  void make(client::options chosen) {
    client::status problem;
    kv = client::client::make(std::move(chosen), problem);
    CAF_REQUIRE_EQUAL(problem.text, "");
  }
  explicit rig(transport_choice transport, bool dc = false) : client_dc(dc) {
    server.rdma = &rdma;
    server.start();
    make(options(transport));
  }
  ~rig() {
    network.hold(false);
    kv.reset();
    CAF_CHECK(comes_true([&] { return rdma.sessions() == 0; }));
    server.stop();
    CAF_CHECK(network.misuse().empty());
  }
  registered_memory known(std::span<std::byte> range) {
    registered_memory memory;
    CAF_REQUIRE_EQUAL(kv->register_memory(range, memory).text, "");
    return memory;
  }
  bool client_dc = false;
};

inline constexpr std::size_t sizes[] = {0, 1, 4096, 65536, 1048576, 4194305};

} // namespace rdma_test
