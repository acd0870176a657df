// Builds frames: header and variable part once, request id, time stamp and MAC at the moment of writing.
//
// Threading: free functions; a buffer belongs to one thread. Ownership: the caller's buffers.
// Errors: none; a message that does not fit its limits is a broken invariant of the caller, who checked it.
// Does not: carry the payload, which follows the frame's bytes on the wire.
#pragma once

#include "wire/assert.hpp"
#include "wire/header.hpp"

#include <concepts>
#include <vector>

namespace memkv::wire {

/// Anything that can be a variable part: see messages.hpp.
template <class T>
concept message = requires(const T& value, byte_writer& out) {
  { value.encoded_size() } -> std::convertible_to<std::size_t>;
  value.encode(out);
};

/// Header, variable part and trailer together.
[[nodiscard]] inline std::size_t frame_bytes(std::size_t variable_bytes) noexcept {
  return limits::fixed_header_bytes + variable_bytes + limits::trailer_bytes;
}

/// Writes an unsealed frame into exactly frame_bytes(body.encoded_size()) bytes; sets header_length.
template <message Body>
void write_frame(bytes_span to, frame_header header, const Body& body) {
  const std::size_t variable_bytes = body.encoded_size();
  MEMKV_ASSERT(to.size() == frame_bytes(variable_bytes), "the room for a frame is exactly its size");
  MEMKV_ASSERT(limits::fixed_header_bytes + variable_bytes <= limits::header_bytes_max,
               "a header fits its limit");
  header.header_length = static_cast<std::uint32_t>(limits::fixed_header_bytes + variable_bytes);
  encode_header(header, to.first<limits::fixed_header_bytes>());
  byte_writer writer(to.subspan(limits::fixed_header_bytes, variable_bytes));
  body.encode(writer);
  MEMKV_ASSERT(writer.finished(), "a message fills exactly the size it announced");
  for (std::byte& byte : to.last(limits::trailer_bytes))
    byte = std::byte{0};
}

/// Appends an unsealed frame to a buffer and returns where it begins there.
template <message Body>
std::size_t append_frame(std::vector<std::byte>& buffer, const frame_header& header, const Body& body) {
  const std::size_t begin = buffer.size();
  buffer.resize(begin + frame_bytes(body.encoded_size()));
  write_frame(bytes_span(buffer).subspan(begin), header, body);
  return begin;
}

/// The fields below may be changed as long as the frame has not been written; seal again afterwards.
inline void set_request_id(bytes_span frame, std::uint64_t id) noexcept {
  store_le(frame.data() + 24, id);
}
inline void set_digest(bytes_span frame, const digest16& digest) noexcept {
  std::memcpy(frame.data() + 96, digest.data(), digest.size());
}
inline void set_connection_tag(bytes_span frame, const connection_tag& tag) noexcept {
  std::memcpy(frame.data() + 40, tag.data(), tag.size());
}

/// Stamps the time and signs. `frame` is header, variable part and trailer; may be done any number of times,
/// and must be done right before the frame's first byte is given to the network.
void seal(bytes_span frame, std::uint64_t now_ns, const mac& signer) noexcept;

} // namespace memkv::wire
