// One end of an RC connection for a client that has no libibverbs of its own (guest/rdma_hostile.py): lends a
// mebibyte of memory, and says what is in it.
//
//   rdma_peer DEVICE
//
// Prints its gid (hex), number, packet number, READs served, address and rkey of the memory. Reads lines:
// `connect GID NUMBER PACKET_NUMBER READS MTU` makes the connection, `fill BYTE` fills the memory, `count
// BYTE` prints how many of its bytes are so from the first on. All but the last are answered with `ok`. Ends
// with its input.
#include "verbs/ibverbs_fabric.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

using namespace memkv::verbs;

namespace {

constexpr std::size_t memory_bytes = 1U << 20U;

void must(const status& outcome) {
  if (!outcome.ok()) {
    std::fprintf(stderr, "rdma_peer: %s\n", outcome.text.c_str());
    std::exit(1);
  }
}

gid gid_of(const std::string& text) {
  gid made{};
  for (std::size_t index = 0; index < made.size() && 2 * index + 2 <= text.size(); ++index) {
    made[index] = static_cast<gid::value_type>(std::stoul(text.substr(2 * index, 2), nullptr, 16));
  }
  return made;
}

} // namespace

int main(int count, char** words) {
  if (count != 2) {
    std::fprintf(stderr, "usage: rdma_peer DEVICE\n");
    return 2;
  }
  const ibverbs_library* library = nullptr;
  must(load_ibverbs(library));
  std::unique_ptr<fabric> device;
  std::vector<std::string> warnings;
  must(open_ibverbs_fabric(*library, words[1], 1, {.mtu_bytes = 4096}, device, warnings));
  std::vector<std::byte> memory(memory_bytes);
  std::unique_ptr<memory_region> region;
  must(device->register_memory(memory, {true, true}, region));
  std::unique_ptr<completion_queue> completions;
  must(device->create_completion_queue(16, completions));
  queue_pair_options options;
  options.completions = completions.get();
  options.sends_max = 1;
  std::unique_ptr<rc_queue_pair> pair;
  must(device->create_rc(options, pair));

  const rc_address mine = pair->address();
  for (const auto byte : mine.port.port_gid) {
    std::printf("%02x", static_cast<unsigned>(byte));
  }
  std::printf(" %u %u %u %llu %u\n", mine.queue_pair_number, mine.packet_number, mine.reads_served_max,
              static_cast<unsigned long long>(region->address()), region->rkey());
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream rest(line);
    std::string order;
    rest >> order;
    unsigned byte = 0;
    if (order == "connect") {
      rc_address peer;
      std::string text;
      rest >> text >> peer.queue_pair_number >> peer.packet_number >> peer.reads_served_max >> peer.mtu_bytes;
      peer.port.port_gid = gid_of(text);
      must(pair->connect(peer));
      std::printf("ok\n");
    } else if (order == "fill" && rest >> byte) {
      std::fill(memory.begin(), memory.end(), static_cast<std::byte>(byte));
      std::printf("ok\n");
    } else if (order == "count" && rest >> byte) {
      const auto other = std::find_if(memory.begin(), memory.end(),
                                      [&](std::byte found) { return found != static_cast<std::byte>(byte); });
      std::printf("%td\n", other - memory.begin());
    } else {
      std::fprintf(stderr, "rdma_peer: not understood: %s\n", line.c_str());
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}
