// The 16-byte name of a block that placement and the index go by, and the namespace (tenant) it includes.
// Normative text: docs/formats/wire.md, section 12.
//
// Threading: values; any thread. Ownership: no pointers inside. Errors: an optional without value.
// Limits: namespaces 0 to 32 bytes, each of A-Z a-z 0-9 . _ - ; keys 1 to 1024 arbitrary bytes.
// Does not: replace the comparison of full keys: the engine stores and compares those too.
#pragma once

#include "wire/bytes.hpp"
#include "wire/limits.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

namespace memkv::wire {

struct key_id {
  std::array<std::byte, 16> bytes{};

  friend bool operator==(const key_id&, const key_id&) noexcept = default;
  friend std::strong_ordering operator<=>(const key_id&, const key_id&) noexcept = default;

  /// The first eight bytes: placement, shards and hash tables go by it. Uniform already, as part of a
  /// SHA-256.
  [[nodiscard]] std::uint64_t head() const noexcept { return load_le<std::uint64_t>(bytes.data()); }
  [[nodiscard]] std::uint64_t tail() const noexcept { return load_le<std::uint64_t>(bytes.data() + 8); }
};

struct key_id_hash {
  [[nodiscard]] std::size_t operator()(const key_id& id) const noexcept { return id.head(); }
};

/// A valid namespace, kept as the field of the header: filled up with zero bytes to 32.
class ns_name {
public:
  /// The default namespace: the empty one.
  ns_name() noexcept = default;

  /// From what a person wrote; nothing when it is too long or has a character that is not allowed.
  [[nodiscard]] static std::optional<ns_name> from_text(std::string_view text) noexcept;
  /// From a received field; nothing when it is malformed.
  [[nodiscard]] static std::optional<ns_name>
  from_field(std::span<const std::byte, limits::namespace_bytes_max> field) noexcept;

  /// Without the filling. A view into this object.
  [[nodiscard]] std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(field_.data()), length_};
  }
  [[nodiscard]] std::span<const std::byte, limits::namespace_bytes_max> field() const noexcept {
    return field_;
  }

  friend bool operator==(const ns_name& a, const ns_name& b) noexcept { return a.field_ == b.field_; }
  friend std::strong_ordering operator<=>(const ns_name& a, const ns_name& b) noexcept {
    return a.field_ <=> b.field_;
  }

private:
  std::array<std::byte, limits::namespace_bytes_max> field_{};
  std::uint8_t length_ = 0;
};

/// The key id: first 16 bytes of SHA-256(length of namespace ‖ namespace ‖ key).
/// `ns` has at most 32 bytes (an invariant of the caller: take it from an ns_name).
[[nodiscard]] key_id make_key_id(std::string_view ns, bytes_view key) noexcept;

} // namespace memkv::wire

template <>
struct std::hash<memkv::wire::key_id> : memkv::wire::key_id_hash {};
