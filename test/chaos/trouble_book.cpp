#include "test/chaos/trouble_book.hpp"

#include "actors/drive_table.hpp"
#include "test/process/server_process.hpp"

#include <algorithm>

namespace memkv::test {

namespace {
/// Away for longer than this, a drive may have been left by the others: a second less than the server's
/// limit.
constexpr std::chrono::seconds left_after{4};
/// Between the change in the server and its note in the load.
constexpr std::chrono::seconds answer_on_its_way{1};
/// Before a miss is judged to be wrong: longer in all than a report is given again.
constexpr int looks_max = 4;
constexpr std::chrono::milliseconds look_again{150};
} // namespace

bool may_lie_on(std::uint32_t key, std::uint32_t drive, std::uint32_t drives, std::uint32_t workers) {
  if (is_large(key, workers))
    return true;
  const auto name = outside_log::name(key);
  return actors::home_drive(wire::make_key_id("", wire::as_bytes_view(name)), drives) == drive;
}

trouble_book::trouble_book(std::uint32_t drives, std::uint32_t workers, std::function<void()> look)
    : drives_(drives), workers_(workers), look_(std::move(look)) {}

void trouble_book::begin(std::uint32_t drive, bool may_lose) {
  const std::lock_guard guard(lock_);
  for (auto& each : troubles_)
    if (each.drive == drive && !each.ended) {
      each.may_lose = each.may_lose || may_lose;
      return;
    }
  troubles_.push_back({drive, may_lose, std::chrono::steady_clock::now(), {}});
}

void trouble_book::end_all() {
  const std::lock_guard guard(lock_);
  const auto now = std::chrono::steady_clock::now();
  for (auto& each : troubles_)
    if (!each.ended) {
      each.ended = now;
      each.may_lose = each.may_lose || now - each.begun >= left_after;
    }
}

bool trouble_book::in_order(std::uint32_t key, time_point acknowledged, time_point begun) {
  const std::lock_guard guard(lock_);
  return std::any_of(troubles_.begin(), troubles_.end(), [&](const trouble& each) {
    if (!may_lie_on(key, each.drive, drives_, workers_))
      return false;
    return !each.ended || *each.ended >= begun ||
           (each.may_lose && *each.ended + answer_on_its_way >= acknowledged);
  });
}

bool trouble_book::may_miss(std::uint32_t key, time_point acknowledged, time_point begun) {
  if (in_order(key, acknowledged, begun))
    return true;
  // A report may be a moment old, and there may be none at once.
  for (int looks = 0; looks < looks_max; ++looks) {
    look_();
    if (in_order(key, acknowledged, begun))
      return true;
    pause_for(look_again);
  }
  return false;
}

} // namespace memkv::test
