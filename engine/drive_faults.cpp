#include "engine/drive_faults.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

bool fits(const drive_fault& order, io_operation::kind what) noexcept {
  using kind = io_operation::kind;
  using target = drive_fault::target;
  // Discards of a running server go past the device: make_discarder().
  if (what == kind::discard || (order.what == drive_fault::effect::corrupt && what != kind::read))
    return false;
  switch (order.which) {
  case target::any:
    return true;
  case target::reads:
    return what == kind::read;
  case target::writes:
    return what == kind::write;
  case target::flushes:
    return what == kind::flush;
  }
  return false;
}

} // namespace

bool drive_faults::arm(const drive_fault& order) {
  const bool possible = order.what != drive_fault::effect::corrupt ||
                        order.which == drive_fault::target::any || order.which == drive_fault::target::reads;
  if (order.count == 0 || !possible)
    return false;
  const std::lock_guard guard(lock_);
  if (orders_.size() >= orders_max)
    return false;
  orders_.push_back(order);
  any_ = true;
  return true;
}

void drive_faults::clear() {
  const std::lock_guard guard(lock_);
  orders_.clear();
  any_ = false;
  ++cleared_;
}

std::vector<drive_fault> drive_faults::armed() const {
  const std::lock_guard guard(lock_);
  return orders_;
}

drive_faults_met drive_faults::met() const {
  const std::lock_guard guard(lock_);
  return met_;
}

std::optional<drive_fault> drive_faults::take(io_operation::kind what) {
  if (!any_.load(std::memory_order_relaxed))
    return std::nullopt;
  const std::lock_guard guard(lock_);
  const auto found = std::find_if(orders_.begin(), orders_.end(),
                                  [what](const drive_fault& order) { return fits(order, what); });
  if (found == orders_.end())
    return std::nullopt;
  const drive_fault hit = *found;
  if (--found->count == 0)
    orders_.erase(found);
  any_ = !orders_.empty();
  switch (hit.what) {
  case drive_fault::effect::fail:
    ++met_.failed;
    break;
  case drive_fault::effect::slow:
    ++met_.slowed;
    break;
  case drive_fault::effect::hang:
    ++met_.hung;
    break;
  case drive_fault::effect::corrupt:
    ++met_.corrupted;
    break;
  }
  return hit;
}

} // namespace memkv::engine
