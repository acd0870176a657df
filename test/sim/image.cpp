#include "test/sim/image.hpp"

#include "wire/assert.hpp"

#include <algorithm>
#include <cstring>

namespace memkv::sim {

image::image(std::uint64_t size_bytes)
    : size_(size_bytes), pages_((size_bytes + page_bytes - 1) / page_bytes) {}

void image::read(std::uint64_t offset, std::span<std::byte> to) const {
  MEMKV_ASSERT(offset <= size_ && to.size() <= size_ - offset, "a read lies on the image");
  while (!to.empty()) {
    const std::uint64_t within = offset % page_bytes;
    const std::size_t count = std::min<std::uint64_t>(to.size(), page_bytes - within);
    if (const auto& from = pages_[offset / page_bytes])
      std::memcpy(to.data(), from->data() + within, count);
    else
      std::memset(to.data(), 0, count);
    to = to.subspan(count);
    offset += count;
  }
}

void image::write(std::uint64_t offset, std::span<const std::byte> from) {
  MEMKV_ASSERT(offset <= size_ && from.size() <= size_ - offset, "a write lies on the image");
  while (!from.empty()) {
    const std::uint64_t within = offset % page_bytes;
    const std::size_t count = std::min<std::uint64_t>(from.size(), page_bytes - within);
    auto& to = pages_[offset / page_bytes];
    if (!to)
      to = std::make_shared<page>(page_bytes);
    else if (to.use_count() > 1)
      to = std::make_shared<page>(*to);
    std::memcpy(to->data() + within, from.data(), count);
    from = from.subspan(count);
    offset += count;
  }
}

void image::flip_bit(std::uint64_t offset, unsigned bit) {
  std::byte value{};
  read(offset, {&value, 1});
  value ^= std::byte{1} << (bit % 8);
  write(offset, {&value, 1});
}

void image::change_byte(std::uint64_t offset, random& chance) {
  std::byte value{};
  read(offset, {&value, 1});
  value ^= static_cast<std::byte>(1 + chance.below(255));
  write(offset, {&value, 1});
}

void image::scramble(std::uint64_t offset, std::uint64_t length, random& chance) {
  std::vector<std::byte> noise(length);
  for (std::byte& value : noise)
    value = static_cast<std::byte>(chance.next());
  write(offset, noise);
}

void image::fill(std::uint64_t offset, std::uint64_t length, std::byte value) {
  write(offset, std::vector<std::byte>(length, value));
}

void image::copy_from(const image& source, std::uint64_t source_offset, std::uint64_t offset,
                      std::uint64_t length) {
  std::vector<std::byte> moved(length);
  source.read(source_offset, moved);
  write(offset, moved);
}

std::vector<std::byte> image::bytes() const {
  std::vector<std::byte> all(size_);
  read(0, all);
  return all;
}

bool operator==(const image& a, const image& b) {
  if (a.size_ != b.size_)
    return false;
  std::vector<std::byte> left(image::page_bytes), right(image::page_bytes);
  for (std::size_t i = 0; i < a.pages_.size(); ++i) {
    if (a.pages_[i] == b.pages_[i])
      continue;
    const std::uint64_t offset = i * image::page_bytes;
    const std::size_t count = std::min(image::page_bytes, a.size_ - offset);
    a.read(offset, std::span(left).first(count));
    b.read(offset, std::span(right).first(count));
    if (!std::equal(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(count), right.begin()))
      return false;
  }
  return true;
}

} // namespace memkv::sim
