// Who gets which answer: paths, methods, other web sites, signatures, parameters; and the document that
// describes them.
#define CAF_SUITE routes
#include "admin/routes.hpp"

#include "admin/openapi.hpp"
#include "json_schema.hpp"
#include "reports.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::test;
using namespace memkv::admin;

namespace {

constexpr std::string_view key_text = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321";
constexpr std::uint64_t now = 1'763'720'000;

http_request ask(std::string method, std::string target, std::vector<http_header> headers = {}) {
  http_request out;
  out.method = std::move(method);
  out.target = std::move(target);
  out.version = "HTTP/1.1";
  out.headers = std::move(headers);
  if (out.count("host") == 0)
    out.headers.push_back({"host", "127.0.0.1:9901"});
  out.peer = "192.0.2.7";
  return out;
}

http_request from_loopback(http_request request) {
  request.peer = "127.0.0.1";
  request.loopback = true;
  return request;
}

http_request with_body(http_request request, std::string body) {
  request.body = std::move(body);
  return request;
}

struct fixture {
  wire::shared_key key = *wire::shared_key::parse(key_text);
  std::shared_ptr<hand_made_door> door = std::make_shared<hand_made_door>();
  std::string faulted;
  routes_setup setup{
      .version = "v",
      .verifier = std::make_shared<request_verifier>(key, [] { return now; }),
      .metrics = [](const actors::gathered&) { return std::string{"memkv_up 1\n"}; },
      .faults =
          [this](const http_request& request) {
            faulted = request.method == "POST" ? request.body : "listed";
            http_answer out;
            out.status = request.method != "POST" ? 200 : request.body == "bad" ? 400 : 202;
            out.body = request.method != "POST"
                           ? R"({"drives":[],"connections":{"delay_ms":0,"left_ms":0},"actors":["server"]})"
                       : request.body == "bad" ? R"({"error":"it is no order"})"
                                               : R"({"accepted":true})";
            return out;
          },
      .files = {{"/", "text/html; charset=utf-8", "<!doctype html>", "\"1\""},
                {"/console.js", "text/javascript", "go()", "\"2\""}},
  };

  std::unique_ptr<routes> make() {
    auto made = std::make_unique<routes>(setup);
    made->open(door);
    return made;
  }
  http_request sign(http_request request, std::uint64_t at = now, std::string_view server = {}) {
    const auto made =
        sign_request(key, request.method, request.target, request.body, at, wire::random_nonce(), server);
    if (!server.empty())
      request.headers.push_back({"x-memkv-server", made.server});
    request.headers.push_back({"x-memkv-time", made.time});
    request.headers.push_back({"x-memkv-nonce", made.nonce});
    request.headers.push_back({"x-memkv-signature", made.signature});
    return request;
  }
};

std::string_view header_of(const http_answer& answer, std::string_view name) {
  for (const auto& each : answer.headers)
    if (each.name == name)
      return each.value;
  return {};
}

/// Empty when the document knows this answer to this request and what is in it.
std::string misfit_of(const http_answer& answer, const std::string& path, const std::string& method) {
  const auto& responses = openapi()["paths"].at(path).at(method)["responses"];
  const auto code = std::to_string(answer.status);
  if (!responses.contains(code))
    return "the document does not know " + code + " of " + path;
  if (answer.status == 304)
    return {};
  const auto type = answer.content_type.substr(0, answer.content_type.find(';'));
  const auto& content = responses[code]["content"];
  if (!content.contains(type))
    return "the document does not know " + type + " of " + path;
  if (type != "application/json")
    return {};
  if (path == "/v1/openapi.json" && answer.status == 200)
    return json::parse(answer.body) == openapi() ? "" : "another document";
  return misfit(json::parse(answer.body), content[type]["schema"]);
}

#define CHECK_FITS(answer, path, method) CAF_CHECK_EQUAL(misfit_of(answer, path, method), "")

} // namespace

CAF_TEST_FIXTURE_SCOPE(routes_tests, fixture)

CAF_TEST(the document and the table name the same paths and methods) {
  std::set<std::pair<std::string, std::string>> documented, real;
  for (const auto& [path, item] : openapi()["paths"].items())
    for (const auto& [method, unused] : item.items())
      documented.emplace(path, method);
  for (const auto& each : routes::table())
    real.emplace(each.path, each.method == "GET" ? "get" : "post");
  real.emplace("/", "get");
  CAF_CHECK(documented == real);
  CAF_CHECK(json::parse(openapi_document()) == openapi());
}

