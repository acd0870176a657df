// Which drives were in trouble when, as the one who makes the trouble writes it down; and so which misses are
// in order.
//
// A block may be missed while a drive that it lies on is away. Once that drive has failed, been told to read
// wrong bytes, or been away for so long that the others took its keys, what was acknowledged before the end
// of that may be gone for good. Nothing else may ever be missed.
//
// Threading: any thread.
#pragma once

#include "test/process/verified_load.hpp"

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace memkv::test {

class trouble_book final : public miss_judge {
public:
  /// `workers`: of the load, whose keys are known by their number. `look`: asked before a miss is judged to
  /// be wrong; it enters what it finds out about drives that failed by themselves.
  trouble_book(std::uint32_t drives, std::uint32_t workers, std::function<void()> look);

  /// Trouble of this drive begins; `may_lose`: what is on it may be gone afterwards.
  void begin(std::uint32_t drive, bool may_lose);
  /// All drives are well.
  void end_all();

  [[nodiscard]] bool may_miss(std::uint32_t key, time_point acknowledged, time_point begun) override;

private:
  struct trouble {
    std::uint32_t drive = 0;
    bool may_lose = false;
    time_point begun;
    std::optional<time_point> ended;
  };
  [[nodiscard]] bool in_order(std::uint32_t key, time_point acknowledged, time_point begun);

  const std::uint32_t drives_;
  const std::uint32_t workers_;
  std::function<void()> look_;
  std::mutex lock_;
  std::vector<trouble> troubles_;
};

/// Where a key of the load lies: its home, or all drives, since a large value has parts anywhere.
[[nodiscard]] bool may_lie_on(std::uint32_t key, std::uint32_t drive, std::uint32_t drives,
                              std::uint32_t workers);

} // namespace memkv::test
