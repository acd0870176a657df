// RDMA links and runs without actors, sockets and storage, on the simulated fabric.
#include "verbs/dci_scheduler.hpp"
#include "verbs/simulated_fabric.hpp"

#include <cstdio>

int main() {
  memkv::verbs::simulated_network network({});
  const auto device = network.create_node();
  std::unique_ptr<memkv::verbs::dci_scheduler> pool;
  const auto made = memkv::verbs::dci_scheduler::create(*device, {}, pool);
  std::printf("%zu initiators\n", made.ok() ? pool->queue_pair_numbers().size() : 0);
  return made.ok() ? 0 : 1;
}
