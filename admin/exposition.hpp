// Families of metrics being put together, and their text.
//
// Threading: one thread. Ownership: values. Errors: none; label values that are no UTF-8 get replacement
// characters, since one such value would make Prometheus refuse everything.
#pragma once

#include "engine/latency.hpp"

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace memkv::admin {

using labels = std::vector<std::pair<std::string_view, std::string_view>>;

class exposition {
public:
  void gauge(std::string_view name, std::string_view help, double value, const labels& with = {});
  void gauge(std::string_view name, std::string_view help, std::uint64_t value, const labels& with = {});
  void counter(std::string_view name, std::string_view help, double value, const labels& with = {});
  void counter(std::string_view name, std::string_view help, std::uint64_t value, const labels& with = {});
  void histogram(std::string_view name, std::string_view help, const engine::latency_series& series,
                 const labels& with = {});
  /// A summary without quantiles: how many, and their sum.
  void summary(std::string_view name, std::string_view help, std::uint64_t count, double sum,
               const labels& with = {});

  [[nodiscard]] std::vector<prometheus::MetricFamily> take() { return std::move(families_); }

private:
  prometheus::ClientMetric& add(std::string_view name, std::string_view help, prometheus::MetricType type,
                                const labels& with);
  std::vector<prometheus::MetricFamily> families_; // in the order in which they were first named
};

/// What is collected, as text: `name value` in a line each, whole numbers without exponent.
[[nodiscard]] std::string text_of(const prometheus::Collectable& source);

/// The same lines with every whole number below 2^64 written out in digits.
[[nodiscard]] std::string with_plain_numbers(std::string_view text);

/// `text` with a replacement character for every byte that is no UTF-8.
[[nodiscard]] std::string valid_utf8(std::string_view text);

} // namespace memkv::admin
