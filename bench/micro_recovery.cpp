// What it costs to open a drive's store again: seconds and memory for millions of blocks, after a close in
// order and after a death with a full journal.
//
// The drive is as large as the blocks need and sparse: payload is neither written nor read, metadata lies in
// memory, so the figures are what the processor has to do. One line is printed for each opening:
//
//   micro_recovery [--blocks N] [--block-bytes N] [--unit-bytes N]
//
// Beside the time: TiB are those of the values; memory is the store's own account, what the process holds
// more than before (RSS), and its highest point meanwhile, each for a million entries of the index.

#include "test/sim/empty_puts.hpp"
#include "test/sim/random.hpp"
#include "test/sim/sparse_device.hpp"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <string_view>

namespace {

using namespace memkv;
using namespace memkv::engine;

constexpr double mib = 1 << 20;
constexpr double tib = static_cast<double>(std::uint64_t{1} << 40);
/// The share of a drive that is left free, so that overwriting finds room.
constexpr double spare = 0.03;
constexpr std::size_t puts_under_way = 1024;

struct settings {
  std::uint64_t blocks = 1'000'000;
  std::uint64_t block_bytes = 64 << 10;
  std::uint32_t unit_bytes = 64 << 10;
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "micro_recovery: %s\n", what.c_str());
  std::exit(1);
}

void must(const status& done, const char* doing) {
  if (!done.ok())
    fail(std::string(doing) + ": " + done.text);
}

/// Of this process: what others on the machine take does not count.
double processor_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Bytes behind a name in /proc/self/status.
double process_bytes(std::string_view name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name))
      return std::strtod(line.c_str() + name.size(), nullptr) * 1024;
  fail("no " + std::string(name) + " in /proc/self/status");
}

/// The highest point is counted from now on.
void forget_highest() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

/// Bytes of a drive that takes so many blocks.
std::uint64_t drive_bytes(const settings& chosen) {
  const std::uint64_t units = (chosen.block_bytes + chosen.unit_bytes - 1) / chosen.unit_bytes;
  // A header page, and whatever else metadata needs.
  const double data =
      static_cast<double>(chosen.blocks) * static_cast<double>(units * chosen.unit_bytes + 4096);
  return static_cast<std::uint64_t>(data * (1.02 + spare)) + (std::uint64_t{64} << 20);
}

class measurement {
public:
  explicit measurement(const settings& chosen) : chosen_(chosen) {
    options_.unit_bytes = chosen.unit_bytes;
    options_.sync = sync_policy::always;
    options_.eviction = false;
    must(
        sim::open_sparse_device(drive_bytes(chosen), options_.unit_bytes, options_.extent_bytes_max, device_),
        "making the drive");
  }
  ~measurement() {
    store_.reset();
    device_.reset();
  }
  measurement(const measurement&) = delete;
  measurement& operator=(const measurement&) = delete;

  void fill() {
    must(drive_store::open(*device_, options_, time_, store_), "formatting the drive");
    sim::empty_puts puts(*store_, options_.extent_bytes_max, puts_under_way);
    const double begun = seconds_now();
    for (std::uint64_t number = 0; number < chosen_.blocks; ++number)
      if (!puts.put(number, chosen_.block_bytes))
        fail("filling the drive: the store does not get on");
    if (!puts.finish() || puts.refused() != 0)
      fail("filling the drive: " + std::to_string(puts.refused()) + " puts were refused");
    std::printf("filled with %llu blocks of %llu bytes, %.2f TiB, on a drive of %.2f TiB in %.0f s\n",
                static_cast<unsigned long long>(chosen_.blocks),
                static_cast<unsigned long long>(chosen_.block_bytes), value_tib(),
                static_cast<double>(device_->information().size_bytes) / tib, seconds_now() - begun);
    std::fflush(stdout);
  }

  void close() {
    must(store_->close(), "closing the store");
    store_.reset();
  }

  /// Overwrites blocks while no checkpoint gets on, until the journal takes no more; then the process dies.
  void die_with_full_journal() {
    sim::random chance(1);
    sim::empty_puts puts(*store_, options_.extent_bytes_max, puts_under_way);
    device_->hold_tree();
    while (puts.put(chance.below(chosen_.blocks), chosen_.block_bytes)) {
    }
    const store_counters now = store_->counters();
    std::printf("died with %.1f MiB in the journal, %llu overwritten\n",
                static_cast<double>(now.journal_used_bytes) / mib,
                static_cast<unsigned long long>(puts.stored()));
    device_->release_tree();
    store_.reset();
  }

  void open(const char* how) {
    ::malloc_trim(0);
    const double before = process_bytes("VmRSS:");
    forget_highest();
    const double begun = seconds_now();
    const double processor_begun = processor_seconds();
    must(drive_store::open(*device_, options_, time_, store_), "opening the drive");
    const double seconds = seconds_now() - begun;
    const double processor = processor_seconds() - processor_begun;
    const double highest = process_bytes("VmHWM:");
    ::malloc_trim(0);
    const double after = process_bytes("VmRSS:");
    const store_counters now = store_->counters();
    if (now.dropped_at_recovery != 0 || now.bad_tree_pages != 0 || now.journal_holes != 0)
      fail("the drive was damaged: " + std::to_string(now.bad_tree_pages) + " tree pages, " +
           std::to_string(now.journal_holes) + " holes in the journal, " +
           std::to_string(now.dropped_at_recovery) + " blocks dropped of " +
           std::to_string(now.recovered_blocks + now.dropped_at_recovery));
    const double millions = static_cast<double>(now.blocks) / 1e6;
    std::printf("%s: %.2f s (%.2f s of processor), %.2f s a million blocks, %.2f s a TiB; %llu entries, %llu "
                "journal records; a "
                "million: %.1f MiB, RSS %.1f MiB, highest %.1f MiB\n",
                how, seconds, processor, seconds / (static_cast<double>(chosen_.blocks) / 1e6),
                seconds / value_tib(), static_cast<unsigned long long>(now.blocks),
                static_cast<unsigned long long>(now.replayed_records),
                static_cast<double>(store_->memory_bytes()) / mib / millions,
                (after - before) / mib / millions, (highest - before) / mib / millions);
    std::fflush(stdout);
  }

private:
  [[nodiscard]] double value_tib() const {
    return static_cast<double>(chosen_.blocks) * static_cast<double>(chosen_.block_bytes) / tib;
  }

  settings chosen_;
  store_options options_;
  system_clock time_;
  std::unique_ptr<sim::sparse_device> device_;
  std::unique_ptr<drive_store> store_;
};

std::uint64_t number_of(const char* text) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text, &end, 10);
  if (*end != '\0' || value == 0)
    fail("'" + std::string(text) + "' is not a number above 0");
  return value;
}

} // namespace

int main(int count, char** words) {
  settings chosen;
  for (int at = 1; at < count; at += 2) {
    const std::string_view word = words[at];
    if (at + 1 == count)
      fail(std::string(word) + " needs a number");
    const std::uint64_t value = number_of(words[at + 1]);
    if (word == "--blocks")
      chosen.blocks = value;
    else if (word == "--block-bytes")
      chosen.block_bytes = value;
    else if (word == "--unit-bytes")
      chosen.unit_bytes = static_cast<std::uint32_t>(value);
    else
      fail("unknown option " + std::string(word) + "; there are --blocks, --block-bytes and --unit-bytes");
  }
  measurement run(chosen);
  run.fill();
  run.close();
  run.open("closed in order");
  run.die_with_full_journal();
  run.open("died with a full journal");
  run.close();
  return 0;
}
