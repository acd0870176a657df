// The variable parts of all messages. Normative text: docs/formats/wire.md, sections 6, 10 and 17.
//
// Every message has encoded_size(), encode(byte_writer&) and a static decode(bytes_view, message&).
// Threading: values; any thread. Ownership: decoded messages are views into the bytes they came from, which
// must outlive them; nothing is copied or allocated. Errors: decode returns ok, bad_request or too_large (a
// key, value or batch above a limit). A variable part of any other length than its message describes is
// bad_request. Nothing else may be used of a message whose decoding failed. A batch is checked as a whole by
// decode; iterating afterwards cannot fail.
#pragma once

#include "wire/auth.hpp"
#include "wire/bytes.hpp"
#include "wire/limits.hpp"
#include "wire/status.hpp"

#include <array>
#include <cstdint>
#include <iterator>
#include <span>

namespace memkv::wire {

/// Ping, Stat's request, the replies of Delete and Ping, and replies with a status other than Ok.
struct empty_message {
  [[nodiscard]] std::size_t encoded_size() const noexcept { return 0; }
  void encode(byte_writer&) const noexcept {}
  [[nodiscard]] static status decode(bytes_view variable, empty_message&) noexcept {
    return variable.empty() ? status::ok : status::bad_request;
  }
};

/// A variable part that is there already, encoded by somebody else.
struct raw_message {
  bytes_view bytes;

  [[nodiscard]] std::size_t encoded_size() const noexcept { return bytes.size(); }
  void encode(byte_writer& out) const noexcept { out.write_bytes(bytes); }
};

// --- opening a connection ---

struct hello_request {
  nonce client_nonce{};
  std::uint8_t highest_version = limits::version;
  std::uint64_t capabilities = 0;

  static constexpr std::size_t size = 32;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, hello_request& out) noexcept;
};

namespace server_capabilities {
inline constexpr std::uint64_t keyed_digest_required = 1;
inline constexpr std::uint64_t rdma = 2;
} // namespace server_capabilities

struct hello_reply {
  nonce client_nonce{};
  nonce server_nonce{};
  std::uint8_t version = limits::version;
  std::array<std::byte, 16> server_id{};
  std::uint64_t capabilities = 0;
  std::uint64_t value_bytes_max = limits::value_bytes_max;
  std::uint32_t header_bytes_max = limits::header_bytes_max;
  std::uint32_t batch_items_max = limits::batch_items_max;
  std::uint32_t batch_payload_bytes_max = limits::batch_payload_bytes_max;
  std::uint32_t part_bytes_max = limits::part_bytes_max;
  std::uint32_t frames_in_flight_max = limits::frames_in_flight_max;
  std::uint32_t idle_timeout_ms = limits::idle_timeout_ms;

  static constexpr std::size_t size = 96;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, hello_reply& out) noexcept;
};

/// The answer to a Hello with any status other than Ok.
struct hello_refusal {
  nonce client_nonce{};

  static constexpr std::size_t size = 16;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept { out.write_bytes(client_nonce); }
  [[nodiscard]] static status decode(bytes_view variable, hello_refusal& out) noexcept;
};

// --- one block ---

/// Lookup, Exists, Delete, TcpPut, TcpDelete.
struct key_request {
  bytes_view key;

  static constexpr std::size_t fixed_size = 8;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, key_request& out) noexcept;
};

/// TcpGet, and an item of TcpBatchGet.
struct get_request {
  std::uint64_t range_offset = 0;
  std::uint64_t range_length = 0; ///< 0: to the end
  std::uint64_t capacity = 0;     ///< 0: any number of bytes
  bytes_view key;

  static constexpr std::size_t fixed_size = 32;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, get_request& out) noexcept;

  // As an item of a batch.
  [[nodiscard]] static status check(const std::byte* at) noexcept {
    return load_le<std::uint16_t>(at + 2) == 0 && load_le<std::uint32_t>(at + 4) == 0 ? status::ok
                                                                                      : status::bad_request;
  }
  [[nodiscard]] static get_request load(const std::byte* at, std::size_t key_length) noexcept {
    return {load_le<std::uint64_t>(at + 8), load_le<std::uint64_t>(at + 16), load_le<std::uint64_t>(at + 24),
            bytes_view(at + fixed_size, key_length)};
  }
};

