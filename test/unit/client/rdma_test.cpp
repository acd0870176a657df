#define CAF_SUITE client_rdma

#include "client/client.hpp"
#include "test/unit/client/fake_rdma.hpp"
#include "test/unit/client/fake_server.hpp"

#include <caf/test/unit_test.hpp>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

using namespace memkv;
using client::errc;
using client::item_result;
using client::registered_memory;
using client::transport_choice;
using test::fake_rdma;
using test::fake_server;
using test::shared_network;
using wire::opcode;

namespace {

using bytes = std::vector<std::byte>;

constexpr std::byte poison{0xA7};

bytes filled(std::size_t length, unsigned first) {
  bytes result(length);
  for (std::size_t i = 0; i < length; ++i) {
    result[i] = static_cast<std::byte>((first + i * 7 + i / 251) & 0xFFU);
  }
  return result;
}

bool holds_poison(std::span<const std::byte> memory) {
  return std::all_of(memory.begin(), memory.end(), [](std::byte one) { return one == poison; });
}

template <class Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 10'000; ++i) {
    if (condition()) {
      return true;
    }
    ::poll(nullptr, 0, 1);
  }
  return false;
}

verbs::simulated_node_options node(const std::string& name, bool dc) {
  verbs::simulated_node_options options;
  options.name = name;
  options.dc = dc;
  return options;
}

/// A device that takes memory of others by dma-buf, and whose port can go down.
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
  verbs::status create_address_handle(const verbs::endpoint& peer,
                                      std::unique_ptr<verbs::address_handle>& out) noexcept override {
    return inner_->create_address_handle(peer, out);
  }
  verbs::fabric_event next_event() noexcept override {
    std::uint64_t count = 0;
    return ::read(event_fd_, &count, sizeof count) == sizeof count ? verbs::fabric_event::port_down
                                                                   : verbs::fabric_event::none;
  }
  int event_descriptor() const noexcept override { return event_fd_; }

private:
  std::unique_ptr<verbs::fabric> inner_;
  int event_fd_;
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

const std::size_t sizes[] = {0, 1, 4096, 65536, 1048576, 4194305};

} // namespace

CAF_TEST(values travel from and to registered memory without TCP carrying them) {
  for (const bool dc : {false, true}) {
    rig one(transport_choice::rdma, dc);
    for (const std::size_t length : sizes) {
      bytes value = filled(length + 1, static_cast<unsigned>(length));
      bytes target(length + 1, poison);
      const registered_memory from = one.known(value);
      const registered_memory to = one.known(target);
      CAF_CHECK_EQUAL(one.kv->put("key", std::span(value).first(length)).code, errc::ok);
      const item_result got = one.kv->get("key", std::span(target).first(length));
      CAF_CHECK_EQUAL(got.code, errc::ok);
      CAF_CHECK_EQUAL(got.length, length);
      CAF_CHECK(std::equal(value.begin(), value.end() - 1, target.begin()));
      CAF_CHECK_EQUAL(target.back(), poison);
    }
    CAF_CHECK_EQUAL(one.rdma.attached.load(), 1u);
    CAF_CHECK_EQUAL(one.rdma.attached_dc.load(), dc ? 1u : 0u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put) + one.server.requests(opcode::tcp_get), 0u);
    CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 0u);
    CAF_CHECK(one.kv->count().rdma_value_bytes > 8'000'000u);
    CAF_CHECK(one.kv->count().rdma_in_use);
  }
}

CAF_TEST(a server that does not want a DC target is given a queue pair) {
  rig one(transport_choice::rdma, true);
  one.rdma.takes_dc = false;
  const bytes value = filled(5000, 1);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.rdma.attached_dc.load(), 0u);
  CAF_CHECK_EQUAL(one.rdma.attached.load(), 1u);
  CAF_CHECK_EQUAL(one.kv->count().rdma_failures, 0u);
}

