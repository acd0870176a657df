// Where the time of a request goes: it is in one stage at a time, and each moment belongs to that stage.
//
// Operation. The clock is the one that the reactor reads once a round, so it costs nothing to ask, and times
// are right to a round: what begins and ends in one round (a block in memory, a look-up) takes 0 in that
// stage. The copy that goes with the last frame of the answer is noted when that frame is in the kernel.
//
// Threading: REACTOR's thread; a value. Units: nanoseconds of the steady clock.
#pragma once

#include "actors/server_counters.hpp"

#include <cstdint>
#include <utility>

namespace memkv::actors {

class request_clock {
public:
  request_clock() = default; // stopped: there is nothing to be noted
  request_clock(request_kind what, std::uint64_t now_ns) noexcept
      : begun_ns_(now_ns), since_ns_(now_ns), what_(what) {}

  [[nodiscard]] bool runs() const noexcept { return what_ != request_kind::count_; }

  /// From now on its time belongs to `next`; queue, drive or network.
  void enter(request_stage next, std::uint64_t now_ns) noexcept {
    if (next == stage_)
      return;
    spend(now_ns);
    stage_ = next;
  }

  /// The clock for the last frame of the answer; this one stops.
  [[nodiscard]] request_clock hand_over(std::uint64_t now_ns) noexcept {
    enter(request_stage::network, now_ns);
    return std::exchange(*this, {});
  }

  /// The last byte of the answer is in the kernel.
  void note(reactor_counters& counters, std::uint64_t now_ns) noexcept {
    spend(now_ns);
    auto& series = counters.latencies[static_cast<std::size_t>(what_)];
    const auto total_ns = since_ns_ - begun_ns_;
    const auto at = [&](request_stage which) -> latency_histogram& {
      return series[static_cast<std::size_t>(which)];
    };
    const auto network_ns = total_ns - queue_ns_ - drive_ns_;
    const auto bucket = latency_bucket(total_ns);
    at(request_stage::total).note_in(bucket, total_ns);
    // Often nothing was waited for, and all of it is the network's.
    at(request_stage::network)
        .note_in(network_ns == total_ns ? bucket : latency_bucket(network_ns), network_ns);
    at(request_stage::queue).note_in(queue_ns_ == 0 ? 0 : latency_bucket(queue_ns_), queue_ns_);
    at(request_stage::drive).note_in(drive_ns_ == 0 ? 0 : latency_bucket(drive_ns_), drive_ns_);
  }

private:
  void spend(std::uint64_t now_ns) noexcept {
    if (stage_ == request_stage::queue)
      queue_ns_ += now_ns - since_ns_;
    else if (stage_ == request_stage::drive)
      drive_ns_ += now_ns - since_ns_;
    since_ns_ = now_ns;
  }

  std::uint64_t begun_ns_ = 0, since_ns_ = 0;
  std::uint64_t queue_ns_ = 0, drive_ns_ = 0; // what is left of the total is the network's
  request_kind what_ = request_kind::count_;
  request_stage stage_ = request_stage::queue;
};

} // namespace memkv::actors
