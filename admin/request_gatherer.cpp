#include "admin/request_gatherer.hpp"

#include "wire/assert.hpp"
#include "wire/text.hpp"

#include <charconv>

namespace memkv::admin {

namespace {

constexpr std::string_view not_http =
    "this port speaks HTTP, and what came is not a request of HTTP/1.1: the data port is the one before it";
constexpr std::string_view too_large = "the request is larger than 64 KiB with all its headers";

bool is_token(char c) noexcept {
  constexpr std::string_view others = "!#$%&'*+-.^_`|~";
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         others.find(c) != std::string_view::npos;
}

/// Or with what may become one: capital letters, then a blank.
bool begins_with_method(std::string_view text) noexcept {
  constexpr std::size_t method_bytes_max = 16;
  const auto method = text.substr(0, std::min(text.find(' '), method_bytes_max + 1));
  return !method.empty() && method.size() <= method_bytes_max &&
         std::all_of(method.begin(), method.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

bool all_of_token(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_token);
}

/// What may stand in a value: no control characters but the tab.
bool is_value(std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto code = static_cast<unsigned char>(c);
    return code == '\t' || (code >= 0x20 && code != 0x7F);
  });
}

} // namespace

void request_gatherer::add(std::string_view bytes) {
  MEMKV_ASSERT(bytes.size() <= room(), "no more is added to a request than it may have");
  bytes_ += bytes;
}

std::optional<http_request> request_gatherer::take() {
  if (refused_ || bytes_.empty())
    return std::nullopt;
  if (head_bytes_ == 0) {
    // What is no HTTP at all is not waited for.
    if (!begins_with_method(bytes_))
      return refuse(400, not_http);
    const auto end = bytes_.find("\r\n\r\n", searched_ < 3 ? 0 : searched_ - 3);
    searched_ = bytes_.size();
    if (end == std::string::npos) {
      if (room() == 0)
        return refuse(431, too_large);
      return std::nullopt;
    }
    if (!parse_head(std::string_view{bytes_}.substr(0, end + 2)) || !parse_length())
      return std::nullopt;
    head_bytes_ = end + 4;
    if (body_bytes_ > request_bytes_max - head_bytes_)
      return refuse(413, too_large);
  }
  if (bytes_.size() < head_bytes_ + body_bytes_)
    return std::nullopt;
  auto request = std::move(head_);
  request.body = bytes_.substr(head_bytes_, body_bytes_);
  bytes_.erase(0, head_bytes_ + body_bytes_);
  if (bytes_.empty())
    bytes_.shrink_to_fit();
  head_ = {};
  head_bytes_ = body_bytes_ = searched_ = 0;
  return request;
}

bool request_gatherer::parse_head(std::string_view head) {
  for (std::size_t lines = 0; !head.empty(); ++lines) {
    const auto end = head.find("\r\n");
    const auto line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (lines > header_lines_max || line.size() > header_line_bytes_max) {
      refuse(431, "a request has at most 100 headers of at most 8 KiB each");
      return false;
    }
    if (lines == 0 ? !parse_request_line(line) : !parse_header_line(line))
      return false;
  }
  const auto hosts = head_.count("host");
  if (hosts > 1 || (hosts == 0 && head_.version == "HTTP/1.1")) {
    refuse(400, "a request has exactly one Host header");
    return false;
  }
  return true;
}

bool request_gatherer::parse_request_line(std::string_view line) {
  const auto first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    refuse(400, not_http);
    return false;
  }
  head_.method = line.substr(0, first);
  head_.target = line.substr(first + 1, last - first - 1);
  head_.version = line.substr(last + 1);
  if (head_.version != "HTTP/1.1" && head_.version != "HTTP/1.0") {
    refuse(400, not_http);
    return false;
  }
  const bool printable = std::all_of(head_.target.begin(), head_.target.end(),
                                     [](char c) { return c > 0x20 && c < 0x7F && c != '#'; });
  if (head_.target.empty() || head_.target[0] != '/' || !printable) {
    refuse(400, "the target of a request is a path that begins with a slash, in printable ASCII");
    return false;
  }
  return true;
}

bool request_gatherer::parse_header_line(std::string_view line) {
  const auto colon = line.find(':');
  // A name that is empty or ends in a blank, and a line that continues the one before it, are read in
  // different ways by different programs.
  if (colon == std::string_view::npos || !all_of_token(line.substr(0, colon)) ||
      !is_value(line.substr(colon + 1))) {
    refuse(400, "a header is not of the form \"name: value\"");
    return false;
  }
  head_.headers.push_back(
      {wire::lowered(line.substr(0, colon)), std::string{wire::trimmed(line.substr(colon + 1))}});
  return true;
}

bool request_gatherer::parse_length() {
  if (head_.count("transfer-encoding") != 0) {
    refuse(411, "a body is sent with its Content-Length, not in chunks");
    return false;
  }
  const auto lengths = head_.count("content-length");
  if (lengths == 0)
    return true;
  const auto text = head_.header("content-length");
  const auto read = std::from_chars(text.data(), text.data() + text.size(), body_bytes_);
  if (read.ec == std::errc::result_out_of_range && lengths == 1) {
    refuse(413, too_large);
    return false;
  }
  if (lengths > 1 || read.ec != std::errc{} || read.ptr != text.data() + text.size()) {
    refuse(400, "Content-Length is one whole number");
    return false;
  }
  return true;
}

} // namespace memkv::admin
