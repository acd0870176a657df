// Little-endian loads and stores, and bounds-checked cursors over bytes that somebody else sent.
//
// Threading: free functions are pure; a cursor belongs to one thread.
// Ownership: cursors and the spans they return are views; the bytes must outlive them.
// Errors: a cursor that would leave its span does not move, returns zeros or an empty span, and stays failed.
// Does not: know any format, allocate, or interpret text.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace memkv::wire {

using bytes_view = std::span<const std::byte>;
using bytes_span = std::span<std::byte>;

static_assert(std::endian::native == std::endian::little || std::endian::native == std::endian::big,
              "mixed-endian machines are not supported");

namespace detail {

template <std::unsigned_integral T>
constexpr T byte_swapped(T value) noexcept {
  T swapped = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    swapped = static_cast<T>((swapped << 7 << 1) | (value & 0xFFU));
    value = static_cast<T>(value >> 7 >> 1);
  }
  return swapped;
}

} // namespace detail

/// Reads sizeof(T) bytes at `from`, at any alignment.
template <std::unsigned_integral T>
[[nodiscard]] inline T load_le(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof(T));
  if constexpr (std::endian::native == std::endian::big)
    value = detail::byte_swapped(value);
  return value;
}

/// Writes sizeof(T) bytes at `to`, at any alignment.
template <std::unsigned_integral T>
inline void store_le(std::byte* to, T value) noexcept {
  if constexpr (std::endian::native == std::endian::big)
    value = detail::byte_swapped(value);
  std::memcpy(to, &value, sizeof(T));
}

[[nodiscard]] inline bytes_view as_bytes_view(std::string_view text) noexcept {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

[[nodiscard]] inline std::string_view as_text(bytes_view bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// True when every byte is zero: how reserved fields are checked.
[[nodiscard]] inline bool all_zero(bytes_view bytes) noexcept {
  std::size_t i = 0;
  std::uint64_t seen = 0;
  for (; i + 8 <= bytes.size(); i += 8)
    seen |= load_le<std::uint64_t>(bytes.data() + i);
  for (; i < bytes.size(); ++i)
    seen |= std::to_integer<std::uint64_t>(bytes[i]);
  return seen == 0;
}

/// Reads from the front of a span. After the first read behind the end `failed()` stays true.
class byte_reader {
public:
  explicit byte_reader(bytes_view bytes) noexcept : rest_(bytes) {}

  template <std::unsigned_integral T>
  [[nodiscard]] T read() noexcept {
    if (rest_.size() < sizeof(T)) {
      fail();
      return 0;
    }
    const T value = load_le<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }

  /// The next `size` bytes, or an empty span.
  [[nodiscard]] bytes_view read_bytes(std::size_t size) noexcept {
    if (rest_.size() < size) {
      fail();
      return {};
    }
    const bytes_view taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }

  /// Skips `size` bytes that must be zero; anything else is a failure.
  void read_zeros(std::size_t size) noexcept {
    if (!all_zero(read_bytes(size)))
      fail();
  }

  [[nodiscard]] std::size_t remaining() const noexcept { return rest_.size(); }
  [[nodiscard]] bool failed() const noexcept { return failed_; }
  /// Everything was there and nothing is left over.
  [[nodiscard]] bool finished() const noexcept { return !failed_ && rest_.empty(); }

private:
  void fail() noexcept {
    failed_ = true;
    rest_ = {};
  }

  bytes_view rest_;
  bool failed_ = false;
};

/// Writes to the front of a span. After the first write behind the end `failed()` stays true.
class byte_writer {
public:
  explicit byte_writer(bytes_span bytes) noexcept : begin_(bytes.data()), rest_(bytes) {}

  template <std::unsigned_integral T>
  void write(T value) noexcept {
    if (rest_.size() < sizeof(T)) {
      fail();
      return;
    }
    store_le(rest_.data(), value);
    rest_ = rest_.subspan(sizeof(T));
  }

  void write_bytes(bytes_view bytes) noexcept {
    if (rest_.size() < bytes.size()) {
      fail();
      return;
    }
    if (!bytes.empty())
      std::memcpy(rest_.data(), bytes.data(), bytes.size());
    rest_ = rest_.subspan(bytes.size());
  }

  void write_zeros(std::size_t size) noexcept {
    if (rest_.size() < size) {
      fail();
      return;
    }
    if (size != 0)
      std::memset(rest_.data(), 0, size);
    rest_ = rest_.subspan(size);
  }

  [[nodiscard]] std::size_t written() const noexcept {
    return failed_ ? 0 : static_cast<std::size_t>(rest_.data() - begin_);
  }
  [[nodiscard]] std::size_t remaining() const noexcept { return rest_.size(); }
  [[nodiscard]] bool failed() const noexcept { return failed_; }
  /// Everything fitted and the span is full.
  [[nodiscard]] bool finished() const noexcept { return !failed_ && rest_.empty(); }

private:
  void fail() noexcept {
    failed_ = true;
    rest_ = {};
  }

  std::byte* begin_;
  bytes_span rest_;
  bool failed_ = false;
};

} // namespace memkv::wire
