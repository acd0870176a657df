// How long things take, counted in buckets: cheap enough for every request.
//
// Threading: a latency_histogram is written by one thread and read by any (relaxed, so a reader may see a
// count without its time); latency_counts and latency_series are values. Limits: 22 buckets, from 8 µs, each
// twice the one before, to 16.8 s, and one for everything above.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

namespace memkv::engine {

constexpr std::size_t latency_buckets = 23;

/// The upper end of a bucket in nanoseconds, inclusive; the last bucket has none.
[[nodiscard]] constexpr std::uint64_t latency_bound_ns(std::size_t bucket) noexcept {
  return std::uint64_t{8'000} << bucket;
}

[[nodiscard]] constexpr std::size_t latency_bucket(std::uint64_t ns) noexcept {
  // The number of doublings of 8 µs that are needed to reach it.
  const auto doublings = ns <= 8'000 ? 0 : std::bit_width((ns - 1) / 8'000);
  return doublings < static_cast<int>(latency_buckets) ? static_cast<std::size_t>(doublings)
                                                       : latency_buckets - 1;
}

/// Counts by bucket, each for itself (not summed up), and the sum of all times.
struct latency_counts {
  std::array<std::uint64_t, latency_buckets> counts{};
  std::uint64_t sum_ns = 0;

  latency_counts& operator+=(const latency_counts& other) noexcept {
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket)
      counts[bucket] += other.counts[bucket];
    sum_ns += other.sum_ns;
    return *this;
  }
};

/// The same with what it is about.
struct latency_series {
  std::string operation; // "get", "put", … ; of a drive: "read", "write", "flush"
  std::string stage;     // "queue", "drive", "network", "total"; of a drive: ""
  std::array<std::uint64_t, latency_buckets> counts{};
  std::uint64_t sum_ns = 0;

  [[nodiscard]] std::uint64_t count() const noexcept {
    std::uint64_t all = 0;
    for (const auto each : counts)
      all += each;
    return all;
  }
  void add(const latency_counts& other) noexcept {
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket)
      counts[bucket] += other.counts[bucket];
    sum_ns += other.sum_ns;
  }
};

class latency_histogram {
public:
  void note(std::uint64_t ns) noexcept { note_in(latency_bucket(ns), ns); }
  /// The same when the bucket of `ns` is known.
  void note_in(std::size_t bucket, std::uint64_t ns) noexcept {
    bump(counts_[bucket], 1);
    if (ns > 0)
      bump(sum_ns_, ns);
  }
  [[nodiscard]] latency_counts value() const noexcept {
    latency_counts out;
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket)
      out.counts[bucket] = counts_[bucket].load(std::memory_order_relaxed);
    out.sum_ns = sum_ns_.load(std::memory_order_relaxed);
    return out;
  }
  void add_to(latency_series& sum) const noexcept { sum.add(value()); }

private:
  // One writer: no need for an atomic addition.
  static void bump(std::atomic<std::uint64_t>& what, std::uint64_t by) noexcept {
    what.store(what.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  std::array<std::atomic<std::uint64_t>, latency_buckets> counts_{};
  std::atomic<std::uint64_t> sum_ns_{0};
};

} // namespace memkv::engine
