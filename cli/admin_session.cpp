#include "cli/admin_session.hpp"

#include "admin/request_signature.hpp"
#include "cli/admin_command.hpp"
#include "cli/admin_documents.hpp"
#include "client/options.hpp"
#include "wire/hex.hpp"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

namespace memkv::cli {

namespace {

bool wants_colour() {
  const char* refused = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return (refused == nullptr || *refused == '\0') &&
         (terminal == nullptr || std::string_view(terminal) != "dumb");
}

bool is_id(std::string_view text) {
  std::array<std::byte, 16> id{};
  return wire::read_hex(text, id);
}

} // namespace

admin_session::admin_session(const parsed& line, std::string& problem)
    : on_terminal_(::isatty(STDOUT_FILENO) == 1) {
  colours_.on = on_terminal_ && wants_colour();
  const auto timeout_ms = line.number("timeout-ms").value_or(admin_timeout_ms_default);
  if (timeout_ms == 0 || timeout_ms > admin_timeout_ms_max) {
    problem = "--timeout-ms must be from 1 to " + std::to_string(admin_timeout_ms_max);
    return;
  }
  options_.timeout = std::chrono::milliseconds(timeout_ms);
  options_.tls.ca_file = line.text("ca-file");
  options_.tls.verify = !line.has("insecure");
  auto [servers, refused] = admin_servers(line, std::getenv("MEMKV_SERVERS"));
  servers_ = std::move(servers);
  problem = std::move(refused);
}

std::vector<admin::server_answer> admin_session::get(std::string_view target,
                                                     std::size_t body_bytes_max) const {
  std::vector<admin::http_question> questions;
  for (const auto& server : servers_)
    questions.push_back({server, "GET", std::string(target)});
  auto options = options_;
  options.body_bytes_max = body_bytes_max;
  return admin::ask_all(questions, options);
}

admin::server_answer admin_session::post(std::string_view target, std::string& problem) const {
  admin::http_question question{servers_.front(), "POST", std::string(target)};
  client::options chosen;
  if (const auto loaded = client::load_options([](const char* name) { return std::getenv(name); }, chosen);
      !loaded.ok()) {
    problem = loaded.text;
    return {};
  }
  if (chosen.auth_key) {
    // For this server alone: who listens must not be able to send the same to another one.
    auto about = get("/v1/status", document_bytes_max).front();
    status_document document;
    about.may_have_arrived = false; // nothing was asked for yet
    if (about.status != 200 && about.status != 503)
      return about;
    const auto unread = read_status(about.body, document);
    if (!is_id(document.server_id)) {
      const auto fault = fault_of(about);
      problem = servers_.front().text() + ": " +
                (!fault.empty()    ? fault
                 : !unread.empty() ? unread
                                   : "the status does not say which server it is");
      return {};
    }
    const auto now = static_cast<std::uint64_t>(std::time(nullptr));
    const auto made = admin::sign_request(*chosen.auth_key, question.method, target, "", now,
                                          wire::random_nonce(), document.server_id);
    question.headers = {{std::string(admin::time_header), made.time},
                        {std::string(admin::nonce_header), made.nonce},
                        {std::string(admin::signature_header), made.signature},
                        {std::string(admin::server_header), made.server}};
  }
  return admin::ask_all(std::span(&question, 1), options_).front();
}

std::string admin_session::fault_of(const admin::server_answer& answer) {
  if (answer.status == 0)
    return answer.problem;
  if (answer.status >= 200 && answer.status < 300)
    return {};
  const auto said = read_refusal(answer.body);
  return "HTTP " + std::to_string(answer.status) + (said.empty() ? "" : ": " + said);
}

void admin_session::fail(const admin::server_url& server, const std::string& sentence) {
  failed_ = true;
  sentences_.push_back(server.text() + ": " + sentence);
}

void admin_session::print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void admin_session::report() {
  std::fflush(stdout);
  for (const auto& each : sentences_)
    std::fprintf(stderr, "memkv: %s\n", each.c_str());
  sentences_.clear();
}

int admin_session::code() {
  report();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fprintf(stderr, "memkv: standard output cannot be written\n");
    return 1;
  }
  return failed_ ? 1 : 0;
}

} // namespace memkv::cli
