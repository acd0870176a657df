// The exposition: the names that were there first, what is given when somebody is silent, and that it agrees
// with docs/metrics.md.
#define CAF_SUITE metrics

#include "admin/exposition.hpp"
#include "admin/metrics.hpp"
#include "test/unit/admin/report_sample.hpp"

#include <caf/test/dsl.hpp>

#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using namespace memkv;
using admin::metrics_text;

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    out.push_back(line);
  return out;
}

bool has_line(const std::string& text, const std::string& wanted) {
  for (const auto& line : lines_of(text))
    if (line == wanted)
      return true;
  return false;
}

struct metric {
  std::string type;
  std::set<std::string> labels;
  friend bool operator==(const metric&, const metric&) = default;
};

/// Every family of an exposition, with the labels that its samples have.
std::map<std::string, metric> metrics_of(const std::string& text) {
  std::map<std::string, metric> out;
  std::string family;
  for (const auto& line : lines_of(text)) {
    std::istringstream words(line);
    std::string hash;
    std::string what;
    if (line.starts_with("# TYPE ")) {
      std::string type;
      words >> hash >> what >> family >> type;
      out[family].type = type;
    }
    if (line.starts_with("#"))
      continue;
    CAF_CHECK(line.starts_with(family));
    const auto open = line.find('{');
    const auto close = line.find('}');
    if (open == std::string::npos)
      continue;
    std::istringstream labels(line.substr(open + 1, close - open - 1));
    for (std::string label; std::getline(labels, label, ',');)
      if (const auto name = label.substr(0, label.find('=')); name != "le")
        out[family].labels.insert(name);
  }
  return out;
}

/// The tables of docs/metrics.md: | `name` | type | labels | … |
std::map<std::string, metric> documented() {
  std::map<std::string, metric> out;
  std::ifstream file(DOCS_DIRECTORY "/metrics.md");
  CAF_REQUIRE(file.good());
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("| `memkv_") && !line.starts_with("| `process_"))
      continue;
    std::vector<std::string> cells;
    std::istringstream row(line.substr(1));
    for (std::string cell; std::getline(row, cell, '|');) {
      const auto begin = cell.find_first_not_of(' ');
      cells.push_back(begin == std::string::npos
                          ? std::string{}
                          : cell.substr(begin, cell.find_last_not_of(' ') + 1 - begin));
    }
    CAF_REQUIRE_EQUAL(cells.size(), 5u);
    const auto name = cells[0].substr(1, cells[0].size() - 2);
    CAF_CHECK(!out.contains(name));
    auto& made = out[name];
    made.type = cells[1];
    std::istringstream labels(cells[2]);
    for (std::string label; std::getline(labels, label, ',');)
      if (const auto from = label.find('`'); from != std::string::npos)
        made.labels.insert(label.substr(from + 1, label.rfind('`') - from - 1));
    // What it means and what to do about it.
    CAF_CHECK(cells[3].size() > 5);
    CAF_CHECK(cells[4].size() > 5);
  }
  return out;
}

} // namespace

CAF_TEST(the names that were there first have no labels and one blank and plain digits) {
  const auto text = metrics_text(test::full_gathering(), "2026-11-21");
  for (const auto* line : {"memkv_blocks_total 5669", "memkv_read_total 1322",
                           "memkv_read_bytes_total 1324961280", "memkv_write_total 15266",
                           "memkv_write_bytes_total 15300195840", "memkv_storage_usable_bytes 1099510579200",
                           "memkv_storage_used_bytes 5944377344", "memkv_rdma_active 1"})
    CAF_CHECK(has_line(text, line));
  const auto found = metrics_of(text);
  CAF_CHECK_EQUAL(found.at("memkv_blocks_total").type, "gauge");
  for (const auto* name :
       {"memkv_read_total", "memkv_read_bytes_total", "memkv_write_total", "memkv_write_bytes_total"})
    CAF_CHECK_EQUAL(found.at(name).type, "counter");
}

CAF_TEST(whole numbers are written in digits however large they are) {
  auto report = test::full_report();
  report.requests.read_bytes = 120'000'000'000'000'000;
  report.requests.write_bytes = 10'000'000'000'000'000'000U;
  const auto text = metrics_text({std::make_shared<const actors::server_report>(report), {}});
  CAF_CHECK(has_line(text, "memkv_read_bytes_total 120000000000000000"));
  CAF_CHECK(has_line(text, "memkv_write_bytes_total 10000000000000000000"));
  CAF_CHECK_EQUAL(admin::with_plain_numbers("a 1e+17\nb{c=\"1e+17\"} 2.5e+17\nd 1e+300\ne 1e-05\n# f e+1\n"),
                  "a 100000000000000000\nb{c=\"1e+17\"} 250000000000000000\nd 1e+300\ne 1e-05\n# f e+1\n");
  CAF_CHECK_EQUAL(admin::with_plain_numbers(""), "");
  CAF_CHECK_EQUAL(admin::with_plain_numbers("a 1e+3"), "a 1000\n");
}

