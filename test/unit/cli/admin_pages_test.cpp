// Which servers memkv admin asks, what it makes of their documents, and the tables it prints.
#define CAF_SUITE admin_pages
#include "cli/admin_command.hpp"
#include "cli/admin_documents.hpp"
#include "cli/admin_pages.hpp"

#include <caf/test/unit_test.hpp>

#include <string>

using namespace memkv;
using namespace memkv::cli;

namespace {

std::string servers_of(std::vector<std::string> words, const char* variable) {
  words.insert(words.begin(), {"admin", "health"});
  const auto parsed = parse(memkv_commands(), words);
  if (!parsed.ok())
    CAF_FAIL("refused: " << parsed.error);
  const auto [servers, problem] = admin_servers(parsed.line, variable);
  std::string text = problem;
  for (const auto& each : servers)
    text += (text.empty() ? "" : " ") + each.text();
  return text;
}

constexpr std::string_view full_status = R"({
  "status": "degraded", "reasons": ["drive 1 is offline"], "version": "RELEASE.2026-11-21",
  "phase": "serving",
  "uptime_seconds": 10000.1, "fault_injection": true, "unknown": [[1]],
  "license": {"valid": true, "plan": "Enterprise", "organization": "Müller", "source": "MEMKV_LICENSE",
              "days_left": 30, "development": true},
  "memory": {"pool_bytes": 1073741824, "pool_used_bytes": 536870912, "huge_pages": true,
             "resident_bytes": 1048576},
  "storage": {"mode": "direct", "raw_bytes_total": 4398046511104, "usable_bytes_total": 4000000000000,
              "used_bytes_total": 1000000000000, "blocks_total": 12345, "drives_online": 1, "drives_total": 2,
              "devices": [
    {"device_id": 0, "media": "/dev/nvme0n1", "model": "M1", "state": "online", "reason": "",
     "raw_bytes": 1099511627776,
     "usable_bytes": 1000, "used_bytes": 990, "blocks": 7, "failure_count": 0, "blacklisted": false},
    {"device_id": 1, "media": "/dev/nvme1n1", "state": "resetting", "reason": "a write failed",
     "failure_count": 3,
     "blacklisted": false, "reset": {"secure": true, "done_bytes": 256, "total_bytes": 1024}}]},
  "rdma": {"active": true, "connections": 4, "sessions": 2}, "network": {"connections": 9},
  "actors": [{"name": "drive-0", "alive": true, "answered": true, "mailbox": 1, "restarts": 0},
             {"name": "drive-1", "alive": true, "answered": false, "mailbox": 5, "restarts": 2},
             {"name": "evictor", "alive": false, "answered": false, "mailbox": 0, "restarts": 1}]})";

status_document status_in(std::string_view text) {
  status_document document;
  const auto problem = read_status(text, document);
  if (!problem.empty())
    CAF_FAIL("refused: " << problem);
  return document;
}

std::string status_problem(std::string_view text) {
  status_document document;
  return read_status(text, document);
}

std::string health_problem(std::string_view text) {
  health_document document;
  return read_health(text, document);
}

std::string failed_problem(std::string_view text) {
  std::vector<failed_drive_entry> drives;
  return read_failed_drives(text, drives);
}

bool has(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos)
    return true;
  CAF_MESSAGE("\"" << part << "\" is not in:\n" << text);
  return false;
}

} // namespace

CAF_TEST(the flag wins over the variable and the variable over this machine) {
  CAF_CHECK_EQUAL(servers_of({}, nullptr), "http://127.0.0.1:9901");
  CAF_CHECK_EQUAL(servers_of({}, "coe02:9901, coe04:9901"), "http://coe02:9901 http://coe04:9901");
  CAF_CHECK_EQUAL(servers_of({"--servers", "a"}, "b"), "http://a:9901");
  CAF_CHECK_EQUAL(servers_of({"-s", "https://a,b:1"}, nullptr), "https://a:9901 http://b:1");
}

CAF_TEST(a list that names nothing is never taken for this machine) {
  CAF_CHECK(has(servers_of({}, ",,"), "no servers were configured"));
  CAF_CHECK(has(servers_of({}, ""), "no servers were configured"));
  CAF_CHECK(has(servers_of({"--servers", " , "}, "b"), "no servers were configured"));
  CAF_CHECK(has(servers_of({}, "a@b"), "MEMKV_SERVERS: "));
}

