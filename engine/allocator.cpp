#include "engine/allocator.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <bit>

namespace memkv::engine {

namespace {

constexpr std::uint64_t all_ones = ~std::uint64_t{0};

/// Bits first ... first + count - 1 of a word; count is 1 ... 64.
constexpr std::uint64_t bits(std::uint32_t first, std::uint32_t count) noexcept {
  return all_ones >> (64 - count) << first;
}

/// Calls function(word position, mask) for each word that the run touches.
template <class Function>
void for_each_word(run what, Function&& function) {
  std::uint32_t unit = what.first_unit;
  std::uint32_t left = what.units;
  while (left > 0) {
    const std::uint32_t bit = unit % 64;
    const std::uint32_t count = std::min(left, 64 - bit);
    function(unit / 64, bits(bit, count));
    unit += count;
    left -= count;
  }
}

/// How many free pieces an allocation looks at before it stops hoping for a contiguous one.
constexpr std::uint32_t pieces_seen_max = 1024;

} // namespace

unit_allocator::unit_allocator(std::uint32_t units) : units_(units), free_units_(units) {
  MEMKV_ASSERT(units > 0 && units <= limits::units_max, "a drive has 1 to units_max units");
  words_.resize((std::size_t{units} + 63) / 64);
  if (units % 64 != 0)
    words_.back() = all_ones << (units % 64);
  full_.resize((words_.size() + 63) / 64);
  // Words that do not exist count as full, so that a search runs over them.
  if (words_.size() % 64 != 0)
    full_.back() = all_ones << (words_.size() % 64);
  zone_free_.resize((words_.size() + zone_words - 1) / zone_words);
  for (std::size_t zone = 0; zone < zone_free_.size(); ++zone)
    zone_free_[zone] =
        std::min<std::uint32_t>(zone_words * 64, units - static_cast<std::uint32_t>(zone) * zone_words * 64);
}

void unit_allocator::take(run what) noexcept {
  for_each_word(what, [&](std::uint32_t position, std::uint64_t mask) {
    MEMKV_ASSERT((words_[position] & mask) == 0, "a unit is taken once");
    words_[position] |= mask;
    if (words_[position] == all_ones)
      full_[position / 64] |= std::uint64_t{1} << (position % 64);
    zone_free_[position / zone_words] -= static_cast<std::uint32_t>(std::popcount(mask));
  });
  free_units_ -= what.units;
}

void unit_allocator::give(run what) noexcept {
  for_each_word(what, [&](std::uint32_t position, std::uint64_t mask) {
    MEMKV_ASSERT((words_[position] & mask) == mask, "only a taken unit is freed");
    words_[position] &= ~mask;
    full_[position / 64] &= ~(std::uint64_t{1} << (position % 64));
    zone_free_[position / zone_words] += static_cast<std::uint32_t>(std::popcount(mask));
  });
  free_units_ += what.units;
}

/// The first free unit in from ... end - 1, or end.
std::uint32_t unit_allocator::find_free(std::uint32_t from, std::uint32_t end) const noexcept {
  if (from >= end)
    return end;
  std::size_t position = from / 64;
  const std::uint64_t here = ~words_[position] & all_ones << (from % 64);
  if (here != 0)
    return std::min(end, static_cast<std::uint32_t>(position * 64) +
                             static_cast<std::uint32_t>(std::countr_zero(here)));
  ++position;
  const std::size_t position_end = (std::size_t{end} + 63) / 64;
  while (position < position_end) {
    const std::size_t zone = position / zone_words;
    if (zone_free_[zone] == 0) {
      position = (zone + 1) * zone_words;
      continue;
    }
    const std::uint64_t open = ~full_[position / 64] & all_ones << (position % 64);
    if (open == 0) {
      position = (position / 64 + 1) * 64;
      continue;
    }
    position = position / 64 * 64 + static_cast<std::size_t>(std::countr_zero(open));
    if (position >= position_end)
      return end;
    const auto bit = static_cast<std::uint32_t>(std::countr_one(words_[position]));
    return std::min<std::uint64_t>(end, position * 64 + bit);
  }
  return end;
}

/// How many units from `from` on are free, before `end`, and no more than `enough`.
std::uint32_t unit_allocator::run_length(std::uint32_t from, std::uint32_t end,
                                         std::uint32_t enough) const noexcept {
  const std::uint32_t most = std::min(enough, end - from);
  std::uint32_t length = 0;
  while (length < most) {
    const std::uint32_t unit = from + length;
    const std::uint32_t left_in_word = 64 - unit % 64;
    const auto open = std::min(
        left_in_word, static_cast<std::uint32_t>(std::countr_zero(words_[unit / 64] >> (unit % 64))));
    length += open;
    if (open < left_in_word)
      break;
  }
  return std::min(length, most);
}

/// How many units right before `unit` are free, and no more than `enough`.
std::uint32_t unit_allocator::run_before(std::uint32_t unit, std::uint32_t enough) const noexcept {
  const std::uint32_t most = std::min(enough, unit);
  std::uint32_t length = 0;
  while (length < most) {
    const std::uint32_t last = unit - length - 1;
    const std::uint32_t left_in_word = last % 64 + 1;
    const auto open = std::min(
        left_in_word, static_cast<std::uint32_t>(std::countl_zero(words_[last / 64] << (64 - left_in_word))));
    length += open;
    if (open < left_in_word)
      break;
  }
  return std::min(length, most);
}

errc unit_allocator::allocate(std::uint32_t units, std::uint32_t runs_max, std::vector<run>& out) {
  MEMKV_ASSERT(units > 0, "an allocation has at least one unit");
  MEMKV_ASSERT(runs_max > 0 && runs_max <= limits::runs_max, "an extent has 1 to runs_max pieces");
  out.clear();
  if (units > free_units_)
    return errc::no_space;
  if (refused_units_ != 0 && units >= refused_units_ && runs_max <= refused_runs_)
    return errc::no_space;

  // The largest pieces seen, as a heap with the smallest of them on top.
  const auto larger = [](const run& a, const run& b) { return a.units > b.units; };
  std::uint64_t collected = 0;
  std::uint32_t seen = 0;
  const auto stretch = [&](std::uint32_t from, std::uint32_t end) {
    while ((from = find_free(from, end)) < end) {
      const run piece{from, run_length(from, end, units)};
      if (piece.units == units) {
        out.assign(1, piece);
        return true;
      }
      from += piece.units;
      if (out.size() == runs_max) {
        if (piece.units > out.front().units) {
          collected -= out.front().units;
          std::pop_heap(out.begin(), out.end(), larger);
          out.back() = piece;
          std::push_heap(out.begin(), out.end(), larger);
          collected += piece.units;
        }
      } else {
        out.push_back(piece);
        std::push_heap(out.begin(), out.end(), larger);
        collected += piece.units;
      }
      if (++seen >= pieces_seen_max && collected >= units)
        return true;
    }
    return false;
  };
  // A free piece that begins before the cursor is taken from its beginning, so that it is seen whole.
  const std::uint32_t start = cursor_ - run_before(cursor_, units);
  if (!stretch(start, units_) && !stretch(0, start) && collected < units) {
    out.clear();
    // Remembered, so that a drive in many pieces is not searched from end to end again before enough was
    // freed.
    refused_missing_ = units - collected;
    refused_units_ = units;
    refused_runs_ = runs_max;
    return errc::no_space;
  }

  if (out.front().units < units) {
    // As few pieces as will do, the largest first; the last one is cut. Then by position, so that the extent
    // is read in one direction.
    std::sort(out.begin(), out.end(), [](const run& a, const run& b) {
      return a.units != b.units ? a.units > b.units : a.first_unit < b.first_unit;
    });
    std::uint32_t left = units;
    std::size_t count = 0;
    for (; left > 0; ++count) {
      out[count].units = std::min(out[count].units, left);
      left -= out[count].units;
    }
    out.resize(count);
    std::sort(out.begin(), out.end(), [](const run& a, const run& b) { return a.first_unit < b.first_unit; });
  }
  for (const run& piece : out)
    take(piece);
  cursor_ = out.back().first_unit + out.back().units;
  if (cursor_ == units_)
    cursor_ = 0;
  return errc::ok;
}

void unit_allocator::free(run what) {
  if (reuse_first_)
    cursor_ = what.first_unit;
  MEMKV_ASSERT(what.units > 0 && std::uint64_t{what.first_unit} + what.units <= units_,
               "a run lies on the drive");
  give(what);
  if (refused_units_ == 0)
    return;
  // Pieces that suffice can have grown by the piece that this run is part of now, and by no more.
  const std::uint64_t piece = std::uint64_t{run_before(what.first_unit, refused_units_)} +
                              run_length(what.first_unit, units_, refused_units_);
  refused_missing_ -= std::min(refused_missing_, piece);
  if (refused_missing_ == 0)
    refused_units_ = refused_runs_ = 0;
}

bool unit_allocator::mark(run what) {
  if (!is_free(what))
    return false;
  take(what);
  return true;
}

bool unit_allocator::is_taken(std::uint32_t unit) const noexcept {
  MEMKV_ASSERT(unit < units_, "a unit lies on the drive");
  return (words_[unit / 64] >> (unit % 64) & 1) != 0;
}

bool unit_allocator::is_free(run what) const noexcept {
  if (what.units == 0 || std::uint64_t{what.first_unit} + what.units > units_)
    return false;
  return run_length(what.first_unit, units_, what.units) == what.units;
}

std::uint64_t unit_allocator::word(std::size_t position) const noexcept {
  const std::uint64_t value = words_[position];
  if (position + 1 == words_.size() && units_ % 64 != 0)
    return value & ~(all_ones << (units_ % 64));
  return value;
}

bool unit_allocator::load_words(std::size_t position, std::span<const std::uint64_t> words) {
  if (position > words_.size() || words.size() > words_.size() - position)
    return false;
  const bool reaches_end = !words.empty() && position + words.size() == words_.size() && units_ % 64 != 0;
  const std::uint64_t outside = reaches_end ? all_ones << (units_ % 64) : 0;
  if (reaches_end && (words.back() & outside) != 0)
    return false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t at = position + i;
    std::uint64_t value = words[i];
    if (reaches_end && i + 1 == words.size())
      value |= outside;
    const auto freed = static_cast<std::uint32_t>(std::popcount(words_[at] & ~value));
    const auto taken = static_cast<std::uint32_t>(std::popcount(value & ~words_[at]));
    free_units_ += freed - taken;
    zone_free_[at / zone_words] += freed - taken;
    words_[at] = value;
    const std::uint64_t bit = std::uint64_t{1} << (at % 64);
    full_[at / 64] = value == all_ones ? full_[at / 64] | bit : full_[at / 64] & ~bit;
  }
  refused_units_ = refused_runs_ = 0;
  return true;
}

