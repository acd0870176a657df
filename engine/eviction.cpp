#include "engine/eviction.hpp"

#include "engine/limits.hpp"
#include "wire/assert.hpp"

#include <algorithm>
#include <utility>

namespace memkv::engine {

namespace {

/// What all orders share: lists through the entries' own links, newest first, and their sums.
class linked_policy : public eviction_policy {
protected:
  struct order {
    entry_handle newest = no_entry, oldest = no_entry;
    std::uint64_t entries = 0, units = 0;
  };

  linked_policy(block_index& index, const eviction_options& options) : index_(index), options_(options) {}

  [[nodiscard]] block_entry& at(entry_handle handle) const noexcept { return index_.at(handle); }

  [[nodiscard]] bool has(entry_handle handle, recency_bit bit) const noexcept {
    return (at(handle).recency.load(std::memory_order_relaxed) & bit) != 0;
  }
  void set(entry_handle handle, recency_bit bit) noexcept {
    at(handle).recency.fetch_or(bit, std::memory_order_relaxed);
  }
  void reset(entry_handle handle, recency_bit bit) noexcept {
    at(handle).recency.fetch_and(static_cast<std::uint8_t>(~bit), std::memory_order_relaxed);
  }
  /// Whether there was a hit since it was last asked.
  [[nodiscard]] bool take_hit(entry_handle handle) noexcept {
    if (!has(handle, recency_touched))
      return false;
    reset(handle, recency_touched);
    return true;
  }

  /// Parts of a striped block go when their head goes, so they never stand in an order of their own.
  [[nodiscard]] static bool belongs(const block_entry& entry) noexcept {
    return (entry.flags & entry_part) == 0;
  }

  [[nodiscard]] bool pinned(entry_handle handle) const noexcept {
    return at(handle).state.load(std::memory_order_relaxed) != 0;
  }

  void push_newest(order& in, entry_handle handle) noexcept {
    block_entry& entry = at(handle);
    entry.previous = no_entry;
    entry.next = in.newest;
    if (in.newest != no_entry)
      at(in.newest).previous = handle;
    else
      in.oldest = handle;
    in.newest = handle;
    ++in.entries;
    in.units += entry.units;
    set(handle, recency_ordered);
  }

  void unlink(order& from, entry_handle handle) noexcept {
    block_entry& entry = at(handle);
    MEMKV_ASSERT(has(handle, recency_ordered), "only an entry in the order leaves it");
    if (entry.previous != no_entry)
      at(entry.previous).next = entry.next;
    else
      from.newest = entry.next;
    if (entry.next != no_entry)
      at(entry.next).previous = entry.previous;
    else
      from.oldest = entry.previous;
    entry.previous = entry.next = no_entry;
    --from.entries;
    from.units -= entry.units;
    reset(handle, recency_ordered);
  }

  /// `newer` stands where `older` stood.
  void exchange(order& in, entry_handle older, entry_handle newer) noexcept {
    block_entry& from = at(older);
    block_entry& to = at(newer);
    to.previous = std::exchange(from.previous, no_entry);
    to.next = std::exchange(from.next, no_entry);
    (to.previous != no_entry ? at(to.previous).next : in.newest) = newer;
    (to.next != no_entry ? at(to.next).previous : in.oldest) = newer;
    in.units += to.units;
    in.units -= from.units;
    reset(older, recency_ordered);
    set(newer, recency_ordered);
  }

  void renew(order& in, entry_handle handle) noexcept {
    unlink(in, handle);
    push_newest(in, handle);
  }

  /// How many entries that may not go a search passes over before it gives up.
  [[nodiscard]] static std::uint64_t skips_max(std::uint64_t entries) noexcept {
    return std::min<std::uint64_t>(entries, limits::eviction_scan_max);
  }

  void fill(eviction_statistics& to, const order& from) const noexcept {
    to.entries += from.entries;
    to.bytes += from.units * options_.unit_bytes;
  }

  block_index& index_;
  eviction_options options_;
  eviction_statistics counted_;
};

/// One list: first in, first out; and least recently used, by hits told or by second chance.
class list_policy final : public linked_policy {
public:
  list_policy(block_index& index, const eviction_options& options) : linked_policy(index, options) {}

  void inserted(entry_handle entry) override {
    if (belongs(at(entry)))
      push_newest(all_, entry);
  }

  void replaced(entry_handle older, entry_handle newer) override {
    if (!has(older, recency_ordered) || !belongs(at(newer))) {
      removed(older);
      inserted(newer);
      return;
    }
    exchange(all_, older, newer);
    set(newer, recency_touched);
  }

  void removed(entry_handle entry) override {
    if (has(entry, recency_ordered))
      unlink(all_, entry);
  }

