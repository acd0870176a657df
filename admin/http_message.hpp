// A request as it came, and the answer to it: what the server of HTTP and the routes say to each other.
//
// Threading: values. Does not: decode anything. Paths are compared as they were sent, so nothing that is
// spelt otherwise ("%2e%2e", "//") means a path of ours.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace memkv::admin {

struct http_header {
  std::string name; // of a request: in lower case
  std::string value;
};

struct http_request {
  std::string method;
  std::string target;  // as sent: path, and query if there is one
  std::string version; // "HTTP/1.1" or "HTTP/1.0"
  std::vector<http_header> headers;
  std::string body;
  std::string peer;      // the address it came from, without the port
  bool loopback = false; // it came through the loopback interface
  bool secure = false;   // it came over TLS

  [[nodiscard]] std::string_view path() const noexcept {
    return std::string_view{target}.substr(0, target.find('?'));
  }
  /// Behind the question mark; empty without one.
  [[nodiscard]] std::string_view query() const noexcept {
    const auto mark = target.find('?');
    return mark == std::string::npos ? std::string_view{} : std::string_view{target}.substr(mark + 1);
  }
  /// Value of the header of this name, in lower case; empty when it is not there. The first of several.
  [[nodiscard]] std::string_view header(std::string_view name) const noexcept {
    const auto found = std::find_if(headers.begin(), headers.end(),
                                    [&](const http_header& each) { return each.name == name; });
    return found == headers.end() ? std::string_view{} : std::string_view{found->value};
  }
  [[nodiscard]] std::size_t count(std::string_view name) const noexcept {
    return static_cast<std::size_t>(
        std::count_if(headers.begin(), headers.end(), [&](const auto& each) { return each.name == name; }));
  }
};

struct http_answer {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<http_header> headers;
};

} // namespace memkv::admin
