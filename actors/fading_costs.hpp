// What each of many has cost, forgotten by half after each half life.
//
// Operation. A cost counts from the first addition on, and is halved when each half life since then is over,
// whatever is added in between: who goes on adding must not keep what was there from fading.
//
// Threading: as a value. Ownership: values. Limits: as many keys as are remembered; beyond that the one that
// has cost the least is forgotten. Does not: look at a clock; times are of any clock that does not go back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>

namespace memkv::actors {

template <class Key>
class fading_costs {
public:
  /// Less than `least_ns` counts as nothing.
  fading_costs(std::uint64_t half_life_ns, std::uint64_t least_ns, std::size_t remembered_max)
      : half_life_ns_(half_life_ns), least_ns_(least_ns), remembered_max_(remembered_max) {}

  [[nodiscard]] std::uint64_t of(const Key& key, std::uint64_t now_ns) const {
    const auto found = all_.find(key);
    return found == all_.end() ? 0 : left(found->second, now_ns);
  }

  void add(const Key& key, std::uint64_t ns, std::uint64_t now_ns) {
    if (ns < least_ns_)
      return;
    if (all_.size() >= remembered_max_ && !all_.contains(key)) {
      std::erase_if(all_, [&](const auto& each) { return left(each.second, now_ns) == 0; });
      if (all_.size() >= remembered_max_)
        all_.erase(
            std::ranges::min_element(all_, {}, [&](const auto& each) { return left(each.second, now_ns); }));
    }
    auto& one = all_[key];
    const auto kept = left(one, now_ns);
    one.since_ns = kept == 0 ? now_ns : one.since_ns + half_lives(one, now_ns) * half_life_ns_;
    one.ns = kept + ns;
  }

private:
  struct cost {
    std::uint64_t ns = 0, since_ns = 0; // `ns` was not halved since
  };

  [[nodiscard]] std::uint64_t half_lives(const cost& of, std::uint64_t now_ns) const noexcept {
    return (now_ns - std::min(of.since_ns, now_ns)) / half_life_ns_;
  }
  [[nodiscard]] std::uint64_t left(const cost& of, std::uint64_t now_ns) const noexcept {
    const auto halves = half_lives(of, now_ns);
    const auto ns = halves > 63 ? 0 : of.ns >> halves;
    return ns < least_ns_ ? 0 : ns;
  }

  const std::uint64_t half_life_ns_, least_ns_;
  const std::size_t remembered_max_;
  std::map<Key, cost> all_;
};

} // namespace memkv::actors
