// The checks that a server makes on a frame which came as one message of a queue pair. Normative text:
// wire.md, sections 5 and 17.
//
// Threading: one thread; the mac may be shared and outlives the reader. Ownership: header() is a value,
// variable_part() a view into the bytes given to judge. Errors: all are events, with the meaning that
// request_reader gives them, where "the connection" is the queue pair. After close and refuse_version nothing
// more is accepted. Does not: decide what may travel in a message; an accepted header may say that a payload
// follows, and none does.
#pragma once

#include "wire/refusal.hpp"
#include "wire/request_reader.hpp"

namespace memkv::wire {

class message_reader {
public:
  /// `tag` is the queue pair's: derive_queue_pair_tag.
  message_reader(const mac& verifier, const connection_tag& tag) noexcept : verifier_(&verifier), tag_(tag) {}

  /// header, malformed, drop, refuse_version or close.
  [[nodiscard]] request_event judge(bytes_view frame, std::uint64_t now_ns) noexcept;

  [[nodiscard]] const frame_header& header() const noexcept { return header_; }
  [[nodiscard]] bytes_view variable_part() const noexcept { return variable_; }
  [[nodiscard]] refusal reason() const noexcept { return reason_; }
  [[nodiscard]] const connection_tag& tag() const noexcept { return tag_; }
  [[nodiscard]] bool closed() const noexcept { return closed_; }

private:
  [[nodiscard]] request_event close(refusal reason) noexcept;
  [[nodiscard]] request_event drop(refusal reason) noexcept;

  const mac* verifier_;
  connection_tag tag_;
  frame_header header_;
  bytes_view variable_;
  std::uint64_t last_request_id_ = 0;
  std::uint32_t drops_ = 0;
  refusal reason_ = refusal::none;
  bool closed_ = false;
};

} // namespace memkv::wire
