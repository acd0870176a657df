#define CAF_SUITE engine_allocator
#include <caf/test/unit_test.hpp>

#include "engine/allocator.hpp"
#include "test/unit/engine_leaves/support.hpp"

#include <algorithm>
#include <numeric>

using namespace memkv;
using namespace memkv::engine;

namespace {

/// The obvious allocator: a flag for each unit. Says what is possible, not where it should lie.
struct naive_units {
  std::vector<bool> taken;

  [[nodiscard]] std::vector<std::uint32_t> pieces() const {
    std::vector<std::uint32_t> lengths;
    std::uint32_t length = 0;
    for (std::size_t i = 0; i <= taken.size(); ++i) {
      if (i < taken.size() && !taken[i]) {
        ++length;
      } else if (length > 0) {
        lengths.push_back(length);
        length = 0;
      }
    }
    std::sort(lengths.rbegin(), lengths.rend());
    return lengths;
  }
  /// The fewest pieces that hold so many units; 0 when they do not exist.
  [[nodiscard]] std::size_t fewest(std::uint32_t units) const {
    std::uint64_t sum = 0;
    std::size_t count = 0;
    for (const std::uint32_t length : pieces()) {
      sum += length;
      ++count;
      if (sum >= units)
        return count;
    }
    return 0;
  }
  void change(run what, bool to) {
    for (std::uint32_t i = 0; i < what.units; ++i) {
      CAF_REQUIRE(taken[what.first_unit + i] != to);
      taken[what.first_unit + i] = to;
    }
  }
};

std::uint32_t sum(const std::vector<run>& runs) {
  return std::accumulate(runs.begin(), runs.end(), 0u,
                         [](std::uint32_t s, const run& r) { return s + r.units; });
}

} // namespace

CAF_TEST(an allocation on an empty drive is one piece and the next one follows it) {
  unit_allocator units(1000);
  std::vector<run> first, second;
  CAF_REQUIRE(units.allocate(64, 64, first) == errc::ok);
  CAF_REQUIRE(units.allocate(100, 64, second) == errc::ok);
  CAF_CHECK(first == std::vector<run>({{0, 64}}));
  CAF_CHECK(second == std::vector<run>({{64, 100}}));
  CAF_CHECK_EQUAL(units.used_units(), 164u);
  CAF_CHECK_EQUAL(units.free_units(), 836u);
}

CAF_TEST(a full drive refuses and takes nothing) {
  unit_allocator units(130);
  std::vector<run> all, more;
  CAF_REQUIRE(units.allocate(130, 1, all) == errc::ok);
  CAF_CHECK(units.allocate(1, 64, more) == errc::no_space);
  CAF_CHECK(more.empty());
  units.free({129, 1});
  CAF_CHECK(units.allocate(2, 64, more) == errc::no_space);
  CAF_CHECK_EQUAL(units.free_units(), 1u);
  CAF_CHECK(units.allocate(1, 1, more) == errc::ok);
  CAF_CHECK(more == std::vector<run>({{129, 1}}));
}

CAF_TEST(a drive in pieces gives few large ones and refuses when they are too many) {
  unit_allocator units(256);
  CAF_REQUIRE(units.mark({0, 256}));
  for (std::uint32_t at = 0; at < 256; at += 16)
    units.free({at, at == 128 ? 8u : 2u});
  std::vector<run> runs;
  CAF_CHECK(units.allocate(10, 1, runs) == errc::no_space);
  CAF_CHECK(units.allocate(20, 2, runs) == errc::no_space);
  CAF_REQUIRE(units.allocate(10, 2, runs) == errc::ok);
  CAF_CHECK_EQUAL(runs.size(), 2u);
  CAF_CHECK_EQUAL(sum(runs), 10u);
  CAF_CHECK(std::find(runs.begin(), runs.end(), run{128, 8}) != runs.end());
}

CAF_TEST(a refusal is forgotten when enough came back) {
  unit_allocator units(128);
  CAF_REQUIRE(units.mark({0, 128}));
  for (std::uint32_t at = 0; at < 128; at += 2)
    units.free({at, 1});
  std::vector<run> runs;
  CAF_CHECK(units.allocate(4, 1, runs) == errc::no_space);
  units.free({51, 1});
  CAF_CHECK(units.allocate(4, 1, runs) == errc::no_space);
  units.free({53, 1});
  CAF_REQUIRE(units.allocate(4, 1, runs) == errc::ok);
  CAF_CHECK_EQUAL(runs.front().units, 4u);
}

