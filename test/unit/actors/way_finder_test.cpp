// Who is looked for first when many want to be attached, and some of them name addresses of nobody.
#define CAF_SUITE way_finder
#include "actors/way_finder.hpp"

#include <caf/test/dsl.hpp>

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

using namespace memkv;
using namespace memkv::actors;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t long_ns = 600'000'000'000;

verbs::endpoint port(unsigned number) {
  verbs::endpoint out;
  out.port_gid[14] = static_cast<std::uint8_t>(number >> 8U);
  out.port_gid[15] = static_cast<std::uint8_t>(number);
  return out;
}

way_finder::asker asker(std::uint64_t connection, unsigned host, unsigned to) {
  way_finder::asker out;
  out.connection = connection;
  out.host[0] = static_cast<std::uint8_t>(host);
  out.port = port(to);
  return out;
}

/// What ways lead through: those to nobody take as long as the test says.
class road {
public:
  /// Returns at once, or when it is open and the time is over.
  void go(bool nobody) {
    std::unique_lock guard(lock_);
    ++under_way_;
    changed_.notify_all();
    if (nobody) {
      changed_.wait(guard, [this] { return open_; });
      changed_.wait_for(guard, takes_, [] { return false; });
    }
    --under_way_;
    changed_.notify_all();
  }
  void open(std::chrono::milliseconds takes = 0ms) {
    const std::lock_guard guard(lock_);
    open_ = true;
    takes_ = takes;
    changed_.notify_all();
  }
  bool holds_up(unsigned count) {
    std::unique_lock guard(lock_);
    return changed_.wait_for(guard, 20s, [&] { return under_way_ == count; });
  }
  unsigned under_way() {
    const std::lock_guard guard(lock_);
    return under_way_;
  }

private:
  std::mutex lock_;
  std::condition_variable changed_;
  bool open_ = false;
  std::chrono::milliseconds takes_{0};
  unsigned under_way_ = 0;
};

class try_one final : public verbs::attachment {
public:
  try_one(road& by, bool nobody) : by_(by), nobody_(nobody) {}
  void reach() noexcept override { by_.go(nobody_); }

private:
  road& by_;
  bool nobody_;
};

struct fixture {
  road way;
  std::vector<std::unique_ptr<try_one>> made;
  std::unique_ptr<way_finder> ways;
  std::uint64_t last = 0;
  std::vector<way_finder::outcome> done;

  ~fixture() {
    way.open();
    ways.reset();
  }
  void begin(std::uint32_t threads, std::uint64_t wait_ns = long_ns) {
    ways = std::make_unique<way_finder>(threads, wait_ns);
  }
  std::uint64_t find(const way_finder::asker& by, bool nobody) {
    made.push_back(std::make_unique<try_one>(way, nobody));
    CAF_REQUIRE(ways->find(++last, by, *made.back()));
    return last;
  }
  bool there(std::uint64_t number) {
    ways->take_done(done);
    return std::ranges::find(done, number, &way_finder::outcome::number) != done.end();
  }
  /// Waits for it, as the pool does; where it is among those done.
  std::size_t place_of(std::uint64_t number) {
    CAF_REQUIRE(comes(number, 20s));
    return static_cast<std::size_t>(std::ranges::find(done, number, &way_finder::outcome::number) -
                                    done.begin());
  }
  bool comes(std::uint64_t number, std::chrono::milliseconds patience) {
    const auto limit = std::chrono::steady_clock::now() + patience;
    while (!there(number)) {
      if (std::chrono::steady_clock::now() >= limit)
        return false;
      pollfd descriptor{ways->event_descriptor(), POLLIN, 0};
      ::poll(&descriptor, 1, static_cast<int>(patience.count()));
      ways->acknowledge();
    }
    return true;
  }
  bool was_tried(std::uint64_t number) { return done.at(place_of(number)).tried; }
};

} // namespace

CAF_TEST_FIXTURE_SCOPE(way_finder_tests, fixture)

