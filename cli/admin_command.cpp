#include "cli/admin_command.hpp"

#include "admin/printable_text.hpp"
#include "cli/admin_drives.hpp"
#include "cli/admin_pages.hpp"
#include "cli/admin_session.hpp"
#include "wire/assert.hpp"

#include <cstdio>

namespace memkv::cli {

namespace {

using admin::server_answer;

int health(admin_session& session) {
  std::vector<report_of<health_document>> rows;
  const auto answers = session.get("/v1/health", document_bytes_max);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& server = session.servers()[i];
    rows.push_back({server.text(), {}});
    const auto& answer = answers[i];
    auto fault = admin_session::fault_of(answer);
    health_document document;
    // A server that is unhealthy says so with 503 and a document all the same.
    const auto problem = answer.status == 0 ? std::string{} : read_health(answer.body, document);
    if (answer.status != 0 && problem.empty()) {
      if (answer.status == 503)
        fault = document.status;
      else if (fault.empty() && document.status == "unhealthy")
        fault = "unhealthy";
      rows.back().document = std::move(document);
    } else if (fault.empty()) {
      fault = problem;
    }
    if (!fault.empty())
      session.fail(server, fault);
  }
  admin_session::print(health_page(rows, session.colours()));
  return session.code();
}

int ready(admin_session& session) {
  std::vector<report_of<readiness>> rows;
  const auto answers = session.get("/v1/ready", document_bytes_max);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& server = session.servers()[i];
    const auto& answer = answers[i];
    rows.push_back({server.text(), {}});
    auto fault = admin_session::fault_of(answer);
    if (fault.empty() && admin::printable(answer.body, 10) == "ok") {
      rows.back().document = readiness{true};
      continue;
    }
    if (answer.status == 503) {
      const auto said = read_refusal(answer.body);
      fault = "not ready" + (said.empty() ? "" : ": " + said);
      rows.back().document = readiness{false};
    } else if (fault.empty()) {
      fault = "the answer is not \"ok\"";
    }
    session.fail(server, fault);
  }
  admin_session::print(ready_page(rows, session.colours()));
  return session.code();
}

/// The document of an answer that may be 503 and carry one all the same.
std::optional<status_document> status_of(const server_answer& answer, std::string& fault) {
  fault = admin_session::fault_of(answer);
  if (answer.status != 200 && answer.status != 503)
    return std::nullopt;
  status_document document;
  const auto problem = read_status(answer.body, document);
  if (problem.empty())
    return document;
  if (fault.empty())
    fault = problem;
  return std::nullopt;
}

std::string rule_of(const admin_session& session, const admin::server_url& server) {
  return session.colours().paint(colour::heading, labelled_rule(server.text())) + "\n";
}

/// As it came, but for what a terminal would obey.
std::string raw_json(const admin_session& session, const std::string& body) {
  auto text = session.on_terminal() ? admin::json_for_terminal(body) : body;
  if (!text.ends_with('\n'))
    text += '\n';
  return text;
}

int status(admin_session& session, bool json, bool verbose) {
  std::vector<report_of<status_document>> rows;
  const auto answers = session.get("/v1/status", document_bytes_max);
  const bool several = answers.size() > 1;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& server = session.servers()[i];
    std::string fault;
    auto document = status_of(answers[i], fault);
    if (!fault.empty())
      session.fail(server, fault);
    if (json || verbose) {
      if (document) {
        admin_session::print(several || !json ? rule_of(session, server) : std::string{});
        admin_session::print(json ? raw_json(session, answers[i].body)
                                  : status_details(*document, session.colours()) + (several ? "\n" : ""));
      }
      session.report();
    }
    if (document)
      document->actors.clear(); // what the table does not need is not kept
    rows.push_back({server.text(), std::move(document)});
  }
  if (!json && (!verbose || several))
    admin_session::print(status_page(rows, session.colours()));
  return session.code();
}

/// Whether the text may be an exposition: a comment or a name stands at its beginning.
bool is_exposition(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos)
    return false;
  const char letter = text[first];
  return letter == '#' || letter == '_' || letter == ':' || (letter >= 'a' && letter <= 'z') ||
         (letter >= 'A' && letter <= 'Z');
}

int metrics(admin_session& session) {
  const auto answers = session.get("/v1/metrics", metrics_bytes_max);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& server = session.servers()[i];
    auto fault = admin_session::fault_of(answers[i]);
    if (fault.empty() && !is_exposition(answers[i].body))
      fault = "the answer holds no metrics";
    if (!fault.empty()) {
      session.fail(server, fault);
      session.report();
      continue;
    }
    // A comment of the format, so that what follows it can still be read by programs.
    if (answers.size() > 1)
      admin_session::print("# " + labelled_rule(server.text()) + "\n");
    admin_session::print(session.on_terminal() ? admin::lines_for_terminal(answers[i].body)
                                               : answers[i].body);
    if (answers.size() > 1 && !answers[i].body.ends_with('\n'))
      admin_session::print("\n");
  }
  return session.code();
}

int failed_drives(admin_session& session, bool json) {
  const auto answers = session.get("/v1/drives/failed", document_bytes_max);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& server = session.servers()[i];
    auto fault = admin_session::fault_of(answers[i]);
    std::vector<failed_drive_entry> drives;
    if (fault.empty())
      fault = read_failed_drives(answers[i].body, drives);
    if (!fault.empty()) {
      session.fail(server, fault);
      session.report();
      continue;
    }
    if (answers.size() > 1)
      admin_session::print(rule_of(session, server));
    admin_session::print(json ? raw_json(session, answers[i].body)
                              : failed_drives_page(drives, session.colours()));
  }
  return session.code();
}

} // namespace

admin::server_list_result admin_servers(const parsed& line, const char* variable) {
  if (line.has("servers"))
    return admin::parse_server_list(line.text("servers"));
  if (variable == nullptr)
    return admin::parse_server_list("http://127.0.0.1:9901");
  auto made = admin::parse_server_list(variable);
  if (!made.problem.empty())
    made.problem = "MEMKV_SERVERS: " + made.problem;
  return made;
}

int run_admin_command(const parsed& line) {
  std::string problem;
  admin_session session(line, problem);
  if (!problem.empty()) {
    std::fprintf(stderr, "memkv: %s\n", problem.c_str());
    return 1;
  }
  const auto& name = line.path.at(1);
  if (name == "health")
    return health(session);
  if (name == "ready")
    return ready(session);
  if (name == "status")
    return status(session, line.has("json"), line.has("verbose"));
  if (name == "metrics")
    return metrics(session);
  MEMKV_ASSERT(name == "drives", "the table has no command that admin does not know");
  if (line.path.at(2) == "failed")
    return failed_drives(session, line.has("json"));
  return reset_drive(session, line.text("DEVICE_ID"), line.has("secure"));
}

} // namespace memkv::cli
