#include "wire/frame_writer.hpp"

namespace memkv::wire {

void seal(bytes_span frame, std::uint64_t now_ns, const mac& signer) noexcept {
  MEMKV_ASSERT(frame.size() >= frame_bytes(0), "a frame has a header and a trailer");
  const std::size_t header_length = frame.size() - limits::trailer_bytes;
  MEMKV_ASSERT(load_le<std::uint32_t>(frame.data() + 8) == header_length,
               "a frame is sealed as it was built");
  store_le(frame.data() + header_length, now_ns);
  const hash32 code = signer.sign(frame.first(header_length), now_ns);
  std::memcpy(frame.data() + header_length + 8, code.data(), code.size());
}

} // namespace memkv::wire