CAF_TEST(who has looked for nobody waits behind who has not) {
  begin(1);
  std::vector<std::uint64_t> crowd;
  for (unsigned index = 0; index < 20; ++index)
    crowd.push_back(find(asker(1 + index % 5, 7, 100 + index), true));
  CAF_REQUIRE(way.holds_up(1));
  // From another host, and from another connection of the same one: behind twenty others.
  const auto stranger = find(asker(50, 8, 1), false);
  const auto neighbour = find(asker(51, 7, 2), false);
  way.open(30ms);
  // The one that was under way, then the stranger; the neighbour when four others have had their first.
  CAF_CHECK_EQUAL(place_of(stranger), 1u);
  CAF_CHECK_LESS_OR_EQUAL(place_of(neighbour), 6u);
  for (const auto each : crowd)
    CAF_CHECK(was_tried(each));
  // It is remembered who that was.
  const auto again = find(asker(1, 7, 200), true);
  CAF_REQUIRE(place_of(again) > 0);
  CAF_CHECK_EQUAL(done.size(), crowd.size() + 3);
}

CAF_TEST(two are looked for at one time for one connection and to one port) {
  begin(16);
  for (unsigned index = 0; index < 6; ++index)
    find(asker(1, 1, 100 + index), true); // one connection
  for (unsigned index = 0; index < 6; ++index)
    find(asker(10 + index, 2, 200), true); // one port
  CAF_REQUIRE(way.holds_up(4));
  // Nobody else is in their way.
  CAF_CHECK(was_tried(find(asker(20, 3, 1), false)));
  CAF_CHECK_EQUAL(way.under_way(), 4u);
  way.open();
  for (std::uint64_t number = 1; number <= 13; ++number)
    CAF_CHECK(was_tried(number));
}

CAF_TEST(a quarter of the threads is kept for ports that were found) {
  begin(8);
  CAF_REQUIRE(was_tried(find(asker(1, 1, 1), false)));
  ways->reached(port(1));
  for (unsigned index = 0; index < 30; ++index)
    find(asker(100 + index, 2 + index, 100 + index), true);
  CAF_REQUIRE(way.holds_up(6));
  CAF_CHECK(was_tried(find(asker(2, 1, 1), false)));
  // Whoever asks: it is about where the way leads.
  CAF_CHECK(was_tried(find(asker(100, 2, 1), false)));
  const auto unknown = find(asker(3, 1, 2), false);
  CAF_CHECK_EQUAL(way.under_way(), 6u);
  CAF_CHECK(!there(unknown));
  // One that waits already is found as soon as it is known.
  ways->reached(port(2));
  CAF_CHECK(was_tried(unknown));
  way.open();
}

CAF_TEST(a port that was found and is gone has no place of its own any more) {
  begin(4);
  ways->reached(port(1));
  // More than half a second: somebody was looked for in vain.
  way.open(600ms);
  CAF_CHECK(was_tried(find(asker(1, 1, 1), true)));
  road closed;
  std::vector<std::unique_ptr<try_one>> others;
  for (unsigned index = 0; index < 3; ++index) {
    others.push_back(std::make_unique<try_one>(closed, true));
    CAF_REQUIRE(ways->find(1000 + index, asker(10 + index, 2 + index, 100 + index), *others.back()));
  }
  CAF_REQUIRE(closed.holds_up(3));
  const auto late = find(asker(2, 1, 1), false);
  CAF_CHECK(!comes(late, 50ms));
  closed.open();
  CAF_CHECK(was_tried(late));
  ways.reset(); // before `closed`
}