CAF_TEST(the flag may stand before or after the command but not twice) {
  const auto before =
      parse(memkv_commands(), std::vector<std::string>{"admin", "-s", "a", "drives", "reset", "1"});
  CAF_CHECK(before.ok());
  CAF_CHECK_EQUAL(before.line.text("servers"), "a");
  CAF_CHECK(!parse(memkv_commands(), std::vector<std::string>{"admin", "-s", "a", "health", "-s", "b"}).ok());
}

CAF_TEST(a status is read whole) {
  const auto status = status_in(full_status);
  CAF_CHECK_EQUAL(status.status, "degraded");
  CAF_CHECK_EQUAL(status.raw_bytes_total, 4398046511104u);
  CAF_CHECK_EQUAL(status.devices.size(), 2u);
  CAF_CHECK(!status.devices[1].used_bytes);
  CAF_CHECK_EQUAL(status.devices[1].reset->done_bytes, 256u);
  CAF_CHECK_EQUAL(status.actors.size(), 3u);
  CAF_CHECK_EQUAL(*status.licence->days_left, 30u);
}

CAF_TEST(a status needs only its totals) {
  const auto status = status_in(
      R"({"storage": {"raw_bytes_total": 1, "usable_bytes_total": 2.0, "used_bytes_total": 3},
          "license": null})");
  CAF_CHECK_EQUAL(status.usable_bytes_total, 2u);
  CAF_CHECK(!status.licence && !status.memory && status.devices.empty());
  CAF_CHECK(has(status_details(status, {}), "0 connections"));
}

CAF_TEST(a document of other types is refused by the name of the member) {
  CAF_CHECK(has(status_problem("[]"), "no object"));
  CAF_CHECK(has(status_problem("{}"), "\"storage\" is missing"));
  CAF_CHECK(has(status_problem(R"({"storage": 7})"), "\"storage\" is no object"));
  CAF_CHECK(has(status_problem(R"({"storage": {"raw_bytes_total": "1"}})"), "storage.raw_bytes_total"));
  CAF_CHECK(has(status_problem(R"({"storage": {"raw_bytes_total": -1}})"), "not negative"));
  CAF_CHECK(has(status_problem(R"({"storage": {"raw_bytes_total": 1e300}})"), "not negative"));
  CAF_CHECK(has(status_problem(R"({"status": 1, "storage": {}})"), "\"status\" is no text"));
  const std::string totals = R"("raw_bytes_total": 1, "usable_bytes_total": 1, "used_bytes_total": 1)";
  CAF_CHECK(has(status_problem("{\"storage\": {" + totals + ", \"devices\": {}}}"), "storage.devices"));
  CAF_CHECK(has(status_problem("{\"storage\": {" + totals + ", \"devices\": [1]}}"), "storage.devices[0]"));
  CAF_CHECK(has(status_problem("{\"storage\": {" + totals + ", \"devices\": [{\"device_id\": 1}]}}"),
                "storage.devices[0].state"));
  CAF_CHECK(
      has(status_problem("{\"storage\": {" + totals + "}, \"actors\": [{\"name\": []}]}"), "actors[0].name"));
  CAF_CHECK(has(health_problem("{}"), "\"status\" is missing"));
  CAF_CHECK(has(health_problem(R"({"status": "fine"})"), "none of healthy"));
  CAF_CHECK(has(health_problem(R"({"status": "healthy", "rdma_active": 1})"), "rdma_active"));
  CAF_CHECK(has(failed_problem("{}"), "no list"));
  CAF_CHECK(has(failed_problem("[1]"), "[0]"));
  CAF_CHECK(has(failed_problem(R"([{"device_id": 1}])"), "failure_count"));
}

