// Fuzz target: what a server does with bytes from a socket.
#include "wire/request_reader.hpp"
#include "test/fuzz/exercise.hpp"

using namespace memkv::wire;
using namespace memkv::wire::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0)
    return 0;
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  const treatment how(begin[0]);
  std::vector<std::byte> stream(begin + 1, begin + size);
  if (how.sign)
    sign_stream(stream, direction::request, how.open);

  header_budget budget(64 * limits::kib);
  request_reader reader(fuzz_mac(), budget);
  if (how.open) {
    std::vector<std::byte> start;
    append_hello(start, 1, nonce{});
    seal(start, now_ns, fuzz_mac());
    MEMKV_ASSERT(reader.consume(start, now_ns).event == request_event::header, "an honest Hello is accepted");
    reader.accept_hello(fuzz_tag());
    start.clear();
    frame_header ping;
    ping.request_id = 2;
    ping.tag = fuzz_tag();
    append_frame(start, ping, empty_message{});
    seal(start, now_ns, fuzz_mac());
    MEMKV_ASSERT(reader.consume(start, now_ns).event == request_event::header, "an honest Ping is accepted");
  }
  bytes_view rest(stream);
  while (!rest.empty()) {
    // A heap copy of exactly the piece, so that a read behind its end is seen.
    const std::vector<std::byte> piece(
        rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(std::min(rest.size(), how.piece_bytes)));
    const request_reader::result result = reader.consume(piece, now_ns);
    MEMKV_ASSERT(result.consumed <= piece.size(), "a reader takes what there is");
    MEMKV_ASSERT(budget.used_bytes() <= budget.bytes_max(), "headers stay within their budget");
    rest = rest.subspan(result.consumed);
    switch (result.event) {
    case request_event::need_more:
      MEMKV_ASSERT(result.consumed == piece.size(), "who needs more has taken all");
      continue;
    case request_event::close:
    case request_event::refuse_version:
    case request_event::wait_for_budget:
      return 0;
    case request_event::header: {
      MEMKV_ASSERT(reader.fault() == header_fault::none, "an accepted header has no fault");
      exercise_request(reader.header().opcode, reader.variable_part());
      if (reader.header().opcode == opcode::hello)
        reader.accept_hello(fuzz_tag());
      break;
    }
    case request_event::malformed:
    case request_event::drop:
      break;
    }
    rest =
        rest.subspan(static_cast<std::size_t>(std::min<std::uint64_t>(rest.size(), reader.payload_bytes())));
  }
  return 0;
}
