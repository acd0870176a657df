// Finds whole requests of HTTP/1.1 in what a connection receives, and refuses what is none: before the
// library that parses requests sees any of it. Strict on purpose: there is exactly one way to read what it
// accepts.
//
// Operation. Bytes are added as they come; when a request is complete it is taken, and what came behind it
// stays for the next one.
//
// Threading: one thread. Ownership: keeps what it was given until it is taken. Errors: values.
// Limits: request_bytes_max for a request with all its headers; header_lines_max lines; a line of
// header_line_bytes_max. Does not: know time, decode, or accept a body without Content-Length.
#pragma once

#include "admin/http_message.hpp"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace memkv::admin {

constexpr std::size_t request_bytes_max = 64 * 1024;
constexpr std::size_t header_line_bytes_max = 8 * 1024;
constexpr std::size_t header_lines_max = 100;

/// Why what came is no request. The connection cannot be used further: where the next one begins is unknown.
struct request_refusal {
  int status = 400;
  std::string_view sentence;
};

class request_gatherer {
public:
  /// How many more bytes it takes. 0: it is full, and a request can be taken or was refused.
  [[nodiscard]] std::size_t room() const noexcept { return request_bytes_max - bytes_.size(); }
  /// At most room() bytes.
  void add(std::string_view bytes);

  /// Nothing has come of the next request.
  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  [[nodiscard]] const std::optional<request_refusal>& refused() const noexcept { return refused_; }
  /// The next request, once it is there in whole.
  [[nodiscard]] std::optional<http_request> take();

private:
  std::optional<http_request> refuse(int status, std::string_view sentence) {
    refused_ = request_refusal{status, sentence};
    return std::nullopt;
  }
  bool parse_head(std::string_view head);
  bool parse_request_line(std::string_view line);
  bool parse_header_line(std::string_view line);
  bool parse_length();

  std::string bytes_;
  std::size_t searched_ = 0;   // no end of the head before it
  std::size_t head_bytes_ = 0; // with the empty line; 0: its end has not come
  std::size_t body_bytes_ = 0; // as announced
  http_request head_;
  std::optional<request_refusal> refused_;
};

} // namespace memkv::admin
