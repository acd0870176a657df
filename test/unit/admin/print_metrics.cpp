// Prints the exposition of a report in which everything has a value: for promtool and other readers.
#include "admin/metrics.hpp"
#include "test/unit/admin/report_sample.hpp"

#include <cstdio>

int main() {
  const auto text = memkv::admin::metrics_text(memkv::test::full_gathering(), "1.0");
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0 : 1;
}