std::uint64_t unit_allocator::memory_bytes() const noexcept {
  return words_.capacity() * sizeof(std::uint64_t) + full_.capacity() * sizeof(std::uint64_t) +
         zone_free_.capacity() * sizeof(std::uint32_t);
}

header_page_allocator::header_page_allocator(unit_allocator& units, std::uint32_t unit_bytes)
    : units_(units), pages_per_unit_(unit_bytes / limits::header_page_bytes),
      words_per_slot_((pages_per_unit_ + 63) / 64) {
  MEMKV_ASSERT(unit_bytes >= limits::header_page_bytes && unit_bytes % limits::header_page_bytes == 0,
               "a unit holds whole pages");
}

void header_page_allocator::link(std::uint32_t position) noexcept {
  slots_[position].previous = nothing;
  slots_[position].next = partial_;
  if (partial_ != nothing)
    slots_[partial_].previous = position;
  partial_ = position;
}

void header_page_allocator::unlink(std::uint32_t position) noexcept {
  const slot& gone = slots_[position];
  if (gone.previous != nothing)
    slots_[gone.previous].next = gone.next;
  else
    partial_ = gone.next;
  if (gone.next != nothing)
    slots_[gone.next].previous = gone.previous;
}

std::uint32_t header_page_allocator::new_slot(std::uint32_t unit) {
  std::uint32_t position = unused_;
  if (position != nothing) {
    unused_ = slots_[position].next;
  } else {
    position = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back();
    bits_.resize(bits_.size() + words_per_slot_);
  }
  slots_[position].unit = unit;
  slots_[position].used = 0;
  slot_of_unit_.emplace(unit, position);
  return position;
}