/// TcpPut, TcpGet, Exists and Commit answered Ok.
struct generation_reply {
  std::uint64_t generation = 0;

  static constexpr std::size_t size = 8;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept { out.write(generation); }
  [[nodiscard]] static status decode(bytes_view variable, generation_reply& out) noexcept;
};

struct lookup_reply {
  std::uint64_t generation = 0;
  std::uint32_t value_crc32c = 0;
  std::uint64_t lease_token = 0; ///< 0 without the flag LEASE
  std::uint32_t lease_ms = 0;    ///< likewise

  static constexpr std::size_t size = 32;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, lookup_reply& out) noexcept;
};

struct stat_reply {
  std::uint64_t blocks = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t usable_bytes = 0;
  std::uint64_t uptime_ms = 0;
  std::uint32_t drives_online = 0;
  std::uint32_t drives_total = 0;

  static constexpr std::size_t size = 40;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, stat_reply& out) noexcept;
};

// --- batch requests ---

/// An item of TcpBatchDelete, BatchExists and Prefix.
struct batch_key {
  bytes_view key;

  static constexpr std::size_t fixed_size = 2;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status check(const std::byte*) noexcept { return status::ok; }
  [[nodiscard]] static batch_key load(const std::byte* at, std::size_t key_length) noexcept {
    return {bytes_view(at + fixed_size, key_length)};
  }
};

/// An item of TcpBatchPut.
struct batch_put_item {
  bool if_absent = false;
  std::uint32_t value_length = 0;
  digest16 digest{};
  bytes_view key;

  static constexpr std::size_t fixed_size = 24;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status check(const std::byte* at) noexcept;
  [[nodiscard]] static batch_put_item load(const std::byte* at, std::size_t key_length) noexcept;
};

/// The items of a received batch request, in order. Walk it with a range-for.
template <class Item>
class batch_view {
public:
  class iterator {
  public:
    using value_type = Item;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    using pointer = const Item*;
    using reference = Item;

    iterator() noexcept = default;
    explicit iterator(const std::byte* at) noexcept : at_(at) {}
    [[nodiscard]] Item operator*() const noexcept { return Item::load(at_, load_le<std::uint16_t>(at_)); }
    iterator& operator++() noexcept {
      at_ += Item::fixed_size + load_le<std::uint16_t>(at_);
      return *this;
    }
    iterator operator++(int) noexcept {
      iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator&, const iterator&) noexcept = default;

  private:
    const std::byte* at_ = nullptr;
  };

  [[nodiscard]] static status decode(bytes_view variable, batch_view& out) noexcept {
    return decode_behind(variable, 0, out, [](const std::byte*) {});
  }

  /// With `more` bytes between count and items, which `take` is given.
  template <class Take>
  [[nodiscard]] static status decode_behind(bytes_view variable, std::size_t more, batch_view& out,
                                            Take take) noexcept {
    const std::size_t front = 8 + more;
    if (variable.size() < front || load_le<std::uint32_t>(variable.data() + 4) != 0)
      return status::bad_request;
    const auto count = load_le<std::uint32_t>(variable.data());
    if (count == 0)
      return status::bad_request;
    if (count > limits::batch_items_max)
      return status::too_large;
    take(variable.data() + 8);
    bytes_view rest = variable.subspan(front);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (rest.size() < Item::fixed_size)
        return status::bad_request;
      const std::size_t key_length = load_le<std::uint16_t>(rest.data());
      if (key_length == 0)
        return status::bad_request;
      if (key_length > limits::key_bytes_max)
        return status::too_large;
      if (rest.size() - Item::fixed_size < key_length)
        return status::bad_request;
      if (const status checked = Item::check(rest.data()); checked != status::ok)
        return checked;
      rest = rest.subspan(Item::fixed_size + key_length);
    }
    if (!rest.empty())
      return status::bad_request;
    out.items_ = variable.subspan(front);
    out.count_ = count;
    return status::ok;
  }

  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] iterator begin() const noexcept { return iterator(items_.data()); }
  [[nodiscard]] iterator end() const noexcept { return iterator(items_.data() + items_.size()); }

