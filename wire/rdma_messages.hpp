// Layouts of the messages that open RDMA sessions and move values through them. Normative text:
// docs/formats/wire.md, section 17. Rules as in messages.hpp.
#pragma once

#include "wire/messages.hpp"

#include <array>
#include <cstdint>
#include <span>

namespace memkv::wire {

enum class rdma_kind : std::uint8_t { rc = 1, dc = 2 };

/// How one side's queue pair or DC target is reached.
struct rdma_address {
  rdma_kind kind = rdma_kind::rc;
  std::uint32_t path_mtu = 0; ///< bytes
  std::array<std::uint8_t, 16> gid{};
  std::uint16_t lid = 0;
  std::uint32_t number = 0;           ///< 24 bits
  std::uint32_t packet_number = 0;    ///< 24 bits; RC
  std::uint32_t reads_served_max = 0; ///< RC
  std::uint64_t dc_key = 0;           ///< DC

  static constexpr std::size_t size = 56;
  [[nodiscard]] static constexpr std::size_t encoded_size() noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, rdma_address& out) noexcept;
  friend bool operator==(const rdma_address&, const rdma_address&) = default;
};

struct attach_request {
  std::uint32_t rail = 0;
  rdma_address client;

  static constexpr std::size_t size = 8 + rdma_address::size;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, attach_request& out) noexcept;
};

struct attach_reply {
  std::uint64_t session_id = 0;
  std::uint32_t transfer_bytes_max = 0;
  rdma_address server;

  static constexpr std::size_t size = 16 + rdma_address::size;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, attach_reply& out) noexcept;
};

struct connect_request {
  std::uint32_t messages_max = 0;
  std::uint32_t message_bytes_max = 0;
  rdma_address client;

  static constexpr std::size_t size = 8 + rdma_address::size;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, connect_request& out) noexcept;
};

struct connect_reply {
  std::uint64_t session_id = 0;
  std::uint32_t messages_max = 0;
  std::uint32_t message_bytes_max = 0;
  std::array<std::byte, 16> nonce{};
  rdma_address server;

  static constexpr std::size_t size = 32 + rdma_address::size;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return size; }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status decode(bytes_view variable, connect_reply& out) noexcept;
};

/// One item of BatchWrite.
struct batch_write_item {
  bool if_absent = false;
  std::uint32_t rkey = 0;
  std::uint64_t client_address = 0;
  std::uint32_t value_length = 0;
  digest16 digest{};
  bytes_view key;

  static constexpr std::size_t fixed_size = 40;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status check(const std::byte* at) noexcept;
  [[nodiscard]] static batch_write_item load(const std::byte* at, std::size_t key_length) noexcept;
};

/// One item of BatchRead.
struct batch_read_item {
  std::uint32_t rkey = 0;
  std::uint64_t client_address = 0;
  std::uint64_t range_offset = 0;
  std::uint64_t range_length = 0;
  std::uint64_t capacity = 0;
  bytes_view key;

  static constexpr std::size_t fixed_size = 40;
  [[nodiscard]] std::size_t encoded_size() const noexcept { return fixed_size + key.size(); }
  void encode(byte_writer& out) const noexcept;
  [[nodiscard]] static status check(const std::byte* at) noexcept;
  [[nodiscard]] static batch_read_item load(const std::byte* at, std::size_t key_length) noexcept;
};

/// A received BatchWrite or BatchRead: a batch with a session in front of the items.
template <class Item>
class session_batch_view : public batch_view<Item> {
public:
  [[nodiscard]] static status decode(bytes_view variable, session_batch_view& out) noexcept {
    return batch_view<Item>::decode_behind(
        variable, 8, out, [&](const std::byte* at) { out.session_id_ = load_le<std::uint64_t>(at); });
  }
  [[nodiscard]] std::uint64_t session_id() const noexcept { return session_id_; }

private:
  std::uint64_t session_id_ = 0;
};

using batch_write_view = session_batch_view<batch_write_item>;
using batch_read_view = session_batch_view<batch_read_item>;

/// The sending side of the same.
template <class Item>
struct session_batch_request {
  std::uint64_t session_id = 0;
  std::span<const Item> items;

  [[nodiscard]] std::size_t encoded_size() const noexcept {
    std::size_t total = 16;
    for (const Item& item : items)
      total += item.encoded_size();
    return total;
  }
  void encode(byte_writer& out) const noexcept {
    out.write(static_cast<std::uint32_t>(items.size()));
    out.write_zeros(4);
    out.write(session_id);
    for (const Item& item : items)
      item.encode(out);
  }
};

// BatchWrite is answered by a batch_put_reply.

/// Of one item of BatchRead.
struct batch_read_result {
  enum status status = status::ok;
  std::uint64_t value_length = 0;
  std::uint64_t length = 0;
  digest16 digest{};

  static constexpr std::size_t size = 40;
};

struct batch_read_reply {
  std::span<const batch_read_result> results;

  [[nodiscard]] std::size_t encoded_size() const noexcept {
    return 8 + batch_read_result::size * results.size();
  }
  void encode(byte_writer& out) const noexcept;
};

class batch_read_reply_view {
public:
  [[nodiscard]] static status decode(bytes_view variable, batch_read_reply_view& out) noexcept;
  [[nodiscard]] std::uint32_t size() const noexcept { return count_; }
  [[nodiscard]] batch_read_result operator[](std::uint32_t i) const noexcept;

private:
  bytes_view results_;
  std::uint32_t count_ = 0;
};

} // namespace memkv::wire
