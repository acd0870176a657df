// Asks many administration endpoints at once. All questions of a call share one deadline, name resolution,
// TLS handshake and a peer that sends a byte a second included (docs/decisions/0019-admin-client.md).
//
// Operation: one poll loop over all connections, in the caller's thread; only names are resolved elsewhere.
// Every question is one connection, without proxies and redirections.
//
// Threading: a call uses nothing shared; any number may run. Ownership: values.
// Limits: body_bytes_max for one answer, all_bytes_max for all of them together.
// Errors: one sentence for each question, without the server's name. Nothing throws.
#pragma once

#include "admin/server_url.hpp"
#include "admin/tls_stream.hpp"

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace memkv::admin {

struct http_question {
  server_url server;
  std::string method = "GET";
  std::string target = "/";
  std::vector<std::pair<std::string, std::string>> headers = {}; // beside those that every request has
};

struct server_answer {
  int status = 0; // 0: there is no answer
  std::string body;
  std::string problem;           // why there is no answer, one sentence; empty when there is one
  bool may_have_arrived = false; // the request was sent, or part of it: what it asks for may have been done
};

struct http_options {
  std::chrono::milliseconds timeout{5'000}; // for all questions together
  std::size_t body_bytes_max = 16U << 20U;
  std::size_t all_bytes_max = 1U << 30U;
  tls_options tls;
};

/// One answer a question, in their order.
[[nodiscard]] std::vector<server_answer> ask_all(std::span<const http_question> questions,
                                                 const http_options& options);

} // namespace memkv::admin
