// Has cpp-httplib read a request that is there in whole, and write its answer down.
//
// The library sees the request line and whether the connection is to be kept, nothing else of what a stranger
// sent: its ways with ranges, compression, percent signs in headers and bodies are not wanted here.
//
// Threading: one thread each; the handler is called in it. Errors: an exception of the handler is an answer
// of status 500.
#pragma once

#include "admin/http_server.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace memkv::admin {

/// An answer without the library: to what is no request. The connection is closed behind it.
[[nodiscard]] std::string refusal_text(int status, std::string_view sentence);

/// {"error": "…"}
[[nodiscard]] std::string error_document(std::string_view sentence);

class http_answerer {
public:
  explicit http_answerer(http_server::handler handler);
  ~http_answerer();
  http_answerer(const http_answerer&) = delete;
  http_answerer& operator=(const http_answerer&) = delete;

  /// What is sent. `close`, given true, says in the answer that the connection ends with it; it is true
  /// afterwards if so, also because the peer wanted it.
  [[nodiscard]] std::string answer(const http_request& request, bool& close);

private:
  class library;
  std::unique_ptr<library> library_;
};

} // namespace memkv::admin
