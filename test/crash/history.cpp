#include "test/crash/history.hpp"

namespace memkv::crash {

void live(store_run& run, const history_options& options) {
  sim::random chance(run.options.seed * 977 + 5);
  std::uint64_t serial = 1;
  const auto key = [&] {
    return "key-" + std::to_string(chance.below(static_cast<std::uint64_t>(options.keys)));
  };
  const auto value = [&] { return content_of(serial++, options.lengths[chance.below(6)]); };
  for (int step = 0; step < options.steps && !run.store->counters().offline; ++step) {
    const std::uint64_t kind = chance.below(10);
    if (kind < 4) {
      run.put(key(), value());
    } else if (kind < 6) {
      run.erase(key());
    } else if (kind < 7) {
      (void)run.get(key());
    } else {
      for (int i = 0; i < 3; ++i) {
        if (chance.below(4) == 0)
          run.start_erase(key());
        else
          run.start_put(key(), value());
      }
      run.poll_all();
    }
  }
}

void leave_last_words(store_run& run) {
  for (int i = 0; i < 2 && !run.store->counters().offline; ++i)
    run.put("last-" + std::to_string(i), content_of(900'000 + static_cast<std::uint64_t>(i), 100));
}

void expect_all_space_back(store_run& run) {
  for (const std::string& key : run.expected.keys())
    run.erase(key);
  (void)run.drive_until([&] { return run.store->idle(); });
  const auto counters = run.store->counters();
  if (counters.used_bytes != 0 || counters.blocks != 0)
    run.problems.push_back("after removing every block " + std::to_string(counters.used_bytes) +
                           " bytes and " + std::to_string(counters.blocks) + " blocks are left");
}

} // namespace memkv::crash
