// The store alone on a raw drive, several operations at a time: puts in sequence (an older block goes for
// each new one once the drive is full) and verified gets at random. No sockets, no actors. bench/compare
// holds it against fio on the same kind of device.
//
// MEMKV_BENCH_DEVICE names the device. What is on it is lost.

#include "engine/buffer_pool.hpp"
#include "engine/drive_store.hpp"
#include "engine/uring_device.hpp"
#include "wire/crc32c.hpp"

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace memkv::engine;
using memkv::wire::make_key_id;

double processor_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "micro_raw_store: %s\n", why.c_str());
  std::exit(1);
}

class raw_store {
public:
  raw_store(std::uint32_t block_bytes, std::size_t depth) : block_bytes_(block_bytes) {
    const char* path = std::getenv("MEMKV_BENCH_DEVICE");
    if (path == nullptr)
      give_up("MEMKV_BENCH_DEVICE names no device");
    buffer_pool_options pool;
    pool.chunk_bytes = 4 << 20;
    pool.size_bytes = depth * pool.chunk_bytes;
    if (!buffer_pool::create(pool, pool_).ok())
      give_up("no memory");
    uring_device_options device;
    device.path = path;
    device.registered = pool_->range();
    if (const auto opened = open_uring_device(device, device_); !opened.ok())
      give_up(opened.text);
    store_options options;
    options.sync = sync_policy::always;
    options.eviction = true;
    if (const auto formatted = drive_store::format(*device_, options); !formatted.ok())
      give_up(formatted.text);
    if (const auto opened = drive_store::open(*device_, options, time_, store_); !opened.ok())
      give_up(opened.text);
    for (std::size_t i = 0; i < depth; ++i) {
      buffers_.push_back(pool_->acquire());
      std::mt19937_64 random(i);
      for (std::size_t at = 0; at < block_bytes; at += 8)
        memkv::wire::store_le<std::uint64_t>(buffers_.back().data() + at, random());
      free_.push_back(i);
    }
  }
  ~raw_store() {
    static_cast<void>(store_->close());
    store_.reset();
  }
  raw_store(const raw_store&) = delete;
  raw_store& operator=(const raw_store&) = delete;

  /// Begins a put of the next block when one of `depth` buffers is free; waits for that if need be.
  void put_next() {
    const auto slot = take_slot();
    const std::string key = std::to_string(next_++);
    put_description what;
    what.key = memkv::wire::as_bytes_view(key);
    what.id = make_key_id("", what.key);
    what.length = block_bytes_;
    what.value_length = block_bytes_;
    store_->allocate(what, [this, slot](errc code, reservation space) {
      if (code != errc::ok)
        give_up("a put was refused: " + std::string(name(code)));
      const auto token = space.token;
      const auto data = buffers_[slot].span().first(block_bytes_);
      store_->write(token, 0, data, [this, slot, token, data](errc written) {
        if (written != errc::ok)
          give_up("a write failed");
        // As the server does it: over the bytes that arrived.
        std::vector<std::uint32_t> sums;
        for (std::size_t at = 0; at < data.size(); at += chunk_bytes)
          sums.push_back(memkv::wire::crc32c(data.subspan(at, chunk_bytes)));
        store_->commit(token, sums, false, 0, [this, slot](errc committed, std::uint64_t) {
          if (committed != errc::ok)
            give_up("a commit failed");
          free_.push_back(slot);
        });
      });
    });
  }

  void get(std::uint64_t number) {
    const auto slot = take_slot();
    const std::string key = std::to_string(number);
    const auto bytes = memkv::wire::as_bytes_view(key);
    auto pin = std::make_shared<block_pin>(store_->index().find_and_pin(make_key_id("", bytes)));
    if (!*pin)
      give_up("a block is not there");
    store_->read(*pin, "", bytes, 0, block_bytes_, buffers_[slot].span(),
                 [this, slot, pin](errc code, const extent_view&) {
                   if (code != errc::ok)
                     give_up("a read failed: " + std::string(name(code)));
                   free_.push_back(slot);
                 });
  }

  void finish() {
    while (free_.size() < buffers_.size())
      store_->poll(true);
  }

  [[nodiscard]] std::uint64_t capacity() const {
    return store_->counters().usable_bytes / (block_bytes_ + (64 << 10));
  }
  [[nodiscard]] device_statistics statistics() const { return device_->statistics(); }

private:
  std::size_t take_slot() {
    while (free_.empty())
      store_->poll(true);
    const auto slot = free_.back();
    free_.pop_back();
    return slot;
  }

  const std::uint32_t block_bytes_;
  std::unique_ptr<buffer_pool> pool_;
  system_clock time_;
  std::unique_ptr<block_device> device_;
  std::unique_ptr<drive_store> store_;
  std::vector<buffer> buffers_;
  std::vector<std::size_t> free_;
  std::uint64_t next_ = 0;
};

void report(benchmark::State& state, const raw_store& store, double processor) {
  const auto bytes = state.iterations() * state.range(0);
  state.SetBytesProcessed(bytes);
  state.counters["depth"] = store.statistics().depth_most;
  state.counters["cpu_s_per_GiB"] =
      (processor_seconds() - processor) / (static_cast<double>(bytes) / (1U << 30U));
}

void raw_store_put(benchmark::State& state) {
  raw_store store(static_cast<std::uint32_t>(state.range(0)), static_cast<std::size_t>(state.range(1)));
  const double processor = processor_seconds();
  for (auto _ : state)
    store.put_next();
  store.finish();
  report(state, store, processor);
}

void raw_store_get(benchmark::State& state) {
  raw_store store(static_cast<std::uint32_t>(state.range(0)), static_cast<std::size_t>(state.range(1)));
  const std::uint64_t blocks = store.capacity() / 2;
  for (std::uint64_t number = 0; number < blocks; ++number)
    store.put_next();
  store.finish();
  std::mt19937_64 random(1);
  const double processor = processor_seconds();
  for (auto _ : state)
    store.get(random() % blocks);
  store.finish();
  report(state, store, processor);
}

BENCHMARK(raw_store_put)->Args({1 << 20, 8})->Args({4 << 20, 8})->UseRealTime();
BENCHMARK(raw_store_get)->Args({1 << 20, 8})->Args({4 << 20, 8})->UseRealTime();

} // namespace