CAF_TEST(every path is answered as the document says) {
  const auto made = make();
  for (const auto* path : {"/v1/health", "/v1/ready", "/v1/status", "/v1/metrics", "/v1/drives/failed",
                           "/v1/openapi.json", "/"}) {
    const auto answer = made->answer(ask("GET", path));
    CAF_CHECK_EQUAL(answer.status, 200);
    CHECK_FITS(answer, path, "get");
    CAF_CHECK_EQUAL(made->answer(ask("HEAD", path)).status, 200);
    CHECK_FITS(made->answer(ask("DELETE", path)), path, "get");
    if (std::string_view{path} != "/")
      CHECK_FITS(made->answer(ask("GET", std::string{path} + "?x")), path, "get");
  }
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/ready")).body, "ok");
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/metrics")).body, "memkv_up 1\n");
}

CAF_TEST(what is not in the table is not there) {
  const auto made = make();
  for (const auto* path :
       {"/v1", "/v1/", "/v1/health/", "//v1/health", "/v1/../v1/health", "/v1/%68ealth", "/V1/health",
        "/../../etc/passwd", "/v1/drives//reset", "/v1/drives/1/2/reset", "/v1/drives/1/reset/",
        "/v1/drives/", "/console.css", "/%2e%2e/", "/v1/drives/{id}/reset/x"}) {
    const auto answer = made->answer(ask("GET", path));
    CAF_CHECK_EQUAL(answer.status, 404);
    CAF_CHECK_EQUAL(test::misfit_of(answer.body, "error"), "");
  }
}

CAF_TEST(a method that a path does not have is answered with those it has) {
  const auto made = make();
  for (const auto* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PRI"}) {
    const auto answer = made->answer(ask(method, "/v1/health"));
    CAF_CHECK_EQUAL(answer.status, 405);
    CAF_CHECK_EQUAL(header_of(answer, "Allow"), "GET, HEAD");
  }
  const auto answer = made->answer(from_loopback(ask("GET", "/v1/drives/1/reset")));
  CAF_CHECK_EQUAL(answer.status, 405);
  CAF_CHECK_EQUAL(header_of(answer, "Allow"), "POST");
  CAF_CHECK(door->resets.empty());
}

CAF_TEST(every answer tells browsers to trust it little) {
  const auto made = make();
  for (const auto* path : {"/", "/v1/health", "/nothing"}) {
    const auto answer = made->answer(ask("GET", path));
    CAF_CHECK(header_of(answer, "Content-Security-Policy").starts_with("default-src 'none'"));
    CAF_CHECK_EQUAL(header_of(answer, "X-Content-Type-Options"), "nosniff");
    CAF_CHECK_EQUAL(header_of(answer, "X-Frame-Options"), "DENY");
    CAF_CHECK_EQUAL(header_of(answer, "Cache-Control"),
                    std::string_view{path} == "/" ? "no-cache" : "no-store");
    CAF_CHECK(header_of(answer, "Access-Control-Allow-Origin").empty());
  }
}

CAF_TEST(files of the console are sent once) {
  const auto made = make();
  auto answer = made->answer(ask("GET", "/console.js?v=2"));
  CAF_CHECK_EQUAL(answer.body, "go()");
  CAF_CHECK_EQUAL(answer.content_type, "text/javascript");
  CAF_CHECK_EQUAL(header_of(answer, "ETag"), "\"2\"");
  answer = made->answer(ask("GET", "/console.js", {{"if-none-match", "\"2\""}}));
  CAF_CHECK_EQUAL(answer.status, 304);
  CAF_CHECK_EQUAL(answer.body, "");
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/console.js", {{"if-none-match", "\"1\""}})).status, 200);
}

CAF_TEST(before the server is there it is starting) {
  routes closed{setup};
  for (const auto* path : {"/v1/health", "/v1/ready", "/v1/drives/failed"}) {
    const auto answer = closed.answer(ask("GET", path));
    CAF_CHECK_EQUAL(answer.status, 503);
    CHECK_FITS(answer, path, "get");
    CAF_CHECK(answer.body.find("is starting") != std::string::npos);
  }
  CHECK_FITS(closed.answer(ask("GET", "/v1/status")), "/v1/status", "get");
  CAF_CHECK_EQUAL(closed.answer(from_loopback(ask("POST", "/v1/drives/0/reset"))).status, 503);
}

