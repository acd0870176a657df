// The cryptography of the protocol: the shared key, frame MACs, session derivation, keyed digests, nonces.
// Normative text: docs/formats/wire.md, sections 4, 6, 8 and 17. In wire/ only auth.cpp uses libcrypto.
//
// Threading: const members may be called from any number of threads; the incremental classes belong to one.
// Ownership: values. Everything derived from a secret is wiped when it dies.
// Errors: parsing returns nothing and says why. Failing of the system's random source stops the program:
// without it no connection can be told from a replay. Does not: encrypt; compare anything secret in a time
// that depends on the secret.
#pragma once

#include "wire/bytes.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace memkv::wire {

using hash32 = std::array<std::byte, 32>;
using nonce = std::array<std::byte, 16>;
using connection_tag = std::array<std::byte, 16>;
using digest16 = std::array<std::byte, 16>;

/// Overwrites bytes in a way that the compiler may not leave out.
void wipe(bytes_span bytes) noexcept;

/// Whether both are equal, in a time that depends on their length only. Different lengths are unequal.
[[nodiscard]] bool equal_in_constant_time(bytes_view a, bytes_view b) noexcept;

/// Fills with bytes nobody can predict.
void fill_random(bytes_span bytes) noexcept;
[[nodiscard]] nonce random_nonce() noexcept;

[[nodiscard]] hash32 sha256(bytes_view bytes) noexcept;

namespace detail {

/// Room for one running SHA-256; its layout is known to auth.cpp only.
struct alignas(8) hash_state {
  std::array<std::byte, 112> opaque{};
};

/// HMAC-SHA256 with the key's two blocks hashed in advance, so that a MAC costs no allocation and no key
/// set-up.
class keyed_hash {
public:
  explicit keyed_hash(bytes_view key) noexcept;
  keyed_hash(const keyed_hash&) noexcept = default;
  keyed_hash& operator=(const keyed_hash&) noexcept = default;
  ~keyed_hash();

  void begin(hash_state& running) const noexcept { running = inner_; }
  static void update(hash_state& running, bytes_view bytes) noexcept;
  [[nodiscard]] hash32 finish(hash_state& running) const noexcept;

private:
  hash_state inner_;
  hash_state outer_;
};

} // namespace detail

/// The 32-byte secret of a fleet.
class shared_key {
public:
  /// From exactly 64 hexadecimal digits of either case. All zeros and anything that repeats itself are
  /// refused: such keys come from examples and slips. `problem`, when given, receives a sentence that never
  /// quotes the text.
  [[nodiscard]] static std::optional<shared_key> parse(std::string_view hex,
                                                       std::string_view* problem = nullptr) noexcept;
  /// A fresh random one, and its 64 digits for the file it is written to.
  [[nodiscard]] static shared_key generate() noexcept;
  [[nodiscard]] std::array<char, 64> hex_digits() const noexcept;

  shared_key(const shared_key&) noexcept = default;
  shared_key& operator=(const shared_key&) noexcept = default;
  ~shared_key() { wipe(bytes_); }

  [[nodiscard]] bytes_view secret_bytes() const noexcept { return bytes_; }

  /// Keys never reach a log or a terminal by accident.
  template <class Stream>
  friend Stream& operator<<(Stream&, const shared_key&) = delete;

private:
  shared_key() noexcept = default;

  hash32 bytes_{};
};

/// Signs and checks frames. One object may serve all connections of a key.
class mac {
public:
  explicit mac(const shared_key& key) noexcept : hash_(key.secret_bytes()) {}

  /// HMAC-SHA256 over header ‖ ts_ns; `header` is the fixed and the variable part.
  [[nodiscard]] hash32 sign(bytes_view header, std::uint64_t ts_ns) const noexcept;
  /// Compares in constant time.
  [[nodiscard]] bool verify(bytes_view header, std::uint64_t ts_ns,
                            std::span<const std::byte, 32> expected) const noexcept;

private:
  detail::keyed_hash hash_;
};

/// What both sides derive from a Hello.
struct session_keys {
  connection_tag tag{};
  hash32 payload_key{};

  session_keys() noexcept = default;
  session_keys(const session_keys&) noexcept = default;
  session_keys& operator=(const session_keys&) noexcept = default;
  ~session_keys() { wipe(payload_key); }
};

[[nodiscard]] session_keys derive_session(const shared_key& key, std::uint8_t version, const nonce& client,
                                          const nonce& server) noexcept;

/// One end of a queue pair, as both sides know it from Connect.
struct queue_pair_end {
  std::uint32_t number = 0;
  std::uint32_t packet_number = 0;
};

/// What the messages of a queue pair carry in the place of the connection's tag: wire.md, section 17.
[[nodiscard]] connection_tag derive_queue_pair_tag(const shared_key& key, const connection_tag& connection,
                                                   const nonce& server_nonce, const queue_pair_end& client,
                                                   const queue_pair_end& server) noexcept;

/// The digest of kind 2, computed as the bytes come. One object a connection; each payload begins anew.
class keyed_digest {
public:
  explicit keyed_digest(bytes_view payload_key) noexcept : hash_(payload_key) {}

  /// `direction` 1 or 2 as in the header; `item_index` is 0 outside batches.
  void begin(std::uint8_t direction, std::uint64_t request_id, std::uint32_t part_number,
             std::uint32_t item_index) noexcept;
  void update(bytes_view bytes) noexcept { detail::keyed_hash::update(running_, bytes); }
  [[nodiscard]] digest16 finish() noexcept;

private:
  detail::keyed_hash hash_;
  detail::hash_state running_;
};

} // namespace memkv::wire
