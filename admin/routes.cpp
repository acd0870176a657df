#include "admin/routes.hpp"

#include "actors/log.hpp"
#include "admin/openapi.hpp"
#include "admin/status_json.hpp"
#include "wire/hex.hpp"

#include <arpa/inet.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace memkv::admin {

namespace {

constexpr std::string_view target = "memkv::admin";
constexpr std::string_view text_type = "text/plain; charset=utf-8";
constexpr std::string_view metrics_type = "text/plain; version=0.0.4; charset=utf-8";

constexpr auto every_route = std::to_array<route>({
    {"/v1/health", "GET"},
    {"/v1/ready", "GET"},
    {"/v1/status", "GET"},
    {"/v1/metrics", "GET"},
    {"/v1/drives/failed", "GET"},
    {"/v1/drives/{id}/reset", "POST"},
    {"/v1/faults", "GET"},
    {"/v1/faults", "POST"},
    {"/v1/openapi.json", "GET"},
});

http_answer problem(int status, std::string_view sentence) {
  http_answer out;
  out.status = status;
  out.body = problem_document(sentence);
  return out;
}

http_answer document(int status, std::string body) {
  http_answer out;
  out.status = status;
  out.body = std::move(body);
  return out;
}

http_answer text(std::string body, std::string_view type) {
  http_answer out;
  out.content_type = type;
  out.body = std::move(body);
  return out;
}

/// Whether it is the path of a route; `id` is what stands for "{id}" then.
bool matches(std::string_view pattern, std::string_view path, std::string_view& id) {
  constexpr std::string_view variable = "{id}";
  const auto at = pattern.find(variable);
  if (at == std::string_view::npos)
    return pattern == path;
  const auto behind = pattern.substr(at + variable.size());
  if (path.size() <= at + behind.size() || !path.starts_with(pattern.substr(0, at)) ||
      !path.ends_with(behind))
    return false;
  id = path.substr(at, path.size() - at - behind.size());
  return id.find('/') == std::string_view::npos;
}

bool equal_without_case(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

/// "host" of "host", "host:port", "[address]" and "[address]:port".
std::string_view host_of(std::string_view authority) noexcept {
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    return end == std::string_view::npos ? std::string_view{} : authority.substr(1, end - 1);
  }
  return authority.substr(0, authority.find(':'));
}

/// A name can be made to mean this machine by whoever owns the name; an address and "localhost" cannot.
bool is_no_strangers_name(std::string_view authority) {
  const std::string host{host_of(authority)};
  in_addr v4{};
  in6_addr v6{};
  return equal_without_case(host, "localhost") || ::inet_pton(AF_INET, host.c_str(), &v4) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), &v6) == 1;
}

/// Whether a browser says that another web site caused it. Following a link to the console is allowed.
bool is_cross_site(const http_request& request) {
  const auto site = request.header("sec-fetch-site");
  const bool follows_link = (request.method == "GET" || request.method == "HEAD") &&
                            request.header("sec-fetch-mode") == "navigate" &&
                            request.header("sec-fetch-dest") == "document";
  if (!site.empty() && site != "same-origin" && site != "none" && !follows_link)
    return true;
  const auto origin = request.header("origin");
  if (origin.empty())
    return request.count("origin") != 0;
  const auto scheme_end = origin.find("://");
  return scheme_end == std::string_view::npos ||
         !equal_without_case(origin.substr(scheme_end + 3), request.header("host"));
}

