#define CAF_SUITE damage_log

#include "actors/damage_log.hpp"

#include <caf/test/unit_test.hpp>

using memkv::actors::damage_log;

namespace {
constexpr auto minute_ns = damage_log::interval_ns;
constexpr std::uint64_t begin_ns = 5'000'000;
} // namespace

CAF_TEST(the first damaged block is told at once and later ones together once a minute) {
  damage_log log;
  CAF_CHECK_EQUAL(log.due(0, begin_ns, false), 0u);
  CAF_CHECK_EQUAL(log.due(1, begin_ns, false), 1u);
  CAF_CHECK_EQUAL(log.due(1, begin_ns + 1, false), 0u);
  CAF_CHECK_EQUAL(log.due(3, begin_ns + minute_ns - 1, false), 0u);
  CAF_CHECK_EQUAL(log.due(4, begin_ns + minute_ns, false), 3u);
  CAF_CHECK_EQUAL(log.due(5, begin_ns + minute_ns + 1, false), 0u);
  CAF_CHECK_EQUAL(log.due(5, begin_ns + 3 * minute_ns, false), 1u);
  CAF_CHECK_EQUAL(log.due(5, begin_ns + 9 * minute_ns, false), 0u);
}

CAF_TEST(what waits is told at the end and what came before the beginning is not) {
  damage_log log;
  log.begin_with(7);
  CAF_CHECK_EQUAL(log.due(7, begin_ns, true), 0u);
  CAF_CHECK_EQUAL(log.due(9, begin_ns, false), 2u);
  CAF_CHECK_EQUAL(log.due(12, begin_ns + 1, false), 0u);
  CAF_CHECK_EQUAL(log.due(12, begin_ns + 2, true), 3u);
}
