// What the engine's hot pieces cost: index, allocators, eviction order, buffer pool, guarded read.

#include "engine/allocator.hpp"
#include "engine/buffer_pool.hpp"
#include "engine/eviction.hpp"
#include "engine/guarded_read.hpp"
#include "engine/index.hpp"

#include <benchmark/benchmark.h>

#include <array>
#include <memory>
#include <vector>

namespace {

using namespace memkv::engine;

/// A small generator of well mixed numbers, the same in each run.
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15;
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
  value = (value ^ value >> 27) * 0x94D049BB133111EB;
  return value ^ value >> 31;
}

key_id id_of(std::uint64_t number) {
  key_id id;
  memkv::wire::store_le(id.bytes.data(), mixed(number));
  memkv::wire::store_le(id.bytes.data() + 8, mixed(~number));
  return id;
}

entry_handle put(block_index& index, std::uint64_t number) {
  block_entry fields;
  fields.id = id_of(number);
  fields.units = 16;
  entry_handle inserted = no_entry, replaced = no_entry;
  if (index.insert(fields, inserted, replaced) != errc::ok)
    std::abort();
  return inserted;
}

/// Kept between benchmarks and threads: filling it takes longer than measuring.
block_index& filled_index(std::uint64_t blocks) {
  static std::array<std::unique_ptr<block_index>, 64> kept;
  auto& place = kept[static_cast<std::size_t>(__builtin_ctzll(blocks))];
  if (!place) {
    place = std::make_unique<block_index>(static_cast<std::uint32_t>(blocks + 16));
    for (std::uint64_t i = 0; i < blocks; ++i)
      put(*place, i);
  }
  return *place;
}

