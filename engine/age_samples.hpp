// When generations were given out, about: tells the age of a block by its generation, so that an index entry
// need not carry a time.
//
// Operation. Samples of (generation, time) in order; when they are too many every second one goes, and new
// ones come half as often. An age is right to one interval, which is about a 256th of the time covered.
//
// Threading: one thread, the drive's. Limits: samples_max. Does not: know of blocks that are older than the
// first sample (those of an earlier run): they count as being as old as that.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace memkv::engine {

class age_samples {
public:
  static constexpr std::size_t samples_max = 512;
  static constexpr std::uint64_t interval_ns_least = 1'000'000'000;

  /// Every generation up to `generation` was given out before `now_ns`.
  void note(std::uint64_t generation, std::uint64_t now_ns) {
    if (!samples_.empty() && now_ns - samples_.back().at_ns < interval_ns_)
      return;
    if (samples_.size() == samples_max) {
      for (std::size_t i = 0; i < samples_max / 2; ++i)
        samples_[i] = samples_[i * 2];
      samples_.resize(samples_max / 2);
      interval_ns_ *= 2;
    }
    samples_.push_back({generation, now_ns});
  }

  /// How long ago `generation` was given out.
  [[nodiscard]] std::uint64_t age_ns(std::uint64_t generation, std::uint64_t now_ns) const noexcept {
    if (samples_.empty())
      return 0;
    const auto found =
        std::lower_bound(samples_.begin(), samples_.end(), generation,
                         [](const sample& each, std::uint64_t wanted) { return each.generation < wanted; });
    const auto at_ns = found == samples_.end() ? samples_.back().at_ns : found->at_ns;
    return now_ns > at_ns ? now_ns - at_ns : 0;
  }

private:
  struct sample {
    std::uint64_t generation = 0;
    std::uint64_t at_ns = 0;
  };
  std::vector<sample> samples_;
  std::uint64_t interval_ns_ = interval_ns_least;
};

} // namespace memkv::engine
