// Which kernels and which memory are enough to start.
#define CAF_SUITE machine
#include "cli/machine.hpp"

#include <caf/test/unit_test.hpp>

#include <filesystem>
#include <fstream>

using namespace memkv::cli;

namespace {

constexpr std::uint64_t mib = 1024 * 1024;
constexpr std::uint64_t gib = 1024 * mib;

server_config config_of(std::uint64_t pool_bytes, storage_mode mode, std::uint64_t drive_bytes) {
  server_config config;
  config.memory.max_bytes = pool_bytes;
  config.storage.mode = mode;
  config.storage.drives = {{mode == storage_mode::memory ? "memory" : "/d0", drive_bytes}};
  return config;
}

// A root directory with files as the kernel shows them.
struct fake_root {
  std::string path =
      (std::filesystem::temp_directory_path() / ("memkv_machine." + std::to_string(::getpid()))).string();
  fake_root() { std::filesystem::remove_all(path); }
  ~fake_root() { std::filesystem::remove_all(path); }
  void put(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path + name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
};

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

} // namespace

CAF_TEST(kernels from 6 8 on are accepted) {
  for (const auto* release : {"6.8", "6.8.0", "6.8.0-31-generic", "6.18.44-fc", "7.0.1", "10.0", "6.10-rc1"})
    CAF_CHECK_EQUAL(check_kernel(release), "");
}

CAF_TEST(older kernels and unreadable releases are refused with one sentence) {
  CAF_CHECK_EQUAL(check_kernel("6.7.12-amd64"),
                  "this is Linux 6.7.12-amd64, and memkv start needs 6.8 or newer: boot a newer kernel");
  for (const auto* release : {"5.15.0", "6.1.0-18-amd64", "2.6.32", "6.0"})
    CAF_CHECK(contains(check_kernel(release), "boot a newer kernel"));
  for (const auto* release : {"", "six", "6", "6.x", "-6.8", "6-8"})
    CAF_CHECK(contains(check_kernel(release), "cannot be read"));
}

CAF_TEST(the running kernel has a release) {
  CAF_CHECK(!kernel_release().empty());
}

CAF_TEST(a pool within 80 percent of the memory is accepted and one byte of page more is not) {
  const memory_facts facts{10 * gib, 0, 2 * mib};
  CAF_CHECK_EQUAL(check_memory(config_of(8 * gib, storage_mode::file, gib), facts).refusal, "");
  const auto verdict = check_memory(config_of(8 * gib + 4096, storage_mode::file, gib), facts);
  CAF_CHECK(contains(verdict.refusal,
                     "memory.max_size needs 8.0 GiB, but 80 % of the available memory is 8.0 GiB"));
  CAF_CHECK(contains(verdict.refusal, "sysctl -w vm.nr_hugepages=4097"));
}

CAF_TEST(memory drives count beside the pool) {
  const memory_facts facts{10 * gib, 0, 2 * mib};
  CAF_CHECK_EQUAL(check_memory(config_of(3 * gib, storage_mode::memory, 5 * gib), facts).refusal, "");
  const auto verdict = check_memory(config_of(3 * gib, storage_mode::memory, 6 * gib), facts);
  CAF_CHECK(contains(verdict.refusal, "memory.max_size and the memory drives need 9.0 GiB"));
  CAF_CHECK(contains(verdict.refusal, "lower them"));
  // Hugepages cannot help drives that are too large by themselves.
  CAF_CHECK(!contains(check_memory(config_of(gib, storage_mode::memory, 9 * gib), facts).refusal, "sysctl"));
}

CAF_TEST(free hugepages carry the pool) {
  const memory_facts facts{4 * gib, 8 * 512, 2 * mib};
  CAF_CHECK_EQUAL(check_memory(config_of(8 * gib, storage_mode::file, gib), facts).refusal, "");
  CAF_CHECK_EQUAL(check_memory(config_of(8 * gib, storage_mode::memory, 3 * gib), facts).refusal, "");
  CAF_CHECK(!check_memory(config_of(8 * gib, storage_mode::memory, 4 * gib), facts).refusal.empty());
  CAF_CHECK(!check_memory(config_of(8 * gib + 2 * mib, storage_mode::file, gib), facts).refusal.empty());
}

CAF_TEST(an index that may outgrow the memory is refused and one that may crowd it is warned about) {
  auto config = config_of(64 * mib, storage_mode::file, 1024 * gib);
  config.storage.shard_bytes = 4096;
  // 1 TiB of 4 KiB blocks: 268 million entries, about 24 GiB.
  CAF_CHECK(contains(check_memory(config, {16 * gib, 0, 0}).refusal, "raise storage.shard_size"));
  const auto tight = check_memory(config, {28 * gib, 0, 0});
  CAF_CHECK_EQUAL(tight.refusal, "");
  CAF_CHECK(contains(tight.warning, "the index may grow to 25."));
  const auto roomy = check_memory(config, {64 * gib, 0, 0});
  CAF_CHECK_EQUAL(roomy.warning, "");
  CAF_CHECK(roomy.index_bytes > 24 * gib);
}

CAF_TEST(the facts come from meminfo and a container may have less) {
  const fake_root root;
  memory_facts facts;
  CAF_CHECK(!read_memory_facts(root.path, facts));
  root.put("/proc/meminfo",
           "MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\nHugePages_Total:     512\n"
           "HugePages_Free:      100\nHugepagesize:       2048 kB\n");
  CAF_REQUIRE(read_memory_facts(root.path, facts));
  CAF_CHECK_EQUAL(facts.available_bytes, 20'000'000ULL * 1024);
  CAF_CHECK_EQUAL(facts.hugepages_free, 100u);
  CAF_CHECK_EQUAL(facts.hugepage_bytes, 2 * mib);
  root.put("/sys/fs/cgroup/memory.current", "1073741824\n");
  root.put("/sys/fs/cgroup/memory.max", "max\n");
  CAF_REQUIRE(read_memory_facts(root.path, facts));
  CAF_CHECK_EQUAL(facts.available_bytes, 20'000'000ULL * 1024);
  root.put("/sys/fs/cgroup/memory.max", "3221225472\n");
  CAF_REQUIRE(read_memory_facts(root.path, facts));
  CAF_CHECK_EQUAL(facts.available_bytes, 2 * gib);
}
