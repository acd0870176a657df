#include "admin/http_answerer.hpp"

#include <httplib.h>
#include <nlohmann/json.hpp>

#include <strings.h>

namespace memkv::admin {

namespace {

std::string_view reason_of(int status) noexcept {
  switch (status) {
  case 400:
    return "Bad Request";
  case 408:
    return "Request Timeout";
  case 411:
    return "Length Required";
  case 413:
    return "Payload Too Large";
  case 431:
    return "Request Header Fields Too Large";
  default:
    return "Error";
  }
}

bool has_token(std::string_view list, std::string_view token) noexcept {
  while (!list.empty()) {
    auto each = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), each.size() + 1));
    while (!each.empty() && (each.front() == ' ' || each.front() == '\t'))
      each.remove_prefix(1);
    while (!each.empty() && (each.back() == ' ' || each.back() == '\t'))
      each.remove_suffix(1);
    if (each.size() == token.size() && ::strncasecmp(each.data(), token.data(), token.size()) == 0)
      return true;
  }
  return false;
}

/// What the library reads from and writes to: memory. It has no time to lose there.
class memory_stream final : public httplib::Stream {
public:
  memory_stream(std::string_view request, const std::string& peer) : request_(request), peer_(peer) {}

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* into, std::size_t size) override {
    const auto count = std::min(size, request_.size());
    std::copy_n(request_.data(), count, into);
    request_.remove_prefix(count);
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* bytes, std::size_t size) override {
    written.append(bytes, size);
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = peer_;
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    ip.clear();
    port = 0;
  }
  // The library refuses descriptors beyond what select() takes, which a server of many clients soon has.
  socket_t socket() const override { return 0; }

  std::string written;

private:
  std::string_view request_;
  const std::string& peer_;
};

} // namespace

std::string error_document(std::string_view sentence) {
  return nlohmann::json{{"error", sentence}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
         "\n";
}

std::string refusal_text(int status, std::string_view sentence) {
  const auto body = error_document(sentence);
  std::string text = "HTTP/1.1 " + std::to_string(status) + " ";
  text += reason_of(status);
  text += "\r\nConnection: close\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
          "X-Content-Type-Options: nosniff\r\nContent-Length: " +
          std::to_string(body.size()) + "\r\n\r\n" + body;
  return text;
}

class http_answerer::library final : public httplib::Server {
public:
  explicit library(http_server::handler handler) : handler_(std::move(handler)) {
    set_keep_alive_max_count(http_limits{}.requests_per_connection_max);
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(http_limits{}.idle).count());
    set_pre_routing_handler([this](const httplib::Request&, httplib::Response& response) {
      const auto answer = handler_(*request_);
      response.status = answer.status;
      response.set_header("Accept-Ranges", "none");
      for (const auto& [name, value] : answer.headers)
        response.set_header(name, value);
      response.set_content(answer.body, answer.content_type);
      return HandlerResponse::Handled;
    });
    set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
      response.status = 500;
      response.set_content(error_document("the server could not make this answer: see its log"),
                           "application/json");
    });
    // What the library refuses by itself: methods it does not know, and a target that is too long.
    set_error_handler(Handler{[](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty())
        return;
      response.set_content(
          error_document(response.status == 414
                             ? "the target of the request is longer than 8 KiB"
                             : "the request makes no sense: GET, HEAD and POST are known here"),
          "application/json");
    }});
  }

  std::string answer(const http_request& request, bool& close) {
    const auto wish = request.header("connection");
    close = close || has_token(wish, "close") ||
            (request.version == "HTTP/1.0" && !has_token(wish, "keep-alive"));
    const auto text = request.method + " " + request.target + " HTTP/1.1\r\n\r\n";
    memory_stream stream{text, request.peer};
    request_ = &request;
    bool closed = false;
    if (!process_request(stream, close, closed, nullptr))
      close = true;
    request_ = nullptr;
    return std::move(stream.written);
  }

private:
  const http_server::handler handler_;
  const http_request* request_ = nullptr;
};

http_answerer::http_answerer(http_server::handler handler)
    : library_(std::make_unique<library>(std::move(handler))) {}

http_answerer::~http_answerer() = default;

std::string http_answerer::answer(const http_request& request, bool& close) {
  return library_->answer(request, close);
}

} // namespace memkv::admin
