// The vocabulary of the store's fault tests: a store on a simulated drive, values that name themselves, and
// the model of what may be answered.
//
// Threading: one thread. Errors: a wrong answer is a sentence in `problems`, never an abort, so that a test
// can say the seed.
#pragma once

#include "engine/drive_store.hpp"
#include "test/sim/model.hpp"
#include "test/sim/sim_device.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace memkv::crash {

/// A clock that goes on by one millisecond each time it is asked.
class test_clock final : public engine::clock {
public:
  [[nodiscard]] std::uint64_t wall_ns() const noexcept override { return 1'700'000'000'000'000'000 + tick(); }
  [[nodiscard]] std::uint64_t steady_ns() const noexcept override { return tick(); }

private:
  std::uint64_t tick() const noexcept { return now_ += 1'000'000; }
  mutable std::uint64_t now_ = 1'000'000;
};

/// A value says its own name: the length in the low 24 bits, a serial number above; the bytes follow from it.
using content = sim::model::content;
[[nodiscard]] constexpr content content_of(std::uint64_t serial, std::uint32_t length) {
  return length == 0 ? 0 : serial << 24 | length;
}
[[nodiscard]] constexpr std::uint32_t length_of(content what) {
  return what & 0xFFFFFF;
}
/// Room up to whole pages.
[[nodiscard]] std::vector<std::byte> bytes_of(content what);
[[nodiscard]] std::vector<std::uint32_t> sums_of(std::span<const std::byte> value);

/// Seeds of a randomised test: MEMKV_TEST_SEED alone if set, else `usual` many (MEMKV_TEST_SEEDS if set) from
/// 1 on.
[[nodiscard]] std::vector<std::uint64_t> seeds(std::uint64_t usual);

struct run_options {
  std::uint64_t seed = 1;
  engine::sync_policy sync = engine::sync_policy::always;
  std::uint64_t size_bytes = 8 << 20;
  std::uint32_t unit_bytes = 4 << 10;
  std::uint32_t extent_bytes_max = 64 << 10;
  bool eviction = true;
  bool verify = true;
  std::uint64_t delay_ticks_max = 8;
  sim::discarded after_discard = sim::discarded::old_bytes;
  std::byte boot{1};
};

class store_run {
public:
  explicit store_run(const run_options& options);
  /// On what another run left: a machine that starts again.
  store_run(const run_options& options, sim::image start, sim::model expected);
  ~store_run();
  store_run(const store_run&) = delete;
  store_run& operator=(const store_run&) = delete;

  engine::status open();
  /// Each of these drives the store until the answer came.
  engine::errc put(const std::string& key, content what, bool if_absent = false);
  engine::errc erase(const std::string& key);
  /// Reads everything, tells the model, notes what is wrong. Empty: a miss or an error.
  std::optional<content> get(const std::string& key);
  void get_all();
  engine::status close();

  // Without waiting; `poll_all` drives.
  void start_put(const std::string& key, content what);
  void start_erase(const std::string& key);
  void poll_all();
  [[nodiscard]] std::size_t unanswered() const noexcept { return unanswered_; }

  /// The process dies: everything in the device still happens (a kernel does that) or, after cut_power,
  /// nothing does.
  void die(bool lossy);

  [[nodiscard]] bool drive_until(const std::function<bool()>& done);

  run_options options;
  engine::store_options store_options;
  test_clock time;
  sim::world world;
  std::unique_ptr<sim::sim_device> device;
  std::unique_ptr<engine::drive_store> store;
  sim::model expected;
  std::vector<std::string> problems;
  std::uint64_t corrupt_reads = 0;
  /// Checkpoints that ran beside other work: a test that never sees one proves little.
  std::uint64_t checkpoints = 0;
  /// The drive is damaged: any block may be a miss, none wrong.
  bool damaged = false;

private:
  void note_evictions();
  std::size_t unanswered_ = 0;
  std::uint64_t evicted_seen_ = 0;
};

[[nodiscard]] engine::key_id id_of(const std::string& key);

/// The first problem, or nothing; with the seed, for CHECK_EQUAL(problem_of(run), "").
[[nodiscard]] std::string problem_of(const store_run& run);

} // namespace memkv::crash
