// A fuzz target that must fail: a copy of the batch decoder that forgot to compare a key's length with what
// is left. It proves that the other targets would find such a mistake in the time they are given.
#include "wire/bytes.hpp"
#include "wire/limits.hpp"

#include <vector>

using namespace memkv::wire;

namespace {

std::uint64_t sum_of_last_bytes(bytes_view variable) {
  if (variable.size() < 8 || load_le<std::uint32_t>(variable.data() + 4) != 0)
    return 0;
  const auto count = load_le<std::uint32_t>(variable.data());
  if (count == 0 || count > limits::batch_items_max)
    return 0;
  bytes_view rest = variable.subspan(8);
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (rest.size() < 2)
      return 0;
    const std::size_t key_length = load_le<std::uint16_t>(rest.data());
    if (key_length == 0 || key_length > limits::key_bytes_max)
      return 0;
#ifndef MEMKV_PLANTED_BUG
    if (rest.size() - 2 < key_length)
      return 0;
#endif
    sum += std::to_integer<std::uint64_t>(*(rest.data() + 2 + key_length - 1));
    if (rest.size() - 2 < key_length)
      return 0;
    rest = rest.subspan(2 + key_length);
  }
  return sum;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2)
    return 0;
  const auto* begin = reinterpret_cast<const std::byte*>(data);
  const std::vector<std::byte> variable(begin + 2, begin + size);
  [[maybe_unused]] volatile std::uint64_t sum = sum_of_last_bytes(variable);
  return 0;
}
