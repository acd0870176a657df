// Vocabulary of these tests: ids, entries, the seed.
#pragma once

#include "engine/index.hpp"
#include "test/sim/random.hpp"

#include <cstdlib>
#include <string>

namespace memkv::engine {

/// MEMKV_TEST_SEED, or the given one.
inline std::uint64_t test_seed(std::uint64_t otherwise) {
  const char* const given = std::getenv("MEMKV_TEST_SEED");
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 0);
}

/// A uniform id for each number.
inline key_id id_of(std::uint64_t number) {
  sim::random chance(number);
  key_id id;
  wire::store_le(id.bytes.data(), chance.next());
  wire::store_le(id.bytes.data() + 8, chance.next());
  return id;
}

/// An id with these leading bytes, in order of the number.
inline key_id id_from(std::uint64_t head, std::uint64_t rest) {
  key_id id;
  for (std::size_t i = 0; i < 8; ++i) {
    id.bytes[i] = static_cast<std::byte>(head >> (56 - 8 * i));
    id.bytes[8 + i] = static_cast<std::byte>(rest >> (56 - 8 * i));
  }
  return id;
}

/// Inserts and says under which handle; no_entry when it was refused.
inline entry_handle put(block_index& index, const key_id& id, std::uint32_t value_length = 1,
                        std::uint16_t units = 1, std::uint8_t flags = 0) {
  block_entry fields;
  fields.id = id;
  fields.value_length = value_length;
  fields.generation = value_length;
  fields.units = units;
  fields.flags = flags;
  entry_handle inserted = no_entry;
  entry_handle replaced = no_entry;
  if (index.insert(fields, inserted, replaced) != errc::ok)
    return no_entry;
  if (replaced != no_entry && index.retire(replaced))
    index.free(replaced);
  return inserted;
}

inline void remove(block_index& index, entry_handle handle) {
  index.unlink(handle);
  if (index.retire(handle))
    index.free(handle);
}

} // namespace memkv::engine
