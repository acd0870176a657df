// A list of things that stand in an array, linked through their own fields by their numbers: nothing is
// allocated, and any of them leaves it at once.
//
// Threading and ownership: those of whoever has the array. Limits: a thing is in one list at a time for each
// pair of fields.
#pragma once

#include <cstdint>

namespace memkv::verbs {

struct number_list {
  static constexpr std::uint32_t none = ~0U;
  std::uint32_t first = none;
  std::uint32_t last = none;
  std::uint32_t count = 0;
};

template <auto Next, auto Previous, class Items>
void append_to(number_list& to, Items& items, std::uint32_t number) noexcept {
  auto& added = items[number];
  added.*Next = number_list::none;
  added.*Previous = to.last;
  (to.last == number_list::none ? to.first : items[to.last].*Next) = number;
  to.last = number;
  ++to.count;
}

template <auto Next, auto Previous, class Items>
void unlink_from(number_list& from, Items& items, std::uint32_t number) noexcept {
  auto& gone = items[number];
  (gone.*Previous == number_list::none ? from.first : items[gone.*Previous].*Next) = gone.*Next;
  (gone.*Next == number_list::none ? from.last : items[gone.*Next].*Previous) = gone.*Previous;
  gone.*Next = gone.*Previous = number_list::none;
  --from.count;
}

} // namespace memkv::verbs
