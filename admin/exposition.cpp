#include "admin/exposition.hpp"

#include "wire/text.hpp"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <sstream>

namespace memkv::admin {

using prometheus::MetricType;

prometheus::ClientMetric& exposition::add(std::string_view name, std::string_view help, MetricType type,
                                          const labels& with) {
  // Metrics of one family mostly come one after another.
  auto found = std::find_if(families_.rbegin(), families_.rend(),
                            [&](const prometheus::MetricFamily& each) { return each.name == name; });
  if (found == families_.rend()) {
    families_.push_back({std::string(name), std::string(help), type, {}});
    found = families_.rbegin();
  }
  auto& metric = found->metric.emplace_back();
  for (const auto& [label, value] : with)
    metric.label.push_back({std::string(label), valid_utf8(value)});
  return metric;
}

void exposition::gauge(std::string_view name, std::string_view help, double value, const labels& with) {
  add(name, help, MetricType::Gauge, with).gauge.value = value;
}

void exposition::gauge(std::string_view name, std::string_view help, std::uint64_t value,
                       const labels& with) {
  gauge(name, help, static_cast<double>(value), with);
}

void exposition::counter(std::string_view name, std::string_view help, double value, const labels& with) {
  add(name, help, MetricType::Counter, with).counter.value = value;
}

void exposition::counter(std::string_view name, std::string_view help, std::uint64_t value,
                         const labels& with) {
  counter(name, help, static_cast<double>(value), with);
}

void exposition::histogram(std::string_view name, std::string_view help, const engine::latency_series& series,
                           const labels& with) {
  auto& out = add(name, help, MetricType::Histogram, with).histogram;
  std::uint64_t sum = 0;
  for (std::size_t bucket = 0; bucket + 1 < engine::latency_buckets; ++bucket) {
    sum += series.counts[bucket];
    out.bucket.push_back({sum, static_cast<double>(engine::latency_bound_ns(bucket)) / 1e9});
  }
  out.sample_count = sum + series.counts.back();
  out.sample_sum = static_cast<double>(series.sum_ns) / 1e9;
}

void exposition::summary(std::string_view name, std::string_view help, std::uint64_t count, double sum,
                         const labels& with) {
  auto& out = add(name, help, MetricType::Summary, with).summary;
  out.sample_count = count;
  out.sample_sum = sum;
}

std::string text_of(const prometheus::Collectable& source) {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, source.Collect());
  return with_plain_numbers(out.str());
}

std::string with_plain_numbers(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size() - 1);
    const auto line = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    const auto blank = line.rfind(' ');
    if (line.front() == '#' || blank == std::string_view::npos ||
        line.find("e+", blank) == std::string_view::npos) {
      out += line;
      continue;
    }
    const double value = std::strtod(std::string(line.substr(blank + 1)).c_str(), nullptr);
    if (!(std::fabs(value) < 0x1p64) || std::trunc(value) != value) {
      out += line;
      continue;
    }
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.0f", value);
    out += line.substr(0, blank + 1);
    out += digits;
    out += '\n';
  }
  return out;
}

std::string valid_utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto next = wire::first_character(text);
    out += next.valid ? text.substr(0, next.bytes) : "\xEF\xBF\xBD";
    text.remove_prefix(next.bytes);
  }
  return out;
}

} // namespace memkv::admin
