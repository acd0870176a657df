// The documented keys of the offline commands' JSON are the ones that are printed.
#define CAF_SUITE drive_json
#include "cli/drive_content.hpp"
#include "cli/drive_format.hpp"
#include "cli/drive_snapshot.hpp"
#include "engine/memory_device.hpp"

#include <caf/test/unit_test.hpp>
#include <nlohmann/json.hpp>

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

// The rows of the tables in a section of the page, and of the table all documents share.
keys documented(const std::string& section) {
  keys found;
  std::istringstream lines(page());
  std::string current;
  const std::regex row(R"(^\| `([a-z_.\[\]]+)` \| ([a-z ]+) \|.*)");
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## "))
      current = line.substr(3);
    std::smatch parts;
    if ((current.empty() || current == section) && std::regex_match(line, parts, row))
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
  const auto page_keys = documented(section);
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

} // namespace

CAF_TEST(the document health is the documented one) {
  std::unique_ptr<engine::block_device> device;
  CAF_REQUIRE(engine::open_memory_device(64 << 20, "memory", device).ok());
  new_drive wanted;
  wanted.identity.set_id.fill(std::byte{1});
  wanted.unit_bytes = 64 << 10;
  wanted.extent_bytes_max = 1 << 20;
  CAF_REQUIRE(
      format_new(*device, nullptr, wanted, [](std::string_view, std::uint64_t, std::uint64_t) {}).ok());
  drive_snapshot snapshot;
  snapshot.path = "/dev/\xFF";
  CAF_REQUIRE_EQUAL(read_snapshot(*device, {}, snapshot), "");
  check_same("health", snapshot_json(snapshot));
}
