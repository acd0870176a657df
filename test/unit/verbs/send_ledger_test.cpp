// One report for each request, however few completions a device writes.
#include "verbs/send_ledger.hpp"

#define CAF_SUITE send_ledger
#include <caf/test/unit_test.hpp>

using namespace memkv::verbs;

namespace {

struct ended {
  std::uint64_t id;
  completion_status status;
  bool operator==(const ended&) const = default;
};

std::vector<ended> complete(send_ledger& ledger, std::uint32_t number, completion_status status) {
  std::vector<ended> found;
  ledger.complete(number, status, [&](std::uint64_t id, operation, completion_status how) {
    found.push_back({id, how});
  });
  return found;
}

constexpr auto good = completion_status::success;
constexpr auto flushed = completion_status::flushed;
constexpr auto bad = completion_status::remote_access;

} // namespace

CAF_TEST(success vouches for what was posted before) {
  send_ledger ledger(5);
  for (std::uint64_t id = 10; id < 15; ++id) {
    ledger.add(id, operation::write);
  }
  CAF_CHECK((complete(ledger, 2, good) == std::vector<ended>{{10, good}, {11, good}, {12, good}}));
  CAF_CHECK(complete(ledger, 1, good).empty());
  CAF_CHECK((complete(ledger, 4, good) == std::vector<ended>{{13, good}, {14, good}}));
  CAF_CHECK_EQUAL(ledger.count(), 0u);
  CAF_CHECK(complete(ledger, 5, good).empty());
}

CAF_TEST(an error vouches for nothing) {
  send_ledger ledger(4);
  for (std::uint64_t id = 0; id < 4; ++id) {
    ledger.add(id, operation::read);
  }
  CAF_CHECK((complete(ledger, 1, bad) == std::vector<ended>{{0, flushed}, {1, bad}}));
  CAF_CHECK((complete(ledger, 3, flushed) == std::vector<ended>{{2, flushed}, {3, flushed}}));
}

CAF_TEST(numbers go round for ever) {
  send_ledger ledger(3);
  std::uint64_t id = 0;
  for (int round = 0; round < 1000; ++round) {
    const std::uint32_t first = ledger.next();
    for (int count = 0; count < 3; ++count) {
      ledger.add(id + static_cast<std::uint64_t>(count), operation::send);
    }
    CAF_CHECK((complete(ledger, first + 2, good) ==
               std::vector<ended>{{id, good}, {id + 1, good}, {id + 2, good}}));
    id += 3;
  }
}