CAF_TEST(keyed digests are made and checked over RDMA) {
  rig one(transport_choice::rdma);
  one.server.keyed_required = true;
  const bytes value = filled(100'000, 1);
  bytes target(100'000);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
  one.rdma.damage_reads = true;
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::digest_mismatch);
}

CAF_TEST(values outside registered memory are copied through the staging area with transport rdma) {
  rig one(transport_choice::rdma);
  for (const std::size_t length : sizes) {
    const bytes value = filled(length, 5);
    bytes target(length + 1, poison);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    const item_result got = one.kv->get("key", target);
    CAF_CHECK_EQUAL(got.code, errc::ok);
    CAF_CHECK_EQUAL(got.length, length);
    CAF_CHECK(std::equal(value.begin(), value.end(), target.begin()));
    CAF_CHECK_EQUAL(target.back(), poison);
  }
  const bytes large(17U << 20U);
  CAF_CHECK_EQUAL(one.kv->put("large", large).code, errc::memory_not_registered);
  CAF_CHECK_EQUAL(one.kv->count().rdma_value_bytes, 0u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put) + one.server.requests(opcode::tcp_get), 0u);
}

CAF_TEST(many threads share a staging area that is too small for all of them) {
  rig one(transport_choice::rdma);
  auto chosen = one.options(transport_choice::rdma);
  chosen.rdma_staging_mb = 4;
  chosen.num_connections = 3;
  one.make(std::move(chosen));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 8; ++i) {
        const std::string key = std::to_string(t) + "/" + std::to_string(i);
        const bytes value = filled(700'000 + t * 500'000, t + i);
        bytes target(value.size());
        wrong += one.kv->put(key, value).code == errc::ok ? 0 : 1;
        wrong += one.kv->get(key, target).code == errc::ok && target == value ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CAF_CHECK_EQUAL(wrong.load(), 0);
}

CAF_TEST(a thousand small values in registered memory are one control message) {
  rig one(transport_choice::automatic);
  constexpr std::size_t count = 1000;
  bytes memory = filled(count * 4096, 3);
  bytes targets(count * 4096 + 1'000'000);
  const registered_memory from = one.known(memory);
  const registered_memory to = one.known(targets);
  std::vector<std::string> keys;
  std::vector<client::put_item> puts;
  std::vector<client::get_item> gets;
  for (std::size_t i = 0; i < count; ++i) {
    keys.push_back("block-" + std::to_string(i));
  }
  for (std::size_t i = 0; i < count; ++i) {
    puts.push_back({keys[i], std::span(memory).subspan(i * 4096, 4096)});
    gets.push_back({keys[i], std::span(targets).subspan(i * 4096, 4096)});
  }
  // A large one shares the message.
  const bytes large = filled(1'000'000, 9);
  CAF_CHECK_EQUAL(one.kv->put("large", large).code, errc::ok);
  gets.push_back({"large", std::span(targets).last(1'000'000)});
  std::vector<item_result> results(count);
  CAF_CHECK_EQUAL(one.kv->put(puts, results), errc::ok);
  results.resize(count + 1);
  CAF_CHECK_EQUAL(one.kv->get(gets, results), errc::ok);
  CAF_CHECK(std::equal(memory.begin(), memory.end(), targets.begin()));
  CAF_CHECK(std::equal(large.begin(), large.end(), targets.end() - 1'000'000));
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 1u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::batch_read), 1u);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 1u); // `large` was not in registered memory
  CAF_CHECK_EQUAL(one.kv->count().rdma_value_bytes, count * 4096 * 2 + 1'000'000);
}

CAF_TEST(ranges and results of single items over RDMA are those of TCP) {
  rig one(transport_choice::rdma);
  const bytes value = filled(1000, 9);
  bytes target(1000, poison);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->put("key", value, true).code, errc::already_exists);
  const auto ranged = [&](std::uint64_t offset, std::uint64_t length, std::size_t room) {
    const client::get_item item{"key", std::span(target).first(room), offset, length};
    item_result result;
    one.kv->get(std::span(&item, 1), std::span(&result, 1));
    return result;
  };
  item_result result = ranged(10, 20, 1000);
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK_EQUAL(result.length, 20u);
  CAF_CHECK(std::equal(target.begin(), target.begin() + 20, value.begin() + 10));
  CAF_CHECK(holds_poison(std::span(target).subspan(20)));
  result = ranged(990, 20, 1000);
  CAF_CHECK_EQUAL(result.length, 10u);
  CAF_CHECK_EQUAL(ranged(1001, 1, 1000).code, errc::out_of_range);
  result = ranged(0, 0, 999);
  CAF_CHECK_EQUAL(result.code, errc::buffer_too_small);
  CAF_CHECK_EQUAL(result.value_length, 1000u);
  CAF_CHECK_EQUAL(one.kv->get("nothing", target).code, errc::not_found);
}