CAF_TEST(who has cost less drives out who has cost more) {
  begin(1);
  std::vector<std::uint64_t> crowd;
  for (unsigned index = 0; index < 4; ++index)
    crowd.push_back(find(asker(1, 7, 100 + index), true));
  CAF_REQUIRE(way.holds_up(1));
  // The last one that waits goes, and is told apart from those that were tried.
  CAF_REQUIRE(ways->make_room(asker(2, 8, 1)));
  CAF_CHECK(!was_tried(crowd[3]));
  CAF_CHECK(!there(crowd[2]));
  // From the same host, too; but nobody makes room for the crowd itself.
  CAF_REQUIRE(ways->make_room(asker(2, 7, 1)));
  CAF_CHECK(!was_tried(crowd[2]));
  CAF_CHECK(!ways->make_room(asker(1, 7, 300)));
  way.open();
  CAF_CHECK(was_tried(crowd[0]));
  CAF_CHECK(was_tried(crowd[1]));
  // Nobody waits: there is no room to be made.
  CAF_CHECK(!ways->make_room(asker(2, 8, 1)));
}

CAF_TEST(what has waited for too long is told so although no thread is free) {
  begin(2, 1'000'000'000);
  find(asker(1, 1, 1), true);
  find(asker(2, 2, 2), true);
  CAF_REQUIRE(way.holds_up(2));
  const auto late = find(asker(3, 3, 3), false);
  CAF_CHECK(!comes(late, 1100ms));
  way.open();
  CAF_CHECK(!was_tried(late));
}

CAF_TEST(costs fade however often some are added) {
  constexpr std::uint64_t second = 1'000'000'000;
  constexpr std::uint64_t begin = 1'000 * second;
  fading_costs<int> costs(8 * second, second / 50, 3);
  costs.add(1, 1'000 * second, begin);
  costs.add(2, 1'000 * second, begin);
  CAF_CHECK_EQUAL(costs.of(1, begin + 8 * second - 1), 1'000 * second);
  CAF_CHECK_EQUAL(costs.of(1, begin + 8 * second), 500 * second);
  // A tenth of a second each second for five minutes: what is old has gone, and what is left is of late.
  for (std::uint64_t at = 1; at <= 300; ++at)
    costs.add(1, second / 10, begin + at * second);
  CAF_CHECK_LESS_OR_EQUAL(costs.of(1, begin + 300 * second), 16 * second / 10);
  CAF_CHECK_GREATER_OR_EQUAL(costs.of(1, begin + 300 * second), 8 * second / 10);
  CAF_CHECK_EQUAL(costs.of(2, begin + 300 * second), 0u);
  // An addition late in a half life does not begin another one.
  costs.add(3, 100 * second, begin);
  costs.add(3, 100 * second, begin + 15 * second);
  CAF_CHECK_EQUAL(costs.of(3, begin + 15 * second), 150 * second);
  CAF_CHECK_EQUAL(costs.of(3, begin + 16 * second), 75 * second);
  // What counts as nothing begins anew, and who has cost least is forgotten for another one.
  costs.add(2, second, begin + 303 * second);
  CAF_CHECK_EQUAL(costs.of(2, begin + 310 * second), second);
  CAF_CHECK_EQUAL(costs.of(2, begin + 311 * second), second / 2);
  costs.add(3, 50 * second, begin + 311 * second);
  costs.add(4, 10 * second, begin + 311 * second);
  CAF_CHECK_EQUAL(costs.of(2, begin + 311 * second), 0u);
  CAF_CHECK_EQUAL(costs.of(3, begin + 311 * second), 50 * second);
  CAF_CHECK_EQUAL(costs.of(4, begin + 311 * second), 10 * second);
}

CAF_TEST(many hosts and ports that come and go do not add up) {
  begin(16);
  way.open();
  for (unsigned index = 0; index < 3 * way_finder::remembered_max; ++index)
    ways->reached(port(index));
  std::uint64_t number = 0;
  for (unsigned index = 0; index < 200; ++index)
    number = find(asker(index, index, 60'000 + index), index % 2 == 0);
  CAF_CHECK(was_tried(number));
  for (std::uint64_t each = 1; each <= number; ++each)
    CAF_CHECK(was_tried(each));
}

CAF_TEST_FIXTURE_SCOPE_END()
