// How long a randomised case goes on, and its seed. MEMKV_TEST_SECONDS: its time; MEMKV_TEST_CYCLES: its
// least number of cycles; MEMKV_TEST_SEED: chances as in an earlier run (moments still differ).
//
// Threading: one thread. Ownership: nothing. Errors: none.
#pragma once

#include <caf/test/unit_test.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

namespace memkv::test {

/// CAF's suite would end a case after half a minute; the long forms last as long as they are told to, and
/// ctest has a limit of its own.
inline const bool has_no_watchdog = (caf::test::engine::max_runtime(0), true);

class cycles {
public:
  explicit cycles(std::string name)
      : name_(std::move(name)), least_(number("MEMKV_TEST_CYCLES", 3)),
        end_(begin_ + std::chrono::milliseconds{1'000 * number("MEMKV_TEST_SECONDS", 2)}),
        seed_(number("MEMKV_TEST_SEED", std::random_device{}())), chance_(seed_) {
    // At once, so that it is known even when nothing else is.
    std::cout << name_ << ": MEMKV_TEST_SEED=" << seed_ << std::endl;
  }

  /// One more?
  [[nodiscard]] bool next() {
    if (done_ >= least_ && std::chrono::steady_clock::now() >= end_)
      return false;
    ++done_;
    return true;
  }

  [[nodiscard]] std::uint64_t below(std::uint64_t end) { return chance_() % end; }
  [[nodiscard]] std::uint64_t done() const noexcept { return done_; }
  [[nodiscard]] std::string name() const {
    return name_ + " (MEMKV_TEST_SEED=" + std::to_string(seed_) + ")";
  }
  [[nodiscard]] std::string summary() const { return name_ + ": " + std::to_string(done_) + " cycles"; }

private:
  static std::uint64_t number(const char* variable, std::uint64_t otherwise) {
    const char* text = std::getenv(variable);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
  }

  std::string name_;
  std::uint64_t least_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point end_;
  std::uint64_t seed_;
  std::mt19937_64 chance_;
  std::uint64_t done_ = 0;
};

} // namespace memkv::test