void index_find_and_pin(benchmark::State& state) {
  static block_index* index = nullptr;
  const auto blocks = static_cast<std::uint64_t>(state.range(0));
  if (state.thread_index() == 0)
    index = &filled_index(blocks);
  std::uint64_t next = static_cast<std::uint64_t>(state.thread_index()) << 32;
  for (auto _ : state)
    benchmark::DoNotOptimize(index->find_and_pin(id_of(mixed(next++) % blocks)));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(index_find_and_pin)->Arg(1 << 14)->Arg(1 << 20)->Arg(1 << 23);
BENCHMARK(index_find_and_pin)->Arg(1 << 20)->Threads(2)->UseRealTime();

void index_contains(benchmark::State& state) {
  const auto blocks = static_cast<std::uint64_t>(state.range(0));
  const bool present = state.range(1) != 0;
  block_index& index = filled_index(blocks);
  std::uint64_t next = 0;
  std::uint32_t length = 0;
  std::uint64_t generation = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(
        index.contains(id_of(mixed(next++) % blocks + (present ? 0 : blocks)), length, generation, present));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(index_contains)
    ->ArgsProduct({{1 << 14, 1 << 20, 1 << 23}, {0, 1}})
    ->ArgNames({"blocks", "present"});

void index_insert_and_remove(benchmark::State& state) {
  const auto blocks = static_cast<std::uint64_t>(state.range(0));
  block_index& index = filled_index(blocks);
  std::uint64_t next = blocks * 16;
  for (auto _ : state) {
    const entry_handle handle = put(index, next++);
    index.unlink(handle);
    if (index.retire(handle))
      index.free(handle);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(index_insert_and_remove)->Arg(1 << 14)->Arg(1 << 20)->Arg(1 << 23);

void index_visit(benchmark::State& state) {
  const block_index& index = filled_index(1 << 20);
  key_id last;
  last.bytes.fill(std::byte{0xFF});
  std::uint64_t seen = 0;
  for (auto _ : state)
    index.visit({}, last, [&](entry_handle) { ++seen; });
  state.SetItemsProcessed(static_cast<std::int64_t>(seen));
}
BENCHMARK(index_visit)->Unit(benchmark::kMillisecond);

/// A drive of 8 TiB in units of 64 KiB, 95 % full of extents of `extent` units that were freed at random.
struct worn_drive {
  unit_allocator units{std::uint32_t{1} << 27};
  std::vector<std::vector<run>> extents;
  std::uint64_t next = 0;

  explicit worn_drive(std::uint32_t extent) {
    std::vector<run> runs;
    while (units.allocate(extent, 64, runs) == errc::ok)
      extents.push_back(runs);
    for (std::uint64_t i = extents.size() / 20; i > 0; --i)
      free_one();
  }
  void free_one() {
    std::swap(extents[mixed(next++) % extents.size()], extents.back());
    for (const run& piece : extents.back())
      units.free(piece);
    extents.pop_back();
  }
};

worn_drive& worn(std::uint32_t extent) {
  static std::uint32_t kept_extent = 0;
  static std::unique_ptr<worn_drive> kept;
  if (kept_extent != extent) {
    kept.reset();
    kept = std::make_unique<worn_drive>(extent);
    kept_extent = extent;
  }
  return *kept;
}

/// `wanted` equal to the extents of the drive is the usual case; larger ones must be put together from
/// pieces.
void allocator_at_95_percent(benchmark::State& state) {
  worn_drive& drive = worn(static_cast<std::uint32_t>(state.range(0)));
  const auto wanted = static_cast<std::uint32_t>(state.range(1));
  std::vector<run> runs;
  std::uint64_t pieces = 0, refused = 0;
  for (auto _ : state) {
    if (drive.units.allocate(wanted, 64, runs) != errc::ok) {
      ++refused;
      continue;
    }
    pieces += runs.size();
    for (const run& piece : runs)
      drive.units.free(piece);
  }
  state.counters["pieces"] = static_cast<double>(pieces) / static_cast<double>(state.iterations());
  state.counters["refused"] = static_cast<double>(refused) / static_cast<double>(state.iterations());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(allocator_at_95_percent)
    ->Args({64, 64})
    ->Args({64, 1})
    ->Args({16, 16})
    ->Args({16, 64})
    ->Args({1, 1})
    ->Args({1, 16})
    ->Args({1, 64})
    ->Args({1, 512})
    ->ArgNames({"drive", "wanted"});

/// The steady state of a full cache: one extent goes, one of the same size comes.
void allocator_turnover(benchmark::State& state) {
  worn_drive& drive = worn(static_cast<std::uint32_t>(state.range(0)));
  std::vector<run> runs;
  for (auto _ : state) {
    drive.free_one();
    if (drive.units.allocate(static_cast<std::uint32_t>(state.range(0)), 64, runs) != errc::ok)
      std::abort();
    drive.extents.push_back(runs);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(allocator_turnover)->Arg(64)->Arg(16);

void header_pages(benchmark::State& state) {
  unit_allocator units(1 << 20);
  header_page_allocator pages(units, 64 << 10);
  std::vector<std::uint32_t> held;
  for (int i = 0; i < 100000; ++i) {
    std::uint32_t page = 0;
    if (pages.allocate(page) != errc::ok)
      std::abort();
    held.push_back(page);
  }
  std::uint64_t next = 0;
  for (auto _ : state) {
    std::uint32_t& page = held[mixed(next++) % held.size()];
    bool unit_freed = false;
    pages.free(page, unit_freed);
    if (pages.allocate(page) != errc::ok)
      std::abort();
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(header_pages);

/// A put into a full cache of a million blocks, as far as the eviction order and the index are concerned.
void eviction_of_one(benchmark::State& state) {
  constexpr std::uint64_t blocks = 1 << 20;
  block_index index(blocks + 16);
  const auto policy = make_eviction_policy(
      index, {.kind = static_cast<eviction_kind>(state.range(0)), .capacity_bytes = blocks * 16 * 65536});
  std::uint64_t next = 0;
  while (next < blocks)
    policy->inserted(put(index, next++));
  for (auto _ : state) {
    // Half as many hits as puts, mostly on young blocks.
    if (next % 2 == 0)
      benchmark::DoNotOptimize(index.find_and_pin(id_of(next - 1 - mixed(next) % (blocks / 2))));
    const entry_handle victim = policy->victim();
    policy->evicted(victim);
    index.unlink(victim);
    if (index.retire(victim))
      index.free(victim);
    policy->inserted(put(index, next++));
  }
  state.SetLabel(std::string(name(static_cast<eviction_kind>(state.range(0)))));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(eviction_of_one)->DenseRange(0, 3);

void buffer_pool_turn(benchmark::State& state) {
  static std::unique_ptr<buffer_pool> pool;
  if (state.thread_index() == 0 && !buffer_pool::create({64 << 20, 1 << 20, false}, pool).ok())
    std::abort();
  for (auto _ : state)
    benchmark::DoNotOptimize(pool->acquire().data());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(buffer_pool_turn)->Threads(1)->Threads(2)->UseRealTime();

void guarded_read_without_fault(benchmark::State& state) {
  std::array<std::byte, 64> bytes{};
  int sum = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(guarded_read(bytes, [&] { sum += static_cast<int>(bytes[0]); }));
    benchmark::DoNotOptimize(sum);
  }
}
BENCHMARK(guarded_read_without_fault);

} // namespace
