// How findings are shown.
#define CAF_SUITE doctor_report
#include "cli/doctor_report.hpp"

#include <caf/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include <fstream>
#include <sstream>

using namespace memkv::cli;

namespace {

const std::vector<finding> some{
    {check_state::ok, "kernel", "", "Linux 6.8", ""},
    {check_state::failed, "drive", "/dev/x", "is read-only", "blockdev --setrw /dev/x"},
    {check_state::warning, "drive.discard", "/dev/y", "not supported", "use another"},
    {check_state::skipped, "license", "", "not checked", ""},
};

} // namespace

CAF_TEST(the table has one line a check and one with the counts) {
  CAF_CHECK_EQUAL(findings_text(some, false),
                  "ok       kernel                 Linux 6.8\n"
                  "failed   drive          /dev/x  is read-only: blockdev --setrw /dev/x\n"
                  "warning  drive.discard  /dev/y  not supported: use another\n"
                  "skipped  license                not checked\n"
                  "1 ok, 1 warning, 1 failed, 1 skipped\n");
}

CAF_TEST(the sentence of a failure names the checks that failed) {
  CAF_CHECK_EQUAL(failed_checks(some), "1 check failed: drive");
  auto more = some;
  more.push_back({check_state::failed, "port", "", "is taken", ""});
  more.push_back({check_state::failed, "drive", "/dev/z", "is gone", ""});
  CAF_CHECK_EQUAL(failed_checks(more), "3 checks failed: drive, port");
}

CAF_TEST(colour changes nothing but colour) {
  const auto coloured = findings_text(some, true);
  std::string plain;
  for (std::size_t i = 0; i < coloured.size(); ++i)
    if (coloured[i] == '\033')
      i = coloured.find('m', i);
    else
      plain += coloured[i];
  CAF_CHECK(coloured.find("\033[1;31mfailed ") != std::string::npos);
  CAF_CHECK_EQUAL(plain, findings_text(some, false));
}

CAF_TEST(only failures change the exit code) {
  CAF_CHECK_EQUAL(exit_code(some), 1);
  const std::vector<finding> fine{some[0], some[2], some[3]};
  CAF_CHECK_EQUAL(exit_code(fine), 0);
  CAF_CHECK_EQUAL(exit_code({}), 0);
}

CAF_TEST(a path cannot move the cursor of a terminal) {
  const std::vector<finding> nasty{{check_state::ok, "drive", "/dev/\033[2J", "a\nb", ""}};
  const auto text = findings_text(nasty, false);
  CAF_CHECK_EQUAL(text.find('\033'), std::string::npos);
  CAF_CHECK(text.find("a?b\n") != std::string::npos);
}

CAF_TEST(the document has every key that its page names and no other) {
  const auto document = nlohmann::ordered_json::parse(findings_json(some, "/etc/c.yaml", "1.2"));
  CAF_CHECK_EQUAL(document["healthy"], false);
  CAF_CHECK_EQUAL(document["warnings"], 1);
  CAF_CHECK_EQUAL(document["checks"][1]["remedy"], "blockdev --setrw /dev/x");
  std::ifstream stream(DOCS_DIRECTORY "/doctor.md");
  std::ostringstream page;
  page << stream.rdbuf();
  std::size_t documented = 0;
  std::istringstream lines(page.str());
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("## "))
      inside = line == "## JSON";
    documented += inside && line.starts_with("| `") ? 1 : 0;
  }
  std::size_t made = 0;
  for (const auto& [key, value] : document.items()) {
    CAF_CHECK_NOT_EQUAL(page.str().find("| `" + key + "` |"), std::string::npos);
    ++made;
  }
  for (const auto& [key, value] : document["checks"][0].items()) {
    CAF_CHECK_NOT_EQUAL(page.str().find("| `checks[]." + key + "` |"), std::string::npos);
    ++made;
  }
  CAF_CHECK_EQUAL(documented, made);
}

CAF_TEST(bytes that are no text do not break the document) {
  const std::vector<finding> odd{{check_state::ok, "drive", "/dev/\xFF", "x", ""}};
  CAF_CHECK(nlohmann::json::parse(findings_json(odd, "c", "v"), nullptr, false).is_object());
}

CAF_TEST(a sentence is divided at its last colon) {
  const auto made = from_sentence(check_state::failed, "memory", "", "a: b is short: raise it.");
  CAF_CHECK_EQUAL(made.found, "a: b is short");
  CAF_CHECK_EQUAL(made.remedy, "raise it");
  CAF_CHECK_EQUAL(made.sentence(), "memory: a: b is short: raise it");
  CAF_CHECK_EQUAL(from_sentence(check_state::ok, "x", "", "nothing to do").remedy, "");
}