CAF_TEST(what is no JSON is said so and depth has a bound) {
  for (const auto* text : {"", "{", "<html>", "{\"a\": 1e999}", "{} {}", "{\"a\": \"\xff\"}", "nul"})
    CAF_CHECK(has(health_problem(text), "JSON"));
  CAF_CHECK(has(health_problem(std::string(10'000'000, '[')), "deeply"));
  std::string deep;
  for (int i = 0; i < 100'000; ++i)
    deep += "{\"a\":";
  CAF_CHECK(has(status_problem(deep), "deeply"));
  CAF_CHECK(
      health_problem(R"({"status": "healthy", "x": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["})").empty());
}

CAF_TEST(a refusal is one sentence whatever it was) {
  CAF_CHECK_EQUAL(read_refusal(R"({"error": "drive 2 is online"})"), "drive 2 is online");
  CAF_CHECK_EQUAL(read_refusal(R"({"error": "not in time", "silent": ["drive-1", "evictor"]})"),
                  "not in time (not answering: drive-1, evictor)");
  CAF_CHECK_EQUAL(read_refusal("not ready:\n\033[1mno drive"), "not ready: ?[1mno drive");
  CAF_CHECK_EQUAL(read_refusal("<html>no</html>"), "");
  CAF_CHECK_EQUAL(read_refusal("[1]"), "[1]");
  CAF_CHECK_EQUAL(read_refusal(R"({"error": 7})"), "");
  CAF_CHECK_EQUAL(read_refusal(std::string(5'000, 'x')), "");
}

CAF_TEST(the table of health has a row for every server) {
  std::vector<report_of<health_document>> rows(3);
  rows[0] = {"http://a:9901", health_document{"healthy", {}, true, 12, 12}};
  rows[1] = {"http://b:9901", health_document{"degraded", {"drive 2 is offline"}, false, 1, 2}};
  rows[2] = {"http://a-longer-name:9901", {}};
  CAF_CHECK_EQUAL(health_page(rows, {}), "SERVER                     STATUS     DRIVES  RDMA\n"
                                         "http://a:9901              healthy     12/12  active\n"
                                         "http://b:9901              degraded      1/2  inactive\n"
                                         "http://a-longer-name:9901  no answer       -  -\n"
                                         "http://b:9901: drive 2 is offline\n");
  const std::vector<report_of<health_document>> bare{{"s", health_document{"healthy", {}, {}, {}, {}}}};
  CAF_CHECK_EQUAL(health_page(bare, {}), "SERVER  STATUS   DRIVES  RDMA\n"
                                         "s       healthy       -  -\n");
}

CAF_TEST(the table of readiness flags who is not ready) {
  const std::vector<report_of<readiness>> rows{{"a", readiness{true}}, {"b", readiness{false}}, {"c", {}}};
  CAF_CHECK_EQUAL(ready_page(rows, {}),
                  "SERVER  READY\na       ready\nb       NOT READY\nc       no answer\n");
}

CAF_TEST(the table of status adds up what answered) {
  auto status = status_in(full_status);
  std::vector<report_of<status_document>> rows{{"a", status}, {"b", {}}, {"c", status}};
  const auto page = status_page(rows, {});
  CAF_CHECK(has(page, "a       degraded            1/2  4.00 TiB  3.64 TiB  931.3 GiB  25.0 %   12345"));
  CAF_CHECK(has(page, "b       no answer             -         -"));
  CAF_CHECK(has(page, "total   2 of 3 answered     2/4  8.00 TiB  7.28 TiB   1.82 TiB  25.0 %   24690"));
  CAF_CHECK(has(page, "a: drive 1 is offline\na: fault injection is on\n"));
  status.raw_bytes_total = UINT64_MAX;
  rows = {{"a", status}, {"b", status}};
  CAF_CHECK(has(status_page(rows, {}), "16.0 EiB"));
  rows.resize(1);
  CAF_CHECK(status_page(rows, {}).find("total") == std::string::npos);
}

CAF_TEST(the details of a server show everything the page of the command line promises) {
  const auto text = status_details(status_in(full_status), {});
  CAF_CHECK(has(text, "uptime         2 h 46 min\n"));
  CAF_CHECK(has(text, "version        RELEASE.2026-11-21\n"));
  CAF_CHECK(
      has(text, "licence        Enterprise, Müller, 30 days left, from MEMKV_LICENSE, for development\n"));
  CAF_CHECK(
      has(text, "memory pool    [##########..........]  512.0 MiB of 1.00 GiB  50.0 %, in huge pages\n"));
  CAF_CHECK(has(text, "storage        [#####...............]  931.3 GiB of 3.64 TiB  25.0 %, mode direct\n"));
  CAF_CHECK(has(text, "rdma           active, 4 connections, 2 sessions\n"));
  CAF_CHECK(has(text, "blocks         12345\n"));
  CAF_CHECK(has(
      text, "      0  online     1.00 TiB  1000 B  990 B  [####################]  99.0 %       7         0"
            "  /dev/nvme0n1 (M1)\n"));
  CAF_CHECK(has(text, "      1  resetting         -       -      -  -"));
  CAF_CHECK(has(text, "drive 1: a write failed\n"));
  CAF_CHECK(has(text, "drive 1: is being overwritten, [#####...............]  256 B of 1.00 KiB  25.0 %\n"));
  CAF_CHECK(has(text, "drive-0  running        1         0\n"));
  CAF_CHECK(has(text, "drive-1  silent         5         2\n"));
  CAF_CHECK(has(text, "evictor  dead           0         1\n"));
  CAF_CHECK(has(text, "fault injection is on"));
}

CAF_TEST(the table of failed drives) {
  std::vector<failed_drive_entry> drives;
  CAF_CHECK_EQUAL(failed_drives_page(drives, {}), "no drive has failed\n");
  CAF_CHECK(read_failed_drives(R"([{"device_id": 2, "failure_count": 3, "first_failed_at": 1738800000,
    "last_failed_at": 1738810000, "blacklisted": false}])",
                               drives)
                .empty());
  CAF_CHECK(read_failed_drives(R"([{"device_id": 3, "failure_count": null, "first_failed_at": null,
    "last_failed_at": null, "state": "offline", "media": "/dev/nvme3n1"}])",
                               drives)
                .empty());
  drives.push_back({11, 6, 0, UINT64_MAX, true, "blacklisted", "failed \"too\" often", "/dev/nvme2n1"});
  CAF_CHECK_EQUAL(
      failed_drives_page(drives, {}),
      "DRIVE  STATE        FAILURES  FIRST                    LAST                     BLACKLISTED"
      "  MEDIA         REASON\n"
      "    2  -                   3  2025-02-06 00:00:00 UTC  2025-02-06 02:46:40 UTC  no         "
      "  -\n"
      "    3  offline             -  -                        -                        no         "
      "  /dev/nvme3n1\n"
      "   11  blacklisted         6  never                    unknown                  yes        "
      "  /dev/nvme2n1  failed \"too\" often\n");
}

