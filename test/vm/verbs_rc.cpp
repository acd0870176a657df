// RC on a real device, or on soft-RoCE: both ends in this process, on one port. Moves bytes by READ, WRITE
// and SEND and compares them; fails requests, and walks back; withdraws a key; has an error end every request
// that was posted exactly once. Prints one line a step and ends with 0 when all held.
//
//   verbs_rc DEVICE
#include "verbs/ibverbs_fabric.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <string>

using namespace memkv::verbs;

namespace {

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "verbs_rc: %s\n", what.c_str());
  std::exit(1);
}

void must(const status& outcome) {
  if (!outcome.ok()) {
    fail(outcome.text);
  }
}

void require(bool held, const std::string& what) {
  if (!held) {
    fail(what);
  }
  std::printf("%s\n", what.c_str());
  std::fflush(stdout);
}

struct side {
  std::unique_ptr<fabric> device;
  std::vector<std::byte> memory;
  std::unique_ptr<memory_region> region;
  std::unique_ptr<completion_queue> completions;
  std::unique_ptr<rc_queue_pair> pair;

  explicit side(const std::string& name) : memory(8U << 20U) {
    const ibverbs_library* library = nullptr;
    must(load_ibverbs(library));
    std::vector<std::string> warnings;
    must(open_ibverbs_fabric(*library, name, 1, {.mtu_bytes = 4096}, device, warnings));
    for (const std::string& warning : warnings) {
      std::printf("warning: %s\n", warning.c_str());
    }
    must(device->register_memory(memory, {true, true}, region));
    must(device->create_completion_queue(300, completions));
    queue_pair_options options;
    options.completions = completions.get();
    options.sends_max = 64;
    options.receives_max = 8;
    options.segments_max = 2;
    options.inline_bytes_max = 64;
    must(device->create_rc(options, pair));
  }
  [[nodiscard]] local_range range(std::size_t offset, std::uint32_t length) const {
    return {region->address() + offset, length, region->lkey()};
  }
  /// Waits by the descriptor, at most 60 s for each.
  std::vector<report> wait(std::size_t count) {
    std::vector<report> found;
    while (found.size() < count) {
      report some[16];
      std::size_t got = completions->poll(some);
      if (got == 0) {
        must(completions->arm());
        got = completions->poll(some);
        if (got == 0) {
          pollfd one{completions->event_descriptor(), POLLIN, 0};
          if (::poll(&one, 1, 60'000) != 1) {
            fail("a report did not come within a minute");
          }
          completions->acknowledge();
        }
      }
      found.insert(found.end(), some, some + got);
    }
    if (found.size() != count) {
      fail("there are more reports than requests");
    }
    return found;
  }
};

void connect(side& here, side& there) {
  must(here.pair->connect(there.pair->address()));
  must(there.pair->connect(here.pair->address()));
}

void walk_back(side& one) {
  one.pair->fail();
  static_cast<void>(one.wait(one.pair->outstanding()));
  must(one.pair->reset());
}

work_request request(operation kind, const local_range& local, const side& far, std::size_t offset,
                     std::uint64_t id) {
  work_request made;
  made.id = id;
  made.kind = kind;
  made.local = {&local, 1};
  made.remote_address = far.region->address() + offset;
  made.rkey = far.region->rkey();
  return made;
}

} // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  side server(name);
  side client(name);
  std::printf("%s, MTU %u, GID index %u, %u READs\n", server.device->facts().name.c_str(),
              server.device->path().mtu_bytes, server.device->path().gid_index,
              server.device->facts().reads_max);
  connect(server, client);

  constexpr std::uint32_t chunk = 1U << 20U;
  for (std::size_t index = 0; index < 4 * chunk; ++index) {
    client.memory[index] = std::byte(index * 7 + index / 251);
  }
  std::vector<local_range> ranges;
  std::vector<work_request> batch;
  for (std::uint64_t id = 0; id < 4; ++id) {
    ranges.push_back(server.range(id * chunk, chunk));
  }
  for (std::uint64_t id = 0; id < 4; ++id) {
    batch.push_back(request(operation::read, ranges[id], client, id * chunk, id));
  }
  must(server.pair->post(batch).outcome);
  auto found = server.wait(4);
  bool good = true;
  for (std::uint64_t id = 0; id < 4; ++id) {
    good = good && found[id].id == id && found[id].status == completion_status::success;
  }
  require(good, "a batch of READs is reported in order, all of it");
  require(std::memcmp(server.memory.data(), client.memory.data(), 4 * chunk) == 0,
          "READ fetched the right bytes");

  for (std::uint64_t id = 0; id < 4; ++id) {
    batch[id] = request(operation::write, ranges[id], client, 4 * chunk + id * chunk, id);
  }
  must(server.pair->post(batch).outcome);
  found = server.wait(4);
  require(found.back().status == completion_status::success &&
              std::memcmp(server.memory.data(), client.memory.data() + 4 * chunk, 4 * chunk) == 0,
          "WRITE placed the right bytes");

  const receive_request receive{77, client.range(0, 100)};
  must(client.pair->post_receives({&receive, 1}).outcome);
  const local_range message = server.range(500, 60);
  work_request send = request(operation::send, message, client, 0, 5);
  send.inlined = true;
  must(server.pair->post({&send, 1}).outcome);
  found = client.wait(1);
  require(found[0].id == 77 && found[0].bytes == 60 && found[0].kind == operation::receive,
          "SEND took the receive");
  require(server.wait(1)[0].status == completion_status::success, "and was reported");
  require(std::memcmp(client.memory.data(), server.memory.data() + 500, 60) == 0, "with the right bytes");

  // A key that was withdrawn: the memory is not written, and what is behind the request is flushed.
  client.region.reset();
  std::memset(client.memory.data(), 0xEE, client.memory.size());
  const std::uint32_t gone = batch[0].rkey;
  must(server.pair->post(batch).outcome);
  found = server.wait(4);
  require(found[0].status == completion_status::remote_access ||
              found[0].status == completion_status::flushed,
          std::string("a withdrawn key ends with ") + std::string(memkv::verbs::name(found[0].status)));
  for (std::size_t index = 1; index < 4; ++index) {
    require(found[index].status != completion_status::success, "and none behind it succeeds");
  }
  require(std::all_of(client.memory.begin(), client.memory.end(),
                      [](std::byte one) { return one == std::byte(0xEE); }),
          "no byte was written after the key was withdrawn");
  require(server.pair->state() == queue_pair_state::error, "the queue pair is in the error state");
  must(client.device->register_memory(client.memory, {true, true}, client.region));
  require(client.region->rkey() != gone, "a new registration has a new key");

  walk_back(server);
  walk_back(client);
  connect(server, client);
  batch[0] = request(operation::write, ranges[0], client, 0, 9);
  must(server.pair->post({batch.data(), 1}).outcome);
  require(server.wait(1)[0].status == completion_status::success, "walked back, it works again");

  // fail() in the middle: each request has exactly one report, and the way back is barred until then.
  for (int round = 0; round < 20; ++round) {
    std::vector<work_request> many;
    for (std::uint64_t id = 0; id < 40; ++id) {
      many.push_back(request(id % 2 == 0 ? operation::write : operation::read, ranges[id % 4], client,
                             (id % 4) * chunk, id));
    }
    must(server.pair->post(many).outcome);
    server.pair->fail();
    if (server.pair->outstanding() != 0 && server.pair->reset().code != errc::wrong_state) {
      fail("the way back was open with requests out");
    }
    const auto ended = server.wait(40);
    for (std::uint64_t id = 0; id < 40; ++id) {
      if (ended[id].id != id) {
        fail("the reports are out of order");
      }
    }
    must(server.pair->reset());
    walk_back(client);
    connect(server, client);
  }
  require(true, "of 800 requests that were failed, each was reported exactly once");

  // Destroyed with requests out: nothing of it is reported, and its successor is not confused.
  batch[0] = request(operation::read, ranges[0], client, 0, 11);
  must(server.pair->post({batch.data(), 1}).outcome);
  server.pair.reset();
  report none[4];
  require(server.completions->poll(none) == 0, "what was destroyed reports nothing");

  // A peer that is gone is given up within the time asked for.
  queue_pair_options options;
  options.completions = server.completions.get();
  must(server.device->create_rc(options, server.pair));
  walk_back(client);
  connect(server, client);
  client.pair.reset();
  const auto begin = std::chrono::steady_clock::now();
  must(server.pair->post({batch.data(), 1}).outcome);
  found = server.wait(1);
  const auto taken =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  require(found[0].status == completion_status::retry_exceeded,
          "a peer that is gone ends with " + std::string(memkv::verbs::name(found[0].status)) + " after " +
              std::to_string(taken) + " ms");
  require(server.device->next_event() != fabric_event::device_removed, "the device is still there");
  return 0;
}