private:
  bytes_view items_;
  std::uint32_t count_ = 0;
};

using batch_keys_view = batch_view<batch_key>;
using batch_get_view = batch_view<get_request>;

/// TcpBatchPut. Besides the items, the sum of their values' lengths is known and within
/// batch_payload_bytes_max; the caller compares it with the header's payload_length.
class batch_put_view : public batch_view<batch_put_item> {
public:
  [[nodiscard]] static status decode(bytes_view variable, batch_put_view& out) noexcept;
  [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return payload_bytes_; }

private:
  std::uint64_t payload_bytes_ = 0;
};

/// The sending side of a batch request; `items` is a view of the caller's.
template <class Item>
struct batch_request {
  std::span<const Item> items;

  [[nodiscard]] std::size_t encoded_size() const noexcept {
    std::size_t total = 8;
    for (const Item& item : items)
      total += item.encoded_size();
    return total;
  }
  void encode(byte_writer& out) const noexcept {
    out.write(static_cast<std::uint32_t>(items.size()));
    out.write_zeros(4);
    for (const Item& item : items)
      item.encode(out);
  }
};

// --- batch replies ---

struct batch_put_result {
  enum status status = status::ok;
  std::uint64_t generation = 0; ///< sent as 0 unless ok
};

/// TcpBatchPut's answer, to send.
struct batch_put_reply {
  std::span<const batch_put_result> results;

  [[nodiscard]] std::size_t encoded_size() const noexcept { return 8 + 16 * results.size(); }
  void encode(byte_writer& out) const noexcept;
};

/// TcpBatchPut's answer, received.
class batch_put_reply_view {
public:
  [[nodiscard]] static status decode(bytes_view variable, batch_put_reply_view& out) noexcept;
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] batch_put_result operator[](std::uint32_t i) const noexcept {
    return {status_from(std::to_integer<std::uint8_t>(results_[16 * i])),
            load_le<std::uint64_t>(results_.data() + 16 * i + 8)};
  }

private:
  bytes_view results_;
  std::uint32_t count_ = 0;
};

/// A piece of one item's value in a part of TcpBatchGet's answer.
struct batch_slice {
  std::uint32_t item = 0;
  enum status status = status::ok;
  bool last = false;
  std::uint64_t value_length = 0;
  std::uint64_t value_offset = 0;
  std::uint32_t length = 0; ///< bytes in this frame's payload
  digest16 digest{};

  static constexpr std::size_t size = 48;
};

/// One part of TcpBatchGet's answer, to send.
struct batch_get_reply {
  std::span<const batch_slice> slices;

  [[nodiscard]] std::size_t encoded_size() const noexcept { return 8 + batch_slice::size * slices.size(); }
  void encode(byte_writer& out) const noexcept;
};

/// One part of TcpBatchGet's answer, received. Checked within the part: lengths add up to payload_bytes(),
/// slices of an error are empty and last. What concerns several parts (offsets ascend, one last slice an
/// item) is the caller's.
class batch_get_reply_view {
public:
  [[nodiscard]] static status decode(bytes_view variable, batch_get_reply_view& out) noexcept;
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return payload_bytes_; }
  [[nodiscard]] batch_slice operator[](std::uint32_t i) const noexcept;

private:
  bytes_view slices_;
  std::uint32_t count_ = 0;
  std::uint64_t payload_bytes_ = 0;
};

/// TcpBatchDelete's answer, to send.
struct batch_delete_reply {
  std::span<const status> results;

  [[nodiscard]] std::size_t encoded_size() const noexcept { return 8 + results.size(); }
  void encode(byte_writer& out) const noexcept;
};

