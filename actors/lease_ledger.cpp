#include "actors/lease_ledger.hpp"

#include "wire/assert.hpp"

namespace memkv::actors {

lease_ledger::hold& lease_ledger::hold::operator=(hold&& other) noexcept {
  if (this != &other) {
    give_back();
    of_ = std::exchange(other.of_, nullptr);
    which_ = other.which_;
  }
  return *this;
}

void lease_ledger::hold::give_back() noexcept {
  if (auto* const of = std::exchange(of_, nullptr); of != nullptr)
    of->give_back(which_);
}

bool lease_ledger::take(std::span<const wanted> all, std::uint64_t drive_bytes) {
  const std::lock_guard guard(lock_);
  std::uint64_t more = 0;
  for (const auto& each : all)
    more += pinned_.contains(each.which) ? 0 : each.bytes;
  if (more > 0 && bytes_ > 0 && bytes_ + more > drive_bytes / share)
    return false;
  for (const auto& each : all) {
    MEMKV_ASSERT(!*each.into, "an extent is held once by a lease");
    const auto [found, fresh] = pinned_.try_emplace(each.which, pinned{each.bytes, 0});
    ++found->second.holds;
    if (fresh)
      bytes_ += each.bytes;
    each.into->of_ = this;
    each.into->which_ = each.which;
  }
  return true;
}

void lease_ledger::give_back(engine::entry_handle which) noexcept {
  const std::lock_guard guard(lock_);
  const auto found = pinned_.find(which);
  MEMKV_ASSERT(found != pinned_.end(), "what a lease holds is counted");
  if (--found->second.holds > 0)
    return;
  bytes_ -= found->second.bytes;
  pinned_.erase(found);
}

std::uint64_t lease_ledger::bytes() const noexcept {
  const std::lock_guard guard(lock_);
  return bytes_;
}

} // namespace memkv::actors
