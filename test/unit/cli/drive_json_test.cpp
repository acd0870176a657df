// The documented keys of the offline commands' JSON are the ones that are printed.
#define CAF_SUITE drive_json
#include "cli/drive_report.hpp"
#include "cli/drive_snapshot.hpp"
#include "engine/drive_content.hpp"
#include "engine/drive_format.hpp"
#include "engine/drive_io.hpp"
#include "engine/memory_device.hpp"
#include "wire/crc32c.hpp"

#include <caf/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

using namespace memkv::cli;
namespace engine = memkv::engine;
using nlohmann::json;

namespace {

using keys = std::map<std::string, std::string>; // with types, as the page names them

std::string page() {
  std::ifstream stream(std::string(DOCS_DIRECTORY) + "/drive-json.md");
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

// The rows of the tables in these sections of the page, and of the table all documents share.
keys documented(const std::vector<std::string>& sections) {
  keys found;
  std::istringstream lines(page());
  std::string current;
  const std::regex row(R"(^\| `([a-z_.\[\]]+)` \| ([a-z ]+) \|.*)");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## "))
      current = line.substr(3);
    std::smatch parts;
    const bool wanted = current.empty() || std::ranges::find(sections, current) != sections.end();
    if (wanted && std::regex_match(line, parts, row))
      found.emplace(parts[1], parts[2]);
  }
  return found;
}

void collect(const json& value, const std::string& path, keys& found) {
  if (value.is_object()) {
    for (const auto& [key, inner] : value.items())
      collect(inner, path.empty() ? key : path + "." + key, found);
  } else if (value.is_array()) {
    CAF_CHECK(!value.empty()); // else its keys are not seen
    for (const auto& each : value)
      collect(each, path + "[]", found);
  } else {
    const char* type = value.is_boolean()          ? "bool"
                       : value.is_number_integer() ? "integer"
                       : value.is_string()         ? "text"
                                                   : "other";
    found[path] = type;
  }
}

void check_same(const std::string& section, const std::string& printed) {
  std::vector<std::string> sections{section};
  if (section == "fsck")
    sections.emplace_back("verify");
  const auto page_keys = documented(sections);
  keys printed_keys;
  collect(json::parse(printed), "", printed_keys);
  CAF_CHECK(page_keys.size() > 3);
  for (const auto& [key, type] : page_keys) {
    const auto found = printed_keys.find(key);
    if (found == printed_keys.end())
      CAF_ERROR(section << ": documented and not printed: " << key);
    else
      CAF_CHECK_EQUAL(key + " " + found->second, key + " " + type);
  }
  for (const auto& [key, type] : printed_keys)
    if (page_keys.find(key) == page_keys.end())
      CAF_ERROR(section << ": printed and not documented: " << key);
  CAF_CHECK_EQUAL(json::parse(printed).value("report", ""), section);
}

std::unique_ptr<engine::block_device> formatted_drive() {
  std::unique_ptr<engine::block_device> device;
  CAF_REQUIRE(engine::open_memory_device(64 << 20, "memory", device).ok());
  engine::new_drive wanted;
  wanted.identity.set_id.fill(std::byte{1});
  wanted.unit_bytes = 64 << 10;
  wanted.extent_bytes_max = 1 << 20;
  CAF_REQUIRE(
      engine::format_new(*device, nullptr, wanted, [](std::string_view, std::uint64_t, std::uint64_t) {
        return true;
      }).ok());
  return device;
}

constexpr std::string_view mark = "the bytes of the only block";

// One block, and an orderly close.
void store_block(engine::block_device& device) {
  engine::drive_content content;
  CAF_REQUIRE(engine::look_at_content(device, content).ok());
  engine::store_options options;
  options.identity = content.super.set;
  options.unit_bytes = content.super.places.unit_bytes;
  options.extent_bytes_max = content.super.places.extent_bytes_max;
  options.sync = engine::sync_policy::always;
  engine::system_clock time;
  std::unique_ptr<engine::drive_store> store;
  CAF_REQUIRE(engine::drive_store::open(device, options, time, store).ok());
  engine::put_description what;
  what.id.bytes.fill(std::byte{0x3C});
  what.key = std::as_bytes(std::span(mark));
  what.length = 4096;
  what.value_length = 4096;
  engine::aligned_bytes data(4096);
  std::memset(data.data(), 7, 4096);
  std::memcpy(data.data(), mark.data(), mark.size());
  const std::uint32_t sum = memkv::wire::crc32c(data.span());
  bool done = false;
  store->allocate(what, [&](engine::errc, engine::reservation place) {
    store->write(place.token, 0, data.span(), [&, place](engine::errc) {
      store->commit(place.token, std::span(&sum, 1), false, 0, [&](engine::errc committed, std::uint64_t) {
        CAF_REQUIRE(committed == engine::errc::ok);
        done = true;
      });
    });
  });
  while (!done)
    store->poll(true);
  CAF_REQUIRE(store->close().ok());
}

// Flips a bit of the block.
void damage_block(engine::block_device& device) {
  const auto bytes = device.writable_mapping();
  const auto wanted = std::as_bytes(std::span(mark));
  const auto found = std::search(bytes.begin(), bytes.end(), wanted.begin(), wanted.end());
  CAF_REQUIRE(found != bytes.end());
  *found ^= std::byte{1};
}

drive_report checked(engine::block_device& device) {
  drive_report report;
  report.path = "/dev/nvme7n1";
  report.model = "FAST";
  CAF_REQUIRE(engine::check_drive(device, {}, report.check).ok());
  return report;
}

drive_report repaired(engine::block_device& device) {
  drive_report report;
  report.path = "/dev/nvme7n1";
  report.fsck = true;
  CAF_REQUIRE(engine::repair_drive(device, {}, report.check, report.repair).ok());
  report.repaired = true;
  report.errors_left = checked(device).check.total(engine::check_severity::error);
  return report;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

} // namespace

CAF_TEST(the document health is the documented one) {
  const auto device = formatted_drive();
  drive_snapshot snapshot;
  snapshot.path = "/dev/\xFF"; // a name need not be text
  CAF_REQUIRE_EQUAL(read_snapshot(*device, {}, snapshot), "");
  check_same("health", snapshot_json(snapshot));
}

CAF_TEST(the documents verify and fsck are the documented ones) {
  const auto device = formatted_drive();
  store_block(*device);
  damage_block(*device);
  auto report = checked(*device);
  check_same("verify", report_json(report));
  check_same("fsck", report_json(repaired(*device)));
}

CAF_TEST(a clean drive is reported as such) {
  const auto device = formatted_drive();
  store_block(*device);
  const auto report = checked(*device);
  CAF_CHECK(report.clean());
  CAF_CHECK_EQUAL(report_advice(report), "");
  const auto text = report_text(report);
  CAF_CHECK(contains(text, "1 block with 4.00 KiB read and right, 0 damaged"));
  CAF_CHECK(contains(text, "67108864 of 67108864 bytes, each in one named region"));
  CAF_CHECK(text.ends_with("  result         clean\n"));
  const auto document = json::parse(report_json(report));
  CAF_CHECK_EQUAL(document.value("clean", false), true);
  CAF_CHECK_EQUAL(document.value("errors", 1), 0);
  CAF_CHECK(document["findings"].is_array() && document["findings"].empty());
  CAF_CHECK_EQUAL(document["regions"].size(), engine::check_regions);
}

CAF_TEST(a damaged drive is named with what a repair would do and did) {
  const auto device = formatted_drive();
  store_block(*device);
  damage_block(*device);
  auto report = checked(*device);
  CAF_CHECK(!report.clean());
  CAF_CHECK_EQUAL(report_advice(report),
                  "/dev/nvme7n1 has 1 error: run memkv drive fsck --repair /dev/nvme7n1");
  CAF_CHECK(!contains(report_text(report), "would repair"));
  report.fsck = true;
  CAF_CHECK(contains(report_text(report), "1 x data_damaged: the block is dropped and becomes a miss"));
  const auto done = repaired(*device);
  CAF_CHECK(done.clean());
  CAF_CHECK_EQUAL(report_advice(done), "");
  CAF_CHECK(contains(report_text(done), "0 blocks kept, 1 dropped"));
  CAF_CHECK(contains(report_text(done), "dropped 3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c (4.00 KiB): data_damaged"));
  const auto again = repaired(*device);
  CAF_CHECK(contains(report_text(again), "nothing was written"));
  drive_report unfinished = done;
  unfinished.repaired = false;
  unfinished.check = {};
  CAF_CHECK(!unfinished.clean());
  CAF_CHECK(contains(report_advice(unfinished), "could not be checked to the end"));
  drive_report failing = done;
  failing.errors_left = 2;
  CAF_CHECK(contains(report_advice(failing), "still has 2 errors after the repair"));
}

CAF_TEST(every kind of error has a remedy and everything else has none) {
  for (std::size_t kind = 0; kind < engine::finding_kinds; ++kind) {
    const auto which = static_cast<engine::finding_kind>(kind);
    const bool is_error = engine::severity_of(which) == engine::check_severity::error;
    if (is_error != (remedy_of(which) != "nothing"))
      CAF_ERROR("the remedy of " << engine::name(which) << " is " << remedy_of(which));
    CAF_CHECK(contains(page(), std::string("`") + std::string(engine::name(which)) + "`"));
  }
  for (std::size_t region = 0; region < engine::check_regions; ++region)
    CAF_CHECK(
        contains(page(), "`" + std::string(engine::name(static_cast<engine::check_region>(region))) + "`"));
}