CAF_TEST(with auto the first refused session turns RDMA off for good and is logged once) {
  for (const bool present : {true, false}) {
    rig one(transport_choice::automatic);
    one.rdma.present = present;
    one.rdma.attach_answer = wire::status::busy;
    bytes value = filled(200'000, 4);
    bytes target(200'000);
    const registered_memory from = one.known(value);
    const registered_memory to = one.known(target);
    CAF_CHECK(one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    one.rdma.present = true;
    one.rdma.attach_answer = wire::status::ok;
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
    CAF_CHECK(target == value);
    CAF_CHECK_EQUAL(one.log.warnings(), 1u);
    CAF_CHECK(!one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.server.requests(opcode::batch_write), 0u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_attach), present ? 1u : 0u);
  }
}

CAF_TEST(with rdma a refused session is an error of the items and no miss) {
  rig one(transport_choice::rdma);
  one.rdma.attach_answer = wire::status::busy;
  const bytes value = filled(200'000, 4);
  bytes target(200'000);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::rdma_failed);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::rdma_failed);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 0u);
  one.rdma.attach_answer = wire::status::ok;
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}

CAF_TEST(a device that cannot be opened ends the making with rdma and turns RDMA off with auto) {
  rig one(transport_choice::tcp);
  client::options chosen = one.options(transport_choice::rdma);
  chosen.open_fabric = [](const std::string&, std::unique_ptr<verbs::fabric>&) {
    return client::status{errc::rdma_failed, "it is not there"};
  };
  client::status problem;
  CAF_CHECK(client::client::make(chosen, problem) == nullptr);
  CAF_CHECK_EQUAL(problem.text, "rdma_devices: sim0: it is not there");
  chosen.transport = transport_choice::automatic;
  one.make(chosen);
  bytes value = filled(5000, 1);
  registered_memory memory = one.known(value);
  CAF_CHECK(!memory.effective());
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}

CAF_TEST(items that RDMA cannot serve are asked for over TCP with auto and fail with rdma) {
  for (const wire::status answer :
       {wire::status::memory_refused, wire::status::session_ended, wire::status::unavailable}) {
    bytes value = filled(300'000, 4);
    bytes target(300'000);
    {
      rig one(transport_choice::automatic);
      const registered_memory from = one.known(value);
      const registered_memory to = one.known(target);
      one.rdma.transfers_end = answer;
      CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
      CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
      CAF_CHECK(target == value);
      CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 1u);
      // A drive that is away is answered `unavailable` as well, and says nothing about RDMA.
      CAF_CHECK_EQUAL(one.log.warnings(), answer == wire::status::unavailable ? 0u : 1u);
      // What is over is given back, also while the client lives.
      if (answer != wire::status::unavailable) {
        CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
      }
    }
    rig one(transport_choice::rdma);
    one.rdma.transfers_end = answer;
    const auto expected = static_cast<errc>(answer);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, expected);
    CAF_CHECK(!one.server.has("key"));
    one.rdma.transfers_end = wire::status::ok;
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  }
}

CAF_TEST(a session that the server ended is an error once and then replaced) {
  rig one(transport_choice::rdma);
  const bytes value = filled(5000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  one.rdma.end_sessions = true;
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::session_ended);
  one.rdma.end_sessions = false;
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->count().rdma_sessions_opened, 2u);
}

CAF_TEST(bytes that do not match their digest are never given) {
  bytes value = filled(300'000, 4);
  bytes target(300'000);
  {
    rig one(transport_choice::rdma);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    one.rdma.damage_reads = true;
    const item_result got = one.kv->get("key", target);
    CAF_CHECK_EQUAL(got.code, errc::digest_mismatch);
    CAF_CHECK_EQUAL(got.length, 0u);
  }
  rig one(transport_choice::automatic);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  one.rdma.damage_reads = true;
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}

CAF_TEST(no byte of a target is written after the deadline of its get) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  const registered_memory to = one.known(target);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 200}).code, errc::deadline_exceeded);
  CAF_CHECK_EQUAL(one.rdma.transfers_begun.load(), begun + 1);
  std::fill(target.begin(), target.end(), poison);
  one.network.hold(false);
  CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(no byte of a value is read after the deadline of its put) {
  rig one(transport_choice::rdma);
  bytes value = filled(400'000, 4);
  const registered_memory from = one.known(value);
  one.network.hold();
  CAF_CHECK_EQUAL(one.kv->put("key", value, false, {.deadline_ms = 200}).code, errc::deadline_exceeded);
  one.network.hold(false);
  CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
  one.network.settle();
  // Nothing has changed the memory, so bytes that were fetched late would match their digest.
  CAF_CHECK(!one.server.has("key"));
}

CAF_TEST(no byte of a target is written after its connection was lost) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  const registered_memory to = one.known(target);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  std::thread stopper([&] {
    CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
    one.server.stop();
  });
  const item_result got = one.kv->get("key", target);
  CAF_CHECK_EQUAL(got.code, errc::not_found);
  CAF_CHECK_EQUAL(got.cause, errc::server_down);
  std::fill(target.begin(), target.end(), poison);
  one.network.hold(false);
  stopper.join();
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(no byte of a target is written after its client was destroyed) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  registered_memory to = one.known(target);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  const client::get_item item{"key", target};
  item_result result;
  std::atomic<bool> called{false};
  CAF_CHECK(one.kv
                ->submit_get(std::span(&item, 1), std::span(&result, 1),
                             client::completion::call([&] { called = true; }))
                .ok());
  CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
  CAF_CHECK_EQUAL(to.release().code, errc::busy);
  one.kv.reset();
  CAF_CHECK(called);
  CAF_CHECK_EQUAL(result.code, errc::closed);
  std::fill(target.begin(), target.end(), poison);
  CAF_CHECK_EQUAL(to.release().text, "");
  one.network.hold(false);
  CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
  one.network.settle();
  CAF_CHECK(holds_poison(target));
}

CAF_TEST(memory is out of reach before the completion of a get that was given up is called) {
  enum class ending { deadline, lost, destroyed };
  for (const ending how : {ending::deadline, ending::lost, ending::destroyed}) {
    rig one(transport_choice::rdma);
    const bytes value = filled(400'000, 4);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    bytes target(400'000);
    const registered_memory to = one.known(target);
    one.network.hold();
    const std::uint64_t begun = one.rdma.transfers_begun;
    const client::get_item item{"key", target};
    item_result result;
    std::atomic<bool> completed{false};
    const client::status submitted =
        one.kv->submit_get(std::span(&item, 1), std::span(&result, 1), client::completion::call([&] {
                             // Whatever the server has posted takes effect now, while the completion is
                             // called.
                             std::fill(target.begin(), target.end(), poison);
                             one.network.settle();
                             one.network.hold(false);
                             completed = true;
                           }),
                           {.deadline_ms = how == ending::deadline ? 200U : 20'000U});
    CAF_CHECK(submitted.ok());
    CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
    std::thread stopper;
    if (how == ending::lost) {
      stopper = std::thread([&] { one.server.stop(); });
    } else if (how == ending::destroyed) {
      one.kv.reset();
    }
    CAF_CHECK(comes_true([&] { return completed.load(); }));
    if (stopper.joinable()) {
      stopper.join();
    }
    CAF_CHECK_EQUAL(result.code, how == ending::deadline ? errc::deadline_exceeded
                                 : how == ending::lost   ? errc::not_found
                                                         : errc::closed);
    CAF_CHECK(comes_true([&] { return one.rdma.sessions() == 0; }));
    one.network.settle();
    CAF_CHECK(holds_poison(target));
  }
}

CAF_TEST(three deadlines in a row turn RDMA off with auto) {
  rig one(transport_choice::automatic);
  bytes value = filled(10'000, 4);
  bytes target(10'000);
  const registered_memory from = one.known(value);
  const registered_memory to = one.known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  one.network.hold();
  for (int i = 0; i < 3; ++i) {
    CAF_CHECK(one.kv->count().rdma_in_use);
    CAF_CHECK_EQUAL(one.kv->get("key", target, {.deadline_ms = 50}).code, errc::deadline_exceeded);
  }
  CAF_CHECK(!one.kv->count().rdma_in_use);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == value);
}

CAF_TEST(memory is deregistered only when no call uses it) {
  rig one(transport_choice::rdma);
  const bytes value = filled(400'000, 4);
  CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
  bytes target(400'000);
  auto to = std::make_unique<registered_memory>(one.known(target));
  registered_memory second;
  CAF_CHECK_EQUAL(one.kv->register_memory(std::span(target).subspan(10, 10), second).code,
                  errc::invalid_argument);
  one.network.hold();
  const std::uint64_t begun = one.rdma.transfers_begun;
  item_result result;
  std::thread getter([&] { result = one.kv->get("key", target); });
  CAF_CHECK(comes_true([&] { return one.rdma.transfers_begun == begun + 1; }));
  CAF_CHECK_EQUAL(to->release().code, errc::busy);
  std::atomic<bool> gone{false};
  std::thread ender([&] {
    to.reset();
    gone = true;
  });
  ::poll(nullptr, 0, 50);
  CAF_CHECK(!gone);
  one.network.hold(false);
  getter.join();
  ender.join();
  CAF_CHECK_EQUAL(result.code, errc::ok);
  CAF_CHECK(target == value);
  CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 400'000u);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->count().staged_value_bytes, 800'000u);
}

CAF_TEST(memory of another device travels over RDMA and nowhere else) {
  rig one(transport_choice::automatic);
  const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  client::options chosen = one.options(transport_choice::automatic);
  chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
    made = std::make_unique<gifted_fabric>(one.network.create_node(node("gpu", false)), descriptor);
    return client::status{};
  };
  one.make(chosen);
  bytes memory = filled(3'000'000, 6);
  bytes target(3'000'000);
  std::atomic<std::uint64_t> copied{0};
  const auto known = [&](bytes& range) {
    client::device_memory wanted;
    wanted.descriptor = descriptor;
    wanted.length = range.size();
    wanted.address = reinterpret_cast<std::uintptr_t>(range.data());
    wanted.copy_out = [&](std::uint64_t from, std::span<std::byte> to) {
      std::memcpy(to.data(), reinterpret_cast<const std::byte*>(from), to.size());
      copied += to.size();
      return true;
    };
    registered_memory made;
    CAF_REQUIRE_EQUAL(one.kv->register_device_memory(wanted, made).text, "");
    return made;
  };
  const registered_memory from = known(memory);
  const registered_memory to = known(target);
  CAF_CHECK_EQUAL(one.kv->put("key", memory).code, errc::ok);
  CAF_CHECK_EQUAL(one.kv->get("key", target).code, errc::ok);
  CAF_CHECK(target == memory);
  CAF_CHECK_EQUAL(copied.load(), 6'000'000u);
  // Two items of one range: no copy between them is made by the processor.
  const std::vector<client::get_item> items(2, {"key", target});
  std::vector<item_result> results(2);
  CAF_CHECK_EQUAL(one.kv->get(items, results), errc::ok);
  CAF_CHECK_EQUAL(one.rdma.writes.load(), 3u);
  one.rdma.transfers_end = wire::status::memory_refused;
  CAF_CHECK_EQUAL(one.kv->put("key", memory).code, errc::unsupported);
  CAF_CHECK_EQUAL(one.kv->put("key", memory).code, errc::unsupported);
  CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_put), 0u);
  one.kv.reset();
  ::close(descriptor);
}

CAF_TEST(a device whose port goes down is let go of at once) {
  for (const transport_choice transport : {transport_choice::automatic, transport_choice::rdma}) {
    rig one(transport);
    const int descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    client::options chosen = one.options(transport);
    chosen.open_fabric = [&](const std::string&, std::unique_ptr<verbs::fabric>& made) {
      made = std::make_unique<gifted_fabric>(one.network.create_node(node("down", false)), descriptor);
      return client::status{};
    };
    one.make(chosen);
    bytes value = filled(100'000, 6);
    bytes target(100'000);
    registered_memory from = one.known(value);
    const registered_memory to = one.known(target);
    CAF_CHECK(from.effective());
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    CAF_CHECK_EQUAL(one.network.statistics().queue_pairs, 2u);
    const std::uint64_t down = 1;
    CAF_CHECK_EQUAL(::write(descriptor, &down, sizeof down), static_cast<ssize_t>(sizeof down));
    CAF_CHECK(comes_true([&] { return one.kv->count().rdma_failures == 1; }));
    CAF_CHECK_EQUAL(one.network.statistics().queue_pairs, 1u); // the server's
    const bool falls_back = transport == transport_choice::automatic;
    CAF_CHECK_EQUAL(one.kv->get("key", target).code, falls_back ? errc::ok : errc::rdma_failed);
    CAF_CHECK_EQUAL(target == value, falls_back);
    CAF_CHECK(!from.effective());
    CAF_CHECK_EQUAL(from.release().text, "");
    one.kv.reset();
    ::close(descriptor);
  }
}

CAF_TEST(several targets of one range are fetched once) {
  for (const transport_choice transport : {transport_choice::rdma, transport_choice::tcp}) {
    rig one(transport);
    const bytes value = filled(50'000, 4);
    CAF_CHECK_EQUAL(one.kv->put("key", value).code, errc::ok);
    std::vector<bytes> targets{bytes(50'000), bytes(50'000), bytes(60'000), bytes(49'999), bytes(50'000)};
    std::vector<client::get_item> items;
    for (bytes& target : targets) {
      items.push_back({"key", target});
    }
    items.back().range_offset = 1; // another range
    std::vector<item_result> results(items.size());
    CAF_CHECK_EQUAL(one.kv->get(items, results), errc::buffer_too_small);
    for (const std::size_t i : {0U, 1U, 2U}) {
      CAF_CHECK_EQUAL(results[i].code, errc::ok);
      CAF_CHECK_EQUAL(results[i].length, 50'000u);
      CAF_CHECK(std::equal(value.begin(), value.end(), targets[i].begin()));
    }
    CAF_CHECK_EQUAL(results[3].code, errc::buffer_too_small);
    CAF_CHECK_EQUAL(results[3].value_length, 50'000u);
    CAF_CHECK_EQUAL(results[4].code, errc::ok);
    CAF_CHECK(std::equal(value.begin() + 1, value.end(), targets[4].begin()));
    CAF_CHECK_EQUAL(one.rdma.writes.load(), transport == transport_choice::rdma ? 2u : 0u);
    CAF_CHECK_EQUAL(one.server.requests(opcode::tcp_get), transport == transport_choice::tcp ? 2u : 0u);
  }
}

CAF_TEST(asynchronous calls over RDMA complete once each) {
  rig one(transport_choice::automatic);
  constexpr std::size_t count = 40;
  bytes memory = filled(count * 10'000, 3);
  bytes targets(count * 10'000);
  const registered_memory from = one.known(memory);
  const registered_memory to = one.known(targets);
  std::vector<std::string> keys(count);
  std::vector<client::put_item> puts(count);
  std::vector<client::get_item> gets(count);
  std::vector<item_result> results(count);
  std::atomic<std::size_t> completed{0};
  for (std::size_t i = 0; i < count; ++i) {
    keys[i] = "block-" + std::to_string(i);
    puts[i] = {keys[i], std::span(memory).subspan(i * 10'000, 10'000)};
    gets[i] = {keys[i], std::span(targets).subspan(i * 10'000, 10'000)};
    CAF_CHECK(one.kv
                  ->submit_put(std::span(&puts[i], 1), std::span(&results[i], 1),
                               client::completion::call([&] { ++completed; }))
                  .ok());
  }
  CAF_CHECK(comes_true([&] { return completed == count; }));
  // RDMA ends in the middle of these.
  for (std::size_t i = 0; i < count; ++i) {
    if (i == count / 2) {
      one.rdma.transfers_end = wire::status::memory_refused;
    }
    CAF_CHECK(one.kv
                  ->submit_get(std::span(&gets[i], 1), std::span(&results[i], 1),
                               client::completion::call([&] { ++completed; }))
                  .ok());
  }
  CAF_CHECK(comes_true([&] { return completed == 2 * count; }));
  for (const item_result& result : results) {
    CAF_CHECK_EQUAL(result.code, errc::ok);
  }
  CAF_CHECK(targets == memory);
  CAF_CHECK_EQUAL(one.log.warnings(), 1u);
}
