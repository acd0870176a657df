#include "admin/http_answer_reader.hpp"

#include "wire/text.hpp"

#include <algorithm>
#include <charconv>

namespace memkv::admin {

namespace {

constexpr std::string_view http = "HTTP/1.";
constexpr int interim_answers_max = 8;
constexpr std::size_t chunk_line_bytes_max = 1'024;
constexpr std::size_t beginning_bytes_max = 16;

bool to_number(std::string_view text, int base, std::uint64_t& number) {
  const auto* end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, number, base);
  return !text.empty() && read.ec == std::errc{} && read.ptr == end;
}

} // namespace

void http_answer_reader::fail(answer_fault fault, std::string sentence) {
  stage_ = stage::failed;
  fault_ = fault;
  problem_ = std::move(sentence);
}

void http_answer_reader::push(std::string_view bytes) {
  received_ += bytes.size();
  if (beginning_.size() < beginning_bytes_max)
    beginning_ += bytes.substr(0, beginning_bytes_max - beginning_.size());
  while (!bytes.empty() && stage_ != stage::done && stage_ != stage::failed) {
    std::size_t taken = 0;
    if (stage_ == stage::head)
      taken = take_head(bytes);
    else if (stage_ == stage::counted || stage_ == stage::to_the_end || stage_ == stage::chunk)
      taken = take_body_bytes(bytes);
    else
      taken = take_line(bytes);
    bytes.remove_prefix(taken);
  }
}

void http_answer_reader::end(bool orderly) {
  if (stage_ == stage::done || stage_ == stage::failed)
    return;
  if (stage_ == stage::to_the_end && orderly)
    stage_ = stage::done;
  else if (received_ == 0)
    fail(answer_fault::nothing, "the connection was closed without an answer");
  else
    fail(answer_fault::truncated, "the connection was closed in the middle of the answer, after " +
                                      std::to_string(received_) + " bytes");
}

bool http_answer_reader::ends_with_blank_line() const noexcept {
  return head_.ends_with("\n\r\n") || head_.ends_with("\n\n");
}

std::size_t http_answer_reader::take_head(std::string_view bytes) {
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    const auto line_end = bytes.find('\n', taken);
    const auto next = line_end == std::string_view::npos ? bytes.size() : line_end + 1;
    if (head_.size() + (next - taken) > answer_head_bytes_max) {
      const bool answer = head_.starts_with(http);
      fail(answer ? answer_fault::too_large : answer_fault::not_http,
           answer ? "the answer has more than 64 KiB of headers" : "the answer is not HTTP");
      return bytes.size();
    }
    head_ += bytes.substr(taken, next - taken);
    taken = next;
    const auto compared = std::min(head_.size(), http.size());
    if (head_.compare(0, compared, http, 0, compared) != 0) {
      fail(answer_fault::not_http, "the answer is not HTTP");
      return bytes.size();
    }
    if (ends_with_blank_line()) {
      read_head();
      return taken;
    }
  }
  return taken;
}

bool http_answer_reader::read_status_line(std::string_view line) {
  // HTTP/1.1 200 OK
  std::uint64_t number = 0;
  const bool good = line.size() >= 12 && (line[7] == '0' || line[7] == '1') && line[8] == ' ' &&
                    (line.size() == 12 || line[12] == ' ') && to_number(line.substr(9, 3), 10, number) &&
                    number >= 100;
  status_ = good ? static_cast<int>(number) : 0;
  return good;
}

bool http_answer_reader::read_header(std::string_view line) {
  const auto colon = line.find(':');
  if (colon == 0 || colon == std::string_view::npos)
    return false;
  const auto name = wire::lowered(line.substr(0, colon));
  const auto value = wire::trimmed(line.substr(colon + 1));
  if (name == "content-length") {
    std::uint64_t length = 0;
    if (!to_number(value, 10, length) || (has_length_ && length != left_))
      return false;
    has_length_ = true;
    left_ = length;
  } else if (name == "transfer-encoding") {
    if (chunked_ || wire::lowered(value) != "chunked")
      return false;
    chunked_ = true;
  }
  return true;
}

void http_answer_reader::read_head() {
  const std::string head = std::move(head_);
  head_.clear();
  has_length_ = chunked_ = false;
  left_ = 0;
  std::string_view rest = head;
  bool first = true;
  bool good = true;
  while (good && !rest.empty()) {
    const auto end = rest.find('\n');
    auto line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (line.ends_with('\r'))
      line.remove_suffix(1);
    if (line.empty())
      break;
    good = first ? read_status_line(line) : read_header(line);
    first = false;
  }
  if (!good || first || (chunked_ && has_length_)) {
    fail(answer_fault::malformed, "the headers of the answer cannot be read");
    return;
  }
  if (status_ < 200) {
    if (++interim_answers_ > interim_answers_max)
      fail(answer_fault::malformed, "the server announces an answer again and again and sends none");
    return;
  }
  if (left_ > body_bytes_max_) {
    fail(answer_fault::too_large,
         "the answer has more than " + std::to_string(body_bytes_max_ >> 20U) + " MiB, and was not read");
    return;
  }
  if (status_ == 204 || status_ == 304 || (has_length_ && left_ == 0))
    stage_ = stage::done;
  else if (chunked_)
    stage_ = stage::chunk_size;
  else
    stage_ = has_length_ ? stage::counted : stage::to_the_end;
}

std::size_t http_answer_reader::take_body_bytes(std::string_view bytes) {
  std::size_t taken = bytes.size();
  if (stage_ != stage::to_the_end)
    taken = static_cast<std::size_t>(std::min<std::uint64_t>(taken, left_));
  if (body_.size() + taken > body_bytes_max_) {
    fail(answer_fault::too_large,
         "the answer has more than " + std::to_string(body_bytes_max_ >> 20U) + " MiB, and was not read");
    return bytes.size();
  }
  body_ += bytes.substr(0, taken);
  if (stage_ == stage::to_the_end)
    return taken;
  left_ -= taken;
  if (left_ == 0)
    stage_ = stage_ == stage::counted ? stage::done : stage::chunk_end;
  return taken;
}

std::size_t http_answer_reader::take_line(std::string_view bytes) {
  const auto end = bytes.find('\n');
  const auto taken = end == std::string_view::npos ? bytes.size() : end + 1;
  if (head_.size() + taken > chunk_line_bytes_max) {
    fail(answer_fault::malformed, "the chunks of the answer cannot be read");
    return bytes.size();
  }
  head_ += bytes.substr(0, taken);
  if (end != std::string_view::npos) {
    line_is_there();
    head_.clear();
  }
  return taken;
}

void http_answer_reader::line_is_there() {
  std::string_view line = head_;
  line.remove_suffix(1);
  if (line.ends_with('\r'))
    line.remove_suffix(1);
  if (stage_ == stage::trailer) {
    trailer_bytes_ += line.size();
    if (line.empty())
      stage_ = stage::done;
    else if (trailer_bytes_ > answer_head_bytes_max)
      fail(answer_fault::too_large, "the answer has more than 64 KiB of headers");
  } else if (stage_ == stage::chunk_end) {
    stage_ = stage::chunk_size;
    if (!line.empty())
      fail(answer_fault::malformed, "the chunks of the answer cannot be read");
  } else {
    if (!to_number(wire::trimmed(line.substr(0, line.find(';'))), 16, left_)) {
      fail(answer_fault::malformed, "the chunks of the answer cannot be read");
      return;
    }
    stage_ = left_ == 0 ? stage::trailer : stage::chunk;
  }
}

} // namespace memkv::admin
