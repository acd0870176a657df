// Fuzz target: every decoder of a variable part, chosen by the first two bytes.
#include "test/fuzz/exercise.hpp"
#include "wire/placement.hpp"

using namespace memkv::wire;
using namespace memkv::wire::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2)
    return 0;
  const auto code = static_cast<opcode>(data[1] % 0x30);
  const std::vector<std::byte> variable(reinterpret_cast<const std::byte*>(data) + 2,
                                        reinterpret_cast<const std::byte*>(data) + size);
  if (data[0] % 8 == 7) {
    // Names of servers come from configurations, where they are as foreign as frames.
    const normalised_server server = normalise_server(as_text(variable));
    MEMKV_ASSERT(server.ok() != server.name.empty(), "a server has a name or a problem");
    if (server.ok())
      MEMKV_ASSERT(normalise_server(server.name).name == server.name, "a normal form is its own");
  } else if (data[0] % 2 == 0) {
    exercise_request(code, variable);
  } else {
    exercise_reply(code, variable);
  }
  return 0;
}