class batch_delete_reply_view {
public:
  [[nodiscard]] static status decode(bytes_view variable, batch_delete_reply_view& out) noexcept;
  [[nodiscard]] std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(results_.size()); }
  [[nodiscard]] status operator[](std::uint32_t i) const noexcept {
    return status_from(std::to_integer<std::uint8_t>(results_[i]));
  }

private:
  bytes_view results_;
};

struct batch_exists_result {
  enum status status = status::not_found;
  std::uint64_t value_length = 0; ///< 0 unless ok
};

/// BatchExists' answer, to send.
struct batch_exists_reply {
  std::span<const batch_exists_result> results;

  [[nodiscard]] std::size_t encoded_size() const noexcept { return 8 + 9 * results.size(); }
  void encode(byte_writer& out) const noexcept;
};

class batch_exists_reply_view {
public:
  [[nodiscard]] static status decode(bytes_view variable, batch_exists_reply_view& out) noexcept;
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] batch_exists_result operator[](std::uint32_t i) const noexcept {
    return {status_from(std::to_integer<std::uint8_t>(bytes_[i])),
            load_le<std::uint64_t>(bytes_.data() + count_ + std::size_t{8} * i)};
  }

private:
  bytes_view bytes_;
  std::uint32_t count_ = 0;
};

/// Prefix's answer, to send: the lengths of the blocks that are there, from the start of the chain without a
/// gap.
struct prefix_reply {
  std::span<const std::uint64_t> value_lengths;

  [[nodiscard]] std::size_t encoded_size() const noexcept { return 16 + 8 * value_lengths.size(); }
  void encode(byte_writer& out) const noexcept;
};

class prefix_reply_view {
public:
  [[nodiscard]] static status decode(bytes_view variable, prefix_reply_view& out) noexcept;
  [[nodiscard]] std::uint32_t matched() const noexcept { return matched_; }
  [[nodiscard]] std::uint64_t total_bytes() const noexcept { return total_bytes_; }
  [[nodiscard]] std::uint64_t value_length(std::uint32_t i) const noexcept {
    return load_le<std::uint64_t>(lengths_.data() + std::size_t{8} * i);
  }

private:
  bytes_view lengths_;
  std::uint32_t matched_ = 0;
  std::uint64_t total_bytes_ = 0;
};

// --- for RDMA ---

struct allocate_request {
  std::uint64_t value_length = 0;
  std::uint32_t lease_ms = 0;
  bytes_view key;

  static constexpr std::size_t fixed_size = 24;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, allocate_request& out) noexcept;
};

struct allocate_reply {
  std::uint64_t token = 0;
  std::uint32_t lease_ms = 0;

  static constexpr std::size_t size = 16;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, allocate_reply& out) noexcept;
};

/// Write (`token` is Allocate's) and Read (`token` is the lease's).
struct transfer_request {
  std::uint64_t token = 0;
  std::uint64_t value_offset = 0;
  std::uint64_t length = 0;
  std::uint64_t client_address = 0;
  std::uint32_t rkey = 0;

  static constexpr std::size_t size = 40;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  /// A range that wraps around or ends behind value_bytes_max is too_large.
  [[nodiscard]] static status decode(bytes_view variable, transfer_request& out) noexcept;
};

struct commit_request {
  std::uint64_t token = 0;
  bool if_absent = false;
  std::uint64_t value_length = 0;
  digest16 digest{};

  static constexpr std::size_t size = 40;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, commit_request& out) noexcept;
};

/// Read's answer: the digest of what was placed.
struct read_reply {
  digest16 digest{};

  static constexpr std::size_t size = 16;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept { out.write_bytes(digest); }
  [[nodiscard]] static status decode(bytes_view variable, read_reply& out) noexcept;
};

/// TcpDetach's request.
struct session_message {
  std::uint64_t session_id = 0;

  static constexpr std::size_t size = 8;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept { out.write(session_id); }
  [[nodiscard]] static status decode(bytes_view variable, session_message& out) noexcept;
};

} // namespace memkv::wire
