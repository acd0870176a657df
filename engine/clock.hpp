// Time, as something that tests can hold still.
#pragma once

#include <chrono>
#include <cstdint>

namespace memkv::engine {

/// Threading: any thread.
class clock {
public:
  virtual ~clock() = default;
  /// Nanoseconds since 1970-01-01 UTC; may step.
  [[nodiscard]] virtual std::uint64_t wall_ns() const noexcept = 0;
  /// Nanoseconds that never go back.
  [[nodiscard]] virtual std::uint64_t steady_ns() const noexcept = 0;
};

class system_clock final : public clock {
public:
  [[nodiscard]] std::uint64_t wall_ns() const noexcept override {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::system_clock::now().time_since_epoch())
                                          .count());
  }
  [[nodiscard]] std::uint64_t steady_ns() const noexcept override {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now().time_since_epoch())
                                          .count());
  }
};

} // namespace memkv::engine
