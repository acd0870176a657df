#include "wire/rdma_messages.hpp"

#include <algorithm>

namespace memkv::wire {

namespace {

constexpr std::uint32_t number_max = (1U << 24U) - 1;
constexpr std::uint32_t messages_most = 1024;
constexpr std::uint32_t message_bytes_least = 512, message_bytes_most = 64U << 10U;

bool mtu_known(std::uint32_t bytes) noexcept {
  return bytes == 256 || bytes == 512 || bytes == 1024 || bytes == 2048 || bytes == 4096;
}

bool wraps(std::uint64_t address, std::uint64_t length) noexcept {
  return address + length < address;
}

/// What is left of `in`, which is an address and nothing else.
status take_address(byte_reader& in, rdma_address& out) noexcept {
  return rdma_address::decode(in.read_bytes(rdma_address::size), out);
}

status outcome(const byte_reader& in, status address) noexcept {
  return in.finished() ? address : status::bad_request;
}

} // namespace

void rdma_address::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint8_t>(kind));
  out.write_zeros(3);
  out.write(path_mtu);
  out.write_bytes(std::as_bytes(std::span{gid}));
  out.write(lid);
  out.write_zeros(2);
  out.write(number);
  out.write(packet_number);
  out.write(reads_served_max);
  out.write(dc_key);
  out.write_zeros(8);
}

status rdma_address::decode(bytes_view variable, rdma_address& out) noexcept {
  byte_reader in(variable);
  const auto kind = in.read<std::uint8_t>();
  in.read_zeros(3);
  out.path_mtu = in.read<std::uint32_t>();
  const auto gid = in.read_bytes(out.gid.size());
  out.lid = in.read<std::uint16_t>();
  in.read_zeros(2);
  out.number = in.read<std::uint32_t>();
  out.packet_number = in.read<std::uint32_t>();
  out.reads_served_max = in.read<std::uint32_t>();
  out.dc_key = in.read<std::uint64_t>();
  in.read_zeros(8);
  if (!in.finished() || (kind != 1 && kind != 2))
    return status::bad_request;
  std::transform(gid.begin(), gid.end(), out.gid.begin(),
                 [](std::byte each) { return std::to_integer<std::uint8_t>(each); });
  out.kind = static_cast<rdma_kind>(kind);
  const bool rc = out.kind == rdma_kind::rc;
  const bool fits = mtu_known(out.path_mtu) && out.number <= number_max && out.packet_number <= number_max &&
                    (rc ? out.reads_served_max > 0 && out.dc_key == 0
                        : out.packet_number == 0 && out.reads_served_max == 0);
  return fits ? status::ok : status::bad_request;
}

void attach_request::encode(byte_writer& out) const noexcept {
  out.write(rail);
  out.write_zeros(4);
  client.encode(out);
}

status attach_request::decode(bytes_view variable, attach_request& out) noexcept {
  byte_reader in(variable);
  out.rail = in.read<std::uint32_t>();
  in.read_zeros(4);
  const auto address = take_address(in, out.client);
  return outcome(in, address);
}

void attach_reply::encode(byte_writer& out) const noexcept {
  out.write(session_id);
  out.write(transfer_bytes_max);
  out.write_zeros(4);
  server.encode(out);
}

status attach_reply::decode(bytes_view variable, attach_reply& out) noexcept {
  byte_reader in(variable);
  out.session_id = in.read<std::uint64_t>();
  out.transfer_bytes_max = in.read<std::uint32_t>();
  in.read_zeros(4);
  const auto address = take_address(in, out.server);
  return out.session_id == 0 ? status::bad_request : outcome(in, address);
}

void connect_request::encode(byte_writer& out) const noexcept {
  out.write(messages_max);
  out.write(message_bytes_max);
  client.encode(out);
}

status connect_request::decode(bytes_view variable, connect_request& out) noexcept {
  byte_reader in(variable);
  out.messages_max = in.read<std::uint32_t>();
  out.message_bytes_max = in.read<std::uint32_t>();
  const auto address = take_address(in, out.client);
  const bool fits = out.messages_max > 0 && out.messages_max <= messages_most &&
                    out.message_bytes_max >= message_bytes_least &&
                    out.message_bytes_max <= message_bytes_most && out.client.kind == rdma_kind::rc;
  return fits ? outcome(in, address) : status::bad_request;
}

void connect_reply::encode(byte_writer& out) const noexcept {
  out.write(session_id);
  out.write(messages_max);
  out.write(message_bytes_max);
  out.write_bytes(nonce);
  server.encode(out);
}

