#include "wire/message_reader.hpp"

namespace memkv::wire {

request_event message_reader::close(refusal reason) noexcept {
  closed_ = true;
  reason_ = reason;
  variable_ = {};
  return request_event::close;
}

request_event message_reader::drop(refusal reason) noexcept {
  if (++drops_ >= limits::drops_max)
    return close(refusal::too_many_drops);
  reason_ = reason;
  variable_ = {};
  return request_event::drop;
}

request_event message_reader::judge(bytes_view frame, std::uint64_t now_ns) noexcept {
  if (closed_)
    return request_event::close;
  if (frame.size() < limits::fixed_header_bytes + limits::trailer_bytes)
    return close(refusal::bad_length);
  frozen_part frozen;
  switch (
      check_frozen(frame, direction::request, limits::header_bytes_max, limits::value_bytes_max, frozen)) {
  case frozen_fault::none:
    break;
  case frozen_fault::bad_magic:
    return close(refusal::bad_magic);
  case frozen_fault::bad_direction:
    return close(refusal::bad_direction);
  case frozen_fault::bad_length:
    return close(refusal::bad_length);
  }
  // A message is one whole frame. That bounds it by the room of a receive as well.
  if (frame.size() != std::size_t{frozen.header_length} + limits::trailer_bytes)
    return close(refusal::bad_length);
  const auto header = frame.first(frozen.header_length);
  const auto trailer = frame.subspan(frozen.header_length);
  const auto ts_ns = load_le<std::uint64_t>(trailer.data());
  if (!verifier_->verify(header, ts_ns, std::span<const std::byte, 32>(trailer.data() + 8, 32)))
    return close(refusal::bad_mac);
  const auto fault = decode_header(header, header_);
  variable_ = header.subspan(limits::fixed_header_bytes);
  if (!within_drift(ts_ns, now_ns))
    return drop(refusal::stale_time);
  if (header_.version > limits::version) {
    closed_ = true;
    reason_ = refusal::bad_version;
    return request_event::refuse_version;
  }
  if (header_.opcode == opcode::hello)
    return close(refusal::second_hello);
  if (!equal_in_constant_time(header_.tag, tag_))
    return close(refusal::bad_tag);
  if (header_.request_id <= last_request_id_)
    return drop(refusal::old_id);
  last_request_id_ = header_.request_id;
  reason_ = fault == header_fault::none ? refusal::none : refusal::malformed;
  return fault == header_fault::none ? request_event::header : request_event::malformed;
}

} // namespace memkv::wire
