#include "engine/entry_extras.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>
#include <new>

namespace memkv::engine {

namespace {

constexpr std::uint8_t striping = entry_part | entry_striped;

} // namespace

std::uint64_t id_table::group::memory_bytes() const noexcept {
  return room == 0 ? 0 : heap_bytes(room * sizeof(key_id)) + heap_bytes(places_bytes());
}

std::uint32_t id_table::group::position(std::uint32_t place) const noexcept {
  if (!few())
    return place;
  const auto* begin = places.get();
  return static_cast<std::uint32_t>(std::lower_bound(begin, begin + used, place) - begin);
}

bool id_table::group::has(std::uint32_t place) const noexcept {
  if (!few())
    return (places[place / 8] >> place % 8 & 1U) != 0;
  const auto at = position(place);
  return at < used && places[at] == place;
}

void id_table::group::mark(std::uint32_t place) noexcept {
  places[place / 8] = static_cast<std::uint8_t>(places[place / 8] | 1U << place % 8);
}

void id_table::group::add(std::uint32_t place) noexcept {
  const auto at = position(place);
  if (few()) {
    std::copy_backward(places.get() + at, places.get() + used, places.get() + used + 1);
    std::copy_backward(ids.get() + at, ids.get() + used, ids.get() + used + 1);
    places[at] = static_cast<std::uint8_t>(place);
  } else {
    mark(place);
  }
  ids[at] = {};
  ++used;
}

void id_table::group::remove(std::uint32_t place) noexcept {
  const auto at = position(place);
  if (few()) {
    std::copy(places.get() + at + 1, places.get() + used, places.get() + at);
    std::copy(ids.get() + at + 1, ids.get() + used, ids.get() + at);
  } else {
    places[place / 8] = static_cast<std::uint8_t>(places[place / 8] & ~(1U << place % 8));
  }
  --used;
}

bool id_table::resize(group& which, std::uint32_t room) noexcept {
  group made;
  made.room = static_cast<std::uint16_t>(room > few_most ? group_entries : room);
  if (room > 0) {
    made.ids.reset(new (std::nothrow) key_id[made.room]);
    made.places.reset(new (std::nothrow) std::uint8_t[made.places_bytes()]());
    if (made.ids == nullptr || made.places == nullptr)
      return false;
  }
  const auto move_there = [&](std::uint32_t place, const key_id& id) {
    const std::uint32_t at = made.few() ? made.used : place;
    if (made.few())
      made.places[at] = static_cast<std::uint8_t>(place);
    else
      made.mark(place);
    made.ids[at] = id;
    ++made.used;
  };
  for (std::uint32_t at = 0; at < (which.few() ? which.used : group_entries); ++at)
    if (which.few() || which.has(at))
      move_there(which.few() ? which.places[at] : at, which.ids[at]);
  bytes_ += made.memory_bytes();
  bytes_ -= which.memory_bytes();
  which = std::move(made);
  return true;
}

key_id& id_table::take(entry_handle entry) {
  const std::size_t number = entry / group_entries;
  if (groups_.size() <= number)
    groups_.resize(number + 1);
  group& of = groups_[number];
  if (of.used == of.room && !resize(of, of.used + room_step))
    throw std::bad_alloc();
  of.add(entry % group_entries);
  return of.ids[of.position(entry % group_entries)];
}

void id_table::give(entry_handle entry) noexcept {
  group& of = groups_[entry / group_entries];
  of.remove(entry % group_entries);
  // Without memory for less of it, it stays as it is.
  if (of.used == 0 || of.used + 4 * room_step <= of.room)
    static_cast<void>(resize(of, of.used == 0 ? 0 : of.used + room_step));
}

const key_id& id_table::at(entry_handle entry) const noexcept {
  const std::size_t number = entry / group_entries;
  MEMKV_ASSERT(number < groups_.size() && groups_[number].used > 0 &&
                   groups_[number].has(entry % group_entries),
               "what is asked for was added");
  return groups_[number].ids[groups_[number].position(entry % group_entries)];
}

std::uint64_t id_table::memory_bytes() const noexcept {
  return bytes_ + groups_.capacity() * sizeof(group);
}

template <typename Value>
Value& entry_extras::take(slabs<Value>& in, entry_handle entry) {
  const std::size_t number = entry / limits::slab_entries;
  if (in.size() <= number)
    in.resize(number + 1);
  if (!in[number])
    in[number] = std::make_unique<slab<Value>>();
  ++in[number]->used;
  return in[number]->values[entry % limits::slab_entries];
}

template <typename Value>
void entry_extras::give(slabs<Value>& in, entry_handle entry) noexcept {
  auto& of = in[entry / limits::slab_entries];
  of->values[entry % limits::slab_entries] = {};
  if (--of->used == 0)
    of.reset();
}

template <typename Value>
const Value& entry_extras::at(const slabs<Value>& in, entry_handle entry) noexcept {
  const std::size_t number = entry / limits::slab_entries;
  MEMKV_ASSERT(number < in.size() && in[number], "what is asked for was added");
  return in[number]->values[entry % limits::slab_entries];
}

void entry_extras::add(entry_handle entry, const entry_record& record) {
  if ((record.flags & entry_part) != 0)
    stripes_.take(entry) = record.head;
  else if ((record.flags & entry_striped) != 0)
    wire::store_le(stripes_.take(entry).bytes.data(), record.parts);
  if ((record.flags & entry_fragmented) == 0)
    return;
  auto list = std::make_unique<run[]>(record.runs.size() + 1);
  list[0].first_unit = static_cast<std::uint32_t>(record.runs.size());
  std::ranges::copy(record.runs, list.get() + 1);
  run_bytes_ += heap_bytes((record.runs.size() + 1) * sizeof(run));
  take(runs_, entry) = std::move(list);
}

void entry_extras::remove(entry_handle entry, std::uint8_t flags) noexcept {
  if ((flags & striping) != 0)
    stripes_.give(entry);
  if ((flags & entry_fragmented) == 0)
    return;
  run_bytes_ -= heap_bytes((runs(entry).size() + 1) * sizeof(run));
  give(runs_, entry);
}

key_id entry_extras::head(entry_handle entry) const noexcept {
  return stripes_.at(entry);
}

std::uint32_t entry_extras::parts(entry_handle entry) const noexcept {
  return wire::load_le<std::uint32_t>(stripes_.at(entry).bytes.data());
}

std::span<const run> entry_extras::runs(entry_handle entry) const noexcept {
  const run* list = at(runs_, entry).get();
  MEMKV_ASSERT(list != nullptr, "a fragmented entry has runs");
  return {list + 1, list->first_unit};
}

std::uint64_t entry_extras::memory_bytes() const noexcept {
  const auto of = [](const auto& in, std::size_t slab_bytes) {
    const auto there = std::ranges::count_if(in, [](const auto& each) { return each != nullptr; });
    return in.capacity() * sizeof(void*) + static_cast<std::uint64_t>(there) * heap_bytes(slab_bytes);
  };
  return stripes_.memory_bytes() + of(runs_, sizeof(slab<run_list>)) + run_bytes_;
}

} // namespace memkv::engine
