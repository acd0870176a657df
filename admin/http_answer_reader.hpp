// Reads one HTTP/1.1 answer from bytes as they come: status line, headers, body by length, in chunks or to
// the end of the connection. The peer may be anything: what is not an answer is said so, and nothing grows
// beyond the limits.
//
// Threading: one thread. Ownership: owns what came. Limits: answer_head_bytes_max for all headers,
// body_bytes_max for the body. Errors: problem() is one sentence; after it everything further is ignored.
// Does not: follow redirections, unpack compressed bodies, or keep the connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace memkv::admin {

constexpr std::size_t answer_head_bytes_max = 64U << 10U;

/// Why an answer is none.
enum class answer_fault : std::uint8_t {
  none,
  not_http,  // the first bytes are something else
  malformed, // began like HTTP and went on unlike it
  too_large,
  truncated, // ended before its end
  nothing,   // ended without a byte
};

class http_answer_reader {
public:
  explicit http_answer_reader(std::size_t body_bytes_max) : body_bytes_max_(body_bytes_max) {}

  void push(std::string_view bytes);
  /// The peer has ended the connection. `orderly`: in a way that a stranger on the way cannot forge (TLS), or
  /// that cannot be told (TCP).
  void end(bool orderly);

  [[nodiscard]] bool done() const noexcept { return stage_ == stage::done; }
  [[nodiscard]] answer_fault fault() const noexcept { return fault_; }
  /// One sentence; empty without a fault.
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  [[nodiscard]] int status() const noexcept { return status_; }
  [[nodiscard]] const std::string& body() const noexcept { return body_; }
  [[nodiscard]] std::string take_body() noexcept { return std::move(body_); }
  /// All bytes pushed.
  [[nodiscard]] std::uint64_t received() const noexcept { return received_; }
  /// The first bytes that came, at most 16: for telling what the peer is.
  [[nodiscard]] std::string_view beginning() const noexcept { return beginning_; }

private:
  enum class stage : std::uint8_t {
    head,
    counted,    // a body of a known length
    to_the_end, // a body that ends with the connection
    chunk_size,
    chunk,
    chunk_end,
    trailer,
    done,
    failed,
  };

  void fail(answer_fault fault, std::string sentence);
  std::size_t take_head(std::string_view bytes);
  std::size_t take_body_bytes(std::string_view bytes);
  std::size_t take_line(std::string_view bytes);
  void read_head();
  bool read_status_line(std::string_view line);
  bool read_header(std::string_view line);
  void line_is_there();
  [[nodiscard]] bool ends_with_blank_line() const noexcept;

  const std::size_t body_bytes_max_;
  stage stage_ = stage::head;
  answer_fault fault_ = answer_fault::none;
  std::string problem_;
  std::string beginning_;
  std::string head_; // of the head, then of the line of a chunk
  std::string body_;
  std::uint64_t received_ = 0;
  std::uint64_t left_ = 0; // bytes of the body or chunk that must still come
  std::size_t trailer_bytes_ = 0;
  int status_ = 0;
  int interim_answers_ = 0;
  bool has_length_ = false;
  bool chunked_ = false;
};

} // namespace memkv::admin