CAF_TEST(recovery takes exact runs and refuses doubles and strangers) {
  unit_allocator units(100);
  CAF_CHECK(units.mark({10, 20}));
  CAF_CHECK(!units.mark({29, 1}));
  CAF_CHECK(!units.mark({5, 6}));
  CAF_CHECK(!units.mark({90, 11}));
  CAF_CHECK(!units.mark({100, 1}));
  CAF_CHECK(!units.mark({0xFFFFFFFF, 2}));
  CAF_CHECK(!units.mark({0, 0}));
  CAF_CHECK_EQUAL(units.used_units(), 20u);
  CAF_CHECK(units.is_taken(10) && units.is_taken(29) && !units.is_taken(30) && !units.is_taken(9));
  CAF_CHECK(units.is_free({0, 10}) && !units.is_free({0, 11}));
}

CAF_TEST(words carry the bitmap out and in) {
  unit_allocator units(150);
  CAF_REQUIRE(units.mark({3, 70}) && units.mark({149, 1}));
  CAF_REQUIRE_EQUAL(units.word_count(), 3u);
  CAF_CHECK_EQUAL(units.word(2), std::uint64_t{1} << 21);
  unit_allocator copy(150);
  const std::vector<std::uint64_t> words{units.word(0), units.word(1), units.word(2)};
  CAF_CHECK(!copy.load_words(1, words));
  CAF_CHECK(!copy.load_words(4, {}));
  const std::uint64_t beyond = std::uint64_t{1} << 22;
  CAF_CHECK(!copy.load_words(2, {&beyond, 1}));
  CAF_REQUIRE(copy.load_words(0, words));
  CAF_CHECK_EQUAL(copy.used_units(), 71u);
  for (std::uint32_t unit = 0; unit < 150; ++unit)
    CAF_CHECK_EQUAL(copy.is_taken(unit), units.is_taken(unit));
  std::vector<run> rest;
  CAF_CHECK(copy.allocate(79, 64, rest) == errc::ok);
  CAF_CHECK_EQUAL(copy.free_units(), 0u);
}

CAF_TEST(random allocations agree with the obvious allocator) {
  const std::uint64_t seed = test_seed(3);
  CAF_MESSAGE("seed " << seed);
  sim::random chance(seed);
  for (int round = 0; round < 20; ++round) {
    // Around word, summary and zone boundaries.
    constexpr std::uint32_t sizes[] = {1, 63, 64, 65, 700, 4096, 5000};
    const std::uint32_t size = sizes[chance.below(std::size(sizes))];
    unit_allocator units(size);
    naive_units expected{std::vector<bool>(size)};
    std::vector<run> held;
    for (int step = 0; step < 1000; ++step) {
      if (chance.below(100) < 60) {
        const auto wanted = static_cast<std::uint32_t>(1 + chance.below(std::max(1u, size / 8)));
        const auto runs_max = static_cast<std::uint32_t>(1 + chance.below(chance.below(2) == 0 ? 3 : 64));
        const std::size_t fewest = expected.fewest(wanted);
        std::vector<run> runs;
        const errc result = units.allocate(wanted, runs_max, runs);
        if ((result == errc::ok) != (fewest != 0 && fewest <= runs_max))
          CAF_FAIL("allocate said " << name(result) << " with fewest " << fewest << " of " << runs_max
                                    << ", seed " << seed);
        if (result != errc::ok)
          continue;
        CAF_REQUIRE_EQUAL(sum(runs), wanted);
        CAF_REQUIRE(runs.size() <= runs_max);
        if (fewest == 1)
          CAF_REQUIRE_EQUAL(runs.size(), 1u);
        for (const run& piece : runs) {
          expected.change(piece, true);
          held.push_back(piece);
        }
      } else if (!held.empty()) {
        const std::size_t at = chance.below(held.size());
        run piece = held[at];
        if (piece.units > 1 && chance.below(3) == 0) { // a part of it
          piece.units /= 2;
          held[at].first_unit += piece.units;
          held[at].units -= piece.units;
        } else {
          held[at] = held.back();
          held.pop_back();
        }
        units.free(piece);
        expected.change(piece, false);
      }
      const auto free =
          static_cast<std::uint32_t>(std::count(expected.taken.begin(), expected.taken.end(), false));
      CAF_REQUIRE_EQUAL(units.free_units(), free);
    }
    for (std::uint32_t unit = 0; unit < size; ++unit)
      CAF_REQUIRE_EQUAL(units.is_taken(unit), expected.taken[unit]);
  }
}

