#include "wire/header.hpp"

#include <algorithm>

namespace memkv::wire {

namespace {

struct opcode_facts {
  opcode code;
  std::string_view text;
  bool mutates;
  bool payload;
};

constexpr opcode_facts all_opcodes[] = {
    {opcode::hello, "Hello", false, false},
    {opcode::allocate, "Allocate", true, false},
    {opcode::lookup, "Lookup", false, false},
    {opcode::commit, "Commit", true, false},
    {opcode::erase, "Delete", true, false},
    {opcode::connect, "Connect", false, false},
    {opcode::read, "Read", false, false},
    {opcode::write, "Write", true, false},
    {opcode::batch_read, "BatchRead", false, false},
    {opcode::batch_write, "BatchWrite", true, false},
    {opcode::exists, "Exists", false, false},
    {opcode::tcp_attach, "TcpAttach", false, false},
    {opcode::tcp_detach, "TcpDetach", false, false},
    {opcode::prefix, "Prefix", false, false},
    {opcode::ping, "Ping", false, false},
    {opcode::stat, "Stat", false, false},
    {opcode::tcp_put, "TcpPut", true, true},
    {opcode::tcp_get, "TcpGet", false, false},
    {opcode::tcp_delete, "TcpDelete", true, false},
    {opcode::tcp_batch_put, "TcpBatchPut", true, true},
    {opcode::tcp_batch_get, "TcpBatchGet", false, false},
    {opcode::tcp_batch_delete, "TcpBatchDelete", true, false},
    {opcode::batch_exists, "BatchExists", false, false},
};

// By number, so that a look-up costs one load.
constexpr std::array<const opcode_facts*, 256> by_number = [] {
  std::array<const opcode_facts*, 256> table{};
  for (const opcode_facts& facts : all_opcodes)
    table[static_cast<std::uint8_t>(facts.code)] = &facts;
  return table;
}();

const opcode_facts* facts_of(opcode code) noexcept {
  return by_number[static_cast<std::uint8_t>(code)];
}

/// What a request of this kind may have set.
std::uint32_t flags_of(opcode code) noexcept {
  switch (code) {
  case opcode::tcp_put:
    return flags::if_absent;
  case opcode::lookup:
    return flags::lease; // that it is a queue pair's is looked at by who knows
  case opcode::read:
    return flags::release;
  default:
    return 0;
  }
}

} // namespace

bool known(opcode code) noexcept {
  return facts_of(code) != nullptr;
}

std::string_view name(opcode code) noexcept {
  const opcode_facts* facts = facts_of(code);
  return facts == nullptr ? "Unknown" : facts->text;
}

bool mutates(opcode code) noexcept {
  const opcode_facts* facts = facts_of(code);
  return facts != nullptr && facts->mutates;
}

bool request_has_payload(opcode code) noexcept {
  const opcode_facts* facts = facts_of(code);
  return facts != nullptr && facts->payload;
}

std::string_view name(header_fault fault) noexcept {
  switch (fault) {
  case header_fault::none:
    return "none";
  case header_fault::version_zero:
    return "version_zero";
  case header_fault::reserved_not_zero:
    return "reserved_not_zero";
  case header_fault::unknown_flag:
    return "unknown_flag";
  case header_fault::status_in_request:
    return "status_in_request";
  case header_fault::bad_namespace:
    return "bad_namespace";
  case header_fault::bad_digest_kind:
    return "bad_digest_kind";
  case header_fault::part_in_request:
    return "part_in_request";
  case header_fault::value_fields_in_request:
    return "value_fields_in_request";
  case header_fault::digest_without_payload:
    return "digest_without_payload";
  case header_fault::payload_not_expected:
    return "payload_not_expected";
  case header_fault::deadline_in_reply:
    return "deadline_in_reply";
  case header_fault::namespace_in_reply:
    return "namespace_in_reply";
  case header_fault::id_zero:
    return "id_zero";
  }
  return "none";
}

frozen_fault check_frozen(bytes_view first_32, direction expected, std::uint32_t header_bytes_max,
                          std::uint64_t payload_bytes_max, frozen_part& out) noexcept {
  const std::byte* at = first_32.data();
  if (load_le<std::uint32_t>(at) != frame_magic)
    return frozen_fault::bad_magic;
  if (at[5] != static_cast<std::byte>(expected))
    return frozen_fault::bad_direction;
  out.header_length = load_le<std::uint32_t>(at + 8);
  out.payload_length = load_le<std::uint64_t>(at + 16);
  if (out.header_length < limits::fixed_header_bytes || out.header_length > header_bytes_max ||
      out.payload_length > payload_bytes_max)
    return frozen_fault::bad_length;
  return frozen_fault::none;
}

header_fault decode_header(bytes_view fixed, frame_header& out) noexcept {
  const std::byte* at = fixed.data();
  out.version = std::to_integer<std::uint8_t>(at[4]);
  out.direction = static_cast<direction>(at[5]);
  out.opcode = static_cast<opcode>(at[6]);
  out.status_code = std::to_integer<std::uint8_t>(at[7]);
  out.header_length = load_le<std::uint32_t>(at + 8);
  out.payload_length = load_le<std::uint64_t>(at + 16);
  out.request_id = load_le<std::uint64_t>(at + 24);
  out.flags = load_le<std::uint32_t>(at + 32);
  out.deadline_ms = load_le<std::uint32_t>(at + 36);
  std::copy_n(at + 40, out.tag.size(), out.tag.begin());
  const std::optional<ns_name> ns = ns_name::from_field(
      std::span<const std::byte, limits::namespace_bytes_max>(at + 56, limits::namespace_bytes_max));
  out.ns = ns.value_or(ns_name());
  const auto kind = std::to_integer<std::uint8_t>(at[88]);
  // Who says Hello has no payload key yet.
  const bool greets = out.opcode == opcode::hello && out.direction == direction::request;
  const bool kind_known = kind == 1 || (kind == 2 && !greets);
  out.kind = kind_known ? static_cast<digest_kind>(kind) : digest_kind::crc32c;
  out.part_number = load_le<std::uint32_t>(at + 92);
  std::copy_n(at + 96, out.digest.size(), out.digest.begin());
  out.value_length = load_le<std::uint64_t>(at + 112);
  out.value_offset = load_le<std::uint64_t>(at + 120);

  if (out.version == 0)
    return header_fault::version_zero;
  if (load_le<std::uint32_t>(at + 12) != 0 || !all_zero(fixed.subspan(89, 3)))
    return header_fault::reserved_not_zero;
  if (!ns)
    return header_fault::bad_namespace;
  if (!kind_known)
    return header_fault::bad_digest_kind;
  if (out.request_id == 0)
    return header_fault::id_zero;
  if (out.payload_length == 0 && !all_zero(out.digest))
    return header_fault::digest_without_payload;
  if (out.direction == direction::request) {
    if ((out.flags & ~flags_of(out.opcode)) != 0)
      return header_fault::unknown_flag;
    if (out.status_code != 0)
      return header_fault::status_in_request;
    if (out.part_number != 0)
      return header_fault::part_in_request;
    if (out.value_length != 0 || out.value_offset != 0)
      return header_fault::value_fields_in_request;
    if (out.payload_length != 0 && known(out.opcode) && !request_has_payload(out.opcode))
      return header_fault::payload_not_expected;
    // Each item of a batch has its own digest.
    if (out.opcode == opcode::tcp_batch_put && !all_zero(out.digest))
      return header_fault::digest_without_payload;
  } else {
    if ((out.flags & ~flags::last) != 0)
      return header_fault::unknown_flag;
    if (out.deadline_ms != 0)
      return header_fault::deadline_in_reply;
    if (!out.ns.text().empty())
      return header_fault::namespace_in_reply;
  }
  return header_fault::none;
}

void encode_header(const frame_header& header, std::span<std::byte, limits::fixed_header_bytes> to) noexcept {
  std::byte* at = to.data();
  store_le(at, frame_magic);
  at[4] = static_cast<std::byte>(header.version);
  at[5] = static_cast<std::byte>(header.direction);
  at[6] = static_cast<std::byte>(header.opcode);
  at[7] = static_cast<std::byte>(header.status_code);
  store_le(at + 8, header.header_length);
  store_le(at + 12, std::uint32_t{0});
  store_le(at + 16, header.payload_length);
  store_le(at + 24, header.request_id);
  store_le(at + 32, header.flags);
  store_le(at + 36, header.deadline_ms);
  std::copy(header.tag.begin(), header.tag.end(), at + 40);
  const auto field = header.ns.field();
  std::copy(field.begin(), field.end(), at + 56);
  // The kind and three zero bytes.
  store_le(at + 88, static_cast<std::uint32_t>(header.kind));
  store_le(at + 92, header.part_number);
  std::copy(header.digest.begin(), header.digest.end(), at + 96);
  store_le(at + 112, header.value_length);
  store_le(at + 120, header.value_offset);
}

} // namespace memkv::wire
