// Clients that put, overwrite, delete and read blocks in every form the library has, compare every byte with
// the outside log, and write down what was acknowledged.
//
// Threading: one thread uses it; it has its own workers. Ownership: the log outlives it.
// Errors: as sentences in problems(). Does not do: wait for a server that is not there.
#pragma once

#include "client/client.hpp"
#include "test/process/outside_log.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace memkv::test {

struct load_settings {
  std::uint32_t workers = 4;
  std::uint64_t seed = 1;
  bool may_be_full = false;        // a put may be refused for lack of space, and is then not done
  std::uint32_t read_percent = 30; // of all operations
};

/// A client of the server at this port of the loopback interface.
[[nodiscard]] std::unique_ptr<client::client> connect_to(std::uint16_t port);

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
  [[nodiscard]] std::uint64_t operations() const noexcept { return operations_; }
  [[nodiscard]] std::uint64_t refused_for_space() const noexcept { return refused_; }

private:
  class worker;

  void report(std::string sentence);

  outside_log& log_;
  load_settings settings_;
  std::unique_ptr<client::client> client_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> trouble_{false};
  std::atomic<std::uint64_t> operations_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::mutex problems_lock_;
  std::vector<std::string> problems_;
  std::vector<std::thread> threads_;
};

/// Reads every key and settles it. Returns what is wrong.
[[nodiscard]] std::vector<std::string> verify_all(outside_log& log, std::uint16_t port);
/// Deletes every key, and says what the store still holds then, when that is not nothing.
[[nodiscard]] std::string remove_all(outside_log& log, std::uint16_t port);

} // namespace memkv::test
