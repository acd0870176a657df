// How many bytes of one drive leases keep from being evicted and reused, and how many they may.
//
// Operation. What several leases pin is counted once. A lease takes all that it pins on a drive or nothing of
// it. It is refused when leases would then pin more than a `share`th of the drive, unless no other pins
// anything there: a block of any length can be leased, one at a time.
//
// Threading: any thread; one small lock. Ownership: by the drive's body, which outlives the holds. Limits:
// those above; entries are bounded by token_budget.
#pragma once

#include "engine/index.hpp"

#include <cstdint>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>

namespace memkv::actors {

class lease_ledger {
public:
  static constexpr std::uint64_t share = 8;

  lease_ledger() = default;
  lease_ledger(const lease_ledger&) = delete;
  lease_ledger& operator=(const lease_ledger&) = delete;

  /// One extent under one lease, which is pinned for as long; gives it back when it dies.
  class hold {
  public:
    hold() noexcept = default;
    hold(hold&& other) noexcept : of_(std::exchange(other.of_, nullptr)), which_(other.which_) {}
    hold& operator=(hold&& other) noexcept;
    ~hold() { give_back(); }

    [[nodiscard]] explicit operator bool() const noexcept { return of_ != nullptr; }
    void give_back() noexcept;

  private:
    friend class lease_ledger;
    lease_ledger* of_ = nullptr;
    engine::entry_handle which_ = engine::no_entry;
  };

  struct wanted {
    engine::entry_handle which = engine::no_entry;
    std::uint64_t bytes = 0; // that it takes on the drive
    hold* into = nullptr;    // empty so far
  };
  /// What one lease pins on a drive that has `drive_bytes` for blocks. False: nothing was taken.
  [[nodiscard]] bool take(std::span<const wanted> all, std::uint64_t drive_bytes);
  [[nodiscard]] std::uint64_t bytes() const noexcept;

private:
  struct pinned {
    std::uint64_t bytes = 0;
    std::uint32_t holds = 0;
  };
  void give_back(engine::entry_handle which) noexcept;

  mutable std::mutex lock_;
  std::unordered_map<engine::entry_handle, pinned> pinned_;
  std::uint64_t bytes_ = 0;
};

} // namespace memkv::actors
