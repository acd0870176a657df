#include "wire/request_reader.hpp"

#include "wire/assert.hpp"

namespace memkv::wire {

request_event request_reader::close(refusal reason) noexcept {
  phase_ = phase::closed;
  reason_ = reason;
  variable_ = {};
  gatherer_.release();
  return request_event::close;
}

request_event request_reader::drop(refusal reason) noexcept {
  ++drops_;
  if (drops_ >= limits::drops_max)
    return close(refusal::too_many_drops);
  reason_ = reason;
  variable_ = {};
  return request_event::drop;
}

bool request_reader::verify(bytes_view header, std::uint64_t ts_ns,
                            std::span<const std::byte, 32> code) noexcept {
  const bool by_first = verifier_->verify(header, ts_ns, code);
  if (second_ == nullptr)
    return by_first;
  // Both are computed whatever comes of the first: the time it takes says nothing about either.
  const bool by_second = second_->verify(header, ts_ns, code);
  if (!by_first && by_second) {
    verifier_ = second_;
    uses_second_key_ = true;
  }
  second_ = nullptr;
  return by_first || by_second;
}

request_event request_reader::judge(bytes_view header, bytes_view trailer, std::uint64_t now_ns) noexcept {
  const auto ts_ns = load_le<std::uint64_t>(trailer.data());
  const std::span<const std::byte, 32> code(trailer.data() + 8, 32);
  if (!verify(header, ts_ns, code))
    return close(refusal::bad_mac);
  // From here on the sender holds the key; what remains is whether this frame belongs here and now.
  fault_ = decode_header(header, header_);
  variable_ = header.subspan(limits::fixed_header_bytes);
  if (!within_drift(ts_ns, now_ns))
    return drop(refusal::stale_time);
  if (header_.version > limits::version) {
    phase_ = phase::closed;
    reason_ = refusal::bad_version;
    return request_event::refuse_version;
  }
  const bool hello = header_.opcode == opcode::hello;
  if (phase_ == phase::hello_expected) {
    if (!hello)
      return close(refusal::hello_expected);
  } else if (hello) {
    return close(refusal::second_hello);
  }
  if (!equal_in_constant_time(header_.tag, tag_))
    return close(refusal::bad_tag);
  if (header_.request_id <= last_request_id_)
    return drop(refusal::old_id);
  last_request_id_ = header_.request_id;
  if (phase_ == phase::tagged)
    phase_ = phase::authenticated;
  // A Hello that is refused, for whatever reason, ends its connection: a malformed one too.
  if (phase_ == phase::hello_expected)
    phase_ = fault_ == header_fault::none ? phase::hello_pending : phase::closed;
  reason_ = fault_ == header_fault::none ? refusal::none : refusal::malformed;
  return fault_ == header_fault::none ? request_event::header : request_event::malformed;
}

request_reader::result request_reader::consume(bytes_view in, std::uint64_t now_ns) noexcept {
  result out;
  if (phase_ == phase::closed) {
    out.event = request_event::close;
    return out;
  }
  MEMKV_ASSERT(phase_ != phase::hello_pending, "a Hello is answered before the next frame is read");
  variable_ = {};
  const std::uint32_t header_bytes_max =
      authenticated() ? limits::header_bytes_max : limits::header_bytes_max_unauthenticated;
  const frame_gatherer::result gathered = gatherer_.consume(in, header_bytes_max);
  out.consumed = gathered.consumed;
  switch (gathered.state) {
  case frame_gatherer::state::need_more:
    break;
  case frame_gatherer::state::complete:
    out.event = judge(gathered.header, gathered.trailer, now_ns);
    break;
  case frame_gatherer::state::wait_for_budget:
    out.event = request_event::wait_for_budget;
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

void request_reader::accept_hello(const connection_tag& tag) noexcept {
  MEMKV_ASSERT(phase_ == phase::hello_pending, "a tag is set once, after the connection's Hello");
  tag_ = tag;
  phase_ = phase::tagged;
}

void request_reader::release_header() noexcept {
  variable_ = {};
  if (!gatherer_.mid_header())
    gatherer_.release();
}

} // namespace memkv::wire