CAF_TEST(an actor that is silent is named and figures are given all the same) {
  const auto made = make();
  door->now = gathered_of(healthy_report(), {"drive-0"});
  for (const auto* path : {"/v1/health", "/v1/ready", "/v1/status"}) {
    const auto answer = made->answer(ask("GET", path));
    CAF_CHECK_EQUAL(answer.status, 503);
    CAF_CHECK_EQUAL(member(answer.body, "silent"), json({"drive-0"}));
    CHECK_FITS(answer, path, "get");
  }
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/metrics")).status, 200);
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/drives/failed")).status, 200);
  door->now = {};
  for (const auto* path : {"/v1/health", "/v1/ready", "/v1/status", "/v1/drives/failed"}) {
    const auto answer = made->answer(ask("GET", path));
    CAF_CHECK_EQUAL(answer.status, 503);
    CAF_CHECK_EQUAL(member(answer.body, "silent"), json({"admin-gateway"}));
    CHECK_FITS(answer, path, "get");
  }
}

CAF_TEST(a reset comes from loopback or is signed) {
  const auto made = make();
  const std::string path = "/v1/drives/{id}/reset";
  auto answer = made->answer(ask("POST", "/v1/drives/2/reset"));
  CAF_CHECK_EQUAL(answer.status, 401);
  CHECK_FITS(answer, path, "post");
  CAF_CHECK(door->resets.empty());

  answer = made->answer(from_loopback(ask("POST", "/v1/drives/2/reset")));
  CAF_CHECK_EQUAL(answer.status, 202);
  CHECK_FITS(answer, path, "post");
  CAF_CHECK_EQUAL(json::parse(answer.body),
                  json({{"device_id", 2}, {"state", "resetting"}, {"secure", false}}));

  const auto signed_one = sign(ask("POST", "/v1/drives/3/reset?secure=true"));
  answer = made->answer(signed_one);
  CAF_CHECK_EQUAL(answer.status, 202);
  CAF_CHECK_EQUAL(member(answer.body, "secure"), true);
  CAF_CHECK(door->resets == (std::vector<std::pair<std::uint32_t, bool>>{{2, false}, {3, true}}));

  // Again, for another drive, without its query, or too late.
  CAF_CHECK_EQUAL(made->answer(signed_one).status, 401);
  auto other = sign(ask("POST", "/v1/drives/3/reset"));
  other.target = "/v1/drives/4/reset";
  CAF_CHECK_EQUAL(made->answer(other).status, 401);
  CAF_CHECK_EQUAL(made->answer(sign(ask("POST", "/v1/drives/3/reset"), now + 61)).status, 401);
  auto twice = sign(sign(ask("POST", "/v1/drives/3/reset")));
  CAF_CHECK_EQUAL(made->answer(twice).status, 401);
  // A wrong signature does not become right by coming from loopback.
  CAF_CHECK_EQUAL(made->answer(from_loopback(other)).status, 401);
  CAF_CHECK_EQUAL(door->resets.size(), 2u);
}

CAF_TEST(a request that was signed for another server is refused here) {
  const auto made = make();
  const auto reset = ask("POST", "/v1/drives/2/reset");
  const auto refused = made->answer(sign(reset, now, "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"));
  CAF_CHECK_EQUAL(refused.status, 401);
  CAF_CHECK(member(refused.body, "error").get<std::string>().find("another server") != std::string::npos);
  CHECK_FITS(refused, "/v1/drives/{id}/reset", "post");
  // From loopback as well, and when the header says nothing, or is there twice.
  CAF_CHECK_EQUAL(made->answer(from_loopback(sign(reset, now, "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"))).status,
                  401);
  auto odd = sign(reset);
  odd.headers.push_back({"x-memkv-server", ""});
  CAF_CHECK_EQUAL(made->answer(odd).status, 401);
  auto bare = reset;
  bare.headers.push_back({"x-memkv-server", "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"});
  CAF_CHECK_EQUAL(made->answer(from_loopback(bare)).status, 401);
  auto twice = sign(reset, now, "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5");
  twice.headers.push_back({"x-memkv-server", "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5"});
  CAF_CHECK_EQUAL(made->answer(twice).status, 401);
  CAF_CHECK(door->resets.empty());
  // Nobody can say which server this is while its gateway is silent.
  const auto before = std::exchange(door->now, {});
  CAF_CHECK_EQUAL(made->answer(sign(reset, now, "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5")).status, 503);
  CAF_CHECK(door->resets.empty());
  door->now = before;
  CAF_CHECK_EQUAL(made->answer(sign(reset, now, "A5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5")).status, 202);
  CAF_CHECK_EQUAL(door->resets.size(), 1u);
}

