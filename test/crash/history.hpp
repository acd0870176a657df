// A short life of a store: puts, overwrites, removals, reads, several at once, enough for checkpoints.
#pragma once

#include "test/crash/store_run.hpp"

namespace memkv::crash {

struct history_options {
  int steps = 40;
  int keys = 8;
  std::uint32_t lengths[6] = {0, 100, 4096, 5000, 20000, 65536};
};

/// Stops when the store went offline. Values and order follow from the run's seed.
void live(store_run& run, const history_options& options = {});

/// Two puts of keys that nothing else uses: batches behind all others in the journal.
void leave_last_words(store_run& run);

/// Removes every key and tells whether all space came back: a leak is a problem of the run.
void expect_all_space_back(store_run& run);

} // namespace memkv::crash