errc header_page_allocator::allocate(std::uint32_t& page) {
  if (partial_ == nothing) {
    std::vector<run> unit;
    if (const errc result = units_.allocate(1, 1, unit); result != errc::ok)
      return result;
    link(new_slot(unit.front().first_unit));
  }
  slot& from = slots_[partial_];
  std::uint64_t* const words = &bits_[std::size_t{partial_} * words_per_slot_];
  std::uint32_t position = 0;
  while (words[position] == all_ones)
    ++position;
  const auto bit = static_cast<std::uint32_t>(std::countr_one(words[position]));
  words[position] |= std::uint64_t{1} << bit;
  page = from.unit * pages_per_unit_ + position * 64 + bit;
  ++pages_used_;
  if (++from.used == pages_per_unit_)
    unlink(partial_);
  return errc::ok;
}

void header_page_allocator::free(std::uint32_t page, bool& unit_freed) {
  unit_freed = false;
  MEMKV_ASSERT(is_taken(page), "only a taken page is freed");
  const std::uint32_t unit = page / pages_per_unit_;
  const std::uint32_t bit = page % pages_per_unit_;
  const std::uint32_t position = slot_of_unit_.at(unit);
  slot& of = slots_[position];
  bits_[std::size_t{position} * words_per_slot_ + bit / 64] &= ~(std::uint64_t{1} << (bit % 64));
  --pages_used_;
  if (of.used-- == pages_per_unit_)
    link(position);
  if (of.used > 0)
    return;
  unlink(position);
  of.next = unused_;
  unused_ = position;
  slot_of_unit_.erase(unit);
  units_.free({unit, 1});
  unit_freed = true;
}

