// kill -9 while a start enters its epoch on the drives, again and again, with other drives there each time.
//
// Some drives are made slow to write, so that the epoch is on the others first; the server is killed when it
// is seen there. What the drives say then contradicts each other, and no later server may take an old value
// for the last one.

#define CAF_SUITE epoch_process

#include "test/process/cycles.hpp"
#include "test/process/server_process.hpp"
#include "test/process/strace.hpp"
#include "test/process/verified_load.hpp"
#include "wire/bytes.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <sstream>

using namespace memkv;
using namespace memkv::test;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t drives = 4;
constexpr std::uint32_t keys = 160;
constexpr auto limit = 60s;
/// Where a superblock has its set epoch (docs/formats/superblock.md).
constexpr std::size_t epoch_offset = 72;

using places = std::vector<std::uint32_t>;

const places all{0, 1, 2, 3};

bool contains(const places& which, std::uint32_t place) {
  return std::ranges::find(which, place) != which.end();
}

class changing_set {
public:
  explicit changing_set(cycles& budget) : budget_(budget) {
    std::ostringstream out;
    out << "network:\n  address: 127.0.0.1:0\n  reactors: 2\nmemory:\n  max_size: 64 MiB\n"
        << "storage:\n  mode: file\n  drives:\n";
    for (const auto place : all) {
      std::filesystem::create_directory(folder(place));
      out << "    - { media: " << path(place).string() << ", max_size: 64 MiB }\n";
    }
    server_.write_config_text(out.str());
  }

  /// Starts with these drives and kills the server when its epoch can be seen on any of them, and writes to
  /// those that are `late` take their time. True: it was on some of them and not on the others.
  bool kill_while_entering(const places& there, const places& late) {
    bring(there);
    const auto before = epochs();
    std::vector<std::string> options{"-e", "trace=pwrite64", "-e", "inject=pwrite64:delay_enter=100000"};
    for (const auto place : late) {
      options.emplace_back("-P");
      options.push_back(path(place).string());
    }
    spawn_traced(server_, options);
    const auto entered = [&] {
      const auto now = epochs();
      return std::ranges::count_if(there, [&](std::uint32_t place) { return now[place] > before[place]; });
    };
    const auto end = std::chrono::steady_clock::now() + limit;
    while (entered() == 0) {
      if (std::chrono::steady_clock::now() > end)
        give_up("no drive was given an epoch");
      pause_for(200us);
    }
    server_.kill();
    ++kills_;
    return entered() < static_cast<std::ptrdiff_t>(there.size());
  }

  /// Serves with these drives: everything is compared, then changed, and the server killed.
  void serve(const places& there) {
    bring(there);
    server_.spawn();
    const auto port = server_.wait_until_serving(limit);
    if (!port)
      give_up("the server does not start");
    if (const auto problems = verify_all(log_, *port); !problems.empty())
      give_up(problems.front() + " (" + std::to_string(problems.size()) + " problems)");
    load_settings wanted;
    wanted.seed = budget_.below(1U << 30);
    verified_load load{log_, *port, wanted};
    const auto end = std::chrono::steady_clock::now() + limit;
    while (load.operations() < keys * 3 && std::chrono::steady_clock::now() < end)
      pause_for(10ms);
    load.expect_trouble();
    server_.kill();
    load.stop();
    if (!load.problems().empty())
      give_up(load.problems().front());
  }

  [[nodiscard]] std::uint64_t kills() const noexcept { return kills_; }
  [[nodiscard]] std::uint64_t acknowledgements() const { return log_.acknowledgements(); }

private:
  [[nodiscard]] std::filesystem::path folder(std::uint32_t place) const {
    return server_.directory() / ("place" + std::to_string(place));
  }
  [[nodiscard]] std::filesystem::path away(std::uint32_t place) const {
    return folder(place).string() + ".away";
  }
  [[nodiscard]] std::filesystem::path path(std::uint32_t place) const { return folder(place) / "drive"; }

  /// The others are away: not even their folders are there.
  void bring(const places& there) const {
    for (const auto place : all) {
      const bool wanted = contains(there, place);
      if (wanted != std::filesystem::exists(folder(place)))
        std::filesystem::rename(wanted ? away(place) : folder(place), wanted ? folder(place) : away(place));
    }
  }

  [[nodiscard]] std::array<std::uint64_t, drives> epochs() const {
    std::array<std::uint64_t, drives> out{};
    for (const auto place : all) {
      std::array<char, epoch_offset + 8> bytes{};
      std::ifstream file{path(place), std::ios::binary};
      if (file.read(bytes.data(), bytes.size()))
        out[place] =
            wire::load_le<std::uint64_t>(reinterpret_cast<const std::byte*>(bytes.data()) + epoch_offset);
    }
    return out;
  }

  void give_up(const std::string& why) const {
    CAF_FAIL(budget_.name() << ", cycle " << budget_.done() << ": " << why << "\nthe server said:\n"
                            << server_.said());
  }

  cycles& budget_;
  server_process server_{MEMKV_PROGRAM};
  outside_log log_{keys, true};
  std::uint64_t kills_ = 0;
};

} // namespace

CAF_TEST(two starts that were killed while they entered their epochs outrank nobody who served) {
  if (!can_trace("two killed starts"))
    return;
  cycles budget{"two killed starts"};
  changing_set set{budget};
  std::uint64_t both = 0;
  std::uint32_t tries_left = 20; // on a busy machine the moment may be missed
  while (budget.next() || (both == 0 && --tries_left > 0)) {
    set.serve(all);
    // The first leaves its epoch on drive 2, the second, which had heard of it, a higher one on drive 1.
    const bool first = set.kill_while_entering({0, 2, 3}, {0, 3});
    const bool second = set.kill_while_entering({1, 2}, {2});
    both += first && second;
    set.serve({0, 3});
    set.serve({0, 1, 2});
  }
  set.serve(all);
  std::cout << budget.summary() << ", in " << both << " of them both starts were killed in the middle, "
            << set.acknowledgements() << " acknowledged changes" << std::endl;
  CAF_CHECK(both > 0);
}

CAF_TEST(whichever drives are there when starts are killed nothing old comes back) {
  if (!can_trace("killed starts with any drives"))
    return;
  cycles budget{"killed starts with any drives"};
  changing_set set{budget};
  places last = all;
  // One that took part last is always there: else nobody could know what is old.
  const auto some = [&] {
    places chosen;
    for (const auto place : all)
      if (budget.below(2) == 0)
        chosen.push_back(place);
    if (std::ranges::none_of(chosen, [&](std::uint32_t place) { return contains(last, place); }))
      chosen.push_back(last[budget.below(last.size())]);
    return chosen;
  };
  set.serve(all);
  std::uint64_t torn = 0;
  while (budget.next()) {
    for (auto kills = 1 + budget.below(3); kills > 0; --kills) {
      const auto there = some();
      places late;
      for (const auto place : there)
        if (budget.below(2) == 0)
          late.push_back(place);
      // With nothing to be slow, strace would slow down everything.
      if (late.empty())
        late.push_back(there.front());
      torn += set.kill_while_entering(there, late);
    }
    last = some();
    set.serve(last);
  }
  set.serve(all);
  std::cout << budget.summary() << ", " << torn << " of " << set.kills() << " kills in the middle, "
            << set.acknowledgements() << " acknowledged changes" << std::endl;
}
