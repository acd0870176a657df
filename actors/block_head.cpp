#include "actors/block_head.hpp"

namespace memkv::actors {

namespace {

bool parts_found(drive_table& drives, const engine::block_entry& head,
                 std::uint32_t extent_bytes_max) noexcept {
  if ((head.flags & engine::entry_striped) == 0)
    return true;
  std::uint32_t part = 1;
  for (std::uint64_t begin = extent_bytes_max; begin < head.value_length; begin += extent_bytes_max, ++part) {
    if (!drives.may_look_for_part())
      return true; // as far as anybody has seen
    const auto id = engine::part_id(head.id, head.put_id, part);
    const auto& body = drives.at(drives.home(id)).body;
    std::uint32_t length = 0;
    std::uint64_t generation = 0;
    if (body == nullptr || !body->store->index().contains(id, length, generation, false))
      return false;
  }
  return true;
}

} // namespace

block_head find_head(drive_table& drives, const wire::key_id& id, std::uint32_t extent_bytes_max) noexcept {
  block_head out;
  for (int tries = 0; tries < lookups_max; ++tries) {
    const auto& body = drives.at(drives.home(id)).body;
    if (body == nullptr)
      return {};
    out.pin = body->store->index().find_and_pin(id);
    if (!out.pin)
      return {};
    out.whole = parts_found(drives, *out.pin, extent_bytes_max);
    if (out.whole || has_generation(drives, id, out.pin->generation))
      return out;
  }
  // Whoever replaces it so fast has it there.
  out.whole = true;
  return out;
}

bool has_generation(drive_table& drives, const wire::key_id& id, std::uint64_t generation) noexcept {
  const auto& body = drives.at(drives.home(id)).body;
  std::uint32_t length = 0;
  std::uint64_t now = 0;
  return body != nullptr && body->store->index().contains(id, length, now, false) && now == generation;
}

} // namespace memkv::actors