bool header_page_allocator::mark(std::uint32_t page, bool unit_is_marked) {
  const std::uint32_t unit = page / pages_per_unit_;
  if (unit >= units_.units())
    return false;
  auto found = slot_of_unit_.find(unit);
  if (found == slot_of_unit_.end()) {
    if (unit_is_marked ? !units_.is_taken(unit) : !units_.mark({unit, 1}))
      return false;
    link(new_slot(unit));
    found = slot_of_unit_.find(unit);
  }
  const std::uint32_t bit = page % pages_per_unit_;
  const std::uint32_t position = found->second;
  std::uint64_t& word = bits_[std::size_t{position} * words_per_slot_ + bit / 64];
  const std::uint64_t mask = std::uint64_t{1} << (bit % 64);
  if ((word & mask) != 0)
    return false;
  word |= mask;
  ++pages_used_;
  if (++slots_[position].used == pages_per_unit_)
    unlink(position);
  return true;
}

bool header_page_allocator::is_taken(std::uint32_t page) const noexcept {
  const auto found = slot_of_unit_.find(page / pages_per_unit_);
  if (found == slot_of_unit_.end())
    return false;
  const std::uint32_t bit = page % pages_per_unit_;
  return (bits_[std::size_t{found->second} * words_per_slot_ + bit / 64] >> (bit % 64) & 1) != 0;
}

std::uint64_t header_page_allocator::memory_bytes() const noexcept {
  // A node of the map: its link and the pair, in the heap's smallest block of 32 bytes; and a bucket pointer.
  return slots_.capacity() * sizeof(slot) + bits_.capacity() * sizeof(std::uint64_t) +
         slot_of_unit_.size() * 32 + slot_of_unit_.bucket_count() * sizeof(void*);
}

} // namespace memkv::engine
