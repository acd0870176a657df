#include "test/sim/empty_puts.hpp"

#include "wire/assert.hpp"
#include "wire/bytes.hpp"
#include "wire/crc32c.hpp"

#include <algorithm>

namespace memkv::sim {

using engine::errc;

namespace {

/// Polls without any effect after which a store is said not to get on.
constexpr int idle_polls_max = 10'000;

std::vector<std::byte> zeros(engine::chunk_bytes);

std::uint32_t sum_of_zeros(std::uint32_t length) {
  return wire::crc32c(std::span(zeros).first(length));
}

std::uint32_t parts_of(std::uint64_t length, std::uint32_t extent_bytes_max) {
  return static_cast<std::uint32_t>(
      std::max<std::uint64_t>(1, (length + extent_bytes_max - 1) / extent_bytes_max));
}

} // namespace

struct empty_puts::value {
  std::string key;
  engine::key_id id;
  std::uint64_t length = 0;
  std::uint64_t put_id = 0;
  std::uint32_t parts = 1;
  std::uint64_t head_token = 0;

  [[nodiscard]] engine::key_id part_id(std::uint32_t part) const {
    return part == 0 ? id : engine::part_id(id, put_id, part);
  }
  [[nodiscard]] std::uint32_t part_length(std::uint32_t part, std::uint32_t extent_bytes_max) const {
    const std::uint64_t begin = std::uint64_t{part} * extent_bytes_max;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(extent_bytes_max, length - begin));
  }
};

empty_puts::empty_puts(engine::drive_store& store, std::uint32_t extent_bytes_max, std::size_t values_max)
    : store_(store), extent_bytes_max_(extent_bytes_max), values_max_(values_max),
      whole_sum_(sum_of_zeros(engine::chunk_bytes)) {
  for (std::size_t i = 0; i < values_max_; ++i) {
    values_.push_back(std::make_unique<value>());
    free_.push_back(values_.back().get());
  }
}

empty_puts::~empty_puts() = default;

engine::key_id empty_puts::id_of(std::uint64_t number) {
  return wire::make_key_id("", wire::as_bytes_view(std::to_string(number)));
}

std::vector<std::uint32_t> empty_puts::sums(std::uint32_t length) {
  std::vector<std::uint32_t> result(length / engine::chunk_bytes, whole_sum_);
  if (const std::uint32_t rest = length % engine::chunk_bytes; rest != 0) {
    if (rest != known_length_) {
      known_length_ = rest;
      known_sum_ = sum_of_zeros(rest);
    }
    result.push_back(known_sum_);
  }
  return result;
}

bool empty_puts::poll_until_below(std::size_t values) {
  int idle = 0;
  while (values_.size() - free_.size() >= values) {
    idle = store_.poll(false) ? 0 : idle + 1;
    if (idle == idle_polls_max)
      return false;
  }
  return true;
}

bool empty_puts::put(std::uint64_t number, std::uint64_t length) {
  if (!poll_until_below(values_max_))
    return false;
  value& of = *free_.back();
  free_.pop_back();
  of.key = std::to_string(number);
  of.id = wire::make_key_id("", wire::as_bytes_view(of.key));
  of.length = length;
  of.parts = parts_of(length, extent_bytes_max_);
  of.put_id = of.parts > 1 ? ++last_put_id_ : 0;
  allocate_part(of, 0);
  return true;
}

bool empty_puts::finish() {
  return poll_until_below(1);
}

void empty_puts::allocate_part(value& of, std::uint32_t part) {
  engine::put_description what;
  what.id = of.part_id(part);
  what.key = wire::as_bytes_view(of.key);
  what.length = of.part_length(part, extent_bytes_max_);
  what.value_length = of.length;
  what.part = part;
  what.parts = of.parts;
  what.put_id = of.put_id;
  store_.allocate(what, [this, &of, part](errc result, const engine::reservation& space) {
    if (result == errc::ok) {
      part_allocated(of, part, space.token);
      return;
    }
    if (part > 0)
      store_.abandon(of.head_token);
    for (std::uint32_t prepared = 1; prepared < part; ++prepared)
      store_.erase(of.part_id(prepared), 0, [](errc) {});
    end(of, result);
  });
}

void empty_puts::part_allocated(value& of, std::uint32_t part, std::uint64_t token) {
  const auto next = [this, &of, part](errc result) {
    if (result != errc::ok) {
      store_.abandon(of.head_token);
      end(of, result);
    } else if (part + 1 < of.parts) {
      allocate_part(of, part + 1);
    } else {
      store_.commit(of.head_token, sums(of.part_length(0, extent_bytes_max_)), false, 0,
                    [this, &of](errc committed, std::uint64_t) { end(of, committed); });
    }
  };
  if (part > 0) {
    store_.prepare(token, sums(of.part_length(part, extent_bytes_max_)), next);
    return;
  }
  of.head_token = token;
  next(errc::ok);
}

void empty_puts::end(value& of, errc result) {
  if (result == errc::ok) {
    ++stored_;
  } else {
    if (refused_++ == 0)
      first_refusal_ = result;
  }
  free_.push_back(&of);
}

std::uint64_t useful_bytes(engine::drive_store& store, std::uint32_t extent_bytes_max, std::uint64_t& torn) {
  torn = 0;
  std::uint64_t bytes = 0;
  const engine::block_index& index = store.index();
  engine::key_id highest;
  highest.bytes.fill(std::byte{0xFF});
  index.visit(engine::key_id{}, highest, [&](engine::entry_handle handle) {
    const engine::block_entry& entry = index.at(handle);
    if ((entry.flags & engine::entry_part) != 0)
      return;
    bool whole = true;
    for (std::uint32_t part = 1; part < parts_of(entry.value_length, extent_bytes_max); ++part)
      whole = whole && index.find(engine::part_id(entry.id, entry.put_id, part)) != engine::no_entry;
    if (whole)
      bytes += entry.value_length;
    else
      ++torn;
  });
  return bytes;
}

} // namespace memkv::sim