CAF_TEST(without a key only loopback may change anything and an open server lets everybody) {
  setup.verifier = nullptr;
  CAF_CHECK_EQUAL(make()->answer(sign(ask("POST", "/v1/drives/2/reset"))).status, 401);
  CAF_CHECK_EQUAL(make()->answer(from_loopback(ask("POST", "/v1/drives/2/reset"))).status, 202);
  setup.open = true;
  CAF_CHECK_EQUAL(make()->answer(ask("POST", "/v1/drives/2/reset")).status, 202);
  const auto cross = ask("POST", "/v1/drives/2/reset", {{"origin", "https://evil.example"}});
  CAF_CHECK_EQUAL(make()->answer(cross).status, 403);
}

CAF_TEST(a proxy on this machine does not make strangers local) {
  const auto made = make();
  for (const auto* name :
       {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"})
    CAF_CHECK_EQUAL(made->answer(from_loopback(ask("POST", "/v1/drives/2/reset", {{name, "x"}}))).status,
                    401);
  CAF_CHECK(door->resets.empty());
}

CAF_TEST(a name that a stranger owns does not become loopback by pointing there) {
  const auto made = make();
  for (const auto* host : {"evil.example", "evil.example:9901", "localhost.evil.example:9901",
                           "127.0.0.1.evil.example", "", ":9901", "[::1", "2130706433", "0x7f.1"}) {
    const auto request = from_loopback(
        ask("POST", "/v1/drives/2/reset", {{"host", host}, {"origin", std::string{"http://"} + host}}));
    CAF_CHECK_EQUAL(made->answer(request).status, 403);
  }
  CAF_CHECK(door->resets.empty());
  for (const auto* host : {"localhost:9901", "LOCALHOST", "127.0.0.1", "[::1]:9901", "10.1.2.3:9901"})
    CAF_CHECK_EQUAL(made->answer(from_loopback(ask("POST", "/v1/drives/2/reset", {{"host", host}}))).status,
                    202);
}

CAF_TEST(an open server changes nothing for a page of a stranger whose name was made to mean it) {
  setup.open = true;
  const auto made = make();
  using headers = std::vector<http_header>;
  for (const auto& each : {headers{{"host", "evil.example:9901"}, {"origin", "http://evil.example:9901"}},
                           headers{{"host", "evil.example:9901"}, {"sec-fetch-site", "same-origin"}},
                           headers{{"host", ""}, {"origin", "http://"}}}) {
    CAF_CHECK_EQUAL(made->answer(ask("POST", "/v1/drives/2/reset", each)).status, 403);
    CAF_CHECK_EQUAL(made->answer(from_loopback(ask("POST", "/v1/drives/2/reset", each))).status, 403);
  }
  CAF_CHECK(door->resets.empty());
  for (const auto& each : {headers{{"host", "10.1.2.3:9901"}, {"origin", "http://10.1.2.3:9901"}},
                           headers{{"host", "server.example:9901"}}})
    CAF_CHECK_EQUAL(made->answer(ask("POST", "/v1/drives/2/reset", each)).status, 202);
}

CAF_TEST(another web site causes nothing and reads nothing) {
  const auto made = make();
  using headers = std::vector<http_header>;
  const std::vector<headers> foreign{
      {{"origin", "https://evil.example"}},
      {{"origin", "null"}},
      {{"origin", ""}},
      {{"origin", "http://127.0.0.1:9900"}},
      {{"sec-fetch-site", "cross-site"}},
      {{"sec-fetch-site", "same-site"}},
      {{"sec-fetch-site", "something-new"}},
      {{"sec-fetch-site", "cross-site"}, {"sec-fetch-mode", "navigate"}, {"sec-fetch-dest", "iframe"}},
  };
  for (const auto& each : foreign) {
    CAF_CHECK_EQUAL(made->answer(from_loopback(ask("POST", "/v1/drives/2/reset", each))).status, 403);
    CAF_CHECK_EQUAL(made->answer(sign(ask("POST", "/v1/drives/2/reset", each))).status, 403);
    CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/status", each)).status, 403);
    CAF_CHECK_EQUAL(made->answer(ask("GET", "/", each)).status, 403);
  }
  const headers link{
      {"sec-fetch-site", "cross-site"}, {"sec-fetch-mode", "navigate"}, {"sec-fetch-dest", "document"}};
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/", link)).status, 200);
  CAF_CHECK_EQUAL(made->answer(from_loopback(ask("POST", "/v1/drives/2/reset", link))).status, 403);
  const headers own{{"sec-fetch-site", "same-origin"}, {"origin", "http://127.0.0.1:9901"}};
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/status", own)).status, 200);
  CAF_CHECK(door->resets.empty());
}

CAF_TEST(a reset that makes no sense is told so before it is told to be signed) {
  const auto made = make();
  for (const auto* request :
       {"/v1/drives/x/reset", "/v1/drives/-1/reset", "/v1/drives/4294967296/reset", "/v1/drives/1 /reset",
        "/v1/drives/0x1/reset", "/v1/drives/1/reset?", "/v1/drives/1/reset?secure",
        "/v1/drives/1/reset?secure=1", "/v1/drives/1/reset?secure=true&secure=true",
        "/v1/drives/1/reset?force=true", "/v1/drives/1/reset?secure=TRUE",
        "/v1/drives/1/reset?secure=true?secure=false"}) {
    const auto answer = made->answer(ask("POST", request));
    CAF_CHECK_EQUAL(answer.status, 400);
    CHECK_FITS(answer, "/v1/drives/{id}/reset", "post");
  }
  CAF_CHECK_EQUAL(made->answer(with_body(from_loopback(ask("POST", "/v1/drives/1/reset")), "{}")).status,
                  400);
  CAF_CHECK(door->resets.empty());
}

CAF_TEST(what comes of a reset is a status of HTTP) {
  const auto made = make();
  using kind = actors::admin_outcome::kind;
  const std::vector<std::pair<kind, int>> outcomes{
      {kind::unknown, 404}, {kind::conflict, 409}, {kind::failed, 500}, {kind::silent, 503}};
  for (const auto& [what, status] : outcomes) {
    door->outcome = {what, "memkv drive reset helps"};
    const auto answer = made->answer(from_loopback(ask("POST", "/v1/drives/1/reset")));
    CAF_CHECK_EQUAL(answer.status, status);
    CAF_CHECK_EQUAL(member(answer.body, "error"), "memkv drive reset helps");
    CHECK_FITS(answer, "/v1/drives/{id}/reset", "post");
  }
}

CAF_TEST(faults come from loopback and only where they are allowed) {
  const auto body = [](http_request request) {
    return with_body(std::move(request), "{\"kill\":\"drive\"}");
  };
  auto made = make();
  CAF_CHECK_EQUAL(made->answer(body(sign(ask("POST", "/v1/faults")))).status, 403);
  CAF_CHECK_EQUAL(
      made->answer(body(from_loopback(ask("POST", "/v1/faults", {{"host", "evil.example"}})))).status, 403);
  CAF_CHECK_EQUAL(faulted, "");
  auto answer = made->answer(body(from_loopback(ask("POST", "/v1/faults"))));
  CAF_CHECK_EQUAL(answer.status, 202);
  CHECK_FITS(answer, "/v1/faults", "post");
  CAF_CHECK_EQUAL(faulted, "{\"kill\":\"drive\"}");
  answer = made->answer(with_body(from_loopback(ask("POST", "/v1/faults")), "bad"));
  CAF_CHECK_EQUAL(answer.status, 400);
  CHECK_FITS(answer, "/v1/faults", "post");
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/faults")).status, 403);
  answer = made->answer(from_loopback(ask("GET", "/v1/faults")));
  CAF_CHECK_EQUAL(answer.status, 200);
  CAF_CHECK_EQUAL(faulted, "listed");
  CHECK_FITS(answer, "/v1/faults", "get");
  answer = made->answer(from_loopback(ask("DELETE", "/v1/faults")));
  CAF_CHECK_EQUAL(answer.status, 405);
  CAF_CHECK_EQUAL(header_of(answer, "Allow"), "GET, HEAD, POST");
  setup.faults = nullptr;
  made = make();
  CAF_CHECK_EQUAL(made->answer(body(from_loopback(ask("POST", "/v1/faults")))).status, 404);
  CAF_CHECK_EQUAL(made->answer(ask("GET", "/v1/faults")).status, 404);
}

CAF_TEST_FIXTURE_SCOPE_END()