  entry_handle victim() override {
    std::uint64_t skips = 0;
    const std::uint64_t most = skips_max(all_.entries);
    while (all_.oldest != no_entry && skips <= most) {
      const entry_handle oldest = all_.oldest;
      ++counted_.looked_at;
      const bool hit = take_hit(oldest);
      if (pinned(oldest)) {
        ++counted_.skipped;
        ++skips;
      } else if (!hit || options_.kind == eviction_kind::fifo) {
        return oldest;
      }
      renew(all_, oldest);
    }
    return no_entry;
  }

  void evicted(entry_handle entry) override { removed(entry); }

  void touched(entry_handle entry) override {
    if (options_.kind == eviction_kind::lru && has(entry, recency_ordered))
      renew(all_, entry);
  }

  [[nodiscard]] eviction_statistics statistics() const noexcept override {
    eviction_statistics result = counted_;
    fill(result, all_);
    return result;
  }

  [[nodiscard]] std::uint64_t memory_bytes() const noexcept override { return sizeof(*this); }

private:
  order all_;
};

/// One list in order of arrival and a hand that wanders from the oldest to the newest and clears hits on its
/// way.
class sieve_policy final : public linked_policy {
public:
  sieve_policy(block_index& index, const eviction_options& options) : linked_policy(index, options) {}

  void inserted(entry_handle entry) override {
    if (belongs(at(entry)))
      push_newest(all_, entry);
  }

  void replaced(entry_handle older, entry_handle newer) override {
    if (!has(older, recency_ordered) || !belongs(at(newer))) {
      removed(older);
      inserted(newer);
      return;
    }
    exchange(all_, older, newer);
    if (hand_ == older)
      hand_ = newer;
    set(newer, recency_touched);
  }

  void removed(entry_handle entry) override {
    if (!has(entry, recency_ordered))
      return;
    if (hand_ == entry)
      hand_ = at(entry).previous;
    unlink(all_, entry);
  }

  entry_handle victim() override {
    std::uint64_t skips = 0;
    const std::uint64_t most = skips_max(all_.entries);
    while (all_.oldest != no_entry && skips <= most) {
      if (hand_ == no_entry)
        hand_ = all_.oldest;
      ++counted_.looked_at;
      const bool hit = take_hit(hand_);
      if (pinned(hand_)) {
        ++counted_.skipped;
        ++skips;
      } else if (!hit) {
        return hand_;
      }
      hand_ = at(hand_).previous;
    }
    return no_entry;
  }

  void evicted(entry_handle entry) override { removed(entry); }

  void touched(entry_handle entry) override { set(entry, recency_touched); }

  [[nodiscard]] eviction_statistics statistics() const noexcept override {
    eviction_statistics result = counted_;
    fill(result, all_);
    return result;
  }

  [[nodiscard]] std::uint64_t memory_bytes() const noexcept override { return sizeof(*this); }

private:
  order all_;
  entry_handle hand_ = no_entry;
};

/// New blocks are on probation; a hit, or coming back soon after an eviction, moves them to the protected
/// segment. What that pushes out gets another turn on probation.
class segmented_policy final : public linked_policy {
public:
  segmented_policy(block_index& index, const eviction_options& options)
      : linked_policy(index, options), ghosts_(options.ghost_factor),
        protected_units_max_(static_cast<std::uint64_t>(
            options.protected_share * static_cast<double>(options.capacity_bytes / options.unit_bytes))) {}

  void inserted(entry_handle entry) override {
    if (!belongs(at(entry)))
      return;
    look_ahead();
    if (ghosts_.take(at(entry).id)) {
      ++counted_.ghost_hits;
      protect(entry);
    } else {
      push_newest(probation_, entry);
    }
  }

  void recovered(entry_handle entry) override {
    // Looking ahead for hits would cost more than all the rest.
    if (belongs(at(entry)))
      push_newest(probation_, entry);
  }

  void replaced(entry_handle older, entry_handle newer) override {
    if (!has(older, recency_ordered) || !belongs(at(newer))) {
      removed(older);
      inserted(newer);
      return;
    }
    exchange(segment(older), older, newer);
    if (hand_ == older)
      hand_ = newer;
    if (has(older, recency_protected))
      set(newer, recency_protected);
    reset(older, recency_protected);
    set(newer, recency_touched);
    shrink();
  }

  void removed(entry_handle entry) override {
    if (!has(entry, recency_ordered))
      return;
    take_out(entry);
    reset(entry, recency_protected);
  }

  entry_handle victim() override {
    std::uint64_t skips = 0;
    const std::uint64_t most = skips_max(probation_.entries + protected_.entries);
    while (skips <= most) {
      order& from = probation_.entries != 0 ? probation_ : protected_;
      const entry_handle oldest = from.oldest;
      if (oldest == no_entry)
        return no_entry;
      ++counted_.looked_at;
      if (pinned(oldest)) {
        // Somebody reads it at this moment, which its recency bit, left as it is, will tell at the next look.
        ++counted_.skipped;
        ++skips;
        take_out(oldest);
        push_newest(from, oldest);
        // A segment in which everything is pinned must not hide the other one.
        if (&from == &probation_ && skips >= probation_.entries && protected_.entries != 0)
          demote_oldest();
        continue;
      }
      if (!take_hit(oldest))
        return oldest;
      take_out(oldest);
      protect(oldest);
    }
    return no_entry;
  }

