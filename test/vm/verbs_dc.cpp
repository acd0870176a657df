// DC on a real device of mlx5, both ends in this process, on one port: the first thing to run on a machine
// that has one (docs/rdma.md). READs and WRITEs bytes and compares them; has a wrong key, a withdrawn region
// and fail() end every request exactly once; recovers after each. Prints one line a step and ends with 0 when
// all held, with 77 where there is no DC. The device `simulated` runs the same steps without hardware.
//
//   verbs_dc DEVICE
#include "verbs/ibverbs_fabric.hpp"
#include "verbs/simulated_fabric.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

using namespace memkv::verbs;

namespace {

constexpr int no_dc = 77;
constexpr std::uint32_t depth = 64;
constexpr std::uint32_t chunk = 64U << 10U;
constexpr std::uint64_t target_key = 0x6D656D6B76444321;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "verbs_dc: %s\n", what.c_str());
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

std::unique_ptr<fabric> open(const std::string& name, simulated_network& network) {
  if (name == "simulated") {
    return network.create_node();
  }
  const ibverbs_library* library = nullptr;
  must(load_ibverbs(library));
  std::unique_ptr<fabric> made;
  std::vector<std::string> warnings;
  must(open_ibverbs_fabric(*library, name, 1, {}, made, warnings));
  for (const std::string& warning : warnings) {
    std::printf("warning: %s\n", warning.c_str());
  }
  return made;
}

/// What is destroyed first comes last.
struct ends {
  simulated_network network{{}};
  std::unique_ptr<fabric> client;
  std::unique_ptr<fabric> server;
  std::vector<std::byte> far = std::vector<std::byte>(std::size_t{depth} * chunk);
  std::vector<std::byte> near = std::vector<std::byte>(std::size_t{depth} * chunk);
  std::unique_ptr<memory_region> far_region;
  std::unique_ptr<memory_region> near_region;
  std::unique_ptr<completion_queue> completions;
  std::unique_ptr<dc_target> target;
  std::unique_ptr<address_handle> handle;
  std::unique_ptr<dc_initiator> initiator;
  dc_address peer;

  explicit ends(const std::string& name) : client(open(name, network)), server(open(name, network)) {}

  void connect() {
    must(client->register_memory(far, {true, true}, far_region));
    must(server->register_memory(near, {}, near_region));
    must(server->create_completion_queue(depth, completions));
    must(client->create_dc_target(target_key, target));
    must(server->create_address_handle(client->self(), handle));
    queue_pair_options options;
    options.completions = completions.get();
    options.sends_max = depth;
    must(server->create_dc_initiator(options, initiator));
    peer = {handle.get(), target->number(), target->key()};
  }
  /// One batch of the whole memory, a chunk each, by this key.
  void post(operation kind, std::uint32_t rkey) {
    std::vector<local_range> ranges(depth);
    std::vector<work_request> batch(depth);
    for (std::uint32_t index = 0; index < depth; ++index) {
      const std::uint64_t offset = std::uint64_t{index} * chunk;
      ranges[index] = {near_region->address() + offset, chunk, near_region->lkey()};
      batch[index].id = index;
      batch[index].kind = kind;
      batch[index].local = {&ranges[index], 1};
      batch[index].remote_address = reinterpret_cast<std::uintptr_t>(far.data()) + offset;
      batch[index].rkey = rkey;
      batch[index].target = &peer;
      batch[index].signalled = index % 16 == 15;
    }
    must(initiator->post(batch).outcome);
  }
  /// All reports of a batch, in order; the status of the first that is neither success nor flushed.
  completion_status wait() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    completion_status worst = completion_status::success;
    for (std::uint32_t count = 0; count < depth;) {
      network.settle();
      report one;
      if (completions->poll({&one, 1}) == 0) {
        if (std::chrono::steady_clock::now() > until) {
          fail("a report did not come within a minute");
        }
        continue;
      }
      if (one.id != count++) {
        fail("reports are not in the order of posting, each once");
      }
      if (worst == completion_status::success || worst == completion_status::flushed) {
        worst = one.status == completion_status::success ? worst : one.status;
      }
    }
    report more;
    if (completions->poll({&more, 1}) != 0 || initiator->outstanding() != 0) {
      fail("there are more reports than requests");
    }
    return worst;
  }
  void expect_failure(const std::string& what) {
    const completion_status how = wait();
    require(how != completion_status::success && how != completion_status::flushed,
            what + " ends with " + std::string(name(how)) + ", each request reported once");
    require(initiator->state() == queue_pair_state::error, "the initiator is in the error state");
    recover();
  }
  void recover() {
    must(initiator->recover());
    post(operation::read, far_region->rkey());
    require(wait() == completion_status::success, "walked back, it works again");
  }
};

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fail("which device? verbs_dc DEVICE");
  }
  ends both(argv[1]);
  const device_facts& facts = both.server->facts();
  if (!facts.dc) {
    std::printf("%s has no DC\n", facts.name.c_str());
    return no_dc;
  }
  std::printf("%s has DC, %u streams an initiator, %u READs in flight, path MTU %u\n", facts.name.c_str(),
              facts.dc_streams, facts.reads_max, both.server->path().mtu_bytes);
  both.connect();
  require(both.target->number() != 0, "a target, an address handle and an initiator are made");

  for (std::size_t index = 0; index < both.far.size(); ++index) {
    both.far[index] = static_cast<std::byte>(index * 7 + (index >> 9U));
  }
  both.post(operation::read, both.far_region->rkey());
  require(both.wait() == completion_status::success, "64 READs of 64 KiB in one batch are done");
  require(both.near == both.far, "with the right bytes");
  std::reverse(both.near.begin(), both.near.end());
  both.post(operation::write, both.far_region->rkey());
  require(both.wait() == completion_status::success, "64 WRITEs of 64 KiB in one batch are done");
  require(both.near == both.far, "with the right bytes");

  both.peer.key = target_key + 1;
  both.post(operation::read, both.far_region->rkey());
  both.peer.key = target_key;
  both.expect_failure("a wrong DC key");

  both.post(operation::read, both.far_region->rkey() + 0x100);
  both.expect_failure("a wrong rkey");

  both.initiator->fail();
  both.post(operation::read, both.far_region->rkey());
  require(both.wait() == completion_status::flushed, "what is posted after fail() is flushed");
  both.recover();

  const std::uint32_t withdrawn = both.far_region->rkey();
  both.far_region.reset();
  const std::vector<std::byte> poison(both.far.size(), std::byte{0x5A});
  both.far = poison;
  both.post(operation::write, withdrawn);
  const completion_status how = both.wait();
  require(how != completion_status::success,
          "a withdrawn region ends with " + std::string(name(how)) + ", each request reported once");
  require(both.far == poison, "and not a byte of it is written");
  both.target.reset();
  must(both.initiator->recover());
  must(both.client->register_memory(both.far, {true, true}, both.far_region));
  both.post(operation::read, both.far_region->rkey());
  const completion_status gone = both.wait();
  require(gone != completion_status::success, "a target that is gone ends with " + std::string(name(gone)));
  return 0;
}
