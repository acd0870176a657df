#include "wire/reply_reader.hpp"

#include "wire/assert.hpp"

namespace memkv::wire {

reply_event reply_reader::close(refusal reason) noexcept {
  closed_ = true;
  reason_ = reason;
  variable_ = {};
  gatherer_.release();
  return reply_event::close;
}

reply_event reply_reader::judge(bytes_view header, bytes_view trailer, std::uint64_t now_ns) noexcept {
  const auto ts_ns = load_le<std::uint64_t>(trailer.data());
  const std::span<const std::byte, 32> code(trailer.data() + 8, 32);
  if (!verifier_->verify(header, ts_ns, code))
    return close(refusal::bad_mac);
  if (!within_drift(ts_ns, now_ns))
    return close(refusal::stale_time);
  fault_ = decode_header(header, header_);
  if (header_.version > limits::version)
    return close(refusal::bad_version);
  // A server that does not know the version answers with a zero tag, whatever the request was.
  const bool tag_absent = !tagged_ || header_.status() == status::unsupported_version;
  const bool tag_right = equal_in_constant_time(header_.tag, tag_) || (tag_absent && all_zero(header_.tag));
  if (!tag_right)
    return close(refusal::bad_tag);
  if (!tagged_ && header_.opcode != opcode::hello && header_.status() != status::unsupported_version)
    return close(refusal::hello_expected);
  if (fault_ != header_fault::none)
    return close(refusal::malformed);
  variable_ = header.subspan(limits::fixed_header_bytes);
  reason_ = refusal::none;
  return reply_event::header;
}

reply_reader::result reply_reader::consume(bytes_view in, std::uint64_t now_ns) noexcept {
  result out;
  if (closed_) {
    out.event = reply_event::close;
    return out;
  }
  variable_ = {};
  const frame_gatherer::result gathered = gatherer_.consume(in, limits::header_bytes_max);
  out.consumed = gathered.consumed;
  switch (gathered.state) {
  case frame_gatherer::state::need_more:
    break;
  case frame_gatherer::state::complete:
    out.event = judge(gathered.header, gathered.trailer, now_ns);
    break;
  case frame_gatherer::state::wait_for_budget:
    out.event = reply_event::wait_for_budget;
    break;
  case frame_gatherer::state::bad_magic:
    out.event = close(refusal::bad_magic);
    break;
  case frame_gatherer::state::bad_direction:
    out.event = close(refusal::bad_direction);
    break;
  case frame_gatherer::state::bad_length:
    out.event = close(refusal::bad_length);
    break;
  }
  return out;
}

void reply_reader::set_tag(const connection_tag& tag) noexcept {
  MEMKV_ASSERT(!tagged_, "a connection has one tag");
  tag_ = tag;
  tagged_ = true;
}

void reply_reader::release_header() noexcept {
  variable_ = {};
  if (!gatherer_.mid_header())
    gatherer_.release();
}

refusal open_request::accept(const frame_header& reply) noexcept {
  if (complete || reply.request_id != request_id)
    return refusal::unknown_id;
  if (reply.opcode != opcode)
    return refusal::wrong_opcode;
  if (reply.part_number != next_part)
    return refusal::wrong_part;
  if (kind && reply.kind != *kind)
    return refusal::wrong_kind;
  // An error ends its reply.
  if (reply.status() != status::ok && (!reply.last() || reply.payload_length != 0))
    return refusal::malformed;
  ++next_part;
  complete = reply.last();
  return refusal::none;
}

} // namespace memkv::wire