  void evicted(entry_handle entry) override {
    const std::uint64_t held = probation_.entries + protected_.entries;
    ghosts_.remember(at(entry).id, held);
    removed(entry);
  }

  void touched(entry_handle entry) override {
    if (!has(entry, recency_ordered))
      return;
    take_out(entry);
    protect(entry);
  }

  [[nodiscard]] eviction_statistics statistics() const noexcept override {
    eviction_statistics result = counted_;
    fill(result, probation_);
    fill(result, protected_);
    result.protected_entries = protected_.entries;
    result.protected_bytes = protected_.units * options_.unit_bytes;
    return result;
  }

  [[nodiscard]] std::uint64_t memory_bytes() const noexcept override {
    return sizeof(*this) + ghosts_.memory_bytes();
  }

private:
  /// Second chances given in one go: bounds the work of one insertion.
  static constexpr std::uint32_t chances_max = 64;
  /// On the public conversation trace at 10 % of its blocks: none .2900, 4 .2913, 16 .2921, hits told at once
  /// .2922.
  static constexpr std::uint32_t steps_per_insertion = 4;

  [[nodiscard]] order& segment(entry_handle entry) noexcept {
    return has(entry, recency_protected) ? protected_ : probation_;
  }

  /// A hand goes over both segments all the time, from the oldest to the newest entry, a few steps for each
  /// insertion, and moves those that were hit. So a hit counts after a fraction of a turn of the cache, not
  /// only at the end of the list, which brings the order close to that of hits told at once.
  void look_ahead() noexcept {
    for (std::uint32_t steps = 0; steps < steps_per_insertion; ++steps) {
      if (hand_ == no_entry) {
        hand_in_protected_ = !hand_in_protected_;
        hand_ = (hand_in_protected_ ? protected_ : probation_).oldest;
        if (hand_ == no_entry)
          continue;
      }
      const entry_handle here = hand_;
      hand_ = at(here).previous;
      ++counted_.looked_ahead;
      if (take_hit(here)) {
        take_out(here);
        protect(here);
      }
    }
  }

  void take_out(entry_handle entry) noexcept {
    if (hand_ == entry)
      hand_ = at(entry).previous;
    unlink(segment(entry), entry);
  }

  /// An entry that stands in no segment.
  void protect(entry_handle entry) noexcept {
    set(entry, recency_protected);
    push_newest(protected_, entry);
    shrink();
  }

  void demote_oldest() noexcept {
    const entry_handle oldest = protected_.oldest;
    take_out(oldest);
    reset(oldest, recency_protected);
    push_newest(probation_, oldest);
  }

  void shrink() noexcept {
    for (std::uint32_t chances = 0; protected_.units > protected_units_max_;) {
      if (chances < chances_max && take_hit(protected_.oldest)) {
        ++chances;
        const entry_handle oldest = protected_.oldest;
        take_out(oldest);
        push_newest(protected_, oldest);
      } else {
        demote_oldest();
      }
    }
  }

  ghost_list ghosts_;
  std::uint64_t protected_units_max_ = 0;
  order probation_;
  order protected_;
  entry_handle hand_ = no_entry; // the next entry to look at; none: at the end of a segment
  bool hand_in_protected_ = false;
};

constexpr std::pair<eviction_kind, std::string_view> names[] = {
    {eviction_kind::fifo, "fifo"},
    {eviction_kind::lru, "lru"},
    {eviction_kind::sieve, "sieve"},
    {eviction_kind::slru, "slru"},
};

} // namespace

std::string_view name(eviction_kind kind) noexcept {
  for (const auto& [known, text] : names)
    if (known == kind)
      return text;
  return "unknown";
}

std::optional<eviction_kind> eviction_kind_from_name(std::string_view text) noexcept {
  for (const auto& [kind, known] : names)
    if (known == text)
      return kind;
  return std::nullopt;
}

std::unique_ptr<eviction_policy> make_eviction_policy(block_index& index, const eviction_options& options) {
  MEMKV_ASSERT(options.unit_bytes > 0, "a unit has bytes");
  switch (options.kind) {
  case eviction_kind::fifo:
  case eviction_kind::lru:
    return std::make_unique<list_policy>(index, options);
  case eviction_kind::sieve:
    return std::make_unique<sieve_policy>(index, options);
  case eviction_kind::slru:
    break;
  }
  return std::make_unique<segmented_policy>(index, options);
}

} // namespace memkv::engine
