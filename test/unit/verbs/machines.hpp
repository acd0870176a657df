// Machines on a simulated network, as the tests of verbs/ use them: a fabric with a completion queue and one
// registered range of memory.
#pragma once

#include "verbs/simulated_fabric.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <vector>

namespace verbs_test {

using namespace memkv::verbs;

inline void must(const status& outcome) {
  if (!outcome.ok()) {
    std::fprintf(stderr, "%s\n", outcome.text.c_str());
  }
  MEMKV_ASSERT(outcome.ok(), "a step that a test stands on succeeds");
}

inline std::uint64_t address_of(const std::byte* data) {
  return reinterpret_cast<std::uintptr_t>(data);
}

struct machine {
  std::unique_ptr<fabric> device;
  std::unique_ptr<completion_queue> completions;
  std::vector<std::byte> memory;
  std::unique_ptr<memory_region> region;

  explicit machine(simulated_network& network, std::size_t bytes = 4096,
                   const simulated_node_options& options = {}, remote_access access = {true, true},
                   std::uint32_t reports_max = 4096)
      : device(network.create_node(options)), memory(bytes) {
    must(device->create_completion_queue(reports_max, completions));
    must(device->register_memory(memory, access, region));
  }

  [[nodiscard]] local_range range(std::size_t offset, std::size_t length) const {
    return {address_of(memory.data()) + offset, static_cast<std::uint32_t>(length), region->lkey()};
  }
  void fill(std::size_t offset, std::size_t length, unsigned value) {
    std::fill_n(memory.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte(value));
  }
  [[nodiscard]] bool holds(std::size_t offset, std::size_t length, unsigned value) const {
    return std::all_of(memory.begin() + static_cast<std::ptrdiff_t>(offset),
                       memory.begin() + static_cast<std::ptrdiff_t>(offset + length),
                       [&](std::byte one) { return one == std::byte(value); });
  }
  std::vector<report> reports() {
    std::vector<report> found;
    std::array<report, 16> some;
    while (const std::size_t count = completions->poll(some)) {
      found.insert(found.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(count));
    }
    return found;
  }
};

} // namespace verbs_test