/// A proxy on this machine makes strangers look like loopback, and says so.
bool is_local(const http_request& request) {
  for (const auto* said :
       {"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})
    if (request.count(said) != 0)
      return false;
  return request.loopback;
}

void protect(http_answer& answer) {
  const auto add = [&](std::string_view name, std::string_view value) {
    answer.headers.push_back({std::string{name}, std::string{value}});
  };
  const auto has = [&](std::string_view name) {
    return std::any_of(answer.headers.begin(), answer.headers.end(),
                       [&](const http_header& each) { return each.name == name; });
  };
  if (!has("Cache-Control"))
    add("Cache-Control", "no-store");
  add("Content-Security-Policy",
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
      "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
  add("Cross-Origin-Resource-Policy", "same-origin");
  add("Referrer-Policy", "no-referrer");
  add("X-Content-Type-Options", "nosniff");
  add("X-Frame-Options", "DENY");
}

constexpr std::string_view starting = "the server is starting and opens its drives";

} // namespace

routes::routes(routes_setup setup) : setup_(std::move(setup)) {}

std::span<const route> routes::table() noexcept {
  return every_route;
}

void routes::open(std::shared_ptr<actors::admin_door> door) {
  std::lock_guard guard{lock_};
  door_ = std::move(door);
}

std::shared_ptr<actors::admin_door> routes::door() const {
  std::lock_guard guard{lock_};
  return door_;
}

actors::gathered routes::gather() const {
  if (const auto present = door())
    return present->report(setup_.limit);
  auto report = std::make_shared<actors::server_report>();
  report->phase = "opening";
  return {std::move(report), {}};
}

http_answer routes::answer(const http_request& request) const {
  auto out = decide(request);
  protect(out);
  return out;
}

http_answer routes::decide(const http_request& request) const {
  const auto path = request.path();
  const bool reads = request.method == "GET" || request.method == "HEAD";
  const auto file = std::find_if(setup_.files.begin(), setup_.files.end(),
                                 [&](const page_file& each) { return each.path == path; });
  const route* found = nullptr;
  std::string_view id;
  std::string allowed;
  bool right = false;
  const auto offer = [&](std::string_view method) {
    allowed += (allowed.empty() ? "" : ", ") + std::string{method == "GET" ? "GET, HEAD" : method};
    right = method == "GET" ? reads : request.method == method;
  };
  const bool is_file = file != setup_.files.end();
  if (is_file)
    offer("GET");
  for (const auto& each : every_route)
    if (!right && matches(each.path, path, id) && (each.path != "/v1/faults" || setup_.faults)) {
      found = &each;
      offer(each.method);
    }
  if (allowed.empty())
    return problem(404, "there is no such path: docs/admin-api.md and /v1/openapi.json name those there are");
  if (!right) {
    auto out = problem(405, "this path is asked with " + (allowed == "GET, HEAD" ? "GET or HEAD" : allowed));
    out.headers.push_back({"Allow", std::move(allowed)});
    return out;
  }
  if (is_cross_site(request))
    return problem(403, "another web site caused this request: open the console of this server itself");
  if (is_file)
    return answer_file(*file, request);

  if (found->path == "/v1/drives/{id}/reset")
    return reset(request, id);
  if (request.target.find('?') != std::string::npos)
    return problem(400, "this path takes no parameters");
  if (found->path == "/v1/faults")
    return inject(request);
  if (!request.body.empty())
    return problem(400, "this path takes no body");

  if (found->path == "/v1/openapi.json")
    return document(200, std::string{openapi_document()});
  if (found->path == "/v1/ready")
    return ready();
  const auto about = gather();
  if (found->path == "/v1/health")
    return document(health_code(about), health_document(about));
  if (found->path == "/v1/status")
    return document(status_code(about), status_document(about, setup_.version));
  if (found->path == "/v1/metrics") {
    auto figures = setup_.metrics ? setup_.metrics(about) : std::string{};
    return figures.empty() ? problem(503, "no figures are there") : text(std::move(figures), metrics_type);
  }
  // What SERVER knows of the drives is enough here; a drive that is silent is no hindrance.
  if (about.report == nullptr)
    return document(503, silence_document(about));
  if (about.report->phase == "opening")
    return problem(503, starting);
  return document(200, failed_drives_document(*about.report));
}

http_answer routes::answer_file(const page_file& found, const http_request& request) const {
  auto out = text({}, found.content_type);
  out.headers.push_back({"ETag", std::string{found.etag}});
  out.headers.push_back({"Cache-Control", "no-cache"});
  if (!found.etag.empty() && request.header("if-none-match") == found.etag)
    out.status = 304;
  else
    out.body = found.bytes;
  return out;
}

http_answer routes::ready() const {
  const auto about = gather();
  if (about.report == nullptr || !about.silent.empty())
    return document(503, silence_document(about));
  if (health_code(about) != 200) {
    const auto reasons = reasons_of(about);
    return problem(503, reasons.empty() ? "the server does not serve" : reasons.front());
  }
  return text("ok", text_type);
}

bool routes::may_change(const http_request& request, http_answer& refusal) const {
  // A name can be made to mean this server by whoever owns it; then a browser takes its page for ours.
  const bool by_a_page = request.count("origin") + request.count("sec-fetch-site") > 0;
  if (setup_.open && (!by_a_page || is_no_strangers_name(request.header("host"))))
    return true;
  const request_signature given{
      std::string{request.header("x-memkv-time")}, std::string{request.header("x-memkv-nonce")},
      std::string{request.header("x-memkv-signature")}, std::string{request.header("x-memkv-server")}};
  std::size_t headers = 0, headers_of_one_name = 0;
  for (const auto* name : {"x-memkv-time", "x-memkv-nonce", "x-memkv-signature", "x-memkv-server"}) {
    headers += request.count(name);
    headers_of_one_name = std::max(headers_of_one_name, request.count(name));
  }
  const bool is_signed = headers > 0;
  if (setup_.open && !is_signed) {
    refusal = problem(403, "a web page may change something only where its server is named by an address or "
                           "as localhost");
    return false;
  }
  if (is_local(request) && !is_signed) {
    if (is_no_strangers_name(request.header("host")))
      return true;
    refusal = problem(403, "a request from loopback that is not signed names localhost or an address in its "
                           "Host header, not another name");
    return false;
  }
  auto verdict = setup_.verifier == nullptr ? signature_verdict::missing
                 : headers_of_one_name > 1
                     ? signature_verdict::malformed
                     : setup_.verifier->check(request.method, request.target, request.body, given);
  if (verdict == signature_verdict::good && request.count("x-memkv-server") > 0) {
    const auto about = gather();
    if (about.report == nullptr) {
      refusal = document(503, silence_document(about));
      return false;
    }
    std::array<std::byte, 16> meant{};
    if (!wire::read_hex(given.server, meant) || meant != about.report->set_id)
      verdict = signature_verdict::elsewhere;
  }
  if (verdict == signature_verdict::good)
    return true;
  log::debug(target, "a request was refused", {{"peer", request.peer}, {"reason", sentence_of(verdict)}});
  refusal = problem(verdict == signature_verdict::crowded ? 503 : 401, sentence_of(verdict));
  return false;
}

http_answer routes::reset(const http_request& request, std::string_view id) const {
  std::uint32_t index = 0;
  const auto read = std::from_chars(id.data(), id.data() + id.size(), index);
  if (read.ec != std::errc{} || read.ptr != id.data() + id.size())
    return problem(400, "the id of a drive is a whole number: see device_id in /v1/status");
  const auto query = request.query();
  const bool has_query = request.target.find('?') != std::string::npos;
  if (has_query && query != "secure=true" && query != "secure=false")
    return problem(400, "the only parameter of this path is secure=true or secure=false");
  if (!request.body.empty())
    return problem(400, "this path takes no body");
  http_answer refusal;
  if (!may_change(request, refusal))
    return refusal;

  const bool secure = query == "secure=true";
  const auto present = door();
  if (present == nullptr)
    return problem(503, starting);
  const auto outcome = present->reset_drive(index, secure, setup_.limit);
  using kind = actors::admin_outcome::kind;
  log::info(target, outcome.what == kind::done ? "resetting a drive was begun" : "a drive is not reset",
            {{"device_id", index}, {"secure", secure}, {"peer", request.peer}, {"reason", outcome.text}});
  switch (outcome.what) {
  case kind::done:
    return document(202, reset_document(index, secure));
  case kind::unknown:
    return problem(404, outcome.text.empty() ? "there is no such drive" : outcome.text);
  case kind::conflict:
    return problem(409, outcome.text);
  case kind::failed:
    return problem(500, outcome.text);
  case kind::silent:
    break;
  }
  return problem(503, outcome.text.empty() ? "the server has not answered in time: look at /v1/status "
                                             "before you try again"
                                           : outcome.text);
}

http_answer routes::inject(const http_request& request) const {
  if (!is_local(request) || !is_no_strangers_name(request.header("host")))
    return problem(403, "faults are injected from loopback only");
  return setup_.faults(request);
}

} // namespace memkv::admin