CAF_TEST(free space behind many full zones is found) {
  constexpr std::uint32_t many = 1 << 20;
  unit_allocator units(many);
  CAF_REQUIRE(units.mark({0, many}));
  units.free({many - 3, 2});
  units.free({70000, 1});
  std::vector<run> runs;
  CAF_REQUIRE(units.allocate(3, 64, runs) == errc::ok);
  CAF_CHECK(runs == std::vector<run>({{70000, 1}, {many - 3, 2}}));
}

CAF_TEST(header pages share a unit and give it back with the last of them) {
  unit_allocator units(10);
  header_page_allocator pages(units, 64 << 10);
  CAF_CHECK_EQUAL(pages.pages_per_unit(), 16u);
  std::vector<std::uint32_t> taken;
  for (int i = 0; i < 17; ++i) {
    std::uint32_t page = 0;
    CAF_REQUIRE(pages.allocate(page) == errc::ok);
    CAF_CHECK(pages.is_taken(page));
    taken.push_back(page);
  }
  CAF_CHECK_EQUAL(units.used_units(), 2u);
  CAF_CHECK_EQUAL(pages.units_used(), 2u);
  std::vector<std::uint32_t> distinct = taken;
  std::sort(distinct.begin(), distinct.end());
  CAF_CHECK(std::unique(distinct.begin(), distinct.end()) == distinct.end());
  bool unit_freed = false;
  pages.free(taken[16], unit_freed);
  CAF_CHECK(unit_freed);
  CAF_CHECK_EQUAL(units.used_units(), 1u);
  for (int i = 0; i < 16; ++i) {
    pages.free(taken[static_cast<std::size_t>(i)], unit_freed);
    CAF_CHECK_EQUAL(unit_freed, i == 15);
  }
  CAF_CHECK_EQUAL(units.used_units(), 0u);
  CAF_CHECK_EQUAL(pages.pages_used(), 0u);
}

CAF_TEST(without a free unit there is no header page) {
  unit_allocator units(1);
  header_page_allocator pages(units, 8192);
  std::uint32_t page = 0;
  CAF_CHECK(pages.allocate(page) == errc::ok);
  CAF_CHECK(pages.allocate(page) == errc::ok);
  CAF_CHECK(pages.allocate(page) == errc::no_space);
}

CAF_TEST(recovered header pages keep their unit and doubles are refused) {
  unit_allocator units(10);
  header_page_allocator pages(units, 64 << 10);
  CAF_REQUIRE(units.mark({3, 1}));
  CAF_CHECK(!pages.mark(3 * 16, false)); // somebody else's
  CAF_CHECK(pages.mark(3 * 16, true));   // the stored bitmap had it
  CAF_CHECK(!pages.mark(3 * 16, true));
  CAF_CHECK(pages.mark(3 * 16 + 5, true));
  CAF_CHECK(!pages.mark(4 * 16, true)); // the stored bitmap did not have it
  CAF_CHECK(pages.mark(4 * 16 + 1, false));
  CAF_CHECK(!pages.mark(10 * 16, false));
  CAF_CHECK_EQUAL(units.used_units(), 2u);
  CAF_CHECK(pages.owns_unit(3) && pages.owns_unit(4) && !pages.owns_unit(5));
  bool unit_freed = false;
  pages.free(4 * 16 + 1, unit_freed);
  CAF_CHECK(unit_freed && !units.is_taken(4));
}

CAF_TEST(random header pages of every unit size agree with a set of flags) {
  const std::uint64_t seed = test_seed(4);
  CAF_MESSAGE("seed " << seed);
  sim::random chance(seed);
  for (const std::uint32_t unit_bytes : {4096u, 65536u, 1048576u}) {
    unit_allocator units(16);
    header_page_allocator pages(units, unit_bytes);
    std::vector<std::uint32_t> held;
    for (int step = 0; step < 5000; ++step) {
      if (chance.below(100) < 55) {
        std::uint32_t page = 0;
        const errc result = pages.allocate(page);
        CAF_REQUIRE_EQUAL(result == errc::ok, held.size() < std::size_t{16} * pages.pages_per_unit());
        if (result != errc::ok)
          continue;
        CAF_REQUIRE(std::find(held.begin(), held.end(), page) == held.end());
        held.push_back(page);
      } else if (!held.empty()) {
        std::swap(held[chance.below(held.size())], held.back());
        bool unit_freed = false;
        pages.free(held.back(), unit_freed);
        held.pop_back();
      }
      std::vector<bool> used(16);
      for (const std::uint32_t page : held)
        used[page / pages.pages_per_unit()] = true;
      CAF_REQUIRE_EQUAL(units.used_units(),
                        static_cast<std::uint32_t>(std::count(used.begin(), used.end(), true)));
      CAF_REQUIRE_EQUAL(pages.pages_used(), held.size());
    }
  }
}
