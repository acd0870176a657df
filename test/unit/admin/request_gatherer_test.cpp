// Framing of HTTP requests: what is one, what is none, and how little of it is kept.
#define CAF_SUITE request_gatherer
#include "admin/request_gatherer.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::admin;

namespace {

/// Feeds it as a connection would, in pieces of a size, until a request is there or it is refused.
std::optional<http_request> gather(request_gatherer& from, std::string_view text, std::size_t piece) {
  while (true) {
    if (auto taken = from.take())
      return taken;
    if (from.refused() || text.empty())
      return std::nullopt;
    const auto count = std::min({piece, text.size(), from.room()});
    from.add(text.substr(0, count));
    text.remove_prefix(count);
  }
}

int status_of(std::string_view text) {
  request_gatherer gatherer;
  const auto taken = gather(gatherer, text, 1000);
  if (taken)
    return 200;
  return gatherer.refused() ? gatherer.refused()->status : 0; // 0: more is needed
}

std::string with(std::string_view headers) {
  return "GET / HTTP/1.1\r\nHost: a\r\n" + std::string{headers} + "\r\n";
}

} // namespace

CAF_TEST(a request is found in pieces of any size) {
  const std::string text = "POST /v1/drives/2/reset?secure=true HTTP/1.1\r\nHOST: server:9901\r\n"
                           "X-Memkv-Time:\t 17 \r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n";
  for (const std::size_t piece : {1, 2, 3, 7, 50, 1000}) {
    request_gatherer gatherer;
    const auto first = gather(gatherer, text, piece);
    CAF_REQUIRE(first);
    CAF_CHECK_EQUAL(first->method, "POST");
    CAF_CHECK_EQUAL(first->target, "/v1/drives/2/reset?secure=true");
    CAF_CHECK_EQUAL(first->path(), "/v1/drives/2/reset");
    CAF_CHECK_EQUAL(first->query(), "secure=true");
    CAF_CHECK_EQUAL(first->header("host"), "server:9901");
    CAF_CHECK_EQUAL(first->header("x-memkv-time"), "17");
    CAF_CHECK_EQUAL(first->body, "abc");
  }
}

CAF_TEST(what comes behind a request is the next one) {
  request_gatherer gatherer;
  gatherer.add(with("") + "POST /x HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\nzGET");
  CAF_CHECK_EQUAL(std::string(gatherer.take()->target), "/");
  const auto second = gatherer.take();
  CAF_REQUIRE(second);
  CAF_CHECK_EQUAL(second->body, "z");
  CAF_CHECK_EQUAL(second->header("host"), "b");
  CAF_CHECK(!gatherer.take());
  CAF_CHECK(!gatherer.refused());
  CAF_CHECK(!gatherer.empty());
}

CAF_TEST(what is not HTTP is refused with its first byte) {
  for (const auto* text : {"\x16\x03\x01", "mkv", "get ", "M-SEARCH", "MKV\1", "GETGETGETGETGETGET",
                           "\r\nGET / HTTP/1.1\r\n\r\n", " GET / HTTP/1.1\r\n\r\n"})
    CAF_CHECK_EQUAL(status_of(text), 400);
  CAF_CHECK_EQUAL(status_of(std::string_view("\0\0\0\0", 4)), 400);
}

CAF_TEST(a request line has three parts and a target that is a path) {
  for (const auto* line :
       {"GET", "GET /", "GET  HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/1.1 ", "GET / x HTTP/1.1",
        "GET http://a/ HTTP/1.1", "GET * HTTP/1.1", "GET /a#b HTTP/1.1", "GE(T / HTTP/1.1",
        "GET /\xC3\xA4 HTTP/1.1", "GET /\tx HTTP/1.1", "GET /\nx HTTP/1.1"})
    CAF_CHECK_EQUAL(status_of(std::string{line} + "\r\nHost: a\r\n\r\n"), 400);
}

CAF_TEST(headers that programs read in different ways are refused) {
  for (const auto* header :
       {"no colon\r\n", ": x\r\n", "a : x\r\n", " folded\r\n", "\tfolded: x\r\n", "a: x\ny: z\r\n",
        "a: \x01\r\n", "a\rb: x\r\n", "a: x\ry\r\n", "Host: b\r\n", "a: \x7F\r\n"})
    CAF_CHECK_EQUAL(status_of(with(header)), 400);
  CAF_CHECK_EQUAL(status_of(with(std::string("a: \0\r\n", 6))), 400);
  CAF_CHECK_EQUAL(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
  CAF_CHECK_EQUAL(status_of("GET / HTTP/1.0\r\n\r\n"), 200);
  CAF_CHECK_EQUAL(status_of(with("a: caf\xC3\xA9 \"x\"\r\nempty:\r\n")), 200);
}

CAF_TEST(a body has one length that is a number) {
  for (const auto* header :
       {"Content-Length: -1\r\n", "Content-Length: +1\r\n", "Content-Length: 0x1\r\n", "Content-Length:\r\n",
        "Content-Length: 1 1\r\n", "Content-Length: 1,1\r\n", "Content-Length: 1\r\nContent-Length: 1\r\n"})
    CAF_CHECK_EQUAL(status_of(with(header)), 400);
  CAF_CHECK_EQUAL(status_of(with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n"), 411);
  CAF_CHECK_EQUAL(status_of(with("Transfer-Encoding: identity\r\nContent-Length: 0\r\n")), 411);
  CAF_CHECK_EQUAL(status_of(with("Content-Length: 65536\r\n")), 413);
  CAF_CHECK_EQUAL(status_of(with("Content-Length: 99999999999999999999999\r\n")), 413);
  CAF_CHECK_EQUAL(status_of(with("Content-Length: 5\r\n") + "abcd"), 0);
}

CAF_TEST(a request of 64 KiB is taken and one of a byte more is not) {
  std::string most = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65485\r\n\r\n";
  most += std::string(65485, 'x');
  CAF_REQUIRE_EQUAL(most.size(), request_bytes_max);
  CAF_CHECK_EQUAL(status_of(most), 200);
  CAF_CHECK_EQUAL(status_of("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65486\r\n\r\n"), 413);
}

CAF_TEST(a header that never ends is refused at 64 KiB) {
  request_gatherer gatherer;
  gather(gatherer, "GET / HTTP/1.1\r\nHost: a\r\nx: " + std::string(1 << 20, 'x'), 4096);
  CAF_REQUIRE(gatherer.refused());
  CAF_CHECK_EQUAL(gatherer.refused()->status, 431);
  CAF_CHECK_EQUAL(gatherer.room(), 0u);
}

CAF_TEST(headers are limited in number and length) {
  std::string many;
  for (std::size_t number = 1; number < header_lines_max; ++number)
    many += "x: y\r\n";
  CAF_CHECK_EQUAL(status_of(with(many)), 200);
  CAF_CHECK_EQUAL(status_of(with(many + "x: y\r\n")), 431);
  CAF_CHECK_EQUAL(status_of(with("x: " + std::string(header_line_bytes_max - 3, 'y') + "\r\n")), 200);
  CAF_CHECK_EQUAL(status_of(with("x: " + std::string(header_line_bytes_max - 2, 'y') + "\r\n")), 431);
}