status connect_reply::decode(bytes_view variable, connect_reply& out) noexcept {
  byte_reader in(variable);
  out.session_id = in.read<std::uint64_t>();
  out.messages_max = in.read<std::uint32_t>();
  out.message_bytes_max = in.read<std::uint32_t>();
  const auto nonce = in.read_bytes(out.nonce.size());
  std::copy(nonce.begin(), nonce.end(), out.nonce.begin());
  const auto address = take_address(in, out.server);
  return out.session_id == 0 || out.server.kind != rdma_kind::rc ? status::bad_request : outcome(in, address);
}

void batch_write_item::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write(static_cast<std::uint8_t>(if_absent ? 1 : 0));
  out.write_zeros(1);
  out.write(rkey);
  out.write(client_address);
  out.write(value_length);
  out.write_zeros(4);
  out.write_bytes(digest);
  out.write_bytes(key);
}

status batch_write_item::check(const std::byte* at) noexcept {
  const bool flags_known = (at[2] & ~std::byte{1}) == std::byte{0};
  const bool reserved_zero = at[3] == std::byte{0} && load_le<std::uint32_t>(at + 20) == 0;
  const auto length = load_le<std::uint32_t>(at + 16);
  const bool digest_fits = length != 0 || all_zero(bytes_view(at + 24, 16));
  const bool fits =
      flags_known && reserved_zero && digest_fits && !wraps(load_le<std::uint64_t>(at + 8), length);
  return fits ? status::ok : status::bad_request;
}

batch_write_item batch_write_item::load(const std::byte* at, std::size_t key_length) noexcept {
  batch_write_item item;
  item.if_absent = at[2] == std::byte{1};
  item.rkey = load_le<std::uint32_t>(at + 4);
  item.client_address = load_le<std::uint64_t>(at + 8);
  item.value_length = load_le<std::uint32_t>(at + 16);
  std::copy_n(at + 24, item.digest.size(), item.digest.begin());
  item.key = bytes_view(at + fixed_size, key_length);
  return item;
}

void batch_read_item::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint16_t>(key.size()));
  out.write_zeros(2);
  out.write(rkey);
  out.write(client_address);
  out.write(range_offset);
  out.write(range_length);
  out.write(capacity);
  out.write_bytes(key);
}

status batch_read_item::check(const std::byte* at) noexcept {
  const bool fits = load_le<std::uint16_t>(at + 2) == 0 &&
                    !wraps(load_le<std::uint64_t>(at + 8), load_le<std::uint64_t>(at + 32));
  return fits ? status::ok : status::bad_request;
}

batch_read_item batch_read_item::load(const std::byte* at, std::size_t key_length) noexcept {
  batch_read_item item;
  item.rkey = load_le<std::uint32_t>(at + 4);
  item.client_address = load_le<std::uint64_t>(at + 8);
  item.range_offset = load_le<std::uint64_t>(at + 16);
  item.range_length = load_le<std::uint64_t>(at + 24);
  item.capacity = load_le<std::uint64_t>(at + 32);
  item.key = bytes_view(at + fixed_size, key_length);
  return item;
}

void batch_read_reply::encode(byte_writer& out) const noexcept {
  out.write(static_cast<std::uint32_t>(results.size()));
  out.write_zeros(4);
  for (const batch_read_result& result : results) {
    out.write(static_cast<std::uint8_t>(result.status));
    out.write_zeros(7);
    out.write(result.value_length);
    out.write(result.length);
    out.write_bytes(result.digest);
  }
}

status batch_read_reply_view::decode(bytes_view variable, batch_read_reply_view& out) noexcept {
  byte_reader in(variable);
  out.count_ = in.read<std::uint32_t>();
  in.read_zeros(4);
  if (out.count_ == 0 || out.count_ > limits::batch_items_max)
    return status::bad_request;
  out.results_ = in.read_bytes(batch_read_result::size * out.count_);
  if (!in.finished())
    return status::bad_request;
  for (std::size_t at = 0; at < out.results_.size(); at += batch_read_result::size) {
    const auto length = load_le<std::uint64_t>(out.results_.data() + at + 16);
    const bool is_ok = out.results_[at] == std::byte{0};
    if (!all_zero(out.results_.subspan(at + 1, 7)) || (!is_ok && length != 0) ||
        (length == 0 && !all_zero(out.results_.subspan(at + 24, 16))))
      return status::bad_request;
  }
  return status::ok;
}

batch_read_result batch_read_reply_view::operator[](std::uint32_t i) const noexcept {
  const auto* at = results_.data() + batch_read_result::size * i;
  batch_read_result out;
  out.status = status_from(std::to_integer<std::uint8_t>(*at));
  out.value_length = load_le<std::uint64_t>(at + 8);
  out.length = load_le<std::uint64_t>(at + 16);
  std::copy_n(at + 24, out.digest.size(), out.digest.begin());
  return out;
}

} // namespace memkv::wire
