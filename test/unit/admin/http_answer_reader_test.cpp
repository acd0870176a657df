// Answers as they come, in any pieces, and everything that is no answer.
#define CAF_SUITE http_answer_reader
#include "admin/http_answer_reader.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>
#include <random>

using namespace memkv::admin;

namespace {

constexpr std::size_t body_max = 100;

struct outcome {
  int status = 0;
  std::string body;
  answer_fault fault = answer_fault::none;
  bool done = false;
  bool operator==(const outcome&) const = default;
};

outcome read(std::string_view text, std::size_t piece = std::string_view::npos, bool orderly = true) {
  http_answer_reader reader(body_max);
  for (auto rest = text; !rest.empty(); rest.remove_prefix(std::min(piece, rest.size())))
    reader.push(rest.substr(0, piece));
  if (!reader.done())
    reader.end(orderly);
  CAF_CHECK_EQUAL(reader.problem().empty(), reader.fault() == answer_fault::none);
  return {reader.status(), reader.body(), reader.fault(), reader.done()};
}

answer_fault fault(std::string_view text, bool orderly = true) {
  const auto whole = read(text, std::string_view::npos, orderly);
  for (std::size_t piece : {1, 2, 3, 7})
    CAF_CHECK(read(text, piece, orderly).fault == whole.fault);
  CAF_CHECK_EQUAL(whole.done, whole.fault == answer_fault::none);
  return whole.fault;
}

} // namespace

CAF_TEST(a body ends by its length or in chunks or with the connection) {
  for (const auto* text :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200\r\ntransfer-encoding: CHUNKED\r\n\r\n5 \r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.1 200 OK\nContent-Length:5\n\nhello and more",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"})
    for (std::size_t piece : {1, 2, 5, 1000})
      CAF_CHECK(read(text, piece) == (outcome{200, "hello", answer_fault::none, true}));
}

CAF_TEST(an answer without a body is whole after its headers) {
  http_answer_reader reader(body_max);
  reader.push("HTTP/1.1 204 No Content\r\n\r\n");
  CAF_CHECK(reader.done());
  http_answer_reader empty(body_max);
  empty.push("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
  CAF_CHECK(empty.done());
  CAF_CHECK_EQUAL(empty.status(), 503);
}

CAF_TEST(what is cut short is no answer) {
  CAF_CHECK(fault("") == answer_fault::nothing);
  CAF_CHECK(fault("HT") == answer_fault::truncated);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\n") == answer_fault::truncated);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell") == answer_fault::truncated);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n") ==
            answer_fault::truncated);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n") ==
            answer_fault::truncated);
  CAF_CHECK(fault("HTTP/1.0 200 OK\r\n\r\nhello", false) == answer_fault::truncated);
}

CAF_TEST(what is not HTTP is known by its first bytes) {
  CAF_CHECK(fault("MKVF\1\2\3") == answer_fault::not_http);
  CAF_CHECK(fault("SSH-2.0-OpenSSH") == answer_fault::not_http);
  CAF_CHECK(fault("HTTP/2 200\r\n\r\n") == answer_fault::not_http);
  CAF_CHECK(fault(std::string(200'000, 'x')) == answer_fault::not_http);
  CAF_CHECK(fault(std::string("\0\0\0", 3)) == answer_fault::not_http);
}

CAF_TEST(headers that cannot be read are an error) {
  for (const auto* head :
       {"HTTP/1.1 abc OK", "HTTP/1.1 20", "HTTP/1.1 099 x", "HTTP/1.1200 OK", "HTTP/1.7 200 OK",
        "HTTP/1.1 200 OK\r\nno colon", "HTTP/1.1 200 OK\r\n: x", "HTTP/1.1 200 OK\r\nContent-Length: -1",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5"})
    CAF_CHECK(fault(head + std::string("\r\n\r\nhello")) == answer_fault::malformed);
}

CAF_TEST(chunks that cannot be read are an error) {
  const std::string head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const auto* chunks : {"x\r\n", "\r\n", "-1\r\n", "5\r\nhelloX\r\n", "fffffffffffffffff\r\n"})
    CAF_CHECK(fault(head + chunks) == answer_fault::malformed);
  CAF_CHECK(fault(head + std::string(5'000, '0')) == answer_fault::malformed);
}

CAF_TEST(nothing grows beyond its bound) {
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n") == answer_fault::too_large);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\n\r\n" + std::string(101, 'x')) == answer_fault::too_large);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" +
                  std::string(101, 'x')) == answer_fault::too_large);
  CAF_CHECK(fault("HTTP/1.1 200 OK\r\nX: " + std::string(70'000, 'x')) == answer_fault::too_large);
  std::string lines = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 10'000; ++i)
    lines += "X: yyyy\r\n";
  CAF_CHECK(fault(lines) == answer_fault::too_large);
  std::string trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
  for (int i = 0; i < 10'000; ++i)
    trailers += "X: yyyyyyyyyy\r\n";
  CAF_CHECK(fault(trailers) == answer_fault::too_large);
  std::string interim;
  for (int i = 0; i < 20; ++i)
    interim += "HTTP/1.1 100 Continue\r\n\r\n";
  CAF_CHECK(fault(interim) == answer_fault::malformed);
}

CAF_TEST(damaged answers are read or refused alike in whatever pieces they come) {
  const auto seed = std::random_device{}();
  CAF_MESSAGE("seed " << seed);
  std::mt19937 chance(seed);
  const std::string good =
      "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
  for (int i = 0; i < 20'000; ++i) {
    auto text = good;
    for (auto changes = 1 + chance() % 3; changes > 0; --changes)
      text[chance() % text.size()] =
          static_cast<char>(chance() % 4 == 0 ? chance() : "\r\n:01 HTPx"[chance() % 10]);
    const auto whole = read(text);
    const auto pieces = read(text, 1 + chance() % 5);
    if (!(whole == pieces))
      CAF_FAIL("differs in pieces: " << text);
  }
}
