#include "engine/entry_extras.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"

#include <algorithm>

namespace memkv::engine {

namespace {

constexpr std::uint8_t striping = entry_part | entry_striped;

} // namespace

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
    take(stripes_, entry) = record.head;
  else if ((record.flags & entry_striped) != 0)
    wire::store_le(take(stripes_, entry).bytes.data(), record.parts);
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
    give(stripes_, entry);
  if ((flags & entry_fragmented) == 0)
    return;
  run_bytes_ -= heap_bytes((runs(entry).size() + 1) * sizeof(run));
  give(runs_, entry);
}

key_id entry_extras::head(entry_handle entry) const noexcept {
  return at(stripes_, entry);
}

std::uint32_t entry_extras::parts(entry_handle entry) const noexcept {
  return wire::load_le<std::uint32_t>(at(stripes_, entry).bytes.data());
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
  return of(stripes_, sizeof(slab<key_id>)) + of(runs_, sizeof(slab<run_list>)) + run_bytes_;
}

} // namespace memkv::engine
