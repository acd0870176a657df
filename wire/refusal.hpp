// Why a frame was not accepted: the label of the counters on both sides.
#pragma once

#include "wire/frame_gatherer.hpp"

#include <cstdint>
#include <string_view>

namespace memkv::wire {

enum class refusal : std::uint8_t {
  none,
  bad_magic,
  bad_direction,
  bad_length,
  bad_mac,
  stale_time,
  bad_version,
  bad_tag,
  old_id,
  hello_expected,
  second_hello,
  too_many_drops,
  malformed,
  unknown_id,
  wrong_opcode,
  wrong_part,
  wrong_kind,
};
inline constexpr std::size_t refusal_count = 17;

[[nodiscard]] std::string_view name(refusal reason) noexcept;

/// Whether two clocks are within drift_ns_max of each other.
[[nodiscard]] constexpr bool within_drift(std::uint64_t ts_ns, std::uint64_t now_ns) noexcept {
  return (ts_ns > now_ns ? ts_ns - now_ns : now_ns - ts_ns) <= limits::drift_ns_max;
}

} // namespace memkv::wire