CAF_TEST(a histogram rises from bucket to bucket and ends with the number of all) {
  const auto text = metrics_text(test::full_gathering());
  const std::string labels = "operation=\"get\",stage=\"total\"";
  std::uint64_t before = 0;
  std::size_t buckets = 0;
  for (const auto& line : lines_of(text)) {
    if (!line.starts_with("memkv_request_duration_seconds_bucket{" + labels))
      continue;
    const auto count = std::stoull(line.substr(line.rfind(' ') + 1));
    CAF_CHECK_GREATER_OR_EQUAL(count, before);
    before = count;
    ++buckets;
  }
  CAF_CHECK_EQUAL(buckets, engine::latency_buckets);
  CAF_CHECK_EQUAL(before, 1000u);
  CAF_CHECK(has_line(text, "memkv_request_duration_seconds_count{" + labels + "} 1000"));
  CAF_CHECK(has_line(text, "memkv_request_duration_seconds_sum{" + labels + "} 49.95"));
  CAF_CHECK(has_line(text, "memkv_request_duration_seconds_bucket{" + labels + ",le=\"+Inf\"} 1000"));
}

CAF_TEST(an actor that is silent is named and everything else is given all the same) {
  auto report = test::full_report();
  report.actors[0].answered = false;
  report.actors[0].answered_in_ns = 0;
  report.drives[0].facts.reset();
  const auto text = metrics_text({std::make_shared<const actors::server_report>(report), {"drive-0"}});
  CAF_CHECK(has_line(text, "memkv_actor_responding{actor=\"drive-0\"} 0"));
  CAF_CHECK(has_line(text, "memkv_actor_responding{actor=\"server\"} 1"));
  CAF_CHECK(has_line(text, "memkv_actor_up{actor=\"drive-1\"} 0"));
  CAF_CHECK(has_line(text, "memkv_read_total 1322"));
  CAF_CHECK(has_line(text, "memkv_drive_up{drive=\"0\"} 1"));
}

CAF_TEST(without a report the process and who is silent are given) {
  const auto text = metrics_text({nullptr, {"admin-gateway"}}, "1");
  CAF_CHECK(has_line(text, "memkv_actor_responding{actor=\"admin-gateway\"} 0"));
  const auto found = metrics_of(text);
  CAF_CHECK(found.contains("memkv_build_info"));
  CAF_CHECK(found.contains("memkv_log_lines_total"));
  for (const auto* name : {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
                           "process_max_fds", "process_start_time_seconds", "process_virtual_memory_bytes"})
    CAF_CHECK(found.contains(name));
  CAF_CHECK(!found.contains("memkv_read_total"));
}

CAF_TEST(without information about a licence nothing is said about one) {
  auto report = test::full_report();
  report.license.reset();
  const auto found = metrics_of(metrics_text({std::make_shared<const actors::server_report>(report), {}}));
  for (const auto& [name, what] : found)
    CAF_CHECK(!name.starts_with("memkv_license"));
}

CAF_TEST(text from outside cannot break the exposition) {
  auto report = test::full_report();
  report.drives[0].media = "a\"b\\c\nd\xFF\xC0\xAF\xED\xA0\x80";
  const auto text = metrics_text({std::make_shared<const actors::server_report>(report), {}});
  CAF_CHECK(text.find("media=\"a\\\"b\\\\c\\nd\xEF\xBF\xBD") != std::string::npos);
  CAF_CHECK(text.find('\xFF') == std::string::npos);
  CAF_CHECK_EQUAL(admin::valid_utf8("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
                  "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CAF_CHECK_EQUAL(admin::valid_utf8("\xE2\x82"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  CAF_CHECK_EQUAL(admin::valid_utf8("\xF4\x90\x80\x80").size(), 12u);
}

CAF_TEST(no series is given twice) {
  const auto text = metrics_text(test::full_gathering(), "1");
  std::set<std::string> seen;
  for (const auto& line : lines_of(text))
    if (!line.starts_with("#"))
      CAF_CHECK(seen.insert(line.substr(0, line.rfind(' '))).second);
}

CAF_TEST(every metric is documented with its type and labels and nothing else is) {
  const auto found = metrics_of(metrics_text(test::full_gathering(), "1"));
  const auto pages = documented();
  std::string wrong;
  for (const auto& [name, what] : found)
    if (!pages.contains(name) || !(pages.at(name) == what))
      wrong += " " + name;
  for (const auto& [name, what] : pages)
    if (!found.contains(name))
      wrong += " " + name;
  CAF_CHECK_EQUAL(wrong, "");
}
