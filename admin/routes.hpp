// What the administration endpoint answers to which request, and to whom.
// Normative text: docs/admin-api.md and docs/admin-openapi.json.
//
// Operation. One table says which paths and methods there are. Then, in this order: is the path there (404),
// the method (405), is it a web site's doing (403), are the parameters known (400), may it be changed (401).
//
// Threading: answer() and open() may be called by any number of threads. Ownership: shares the door; what is
// given in `routes_setup` is kept. Errors: answers. Limits: waits for a report or an outcome for
// routes_setup::limit. Does not: know sockets.
#pragma once

#include "actors/admin_gateway.hpp"
#include "admin/http_message.hpp"
#include "admin/request_signature.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memkv::admin {

/// A file of the console. Everything lives as long as the program.
struct page_file {
  std::string_view path; // "/", "/console.js"
  std::string_view content_type;
  std::string_view bytes;
  std::string_view etag; // with its quotation marks
};

/// Paths and methods that exist. `path` may contain "{id}": decimal digits.
struct route {
  std::string_view path;
  std::string_view method; // GET includes HEAD
};

struct routes_setup {
  std::string version;
  std::shared_ptr<request_verifier> verifier; // null: requests that change something come from loopback
  bool open = false;                          // network.admin_open
  std::function<std::string(const actors::gathered&)> metrics; // text for Prometheus
  /// Takes orders of faults, and lists what is armed (admin/faults.hpp); asked from loopback only. Null:
  /// there is no such path.
  std::function<http_answer(const http_request&)> faults;
  std::vector<page_file> files;
  std::chrono::milliseconds limit{1'000};
};

class routes {
public:
  explicit routes(routes_setup setup);

  /// The server is there. Until then every question about it is answered: it is starting.
  void open(std::shared_ptr<actors::admin_door> door);

  [[nodiscard]] http_answer answer(const http_request& request) const;

  /// Everything but the files of the console; `/v1/faults` is always among them.
  [[nodiscard]] static std::span<const route> table() noexcept;

private:
  [[nodiscard]] http_answer decide(const http_request& request) const;
  [[nodiscard]] http_answer answer_file(const page_file& found, const http_request& request) const;
  [[nodiscard]] http_answer reset(const http_request& request, std::string_view id) const;
  [[nodiscard]] http_answer inject(const http_request& request) const;
  [[nodiscard]] http_answer ready() const;
  [[nodiscard]] actors::gathered gather() const;
  /// Whether it may change something; else the refusal.
  [[nodiscard]] bool may_change(const http_request& request, http_answer& refusal) const;
  [[nodiscard]] std::shared_ptr<actors::admin_door> door() const;

  const routes_setup setup_;
  mutable std::mutex lock_;
  std::shared_ptr<actors::admin_door> door_;
};

} // namespace memkv::admin
