// Fuzz target: what a client does with bytes from a socket.
#include "wire/reply_reader.hpp"
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
    sign_stream(stream, direction::reply, how.open);

  header_budget budget(64 * limits::kib);
  reply_reader reader(fuzz_mac(), budget);
  bool tagged = how.open;
  if (how.open)
    reader.set_tag(fuzz_tag());
  open_request open{3, opcode::tcp_get};
  bytes_view rest(stream);
  while (!rest.empty()) {
    const std::vector<std::byte> piece(
        rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(std::min(rest.size(), how.piece_bytes)));
    const reply_reader::result result = reader.consume(piece, now_ns);
    MEMKV_ASSERT(result.consumed <= piece.size(), "a reader takes what there is");
    MEMKV_ASSERT(budget.used_bytes() <= budget.bytes_max(), "headers stay within their budget");
    rest = rest.subspan(result.consumed);
    if (result.event == reply_event::need_more) {
      MEMKV_ASSERT(result.consumed == piece.size(), "who needs more has taken all");
      continue;
    }
    if (result.event != reply_event::header)
      return 0;
    MEMKV_ASSERT(reader.payload_bytes() <= limits::part_bytes_max, "a part is within its limit");
    exercise_reply(reader.header().opcode, reader.variable_part());
    const bool was_complete = open.complete;
    MEMKV_ASSERT(open.accept(reader.header()) != refusal::none || !was_complete,
                 "nothing follows the last part");
    if (!tagged) {
      const hello_outcome outcome = read_hello_answer(fuzz_key(), reader.header(), reader.variable_part(),
                                                      reader.header().request_id, nonce{});
      MEMKV_ASSERT(!outcome.genuine || reader.header().opcode == opcode::hello,
                   "only a Hello answers a Hello");
      reader.set_tag(fuzz_tag());
      tagged = true;
    }
    rest =
        rest.subspan(static_cast<std::size_t>(std::min<std::uint64_t>(rest.size(), reader.payload_bytes())));
  }
  return 0;
}
