// The fixed part of a frame's header and the trailer. Normative text: docs/formats/wire.md, sections 3 and 4.
//
// Threading: pure functions. Ownership: frame_header is a value without pointers. Errors: enums.
// Does not: check a MAC, a time or a connection (request_reader and reply_reader do), or read variable parts
// (messages).
#pragma once

#include "wire/auth.hpp"
#include "wire/bytes.hpp"
#include "wire/key_id.hpp"
#include "wire/limits.hpp"
#include "wire/status.hpp"

#include <array>
#include <cstdint>
#include <string_view>

namespace memkv::wire {

/// "MKVF", as the first four bytes lie on the wire.
inline constexpr std::uint32_t frame_magic = 0x46564B4D;

/// Embedded in frames, as all enums here: never change a number.
enum class direction : std::uint8_t { request = 1, reply = 2 };

enum class opcode : std::uint8_t {
  hello = 0x01,
  allocate = 0x02,
  lookup = 0x03,
  commit = 0x04,
  erase = 0x05, // "Delete"
  connect = 0x06,
  read = 0x07,
  write = 0x08,
  batch_read = 0x09,
  batch_write = 0x0A,
  exists = 0x0B,
  tcp_attach = 0x0C,
  tcp_detach = 0x0D,
  prefix = 0x0E,
  ping = 0x0F,
  stat = 0x10,
  tcp_put = 0x20,
  tcp_get = 0x21,
  tcp_delete = 0x22,
  tcp_batch_put = 0x23,
  tcp_batch_get = 0x24,
  tcp_batch_delete = 0x25,
  batch_exists = 0x26,
};

[[nodiscard]] bool known(opcode code) noexcept;
/// The name used in the protocol's text, "Unknown" for others.
[[nodiscard]] std::string_view name(opcode code) noexcept;
/// Whether a request of this kind may change the store: giving up on one closes the connection.
[[nodiscard]] bool mutates(opcode code) noexcept;
/// Whether a request of this kind may carry a payload.
[[nodiscard]] bool request_has_payload(opcode code) noexcept;

enum class digest_kind : std::uint8_t { crc32c = 1, keyed = 2 };

namespace flags {
/// Replies: this is the last or only frame of the reply.
inline constexpr std::uint32_t last = 1;
/// TcpPut: store only if no such block exists.
inline constexpr std::uint32_t if_absent = 2;
/// Lookup on a queue pair: the block is pinned for a while, for Reads.
inline constexpr std::uint32_t lease = 4;
/// Read: the lease ends with it.
inline constexpr std::uint32_t release = 8;
} // namespace flags

/// The fixed part, decoded. `header_length` is set by the encoder of a frame from its variable part.
struct frame_header {
  std::uint8_t version = limits::version;
  enum direction direction = direction::request;
  enum opcode opcode = opcode::ping;
  std::uint8_t status_code = 0;
  std::uint32_t header_length = limits::fixed_header_bytes;
  std::uint64_t payload_length = 0;
  std::uint64_t request_id = 0;
  std::uint32_t flags = 0;
  std::uint32_t deadline_ms = 0;
  connection_tag tag{};
  ns_name ns{};
  digest_kind kind = digest_kind::crc32c;
  std::uint32_t part_number = 0;
  digest16 digest{};
  std::uint64_t value_length = 0;
  std::uint64_t value_offset = 0;

  [[nodiscard]] enum status status() const noexcept { return status_from(status_code); }
  [[nodiscard]] bool last() const noexcept { return (flags & flags::last) != 0; }
  [[nodiscard]] bool if_absent() const noexcept { return (flags & flags::if_absent) != 0; }
  [[nodiscard]] bool lease() const noexcept { return (flags & flags::lease) != 0; }
  [[nodiscard]] bool release() const noexcept { return (flags & flags::release) != 0; }

  friend bool operator==(const frame_header&, const frame_header&) noexcept = default;
};

/// What the first 32 bytes tell, whatever the version.
struct frozen_part {
  std::uint32_t header_length = 0;
  std::uint64_t payload_length = 0;
};

enum class frozen_fault : std::uint8_t { none, bad_magic, bad_direction, bad_length };

/// Checks 1 and 2 of section 5 on at least 32 bytes. `payload_bytes_max` is value_bytes_max for requests,
/// part_bytes_max for replies.
[[nodiscard]] frozen_fault check_frozen(bytes_view first_32, direction expected,
                                        std::uint32_t header_bytes_max, std::uint64_t payload_bytes_max,
                                        frozen_part& out) noexcept;

/// What makes a frame malformed although its sender is known.
enum class header_fault : std::uint8_t {
  none,
  version_zero,
  reserved_not_zero,
  unknown_flag,
  status_in_request,
  bad_namespace,
  bad_digest_kind,
  part_in_request,
  value_fields_in_request,
  digest_without_payload,
  payload_not_expected,
  deadline_in_reply,
  namespace_in_reply,
  id_zero,
};
[[nodiscard]] std::string_view name(header_fault fault) noexcept;

/// Decodes the fixed part from at least 128 bytes. All fields that can be represented are set even when a
/// fault is returned, so that a BadRequest can be addressed; `ns` and `kind` keep their defaults when they
/// are the fault.
[[nodiscard]] header_fault decode_header(bytes_view fixed, frame_header& out) noexcept;

/// Encodes the fixed part into exactly 128 bytes.
void encode_header(const frame_header& header, std::span<std::byte, limits::fixed_header_bytes> to) noexcept;

} // namespace memkv::wire