CAF_TEST(texts of servers are made printable wherever they are shown) {
  const std::string nasty = R"("\u001b[2J\u202e\u0007x")";
  const auto status = status_in(
      "{\"version\": " + nasty + ", \"status\": " + nasty + ", \"reasons\": [" + nasty +
      "], \"license\": {\"plan\": " + nasty + ", \"organization\": " + nasty + ", \"source\": " + nasty +
      "}, \"storage\": {\"mode\": " + nasty +
      ", \"raw_bytes_total\": 1, \"usable_bytes_total\": 1, \"used_bytes_total\": 9," +
      "\"devices\": [{\"device_id\": 1, \"state\": " + nasty + ", \"reason\": " + nasty +
      ", \"model\": " + nasty + ", \"media\": " + nasty + "}]}, \"actors\": [{\"name\": " + nasty + "}]}");
  const std::vector<report_of<status_document>> rows{{"a", status}};
  for (const auto& text : {status_details(status, {}), status_page(rows, {})})
    for (const auto* each : {"\033", "\a", "\u202e"})
      CAF_CHECK(text.find(each) == std::string::npos);
}

CAF_TEST(bars and shares never leave their bounds) {
  CAF_CHECK_EQUAL(usage_bar(0, 0), "[....................]");
  CAF_CHECK_EQUAL(usage_bar(1, 1'000'000), "[#...................]");
  CAF_CHECK_EQUAL(usage_bar(9, 3), "[####################]");
  CAF_CHECK_EQUAL(percent_text(1, 0), "-");
  CAF_CHECK_EQUAL(duration_text(59.9), "59 s");
  CAF_CHECK_EQUAL(duration_text(61), "1 min 1 s");
  CAF_CHECK_EQUAL(duration_text(90'000), "1 d 1 h");
  CAF_CHECK_EQUAL(duration_text(-1), "-");
  CAF_CHECK_EQUAL(duration_text(1e300), "-");
  CAF_CHECK_EQUAL(labelled_rule("http://a:9901").size(), 80u);
}

CAF_TEST(colours are only there when they are wanted) {
  const std::vector<report_of<readiness>> rows{{"a", readiness{true}}, {"b", readiness{false}}};
  CAF_CHECK(ready_page(rows, {}).find('\033') == std::string::npos);
  const auto coloured = ready_page(rows, {true});
  CAF_CHECK(has(coloured, "\033[32mready\033[0m"));
  CAF_CHECK(has(coloured, "\033[31mNOT READY\033[0m"));
}
