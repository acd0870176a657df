// The server's push parser: one a connection, fed with what the socket gave. Normative text: wire.md,
// sections 5 to 7.
//
// While a fleet's key is changed a second key may be given: the connection then uses the one that its first
// frame was signed with, and no other.
//
// Threading: one thread; budget and macs are shared. Ownership: header() is a value, variable_part() a
// view into the bytes given to consume or into the reader, valid until the next consume or release_header.
// Errors: all are events. After `close` the reader accepts nothing more.
// Does not: take payloads from the stream. After header, malformed, drop and refuse_version the next
// payload_bytes() bytes of the stream are the payload: the caller takes or skips exactly those before it
// consumes again. It does not measure time limits either; mid_header() and authenticated() say what to
// measure.
#pragma once

#include "wire/frame_gatherer.hpp"
#include "wire/refusal.hpp"

namespace memkv::wire {

enum class request_event : std::uint8_t {
  need_more, ///< the whole input was taken
  header,    ///< an accepted request: header(), variable_part(), then its payload
  malformed, ///< an accepted frame with a fault(): answer BadRequest, skip the payload. A malformed Hello is
             ///< answered by append_hello_refusal; the reader accepts nothing after it: close
  drop,      ///< send nothing, skip the payload, count reason()
  refuse_version,  ///< answer UnsupportedVersion with a zero tag, then close
  wait_for_budget, ///< no memory for headers now: do not read this connection for a moment, then offer the
                   ///< rest again
  close,           ///< send nothing, close, count reason()
};

class request_reader {
public:
  request_reader(const mac& verifier, header_budget& budget, const mac* second = nullptr) noexcept
      : verifier_(&verifier), second_(second),
        gatherer_(direction::request, limits::value_bytes_max, budget) {}

  struct result {
    std::size_t consumed = 0; ///< bytes of the input that are done with, payloads never among them
    request_event event = request_event::need_more;
  };

  /// Takes bytes up to the first event.
  [[nodiscard]] result consume(bytes_view in, std::uint64_t now_ns) noexcept;

  /// To be called between the header event of a Hello that was accepted and the next consume.
  void accept_hello(const connection_tag& tag) noexcept;

  /// Frees what was gathered for the header just delivered. Makes variable_part() invalid.
  void release_header() noexcept;

  [[nodiscard]] const frame_header& header() const noexcept { return header_; }
  [[nodiscard]] bytes_view variable_part() const noexcept { return variable_; }
  [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return header_.payload_length; }
  [[nodiscard]] header_fault fault() const noexcept { return fault_; }
  [[nodiscard]] refusal reason() const noexcept { return reason_; }

  /// What answers are sealed with. Final from the first accepted frame on.
  [[nodiscard]] const mac& verifier() const noexcept { return *verifier_; }
  /// The first frame was signed with the second key.
  [[nodiscard]] bool uses_second_key() const noexcept { return uses_second_key_; }

  /// A frame with the connection's tag has been accepted.
  [[nodiscard]] bool authenticated() const noexcept { return phase_ == phase::authenticated; }
  [[nodiscard]] bool mid_header() const noexcept { return gatherer_.mid_header(); }
  [[nodiscard]] std::uint64_t last_request_id() const noexcept { return last_request_id_; }
  [[nodiscard]] std::uint32_t drops() const noexcept { return drops_; }

private:
  enum class phase : std::uint8_t { hello_expected, hello_pending, tagged, authenticated, closed };

  [[nodiscard]] request_event judge(bytes_view header, bytes_view trailer, std::uint64_t now_ns) noexcept;
  [[nodiscard]] request_event close(refusal reason) noexcept;
  [[nodiscard]] request_event drop(refusal reason) noexcept;

  [[nodiscard]] bool verify(bytes_view header, std::uint64_t ts_ns,
                            std::span<const std::byte, 32> code) noexcept;

  const mac* verifier_;
  const mac* second_; // null: there is none, or the connection has its key
  bool uses_second_key_ = false;
  frame_gatherer gatherer_;
  frame_header header_;
  bytes_view variable_;
  connection_tag tag_{};
  std::uint64_t last_request_id_ = 0;
  std::uint32_t drops_ = 0;
  phase phase_ = phase::hello_expected;
  header_fault fault_ = header_fault::none;
  refusal reason_ = refusal::none;
};

} // namespace memkv::wire
