// What earlier incarnations of one drive have counted, so that its counters go on when it is opened again.
//
// Threading: any thread. Ownership: shared by SERVER's seat of the drive and its incarnations. A memory
// drive's store outlives its actor and goes on counting by itself; nothing is added for it.
#pragma once

#include "actors/server_report.hpp"

#include <mutex>

namespace memkv::actors {

class drive_past {
public:
  /// An incarnation has ended.
  void add(const engine::store_counters& store, const engine::device_statistics& io,
           std::uint64_t trimmed_bytes) {
    const std::lock_guard guard(lock_);
    store_ += store;
    io_ += io;
    trimmed_bytes_ += trimmed_bytes;
  }

  void add_to(drive_facts& facts) const {
    const std::lock_guard guard(lock_);
    facts.store += store_;
    facts.io += io_;
    facts.trimmed_bytes += trimmed_bytes_;
  }

private:
  mutable std::mutex lock_;
  engine::store_counters store_;
  engine::device_statistics io_;
  std::uint64_t trimmed_bytes_ = 0;
};

} // namespace memkv::actors
