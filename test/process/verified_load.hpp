// Clients that put, overwrite, delete and read blocks in every form the library has, compare every byte with
// the outside log, and write down what was acknowledged.
//
// Threading: one thread uses it; it has its own workers. Ownership: the log outlives it.
// Errors: as sentences in problems(). Does not do: wait for a server that is not there.
#pragma once

#include "client/client.hpp"
#include "test/process/outside_log.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace memkv::test {

/// What a load that goes on while its server is harmed must know to judge a miss.
class miss_judge {
public:
  using time_point = std::chrono::steady_clock::time_point;
  virtual ~miss_judge() = default;
  /// Any thread. Whether a block that was acknowledged before `acknowledged` may be missed by a request that
  /// began at `begun` and has just been answered.
  [[nodiscard]] virtual bool may_miss(std::uint32_t key, time_point acknowledged, time_point begun) = 0;
};

struct load_settings {
  std::uint32_t workers = 4;
  std::uint64_t seed = 1;
  bool may_be_full = false;        // a put may be refused for lack of space, and is then not done
  std::uint32_t read_percent = 30; // of all operations

  /// Set: requests may fail, and the workers go on. A key whose change had no answer is left alone for
  /// `unsettled`, longer than the server may take to carry it out, and then read.
  miss_judge* judge = nullptr;
  std::chrono::milliseconds unsettled{15'000};
  std::uint32_t deadline_ms = 0;      // 0: the client's
  std::chrono::milliseconds pause{0}; // after each operation
};

/// Whether the values of this key may be larger than what one drive takes in one piece.
[[nodiscard]] constexpr bool is_large(std::uint32_t key, std::uint32_t workers) noexcept {
  return key / workers % 20 < 2;
}

/// What came of a load with a judge.
struct trouble_counts {
  std::uint64_t judged = 0;                      // answers that were compared with what may be
  std::uint64_t forgiven = 0;                    // misses that the judge allowed
  std::uint64_t settled = 0;                     // keys whose change had no answer, and were read afterwards
  std::map<std::string, std::uint64_t> failures; // by name of the error
  double longest_seconds = 0;                    // of one request
};

/// A client of the server at this port of the loopback interface.
[[nodiscard]] std::unique_ptr<client::client> connect_to(std::uint16_t port, std::uint32_t deadline_ms = 0);

class verified_load {
public:
  verified_load(outside_log& log, std::uint16_t port, load_settings settings);
  ~verified_load();
  verified_load(const verified_load&) = delete;
  verified_load& operator=(const verified_load&) = delete;

  /// From here on requests may fail; a worker ends with the first that does.
  void expect_trouble() noexcept { trouble_ = true; }
  /// Ends the workers after what they are doing.
  void stop();
  [[nodiscard]] const std::vector<std::string>& problems() const noexcept { return problems_; }
  /// While it runs; empty as long as there is none.
  [[nodiscard]] std::string first_problem();
  [[nodiscard]] std::uint64_t operations() const noexcept { return operations_; }
  [[nodiscard]] std::uint64_t refused_for_space() const noexcept { return refused_; }
  /// After stop().
  [[nodiscard]] const trouble_counts& trouble() const noexcept { return counts_; }
  /// When the last change of the key was acknowledged.
  [[nodiscard]] miss_judge::time_point acknowledged_at(std::uint32_t key) const noexcept {
    return miss_judge::time_point{miss_judge::time_point::duration{acknowledged_[key].load()}};
  }

private:
  class worker;

  void report(std::string sentence);
  void add(const trouble_counts& counts);

  outside_log& log_;
  load_settings settings_;
  std::unique_ptr<client::client> client_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> trouble_{false};
  std::atomic<std::uint64_t> operations_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::mutex problems_lock_;
  std::vector<std::string> problems_;
  trouble_counts counts_;
  std::vector<std::atomic<miss_judge::time_point::rep>> acknowledged_; // by key
  std::vector<std::thread> threads_;
};

/// Reads every key and settles it. Returns what is wrong.
[[nodiscard]] std::vector<std::string> verify_all(outside_log& log, std::uint16_t port);
/// Deletes every key, and says what the store still holds then, when that is not nothing.
[[nodiscard]] std::string remove_all(outside_log& log, std::uint16_t port);

} // namespace memkv::test
