#include "actors/find_set.hpp"

#include "actors/log.hpp"
#include "actors/server.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace memkv::actors {

namespace {

constexpr const char* target = "memkv::server";
/// How soon a signal is seen.
constexpr auto look_interval = std::chrono::milliseconds{50};

struct peeks {
  std::mutex lock;
  std::condition_variable one_more;
  std::vector<std::optional<engine::superblock>> found;
  std::vector<bool> answered;
  std::size_t left = 0;
};

std::string silent_ones(const server_options& options, const peeks& all) {
  std::string out;
  for (std::size_t index = 0; index < options.drives.size(); ++index)
    if (!all.answered[index])
      out += (out.empty() ? "" : ", ") + options.drives[index].path;
  return out;
}

} // namespace

engine::status find_set(const server_options& options, engine::set_facts& out,
                        std::vector<std::optional<engine::failure_registry>>& registries) {
  using clock = std::chrono::steady_clock;
  const auto drives = options.drives.size();
  const auto shared = std::make_shared<peeks>();
  shared->found.resize(drives);
  shared->answered.resize(drives);
  shared->left = drives;
  for (std::size_t index = 0; index < drives; ++index)
    std::thread([shared, index, drive = options.drives[index], peek = options.peek] {
      auto found = peek ? peek(drive) : engine::peek_superblock(drive);
      const std::lock_guard guard{shared->lock};
      shared->found[index] = std::move(found);
      shared->answered[index] = true;
      --shared->left;
      shared->one_more.notify_one();
    }).detach();
  const auto begun = clock::now();
  const auto interval = std::chrono::milliseconds{options.peek_warning_ms};
  auto warn_at = begun + interval;
  bool warned = false;
  std::unique_lock guard{shared->lock};
  while (!shared->one_more.wait_for(guard, look_interval, [&] { return shared->left == 0; })) {
    if (options.told_to_stop && options.told_to_stop()) {
      log::info(target, "the start waits no longer for drives that do not answer: the server is to stop",
                {{"drives", silent_ones(options, *shared)}});
      return {engine::errc::cancelled, stopped_while_starting};
    }
    const auto now = clock::now();
    if (now < warn_at)
      continue;
    log::warn(
        target,
        "the start waits for drives that do not answer, since they may know of changes that the others "
        "missed: look at the kernel's log; take one that will never answer out of the machine, or name "
        "a new one in its place in storage.drives, and the others serve what they hold, which may be old",
        {{"drives", silent_ones(options, *shared)},
         {"waited_s", std::chrono::duration_cast<std::chrono::seconds>(now - begun).count()}});
    warned = true;
    warn_at = now + interval;
  }
  if (warned)
    log::info(target, "all drives have answered: the start goes on");
  registries.assign(drives, std::nullopt);
  for (std::size_t index = 0; index < drives; ++index)
    if (shared->found[index])
      registries[index] = shared->found[index]->failures;
  return engine::find_set(options.drives, shared->found, out);
}

} // namespace memkv::actors
