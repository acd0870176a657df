// The documentation as a web site: every page is there, and every link between them leads to one.
#define CAF_SUITE doc_site
#include "cli/doc_site.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <string>

using namespace memkv;
using namespace memkv::cli;

namespace {

admin::http_answer ask(std::string target, std::string method = "GET") {
  admin::http_request request;
  request.method = std::move(method);
  request.target = std::move(target);
  return answer_doc_request(request);
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

} // namespace

CAF_TEST(the index leads to every page and every link of a page to an answer) {
  const auto index = ask("/");
  CAF_CHECK_EQUAL(index.status, 200);
  CAF_CHECK(doc_files().size() > 20);
  std::size_t links = 0;
  for (const auto& each : doc_files()) {
    const auto answer = ask(std::string(each.path));
    CAF_CHECK_EQUAL(answer.status, 200);
    if (!each.path.ends_with(".md")) {
      CAF_CHECK(answer.body == each.bytes);
      continue;
    }
    CAF_CHECK(has(index.body, "<a href=\"" + std::string(each.path) + "\">"));
    CAF_CHECK_EQUAL(answer.content_type, "text/html; charset=utf-8");
    for (const std::string_view attribute : {"href=\"/", "src=\"/"})
      for (auto at = answer.body.find(attribute); at != std::string::npos;
           at = answer.body.find(attribute, at + 1)) {
        const auto begin = at + attribute.size() - 1;
        const auto target = answer.body.substr(begin, answer.body.find('"', begin) - begin);
        if (ask(target).status != 200)
          CAF_FAIL(each.path << " leads to " << target);
        ++links;
      }
  }
  CAF_CHECK(links > 100);
}

CAF_TEST(the first page leads to every other page of the top level) {
  const auto first = ask("/README.md").body;
  for (const std::string path :
       {"/ARCHITECTURE.md", "/CONTRIBUTING.md", "/SECURITY.md", "/CHANGELOG.md", "/LICENSE"})
    CAF_CHECK(has(first, "<a href=\"" + path + "\">"));
}

CAF_TEST(a page is shown as it is written and its links work) {
  const auto page =
      doc_page_html("/docs/admin.md", "# A <b> & [x] [health](admin-api.md#health) ![desk]("
                                      "images/console-desk.png) [up](../README.md) [out](../../x) "
                                      "[web](https://example.com/a?b&c) [js](javascript:1)\n");
  CAF_CHECK(has(page, "# A &lt;b&gt; &amp; [x] <a href=\"/docs/admin-api.md\">health</a>"));
  CAF_CHECK(has(page, " <img src=\"/docs/images/console-desk.png\" alt=\"desk\">"));
  CAF_CHECK(has(page, "<a href=\"/README.md\">up</a> [out](../../x)"));
  CAF_CHECK(has(page, "<a href=\"https://example.com/a?b&amp;c\">web</a> [js](javascript:1)"));
}

CAF_TEST(what is no page is refused) {
  for (const auto* target : {"/nothing.md", "/docs/../README.md", "/docs", "//", "/etc/passwd"})
    CAF_CHECK_EQUAL(ask(target).status, 404);
  CAF_CHECK_EQUAL(ask("/", "POST").status, 405);
  CAF_CHECK(ask("/docs/cli.md").headers.size() >= 3);
}
