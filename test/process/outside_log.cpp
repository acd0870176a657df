#include "test/process/outside_log.hpp"

#include <algorithm>
#include <cstring>
#include <sstream>

namespace memkv::test {

namespace {

std::uint64_t mixed(std::uint64_t state) {
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EBU;
  return state ^ (state >> 31);
}

std::uint64_t seed_of(std::uint32_t key, const version& which) {
  return mixed(mixed(key + 1) + which.number * 0x9E3779B97F4A7C15U);
}

std::uint64_t word(std::uint64_t seed, std::size_t index) {
  const std::uint64_t state = (seed + index) * 0x9E3779B97F4A7C15U;
  return state ^ (state >> 29);
}

} // namespace

void fill(std::uint32_t key, const version& which, std::span<std::byte> out) {
  const auto seed = seed_of(key, which);
  std::size_t at = 0;
  for (; at + 8 <= out.size(); at += 8) {
    const auto value = word(seed, at / 8);
    std::memcpy(out.data() + at, &value, 8);
  }
  if (const auto value = word(seed, at / 8); at < out.size())
    std::memcpy(out.data() + at, &value, out.size() - at);
}

std::ptrdiff_t first_difference(std::uint32_t key, const version& which, std::span<const std::byte> bytes) {
  const auto seed = seed_of(key, which);
  for (std::size_t at = 0; at < bytes.size(); at += 8) {
    const auto value = word(seed, at / 8);
    const auto count = std::min<std::size_t>(8, bytes.size() - at);
    if (std::memcmp(bytes.data() + at, &value, count) != 0)
      return static_cast<std::ptrdiff_t>(at);
  }
  return -1;
}

outside_log::outside_log(std::uint32_t keys, bool may_forget) : records_(keys), may_forget_(may_forget) {
  for (auto& each : records_)
    each.history.push_back({});
}

version outside_log::begin(std::uint32_t key, bool is_put, std::size_t bytes) {
  auto& each = records_[key];
  std::lock_guard guard{each.lock};
  each.history.push_back({each.next_number++, is_put, bytes});
  return each.history.back();
}

version outside_log::begin_put(std::uint32_t key, std::size_t bytes) {
  return begin(key, true, bytes);
}

version outside_log::begin_remove(std::uint32_t key) {
  return begin(key, false, 0);
}

void outside_log::acknowledge(std::uint32_t key, const version& which) {
  auto& each = records_[key];
  std::lock_guard guard{each.lock};
  for (std::size_t at = each.history.size(); at-- > 0;)
    if (each.history[at].number == which.number) {
      each.acknowledged = at;
      break;
    }
  ++each.count;
}

void outside_log::withdraw(std::uint32_t key, const version& which) {
  auto& each = records_[key];
  std::lock_guard guard{each.lock};
  std::erase_if(each.history, [&](const version& one) { return one.number == which.number; });
}

void outside_log::lose(std::uint32_t key) {
  std::lock_guard guard{records_[key].lock};
  records_[key].lost = true;
}

bool outside_log::is_lost(std::uint32_t key) const {
  std::lock_guard guard{records_[key].lock};
  return records_[key].lost;
}

version outside_log::acknowledged(std::uint32_t key) const {
  const auto& each = records_[key];
  std::lock_guard guard{each.lock};
  return each.history[each.acknowledged];
}

std::string outside_log::check_read(std::uint32_t key, const version& since, bool present,
                                    std::span<const std::byte> bytes) const {
  std::vector<version> right;
  {
    const auto& each = records_[key];
    std::lock_guard guard{each.lock};
    for (auto one = each.history.rbegin(); one != each.history.rend() && one->number >= since.number; ++one)
      right.push_back(*one);
  }
  if (!present && may_forget_)
    return {};
  for (const auto& one : right)
    if (one.is_put == present &&
        (!present || (one.bytes == bytes.size() && first_difference(key, one, bytes) < 0)))
      return {};
  return describe(key, right, present, bytes);
}

std::string outside_log::settle(std::uint32_t key, bool present, std::span<const std::byte> bytes) {
  auto problem = check_read(key, acknowledged(key), present, bytes);
  auto& each = records_[key];
  std::lock_guard guard{each.lock};
  each.lost = false;
  if (!problem.empty())
    return problem;
  // A forgotten block says nothing about which version it was.
  if (!present && may_forget_)
    return {};
  for (std::size_t at = each.acknowledged; at < each.history.size(); ++at) {
    const auto one = each.history[at];
    if (one.is_put == present &&
        (!present || (one.bytes == bytes.size() && first_difference(key, one, bytes) < 0))) {
      each.history = {one};
      each.acknowledged = 0;
      break;
    }
  }
  return {};
}

std::uint64_t outside_log::acknowledgements() const {
  std::uint64_t sum = 0;
  for (const auto& each : records_) {
    std::lock_guard guard{each.lock};
    sum += each.count;
  }
  return sum;
}

std::uint64_t outside_log::present() const {
  std::uint64_t sum = 0;
  for (const auto& each : records_) {
    std::lock_guard guard{each.lock};
    sum += each.history[each.acknowledged].is_put ? 1 : 0;
  }
  return sum;
}

std::string outside_log::describe(std::uint32_t key, const std::vector<version>& right, bool present,
                                  std::span<const std::byte> bytes) const {
  std::ostringstream out;
  out << name(key) << ": ";
  if (present)
    out << bytes.size() << " bytes were read";
  else
    out << "nothing was found";
  out << "; right would be";
  for (const auto& one : right) {
    out << (&one == right.data() ? " " : ", or ") << "version " << one.number << " (";
    if (!one.is_put) {
      out << "absent)";
      continue;
    }
    out << one.bytes << " bytes";
    if (present && one.bytes == bytes.size())
      out << ", differs from byte " << first_difference(key, one, bytes);
    out << ")";
  }
  if (!present || bytes.empty())
    return out.str();
  // Whose bytes are they? An older version, or another key's: that says where to look.
  for (std::uint32_t other = 0; other < keys(); ++other) {
    std::uint64_t last = 0;
    {
      std::lock_guard guard{records_[other].lock};
      last = records_[other].next_number;
    }
    for (std::uint64_t number = 1; number < last; ++number)
      if (first_difference(other, {number, true, bytes.size()},
                           bytes.first(std::min<std::size_t>(16, bytes.size()))) < 0) {
        out << "; they begin as version " << number << " of " << name(other);
        return out.str();
      }
  }
  return out.str();
}

} // namespace memkv::test
