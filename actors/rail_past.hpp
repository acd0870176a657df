// What earlier DCI POOLs of one rail have counted, so that its counters go on with the next one.
//
// Threading: any thread. Ownership: shared by SERVER's seat of the rail and its pools.
#pragma once

#include "actors/server_report.hpp"

#include <mutex>

namespace memkv::actors {

class rail_past {
public:
  /// A pool has ended.
  void add(const rail_counters& counters) {
    const std::lock_guard guard(lock_);
    counters_ += counters;
  }
  [[nodiscard]] rail_counters read() const {
    const std::lock_guard guard(lock_);
    return counters_;
  }

private:
  mutable std::mutex lock_;
  rail_counters counters_;
};

} // namespace memkv::actors
