// The client's push parser, one a connection, and the bookkeeping of one open request. Normative text:
// wire.md, 5 to 9.
//
// Threading: one thread. Ownership: as request_reader. Errors: every failed check is `close`: the connection
// is to be closed and its open requests are lost; nothing of that frame is given to the user. Does not: take
// payloads from the stream or check their digests; the next payload_bytes() bytes after a header event are
// the payload.
#pragma once

#include "wire/frame_gatherer.hpp"
#include "wire/refusal.hpp"

#include <optional>

namespace memkv::wire {

enum class reply_event : std::uint8_t {
  need_more,       ///< the whole input was taken
  header,          ///< a reply frame: header(), variable_part(), then its payload
  wait_for_budget, ///< as in request_event
  close,           ///< see reason()
};

class reply_reader {
public:
  reply_reader(const mac& verifier, header_budget& budget) noexcept
      : verifier_(&verifier), gatherer_(direction::reply, limits::part_bytes_max, budget) {}

  struct result {
    std::size_t consumed = 0;
    reply_event event = reply_event::need_more;
  };

  [[nodiscard]] result consume(bytes_view in, std::uint64_t now_ns) noexcept;

  /// From now on every frame must carry this tag: to be called between the Hello's answer and the next
  /// consume.
  void set_tag(const connection_tag& tag) noexcept;

  void release_header() noexcept;

  [[nodiscard]] const frame_header& header() const noexcept { return header_; }
  [[nodiscard]] bytes_view variable_part() const noexcept { return variable_; }
  [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return header_.payload_length; }
  [[nodiscard]] refusal reason() const noexcept { return reason_; }
  [[nodiscard]] header_fault fault() const noexcept { return fault_; }
  [[nodiscard]] bool mid_header() const noexcept { return gatherer_.mid_header(); }

private:
  [[nodiscard]] reply_event judge(bytes_view header, bytes_view trailer, std::uint64_t now_ns) noexcept;
  [[nodiscard]] reply_event close(refusal reason) noexcept;

  const mac* verifier_;
  frame_gatherer gatherer_;
  frame_header header_;
  bytes_view variable_;
  connection_tag tag_{};
  bool tagged_ = false;
  bool closed_ = false;
  header_fault fault_ = header_fault::none;
  refusal reason_ = refusal::none;
};

/// What a client remembers of a request to check the frames of its reply.
struct open_request {
  std::uint64_t request_id = 0;
  enum opcode opcode = opcode::ping;
  std::optional<digest_kind> kind{}; ///< the request's; when given, the replies must have it too
  std::uint32_t next_part = 0;
  bool complete = false;

  /// Takes note of a frame; anything but none closes the connection.
  [[nodiscard]] refusal accept(const frame_header& reply) noexcept;
};

} // namespace memkv::wire
