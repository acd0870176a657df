// What the program carries of the console is what lies in the tree, and asks for nothing from elsewhere.
#define CAF_SUITE console_assets
#include "admin/console_assets.hpp"

#include <caf/test/dsl.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

using memkv::admin::console_asset;
using memkv::admin::console_assets;

namespace {

std::string file_of(const console_asset& asset) {
  const auto name = asset.path == "/" ? std::string{"index.html"} : std::string{asset.path.substr(1)};
  std::ifstream in{std::filesystem::path{MEMKV_CONSOLE_DIRECTORY} / name, std::ios::binary};
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Lines without the blanks before them; those of JavaScript that are a comment are empty.
std::string brief(const std::string& text, bool script) {
  std::istringstream in{text};
  std::string out, line;
  while (std::getline(in, line)) {
    line.erase(0, std::min(line.find_first_not_of(' '), line.size()));
    const bool comment = line.rfind("//", 0) == 0 || (line.rfind("/**", 0) == 0 && ends_with(line, "*/"));
    if (script && comment)
      line.clear();
    out += line + "\n";
  }
  return out;
}

const console_asset* find(std::string_view path) {
  const auto all = console_assets();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.path == path; });
  return found == all.end() ? nullptr : &*found;
}

} // namespace

CAF_TEST(every file of the console is embedded as it lies in the tree) {
  std::size_t files = 0;
  for (const auto& each : std::filesystem::directory_iterator{MEMKV_CONSOLE_DIRECTORY})
    files += each.path().filename() != "CMakeLists.txt" ? 1 : 0;
  CAF_CHECK_EQUAL(console_assets().size(), files);
  for (const auto& asset : console_assets()) {
    const auto expected = brief(file_of(asset), ends_with(asset.path, ".js"));
    CAF_CHECK(!expected.empty());
    if (expected != asset.bytes)
      CAF_ERROR(std::string{asset.path} << " differs from its file");
  }
}

CAF_TEST(the page is the first and all together are small) {
  CAF_REQUIRE(!console_assets().empty());
  CAF_CHECK_EQUAL(console_assets().front().path, "/");
  std::size_t bytes = 0;
  for (const auto& asset : console_assets())
    bytes += asset.bytes.size();
  CAF_MESSAGE("bytes of the console: " << bytes);
  CAF_CHECK_LESS(bytes, std::size_t{70} * 1024);
}

CAF_TEST(paths are unique and etags are quoted and differ) {
  std::set<std::string_view> paths, etags;
  const std::regex quoted{"\"[0-9a-f]{16}\""};
  for (const auto& asset : console_assets()) {
    CAF_CHECK(paths.insert(asset.path).second);
    CAF_CHECK(etags.insert(asset.etag).second);
    CAF_CHECK(std::regex_match(std::string{asset.etag}, quoted));
    CAF_CHECK_EQUAL(asset.path.front(), '/');
  }
}

CAF_TEST(content types fit the names) {
  for (const auto& asset : console_assets()) {
    const auto expected = ends_with(asset.path, ".js")    ? "text/javascript; charset=utf-8"
                          : ends_with(asset.path, ".css") ? "text/css; charset=utf-8"
                          : ends_with(asset.path, ".svg") ? "image/svg+xml"
                                                          : "text/html; charset=utf-8";
    CAF_CHECK_EQUAL(asset.content_type, expected);
  }
}

CAF_TEST(every file that another one names is there) {
  const std::regex named{"(?:src|href)=\"([a-z_]+\\.[a-z]+)\"|from \"\\./([a-z_]+\\.js)\""};
  std::size_t names = 0;
  for (const auto& asset : console_assets()) {
    const std::string text{asset.bytes};
    for (std::sregex_iterator it{text.begin(), text.end(), named}, end; it != end; ++it, ++names) {
      const auto path = "/" + ((*it)[1].matched ? (*it)[1].str() : (*it)[2].str());
      if (find(path) == nullptr)
        CAF_ERROR(std::string{asset.path} << " names " << path << ", which is not embedded");
    }
  }
  CAF_CHECK_GREATER(names, std::size_t{10});
}

CAF_TEST(nothing comes from elsewhere and no data become markup) {
  // The name of the SVG namespace is an address that nobody asks.
  const std::regex outside{"(https?:)?//[a-z0-9.-]+\\.[a-z]+"};
  const std::regex markup{
      "innerHTML|outerHTML|insertAdjacentHTML|document\\.write|DOMParser|\\beval\\b|new Function"};
  const std::regex in_line{"<script(?![^>]* src=)|<style|[< ]style=|[ ]on[a-z]+="};
  for (const auto& asset : console_assets()) {
    std::string text{asset.bytes};
    const std::string namespace_name = "http://www.w3.org/2000/svg";
    for (auto at = text.find(namespace_name); at != std::string::npos; at = text.find(namespace_name))
      text.erase(at, namespace_name.size());
    CAF_CHECK(!std::regex_search(text, outside));
    CAF_CHECK(!std::regex_search(text, markup));
    if (asset.path == "/")
      CAF_CHECK(!std::regex_search(text, in_line));
  }
}
