// What a store on a file costs beside the file itself: puts and verified gets of whole blocks, without
// sockets or actors, on a file that is fully written and cached. bench/compare holds it against fio.
//
// MEMKV_BENCH_FOLDER names where the file goes (2 GiB); /tmp otherwise.

#include "engine/drive_store.hpp"
#include "engine/file_device.hpp"
#include "wire/crc32c.hpp"

#include <benchmark/benchmark.h>

#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace memkv::engine;
using memkv::wire::make_key_id;

constexpr std::uint64_t data_bytes = 1U << 30U;

/// A store that holds data_bytes of blocks of one size, every unit of the file written.
class filled_store {
public:
  explicit filled_store(std::uint32_t block_bytes)
      : blocks(data_bytes / block_bytes), block_bytes_(block_bytes), value_(block_bytes, std::byte{0x5A}) {
    const char* folder = std::getenv("MEMKV_BENCH_FOLDER");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/memkv-micro-store-" +
            std::to_string(::getpid()) + ".dat";
    file_device_options file;
    file.path = path_;
    file.size_bytes = 2 * data_bytes;
    store_options options;
    if (!open_file_device(file, device_).ok() || !drive_store::open(*device_, options, time_, store).ok())
      std::abort();
    for (std::size_t at = 0; at < value_.size(); at += chunk_bytes)
      sums_.push_back(memkv::wire::crc32c(std::span(value_).subspan(at, chunk_bytes)));
    for (int round = 0; round < 2; ++round)
      for (std::uint64_t number = 0; number < blocks; ++number)
        put(number);
  }
  ~filled_store() {
    static_cast<void>(store->close());
    store.reset();
    device_.reset();
    ::unlink(path_.c_str());
  }
  filled_store(const filled_store&) = delete;
  filled_store& operator=(const filled_store&) = delete;

  void put(std::uint64_t number) {
    const std::string key = std::to_string(number);
    put_description what;
    what.key = memkv::wire::as_bytes_view(key);
    what.id = make_key_id("", what.key);
    what.length = block_bytes_;
    what.value_length = block_bytes_;
    bool done = false;
    store->allocate(what, [&](errc code, reservation space) {
      if (code != errc::ok)
        std::abort();
      const auto token = space.token;
      store->write(token, 0, value_, [&, token](errc written) {
        if (written != errc::ok)
          std::abort();
        store->commit(token, sums_, false, 0, [&](errc committed, std::uint64_t) {
          if (committed != errc::ok)
            std::abort();
          done = true;
        });
      });
    });
    while (!done)
      store->poll(true);
  }

  void get(std::uint64_t number) {
    const std::string key = std::to_string(number);
    const auto bytes = memkv::wire::as_bytes_view(key);
    const auto pin = store->index().find_and_pin(make_key_id("", bytes));
    bool done = false;
    store->read(pin, "", bytes, 0, block_bytes_, {}, [&](errc code, const extent_view& view) {
      if (code != errc::ok || view.pieces.empty())
        std::abort();
      done = true;
    });
    while (!done)
      store->poll(true);
  }

  const std::uint64_t blocks;
  std::unique_ptr<drive_store> store;

private:
  const std::uint32_t block_bytes_;
  std::vector<std::byte> value_;
  std::vector<std::uint32_t> sums_;
  std::string path_;
  system_clock time_;
  std::unique_ptr<block_device> device_;
};

void file_store_put(benchmark::State& state) {
  filled_store store(static_cast<std::uint32_t>(state.range(0)));
  std::mt19937_64 random(1);
  for (auto _ : state)
    store.put(random() % store.blocks);
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void file_store_get(benchmark::State& state) {
  filled_store store(static_cast<std::uint32_t>(state.range(0)));
  std::mt19937_64 random(1);
  for (auto _ : state)
    store.get(random() % store.blocks);
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

BENCHMARK(file_store_put)->Arg(256 << 10)->Arg(1 << 20)->Arg(4 << 20)->UseRealTime();
BENCHMARK(file_store_get)->Arg(256 << 10)->Arg(1 << 20)->Arg(4 << 20)->UseRealTime();

} // namespace
